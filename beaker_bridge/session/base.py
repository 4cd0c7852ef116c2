"""The base of stored sessions and cookie sessions: state, changes, commit, times, cookie.

A session is loaded when it is first touched, and committed once or more: :meth:`SafeSession.commit` writes what changed
since the last commit, and sets the cookie that the response needs where Beaker expects it (``request['cookie_out']``,
``request['set_cookie']``).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from threading import get_ident
from types import MappingProxyType
from typing import Any

from beaker_bridge.cookies import ANY_FORM, BLANK, HOST_ONLY, CookieWriter, cookie_values, own_values
from beaker_bridge.events import SessionEvent, SessionNotSaved
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionConflictError,
    SessionStoreError,
    SessionTooLateError,
    failure_of,
)
from beaker_bridge.logs import fields
from beaker_bridge.record.fields import (
    ACCESSED,
    CREATED,
    DOMAIN,
    EXPIRY,
    PATH,
    RESERVED_KEYS,
    WRITER,
    in_milliseconds,
)
from beaker_bridge.session.changes import IMMUTABLE, Changes
from beaker_bridge.session.context import OPEN, SessionContext
from beaker_bridge.session.listeners import notify_safely
from beaker_bridge.session.mapping import BeakerMapping
from beaker_bridge.session.merge import NO_MESSAGES
from beaker_bridge.session.state import (
    CHANGED,
    COOKIE,
    DUE,
    ENDED,
    FORCED,
    STALE,
    TOUCH,
    WRITE,
    State,
    needs_cookie,
    todo,
)
from beaker_bridge.stores.base import Record

log = logging.getLogger(__name__)

#: The number of our cookies that are tried: a browser sends one for each domain and path under which one was set.
MAX_COOKIES = 4
#: Seconds for which a tombstone stays, for requests that are under way. It also covers clocks that differ.
MOVED_FOR = 300
#: Seconds for which a server keeps a record beyond the session's timeout, as with Beaker.
GRACE = 120
#: How many commits one may become, since subscribers of its events change the session.
ROUNDS = 2


def new_id() -> str:
    """Return 128 random bits, in the form of Beaker's ids."""
    return secrets.token_hex(16)


