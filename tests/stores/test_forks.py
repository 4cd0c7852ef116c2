"""What each process has of its own, whoever forked it."""

from __future__ import annotations

import os
import threading

import pytest

from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.testing.contract import together
from tests.forks import as_child, silent_fork


def test_a_process_has_one():
    """A process makes its object when it first asks, and keeps it."""
    each = PerProcess(object)

    assert each.made() is None
    assert each.get() is each.get() is each.made()


def test_a_child_has_its_own():
    """A child makes another one; its parent's is left as it was."""
    each = PerProcess(object)
    before = each.get()
    with as_child():
        assert each.made() is None
        assert each.get() is not before
        assert each.get() is each.made()

    assert each.get() is before


@pytest.mark.parametrize("fork", [os.fork, silent_fork])
def test_a_child_waits_for_no_thread_of_its_parent(fork):
    """A lock that a thread of the parent holds is free in a child, also if Python does not see the fork."""
    each = PerProcess(threading.Lock)
    each.get().acquire()
    child = fork()
    if child == 0:
        os._exit(0 if each.get().acquire(blocking=False) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_that_are_the_first_share_one():
    """Of two threads that make an object at once, both get that of one."""
    barrier = threading.Barrier(2)

    def make():
        barrier.wait(10)
        return object()

    each = PerProcess(make)
    one, other = together(each.get, each.get)

    assert one is other
