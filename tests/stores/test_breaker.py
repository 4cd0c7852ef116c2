"""The circuit breaker: a server that could not be reached is left alone, and then probed by one caller."""

from __future__ import annotations

import gc
import os
import secrets
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
import redis
import sqlalchemy as sa
from pymysql.converters import escape_item
from webtest import TestApp

from beaker_bridge.events import BreakerClosed, BreakerOpened, StoreEvent, StoreFailed
from beaker_bridge.exceptions import SessionStoreError, SessionTooLargeError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.stores import _breaker, _server, open_store
from beaker_bridge.stores._breaker import PAUSE, CircuitBreaker, ConnectionLostError, ServerUnavailableError
from beaker_bridge.testing.contract import PATIENCE, together
from tests import machine
from tests.installations import INSTALLATIONS, SECRET, Views, install
from tests.requests import Clock, wait_for_events
from tests.servers import free_port, wait_until
from tests.servers.proxy import Proxy

# Real servers: what the interpreter adds does not differ.
pytestmark = [
    pytest.mark.once,
    # PyMySQL leaves a Unix socket behind that it could not connect.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket .* family=1:ResourceWarning"),
]

ID = "0123456789abcdef" * 2


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of circuit breakers; waits for locks go by it, too."""
    clock = Clock()
    for module in (_breaker, _server):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    return clock


class Asked:
    """What asks a server: it fails as long as it is told to, and counts how often it was asked."""

    def __init__(self, failure=None):
        self.failure = failure
        self.count = 0

    def __call__(self, *arguments):
        self.count += 1
        if self.failure is not None:
            raise self.failure
        return arguments

    def probe(self):
        """Ask by a statement of our own."""
        return self()


def well():
    """Answer a probe."""


def away(error_class=ServerUnavailableError, original=None):
    return error_class("no store", name="ext:test", original=original or OSError("refused"))


def refused(step):
    with pytest.raises(SessionStoreError) as raised:
        step()
    return raised.value


# -- The pause ---------------------------------------------------------------------------------------


def test_a_server_that_is_well_is_asked(clock):
    """Without a failure every call asks, and has the answer."""
    breaker, step = CircuitBreaker(0.3), Asked()

    assert [breaker.call(step.probe, step, 1, 2), breaker.call(step.probe, step)] == [(1, 2), ()]
    assert step.count == 2


def test_a_server_that_is_away_is_left_alone(clock):
    """After a failure nobody asks until the pause is over; the error says so, and has the original one."""
    breaker, step = CircuitBreaker(0.3), Asked(away())
    first = refused(lambda: breaker.call(step.probe, step))
    clock.now += 0.99 * PAUSE
    second = refused(lambda: breaker.call(step.probe, step))

    assert step.count == 1
    assert first is step.failure
    assert str(second) == f"no store; it is left alone for up to {PAUSE} s after a failure"
    assert (second.name, repr(second.original)) == ("ext:test", "OSError('refused')")


def test_after_the_pause_the_server_is_asked_again(clock):
    """When the pause is over the next call asks; with its answer the pause has ended for all."""
    breaker, step = CircuitBreaker(0.3), Asked(away())
    refused(lambda: breaker.call(step.probe, step))
    step.failure = None
    clock.now += PAUSE

    assert [breaker.call(step.probe, step) for _ in range(3)] == [()] * 3


def test_a_failure_after_the_pause_begins_another(clock):
    """Who finds the server still away begins a new pause."""
    breaker, step = CircuitBreaker(0.3), Asked(away())
    for _ in range(3):
        refused(lambda: breaker.call(step.probe, step))
        refused(lambda: breaker.call(step.probe, step))
        clock.now += PAUSE

    assert step.count == 3


def test_one_finds_out(clock):
    """While one call finds out whether the server is back, the others do not ask, and do not wait."""
    breaker, step = CircuitBreaker(0.3), Asked(away())
    refused(lambda: breaker.call(step.probe, step))
    clock.now += PAUSE
    asking, answered = threading.Event(), threading.Event()

    def probe():
        asking.set()
        answered.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(breaker.call, probe, lambda: "back")
        asking.wait(PATIENCE)
        clock.now += 10 * PAUSE
        errors = together(*[lambda: refused(lambda: breaker.call(step.probe, step))] * 8)
        answered.set()

        assert answer.result(PATIENCE) == "back"

    assert (step.count, len(errors)) == (1, 8)


def test_those_who_find_out_at_once_are_one(clock):
    """Of many calls at the end of a pause one asks, in each round."""
    breaker, step = CircuitBreaker(0.3), Asked(away())
    refused(lambda: breaker.call(step.probe, step))
    counts = []
    for _ in range(50):
        clock.now += PAUSE
        together(*[lambda: refused(lambda: breaker.call(step.probe, step))] * 8)
        counts.append(step.count)

    assert counts == list(range(2, 52))


@pytest.mark.parametrize("error", [SessionStoreError("read only"), ValueError(), KeyboardInterrupt()])
def test_what_is_no_failure_to_reach_it_begins_no_pause(clock, error):
    """An answer that refuses, and an error of another kind, leave the server asked; also after a pause."""
    breaker, step = CircuitBreaker(0.3), Asked(error)
    for _ in range(2):
        with pytest.raises(type(error)):
            breaker.call(well, step)
    refused(lambda: breaker.call(well, Asked(away())))
    clock.now += PAUSE
    for _ in range(2):
        with pytest.raises(type(error)):
            breaker.call(well, step)

    assert step.count == 4


def test_a_probe_that_is_refused_is_an_answer(clock):
    """A server that refuses our own statement, for a missing right say, is there: the pause has ended."""
    breaker, step = CircuitBreaker(0.3), Asked()
    refused(lambda: breaker.call(well, Asked(away())))
    clock.now += PAUSE

    assert breaker.call(Asked(SessionStoreError("no right")), step, 1) == (1,)


def test_a_statement_that_broke_is_nobody_elses_matter(clock):
    """After a statement that broke the next call finds out by a probe, and goes on; however often one breaks."""
    breaker, probe, step, hostile = CircuitBreaker(0.3), Asked(), Asked(), Asked(away(ConnectionLostError))
    for _ in range(3):
        refused(lambda: breaker.call(probe, hostile))
        breaker.call(probe, step)
        breaker.call(probe, step)

    assert (probe.count, step.count) == (3, 6)


def test_a_statement_that_broke_and_a_server_that_is_away(clock):
    """Where the probe fails as well, the pause begins, for those too who have waited for its outcome."""
    breaker, step, hostile = CircuitBreaker(0.3), Asked(), Asked(away(ConnectionLostError))
    refused(lambda: breaker.call(well, hostile))
    probe = Asked(away())
    errors = together(*[lambda: refused(lambda: breaker.call(probe, step))] * 4)

    assert (probe.count, step.count) == (1, 0)
    assert sorted("left alone" in str(error) for error in errors) == [False, True, True, True]


def test_who_waits_for_the_outcome_of_a_probe(clock):
    """In doubt the others wait for the one who finds out, and go on; not for long, where there is no answer."""
    breaker, step = CircuitBreaker(0.3), Asked()
    refused(lambda: breaker.call(well, Asked(away(ConnectionLostError))))
    asking, over = threading.Event(), threading.Event()

    def probe():
        asking.set()
        over.wait(PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(breaker.call, probe, step)
        asking.wait(PATIENCE)
        impatient = refused(lambda: breaker.call(probe, step))
        second = pool.submit(breaker.call, well, step)
        over.set()

        assert "left alone" in str(impatient)
        assert (first.result(PATIENCE), second.result(PATIENCE)) == ((), ())


def test_a_late_failure_says_nothing_about_a_server_that_is_back(clock):
    """A call that began before the server was back, and fails after it, begins no pause."""
    breaker, step = CircuitBreaker(0.3), Asked(away())
    asking, over = threading.Event(), threading.Event()

    def hang():
        asking.set()
        over.wait(PATIENCE)
        raise away()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(breaker.call, well, hang)
        asking.wait(PATIENCE)
        refused(lambda: breaker.call(step.probe, step))
        clock.now += PAUSE
        step.failure = None
        breaker.call(step.probe, step)
        over.set()
        with pytest.raises(ServerUnavailableError):
            late.result(PATIENCE)

    assert breaker.call(step.probe, step) == ()


def test_a_second_failure_does_not_prolong_the_pause(clock):
    """Of calls that fail one after the other the first one begins the pause, and it ends for all at its time."""
    breaker, step = CircuitBreaker(0.3), Asked(away())

    def fail_later():
        refused(lambda: breaker.call(step.probe, step))
        clock.now += PAUSE / 2
        raise away()

    refused(lambda: breaker.call(well, fail_later))
    clock.now += PAUSE / 2
    step.failure = None

    assert breaker.call(step.probe, step) == ()


def test_a_bypass_probes_in_any_case(clock):
    """A bypass probes an open breaker, and closes it for all if the server answers; a closed one needs no probe."""
    breaker, probe, step = CircuitBreaker(0.3), Asked(away()), Asked()
    breaker.bypass(probe)
    refused(lambda: breaker.call(well, Asked(away())))
    refused(lambda: breaker.bypass(probe))
    refused(lambda: breaker.call(probe, step))

    assert (probe.count, step.count) == (1, 0)

    probe.failure = None
    breaker.bypass(probe)

    assert breaker.call(probe, step) == ()
    assert (probe.count, step.count) == (2, 1)


# -- On real servers ---------------------------------------------------------------------------------


def opened(**options):
    return open_store(read_options(given({"store_timeout": 0.2, **options})))


REDIS = {"type": "ext:redis"}
SERVERS = {
    "redis": ("Redis", lambda server: {**REDIS, "url": server.url}),
    "redis, a client": ("Redis", lambda server: {**REDIS, "url": redis.Redis.from_url(server.url)}),
    "memcached": ("Memcached", lambda server: {"type": "ext:memcached", "url": server.url}),
    "postgresql": ("PostgreSQL", lambda server: {"type": "ext:database", "url": server.url}),
    "mariadb": ("MariaDB", lambda server: {"type": "ext:database", "url": server.url}),
    "mariadb, an engine": ("MariaDB", lambda server: {"type": "ext:database", "url": sa.create_engine(server.url)}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_store_whose_server_is_down(start_server, clock, name):
    """Reads, swaps and locks fail at once in a pause, also when the server is back; then they do their work."""
    program, options = SERVERS[name]
    server = start_server(name.partition(",")[0], program)
    options = options(server)
    store = opened(**options)
    new = store.envelope.wrap(b"text")
    store.read(ID)
    server.stop()
    # The first connection may only have been broken by a restart.
    errors = [refused(lambda: store.read(ID)) for _ in range(2)]
    server.start()
    during = [
        refused(use)
        for use in (
            lambda: store.read(ID),
            lambda: store.swap(ID, None, new),
            lambda: store.lock(ID, PATIENCE).__enter__(),
        )
    ]
    clock.now += PAUSE
    found = store.read(ID)
    made = store.swap(ID, None, new).made
    with store.lock(ID, PATIENCE):
        pass

    assert "left alone" not in str(errors[0])
    assert all("left alone" in str(error) for error in during)
    assert {repr(error.original) for error in during} == {repr(errors[-1].original)}
    assert (found, made) == (None, True)

    store.close()
    # The application's own.
    getattr(options["url"], "close", getattr(options["url"], "dispose", str))()


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("ext:redis", "redis://127.0.0.1:{}"),
        ("ext:memcached", "127.0.0.1:{}"),
        ("ext:database", "postgresql+psycopg://me@127.0.0.1:{}/sessions"),
    ],
)
def test_a_bypass_asks_the_server_itself(clock, kind, address):
    """In a pause a bypass asks the server, and fails with its own error, where other calls are left alone."""
    store = opened(type=kind, url=address.format(free_port()))
    for _ in range(2):
        refused(lambda: store.read(ID))
    calls = [lambda: store.read(ID), lambda: store.bypass_breaker(ID)]

    assert ["left alone" in str(refused(call)) for call in calls] == [True, False]

    store.close()


# -- One user's session, and ten others --------------------------------------------------------------

MEBIBYTE = 1 << 20


def refused_by_redis(_request, start_server):
    """Have a Redis refuse what is large."""
    server = start_server("redis", "Redis", "--proto-max-bulk-len", str(MEBIBYTE))
    return {**REDIS, "url": server.url}, b"x" * 2 * MEBIBYTE


def refused_by_memcached(request, _start_server):
    """Have a memcached refuse what is large."""
    return {"type": "ext:memcached", "url": request.getfixturevalue("memcached_server").url}, b"x" * 2 * MEBIBYTE


def refused_by_mariadb(request, _start_server, *, told=True, letter=b"'"):
    """Have a MariaDB refuse a statement for its size, in which the record alone would have room."""
    server, name = request.getfixturevalue("mariadb_server"), f"large_{secrets.token_hex(4)}"
    options = {"type": "ext:database", "url": server.url, "table_name": name, "store_timeout": 1}
    store = opened(**options)
    store.read(ID)
    with server.client() as client, client.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} MODIFY data LONGBLOB NOT NULL")
        cursor.execute("SELECT @@global.max_allowed_packet")
        before = cursor.fetchone()[0]
        request.addfinalizer(lambda: execute(server, f"SET GLOBAL max_allowed_packet = {before}"))
    store.close()
    store = opened(**options)
    if told:
        execute(server, f"SET GLOBAL max_allowed_packet = {MEBIBYTE}")
    store.read(ID)
    if not told:
        # Lowered while the site runs: it counts for new connections.
        execute(server, f"SET GLOBAL max_allowed_packet = {MEBIBYTE}")
        store.close()
    return store, letter * (MEBIBYTE * 6 // 10)


def refused_by_mariadb_by_surprise(request, start_server):
    """Have a MariaDB whose limit was lowered since we have read it."""
    return refused_by_mariadb(request, start_server, told=False)


def refused_by_mariadb_for_its_digits(request, start_server):
    """Have a MariaDB refuse a statement in which the driver has written two digits for each byte, and escaped none."""
    if "61" not in escape_item(b"a", "utf8mb4"):
        raise machine.MissingError("digits for bytes", "a newer PyMySQL", everywhere=False)
    return refused_by_mariadb(request, start_server, letter=b"a")


def execute(server, statement):
    """Execute a statement on a connection of the test's own."""
    with server.client() as client, client.cursor() as cursor:
        cursor.execute(statement)


