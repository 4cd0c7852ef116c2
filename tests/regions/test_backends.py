"""Cache regions on every backend, through Beaker's own decorators: what holds on each of them."""

from __future__ import annotations

import dbm.dumb
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import beaker.cache
import beaker.container
import pytest
from beaker.cache import CacheManager, cache_region, region_invalidate

from beaker_bridge import set_cache_regions_from_settings
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.regions import backends
from beaker_bridge.regions.namespace import _digest
from beaker_bridge.stores import open_store
from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores.base import ID_FORM
from beaker_bridge.testing.contract import PATIENCE, together
from tests.region_cases import KINDS, Counted, all_waiting, beakers_clock, define, no_region_left, options_for

# Real servers: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

THREADS = 50


@pytest.fixture(autouse=True)
def _no_region_left():
    with no_region_left():
        yield


@pytest.fixture(params=KINDS)
def options(request, tmp_path):
    return options_for(request.param, request, tmp_path)


@pytest.fixture
def clock(monkeypatch):
    return beakers_clock(monkeypatch)


@pytest.fixture
def calls():
    return Counted()


@pytest.fixture
def region(options):
    return define(options)


def cached(region, calls, *words):
    """Return a cached function, which answers how often it was called."""

    @cache_region(region, *words)
    def compute(*arguments):
        return calls(*arguments)

    return compute


def cache_of(function):
    """Return Beaker's cache of a cached function."""
    return beaker.cache.Cache._get_cache(function._arg_namespace, beaker.cache.cache_regions[function._arg_region])


# -- Beaker's API ------------------------------------------------------------------------------------


def test_a_value_is_computed_once_for_the_same_arguments(region, calls):
    """A second call with the same arguments is answered from the cache, one with others is not."""
    compute = cached(region, calls)
    answers = [compute("a"), compute("a"), compute("b"), compute("a")]

    assert answers == [1, 1, 2, 1]
    assert calls.calls == [("a",), ("b",)]


def test_any_value_is_kept(region):
    """What a function returns comes back as it was: also nothing, and what no JSON holds."""
    values = [None, "", 0, {"a": [1, (2, 3)]}, b"\0\xff", {1, 2}, "grüße" * 1000]
    position = iter(range(len(values)))

    @cache_region(region)
    def value(_number):
        return values[next(position)]

    first = [value(number) for number in range(len(values))]

    assert first == values
    assert [value(number) for number in range(len(values))] == values


def test_a_value_expires_when_the_setting_says(options, calls, clock):
    """A value is fresh for ``expire`` seconds, and is computed again after that."""
    compute = cached(define({**options, "expire": "100"}), calls)
    first = compute()
    clock.now += 99.9
    fresh = compute()
    clock.now += 0.1

    assert (first, fresh, compute()) == (1, 1, 2)


def test_region_invalidate(region, calls):
    """``region_invalidate`` has the value of these arguments computed anew, and no other."""
    compute = cached(region, calls, "word")
    compute("a")
    compute("b")
    region_invalidate(compute, None, "word", "a")

    assert [compute("a"), compute("b"), calls.count] == [3, 2, 3]


def test_what_is_not_there_is_invalidated_without_complaint(region, calls):
    """To invalidate a value that was never computed does nothing."""
    region_invalidate(cached(region, calls), region, "a")

    assert calls.count == 0


def test_cache_manager_region(region, calls):
    """``CacheManager.region`` and its ``region_invalidate`` work with the region."""
    manager = CacheManager()

    @manager.region(region, "word")
    def compute(*arguments):
        return calls(*arguments)

    first = [compute("a"), compute("a")]
    manager.region_invalidate(compute, None, "word", "a")

    assert [*first, compute("a")] == [1, 1, 2]


def test_a_cache_of_a_region(region):
    """The ``Cache`` that a manager makes of a region has Beaker's mapping interface."""
    cache = CacheManager(cache_regions=dict(beaker.cache.cache_regions)).get_cache_region("namespace", region)
    cache["a"] = 1
    cache.put("b", 2)
    seen = ["a" in cache, cache["a"], cache.get("b"), "c" in cache]
    del cache["a"]

    assert seen == [True, 1, 2, False]
    assert "a" not in cache
    with pytest.raises(KeyError):
        cache["a"]


def test_a_namespace_is_a_mapping(region, calls):
    """What Beaker calls a namespace manager's dictionary interface works by itself, too."""
    namespace = cache_of(cached(region, calls)).namespace
    del namespace[b"a"]
    namespace[b"a"] = 1
    found = namespace[b"a"], b"b" in namespace, b"a" in namespace
    namespace.set_value(b"a", 2)
    changed = namespace[b"a"], namespace[b"a"]
    del namespace[b"a"]

    assert (found, changed) == ((1, False, True), (2, 2))
    with pytest.raises(KeyError):
        namespace[b"a"]


