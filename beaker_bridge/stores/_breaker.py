"""What the stores on servers share: a pause after a failure, a lock, and a new beginning in a forked child."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakSet

from beaker_bridge.exceptions import SessionStoreError, SessionTooLargeError
from beaker_bridge.stores._keyed_locks import ThreadQueues
from beaker_bridge.stores.base import Record, Store, Swap, lock_timed_out

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for which a server that could not be reached is left alone.
PAUSE = 1
#: Seconds after which a lock ends by itself, whose holder has died; more where waits are long.
LEASE = 30
#: The shortest and the longest pause between two tries for a lock that somebody holds, in seconds.
PAUSES = (0.001, 0.05)


class AwayError(SessionStoreError):
    """The server itself cannot be reached; an answer that refuses one statement is not this."""


class BrokenError(AwayError):
    """A statement was not answered: its connection broke, or its time was over.

    The server may be well, or there again after a restart: it may be this statement's row that is locked, or its
    record that is too large.
    """


class Pause:
    """Leaves a server alone for a while when it could not be reached: each try would cost a request its time.

    Whether it is back, and whether it is away when a statement was not answered, is found out by a statement of
    our own, never by a user's: what one user's record does to a connection is nobody else's matter.

    Args:
        patience: the longest wait of a call while another one finds out whether a server is away, in seconds.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        #: One object as long as the server is up, None in doubt and in a pause: the one thing that a call
        #: looks at. A call that began before the server was back says nothing about it as it is now.
        self.up: object | None = object()
        self._guard = threading.Lock()
        #: Held by who finds out.
        self._turn = threading.Lock()
        #: The end of the pause; 0 in doubt.
        self._until = 0.0
        self._failure = AwayError("")

    def ask(self, probe: Callable[[], object], step: Callable[..., T], *arguments: Any) -> T:
        """Ask the server, unless it is left alone.

        Args:
            probe: a small statement of our own, which raises :class:`AwayError` where the server cannot be reached.
            step: what asks; it raises the same, and :class:`BrokenError` where that is in doubt.
            arguments: the step's.

        Raises:
            AwayError: it cannot be reached, or could not be a moment ago.
        """
        up = self.up
        if up is None:
            up = self._find_out(probe)
        try:
            return step(*arguments)
        except AwayError as failure:
            with self._guard:
                if self.up is up:
                    self.up, self._failure = None, _bare(failure)
                    self._until = 0 if isinstance(failure, BrokenError) else time.monotonic() + PAUSE
            raise

    def _find_out(self, probe: Callable[[], object]) -> object:
        """Return what says that the server is up; raises :class:`AwayError` where it is not."""
        if getattr(_urgent, "asks", False):
            return self._probed(probe)
        # In doubt the others wait a moment for the one who finds out; after a pause they do not.
        if not self._turn.acquire(timeout=0 if self._until else self._patience):
            raise self._left_alone()
        try:
            up = self.up
            if up is not None:
                return up
            if time.monotonic() < self._until:
                raise self._left_alone()
            return self._probed(probe)
        finally:
            self._turn.release()

    def _probed(self, probe: Callable[[], object]) -> object:
        try:
            probe()
        except AwayError as failure:
            with self._guard:
                self._failure, self._until = _bare(failure), time.monotonic() + PAUSE
            raise
        except SessionStoreError:
            # It has answered, if only with an error.
            pass
        up = object()
        with self._guard:
            self.up = up
        return up

    def _left_alone(self) -> AwayError:
        failure = self._failure
        return AwayError(
            f"{failure}; it is left alone for up to {PAUSE} s after a failure",
            name=failure.name,
            original=failure.original,
        )


def _bare(failure: AwayError) -> AwayError:
    """Return a failure to be remembered: its frames, and what a client adds to an error, hold sockets and requests."""
    original = failure.original
    bare = None
    # One that cannot be made from what it shows is left out.
    with suppress(Exception):
        bare = original and type(original)(*original.args)
    return AwayError(str(failure), name=failure.name, original=bare)