def behind_a_slow_link(name, url):
    """Return what has a server at the end of a link that does not carry what is large in time."""

    def begin(request, _start_server):
        server = request.getfixturevalue(f"{name}_server")
        proxy = Proxy(server.address[1] if isinstance(server.address, tuple) else server.address)
        proxy.__enter__()
        request.addfinalizer(proxy.__exit__)
        proxy.swallow_large(8192)
        kind = name if name in ("redis", "memcached") else "database"
        return {"type": f"ext:{kind}", "url": url.format(proxy.port)}, secrets.token_bytes(60_000)

    return begin


def locked(name):
    """Return what holds the row of one session in a database."""

    def begin(request, _start_server):
        server = request.getfixturevalue(f"{name}_server")
        store = opened(type="ext:database", url=server.url, store_timeout=1)
        store.swap(HOSTILE, None, b"x")
        client = server.client()
        request.addfinalizer(client.close)
        cursor = client.cursor()
        # MariaDB would lock the places of new rows as well.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE beaker_cache SET accessed = created WHERE namespace = '{HOSTILE}'")
        cursor.execute(f"UPDATE beaker_cache SET data = 'y' WHERE namespace = '{HOSTILE}'")
        return store, b"z"

    return begin


HOSTILE = "e" * 32
HOW = {
    "redis, too large": refused_by_redis,
    "memcached, too large": refused_by_memcached,
    "mariadb, too large": refused_by_mariadb,
    "mariadb, too large since": refused_by_mariadb_by_surprise,
    "mariadb, too large as digits": refused_by_mariadb_for_its_digits,
    "redis, a slow link": behind_a_slow_link("redis", "redis://127.0.0.1:{}/0"),
    "memcached, a slow link": behind_a_slow_link("memcached", "127.0.0.1:{}"),
    "postgresql, a slow link": behind_a_slow_link("postgresql", "postgresql+psycopg://postgres@127.0.0.1:{}/postgres"),
    "mariadb, a slow link": behind_a_slow_link("mariadb", "mysql+pymysql://root@127.0.0.1:{}/test"),
    "postgresql, a locked row": locked("postgresql"),
    "mariadb, a locked row": locked("mariadb"),
}


