"""Looks at the sessions of a store: how many there are, how old and how large; and finds one by what a log shows."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from beaker_bridge.exceptions import BeakerBridgeError, DamagedRecordError
from beaker_bridge.record.fields import ACCESSED, CREATED, INDEX_FORM, NO_SESSION, is_expired, is_stub
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.stores.base import BATCH, ID_FORM, Listed

#: The bounds of ages, in seconds, and of sizes, in bytes.
AGES = (60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)
SIZES = (256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 20)
#: A part of an id, as ``shown()`` writes it into a log, or longer.
PART = re.compile(r"([0-9a-f]{4,32})(?:…|\.\.\.)?")


@dataclass
class Histogram:
    """How many values are below each bound.

    Args:
        bounds: the upper bounds, in order; a value is below the first one that is greater.
    """

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_right(self.bounds, value)] += 1


@dataclass
class Survey:
    """The numbers of a store's sessions.

    Args:
        live: the sessions that a cookie opens.
        ended: the records of sessions that have expired, or ended, and are not purged yet.
        moved: the ids that a login, or another change of the id, left lately.
        indexes: the lists of users' sessions.
        unreadable: the records that cannot be opened or read with the site's options.
        size: the bytes of the live sessions' records together.
        largest: the bytes of the largest one.
        idle: the seconds since the last access of each live session.
        age: the seconds since its creation.
        sizes: its bytes.
    """

    live: int = 0
    ended: int = 0
    moved: int = 0
    indexes: int = 0
    unreadable: int = 0
    size: int = 0
    largest: int = 0
    idle: Histogram = field(default_factory=lambda: Histogram(AGES))
    age: Histogram = field(default_factory=lambda: Histogram(AGES))
    sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))


def survey(config: SessionConfig, *, batch: int = BATCH, progress: Callable[[int], object] | None = None) -> Survey:
    """Look at each record of a store; nothing is changed.

    Args:
        config: the configuration.
        batch: the number of records that are read at once.
        progress: called with the number of records in each batch.

    Raises:
        SessionStoreError: the store cannot be reached, or cannot list its records.
    """
    assert config.store is not None
    found = Survey()
    for listed in config.store.scan(batch):
        for each in listed:
            _count(found, config, each)
        if progress is not None:
            progress(len(listed))
    return found


def _count(found: Survey, config: SessionConfig, listed: Listed) -> None:
    record_id, record = listed
    try:
        content = None if record is None else config.codec.decode(record.raw)[0]
    except DamagedRecordError:
        content = None
    now = config.clock()
    if record is None or content is None:
        found.unreadable += 1
    elif INDEX_FORM.fullmatch(record_id):
        found.indexes += 1
    elif not NO_SESSION.isdisjoint(content):
        found.moved += 1
    elif is_stub(content) or is_expired(content, config.options, now):
        found.ended += 1
    else:
        size = len(record.raw)
        found.live += 1
        found.size += size
        found.largest = max(found.largest, size)
        found.idle.add(now - content.get(ACCESSED, now))
        found.age.add(now - content.get(CREATED, now))
        found.sizes.add(size)


def find_id(config: SessionConfig, part: str) -> str | None:
    """Return the id that begins with what a log shows of it, or a whole one; None if no record has one.

    Args:
        config: the configuration.
        part: the id, or its first four digits or more, perhaps with an ellipsis behind them.

    Raises:
        BeakerBridgeError: it is no part of an id, or several ids begin with it.
        SessionStoreError: the store cannot be reached, or cannot list its records.
    """
    assert config.store is not None
    found = PART.fullmatch(part)
    if found is None:
        raise BeakerBridgeError(
            "a session is named by its handle, by its id, or by the beginning of that as the log shows it (3f2a9c…)"
        )
    if ID_FORM.fullmatch(found[1]):
        return found[1]
    # Keys may be listed twice while a server spreads them anew.
    ids = {session_id for session_id in config.store.ids() if session_id.startswith(found[1])}
    if len(ids) > 1:
        raise BeakerBridgeError(f"{len(ids)} sessions begin with {found[1]}…: name one by its handle, or by its id")
    return ids.pop() if ids else None
