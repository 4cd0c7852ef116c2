"""The stored session: load, write and merge, touch, logout, rotation. ``docs/explanation/commit.rst`` explains it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from beaker_bridge.events import SessionExpired, SessionInvalidated, SessionMerged, SessionNotSaved
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionConflictError,
    SessionStoreError,
    SessionValueError,
)
from beaker_bridge.logs import fields
from beaker_bridge.record.fields import (
    ACCESSED,
    CREATED,
    END_REASON,
    EXPIRY,
    ID,
    INDEX,
    LISTED,
    LOGIN,
    MOVED,
    MOVED_TO,
    NO_SESSION,
    WRITER,
    in_milliseconds,
    is_live,
    is_over,
    is_stub,
)
from beaker_bridge.session.base import GRACE, MAX_COOKIES, MOVED_FOR, SafeSession, new_id, shown
from beaker_bridge.session.merge import merge
from beaker_bridge.session.purge import begin_purge
from beaker_bridge.session.retry import retry
from beaker_bridge.session.state import COOKIE, DUE, ENDED, STALE, Fate, Retired, Sent, State
from beaker_bridge.session.users import LOGOUT, UserIndex
from beaker_bridge.stores.base import ID_FORM, Record, Store, Swap

log = logging.getLogger(__name__)

#: The most ids that a tombstone names. One more rotation of the same record ends its session, as a logout would.
MAX_NAMES = 32


class Session(SafeSession):
    """A session whose record is in a store, under the id that the cookie holds.

    Args:
        request: as :class:`SafeSession`'s.
        exchange: as :class:`SafeSession`'s.
        session_id: as :class:`SafeSession`'s.
    """

    #: The random word that marks what this object writes; chosen at the first write.
    _writer = ""
    #: The bytes of writes whose answer was lost: the store may hold them.
    _in_doubt: frozenset[bytes] = frozenset()
    #: In an ``exclusive()`` block whose lock is a lease: returns the seconds for which it still lasts.
    _lease: Callable[[], float] | None = None
    # Check the form of what a browser sent before it becomes a part of a path, a key or a statement.
    _form = ID_FORM
    #: The ids that the browser sent, if there are several.
    _sent_ids: tuple[str, ...] = ()
    #: Why one of them was ended from elsewhere.
    _ended_by: str | None = None

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
        sent: list[Sent] = []
        for found, stale in ours[:MAX_COOKIES]:
            if self._open(found, sent, stale=stale):
                return
        self.revoked = self._ended_by
        moved = any(other.tombstone for other in sent)
        self._begin_new(State(new_id(), sent=tuple(sent), detached=moved, is_new=True))

    def _open(self, session_id: str, sent: list[Sent], *, stale: bool) -> bool:
        """Begin the session of an id; False if there is none, and what was found is added to ``sent``."""
        config = self._config
        assert config.store is not None
        try:
            record = config.store.read(session_id)
            while record is not None:
                content, stale_record = self._decode_for(session_id, record)
                if not is_live(content, config.options, self._now):
                    if self._now < content.get(MOVED, 0):
                        sent.append(Sent(session_id, record))
                        return False
                    if END_REASON in content:
                        # Keep the marker: a commit of a request that is under way still has to find it.
                        self._note_revoked(content)
                        return False
                    record = None if is_stub(content) else self._expire(session_id, record, content)
                else:
                    state = State(session_id, record, COOKIE if stale else 0, (), tuple(sent))
                    self._begin(state, content, stale=stale_record)
                    return True
        except SessionStoreError as error:
            self._report_failure(error, "load")
            sent.append(Sent(session_id, None))
            self._begin_without_store(sent, error)
            return True
        except DamagedRecordError as error:
            self._report_damage(error, shown(session_id))
            sent.append(Sent(session_id, None))
        return False

    def _note_revoked(self, content: Mapping[str, Any]) -> None:
        if content[END_REASON] != LOGOUT and not is_over(content, self._now):
            self._ended_by = content[END_REASON]

    def _decode_for(self, session_id: str, record: Record) -> tuple[dict[str, Any], bool]:
        """Decode the record of an id; one that was copied from another id is damaged."""
        decoded = self._config.codec.decode(record.raw)
        if decoded[0].get(ID, session_id) != session_id:
            raise DamagedRecordError("it is another session's record", value=len(record.raw))
        return decoded

    def _begin_without_store(self, sent: list[Sent], error: SessionStoreError) -> None:
        """Serve an empty session although the store cannot be reached, if ``store_error`` says so; else raise."""
        if self._config.options.store_error != "empty":
            raise error
        shown_id = shown(sent[-1].id)
        log.warning("session %s: %s; an empty session is served", shown_id, error, extra=self._fields(error))
        self._begin_new(State(new_id(), sent=tuple(sent), detached=True, is_new=True))

    def _expire(self, session_id: str, record: Record, content: dict[str, Any]) -> Record | None:
        """Delete an expired record, unless another request has renewed it: return that one."""
        try:
            swap = self._store.swap(session_id, record, None)
        except SessionStoreError as error:
            message = "session %s has expired, its record cannot be deleted: %s"
            log.warning(message, shown(session_id), error, extra=self._fields(error))
            self._report_failure(error, "expire")
            return None
        if swap.made and MOVED not in content:
            self._notify(SessionExpired, session_id, content)
        return swap.found

    # -- Write ---------------------------------------------------------------------------------------

    def _save(self) -> None:
        state = self._state
        fresh = state.record is None
        renewed = state.pending & (DUE | STALE) and (self._cookie_has_lifetime or self._another_lost)
        self._renew()
        try:
            if (self._binding or LOGIN in self._metadata) and not self._enter_index():
                return
            written = self._write()
        except SessionStoreError as error:
            if not fresh or state.retired or self._config.options.store_error != "empty":
                raise
            log.warning("a new session is not saved: %s", error, extra=self._fields(error))
            self._report_failure(error, "commit")
            self._state = state.ended()
            return
        if not self._state.detached and (state.pending & COOKIE or (written and (fresh or renewed))):
            self._send()
        begin, end = self._config.purge_pause
        if not begin <= self._now < end:
            begin_purge(self._config)

    def _renew(self) -> None:
        """Renew the access time of a record that is about to be written, if that is due."""
        is_due = self._state.record is None or self._state.pending & (DUE | STALE)
        if is_due or not self._config.options.save_accessed_time:
            self._metadata[ACCESSED] = in_milliseconds(self._now)

    def _send(self) -> None:
        if self._config.options.use_cookies:
            self._send_cookie(self.id)

    def _write(self) -> bool:
        """Write the session, merged with what other requests have written meanwhile.

        Returns:
            False if it is written already, or if the record is gone: a session never comes back.
        """
        plain = self._serialized()
        if plain == self._plain:
            return False
        if self._lease is not None:
            self._refuse_ended_lease()
        state = self._state
        swap = self._swap(state.id, state.record, plain)
        if swap.made:
            self._state, self._plain = state.written(swap.found), plain
            return True
        return self._write_merged(swap.found, plain)

    def _write_merged(self, found: Record | None, plain: bytes) -> bool:
        """Write the session over what another request has written; returns as :meth:`_write` does."""
        merged, conflicts = False, frozenset[str]()

        def write() -> bool:
            nonlocal found, plain, merged, conflicts
            theirs = self._content(self.id, found)
            if found is None or theirs is None:
                self._detach()
                return True
            # Skip the merge with what an earlier try of ours wrote: it is the new base.
            if found.raw not in self._in_doubt:
                conflicts |= self._merge(self._base(), self._as_record(), theirs)
                merged = True
            # Before it may be refused: a second commit must not merge it again.
            self._state = self._state.based_on(found)
            if merged:
                plain = self._serialized()
            swap = self._swap(self.id, found, plain)
            if swap.made:
                self._state, self._plain = self._state.written(swap.found), plain
            found = swap.found
            return swap.made

        tries = self._retry(self.id, write, lost=1)
        if merged and not self._state.detached:
            self._report_merge(conflicts, tries)
        return not self._state.detached

    def _report_merge(self, conflicts: frozenset[str], tries: int) -> None:
        """Log a merge, and notify of it."""
        level = logging.INFO if conflicts else logging.DEBUG
        message = "session %s: merged with another request's changes; those of %d keys were given up"
        extra = fields(store=self._store.kind, failure="conflict" if conflicts else None, tries=tries)
        log.log(level, message, shown(self.id), len(conflicts), extra=extra)
        self._notify(SessionMerged, self.id, self._as_record(), conflicts=conflicts, tries=tries)

    def _merge(self, base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> frozenset[str]:
        """Merge, and take the outcome as the content; return the keys in which a change was given up."""
        whole_keys = self._config.options.whole_keys
        merged = merge(base, ours, theirs, whole_keys=whole_keys, flashed_once=self._flashed_once)
        self._take(merged.record)
        return merged.conflicts

    def _serialized(self) -> bytes:
        if not self._writer:
            # Avoid ``random``, which applications seed: two writers must not draw the same word.
            self._writer = os.urandom(4).hex()
        self._metadata[WRITER] = self._writer
        if self._config.options.encrypt_key:
            # Bind the ciphertext to its id, so a copied record cannot be replayed under another one.
            self._metadata[ID] = self.id
        return self._config.codec.serialize(self | self._metadata)

    def _swap(self, session_id: str, record: Record | None, plain: bytes) -> Swap:
        raw = self._config.codec.seal(plain)
        try:
            return self._store.swap(session_id, record, raw, self._expires_in)
        except SessionStoreError:
            self._in_doubt |= {raw}
            raise

    @property
    def _expires_in(self) -> float | None:
        """Seconds after which the server may remove the record."""
        options = self._config.options
        timeout = self._metadata.get(EXPIRY, options.timeout)
        if not options.absolute_timeout:
            return timeout + GRACE if timeout else None
        left: float = options.absolute_timeout - (self._now - self.created)
        return (min(left, timeout) if timeout else left) + GRACE

    def _retry(self, session_id: str, attempt: Callable[[], bool], *, lost: int = 0) -> int:
        """Repeat an attempt until it succeeds: a few times freely, then under the store's lock.

        Args:
            session_id: the id whose swaps may be lost.
            attempt: makes one try, and returns whether it is done.
            lost: the number of tries that were lost before.

        Returns:
            The number of tries, with those.

        Raises:
            SessionConflictError: no try succeeded within ``store_timeout``.
        """
        if attempt():
            return lost + 1
        timeout = self._config.options.store_timeout
        holds_lock = self._locked_by == threading.get_ident()
        lock = nullcontext if holds_lock else partial(self._lock, session_id)
        return retry(attempt, lock, timeout, f"session {shown(session_id)}", lost + 1)

    def _content(self, session_id: str, found: Record | None) -> dict[str, Any] | None:
        """Return what another request has made of the session's record; None if it ended or moved the session.

        Raises:
            DamagedRecordError: it cannot be read, and ``invalidate_corrupt`` is off.
        """
        try:
            return self._readable_content(session_id, found)
        except DamagedRecordError as error:
            if not self._config.options.invalidate_corrupt:
                raise
            message = "session %s: %s; nothing is written over it"
            log.warning(message, shown(session_id), error, extra=self._fields(error))
            return None

    def _readable_content(self, session_id: str, found: Record | None) -> dict[str, Any] | None:
        content = None if found is None else self._decode_for(session_id, found)[0]
        return None if content is None or not NO_SESSION.isdisjoint(content) or is_stub(content) else content

    def _detach(self) -> None:
        """Detach: the session ended elsewhere, and this request's changes are not saved."""
        self._state = self._state.ended()
        self.request["set_cookie"] = False
        message = "session %s has ended meanwhile, this request's changes are not saved"
        log.info(message, shown(self.id), extra=fields(store=self._store.kind, failure="ended"))
        self._notify(SessionNotSaved, self.id, self._as_record(), reason="ended")

    # -- Touch ---------------------------------------------------------------------------------------

    def _touch(self) -> None:
        record = self._base()
        if self._config.options.save_accessed_time:
            record[ACCESSED] = self._metadata[ACCESSED] = in_milliseconds(self._now)
        swap = None
        try:
            if LOGIN in record:
                self._keep_listed()
                record.update({key: self._metadata[key] for key in (INDEX, LISTED)})
            plain = self._touched(record)
            if plain is not None:
                swap = self._swap(self.id, self._state.record, plain)
        except BeakerBridgeError as error:
            message = "session %s: its access time is not saved: %s"
            log.warning(message, shown(self.id), error, extra=self._fields(error))
            self._report_failure(error, "touch")
        # Ignore a lost swap: the other request has written the session with its time, or has ended it.
        if swap is None or not swap.made:
            # Its record still names the index that it was to leave.
            self._leaving = None
            return
        self._state = self._state.written(swap.found)
        if self._cookie_has_lifetime or self._another_lost or self._state.pending & COOKIE:
            self._send()

    def _touched(self, record: dict[str, Any]) -> bytes | None:
        """Return the plain bytes of a record whose access time is renewed; None if it need not be written.

        Fall back to the legacy serializer for what only that takes: a session must not end because it is only read.
        """
        codec = self._config.codec
        try:
            return codec.serialize(record)
        except SessionValueError as refusal:
            if not self._state.pending & DUE:
                return None
            plain = codec.serialize_as_before(record)
            if plain is None:
                raise
            message = "session %s: %s; it stays as legacy_serializer has it"
            log.warning(message, shown(self.id), refusal, extra=self._fields(refusal))
            return plain

    # -- The retired ids -----------------------------------------------------------------------------

    def _finish_retired(self) -> None:
        if any(retired.fate is Fate.DELETE and retired.record is not None for retired in self._state.retired):
            self._delete_sent_tombstones()
        for retired in self._state.retired:
            if retired.fate is Fate.DELETE:
                self._delete(retired.id, retired.record)
            elif retired.fate is Fate.ENTOMB or self._state.record is not None:
                self._entomb(retired)
            else:
                # An empty session has no record yet: its id is added to the tombstone when it has.
                continue
            self._state = self._state.finished(retired)
            if LOGIN in self._metadata and self._login_of(retired) == self._metadata[LOGIN]:
                self._users.drop_id(self._metadata[INDEX], self._metadata[LOGIN], retired.id)
        if self._leaving:
            self._leave_login()
        if self._state.pending & ENDED and self._state.record is None:
            self._forget_cookie()

    def _delete_sent_tombstones(self) -> None:
        """Delete the tombstones under the ids that the browser sends: they would hide a new login."""
        for session_id in self._sent_ids:
            record = self._store.read(session_id)
            if record is not None and self._is_tombstone(session_id, record):
                self._delete(session_id, record)

    def _delete(self, session_id: str, record: Record | None, *, notify: bool = True) -> None:
        """Delete the record under an id, whatever others have made of it meanwhile, and notify of it.

        Delete a tombstone after all that it names, so that a logout whose store fails midway can be repeated.
        """
        followed = {session_id}
        path = [(session_id, record)]
        while path:
            session_id, record = path.pop()
            content = self._known_content(session_id, record)
            named = [name for name in _names_in(content) if name not in followed]
            if named:
                followed.update(named)
                path.append((session_id, record))
                path += [(name, self._store.read(name)) for name in named]
                continue
            if END_REASON in content:
                continue
            if LOGIN in content:
                self._users.end(content[INDEX], content[LOGIN].__eq__, LOGOUT)
            removed, record = self._remove(session_id, record, followed)
            if not removed:
                path.append((session_id, record))
            elif notify:
                self._notify_end(session_id, record)

    def _remove(self, session_id: str, record: Record | None, followed: set[str]) -> tuple[bool, Record | None]:
        """Delete a record, unless a tombstone takes its place and names an id not yet followed.

        Returns:
            Whether it was deleted, or an end marker has taken its place; and the record, or the tombstone.
        """
        removed = False

        def remove() -> bool:
            nonlocal record, removed
            swap = self._store.swap(session_id, record, None)
            content = {} if swap.made else self._known_content(session_id, swap.found)
            removed = swap.made or END_REASON in content
            if not removed:
                record = swap.found
            elif content.get(END_REASON, LOGOUT) != LOGOUT:
                # Another event has said that.
                record = None
            return removed or not followed.issuperset(_names_in(content))

        self._retry(session_id, remove)
        return removed, record

    def _notify_end(self, session_id: str, record: Record | None) -> None:
        # A damaged record was deleted as well; there is no event, since its data are unknown.
        with suppress(DamagedRecordError):
            content = self._readable_content(session_id, record)
            if content is not None:
                self._notify(SessionInvalidated, session_id, content)

    def _known_content(self, session_id: str, record: Record | None) -> dict[str, Any]:
        """Return the content of a record; an empty dict if there is none, or none that can be read."""
        if record is not None:
            with suppress(DamagedRecordError):
                return self._decode_for(session_id, record)[0]
        return {}

    def _login_of(self, retired: Retired) -> str | None:
        return self._known_content(retired.id, retired.record).get(LOGIN)

    def _is_tombstone(self, session_id: str, record: Record | None) -> bool:
        return MOVED in self._known_content(session_id, record)

    def _entomb(self, retired: Retired) -> None:
        """Replace the old record by a tombstone that names the new id; or add that id to the tombstone that is there.

        The new record is written already, so a crash in between leaves the old session, not none.
        """
        session_id, record, tries = retired.id, retired.record, 0

        def entomb() -> bool:
            nonlocal record, tries
            tries += 1
            # The record that was read is no tombstone: save the decoding.
            is_own = retired.fate is Fate.ENTOMB and record is retired.record
            found = {} if is_own else self._known_content(session_id, record)
            names = _names_in(found)
            if record is None or END_REASON in found or len(names) >= MAX_NAMES:
                # A logout came first: delete the new id, which nobody knows yet.
                self._delete(self.id, self._state.record, notify=False)
                self._detach()
                return True
            swap = self._store.swap(session_id, record, self._tombstone([*names, self.id]), MOVED_FOR)
            if swap.made:
                return True
            previous, record = record, swap.found
            if record is None or not NO_SESSION.isdisjoint(self._known_content(session_id, record)):
                return False
            theirs = self._content(session_id, record)
            return theirs is None or self._write_under_new_id(previous, retired._replace(record=record), theirs, tries)

        self._retry(session_id, entomb)

    def _write_under_new_id(self, base: Record, retired: Retired, theirs: dict[str, Any], tries: int) -> bool:
        """Merge what another request has written under the old id; return whether the session has ended meanwhile."""
        conflicts = self._merge(self._decoded(base), self._as_record(), theirs)
        # Note it at once: a second commit must not merge it again.
        self._state = self._state.merged_from(retired)
        self._write()
        if not self._state.detached:
            self._report_merge(conflicts, tries)
        return self._state.detached

    def _tombstone(self, names: list[str]) -> bytes:
        codec, now = self._config.codec, self._config.clock()
        # Add the times that Beaker expects in each record, since it may share the store.
        times = {CREATED: self._metadata[CREATED], ACCESSED: now, MOVED: now + MOVED_FOR}
        return codec.encode({**times, MOVED_TO: names})

    # -- Its user: see BoundSession ------------------------------------------------------------------

    @property
    def _users(self) -> UserIndex:
        return UserIndex(self._config, self._exchange.notify if self._events is None else self._events.append)

    def _enter_index(self) -> bool:
        """List the session before it is written under an id that its user's index does not have."""
        raise NotImplementedError

    def _keep_listed(self) -> None:
        """Keep the index for as long as the session may last, under the current secret."""
        raise NotImplementedError

    def _leave_login(self) -> None:
        """End the login that the session had, once its record no longer names that."""
        raise NotImplementedError

    # -- The lock ------------------------------------------------------------------------------------

    @contextmanager
    def _lock(self, session_id: str) -> Iterator[Callable[[], float] | None]:
        """Hold the store's lock and yield its lease; reuse the one that this thread holds by another object."""
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
        """Refuse to commit a block if the lease may end before that is done."""
        needed = 2 * self._config.options.store_timeout
        assert self._lease is not None
        if self._lease() < needed:
            raise SessionConflictError(
                f"session {shown(self.id)} is not saved: its exclusive() block took longer than the lock in the store"
                f" {self._store.kind} lasts, less {needed:g} seconds for the commit",
                name=self._store.kind,
            )


def _names_in(content: Mapping[str, Any]) -> list[str]:
    """Return the ids that a tombstone names; an empty list if it is no tombstone's content."""
    names = content.get(MOVED_TO)
    # Take only what has the form of an id: a store can hold anything.
    known = names if isinstance(names, list) else []
    return [name for name in known if isinstance(name, str) and ID_FORM.fullmatch(name)][:MAX_NAMES]
