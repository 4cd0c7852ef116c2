"""What is measured: each function runs one part of the benchmark, and returns rows for the report."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from beaker_bridge import SessionTooLargeError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.request.exchange import SessionObject
from beaker_bridge.session.config import SessionConfig
from tests.benchmarks.backends import Backend
from tests.benchmarks.content import LARGE, MIDDLE, SESSIONS, SMALL, contents_of
from tests.benchmarks.contestants import (
    LEAST,
    NAME,
    NONE,
    OPERATIONS,
    OURS,
    READ,
    SECRET,
    WRITE,
    Browser,
    contestants,
    least,
    none,
    ours,
)
from tests.benchmarks.rounds import Cost, costs, rounds

Row = dict[str, Any]

#: JSON alone, of the same content.
JSON = "JSON alone"
#: A large session takes long: it gets fewer rounds.
FEWER = {SMALL: 1, MIDDLE: 2, LARGE: 8}
#: How many sessions are stored, and how many of them the requests use.
FEW, MANY = 1_000, 1_000_000
USED = 1_000
THREADS = (1, 2, 4, 8, 16, 32)
#: Seconds of one measure of throughput.
WHILE = 0.5
#: How many requests the operations are counted in.
COUNTED = 20


# -- Operations and sizes ----------------------------------------------------------------------------


def operation_costs(backend: Backend, number: int) -> Iterator[Row]:
    """Yield what a small session costs each contestant, over the view without one."""
    for operation in OPERATIONS:
        found = costs(rounds(contestants(backend, contents_of(SMALL), operation), number), NONE)
        for contestant, cost in found.items():
            yield _row(backend, operation, SMALL, contestant, cost)


def size_costs(backend: Backend, number: int) -> Iterator[Row]:
    """Yield what larger sessions cost ours and the least possible, and JSON alone of the same content."""
    for operation, size in itertools.product((READ, WRITE), (SMALL, MIDDLE, LARGE)):
        number_of, contents = SESSIONS[size], contents_of(size)
        actions: dict[str, Callable[[], object]] = {NONE: Browser(none(backend, contents), operation)}
        actions[JSON] = _json(operation, [next(contents) for _ in range(number_of)])
        try:
            actions[OURS] = Browser(ours(backend, contents), operation, sessions=number_of)
        except SessionTooLargeError:
            continue
        if size <= backend.plain_largest:
            actions[LEAST] = Browser(least(backend, contents), operation, sessions=number_of)
        times = rounds(actions, max(4, number // FEWER[size]))
        found = {**costs(times, NONE), JSON: Cost.of(times[JSON])}
        for contestant, cost in found.items():
            yield _row(backend, operation, size, contestant, cost)


def _json(operation: str, contents: list[dict[str, Any]]) -> Callable[[], object]:
    texts = itertools.cycle(map(json.dumps, contents))
    if operation == READ:
        return lambda: json.loads(next(texts))
    return lambda: json.dumps(json.loads(next(texts)))


def _row(backend: Backend, operation: str, size: int, contestant: str, cost: Cost) -> Row:
    return {
        "backend": backend.name,
        "operation": operation,
        "size": size,
        "contestant": contestant,
        "us": cost._asdict(),
    }


def counts(backend: Backend) -> Iterator[Row]:
    """Yield the store's operations, and the cookies, of one request of each contestant.

    To count slows down: this comes after all that is timed.
    """
    for operation in OPERATIONS:
        for contestant, browser in contestants(backend, contents_of(SMALL), operation).items():
            # The first one opens connections.
            browser()
            with backend.counting() as counter:
                for _ in range(COUNTED):
                    browser()
            found = {name: round(calls / COUNTED, 2) for name, calls in counter.items() if calls}
            yield {
                "backend": backend.name,
                "operation": operation,
                "contestant": contestant,
                "operations": found,
                "cookies": sum(name.lower() == "set-cookie" for name, _ in browser.headers),
            }


# -- Stored sessions ---------------------------------------------------------------------------------


def stored_costs(open_backend: Callable[[], Backend], number: int) -> Iterator[Row]:
    """Yield what a request costs where few sessions are stored, and where many are."""
    with open_backend() as few, open_backend() as many:
        apps = {few: ours(few, contents_of(SMALL)), many: ours(many, contents_of(SMALL))}
        cookies = {few: _filled(few, apps[few], FEW), many: _filled(many, apps[many], MANY)}
        for operation in (READ, WRITE):
            actions = {NONE: Browser(none(few, contents_of(SMALL)), operation)}
            actions |= {str(len_): Browser(apps[b], operation, cookies[b]) for len_, b in ((FEW, few), (MANY, many))}
            for stored, cost in costs(rounds(actions, number), NONE).items():
                yield {**_row(few, operation, SMALL, OURS, cost), "stored": int(stored)}


def _filled(backend: Backend, app: Any, number: int) -> list[str]:
    """Store many sessions, and return the cookies of some of them."""
    config = app._config
    like = Browser(app, READ).cookies[0].partition("=")[2]
    ids = [hashlib.md5(str(place).encode("ascii")).hexdigest() for place in range(number)]
    backend.fill(ids, config.signer.verify(like)[0])
    return [f"{NAME}={config.signer.sign(session_id)}" for session_id in ids[:: number // USED]]


# -- Threads -----------------------------------------------------------------------------------------


def throughputs(backend: Backend, repetitions: int) -> Iterator[Row]:
    """Yield how many requests per second threads make, ours and the least possible."""
    apps = {LEAST: least(backend, contents_of(SMALL)), OURS: ours(backend, contents_of(SMALL))}
    for operation, number in itertools.product((READ, WRITE), THREADS):
        browsers = {name: [Browser(app, operation) for _ in range(number)] for name, app in apps.items()}
        found = {name: [] for name in apps}
        for _ in range(repetitions):
            for name in apps:
                found[name].append(_throughput(browsers[name]))
        for name in apps:
            per_second = round(statistics.median(found[name]), 1)
            yield {
                "backend": backend.name,
                "operation": operation,
                "contestant": name,
                "threads": number,
                "per_second": per_second,
            }


def _throughput(browsers: list[Browser]) -> float:
    start = threading.Barrier(len(browsers) + 1)
    ends_at = [0.0]
    made = []

    def send(browser):
        browser()
        start.wait()
        number = 0
        while time.perf_counter() < ends_at[0]:
            browser()
            number += 1
        made.append(number)

    threads = [threading.Thread(target=send, args=(browser,)) for browser in browsers]
    for thread in threads:
        thread.start()
    # Nobody is past the barrier before this thread is.
    ends_at[0] = time.perf_counter() + 60
    start.wait()
    ends_at[0] = time.perf_counter() + WHILE
    for thread in threads:
        thread.join()
    return sum(made) / WHILE


# -- Import time and memory --------------------------------------------------------------------------

_TIMED_IMPORT = """
import gc, sys, time
import pyramid.config, pyramid.router, pyramid.session, beaker.middleware, beaker.session
before = set(sys.modules)
# Its turn over all that Pyramid has imported would fall into ours by chance: 25 ms.
gc.disable()
began = time.perf_counter()
import beaker_bridge
took = time.perf_counter() - began
clients = {"redis", "sqlalchemy", "memcache", "pymemcache", "pymysql", "psycopg", "cryptography"}
print(took * 1000, *sorted(clients & (set(sys.modules) - before)))
"""


def import_time(number: int) -> Row:
    """Return what ``import beaker_bridge`` takes in ms, over pyramid and beaker, in fresh processes."""
    times, clients = [], set()
    with tempfile.TemporaryDirectory() as cache:
        # Bytecode is kept, as on every site; the first process writes it.
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(number + 1):
            done = subprocess.run(
                [sys.executable, "-c", _TIMED_IMPORT], env=environ, check=True, capture_output=True, text=True
            )
            took, *found = done.stdout.split()
            times.append(float(took))
            clients.update(found)
    del times[0]
    return {"ms": Cost.of(times)._asdict(), "clients": sorted(clients)}


def memory(number: int = 1000) -> Row:
    """Return the memory of one loaded session in bytes, its data's own left out."""
    content = next(contents_of(SMALL))
    config = SessionConfig(read_options(given({"type": "memory", "secret": SECRET, "key": NAME})))
    first = PyramidSession(SessionObject({}, config))
    first.update(content)
    loaded = first._object._session()
    loaded.commit()
    cookie = f"{NAME}={config.signer.sign(loaded.id)}"
    text = json.dumps(content)
    of_data = _traced(lambda: json.loads(text), number)
    environs = iter([{"HTTP_COOKIE": cookie} for _ in range(2 * number)])

    def load() -> PyramidSession:
        session = PyramidSession(SessionObject(next(environs), config))
        assert session["count"] == 0
        return session

    return {"bytes": _traced(load, number) - of_data, "bytes_of_data": of_data}


def _traced(make: Callable[[], object], number: int) -> int:
    """Return the bytes that one object takes while it lives."""
    kept: list[object] = [None] * number
    make()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for place in range(number):
        kept[place] = make()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) // number


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": sys.version.split()[0]}
    for package in ("pyramid", "Beaker", "pyramid_beaker", "pyramid_session_redis", "redis", "SQLAlchemy", "psycopg"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def folder_of(root: Path) -> Callable[[], Path]:
    """Return a function that makes a new empty folder each time."""
    numbers = itertools.count()

    def make() -> Path:
        folder = root / str(next(numbers))
        folder.mkdir()
        return folder

    return make
