"""Locks in files: between threads, processes, forks, and with Beaker's own."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
from beaker.synchronization import FileSynchronizer

from beaker_bridge.stores import _flock as locks_module
from beaker_bridge.stores._flock import SLOTS, FileLocks, LockTimeoutError
from beaker_bridge.testing.contract import PATIENCE, together
from tests.forks import as_child

ID = "0123456789abcdef" * 2


@pytest.fixture
def locks(tmp_path):
    return FileLocks(str(tmp_path / "locks"))


@pytest.fixture
def other_locks(tmp_path):
    """Return another process's locks: nothing is shared but the files."""
    return FileLocks(str(tmp_path / "locks"))


def is_taken(locks, use="guard", session_id=ID):
    """Say whether another thread waits in vain for a lock."""

    def take():
        try:
            with getattr(locks, use)(session_id, 0.01):
                return False
        except LockTimeoutError:
            return True

    return together(take)[0]


@pytest.mark.parametrize("use", ["guard", "queue"])
def test_a_lock_excludes_threads_and_processes(locks, other_locks, use):
    """A lock that is held is not had by another thread, nor by another process, until it is left."""
    with getattr(locks, use)(ID, PATIENCE):
        assert is_taken(locks, use)
        assert is_taken(other_locks, use)

    assert not is_taken(locks, use)
    assert not is_taken(other_locks, use)


def test_a_lock_file_that_has_gone_is_none(tmp_path):
    """Two purges at once do not fail each other."""
    assert locks_module.remove_unheld(str(tmp_path / "gone")) == 0


def test_the_guard_is_not_the_queue(locks):
    """Whoever holds the queue does not keep anybody from swapping."""
    with locks.queue(ID, PATIENCE):
        assert not is_taken(locks, "guard")


def test_the_number_of_lock_files_is_bounded(locks, tmp_path):
    """However many sessions there are, there are no more lock files than slots, and one for those who queue."""
    for _ in range(10 * SLOTS):
        session_id = secrets.token_hex(16)
        with locks.guard(session_id, PATIENCE), locks.queue(session_id, PATIENCE):
            pass

    assert len(list((tmp_path / "locks").rglob("*"))) <= SLOTS + 1


def test_beakers_lock_is_heeded(locks, tmp_path):
    """A process of Beaker's that holds its lock on a session keeps us from swapping."""
    beakers = FileSynchronizer(ID, str(tmp_path / "locks"))
    beakers.acquire_write_lock()

    assert is_taken(locks)

    beakers.release_write_lock()

    assert not is_taken(locks)


def test_beaker_heeds_the_guard(locks, tmp_path):
    """Where Beaker has made its lock file, it waits for us."""
    beakers = FileSynchronizer(ID, str(tmp_path / "locks"))
    beakers.acquire_write_lock()
    beakers.release_write_lock()
    with locks.guard(ID, PATIENCE):
        assert not beakers.acquire_write_lock(wait=False)

    assert beakers.acquire_write_lock(wait=False)

    beakers.release_write_lock()


def test_beakers_lock_file_is_forgotten(locks, tmp_path):
    """The lock file that Beaker made goes with its session; where there is none, nothing happens."""
    beakers = FileSynchronizer(ID, str(tmp_path / "locks"))
    beakers.acquire_write_lock()
    beakers.release_write_lock()
    with locks.guard(ID, PATIENCE):
        locks.remove_beakers(ID)
        locks.remove_beakers(ID)

    assert [path.name for path in (tmp_path / "locks").rglob("*.lock")] == [f"bridge-guard-{0xCDEF % SLOTS}.lock"]


def test_a_child_that_was_forked_does_not_keep_a_lock(locks, other_locks):
    """A process that was forked while a lock was held does not hold it, too."""
    reading, writing = os.pipe()
    with locks.guard(ID, PATIENCE):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        assert not is_taken(other_locks)
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_child_does_not_wait_for_threads_that_it_has_not(locks):
    """A lock that a thread held at a fork can be had in the child, once the parent's thread has left it."""
    with locks.guard(ID, PATIENCE):
        child = os.fork()
        if child == 0:
            try:
                with locks.guard(ID, PATIENCE / 3):
                    os._exit(0)
            finally:
                os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_locks_are_made_anew_in_another_process(locks):
    """The thread locks that a fork has copied are left alone."""
    for lock in locks._threads.get():
        lock.acquire()

    assert is_taken(locks)

    with as_child():
        assert not is_taken(locks)


def test_a_waiter_polls_until_the_lock_is_left(locks, other_locks):
    """A process that finds a lock held gets it when it is left."""
    held, order = threading.Event(), []

    def hold():
        with locks.guard(ID, PATIENCE):
            held.set()
            polling.wait(PATIENCE)
            order.append("held")

    def wait():
        held.wait(PATIENCE)
        with other_locks.guard(ID, PATIENCE):
            order.append("waited")

    polling = threading.Event()
    slept = locks_module.time.sleep

    def sleep(seconds):
        polling.set()
        slept(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks_module.time, "sleep", sleep)
        together(hold, wait)

    assert order == ["held", "waited"]


