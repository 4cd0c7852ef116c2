"""Memory sessions: the store contract on Beaker's dict of this process."""

from __future__ import annotations

import pytest
from beaker.cache import clsmap
from beaker.container import MemoryNamespaceManager

from beaker_bridge.session.base import new_id
from beaker_bridge.session.session import GRACE
from beaker_bridge.stores import memory as memory_module
from beaker_bridge.stores.memory import LOOKS
from beaker_bridge.testing.contract import PATIENCE, BeakerStoreContract
from tests.requests import Browser, Clock, config_of


class TestMemoryStore(BeakerStoreContract):
    """``type = memory``."""

    text_only = True
    several_processes = False

    @pytest.fixture
    def options(self):
        return {"type": "memory"}

    def test_locks_leave_nothing_behind(self, store, other_store, session_id):
        """A lock that nobody holds or waits for takes no room."""
        with store.lock(session_id, PATIENCE):
            assert self._is_refused(other_store, session_id)
            assert session_id in memory_module._locks._locks

        assert session_id not in memory_module._locks._locks

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


# -- What is over takes no room ------------------------------------------------------------------------

TIMEOUT = 1000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def memory():
    """Return the namespaces of this process, of which the test's own are removed."""
    namespaces = MemoryNamespaceManager.namespaces.dict
    before = set(namespaces)
    yield namespaces
    for name in set(namespaces) - before:
        del namespaces[name]


def visits(config, number):
    """Let visitors come who begin a session each, and return their ids."""
    browsers = [Browser(config) for _ in range(number)]
    for browser in browsers:
        browser.write(a=1)
    return {browser.id for browser in browsers}


def test_expired_sessions_go_as_new_ones_come(memory, clock):
    """Each new session looks at a few others: those that are over take no room for long, those that live stay."""
    config = config_of(clock=clock, timeout=TIMEOUT)
    expired = visits(config, 5 * LOOKS)
    clock.now += TIMEOUT + GRACE + 1
    living = visits(config, 5)

    assert expired.isdisjoint(memory)
    assert living <= memory.keys()
    assert config.store._expiring.keys() == living


def test_a_new_session_looks_at_a_few_others(memory, clock):
    """However many sessions are over, one operation pays for a few of them."""
    config = config_of(clock=clock, timeout=TIMEOUT)
    expired = visits(config, 10 * LOOKS)
    clock.now += TIMEOUT + GRACE + 1
    for number in (1, 2, 3):
        visits(config, 1)

        assert len(expired & memory.keys()) == (10 - number) * LOOKS


def test_what_expires_is_bounded_by_what_lives(memory, clock):
    """On a site with a steady stream of visitors no more than a third as many sessions are over as live."""
    config = config_of(clock=clock, timeout=TIMEOUT)
    before = len(memory)
    living = (TIMEOUT + GRACE) // 10
    for _ in range(10 * living):
        clock.now += 10
        visits(config, 1)

    assert len(memory) - before <= living * LOOKS / (LOOKS - 1) + 1


def test_those_who_come_back_stay(memory, clock):
    """A session that is used does not go, whenever it began; nor does one that may live longer than others."""
    config = config_of(clock=clock, timeout=TIMEOUT)
    busy, remembered = Browser(config), Browser(config)
    busy.write(a=1)
    request = remembered.begin()
    request.session["a"] = 2
    request.session.set_expiry(100 * TIMEOUT)
    remembered.end(request)
    for _ in range(10):
        clock.now += TIMEOUT - 1
        visits(config, LOOKS)

        assert busy.read() == {"a": 1}

    assert remembered.read() == {"a": 2}


def test_sessions_without_a_timeout_stay(memory, clock):
    """A session that never expires is not forgotten, also where it had an expiry of its own before."""
    config = config_of(clock=clock)
    forever, changed = Browser(config), Browser(config)
    forever.write(a=1)
    for seconds in (50, None):
        request = changed.begin()
        request.session["a"] = 2
        request.session.set_expiry(seconds)
        changed.end(request)
    clock.now += 10**9
    visits(config_of(clock=clock, timeout=TIMEOUT), LOOKS)
    visits(config, LOOKS)

    assert (forever.read(), changed.read()) == ({"a": 1}, {"a": 2})
    assert not config.store._expiring


def test_what_others_have_written_since_is_theirs(memory, clock):
    """A session that Beaker, or another application of this process, has written last is not ours to forget."""
    config, other = (config_of(clock=clock, timeout=timeout) for timeout in (TIMEOUT, None))
    browser, ours = Browser(config), visits(config, 1)
    browser.write(a=1)
    request = browser.begin(other)
    request.session["b"] = 2
    request.commit()
    clsmap["memory"](*ours)["session"] = "Beaker's"
    clock.now += 10**9
    visits(config, LOOKS)

    assert browser.id in memory
    assert ours <= memory.keys()


def test_what_others_have_deleted_is_gone(clock):
    """A session that another application of this process has ended is none to look after."""
    config = config_of(clock=clock, timeout=TIMEOUT)
    gone = visits(config, 1)
    other = config_of(clock=clock).store
    for session_id in gone:
        other.swap(session_id, other.read(session_id), None)
    new = visits(config, 1)

    assert config.store._expiring.keys() == new


def test_what_begins_again_is_looked_after_once(memory, clock):
    """A deleted session takes no room among those that may expire."""
    store = config_of(clock=clock).store
    for _ in range(10 * LOOKS):
        session_id = new_id()
        store.swap(session_id, None, b"a", TIMEOUT)
        store.swap(session_id, store.read(session_id), None)

    assert not store._expiring
