"""What the tests of cache regions share: regions that leave nothing behind, on every backend."""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import beaker.cache
import beaker.container
import sqlalchemy as sa
from beaker.ext.sqla import SqlaNamespaceManager, make_cache_table

from beaker_bridge import set_cache_regions_from_settings
from beaker_bridge.regions import creation_lock
from beaker_bridge.testing import forget_regions
from beaker_bridge.testing.contract import PATIENCE

#: The seed's example.
SEED = {
    "cache.regions": "default_term, second, short_term, long_term",
    "cache.type": "memory",
    "cache.second.expire": "1",
    "cache.short_term.expire": "60",
    "cache.default_term.expire": "300",
    "cache.long_term.expire": "3600",
}
#: The backends that a region may be on.
KINDS = (
    *("memory", "file", "dbm", "redis", "rediscluster", "memcached"),
    *("sqlite", "sqla", "postgresql", "mariadb"),
)


@contextmanager
def no_region_left():
    """Leave Beaker's regions, and what was opened for ours, as they were."""
    before = dict(beaker.cache.cache_regions)
    try:
        yield
    finally:
        forget_regions()
        beaker.cache.cache_regions.clear()
        beaker.cache.cache_regions.update(before)
        beaker.cache.cache_managers.clear()


def options_for(kind, request, tmp_path):
    """Return the options of a region on a backend; its server is started when it is first asked for."""
    if kind == "memory":
        return {"type": "memory"}
    if kind in ("file", "dbm"):
        return {"type": kind, "data_dir": str(tmp_path / "cache")}
    # Fifty threads on two processors: a store that is slow is not a store that fails.
    patient = {"store_timeout": 60}
    if kind == "rediscluster":
        return {"type": "ext:rediscluster", "urls": request.getfixturevalue("redis_cluster").url, **patient}
    if kind in ("redis", "memcached"):
        return {"type": f"ext:{kind}", "url": request.getfixturevalue(f"{kind}_server").url, **patient}
    if kind == "sqla":
        return {"type": "ext:sqla", **sqla_arguments(request, tmp_path), **patient}
    url = f"sqlite:///{tmp_path}/cache.db" if kind == "sqlite" else request.getfixturevalue(f"{kind}_server").url
    return {"type": "ext:database", "url": url, **patient}


def sqla_arguments(request, tmp_path):
    """Return an application's engine, and its table."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/application.db", connect_args={"timeout": 60})
    request.addfinalizer(engine.dispose)
    # Beaker imports SQLAlchemy when its backend is first used.
    SqlaNamespaceManager._init_dependencies()
    table = make_cache_table(sa.MetaData())
    table.create(engine)
    return {"bind": engine, "table": table}


def define(options, **regions_options):
    """Define regions of fresh names, all with the options, and each with some of its own; return the names.

    Servers are shared by the tests, and functions are told apart by file and name: a region of a name
    that is used once has nothing in it.
    """
    names = {name: f"{name}_{secrets.token_hex(8)}" for name in regions_options or ("region",)}
    settings = {f"cache.{option}": value for option, value in options.items()}
    for name, own in regions_options.items():
        settings |= {f"cache.{names[name]}.{option}": value for option, value in own.items()}
    set_cache_regions_from_settings({"cache.regions": [*names.values()], **settings})
    return [*names.values()] if len(names) > 1 else names.popitem()[1]


class Clock:
    """The time of day, as the tests set it."""

    def __init__(self, now=1_000_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        """Let time pass: a sleep that takes none."""
        self.now += seconds


def beakers_clock(monkeypatch):
    """Return the clock by which Beaker says when a value was stored, and whether it has expired."""
    clock = Clock()
    monkeypatch.setattr(beaker.container, "time", SimpleNamespace(time=clock))
    return clock


class Counted:
    """A function's calls, and what it answers: how many there were."""

    def __init__(self):
        self.calls = []

    def __call__(self, *arguments):
        self.calls.append(arguments)
        return len(self.calls)

    @property
    def count(self):
        return len(self.calls)


def all_waiting(monkeypatch, count):
    """Return a barrier that opens when so many threads wait for a turn, and who has the turn waits for the barrier."""
    barrier = threading.Barrier(count + 1)

    class Awaited(threading.Event):
        def wait(self, timeout=None):
            barrier.wait(PATIENCE)
            return super().wait(timeout)

    names = {name: getattr(threading, name) for name in ("Lock", "get_ident")}
    monkeypatch.setattr(creation_lock, "threading", SimpleNamespace(Event=Awaited, **names))
    return barrier
