"""Copies the live sessions of one store to another one, under the same ids, while a site runs on the first.

A copy is marked, in the place of the word that each writer leaves in a record: by what was read in the old store, and
by what may change there without a new word. So a later run tells these apart:

=====================================  =========================================================================
the new store holds, under an id       then
=====================================  =========================================================================
no record, and no run has copied one   the record is copied
no record, but a run has copied one    it has ended there: it is not copied again
the copy, as it was written            the record is copied again if it has changed, and deleted if it has ended
anything else                          the new site has written it: it stays, unless the old site was used later,
                                       or has left an end marker; lists of a user's sessions are united
=====================================  =========================================================================

Each write is a swap, so a run can be interrupted at any point, and run again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionStoreError,
    SessionTooLargeError,
    SessionValueError,
    SettingsError,
)
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import COOKIE, MEMORY
from beaker_bridge.record.fields import (
    ACCESSED,
    CREATED,
    END_REASON,
    EXPIRY,
    ID,
    INDEX,
    INDEX_FORM,
    LISTED,
    LOGIN,
    LOGINS,
    MOVED,
    NO_SESSION,
    UNTIL,
    WRITER,
    is_expired,
    is_over,
    is_stub,
)
from beaker_bridge.session.base import GRACE, new_id
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.index import is_index, unite
from beaker_bridge.session.journal import Journal
from beaker_bridge.stores._breaker import ServerUnavailableError
from beaker_bridge.stores.base import BATCH, Listed, Record, Store, leave_out

#: The first word of the mark of a copy, and the number of its words.
_MARK, _WORDS = "migrated", 3
#: The last word of the mark of what is of both sites: no digest, since the new site's part is no copy.
_UNITED = "united"
#: The keys that a site changes in a record without leaving a word of its own.
_CHANGING = (ACCESSED, INDEX, LISTED, LOGINS, UNTIL)
#: The types from which, and to which, nothing can be copied, and why.
_REFUSED = {
    COOKIE: "the sessions are in the browsers",
    MEMORY: "the sessions are in the memory of the site's own process",
}
#: The depth to which a value is searched for what a serializer refuses.
_DEPTH = 100
#: The most keys and types that are named: a session's keys may be anything.
MAX_NAMED = 1000


class Refused(NamedTuple):
    """A value that the new site's serializer refuses.

    Args:
        key: the key in the session; None for the session as a whole.
        type: the type, or a word for what is wrong.
    """

    key: str | None
    type: str


@dataclass
class Migrated:
    """The numbers of a migration so far.

    Args:
        seen: the records that the old store has listed.
        copied: the sessions that were copied, or copied again.
        same: the sessions that an earlier run had copied, as they still are.
        newer: the sessions that the new site has used since, which were left.
        ended_there: the sessions that an earlier run had copied, and that ended in the new store.
        expired: the records whose time is over, and what Beaker leaves of a deleted session.
        refused: what could not be converted, and in how many sessions.
        unreadable: the records of the old store that cannot be read, and why.
        failed: the sessions that the new store refused to write.
        indexes: the lists of users' sessions that were left behind.
        ended: the sessions that ended in the old store, and were deleted in the new one.
        verified: the sessions that were read back, and are as they should be.
        different: the sessions that were read back, and are not.
    """

    seen: int = 0
    copied: int = 0
    same: int = 0
    newer: int = 0
    ended_there: int = 0
    expired: int = 0
    refused: Counter[Refused] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    indexes: int = 0
    ended: int = 0
    verified: int = 0
    different: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether each live session is in the new store."""
        return not (self.refused or self.unreadable or self.failed or self.different)

    def refuse(self, refused: Refused) -> None:
        """Count a session that cannot be converted."""
        if refused not in self.refused and len(self.refused) >= MAX_NAMED:
            refused = Refused(None, "others")
        self.refused[refused] += 1


#: The stages of a migration, as :func:`migrate` reports them.
COPY, VERIFY, END = "sessions copied", "sessions read back", "ended sessions looked for"