@pytest.mark.parametrize("how", HOW)
def test_one_users_session_is_no_other_users_matter(how, request, start_server):
    """Whatever becomes of one session's record, of ten other users none notices: no read and no write fails."""
    store, large = HOW[how](request, start_server)
    if isinstance(store, dict):
        store = opened(**store, store_timeout=1)
    ids = [secrets.token_hex(16) for _ in range(10)]
    for session_id in ids:
        store.swap(session_id, None, b"0")
    stands = store.read(HOSTILE)
    errors = []

    def hostile():
        with pytest.raises((SessionStoreError, SessionTooLargeError)) as raised:
            store.swap(HOSTILE, stands, large)
        errors.append(raised.type)

    def serve(session_id):
        record = store.read(session_id)
        return store.swap(session_id, record, b"%d" % (int(record.raw) + 1)).made

    others = [partial(serve, session_id) for session_id in ids]
    meanwhile = together(hostile, *others)[1:]
    # These are the first after the failure.
    after = together(*others)

    assert meanwhile + after == [True] * 20
    assert [error is SessionTooLargeError for error in errors] == ["too large" in how]

    store.close()


def test_what_is_remembered_of_a_failure_keeps_nothing_alive(clock):
    """Of a call that failed no frame is kept, nor what its client adds to the error: sockets, and requests."""
    breaker, kept = CircuitBreaker(0.3), []

    def fail():
        in_frame, added = Asked(), Asked()
        kept.extend(map(weakref.ref, (in_frame, added)))
        failure = away(original=redis.ConnectionError("refused"))
        failure.original.connection = added
        raise failure

    refused(lambda: breaker.call(well, fail))
    gc.collect()

    assert [reference() for reference in kept] == [None, None]


