"""The sessions of a site for scripts, cron jobs and shells: by id and by user, to read, change and end.

::

    from beaker_bridge.scripting import sessions

    with sessions("production.ini") as site:
        with site.exclusive(session_id) as session:
            session["credits"] += 10

``docs/howto/scripting.rst`` has more.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyramid.registry import Registry

from beaker_bridge.events import SessionExpired
from beaker_bridge.exceptions import SessionNotFoundError, SettingsError
from beaker_bridge.logs import fields
from beaker_bridge.options.reader import prefixed, read_options
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import COOKIE, MEMORY
from beaker_bridge.pyramid.factory import source_of
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.pyramid.recorded_filter import recorded_config
from beaker_bridge.request.exchange import ENVIRON_KEY, FACTORY, Exchange, SessionObject
from beaker_bridge.session.base import shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.login import UserSession
from beaker_bridge.session.stored import standalone_session
from beaker_bridge.session.users import UserIndex
from beaker_bridge.site.find import find_site
from beaker_bridge.stores.base import ID_FORM

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SiteSessions", "open_session", "sessions"]


log = logging.getLogger(__name__)


def sessions(site: Any, variables: Mapping[str, str] | None = None) -> SiteSessions:
    """Open the sessions of a site.

    Args:
        site: one of

            - the path of an ``.ini``, as ``pserve`` takes it, also with an application's name (``site.ini#name``): the
              options are found there, without starting the application;
            - what ``pyramid.paster.bootstrap()`` returns, or the application's ``registry``, or a request, which
              ``pshell`` has, too: the options are those of the filter around the application, else of its settings;
            - an application's settings: a dict with options under ``session.`` or ``beaker.session.``.
        variables: the ``name=value`` pairs that ``pserve`` takes behind the path.

    Returns:
        The sessions, as a context manager, which closes its connections at the end of the block.

    Raises:
        SettingsError: the options are wrong, or there are none; or no script can open the sessions: they are in the
            cookies of the browsers, or in the memory of another process.
        SiteError: the ``.ini`` cannot be read, or has no such application, or has several and none is named.
        TypeError: it is none of these.
    """
    if isinstance(site, (str, os.PathLike)):
        return _opened(_options_of(os.fspath(site), variables))
    registry = site.get("registry") if isinstance(site, Mapping) else getattr(site, "registry", None)
    for each in (registry, site):
        if isinstance(each, Registry):
            return SiteSessions(_stored(_config_of(each)), each.notify if each.has_listeners else None)
    if not isinstance(site, Mapping):
        raise TypeError(
            "sessions() takes the path of an .ini, what bootstrap() returns, a registry, a request, or a dict of"
            f" settings, got a {type(site).__name__}"
        )
    found = prefixed(site)
    if not found:
        raise SettingsError("the settings have no option under session. or beaker.session.: no session is configured")
    return _opened(read_options(found))


def _options_of(uri: str, variables: Mapping[str, str] | None) -> SessionOptions:
    found = find_site(uri, variables)
    for note in found.notes:
        log.warning("%s", note, extra=fields(failure="settings"))
    return found.options


def _opened(options: SessionOptions) -> SiteSessions:
    """Open the sessions of another process.

    Raises:
        SettingsError: they are in its memory, or in cookies.
    """
    if options.type == MEMORY and not options.namespace_class:
        raise SettingsError(
            f"{options.label('type')} = memory: the sessions are in the memory of the process that serves the site, and"
            " no script can open them; a file, a database or a server has them for all processes",
            name="type",
        )
    return SiteSessions(_stored(SessionConfig(options)), owns_store=True)


def _config_of(registry: Any) -> SessionConfig:
    """Return the configuration of an application's sessions.

    Raises:
        SettingsError: nothing has configured them, or nothing that can be seen before the first request.
    """
    source = source_of(registry)
    config = recorded_config(registry, None if source is None else source.config)
    if config is None:
        raise SettingsError(
            "the application has no session settings, and no filter of beaker_bridge wraps it: no session is"
            " configured; give sessions() the .ini in its place"
        )
    return config


def _stored(config: SessionConfig) -> SessionConfig:
    """Return a script's configuration: an unreachable store is an error, and no purge begins.

    Raises:
        SettingsError: the sessions are in cookies.
    """
    if config.store is None:
        raise SettingsError(
            f"{config.options.label('type')} = {COOKIE}: the sessions are in the browsers, and no script can open them",
            name="type",
        )
    own = copy(config)
    own.options = replace(config.options, store_error="raise")
    own.purge_pause = (-math.inf, math.inf)
    return own


class SiteSessions:
    """The sessions of one site. Threads may share it.

    :func:`sessions` makes one. Each method raises :class:`~beaker_bridge.SessionStoreError` if the
    store cannot be reached.

    Args:
        config: the configuration.
        notify: notifies an application's subscribers of the events of its sessions.
        owns_store: whether the store's connections are this object's own, for :meth:`close` to close.
    """

    def __init__(
        self, config: SessionConfig, notify: Callable[[object], None] | None = None, *, owns_store: bool = False
    ) -> None:
        self._config = config
        self._notify = notify
        self._owns_store = owns_store
        # Share the locks, so that a block within a block does not wait for itself.
        self._locks: dict[tuple[int, str], Callable[[], float] | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless they are an application's; a later use opens new ones."""
        if self._owns_store and self._config.store is not None:
            self._config.store.close()

    def user_sessions(self, user_id: str | int) -> list[UserSession]:
        """Return a user's sessions, as ``request.session.bind()`` has begun them, the one seen last first.

        Args:
            user_id: the user's id.

        Raises:
            SettingsError: there is no ``secret``, without which no session belongs to a user.
        """
        return UserIndex(self._config).sessions(user_id)

    def revoke(self, user_id: str | int) -> int:
        """End a user's sessions, at once, and against requests that are under way.

        Args:
            user_id: the user's id.

        Returns:
            How many were ended.

        Raises:
            SettingsError: there is no ``secret``, without which no session belongs to a user.
        """
        return UserIndex(self._config, self._notify).revoke(user_id)

    def revoke_one(self, handle: str) -> bool:
        """End one of a user's sessions, as :meth:`revoke` does.

        Args:
            handle: the handle, from :meth:`user_sessions`.

        Returns:
            Whether there was such a session.

        Raises:
            SettingsError: there is no ``secret``, without which no session belongs to a user.
        """
        return UserIndex(self._config, self._notify).revoke_one(handle)

    def get(self, session: str) -> PyramidSession | None:
        """Return one session, to read it.

        It is what ``request.session`` is in a view. Reading it does not renew its access time. What is changed is
        saved by its ``persist()``, and merged with what requests have changed meanwhile; :meth:`exclusive` is for
        what must be read, changed and written as one step. A change of its id cannot reach the browser.

        Args:
            session: its id, as ``request.session.id`` and the events have it, or its handle, from
                :meth:`user_sessions`.

        Returns:
            The session, or None if there is none, since it never was, has ended or expired, or has moved to a new id.
        """
        session_object = SessionObject({}, self._config, FACTORY)
        exchange = session_object.exchange
        exchange.notify, exchange.locks = self._notify, self._locks
        return PyramidSession(session_object) if _open(exchange, session) else None

    @contextmanager
    def exclusive(self, session: str) -> Iterator[PyramidSession]:
        """Return a context in which one session is read, changed and written as one step.

        What the block changes is committed at its end; nothing is if it raises.

        Args:
            session: as :meth:`get`'s.

        Raises:
            SessionConflictError: others held its lock for ``store_timeout`` seconds, or the block outlived it. Or a
                request has moved the session to a new id.
            SessionNotFoundError: there is no such session.
        """
        found = self.get(session)
        if found is None:
            raise _not_found(session)
        with found.exclusive():
            if not found._loaded._state.exists or found._loaded._state.detached:
                raise _not_found(session)
            yield found

    def end(self, session_id: str) -> bool:
        """End the session of an id, as a logout does: its data is deleted, and no request under way brings it back.

        One that has just moved to a new id is followed there. :meth:`revoke_one` ends the session of a handle.

        Args:
            session_id: the id.

        Returns:
            Whether there was one.
        """
        events: list[object] = []
        session = standalone_session(self._config, session_id, events.append, self._locks)
        session.delete()
        session.commit()
        for event in events:
            if self._notify is not None:
                self._notify(event)
        return any(not isinstance(event, SessionExpired) for event in events)


