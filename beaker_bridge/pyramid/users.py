"""A user's sessions, asked for and ended by a request."""

from __future__ import annotations

from typing import Any

from beaker_bridge.exceptions import BeakerBridgeError
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.record.fields import INDEX, LOGIN
from beaker_bridge.session.login import UserSession
from beaker_bridge.session.users import UserIndex


def user_sessions(request: Any, user_id: str | int) -> list[UserSession]:
    """Return a user's sessions, as ``bind()`` has begun them, the one seen last first.

    Args:
        request: the request, whose own session is marked as the current one.
        user_id: the user's id.

    Raises:
        BeakerBridgeError: sessions are in cookies, or ``request.session`` is not this package's.
        DamagedRecordError: the index of the user's sessions cannot be read.
        SessionStoreError: the store cannot be reached.
        SettingsError: there is no ``secret``.
    """
    session = _session_of(request)
    return _index_of(session).sessions(user_id, session._loaded._metadata.get(LOGIN))


def revoke(request: Any, user_id: str | int, except_current: bool = False) -> int:
    """End a user's sessions, at once, and against requests that are under way.

    It does not wait for the request's end, and stays if the request fails. Where the request's own session is among
    them, the request goes on with a new, empty one.

    Args:
        request: the request.
        user_id: the user's id.
        except_current: whether the request's own session stays.

    Returns:
        How many sessions were ended.

    Raises:
        BeakerBridgeError: sessions are in cookies, or ``request.session`` is not this package's.
        DamagedRecordError: the index of the user's sessions cannot be read.
        SessionConflictError: other requests changed it each time, for ``store_timeout`` seconds.
        SessionStoreError: the store cannot be reached; some sessions may have ended: call it again.
        SettingsError: there is no ``secret``.
    """
    session = _session_of(request)
    index, metadata = _index_of(session), session._loaded._metadata
    number = index.revoke(user_id, spare=metadata.get(LOGIN) if except_current else None)
    if not except_current and metadata.get(INDEX) in index.ids_for(user_id):
        _begin_anew(session)
    return number


def revoke_one(request: Any, handle: str) -> bool:
    """End one of a user's sessions, at once, as :func:`revoke` does.

    A handle cannot be guessed, and ``user_sessions()`` gives out only those of the user it is asked for. An application
    that takes one from a form still has to know that its sender may end it.

    Args:
        request: the request.
        handle: the handle, from ``user_sessions()``.

    Returns:
        Whether there was such a session.

    Raises:
        BeakerBridgeError: what :func:`revoke` raises.
    """
    session = _session_of(request)
    index, metadata = _index_of(session), session._loaded._metadata
    is_own = (metadata.get(INDEX), metadata.get(LOGIN)) in index.named_by(handle)
    has_ended = index.revoke_one(handle)
    if is_own:
        _begin_anew(session)
    return has_ended


def _session_of(request: Any) -> PyramidSession:
    session = request.session
    if not isinstance(session, PyramidSession):
        raise BeakerBridgeError(
            f"request.session is a {type(session).__name__}, and not of beaker_bridge: another session factory is set"
        )
    return session


def _index_of(session: PyramidSession) -> UserIndex:
    return UserIndex(session._exchange.config, session._exchange.notify)


def _begin_anew(session: PyramidSession) -> None:
    """Go on with a new session, unless the request is over."""
    if not session._exchange.over:
        session.invalidate()