class PeculiarError(Exception):
    """An error that cannot be made from its arguments alone."""

    def __init__(self, text, *, code):
        super().__init__(text)


def test_an_error_that_cannot_be_remembered(clock):
    """A client's error of a peculiar kind does no harm: during a pause its text is there."""
    breaker, step = CircuitBreaker(0.3), Asked(away(original=PeculiarError("refused", code=1)))
    first = refused(lambda: breaker.call(well, step))
    second = refused(lambda: breaker.call(well, step))

    assert isinstance(first.original, PeculiarError)
    assert (str(second).partition(";")[0], second.original) == ("no store", None)


def test_an_engine_of_the_applications_whose_connections_broke(start_server, clock):
    """Idle connections that a restart has broken are replaced, also where SQLAlchemy prepares them first."""
    server = start_server("mariadb", "MariaDB")
    engine = sa.create_engine(server.url, pool_size=4)
    store = opened(type="ext:database", url=engine)
    connections = [engine.connect() for _ in range(4)]
    for connection in connections:
        connection.close()
    store.read(ID)
    server.stop()
    server.start()

    assert [store.read(ID) for _ in range(6)] == [None] * 6

    engine.dispose()


@pytest.mark.parametrize("name", ["redis", "memcached", "postgresql", "mariadb"])
def test_a_restart_that_nobody_noticed_begins_no_pause(start_server, clock, name):
    """Where idle connections were ended by a restart, at most one call fails, and none is told to wait."""
    program, options = SERVERS[name]
    server = start_server(name, program)
    store = opened(**options(server))
    together(*[lambda: store.read(ID)] * 4)
    server.stop()
    server.start()
    errors = [with_error(lambda: store.read(ID)) for _ in range(6)]
    failures = [str(error) for error in errors if error is not None]

    assert len(failures) <= 1
    assert not any("left alone" in failure for failure in failures)

    store.close()


