"""Fork detection: each process has its own locks, circuit breakers and connections, whoever forked it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """An object of which each process makes its own.

    Leaves alone in a child what the fork has copied: its locks may be held by threads that do not run there, and its
    connections are the parent's. Compares process ids, to detect also the forks that bypass ``os.register_at_fork``,
    as uWSGI's do.

    Args:
        make: returns a new object; two threads that are the first to ask may call it twice.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """Return the object of this process."""
        process = os.getpid()
        try:
            return self._made[process]
        except KeyError:
            return self._made.setdefault(process, self._make())

    def made(self) -> T | None:
        """Return the object of this process, if it has asked for one."""
        return self._made.get(os.getpid())
