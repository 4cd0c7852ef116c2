"""``beaker-bridge bench``: what a request of a site pays for its session on this machine, beside its store alone."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from beaker_bridge.cli.command import Subcommand, open_site, site_arguments
from beaker_bridge.cli.output import OK, Output
from beaker_bridge.cli.trial import EXPIRY, own_record
from beaker_bridge.request.exchange import SessionObject
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.site.find import SiteError
from beaker_bridge.stores.base import Store

#: The operations of a store that a request waits for.
_OPERATIONS = ("read", "swap", "lock")
#: The part of the calls that comes before, to warm up.
_WARM_UP = 10
#: A session as a shop has it.
_CONTENT = {
    "user": 4711,
    "csrf": "5f0c7a6d2b9e4c1f8a3d7e6b5c4f3a2d1e0f9b8c",
    "cart": [{"product": number, "count": 1, "price": "19.90"} for number in range(100, 105)],
    "language": "eo",
    "visits": 0,
}


class Measured(NamedTuple):
    """The times of one kind of call."""

    what: str
    p50_ms: float
    p99_ms: float
    #: How often the store is asked.
    round_trips: float


@click.command(cls=Subcommand)
@click.option("--requests", "count", type=click.IntRange(1), default=1000, show_default=True, help="How many of each.")
@site_arguments
def bench(output: Output, *, uri: str, variables: tuple[str, ...], count: int) -> int:
    """Measure what a request of the site pays for its session here.

    The session is loaded, changed and committed as our middleware and session factory do it, with the site's options
    and its store, under an id of its own, which is removed.
    """
    site = open_site(output, uri, variables)
    config = site.config
    # Change nothing of others': this process purges nothing.
    config.purge_pause = (-math.inf, math.inf)
    with _bench(config) as bench, output.progress("calls", len(bench.calls) * count) as progress:
        measured = [_measured(config.store, name, call, count, progress.advance) for name, call in bench.calls.items()]
    kept = "the cookie" if config.store is None else f"the store {config.store.kind}"
    title = f"{os.path.relpath(site.file)}: {count:,} calls each; a session of {bench.size:,} bytes in {kept}"
    output.line(title, style="bold")
    rows = [(row.what, f"{row.p50_ms:.3f}", f"{row.p99_ms:.3f}", f"{row.round_trips:g}") for row in measured]
    output.table(("Call", "p50 (ms)", "p99 (ms)", "Round trips"), rows, right={1, 2, 3})
    output.result(
        {
            "file": site.file,
            "type": config.options.type,
            "calls": count,
            "bytes": bench.size,
            "measured": [row._asdict() for row in measured],
        }
    )
    return OK


class _Bench(NamedTuple):
    """The measurements."""

    #: The size of the session's record, or of its cookie, in bytes.
    size: int
    calls: dict[str, Callable[[], object]]


@contextmanager
def _bench(config: SessionConfig) -> Iterator[_Bench]:
    """Yield what is measured; its record is removed afterwards.

    Raises:
        SiteError: the site's store is not made yet, or its sessions have no cookie.
    """
    store = config.store
    if not config.options.use_cookies:
        raise SiteError(f"{config.options.label('use_cookies')} is false: a request of the site finds no session")
    if store is None:
        cookie = _Visitor(config, "").change(_CONTENT)
        yield _Bench(len(cookie), _requests(config, cookie))
        return
    unmade = store.unmade()
    if unmade:
        raise SiteError(f"{unmade} is not there yet: the site's first request makes it")
    with own_record(store) as session_id:
        now = config.clock()
        record = {**_CONTENT, "_creation_time": now, "_accessed_time": now}
        one, other = (config.codec.encode({**record, "visits": visits}) for visits in (10, 11))
        store.swap(session_id, None, one, EXPIRY)
        cookie = f"{config.options.key}={config.signer.sign(session_id)}"
        yield _Bench(len(one), {**_requests(config, cookie), **_alone(store, session_id, one, other)})


def _requests(config: SessionConfig, cookie: str) -> dict[str, Callable[[], object]]:
    visitor, visits = _Visitor(config, cookie), itertools.count(20)
    return {
        "a request that reads": visitor.read,
        "a request that writes": lambda: visitor.change({"visits": next(visits)}),
    }


def _alone(store: Store, session_id: str, one: bytes, other: bytes) -> dict[str, Callable[[], object]]:
    records = itertools.cycle((one, other))
    return {
        "the store alone: read": lambda: store.read(session_id),
        "the store alone: read, swap": lambda: store.swap(session_id, store.read(session_id), next(records), EXPIRY),
    }


class _Visitor:
    """A browser whose requests are measured.

    Args:
        config: the configuration of the site's sessions.
        cookie: its ``Cookie`` header.
    """

    def __init__(self, config: SessionConfig, cookie: str) -> None:
        self._config = config
        self._cookie = cookie

    def read(self) -> None:
        """Make a request that reads its session."""
        session = self._begin()
        session.get("user")
        session.exchange.finish([])

    def change(self, content: dict[str, Any]) -> str:
        """Make a request that changes its session, and return the cookie that the browser has then."""
        session = self._begin()
        session.update(content)
        session.save()
        for name, value in session.exchange.finish([]):
            if name == "Set-Cookie":
                self._cookie = value.partition(";")[0]
        return self._cookie

    def _begin(self) -> Any:
        return SessionObject({"wsgi.url_scheme": "https", "HTTP_COOKIE": self._cookie}, self._config)


def _measured(
    store: Store | None, what: str, call: Callable[[], object], count: int, advance: Callable[[], object]
) -> Measured:
    """Measure one kind of call."""
    warm_up = max(count // _WARM_UP, 2)
    with _counted(store) as operations:
        for _ in range(warm_up):
            call()
    took = []
    for _ in range(count):
        began = time.perf_counter_ns()
        call()
        took.append(time.perf_counter_ns() - began)
        advance()
    took.sort()
    p50, p99 = (took[min(int(count * part), count - 1)] / 1e6 for part in (0.5, 0.99))
    return Measured(what, p50, p99, sum(operations.values()) / warm_up)


@contextmanager
def _counted(store: Store | None) -> Iterator[dict[str, int]]:
    """Yield how often each operation of a store is called meanwhile."""
    counts = dict.fromkeys(_OPERATIONS, 0)
    is_within = False

    def counted(name: str) -> Callable[..., Any]:
        operation = getattr(store, name)

        def count(*arguments: Any, **keywords: Any) -> Any:
            nonlocal is_within
            # A store's own swap may call its read.
            counts[name] += not is_within
            before, is_within = is_within, True
            try:
                return operation(*arguments, **keywords)
            finally:
                is_within = before

        return count

    if store is not None:
        vars(store).update({name: counted(name) for name in _OPERATIONS})
    try:
        yield counts
    finally:
        if store is not None:
            for name in _OPERATIONS:
                del vars(store)[name]
