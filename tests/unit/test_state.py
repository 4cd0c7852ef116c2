"""The state of a session: every legal combination, what a commit does with it, and what each transition makes of it."""

from __future__ import annotations

from itertools import product

import pytest

from beaker_bridge.session.state import (
    CHANGED,
    COOKIE,
    DUE,
    ENDED,
    FORCED,
    STALE,
    Fate,
    Retired,
    Sent,
    State,
    Step,
    needs_cookie,
    todo,
)

OLD, NEW, SENT = "old", "new", "sent"
RECORD, TOMBSTONE = "record", "tombstone"
BITS = (CHANGED, FORCED, DUE, STALE, COOKIE, ENDED)
#: What a request can have left: nothing, an id that it moves from, one that it ends, one whose tombstone it joins.
LEFT = (
    (),
    (Retired(OLD, RECORD, Fate.ENTOMB),),
    (Retired(OLD, RECORD, Fate.DELETE),),
    (Retired(OLD, TOMBSTONE, Fate.JOIN),),
)


def is_legal(state: State) -> bool:
    """Say whether a session can come into a state."""
    pending, is_moving = state.pending, state.moved_from is not None
    has_left = bool(state.retired)
    rules = (
        # The time and the form are those of a record that was read.
        not pending & (DUE | STALE) or state.record is not None or is_moving,
        # Only a new id leaves one behind, and it has no record yet.
        not has_left or state.record is None,
        # save() is a change.
        not pending & FORCED or bool(pending & CHANGED),
        # A session that moves or joins is asked to be written.
        not (has_left and state.retired[0].fate is not Fate.DELETE) or bool(pending & CHANGED),
        # The end of one session is the beginning of a new one.
        state.is_new or not (state.is_invalidated or pending & ENDED),
        state.is_invalidated or not (state.is_deleted or (has_left and state.retired[0].fate is Fate.DELETE)),
        # One that was found is not new.
        not (state.is_new and is_moving) or state.is_invalidated,
    )
    return all(rules)


def states() -> list[State]:
    """Return every legal state."""
    chosen = [
        State(NEW, record, sum(bits), left, (), detached, is_new, is_invalidated, is_deleted)
        for record, bits, left, detached, is_new, is_invalidated, is_deleted in product(
            (None, RECORD),
            product(*((0, bit) for bit in BITS)),
            LEFT,
            *[(False, True)] * 4,
        )
    ]
    return [state for state in chosen if is_legal(state)]


STATES = states()


def test_there_are_as_many_as_there_are():
    """The rules leave what they leave: one more rule, or one fewer, is seen."""
    assert len(STATES) == len(set(STATES)) > 500


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("as_stored", [False, True])
def test_what_a_commit_does(changed, empty, as_stored):
    """The first of these lines that is true of a state says what its commit does, as the table has it."""
    for state in STATES:
        has_record = state.record is not None or any(left.fate is Fate.ENTOMB for left in state.retired)
        is_wished = bool(state.pending & FORCED) and not state.is_deleted
        is_renewed = bool(state.pending & (DUE | STALE | COOKIE))
        lines = (
            (state.detached, Step.NOTHING),
            (changed and not as_stored and not empty, Step.WRITE),
            (changed and not as_stored and has_record, Step.WRITE),
            (changed and not as_stored and is_wished, Step.WRITE),
            (changed and not as_stored, Step.NOTHING),
            (state.record is not None and is_renewed, Step.TOUCH),
            (True, Step.NOTHING),
        )
        expected = next(step for is_true, step in lines if is_true)

        assert todo(state, changed=changed, empty=empty, as_stored=as_stored) is expected, state


def test_who_has_to_tell_the_browser():
    """A stored session's change needs a cookie where the browser lacks the id; a cookie session's change always."""
    for state in STATES:
        changes = bool(state.pending & (CHANGED | FORCED))
        told = bool(state.pending & COOKIE) and not state.detached
        ends = bool(state.pending & ENDED)

        assert needs_cookie(state, holds_record=True) is (told or (not state.detached and (changes or ends)))
        assert needs_cookie(state, holds_record=False) is (
            told or (not state.detached and changes and state.record is None)
        )


