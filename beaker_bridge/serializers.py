"""Serializers: the dict that Beaker keeps of a session to plain bytes, and back.

The formats are Beaker's (``beaker/util.py``, ``JsonSerializer`` and ``PickleSerializer``), with more types in JSON.
"""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from typing import Any, Protocol

from beaker_bridge.exceptions import SessionTooLargeError
from beaker_bridge.json_types import KEYS, LEAVES, PLAIN, TAG, tagged, untagged, written

#: The largest JSON, in bytes, that a record is compressed from. A larger one is refused when it is
#: written, and damaged when it is read: it would be a bomb.
MAX_PLAIN_SIZE = 16 * 1024 * 1024

#: JSON up to this size, in bytes, is put into zlib's format as it is: to compress it takes ten times as
#: long, and makes it little smaller.
MAX_STORED_SIZE = 256
#: The size of zlib's own window, in bytes.
WINDOW = 32 * 1024
#: How zlib's format begins where one block follows, the last one, that is not compressed.
_STORED = b"\x78\x01\x01"
#: The size of a block, and what makes it all ones; how many bytes that can tell of.
_SIZES, _LARGEST_BLOCK = struct.Struct("<HH"), 0xFFFF
#: What is beside the block: that before it, and the checksum behind it.
_BEFORE, _BEHIND = len(_STORED) + _SIZES.size, -4


#: From this many items on, a list of rows is looked at as a whole.
_MANY = 32
#: A value that has more items than this at one depth, or is deeper than this, is left to :func:`tagged`.
_TOO_MANY, _TOO_DEEP = 1_000_000, 50


class Serializer(Protocol):
    """What ``data_serializer`` may be: an object that turns a dict into bytes and back."""

    def dumps(self, record: Any) -> bytes: ...

    def loads(self, plain: bytes) -> Any: ...


class UnreadableError(ValueError):
    """Says in our own words why bytes are no record: others' words may quote them."""


def _is_plain(value: Any, depth: int = 0) -> bool:  # noqa: PLR0911 -- each says what it is that is not
    """Say whether JSON's encoder is known to do right by a value."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind in LEAVES
    if len(value) > _MANY:
        return _are_plain([value])
    if depth == _TOO_DEEP:
        return False
    # Most items are leaves: not even a call for them.
    if kind is list:
        for item in value:  # noqa: SIM110 -- all() of a generator takes twice as long
            if type(item) not in LEAVES and not _is_plain(item, depth + 1):
                return False
        return True
    for key, item in value.items():
        if type(key) is not str or (type(item) not in LEAVES and not _is_plain(item, depth + 1)):
            return False
    return TAG not in value


def _are_plain(items: Collection[Any]) -> bool:
    """Say the same of many values, at one go for each depth; the loops over them run in C."""
    for _ in range(_TOO_DEEP):
        if LEAVES.issuperset(map(type, items)):
            return True
        if len(items) > _TOO_MANY or not PLAIN.issuperset(map(type, items)):
            return False
        dicts = [item for item in items if type(item) is dict]
        keys = set(chain.from_iterable(dicts))
        if TAG in keys or not KEYS.issuperset(map(type, keys)):
            return False
        lists = [item for item in items if type(item) is list]
        items = [*chain.from_iterable(map(dict.values, dicts)), *chain.from_iterable(lists)]
    return False


# What holds itself is nested too deeply, too: no need to look for that apart.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=written, check_circular=False)
_DECODER: Any = json.JSONDecoder()
_TAG_DECODER: Any = json.JSONDecoder(object_hook=untagged)


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
        # What is in a block as it is can be no bomb, and needs no decompressor, which takes long to set up.
        json_bytes = _unstored(plain) if plain.startswith(_STORED) else _decompress(plain)
        text = json_bytes.decode("utf-8")
        decoder = _TAG_DECODER if TAG in text else _DECODER
        # As its decode() does, without the steps between.
        try:
            record, end = decoder.scan_once(text, 0)
        except StopIteration:
            end = None
        # Others may put white space around; whatever else stands there, this refuses.
        return record if end == len(text) else decoder.decode(text)

    def encode(self, value: Any) -> bytes:
        """Return the JSON of one value, for the detection of changes; raises as :meth:`dumps` does."""
        try:
            return "".join(_encoded(value if _is_plain(value) else tagged(value), 0)).encode("ascii")
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
    return _STORED + _SIZES.pack(size, size ^ _LARGEST_BLOCK) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    return zlib.adler32(data).to_bytes(-_BEHIND, "big")


def _unstored(plain: bytes) -> bytes:
    """Return what is in one block, as it is; the checksum behind it tells that it is whole, and alone."""
    data = plain[_BEFORE:_BEHIND]
    if _checksum(data) != plain[_BEHIND:] or len(data) > _LARGEST_BLOCK:
        raise UnreadableError("it is cut, or something follows it")
    return data


def _decompress(plain: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(plain, MAX_PLAIN_SIZE + 1)
    if len(data) > MAX_PLAIN_SIZE:
        raise UnreadableError(f"it would have over {MAX_PLAIN_SIZE} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise UnreadableError("it is cut, or something follows it")
    return data


class PickleSerializer:
    """Beaker's pickled record. Who can write into the store can run code: see SECURITY.rst."""

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes; raises what ``pickle`` raises."""
        return pickle.dumps(record, 2)

    #: The pickle of one value, for the detection of changes.
    encode = dumps

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises what ``pickle`` raises."""
        return pickle.loads(plain)  # noqa: S301  # nosec B301 -- asked for by name: data_serializer = pickle
