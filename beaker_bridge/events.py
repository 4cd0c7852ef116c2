"""The events that an application can subscribe to with ``config.add_subscriber``.

A session's event carries its id (keep it out of logs: it opens the session) and the data it held; a store's carries
neither. ``docs/reference/events.rst`` says how they are sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


class SessionEvent:
    """The root of the session events.

    Args:
        session_id: the id of the session's record.
        data: what the application had put there, as far as the store still knew.
    """

    def __init__(self, session_id: str, data: Mapping[str, Any]) -> None:
        self.session_id = session_id
        self.data = data


class SessionExpired(SessionEvent):
    """A request brought the id of an expired session; the record is deleted."""


class SessionInvalidated(SessionEvent):
    """``invalidate()`` or ``delete()`` was committed; the record is deleted."""


class SessionRevoked(SessionEvent):
    """A session was ended from elsewhere: by ``revoke()`` or ``revoke_one()``, or by a login over the limit.

    Args:
        session_id: the id of the session's record.
        data: what the application had put there, as far as the store still knew.
        reason: ``"revoked"`` or ``"limit"``.
    """

    def __init__(self, session_id: str, data: Mapping[str, Any], reason: str) -> None:
        super().__init__(session_id, data)
        self.reason = reason


class SessionMerged(SessionEvent):
    """A commit found another request's changes in the store and merged them; ``data`` is the outcome.

    Args:
        session_id: the id of the session's record.
        data: what the application had put there, as far as the store still knew.
        conflicts: the top-level keys in which the change of one of the requests was given up.
        tries: the number of times that the record was written, or was to be written, until that was done.
    """

    def __init__(
        self, session_id: str, data: Mapping[str, Any], conflicts: Collection[str] = frozenset(), tries: int = 1
    ) -> None:
        super().__init__(session_id, data)
        self.conflicts = frozenset(conflicts)
        self.tries = tries


class SessionNotSaved(SessionEvent):
    """A request's changes were given up; ``data`` is what they had made of the session.

    Args:
        session_id: the id of the session's record.
        data: what the application had put there, as far as the store still knew.
        reason: ``ended`` if another request has ended or moved the session meanwhile, and this one goes on without;
            ``conflict`` if others changed it, or held its lock, for too long, and this one gets a
            :class:`SessionConflictError`.
        tries: the number of times that the record was to be written, if that was counted.
    """

    def __init__(self, session_id: str, data: Mapping[str, Any], reason: str, tries: int | None = None) -> None:
        super().__init__(session_id, data)
        self.reason = reason
        self.tries = tries


class StoreEvent:
    """The root of the events of a session store.

    Args:
        store: the type of the store, as the option ``type`` has it.
    """

    def __init__(self, store: str) -> None:
        self.store = store


class StoreFailed(StoreEvent):
    """A session could not be loaded or saved, because of the store, or a purge or a user's list was cut short.

    Args:
        store: the type of the store, as the option ``type`` has it.
        failure: what failed: ``unavailable``, ``connection_lost``, ``breaker_open`` or ``refused``.
        step: what failed: ``load``, ``expire``, ``commit``, ``touch``, ``exclusive``, ``purge`` or ``users``.
        error: the error; it may be raised, or the request may go on without its session.
    """

    def __init__(self, store: str, failure: str, step: str, error: Exception) -> None:
        super().__init__(store)
        self.failure = failure
        self.step = step
        self.error = error


class BreakerOpened(StoreEvent):
    """A server could not be reached: for a second, and then until it answers a probe, requests fail at once.

    Args:
        store: the type of the store, as the option ``type`` has it.
        server: the server's name and port, of a store that has several; else an empty string.
        failure: what failed, as :class:`StoreFailed`'s.
        error: the error.
    """

    def __init__(self, store: str, server: str, failure: str, error: Exception) -> None:
        super().__init__(store)
        self.server = server
        self.failure = failure
        self.error = error


class BreakerClosed(StoreEvent):
    """A server answers again.

    Args:
        store: the type of the store, as the option ``type`` has it.
        server: the server's name and port, of a store that has several; else an empty string.
        seconds: the time since the breaker has opened.
    """

    def __init__(self, store: str, server: str, seconds: float) -> None:
        super().__init__(store)
        self.server = server
        self.seconds = seconds
