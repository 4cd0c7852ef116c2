"""Sessions in the memory of this process, where Beaker keeps them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beaker.container import MemoryNamespaceManager

from beaker_bridge.codec import BareEnvelope
from beaker_bridge.settings import SessionOptions
from beaker_bridge.stores.base import ID_FORM, LockingStore, Record, lock_timed_out
from beaker_bridge.stores.queues import ThreadQueues

# One of each for the process, as Beaker's namespaces are: every application shares them.
_guard = threading.Lock()
_queues = ThreadQueues()


class MemoryStore(LockingStore):
    """Beaker's ``memory``.

    Args:
        options: the option table.
    """

    kind = "memory"
    envelope = BareEnvelope

    def __init__(self, options: SessionOptions) -> None:
        self._namespaces: dict[str, dict[str, Any]] = MemoryNamespaceManager.namespaces.dict

    def read(self, session_id: str) -> Record | None:
        namespace = self._namespaces.get(session_id)
        text = None if namespace is None else namespace.get("session")
        return None if text is None else Record(text.encode("ascii"))

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[None]:
        with _queues.turn(session_id, time.monotonic() + timeout) as in_turn:
            if not in_turn:
                raise lock_timed_out(self.kind, timeout)
            yield

    def ids(self) -> Iterator[str]:
        # Beaker's cache regions keep their namespaces in the same dict.
        for name, namespace in list(self._namespaces.items()):
            if ID_FORM.fullmatch(name) and "session" in namespace:
                yield name

    def _guard(self, session_id: str) -> threading.Lock:
        return _guard

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        # The same dict: a session of Beaker's own that is open in this process holds on to it.
        self._namespaces.setdefault(session_id, {})["session"] = raw.decode("ascii")

    def _remove(self, session_id: str) -> None:
        self._namespaces.pop(session_id).clear()
