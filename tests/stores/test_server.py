"""The locks of stores on servers: what is not released at once is released later."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.stores import _breaker, open_store
from beaker_bridge.stores._server import LEASE
from beaker_bridge.testing.contract import PATIENCE
from tests.requests import Clock
from tests.servers.proxy import Proxy

# Real servers: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

URLS = {
    "redis": ("ext:redis", "redis://127.0.0.1:{}/0"),
    "memcached": ("ext:memcached", "127.0.0.1:{}"),
    "postgresql": ("ext:database", "postgresql+psycopg://postgres@127.0.0.1:{}/postgres"),
    "mariadb": ("ext:database", "mysql+pymysql://root@127.0.0.1:{}/test"),
}
OTHER_ID = "f" * 32
TIMEOUT = 0.3


@pytest.fixture(params=URLS)
def name(request):
    return request.param


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of circuit breakers."""
    clock = Clock()
    monkeypatch.setattr(_breaker, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def proxy(name, request):
    server = request.getfixturevalue(f"{name}_server")
    with Proxy(server.address[1] if isinstance(server.address, tuple) else server.address) as proxy:
        yield proxy


@pytest.fixture
def store(name, proxy, clock):
    """Return a store behind a proxy, that has read and written."""
    kind, url = URLS[name]
    options = {"type": kind, "url": url.format(proxy.port), "store_timeout": TIMEOUT}
    store = open_store(read_options(given(options)))
    with store.lock(OTHER_ID, PATIENCE):
        pass
    yield store
    store.close()


@pytest.fixture
def other_store(name, request):
    """Return another process's store, which is not behind the proxy."""
    store = open_store(
        read_options(given({"type": URLS[name][0], "url": request.getfixturevalue(f"{name}_server").url}))
    )
    yield store
    store.close()


@pytest.fixture
def session_id():
    return secrets.token_hex(16)


def is_free(store, session_id):
    """Say whether a lock can be had at once."""
    try:
        with store.lock(session_id, 0.01):
            return True
    except SessionConflictError:
        return False


@pytest.mark.parametrize("losses", [1, 2])
def test_a_connection_that_breaks_at_the_release(store, other_store, proxy, session_id, losses):
    """One broken connection, or one more on the way, keeps no lock: the release is tried again at once."""
    with store.lock(session_id, PATIENCE):
        proxy.lose_next_answer(times=losses)

    assert is_free(other_store, session_id)


@pytest.mark.parametrize("use", ["read", "logout"])
def test_a_server_that_is_away_at_the_release(store, other_store, proxy, clock, session_id, use, caplog):
    """The lock is released as soon as the server answers the process again, whatever that asks it for."""
    with store.lock(session_id, PATIENCE):
        proxy.fall_silent()
        proxy.cut()
    while_away = is_free(other_store, session_id)
    proxy.speak()
    proxy.cut()
    clock.now += _breaker.PAUSE
    if use == "read":
        store.read(OTHER_ID)
    else:
        store.bypass_breaker(OTHER_ID)

    assert not while_away
    assert is_free(other_store, session_id)
    assert "the lock that it holds for a session is released later" in caplog.text


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_lock_whose_answer_was_lost(store, other_store, proxy, clock, session_id, after):
    """A lock that is the server's, and that nobody knows to have been taken, is released as well."""
    proxy.lose_next_answer(times=4, after=after)
    with suppress(SessionStoreError), store.lock(session_id, PATIENCE):
        pass
    proxy.lose_next_answer(times=0)
    clock.now += _breaker.PAUSE
    store.read(OTHER_ID)

    assert is_free(other_store, session_id)


@contextmanager
def refusing(server, table):
    """Have a MariaDB refuse every deletion."""
    with server.client() as client, client.cursor() as cursor:
        cursor.execute(
            f"CREATE TRIGGER {table} BEFORE DELETE ON {table} FOR EACH ROW"
            " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not now'"
        )
        yield
        cursor.execute(f"DROP TRIGGER {table}")


def test_a_release_that_is_refused(mariadb_server, session_id, caplog):
    """The next lock of the process tries again; what has ended by itself meanwhile is not tried any more."""
    table = f"refusing_{secrets.token_hex(4)}"
    options = {"type": "ext:database", "url": mariadb_server.url, "table_name": table}
    store, other_store = (open_store(read_options(given(options))) for _ in range(2))
    store.read(OTHER_ID)
    with refusing(mariadb_server, table):
        with store.lock(session_id, PATIENCE):
            pass
        held = not is_free(other_store, session_id)
        still_held = is_free(store, OTHER_ID) and not is_free(other_store, session_id)

    assert held
    assert still_held
    assert is_free(store, "e" * 32)
    assert is_free(other_store, session_id)
    assert "not now" in caplog.text

    with refusing(mariadb_server, table), store.lock(session_id, PATIENCE):
        pass
    store.monotonic = lambda: time.monotonic() + LEASE + 5 * PATIENCE

    assert not is_free(store, session_id)
