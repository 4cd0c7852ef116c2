"""``request.session``: Pyramid's ``ISession`` over Beaker's session."""

from __future__ import annotations

import secrets
from collections.abc import Callable, ItemsView, Iterator, Mapping, MutableMapping, ValuesView
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyramid.interfaces import ISession
from pyramid.threadlocal import manager
from zope.interface import implementer

from beaker_bridge.options.table import SessionOptions
from beaker_bridge.pyramid.completion import Completion
from beaker_bridge.pyramid.source import SessionSource
from beaker_bridge.pyramid.subrequest import owner_of
from beaker_bridge.record.fields import RESERVED_KEYS
from beaker_bridge.request.attach import attach
from beaker_bridge.request.exchange import ENVIRON_KEY, MIDDLEWARE, Exchange, SessionObject
from beaker_bridge.session.attributes import BEAKERS, PRIVATE, Forwarded
from beaker_bridge.session.base import SafeSession
from beaker_bridge.session.changes import IMMUTABLE
from beaker_bridge.session.merge import FLASH
from beaker_bridge.session.stored import StandaloneSession

if TYPE_CHECKING:
    from typing_extensions import Self

    _Base = MutableMapping[str, Any]
else:
    # Registered as a mapping below: a base class would cost each attribute a look-up more.
    _Base = object

CSRF_TOKEN = "_csrft_"  # noqa: S105  # nosec B105 -- the key of the token, as Pyramid has it

_ABSENT = object()


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    def read(self: PyramidSession, *args: Any) -> Any:
        return method(self._loaded, *args)

    read.__name__, read.__doc__ = method.__name__, method.__doc__
    return read


