"""Sessions in the memory of this process, where Beaker keeps them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from beaker.container import MemoryNamespaceManager

from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.stores._keyed_locks import ThreadQueues
from beaker_bridge.stores.base import ID_FORM, LockingStore, Record, lock_timed_out

# One of each for the process, as Beaker's namespaces are: every application shares them.
_guard = threading.Lock()
_queues = ThreadQueues()

#: How many of the sessions that may expire are looked at when a new one comes: an expired one takes room until
#: its turn, so there are no more of these than a third of those that live.
LOOKS = 4


class MemoryStore(LockingStore):
    """Beaker's ``memory``. As servers do, it forgets what its writer allowed it to, as new sessions come.

    Args:
        options: the option table.
    """

    kind = "memory"
    envelope = BareEnvelope

    def __init__(self, options: SessionOptions) -> None:
        self._namespaces: dict[str, dict[str, Any]] = MemoryNamespaceManager.namespaces.dict
        self._clock: Callable[[], float] = options.clock or time.time
        #: By id: when what this store has written may be forgotten, and the text. In the order of their turns.
        self._expiring: OrderedDict[str, tuple[float, str]] = OrderedDict()

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
        text = raw.decode("ascii")
        is_new = session_id not in self._namespaces
        # The same dict: a session of Beaker's own that is open in this process holds on to it.
        self._namespaces.setdefault(session_id, {})["session"] = text
        if expires_in is not None:
            self._expiring[session_id] = self._clock() + expires_in, text
        else:
            self._expiring.pop(session_id, None)
        if is_new and self._expiring:
            self._forget_expired(self._clock())

    def _forget_expired(self, now: float) -> None:
        """Look at the next sessions in turn, and forget those whose time is over."""
        for _ in range(min(LOOKS, len(self._expiring))):
            session_id, (ends, text) = self._expiring.popitem(last=False)
            namespace = self._namespaces.get(session_id, {})
            # What Beaker, or another application of this process, has written since is theirs.
            if namespace.get("session") is not text:
                continue
            if now < ends:
                self._expiring[session_id] = ends, text
            else:
                self._remove(session_id)

    def _remove(self, session_id: str) -> None:
        self._expiring.pop(session_id, None)
        self._namespaces.pop(session_id).clear()