def test_enabled_is_false(options, calls):
    """With ``enabled = false`` a function is called each time."""
    compute = cached(define({**options, "enabled": "false"}), calls)

    assert [compute("a"), compute("a")] == [1, 2]


def test_what_the_function_raises_reaches_the_caller(region):
    """An exception is not cached, and holds nobody up."""
    failing = [ValueError("once")]

    @cache_region(region)
    def compute():
        if failing:
            raise failing.pop()
        return "done"

    with pytest.raises(ValueError, match="once"):
        compute()

    assert compute() == "done"


# -- One computes, the others do not -----------------------------------------------------------------


def test_many_who_find_no_value_compute_it_once(region, calls):
    """Fifty threads that ask for a value that is not there call the function once, and all get its answer."""
    compute = cached(region, calls)

    assert together(*[compute] * THREADS) == [1] * THREADS
    assert calls.count == 1


def test_a_file_of_values_is_made_by_one_thread(tmp_path, calls, monkeypatch):
    """Of two threads that are the first to use a dbm file one makes it, and the other one empties nothing."""
    asked, is_made = threading.Semaphore(0), threading.Event()

    class Lock:
        """A lock that says when somebody asks for it."""

        def __init__(self):
            self._lock = threading.Lock()

        def __enter__(self):
            asked.release()
            self._lock.acquire()

        def __exit__(self, *_error):
            self._lock.release()

    def open_file(file, flag):
        if not is_made.is_set():
            # Wait with the file half made until the other thread has come, too.
            assert asked.acquire(timeout=PATIENCE)
            assert asked.acquire(timeout=PATIENCE)
            is_made.set()
        return dbm.dumb.open(file, flag)

    monkeypatch.setattr(backends, "_making", PerProcess(Lock))
    monkeypatch.setattr(beaker.container, "anydbm", SimpleNamespace(open=open_file, error=dbm.dumb.error))
    compute = cached(define(options_for("dbm", None, tmp_path)), calls)

    assert together(compute, compute) == [1, 1]
    assert calls.count == 1


def test_many_who_wait_in_vain_get_one_failure(region, calls, monkeypatch):
    """Ten threads that ask for a value that cannot be computed call the function once, and all get its error."""
    barrier = all_waiting(monkeypatch, 9)

    @cache_region(region)
    def compute():
        calls()
        barrier.wait(PATIENCE)
        raise ValueError("no value")

    def raised():
        with pytest.raises(ValueError, match="no value") as error:
            compute()
        return error.value

    # Each has its own: an exception is equal to itself alone.
    assert len(set(together(*[raised] * 10))) == 10
    assert calls.count == 1


def test_many_who_find_an_expired_value_get_the_old_one_meanwhile(options, calls, clock):
    """Of fifty threads that find an expired value one computes; the others have the old one before it is done."""
    region = define({**options, "expire": 100})
    others_are_answered = threading.Event()
    answers = []

    @cache_region(region)
    def compute():
        if calls.count:
            assert others_are_answered.wait(PATIENCE)
        return calls()

    def ask():
        answers.append(compute())
        if len(answers) == THREADS - 1:
            others_are_answered.set()

    compute()
    clock.now += 100
    together(*[ask] * THREADS)

    assert sorted(answers) == [1] * (THREADS - 1) + [2]
    assert calls.count == 2
    assert compute() == 2


def test_one_that_hangs_does_not_hold_up_the_others(options, calls):
    """Where one computes for longer than ``lock_timeout``, another takes its place; its late answer does no harm."""
    region = define({**options, "lock_timeout": 0.05})
    hangs, goes_on = threading.Event(), threading.Event()

    @cache_region(region)
    def compute():
        number = calls()
        if number == 1:
            hangs.set()
            assert goes_on.wait(PATIENCE)
        return number

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(compute)
        assert hangs.wait(PATIENCE)
        second = compute()
        goes_on.set()

        assert (first.result(PATIENCE), second) == (1, 2)
    assert compute() in (1, 2)
    assert calls.count == 2


def test_functions_that_call_each_other_do_not_block(region, calls):
    """A cached function may call itself with other arguments, and other cached functions."""

    @cache_region(region)
    def factorial(number):
        calls(number)
        return number * factorial(number - 1) if number else 1

    assert (factorial(5), calls.count) == (120, 6)
    assert (factorial(6), calls.count) == (720, 7)


# -- What is kept apart ------------------------------------------------------------------------------

ALIKE = (
    *("A", "a", "ä", "Ä", "a ", " a", "a\n", "a\0", "a\u0301", "á", "*", "a*", "%", "_", "a_a"),
    *("x" * 2000, "x" * 2001, "'", '"', "\\", "a/b", "a.b", "a:b", "a|b", ""),
)