def notes(old: SessionOptions, new: SessionOptions) -> list[str]:
    """Return sentences about what does not go along, since options differ.

    Args:
        old: the options of the old site.
        new: the options of the new site.
    """
    found = []
    if not same_secret(old, new):
        found.append(
            "the new secret is another one: the cookies that browsers have open nothing there, and the lists of users'"
            " sessions stay behind; add the old one to previous_secrets"
        )
    if old.secret and old.sign_algorithm not in (new.sign_algorithm, *new.previous_sign_algorithms):
        found.append(
            f"the new site does not accept cookies that are signed by {old.sign_algorithm}: add that to"
            " previous_sign_algorithms"
        )
    if old.key != new.key:
        found.append(
            f"the cookie's name differs (key = {old.key}, and {new.key}): the cookies that browsers have are not read"
        )
    return found


def same_secret(old: SessionOptions, new: SessionOptions) -> bool:
    """Say whether the new site accepts what the old one signs."""
    return old.secret == new.secret or old.secret in new.previous_secrets


def migrate(
    old: SessionConfig,
    new: SessionConfig,
    journal: Journal,
    *,
    batch: int = BATCH,
    progress: Callable[[str, int], object] | None = None,
    done: Migrated | None = None,
) -> Migrated:
    """Copy the live sessions of one store to another, read each back, and delete what has ended meanwhile.

    Args:
        old: the old site's configuration.
        new: the new site's.
        journal: the ids that runs have copied.
        batch: the number of records that are read at once.
        progress: called with the stage and the number of records in each batch.
        done: what counts; it is complete as far as it goes if this raises.

    Raises:
        SettingsError: sessions cannot be copied from, or to, such a store; or both are the same one.
        SessionStoreError: one of the stores cannot be reached.
    """
    _refuse_types(old.options, new.options)
    assert old.store is not None
    assert new.store is not None
    _refuse_same(old, new.store)
    run = _Run(old, new, journal, Migrated() if done is None else done)
    for stage, store, step in ((COPY, old.store, run.copy), (VERIFY, old.store, run.verify), (END, new.store, run.end)):
        for listed in store.scan(batch) if store.lists else ():
            step(listed)
            journal.flush()
            if progress is not None:
                progress(stage, len(listed))
    return run.done


def _refuse_types(old: SessionOptions, new: SessionOptions) -> None:
    for which, options in (("from", old), ("to", new)):
        reason = _REFUSED.get("" if options.namespace_class else str(options.type))
        if reason:
            raise SettingsError(
                f"sessions cannot be copied {which} {options.label('type')} = {options.type}: {reason}", name="type"
            )


def _refuse_same(old: SessionConfig, new: Store) -> None:
    """Raise if the old store lists nothing, or is the new one: only the store can tell, an address has many spellings.

    Args:
        old: the old site's configuration.
        new: the new store.
    """
    assert old.store is not None
    if not old.store.lists:
        label = old.options.label("type")
        raise SettingsError(
            f"sessions cannot be copied from {label} = {old.options.type}: it cannot list its sessions", name="type"
        )
    probe = new_id()
    record = new.swap(probe, None, new.envelope.wrap(b"beaker_bridge"), GRACE).found
    try:
        is_same = old.store.read(probe) is not None
    finally:
        new.swap(probe, record, None)
    if is_same:
        raise SettingsError(
            "the old and the new store are the same one: a site reads what it wrote under another data_serializer by"
            " legacy_serializer, and needs no migration"
        )


