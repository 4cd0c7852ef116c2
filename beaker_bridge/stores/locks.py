"""Locks in files: a fixed number of them, since sites with one a session ran out of inodes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows: file sessions lock within the process
    fcntl = None  # type: ignore[assignment]

#: How many lock files there are, of each use.
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
        self._threads = [threading.Lock() for _ in range(2 * SLOTS)]

    def guard(self, session_id: str, timeout: float) -> AbstractContextManager[None]:
        """Return the short lock for a swap, with Beaker's own lock where Beaker made one for this id.

        Raises, when it is entered:
            LockTimeoutError: somebody held one of them for ``timeout`` seconds.
        """
        return _Guard(self._slot("guard", session_id), time.monotonic() + timeout, self._beakers(session_id))

    def queue(self, session_id: str, timeout: float) -> AbstractContextManager[None]:
        """Return the lock of those who queue; raises as :meth:`guard` does."""
        return _Held(self._slot("queue", session_id), time.monotonic() + timeout)

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
                is_due = not 0 <= now - _time_in(file.read(_DIGITS)) < every
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

    def _slot(self, use: str, session_id: str) -> tuple[threading.Lock, str]:
        """Return the lock of this process's threads, and the path of that of all processes."""
        if self._process != os.getpid():
            # A fork has copied the locks of threads that do not run here, and would never release them.
            self._renew()
        number = int(session_id[:4], 16) % SLOTS
        thread_lock = self._threads[number + SLOTS * (use == "queue")]
        return thread_lock, f"{self._directory}/bridge-{use}-{number:02d}.lock"

    def _beakers(self, session_id: str) -> str:
        # beaker.synchronization.FileSynchronizer names its file by the digest.
        name = hashlib.sha1(session_id.encode("ascii"), usedforsecurity=False).hexdigest()
        return f"{self._directory}/{name[:1]}/{name[:2]}/{name}.lock"


# Classes, not generators: these are entered and left at each write of a file.


class _Held:
    """Holds a slot's lock.

    Args:
        slot: the lock of this process's threads, and the path of that of all processes.
        deadline: when to give up, as ``time.monotonic`` has it.
    """

    def __init__(self, slot: tuple[threading.Lock, str], deadline: float) -> None:
        self._thread_lock, self._path = slot
        self._deadline = deadline

    def __enter__(self) -> None:
        # The threads of one process queue here, without polling a file.
        if not self._thread_lock.acquire(timeout=max(0, self._deadline - time.monotonic())):
            raise LockTimeoutError
        try:
            self._descriptor = _lock(self._path, self._deadline, create=True)
        except BaseException:
            self._thread_lock.release()
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            _unlock(self._descriptor)
        finally:
            self._thread_lock.release()


class _Guard(_Held):
    """Holds a slot's lock, and Beaker's of a session, where it made one.

    Args:
        slot: as :class:`_Held`'s.
        deadline: as :class:`_Held`'s.
        beakers: the path of Beaker's lock.
    """

    def __init__(self, slot: tuple[threading.Lock, str], deadline: float, beakers: str) -> None:
        super().__init__(slot, deadline)
        self._beakers_path = beakers

    def __enter__(self) -> None:
        super().__enter__()
        try:
            self._beakers = _lock(self._beakers_path, self._deadline, create=False)
        except BaseException:
            super().__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            _unlock(self._beakers)
        finally:
            super().__exit__()


def _lock(path: str, deadline: float, *, create: bool) -> int | None:
    """Return the descriptor of a file that is locked now; nothing where there is none to lock."""
    descriptor = _opened(path, create=create) if fcntl else None
    if descriptor is not None:
        try:
            if not _locked(descriptor):
                _wait(descriptor, deadline)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                # A file system without locks names no file.
                error.filename = path
            raise
    return descriptor


def _wait(descriptor: int, deadline: float) -> None:
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            raise LockTimeoutError
        time.sleep(POLL)


def _unlock(descriptor: int | None) -> None:
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


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
