"""Locks in files: a fixed number of them, since sites with one a session ran out of inodes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows: file sessions lock within the process
    fcntl = None  # type: ignore[assignment]

#: How many lock files there are, of each use.
SLOTS = 64
#: Seconds between two tries for a lock that somebody holds.
POLL = 0.001


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

    @contextmanager
    def guard(self, session_id: str, timeout: float) -> Iterator[None]:
        """Hold the short lock for a swap, and Beaker's own lock where Beaker made one for this id.

        Raises:
            LockTimeoutError: somebody held one of them for ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._slot("guard", session_id, deadline):
            beakers = _lock(self._beakers(session_id), deadline, create=False)
            try:
                yield
            finally:
                _unlock(beakers)

    @contextmanager
    def queue(self, session_id: str, timeout: float) -> Iterator[None]:
        """Hold the lock of those who queue; raises as :meth:`guard` does."""
        with self._slot("queue", session_id, time.monotonic() + timeout):
            yield

    def forget(self, session_id: str) -> None:
        """Remove the lock file that Beaker made for an id, by whoever holds the guard and deletes the record."""
        with suppress(FileNotFoundError):
            os.unlink(self._beakers(session_id))

    @contextmanager
    def _slot(self, use: str, session_id: str, deadline: float) -> Iterator[None]:
        if self._process != os.getpid():
            # A fork has copied the locks of threads that do not run here, and would never release them.
            self._renew()
        number = int(session_id[:4], 16) % SLOTS
        # The threads of one process queue here, without polling a file.
        thread_lock = self._threads[number + SLOTS * (use == "queue")]
        if not thread_lock.acquire(timeout=max(0, deadline - time.monotonic())):
            raise LockTimeoutError
        try:
            descriptor = _lock(f"{self._directory}/bridge-{use}-{number:02d}.lock", deadline, create=True)
            try:
                yield
            finally:
                _unlock(descriptor)
        finally:
            thread_lock.release()

    def _beakers(self, session_id: str) -> str:
        # beaker.synchronization.FileSynchronizer names its file by the digest.
        name = hashlib.sha1(session_id.encode("ascii"), usedforsecurity=False).hexdigest()
        return f"{self._directory}/{name[:1]}/{name[:2]}/{name}.lock"


def _lock(path: str, deadline: float, *, create: bool) -> int | None:
    """Return the descriptor of a file that is locked now; nothing where there is none to lock."""
    descriptor = _opened(path, create=create) if fcntl else None
    if descriptor is not None and not _locked(descriptor):
        try:
            _wait(descriptor, deadline)
        except BaseException:
            os.close(descriptor)
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


def _opened(path: str, *, create: bool) -> int | None:
    # A descriptor of its own each time: a forked child that shared one would share the lock, too.
    # The mode is Beaker's: the umask says which other users may share the sessions.
    flags = os.O_RDWR | os.O_CLOEXEC
    if create:
        flags |= os.O_CREAT
    with suppress(FileNotFoundError):
        return os.open(path, flags, 0o666)
    if not create:
        return None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, flags, 0o666)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
