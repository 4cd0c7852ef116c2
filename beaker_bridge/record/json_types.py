"""JSON that holds what people store: which types it carries as they are, and what stands for the others."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache, partial
from itertools import islice
from typing import Any
from uuid import UUID

from translationstring import TranslationString

from beaker_bridge.record.fields import SEAL_WORD

#: The key that marks a JSON object as one of the types below.
TAG = "__bb__"
#: The name in the tag of a text that is HTML.
HTML = "Markup"

#: How deep JSON may be that we write. Any Python that we support reads this under the frames of a web request.
MAX_DEPTH = 250
TOO_DEEP = "it is nested too deeply, or holds itself"
#: How much deeper than the object that stands for it something is: a tuple's items, a dict's that looks like a tag.
_IN_TAG, _IN_ESCAPE = 3, 4

#: How many items of a value are looked at when it is assigned.
FIRST_ITEMS = 32


# -- Seals -------------------------------------------------------------------------------------------


class Seals:
    """Tells a text that was HTML when we wrote it from one that looks so.

    A process of Beaker's that shares the store writes a user's JSON as it is, also where that looks like one of our
    tags. A seal depends on the text, on a random word that the record names, and on the keys that sign our cookie:
    a word alone, which a user cannot see, would be one that he can see where the record is the cookie.

    Args:
        word: the word of the record.
        keys: the keys; the first one makes seals, each of them opens some.
    """

    def __init__(self, word: str, keys: Sequence[str]) -> None:
        secret = word.encode("utf-8", "surrogatepass")
        self._keys = [hmac.digest(secret, key.encode("utf-8"), "sha256") for key in keys]

    def seal(self, text: str) -> str:
        """Return the seal of a text."""
        return _seal(self._keys[0], text)

    def is_sealed(self, text: str, seal: str) -> bool:
        """Say whether a seal is ours, and that of a text."""
        return any(hmac.compare_digest(_seal(key, text).encode(), seal.encode()) for key in self._keys)


def _seal(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:24]


class PlainMarkup(str):
    """A text that is HTML, where markupsafe is not installed."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the text, for templates."""
        return str(self)


@cache
def markup_class() -> Callable[[str], str]:
    """Return the class of a text that is HTML."""
    try:
        from markupsafe import Markup
    except ImportError:
        return PlainMarkup
    return Markup


# -- Values of one type ------------------------------------------------------------------------------


#: How an offset begins that Python writes, and reads as none.
_MISREAD = frozenset({"+00:00:00.", "-00:00:00."})


def _written_moment(moment: Any) -> Any:
    """Return a datetime or time in ISO format, with its offset; and with its zone and fold, which that drops."""
    text, zone = moment.isoformat(), _zone_key(moment.tzinfo)
    if text[-16:-6] in _MISREAD:
        raise ValueError(f"an offset from UTC of less than a second, as in {text}, is not JSON")
    return [text, moment.fold, zone] if zone or moment.fold else text


def _zone_key(zone: Any) -> str | None:
    """Return the name by which a zone is found again, if it has one."""
    if zone is None:
        return None
    from zoneinfo import ZoneInfo

    # Another class may have a key that means something else.
    return zone.key if isinstance(zone, ZoneInfo) else None


def _read_moment(kind: Any, content: Any) -> Any:
    if isinstance(content, str):
        return kind.fromisoformat(content)
    text, fold, zone = content
    moment = kind.fromisoformat(text).replace(fold=fold)
    return moment if zone is None else _in_zone(moment, zone)


def _in_zone(moment: Any, key: str) -> Any:
    """Return a moment in its zone; with the offset that it was written with, where the zone is another one here."""
    from zoneinfo import ZoneInfo

    try:
        there = moment.replace(tzinfo=ZoneInfo(key))
    except (LookupError, OSError, ValueError):
        # This machine does not know it.
        return moment
    return there if moment.tzinfo is None or moment.utcoffset() == there.utcoffset() else moment


def _read_timedelta(content: Any) -> timedelta:
    days, seconds, microseconds = content
    return timedelta(days, seconds, microseconds)


def _read_dict(content: Any) -> dict[str, Any]:
    if not all(type(pair) is list and type(pair[0]) is str for pair in content):
        raise TypeError("a key is no text")
    return dict(content)


def _read_translation(content: Any) -> TranslationString:
    msgid, domain, default, mapping, context = content
    if not isinstance(msgid, str) or not isinstance(mapping, (dict, type(None))):
        raise TypeError("no translation")
    translation = TranslationString(msgid, domain=domain, mapping=mapping, context=context)
    translation.default = default
    return translation


# A datetime is a date: the narrower type stands first.
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", _written_moment),
    date: ("date", date.isoformat),
    time: ("time", _written_moment),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("Decimal", Decimal.__str__),
    UUID: ("UUID", lambda value: value.hex),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
}
#: What reads each, and from which types of JSON: what has another one only looks so.
_READERS: dict[str, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
    "datetime": ((str, list), partial(_read_moment, datetime)),
    "date": ((str,), date.fromisoformat),
    "time": ((str, list), partial(_read_moment, time)),
    "timedelta": ((list,), _read_timedelta),
    "Decimal": ((str,), Decimal),
    "UUID": ((str,), UUID),
    "bytes": ((str,), partial(base64.b64decode, validate=True)),
    "tuple": ((list,), tuple),
    "set": ((list,), set),
    # A dict of the application's that has nothing but our tag as a key.
    "dict": ((list,), _read_dict),
    "TranslationString": ((list,), _read_translation),
}
_NAMES = frozenset({*_READERS, HTML})
#: What is raised for a name or a content that is none of ours.
_MALFORMED = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)

