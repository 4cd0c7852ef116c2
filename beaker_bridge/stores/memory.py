"""Sessions in the memory of this process, where Beaker keeps them."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from beaker.container import MemoryNamespaceManager

from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.stores._keyed_locks import KeyedLocks
from beaker_bridge.stores.base import ID_FORM, Record, Store, Swap, lock_timed_out

# Share these among all stores of the process, as Beaker's namespaces are shared.
_guard = threading.Lock()
_locks = KeyedLocks()

#: The number of sessions that are checked for expiry whenever a new one is stored. An expired session takes up space
#: until its turn, so there is at most one for three live ones.
LOOKS = 4


class MemoryStore(Store):
    """Beaker's ``memory``. Removes expired sessions as new ones are stored.

    Args:
        options: the option table.
    """

    kind = "memory"
    envelope = BareEnvelope

    def __init__(self, options: SessionOptions) -> None:
        self._namespaces: dict[str, dict[str, Any]] = MemoryNamespaceManager.namespaces.dict
        self._clock: Callable[[], float] = options.clock or time.time
        #: By id: the time at which a record of ours expires, and its text. In the order of their turns.
        self._expiring: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def read(self, session_id: str) -> Record | None:
        namespace = self._namespaces.get(session_id)
        text = None if namespace is None else namespace.get("session")
        return None if text is None else Record(text.encode("ascii"))

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[None]:
        with _locks.hold(session_id, time.monotonic() + timeout) as acquired:
            if not acquired:
                raise lock_timed_out(self.kind, timeout)
            yield

    def ids(self, form: re.Pattern[str] = ID_FORM) -> Iterator[str]:
        # Leave out the namespaces of Beaker's cache regions, which are in the same dict.
        for name in list(self._namespaces):
            if form.fullmatch(name) and "session" in self._namespaces.get(name, ()):
                yield name

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        # As LockingStore's, whose lock, comparison and writes are spread over methods: here they are a few lines.
        with _guard:
            found = self.read(session_id)
            stored = found.raw if found else None
            if stored == new:
                return Swap(True, found)
            if stored != (record.raw if record else None):
                return Swap(False, found)
            if new is None:
                self._remove(session_id)
                return Swap(True, None)
            self._write(session_id, new, expires_in)
            return Swap(True, Record(new))

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        text = raw.decode("ascii")
        is_new = session_id not in self._namespaces
        # Keep the same dict: an open session of Beaker's own in this process refers to it.
        self._namespaces.setdefault(session_id, {})["session"] = text
        if expires_in is not None:
            self._expiring[session_id] = self._clock() + expires_in, text
        else:
            self._expiring.pop(session_id, None)
        if is_new and self._expiring:
            self._remove_expired(self._clock())

    def _remove_expired(self, now: float) -> None:
        """Check the next sessions in turn, and remove those that have expired."""
        for _ in range(min(LOOKS, len(self._expiring))):
            session_id, (ends, text) = self._expiring.popitem(last=False)
            namespace = self._namespaces.get(session_id, {})
            # Leave what Beaker, or another application of this process, has written since.
            if namespace.get("session") is not text:
                continue
            if now < ends:
                self._expiring[session_id] = ends, text
            else:
                self._remove(session_id)

    def _remove(self, session_id: str) -> None:
        self._expiring.pop(session_id, None)
        self._namespaces.pop(session_id).clear()
