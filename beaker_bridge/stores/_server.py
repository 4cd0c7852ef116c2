"""What the stores on servers share: circuit breakers, and a lock that is a lease."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from beaker_bridge.exceptions import SessionStoreError, SessionTooLargeError
from beaker_bridge.stores._breaker import CircuitBreaker
from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores._keyed_locks import KeyedLocks
from beaker_bridge.stores._lease import HeldBy, Leases
from beaker_bridge.stores.base import Record, Store, Swap, lock_timed_out

log = logging.getLogger(__name__)

#: Seconds after which the lock of a holder that has died ends by itself; more for long waits.
LEASE = 30
#: The shortest and the longest pause between two tries for a lock that another holder has, in seconds.
PAUSES = (0.001, 0.05)


class ServerStore(Store):
    """A store on one or more servers.

    Args:
        timeout: the option ``store_timeout``, in seconds.
    """

    #: The clock by which a holder sees that its lease ends.
    monotonic: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._threads = PerProcess(KeyedLocks)
        self._breakers: PerProcess[dict[str, CircuitBreaker]] = PerProcess(dict)

    def _breaker(self, server: str = "") -> CircuitBreaker:
        """Return the circuit breaker of a server: while one is down, the others still serve their sessions."""
        breakers = self._breakers.get()
        # Wait half the time for the probe of another caller, to have the rest for an answer.
        return breakers.get(server) or breakers.setdefault(server, CircuitBreaker(self._timeout / 2))

    @abstractmethod
    def bypass_breaker(self, session_id: str) -> None:
        """Probe the server of an id now, also while its circuit breaker is open; an answer closes the breaker.

        Raises:
            SessionStoreError: the server cannot be reached.
        """

    @property
    def _leases(self) -> Leases:
        """The leases on the servers, by the session's id."""
        return Leases(self._swap_lease)

    @abstractmethod
    def _swap_lease(self, session_id: str, old: bytes | None, new: bytes | None, expires_in: float | None) -> Swap:
        """Swap the entry that is the lock of a session."""

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[Callable[[], float]]:
        deadline = time.monotonic() + timeout
        # Queue the threads of this process here, so that one of them at a time polls the server.
        with self._threads.get().hold(session_id, deadline) as acquired:
            taken = self._wait_for_lease(session_id, deadline, max(LEASE, 5 * timeout)) if acquired else None
            if taken is None:
                raise lock_timed_out(self.kind, timeout)
            lease, ends = taken
            try:
                yield lambda: ends - self.monotonic()
            finally:
                self._end_lease(session_id, lease)

    def _wait_for_lease(self, session_id: str, deadline: float, seconds: float) -> tuple[bytes, float] | None:
        """Return a lease and the time at which it ends; None if another holder keeps it until the deadline."""
        pause, longest = PAUSES
        while True:
            asked = self.monotonic()
            lease = self._leases.take(session_id, seconds)
            if not isinstance(lease, HeldBy):
                return lease, asked + seconds
            if time.monotonic() >= deadline:
                return None
            time.sleep(min(pause, max(0, deadline - time.monotonic())))
            pause = min(2 * pause, longest)

    def _end_lease(self, session_id: str, lease: bytes) -> None:
        try:
            self._leases.end(session_id, lease)
        except SessionStoreError as error:
            # Do not fail the request: its work under the lock is done.
            log.warning("%s; a lock that it holds for a session ends by itself", error)


def outcome(found: Record | None, new: bytes | None) -> Swap:
    """Return the outcome of a swap that the server refused, from what it holds now."""
    return Swap((found.raw if found else None) == new, found)


def too_large(kind: str, size: int, limit: str) -> SessionTooLargeError:
    """Return the error for a record that the server does not hold."""
    return SessionTooLargeError(
        f"the session's record has {size} bytes, the store {kind} holds {limit}", name=kind, value=size
    )
