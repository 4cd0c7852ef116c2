"""What a stored session and a cookie session share: Beaker's attributes, changes, time, the cookie.

A session is loaded when it is first touched, and committed once or more: :meth:`SafeSession.commit`
writes what changed since the last commit and says, in Beaker's way, which cookie the response needs
(``request['cookie_out']``, ``request['set_cookie']``).
"""

from __future__ import annotations

import logging
import pickle
import secrets
from contextlib import AbstractContextManager, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from beaker.session import Session as BeakerSession

from beaker_bridge.cookies import ANY_FORM, BLANK, HOST_ONLY, CookieWriter, cookie_values, joined_values
from beaker_bridge.events import SessionEvent
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionAttributeError,
    SessionTooLateError,
    SessionValueError,
)
from beaker_bridge.once import log_once
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.options.rules import COOKIE_PREFIXES, HOST_PREFIX
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
    WRITER,
    in_milliseconds,
    is_attribute,
    is_time,
)
from beaker_bridge.session.attributes import BeakerAttributes, ReadOnly
from beaker_bridge.session.config import SessionContext
from beaker_bridge.stores.base import Record

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
#: How many cookies of ours are tried: a browser sends one for each domain and path that ever set one.
MAX_COOKIES = 4

_ABSENT = object()


def new_id() -> str:
    """Return 128 random bits, in the form of Beaker's ids."""
    return secrets.token_hex(16)


