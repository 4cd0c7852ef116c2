"""Leases: one holder at a time, ended by their holder only, or by the time."""

from __future__ import annotations

import pytest

from beaker_bridge.stores._lease import HeldBy, Leases, TimedLeases, end_of
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
    leases.renew("one", words, clock.now + 500)
    renewed = entries.content["one"]
    leases.renew("one", words, clock.now)

    assert entries.content["one"] == renewed
    assert (renewed[:1], renewed[-1:]) == (b"<", b">")
    assert end_of(renewed) == pytest.approx(clock.now + 500, abs=0.001)


@pytest.mark.parametrize(
    ("words", "ends"),
    [(b"", 0), (b"0" * 32, 0), (b"0" * 32 + b" 17", 17), (b"0" * 32 + b" 17.5", 17.5), (b"0" * 32 + b" soon", 0)],
)
def test_the_end_of_a_lease(words, ends):
    """The end is a number of seconds, whole in earlier releases; a lease that cannot be read has ended."""
    assert end_of(words) == ends
