"""Turns a value into what JSON's encoder writes so that it is read back as it was, and refuses the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from translationstring import TranslationString

from beaker_bridge.record.fields import SEAL_WORD
from beaker_bridge.record.json_types import BASES, EXACT, HTML, KNOWN, LEAVES, TAG, Seals, looks_tagged

#: The depth of JSON that we write: every supported Python reads it below the frames of a web request.
MAX_DEPTH = 250
TOO_DEEP = "it is nested too deeply, or holds itself"
#: The depth that a tag adds: to the items of a tuple, and to those of a dict that looks like a tag.
_IN_TAG, _IN_ESCAPE = 3, 4

#: The number of items of a value that are checked at its assignment.
FIRST_ITEMS = 32


class Tagging:
    """Replaces the parts of a value that JSON would change or refuse by tags.

    Args:
        seals: seals texts that are HTML.
    """

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        #: The key in the session of the value that is being written.
        self._key: Any = None
        self._has_sealed = False
        #: The values that come back as another type: their key in the session, their type, and the other one.
        self.converted: dict[tuple[Any, type, type], None] = {}

    def record(self, record: Any, word: str) -> Any:
        """Return a record for JSON's encoder, with the word of its seals; raises as :meth:`value`."""
        return self._dict(record, 0, word) if isinstance(record, dict) else self.value(record)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a value for JSON's encoder.

        Raises:
            RecursionError, ValueError: it is nested too deeply, or holds itself.
            TypeError: no tag can represent it.
        """
        if depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
        kind = type(value)
        if kind is dict:
            return self._dict(value, depth)
        if kind is list:
            return self._items(value, depth + 1)
        if kind is tuple:
            return {TAG: ["tuple", self._items(value, depth + _IN_TAG)]}
        return value if kind in LEAVES else self._other(value, depth)

    def _items(self, items: Collection[Any], depth: int) -> list[Any]:
        # Save the calls, since most items are leaves.
        if LEAVES.issuperset(map(type, items)):
            return list(items)
        written_as = []
        # Avoid a comprehension, which until Python 3.11 adds a frame at each depth.
        for item in items:
            written_as.append(item if type(item) in LEAVES else self.value(item, depth))  # noqa: PERF401 -- see above
        return written_as

    def _dict(self, value: dict[Any, Any], depth: int, word: str = "") -> dict[str, Any]:
        depth += _IN_ESCAPE if looks_tagged(value) else 1
        written_as = {}
        for key, item in value.items():
            if word:
                self._key = key
            name = key if type(key) is str else self._text_key(key)
            written_as[name] = item if type(item) in LEAVES else self.value(item, depth)
        if len(written_as) < len(value):
            raise TypeError("two of its keys are one text, JSON would keep one of them")
        if word and self._has_sealed:
            written_as[SEAL_WORD] = word
        return {TAG: ["dict", list(written_as.items())]} if looks_tagged(written_as) else written_as

    def _text_key(self, key: Any) -> str:
        _check_key(key)
        self._convert(key, str)
        # Avoid str(), which returns the name of an Enum's member.
        return str.__str__(key)

    def _other(self, value: Any, depth: int) -> Any:
        """Return a set, or an instance of a derived class, for JSON's encoder."""
        if isinstance(value, str) and hasattr(value, "__html__"):
            return self._html(value)
        if isinstance(value, TranslationString):
            return self._translation(value, depth)
        base = _base(value)
        if type(value) is not base:
            self._convert(value, base)
        if base is dict:
            return self._dict(value, depth)
        if base is list:
            return self._items(value, depth + 1)
        if base is tuple:
            return {TAG: ["tuple", self._items(value, depth + _IN_TAG)]}
        return self._set(value, depth) if base is set else EXACT[base](value)

    def _html(self, value: Any) -> dict[str, Any]:
        self._has_sealed = True
        html = value.__html__()
        if not isinstance(html, str):
            raise TypeError(f"__html__() of a {type(value).__name__} returns a {type(html).__name__}, not a text")
        text = str.__str__(html)
        return {TAG: [HTML, self._seals.seal(text), text]}

    def _translation(self, value: Any, depth: int) -> dict[str, Any]:
        if type(value) is not TranslationString:
            self._convert(value, TranslationString)
        if not isinstance(value.mapping, (dict, type(None))):
            raise TypeError(f"the mapping of a TranslationString is a {type(value.mapping).__name__}, not a dict")
        content = str.__str__(value), value.domain, value.default, value.mapping, value.context
        return {TAG: ["TranslationString", self._items(content, depth + _IN_TAG)]}

    def _set(self, items: set[Any], depth: int) -> dict[str, Any]:
        if not LEAVES.issuperset(map(type, items)) and len(set(map(_as_read, items))) < len(items):
            raise TypeError("two items of a set are one as JSON")
        # Sort them, since the order of a set differs between processes.
        return {TAG: ["set", sorted(self._items(items, depth + _IN_TAG), key=repr)]}

    def _convert(self, value: Any, base: type) -> None:
        self.converted[self._key, type(value), base] = None


def _base(value: Any) -> type:
    """Return the class that JSON brings back for a value."""
    base = next((base for base in BASES if isinstance(value, base)), None)
    if base is None:
        raise TypeError(f"a value of type {type(value).__name__} is not JSON")
    return base


def _as_read(value: Any) -> Any:
    """Return the value that JSON brings back for an item of a set; raises ``TypeError`` if no set can hold it."""
    if type(value) in LEAVES or isinstance(value, TranslationString) or hasattr(value, "__html__"):
        return value
    base = _base(value)
    if base is tuple:
        return tuple(map(_as_read, value))
    if base not in EXACT:
        raise TypeError(f"a set cannot hold a {base.__name__}, as which a {type(value).__name__} would come back")
    return EXACT[base](value)


def _check_key(key: Any) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is of type {type(key).__name__}, JSON would turn it into a string")


def check_at_once(key: Any, value: Any) -> None:
    """Raise ``TypeError`` for what is obviously not JSON: a key, a value, or its first items.

    Args:
        key: the key in the session.
        value: what is assigned to it.
    """
    _check_key(key)
    _check_types((value,))
    if isinstance(value, dict):
        for name in islice(value, FIRST_ITEMS):
            _check_key(name)
        _check_types(islice(value.values(), FIRST_ITEMS))
    elif isinstance(value, (list, tuple, set)):
        _check_types(islice(value, FIRST_ITEMS))


def _check_types(values: Iterable[Any]) -> None:
    for value in values:
        if type(value) not in KNOWN:
            _base(value)
