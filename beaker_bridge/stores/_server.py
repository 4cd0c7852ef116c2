"""The base of the stores on servers: circuit breakers, and a lock that is a lease."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from beaker_bridge.events import BreakerClosed, BreakerOpened
from beaker_bridge.exceptions import SessionStoreError, SessionTooLargeError
from beaker_bridge.logs import fields
from beaker_bridge.stores._breaker import CircuitBreaker, CircuitOpenError, ServerUnavailableError
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
        #: Leases whose release failed: of each the session's id, its words and the time at which it ends by itself.
        self._unreleased: PerProcess[deque[tuple[str, bytes, float]]] = PerProcess(deque)
        self._breakers: PerProcess[dict[str, CircuitBreaker]] = PerProcess(dict)

    def _breaker(self, server: str = "") -> CircuitBreaker:
        """Return the circuit breaker of a server: while one is down, the others still serve their sessions."""
        breakers = self._breakers.get()
        if server not in breakers:
            # Wait half the time for the probe of another caller, to have the rest for an answer.
            on_change = partial(self._report_breaker, server)
            breakers.setdefault(server, CircuitBreaker(self._timeout / 2, self._release_again, on_change))
        return breakers[server]

    def _report_breaker(self, server: str, failure: ServerUnavailableError | None, seconds: float) -> None:
        """Notify of a circuit breaker that has opened, or closed."""
        if self.on_event is None:
            return
        if failure is None:
            self.on_event(BreakerClosed(self.kind, server, seconds))
        else:
            self.on_event(BreakerOpened(self.kind, server, failure.failure, failure))

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
        self._release_again()
        # Queue the threads of this process here, so that one of them at a time polls the server.
        with self._threads.get().hold(session_id, deadline) as acquired:
            taken = self._wait_for_lease(session_id, deadline, max(LEASE, 5 * timeout)) if acquired else None
            if taken is None:
                raise lock_timed_out(self.kind, timeout)
            lease, ends = taken
            try:
                yield lambda: ends - self.monotonic()
            finally:
                self._release(session_id, lease, ends)

    def _wait_for_lease(self, session_id: str, deadline: float, seconds: float) -> tuple[bytes, float] | None:
        """Return a lease and the time at which it ends; None if another holder keeps it until the deadline."""
        pause, longest = PAUSES
        while True:
            words, ends = self._leases.words(seconds), self.monotonic() + seconds
            try:
                lease = self._leases.take(session_id, seconds, words)
            except ServerUnavailableError as error:
                # Only the answer may have been lost, and not the lease.
                if not isinstance(error, CircuitOpenError):
                    self._unreleased.get().append((session_id, words, ends))
                raise
            if not isinstance(lease, HeldBy):
                return lease, ends
            if time.monotonic() >= deadline:
                return None
            time.sleep(min(pause, max(0, deadline - time.monotonic())))
            pause = min(2 * pause, longest)

    def _release(self, session_id: str, lease: bytes, ends: float) -> None:
        """Release a lease; if that fails, leave it to the next lock, or to the next probe that the server answers."""
        began = time.monotonic()
        failure = self._failed_release(session_id, lease)
        if failure and time.monotonic() - began < self._timeout / 2:
            # Try again unless the server hangs: a single connection may have broken.
            failure = self._failed_release(session_id, lease)
        if failure:
            # Do not fail the request: its work under the lock is done.
            self._unreleased.get().append((session_id, lease, ends))
            log.warning(
                "%s; the lock that it holds for a session is released later",
                failure,
                extra=fields(store=self.kind, failure=failure.failure),
            )

    def _release_again(self) -> None:
        """Release the leases whose release failed, unless they have ended by themselves."""
        unreleased = self._unreleased.get()
        for _ in range(len(unreleased)):
            # Another thread may be at it.
            with suppress(IndexError):
                session_id, lease, ends = unreleased.popleft()
                if self.monotonic() < ends and self._failed_release(session_id, lease):
                    unreleased.append((session_id, lease, ends))

    def _failed_release(self, session_id: str, lease: bytes) -> SessionStoreError | None:
        """Release a lease; return the error if that failed."""
        try:
            self._leases.end(session_id, lease)
        except SessionStoreError as error:
            return error
        return None


def outcome(found: Record | None, new: bytes | None) -> Swap:
    """Return the outcome of a swap that the server refused, from what it holds now."""
    return Swap((found.raw if found else None) == new, found)


def too_large(kind: str, size: int, limit: str) -> SessionTooLargeError:
    """Return the error for a record that the server does not hold."""
    return SessionTooLargeError(
        f"the session's record has {size} bytes, the store {kind} holds {limit}", name=kind, value=size
    )
