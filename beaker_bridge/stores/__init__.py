"""Stores: one module for each backend of Beaker's, with the atomic swap that its namespace manager lacks.

What only one backend needs belongs into its module; what several need, into a module whose name begins with ``_``.
Nothing here knows of sessions, requests or cookies.
"""

from __future__ import annotations

from importlib import import_module

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import learn_passwords
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.third_party import third_party_store
from beaker_bridge.stores.base import Store
from beaker_bridge.stores.beaker import BeakerStore
from beaker_bridge.stores.third_party import open_third_party

#: The class of a store, or the function that opens it, by the backend's name. Import its module only when it is used,
#: since not every site has its client.
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
    # Use Beaker's interface for an application's own namespace manager, whatever the type.
    kind = "" if options.namespace_class else str(options.type)
    if kind not in _STORES:
        store_class = third_party_store(kind, options.label("type")) if kind else None
        return BeakerStore(options) if store_class is None else open_third_party(store_class, options)
    module, _, name = _STORES[kind].partition(":")
    try:
        opening = getattr(import_module(f"beaker_bridge.stores.{module}"), name)
    except ImportError as error:
        message = f"{options.label('type')} = {options.type} needs a package that is missing: {error}"
        raise SettingsError(message, name="type") from error
    store: Store = opening(options)
    return store
