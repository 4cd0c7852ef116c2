"""The three-way merge of two changes of one session: a pure function.

*base* is the session as both requests loaded it, *theirs* what stands in the store now, and *ours*
what this request made of it. Ours is the later commit.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from translationstring import TranslationString

from beaker_bridge.exceptions import SessionValueError

#: Beaker's key for the time of the last access: the later one counts.
ACCESSED = "_accessed_time"

_ABSENT: Any = object()
_SCALARS = frozenset({str, int, bool, type(None)})


def merge(base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the session that holds both changes.

    - A key that one side changed has that side's value; a deletion is a change.
    - Where both changed it, dicts merge key by key, at any depth.
    - A list is theirs, less what ours removed from base, then what ours added. An item that both
      removed is removed once, two equal items that both added are two.
    - Absent counts as an empty dict or list, where the other value is a dict or a list.
    - Of anything else ours wins; the access time is the later of the two.

    Args:
        base: the record as it was loaded.
        ours: what this request made of it.
        theirs: what stands in the store.

    Returns:
        A new dict. None of the arguments is changed.

    Raises:
        SessionValueError: the values are nested too deeply to be compared.
    """
    try:
        merged = _merge_dicts(base, ours, theirs)
    except RecursionError as error:
        raise SessionValueError("the session is nested too deeply to be merged", original=error) from error
    if isinstance(ours.get(ACCESSED), (int, float)) and isinstance(theirs.get(ACCESSED), (int, float)):
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
    essence = _essence(base)
    if _essence(ours) == essence:
        return theirs
    if _essence(theirs) == essence:
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
    in_base, in_ours, in_theirs = (Counter(map(_essence, side)) for side in (base, ours, theirs))
    # Of what base held, theirs may have removed some as well; of that, nothing is removed again.
    removed = (in_base & in_theirs) - in_ours
    return _without(theirs, removed) + _last(ours, in_ours - in_base)


def _without(items: Iterable[Any], removed: Counter[Hashable]) -> list[Any]:
    """Return the items less those that were removed: the first ones, where there are equal ones."""
    return [item for item in items if not _take(removed, _essence(item))]


def _last(items: list[Any], added: Counter[Hashable]) -> list[Any]:
    """Return the items that were added: the last ones, where there are equal ones."""
    return [item for item in reversed(items) if _take(added, _essence(item))][::-1]


def _take(counter: Counter[Hashable], essence: Hashable) -> bool:
    if counter[essence] < 1:
        return False
    counter[essence] -= 1
    return True


def _essence(value: Any) -> Hashable:
    """Return what two values have in common if their records are the same.

    1 is not True, 0.0 is not -0.0, a NaN is itself, and a text with more to it (a translation, HTML) is not that text.
    """
    kind = type(value)
    if kind in _SCALARS:
        return kind, value
    if kind is float:
        # Of which each value has its own.
        return kind, repr(value)
    if isinstance(value, dict):
        # No generator, which would be a frame more at each depth.
        return kind, frozenset(zip(map(_essence, value), map(_essence, value.values()), strict=True))
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(_essence, value))
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(map(_essence, value))
    return kind, _essence_of_object(value)


def _essence_of_object(value: Any) -> Hashable:
    if isinstance(value, TranslationString):
        return str.__str__(value), _essence((value.domain, value.default, value.mapping, value.context))
    return _state(value)


def _state(value: Any) -> Hashable:
    """Return the state of an object: its class may not say when two of them are equal."""
    try:
        return pickle.dumps(value)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 -- an object's own code may raise anything
        return id(value)
