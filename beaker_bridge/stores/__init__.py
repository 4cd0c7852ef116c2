"""One module a Beaker backend: what its namespace manager lacks, an atomic swap."""

from __future__ import annotations

from importlib import import_module

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import learn_passwords
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.stores.base import Store

#: What opens a store, by the backend's name. A store's module is imported when it is used: its client
#: is not everybody's.
_STORES = {
    "memory": "memory:MemoryStore",
    "file": "file:FileStore",
    "dbm": "dbm:open_dbm",
    "ext:redis": "redis:RedisStore",
    "ext:rediscluster": "redis:RedisClusterStore",
    "ext:memcached": "memcached:MemcachedStore",
    "ext:database": "sql:DatabaseStore",
    "ext:sqla": "sql:SqlaStore",
}
#: The options of a store that may hold a password.
_WITH_PASSWORDS = ("url", "urls", "password", "sa_opts")


def open_store(options: SessionOptions) -> Store:
    """Return the store that the options name.

    Args:
        options: the option table.

    Raises:
        SettingsError: the store's client is not installed, or refuses the options.
    """
    learn_passwords({name: getattr(options, name) for name in _WITH_PASSWORDS} | dict(options.backend_arguments))
    # An application's own namespace manager goes through Beaker's interface, whatever the type.
    kind = "" if options.namespace_class else str(options.type)
    module, _, name = _STORES.get(kind, "beaker:BeakerStore").partition(":")
    try:
        opening = getattr(import_module(f"beaker_bridge.stores.{module}"), name)
    except ImportError as error:
        message = f"{options.label('type')} = {options.type} needs a package that is missing: {error}"
        raise SettingsError(message, name="type") from error
    store: Store = opening(options)
    return store
