"""The interface of Beaker's sessions: a dict that also knows Beaker's own keys, and the attributes of its cookie."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, ValuesView
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from beaker.session import Session as BeakerSession

from beaker_bridge.exceptions import SessionAttributeError, SessionValueError
from beaker_bridge.logs import log_once
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.options.rules import HOST_PREFIX
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import COOKIE_DOMAIN, DOMAIN_RULE, MAX_SECONDS
from beaker_bridge.record.fields import (
    ACCESSED,
    BEAKER_KEYS,
    CREATED,
    DOMAIN,
    EXPIRY,
    PATH,
    RESERVED_KEYS,
    is_attribute,
    is_time,
)
from beaker_bridge.session.attributes import BeakerAttributes, ReadOnly
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.state import CHANGED, COOKIE, State

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

#: The options that say how a cookie is written.
_COOKIE_OPTIONS = (
    "key",
    "cookie_expires",
    "cookie_domain",
    "cookie_path",
    "secure",
    "httponly",
    "samesite",
    "partitioned",
)

_ABSENT = object()


def _flag(name: str) -> property:
    """Return an attribute that is a flag of the state; it can be set, as in Beaker's sessions."""

    def set_flag(session: Any, value: object) -> None:
        session._state = session._state._replace(**{name: bool(value)})

    return property(attrgetter(f"_state.{name}"), set_flag)