def test_arguments_that_differ_share_no_value(region, calls):
    """Case, white space, control characters, wildcards, separators and length tell arguments apart, everywhere."""
    compute = cached(region, calls)
    first = [compute(argument) for argument in ALIKE]

    assert first == list(range(1, len(ALIKE) + 1))
    assert [compute(argument) for argument in ALIKE] == first


def test_what_only_beakers_decorator_could_tell_apart(region, calls):
    """Beaker joins arguments with spaces before anybody else sees them; a tuple as the only one is safe."""
    compute = cached(region, calls)
    joined = compute("x y", "z"), compute("x", "y z")
    apart = compute(("x y", "z")), compute(("x", "y z"))

    assert joined == (1, 1)
    assert apart == (2, 3)


def test_regions_share_nothing(options, calls):
    """Functions of one name in two regions have values of their own, also where the regions are alike."""
    one, other = define(options, one={}, other={})
    in_one, in_other = cached(one, calls), cached(other, calls)
    before = in_one("a"), in_other("a")
    region_invalidate(in_one, None, "a")

    assert before == (1, 2)
    assert (in_one("a"), in_other("a")) == (3, 2)


def test_regions_whose_names_read_alike_share_nothing(options, calls):
    """Regions are told apart by their whole names: by case, by punctuation and beyond any length."""
    stem = secrets.token_hex(30)
    names = [stem + end for end in (".a", "-a", ".A", ".b")]
    set_cache_regions_from_settings(
        {"cache.regions": names, **{f"cache.{name}": value for name, value in options.items()}}
    )

    assert [cached(name, calls)() for name in names] == [1, 2, 3, 4]


def test_a_clear_touches_nothing_else(options, calls):
    """To clear the cache of one function leaves its other values, other functions and other regions alone."""
    one, other = define(options, one={}, other={})
    cleared, in_other = cached(one, calls), cached(other, calls)

    @cache_region(one)
    def neighbour(*arguments):
        return calls(*arguments)

    before = [cleared("a"), cleared("b"), neighbour("a"), in_other("a")]
    cache_of(cleared).clear()
    after = [neighbour("a"), in_other("a"), cleared("a"), cleared("b")]

    assert before == [1, 2, 3, 4]
    assert after == [3, 4, 5, 6]
    assert [cleared("a"), cleared("b")] == [5, 6]


def test_what_was_never_filled_is_cleared(region, calls):
    """To clear the cache of a function that was never called does nothing."""
    compute = cached(region, calls)
    cache_of(compute).clear()

    assert [compute(), compute()] == [1, 1]


def test_a_clear_leaves_sessions_alone(options, calls):
    """A session, and whatever else is in the same store, outlives an invalidation and a clear."""
    store = open_store(SessionOptions(**{"store_timeout": 60, **options}))
    session_id = secrets.token_hex(16)
    record = store.swap(session_id, None, store.envelope.wrap(b"c2Vzc2lvbg==")).found
    compute = cached(define(options), calls)
    compute("a")
    region_invalidate(compute, None, "a")
    compute("a")
    cache_of(compute).clear()
    compute("a")
    after = store.read(session_id)
    store.close()

    assert calls.count == 3
    assert after.raw == record.raw


def test_no_value_has_a_sessions_id(region, calls):
    """Whatever a cookie says, it names no value of a region: no session's id has that form."""
    compute = cached(region, calls)
    compute()

    assert not ID_FORM.fullmatch(cache_of(compute).namespace._name)


def test_what_one_process_invalidates_others_compute(options, calls):
    """An invalidation and a clear are seen by processes that had the value already."""
    region = define(options)
    here, there = cached(region, calls), cached(region, calls)
    before = here("a"), here("b"), there("a")
    # Beaker's cache of "there" is another one now, as in another process.
    beaker.cache.cache_managers.clear()
    elsewhere = cached(region, calls)
    region_invalidate(elsewhere, None, "a")
    invalidated = here("a"), here("b"), elsewhere("a")
    cache_of(elsewhere).clear()

    assert before == (1, 2, 1)
    assert invalidated == (3, 2, 3)
    assert [here("a"), here("b"), elsewhere("a")] == [4, 5, 4]


# -- What servers are asked --------------------------------------------------------------------------


def server_name(function):
    """Return the name of a cached function's value without arguments, in a store on a server."""
    return f"{cache_of(function).namespace._name}.{_digest(b'')}"


def test_redis_with_a_password_and_a_prefix(start_server, calls):
    """The login is taken from the options, where the address has none; all keys begin with the prefix."""
    server = start_server("redis", "Redis")
    with server.client() as client:
        client.acl_setuser("cache", enabled=True, passwords=["+private"], keys=["mine:*"], commands=["+@all"])
        login = {"username": "cache", "password": "private", "key_prefix": "mine:", "store_error": "raise"}
        compute = cached(define({"type": "ext:redis", "url": server.url, **login}), calls)
        answers = compute(), compute()
        keys = client.keys()

    assert answers == (1, 1)
    assert keys
    assert all(key.startswith(b"mine:region.") for key in keys)


