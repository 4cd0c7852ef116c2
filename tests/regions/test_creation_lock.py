"""The lock under which one caller computes a value: who has it, for how long, and who waits."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from pyramid.httpexceptions import HTTPNotFound

from beaker_bridge.regions import creation_lock
from beaker_bridge.regions.creation_lock import AWAY, CreationLock, FileLease
from beaker_bridge.stores import _flock
from beaker_bridge.stores._lease import HeldBy
from beaker_bridge.testing.contract import PATIENCE, together
from tests.forks import as_child, silent_fork
from tests.region_cases import Clock, all_waiting
from tests.servers.redis import wait_until

#: Seconds that no test waits for, unless it fails.
LONG = PATIENCE


def lock(patience=LONG, take=lambda: "lease", end=lambda _: None, name="value"):
    return CreationLock(name, patience, take, end)


@pytest.fixture(autouse=True)
def _no_turn_is_left():
    yield

    assert not creation_lock._turns.get()._turns


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
    holder = creation_lock._turns.get()._turns["value"]
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
    monkeypatch.setattr(creation_lock, "time", SimpleNamespace(monotonic=clock, sleep=clock.pass_by))
    slow = lock(patience=10, take=lambda: "lease" if clock.now >= waited else HeldBy())
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


# -- A turn that fails -------------------------------------------------------------------------------


def value_of(compute, take=lambda: "lease"):
    """Compute a value under the lock, as Beaker does, and return it, or what was raised."""
    ours = lock(take=take)
    try:
        ours.acquire()
        try:
            return compute()
        finally:
            ours.release()
    except BaseException as error:  # noqa: BLE001 -- the tests ask for any
        return error


class RefusedError(Exception):
    """An error with data of its own."""

    def __init__(self, reason):
        super().__init__(reason)
        self.headers = [("X", "1")]


def test_those_who_wait_get_the_failure(monkeypatch):
    """One fails for all who have waited: each has a copy of its own, which the error itself has caused."""
    barrier = all_waiting(monkeypatch, 9)
    raised = []

    def compute():
        barrier.wait(PATIENCE)
        raised.append(RefusedError("no value"))
        raise raised[-1]

    errors = together(*[lambda: value_of(compute)] * 10)
    copies = [error for error in errors if error is not raised[0]]

    assert (len(raised), len({id(error) for error in copies})) == (1, 9)
    assert {(type(error), str(error), error.__cause__) for error in copies} == {(RefusedError, "no value", raised[0])}
    assert raised[0].__cause__ is None
    # The last frame is where the copy was raised: not one of the error's own.
    assert all(error.__traceback__.tb_next.tb_frame is not raised[0].__traceback__.tb_frame for error in copies)
    assert len({id(error.headers) for error in errors}) == 10


def test_a_response_that_is_raised_is_nobody_elses(monkeypatch):
    """An HTTP exception that a function raises has headers of its own for each who gets it: one may get a cookie."""
    barrier = all_waiting(monkeypatch, 1)

    def compute():
        barrier.wait(PATIENCE)
        raise HTTPNotFound("gone")

    one, other = together(lambda: value_of(compute), lambda: value_of(compute))
    one.set_cookie("session", "one")

    assert (one.detail, other.detail) == ("gone", "gone")
    assert "Set-Cookie" not in other.headers


class UncopiedError(Exception):
    """An error that is made of more than it keeps."""

    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


class OtherwiseCopiedError(Exception):
    """An error whose copy is something else."""

    def __deepcopy__(self, _memo):
        return ValueError("something else")


@pytest.mark.parametrize("error", [UncopiedError("a", "b"), OtherwiseCopiedError()], ids=repr)
def test_an_error_that_cannot_be_copied(monkeypatch, error):
    """Those who have waited for what raised it compute at the same time, instead of one after the other."""
    barrier = all_waiting(monkeypatch, 9)
    all_compute = threading.Barrier(9)
    first = iter([error])

    def compute():
        if (failure := next(first, None)) is not None:
            barrier.wait(PATIENCE)
            raise failure
        return all_compute.wait(PATIENCE)

    answers = together(*[lambda: value_of(compute)] * 10)

    assert error in answers
    assert sorted(answer for answer in answers if answer is not error) == list(range(9))


def test_a_thread_that_is_given_up(monkeypatch):
    """What is no ``Exception`` ends one thread, and is no answer: the next one computes, for all."""
    barrier = all_waiting(monkeypatch, 1)
    first = iter([SystemExit()])

    def compute():
        if (failure := next(first, None)) is not None:
            barrier.wait(PATIENCE)
            raise failure
        return "value"

    answers = together(lambda: value_of(compute), lambda: value_of(compute))

    assert sorted(map(type, answers), key=str) == [SystemExit, str]


def test_who_comes_after_a_failure_computes():
    """A failure is not kept: nobody gets it who did not wait."""

    def fail():
        raise ValueError("no value")

    assert isinstance(value_of(fail), ValueError)
    assert value_of(lambda: "value") == "value"


def test_an_error_that_the_caller_handles_is_no_failure(monkeypatch):
    """A value that is computed while another error is handled is a value: those who wait go on."""
    barrier = all_waiting(monkeypatch, 1)
    computed = iter([True])

    def compute():
        if next(computed, False):
            barrier.wait(PATIENCE)
        return "value"

    def handling():
        try:
            int("no number")
        except ValueError:
            return value_of(compute)

    assert together(handling, handling) == ["value", "value"]


def test_a_store_that_fails_when_the_lock_is_taken(monkeypatch):
    """So with the error of a store whose lease cannot be taken: those who wait do not ask it one after the other."""
    barrier = all_waiting(monkeypatch, 9)
    asked = []

    def take():
        asked.append(True)
        barrier.wait(PATIENCE)
        raise OSError("no store")

    answers = together(*[lambda: value_of(list, take)] * 10)

    assert [str(answer) for answer in answers] == ["no store"] * 10
    assert len(asked) == 1


# -- Forks -------------------------------------------------------------------------------------------


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


def test_another_process_begins_anew():
    """Turns that another process has counted are none of this one's."""
    held = lock()
    elsewhere(held.acquire)
    with as_child():
        ours = lock()
        taken = ours.acquire(wait=False)
        ours.release()
    held.release()

    assert taken