def test_what_is_asked_is_pending():
    """Bits add up; asking twice is asking once; what is taken back is not pending."""
    for state in STATES:
        for bit in BITS:
            asked = state.asked(bit)

            assert asked.pending == state.pending | bit
            assert asked.asked(bit) is asked
            assert asked.unasked(bit).pending == state.pending & ~bit
            assert asked._replace(pending=state.pending) == state
        assert state.clean().pending == 0


def test_a_session_that_moves_leaves_a_tombstone():
    """The record stays known under the id that was left, until the session is written under the new one."""
    for state in STATES:
        moved = state.rotated("newer")

        assert (moved.id, moved.record, moved.detached) == ("newer", None, False)
        assert moved.pending == state.pending | CHANGED
        assert moved.exists is state.exists
        assert moved.origin == state.origin
        left = (Retired(NEW, RECORD, Fate.ENTOMB),) if state.record is not None else ()
        assert moved.retired == state.retired + left


def test_a_step_back_returns_to_the_id_in_the_store():
    """Before the new id is committed, the session still stands under the one that it is about to leave."""
    for state in STATES:
        back = state.stepped_back()
        if state.moved_from is None:
            assert back is state
        else:
            assert (back.id, back.record) == (OLD, RECORD)
            assert back.rotated(NEW) == state._replace(detached=False)


def test_a_session_that_ends_ends_all_that_it_was():
    """Each id that it had, or was about to leave, is deleted; the new session is under none of them."""
    for state in STATES:
        for end in (state.invalidated, state.deleted):
            new = end("newer")

            assert (new.id, new.record, new.pending, new.detached) == ("newer", None, ENDED, False)
            assert new.is_new
            assert new.is_invalidated
            assert new.is_deleted is (end == state.deleted)
            ended = {left.id: left.record for left in state.retired}
            if state.record is not None:
                ended[NEW] = RECORD
            assert {left.id: left.record for left in new.retired} == ended
            assert all(left.fate is Fate.DELETE for left in new.retired)


@pytest.mark.parametrize("tombstone", [None, TOMBSTONE])
def test_the_other_ids_that_were_sent(tombstone):
    """An end ends them, too; a login that found only a tombstone joins it."""
    state = State(NEW, sent=(Sent(SENT, tombstone),), detached=True, is_new=True)

    assert state.invalidated("newer").retired == (Retired(SENT, tombstone, Fate.DELETE),)
    joined = (Retired(SENT, TOMBSTONE, Fate.JOIN),) if tombstone else ()
    assert state.rotated("newer").retired == joined
    assert state._replace(detached=False, record=RECORD).rotated("newer").retired == (
        Retired(NEW, RECORD, Fate.ENTOMB),
    )


def test_what_is_reverted_keeps_its_new_id():
    """The changes are gone; what has moved is still to be written."""
    for state in STATES:
        reverted = state.reverted()

        assert (reverted.id, reverted.retired) == (state.id, state.retired)
        assert bool(reverted.pending & CHANGED) is (state.moved_from is not None)
        assert not reverted.pending & FORCED


def test_what_the_store_says():
    """A record that was written is known; a retired id that is dealt with is forgotten; an end is final."""
    for state in STATES:
        assert state.written("other").record == "other"
        assert state.ended().detached
        assert state.restarted("other") == state.unasked(CHANGED | FORCED)._replace(record="other")
        assert state.unasked(CHANGED | FORCED).resumed(CHANGED | DUE) == state.unasked(FORCED).asked(CHANGED)
        for left in state.retired:
            assert state.merged_from(left._replace(record="other")).retired == (left._replace(record="other"),)
            assert state.finished(left).retired == ()
