"""Cache regions whose store fails: the page is served all the same."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import ClassVar

import beaker.cache
import pytest
from beaker.cache import cache_region, region_invalidate
from beaker.container import FileNamespaceManager, NamespaceManager

from beaker_bridge.exceptions import CacheStoreError
from beaker_bridge.logs import QUIET
from beaker_bridge.options.table import RegionOptions
from beaker_bridge.regions import access_lock, namespace
from beaker_bridge.regions.namespace import FailureReporter, _digest
from beaker_bridge.regions.servers import close_servers
from beaker_bridge.stores import _breaker, _flock
from beaker_bridge.stores._breaker import PAUSE
from beaker_bridge.stores._lease import HeldBy
from beaker_bridge.testing.contract import PATIENCE, together
from tests import machine
from tests.forks import silent_fork
from tests.region_cases import Clock, Counted, beakers_clock, define, no_region_left, options_for
from tests.servers.memcached import Memcached
from tests.servers.postgresql import PostgreSQL
from tests.servers.proxy import Proxy
from tests.servers.redis import Redis, wait_until

# Real servers: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

SERVERS = {"redis": Redis, "memcached": Memcached, "postgresql": PostgreSQL}


@pytest.fixture(autouse=True)
def _no_region_left():
    with no_region_left():
        yield


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of pauses and warnings."""
    clock = Clock()
    stopped = SimpleNamespace(monotonic=clock, time=time.time)
    for module in (namespace, _breaker):
        monkeypatch.setattr(module, "time", stopped)
    return clock


@pytest.fixture
def calls():
    return Counted()


def cached(region, calls):
    @cache_region(region)
    def compute(*arguments):
        return calls(*arguments)

    return compute


