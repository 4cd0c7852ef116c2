"""The cookie session: its record is in the browser's cookie."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from beaker_bridge.cookies import HOST_ONLY, LONGEST, MAX_COOKIE_SIZE
from beaker_bridge.events import SessionExpired, SessionInvalidated
from beaker_bridge.exceptions import BeakerBridgeError, DamagedRecordError, SessionTooLargeError
from beaker_bridge.logs import QUIET
from beaker_bridge.record.fields import ACCESSED, CREATED, FORM, ID, MOVED, in_milliseconds, is_expired
from beaker_bridge.session.base import SafeSession, new_id, shown
from beaker_bridge.session.state import COOKIE, ENDED, Fate, State
from beaker_bridge.stores.base import Record

log = logging.getLogger(__name__)

#: The form (domain, path, partition) of a host-only cookie with the path ``/``.
_DEFAULT_FORM = "/"


#: A cookie that was decoded: its record, that record's content, and whether it is stale.
_Opened = tuple[Record, dict[str, Any], bool]


def _time_of(opened: _Opened) -> float:
    """Return the time of the last access, else of the creation, of a cookie."""
    _, content, _ = opened
    time: float = content[ACCESSED] if ACCESSED in content else content.get(CREATED, 0)
    return time


class CookieSession(SafeSession):
    """A session that is all in its cookie: it can be neither merged nor revoked."""

    _holds_record = True
    #: The latest time in the cookies that came. A later one is written, or the browser's other cookie would win.
    _latest = 0.0
    #: The form of the newest of them.
    _came_as = _DEFAULT_FORM

    def _load(self, session_id: str | None = None) -> None:
        ours = self._our_cookies()
        if not ours and self._sent_cookies():
            self._refuse_forged()
        opened = []
        for value, stale in ours:
            try:
                opened.append(self._opened(value, stale=stale))
            except DamagedRecordError as error:
                self._report_damage(error, "in a cookie")
        if len(opened) > 1:
            # Sort the newest first; of two of one time, the one that the browser sends last, since it was set last.
            opened.reverse()
            opened.sort(key=_time_of, reverse=True)
        if not (opened and self._begin_newest(opened)):
            self._begin_new(State(new_id(), pending=ENDED if self._has_expired(opened) else 0, is_new=True))

    def _refuse_forged(self) -> None:
        error = DamagedRecordError("the cookie is not signed with a key of ours")
        if not self._config.options.invalidate_corrupt:
            raise error
        # Limit the log: anybody can send one with each request.
        if self._config.log_lines.is_due("a forged cookie", QUIET, self._now):
            self._report_damage(error, "in a cookie")

    def _opened(self, value: str, *, stale: bool) -> _Opened:
        record = Record(value.encode("ascii"))
        content, stale_record = self._config.codec.decode(record.raw)
        return record, content, stale or stale_record

    def _begin_newest(self, opened: list[_Opened]) -> bool:
        """Begin the newest session that has not expired; False if there is none."""
        newest = opened[0][1]
        self._latest = _time_of(opened[0])
        self._came_as = newest.get(FORM, _DEFAULT_FORM)
        for record, content, stale in opened:
            if MOVED in content:
                # Stop at a logout: older cookies stay closed.
                return False
            if not is_expired(content, self._config.options, self._now):
                self._begin(State(str(content.get(ID) or new_id()), record), content, stale=stale)
                return True
        return False

    def _has_expired(self, opened: list[_Opened]) -> bool:
        """Say whether the newest cookie is of an expired session, and notify of it: its cookie is then deleted."""
        if not opened:
            return False
        newest = opened[0][1]
        if any(MOVED in content for _, content, _ in opened):
            return False
        self._notify(SessionExpired, str(newest.get(ID)), newest)
        self._take(newest)
        return True

    def _is_as_stored(self) -> bool:
        # Compare with the id, which is in the cookie alone: a new one is a change.
        self._metadata[ID] = self.id
        return super()._is_as_stored()

    def _save(self) -> None:
        self._renew()
        self._metadata[ID] = self.id
        self._send(self._as_record())

    def _renew(self) -> None:
        self._metadata[ACCESSED] = self._later()

    def _later(self) -> float:
        """Return the time, but later than each cookie that came: another process's clock may be ahead."""
        now = in_milliseconds(self._now)
        return now if now > self._latest else in_milliseconds(self._latest + 0.001)

    def _touch(self) -> None:
        record = self._base()
        if self._config.options.save_accessed_time:
            record[ACCESSED] = self._metadata[ACCESSED] = self._later()
        try:
            self._send(record)
        except BeakerBridgeError as error:
            message = "session %s: its access time is not saved: %s"
            log.warning(message, shown(self.id), error, extra=self._fields(error))

    def _send(self, record: dict[str, Any]) -> None:
        self._note_form(record)
        codec = self._config.codec
        plain = codec.serialize(record)
        if plain == self._plain and not self._state.pending & COOKIE:
            return
        raw = codec.seal(plain)
        if self._config.options.use_cookies:
            cookie = self._cookie(raw.decode("ascii"))
            if len(cookie) > MAX_COOKIE_SIZE:
                raise self._too_large(len(cookie))
            self._cookie_out(cookie)
        self._state, self._plain = self._state.written(Record(raw)), plain

    def _too_large(self, size: int) -> SessionTooLargeError:
        sizes = {key: len(self._config.codec.serialize({key: value})) for key, value in self.items()}
        largest = ", ".join(repr(key) for key in sorted(sizes, key=sizes.__getitem__, reverse=True)[:3])
        return SessionTooLargeError(
            f"the session's cookie would have {size} bytes, a browser holds {MAX_COOKIE_SIZE};"
            f" the largest keys are {largest}",
            name=self.key,
            value=size,
        )

    def _finish_retired(self) -> None:
        for retired in self._state.retired:
            if retired.fate is Fate.DELETE:
                self._notify(SessionInvalidated, retired.id, self._decoded(retired.record))
            self._state = self._state.finished(retired)
        # Delete an expired session's cookie, too: sent again, it would be notified of again.
        if self._state.pending & ENDED and self._state.record is None:
            if self._state.is_invalidated and self._cannot_delete():
                self._close()
            else:
                self._forget_cookie()

    def _form_at(self, domain: str | None) -> str:
        """Return what identifies a cookie in a browser beside its name: domain, path and partition."""
        partition = "; Partitioned" if self._config.options.partitioned else ""
        return f"{(domain or HOST_ONLY).lstrip('.').lower()}{self.path}{partition}"

    def _note_form(self, record: dict[str, Any]) -> None:
        record.pop(FORM, None)
        form = self._form_at(self.domain)
        if form != _DEFAULT_FORM:
            record[FORM] = form

    def _cannot_delete(self) -> bool:
        """Say whether the browser may have a cookie of ours that we cannot delete, as we do not know its form."""
        deletable = self._form_at(self.domain), self._form_at(HOST_ONLY)
        return self._ours > 1 or (self._ours == 1 and self._came_as not in deletable)

    def _close(self) -> None:
        """Log out of all cookies that the browser may have, by an empty one that is newer than they are."""
        now = self._later()
        record = {CREATED: now, ACCESSED: now, ID: self.id, MOVED: now}
        self._note_form(record)
        codec = self._config.codec
        self._cookie_out(self._cookie(codec.seal(codec.serialize(record)).decode("ascii"), LONGEST))

    def bind(
        self, user_id: str | int, note: Mapping[str, Any] | None = None, limit: int | None = None, on_limit: str = "end"
    ) -> bool:
        """Refuse: nobody can list or end what is in a browser.

        Raises:
            BeakerBridgeError: always.
        """
        raise BeakerBridgeError("bind() needs a session that is stored on the server, got type = cookie")

    def unbind(self) -> None:
        """Do nothing: it belongs to no user."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Refuse: two requests that hold the same cookie cannot exclude each other.

        Raises:
            BeakerBridgeError: always.
        """
        raise BeakerBridgeError("exclusive() needs a session that is stored on the server, got type = cookie")
