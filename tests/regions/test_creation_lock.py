"""The lock under which one caller computes a value: who has it, for how long, and who waits."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from beaker_bridge.regions import creation_lock as region_locks
from beaker_bridge.regions.creation_lock import AWAY, CreationLock, FileLease
from tests.contract import PATIENCE, together
from tests.forks import silent_fork
from tests.region_cases import Clock

#: Seconds that no test waits for, unless it fails.
LONG = PATIENCE


def lock(patience=LONG, take=lambda: "lease", end=lambda _: None, name="value"):
    return CreationLock(name, patience, take, end)


@pytest.fixture(autouse=True)
def _no_turn_is_left():
    yield

    assert not region_locks._turns._turns


# -- Among threads -----------------------------------------------------------------------------------


def elsewhere(step, *arguments, **named):
    """Do something in another thread, and return its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step, *arguments, **named).result(PATIENCE)


def test_who_does_not_wait_is_refused():
    """While a thread has the lock others are refused; when it is given back, the next one has it."""
    first, second = lock(), lock()
    taken = elsewhere(first.acquire)
    refused = second.acquire(wait=False)
    first.release()
    given = second.acquire(wait=False)
    second.release()

    assert (taken, refused, given) == (True, False, True)


def test_values_do_not_wait_for_each_other():
    """Locks of two names are two locks."""
    one, other = lock(name="one"), lock(name="other")

    assert together(one.acquire, other.acquire) == [True, True]
    one.release()
    other.release()


class Watched(threading.Event):
    """An event that knows whether somebody waits for it."""

    def __init__(self):
        super().__init__()
        self.is_awaited = threading.Event()

    def wait(self, timeout=None):
        self.is_awaited.set()
        return super().wait(timeout)


def test_who_waits_has_it_when_it_is_given_back():
    """A waiting thread goes on when the lock is released, and not before."""
    first, second = lock(), lock()
    first.acquire()
    turn = first._turn
    turn.done = done = Watched()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.acquire)
        assert done.is_awaited.wait(PATIENCE)
        before = waiting.done()
        first.release()
        after = waiting.result(PATIENCE)
    holder = region_locks._turns._turns["value"]
    second.release()

    assert (before, after) == (False, True)
    assert holder is not turn


def test_a_thread_does_not_wait_for_itself():
    """A function that asks for its own value while it computes it goes on, and gives back nothing."""
    outer, inner, other = lock(), lock(), lock()
    outer.acquire()
    waited, at_once = inner.acquire(), inner.acquire(wait=False)
    inner.release()
    still_held = not elsewhere(other.acquire, wait=False)
    outer.release()

    assert (waited, at_once, still_held) == (True, False, True)


@pytest.mark.parametrize("waited", [0, 7])
def test_one_may_compute_for_as_long_as_the_patience(monkeypatch, waited):
    """Another one takes the place of who computes for too long, however long that one had waited for the lease."""
    clock = Clock(0)
    monkeypatch.setattr(region_locks, "time", SimpleNamespace(monotonic=clock, sleep=clock.pass_by))
    slow = lock(patience=10, take=lambda: "lease" if clock.now >= waited else None)
    elsewhere(slow.acquire)
    clock.now = clock.now + 9.9
    before = lock(patience=10).acquire(wait=False)
    clock.now = clock.now + 0.1
    next_one = lock(patience=10)
    after = next_one.acquire(wait=False)
    next_one.release()

    assert (before, after) == (False, True)


def test_nobody_waits_longer_than_twice_the_patience():
    """Who has waited for twice its patience goes on without the lock, and leaves it where it is."""
    hanging, waiting = lock(), lock(patience=0.05)
    elsewhere(hanging.acquire)
    went_on = waiting.acquire()
    waiting.release()
    still_held = not lock().acquire(wait=False)
    hanging.release()

    assert (went_on, still_held) == (True, True)