def warnings_of(caplog):
    """Return what our package has warned of, or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("beaker_bridge") and record.levelno >= logging.WARNING
    ]


class ServerStore:
    """A store on a server of its own, which a test may stop and start.

    Args:
        server: the server.
        kind: the type of a region there.
    """

    def __init__(self, server, kind):
        self.options = {"type": kind, "url": server.url}
        # Stopped, not killed: without fsync a PostgreSQL that is killed loses its tables.
        self.down = server.stop
        self.up = server.start


class FolderStore:
    """A store in a folder, which a test may take away and put back.

    Args:
        folder: the folder.
        kind: the type of a region there.
    """

    def __init__(self, folder, kind):
        self.options = {"type": kind, "data_dir": str(folder)}
        self._folder, self._away = folder, folder.with_name("away")

    def down(self):
        self._folder.rename(self._away)
        # Where the folder was, a file: root, too, cannot work in it.
        self._folder.write_text("")

    def up(self):
        self._folder.unlink()
        self._away.rename(self._folder)


@pytest.fixture(params=["file", "dbm", "redis", "memcached"])
def store(request, tmp_path):
    if request.param in ("file", "dbm"):
        yield FolderStore(tmp_path / "cache", request.param)
    else:
        kind = {"postgresql": "ext:database"}.get(request.param, f"ext:{request.param}")
        # The package knows when a server's program is missing, and skips.
        request.getfixturevalue(f"{request.param}_server")
        with SERVERS[request.param](tmp_path) as server:
            yield ServerStore(server, kind)


# -- A store that is away ----------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["file", "dbm", *SERVERS], indirect=True)
def test_a_store_that_is_away_costs_no_page(store, calls, clock, caplog):
    """While the store is away each call is computed; when it is back, values are cached again."""
    compute = cached(define(store.options), calls)
    before = [compute("a"), compute("a")]
    store.down()
    away = [compute("a"), compute("a"), compute("b")]
    store.up()
    clock.now += PAUSE
    back = [compute("a"), compute("b"), compute("b")]

    assert (before, away) == ([1, 1], [2, 3, 4])
    # Redis and memcached have forgotten what they had.
    assert back in ([1, 5, 5], [5, 6, 6])
    assert len(warnings_of(caplog)) == 1


def test_a_store_that_is_away_from_the_start_costs_no_page(store, calls, caplog):
    """Also the first call of a function is computed, and nothing but one warning tells of it."""
    cached(define(store.options), Counted())("makes the folder")
    store.down()
    beaker.cache.cache_managers.clear()
    close_servers()
    compute = cached(define(store.options), calls)
    answers = [compute("a"), compute("a")]
    store.up()

    assert answers == [1, 2]
    assert len(warnings_of(caplog)) == 1


def test_one_warning_a_minute(store, calls, clock, caplog):
    """However many calls fail, the log has one warning a minute, with region, type and cause in it."""
    region = define(store.options)
    compute = cached(region, calls)
    compute()
    store.down()
    counts = []
    for _ in range(3):
        for _ in range(5):
            compute()
        counts.append(len(warnings_of(caplog)))
        clock.now += QUIET
    store.up()

    assert counts == [1, 2, 3]
    assert f"cache region {region} ({store.options['type']}): its store cannot be used" in warnings_of(caplog)[0]
    assert "Error" in warnings_of(caplog)[0]


def test_store_error_is_raise(store, calls, caplog):
    """With ``store_error = raise`` the caller learns of it, with the region and the cause as data."""
    region = define({**store.options, "store_error": "raise"})
    compute = cached(region, calls)
    compute("a")
    store.down()
    with pytest.raises(CacheStoreError, match=f"cache region {region} ") as raised:
        compute("a")
    store.up()

    assert raised.value.name == region
    assert isinstance(raised.value.original, Exception)
    assert calls.count == 1
    assert not warnings_of(caplog)


def test_store_error_is_raise_and_nobody_stays_locked(store, calls, monkeypatch):
    """A store that fails when the lock is taken raises, and leaves no lock behind in the process."""
    region = define({**store.options, "store_error": "raise"})
    compute = cached(region, calls)
    namespace = namespace_of(compute)
    with monkeypatch.context() as patch:
        patch.setattr(namespace._backend, "take", failing)
        with pytest.raises(CacheStoreError):
            compute()

    assert compute() == 1


def failing(*_arguments):
    raise OSError("no store")


def namespace_of(function):
    """Return our namespace manager of a cached function."""
    arguments = beaker.cache.cache_regions[function._arg_region]
    return beaker.cache.Cache._get_cache(function._arg_namespace, arguments).namespace


def test_a_lease_that_cannot_be_ended_does_no_harm(store, calls, monkeypatch, caplog):
    """A value that was computed is returned though the lease cannot be given back, also with ``raise``."""
    compute = cached(define({**store.options, "store_error": "raise"}), calls)
    monkeypatch.setattr(namespace_of(compute)._backend, "end", failing)

    assert [compute(), compute()] == [1, 1]
    assert not warnings_of(caplog)


def test_an_invalidation_that_fails_is_told(store, calls, clock, caplog):
    """A value that cannot be invalidated is told apart in the log: it may be served until it expires."""
    compute = cached(define(store.options), calls)
    compute("a")
    store.down()
    region_invalidate(compute, None, "a")
    beaker.cache.Cache._get_cache(compute._arg_namespace, beaker.cache.cache_regions[compute._arg_region]).clear()
    store.up()

    assert len([text for text in warnings_of(caplog) if "is served until it expires" in text]) == 1


def test_an_invalidation_asks_a_store_that_rests(store, calls, clock):
    """A store that is back is asked to invalidate at once, though other calls still leave it alone."""
    compute = cached(define(store.options), calls)
    compute("a")
    store.down()
    compute("a")
    store.up()
    region_invalidate(compute, None, "a")

    assert compute("a") == 3
    assert compute("a") == 3


def test_while_the_store_is_away_nobody_waits_for_another(store, clock):
    """What is computed now is kept nowhere: those who ask for the same value compute it at the same time."""
    all_compute = threading.Barrier(10)
    away = []

    @cache_region(define(store.options))
    def compute():
        return all_compute.wait(PATIENCE) if away else None

    compute()
    namespace_of(compute).remove()
    store.down()
    away.append(True)
    answers = together(*[compute] * 10)
    store.up()

    assert sorted(answers) == list(range(10))


# -- A server that hangs, or is one of several -------------------------------------------------------


def test_a_server_that_is_away_is_left_alone(redis_server, calls, clock):
    """A server that could not be reached is not asked again before the pause is over, and then by one."""
    with Proxy(redis_server.port) as proxy:
        compute = cached(define({"type": "ext:redis", "url": f"redis://127.0.0.1:{proxy.port}/0"}), calls)
        compute("a")
        proxy.lose_next_answer(times=2)
        compute("a")
        asked = proxy.asked
        together(*[lambda: compute("a")] * 10)
        resting = proxy.asked
        clock.now += PAUSE
        answer = compute("a")

    assert asked == resting
    assert (answer, calls.count) == (1, 12)


def test_one_finds_out_whether_a_server_is_back(tmp_path, calls, clock):
    """While one call waits for a server that may be back, the others do not ask it."""
    with Redis(tmp_path) as server, Proxy(server.port) as proxy, ThreadPoolExecutor(1) as pool:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        compute = cached(define({"type": "ext:redis", "url": url, "store_timeout": PATIENCE}), calls)
        compute("a")
        proxy.lose_next_answer(times=2)
        compute("a")
        server.freeze()
        clock.now += PAUSE
        asked = proxy.asked
        probe = pool.submit(compute, "a")
        wait_until(lambda: proxy.asked > asked)
        others = [compute("a") for _ in range(3)]
        asked = proxy.asked - asked
        server.thaw()

        assert (others, asked) == ([3, 4, 5], 1)
        assert probe.result(PATIENCE) == 1


def test_a_server_that_hangs_costs_its_timeout_once(redis_server, tmp_path, calls, clock):
    """A frozen server is waited for once a pause, for ``store_timeout``, whatever a page asks for."""
    with Redis(tmp_path) as server:
        compute = cached(define({"type": "ext:redis", "url": server.url, "store_timeout": 0.05}), calls)
        compute("a")
        server.freeze()
        answers = [compute("a") for _ in range(20)]
        server.thaw()
        clock.now += PAUSE

        assert answers == list(range(2, 22))
        assert compute("a") == 1


def test_a_probe_that_fails_begins_a_new_pause(redis_server, calls, clock):
    """Where the server still cannot be reached when the pause is over, it is left alone for another one."""
    with Proxy(redis_server.port) as proxy:
        compute = cached(define({"type": "ext:redis", "url": f"redis://127.0.0.1:{proxy.port}/0"}), calls)
        compute("a")
        proxy.lose_next_answer(times=2)
        compute("a")
        clock.now += PAUSE
        proxy.lose_next_answer()
        compute("a")
        asked = proxy.asked
        compute("a")

        assert (proxy.asked, calls.count) == (asked, 4)


def test_one_of_several_memcacheds(memcached_server, tmp_path, calls, clock, caplog):
    """With one of two memcacheds down the other still keeps its values, and a clear reaches it."""
    with Memcached(tmp_path) as other:
        region = define({"type": "ext:memcached", "url": f"{other.url};{memcached_server.url}"})
        compute = cached(region, calls)
        for number in range(20):
            compute(number)
        other.kill()
        answers = [compute(number) for number in range(20)]
        kept = [answer for answer in answers if answer <= 20]
        counted = calls.count
        namespace_of(compute).remove()
        for number in range(20):
            compute(number)

    assert 0 < len(kept) < 20
    assert calls.count == counted + 20
    assert any("until it expires" in text for text in warnings_of(caplog))


# -- Values that cannot be had, or kept --------------------------------------------------------------


class Gone:
    """A class whose values cannot be loaded again."""

    def __reduce__(self):
        return load_gone, ()


def load_gone():
    raise AttributeError("the class is gone")


@pytest.mark.parametrize("kind", ["file", "dbm", "redis", "memcached", "sqlite"])
def test_a_value_that_cannot_be_loaded_is_computed(request, tmp_path, kind, calls, caplog):
    """A value of a class that is gone or changed is computed anew, with one warning: no store has failed."""

    @cache_region(define({**options_for(kind, request, tmp_path), "store_error": "raise"}))
    def compute():
        calls()
        return Gone() if calls.count == 1 else calls.count

    compute()

    assert [compute(), compute()] == [2, 2]
    assert len(warnings_of(caplog)) == 1
    assert "cannot be read" in warnings_of(caplog)[0]


@pytest.mark.parametrize("kind", ["file", "dbm"])
@pytest.mark.parametrize("damage", [b"", b"\x80\x05garbage", b"'a', (0, 5"])
def test_a_damaged_file_heals(request, tmp_path, kind, damage, calls):
    """A file that cannot be read is removed: the next value is kept again."""
    compute = cached(define(options_for(kind, request, tmp_path)), calls)
    compute()
    for file in (tmp_path / "cache" / f"container_{kind}").rglob("*.*"):
        file.write_bytes(damage)
    after = [compute() for _ in range(4)]

    assert after == [2] * 4


def test_a_file_of_half_a_dbm_heals(request, tmp_path, calls):
    """A dbm of two files that has lost one of them is written anew."""
    compute = cached(define({**options_for("dbm", request, tmp_path), "dbmmodule": "dbm.dumb"}), calls)
    compute()
    for file in (tmp_path / "cache" / "container_dbm").rglob("*.dir"):
        file.unlink()

    assert [compute() for _ in range(3)] == [2] * 3


# -- Directories that somebody removes ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "dbm", "dbm.dumb", "dbm.gnu", "dbm.ndbm"])
@pytest.mark.parametrize(
    "removed",
    ["cache", "cache/container_{}", "cache/container_{}_lock", "cache/container_{}/*", "cache/container_{}/*/*"],
)
def test_a_directory_that_a_cleaner_has_removed(tmp_path, kind, removed, calls, caplog):
    """A region makes its directories anew, whichever of them is gone, and whatever is asked for next."""
    if kind.startswith("dbm."):
        machine.dbm(kind)
    kind, module = kind[:4].strip("."), {"dbmmodule": kind} if "." in kind else {}
    compute = cached(define({"type": kind, "data_dir": str(tmp_path / "cache"), **module}), calls)

    def clean():
        for folder in list(tmp_path.glob(removed.format(kind))):
            shutil.rmtree(folder)

    compute("a")
    clean()
    again = [compute("a"), compute("a")]
    clean()
    region_invalidate(compute, None, "a")
    invalidated = [compute("a"), compute("a")]
    clean()
    namespace_of(compute).remove()
    cleared = [compute("a"), compute("a")]

    # Without the lock files nothing is lost.
    assert again == ([1, 1] if removed.endswith("_lock") else [2, 2])
    assert invalidated == [again[0] + 1] * 2
    assert cleared == [again[0] + 2] * 2
    assert not warnings_of(caplog)


def test_a_directory_that_is_gone_and_cannot_be_made(tmp_path, calls, caplog):
    """Where the directory cannot be made anew each call is computed; nothing is served that was not stored."""
    store = FolderStore(tmp_path / "cache", "file")
    compute = cached(define(store.options), calls)
    compute("a")
    store.down()

    assert [compute("a") for _ in range(4)] == [2, 3, 4, 5]
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("kind", ["file", "dbm"])
def test_many_threads_find_the_directory_gone(tmp_path, kind, calls, caplog):
    """Threads that find the directory gone at the same time make it anew, and get their values."""
    compute = cached(define({"type": kind, "data_dir": str(tmp_path / "cache")}), calls)
    for number in range(3):
        compute(number)
        shutil.rmtree(tmp_path / "cache")
        together(*[lambda: compute("a")] * 10, *[lambda: compute("b")] * 10)

    assert [compute("a"), compute("a")] == [compute("a")] * 2
    assert not warnings_of(caplog)


# -- A creator that dies -----------------------------------------------------------------------------


CREATOR = """
import time
from beaker.cache import cache_region
from beaker_bridge import set_cache_regions_from_settings

