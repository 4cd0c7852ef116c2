"""A request, as these tests drive it step by step: its session is loaded, changed, and committed.

No server and no threads: two requests overlap where one is begun before the other has ended.
"""

from __future__ import annotations

import dbm.dumb
import threading
from contextlib import contextmanager

from webob.cookies import parse_cookie

from beaker_bridge.options.reader import given, read_options
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.record.fields import RESERVED_KEYS
from beaker_bridge.request.exchange import SessionObject
from beaker_bridge.session.base import SafeSession
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.listeners import THREAD
from beaker_bridge.stores.base import ID_FORM, Record, Store, Swap

#: When the tests' clocks begin, in seconds since the epoch.
START = 1_700_000_000.0
NAME = "beaker.session.id"

#: Every store, by the fixture of the server that it needs.
STORES = {
    "memory": None,
    "file": None,
    "dbm": None,
    "sqlite": None,
    "redis": "redis_server",
    "rediscluster": "redis_cluster",
    "memcached": "memcached_server",
    "postgresql": "postgresql_server",
    "mariadb": "mariadb_server",
}


def store_options(name: str, folder: object, url: str | None = None) -> dict[str, object]:
    """Return the session options of a store.

    Args:
        name: one of :data:`STORES`.
        folder: a directory for the stores that keep files.
        url: the server's address.
    """
    if name == "memory":
        return {"type": name}
    if name == "file":
        return {"type": name, "data_dir": str(folder)}
    if name == "dbm":
        return {"type": name, "data_dir": str(folder), "dbmmodule": dbm.dumb}
    if name in ("redis", "memcached"):
        return {"type": f"ext:{name}", "url": url}
    if name == "rediscluster":
        return {"type": "ext:rediscluster", "urls": url}
    return {"type": "ext:database", "url": url or f"sqlite:///{folder}/sessions.db"}


def options_of(request, folder) -> dict[str, object]:
    """Return the session options of the store that a test's fixture is parametrized with."""
    fixture = STORES[request.param]
    return store_options(request.param, folder, request.getfixturevalue(fixture).url if fixture else None)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def config_of(**options: object) -> SessionConfig:
    """Return the config of session options, in memory if they name no store."""
    return SessionConfig(read_options(given(options)))


class Request:
    """A request: it loads its session at once, as the first touch does.

    Args:
        config: the configuration.
        cookie: the ``Cookie`` header.
        scheme: the URL's scheme.
    """

    def __init__(self, config: SessionConfig, cookie: str = "", *, scheme: str = "http") -> None:
        self.environ = {"wsgi.url_scheme": scheme, "HTTP_COOKIE": cookie}
        self.object = SessionObject(self.environ, config)
        self.exchange = self.object.exchange
        self.events: list = []
        self.exchange.notify = self.events.append
        self.session = PyramidSession(self.object)
        self.loaded: SafeSession = self.exchange.load()

    def commit(self) -> Request:
        """End the request's work on its session, and return the request."""
        self.exchange.commit()
        return self

    def discard(self) -> None:
        """Let the request leave no trace."""
        self.exchange.discard()

    @property
    def set_cookie(self) -> str | None:
        """The response's ``Set-Cookie`` header."""
        return dict(self.exchange.with_session_headers([])).get("Set-Cookie")

    @property
    def set_cookies(self) -> list[str]:
        """All of the response's ``Set-Cookie`` headers."""
        return [value for name, value in self.exchange.with_session_headers([]) if name == "Set-Cookie"]

    @property
    def told(self) -> list[tuple[str, dict]]:
        """The events so far, by name, with their data."""
        return [(type(event).__name__, dict(event.data)) for event in self.events]


class Browser:
    """A cookie jar for one cookie."""

    def __init__(self, config: SessionConfig) -> None:
        self.config = config
        self.cookie = ""

    def begin(self, config: SessionConfig | None = None, **options: object) -> Request:
        """Begin a request with the cookie that the browser has now, perhaps under a changed configuration."""
        return Request(config or self.config, self.cookie, **options)

    def end(self, request: Request) -> Request:
        """Commit a request and keep the cookie of its response."""
        return self.receive(request.commit())

    def receive(self, request: Request) -> Request:
        """Keep the cookie of a request's response."""
        if request.set_cookie is not None:
            value, *attributes = request.set_cookie.split("; ")
            self.cookie = "" if "Max-Age=0" in attributes else value
        return request

    def write(self, **values: object) -> Request:
        """Make a request that sets keys."""
        request = self.begin()
        request.session.update(values)
        return self.end(request)

    def read(self) -> dict:
        """Make a request that reads the session."""
        return dict(self.end(self.begin()).session)

    @property
    def id(self) -> str:
        """The id in the cookie; only for a configuration without ``secret``."""
        return dict(parse_cookie(self.cookie)).get(NAME.encode(), b"").decode()


def wait_for_events() -> None:
    """Wait until the events of stores that were sent so far have reached their subscribers."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join()


def stored(config: SessionConfig, session_id: str) -> dict | None:
    """Return what stands in the store under an id, or nothing."""
    record = config.store.read(session_id)
    return None if record is None else config.codec.decode(record.raw)[0]


def content(record: dict | None) -> dict | None:
    """Return what the application put into a record."""
    return None if record is None else {key: value for key, value in record.items() if key not in RESERVED_KEYS}


class WatchedStore(Store):
    """A store that counts its operations, and lets a test step in before or after one of them.

    Args:
        store: the store to be watched.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.kind, self.envelope = store.kind, store.envelope
        self.calls: list[str] = []
        #: What each swap allowed the server to forget, in seconds.
        self.expiries: list[float | None] = []
        #: What is done once before the n-th swap from now, or after it: ``{n: action}``.
        self.before_swap: dict[int, object] = {}
        self.after_swap: dict[int, object] = {}

    def read(self, session_id: str) -> Record | None:
        self.calls.append("read")
        return self._store.read(session_id)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        self.calls.append("swap")
        self.expiries.append(expires_in)
        number = self.calls.count("swap")
        self.before_swap.pop(number, _nothing)()
        swap = self._store.swap(session_id, record, new, expires_in)
        self.after_swap.pop(number, _nothing)()
        return swap

    @contextmanager
    def lock(self, session_id: str, timeout: float):
        self.calls.append("lock")
        with self._store.lock(session_id, timeout) as lease:
            yield lease

    def ids(self, form=ID_FORM):
        return self._store.ids(form)

    def sweep(self, before: float, *, dry_run: bool = False) -> int:
        return self._store.sweep(before, dry_run=dry_run)

    def close(self) -> None:
        self._store.close()


def _nothing() -> None:
    """Do nothing."""


def watched(config: SessionConfig) -> WatchedStore:
    """Watch a config's store from now on."""
    config.store = WatchedStore(config.store)
    return config.store