# -- Among processes ---------------------------------------------------------------------------------


def test_a_lease_that_another_process_has():
    """Who does not wait is refused; who waits goes on as soon as the lease can be had."""
    leases = [HeldBy(), HeldBy(), HeldBy(), "lease"]
    ended = []
    refused = lock(take=HeldBy)
    waiting = lock(take=lambda: leases.pop(0), end=ended.append)

    assert refused.acquire(wait=False) is False
    assert waiting.acquire() is True
    waiting.release()
    assert ended == ["lease"]


def test_a_lease_that_never_ends():
    """A process that died with the lease is waited for as long as the patience lasts, by one; then that one goes on."""
    ended = []
    waiting = lock(patience=0.05, take=HeldBy, end=ended.append)

    assert waiting.acquire() is True
    waiting.release()
    assert not ended


def test_nobody_waits_for_a_second_process():
    """Who sees that the lease has gone to a third process goes on: the value is there, or could not be computed."""
    leases = [HeldBy("one"), HeldBy("one"), HeldBy("other")]
    waiting = lock(take=lambda: leases.pop(0))

    assert waiting.acquire() is True
    waiting.release()
    assert not leases


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
    one, other = FileLease(path, LONG), FileLease(path, LONG)
    taken, refused = one.take(), other.take()
    one.end()
    again = other.take()
    other.end()

    assert (taken, refused, again) == (True, False, True)
    assert os.listdir(os.path.dirname(path)) == []


def test_a_file_lease_is_told_from_the_next_one(path):
    """A lease that was ended and taken again is another one; none is nobody's."""
    lease = FileLease(path, LONG)
    lease.take()
    first, again = lease.held_by(), FileLease(path, LONG).held_by()
    lease.end()
    none = lease.held_by()
    # The number of the file that is gone may be given to the next one, but not its time.
    wait_until(lambda: FileLease(path, LONG).take() and FileLease(path, LONG).held_by() != first)

    assert first == again
    assert none == HeldBy()


def test_a_file_lease_whose_file_is_gone(path):
    """A lock file that somebody has removed is missed by nobody."""
    lease = FileLease(path, LONG)
    lease.take()
    os.unlink(path)
    lease.end()

    assert not os.path.exists(path)


def test_a_file_lease_that_was_held_for_too_long(path):
    """Another one has it after the lease's time, and keeps it when the first one comes back."""
    late, next_one, other = FileLease(path, 100), FileLease(path, 100), FileLease(path, 100)
    late.take()
    made_older(path, 99)
    before = [next_one.take(), next_one.take()]
    made_older(path, 2)
    # The first who asks ends it, the next one takes it.
    after = [next_one.take(), next_one.take()]
    late.end()
    still_held = not other.take()
    next_one.end()

    assert (before, after, still_held) == ([False, False], [False, True], True)
    assert not os.path.exists(path)


def made_older(path, seconds):
    """Let a file be older by so many seconds."""
    time = os.stat(path).st_mtime - seconds
    os.utime(path, (time, time))


def test_a_file_lease_that_somebody_left_long_ago(path):
    """Who finds the lock file of one who has died has the lease for its whole time."""
    os.makedirs(os.path.dirname(path))
    with open(path, "w", encoding="ascii"):
        made_older(path, 1000)
    lease, other = FileLease(path, 100), FileLease(path, 100)
    taken, refused = lease.take(), [other.take(), other.take()]
    lease.end()

    assert (taken, refused) == (True, [False, False])


@pytest.mark.parametrize("recreated", [False, True])
def test_a_file_that_was_removed_while_it_was_opened_is_no_lease(path, recreated, monkeypatch):
    """A lock on a file that its last holder has removed meanwhile is none: others may hold the next one."""
    last, next_one, late = FileLease(path, LONG), FileLease(path, LONG), FileLease(path, LONG)
    last.take()
    create = _flock._create

    def create_late(path, flags):
        descriptor = create(path, flags)
        monkeypatch.undo()
        last.end()
        if recreated:
            next_one.take()
        return descriptor

    monkeypatch.setattr(_flock, "_create", create_late)

    assert late.take() is False
    if recreated:
        next_one.end()


def test_a_folder_that_cannot_be_made(tmp_path):
    """Where a file stands in the place of the folder, the error says so."""
    (tmp_path / "folder").write_text("")
    lease = FileLease(str(tmp_path / "folder" / "value.lock"), LONG)
    with pytest.raises(NotADirectoryError):
        lease.take()
