"""What a request knows and has decided about its session, as one immutable value. No IO, no clock, no Beaker.

Whatever happens replaces a :class:`State` by another. What a commit does with it is in this table, and what the steps
meet in the store in the next. Both are the documentation's, too (``docs/state.rst``).

============================================================  =======
a commit finds                                                and does
============================================================  =======
a session that is detached                                    nothing
changes, in a session that has data, or has or had a record   a write
a wish to store it (``save()``), also of a new empty session  a write
only ``auto``'s wish, and the session as it is stored         a touch, if one is due
a record whose time, form or cookie is to be renewed          a touch
nothing of these                                              nothing
============================================================  =======

=======  =====================================  ===========================================================
step     the store holds                        then
=======  =====================================  ===========================================================
write    what was read                          it is written; the retired ids follow
write    nothing, a tombstone, damage           the session ended: detach, nothing is saved
write    what we tried to write, answer lost    that is our base now; write again
write    another's change                       merge, write again
touch    what was read                          the time is written
touch    anything else                          nothing: another request has written it and its time, or ended it
delete   a tombstone                            delete what it names, recursively; then the tombstone
delete   anything else                          delete that
entomb   what was read                          the old id leads nowhere
entomb   another's change                       merge it under the new id, entomb again
entomb   a tombstone, of another rotation       add our id to its names, before any cookie is sent
entomb   nothing                                a logout came first: delete the new id, detach
=======  =====================================  ===========================================================
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

#: What is pending, as bits: the application has changed the session.
CHANGED = 1
#: It is to be stored even if it is new and empty.
FORCED = 2
#: Its access time is to be renewed.
DUE = 4
#: Its record, or its cookie, has the form of an earlier configuration.
STALE = 8
#: The browser has to be told of it.
COOKIE = 16
#: A session has ended, and its cookie opens nothing any more.
ENDED = 32


class Step(Enum):
    """What a commit does first."""

    NOTHING = "nothing"
    TOUCH = "touch"
    WRITE = "write"


class Fate(Enum):
    """What becomes of an id that a request leaves, once the session itself is written."""

    DELETE = "delete"
    #: A tombstone takes the record's place, and names the new id.
    ENTOMB = "entomb"
    #: A tombstone that was found there gets the new id added to its names.
    JOIN = "join"


class Retired(NamedTuple):
    """An id that a request leaves: what is known to stand under it, and what becomes of it."""

    id: str
    record: Any
    fate: Fate


class Sent(NamedTuple):
    """An id that the browser sent, and not the session's: a tombstone, or None where the record cannot be read."""

    id: str
    tombstone: Any


