"""JSON that holds what people store: which types it carries as they are, and what stands for the others.

These functions go as deep as the values do. They are run from their source: there too deep a value is a
``RecursionError``, in a compiled module it would end the process.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

#: The key that marks a JSON object as one of the types below.
TAG = "__bb__"

#: What the keys of a JSON object are.
KEYS = frozenset({str})


def _written_moment(moment: Any) -> Any:
    """Return a datetime or time in ISO format; with its zone and fold, where that format drops them."""
    if moment.tzinfo is None and not moment.fold:
        return moment.isoformat()
    zone = getattr(moment.tzinfo, "key", None)
    if not (zone or moment.fold):
        return moment.isoformat()
    return [moment.replace(tzinfo=None if zone else moment.tzinfo, fold=0).isoformat(), moment.fold, zone]


def _read_moment(kind: Any, content: Any) -> Any:
    if isinstance(content, str):
        return kind.fromisoformat(content)
    text, fold, zone = content
    moment = kind.fromisoformat(text).replace(fold=fold)
    if zone is None:
        return moment
    from zoneinfo import ZoneInfo

    return moment.replace(tzinfo=ZoneInfo(zone))


# A datetime is a date: the narrower type stands first.
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", _written_moment),
    date: ("date", date.isoformat),
    time: ("time", _written_moment),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("Decimal", str),
    UUID: ("UUID", lambda value: value.hex),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
    # In one order, whatever the set's own is in this process.
    set: ("set", lambda value: sorted(map(tagged, value), key=repr)),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": lambda value: _read_moment(datetime, value),
    "date": date.fromisoformat,
    "time": lambda value: _read_moment(time, value),
    "timedelta": lambda value: timedelta(*value),
    "Decimal": Decimal,
    "UUID": UUID,
    "bytes": base64.b64decode,
    "tuple": tuple,
    "set": set,
    # A dict of the application's that has our tag as a key.
    "dict": dict,
}
#: What JSON's encoder carries exactly, or hands to us. A tuple it would turn into a list, unasked.
LEAVES = frozenset({str, int, float, bool, type(None), *_WRITERS})
PLAIN = LEAVES | {dict, list}


def tagged(value: Any) -> Any:
    """Return a value of which JSON's encoder makes what can be read back exactly.

    Subclasses of what JSON has (Markup, IntEnum) become what JSON makes of them.

    Raises:
        RecursionError: it is nested too deeply, or holds itself.
        TypeError: a dict has a key that is no text.
    """
    if isinstance(value, dict):
        return _tagged_dict(value)
    if isinstance(value, tuple):
        return {TAG: ["tuple", _tagged_items(value)]}
    return _tagged_items(value) if isinstance(value, list) else value


def _tagged_items(items: Collection[Any]) -> list[Any]:
    # Most items are leaves: not even a call for them.
    if LEAVES.issuperset(map(type, items)):
        return list(items)
    return [item if type(item) in LEAVES else tagged(item) for item in items]


def _tagged_dict(value: dict[Any, Any]) -> dict[str, Any]:
    written_as = {key: item if type(item) in LEAVES else tagged(item) for key, item in value.items()}
    if not KEYS.issuperset(map(type, written_as)):
        written_as = {_key(key): item for key, item in written_as.items()}
    return {TAG: ["dict", list(written_as.items())]} if TAG in written_as else written_as


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is of type {type(key).__name__}, JSON would turn it into a string")
    return str(key)


def written(value: Any) -> dict[str, Any]:
    """Return what stands for a value that JSON does not have, as JSON's encoder asks (``default``).

    Raises:
        TypeError: there is nothing that could.
    """
    writer = _WRITERS.get(type(value)) or next((_WRITERS[kind] for kind in _WRITERS if isinstance(value, kind)), None)
    if writer is None:
        raise TypeError(f"a value of type {type(value).__name__} is not JSON")
    name, write = writer
    return {TAG: [name, write(value)]}


def untagged(value: dict[str, Any]) -> Any:
    """Return what a JSON object stands for, as JSON's decoder asks for each (``object_hook``)."""
    if len(value) != 1 or TAG not in value:
        return value
    name, content = value[TAG]
    return _READERS[name](content)