def test_a_hanging_redis_costs_its_timeout_once(start_server, clock):
    """Idle connections to a Redis that hung are not tried one after the other when it is reached again."""
    server = start_server("redis", "Redis")
    with Proxy(server.port) as proxy:
        store = opened(type="ext:redis", url=f"redis://127.0.0.1:{proxy.port}/0")
        held = [store._connected().connection_pool.get_connection() for _ in range(4)]
        for connection in held:
            store._connected().connection_pool.release(connection)
        server.freeze()
        error = refused(lambda: store.read(ID))
        server.thaw()
        clock.now += PAUSE

        assert isinstance(error.original, redis.TimeoutError)
        assert [connection for connection in held if connection._sock is not None] == []
        assert store.read(ID) is None

        store.close()


def test_an_applications_client_keeps_its_connections(start_server, clock):
    """Of a client that the application has no idle connection is closed."""
    server = start_server("redis", "Redis")
    client = redis.Redis.from_url(server.url, socket_timeout=0.2)
    pool = client.connection_pool
    held = [pool.get_connection() for _ in range(2)]
    for connection in held:
        pool.release(connection)
    store = opened(type="ext:redis", url=client)
    server.freeze()
    refused(lambda: store.read(ID))
    server.thaw()

    assert [connection._sock is None for connection in held].count(True) == 1

    client.close()