# -- A lock a session ----------------------------------------------------------------------------------


def in_another_process(step):
    """Return what a step says, in a process of its own: whether something is so."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(step())
        finally:
            os._exit(2)
    return bool(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def test_each_session_has_a_lock_of_its_own(locks, other_locks):
    """Who has the locks of many sessions keeps nobody from others, and himself from none."""
    ids = [secrets.token_hex(16) for _ in range(5 * SLOTS)]
    with ExitStack() as held:
        for session_id in ids:
            held.enter_context(locks.queue(session_id, PATIENCE))
        strangers = [secrets.token_hex(16) for _ in range(SLOTS)]

        assert not any(is_taken(other_locks, "queue", session_id) for session_id in strangers)
        assert all(is_taken(other_locks, "queue", session_id) for session_id in ids[::SLOTS])
        assert in_another_process(
            lambda: all(is_taken(other_locks, "queue", session_id) for session_id in ids[::SLOTS])
        )


def test_a_lock_that_is_left_leaves_the_others(locks, other_locks, tmp_path):
    """A process has one descriptor of the file, by whatever path: to close a second one would end all of its locks."""
    (tmp_path / "another").symlink_to(tmp_path / "locks")
    by_another_path = FileLocks(str(tmp_path / "another"))
    with locks.queue(ID, PATIENCE):
        for others in (locks, other_locks, by_another_path):
            with others.queue("f" * 32, PATIENCE):
                pass

            assert is_taken(by_another_path, "queue")
            assert in_another_process(lambda: is_taken(other_locks, "queue"))

    assert not in_another_process(lambda: is_taken(other_locks, "queue"))


def test_the_file_is_closed_when_nobody_uses_it(locks):
    """A lock that is left, or was not had, leaves no open file behind."""
    with locks.queue(ID, PATIENCE):
        assert is_taken(locks, "queue")
        assert locks_module._queue_files.get()._files

    assert not locks_module._queue_files.get()._files


def test_a_child_that_was_forked_in_a_block_has_no_lock(locks, other_locks):
    """A child that leaves the block, too, does not end its parent's lock, and never had it."""

    def leave():
        held.close()
        return is_taken(other_locks, "queue")

    with ExitStack() as held:
        held.enter_context(locks.queue(ID, PATIENCE))

        assert in_another_process(leave)
        assert in_another_process(lambda: is_taken(other_locks, "queue"))


def test_a_waiter_gets_the_lock_of_another_process_when_it_is_left(locks, monkeypatch):
    """A process polls for a lock that another one has, until its time is over."""
    ready, to_leave = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with locks.queue(ID, PATIENCE):
            os.write(ready[1], b"x")
            os.read(to_leave[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    slept = []

    assert is_taken(locks, "queue")

    def sleep(seconds):
        slept.append(seconds)
        os.write(to_leave[1], b"x")
        os.waitpid(child, 0)
        monkeypatch.undo()

    monkeypatch.setattr(locks_module.time, "sleep", sleep)
    with locks.queue(ID, PATIENCE):
        assert len(slept) == 1

    for descriptor in (*ready, *to_leave):
        os.close(descriptor)


def test_a_file_system_without_such_locks_names_the_file(locks, tmp_path, monkeypatch):
    """What the system says of a lock is about its file."""

    def fail(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks_module.fcntl, "lockf", fail)
    with pytest.raises(OSError, match="No locks available") as failed, locks.queue(ID, PATIENCE):
        pytest.fail("a lock was had without one")

    assert failed.value.filename == str(tmp_path / "locks" / "bridge-queue.lock")


WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
import threading
from beaker_bridge.stores._flock import FileLocks, LockTimeoutError
locks = FileLocks(sys.argv[1])
refused = []
def take():
    try:
        with locks.guard(sys.argv[2], 0.01):
            pass
    except LockTimeoutError:
        refused.append(True)
with locks.guard(sys.argv[2], 10), locks.queue(sys.argv[2], 10):
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.stores import open_store
for kind in ("file", "dbm"):
    store = open_store(read_options(given({"type": kind, "data_dir": sys.argv[1]})))
    with store.lock(sys.argv[2], 10):
        assert store.swap(sys.argv[2], None, b"raw").made
    assert store.read(sys.argv[2]).raw == b"raw"
    with store.purge_turn(10) as is_first, store.purge_turn(10) as is_second:
        assert (is_first, is_second) == (True, False)
print(refused)
"""


def test_without_fcntl_locks_hold_within_the_process(tmp_path):
    """Where the platform has no fcntl, everything works, and locks exclude threads."""
    command = [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path), ID]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    assert run.stdout == "[True]\n"
    assert {path.name for path in tmp_path.rglob("*.lock")} == {"bridge-purge.lock"}
