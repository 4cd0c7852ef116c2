"""Values of cache regions on servers, in the same stores as sessions."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.options.table import RegionOptions, SessionOptions
from beaker_bridge.options.types import MEMCACHED
from beaker_bridge.regions.backends import Backend
from beaker_bridge.stores import open_store
from beaker_bridge.stores._lease import TimedLeases
from beaker_bridge.stores._server import ServerStore
from beaker_bridge.stores.base import Record, Swap

#: The options of a region that are passed to the store.
_STORE_OPTIONS = (
    *("url", "urls", "username", "password", "key_prefix"),
    *("table_name", "schema_name", "sa_opts", "bind", "table"),
)

#: The servers that are open, by their options. Guarded by _servers_guard.
_servers: list[tuple[SessionOptions, ServerStore]] = []
_servers_guard = threading.Lock()


def open_servers(options: RegionOptions, arguments: Mapping[str, Any]) -> tuple[ServerStore, ...]:
    """Return the servers of a region; each is opened once, for all regions.

    Args:
        options: the region's.
        arguments: its options, as Beaker passes them.

    Raises:
        SettingsError: the arguments name no server, or its client is not installed.
    """
    given = {name: arguments[name] for name in _STORE_OPTIONS if arguments.get(name) is not None}
    labels, timeout = options.labels, options.store_timeout
    store = SessionOptions(type=options.type, store_timeout=timeout, labels=labels, prefix=options.prefix, **given)
    if store.type != MEMCACHED or not isinstance(store.url, str):
        return (_server(store),)
    # A store for each server: if one of them is down, the others still work.
    return tuple(_server(replace(store, url=address)) for address in store.url.split(";"))


def _server(options: SessionOptions) -> ServerStore:
    with _servers_guard:
        for known, server in _servers:
            if known == options:
                return server
        server = cast(ServerStore, open_store(options))
        _servers.append((options, server))
        return server


def close_servers() -> None:
    """Close the connections to all servers, and forget them."""
    with _servers_guard:
        for _, server in _servers:
            server.close()
        _servers.clear()


class ServerBackend(Backend):
    """Redis, Redis Cluster, memcached and SQL: one record per value, in the same stores as sessions.

    A value begins with the namespace's generation, which is a record of its own. Clearing the namespace changes
    the generation: no server has to search for the values.

    Args:
        name: the name of the namespace.
        servers: its servers; each value is on one of them.
    """

    def __init__(self, name: str, servers: tuple[ServerStore, ...]) -> None:
        self._name = name
        self._generation = f"{name}.generation"
        self._servers = servers

    def read(self, key: str) -> Any:
        server, name = self._place(key)
        record = server.read(name)
        generation = server.read(self._generation) if record else None
        # Without a generation, which may have been evicted, any value may have been cleared.
        if record is None or generation is None or not record.raw.startswith(generation.raw):
            return None
        return record.raw[len(generation.raw) :]

    def write(self, key: str, content: Any, seconds: float | None) -> None:
        server, name = self._place(key)
        found = server.read(self._generation) or server.swap(self._generation, None, _word()).found
        if found is not None:  # pragma: no branch -- unless it is deleted at this moment
            # A failed swap is fine: the other caller has just computed the value too.
            server.swap(name, server.read(name), found.raw + content, seconds)

    def delete(self, key: str) -> None:
        server, name = self._place(key)
        server.bypass_breaker(name)
        record = server.read(name)
        while record is not None:
            record = server.swap(name, record, None).found

    def clear(self) -> None:
        errors = []
        for server in self._servers:
            try:
                self._change_generation(server)
            except SessionStoreError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _change_generation(self, server: ServerStore) -> None:
        server.bypass_breaker(self._generation)
        record, new = server.read(self._generation), _word()
        while not (swap := server.swap(self._generation, record, new)).made:
            record = swap.found

    def take(self, key: str, seconds: float) -> Any:
        server, name = self._place(f"{key}.lease")
        return _leases(server).take(name, seconds)

    def end(self, key: str, lease: Any) -> None:
        server, name = self._place(f"{key}.lease")
        _leases(server).end(name, lease)

    def _place(self, key: str) -> tuple[ServerStore, str]:
        return self._servers[int(key[:8], 16) % len(self._servers)], f"{self._name}.{key}"


def _word() -> bytes:
    return secrets.token_hex(16).encode("ascii")


def _leases(server: ServerStore) -> TimedLeases:
    """Return the leases on a server; each names its end, since SQL keeps an entry whose time is over."""

    def read(name: str) -> bytes | None:
        record = server.read(name)
        return record and record.raw

    def swap(name: str, old: bytes | None, new: bytes | None, expires_in: float | None) -> Swap:
        return server.swap(name, None if old is None else Record(old), new, expires_in)

    return TimedLeases(swap, read, time.time)
