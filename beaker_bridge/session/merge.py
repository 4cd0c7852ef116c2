"""The three-way merge of two changes of one session: a pure function.

*base* is the record as both requests loaded it, *theirs* what the store holds now, and *ours* what this request made
of it. Ours is the later commit.

A top-level key is the unit. Within it, changes that do not touch each other are merged; where they touch, the later
commit's whole value stays. No value is made that neither request wrote, except by adding to it.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Mapping
from contextlib import suppress
from itertools import repeat
from types import MappingProxyType
from typing import Any, NamedTuple

from translationstring import TranslationString

from beaker_bridge.record.fields import ACCESSED, RESERVED_KEYS
from beaker_bridge.record.json_types import written

#: The beginning of the key of a queue of flash messages, as Pyramid writes it.
FLASH = "_f_"
#: Dicts are merged up to this depth within a top-level value; deeper ones are taken whole.
MAX_DEPTH = 100
#: The items of sets, keys and messages are compared up to this depth. Deeper ones are compared by their pickles, which
#: takes no Python frames.
ESSENCE_DEPTH = 12

#: Empty: no message was flashed with ``allow_duplicate=False``.
NO_MESSAGES: Mapping[str, Collection[Any]] = MappingProxyType({})

_ABSENT: Any = object()
_TEXT = frozenset({str})
_SCALARS = frozenset({str, int, bool, type(None)})


class Merged(NamedTuple):
    """The outcome of a merge."""

    record: dict[str, Any]
    #: The application's top-level keys in which a change was given up.
    conflicts: frozenset[str]


class _ConflictError(Exception):
    """Both sides changed the same part, and only one of the changes can stay."""


def merge(
    base: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    *,
    whole_keys: Container[str] = (),
    flashed_once: Mapping[str, Collection[Any]] = NO_MESSAGES,
) -> Merged:
    """Return the record that holds both changes, and the keys in which one was given up.

    - A key that one side changed has that side's value; a deletion is a change. The same change by both is one.
    - A top-level key that both changed and one of them deleted is deleted.
    - Dicts are merged member by member, at any depth. A member that both changed, or that one deleted and the other
      changed, is a conflict, unless its own members or items merge.
    - Lists are merged where each side only appended or only removed: theirs, less what ours removed, then what ours
      appended. Sets are merged. An absent dict, list or set counts as empty where base lacks the key.
    - Flash queues are merged by counts: two equal new messages are two.
    - In a conflict ours is taken, the whole top-level value. The access time is the later of the two.

    Values are equal if they are of one type and are stored as the same: 1 is not True, 0.0 is not -0.0, a NaN is
    itself. The time is linear in the size of the three, whatever lists and dicts hold.

    Args:
        base: the record as it was loaded.
        ours: what this request made of it.
        theirs: what the store holds.
        whole_keys: the top-level keys whose values are not merged inside.
        flashed_once: by the key of their queue, the messages that ours added since base with
            ``flash(…, allow_duplicate=False)``: they are not added where theirs holds an equal one.

    Returns:
        A new dict, and the conflicts. None of the arguments is changed.
    """
    record: dict[str, Any] = {}
    conflicts = set()
    # Keep the order of the store's keys, and append our new ones.
    for key in dict.fromkeys([*theirs, *ours]):
        sides = tuple(side.get(key, _ABSENT) for side in (base, ours, theirs))
        try:
            value = _merge_key(key, *sides, whole=key in whole_keys, flashed_once=flashed_once.get(key, ()))
        except _ConflictError:
            conflicts.add(key)
            # Deletion wins: a logout by ``del session["user"]`` leaves no fragment.
            value = _ABSENT if theirs.get(key, _ABSENT) is _ABSENT else ours.get(key, _ABSENT)
        if value is not _ABSENT:
            record[key] = value
    return Merged(record, frozenset(conflicts - RESERVED_KEYS))


def _merge_key(key: Any, base: Any, ours: Any, theirs: Any, *, whole: bool, flashed_once: Collection[Any]) -> Any:
    """Return the value of a top-level key, or that it is absent."""
    if key == ACCESSED and isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return max(ours, theirs)
    # Compare first: an unchanged side yields the other one's own object, in its order.
    # Ours where nobody changed it: the application may hold it, and change it in place later.
    if same(base, theirs):
        return ours
    if same(base, ours):
        return theirs
    if isinstance(key, str) and key.startswith(FLASH) and not whole:
        in_base, in_ours, in_theirs = ([] if side is _ABSENT else side for side in (base, ours, theirs))
        if all(isinstance(queue, list) for queue in (in_base, in_ours, in_theirs)):
            queue = _merge_queues(in_base, in_ours, in_theirs, flashed_once)
            return queue if queue or (ours is not _ABSENT and theirs is not _ABSENT) else _ABSENT
    if same(ours, theirs):
        return ours
    if whole:
        raise _ConflictError
    return _merge_members(base, ours, theirs)


def _merge_members(base: Any, ours: Any, theirs: Any) -> Any:
    """Return a value that both sides changed: dicts are merged member by member.

    Iterate instead of recursing, so that no value is too deep.
    """
    merged: dict[str, Any] = {}
    steps = [(merged, "value", (base, ours, theirs), 0)]
    seen = set()
    # Append to the list while it is iterated over; members of one dict stay together, in their order.
    for target, key, sides, depth in steps:
        ids = tuple(map(id, sides))
        # Merge shared dicts once: pickled values may share one, or hold themselves.
        if depth <= MAX_DEPTH and ids not in seen and _are(dict, *sides):
            seen.add(ids)
            members: dict[Any, Any] = {}
            target[key] = members
            base, ours, theirs = ({} if side is _ABSENT else side for side in sides)
            for name in dict.fromkeys([*theirs, *ours]):
                step = tuple(side.get(name, _ABSENT) for side in (base, ours, theirs))
                steps.append((members, name, step, depth + 1))
        else:
            value = _merge_leaf(*sides)
            if value is not _ABSENT:
                target[key] = value
    return merged["value"]


def _merge_leaf(base: Any, ours: Any, theirs: Any) -> Any:
    if same(base, ours):
        return theirs
    if same(base, theirs) or same(ours, theirs):
        return ours
    if _are(list, base, ours, theirs):
        return _merge_lists([] if base is _ABSENT else base, ours, theirs)
    if _are(set, base, ours, theirs):
        return _merge_sets(set() if base is _ABSENT else base, ours, theirs)
    raise _ConflictError


def _are(kind: type, base: Any, ours: Any, theirs: Any) -> bool:
    """Say whether the three are of a type that is merged; an absent base counts as empty.

    Ours may be of a derived class, which JSON stores as its base class; what was read cannot.
    """
    return isinstance(ours, kind) and type(theirs) is kind and (base is _ABSENT or type(base) is kind)


# -- Lists and sets ----------------------------------------------------------------------------------


def _merge_lists(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any]:
    our_kept, our_added = _edits(base, ours)
    their_kept, their_added = _edits(base, theirs)
    kept = [item for item, *is_kept in zip(base, our_kept, their_kept, strict=True) if all(is_kept)]
    return kept + their_added + our_added


def _edits(base: list[Any], side: list[Any]) -> tuple[list[bool], list[Any]]:
    """Return which items of base a side kept, and what it appended.

    Raises:
        _ConflictError: it did both, or replaced, moved or edited an item.
    """
    kept: list[bool] = []
    number = 0
    # Compare two items once, and prepare one of side's once for all those of base: either may be a large one.
    compared: dict[tuple[int, int], bool] = {}
    prepared: dict[int, Any] = {}
    for item in base:
        if number == len(side):
            break
        pair = id(item), id(side[number])
        if pair not in compared:
            compared[pair] = same(item, side[number], prepared)
        kept.append(compared[pair])
        number += kept[-1]
    kept += [False] * (len(base) - len(kept))
    added = side[number:]
    if added and not all(kept):
        raise _ConflictError
    return kept, added


def _merge_sets(base: set[Any], ours: set[Any], theirs: set[Any]) -> set[Any]:
    in_base, in_ours, in_theirs = (dict(zip(map(_essence, side), side, strict=True)) for side in (base, ours, theirs))
    removed = in_base.keys() - in_ours.keys()
    return {
        *(item for essence, item in in_theirs.items() if essence not in removed),
        *(item for essence, item in in_ours.items() if essence not in in_base),
    }


def _merge_queues(base: list[Any], ours: list[Any], theirs: list[Any], flashed_once: Collection[Any]) -> list[Any]:
    in_base, in_ours, in_theirs = (Counter(map(_essence, side)) for side in (base, ours, theirs))
    # Remove only what theirs has not removed already.
    removed = (in_base & in_theirs) - in_ours
    kept = in_theirs - removed
    added = in_ours - in_base
    added.subtract({essence for essence in map(_essence, flashed_once) if essence in kept})
    # Of equal messages remove the first ones, which were shown, and add the last ones, which are new.
    return _without(theirs, removed) + _last(ours, added)


def _without(items: Iterable[Any], removed: Counter[Hashable]) -> list[Any]:
    return [item for item in items if not _take(removed, _essence(item))]


def _last(items: list[Any], added: Counter[Hashable]) -> list[Any]:
    return [item for item in reversed(items) if _take(added, _essence(item))][::-1]


def _take(counter: Counter[Hashable], essence: Hashable) -> bool:
    if counter[essence] < 1:
        return False
    counter[essence] -= 1
    return True


# -- Equality ----------------------------------------------------------------------------------------


def same(one: Any, other: Any, prepared: dict[int, Any] | None = None) -> bool:
    """Say whether two values are of one type and are stored as the same.

    Do not recurse, and do not hash a list's items or a dict's values: an attacker may choose equal hashes.

    Args:
        one: a value.
        other: another one.
        prepared: by their ids, what other's parts are compared by, if other is compared with many.
    """
    prepared = {} if prepared is None else prepared
    pairs = [(one, other)]
    # Keep the compared values alive, so that no other value gets one of their ids.
    seen: dict[tuple[int, int], tuple[Any, Any]] = {}
    while pairs:
        one, other = pair = pairs.pop()
        if one is other or (id(one), id(other)) in seen:
            continue
        if type(one) is not type(other):
            return False
        if type(one) in _SCALARS:
            if one != other:
                return False
            continue
        seen[id(one), id(other)] = pair
        parts = _parts(one, other, prepared)
        if parts is None:
            return False
        pairs.extend(parts)
    return True


def _parts(one: Any, other: Any, prepared: dict[int, Any]) -> Iterable[tuple[Any, Any]] | None:
    """Return the pairs that must be the same for two values of one type to be the same; None if they differ."""
    if isinstance(one, (list, tuple)):
        return zip(one, other, strict=True) if len(one) == len(other) else None
    prepare: Callable[[Any], Any] = _by_key if isinstance(one, dict) else _essence
    known = prepared.get(id(other))
    if known is None:
        known = prepared[id(other)] = prepare(other)
    one = prepare(one)
    if prepare is _essence:
        return () if one == known else None
    return ((value, known[key]) for key, value in one.items()) if one.keys() == known.keys() else None


def _by_key(mapping: dict[Any, Any]) -> Mapping[Any, Any]:
    if _TEXT.issuperset(map(type, mapping)):
        return mapping
    return {_essence(key): value for key, value in mapping.items()}


def _fields(text: TranslationString) -> tuple[Any, ...]:
    return str.__str__(text), text.domain, text.default, text.mapping, text.context


def _essence(value: Any, depth: int = ESSENCE_DEPTH) -> Hashable:
    """Return something hashable that is equal for two values if, and only if, they are the same.

    Numbers become texts, whose hashes differ in each process: nobody can choose values whose hashes collide.
    """
    kind = type(value)
    if kind in _SCALARS:
        return kind, hex(value) if kind is int else value
    collect, items = _items(value) if depth else (None, ())
    return kind, _state(value) if collect is None else collect(map(_essence, items, repeat(depth - 1)))


def _items(value: Any) -> tuple[type[tuple[Any, ...] | frozenset[Any]] | None, Iterable[Any]]:
    """Return the items of a value, and the type to collect them in, ordered or not; None if it has no items."""
    if isinstance(value, dict):
        return frozenset, value.items()
    if isinstance(value, (set, frozenset)):
        return frozenset, value
    if isinstance(value, (list, tuple)):
        return tuple, value
    return (tuple, _fields(value)) if isinstance(value, TranslationString) else (None, ())


def _state(value: Any) -> Hashable:
    """Return the state of an object, since its class may not define equality."""
    if type(value) is float:
        return repr(value)
    with suppress(Exception):
        # Use the JSON form of a date or a Decimal: it has the offset, zone and fold, or the digits.
        return repr(written(value))
    # Suppress all: an object's own code may raise anything.
    with suppress(Exception):
        return pickle.dumps(value)
    return id(value)
