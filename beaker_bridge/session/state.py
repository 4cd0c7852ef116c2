"""The state of a request's session, as one immutable value. No IO, no clock, no Beaker.

Each event replaces a :class:`State` by another. The first table says what a commit does with it, the second what
its steps do with what the store holds; ``python -m tests.commit_tables`` copies both to ``explanation/commit.rst``.

============================================================  =========
a commit finds                                                and does
============================================================  =========
a session that is detached                                    nothing
changes, in a session that has data, or has or had a record   a write
a request to store it (``save()``), even if new and empty     a write
only what ``auto`` asks for, and the session as it is stored  a touch, if one is due
a record whose time, form or cookie is to be renewed          a touch
none of these                                                 nothing
============================================================  =========

======  =====================================  ============================================================
step    the store holds                        then
======  =====================================  ============================================================
write   what was read                          it is written; the retired ids follow
write   no record, a tombstone, an end marker  the session ended: detach, nothing is saved
write   damage                                 the same
write   what we tried to write, answer lost    that is our base now; write again
write   another request's change               merge, write again
touch   what was read                          the time is written
touch   anything else                          nothing: another request wrote it and its time, or ended it
delete  a tombstone                            delete what it names, recursively; then the tombstone
delete  an end marker                          nothing: it ended already
delete  a user's session                       end its login, which ``session/users.py`` does
delete  anything else                          delete that
entomb  what was read                          the old id leads nowhere
entomb  another request's change               merge it under the new id, entomb again
entomb  a tombstone, of another rotation       add our id to its names, before any cookie is sent
entomb  no record, or an end marker            a logout came first: delete the new id, detach
======  =====================================  ============================================================
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

#: The bits of ``State.pending``. The application has changed the session.
CHANGED = 1
#: The session is to be stored even if it is new and empty.
FORCED = 2
#: The access time is to be renewed.
DUE = 4
#: The record, or the cookie, has the form of an earlier configuration.
STALE = 8
#: The response has to carry the cookie.
COOKIE = 16
#: A session has ended, and its cookie no longer opens one.
ENDED = 32


class Step(Enum):
    """The first step of a commit."""

    NOTHING = "nothing"
    TOUCH = "touch"
    WRITE = "write"


# Look them up once: a member costs as much as a call.
NOTHING, TOUCH, WRITE = Step


class Fate(Enum):
    """The treatment of a retired id, once the session itself is written."""

    DELETE = "delete"
    #: Replace the record by a tombstone that names the new id.
    ENTOMB = "entomb"
    #: Add the new id to the names of the tombstone that was found there.
    JOIN = "join"


class Retired(NamedTuple):
    """An id that a request leaves: the record under it, as far as it is known, and what the commit does with it."""

    id: str
    record: Any
    fate: Fate


class Sent(NamedTuple):
    """An id that the browser sent beside the session's: its tombstone, or None if the record cannot be read."""

    id: str
    tombstone: Any


class State(NamedTuple):
    """A session's state.

    Args:
        id: the session's id.
        record: what the store, or the browser, holds under that id, as far as this request knows.
        pending: what the next commit has to do, as bits.
        retired: the ids that this request leaves.
        sent: the other ids that the browser sent, which an end of the session ends, too.
        detached: whether it moved or ended elsewhere, or its store is down: it is saved no more.
        is_new: whether this request began it.
        is_invalidated: whether it replaces one that this request ended.
        is_deleted: whether that one was ended by ``delete()``, after which an empty session is not stored.
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
        """The id that the session is about to leave: its record is still there until the commit."""
        if self.record is None:
            for retired in self.retired:
                if retired.fate is Fate.ENTOMB:
                    return retired
        return None

    @property
    def exists(self) -> bool:
        """Whether the session has a record, under its id or under the one that it is about to leave."""
        return self.record is not None or self.moved_from is not None

    @property
    def origin(self) -> Any:
        """The record that the session began from; None if it is new."""
        moved_from = self.moved_from
        return self.record if moved_from is None else moved_from.record

    # -- Requests of the application -----------------------------------------------------------------

    def asked(self, bits: int) -> State:
        """Return the state in which something is to be done at the next commit."""
        pending = self.pending
        return self if pending & bits == bits else self._with(self.record, pending | bits)

    def unasked(self, bits: int) -> State:
        """Return the state in which something is no longer to be done."""
        return self._with(self.record, self.pending & ~bits)

    def _with(self, record: Any, pending: int) -> State:
        # Avoid _replace(), which takes three times as long: each write comes here twice.
        return tuple.__new__(State, (self.id, record, pending, *self[3:]))

    def rotated(self, new_id: str) -> State:
        """Return the state of a session that moves to a new id.

        One that another request had moved gets an id of its own, which joins the tombstones that were found.
        """
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

    # -- Outcomes of a commit, or of another request --------------------------------------------------

    def written(self, record: Any) -> State:
        """Return the state in which the store holds a record of this session, with its changes and its time."""
        return self._with(record, self.pending & (COOKIE | ENDED))

    def based_on(self, record: Any) -> State:
        """Return the state in which the store holds another record than was read, which the next try replaces."""
        return self._replace(record=record)

    def merged_from(self, retired: Retired) -> State:
        """Return the state in which a retired id has another record than was read, which the session now holds, too."""
        return self._replace(retired=tuple(retired if other.id == retired.id else other for other in self.retired))

    def finished(self, retired: Retired) -> State:
        """Return the state in which a retired id is finished."""
        return self._replace(retired=tuple(other for other in self.retired if other.id != retired.id))

    def clean(self) -> State:
        """Return the state from which further changes count."""
        return self._with(self.record, 0)

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
        """Return the state with the previous id, if the new one is not committed yet; else this state."""
        moved_from = self.moved_from
        if moved_from is None:
            return self
        return self.finished(moved_from)._replace(id=moved_from.id, record=moved_from.record)


def todo(state: State, *, changed: bool, empty: bool, as_stored: bool) -> Step:
    """Return what a commit does.

    Args:
        state: the session's state.
        changed: whether the application changed it: it said so, or a value was changed in place.
        empty: whether the session holds no key of the application.
        as_stored: whether the store holds exactly that already.
    """
    if state.detached:
        return NOTHING
    if changed and not as_stored:
        wanted = state.pending & FORCED and not state.is_deleted
        return WRITE if not empty or state.exists or wanted else NOTHING
    return TOUCH if state.record is not None and state.pending & (DUE | STALE | COOKIE) else NOTHING


def needs_cookie(state: State, *, holds_record: bool) -> bool:
    """Say whether a commit of the session would need a cookie in the response.

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
    # A browser that sent the id has it; the cookie of a session that ended opens nothing in any case.
    return state.record is None and bool(state.pending & (CHANGED | FORCED))
