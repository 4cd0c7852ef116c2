"""Beaker's ``CookieSession``, made safe."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from beaker_bridge.cookies import MAX_COOKIE_SIZE
from beaker_bridge.events import SessionExpired, SessionInvalidated
from beaker_bridge.exceptions import BeakerBridgeError, DamagedRecordError, SessionTooLargeError
from beaker_bridge.merge import ACCESSED
from beaker_bridge.session_base import ID, MAX_COOKIES, SafeSession, in_milliseconds, is_over, new_id, shown
from beaker_bridge.stores.base import Record

log = logging.getLogger(__name__)


class CookieSession(SafeSession):
    """A session that is all in its cookie: nothing to merge it with, and no way to revoke it."""

    #: The id and the content that this request has invalidated.
    _left: tuple[str, dict[str, Any]] | None
    _expired = False

    def _load(self, session_id: str | None = None) -> None:
        sent = self._sent_cookies()
        verified = self._profile.signer.verified(sent)
        for value, stale in verified[:MAX_COOKIES]:
            try:
                if self._open(value, stale=stale):
                    return
            except DamagedRecordError as error:
                self._damaged(error, "in a cookie")
        if sent and not verified:
            self._damaged(DamagedRecordError("the cookie is not signed with a key of ours"), "in a cookie")
        self._start_new()

    def _open(self, value: str, *, stale: bool) -> bool:
        """Begin what a cookie holds; False where its time is over."""
        record = Record(value.encode("ascii"))
        content, stale_record = self._profile.codec.decode(record.raw)
        if is_over(content, self._profile.options, self._now):
            self._tell(SessionExpired, str(content.get(ID)), content)
            self._take(content)
            self.unsettled = self._expired = True
            return False
        self._record = record
        self._expired = False
        self._begin(content, stale=stale or stale_record)
        self._id = str(self._own.get(ID) or new_id())
        return True

    def _refuse_late_change(self) -> None:
        self._refuse_late_cookie()

    def _is_as_stored(self) -> bool:
        # The id is in the cookie alone: one that is new is a change.
        self._own[ID] = self.id
        return super()._is_as_stored()

    def _save(self) -> None:
        self._renew()
        self._own[ID] = self.id
        self._send(self._as_record())

    def _touch(self) -> None:
        record = self._base()
        if self._profile.options.save_accessed_time:
            record[ACCESSED] = self._own[ACCESSED] = in_milliseconds(self._now)
        try:
            self._send(record)
        except BeakerBridgeError as error:
            log.warning("session %s: its access time is not saved: %s", shown(self.id), error)

    def _send(self, record: dict[str, Any]) -> None:
        codec = self._profile.codec
        plain = codec.serialize(record)
        if plain == self._plain and not self._send_cookie:
            return
        raw = codec.seal(plain)
        if self._profile.options.use_cookies:
            cookie = self._cookie(raw.decode("ascii"))
            if len(cookie) > MAX_COOKIE_SIZE:
                raise self._too_large(len(cookie))
            self._cookie_out(cookie)
        self._record, self._plain = Record(raw), plain

    def _too_large(self, size: int) -> SessionTooLargeError:
        sizes = {key: len(self._profile.codec.serialize({key: value})) for key, value in self.items()}
        largest = ", ".join(repr(key) for key in sorted(sizes, key=sizes.__getitem__, reverse=True)[:3])
        return SessionTooLargeError(
            f"the session's cookie would have {size} bytes, a browser holds {MAX_COOKIE_SIZE};"
            f" the largest keys are {largest}",
            name=self.key,
            value=size,
        )

    def _leave(self, *, deleted: bool) -> None:
        self._refuse_late_cookie()
        if deleted and self._record is not None:
            self._left = self.id, self._base()
            self._record = None
        self._plain = None

    def _leave_behind(self) -> None:
        if self._left is not None:
            self._tell(SessionInvalidated, *self._left)
            self._left = None
        # The browser would bring an expired one again, and it would be told of again.
        if (self.was_invalidated or self._expired) and self._record is None:
            self._forget_cookie()

    def exclusive(self) -> AbstractContextManager[None]:
        """Refuse: two requests that hold the same cookie cannot exclude each other.

        Raises:
            BeakerBridgeError: always.
        """
        raise BeakerBridgeError("exclusive() needs a session that is stored on the server, got type = cookie")
