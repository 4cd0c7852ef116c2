"""The purge: removes expired sessions from stores that do not remove them by themselves."""

from __future__ import annotations

import logging
import threading
import time

from beaker_bridge.exceptions import DamagedRecordError, SessionStoreError
from beaker_bridge.logs import log_once
from beaker_bridge.record.fields import MOVED, is_expired, is_stub
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.stores._breaker import ServerUnavailableError
from beaker_bridge.stores.base import Record, Store

log = logging.getLogger(__name__)

#: Seconds after which an unfinished record counts as left by a killed writer.
ABANDONED_AFTER = 3600
#: The name of the thread that purges.
THREAD = "beaker_bridge purge"


def begin_purge(config: SessionConfig) -> None:
    """Purge in a thread, unless another process is purging or did so within ``purge_every`` seconds.

    The thread ends with its purge, so a server that forks loses none.

    Args:
        config: the configuration whose store is purged.
    """
    every = config.options.purge_every
    assert every is not None
    now = config.clock()
    config.purge_pause = (now, now + every)
    try:
        threading.Thread(target=_purge_in_turn, args=(config, every), name=THREAD, daemon=True).start()
    except RuntimeError as error:
        log.warning("expired sessions are not purged: %s", error)


def _purge_in_turn(config: SessionConfig, every: int) -> None:
    store = config.store
    assert store is not None
    try:
        with store.purge_turn(every) as is_due:
            if is_due:
                log.info("%d expired sessions were purged from the store %s", purge(config), store.kind)
    except Exception:  # no caller would see it
        log.exception("the purge of the store %s failed; it is tried again in %d seconds", store.kind, every)


def purge(config: SessionConfig) -> int:
    """Delete the records of expired sessions, and unfinished records of killed writers.

    Keep a record that a request renews meanwhile, and one that cannot be read: another configuration, or another user
    of the machine, may have written it. Sessions without a timeout never expire.

    Args:
        config: the configuration whose store is purged.

    Returns:
        The number of records and files that were deleted.

    Raises:
        SessionStoreError: the store cannot be reached.
    """
    store = config.store
    if store is None:
        # Cookie sessions are in browsers.
        return 0
    deleted = sum(_purge_record(config, store, session_id) for session_id in store.ids())
    # Use the machine's time, which files have, instead of the config's clock.
    return deleted + store.sweep(time.time() - ABANDONED_AFTER)


def _purge_record(config: SessionConfig, store: Store, session_id: str) -> bool:
    try:
        record = store.read(session_id)
        return record is not None and _has_ended(config, record) and store.swap(session_id, record, None).made
    except ServerUnavailableError:
        raise
    except SessionStoreError as error:
        # Go on: one record must not end every purge.
        log_once(log, logging.WARNING, f"the purge leaves out what it cannot open: {error}")
        return False


def _has_ended(config: SessionConfig, record: Record) -> bool:
    try:
        content, _ = config.codec.decode(record.raw)
    except DamagedRecordError:
        return False
    now = config.clock()
    if MOVED in content:
        return bool(now >= content[MOVED])
    return is_stub(content) or is_expired(content, config.options, now)