def open_session(request: Any, session: str) -> PyramidSession:
    """Make ``request.session`` a browser's session, in ``pshell`` or after ``bootstrap()``, where it is an empty one.

    Views that are called with the request see it, too. No response carries the changes: ``request.session.persist()``
    saves them.

    Args:
        request: the script's request.
        session: the session's id, as ``request.session.id`` and the events have it, or its handle, from
            ``user_sessions()``.

    Returns:
        ``request.session``.

    Raises:
        SessionNotFoundError: there is no such session; ``request.session`` is as it was.
        SessionStoreError: the store cannot be reached.
        SettingsError: the application's sessions are not those of this package, or they are in cookies.
    """
    own = request.session
    if not isinstance(own, PyramidSession):
        raise SettingsError(f"request.session must be a session of beaker_bridge, got a {type(own).__name__}")
    exchange: Exchange = request.environ[ENVIRON_KEY].exchange
    exchange.config = _stored(exchange.config)
    if not _open(exchange, session):
        raise _not_found(session)
    return own


def _open(exchange: Exchange, session: str) -> bool:
    """Make a session that is named by its id or its handle an exchange's own; return whether there is one."""
    return any(map(exchange.open, _ids_of(exchange.config, session)))


def _ids_of(config: SessionConfig, session: str) -> list[str]:
    """Return the id itself, or the ids that a handle names."""
    if ID_FORM.fullmatch(session) or not config.options.secret:
        return [session]
    return UserIndex(config).ids_named_by(session)


def _not_found(session: str) -> SessionNotFoundError:
    return SessionNotFoundError(f"there is no session {shown(session)}: it has ended, expired or moved to a new id")