@pytest.mark.parametrize("kind", ["redis", "rediscluster"])
def test_redis_without_scripts(kind, request, tmp_path, calls):
    """A region whose user may run no scripts keeps values, clears them, and has one caller compute."""
    options = options_for(kind, request, tmp_path)
    cluster = kind == "rediscluster"
    for server in (
        request.getfixturevalue("redis_cluster").servers if cluster else [request.getfixturevalue("redis_server")]
    ):
        with server.client() as client:
            client.acl_setuser("cache", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-@scripting"])
    compute = cached(define({**options, "username": "cache", "password": "p", "store_error": "raise"}), calls)
    answers = [compute(), compute()]
    cache_of(compute).clear()

    assert [*answers, compute(), compute()] == [1, 1, 2, 2]


def test_redis_keeps_an_expired_value(redis_server, calls):
    """Redis forgets a value when it has been expired for as long as it was fresh, not at the moment it expires."""
    compute = cached(define({"type": "ext:redis", "url": redis_server.url, "expire": 1000}), calls)
    compute()
    with redis_server.client() as client:
        left = client.ttl(f"beaker_cache:{server_name(compute)}:session")

    assert 1000 < left <= 2000


def test_redis_keeps_a_value_of_a_second_while_another_is_computed(redis_server, calls):
    """A value of one second is kept for as long as a computation may take."""
    compute = cached(define({"type": "ext:redis", "url": redis_server.url, "expire": 1, "lock_timeout": 500}), calls)
    compute()
    with redis_server.client() as client:
        left = client.ttl(f"beaker_cache:{server_name(compute)}:session")

    assert 400 < left <= 501


def test_memcached_keeps_an_expired_value(memcached_server, calls):
    """So does memcached."""
    compute = cached(define({"type": "ext:memcached", "url": memcached_server.url, "expire": 1000}), calls)
    compute()

    assert 1000 < memcached_server.left(f"{server_name(compute)}_session") <= 2000


def test_redis_is_never_asked_for_its_keys(redis_server, calls):
    """Neither an invalidation nor a clear looks through the database, which would stop it for everybody."""
    compute = cached(define({"type": "ext:redis", "url": redis_server.url}), calls)
    with redis_server.client() as client:
        client.config_resetstat()
        compute()
        region_invalidate(compute, None)
        cache_of(compute).clear()
        compute()
        asked = client.info("commandstats")

    assert "cmdstat_get" in asked
    assert not asked.keys() & {"cmdstat_keys", "cmdstat_scan", "cmdstat_flushdb", "cmdstat_flushall"}


def test_memcached_is_never_flushed(memcached_server, calls):
    """A clear does not empty the server."""
    compute = cached(define({"type": "ext:memcached", "url": memcached_server.url}), calls)
    compute()
    cache_of(compute).clear()

    assert memcached_server.stats()["cmd_flush"] == "0"
    assert compute() == 2


def test_without_a_generation_nothing_is_valid(redis_server, calls):
    """Where the server has dropped what says which values were cleared, values are computed anew."""
    compute = cached(define({"type": "ext:redis", "url": redis_server.url}), calls)
    compute()
    with redis_server.client() as client:
        client.delete(f"beaker_cache:{cache_of(compute).namespace._name}.generation:session")

    assert [compute(), compute()] == [2, 2]


def test_two_who_clear_at_once(redis_server, calls, monkeypatch):
    """A clear that finds the generation changed by another one changes it again."""
    compute = cached(define({"type": "ext:redis", "url": redis_server.url}), calls)
    compute()
    server = cache_of(compute).namespace._backend._servers[0]
    # It has read before the first generation was written.
    monkeypatch.setattr(server, "read", lambda *_, **__: None)
    cache_of(compute).clear()
    monkeypatch.undo()

    assert [compute(), compute()] == [2, 2]


def test_a_lease_that_cannot_be_read_has_ended(redis_server, calls):
    """What stands in a lease's place, and is none, holds nobody up."""
    compute = cached(define({"type": "ext:redis", "url": redis_server.url}), calls)
    with redis_server.client() as client:
        client.set(f"beaker_cache:{server_name(compute)}.lease:session", b"no lease")

    assert [compute(), compute()] == [1, 1]


def test_servers_are_shared_by_regions(redis_server, calls):
    """Regions with the same address share the connections to it."""
    one, other = define({"type": "ext:redis", "url": redis_server.url}, one={"expire": 5}, other={})
    caches = [cache_of(cached(region, calls)).namespace._backend for region in (one, other)]

    assert caches[0]._servers[0] is caches[1]._servers[0]
