"""The purge: removes expired sessions from stores that do not remove them by themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from beaker_bridge.exceptions import DamagedRecordError, SessionConflictError, failure_of
from beaker_bridge.logs import fields
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.fields import ACCESSED, INDEX_FORM, NO_SESSION, is_expired, is_over, is_stub
from beaker_bridge.session.base import shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.users import UserIndex
from beaker_bridge.stores.base import BATCH, Listed, Record

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
        log.warning("expired sessions are not purged: %s", error, extra=fields(failure=failure_of(error)))


def _purge_in_turn(config: SessionConfig, every: int) -> None:
    store = config.store
    assert store is not None
    try:
        with config.listeners.reporting("purge"), store.purge_turn(every) as is_due:
            if is_due:
                message = "%d expired sessions were purged from the store %s"
                log.info(message, purge(config).deleted, store.kind, extra=fields(store=store.kind))
    except Exception as error:  # no caller would see it
        extra = fields(store=store.kind, failure=failure_of(error))
        message = "the purge of the store %s failed; it is tried again in %d seconds"
        log.exception(message, store.kind, every, extra=extra)


class Purged(NamedTuple):
    """The numbers of a purge so far, or of a dry run.

    Args:
        seen: the records that were looked at.
        deleted: the records of ended sessions that were deleted.
        unreadable: the records that were left, since they cannot be opened or read.
        swept: the files, or rows, of killed processes that were removed: unfinished records, and locks.
    """

    seen: int = 0
    deleted: int = 0
    unreadable: int = 0
    swept: int = 0


def purge(
    config: SessionConfig,
    *,
    older_than: float | None = None,
    dry_run: bool = False,
    batch: int = BATCH,
    progress: Callable[[Purged], object] | None = None,
) -> Purged:
    """Delete the records of ended sessions, and what killed processes have left.

    Keep a record that a request renews meanwhile, and one that cannot be read: another configuration, or another user
    of the machine, may have written it. Sessions without a timeout never expire.

    Args:
        config: the configuration whose store is purged.
        older_than: as :func:`beaker_bridge.purge` has it, as are the others.
        dry_run: see there.
        batch: see there.
        progress: see there.

    Raises:
        SessionStoreError: the store cannot be reached, or cannot list its records.
        ValueError: an argument is out of its range.
    """
    _check(config, older_than, batch)
    store, done = config.store, Purged()
    if store is None or store.expires_by_itself:
        # Cookie sessions are in browsers.
        return done
    for listed in store.scan(batch):
        ended, unreadable = _ended(config, listed, older_than)
        done = done._replace(
            seen=done.seen + len(listed),
            deleted=done.deleted + (len(ended) if dry_run else store.delete(ended)),
            unreadable=done.unreadable + unreadable,
        )
        if not dry_run:
            _prune(config, listed)
        if progress is not None:
            progress(done)
    # Use the machine's time, which files have, instead of the config's clock.
    return done._replace(swept=store.sweep(time.time() - ABANDONED_AFTER, dry_run=dry_run))


def _prune(config: SessionConfig, listed: Iterable[Listed]) -> None:
    """Remove the logins whose sessions are gone from the listed indexes of users, and finish those that are ending."""
    indexes = [record_id for record_id, _ in listed if INDEX_FORM.fullmatch(record_id)]
    for index_id in indexes if config.options.secret else ():
        try:
            UserIndex(config).prune(index_id)
        except (DamagedRecordError, SessionConflictError) as error:
            extra = fields(store=config.options.type, failure=error.failure)
            log.warning("index %s is not pruned: %s", shown(index_id), error, extra=extra)


def _check(config: SessionConfig, older_than: float | None, batch: int) -> None:
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, got {batch}")
    # A session in use is as old as the last renewal of its access time says.
    if older_than is not None and older_than < config.touch_interval:
        raise ValueError(
            f"older_than must be {config.touch_interval:g} seconds or more, got {older_than:g}: access times are"
            " renewed only that often (reissue_time), so a session that old may be in use"
        )


def _ended(
    config: SessionConfig, listed: Iterable[Listed], older_than: float | None
) -> tuple[list[tuple[str, Record]], int]:
    """Return the listed records whose sessions have ended, and how many cannot be read."""
    decode, now = config.codec.decode, config.clock()
    ended, unreadable = [], 0
    for record_id, record in listed:
        try:
            content = None if record is None else decode(record.raw)[0]
        except DamagedRecordError:
            content = None
        if record is None or content is None:
            unreadable += 1
        elif has_ended(config.options, content, now, older_than):
            ended.append((record_id, record))
    return ended, unreadable


def has_ended(options: SessionOptions, content: Mapping[str, Any], now: float, older_than: float | None = None) -> bool:
    """Say whether a record can be deleted: its time is over, or nothing is in it.

    Args:
        options: the option table.
        content: the record.
        now: the time, in seconds.
        older_than: seconds without a request after which a session counts as ended, too.
    """
    if not NO_SESSION.isdisjoint(content):
        return is_over(content, now)
    is_idle = older_than is not None and now - content.get(ACCESSED, now) > older_than
    return is_idle or is_stub(content) or is_expired(content, options, now)