class SafeSession(BeakerAttributes, BeakerSession):
    """A session that commits what changed, once.

    Args:
        request: Beaker's dict of the ``Cookie`` header, into which the cookie for the response goes.
        exchange: what it knows of its request.
        session_id: the id of a stored session, instead of a cookie's.
        beaker_options: what Beaker's ``SessionObject`` hands over; ignored, the config has it parsed.
    """

    # How a session begins: most requests only read it, and change none of these.
    #: Whether something has happened since the last commit that the next one has to look at.
    unsettled = False
    is_new = False
    was_invalidated = False
    #: What we know to stand in the store, or in the browser.
    _record: Record | None = None
    #: The plain bytes of the last commit: a second one with the same writes nothing.
    _plain: bytes | None = None
    #: The mutable values that the application was handed, as they were.
    _handed_out: dict[str, bytes | None] | None = None
    #: What this request leaves, in the form of each kind of session.
    _left: Any = None
    #: The form that a value of our cookie has.
    _form = ANY_FORM
    #: How many cookies of ours the browser has sent: one for each domain and path that ever set one.
    _ours = 0
    _own: dict[str, Any] = {}  # noqa: RUF012 -- never changed: each session takes its own
    _dirty = False
    _forced = False
    _rotated = False
    _unsaved = False
    _deleted = False
    _renewal_due = False
    #: Whether that is for the time's sake, and not only for the form in which the record is.
    _access_due = False
    _send_cookie = False
    #: What the application has changed of the cookie, for this response.
    _cookie_options: SessionOptions | None = None
    _cookie_lifetime_is_set = False

    _id: str
    #: The session's id. Keep it out of logs: it opens the session.
    id = ReadOnly(attrgetter("_id"), "regenerate_id()")
    #: The time of the access before this one, in seconds; nothing in a new session.
    last_accessed: float | None

    def __init__(
        self, request: dict[str, Any], exchange: SessionContext, session_id: str | None = None, **beaker_options: Any
    ) -> None:
        # Beaker's constructor parses, verifies, loads and locks, in ways that we do not share.
        self.request = request
        request["set_cookie"] = False
        self._exchange = exchange
        self._config = config = exchange.config
        self._now = config.clock()
        self._load(session_id)

    # -- Beaker's attributes and the mapping ---------------------------------------------------------

    def __missing__(self, key: str) -> Any:
        # Other WSGI code may read Beaker's own keys, as in Beaker's sessions.
        if key in RESERVED_KEYS:
            return self._own[key]
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in RESERVED_KEYS:
            dict.__setitem__(self, key, value)
        elif key in (CREATED, ACCESSED) and is_time(value):
            # As other WSGI code sets them in Beaker's sessions.
            self._own[key] = value
        else:
            self.set_own(key, value)

    def __delitem__(self, key: str) -> None:
        if key in RESERVED_KEYS:
            self.set_own(key, None)
        else:
            dict.__delitem__(self, key)

    def pop(self, key: str, default: Any = _ABSENT) -> Any:
        """Remove a key and return its value, or the default; raises ``KeyError`` if there is neither."""
        if key in RESERVED_KEYS:
            value = self._own.get(key, None if default is _ABSENT else default)
            self.set_own(key, None)
            return value
        return dict.pop(self, key) if default is _ABSENT else dict.pop(self, key, default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which becomes the default if there is none."""
        if key in RESERVED_KEYS:
            if key not in self._own or key not in (DOMAIN, PATH):
                self.set_own(key, default)
            return self._own.get(key, default)
        return dict.setdefault(self, key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set keys from a mapping, or from pairs, and from keyword arguments."""
        changes = dict(*args, **kwargs)
        for key in RESERVED_KEYS.intersection(changes):
            self[key] = changes.pop(key)
        dict.update(self, changes)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def set_own(self, key: str, value: Any) -> None:
        """Set the cookie's domain or path under Beaker's key; its other keys are ignored, with a warning.

        Args:
            key: one of :data:`RESERVED_KEYS`.
            value: the value; None where the key is removed.

        Raises:
            SessionValueError: the key is ours.
            ValueError: no cookie can have this domain or path.
        """
        if key in (DOMAIN, PATH):
            setattr(self, key.removeprefix("_"), value)
        elif key in BEAKER_KEYS:
            message = f"session[{key!r}] is Beaker's own, and kept by the session itself: what sets it is ignored"
            log_once(log, logging.WARNING, message)
        else:
            raise SessionValueError(f"the key {key!r} of a session is beaker_bridge's own", name=key)

    def __bool__(self) -> bool:
        # As Beaker's, which holds its own keys: ``if session.get_by_id(id)`` asks whether there is one.
        return True

    def check(self, key: Any, value: Any) -> None:
        """Refuse what is seen at a glance not to be stored, before ``request.session`` takes it.

        Raises:
            SessionValueError: the key, the value, or one of its first items.
        """
        self._config.codec.check(key, value)

    def clear(self) -> None:
        """Remove what the application put there."""
        dict.clear(self)

    @property
    def _timeout(self) -> int | None:
        """The idle seconds after which this session expires."""
        return self._own.get(EXPIRY, self._config.options.timeout)

    @property
    def created(self) -> float:
        """The time of the session's creation, in seconds."""
        return self._own[CREATED]  # type: ignore[no-any-return]

    @property
    def domain(self) -> str | None:
        """The cookie's domain; one that is set here is kept in the record."""
        return self._own.get(DOMAIN) or self._config.options.cookie_domain

    @domain.setter
    def domain(self, domain: str | None) -> None:
        self._set_own(DOMAIN, self._checked_attribute("domain", domain, ""))

    @property
    def path(self) -> str:
        """The cookie's path; one that is set here is kept in the record."""
        return self._own.get(PATH) or self._config.options.cookie_path

    @path.setter
    def path(self, path: str) -> None:
        self._set_own(PATH, self._checked_attribute("path", path, "/"))

    # -- The cookie, as Beaker's sessions have it ----------------------------------------------------

    def cookie_option(self, name: str) -> Any:
        """Return the value of an option for this response's cookie.

        Args:
            name: one of the options that say how a cookie is written.
        """
        if name == "cookie_expires" and EXPIRY in self._own and not self._cookie_lifetime_is_set:
            return self._own[EXPIRY]
        return getattr(self._cookie_options or self._config.options, name)

    def set_cookie_option(self, name: str, value: Any) -> None:
        """Change an option for this response's cookie, which is sent if there is a session.

        Args:
            name: one of the options that say how a cookie is written.
            value: its value, of the form that the option has.

        Raises:
            SettingsError: the value breaks the option's rule.
            SessionAttributeError: no cookie is sent, as ``use_cookies`` says.
            SessionTooLateError: the response's headers have left.
        """
        options = {option: self.cookie_option(option) for option in _COOKIE_OPTIONS}
        checked = read_options(given({**options, name: value}))
        self._update_cookie_out()
        self._cookie_options = checked
        self._cookie_lifetime_is_set |= name == "cookie_expires"

    def _set_cookie_expires(self, expires: Any) -> None:
        if expires is None:
            self._update_cookie_out()
        else:
            self.cookie_expires = expires

    def _set_cookie_values(self, expires: Any = None) -> None:
        self._set_cookie_expires(expires)

    def _update_cookie_out(self, set_cookie: bool = True) -> None:
        if not self._config.options.use_cookies:
            raise SessionAttributeError("no cookie is sent, since use_cookies = false", name="use_cookies", value=False)
        self._refuse_late_cookie()
        self.unsettled = self._dirty = True
        self._send_cookie = set_cookie

    def _get_domain(self) -> str | None:
        return self.domain

    def _set_domain(self, domain: str | None) -> None:
        self.domain = domain

    def _get_path(self) -> str:
        return self.path

    def _set_path(self, path: str) -> None:
        self.path = path

    def _checked_attribute(self, name: str, value: str | None, hosts: str) -> str | None:
        if not is_attribute(value):
            raise ValueError(f"a cookie's {name} must be a text without white space or semicolons, got {value!r}")
        if value and name == "domain" and not COOKIE_DOMAIN.fullmatch(value):
            raise ValueError(f"a cookie's domain must be {DOMAIN_RULE}, got {value!r}")
        if value and value != hosts and self.key.lower().startswith(HOST_PREFIX):
            # No browser would take it.
            raise ValueError(f"the {name} of a cookie named {self.key} must be {hosts or 'absent'}, got {value!r}")
        return value

    def set_expiry(self, seconds: int | None) -> None:
        """Give this session its own idle timeout and cookie lifetime ("remember me").

        Args:
            seconds: both, in seconds; nothing returns to the options.

        Raises:
            ValueError: not a whole number of seconds, 1 or more.
        """
        if seconds is not None and not (type(seconds) is int and 1 <= seconds <= MAX_SECONDS):
            rule = f"a whole number of seconds, 1 or more ({MAX_SECONDS} at most), or None"
            raise ValueError(f"set_expiry takes {rule}, got {seconds!r}")
        self._set_own(EXPIRY, seconds)

    def _set_own(self, key: str, value: Any) -> None:
        self._refuse_late_cookie()
        if value is None:
            self._own.pop(key, None)
        else:
            self._own[key] = value
        self.unsettled = self._dirty = self._send_cookie = True

    # -- Changes -------------------------------------------------------------------------------------

    def invalidate(self) -> None:
        """Drop the session when it is committed, and begin a new, empty one."""
        self._leave(deleted=True)
        self._unsaved = self._dirty = self._forced = self._deleted = False
        self.unsettled = self.was_invalidated = True
        self._handed_out = None
        self._start_new()

    def delete(self) -> None:
        """Drop the session as :meth:`invalidate` does; the new one is not stored as long as it is empty."""
        self.invalidate()
        self._deleted = True

    def regenerate_id(self) -> None:
        """Move the session to a new id when it is committed, as after a login.

        The old id opens nothing from then on.
        """
        self._refuse_late_cookie()
        # A login that overlaps another one: its own changes get an id of their own.
        self._unsaved = False
        self._leave(deleted=False)
        self._id = new_id()
        self.unsettled = self._dirty = self._rotated = True

    def revert(self) -> None:
        """Return to the data as they were loaded, or last committed. A new id stays."""
        origin = self._origin
        self._take(self._decoded(origin) if origin else {CREATED: self.created, ACCESSED: self._own[ACCESSED]})
        self._handed_out = None
        self._dirty, self._forced = self._rotated, False

    def load(self) -> None:
        """Take the session as it is stored now, as Beaker's ``load()`` does: what was changed before is forgotten."""
        self.revert()

    def changed(self) -> None:
        """Mark the session as changed.

        Raises:
            SessionTooLateError: the response's headers have left, and the browser does not know the session.
        """
        if self._exchange.sent:
            self._refuse_late_change()
        self.unsettled = self._dirty = True

    def save(self, accessed_only: bool = False) -> None:
        """Commit, as Beaker's middleware asks for before the headers leave; what fails later is logged.

        Args:
            accessed_only: nobody asked to save; commit what was changed all the same.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it; nothing is saved any more.
        """
        try:
            if not accessed_only:
                self.force()
            self.commit()
        except BaseException as error:
            self._exchange.discard()
            if not (self._exchange.sent and isinstance(error, BeakerBridgeError)):
                raise
            log.exception("a session that was changed when the response's headers had left is not saved")

    def force(self) -> None:
        """Mark the session to be stored even if it is new and empty, as Beaker's ``save()`` does."""
        # After ``delete()`` that is no wish of the application's: Beaker's proxy marks itself as saved then.
        if self._exchange.sent and not self._deleted:
            self._refuse_late_change()
        self.unsettled = self._dirty = self._forced = True

    def force_by_option(self) -> None:
        """Mark the session to be stored unless it is as the store has it, as ``auto`` asks for.

        When the headers have left, a new session that is empty stays unsaved: no browser would know its id.
        """
        if len(self) or self._exists or not self._exchange.sent:
            self.unsettled = self._dirty = self._forced = True

    def hand_out(self, key: str, value: Any) -> None:
        """Remember a mutable value that the application was handed, to see whether it changes it."""
        fingerprint = self._config.fingerprint
        if fingerprint is None:
            return
        if self._handed_out is None:
            self._handed_out = {}
        if key not in self._handed_out:
            self._handed_out[key] = None if self._dirty else _print_of(fingerprint, value)
            self.unsettled = True

    def has_changed(self) -> bool:
        """Say whether the application has changed the session since the last commit."""
        return self._dirty or any(
            key in self and _print_of(self._config.fingerprint, dict.__getitem__(self, key)) != before
            for key, before in (self._handed_out or {}).items()
        )

    @property
    def _origin(self) -> Record | None:
        """The record that ours began from."""
        return self._record

    def _base(self) -> dict[str, Any]:
        """Return what stands under this session's id, decoded anew: nobody has changed anything in it."""
        return self._decoded(self._record) if self._record else {}

    def _decoded(self, record: Record) -> dict[str, Any]:
        return self._config.codec.decode(record.raw)[0]

    def _as_record(self) -> dict[str, Any]:
        return {**self, **self._own}

    def _take(self, record: dict[str, Any]) -> None:
        """Make a record the content of this session."""
        # Most records have these three of our own, and no other.
        own = self._own = {CREATED: record.pop(CREATED, self._now), ACCESSED: record.pop(ACCESSED, self._now)}
        if WRITER in record:
            own[WRITER] = record.pop(WRITER)
        for key in RESERVED_KEYS.intersection(record):
            own[key] = record.pop(key)
        if len(self):
            dict.clear(self)
        dict.update(self, record)

    def _start_new(self) -> None:
        self._id = new_id()
        self.is_new = True
        self.last_accessed = None
        self._renewal_due = self._send_cookie = self._rotated = False
        # The browser keeps a cookie for each domain and path: the next one replaces this one.
        cookie = {key: self._own[key] for key in (DOMAIN, PATH) if key in self._own}
        # In whole seconds, as ISession has it; a float, as Beaker has it.
        self._take({CREATED: float(int(self._now)), ACCESSED: in_milliseconds(self._now), **cookie})

    def _settle(self) -> None:
        """Take what is now committed as the state from which further changes count."""
        self._dirty = self._forced = self._rotated = self._renewal_due = self._send_cookie = False
        self.unsettled = bool(self._handed_out)
        if self._handed_out:
            fingerprint = self._config.fingerprint
            self._handed_out = {key: _print_of(fingerprint, self[key]) for key in self._handed_out if key in self}

    # -- When the response's headers have left -------------------------------------------------------

    def _refuse_late_cookie(self) -> None:
        """Refuse what only a cookie can tell the browser, where none can be sent any more."""
        if self._exchange.sent and not self._exchange.discarded and not self._unsaved:
            if self.was_invalidated:
                # A logout holds, though nothing new can begin.
                self._leave_behind()
            error = SessionTooLateError(
                "the session is changed when the response's headers have left, and the browser would have to be"
                " told by a cookie: change it before the body is streamed"
            )
            log.error("session %s: %s", shown(self.id), error)
            raise error

    def _refuse_late_change(self) -> None:
        """Refuse a change that the next request would not find, since the headers have left."""
        raise NotImplementedError

    # -- Time ----------------------------------------------------------------------------------------

    def _begin(self, record: dict[str, Any], *, stale: bool) -> None:
        """Begin a request on a session that exists."""
        self._take(record)
        own, config = self._own, self._config
        accessed = self.last_accessed = own[ACCESSED]
        renewal = min(config.renewal, own[EXPIRY] / 10) if EXPIRY in own else config.renewal
        due = self._now - accessed >= renewal and config.options.save_accessed_time
        if stale or due:
            self.unsettled = self._renewal_due = True
            self._access_due = due

    def _renew(self) -> None:
        """Renew the access time where that is due; a record that is about to be written carries it."""
        if self._record is None or self._renewal_due or not self._config.options.save_accessed_time:
            self._own[ACCESSED] = in_milliseconds(self._now)

    @property
    def _cookie_has_lifetime(self) -> bool:
        return EXPIRY in self._own or self._config.options.cookie_expires is not True

    # -- The cookie ----------------------------------------------------------------------------------

    def _our_cookies(self) -> list[tuple[str, bool]]:
        """Return the values of our cookie that are ours, and whether each was signed in a retired way."""
        header = self.request.get("cookie")
        options = self._config.options
        if not header or not options.use_cookies:
            return []
        ours: list[tuple[str, bool]] = []
        for find in (cookie_values, joined_values):
            ours = self._config.signer.verified(find(header, options.key), self._form)
            # A browser lets a neighbour set "a=b, __Host-sid=…": what a comma parts may be anybody's.
            if ours or "," not in header or options.key.lower().startswith(COOKIE_PREFIXES):
                break
        self._ours = len(ours)
        return ours

    @property
    def _another_lost(self) -> bool:
        """Whether another of our cookies came; without a signature nobody knows whose it is."""
        return self._ours > 1 and self._config.signer.signs

    def _cookie(self, value: str, lifetime: int | None = None) -> str:
        options = self._cookie_options
        cookies = self._config.cookies if options is None else CookieWriter(options)
        if lifetime is None and not self._cookie_lifetime_is_set:
            lifetime = self._own.get(EXPIRY)
        return cookies.write(
            self._config.signer.sign(value),
            https=self._exchange.https,
            now=self._now,
            lifetime=lifetime,
            domain=self.domain,
            path=self.path,
        )

    def _cookie_out(self, cookie: str) -> None:
        self.request["cookie_out"] = cookie
        self.request["dropped_out"] = self._host_only_deletion()
        self.request["set_cookie"] = True
        self._send_cookie = False

    def _host_only_deletion(self) -> str | None:
        """Return what deletes the host's own cookie, where it is ours and the session's is a domain's.

        A cookie of another path or of a parent domain may be another application's, and stays.
        """
        is_ours = self._another_lost or (self.was_invalidated and self._ours and self._config.signer.signs)
        if not (is_ours and self.domain):
            return None
        return self._config.cookies.delete(https=self._exchange.https, domain=HOST_ONLY, path=self.path)

    def _forget_cookie(self) -> None:
        """Make the browser forget an id that no longer opens anything, or never hear of it."""
        self.request["set_cookie"] = False
        if self._ours or self._sent_cookies():
            self._cookie_out(
                self._config.cookies.delete(https=self._exchange.https, domain=self.domain, path=self.path)
            )

    def _sent_cookies(self) -> list[str]:
        """Return the values of the cookies of our name, whoever has set them; an empty one is none."""
        options = self._config.options
        header = self.request.get("cookie")
        if not header or not options.use_cookies:
            return []
        # Also an empty one whose line a server has joined with the next by a comma.
        return [value for value in cookie_values(header, options.key) if value.partition(",")[0].strip(BLANK)]

    def exclusive(self) -> AbstractContextManager[None]:
        """Return a context in which the session is read, changed and written as one step."""
        raise NotImplementedError

    # -- What each kind of session does --------------------------------------------------------------

    def _load(self, session_id: str | None = None) -> None:
        """Read the session that the request names, or the id, or start a new one."""
        raise NotImplementedError

    def commit(self) -> None:
        """Write what changed since the last commit; idempotent.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it.
        """
        if self._unsaved or not self.unsettled or self._exchange.discarded:
            return
        try:
            self._commit()
        except BaseException:
            # No cookie for what is not committed; a second try sends it.
            self._send_cookie |= self.request["set_cookie"]
            self.request["set_cookie"] = False
            raise

    def _commit(self) -> None:
        if self.has_changed() and not (self._forced and not self._send_cookie and self._is_as_stored()):
            # A new session that nothing was put into leaves no record and no cookie.
            if len(self) or self._exists or (self._forced and not self._deleted):
                if self._exchange.sent:
                    self._refuse_late_change()
                self._save()
        elif self._record is not None and (self._renewal_due or self._send_cookie):
            self._touch()
        if not self._unsaved:
            self._leave_behind()
            self._settle()

    def _is_as_stored(self) -> bool:
        """Say whether to save, where that is only asked for (``auto``), would change nothing."""
        if self._record is None:
            return False
        stored = self._base()
        own = {key: stored.pop(key) for key in RESERVED_KEYS & stored.keys()}
        return own == self._own and self._config.codec.writes_alike(dict(self), stored)

    @property
    def _exists(self) -> bool:
        """Whether the session has a record, be it under the id that it is about to leave."""
        return self._record is not None

    def _save(self) -> None:
        """Write the session."""
        raise NotImplementedError

    def _touch(self) -> None:
        """Renew the access time, and nothing else."""
        raise NotImplementedError

    def _leave(self, *, deleted: bool) -> None:
        """Note that the commit leaves the record that is known: deleted, or moved to a new id."""
        raise NotImplementedError

    def _leave_behind(self) -> None:
        """Deal with what was left, after the session itself is written."""
        raise NotImplementedError

    def _damaged(self, error: DamagedRecordError, session: str) -> None:
        """Tell of a record or cookie that cannot be read, and stands for nothing; or raise."""
        if not self._config.options.invalidate_corrupt:
            raise error
        log.warning("session %s: %s; it opens nothing", session, error)

    def _tell(self, kind: type[SessionEvent], session_id: str, record: dict[str, Any]) -> None:
        if self._exchange.notify is not None:
            data = {key: value for key, value in record.items() if key not in RESERVED_KEYS}
            self._exchange.notify(kind(session_id, data))


def _print_of(fingerprint: Any, value: Any) -> bytes | None:
    try:
        return fingerprint(value)  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 -- an object's own code may raise anything
        # What JSON refuses may have come from a pickle: a change of it is seen, and refused when it is saved.
        with suppress(Exception):
            return pickle.dumps(value)
        return None


def shown(session_id: str) -> str:
    """Return as much of an id as a log may hold."""
    return f"{session_id[:6]}…"