class State(NamedTuple):
    """A session's state.

    Args:
        id: the session's id.
        record: what stands in the store, or in the browser, under that id, as far as this request knows.
        pending: bits: what the next commit has to look at.
        retired: the ids that this request leaves.
        sent: the other ids that the browser sent, which an end of the session ends, too.
        detached: whether it moved or ended elsewhere, or its store is down: nothing is saved any more.
        is_new: whether this request has begun it.
        is_invalidated: whether it takes the place of one that this request has ended.
        is_deleted: whether that was by ``delete()``, after which an empty session is not stored.
    """

    id: str
    record: Any = None
    pending: int = 0
    retired: tuple[Retired, ...] = ()
    sent: tuple[Sent, ...] = ()
    detached: bool = False
    is_new: bool = False
    is_invalidated: bool = False
    is_deleted: bool = False

    @property
    def moved_from(self) -> Retired | None:
        """The id under which the session still stands, where it has left that, and is not committed."""
        if self.record is None:
            for retired in self.retired:
                if retired.fate is Fate.ENTOMB:
                    return retired
        return None

    @property
    def exists(self) -> bool:
        """Whether the session has a record, be it under the id that it is about to leave."""
        return self.record is not None or self.moved_from is not None

    @property
    def origin(self) -> Any:
        """The record that the session began from; None where it is new."""
        moved_from = self.moved_from
        return self.record if moved_from is None else moved_from.record

    # -- What the application does -------------------------------------------------------------------

    def asked(self, bits: int) -> State:
        """Return the state in which something is to be done at the next commit."""
        return self if self.pending & bits == bits else self._pending(self.pending | bits)

    def unasked(self, bits: int) -> State:
        """Return the state in which something is not to be done any more."""
        return self._pending(self.pending & ~bits)

    def _pending(self, bits: int) -> State:
        # Each write asks, is written and is clean: _replace() would take three times as long.
        return State(self.id, self.record, bits, *self[3:])

    def rotated(self, new_id: str) -> State:
        """Return the state of a session that moves to a new id; one that had moved before gets one of its own."""
        retired = self.retired
        if self.record is not None:
            retired = (*retired, Retired(self.id, self.record, Fate.ENTOMB))
        joined = tuple(
            Retired(sent.id, sent.tombstone, Fate.JOIN) for sent in self.sent if self.detached and sent.tombstone
        )
        return self._replace(
            id=new_id,
            record=None,
            pending=self.pending | CHANGED,
            retired=retired + joined,
            detached=False,
        )

    def invalidated(self, new_id: str) -> State:
        """Return the state of the new session after the end of this one, and of all that the browser has sent."""
        left = {retired.id: retired.record for retired in self.retired}
        left.update(self.sent)
        if self.record is not None:
            left[self.id] = self.record
        return State(
            new_id,
            pending=ENDED,
            retired=tuple(Retired(session_id, record, Fate.DELETE) for session_id, record in left.items()),
            is_new=True,
            is_invalidated=True,
        )

    def deleted(self, new_id: str) -> State:
        """Return the state as :meth:`invalidated` does, of a new session that is not stored as long as it is empty."""
        return self.invalidated(new_id)._replace(is_deleted=True)

    def reverted(self) -> State:
        """Return the state without the changes; a new id stays."""
        kept = self.unasked(CHANGED | FORCED)
        return kept.asked(CHANGED) if self.moved_from else kept

    # -- What a commit, or another request, did ------------------------------------------------------

    def written(self, record: Any) -> State:
        """Return the state in which a record stands in the store."""
        return State(self.id, record, *self[2:])

    def finished(self, retired: Retired) -> State:
        """Return the state in which a retired id is dealt with."""
        return self._replace(retired=tuple(other for other in self.retired if other is not retired))

    def clean(self) -> State:
        """Return the state from which further changes count."""
        return self._pending(0) if self.pending else self

    def ended(self) -> State:
        """Return the state of a session that moved or ended elsewhere."""
        return self._replace(detached=True)

    def restarted(self, record: Any) -> State:
        """Return the state of a session that was read again: what was changed before is forgotten."""
        return self.unasked(CHANGED | FORCED)._replace(record=record)

    def resumed(self, pending: int) -> State:
        """Return the state in which the changes from before a restart are pending again."""
        return self.asked(pending & (CHANGED | FORCED))

    def stepped_back(self) -> State:
        """Return the state under the id from before a new one that is not committed; itself where there is none."""
        moved_from = self.moved_from
        if moved_from is None:
            return self
        return self.finished(moved_from)._replace(id=moved_from.id, record=moved_from.record)


def todo(state: State, *, changed: bool, empty: bool, as_stored: bool) -> Step:
    """Return what a commit does.

    Args:
        state: the session's state.
        changed: whether the application has changed it, as far as it said or can be seen.
        empty: whether the application has put nothing into it.
        as_stored: whether to write it would change nothing in the store.
    """
    if state.detached:
        return Step.NOTHING
    if changed and not as_stored:
        wanted = state.pending & FORCED and not state.is_deleted
        return Step.WRITE if not empty or state.exists or wanted else Step.NOTHING
    return Step.TOUCH if state.record is not None and state.pending & (DUE | STALE | COOKIE) else Step.NOTHING


def needs_cookie(state: State, *, holds_record: bool) -> bool:
    """Say whether committing a session would have to tell the browser.

    Args:
        state: the session's state.
        holds_record: whether the cookie is the session's store.
    """
    if state.detached:
        return False
    if state.pending & COOKIE:
        return True
    if holds_record:
        return bool(state.pending & (CHANGED | FORCED | ENDED))
    # The browser has the id of what has a record under it; an ended one's cookie opens nothing anyhow.
    return state.record is None and bool(state.pending & (CHANGED | FORCED))
