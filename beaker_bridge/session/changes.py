"""Changes in place: those that the application makes inside a value that it was handed, without ``changed()``.

The state of a value is its pickle, whatever serializer the session has: one call, into C, and no copy to compare it
with. It is taken when the value is handed out, and again when the request commits.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

from beaker_bridge.record.serializers import Serializer

#: Types that cannot be changed in place: their values are not tracked.
IMMUTABLE = frozenset({str, int, float, bool, type(None), bytes, datetime, date, time, timedelta, Decimal, UUID})
#: The largest pickle, in bytes, that is compared by its content where its bytes differ.
MAX_COMPARED = 16 * 1024


class _Serialized(bytes):
    """The state of a value that cannot be pickled: its bytes by the session's serializer."""


class Changes:
    """The mutable values that the application was handed, each with its state at that time.

    Args:
        serializer: the session's, for what cannot be pickled.
    """

    __slots__ = ("_serializer", "tracked")

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        #: The values and their states, by their keys in the session. A state of None: none is compared before a commit.
        self.tracked: dict[str, tuple[Any, bytes | None]] = {}

    def track(self, key: str, value: Any, *, is_dirty: bool) -> None:
        """Take the state of a value that is handed out.

        Args:
            key: its key in the session.
            value: the value.
            is_dirty: whether the session is written in any case: no state is taken before that.
        """
        self.tracked[key] = value, None if is_dirty else self._state(key, value)

    def any(self, session: dict[str, Any]) -> bool:
        """Say whether a tracked value that is still in the session has changed.

        A value that was replaced is not compared: an assignment marks the session as changed, or waits for ``save()``.
        """
        return any(
            state is not None and dict.get(session, key) is value and self._differs(key, value, state)
            # Iterate over a copy: the code by which an object pickles itself may read the session.
            for key, (value, state) in [*self.tracked.items()]
        )

    def mark_clean(self, session: dict[str, Any]) -> None:
        """Take the states anew after a write: further changes count from here."""
        tracked, self.tracked = self.tracked, {}
        for key in tracked:
            if key in session:
                self.track(key, dict.__getitem__(session, key), is_dirty=False)

    def _state(self, key: str, value: Any) -> bytes | None:
        """Return the state of a value; None if it can neither be pickled nor serialized, and so not be stored."""
        try:
            return pickle.dumps(value)
        except Exception:  # noqa: BLE001 -- an object's own code may raise anything
            with suppress(Exception):
                return _Serialized(self._serializer.dumps({key: value}))
            return None

    def _differs(self, key: str, value: Any, before: bytes) -> bool:
        now = self._state(key, value)
        if now == before:
            return False
        if type(before) is type(now) is bytes and max(len(before), len(now)) <= MAX_COMPARED:
            with suppress(Exception):
                was = pickle.loads(before)  # noqa: S301  # nosec B301 -- this request has pickled it
                return _differ(was, value, set())
        # A value that pickles differently each time cannot be compared.
        return self._state(key, value) == now


def _differ(before: Any, now: Any, compared: set[tuple[int, int]]) -> bool:
    """Say whether two values differ, and not only their pickles.

    Equal values have different pickles if one object is in several places of one of them only, if a set was filled in
    another order, and if an object pickles differently each time.

    Args:
        before: the value as it was.
        now: the value as it is.
        compared: the ids of the pairs that were or are being compared, since a value may hold itself.
    """
    kind = type(now)
    if type(before) is not kind:
        return True
    if kind in (set, frozenset):
        return set(map(pickle.dumps, before)) != set(map(pickle.dumps, now))
    if kind not in (dict, list, tuple):
        state = pickle.dumps(now)
        return pickle.dumps(before) != state and pickle.dumps(now) == state
    if (id(before), id(now)) in compared:
        return False
    compared.add((id(before), id(now)))
    pairs: Iterable[tuple[Any, Any]] = zip(before, now, strict=False)
    if kind is dict:
        pairs = chain(pairs, zip(before.values(), now.values(), strict=False))
    return len(before) != len(now) or any(_differ(*pair, compared) for pair in pairs)
