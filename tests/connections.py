"""The connections of a store, by names that tell whether two processes share one."""

from __future__ import annotations

import os
import secrets
from typing import Any

from beaker_bridge.session.config import SessionConfig
from beaker_bridge.stores._server import ServerStore
from beaker_bridge.stores.memcached import MemcachedStore
from beaker_bridge.stores.redis import RedisStore
from beaker_bridge.stores.sql import SQLStore


def connection_of(config: SessionConfig) -> str:
    """Return a name for the connection by which this thread asks the store now."""
    store: Any = config.store
    if isinstance(store, RedisStore):
        return str(store._connected().execute_command("CLIENT", "ID"))
    if isinstance(store, SQLStore):
        # It lasts as long as the driver's connection does.
        return store._run(lambda at: at.info.setdefault("name", secrets.token_hex(8)))
    if isinstance(store, MemcachedStore):
        return _socket_of(store)
    assert not isinstance(store, ServerStore)
    # Files are opened anew each time: the process stands for them.
    return str(os.getpid())


def _socket_of(store: MemcachedStore) -> str:
    (server,) = store._servers
    connection = None
    while connection is None:
        store.read("0" * 32)
        # Another thread may have taken it meanwhile.
        connection = server._taken()
    name = str(os.fstat(connection._socket.fileno()).st_ino)
    server._idle.get().append(connection)
    return name