class BeakerMapping(BeakerAttributes, BeakerSession):
    """The part of a session that has Beaker's interface; it changes the state by :meth:`_become` alone."""

    _config: SessionConfig
    _state: State
    #: The reserved keys of the record, and their values.
    _metadata: dict[str, Any] = MappingProxyType({})  # type: ignore[assignment]  # each session takes a dict of its own
    #: The options of this response's cookie, if the application changed any of them.
    _cookie_options: SessionOptions | None = None
    _cookie_lifetime_is_set = False

    _id: Any = property(attrgetter("_state.id"))
    #: The session's id. Keep it out of logs: it opens the session.
    id = ReadOnly(attrgetter("_state.id"), "regenerate_id()")
    is_new = _flag("is_new")
    was_invalidated = _flag("is_invalidated")

    # -- The mapping ---------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        value: Any = dict.__getitem__(self, key)
        self._track_stored(key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        value: Any = dict.get(self, key, default)
        self._track_stored(key, value)
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

    def _all_tracked(self) -> Self:
        for key in self:
            self.get(key)
        return self

    def __missing__(self, key: str) -> Any:
        # Let other WSGI code read Beaker's own keys, as in Beaker's sessions.
        if key in RESERVED_KEYS:
            return self._metadata[key]
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in RESERVED_KEYS:
            dict.__setitem__(self, key, value)
        elif key in (CREATED, ACCESSED) and is_time(value):
            # Let other WSGI code set the times, as in Beaker's sessions.
            self._metadata[key] = value
        else:
            self.set_reserved(key, value)

    def __delitem__(self, key: str) -> None:
        if key in RESERVED_KEYS:
            self.set_reserved(key, None)
        else:
            dict.__delitem__(self, key)

    def pop(self, key: str, default: Any = _ABSENT) -> Any:
        """Remove a key and return its value, or the default; raises ``KeyError`` if there is neither."""
        if key in RESERVED_KEYS:
            value = self._metadata.get(key, None if default is _ABSENT else default)
            self.set_reserved(key, None)
            return value
        popped: Any = dict.pop(self, key) if default is _ABSENT else dict.pop(self, key, default)
        # Track it: it may be changed, and put back.
        self._track_stored(key, popped)
        return popped

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which becomes the default if there is none."""
        if key in RESERVED_KEYS:
            if key not in self._metadata or key not in (DOMAIN, PATH):
                self.set_reserved(key, default)
            return self._metadata.get(key, default)
        found: Any = dict.setdefault(self, key, default)
        self._track_stored(key, found)
        return found

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set keys from a mapping, or from pairs, and from keyword arguments."""
        changes = dict(*args, **kwargs)
        for key in RESERVED_KEYS.intersection(changes):
            self[key] = changes.pop(key)
        dict.update(self, changes)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove the application's keys."""
        dict.clear(self)

    def __bool__(self) -> bool:
        # Be true even when empty, as Beaker's is: ``if session.get_by_id(id)`` asks whether there is one.
        return True

    def set_reserved(self, key: str, value: Any) -> None:
        """Set a reserved key: the cookie's domain or path; Beaker's other keys are ignored, with a warning.

        Args:
            key: one of :data:`RESERVED_KEYS`.
            value: the value; None to remove the key.

        Raises:
            SessionValueError: the key is ours.
            ValueError: no cookie can have this domain or path.
        """
        if key in (DOMAIN, PATH):
            setattr(self, key.removeprefix("_"), value)
        elif key in BEAKER_KEYS:
            message = f"session[{key!r}] is Beaker's own, and kept by the session itself: what sets it is ignored"
            log_once(log, logging.WARNING, message, failure="value")
        else:
            raise SessionValueError(f"the key {key!r} of a session is beaker_bridge's own", name=key)

    # -- Times ---------------------------------------------------------------------------------------

    @property
    def created(self) -> float:
        """The time of the session's creation, in seconds."""
        return self._metadata[CREATED]  # type: ignore[no-any-return]

    @property
    def _timeout(self) -> int | None:
        """The idle seconds after which this session expires."""
        return self._metadata.get(EXPIRY, self._config.options.timeout)

    def set_expiry(self, seconds: int | None) -> None:
        """Give this session its own idle timeout and cookie lifetime ("remember me").

        Args:
            seconds: both, in seconds; None returns to the options.

        Raises:
            SessionTooLateError: the response's headers were sent.
            ValueError: not a whole number of seconds, 1 or more.
        """
        if seconds is not None and not (type(seconds) is int and 1 <= seconds <= MAX_SECONDS):
            rule = f"a whole number of seconds, 1 or more ({MAX_SECONDS} at most), or None"
            raise ValueError(f"set_expiry takes {rule}, got {seconds!r}")
        self._set_metadata(EXPIRY, seconds)

    def _set_metadata(self, key: str, value: Any) -> None:
        self._become(self._state.asked(CHANGED | COOKIE))
        if value is None:
            self._metadata.pop(key, None)
        else:
            self._metadata[key] = value

    # -- The cookie ----------------------------------------------------------------------------------

    @property
    def domain(self) -> str | None:
        """The cookie's domain; one that is set here is kept in the record."""
        return self._metadata.get(DOMAIN) or self._config.options.cookie_domain

    @domain.setter
    def domain(self, domain: str | None) -> None:
        self._set_metadata(DOMAIN, self._checked_attribute("domain", domain, ""))

    @property
    def path(self) -> str:
        """The cookie's path; one that is set here is kept in the record."""
        return self._metadata.get(PATH) or self._config.options.cookie_path

    @path.setter
    def path(self, path: str) -> None:
        self._set_metadata(PATH, self._checked_attribute("path", path, "/"))

    def _checked_attribute(self, name: str, value: str | None, hosts: str) -> str | None:
        if not is_attribute(value):
            raise ValueError(f"a cookie's {name} must be a string without white space or semicolons, got {value!r}")
        if value and name == "domain" and not COOKIE_DOMAIN.fullmatch(value):
            raise ValueError(f"a cookie's domain must be {DOMAIN_RULE}, got {value!r}")
        if value and value != hosts and self.key.lower().startswith(HOST_PREFIX):
            # Refuse what browsers drop.
            raise ValueError(f"the {name} of a cookie named {self.key} must be {hosts or 'absent'}, got {value!r}")
        return value

    def cookie_option(self, name: str) -> Any:
        """Return the value of an option for this response's cookie.

        Args:
            name: one of the options that say how a cookie is written.
        """
        if name == "cookie_expires" and EXPIRY in self._metadata and not self._cookie_lifetime_is_set:
            return self._metadata[EXPIRY]
        return getattr(self._cookie_options or self._config.options, name)

    def set_cookie_option(self, name: str, value: Any) -> None:
        """Change an option for this response's cookie, which is then sent if there is a session.

        Args:
            name: one of the options that say how a cookie is written.
            value: its value, of the form that the option has.

        Raises:
            SettingsError: the value breaks the option's rule.
            SessionAttributeError: no cookie is sent, as ``use_cookies`` says.
            SessionTooLateError: the response's headers were sent.
        """
        options = {option: self.cookie_option(option) for option in _COOKIE_OPTIONS}
        checked = read_options(given({**options, name: value}))
        self._update_cookie_out()
        self._cookie_options = checked
        self._cookie_lifetime_is_set |= name == "cookie_expires"

    def _update_cookie_out(self, set_cookie: bool = True) -> None:
        if not self._config.options.use_cookies:
            raise SessionAttributeError("no cookie is sent, since use_cookies = false", name="use_cookies", value=False)
        self._become(self._state.asked(CHANGED | COOKIE))
        if not set_cookie:
            self._state = self._state.unasked(COOKIE)

    def _set_cookie_expires(self, expires: Any) -> None:
        if expires is None:
            self._update_cookie_out()
        else:
            self.cookie_expires = expires

    def _set_cookie_values(self, expires: Any = None) -> None:
        self._set_cookie_expires(expires)

    def _get_domain(self) -> str | None:
        return self.domain

    def _set_domain(self, domain: str | None) -> None:
        self.domain = domain

    def _get_path(self) -> str:
        return self.path

    def _set_path(self, path: str) -> None:
        self.path = path

    # -- State ---------------------------------------------------------------------------------------

    def _become(self, state: State) -> None:
        """Take a state that the application asked for."""
        raise NotImplementedError

    def _track_stored(self, key: str, value: Any) -> None:
        """Track a value that other WSGI code is handed, if it is stored and can be changed."""
        raise NotImplementedError
