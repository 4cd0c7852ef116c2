"""docs/explanation/states.rst: real sessions go through its diagrams, and through nothing else."""

from __future__ import annotations

import itertools

import pytest

from tests.docs import pages  # noqa: F401 -- it makes the diagrams importable

from diagrams import states  # isort: skip


def test_the_states_of_a_request():
    """The picture's arrows, and those that the page names, are all that sessions have."""
    assert {arrow for arrow in states.arrows() if arrow[0] != arrow[2]} == states.expected()


@pytest.mark.once
@pytest.mark.parametrize("beginning", states.BEGINNINGS)
def test_no_way_leads_elsewhere(beginning):
    """Whatever three things happen to a session, it goes along the arrows, or stays where it is."""
    known = states.arrows()
    stray = set()
    for events in itertools.product(states.EVENTS, repeat=3):
        way = states.after(beginning, events)
        has_ended = False
        for event, (one, other) in zip(events, itertools.pairwise(way), strict=True):
            has_ended = has_ended or "elsewhere" in event
            names = {event, event.partition(",")[0], f"{event}, ended elsewhere" if has_ended else event}
            if one != other and not {(one, name, other) for name in names} & known:
                stray.add((one, event, other))

    # A new session that has begun after a logout: the page says so.
    assert stray <= {("begun", "invalidate()", "ended")}


def test_what_the_store_holds():
    """The picture's arrows are those that an id in the store goes through."""
    assert states.lives() == {*states.LIVES}


def test_each_state_is_drawn():
    """Each state of the arrows has its place."""
    assert {state for one, _, other in states.arrows() for state in (one, other)} == {*states.NODES}
    assert {kind for one, _, other in states.LIVES for kind in (one, other)} == {*states.KINDS}