@implementer(ISession)
class PyramidSession(_Base):  # noqa: PLW1641 -- as a dict, it has no hash
    """The type of ``request.session``: it behaves as a ``dict`` of what the application put there.

    Each change is saved. Other attributes of Beaker's session (``timeout``, ``get_by_id()``) are here, too.

    Args:
        session_object: the environ's session.
        csrf_token: the option ``constant_csrf_token`` of the settings, for a filter that does not set it.
    """

    # Keep a ``__dict__``: an application may set attributes of its own for one request, as in Beaker's sessions.
    __slots__ = ("__dict__", "_constant_csrf_token", "_exchange", "_object")

    def __init__(self, session_object: SessionObject, csrf_token: str | None = None) -> None:
        self._object = session_object
        self._exchange: Exchange = session_object.exchange
        self._constant_csrf_token = csrf_token

    @property
    def _loaded(self) -> SafeSession:
        session = self._exchange.session
        return self._exchange.load() if session is None else session

    # -- Attributes ----------------------------------------------------------------------------------

    @property
    def created(self) -> int:
        """The time of the session's creation, in whole seconds since the epoch."""
        return int(self._loaded.created)

    @property
    def new(self) -> bool:
        """Whether the session was begun by this request."""
        return self._loaded._state.is_new

    @property
    def id(self) -> str:
        """The session's id, which opens the session; keep it out of logs."""
        return self._loaded._state.id

    @property
    def last_accessed(self) -> float | None:
        """The time of the access before this one, in seconds since the epoch; None in a new session."""
        return self._loaded.last_accessed

    @property
    def domain(self) -> str | None:
        """The cookie's domain; one that is set here is kept with the session."""
        return self._loaded.domain

    @domain.setter
    def domain(self, domain: str | None) -> None:
        self._loaded.domain = domain

    @property
    def path(self) -> str:
        """The cookie's path; one that is set here is kept with the session."""
        return self._loaded.path

    @path.setter
    def path(self, path: str) -> None:
        self._loaded.path = path

    # -- The mapping ---------------------------------------------------------------------------------

    def __delitem__(self, key: str) -> None:
        session = self._loaded
        if key in self:
            session.changed()
        del session[key]

    def clear(self) -> None:
        """Remove all keys."""
        if self:
            self._loaded.changed()
        dict.clear(self._loaded)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key, and return it with its value; raises ``KeyError`` if there is none."""
        session = self._loaded
        if len(session):
            session.changed()
        return dict.popitem(session)

    def pop(self, key: str, default: Any = _ABSENT) -> Any:
        """Remove a key and return its value, or the default; raises ``KeyError`` if there is neither."""
        session = self._loaded
        if key in self:
            session.changed()
        return session.pop(key) if default is _ABSENT else session.pop(key, default)

    def __eq__(self, other: object) -> bool:
        return dict(self._loaded) == (dict(other._loaded) if isinstance(other, PyramidSession) else other)

    def __getitem__(self, key: str) -> Any:
        # Bypass the session's own __getitem__, which also returns Beaker's own keys.
        session = self._exchange.session
        if session is None:
            session = self._exchange.load()
        value = dict.get(session, key, _ABSENT)
        if value is _ABSENT:
            raise KeyError(key)
        if type(value) not in IMMUTABLE:
            session.track(key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        session = self._exchange.session
        if session is None:
            session = self._exchange.load()
        value = dict.get(session, key, _ABSENT)
        if value is _ABSENT:
            return default
        if type(value) not in IMMUTABLE:
            session.track(key, value)
        return value

    def values(self) -> ValuesView[Any]:
        """Return a view of the values."""
        return dict.values(self._all_tracked())

    def items(self) -> ItemsView[str, Any]:
        """Return a view of the keys and values."""
        return dict.items(self._all_tracked())

    def copy(self) -> dict[str, Any]:
        """Return a dict of the keys and values."""
        return dict(self._all_tracked())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.copy() | dict(other)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(other) | self.copy()

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]  # it takes pairs, as dict's does
        self.update(other)
        return self

    def __setitem__(self, key: str, value: Any) -> None:
        session = self._loaded
        if key in RESERVED_KEYS:
            session.set_reserved(key, value)
            return
        self._exchange.config.codec.check(key, value)
        session.changed()
        dict.__setitem__(session, key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which becomes the default if there is none."""
        if key in RESERVED_KEYS:
            return self._loaded.setdefault(key, default)
        if key not in self:
            self[key] = default
        return self.get(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set keys from a mapping, or from pairs, and from keyword arguments."""
        session, changes = self._loaded, dict(*args, **kwargs)
        for key, value in changes.items():
            if key not in RESERVED_KEYS:
                self._exchange.config.codec.check(key, value)
        for key in RESERVED_KEYS.intersection(changes):
            session.set_reserved(key, changes.pop(key))
        if changes:
            session.changed()
        dict.update(session, changes)

    def _all_tracked(self) -> SafeSession:
        for key in self:
            self.get(key)
        return self._loaded

    # -- The session ---------------------------------------------------------------------------------

    def changed(self) -> None:
        """Mark the session as changed, after a change inside one of its values."""
        self._loaded.changed()

    def save(self) -> None:
        """Have the session stored when the request ends, also if it is new and empty."""
        self._loaded.force()

    def persist(self) -> None:
        """Commit now what was changed so far, or raise.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it.
        """
        self._exchange.commit()

    def dirty(self) -> bool:
        """Say whether there is anything to commit: a change, or a call of ``save()``."""
        return self._object.dirty() or self._loaded.has_changed()

    def invalidate(self) -> None:
        """Delete the session when the request ends, and begin a new, empty one, which ``save()`` stores."""
        self._loaded.invalidate()
        # Drop an earlier ``save()`` of other WSGI code, which was about the old session.
        self._exchange.is_save_asked = False

    def delete(self) -> None:
        """Delete the session when the request ends; unlike after :meth:`invalidate`, no empty one is stored."""
        self._loaded.delete()

    def revert(self) -> None:
        """Return to the data as they were loaded."""
        self._loaded.revert()

    def regenerate_id(self) -> None:
        """Move the session to a new id, with a new CSRF token, as after a login."""
        self._loaded.regenerate_id()
        if CSRF_TOKEN in self:
            self.new_csrf_token()

    def bind(
        self, user_id: str | int, note: Mapping[str, Any] | None = None, limit: int | None = None, on_limit: str = "end"
    ) -> None:
        """Bind the session to a user at a login, so that it can be listed and ended from elsewhere.

        It moves to a new id, unless this request has moved it already, or has begun it. A session that was bound
        before leaves that login.

        Args:
            user_id: the user's id; 42 and ``"42"`` are one user. The store never holds it in plain.
            note: what a list of the user's sessions shows of this one, such as the browser and the place: a dict of at
                most 1,024 bytes of JSON.
            limit: how many sessions the user may have, this one included; None for 1,000.
            on_limit: ``"end"`` ends the oldest at the commit; ``"refuse"`` raises.

        Raises:
            BeakerBridgeError: sessions are in cookies.
            SessionLimitError: the user has ``limit`` sessions, and ``on_limit`` is ``"refuse"``. Of two logins at once
                the later one raises when it is committed.
            SessionStoreError: the store cannot be reached.
            SessionTooLateError: the response's headers were sent.
            SessionValueError: the note is no dict, is not JSON, or too large.
            SettingsError: there is no ``secret``.
            TypeError: the user's id is neither a string nor an int.
            ValueError: the user's id is empty, ``limit`` is below 1, or ``on_limit`` is another word.
        """
        if self._loaded.bind(user_id, note, limit, on_limit) and CSRF_TOKEN in self:
            self.new_csrf_token()

    def unbind(self) -> None:
        """Take the session off its user's list when the request ends; its data and its id stay.

        Raises:
            SessionTooLateError: the request is over.
        """
        self._loaded.unbind()

    @property
    def revoked(self) -> str | None:
        """The reason why the browser's session was ended from elsewhere, ``"revoked"`` or ``"limit"``, or None.

        It is set in each request that comes with that cookie, until the browser has a new session, or has forgotten
        that one by :meth:`invalidate`.
        """
        return self._loaded.revoked

    def get_by_id(self, id: str) -> StandaloneSession | None:  # noqa: A002 -- Beaker's name
        """Return the stored session of an id, or None. Its ``commit()`` writes what is changed.

        Raises:
            BeakerBridgeError: sessions are in cookies, where none can be found by its id.
            SessionStoreError: the store cannot be reached.
        """
        return self._exchange.stored_session(id)

    def set_expiry(self, seconds: int | None) -> None:
        """Give this session its own idle timeout and cookie lifetime ("remember me").

        Args:
            seconds: both, in seconds; None returns to the options.

        Raises:
            ValueError: not a whole number of seconds, 1 or more.
        """
        self._loaded.set_expiry(seconds)

    def exclusive(self) -> AbstractContextManager[None]:
        """Return a context in which the session is read, changed and written as one step.

        Raises:
            BeakerBridgeError: a cookie session has no lock.
            SessionConflictError: others held the lock for ``store_timeout`` seconds, or the block outlived it.
            SessionStoreError: the store cannot be reached.
        """
        return self._loaded.exclusive()

    # -- Flash messages and CSRF tokens --------------------------------------------------------------

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Append a message to a queue; with ``allow_duplicate=False`` unless it holds an equal one."""
        self._exchange.config.codec.check(FLASH + queue, msg)
        messages = self.setdefault(FLASH + queue, [])
        if allow_duplicate or msg not in messages:
            self.changed()
            messages.append(msg)
            if not allow_duplicate:
                self._loaded.note_flashed_once(FLASH + queue, msg)

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue, and remove it."""
        return self.pop(FLASH + queue) if FLASH + queue in self else []

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Return the messages of a queue."""
        return self.get(FLASH + queue, [])  # type: ignore[no-any-return]

    def new_csrf_token(self) -> str:
        """Return a new CSRF token, and keep it."""
        constant = self._exchange.config.options.constant_csrf_token or self._constant_csrf_token
        token = constant or secrets.token_hex(20)
        self[CSRF_TOKEN] = token
        return token

    def get_csrf_token(self) -> str:
        """Return the session's CSRF token; a new one if there is none yet."""
        token: str | None = self.get(CSRF_TOKEN)
        return self.new_csrf_token() if token is None else token

    # -- Forwarded to Beaker's session: declared for type checkers, so that they find misspelled names ---

    if TYPE_CHECKING:
        cookie_expires: bool | int | timedelta | datetime
        secure: bool | str
        httponly: bool
        samesite: str | None

        @property
        def timeout(self) -> int | None: ...

        @property
        def key(self) -> str: ...

        @property
        def use_cookies(self) -> bool: ...

        @property
        def type(self) -> str: ...

        @property
        def data_dir(self) -> str | None: ...

        @property
        def namespace_class(self) -> Any: ...

        @property
        def data_serializer(self) -> Any: ...

        @property
        def invalidate_corrupt(self) -> bool: ...

        @property
        def save_atime(self) -> bool: ...

        @property
        def is_new(self) -> bool: ...

        @property
        def was_invalidated(self) -> bool: ...

        def accessed(self) -> bool: ...

        def load(self) -> None: ...

        def __iter__(self) -> Iterator[str]: ...

        def __len__(self) -> int: ...

        def __reversed__(self) -> Iterator[str]: ...

    else:
        __contains__ = _reading(dict.__contains__)
        __iter__ = _reading(dict.__iter__)
        __len__ = _reading(dict.__len__)
        __reversed__ = _reading(dict.__reversed__)
        __repr__ = _reading(dict.__repr__)
        keys = _reading(dict.keys)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") and name not in PRIVATE:
                raise AttributeError(name)
            return getattr(self._object, name)


class RequestSession(PyramidSession):
    """``request.session``, made from the request: the base class of each session factory.

    A subclass of a session factory is one, too. It may override what it likes, ``__init__(request)`` included.

    Args:
        request: the request; of its attributes only ``environ`` must be there.

    Raises:
        SettingsError: a filter's options are wrong, or nothing has configured sessions for several processes.
    """

    __slots__ = ()

    #: The session options of the settings; None if they have none.
    options: SessionOptions | None = None
    _source: SessionSource

    def __init__(self, request: Any) -> None:
        environ, source = request.environ, self._source
        registry: Any = getattr(request, "registry", None)
        session_object = environ.get(ENVIRON_KEY)
        if session_object is None:
            session_object = source.begin(environ, registry)
        elif type(session_object) is not SessionObject or "retry.attempt" in environ:
            attach(session_object, environ)
        exchange: Exchange = session_object.exchange
        # Allow for a registry that is not Pyramid's, as in tests.
        if getattr(registry, "has_listeners", False):
            exchange.notify = registry.notify
        if exchange.config is not source.met:
            source.meet(exchange.config, registry)
        # Skip the common case, where our middleware and our tween complete it all.
        if not (exchange.finisher is MIDDLEWARE and exchange.tween is registry is not None):
            owner = owner_of(request, session_object) if len(manager.stack) > 1 else request
            Completion(exchange, source.options).arrange(owner)
        self._object, self._exchange, self._constant_csrf_token = session_object, exchange, source.csrf_token


MutableMapping.register(PyramidSession)
for _name in (*BEAKERS, "is_new", "was_invalidated"):
    setattr(PyramidSession, _name, Forwarded(_name))
