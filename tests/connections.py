"""The connections of a store, by names that tell whether two processes share one."""

from __future__ import annotations

import os
import secrets
from typing import Any

from beaker_bridge.profile import SessionProfile
from beaker_bridge.stores.memcached import MemcachedStore
from beaker_bridge.stores.redis import RedisStore
from beaker_bridge.stores.sql import SQLStore


def connection_of(profile: SessionProfile) -> str | None:
    """Return a name for the connection by which this thread asks the store now; nothing where there is none."""
    store: Any = profile.store
    if isinstance(store, RedisStore):
        return str(store._call("CLIENT", "ID"))
    if isinstance(store, SQLStore):
        # It lasts as long as the driver's connection does.
        return store._run(lambda at: at.info.setdefault("name", secrets.token_hex(8)))
    if isinstance(store, MemcachedStore):
        store.read("0" * 32)
        # The last one returned is the next one taken.
        return str(os.fstat(store._servers[0]._idle[-1]._socket.fileno()).st_ino)
    return None
