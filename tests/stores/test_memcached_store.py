"""Memcached sessions: the store contract on a real memcached, and what only this store does."""

from __future__ import annotations

import os
import pickle
import secrets
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import memcache
import pytest

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError, SessionTooLargeError, SettingsError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.stores import _breaker, open_store
from beaker_bridge.stores._memcached_client import MemcachedServer
from beaker_bridge.testing.contract import KIB, PATIENCE, BeakerStoreContract, text, together
from tests.forks import as_child
from tests.servers import free_port
from tests.servers.memcached import Memcached, MemcachedOnSocket
from tests.servers.proxy import Proxy

MONTH = 30 * 24 * 60 * 60
ID = "0123456789abcdef" * 2
KEY = f"{ID}_session"
LOCK = f"{ID}_lock"


@pytest.fixture(scope="module")
def server_on_socket(memcached_server, tmp_path_factory):
    """Return a memcached on a Unix socket. (Where none is installed, the shared one skips the tests.)"""
    with MemcachedOnSocket(tmp_path_factory.mktemp("memcached")) as server:
        yield server


@pytest.fixture(scope="module")
def second_server(memcached_server, tmp_path_factory):
    """Return a second memcached."""
    with Memcached(tmp_path_factory.mktemp("memcached")) as server:
        yield server


class TestMemcachedStore(BeakerStoreContract):
    """``type = ext:memcached``."""

    lists_ids = False
    text_only = True

    @pytest.fixture
    def options(self, memcached_server):
        return {"type": "ext:memcached", "url": memcached_server.url}

    @pytest.fixture
    def unreachable(self):
        return {"type": "ext:memcached", "url": f"127.0.0.1:{free_port()}"}


class TestMemcachedOnSocket(TestMemcachedStore):
    """The same on a Unix socket."""

    @pytest.fixture
    def options(self, server_on_socket):
        return {"type": "ext:memcached", "url": server_on_socket.url}


class TestSeveralServers(TestMemcachedStore):
    """The same on two servers."""

    @pytest.fixture
    def options(self, memcached_server, second_server):
        return {"type": "ext:memcached", "url": f"{memcached_server.url};{second_server.url}"}

    def test_a_key_is_where_python_memcached_has_it(self, store, options, memcached_server, second_server):
        """Each key is on the server on which Beaker's client looks for it, and both servers are used."""
        ids = [secrets.token_hex(16) for _ in range(40)]
        before = [int(server.stats()["curr_items"]) for server in (memcached_server, second_server)]
        for session_id in ids:
            store.swap(session_id, None, session_id.encode("ascii"))
        client = memcache.Client(options["url"].split(";"))
        found = {session_id: client.get(f"{session_id}_session") for session_id in ids}
        client.disconnect_all()
        after = [int(server.stats()["curr_items"]) for server in (memcached_server, second_server)]

        assert found == {session_id: session_id for session_id in ids}
        assert all(now > then for now, then in zip(after, before, strict=True))

    def test_a_dead_server_is_not_replaced_by_another(self, options, memcached_server, tmp_path):
        """The sessions of a dead server are an error, never absent, and the others' are served."""
        with Memcached(tmp_path) as dying:
            store = opened(f"{memcached_server.url};{dying.url}")
            ids = [secrets.token_hex(16) for _ in range(40)]
            for session_id in ids:
                store.swap(session_id, None, b"x")
            dying.kill()
            outcomes = [_outcome(store, session_id) for session_id in ids]

        assert set(outcomes) == {"served", "refused"}


def opened(url, **options):
    """Return a store."""
    return open_store(read_options(given({"type": "ext:memcached", "url": url, "store_timeout": 10, **options})))


def _outcome(store, session_id) -> str:
    try:
        return "served" if store.read(session_id) else "absent"
    except SessionStoreError:
        return "refused"


@pytest.fixture
def server(memcached_server, tmp_path):
    """Return a memcached of the test's own, which it may kill."""
    with Memcached(tmp_path) as server:
        yield server


@pytest.fixture
def store(server):
    """Return a store on it."""
    return opened(server.url)