def test_who_hangs_does_not_give_back_what_another_has():
    """When a hanging one comes back late, the lock stays with who has taken its place, and its lease, too."""
    ended = []
    late = lock(patience=0.01, take=lambda: "late", end=ended.append)
    next_one = lock(take=lambda: "next", end=ended.append)
    late.acquire()
    elsewhere(next_one.acquire)
    late.release()
    still_held = not lock().acquire(wait=False)
    next_one.release()

    assert still_held
    assert ended == ["next"]


@pytest.mark.parametrize("fork", [os.fork, silent_fork])
def test_a_forked_child_begins_anew(fork):
    """The turn of a thread that does not run in a forked child holds nobody up there."""
    held = lock()
    elsewhere(held.acquire)
    child = fork()
    if child == 0:
        try:
            os._exit(0 if lock().acquire(wait=False) else 1)
        finally:
            os._exit(2)
    held.release()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_process_begins_anew(monkeypatch):
    """Turns that another process has counted are none of this one's."""
    held = lock()
    elsewhere(held.acquire)
    monkeypatch.setattr(region_locks._turns, "_process", 0)
    ours = lock()
    taken = ours.acquire(wait=False)
    ours.release()
    held.release()

    assert taken


# -- Among processes ---------------------------------------------------------------------------------


def test_a_lease_that_another_process_has():
    """Who does not wait is refused; who waits goes on as soon as the lease can be had."""
    leases = [None, None, None, "lease"]
    ended = []
    refused = lock(take=lambda: None)
    waiting = lock(take=lambda: leases.pop(0), end=ended.append)

    assert refused.acquire(wait=False) is False
    assert waiting.acquire() is True
    waiting.release()
    assert ended == ["lease"]


def test_a_lease_that_never_ends():
    """A process that died with the lease is waited for as long as the patience lasts, by one; then that one goes on."""
    ended = []
    waiting = lock(patience=0.05, take=lambda: None, end=ended.append)

    assert waiting.acquire() is True
    waiting.release()
    assert not ended


def test_where_no_lease_can_be_kept_all_compute():
    """With the store of the leases away nobody waits for anybody."""
    one, other = lock(take=lambda: AWAY), lock(take=lambda: AWAY)
    computing = elsewhere(one.acquire), other.acquire(wait=False)
    one.release()
    other.release()

    assert computing == (True, True)


def test_a_failure_leaves_nothing_locked():
    """An exception from the store of the leases leaves the lock free."""

    def fail():
        raise OSError("no store")

    with pytest.raises(OSError, match="no store"):
        lock(take=fail).acquire()

    free = lock()
    is_free = elsewhere(free.acquire, wait=False)
    free.release()

    assert is_free


# -- Leases in files ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "folder" / "value.lock")


def test_a_file_lease_is_one_processs(path):
    """A lease is had once, and after its end again; its file, and nothing else, is gone with it."""
    one, other = FileLease(path), FileLease(path)
    taken, refused = one.take(), other.take()
    one.end()
    again = other.take()
    other.end()

    assert (taken, refused, again) == (True, False, True)
    assert os.listdir(os.path.dirname(path)) == []


def test_a_file_lease_whose_file_is_gone(path):
    """A lock file that somebody has removed is missed by nobody."""
    lease = FileLease(path)
    lease.take()
    os.unlink(path)
    lease.end()

    assert not os.path.exists(path)


@pytest.mark.parametrize("recreated", [False, True])
def test_a_file_that_was_removed_while_it_was_opened_is_no_lease(path, recreated):
    """A lock on a file that its last holder has removed meanwhile is none: others may hold the next one."""
    last, next_one, late = FileLease(path), FileLease(path), FileLease(path)
    last.take()
    opened = late._opened()
    last.end()
    if recreated:
        next_one.take()
    late._opened = lambda: opened

    assert late.take() is False
    if recreated:
        next_one.end()


def test_a_folder_that_cannot_be_made(tmp_path):
    """Where a file stands in the place of the folder, the error says so."""
    (tmp_path / "folder").write_text("")
    lease = FileLease(str(tmp_path / "folder" / "value.lock"))
    with pytest.raises(NotADirectoryError):
        lease.take()
