"""Values that a cache region cannot keep: whoever computes one has it, and one warning tells of it."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import sqlite3
import threading

import beaker.cache
import pytest
import redis
import sqlalchemy as sa
from beaker.cache import CacheManager, cache_region, region_invalidate
from beaker.ext.sqla import SqlaNamespaceManager, make_cache_table

from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.logs import QUIET
from beaker_bridge.options.table import RegionOptions
from beaker_bridge.regions import namespace
from beaker_bridge.regions.servers import open_servers
from beaker_bridge.testing import forget_regions
from beaker_bridge.testing.contract import PATIENCE, together
from tests import machine
from tests.region_cases import Clock, Counted, beakers_clock, define, no_region_left, options_for
from tests.servers.proxy import Proxy

# Real servers: what the interpreter adds does not differ.
pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _no_region_left():
    with no_region_left():
        yield


@pytest.fixture
def calls():
    return Counted()


@pytest.fixture(params=["memory", "file", "dbm", "redis", "memcached", "sqlite"])
def region(request, tmp_path):
    return define(options_for(request.param, request, tmp_path))


def warnings_of(caplog):
    """Return what our package has warned of, or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("beaker_bridge") and record.levelno >= logging.WARNING
    ]


def namespace_of(function):
    """Return our namespace manager of a cached function."""
    arguments = beaker.cache.cache_regions[function._arg_region]
    return beaker.cache.Cache._get_cache(function._arg_namespace, arguments).namespace


async def coroutine():
    await asyncio.sleep(0)
    return [1, 2]


async def async_generator():
    yield 1
    yield 2


async def listed(iterator):
    return [item async for item in iterator]


class Awaitable:
    """What can be awaited, once."""

    def __init__(self):
        self._coroutine = coroutine()

    def __await__(self):
        return self._coroutine.__await__()

    def __reduce__(self):
        raise ValueError("not to be copied")


SUCCESSOR = lambda number: number + 1  # noqa: E731 -- a function that cannot be pickled by its name
#: What a function may return that gives what it holds once, and how a caller takes it.
USED_UP = {
    "generator": (lambda: (number for number in (1, 2)), list),
    "coroutine": (coroutine, asyncio.run),
    "async generator": (async_generator, lambda value: asyncio.run(listed(value))),
    "awaitable": (Awaitable, lambda value: asyncio.run(listed_of(value))),
    "iterator": (lambda: iter([1, 2]), list),
    "map": (lambda: map(int, "12"), list),
    "map of a lambda": (lambda: map(SUCCESSOR, [0, 1]), list),
    "text": (lambda: io.StringIO("1\n2\n"), lambda value: [int(line) for line in value]),
    "rows": (lambda: csv.reader(["1,2"]), lambda value: [int(text) for row in value for text in row]),
    "dict of a generator": (lambda: {"rows": (number for number in (1, 2))}, lambda value: list(value["rows"])),
    "tuple of an iterator": (lambda: (2, iter([1, 2])), lambda value: list(value[1])),
}


async def listed_of(awaitable):
    return await awaitable


@pytest.mark.parametrize("name", USED_UP)
def test_a_value_that_can_be_used_up(name, region):
    """Each caller has a value that nobody else has used up, whatever its type, in memory as in a store."""
    make, take = USED_UP[name]

    @cache_region(region)
    def compute():
        return make()

    assert [take(compute()) for _ in range(3)] == [[1, 2]] * 3


@pytest.mark.parametrize("name", ["iterator", "text", "tuple of an iterator"])
def test_a_value_of_which_there_can_be_copies(name, calls, caplog):
    """Where it can be pickled it is cached in memory, too: each caller gets one of its own."""
    make, take = USED_UP[name]

    @cache_region(define({"type": "memory"}))
    def compute():
        calls()
        return make()

    for _ in range(3):
        take(compute())

    assert calls.count == 1
    assert not warnings_of(caplog)


def test_a_generator_in_memory(calls, caplog):
    """One warning names the region, the function and the type, and says what to do."""
    region = define({"type": "memory"})

    @cache_region(region)
    def search(number):
        calls()
        return (number for number in range(number))

    answers = [list(search(number)) for number in (1, 2, 2)]

    assert (answers, calls.count) == ([[0], [0, 1], [0, 1]], 3)
    assert warnings_of(caplog) == [
        (
            f"cache region {region} (memory): search in {__file__} returned a value of type generator, which is not"
            " kept, so each call computes it: TypeError: cannot pickle 'generator' object; let it return data: a list"
            " for a generator, what a coroutine gives for the coroutine"
        )
    ]