@pytest.fixture
def proxy(server):
    """Return a proxy before it."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def distant(proxy):
    """Return a store behind the proxy."""
    return opened(f"127.0.0.1:{proxy.port}")


# -- What it costs -----------------------------------------------------------------------------------


def test_a_write_is_two_round_trips(proxy, distant):
    """An uncontended write is one question for its read and one for its swap, on one connection."""
    distant.swap(ID, None, text())
    before = proxy.asked
    swap = distant.swap(ID, distant.read(ID), text())

    assert swap.made
    assert proxy.asked - before == 2
    assert proxy.connections == 1


# -- Expiry ------------------------------------------------------------------------------------------


#: Seconds by which memcached's own clock, which ticks once a second, may be behind ours.
TICK = 1


@pytest.mark.parametrize(
    ("expires_in", "least", "most"),
    [
        (None, -1, -1),
        (-5.0, 0, 1),
        (90.5, 60, 91),
        (MONTH, MONTH - 60, MONTH),
        # memcached would take it for a date in January 1970.
        (40 * MONTH, 40 * MONTH - 60, 40 * MONTH),
        # It would refuse a time that 32 bits do not hold.
        (0x7FFFFFFF, -1, -1),
    ],
)
def test_the_server_forgets_a_record(server, store, expires_in, least, most):
    """A record is kept as long as was asked for, also for more than thirty days."""
    inserted = store.swap(ID, None, b"first", expires_in)
    if expires_in is None or expires_in > 1:
        assert least <= server.left(KEY) <= most + TICK

        store.swap(ID, inserted.found, b"second", expires_in)

    assert least <= server.left(KEY) <= most + TICK


# -- What the server refuses -------------------------------------------------------------------------


def test_a_record_over_the_servers_item_size_is_refused(store):
    """A record that the server cannot hold is a SessionTooLargeError, and the one before it still stands."""
    small = store.swap(ID, None, b"small").found
    with pytest.raises(SessionTooLargeError) as refused:
        store.swap(ID, store.read(ID), b"x" * 2048 * KIB)

    assert refused.value.name == "ext:memcached"
    assert refused.value.value == 2048 * KIB
    assert store.read(ID).raw == small.raw


def test_a_full_server_is_an_error(tmp_path, memcached_server):
    """A server that has no room and may not throw anything away refuses the work, which is no size's fault."""
    with Memcached(tmp_path, "-M", "-m", "2") as server:
        store = opened(server.url)

        def fill():
            for _ in range(1000):
                store.swap(secrets.token_hex(16), None, text(60 * KIB))

        with pytest.raises(SessionStoreError, match="memcached refuses add: RefusedError: SERVER_ERROR out of memory"):
            fill()

        assert store.read(ID) is None


# -- A server that fails -----------------------------------------------------------------------------


def test_a_dead_server_is_an_error(server, store):
    """A server that cannot be reached is a SessionStoreError that says why, for each operation."""
    record = store.swap(ID, None, b"x").found
    server.kill()
    for operation in (lambda: store.read(ID), lambda: store.swap(ID, record, b"y"), lambda: store.swap(ID, None, None)):
        with pytest.raises(SessionStoreError) as refused:
            operation()

        assert refused.value.name == "ext:memcached"
        assert isinstance(refused.value.original, ConnectionError)

    with pytest.raises(SessionStoreError), store.lock(ID, PATIENCE):
        pytest.fail("the lock of a dead server was had")


def test_a_restart_is_no_error(server, store):
    """Connections that a restart has closed are not the next request's fault; the sessions are gone."""
    store.swap(ID, None, b"x")
    server.stop()
    server.start()

    assert store.read(ID) is None
    assert store.swap(ID, None, b"y").made


def test_a_server_that_hangs_is_an_error(server, monkeypatch):
    """A server that does not answer in time is a SessionStoreError, and its late answer is nobody's."""
    monkeypatch.setattr(_breaker, "PAUSE", 0)
    store = opened(server.url, store_timeout=0.2)
    store.swap(ID, None, b"mine")
    server.freeze()
    for _ in range(2):
        with pytest.raises(SessionStoreError) as refused:
            store.read(ID)

        assert isinstance(refused.value.original, TimeoutError)

    server.thaw()
    store._servers[0]._timeout = PATIENCE

    assert store.read("f" * 32) is None
    assert store.read(ID).raw == b"mine"


