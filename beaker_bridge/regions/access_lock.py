"""The lock of a file of values, with a timeout: Beaker's own waits for ever for a process that was stopped."""

from __future__ import annotations

import threading
import time

from beaker_bridge.stores._flock import LockTimeoutError, lock_file, unlock_file


class AccessLock:
    """The lock that Beaker's namespace managers in files hold to read or write: readers share it, a writer does not.

    It locks the file that Beaker's would lock. The threads of a process take turns, so that Beaker's own mutex, which
    has no timeout, is never waited for.

    Args:
        path: the lock file.
        patience: seconds to wait for it.
        reason: the rest of the sentence that says that it was held for too long.
    """

    def __init__(self, path: str, patience: float, reason: str) -> None:
        self._path = path
        self._patience = patience
        self._reason = reason
        self._thread_lock = threading.Lock()
        self._descriptor: int | None = None
        # The kinds of locks that a caller waited for in vain: True to read (shared), False to write.
        self._held_up: set[bool] = set()

    def acquire_read_lock(self) -> None:
        """Lock for reading; raises :class:`LockTimeoutError` if another holder writes for too long."""
        self._acquire(self._patience, shared=True)

    def acquire_write_lock(self, _wait: bool = True) -> bool:
        """Lock for writing; raises :class:`LockTimeoutError` if another holder keeps it for too long."""
        self._acquire(self._patience, shared=False)
        return True

    def release(self) -> None:
        """Unlock."""
        descriptor, self._descriptor = self._descriptor, None
        try:
            unlock_file(descriptor)
        finally:
            self._thread_lock.release()

    release_read_lock = release_write_lock = release

    def check(self, *, shared: bool) -> None:
        """Raise :class:`LockTimeoutError` at once if a caller has waited in vain, and the lock is still held.

        So a holder that was stopped costs a process one wait, not one for each value.
        """
        if shared in self._held_up:
            self._acquire(0, shared=shared)
            self.release()

    def _acquire(self, patience: float, *, shared: bool) -> None:
        try:
            self._lock(patience, shared=shared)
        except LockTimeoutError:
            # Note both: a reader in vain could not write either, and a writer could also read.
            self._held_up |= {shared, False}
            raise LockTimeoutError(f"{self._path} is locked by somebody {self._reason}") from None
        self._held_up -= {shared, True}

    def _lock(self, patience: float, *, shared: bool) -> None:
        deadline = time.monotonic() + patience
        if not self._thread_lock.acquire(timeout=patience):
            raise LockTimeoutError
        try:
            self._descriptor = lock_file(self._path, deadline, shared=shared)
        except BaseException:
            self._thread_lock.release()
            raise
