"""The three-way merge of two changes of one session: a pure function.

*base* is the session as both requests loaded it, *theirs* what stands in the store now, and *ours*
what this request made of it. Ours is the later commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Beaker's key for the time of the last access: the later one counts.
ACCESSED = "_accessed_time"

_ABSENT: Any = object()


def merge(base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the session that holds both changes.

    Args:
        base: the record as it was loaded.
        ours: what this request made of it.
        theirs: what stands in the store.

    Returns:
        A new dict. A key that one side changed has that side's value (a deletion is a change); where
        both changed it, dicts merge key by key, lists keep the appended items of both and the
        removals of both, and of anything else ours wins. None of the arguments is changed.
    """
    merged = _merge_dicts(base, ours, theirs)
    if ACCESSED in ours and ACCESSED in theirs:
        merged[ACCESSED] = max(ours[ACCESSED], theirs[ACCESSED])
    return merged


def _merge_dicts(base: Mapping[Any, Any], ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> dict[Any, Any]:
    # Theirs first: the order of the keys is that of the store, with our new keys behind.
    merged = {}
    for key in dict.fromkeys([*theirs, *ours]):
        value = _merge_values(base.get(key, _ABSENT), ours.get(key, _ABSENT), theirs.get(key, _ABSENT))
        if value is not _ABSENT:
            merged[key] = value
    return merged


def _merge_values(base: Any, ours: Any, theirs: Any) -> Any:
    if _same(ours, base):
        return theirs
    if _same(theirs, base):
        return ours
    sides = [side for side in (ours, theirs) if side is not _ABSENT]
    for kind, merge_kind in ((dict, _merge_dicts), (list, _merge_lists)):
        if sides and all(isinstance(side, kind) for side in sides):
            return _merge_containers(kind, merge_kind, base, ours, theirs)
    return ours


def _merge_containers(kind: type, merge_kind: Any, base: Any, ours: Any, theirs: Any) -> Any:
    """Merge two dicts or two lists, of which one may be absent, which counts as empty."""
    merged = merge_kind(*(side if isinstance(side, kind) else kind() for side in (base, ours, theirs)))
    if not merged and (ours is _ABSENT or theirs is _ABSENT):
        return _ABSENT
    return merged


def _merge_lists(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any]:
    """What both kept of base, then what theirs appended, then what ours appended."""
    our_kept, our_tail = _align(base, ours)
    their_kept, their_tail = _align(base, theirs)
    return [base[index] for index in sorted(our_kept & their_kept)] + their_tail + our_tail


def _align(base: list[Any], changed: list[Any]) -> tuple[set[int], list[Any]]:
    """Return which items of base lead the changed list, in base's order, and what follows them."""
    kept: set[int] = set()
    for index, item in enumerate(base):
        if len(kept) < len(changed) and _same(changed[len(kept)], item):
            kept.add(index)
    return kept, changed[len(kept) :]


def _same(one: Any, other: Any) -> bool:
    """Equality as their records have it: 1 is not True, and a NaN is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    both_nan = one != one and other != other  # noqa: PLR0124 -- only a NaN is not itself
    return one is other or bool(one == other) or bool(both_nan)