def compute():
    print("computing", flush=True)
    time.sleep({patience})

set_cache_regions_from_settings({settings})
# The same function as the test's, for Beaker: the same file, the same name.
compute.__code__ = compute.__code__.replace(co_filename={filename!r})
cache_region({region!r})(compute)()
"""


@contextmanager
def computing_for_ever(region, options):
    """Run a process that begins to compute the value of the test's function ``compute``, until it is killed."""
    settings = {"cache.regions": region, **{f"cache.{name}": value for name, value in options.items()}}
    code = CREATOR.format(settings=settings, patience=PATIENCE, filename=__file__, region=region)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "computing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["file", "dbm", "redis", "memcached", "sqlite"])
def test_a_creator_that_is_killed_does_not_hold_up_others(request, tmp_path, kind, calls):
    """While another process computes its lease is seen; when it is killed, one of those who wait computes."""
    options = {**options_for(kind, request, tmp_path), "lock_timeout": 2}
    region = define(options)
    compute = cached(region, calls)
    with computing_for_ever(region, options):
        lease = namespace_of(compute)._backend.take(_digest(b""), 2)

    assert isinstance(lease, HeldBy)
    assert together(*[compute] * 10) == [1] * 10


FAILING = """
import sys, time
from types import SimpleNamespace
from beaker.cache import cache_region
from beaker_bridge import set_cache_regions_from_settings
from beaker_bridge.regions import creation_lock

def sleep(seconds):
    print("waiting", flush=True)
    time.sleep(seconds)

def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    raise ValueError("no value")

creation_lock.time = SimpleNamespace(monotonic=time.monotonic, time=time.time, sleep=sleep)
set_cache_regions_from_settings({settings})
try:
    cache_region({region!r})(compute)()
except ValueError:
    print("failed", flush=True)
"""


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_processes_do_not_queue_to_fail(request, tmp_path, kind):
    """Where a process fails to compute a value, all others that wait for it compute at the same time."""
    options = {**options_for(kind, request, tmp_path), "lock_timeout": 2 * PATIENCE}
    settings = {"cache.regions": "failing", **{f"cache.{name}": value for name, value in options.items()}}
    code = FAILING.format(settings=settings, region="failing")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes = []
        for line in ("computing\n", "waiting\n", "waiting\n"):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], **pipes))
            stack.callback(process.kill)
            processes.append(process)
            assert process.stdout.readline() == line
        processes[0].stdin.close()
        for process in processes[1:]:
            assert "computing\n" in iter(process.stdout.readline, "failed\n")
        for process in processes:
            process.stdin.close()
            assert "failed\n" in iter(process.stdout.readline, "")


