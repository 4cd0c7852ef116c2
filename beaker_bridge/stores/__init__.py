"""One module a Beaker backend: what its namespace manager lacks, an atomic swap."""

from __future__ import annotations

from importlib import import_module

from beaker_bridge.settings import SessionOptions
from beaker_bridge.stores.base import Store

#: The stores by the backend's name. A store's module is imported when it is used: its client is not
#: everybody's.
_STORES = {
    "memory": "memory:MemoryStore",
    "file": "file:FileStore",
    "dbm": "dbm:DbmStore",
    "ext:redis": "redis:RedisStore",
    "ext:rediscluster": "redis:RedisClusterStore",
    "ext:memcached": "memcached:MemcachedStore",
    "ext:database": "sql:DatabaseStore",
    "ext:sqla": "sql:SqlaStore",
}


def open_store(options: SessionOptions) -> Store:
    """Return the store that the options name.

    Args:
        options: the option table.
    """
    module, _, name = _STORES.get(str(options.type), "beaker:BeakerStore").partition(":")
    store: Store = getattr(import_module(f"beaker_bridge.stores.{module}"), name)(options)
    return store