def test_who_puts_a_value_learns_that_it_is_not_kept(region, caplog):
    """A value that is put into a cache, and cannot be pickled, raises there, as with Beaker: nobody gets it back."""
    cache = CacheManager(cache_regions=dict(beaker.cache.cache_regions)).get_cache_region("namespace", region)
    for _ in range(2):
        with pytest.raises(TypeError, match="pickle"):
            cache["a"] = (number for number in (1, 2))

    assert "a" not in cache
    assert not warnings_of(caplog)


class Refusing:
    """A class that refuses to be pickled in a way of its own."""

    def __reduce__(self):
        raise KeyError("no")


def nested():
    """Return what is nested too deeply to be pickled."""
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def named(name, region, make):
    """Return a cached function of a name, which returns what ``make`` does."""

    def compute():
        return make()

    compute.__name__ = name
    return cache_region(region)(compute)


#: What only memory keeps, and the name of its type.
UNPICKLABLE = {
    "lock": (threading.Lock, "_thread.lock"),
    "lambda": (lambda: lambda: 1, "function"),
    "local class": (type("Local", (), {}), f"{__name__}.Local"),
    "refusing": (Refusing, f"{__name__}.Refusing"),
    "nested": (nested, "list"),
    "list": (lambda: [threading.Lock()], "list"),
}


@pytest.mark.parametrize("kind", ["file", "dbm", "redis", "memcached", "sqlite"])
@pytest.mark.parametrize("store_error", ["compute", "raise"])
def test_a_value_that_cannot_be_pickled(request, tmp_path, kind, store_error, caplog):
    """The value is returned, each time another; no store has failed, so nothing is raised for it."""
    options = options_for(kind, request, tmp_path)
    region = define({**options, "store_error": store_error})
    for name, (make, type_name) in UNPICKLABLE.items():
        caplog.clear()
        compute = named(name, region, make)
        first, second = compute(), compute()

        assert first is not second
        (text,) = warnings_of(caplog)
        assert text.startswith(f"cache region {region} ({options['type']}): {name} in {__file__} returned a value of")
        assert f" of type {type_name}, which is not kept, so each call computes it: " in text
        assert "its store cannot be used" not in text


def test_memory_keeps_the_value_itself():
    """In memory any other object is kept, and it is the same one that comes back."""
    region = define({"type": "memory"})
    for name, (make, _) in UNPICKLABLE.items():
        compute = named(name, region, make)

        assert compute() is compute()


def test_nobody_waits_for_a_value_that_is_not_kept(region):
    """Once it is known that a value is not kept, those who ask for it compute it at the same time."""
    all_compute = threading.Barrier(10)
    begun = []

    @cache_region(region)
    def compute():
        if begun:
            all_compute.wait(PATIENCE)
        begun.append(True)
        return (number for number in (1, 2))

    compute()

    assert [list(value) for value in together(*[compute] * 10)] == [[1, 2]] * 10


def test_what_is_not_kept_takes_the_place_of_what_was(region, calls, monkeypatch):
    """An old value is not given to anybody when the new one cannot be kept; what can be kept, is again."""
    clock = beakers_clock(monkeypatch)

    @cache_region(region)
    def compute():
        return (number for number in (1, 2)) if calls() == 2 else calls.count

    first = compute()
    clock.now += 60
    generator = compute()
    gone = b"" not in namespace_of(compute)

    assert (first, list(generator), gone) == (1, [1, 2], True)
    assert [compute(), compute()] == [3, 3]


def test_an_invalidation_of_what_is_not_kept(region, calls):
    """To invalidate it does nothing."""

    @cache_region(region)
    def compute():
        calls()
        return (number for number in (1, 2))

    compute()
    region_invalidate(compute, None)

    assert list(compute()) == [1, 2]


def test_memory_does_not_grow_with_what_is_not_kept(monkeypatch):
    """Of the keys whose values are not kept only so many are remembered."""
    monkeypatch.setattr(namespace, "_REMEMBERED", 3)

    @cache_region(define({"type": "memory"}))
    def compute(number):
        return (number for number in (number,))

    for number in range(10):
        compute(number)

    assert 0 < len(namespace_of(compute)._unkept) <= 3


