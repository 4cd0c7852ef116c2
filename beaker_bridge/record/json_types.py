"""The types that our JSON holds beyond JSON's own, and the tags that represent them."""

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

#: The key that marks a JSON object as a tag: a value of one of the types below.
TAG = "__bb__"
#: The name in the tag of a text that is HTML.
HTML = "Markup"


# -- Seals -------------------------------------------------------------------------------------------


class Seals:
    """Proves that a text was HTML when we wrote it, since a user's JSON may look like our tag for HTML.

    A process of Beaker's that shares the store writes such JSON unchanged. A seal is an HMAC of the text under a random
    word in the record, and the keys that sign our cookie. The word alone would not do: a user can read it if the record
    is the cookie.

    Args:
        word: the word of the record.
        keys: the keys; the first one makes seals, the others verify older ones.
    """

    def __init__(self, word: str, keys: Sequence[str]) -> None:
        secret = word.encode("utf-8", "surrogatepass")
        self._keys = [hmac.digest(secret, key.encode("utf-8"), "sha256") for key in keys]

    def seal(self, text: str) -> str:
        """Return the seal of a text."""
        return _seal(self._keys[0], text)

    def is_sealed(self, text: str, seal: str) -> bool:
        """Say whether a seal is that of a text."""
        return any(hmac.compare_digest(_seal(key, text).encode(), seal.encode()) for key in self._keys)


def _seal(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:24]


class PlainMarkup(str):
    """A text that is HTML, for sites without markupsafe."""

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


#: The beginnings of an offset that Python writes, but reads as UTC.
_MISREAD = frozenset({"+00:00:00.", "-00:00:00."})


def _written_moment(moment: Any) -> Any:
    """Return a datetime or time in ISO format, with the zone and fold that the format drops."""
    text, zone = moment.isoformat(), _zone_key(moment.tzinfo)
    if text[-16:-6] in _MISREAD:
        raise ValueError(f"an offset from UTC of less than a second, as in {text}, is not JSON")
    return [text, moment.fold, zone] if zone or moment.fold else text


def _zone_key(zone: Any) -> str | None:
    """Return the name of a zone, if it has one."""
    if zone is None:
        return None
    from zoneinfo import ZoneInfo

    # Ask ZoneInfo only: in another class, key may mean something else.
    return zone.key if isinstance(zone, ZoneInfo) else None


def _read_moment(kind: Any, content: Any) -> Any:
    if isinstance(content, str):
        return kind.fromisoformat(content)
    text, fold, zone = content
    moment = kind.fromisoformat(text).replace(fold=fold)
    return moment if zone is None else _in_zone(moment, zone)


def _in_zone(moment: Any, key: str) -> Any:
    """Return a moment in its zone; with its offset instead if this machine's zone has another one then."""
    from zoneinfo import ZoneInfo

    try:
        there = moment.replace(tzinfo=ZoneInfo(key))
    except (LookupError, OSError, ValueError):
        # Keep the offset if this machine does not know the zone.
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


# Put datetime before date, which it derives from.
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", _written_moment),
    date: ("date", date.isoformat),
    time: ("time", _written_moment),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("Decimal", Decimal.__str__),
    UUID: ("UUID", lambda value: value.hex),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
}
#: The readers, and the JSON types that each reads: a tag with content of another type is the application's own dict.
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
    # Read a dict of the application's whose only key is our tag.
    "dict": ((list,), _read_dict),
    "TranslationString": ((list,), _read_translation),
}
_NAMES = frozenset({*_READERS, HTML})
#: The errors of a name or a content that is not ours.
_MALFORMED = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)

#: Converts an instance of a derived class to its base: the class may override what we write, such as isoformat().
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
    # Ignore its attributes, which in pendulum count in another way.
    timedelta: lambda value: timedelta.__add__(timedelta(), value),
    Decimal: lambda value: Decimal(Decimal.__str__(value)),
    UUID: lambda value: UUID(int=value.int),
    bytes: bytes,
}
#: The types that JSON's encoder writes exactly, or passes to us. It would turn a tuple into a list.
LEAVES = frozenset({str, int, float, bool, type(None), *_WRITERS})
#: The types that can be written, also as a class that derives from them.
BASES = (dict, list, tuple, set, *EXACT)
KNOWN = LEAVES | {dict, list, tuple, set}


# -- Tags -------------------------------------------------------------------------------------------


def written(value: Any) -> dict[str, Any]:
    """Return the tag for a leaf that JSON does not have; the ``default`` of JSON's encoder."""
    name, write = _WRITERS[type(value)]
    return {TAG: [name, write(value)]}


def looks_tagged(value: dict[Any, Any]) -> bool:
    """Say whether a dict would be read as a tag."""
    if len(value) != 1 or TAG not in value:
        return False
    content = value[TAG]
    return isinstance(content, list) and bool(content) and isinstance(content[0], str) and content[0] in _NAMES


def untagged(value: dict[str, Any], seals: Seals | None = None) -> Any:
    """Return the value that a JSON object represents; the ``object_hook`` of JSON's decoder.

    An unknown tag, or one with malformed content, is a dict of the application's: it stays a dict.

    Args:
        value: the object.
        seals: verifies HTML, if the record has a word for that.
    """
    if len(value) != 1 or TAG not in value:
        return value
    content = value[TAG]
    if type(content) is not list:
        return value
    try:
        if type(content[0]) is not str:
            # Skip a text that was read as HTML or a translation: it may equal a name, but was none when written.
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
