"""Locks in files: a fixed number of files, since sites with one lock file per session ran out of inodes.

A swap is short, and shares its lock file with a 64th of the other sessions. A waiting writer, or a block of
``exclusive()``, may hold a lock for long: that is a lock per session, on a byte of one file for all of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress

from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores._keyed_locks import KeyedLocks

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows: file sessions lock within the process
    fcntl = None  # type: ignore[assignment]

#: The number of lock files for swaps.
SLOTS = 64
#: Seconds between two tries for a lock that another holder has.
POLL = 0.001
#: The name of a lock file of Beaker's: a digest.
_BEAKERS = re.compile(r"[0-9a-f]{40}\.lock")
#: The width of the time of the last purge in its lock file.
_DIGITS = 20


class LockTimeoutError(Exception):
    """Another holder kept the lock for as long as we may wait."""


class FileLocks:
    """Exclusive locks between threads and processes, by the session's id.

    Args:
        directory: where the lock files are, ours and Beaker's.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._threads = PerProcess(lambda: [threading.Lock() for _ in range(SLOTS)])

    def guard(self, session_id: str, timeout: float) -> AbstractContextManager[None]:
        """Return the short lock for a swap, with Beaker's own lock where Beaker made one for this id.

        Raises, when it is entered:
            LockTimeoutError: another holder kept one of them for ``timeout`` seconds.
        """
        return _Guard(self._slot(session_id), time.monotonic() + timeout, self._beakers(session_id))

    @contextmanager
    def guarding(self, session_ids: Collection[str], timeout: float) -> Iterator[Iterator[str]]:
        """Hold the short lock that several sessions share, as :meth:`guard`; yield the ids that Beaker has not locked.

        Args:
            session_ids: the ids, all of one :meth:`slot`. Each is locked for Beaker, too, until the next one is taken.
            timeout: the longest wait, in seconds.

        Raises:
            LockTimeoutError: another holder kept the lock for ``timeout`` seconds.
        """
        guard = _Guard(self._slot(next(iter(session_ids))), time.monotonic() + timeout, None)
        with guard, closing(self._with_beakers(session_ids)) as free:
            yield free

    def _with_beakers(self, session_ids: Iterable[str]) -> Generator[str, None, None]:
        """Yield each id while Beaker's own lock of it is held, without waiting for that."""
        for session_id in session_ids:
            with suppress(LockTimeoutError):
                descriptor = lock_file(self._beakers(session_id), 0, create=False)
                try:
                    yield session_id
                finally:
                    unlock_file(descriptor)

    @contextmanager
    def queue(self, session_id: str, timeout: float) -> Iterator[None]:
        """Return the lock of a session, which no other session shares; raises as :meth:`guard`."""
        deadline = time.monotonic() + timeout
        # Take as many bits of the id as a file's positions have, less one to be safe; an index's ends in digits, too.
        position = int(session_id[-16:], 16) >> 2
        files = _queue_files.get()
        path = f"{self._directory}/bridge-queue.lock"
        with files.opened(path) as file, file.threads.hold(f"{position:x}", deadline) as acquired:
            if not acquired:
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
        # Lock the open file, which excludes the other threads of this process, too.
        with open(path, "r+b", buffering=0, opener=_create) as file:
            if fcntl and not _locked(file.fileno()):
                yield False
                return
            try:
                # Take a time far in the future as due: the clock has been set back since.
                is_due = not abs(now - _time_in(file.read(_DIGITS))) < every
                if is_due:
                    file.seek(0)
                    file.write(f"{now:0{_DIGITS}.3f}".encode("ascii"))
                yield is_due
            finally:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_UN)

    def remove_beakers(self, session_id: str) -> None:
        """Remove the lock file that Beaker made for an id; the caller holds the guard, and deletes the record."""
        with suppress(FileNotFoundError):
            os.unlink(self._beakers(session_id))

    def beakers_before(self, before: float) -> Iterator[str]:
        """Yield the paths of Beaker's lock files that were made before a time, in seconds since the epoch."""
        for folder, _folders, names in os.walk(self._directory):
            for name in names:
                if _BEAKERS.fullmatch(name):
                    path = os.path.join(folder, name)
                    with suppress(FileNotFoundError):
                        if os.stat(path).st_mtime < before:
                            yield path

    @staticmethod
    def slot(session_id: str) -> int:
        """Return the number of the lock file of an id."""
        return int(session_id[-4:], 16) % SLOTS

    def _slot(self, session_id: str) -> tuple[threading.Lock, str]:
        """Return the lock between the threads of this process, and the path of the one between processes."""
        return self._threads.get()[self.slot(session_id)], guard_path(self._directory, session_id)

    def _beakers(self, session_id: str) -> str:
        # Name the file by the digest, as beaker.synchronization.FileSynchronizer does.
        name = hashlib.sha1(session_id.encode("ascii"), usedforsecurity=False).hexdigest()
        return f"{self._directory}/{name[:1]}/{name[:2]}/{name}.lock"


