"""Beaker's ``Session``, made safe: load, merge on save, true deletion, touch."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import Any

from beaker_bridge.events import SessionExpired, SessionInvalidated, SessionMerged
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionConflictError,
    SessionStoreError,
    SessionValueError,
)
from beaker_bridge.record.fields import (
    ACCESSED,
    CREATED,
    EXPIRY,
    ID,
    MOVED,
    WRITER,
    in_milliseconds,
    is_expired,
    is_stub,
)
from beaker_bridge.session.base import MAX_COOKIES, SafeSession, shown
from beaker_bridge.session.merge import merge
from beaker_bridge.session.purge import begin_purge
from beaker_bridge.stores.base import ID_FORM, Record, Store, Swap

log = logging.getLogger(__name__)

#: Seconds for which the id from before a login is remembered, for requests that were under way. So far the clocks of
#: two machines may be apart.
MOVED_FOR = 300
#: Seconds that a server keeps a record beyond the session's timeout, as Beaker has it.
GRACE = 120
#: A swap that was lost this often queues on the store's lock.
FREE_TRIES = 3


class Session(SafeSession):
    """A session whose record is in a store, found by the id in the cookie.

    Args:
        request: as :class:`SafeSession`'s.
        exchange: as :class:`SafeSession`'s.
        session_id: as :class:`SafeSession`'s.
        beaker_options: as :class:`SafeSession`'s.
    """

    #: The ids that this request leaves: their record, and whether it is deleted or marked as moved; or nothing.
    _left: dict[str, tuple[Record | None, bool]] | None
    #: The ids that could not be read: the store was down, or their record is damaged. A logout ends them, too.
    _unread: tuple[str, ...] = ()
    #: Who writes, in the record; chosen when it writes.
    _writer = ""
    #: What was to be written when the store's answer did not come: it may stand there.
    _unanswered: frozenset[bytes] = frozenset()
    _locked = False
    #: What returns how long the lock still lasts, where it ends by itself.
    _lease: Callable[[], float] | None = None
    # Before its form is checked, what a browser sent is no id: no path, no key, no SQL.
    _form = ID_FORM
    #: The ids that the browser has sent, where there are several.
    _sent_ids: tuple[str, ...] = ()
    _found_tombstone = False

    @property
    def _store(self) -> Store:
        store = self._config.store
        assert store is not None
        return store

    # -- Load ----------------------------------------------------------------------------------------

    def _load(self, session_id: str | None = None) -> None:
        if session_id is None:
            ours = self._our_cookies()
        else:
            ours = [(session_id, False)] if ID_FORM.fullmatch(session_id) else []
        if len(ours) > 1:
            self._sent_ids = tuple(found for found, _ in ours[:MAX_COOKIES])
        for found, stale in ours[:MAX_COOKIES]:
            if self._open(found, stale=stale):
                return
        if self._found_tombstone:
            self._start_unsaved()
        else:
            self._start_new()

    def load(self) -> None:
        if self._record is None:
            # It is new, or about to leave its id.
            self.revert()
        else:
            self._restart(self._store.read(self.id))

    def _open(self, session_id: str, *, stale: bool) -> bool:
        """Begin what an id stands for; False where it stands for nothing, or was moved."""
        config = self._config
        assert config.store is not None
        try:
            record = config.store.read(session_id)
            while record is not None:
                content, stale_record = self._decode_for(session_id, record)
                if MOVED in content or is_expired(content, config.options, self._now) or is_stub(content):
                    if self._now < content.get(MOVED, 0):
                        self._found_tombstone = True
                        return False
                    record = None if is_stub(content) else self._expire(session_id, record, content)
                else:
                    self._id, self._record = session_id, record
                    if stale:
                        self.unsettled = self._send_cookie = True
                    self._begin(content, stale=stale_record)
                    return True
        except SessionStoreError as error:
            self._begin_without_store(session_id, error)
            return True
        except DamagedRecordError as error:
            self._damaged(error, shown(session_id))
            self._unread += (session_id,)
        return False

    def _decode_for(self, session_id: str, record: Record) -> tuple[dict[str, Any], bool]:
        """Decode the record of an id, as the codec does; one that was copied from another id is damaged."""
        decoded = self._config.codec.decode(record.raw)
        if decoded[0].get(ID, session_id) != session_id:
            raise DamagedRecordError("it is another session's record", value=len(record.raw))
        return decoded

    def _begin_without_store(self, session_id: str, error: SessionStoreError) -> None:
        """Serve an empty session where the store cannot be reached, if the options say so; or raise."""
        if self._config.options.store_error != "empty":
            raise error
        log.warning("session %s: %s; an empty session is served", shown(session_id), error)
        self._start_unsaved()
        self._unread += (session_id,)

    def _expire(self, session_id: str, record: Record, content: dict[str, Any]) -> Record | None:
        """Delete a record whose time is over, unless another request has renewed it: return that."""
        try:
            swap = self._store.swap(session_id, record, None)
        except SessionStoreError as error:
            log.warning("session %s has expired, its record cannot be deleted: %s", shown(session_id), error)
            return None
        if swap.made and MOVED not in content:
            self._tell(SessionExpired, session_id, content)
        return swap.found

    def _start_unsaved(self) -> None:
        """Start an empty session that is never saved and sends no cookie."""
        self._start_new()
        self._unsaved = True

    def _refuse_late_change(self) -> None:
        # A browser that has the id finds the change under it.
        if self._record is None and self._config.options.use_cookies:
            self._refuse_late_cookie()

    # -- Commit --------------------------------------------------------------------------------------

    @property
    def _stored_id(self) -> str | None:
        """The id under which the session stands in the store: before a new one is committed, the old one."""
        if self._record is not None:
            return self._id
        return next((session_id for session_id, (_, deleted) in (self._left or {}).items() if not deleted), None)

    @property
    def _exists(self) -> bool:
        return self._stored_id is not None

    @property
    def _origin(self) -> Record | None:
        return self._record or (self._left or {}).get(self._stored_id or "", (None,))[0]

    def _save(self) -> None:
        fresh = self._record is None
        renewed = self._renewal_due and (self._cookie_has_lifetime or self._another_lost)
        self._renew()
        try:
            written = self._write()
        except SessionStoreError as error:
            if not fresh or self._left or self._config.options.store_error != "empty":
                raise
            log.warning("a new session is not saved: %s", error)
            self._unsaved = True
            return
        if not self._unsaved and (self._send_cookie or (written and (fresh or renewed))):
            self._send()
        if self._now >= self._config.purge_due:
            begin_purge(self._config)

    def _send(self) -> None:
        if self._config.options.use_cookies:
            self._cookie_out(self._cookie(self.id))

    def _write(self) -> bool:
        """Write the session, merged with what other requests have written meanwhile.

        Returns:
            False where that is done already, or where the record is gone: a session never comes back.
        """
        plain = self._serialized()
        if plain == self._plain:
            return False
        if self._lease is not None:
            self._refuse_ended_lease()
        swap = self._swap(self.id, self._record, plain)
        if not swap.made:
            return self._write_merged(swap.found, plain)
        self._record, self._plain = swap.found, plain
        return True

    def _write_merged(self, found: Record | None, plain: bytes) -> bool:
        """Write the session over what another request has written; returns as :meth:`_write` does."""
        merged = False
        with closing(self._tries(self.id)) as tries:
            # The first one is lost.
            next(tries)
            while True:
                theirs = self._content(self.id, found)
                if found is None or theirs is None:
                    self._end()
                    return False
                # What an earlier try of ours has written is our base; nobody else changed it.
                if found.raw not in self._unanswered:
                    self._take(merge(self._base(), self._as_record(), theirs))
                    plain, merged = self._serialized(), True
                self._record = found
                next(tries)
                swap = self._swap(self.id, found, plain)
                if swap.made:
                    break
                found = swap.found
        self._record, self._plain = swap.found, plain
        if merged:
            self._tell(SessionMerged, self.id, self._as_record())
        return True

    def _serialized(self) -> bytes:
        if not self._writer:
            # Not of ``random``, which applications seed: two writers must not have one word.
            self._writer = os.urandom(4).hex()
        self._own[WRITER] = self._writer
        if self._config.options.encrypt_key:
            # Who can copy it, and not read it, shall not open it under an id of his own.
            self._own[ID] = self.id
        return self._config.codec.serialize(self._as_record())

    def _touch(self) -> None:
        record = self._base()
        if self._config.options.save_accessed_time:
            record[ACCESSED] = self._own[ACCESSED] = in_milliseconds(self._now)
        try:
            plain = self._touched(record)
            if plain is None:
                return
            swap = self._swap(self.id, self._record, plain)
        except BeakerBridgeError as error:
            log.warning("session %s: its access time is not saved: %s", shown(self.id), error)
            return
        # Lost to another request: that one has written the session, and its time, or has ended it.
        if swap.made:
            self._record = swap.found
            if self._cookie_has_lifetime or self._another_lost or self._send_cookie:
                self._send()

    def _touched(self, record: dict[str, Any]) -> bytes | None:
        """Return the plain bytes of a record whose access time is renewed; None where it need not be written.

        What only the legacy serializer takes stays in its form: a session that is only read does not end for that.
        """
        codec = self._config.codec
        try:
            return codec.serialize(record)
        except SessionValueError as refusal:
            if not self._access_due:
                return None
            plain = codec.serialize_as_before(record)
            if plain is None:
                raise
            log.warning("session %s: %s; it stays as legacy_serializer has it", shown(self.id), refusal)
            return plain

    def _swap(self, session_id: str, record: Record | None, plain: bytes) -> Swap:
        raw = self._config.codec.seal(plain)
        try:
            return self._store.swap(session_id, record, raw, self._expires_in)
        except SessionStoreError:
            self._unanswered |= {raw}
            raise

    @property
    def _expires_in(self) -> float | None:
        """Seconds after which the server may forget the record."""
        options = self._config.options
        timeout = self._own.get(EXPIRY, options.timeout)
        if not options.absolute_timeout:
            return timeout + GRACE if timeout else None
        left: float = options.absolute_timeout - (self._now - self.created)
        return (min(left, timeout) if timeout else left) + GRACE

    def _tries(self, session_id: str) -> Generator[None, None, None]:
        """Yield a few times freely, then with the store's lock until ``store_timeout`` is over."""
        timeout = self._config.options.store_timeout
        for _ in range(FREE_TRIES):
            yield
        deadline = time.monotonic() + timeout
        with nullcontext() if self._locked else self._lock(session_id):
            while time.monotonic() < deadline:
                yield
        raise SessionConflictError(
            f"session {shown(session_id)} was changed by others each time it was merged, for {timeout:g} seconds"
        )

    def _content(self, session_id: str, found: Record | None) -> dict[str, Any] | None:
        """Return what another request has left of the session; nothing where it ended or moved it.

        Raises:
            DamagedRecordError: it cannot be read, and ``invalidate_corrupt`` is off: a change of ours would be lost.
        """
        try:
            return self._readable_content(session_id, found)
        except DamagedRecordError as error:
            if not self._config.options.invalidate_corrupt:
                raise
            log.warning("session %s: %s; nothing is written over it", shown(session_id), error)
            return None

    def _readable_content(self, session_id: str, found: Record | None) -> dict[str, Any] | None:
        content = None if found is None else self._decode_for(session_id, found)[0]
        return None if content is None or MOVED in content or is_stub(content) else content

    def _end(self) -> None:
        """Take note that the session ended elsewhere: what this request changed is not saved."""
        self._unsaved = True
        self.request["set_cookie"] = False
        log.info("session %s has ended meanwhile, this request's changes are not saved", shown(self.id))

    # -- What is left behind -------------------------------------------------------------------------

    def _leave(self, *, deleted: bool) -> None:
        left = self._left or {}
        if deleted:
            left.update(dict.fromkeys(self._unread, (None, True)))
            left = {session_id: (record, True) for session_id, (record, _) in left.items()}
        if self._record is not None:
            left[self.id] = self._record, deleted
        self._left = left
        self._record = self._plain = None

    def _leave_behind(self) -> None:
        if self._left:
            self._end_left(self._left)
        if self.was_invalidated and self._record is None:
            self._forget_cookie()

    def _end_left(self, left: dict[str, tuple[Record | None, bool]]) -> None:
        if any(deleted and record is not None for record, deleted in left.values()):
            self._drop_tombstones()
        for session_id, (record, deleted) in list(left.items()):
            if deleted or record is None:
                self._delete(session_id, record)
            else:
                self._mark_moved(session_id, record)
            del left[session_id]

    def _drop_tombstones(self) -> None:
        """Delete what ``regenerate_id()`` left under ids that the browser still sends: it would hide a new login."""
        for session_id in self._sent_ids:
            record = self._store.read(session_id)
            with suppress(DamagedRecordError):
                while record is not None and MOVED in self._decode_for(session_id, record)[0]:
                    record = self._store.swap(session_id, record, None).found

    def _delete(self, session_id: str, record: Record | None) -> None:
        """Delete a record, whatever others have made of it meanwhile, and notify of it."""
        record = self._remove(session_id, record)
        # What cannot be read is deleted as well, and not told of.
        with suppress(DamagedRecordError):
            content = self._readable_content(session_id, record)
            if content is not None:
                self._tell(SessionInvalidated, session_id, content)

    def _remove(self, session_id: str, record: Record | None) -> Record | None:
        """Delete a record, whatever others have made of it meanwhile; return what that was."""
        with closing(self._tries(session_id)) as tries:
            while True:
                next(tries)
                swap = self._store.swap(session_id, record, None)
                if swap.made:
                    return record
                record = swap.found

    def _mark_moved(self, session_id: str, record: Record) -> None:
        """Put a marker without data where the session was.

        The data stand under the new id already: a crash between leaves the old session, not none.
        """
        codec = self._config.codec
        now = self._config.clock()
        # With the times that Beaker, where it shares the store, looks for in each record.
        marker = codec.seal(codec.serialize({CREATED: self.created, ACCESSED: now, MOVED: now + MOVED_FOR}))
        with closing(self._tries(session_id)) as tries:
            while True:
                next(tries)
                swap = self._store.swap(session_id, record, marker, MOVED_FOR)
                theirs = None if swap.made else self._content(session_id, swap.found)
                if theirs is None:
                    break
                self._take(merge(self._decoded(record), self._as_record(), theirs))
                self._write()
                self._tell(SessionMerged, self.id, self._as_record())
                assert swap.found is not None
                record = swap.found
        if not swap.made and swap.found is None:
            # A logout came first: the session must not live on under its new id, which nobody knows yet.
            self._remove(self.id, self._record)
            self._end()

    # -- One step ------------------------------------------------------------------------------------

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Read, change and write the session as one step, under the store's lock.

        The block sees the session as it stands in the store, without what this request has changed
        before; what it changes is committed at its end, and stands whatever becomes of the request.
        ``invalidate()`` and ``regenerate_id()`` are left to the request's own commit.
        Values that were taken out of the session before the block are not the session's any more.
        A new session is its request's alone: there the block is run as it is.

        On Redis, memcached and SQL the lock ends by itself, 30 seconds after it was had, or five times
        ``store_timeout`` where that is more: a block has that long, less twice ``store_timeout``.

        Raises:
            SessionConflictError: others held the lock for ``store_timeout`` seconds, or the block took so long that
                they may have it now; it is not saved.
            SessionStoreError: the store cannot be reached.
        """
        session_id = self._stored_id
        if session_id is None or self._unsaved or self._locked or self._exchange.discarded:
            yield
            return
        with self._lock(session_id) as lease:
            record = self._store.read(session_id)
            moved_to = self._step_back()
            pending = self._base(), self._as_record(), self.has_changed(), self._forced
            self._locked, self._lease = True, lease
            try:
                self._restart(record)
                yield
                moved_to = self._step_back() or moved_to
                # WSGI code, and who has found the session by its id, changes it without a word.
                changed = self.has_changed() or not self._is_as_stored()
                if self._record is not None and not self._unsaved and changed:
                    self._renew()
                    self._write()
            finally:
                self._locked, self._lease = False, None
                self._resume(*pending, self._step_back() or moved_to)

    @contextmanager
    def _lock(self, session_id: str) -> Iterator[Callable[[], float] | None]:
        """Hold the store's lock, and yield what it yields; once, where this request has it by another object."""
        exchange = self._exchange
        if exchange.locks is None:
            exchange.locks = {}
        locks, key = exchange.locks, (threading.get_ident(), session_id)
        if key in locks:
            yield locks[key]
            return
        with self._store.lock(session_id, self._config.options.store_timeout) as lease:
            locks[key] = lease
            try:
                yield lease
            finally:
                del locks[key]

    def _refuse_ended_lease(self) -> None:
        """Refuse to commit a block when somebody else may have the lock before that is done."""
        needed = 2 * self._config.options.store_timeout
        assert self._lease is not None
        if self._lease() < needed:
            raise SessionConflictError(
                f"session {shown(self.id)} is not saved: its exclusive() block took longer than the lock in the store"
                f" {self._store.kind} lasts, less {needed:g} seconds for the commit",
                name=self._store.kind,
            )

    def _step_back(self) -> str | None:
        """Return to the id from before a new one that is not committed; return the new one."""
        if self._record is not None or self._stored_id is None:
            return None
        moved_to, self._id = self._id, self._stored_id
        assert self._left is not None
        self._record, _ = self._left.pop(self.id)
        return moved_to

    def _restart(self, record: Record | None) -> None:
        """Start anew from what stands in the store."""
        content = self._content(self.id, record)
        if content is None:
            self._end()
            self.clear()
            return
        self._record, self._plain = record, None
        self._take(content)
        self._handed_out = None
        self._dirty = self._forced = False

    def _resume(
        self, base: dict[str, Any], ours: dict[str, Any], dirty: bool, forced: bool, moved_to: str | None
    ) -> None:
        """Put what the request had changed before the block over what the block has committed."""
        if self._record is None or self._unsaved:
            # The block has invalidated it, or it ended elsewhere.
            return
        self._take(merge(base, ours, self._base()))
        self._handed_out = None
        self._dirty, self._forced = dirty or moved_to is not None, forced
        self.unsettled = True
        if moved_to is not None:
            self._left = {**(self._left or {}), self.id: (self._record, False)}
            self._id, self._record, self._plain = moved_to, None, None


class StandaloneSession(Session):
    """A session that belongs to no request: its own ``commit()`` finds out what was changed."""

    def commit(self) -> None:
        self.changed()
        # To save what stands in the store already writes nothing.
        self._forced |= self._exists
        super().commit()

    def save(self, accessed_only: bool = False) -> None:
        """Commit, also a new session that is empty.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it.
        """
        self.force()
        self.commit()


class MemorySession(Session):
    """A session in the memory of one process: where there are several, the first one that begins warns."""

    def _start_new(self) -> None:
        super()._start_new()
        several = self._exchange.environ.get("wsgi.multiprocess") and not self._config.options.namespace_class
        # Of all threads one gets it, and keeps it.
        if several and self._config.may_warn_of_processes.acquire(blocking=False):
            log.warning(
                "type = memory gives each process sessions of its own, and wsgi.multiprocess says that there are"
                " several: a session is lost whenever another one answers;"
                " type = file, dbm, cookie, ext:redis, ext:memcached or ext:database keeps it for all of them"
            )
