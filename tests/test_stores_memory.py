"""Memory sessions: the store contract on Beaker's dict of this process."""

from __future__ import annotations

import pytest
from beaker.cache import clsmap

from beaker_bridge.stores import memory as memory_module
from tests.contract import PATIENCE, StoreContract


class TestMemoryStore(StoreContract):
    """``type = memory``."""

    text_only = True

    @pytest.fixture
    def options(self):
        return {"type": "memory"}

    def test_locks_leave_nothing_behind(self, store, other_store, session_id):
        """A lock that nobody holds or waits for takes no room."""
        with store.lock(session_id, PATIENCE):
            assert self._is_refused(other_store, session_id)
            assert session_id in memory_module._queues._queues

        assert session_id not in memory_module._queues._queues

    def test_a_swap_compares_and_writes_under_one_lock(self, store, session_id, stored, raw, monkeypatch):
        """From its look at what stands until its write, a swap is alone."""
        alone = []

        def noting(method):
            def noted(*args):
                alone.append(memory_module._guard.locked())
                return method(*args)

            return noted

        for name in ("read", "_write", "_remove"):
            monkeypatch.setattr(store, name, noting(getattr(store, name)))
        swap = store.swap(session_id, stored, raw())
        store.swap(session_id, swap.found, None)

        assert alone == [True] * 4

    def test_only_sessions_are_listed(self, store, session_id, stored):
        """The namespaces of cache regions, and what Beaker leaves of a session, are no sessions."""
        clsmap["memory"]("a cached function")["session"] = 1
        clsmap["memory"]("f" * 32)["another key"] = 1

        assert session_id in list(store.ids())
        assert {"a cached function", "f" * 32}.isdisjoint(store.ids())
