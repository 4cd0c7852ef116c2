"""The lock of a cache region's value: one caller computes, while the others wait or take the old value."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from beaker_bridge.stores._flock import LockTimeoutError, lock_file, unlock_file
from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores._lease import HeldBy

#: Seconds between two looks at a lease that another process has.
POLL = 0.02
#: Returned instead of a lease if the store that keeps leases cannot be reached.
AWAY = object()


class CreationLock:
    """The lock that Beaker's ``Value`` takes before it computes: a turn among this process's threads, then a lease.

    A caller that dies, or hangs, delays the others for ``patience`` seconds; then the next one computes. No caller
    waits longer than twice that.

    If a caller fails, those that waited for it do not queue to fail, too: the threads of its process raise a copy of
    its error, and other processes compute at once.

    Args:
        name: the unique name of the value.
        patience: seconds.
        take: takes the lease, by which other processes see that somebody computes: it returns what
            :meth:`end` is to be given, ``HeldBy`` where another process has it, or ``AWAY``.
        end: ends the lease.
    """

    def __init__(
        self, name: str, patience: float, take: Callable[[], Any], end: Callable[[Any], None] = lambda _: None
    ) -> None:
        self._name = name
        self._patience = patience
        self._take, self._end = take, end
        self._turn: _Turn | None = None
        self._lease: Any = None
        self._handled: BaseException | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock.

        Args:
            wait: whether to wait for who has it.

        Returns:
            Whether to compute. Who has waited computes in any case, as Beaker has it.

        Raises:
            Exception: a copy of what the thread raised that was waited for.
        """
        began = time.monotonic()
        # The caller may be an exception handler: that exception is no failure of what is computed.
        self._handled = sys.exc_info()[1]
        self._turn = _turns.get().take(self._name, self._patience, wait)
        if self._turn is None:
            return wait
        try:
            self._lease = self._taken_lease(began + self._patience if wait else began)
        except BaseException:
            self.release()
            raise
        if self._lease is None and not wait:
            self.release()
            return False
        if self._lease is AWAY:
            # Let the others go on: there is no store to share the value by.
            self.release()
        else:
            self._turn.until = time.monotonic() + self._patience
        return True

    def release(self) -> None:
        """Release the lock, if it still is ours; Beaker calls this in a ``finally``, where a failure can be seen."""
        turn, lease = self._turn, self._lease
        error = sys.exc_info()[1]
        failure = None if error is self._handled else error
        self._turn = self._lease = self._handled = None
        if turn is not None and _turns.get().end(turn, failure) and lease is not None and lease is not AWAY:
            self._end(lease)

    def _taken_lease(self, deadline: float) -> Any:
        """Return the lease, ``AWAY``, or None if another process has it."""
        first = None
        while isinstance(lease := self._take(), HeldBy):
            first = first or lease
            # Wait for one holder only: it has stored its value by now, or has failed.
            if lease != first or time.monotonic() >= deadline:
                return None
            time.sleep(POLL)
        return lease


class _Turn:
    """A thread's turn to compute a value, until it is done, or its time is over."""

    __slots__ = ("done", "failure", "is_awaited", "name", "thread", "until")

    def __init__(self, name: str, until: float) -> None:
        self.name = name
        self.until = until
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.is_awaited = False
        self.failure: _Failure | None = None


class _Failure:
    """The error that ended a turn, for those who have waited for it.

    An error that two threads raise would get the traceback of both, and one with a response's headers, or a request's
    data, would carry them from one user to another: each raises a copy of its own, made of one that nobody raises.

    Args:
        error: the error.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._copy = _copied(error)

    def raise_copy(self) -> None:
        """Raise a copy, caused by the error itself; return where there is none."""
        copied = _copied(self._copy)
        if copied is not None:
            raise copied from self._error


def _copied(error: Exception | None) -> Exception | None:
    """Return a deep copy of an error; None where it cannot be copied."""
    with suppress(Exception):
        copied = copy.deepcopy(error)
        return copied if type(copied) is type(error) and copied is not error else None
    return None


class _Turns:
    """The turns of this process's threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    def take(self, name: str, patience: float, wait: bool) -> _Turn | None:
        """Return a new turn; None where it is another's, where this thread has it already, or where one has failed.

        Raises:
            Exception: a copy of what the thread raised that was waited for.
        """
        deadline = time.monotonic() + 2 * patience
        while True:
            now = time.monotonic()
            # Before its own time begins, it may wait for another process's lease.
            turn = _Turn(name, now + 2 * patience)
            other = self._turn_before(turn, now, wait)
            if other is None:
                return turn
            if not wait or other.thread == turn.thread or now >= deadline:
                return None
            if other.done.wait(min(other.until, deadline) - now) and other.failure is not None:
                other.failure.raise_copy()
                return None

    def _turn_before(self, turn: _Turn, now: float, wait: bool) -> _Turn | None:
        """Return the turn that comes before this one; None if this one has begun."""
        with self._guard:
            other = self._turns.get(turn.name)
            if other is not None and now < other.until:
                other.is_awaited |= wait
                return other
            self._turns[turn.name] = turn
            return None

    def end(self, turn: _Turn, error: BaseException | None) -> bool:
        """End a turn, by an error perhaps; say whether nobody had taken its place."""
        with self._guard:
            ours = self._turns.get(turn.name) is turn
            if ours:
                del self._turns[turn.name]
        # Share only an Exception: anything else ends one thread alone, such as one that has to exit.
        if isinstance(error, Exception) and turn.is_awaited:
            turn.failure = _Failure(error)
        turn.done.set()
        return ours


_turns = PerProcess(_Turns)


class FileLease:
    """A lock on a file that exists only while the lock is held: a lock file for each value would use up inodes.

    It ends with its process, or after a time: a process that was stopped never ends.

    Args:
        path: the path of the file.
        seconds: the time after which another process may take the lock.
    """

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free; return whether that was so. Let the next caller have it if its time is over."""
        with suppress(FileNotFoundError):
            try:
                descriptor = lock_file(self._path, 0)
            except LockTimeoutError:
                if _age(os.stat(self._path)) > self._seconds:
                    os.unlink(self._path)
                return False
            if descriptor is None or self._is_there(descriptor):
                self._keep(descriptor)
                return True
            # Give up a file that its last holder has removed meanwhile: others may hold a new one.
            unlock_file(descriptor)
        return False

    def _keep(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None and _age(os.fstat(descriptor)) > POLL:
            # Start our own time: a holder that died has left the file.
            os.utime(descriptor)

    def held_by(self) -> HeldBy:
        """Return what identifies the holder of the lock."""
        with suppress(FileNotFoundError):
            found = os.stat(self._path)
            return HeldBy((found.st_ino, found.st_ctime_ns))
        return HeldBy()

    def end(self) -> None:
        """Release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        try:
            # Leave the file of another process, which has taken a lock that was held for too long.
            if descriptor is not None and self._is_there(descriptor):
                os.unlink(self._path)
        finally:
            unlock_file(descriptor)

    def _is_there(self, descriptor: int) -> bool:
        """Say whether a file that is locked still has its name."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        return False


def _age(found: os.stat_result) -> float:
    return time.time() - found.st_mtime