@pytest.mark.parametrize(
    "command",
    [
        ("CONFIG", "SET", "maxmemory", "1"),
        ("REPLICAOF", "127.0.0.1", str(free_port())),
        ("ACL", "SETUSER", "default", "-set"),
    ],
)
def test_a_redis_that_refuses_one_command_is_not_away(start_server, clock, command):
    """Out of memory, a read-only replica, a missing right: writing fails, reading goes on."""
    server = start_server("redis", "Redis")
    store = opened(type="ext:redis", url=server.url)
    new = store.envelope.wrap(b"text")
    store.swap(ID, None, new)
    with server.client() as client:
        client.execute_command(*command)
    errors = [refused(lambda: store.swap("f" * 32, None, new)) for _ in range(2)]

    assert not any("left alone" in str(error) for error in errors)
    assert store.read(ID).raw == new

    store.close()


def test_a_memcached_that_refuses_a_key_is_not_away(memcached_server, clock):
    """An answer that is an error, or a record that is too large, begins no pause."""
    store = opened(type="ext:memcached", url=memcached_server.url)
    for session_id, new in (("f" * 300, b"x"), ("f" * 32, b"x" * 2_000_000)):
        with pytest.raises(Exception, match=r"ERROR|bytes"):
            store.swap(session_id, None, new)

    assert store.read(secrets.token_hex(16)) is None

    store.close()


def test_a_database_that_refuses_a_statement_is_not_away(postgresql_server, clock):
    """A table that may not be written to is an error each time, and reading goes on."""
    store = opened(type="ext:database", url=postgresql_server.url, table_name="read_only")
    store.swap(ID, None, b"old")
    with postgresql_server.client() as client:
        client.execute("CREATE ROLE reader LOGIN; GRANT SELECT ON read_only TO reader")
    reader = opened(
        type="ext:database",
        url=postgresql_server.url.replace("postgres@", "reader@"),
        table_name="read_only",
    )
    errors = [refused(lambda: reader.swap("f" * 32, None, b"new")) for _ in range(2)]

    assert not any("left alone" in str(error) for error in errors)
    assert reader.read(ID).raw == b"old"

    for one in (store, reader):
        one.close()


def test_a_full_pool_is_this_processs_own_matter(redis_server, clock):
    """A client whose connections are all taken says nothing about the server."""
    client = redis.Redis.from_url(redis_server.url, max_connections=1)
    store = opened(type="ext:redis", url=client)
    taken = client.connection_pool.get_connection()
    error = refused(lambda: store.read(ID))
    client.connection_pool.release(taken)

    assert "Too many connections" in str(error)
    assert store.read(ID) is None

    client.close()


