"""Sessions in the store of another distribution."""

from __future__ import annotations

import logging

from beaker_bridge.logs import log_once
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.stores.base import Store

log = logging.getLogger(__name__)


def open_third_party(store_class: type[Store], options: SessionOptions) -> Store:
    """Return a store of another distribution.

    Args:
        store_class: its class.
        options: the option table.

    Raises:
        SettingsError: it refuses the options.
    """
    if options.purge_every and store_class.purge_turn is Store.purge_turn:
        purge_every, store = options.label("purge_every"), f"{options.label('type')} = {options.type}"
        message = f"{purge_every} is ignored: the store of {store} takes no turns with other processes"
        log_once(log, logging.WARNING, f"{message}; have cron run beaker-bridge purge")
    return store_class(options)
