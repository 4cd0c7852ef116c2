"""Serializers: the dict that Beaker keeps of a session to plain bytes, and back.

The formats are Beaker's (``beaker/util.py``, ``JsonSerializer`` and ``PickleSerializer``), with more types in JSON.
"""

from __future__ import annotations

import base64
import json
import pickle
import struct
import zlib
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, compress
from typing import Any, Protocol
from uuid import UUID

from beaker_bridge.exceptions import SessionTooLargeError

#: The largest JSON, in bytes, that a record is compressed from. A larger one is refused when it is
#: written, and damaged when it is read: it would be a bomb.
MAX_PLAIN_SIZE = 16 * 1024 * 1024

#: JSON up to this size, in bytes, is put into zlib's format as it is: to compress it takes ten times as
#: long, and makes it little smaller.
MAX_STORED_SIZE = 256
#: The size of zlib's own window, in bytes.
WINDOW = 32 * 1024
#: How zlib's format begins where one block follows, the last one, that is not compressed; how many bytes
#: there are beside the block's data: these, twice the size, and the checksum.
_STORED, _STORED_FRAME = b"\x78\x01\x01", 11
#: The size, and what makes it all ones.
_SIZES = struct.Struct("<HH")

#: The key that marks a JSON object as one of the types below.
TAG = "__bb__"


class Serializer(Protocol):
    """What ``data_serializer`` may be: an object that turns a dict into bytes and back."""

    def dumps(self, record: Any) -> bytes: ...

    def loads(self, plain: bytes) -> Any: ...


class UnreadableError(ValueError):
    """Says in our own words why bytes are no record: others' words may quote them."""


# -- JSON that holds what people store ---------------------------------------------------------------

_STR = {str}
#: From this many items on, a list of rows is looked at as a whole.
_MANY = 32
#: A value that has more items than this at one depth may hold itself.
_TOO_MANY = 1_000_000


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
    set: ("set", lambda value: sorted(map(_tagged, value), key=repr)),
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
_LEAVES = frozenset({str, int, float, bool, type(None), *_WRITERS})
_CONTAINERS = frozenset({dict, list})
_PLAIN = _LEAVES | _CONTAINERS


def _is_plain(value: Any) -> bool:
    """Say whether JSON's encoder does right by a value; the loops over its items run in C."""
    kind = type(value)
    if kind in _LEAVES:
        return True
    if kind is dict:
        if TAG in value or (value and set(map(type, value)) != _STR):
            return False
        items: Collection[Any] = value.values()
    elif kind is list:
        items = value
    else:
        return False
    kinds = set(map(type, items))
    if kinds <= _LEAVES:
        return True
    if len(items) > _MANY:
        return kinds <= _PLAIN and _are_plain(items)
    return kinds <= _PLAIN and all(map(_is_plain, compress(items, map(_CONTAINERS.__contains__, map(type, items)))))


def _are_plain(items: Collection[Any]) -> bool:
    """Say the same of many values, all of them of plain types, at one go for each depth."""
    dicts = [item for item in items if type(item) is dict]
    keys = set(chain.from_iterable(dicts))
    if TAG in keys or not set(map(type, keys)) <= _STR:
        return False
    lists = [item for item in items if type(item) is list]
    inner = [*chain.from_iterable(map(dict.values, dicts)), *chain.from_iterable(lists)]
    kinds = set(map(type, inner))
    return kinds <= _LEAVES or (kinds <= _PLAIN and len(inner) < _TOO_MANY and _are_plain(inner))


def _tagged(value: Any) -> Any:
    """Return a value of which JSON's encoder makes what can be read back exactly.

    Subclasses of what JSON has (Markup, IntEnum) become what JSON makes of them.
    """
    if isinstance(value, dict):
        return _tagged_dict(value)
    if isinstance(value, tuple):
        return {TAG: ["tuple", _tagged_items(value)]}
    return _tagged_items(value) if isinstance(value, list) else value


def _tagged_items(items: Collection[Any]) -> list[Any]:
    # Most items are leaves: not even a call for them.
    if _LEAVES.issuperset(map(type, items)):
        return list(items)
    return [item if type(item) in _LEAVES else _tagged(item) for item in items]


def _tagged_dict(value: dict[Any, Any]) -> dict[str, Any]:
    tagged = {key: item if type(item) in _LEAVES else _tagged(item) for key, item in value.items()}
    if not _STR.issuperset(map(type, tagged)):
        tagged = {_key(key): item for key, item in tagged.items()}
    return {TAG: ["dict", list(tagged.items())]} if TAG in tagged else tagged


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is of type {type(key).__name__}, JSON would turn it into a string")
    return str(key)