# -- A process, or a thread, that stops with a lock ---------------------------------------------------


STOPPER = """
import os, signal
from beaker.cache import cache_region, clsmap
from beaker_bridge import set_cache_regions_from_settings

def stop(*_):
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

def compute(argument):
    return "of the other process"

set_cache_regions_from_settings({settings})
# The same function as the test's, for Beaker: the same file, the same name.
compute.__code__ = compute.__code__.replace(co_filename={filename!r})
compute = cache_region({region!r})(compute)
setattr(clsmap[{kind!r}], {step!r}, stop)
compute("a")
"""


@contextmanager
def stopped(region, options, step):
    """Run a process that stops (SIGSTOP) while it reads or writes a value of the test's function ``compute``."""
    settings = {"cache.regions": region, **{f"cache.{name}": value for name, value in options.items()}}
    code = STOPPER.format(settings=settings, filename=__file__, region=region, kind=options["type"], step=step)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "stopped\n"
            yield
        finally:
            process.kill()


@pytest.fixture
def waits(monkeypatch):
    """Return the clock of those who wait for the lock of a file: they sleep no real time."""
    clock = Clock(0)
    stopped = SimpleNamespace(monotonic=clock, sleep=clock.pass_by)
    for module in (_flock, access_lock):
        monkeypatch.setattr(module, "time", stopped)
    return clock