_urgent = threading.local()


@contextmanager
def urgently() -> Iterator[None]:
    """Ask servers in this thread though they are left alone."""
    _urgent.asks = True
    try:
        yield
    finally:
        _urgent.asks = False


class ServerStore(Store):
    """A store whose lock is a lease: an entry on the server, in words of its holder's own, that ends by itself.

    Args:
        timeout: the option ``store_timeout``, in seconds.
    """

    #: The clock by which a holder sees that his lease ends.
    monotonic: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._process = os.getpid()
        self._start()
        _stores.add(self)

    def _start(self) -> None:
        self._queues = ThreadQueues()
        self._pause = self._new_pause()

    def _new_pause(self) -> Pause:
        # Who has waited for another one's outcome waits for an answer of its own then.
        return Pause(self._timeout / 2)

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[Callable[[], float]]:
        self._notice_fork()
        deadline = time.monotonic() + timeout
        with self._queues.turn(session_id, deadline) as in_turn:
            had = self._wait_for_lease(session_id, deadline, max(LEASE, 5 * timeout)) if in_turn else None
            if had is None:
                raise lock_timed_out(self.kind, timeout)
            lease, ends = had
            try:
                yield lambda: ends - self.monotonic()
            finally:
                self._give_back(session_id, lease)

    def _wait_for_lease(self, session_id: str, deadline: float, lasts: float) -> tuple[bytes, float] | None:
        """Return the words of a lease, and the time at which it ends; nothing where somebody else keeps it."""
        pause, longest = PAUSES
        while True:
            # From the question on: who is answered late has less of it.
            asked = self.monotonic()
            lease = self._take_lease(session_id, lasts)
            if lease is not None:
                return lease, asked + lasts
            if time.monotonic() >= deadline:
                return None
            time.sleep(min(pause, max(0, deadline - time.monotonic())))
            pause = min(2 * pause, longest)

    def _give_back(self, session_id: str, lease: bytes) -> None:
        try:
            self._end_lease(session_id, lease)
        except SessionStoreError as error:
            # What was done under the lock is done.
            log.warning("%s; a lock that it holds for a session ends by itself", error)

    @abstractmethod
    def _take_lease(self, session_id: str, lasts: float) -> bytes | None:
        """Return the words of a lease that was had for so many seconds; nothing where somebody else has it."""

    @abstractmethod
    def _end_lease(self, session_id: str, lease: bytes) -> None:
        """End a lease, if it still is ours."""

    def forget(self) -> None:
        """Begin anew in a forked child: the parent's connections, waiting threads and pauses are not the child's."""
        self._start()

    def begin_anew(self) -> None:
        """Forget, and only then take note of it: another thread must not go on with what was the parent's."""
        self.forget()
        self._process = os.getpid()

    def _notice_fork(self) -> None:
        """Begin anew in a child whose fork Python has not seen: uWSGI tells it of none, unless it is asked to."""
        process = os.getpid()
        if self._process != process:
            # The child's own lock: the parent's might have been held by a thread that does not run here.
            with _guards.setdefault(process, threading.Lock()):
                if self._process != process:
                    self.begin_anew()


def outcome(found: Record | None, new: bytes | None) -> Swap:
    """Return the outcome of a swap that the server refused, from what stands there now."""
    return Swap((found.raw if found else None) == new, found)


def too_large(kind: str, size: int, limit: str) -> SessionTooLargeError:
    """Return the error for a record that the server does not hold."""
    return SessionTooLargeError(
        f"the session's record has {size} bytes, the store {kind} holds {limit}", name=kind, value=size
    )


_stores: WeakSet[ServerStore] = WeakSet()
#: By process: who is the first to use a store in it that Python did not see begin.
_guards: dict[int, threading.Lock] = {}


def _begin_anew() -> None:
    for store in list(_stores):
        store.begin_anew()


# Windows has no fork.
_register: Callable[..., Any] = getattr(os, "register_at_fork", lambda **_: None)
_register(after_in_child=_begin_anew)
