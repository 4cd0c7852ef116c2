"""Locks between the threads of this process, one for each key."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class KeyedLocks:
    """A lock for each key, which exists only while a thread holds it or waits for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str, deadline: float) -> Iterator[bool]:
        """Yield whether the lock was acquired before the deadline, a time of ``time.monotonic()``."""
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = lock, users + 1
        acquired = lock.acquire(timeout=max(0, deadline - time.monotonic()))
        try:
            yield acquired
        finally:
            if acquired:
                lock.release()
            self._leave(key)

    def _leave(self, key: str) -> None:
        with self._guard:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
