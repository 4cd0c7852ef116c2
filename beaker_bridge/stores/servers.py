"""What the stores on servers share: a lock that the server keeps, and a new beginning in a forked child."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from beaker_bridge.exceptions import SessionStoreError, SessionTooLargeError
from beaker_bridge.stores.base import Record, Store, Swap, lock_timed_out

log = logging.getLogger(__name__)

#: Seconds after which a lock ends by itself, whose holder has died; more where waits are long.
LEASE = 30
#: The shortest and the longest pause between two tries for a lock that somebody holds, in seconds.
PAUSES = (0.001, 0.05)


class ServerStore(Store):
    """A store whose lock is a lease: an entry on the server, in words of its holder's own, that ends by itself."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._queues = _ThreadQueues()
        _stores.add(self)

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[None]:
        self._notice_fork()
        deadline = time.monotonic() + timeout
        with self._queues.turn(session_id, deadline) as in_turn:
            lease = self._wait_for_lease(session_id, deadline, max(LEASE, 5 * timeout)) if in_turn else None
            if lease is None:
                raise lock_timed_out(self.kind, timeout)
            try:
                yield
            finally:
                self._give_back(session_id, lease)

    def _wait_for_lease(self, session_id: str, deadline: float, lasts: float) -> bytes | None:
        pause, longest = PAUSES
        lease = self._take_lease(session_id, lasts)
        while lease is None and time.monotonic() < deadline:
            time.sleep(min(pause, max(0, deadline - time.monotonic())))
            pause = min(2 * pause, longest)
            lease = self._take_lease(session_id, lasts)
        return lease

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
        """Begin anew in a forked child: the parent's connections and waiting threads are not the child's."""
        self._queues = _ThreadQueues()

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


class _ThreadQueues:
    """Queues of this process's threads, one a session: only who is in turn asks the server."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def turn(self, session_id: str, deadline: float) -> Iterator[bool]:
        """Yield whether this thread's turn came before the deadline."""
        with self._guard:
            queue, waiting = self._queues.get(session_id, (threading.Lock(), 0))
            self._queues[session_id] = queue, waiting + 1
        in_turn = queue.acquire(timeout=max(0, deadline - time.monotonic()))
        try:
            yield in_turn
        finally:
            if in_turn:
                queue.release()
            self._leave(session_id)

    def _leave(self, session_id: str) -> None:
        with self._guard:
            queue, waiting = self._queues.pop(session_id)
            if waiting > 1:
                self._queues[session_id] = queue, waiting - 1


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