def test_time_that_is_over_is_an_error(server):
    """An operation that has no time left does not begin."""
    store = opened(server.url, store_timeout=1e-9)
    with pytest.raises(SessionStoreError) as refused:
        store.read(ID)

    assert isinstance(refused.value.original, TimeoutError)


def test_a_server_that_accepts_nobody_is_an_error(tmp_path):
    """A Unix socket that is missing is a SessionStoreError."""
    with pytest.raises(SessionStoreError):
        opened(f"unix:{tmp_path}/missing").read(ID)


@pytest.mark.parametrize(("stands", "new"), [(None, b"new"), (b"old", b"new"), (b"old", None)])
def test_an_answer_that_was_lost_does_not_undo_the_write(server, proxy, distant, stands, new):
    """A write whose answer did not come is repeated, and finds itself: it is made, once."""
    if stands:
        opened(server.url).swap(ID, None, stands)
    record = distant.read(ID)
    proxy.lose_next_answer()
    swap = distant.swap(ID, record, new)
    found = opened(server.url).read(ID)

    assert proxy.connections == 2
    assert swap.made
    assert (swap.found and swap.found.raw) == (found and found.raw) == new


def test_an_answer_that_breaks_off_is_an_error(proxy, distant, monkeypatch):
    """Half an answer is a SessionStoreError, not a shorter session, and the connection is not used again."""
    monkeypatch.setattr(_breaker, "PAUSE", 0)
    distant.swap(ID, None, b"whole")
    for passing in (3, 60):
        proxy.lose_next_answer(passing)
        with pytest.raises(SessionStoreError):
            distant.read(ID)

        assert distant.read(ID).raw == b"whole"


@contextmanager
def speaking(answer: bytes):
    """Run something that is no memcached, and answers everything alike."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve():
            with suppress(OSError):
                while True:
                    connection, _address = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        pool.submit(serve)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # Closing alone would not wake the thread.
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"ERROR\r\n",
        b"CLIENT_ERROR line too long\r\n",
        f"VALUE {'f' * 32}_session 16 4 1\r\nsafe\r\nEND\r\n".encode("ascii"),
        f"VALUE {KEY} 16 4 1\r\nsafe\r\nVALUE another 0 0 1\r\n\r\nEND\r\n".encode("ascii"),
        f"VALUE {KEY} 16 4 1\r\nsafe\r\nEND\r\nEND\r\n".encode("ascii"),
    ],
)
def test_an_answer_that_is_none_is_an_error(answer):
    """What memcached does not say is a SessionStoreError: no session, and never another one's."""
    with speaking(answer) as url:
        store = opened(url)
        with pytest.raises(SessionStoreError) as refused:
            store.read(ID)
        with pytest.raises(SessionStoreError):
            store.swap(ID, None, b"x")

    assert "safe" not in str(refused.value)


# -- What others have stored -------------------------------------------------------------------------


class Trap:
    """An object that tells when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_nothing_is_unpickled(server, store):
    """A pickle that somebody put into the store is bytes to us."""
    client = memcache.Client([server.url])
    client.set(KEY, Trap())
    client.disconnect_all()
    raw = store.read(ID).raw

    assert not Trap.sprung

    pickle.loads(raw)

    assert Trap.sprung


@pytest.mark.parametrize(("stored", "read"), [(zlib.compress(b"plain" * 99), b"plain" * 99), (b"plain", b"plain")])
def test_what_another_client_compressed_is_read(server, store, stored, read):
    """A value under bmemcached's flag for compressed ones is read, and can be swapped."""
    answer = server.ask(f"set {KEY} 8 0 {len(stored)}\r\n{stored.decode('latin-1')}", "STORED")
    record = store.read(ID)

    assert answer == "STORED\r\n"
    assert record.raw == read
    assert store.swap(ID, record, b"ours").made


# -- The lock ----------------------------------------------------------------------------------------


def test_the_lock_ends_by_itself(server, store):
    """The lock of a process that was killed is had again after half a minute, longer where waits are longer."""
    with store.lock(ID, 2):
        assert 20 <= server.left(LOCK) <= 30
    with store.lock(ID, 10):
        assert 40 <= server.left(LOCK) <= 50