@pytest.mark.parametrize("kind", ["file", "dbm"])
@pytest.mark.parametrize("own_lock_dir", [False, True])
def test_a_process_that_stops_while_it_writes(tmp_path, kind, own_lock_dir, calls, waits, caplog):
    """Others wait for it once, for ``lock_timeout``; then each call is computed at once, and cached when it is gone."""
    options = {"type": kind, "data_dir": str(tmp_path / "cache"), "lock_timeout": 2}
    if own_lock_dir:
        options["lock_dir"] = str(tmp_path / "locks")
    region = define(options)
    compute = cached(region, calls)
    compute("b")
    with stopped(region, options, "__setitem__"):
        answers = [compute("b"), compute("c"), compute("a"), compute("a")]
        waited = waits.now
    name, place = ("lock_dir", "locks") if own_lock_dir else ("data_dir", "cache")

    assert answers == [2, 3, 4, 5]
    assert 2 <= waited < 2.1
    assert [compute("b"), compute("c"), compute("c")] == [1, 6, 6]
    assert len(warnings_of(caplog)) == 1
    assert "for more than 2 seconds (cache.lock_timeout)" in warnings_of(caplog)[0]
    # A part of the path may be a password that another test has used, and is masked.
    assert re.search(rf"; cache\.{name} = \S+/{place};", warnings_of(caplog)[0])