def _written(value: Any) -> dict[str, Any]:
    """Return what stands for a value that JSON does not have."""
    writer = _WRITERS.get(type(value)) or next((_WRITERS[kind] for kind in _WRITERS if isinstance(value, kind)), None)
    if writer is None:
        raise TypeError(f"a value of type {type(value).__name__} is not JSON")
    name, write = writer
    return {TAG: [name, write(value)]}


def _untagged(value: dict[str, Any]) -> Any:
    if len(value) != 1 or TAG not in value:
        return value
    name, content = value[TAG]
    return _READERS[name](content)


# What holds itself is nested too deeply, too: no need to look for that apart.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_written, check_circular=False)
_DECODER: Any = json.JSONDecoder()
_TAG_DECODER: Any = json.JSONDecoder(object_hook=_untagged)


def _made_once(encoder: json.JSONEncoder) -> Callable[[Any, int], Iterable[str]]:
    """Return what writes a value in pieces of JSON: what the encoder makes anew for each, made once.

    It keeps nothing between values, since it does not look for circles.
    """
    make: Any = json.encoder.c_make_encoder  # type: ignore[attr-defined]
    if make is None:  # pragma: no cover -- where json has no part in C
        return lambda value, _: encoder.iterencode(value)
    escape = json.encoder.encode_basestring_ascii
    separators = encoder.key_separator, encoder.item_separator
    return make(  # type: ignore[no-any-return]
        None, encoder.default, escape, None, *separators, encoder.sort_keys, encoder.skipkeys, encoder.allow_nan
    )


_encoded = _made_once(_ENCODER)


class JSONSerializer:
    """Beaker's JSON record (zlib around JSON), with more types and a bound on its size."""

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes.

        Raises:
            TypeError, ValueError: something in it is not JSON.
            SessionTooLargeError: its JSON is over ``MAX_PLAIN_SIZE``.
        """
        text = self.encode(record)
        if len(text) > MAX_PLAIN_SIZE:
            raise SessionTooLargeError(
                f"the session would have {len(text)} bytes as JSON, a record holds {MAX_PLAIN_SIZE}", value=len(text)
            )
        return _stored(text) if len(text) <= MAX_STORED_SIZE else _compress(text)

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises ``ValueError`` or another error for bytes that are none."""
        # One block of what it holds can be no bomb, and needs no decompressor, which takes long to set up.
        is_stored = plain.startswith(_STORED)
        json_bytes = zlib.decompress(plain) if is_stored else _decompress(plain)
        if is_stored and len(json_bytes) + _STORED_FRAME != len(plain):
            raise UnreadableError("something follows it")
        if len(json_bytes) > MAX_PLAIN_SIZE:
            raise UnreadableError(f"it would have over {MAX_PLAIN_SIZE} bytes")
        text = json_bytes.decode("utf-8")
        decoder = _TAG_DECODER if TAG in text else _DECODER
        if text.startswith("{"):
            # As its decode() does, without the steps between.
            try:
                record, end = decoder.scan_once(text, 0)
            except StopIteration:
                end = None
            if end == len(text):
                return record
        # Others may put white space around; whatever else stands there, this refuses.
        return decoder.decode(text)

    def encode(self, value: Any) -> bytes:
        """Return the JSON of one value, for the detection of changes; raises as :meth:`dumps` does."""
        try:
            return "".join(_encoded(value if _is_plain(value) else _tagged(value), 0)).encode("ascii")
        except RecursionError:
            raise ValueError("it is nested too deeply, or holds itself") from None


def _compress(data: bytes) -> bytes:
    # zlib spends more time on clearing its own window than on a small session; in it, a large one takes half as long.
    window_bits, memory = (13, 5) if len(data) <= WINDOW else (15, 8)
    compressor = zlib.compressobj(1, zlib.DEFLATED, window_bits, memory)
    return compressor.compress(data) + compressor.flush()


def _stored(data: bytes) -> bytes:
    """Return data as zlib has them that are not worth compressing: one block, as they are."""
    size = len(data)
    return _STORED + _SIZES.pack(size, size ^ 0xFFFF) + data + zlib.adler32(data).to_bytes(4, "big")


def _decompress(data: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(data, MAX_PLAIN_SIZE + 1)
    if len(text) <= MAX_PLAIN_SIZE and (not decompressor.eof or decompressor.unused_data):
        raise UnreadableError("it is cut, or something follows it")
    return text


class PickleSerializer:
    """Beaker's pickled record. Who can write into the store can run code: see SECURITY.rst."""

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes; raises what ``pickle`` raises."""
        return pickle.dumps(record, 2)

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises what ``pickle`` raises."""
        return pickle.loads(plain)  # noqa: S301  # nosec B301 -- asked for by name: data_serializer = pickle