def test_one_of_several_memcacheds(start_server, clock):
    """The pause is a server's own: sessions on another memcached are served meanwhile."""
    dead, alive = (start_server("memcached", "Memcached") for _ in range(2))
    store = opened(type="ext:memcached", url=f"{dead.url};{alive.url}")
    ids = [secrets.token_hex(16) for _ in range(20)]
    for session_id in ids:
        store.swap(session_id, None, b"x")
    dead.kill()
    outcomes = []
    for session_id in ids * 2:
        try:
            outcomes.append(store.read(session_id).raw)
        except SessionStoreError:
            outcomes.append(None)

    assert outcomes[:20] == outcomes[20:]
    assert set(outcomes) == {b"x", None}

    store.close()


def test_one_shard_of_a_cluster(start_server, clock):
    """The pause is a node's own: sessions on the other shards are served while one is away."""
    cluster = start_server("redis", "RedisCluster")
    store = opened(type="ext:rediscluster", urls=cluster.url, store_timeout=0.4)
    new = store.envelope.wrap(b"text")
    for node in cluster.servers:
        with node.client() as client:
            # One shard that is away does not close the others.
            client.config_set("cluster-require-full-coverage", "no")
    ids = [secrets.token_hex(16) for _ in range(30)]
    for session_id in ids:
        store.swap(session_id, None, new)
    cluster.servers[0].stop()
    for session_id in ids:
        with_error(lambda one=session_id: store.read(one))
    served = [with_error(lambda one=session_id: store.read(one)) for session_id in ids]

    assert 0 < served.count(None) < 30
    assert all(error is None or "left alone" in str(error) for error in served)

    store.close()


def with_error(step):
    try:
        step()
    except SessionStoreError as error:
        return error
    return None