class SafeSession(BeakerMapping):
    """A session that commits what changed, once.

    Args:
        request: Beaker's dict of the ``Cookie`` header, into which the cookie for the response goes.
        exchange: the request.
        session_id: the id of a stored session, instead of a cookie's.
    """

    #: Whether the browser is the store.
    _holds_record = False
    #: The form of our cookie's value.
    _form = ANY_FORM
    #: The number of our cookies that the browser sent.
    _ours = 0
    #: The plain bytes of the last commit: a second one with the same writes nothing.
    _plain: bytes | None = None
    #: The stored values themselves, to see which ones were replaced since.
    _stored: Mapping[str, Any] = MappingProxyType({})
    #: By the key of their queue, the messages flashed with ``allow_duplicate=False`` since the last commit.
    _flashed_once: Mapping[str, Collection[Any]] = NO_MESSAGES
    #: Why the session that the browser's cookie names was ended from elsewhere; None if it was not.
    revoked: str | None = None
    #: The login that the next commit begins.
    _binding: Any = None
    #: The login that the session leaves at the next commit: the id of its index, and its name.
    _leaving: tuple[str, str] | None = None
    #: The thread that is in an ``exclusive()`` block of this session, or None.
    _locked_by: int | None = None
    #: The events of a commit that is under way; None where none is, and subscribers are notified at once.
    _events: list[SessionEvent] | None = None

    #: The time of the access before this one, in seconds; None in a new session.
    last_accessed: float | None

    def __init__(self, request: dict[str, Any], exchange: SessionContext, session_id: str | None = None) -> None:
        # Skip Beaker's constructor, which parses, verifies, loads and locks in ways of its own.
        self.request = request
        request["set_cookie"] = False
        self._exchange = exchange
        self._config = config = exchange.config
        self._now = config.clock()
        #: The mutable values that the application was handed, with their states.
        self._changes: Changes | None = None
        self._load(session_id)

    # -- State ---------------------------------------------------------------------------------------

    def _become(self, state: State) -> None:
        """Take a state that the application has asked for.

        Raises:
            SessionTooLateError: the request is over; or the headers were sent, and the state needs a cookie.
        """
        if self._exchange.phase is not OPEN:
            self._refuse_late(state)
        self._state = state

    def _refuse_late(self, state: State) -> None:
        exchange = self._exchange
        if exchange.over and not (self._locked_by == get_ident() and state.retired == self._state.retired):
            raise SessionTooLateError(
                "the session was changed after its request was over, and no commit would save that:"
                " change it in a block of `with session.exclusive():`"
            )
        is_cookie_due = self._config.options.use_cookies and needs_cookie(state, holds_record=self._holds_record)
        if is_cookie_due and not exchange.discarded:
            if self._state.is_invalidated:
                # Commit a logout all the same: only the new session needs the cookie.
                self._finish_retired()
            error = SessionTooLateError(
                "the session was changed after the response's headers were sent, and the change needs a cookie:"
                " change it before the body is streamed"
            )
            log.error("session %s: %s", shown(self.id), error, extra=self._fields(error))
            raise error

    def invalidate(self) -> None:
        """Delete the session at the next commit, and begin a new, empty one."""
        self._begin_after(self._state.invalidated(new_id()))

    def delete(self) -> None:
        """Delete the session as :meth:`invalidate` does; the new one is not stored as long as it is empty."""
        self._begin_after(self._state.deleted(new_id()))

    def _begin_after(self, state: State) -> None:
        self._become(state)
        self._plain = self._changes = self._binding = self._leaving = None
        self._begin_new(state)

    def regenerate_id(self) -> None:
        """Move the session to a new id at the next commit, as after a login; the old id no longer opens it.

        Raises:
            SessionTooLateError: the response's headers were sent.
        """
        self._become(self._state.rotated(new_id()))
        self._plain = None

    # -- Changes -------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Mark the session as changed.

        Raises:
            SessionTooLateError: the request is over; or the headers were sent, and the session is new.
        """
        state = self._state
        if not (state.pending & CHANGED and self._exchange.phase is OPEN):
            self._become(state.asked(CHANGED))

    def force(self) -> None:
        """Mark the session to be stored even if it is new and empty, as Beaker's ``save()`` does."""
        # Ignore it after ``delete()``, where Beaker's proxy calls it by itself.
        if len(self) or not self._state.is_deleted:
            self._become(self._state.asked(CHANGED | FORCED))

    def force_by_option(self) -> None:
        """Mark the session to be stored unless the store holds exactly that, as the option ``auto`` asks for.

        A new, empty session is not stored after the headers were sent: no browser would know its id.
        """
        if len(self) or self._state.exists or not self._exchange.sent:
            self._state = self._state.asked(CHANGED | FORCED)

    def revert(self) -> None:
        """Return to the data as they were loaded, or last committed. A new id stays."""
        origin = self._state.origin
        self._take(self._decoded(origin) if origin else {CREATED: self.created, ACCESSED: self._metadata[ACCESSED]})
        self._changes, self._flashed_once = None, NO_MESSAGES
        self._binding = self._leaving = None
        self._state = self._state.reverted()

    def load(self) -> None:
        """Read the session again, as Beaker's ``load()`` does: uncommitted changes are dropped."""
        self.revert()

    def track(self, key: str, value: Any) -> None:
        """Take the state of a mutable value that the application is handed, to see at the commit whether it changed."""
        changes = self._changes
        if changes is None:
            if not self._config.options.detect_changes:
                return
            changes = self._changes = Changes(self._config.codec.serializer)
        known = changes.tracked.get(key)
        if known is None or known[0] is not value:
            changes.track(key, value, is_dirty=bool(self._state.pending & CHANGED))

    def _track_stored(self, key: str, value: Any) -> None:
        # Leave values that other WSGI code assigned to its ``save()``, as Beaker does.
        if type(value) not in IMMUTABLE and self._stored.get(key) is value:
            self.track(key, value)

    def note_flashed_once(self, key: str, message: Any) -> None:
        """Note that a message was flashed with ``allow_duplicate=False``: a merge adds no equal one to it.

        Args:
            key: the key of its queue.
            message: the message.
        """
        self._flashed_once = {**self._flashed_once, key: [*self._flashed_once.get(key, ()), message]}

    def has_changed(self) -> bool:
        """Say whether the application has changed the session since the last commit."""
        return bool(self._state.pending & CHANGED) or (self._changes is not None and self._changes.any(self))

    def _mark_clean(self, *, changed: bool) -> None:
        """Start to look for changes from what is now committed."""
        if self._state.pending:
            self._state = self._state.clean()
        self._flashed_once = NO_MESSAGES
        if changed:
            self._stored = dict.copy(self)
            if self._changes is not None:
                self._changes.mark_clean(self)

    # -- The record ----------------------------------------------------------------------------------

    def _base(self) -> dict[str, Any]:
        """Return the record as it was read, decoded anew, so without any change of the application."""
        record = self._state.record
        return self._decoded(record) if record else {}

    def _decoded(self, record: Record) -> dict[str, Any]:
        return self._config.codec.decode(record.raw)[0]

    def _as_record(self) -> dict[str, Any]:
        return self | self._metadata

    def _take(self, record: dict[str, Any]) -> None:
        """Make a record the content of this session."""
        # Most records have these three of the reserved keys, and no others.
        metadata = self._metadata = {
            CREATED: record.pop(CREATED, self._now),
            ACCESSED: record.pop(ACCESSED, self._now),
        }
        if WRITER in record:
            metadata[WRITER] = record.pop(WRITER)
        if not RESERVED_KEYS.isdisjoint(record):
            for key in RESERVED_KEYS.intersection(record):
                metadata[key] = record.pop(key)
        dict.clear(self)
        dict.update(self, record)
        self._stored = record

    # -- The beginning of a request ------------------------------------------------------------------

    def _load(self, session_id: str | None = None) -> None:
        """Read the session that the request names, or the id, or start a new one."""
        raise NotImplementedError

    def _begin(self, state: State, record: dict[str, Any], *, stale: bool) -> None:
        """Begin a request on a session that exists."""
        self._take(record)
        metadata, config = self._metadata, self._config
        accessed = self.last_accessed = metadata[ACCESSED]
        longest = config.touch_interval
        interval = min(longest, metadata[EXPIRY] / 10) if EXPIRY in metadata else longest
        if self._now - accessed >= interval and config.options.save_accessed_time:
            state = state.asked(DUE)
        self._state = state.asked(STALE) if stale else state

    def _begin_new(self, state: State) -> None:
        """Begin a request on a session that is new."""
        self._state = state
        self.last_accessed = None
        # Keep the cookie's domain and path: under others the browser would keep the old cookie beside it.
        cookie = {key: self._metadata[key] for key in (DOMAIN, PATH) if key in self._metadata}
        # Whole seconds for ISession, as a float for Beaker.
        self._take({CREATED: float(int(self._now)), ACCESSED: in_milliseconds(self._now), **cookie})

    # -- The commit ----------------------------------------------------------------------------------

    def save(self, accessed_only: bool = False) -> None:
        """Commit, as Beaker's middleware does before the headers are sent; a later failure is logged.

        Args:
            accessed_only: whether WSGI code has not called ``save()``; changes are committed in any case.

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
            message = "a session that was changed after the response's headers were sent is not saved"
            log.exception(message, extra=self._fields(error))

    def commit(self) -> None:
        """Write what changed since the last commit; idempotent.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it.
        """
        if self._state.detached or self._exchange.discarded:
            return
        pending = self._state.pending
        try:
            self._notify_after(self._commit)
        except BaseException as error:
            # Leave all of it to a second try, also the cookie: send none for an uncommitted session.
            if self.request["set_cookie"]:
                # Without a record it was that of a session that ended.
                pending |= COOKIE if self._state.record is not None else ENDED
            self._state = self._state.asked(pending)
            self.request["set_cookie"] = False
            self._report_failure(error, "commit")
            raise

    def _notify_after(self, commit: Callable[[], None]) -> None:
        """Commit, and then notify: what a subscriber changes would count as committed before that."""
        notify = self._exchange.notify
        if notify is None:
            commit()
            return
        for _ in range(ROUNDS):
            events: list[SessionEvent] = []
            self._events = events
            try:
                commit()
            finally:
                self._events = None
                for event in events:
                    notify(event)
            # A subscriber may have changed the session, also in place.
            if not events or self._state.detached or not (self._state.pending or self.has_changed()):
                break

    def _commit(self) -> None:
        state = self._state
        changed = self.has_changed()
        only_forced = changed and state.pending & (FORCED | COOKIE) == FORCED
        step = todo(state, changed=changed, empty=not len(self), as_stored=bool(only_forced) and self._is_as_stored())
        if step is WRITE:
            if self._exchange.phase is not OPEN:
                self._refuse_late(state.asked(CHANGED))
            if not state.pending & CHANGED:
                # Leave it to a second try: a merge replaces the values that were changed in place.
                self._state = state.asked(CHANGED)
            self._save()
        elif step is TOUCH:
            self._touch()
        if not self._state.detached:
            if self._state.retired or self._state.pending & ENDED or self._leaving:
                self._finish_retired()
            self._mark_clean(changed=changed)

    def _is_as_stored(self) -> bool:
        """Say whether the store holds exactly this session already."""
        if self._state.record is None:
            return False
        stored = self._base()
        metadata = {key: stored.pop(key) for key in RESERVED_KEYS & stored.keys()}
        return metadata == self._metadata and self._config.codec.writes_alike(dict(self), stored)

    def _save(self) -> None:
        """Write the session."""
        raise NotImplementedError

    def _touch(self) -> None:
        """Renew the access time, and nothing else."""
        raise NotImplementedError

    def _finish_retired(self) -> None:
        """Delete or entomb the retired ids, after the session itself is written."""
        raise NotImplementedError

    def bind(
        self, user_id: str | int, note: Mapping[str, Any] | None = None, limit: int | None = None, on_limit: str = "end"
    ) -> bool:
        """Bind the session to a user at the next commit; return whether it moves to a new id."""
        raise NotImplementedError

    def unbind(self) -> None:
        """Take the session off its user's list, at the next commit."""
        raise NotImplementedError

    def exclusive(self) -> AbstractContextManager[None]:
        """Return a context in which the session is read, changed and written as one step."""
        raise NotImplementedError

    # -- The cookie ----------------------------------------------------------------------------------

    @property
    def _cookie_has_lifetime(self) -> bool:
        return EXPIRY in self._metadata or self._config.options.cookie_expires is not True

    def _our_cookies(self) -> list[tuple[str, bool]]:
        """Return the values of our cookie that verify, and whether each was signed under a retired key."""
        header = self.request.get("cookie")
        options = self._config.options
        if not header or not options.use_cookies:
            return []
        ours = own_values(header, options.key, self._config.signer, self._form)
        self._ours = len(ours)
        return ours

    @property
    def _another_lost(self) -> bool:
        """Whether the browser sent another cookie that we have signed; an unsigned one may be anybody's."""
        return self._ours > 1 and self._config.signer.signs

    def _cookie(self, value: str, lifetime: int | None = None) -> str:
        options = self._cookie_options
        cookies = self._config.cookies if options is None else CookieWriter(options, self._config.signer)
        if lifetime is None and not self._cookie_lifetime_is_set:
            lifetime = self._metadata.get(EXPIRY)
        return cookies.write(
            value,
            https=self._exchange.https,
            now=self._now,
            lifetime=lifetime,
            # None: the option's.
            domain=self._metadata.get(DOMAIN) or None,
            path=self._metadata.get(PATH),
        )

    def _send_cookie(self, value: str) -> None:
        """Send a value, signed, as the response's cookie."""
        self._cookie_out(self._cookie(value))

    def _cookie_out(self, cookie: str) -> None:
        self.request["cookie_out"] = cookie
        self.request["dropped_out"] = self._host_only_deletion()
        self.request["set_cookie"] = True

    def _host_only_deletion(self) -> str | None:
        """Return a ``Set-Cookie`` that deletes our host-only cookie, if there is one beside the domain's.

        A cookie of another path or of a parent domain may be another application's: leave it.
        """
        was_ours = self._state.is_invalidated and self._ours and self._config.signer.signs
        if not ((self._another_lost or was_ours) and self.domain):
            return None
        return self._config.cookies.delete(https=self._exchange.https, domain=HOST_ONLY, path=self.path)

    def _forget_cookie(self) -> None:
        """Delete the browser's cookie, if it sent one; else send none."""
        self.request["set_cookie"] = False
        if self._ours or self._sent_cookies():
            self._cookie_out(
                self._config.cookies.delete(https=self._exchange.https, domain=self.domain, path=self.path)
            )

    def _sent_cookies(self) -> list[str]:
        """Return the values of the cookies of our name, whoever set them, without empty ones."""
        options = self._config.options
        header = self.request.get("cookie")
        if not header or not options.use_cookies:
            return []
        # Skip also an empty one that a server has joined with the next ``Cookie`` line by a comma.
        return [value for value in cookie_values(header, options.key) if value.partition(",")[0].strip(BLANK)]

    # -- Reports -------------------------------------------------------------------------------------

    def _report_damage(self, error: DamagedRecordError, session: str) -> None:
        """Log a damaged record or cookie; or raise, if ``invalidate_corrupt`` is off."""
        if not self._config.options.invalidate_corrupt:
            raise error
        log.warning("session %s: %s; it opens nothing", session, error, extra=self._fields(error))

    def _fields(self, error: BaseException) -> dict[str, Any]:
        """Return the ``extra`` of a log line about an error."""
        return fields(store=self._config.options.type, failure=failure_of(error))

    def _report_failure(self, error: BaseException, step: str) -> None:
        """Notify, once, of an error of the store, or of a conflict.

        Args:
            error: the error.
            step: what the session was at.
        """
        if isinstance(error, SessionStoreError):
            self._config.listeners.report_failure(error, step)
        elif isinstance(error, SessionConflictError) and not error.is_reported:
            error.is_reported = True
            tries: Any = error.value
            if self._exchange.notify is not None:
                notify_safely(self._exchange.notify, SessionNotSaved(self.id, dict(self), "conflict", tries))

    def _notify(self, kind: type[SessionEvent], session_id: str, record: dict[str, Any], **more: Any) -> None:
        if self._exchange.notify is not None:
            data = {key: value for key, value in record.items() if key not in RESERVED_KEYS}
            event = kind(session_id, data, **more)
            if self._events is None:
                self._exchange.notify(event)
            else:
                self._events.append(event)


def shown(session_id: str) -> str:
    """Return the part of an id that a log may hold."""
    return f"{session_id[:6]}…"