@pytest.mark.parametrize("kind", ["file", "dbm"])
def test_a_process_that_stops_while_it_reads(tmp_path, kind, calls, waits, caplog):
    """What is cached is served; others wait for it once with what is new, and none of them for another."""
    options = {"type": kind, "data_dir": str(tmp_path / "cache"), "lock_timeout": 2}
    region = define(options)
    compute = cached(region, calls)
    kept = compute("b")
    # A value, so that there is one to read.
    compute("a")
    with stopped(region, options, "__getitem__"):
        answers = [compute("c"), compute("c"), compute("b"), compute("d")]
        waited = waits.now

    assert answers == [3, 4, kept, 5]
    assert 2 <= waited < 2.1
    assert [compute("c"), compute("c")] == [6, 6]
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("kind", ["file", "dbm"])
def test_an_invalidation_waits_for_a_process_that_has_stopped(tmp_path, kind, calls, waits, caplog):
    """An invalidation and a clear wait each time, since an old value is served after them; they end, with a warning."""
    options = {"type": kind, "data_dir": str(tmp_path / "cache"), "lock_timeout": 2}
    region = define(options)
    compute = cached(region, calls)
    compute("b")
    with stopped(region, options, "__setitem__"):
        compute("b")
        region_invalidate(compute, None, "b")
        namespace_of(compute).remove()
        waited = waits.now

    assert 6 <= waited < 6.1
    assert len(warnings_of(caplog)) == 2
    assert "until it expires" in warnings_of(caplog)[1]


@pytest.mark.parametrize("kind", ["file", "dbm"])
def test_threads_do_not_wait_for_each_other_and_a_process_that_has_stopped(tmp_path, kind, waits):
    """Those who have waited for a process that has stopped compute at the same time, also the same value."""
    all_compute = threading.Barrier(10)
    options = {"type": kind, "data_dir": str(tmp_path / "cache"), "lock_timeout": 2 * PATIENCE}
    region = define(options)

    @cache_region(region)
    def compute(_argument):
        return all_compute.wait(PATIENCE)

    with stopped(region, options, "__setitem__"):
        answers = together(*[lambda: compute("b")] * 5, *[lambda: compute("c")] * 5)

    assert sorted(answers) == list(range(10))
    assert waits.now >= 2 * PATIENCE


@pytest.mark.parametrize("kind", ["file", "dbm"])
def test_a_process_that_stops_while_it_computes(tmp_path, kind, calls, monkeypatch):
    """An old value is not served for ever: after ``lock_timeout`` another process computes a new one."""
    clock = beakers_clock(monkeypatch)
    options = {"type": kind, "data_dir": str(tmp_path / "cache"), "lock_timeout": 100, "expire": 10}
    region = define(options)
    compute = cached(region, calls)
    compute()
    # For the other process, whose clock is the real one, it has expired as well.
    with computing_for_ever(region, options) as process:
        process.send_signal(signal.SIGSTOP)
        clock.now += 10
        before = compute()
        (file,) = (tmp_path / "cache" / f"container_{kind}_lock").glob("*.lock")
        os.utime(file, (clock.now, clock.now))
        after = [compute() for _ in range(3)]

    assert before == 1
    assert after == [1, 2, 2]


def test_store_error_is_raise_and_a_process_has_stopped(tmp_path, calls, waits):
    """With ``store_error = raise`` those who have waited get the error, and the next ones at once."""
    options = {"type": "file", "data_dir": str(tmp_path / "cache"), "lock_timeout": 2, "store_error": "raise"}
    region = define(options)
    compute = cached(region, calls)
    compute("b")
    with stopped(region, options, "__setitem__"):
        for _ in range(2):
            with pytest.raises(CacheStoreError, match=r"cache\.lock_timeout"):
                compute("b")

    assert 2 <= waits.now < 2.1


def test_a_thread_that_hangs_while_it_reads(tmp_path, calls):
    """A thread that waits for the disk holds up this process's others for ``lock_timeout``, and no longer."""
    compute = cached(define({"type": "file", "data_dir": str(tmp_path / "cache"), "lock_timeout": 0.05}), calls)
    compute("a")
    (file,) = (tmp_path / "cache" / "container_file").rglob("*.cache")
    file.unlink()
    # A file that has no end before its other side is closed.
    os.mkfifo(file)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(compute, "a")
        other_side = []
        wait_until(lambda: other_side.extend(opened_for_writing(file)) or other_side)
        answers = [compute("b"), compute("a")]
        os.close(other_side[0])
        hanging.result(PATIENCE)

    assert answers == [2, 3]
    assert compute("a") == compute("a")


def opened_for_writing(file):
    """Return the descriptor of a pipe that somebody reads; none where nobody does."""
    try:
        return [os.open(file, os.O_WRONLY | os.O_NONBLOCK)]
    except OSError:
        return []