def test_a_lock_that_ended_is_not_taken_from_the_next_holder(server, store):
    """Who held a lock for too long does not release the one of who has it now."""
    other = opened(server.url)
    third = opened(server.url)
    with ExitStack() as next_holder:
        with store.lock(ID, PATIENCE):
            server.ask(f"delete {LOCK}", "DELETED")
            next_holder.enter_context(other.lock(ID, PATIENCE))

        assert server.left(LOCK) > 0
        with pytest.raises(SessionConflictError), third.lock(ID, 0.01):
            pytest.fail("the lock was had twice")


def test_the_threads_of_a_process_wait_without_the_server(proxy, distant):
    """While one thread has the lock, the others of its process ask the server nothing."""

    def wait():
        with pytest.raises(SessionConflictError), distant.lock(ID, 0.1):
            pytest.fail("the lock was had twice")

    with distant.lock(ID, PATIENCE):
        before = proxy.asked
        together(wait, wait)

        assert proxy.asked == before


def test_a_lock_that_cannot_be_released_is_no_error(server, store, caplog):
    """What was done under a lock is done, though the server died before its release; the log says so."""
    with store.lock(ID, PATIENCE):
        server.kill()

    assert "the lock that it holds for a session is released later" in caplog.text


# -- Processes ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # other tests' threads
def test_a_forked_child_has_connections_of_its_own(server, store):
    """Parent and child do not read each other's answers."""
    store.swap(ID, None, b"parent")
    before = int(server.stats()["total_connections"])
    child = os.fork()
    if not child:
        done = store.read(ID).raw == b"parent" and store.swap("f" * 32, None, b"child").made
        os._exit(0 if done else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.read(ID).raw == b"parent"
    # The child's one, and the one that asks for the number.
    assert int(server.stats()["total_connections"]) - before == 2


def test_what_a_forked_child_forgets(server, proxy, distant):
    """A forked child has no connection of before, and waits for no thread of its parent's."""
    distant.swap(ID, None, b"x")
    with distant.lock(ID, PATIENCE), as_child():
        assert distant.read(ID).raw == b"x"
        assert proxy.connections == 2
        with pytest.raises(SessionConflictError), distant.lock(ID, 0.01):
            pytest.fail("the lock was had twice")
        server.ask(f"delete {LOCK}", "DELETED")
        with distant.lock(ID, 0.01):
            pass


def test_a_closed_store_opens_new_connections(proxy, distant):
    """A store that was closed has no connection left; a later use opens one."""
    distant.swap(ID, None, b"x")
    distant.close()

    assert distant.read(ID).raw == b"x"
    assert proxy.connections == 2


# -- Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "family", "place"),
    [
        ("host", socket.AF_INET, ("host", 11211)),
        ("host:11311", socket.AF_INET, ("host", 11311)),
        ("inet:10.0.0.1:1", socket.AF_INET, ("10.0.0.1", 1)),
        ("inet6:[::1]", socket.AF_INET6, ("::1", 11211)),
        ("inet6:[::1]:1", socket.AF_INET6, ("::1", 1)),
        ("unix:/run/memcached.sock", socket.AF_UNIX, "/run/memcached.sock"),
    ],
)
def test_an_address_is_read_as_python_memcached_reads_it(address, family, place):
    """Each form of an address leads where Beaker's client goes."""
    host = memcache._Host(address)
    server = MemcachedServer(address, 1)

    assert (server._family, server._address) == (family, place) == (host.family, host.address)


@pytest.mark.parametrize(
    "url", ["host:port", "one;;two", "unix:", "[::1]:11211", "http://host/", "host:65536", 11211, "me:private"]
)
def test_an_address_that_is_none_stops_the_start(url):
    """What cannot be an address is told at start."""
    with pytest.raises(SettingsError, match="url must be a list of memcached's addresses") as refused:
        opened(url)

    assert refused.value.name == "url"
    assert str(refused.value).endswith("with semicolons between them")


def test_beakers_choice_of_a_client_is_accepted(server):
    """``memcache_module`` may stand in the settings, to no effect; white space in a list does no harm."""
    store = opened(f" {server.url} ; {server.url} ", memcache_module="bmemcached")

    assert store.swap(ID, None, b"x").made
