"""Locks in files: a fixed number of files, since sites with one a session ran out of inodes.

A swap is short, and shares its lock file with a 64th of the other sessions. Who queues, or runs a block of
``exclusive()``, may hold a lock for long: that is a lock a session, on a byte of one file for all of them.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from beaker_bridge.stores._keyed_locks import ThreadQueues

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows: file sessions lock within the process
    fcntl = None  # type: ignore[assignment]

#: How many lock files there are for swaps.
SLOTS = 64
#: Seconds between two tries for a lock that somebody holds.
POLL = 0.001
#: How many digits the time of the last purge has in its lock file.
_DIGITS = 20


class LockTimeoutError(Exception):
    """Somebody else held the lock for as long as we may wait."""


class FileLocks:
    """Exclusive locks between threads and processes, by the session's id.

    Args:
        directory: where the lock files are, ours and Beaker's.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._renew()

    def _renew(self) -> None:
        self._process = os.getpid()
        self._threads = [threading.Lock() for _ in range(SLOTS)]

    def guard(self, session_id: str, timeout: float) -> AbstractContextManager[None]:
        """Return the short lock for a swap, with Beaker's own lock where Beaker made one for this id.

        Raises, when it is entered:
            LockTimeoutError: somebody held one of them for ``timeout`` seconds.
        """
        return _Guard(self._slot(session_id), time.monotonic() + timeout, self._beakers(session_id))

    @contextmanager
    def queue(self, session_id: str, timeout: float) -> Iterator[None]:
        """Return the lock of those who queue for a session, which no other session shares; raises as :meth:`guard`."""
        deadline = time.monotonic() + timeout
        # As many bits of the id as a file's positions have, to be safe one less.
        position = int(session_id[:16], 16) >> 2
        files = _queue_files.setdefault(os.getpid(), _QueueFiles())
        path = f"{self._directory}/bridge-queue.lock"
        with files.opened(path) as file, file.queues.turn(f"{position:x}", deadline) as in_turn:
            if not in_turn:
                raise LockTimeoutError
            file.lock(position, deadline)
            try:
                yield
            finally:
                file.unlock(position)

    @contextmanager
    def purge_turn(self, every: float, now: float) -> Iterator[bool]:
        """Yield whether to purge now; the time of the last purge is in its lock file.

        Args:
            every: seconds between the beginnings of two purges.
            now: the time, in seconds.
        """
        path = f"{self._directory}/bridge-purge.lock"
        # The lock of the open file, which excludes this process's other threads, too.
        with open(path, "r+b", buffering=0, opener=_create) as file:
            if fcntl and not _locked(file.fileno()):
                yield False
                return
            try:
                # What lies in the future by more was written by a clock that has been set back since.
                is_due = not abs(now - _time_in(file.read(_DIGITS))) < every
                if is_due:
                    file.seek(0)
                    file.write(f"{now:0{_DIGITS}.3f}".encode("ascii"))
                yield is_due
            finally:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_UN)

    def forget(self, session_id: str) -> None:
        """Remove the lock file that Beaker made for an id, by whoever holds the guard and deletes the record."""
        with suppress(FileNotFoundError):
            os.unlink(self._beakers(session_id))

    def _slot(self, session_id: str) -> tuple[threading.Lock, str]:
        """Return the lock of this process's threads, and the path of that of all processes."""
        if self._process != os.getpid():
            # A fork has copied the locks of threads that do not run here, and would never release them.
            self._renew()
        number = int(session_id[:4], 16) % SLOTS
        return self._threads[number], f"{self._directory}/bridge-guard-{number:02d}.lock"

    def _beakers(self, session_id: str) -> str:
        # beaker.synchronization.FileSynchronizer names its file by the digest.
        name = hashlib.sha1(session_id.encode("ascii"), usedforsecurity=False).hexdigest()
        return f"{self._directory}/{name[:1]}/{name[:2]}/{name}.lock"


# -- The locks of those who queue --------------------------------------------------------------------


class _QueueFile:
    """A lock file of those who queue, open. Its locks are the process's: two of its threads would both have one.

    Args:
        path: where it is.
        descriptor: the open file; nothing where the platform has no such locks.
    """

    def __init__(self, path: str, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor
        #: The threads of this process, a queue a session.
        self.queues = ThreadQueues()
        self.users = 0

    def lock(self, position: int, deadline: float) -> None:
        """Lock a byte; raises :class:`LockTimeoutError` where another process has it until the deadline."""
        while self._descriptor is not None:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    raise LockTimeoutError from None
                time.sleep(POLL)
            except OSError as error:
                error.filename = self._path
                raise

    def unlock(self, position: int) -> None:
        """Unlock a byte."""
        if self._descriptor is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, position)

    def close(self) -> None:
        """Close the file, and so end every lock that the process has on it."""
        if self._descriptor is not None:
            os.close(self._descriptor)