@pytest.mark.parametrize("store_error", ["compute", "raise"])
def test_a_value_that_is_too_large(memcached_server, store_error, calls, caplog, monkeypatch):
    """It is computed each time, with one warning a minute that says how large it is: no store has failed."""
    clock = Clock()
    monkeypatch.setattr(namespace.time, "monotonic", clock)
    region = define({"type": "ext:memcached", "url": memcached_server.url, "store_error": store_error})

    @cache_region(region)
    def compute():
        calls()
        return b"x" * 2_000_000

    answers = [compute(), compute()]
    first = warnings_of(caplog)
    clock.now += QUIET
    compute()

    assert [len(answer) for answer in answers] == [2_000_000] * 2
    assert calls.count == 3
    assert len(first) == 1
    assert first[0].startswith(
        f"cache region {region} (ext:memcached): compute in {__file__} returned a value of type byt"
    )
    assert "bytes are too many for it (the store ext:memcached holds no item of that size" in first[0]
    assert "its store cannot be used" not in first[0]
    assert len(warnings_of(caplog)) == 2


@pytest.mark.parametrize("kind", ["redis", "rediscluster", "mariadb", "sqlite"])
def test_a_value_over_a_limit_that_an_operator_has_set(kind, request, tmp_path, calls, caplog):
    """What a server refuses for its size is told as too large, and what fits is still kept: the server is not away."""
    limit = 1 << 20
    region = define(LIMITED[kind](request, tmp_path, limit))

    @cache_region(region)
    def compute(size):
        calls()
        return b"x" * size

    answers = [len(compute(size)) for size in (10, 2 * limit, 2 * limit, 10, 20, 20)]

    assert (answers, calls.count) == ([10, 2 * limit, 2 * limit, 10, 20, 20], 4)
    (text,) = warnings_of(caplog)
    assert "bytes are too many for it (the store ext:" in text


def test_a_large_value_and_a_connection_that_breaks(redis_server):
    """A connection that broke for another reason is a server that cannot be reached, however large the value is."""
    with Proxy(redis_server.port) as proxy:
        (server,) = open_servers(
            RegionOptions(region="region", type="ext:redis", store_timeout=PATIENCE),
            {"url": f"redis://127.0.0.1:{proxy.port}/0"},
        )
        server.read("a large value")
        proxy.lose_next_answer()

        with pytest.raises(SessionStoreError):
            server.swap("a large value", None, b"x" * (2 << 20))


def limited_redis(request, _folder, limit):
    start_server = request.getfixturevalue("start_server")
    server = start_server("redis", "Redis", "--proto-max-bulk-len", str(limit))
    return {"type": "ext:redis", "url": server.url}


def limited_cluster(request, _folder, limit):
    start_server = request.getfixturevalue("start_server")
    cluster = start_server("redis", "RedisCluster")
    for url in cluster.url.split(","):
        with redis.Redis.from_url(url) as client:
            client.config_set("proto-max-bulk-len", limit)
    return {"type": "ext:rediscluster", "urls": cluster.url}


def limited_mariadb(request, _folder, limit):
    start_server = request.getfixturevalue("start_server")
    server = start_server("mariadb", "MariaDB", f"--max-allowed-packet={limit}")
    options = {"type": "ext:database", "url": server.url}
    cached = cache_region(define(options))(lambda: 1)
    cached()
    with server.client() as client, client.cursor() as cursor:
        cursor.execute("ALTER TABLE beaker_cache MODIFY data LONGBLOB NOT NULL")
    forget_regions()
    return options


def limited_sqlite(request, folder, limit):
    if not hasattr(sqlite3.Connection, "setlimit"):
        raise machine.MissingError("sqlite3's setlimit()", "Python 3.11", everywhere=False)
    engine = sa.create_engine(f"sqlite:///{folder}/small.db")
    request.addfinalizer(engine.dispose)
    sa.event.listen(engine, "connect", lambda one, _: one.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit))
    SqlaNamespaceManager._init_dependencies()
    table = make_cache_table(sa.MetaData())
    table.create(engine)
    return {"type": "ext:sqla", "bind": engine, "table": table}


LIMITED = {
    "redis": limited_redis,
    "rediscluster": limited_cluster,
    "mariadb": limited_mariadb,
    "sqlite": limited_sqlite,
}


def test_a_value_that_is_too_large_for_a_column(mariadb_server, calls, caplog):
    """A column of MariaDB's holds 64 KB: what is larger is told as too large."""
    region = define({"type": "ext:database", "url": mariadb_server.url})

    @cache_region(region)
    def compute(size):
        calls()
        return b"x" * size

    answers = [len(compute(size)) for size in (10, 10, 70_000, 70_000)]

    assert (answers, calls.count) == ([10, 10, 70_000, 70_000], 3)
    assert len(warnings_of(caplog)) == 1
    assert "bytes are too many for it (the store ext:database holds 65535 bytes" in warnings_of(caplog)[0]