class _Run:
    """One run of a migration.

    Args:
        old: the old site's configuration.
        new: the new site's.
        journal: what runs have copied.
        done: what counts.
    """

    def __init__(self, old: SessionConfig, new: SessionConfig, journal: Journal, done: Migrated) -> None:
        assert old.store is not None
        assert new.store is not None
        self._old, self._new = old, new
        self._from, self._to = old.store, new.store
        self._journal = journal
        self._takes_indexes = same_secret(old.options, new.options)
        self.done = done
        #: The numbers of the second look, which meets much for the second time.
        self._again = Migrated()

    # -- The steps -----------------------------------------------------------------------------------

    def copy(self, listed: Sequence[Listed]) -> None:
        """Copy what was listed in the old store."""
        for record_id, record, content, there in self._live(listed, self.done):
            theirs = self._content_there(there)
            if theirs is not None and _source_in(theirs) == _digest(record.raw):
                self.done.same += 1
                if not self._journal.has_live(record_id, self._new.clock()):
                    # An earlier run was killed before it had noted it.
                    self._note(record_id, theirs)
            else:
                self._copy(record_id, record, content, there, self.done)

    def verify(self, listed: Sequence[Listed]) -> None:
        """Read back what was listed in the old store, and copy what has changed or come since."""
        done, again = self.done, self._again
        copied = again.copied
        for record_id, record, content, there in self._live(listed, again):
            theirs = self._content_there(there)
            if theirs is None or _source_in(theirs) != _digest(record.raw):
                if not self._copy(record_id, record, content, there, again):
                    continue
                theirs = self._content_there(self._read(self._to, [record_id])[0]) or {}
            is_same = self._is_alike(self._copy_of(record_id, record, content), theirs)
            done.verified += is_same
            done.different += not is_same
        done.copied += again.copied - copied
        done.newer, done.ended_there = max(done.newer, again.newer), max(done.ended_there, again.ended_there)
        done.failed = max(done.failed, again.failed)
        done.refused |= again.refused
        done.unreadable |= again.unreadable

    def end(self, listed: Sequence[Listed]) -> None:
        """Delete what was listed in the new store, is a copy as it was written, and has ended in the old store."""
        copies = [
            (record_id, record)
            for record_id, record in listed
            if record is not None and _is_untouched(self._content_there(record))
        ]
        theirs = self._read(self._from, [record_id for record_id, _ in copies])
        ended = [copy for copy, record in zip(copies, theirs, strict=True) if self._has_ended(copy[0], record)]
        self.done.ended += self._to.delete(ended)

    # -- The old store -------------------------------------------------------------------------------

    def _live(
        self, listed: Sequence[Listed], counts: Migrated
    ) -> list[tuple[str, Record, dict[str, Any], Record | None]]:
        """Return what is to be copied of what was listed, decoded, with what the new store holds; count the others."""
        found = []
        counts.seen += len(listed)
        for record_id, record in listed:
            try:
                content = None if record is None else self._decoded(record_id, record)
            except DamagedRecordError as error:
                counts.unreadable[str(error).rpartition(": ")[2]] += 1
                continue
            if record is None or content is None:
                counts.unreadable["it cannot be opened"] += 1
            elif not self._is_live(content):
                counts.expired += 1
            elif INDEX_FORM.fullmatch(record_id) and not self._takes_indexes:
                counts.indexes += 1
            else:
                found.append((record_id, record, content))
        known = self._read(self._to, [record_id for record_id, _, _ in found])
        return [(*each, there) for each, there in zip(found, known, strict=True)]

    def _decoded(self, record_id: str, record: Record) -> dict[str, Any]:
        content, _ = self._old.codec.decode(record.raw)
        if content.get(ID, record_id) != record_id:
            raise DamagedRecordError("it is another session's record", value=len(record.raw))
        return content

    def _is_live(self, content: Mapping[str, Any]) -> bool:
        """Say whether a record is a session's that lives on both sites, or another one whose time is not over."""
        now = self._old.clock()
        if not _is_session(content):
            return not is_over(content, now)
        is_past = any(is_expired(content, config.options, now) for config in (self._old, self._new))
        return not (is_past or is_stub(content))

    def _has_ended(self, record_id: str, record: Record | None) -> bool:
        """Say whether a session is over in the old store; one that cannot be read is not."""
        try:
            return record is None or not self._is_live(self._decoded(record_id, record))
        except DamagedRecordError:
            return False

    def _read(self, store: Store, record_ids: Sequence[str]) -> list[Record | None]:
        """Return the records of ids; what cannot be opened is a record that cannot be read."""
        try:
            return store.read_all(record_ids)
        except ServerUnavailableError:
            raise
        except SessionStoreError as error:
            if len(record_ids) > 1:
                return [record for record_id in record_ids for record in self._read(store, [record_id])]
            leave_out(error)
            return [Record(b"")]

    # -- The new store -------------------------------------------------------------------------------

    def _content_there(self, record: Record | None) -> dict[str, Any] | None:
        """Return what the new store holds; an empty dict if it cannot be read."""
        if record is None:
            return None
        try:
            return self._new.codec.decode(record.raw)[0]
        except DamagedRecordError:
            return {}

    def _copy(
        self, record_id: str, record: Record, content: dict[str, Any], there: Record | None, counts: Migrated
    ) -> bool:
        """Copy a record, unless the new site has it as it should be; return whether it was copied."""
        theirs = self._content_there(there)
        if theirs is None and self._journal.has_live(record_id, self._new.clock()):
            counts.ended_there += 1
            return False
        copy = self._copy_of(record_id, record, content)
        if theirs is not None and not _is_untouched(theirs):
            if is_index(theirs) and is_index(content):
                copy = _united(copy, theirs)
            elif not (self._was_used_later(content, theirs) or _was_ended(content, theirs)):
                counts.newer += 1
                return False
        try:
            return self._write(record_id, copy, there, counts)
        except ServerUnavailableError:
            raise
        except SessionStoreError as error:
            leave_out(error)
            counts.failed += 1
        except BeakerBridgeError as error:
            counts.refuse(self._refused(error, copy))
        return False

    def _was_used_later(self, content: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
        """Say whether the old site was used after the new one has last written a session."""
        if not (_is_session(theirs) and _is_session(content) and ACCESSED in theirs):
            # It has ended or moved there, or cannot be read.
            return False
        # A write of the new site may be that much younger than its access time.
        return bool(content.get(ACCESSED, 0) > theirs[ACCESSED] + self._new.touch_interval)

    def _write(self, record_id: str, copy: dict[str, Any], there: Record | None, counts: Migrated) -> bool:
        """Write a copy, unless the new site has written the session meanwhile; return whether it was written."""
        raw = self._new.codec.encode(copy)
        left = self._left(copy)
        swap = self._to.swap(record_id, there, raw, None if left is None else left + _grace(copy))
        if swap.made:
            self._note(record_id, copy)
        counts.copied += swap.made
        counts.newer += not swap.made
        return swap.made

    def _note(self, record_id: str, copy: Mapping[str, Any]) -> None:
        left = self._left(copy)
        self._journal.add(record_id, None if left is None else self._new.clock() + left)

    def _left(self, copy: Mapping[str, Any]) -> float | None:
        """Return the seconds after which a copy expires in the new store; None if never."""
        now, options = self._new.clock(), self._new.options
        if not _is_session(copy):
            until = copy.get(MOVED, copy.get(UNTIL))
            return None if until is None else max(0.001, until - now)
        idle = copy.get(EXPIRY, options.timeout)
        left = [idle - (now - copy.get(ACCESSED, now))] if idle else []
        if options.absolute_timeout:
            left.append(options.absolute_timeout - (now - copy.get(CREATED, now)))
        return min(left, default=None)

    # -- The copy ------------------------------------------------------------------------------------

    def _copy_of(self, record_id: str, record: Record, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be written into the new store."""
        copy = {key: value for key, value in content.items() if key != ID}
        if self._new.options.encrypt_key:
            # As a session's own writes: the ciphertext is bound to the id.
            copy[ID] = record_id
        if not self._takes_indexes:
            # The list that has this login stays behind.
            for key in (INDEX, LOGIN, LISTED):
                copy.pop(key, None)
        copy[WRITER] = f"{_MARK} {_digest(record.raw)} {_state_of(copy)}"
        return copy

    def _refused(self, error: BeakerBridgeError, copy: Mapping[str, Any]) -> Refused:
        """Return the key and the type of what the serializer refuses; no word of it is the value's."""
        if not isinstance(error, SessionValueError) or error.name not in copy:
            return Refused(None, "too large" if isinstance(error, SessionTooLargeError) else "not to be serialized")
        key = error.name
        assert key is not None
        value = copy[key]
        for _ in range(_DEPTH):
            member = next((each for each in _members(value) if self._refuses(key, each)), value)
            if member is value:
                break
            value = member
        return Refused(str(key), _type_of(value))

    def _refuses(self, key: str, value: Any) -> bool:
        try:
            self._new.codec.serialize({key: value})
        except BeakerBridgeError:
            return True
        return False

    def _is_alike(self, copy: dict[str, Any], theirs: dict[str, Any]) -> bool:
        """Say whether what was read back is what was written; the new site may have renewed its access time."""
        codec = self._new.codec
        if not _is_untouched(theirs):
            copy, theirs = (
                {key: value for key, value in content.items() if key not in (*_CHANGING, WRITER)}
                for content in (copy, theirs)
            )
        # Some types come back as another one from JSON; and equal objects may be pickled in two ways.
        return codec.writes_alike(copy, theirs) or codec.decode(codec.encode(copy))[0] == theirs


# -- The mark of a copy ------------------------------------------------------------------------------


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _state_of(content: Mapping[str, Any]) -> str:
    """Return a digest of what the new site may change without leaving a word of its own."""
    changing = [content.get(key) for key in _CHANGING]
    return _digest(json.dumps(changing, sort_keys=True).encode("ascii"))


def _mark_in(content: Mapping[str, Any]) -> list[str]:
    """Return the words of a copy's mark; an empty list in any other record."""
    word = content.get(WRITER)
    words = word.split() if isinstance(word, str) else []
    return words if words[:1] == [_MARK] and len(words) == _WORDS else []


def _source_in(content: Mapping[str, Any]) -> str | None:
    """Return the digest of the record that a copy was made of."""
    words = _mark_in(content)
    return words[1] if words else None


def _is_untouched(content: Mapping[str, Any] | None) -> bool:
    """Say whether a record of the new store is a copy as it was written."""
    words = _mark_in(content) if content else []
    return bool(words) and content is not None and words[2] == _state_of(content)


def _was_ended(content: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Say whether a session of the new store was ended at the old site: an ending is never taken back."""
    return END_REASON in content and bool(theirs) and _is_session(theirs)


def _united(copy: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a list of a user's sessions of both sites: no session may be left out, since it could not be ended."""
    untils = [until for content in (copy, theirs) if (until := content.get(UNTIL)) is not None]
    until = max(untils) if len(untils) == len((copy, theirs)) else None
    mark = f"{_MARK} {_mark_in(copy)[1]} {_UNITED}"
    return {**copy, LOGINS: unite(copy[LOGINS], theirs[LOGINS]), UNTIL: until, WRITER: mark}


# -- Their times -------------------------------------------------------------------------------------


def _is_session(content: Mapping[str, Any]) -> bool:
    """Say whether a record is a session's: no tombstone, end marker or list of a user's sessions."""
    return NO_SESSION.isdisjoint(content)


def _grace(content: Mapping[str, Any]) -> float:
    """Return the seconds for which the server keeps a record beyond its time, as a request's own write has it."""
    return GRACE if _is_session(content) else 0


# -- What is refused ---------------------------------------------------------------------------------


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple, set, frozenset)) else ()


def _type_of(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    keys = [type(key).__name__ for key in value if not isinstance(key, str)] if isinstance(value, dict) else []
    return f"{name} with a key of type {keys[0]}" if keys else name