@pytest.mark.parametrize("kind", ["file", "dbm"])
@pytest.mark.parametrize("fork", [os.fork, silent_fork])
def test_a_child_that_was_forked_while_a_thread_had_the_lock(tmp_path, kind, fork, calls):
    """The lock of a thread that does not run in a forked child does not keep it from its cache."""
    options = {"type": kind, "data_dir": str(tmp_path / "cache"), "lock_timeout": 0.05, "store_error": "raise"}
    compute = cached(define(options), calls)
    compute("a")
    lock = namespace_of(compute)._backend._manager.access_lock._thread_lock
    with lock:
        child = fork()
        if child == 0:
            try:
                os._exit(0 if [compute("a"), compute("b"), compute("b")] == [1, 2, 2] else 1)
            finally:
                os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_backend_that_is_made_of_beakers_files(tmp_path, calls, monkeypatch):
    """Somebody's own backend that is derived from Beaker's files waits no longer than these."""

    class Own(FileNamespaceManager):
        pass

    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:own", Own)
    compute = cached(define({"type": "ext:own", "data_dir": str(tmp_path / "cache"), "lock_timeout": 0.05}), calls)
    compute("a")
    with open(namespace_of(compute)._backend._manager.access_lock._path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = compute("a")

    assert (answer, compute("a")) == (2, 1)


# -- Backends that we do not know --------------------------------------------------------------------


class ForeignNamespace(NamespaceManager):
    """A backend as others write them: in a dict, and particular about what it is given."""

    kept: ClassVar = {}
    options: ClassVar = []

    def __init__(self, namespace, **options):
        super().__init__(namespace)
        self.options.append(options)

    def get_creation_lock(self, key):
        return beaker.container.NameLock(f"foreign/{self.namespace}/{key}", reentrant=False)

    def __getitem__(self, key):
        return self.kept[self.namespace, key]

    def __contains__(self, key):
        return (self.namespace, key) in self.kept

    def set_value(self, key, value, expiretime=None):
        assert isinstance(expiretime, int)
        self.kept[self.namespace, key] = value

    def __delitem__(self, key):
        del self.kept[self.namespace, key]

    def do_remove(self):
        for name in [name for name in self.kept if name[0] == self.namespace]:
            del self.kept[name]


@pytest.fixture
def foreign(monkeypatch):
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:foreign", ForeignNamespace)
    monkeypatch.setattr(ForeignNamespace, "kept", {})
    monkeypatch.setattr(ForeignNamespace, "options", [])
    return {"type": "ext:foreign"}


def test_another_backend_is_used_as_beaker_uses_it(foreign, calls, monkeypatch):
    """A backend of somebody else's keeps the values, gets its own options, and computes once for many, too."""
    clock = beakers_clock(monkeypatch)
    region = define({**foreign, "flavour": "mild", "expire": 100}, one={"flavour": "hot"})
    compute = cached(region, calls)
    answers = together(*[compute] * 20)
    clock.now += 100
    again = [compute(), compute()]
    region_invalidate(compute, None)

    assert (answers, again, compute()) == ([1] * 20, [2, 2], 3)
    assert ForeignNamespace.options[0]["flavour"] == "hot"
    namespace_of(compute).remove()
    assert not ForeignNamespace.kept
    region_invalidate(compute, None)


def test_another_backend_that_others_compute_in(foreign, calls):
    """The lock of another backend is heeded for ``lock_timeout``, and no longer."""
    compute = cached(define({**foreign, "lock_timeout": 0.05}), calls)
    # Held as another process would hold it: the lock is not among this process's turns.
    lock = namespace_of(compute)._backend.take(_digest(b""), 0.05)
    answer = compute()
    lock.release()

    assert answer == 1


# -- What the log says -------------------------------------------------------------------------------


def told(error, caplog):
    FailureReporter(RegionOptions(region="short_term", type="ext:redis")).report("failure", error)
    return caplog.messages[-1]


def test_the_log_has_no_statement_and_no_value(caplog):
    """Of an error's text only the first line is told: SQLAlchemy's others hold the statement and the value."""
    first = told(OSError("no connection\n[SQL: INSERT …]\n[parameters: 'private']"), caplog)

    assert first == "cache region short_term (ext:redis): failure: OSError: no connection"
    assert told(TimeoutError(), caplog) == "cache region short_term (ext:redis): failure: TimeoutError"
