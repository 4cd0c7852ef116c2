"""The queues of threads that want the same session."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class ThreadQueues:
    """Queues of this process's threads, one a session. One that nobody waits in takes no room."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def turn(self, session_id: str, deadline: float) -> Iterator[bool]:
        """Yield whether this thread's turn came before the deadline, a time of ``time.monotonic()``."""
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
