"""Sessions in memcached, where Beaker keeps them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.stores._breaker import ConnectionLostError
from beaker_bridge.stores._memcached_client import (
    AT_ONCE,
    MemcachedError,
    MemcachedServer,
    RefusedError,
    TooLargeError,
    expiry,
    server_of,
)
from beaker_bridge.stores._server import ServerStore, outcome, too_large
from beaker_bridge.stores.base import Record, Swap, refused, unreachable

T = TypeVar("T")

#: The key of the probe; nobody writes it, so the answer is small.
_PROBE = "beaker_bridge_probe"


class MemcachedStore(ServerStore):
    """Beaker's ``ext:memcached``. The token of a record is the server's; None for our own write, which returns none.

    Args:
        options: the option table.
    """

    kind = "ext:memcached"
    envelope = BareEnvelope
    lists = False
    expires_by_itself = True

    def __init__(self, options: SessionOptions) -> None:
        self._servers = _servers(options)
        super().__init__(options.store_timeout)

    def read(self, session_id: str) -> Record | None:
        key, server = self._place(session_id)
        return self._read(server, key)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        key, server = self._place(session_id)
        return self._swap(server, key, record, new, expires_in)

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def bypass_breaker(self, session_id: str) -> None:
        _, server = self._place(session_id)
        self._breaker(server.name).bypass(lambda: self._probe(server))

    def _place(self, session_id: str) -> tuple[str, MemcachedServer]:
        key = f"{session_id}_session"
        return key, server_of(self._servers, key)

    def _read(self, server: MemcachedServer, key: str) -> Record | None:
        value = self._ask(server, server.gets, key)
        return Record(*value) if value else None

    def _swap(
        self, server: MemcachedServer, key: str, record: Record | None, new: bytes | None, expires_in: float | None
    ) -> Swap:
        if record is not None and record.token is None:
            # Read our own write again: the server returns a token for a read only.
            found = self._read(server, key)
            if found is None or found.raw != record.raw:
                return outcome(found, new)
            record = found
        made = self._write(server, key, record, new, expiry(expires_in))
        if made:
            return Swap(True, None if new is None else Record(new))
        return outcome(None if made is None else self._read(server, key), new)

    def _write(
        self, server: MemcachedServer, key: str, record: Record | None, new: bytes | None, expires: int
    ) -> bool | None:
        """Return whether the write was made; None if it was not, and the key is absent."""
        if record is None:
            return self._ask(server, server.add, key, new, expires) if new is not None else False
        if new is None:
            # Delete by an expiry in the past: the command 'delete' does not compare.
            return self._ask(server, server.cas, key, b"", AT_ONCE, record.token)
        return self._ask(server, server.cas, key, new, expires, record.token)

    def _swap_lease(self, session_id: str, old: bytes | None, new: bytes | None, expires_in: float | None) -> Swap:
        # Keep the lock on the session's own server.
        _, server = self._place(session_id)
        record = None if old is None else Record(old)
        return self._swap(server, f"{session_id}_lock", record, new, expires_in)

    def _ask(self, server: MemcachedServer, operation: Callable[..., T], key: str, *arguments: Any) -> T:
        # Give each server a breaker of its own: while one is down, the others still have their sessions.
        breaker = self._breaker(server.name)
        answer: T = breaker.call(lambda: self._probe(server), self._translated, server, operation, key, *arguments)
        return answer

    def _probe(self, server: MemcachedServer) -> object:
        return self._translated(server, server.gets, _PROBE)

    def _translated(self, server: MemcachedServer, operation: Callable[..., T], key: str, *arguments: Any) -> T:
        try:
            return operation(key, *arguments)
        except TooLargeError as error:
            raise too_large(self.kind, len(arguments[0]), "no item of that size (memcached's option -I)") from error
        except RefusedError as error:
            raise refused(self.kind, error, operation.__name__) from error
        except MemcachedError as error:
            raise unreachable(self.kind, error) from error
        except OSError as error:
            server.close()
            # The server may be well: a slow link cannot carry a large record in time.
            raise unreachable(self.kind, error, ConnectionLostError) from error


def _servers(options: SessionOptions) -> list[MemcachedServer]:
    """Return the servers in the order of their names: it decides which one has a key."""
    url = options.url if isinstance(options.url, str) else ""
    with suppress(ValueError):
        return [MemcachedServer(address.strip(), options.store_timeout) for address in url.split(";")]
    # Raise outside of the except block: the handled error quotes an address, a part of which may be a password.
    raise SettingsError(
        f"{options.label('url')} must be a list of memcached's addresses (host:port or unix:/path) with semicolons"
        " between them",
        name="url",
    )