#: What becomes of a derived class, where not every one is written as it is: isoformat() is what a class makes of it.
_EXACT: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    datetime: lambda value: datetime(
        *(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond),
        tzinfo=value.tzinfo,
        fold=value.fold,
    ),
    date: lambda value: date(value.year, value.month, value.day),
    time: lambda value: time(
        value.hour, value.minute, value.second, value.microsecond, tzinfo=value.tzinfo, fold=value.fold
    ),
    # Its attributes may be those of pendulum, which count in another way.
    timedelta: lambda value: timedelta.__add__(timedelta(), value),
    Decimal: lambda value: Decimal(Decimal.__str__(value)),
    UUID: lambda value: UUID(int=value.int),
    bytes: bytes,
}
#: What JSON's encoder carries exactly, or hands to us. A tuple it would turn into a list, unasked.
LEAVES = frozenset({str, int, float, bool, type(None), *_WRITERS})
#: What can be written, be it itself or a class that derives from it.
_BASES = (dict, list, tuple, set, *_EXACT)
_KNOWN = LEAVES | {dict, list, tuple, set}


# -- Written -----------------------------------------------------------------------------------------


class Tagging:
    """Makes of one value that of which JSON's encoder makes what can be read back.

    Args:
        seals: what seals a text that is HTML.
    """

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        #: The key in the session of what is being written.
        self._key: Any = None
        self._has_sealed = False
        #: What does not come back as it is: the key in the session, the type, and that which comes back.
        self.converted: dict[tuple[Any, type, type], None] = {}

    def record(self, record: Any, word: str) -> Any:
        """Return what is written for a record, with the word of its seals; raises as :meth:`value`."""
        return self._dict(record, 0, word) if isinstance(record, dict) else self.value(record)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return what is written for a value.

        Raises:
            RecursionError, ValueError: it is nested too deeply, or holds itself.
            TypeError: there is nothing that could stand for it.
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
        # Most items are leaves: not even a call for them.
        if LEAVES.issuperset(map(type, items)):
            return list(items)
        written_as = []
        # No comprehension, which on Python 3.11 is a frame more at each depth.
        for item in items:
            written_as.append(item if type(item) in LEAVES else self.value(item, depth))  # noqa: PERF401 -- see above
        return written_as

    def _dict(self, value: dict[Any, Any], depth: int, word: str = "") -> dict[str, Any]:
        depth += _IN_ESCAPE if _looks_tagged(value) else 1
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
        return {TAG: ["dict", list(written_as.items())]} if _looks_tagged(written_as) else written_as

    def _text_key(self, key: Any) -> str:
        _check_key(key)
        self._convert(key, str)
        # Not str(): what that returns for an Enum is its name.
        return str.__str__(key)

    def _other(self, value: Any, depth: int) -> Any:
        """Return what is written for a set, and for what derives from a class that we know."""
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
        return self._set(value, depth) if base is set else _EXACT[base](value)

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
        # In one order, whatever the set's own is in this process.
        return {TAG: ["set", sorted(self._items(items, depth + _IN_TAG), key=repr)]}

    def _convert(self, value: Any, base: type) -> None:
        self.converted[self._key, type(value), base] = None


def _looks_tagged(value: dict[Any, Any]) -> bool:
    """Say whether a dict would be read as one of our types."""
    if len(value) != 1 or TAG not in value:
        return False
    content = value[TAG]
    return isinstance(content, list) and bool(content) and isinstance(content[0], str) and content[0] in _NAMES


def _base(value: Any) -> type:
    """Return the class that comes back for a value."""
    base = next((base for base in _BASES if isinstance(value, base)), None)
    if base is None:
        raise TypeError(f"a value of type {type(value).__name__} is not JSON")
    return base


def _as_read(value: Any) -> Any:
    """Return what comes back for an item of a set; raises ``TypeError`` where no set could hold that."""
    if type(value) in LEAVES or isinstance(value, TranslationString) or hasattr(value, "__html__"):
        return value
    base = _base(value)
    if base is tuple:
        return tuple(map(_as_read, value))
    if base not in _EXACT:
        raise TypeError(f"a set cannot hold a {base.__name__}, as which a {type(value).__name__} would come back")
    return _EXACT[base](value)


def _check_key(key: Any) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is of type {type(key).__name__}, JSON would turn it into a string")


def written(value: Any) -> dict[str, Any]:
    """Return what stands for one of the leaves that JSON does not have, as JSON's encoder asks (``default``)."""
    name, write = _WRITERS[type(value)]
    return {TAG: [name, write(value)]}


def check_at_once(key: Any, value: Any) -> None:
    """Raise ``TypeError`` for what is seen at a glance not to be JSON: a key, a value, its first items.

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
        if type(value) not in _KNOWN:
            _base(value)


# -- Read --------------------------------------------------------------------------------------------


def untagged(value: dict[str, Any], seals: Seals | None = None) -> Any:
    """Return what a JSON object stands for, as JSON's decoder asks for each (``object_hook``).

    A tag that we do not know, or whose content is none, is a dict that looks so: it stays what it is.

    Args:
        value: the object.
        seals: what tells whether a text is HTML, where the record names a word.
    """
    if len(value) != 1 or TAG not in value:
        return value
    content = value[TAG]
    if type(content) is not list:
        return value
    try:
        if type(content[0]) is not str:
            # A text that has become HTML or a translation equals its name, and was no name when it was written.
            return value
        if len(content) == 2:  # noqa: PLR2004 -- a name and what is read
            name, part = content
            types, read = _READERS[name]
            return read(part) if type(part) in types else value
        name, seal, text = content
        if seals is not None and name == HTML and seals.is_sealed(text, seal):
            return markup_class()(text)
    except _MALFORMED:
        pass
    return value
