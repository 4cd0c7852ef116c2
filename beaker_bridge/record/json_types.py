"""JSON that holds what people store: which types it carries as they are, and what stands for the others."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache, partial
from typing import Any
from uuid import UUID

from translationstring import TranslationString

#: The key that marks a JSON object as one of the types below.
TAG = "__bb__"
#: The name in the tag of a text that is HTML.
HTML = "Markup"



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
EXACT: dict[type, Callable[[Any], Any]] = {
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
BASES = (dict, list, tuple, set, *EXACT)
KNOWN = LEAVES | {dict, list, tuple, set}


# -- Tags -------------------------------------------------------------------------------------------


def written(value: Any) -> dict[str, Any]:
    """Return what stands for one of the leaves that JSON does not have, as JSON's encoder asks (``default``)."""
    name, write = _WRITERS[type(value)]
    return {TAG: [name, write(value)]}


def looks_tagged(value: dict[Any, Any]) -> bool:
    """Say whether a dict would be read as one of our types."""
    if len(value) != 1 or TAG not in value:
        return False
    content = value[TAG]
    return isinstance(content, list) and bool(content) and isinstance(content[0], str) and content[0] in _NAMES


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