def test_a_forked_process_begins_without_a_pause(redis_server, clock):
    """A child asks the server itself, whatever its parent found out, and whoever was finding out at the fork."""
    with Proxy(redis_server.port) as proxy:
        store = opened(type="ext:redis", url=f"redis://127.0.0.1:{proxy.port}/0")
        proxy.lose_next_answer(times=2)
        for _ in range(2):
            refused(lambda: store.read(ID))
        refused(lambda: store.read(ID))
        child = os.fork()
        if child == 0:
            os._exit(0 if with_error(lambda: store.read(ID)) is None else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert "left alone" in str(refused(lambda: store.read(ID)))

        store.close()


def test_a_lock_ends_when_the_server_goes(start_server, clock, caplog):
    """A lock whose server went away while it was held does not wait for that at its end."""
    server = start_server("redis", "Redis")
    store = opened(type="ext:redis", url=server.url)
    with store.lock(ID, PATIENCE):
        server.stop()
        for _ in range(2):
            refused(lambda: store.read(ID))

    assert "is released later" in caplog.text

    store.close()


def test_waiting_for_a_probe_is_nobodys(start_server, clock):
    """While one request waits for a Redis that hangs, others fail without asking it."""
    server = start_server("redis", "Redis")
    with Proxy(server.port) as proxy, ThreadPoolExecutor(1) as pool:
        store = opened(type="ext:redis", url=f"redis://127.0.0.1:{proxy.port}/0", store_timeout=PATIENCE)
        proxy.lose_next_answer(times=2)
        for _ in range(2):
            refused(lambda: store.read(ID))
        server.freeze()
        clock.now += PAUSE
        asked = proxy.asked
        probe = pool.submit(store.read, ID)
        wait_until(lambda: proxy.asked > asked)
        others = [refused(lambda: store.read(ID)) for _ in range(3)]
        asked = proxy.asked - asked
        server.thaw()

        assert probe.result(PATIENCE) is None
        assert asked == 1
        assert all("left alone" in str(error) for error in others)

        store.close()


def test_a_master_that_hangs_is_not_the_one_to_wait_for(start_server, clock):
    """Behind sentinels a request that a master did not answer begins no pause: the next one asks the new master."""
    group = start_server("redis", "RedisWithSentinels")
    store = opened(type="ext:redis", url=group.url)
    store.read(ID)
    group.master.freeze()
    hung = refused(lambda: store.read(ID))
    with ExitStack() as open_clients:
        clients = [open_clients.enter_context(sentinel.client()) for sentinel in group.sentinels]
        wait_until(
            lambda: all(client.sentinel_get_master_addr_by_name("main")[1] == group.replica.port for client in clients)
        )

    assert isinstance(hung.original, redis.TimeoutError)
    assert store.read(ID) is None

    store.close()


# -- Its events --------------------------------------------------------------------------------------


def changes(breaker_class=CircuitBreaker):
    """Return a breaker, and what it says of its changes."""
    said = []
    breaker = breaker_class(0.3, on_change=lambda failure, seconds: said.append((failure and str(failure), seconds)))
    return breaker, said


def test_each_change_is_said_once(clock):
    """A breaker that opens says so once, however long the server stays away; and once that it has closed."""
    breaker, said = changes()
    step = Asked(away())
    for _ in range(3):
        refused(lambda: breaker.call(step.probe, step))
        refused(lambda: breaker.call(step.probe, step))
        clock.now += PAUSE
    before = list(said)
    step.failure = None
    for _ in range(2):
        breaker.call(step.probe, step)

    assert before == [("no store", 0)]
    assert said[1:] == [(None, 3 * PAUSE)]


def test_a_lost_connection_alone_is_no_change(clock):
    """A connection that was lost refuses nobody: only where the probe fails as well, the breaker opens."""
    breaker, said = changes()
    step = Asked(away(ConnectionLostError))
    refused(lambda: breaker.call(well, step))
    step.failure = None
    breaker.call(well, step)
    before = list(said)
    step.failure = away(ConnectionLostError)
    refused(lambda: breaker.call(well, step))
    refused(lambda: breaker.call(step.probe, step))
    breaker.bypass(well)

    assert before == []
    assert said == [("no store", 0), (None, 0)]


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_an_application_is_notified(installation, redis_server, clock, caplog):
    """In each installation an application learns of a server that goes, of what fails by that, and of its return."""
    caplog.set_level("INFO", "beaker_bridge")
    told = []
    views = Views(read=lambda request: len(request.session), write=lambda request: request.session.save())

    def configure(config):
        views(config)
        config.add_subscriber(told.append, StoreEvent)

    with Proxy(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        options = {"type": "ext:redis", "url": url, "secret": SECRET, "key": "sid"}
        app = TestApp(install(installation, options, configure))
        app.get("/write")
        proxy.lose_next_answer(times=2)
        for _ in range(3):
            refused(lambda: app.get("/read"))
        clock.now += PAUSE
        app.get("/read")
        wait_for_events()
    _, opened, *_, closed = told
    lines = [record for record in caplog.records if record.name == "beaker_bridge.session.listeners"]

    assert [type(event) for event in told] == [StoreFailed, BreakerOpened, StoreFailed, StoreFailed, BreakerClosed]
    assert (opened.store, opened.server, opened.failure) == ("ext:redis", "", "connection_lost")
    assert [event.failure for event in told[::3]] == ["connection_lost", "breaker_open"]
    assert (closed.store, closed.server, closed.seconds) == ("ext:redis", "", PAUSE)
    assert [(line.levelname, line.store, line.failure) for line in lines] == [
        ("WARNING", "ext:redis", "connection_lost"),
        ("INFO", "ext:redis", None),
    ]


def test_which_of_several_servers(start_server, clock):
    """Of several servers an event names the one that it is about."""
    dead, alive = (start_server("memcached", "Memcached") for _ in range(2))
    store = opened(type="ext:memcached", url=f"{dead.url};{alive.url}")
    told = []
    store.on_event = told.append
    dead.kill()
    for _ in range(20):
        with_error(lambda: store.read(secrets.token_hex(16)))

    assert [(type(event), event.server) for event in told] == [(BreakerOpened, dead.url)]

    store.close()