class _QueueFiles:
    """The queue files that a process has open, by what they are, and not by path.

    To close a second descriptor of a file would end the locks on the first one: there is one, and it is closed when
    nobody has a lock, or waits for one.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._files: dict[object, _QueueFile] = {}

    @contextmanager
    def opened(self, path: str) -> Iterator[_QueueFile]:
        """Yield the open file of a path."""
        with self._guard:
            key = _identity(path)
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = _QueueFile(path, _opened(path, create=True) if fcntl else None)
            file.users += 1
        try:
            yield file
        finally:
            with self._guard:
                file.users -= 1
                if not file.users:
                    del self._files[key]
                    file.close()


#: By process: what a fork has copied stays as it is, its locks are the parent's, and its threads do not run here.
_queue_files: dict[int, _QueueFiles] = {}


def _identity(path: str) -> object:
    """Return what a file is, by whatever path; it is made where there is none."""
    if not fcntl:
        return os.path.realpath(path)
    with suppress(FileNotFoundError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    # Nobody has a lock on what is not there: to close it ends none.
    os.close(_create(path, os.O_RDWR))
    return _identity(path)


# -- The lock of a swap ------------------------------------------------------------------------------


# A class, not a generator: it is entered and left at each write of a file.
class _Guard:
    """Holds a slot's lock, and Beaker's of a session, where it made one.

    Args:
        slot: the lock of this process's threads, and the path of that of all processes.
        deadline: when to give up, as ``time.monotonic`` has it.
        beakers: the path of Beaker's lock.
    """

    def __init__(self, slot: tuple[threading.Lock, str], deadline: float, beakers: str) -> None:
        self._thread_lock, self._path = slot
        self._deadline = deadline
        self._beakers_path = beakers

    def __enter__(self) -> None:
        # The threads of one process queue here, without polling a file.
        if not self._thread_lock.acquire(timeout=max(0, self._deadline - time.monotonic())):
            raise LockTimeoutError
        try:
            self._descriptor = lock_file(self._path, self._deadline)
            try:
                self._beakers = lock_file(self._beakers_path, self._deadline, create=False)
            except BaseException:
                unlock_file(self._descriptor)
                raise
        except BaseException:
            self._thread_lock.release()
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            unlock_file(self._beakers)
        finally:
            try:
                unlock_file(self._descriptor)
            finally:
                self._thread_lock.release()


def lock_file(path: str, deadline: float, *, create: bool = True, shared: bool = False) -> int | None:
    """Lock a file, and return its descriptor; None where there is no file to lock, or the platform has no such locks.

    Args:
        path: the lock file.
        deadline: when to give up, as ``time.monotonic`` has it; it is tried once in any case.
        create: make the file, and its directory, where there is none.
        shared: share the lock with others who share it.

    Raises:
        LockTimeoutError: somebody else held it until the deadline.
    """
    descriptor = _opened(path, create=create) if fcntl else None
    if descriptor is not None:
        try:
            if not _locked(descriptor, shared=shared):
                _wait(descriptor, deadline, shared=shared)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                # A file system without locks names no file.
                error.filename = path
            raise
    return descriptor


def _wait(descriptor: int, deadline: float, *, shared: bool) -> None:
    while not _locked(descriptor, shared=shared):
        if time.monotonic() > deadline:
            raise LockTimeoutError
        time.sleep(POLL)


def unlock_file(descriptor: int | None) -> None:
    """Unlock and close what :func:`lock_file` returned."""
    if descriptor is not None:
        try:
            # To close it is not enough: a child that was forked meanwhile has the file open, too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


# A descriptor of its own each time: a forked child that shared one would share the lock, too.


def _opened(path: str, *, create: bool) -> int | None:
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
    if create:
        return _create(path, flags)
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    return None


def _create(path: str, flags: int) -> int:
    """Open a lock file, which is made where there is none, as is its directory."""
    # The mode is Beaker's: the umask says which other users may share the sessions.
    try:
        return os.open(path, flags | os.O_CREAT, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, flags | os.O_CREAT, 0o666)


def _time_in(content: bytes) -> float:
    """Return the time that a file holds; 0 where it is new, or holds none."""
    with suppress(ValueError):
        return float(content)
    return 0


def _locked(descriptor: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
