"""The events that an application can subscribe to with ``config.add_subscriber``.

Each event carries the session's id (keep it out of logs: it opens the session) and the data it held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


class SessionEvent:
    """The root of the session events.

    Args:
        session_id: the id of the session's record.
        data: what the application had put there, as far as the store still knew.
    """

    def __init__(self, session_id: str, data: Mapping[str, Any]) -> None:
        self.session_id = session_id
        self.data = data


class SessionExpired(SessionEvent):
    """A request brought the id of an expired session; the record is deleted."""


class SessionInvalidated(SessionEvent):
    """``invalidate()`` or ``delete()`` was committed; the record is deleted."""


class SessionMerged(SessionEvent):
    """A commit found another request's changes in the store and merged them; ``data`` is the outcome.

    Args:
        session_id: as :class:`SessionEvent`'s.
        data: as :class:`SessionEvent`'s.
        conflicts: the top-level keys in which the change of one of the requests was given up.
    """

    def __init__(self, session_id: str, data: Mapping[str, Any], conflicts: Collection[str] = frozenset()) -> None:
        super().__init__(session_id, data)
        self.conflicts = frozenset(conflicts)