def guard_path(directory: str, session_id: str) -> str:
    """Return the lock file of a swap.

    Args:
        directory: where the lock files are.
        session_id: the id.
    """
    return f"{directory}/bridge-guard-{FileLocks.slot(session_id):02d}.lock"


# -- A lock per session ------------------------------------------------------------------------------


class _QueueFile:
    """The open file whose bytes are the locks of the sessions, and the locks between the threads of this process.

    POSIX locks belong to the process: two of its threads would both get one.

    Args:
        path: the path of the file.
        descriptor: the open file; None if the platform has no such locks.
    """

    def __init__(self, path: str, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor
        self.threads = KeyedLocks()
        #: The number of threads that hold a lock, or wait for one.
        self.users = 0

    def lock(self, position: int, deadline: float) -> None:
        """Lock a byte; raises :class:`LockTimeoutError` if another process has it until the deadline."""
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
    """The queue files that this process has open, by inode instead of path.

    Closing a second descriptor of a file would end the locks on the first one. So there is one descriptor, which is
    closed when no thread holds a lock or waits for one.
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


_queue_files = PerProcess(_QueueFiles)


def _identity(path: str) -> object:
    """Return what identifies a file, whatever its path; create it if there is none."""
    if not fcntl:
        return os.path.realpath(path)
    with suppress(FileNotFoundError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    # Close it at once: there can be no lock yet on a file that is new.
    os.close(_create(path, os.O_RDWR))
    return _identity(path)


# -- The lock of a swap ------------------------------------------------------------------------------


# Use a class: a generator costs more, and each write of a file enters and leaves this.
class _Guard:
    """Holds the lock of a slot, and Beaker's lock of the session if there is one.

    Args:
        slot: the lock between the threads of this process, and the path of the one between processes.
        deadline: the time to give up, of ``time.monotonic()``.
        beakers: the path of Beaker's lock; None to leave it.
    """

    def __init__(self, slot: tuple[threading.Lock, str], deadline: float, beakers: str | None) -> None:
        self._thread_lock, self._path = slot
        self._deadline = deadline
        self._beakers_path = beakers

    def __enter__(self) -> None:
        # Queue the threads of one process here, without polling a file.
        if not self._thread_lock.acquire(timeout=max(0, self._deadline - time.monotonic())):
            raise LockTimeoutError
        try:
            self._descriptor = lock_file(self._path, self._deadline)
            try:
                path = self._beakers_path
                self._beakers = None if path is None else lock_file(path, self._deadline, create=False)
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


def remove_unheld(path: str, *, dry_run: bool = False) -> int:
    """Remove a lock file that nobody holds, and return how many that were.

    Args:
        path: the lock file.
        dry_run: whether to leave it, and only count.

    Raises:
        LockTimeoutError: somebody holds it.
    """
    descriptor = lock_file(path, 0, create=False)
    if descriptor is None:
        return 0
    try:
        if not dry_run:
            os.unlink(path)
        return 1
    finally:
        unlock_file(descriptor)


def lock_file(path: str, deadline: float, *, create: bool = True, shared: bool = False) -> int | None:
    """Lock a file, and return its descriptor; None if there is no file to lock, or the platform has no such locks.

    Args:
        path: the lock file.
        deadline: the time to give up, of ``time.monotonic()``; it is tried once in any case.
        create: create the file and its directory if they are missing.
        shared: share the lock with others who share it.

    Raises:
        LockTimeoutError: another holder kept it until the deadline.
    """
    descriptor = _opened(path, create=create) if fcntl else None
    if descriptor is not None:
        try:
            if not _locked(descriptor, shared=shared):
                _wait(descriptor, deadline, shared=shared)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                # Name the file, which the error of a file system without locks does not.
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
            # Unlock before closing: a child that was forked meanwhile keeps the file open.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def _opened(path: str, *, create: bool) -> int | None:
    """Return a new descriptor of a lock file: a forked child that shared one would share the lock, too."""
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
    if create:
        return _create(path, flags)
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    return None


def _create(path: str, flags: int) -> int:
    """Open a lock file, and create it and its directory if they are missing."""
    # Use Beaker's mode: the umask decides which other users may share the sessions.
    try:
        return os.open(path, flags | os.O_CREAT, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, flags | os.O_CREAT, 0o666)


def _time_in(content: bytes) -> float:
    """Return the time that a file holds; 0 if it is new, or holds none."""
    with suppress(ValueError):
        return float(content)
    return 0


def _locked(descriptor: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
