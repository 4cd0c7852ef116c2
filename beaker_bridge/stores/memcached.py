"""Sessions in memcached, where Beaker keeps them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import masked
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.stores._breaker import BrokenError, ServerStore, outcome, too_large
from beaker_bridge.stores._memcached_client import (
    AT_ONCE,
    MemcachedError,
    MemcachedServer,
    TooLargeError,
    expiry,
    server_of,
)
from beaker_bridge.stores.base import Record, Swap, unreachable

T = TypeVar("T")

#: The key by which we find out whether a server answers.
_PROBE = "beaker_bridge_probe"


class MemcachedStore(ServerStore):
    """Beaker's ``ext:memcached``. The token of a record is the server's; nothing, if it has not told it.

    Args:
        options: the option table.
    """

    kind = "ext:memcached"
    envelope = BareEnvelope

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

    def forget(self) -> None:
        super().forget()
        self.close()

    def _start(self) -> None:
        super()._start()
        # Each by itself: where one of them is down, the others still have their sessions.
        self._pauses = {server: self._new_pause() for server in self._servers}

    def _place(self, session_id: str) -> tuple[str, MemcachedServer]:
        self._notice_fork()
        key = f"{session_id}_session"
        return key, server_of(self._servers, key)

    def _read(self, server: MemcachedServer, key: str) -> Record | None:
        value = self._ask(server, server.gets, key)
        return Record(*value) if value else None

    def _swap(
        self, server: MemcachedServer, key: str, record: Record | None, new: bytes | None, expires_in: float | None
    ) -> Swap:
        if record is not None and record.token is None:
            # Our own write: the server tells a token to who reads, not to who writes.
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
        """Return whether the write was made; nothing where it was not, and nothing stands there."""
        if record is None:
            return self._ask(server, server.add, key, new, expires) if new is not None else False
        if new is None:
            # A deletion that compares: 'delete' does not.
            return self._ask(server, server.cas, key, b"", AT_ONCE, record.token)
        return self._ask(server, server.cas, key, new, expires, record.token)

    def _ask(self, server: MemcachedServer, operation: Callable[..., T], key: str, *arguments: Any) -> T:
        def probe() -> object:
            # A key that nobody has: the answer is small.
            return self._translated(server, server.gets, _PROBE)

        answer: T = self._pauses[server].ask(probe, self._translated, server, operation, key, *arguments)
        return answer

    def _translated(self, server: MemcachedServer, operation: Callable[..., T], key: str, *arguments: Any) -> T:
        try:
            return operation(key, *arguments)
        except TooLargeError as error:
            raise too_large(self.kind, len(arguments[0]), "no item of that size (memcached's option -I)") from error
        except MemcachedError as error:
            raise unreachable(self.kind, error) from error
        except OSError as error:
            server.close()
            # Nobody knows yet whether the server is away: a slow link cannot carry a large record in time.
            raise unreachable(self.kind, error, BrokenError) from error

    # -- The lock, beside the session on its server --------------------------------------------------

    def _take_lease(self, session_id: str, lasts: float) -> bytes | None:
        lease = secrets.token_hex(16).encode("ascii")
        made = self._swap(self._place(session_id)[1], f"{session_id}_lock", None, lease, lasts).made
        return lease if made else None

    def _end_lease(self, session_id: str, lease: bytes) -> None:
        self._swap(self._place(session_id)[1], f"{session_id}_lock", Record(lease), None, None)


def _servers(options: SessionOptions) -> list[MemcachedServer]:
    """Return the servers in the order in which they are named: it decides where a key is."""
    url = options.url if isinstance(options.url, str) else ""
    with suppress(ValueError):
        return [MemcachedServer(address.strip(), options.store_timeout) for address in url.split(";")]
    # Outside of an except block: what is handled there quotes the address, which may be another server's.
    shown = masked("url", options.url)
    raise SettingsError(
        f"{options.label('url')} must be a list of memcached's addresses (host:port or unix:/path) with semicolons"
        f" between them, got {shown!r}",
        name="url",
        value=shown,
    )
