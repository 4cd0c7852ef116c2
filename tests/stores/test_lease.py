"""Leases: one holder at a time, ended by their holder only, or by the time."""

from __future__ import annotations

import pytest

from beaker_bridge.stores._lease import HeldBy, Leases, TimedLeases, is_held
from beaker_bridge.stores.base import Record, Swap
from tests.requests import Clock


class Entries:
    """Entries on a server, which it keeps until they are deleted."""

    def __init__(self):
        self.content = {}
        self.expiries = []

    def read(self, name):
        return self.content.get(name)

    def swap(self, name, old, new, expires_in):
        found = self.content.get(name)
        made = found == old
        if made and new is None:
            self.content.pop(name)
        elif made:
            self.content[name] = new
            self.expiries.append(expires_in)
        stored = self.content.get(name)
        return Swap(made, None if stored is None else Record(stored))


@pytest.fixture
def entries():
    return Entries()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=[Leases, TimedLeases])
def leases(request, entries, clock):
    """Return leases of each kind."""
    arguments = {Leases: (), TimedLeases: (entries.read, clock)}[request.param]
    return request.param(entries.swap, *arguments)


def test_one_holder_has_a_lease(leases, entries):
    """A lease is had by one holder until it is ended; the others are told whose it is, the server for how long."""
    words = leases.take("one", 30)

    assert leases.take("one", 30) == HeldBy(words)
    assert entries.expiries == [30]
    assert not isinstance(leases.take("other", 30), HeldBy)

    leases.end("one", words)

    assert leases.take("one", 30) not in (words, HeldBy(words))


def test_a_lease_is_ended_by_its_holder(leases, entries):
    """Who has lost a lease does not end that of the next holder."""
    words = leases.take("one", 30)
    entries.content["one"] = b"of the next one"
    leases.end("one", words)

    assert entries.content["one"] == b"of the next one"


def test_a_timed_lease_ends_by_itself(entries, clock):
    """A lease whose time is over is taken by the next one, though the server keeps it."""
    leases = TimedLeases(entries.swap, entries.read, clock)
    first = leases.take("one", 30)
    clock.now += 29.9
    held = leases.take("one", 30)
    clock.now += 0.2
    second = leases.take("one", 30)

    assert held == HeldBy(first)
    assert entries.content["one"] == second != first


def test_a_timed_lease_is_renewed_by_its_holder(entries, clock):
    """A holder chooses another end; one that has lost its lease does not."""
    leases = TimedLeases(entries.swap, entries.read, clock, lambda words: b"<" + words + b">")
    words = leases.take("one", 30)
    leases.renew("one", words, clock.now + 500, 400)
    renewed = entries.content["one"]
    leases.renew("one", words, clock.now, 400)

    assert entries.content["one"] == renewed
    assert (renewed[:1], renewed[-1:]) == (b"<", b">")
    assert [is_held(renewed, clock.now + at) for at in (-301, -299, 499.9, 500.1)] == [False, True, True, False]


WORD = b"0" * 32


@pytest.mark.parametrize("words", [b"", WORD, WORD + b" soon", WORD + b" 1699999999.9 30", WORD + b" 1699999999"])
def test_a_lease_that_ended_is_held_no_more(words):
    """A lease ends at its time, a number of seconds; what cannot be read has ended."""
    assert not is_held(words, 1_700_000_000)


@pytest.mark.parametrize("words", [WORD + b" 1700000030 30", WORD + b" 1700000000.1 30", WORD + b" 1800000000"])
def test_a_lease_is_held_until_its_end(words):
    """Without a length, as earlier releases wrote them, every time in the future is taken for the end."""
    assert is_held(words, 1_700_000_000)


def test_a_lease_of_a_clock_ahead_is_bounded_by_its_own_length(entries, clock):
    """Clocks may differ by a lease's length; what a clock that is wrong by more has written keeps nobody out."""
    ahead = Clock()
    wrong, leases = TimedLeases(entries.swap, entries.read, ahead), TimedLeases(entries.swap, entries.read, clock)
    kept = []
    for step in (29.9, 30.1, 365 * 86400):
        ahead.now = clock.now + step
        entries.content.clear()
        wrong.take("one", 30)
        # The next one may want a shorter one, or a longer one.
        kept.append({isinstance(leases.take("one", seconds), HeldBy) for seconds in (1, 30, 3600)} == {True})
        kept.append(isinstance(leases.take("one", 30), HeldBy))

    assert kept == [True, True, False, True, False, True]


def test_a_lease_counts_as_held_for_a_grace(clock):
    """Who removes what nobody holds leaves alone what is not long over, on either side of the clock."""
    words = WORD + b" 1700000000.000 30.000"
    held = [is_held(words, 1_700_000_000 + step, 100) for step in (-161, -159, 0, 99, 101)]

    assert held == [False, True, True, True, False]
