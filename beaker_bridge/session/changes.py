"""Changes in place: what the application changes inside a value that it was handed, without saying so.

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

#: What nobody can change in place: to hand it out costs nothing.
IMMUTABLE = frozenset({str, int, float, bool, type(None), bytes, datetime, date, time, timedelta, Decimal, UUID})
#: The largest pickle, in bytes, that is compared by its content where its bytes differ.
MAX_COMPARED = 16 * 1024


class _Serialized(bytes):
    """The state of a value that cannot be pickled: what the session's serializer writes of it."""


class Changes:
    """The mutable values that the application was handed, each with its state at that time.

    Args:
        serializer: the session's, for what cannot be pickled.
    """

    __slots__ = ("_serializer", "handed_out")

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        #: By their keys in the session. Without a state, a value counts from the next commit on.
        self.handed_out: dict[str, tuple[Any, bytes | None]] = {}

    def track(self, key: str, value: Any, *, is_dirty: bool) -> None:
        """Take the state of a value that is handed out.

        Args:
            key: its key in the session.
            value: the value.
            is_dirty: whether the session is written in any case, so that its state does not matter before that.
        """
        self.handed_out[key] = value, None if is_dirty else self._state(key, value)

    def any(self, session: dict[str, Any]) -> bool:
        """Say whether a value that was handed out, and is still in the session, has changed.

        Another one in its place is no change in place: who put it there says so, or has to ``save()``.
        """
        return any(
            state is not None and dict.get(session, key) is value and self._differs(key, value, state)
            # Of a copy: an object's own code, which pickles it, may read the session.
            for key, (value, state) in [*self.handed_out.items()]
        )

    def mark_clean(self, session: dict[str, Any]) -> None:
        """Take what the session holds now, when it is written, as the state from which further changes count."""
        handed_out, self.handed_out = self.handed_out, {}
        for key in handed_out:
            if key in session:
                self.track(key, dict.__getitem__(session, key), is_dirty=False)

    def _state(self, key: str, value: Any) -> bytes | None:
        """Return the state of a value; None where nothing can tell it, and nothing can store the value either."""
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
        # What is written differently each time cannot tell whether it has changed.
        return self._state(key, value) == now


def _differ(before: Any, now: Any, compared: set[tuple[int, int]]) -> bool:
    """Say whether two values differ, and not only in their pickles.

    Equal values pickle differently where one object stands in several places of one of them, and only there; sets, by
    the order in which they were filled; and some objects, each time.

    Args:
        before: the value as it was.
        now: the value as it is.
        compared: the ids of the pairs that were compared, or are being compared: a value may hold itself.
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
