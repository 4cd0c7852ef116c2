"""Serializers: the dict that Beaker keeps of a session to plain bytes, and back.

The formats are Beaker's (``beaker/util.py``, ``JsonSerializer`` and ``PickleSerializer``), with more types in JSON.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import secrets
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from beaker_bridge.exceptions import SessionTooLargeError
from beaker_bridge.logs import fields
from beaker_bridge.record.fields import SEAL_WORD, UnreadableError
from beaker_bridge.record.json_types import LEAVES, TAG, Seals, untagged, written
from beaker_bridge.record.tagging import TOO_DEEP, Tagging

log = logging.getLogger(__name__)

#: The limit of a record's JSON, in bytes. A larger one is refused when it is written, and damaged when it is read,
#: against decompression bombs.
MAX_PLAIN_SIZE = 16 * 1024 * 1024

#: The limit of JSON that is stored in zlib's format without compression, in bytes: compressing it takes ten times as
#: long, and saves little.
MAX_STORED_SIZE = 256
#: The size of zlib's own window, in bytes.
WINDOW = 32 * 1024
#: The beginning of zlib's format before a single block without compression.
_STORED = b"\x78\x01\x01"
#: The format of a block's size and its complement, and the largest block, in bytes.
_SIZES, _LARGEST_BLOCK = struct.Struct("<HH"), 0xFFFF
#: The positions of the data between the block's header and the checksum, and of the checksum.
_DATA, _CHECKSUM = slice(len(_STORED) + _SIZES.size, -4), slice(-4, None)

#: The depth from which a value is left to :class:`Tagging`.
_DEEP = 50

#: Two surrogates, each a character of its own: JSON would join them to one character.
_HALVES = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")
#: The limit of warnings about keys and types: a session's keys may be anything.
_MAX_TOLD = 256


class Serializer(Protocol):
    """The interface of a ``data_serializer``: it turns a dict into bytes and back."""

    def dumps(self, record: Any) -> bytes: ...

    def loads(self, plain: bytes) -> Any: ...


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Say whether JSON's encoder writes a value so that it is read back as it was."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind in LEAVES
    if depth == _DEEP:
        return False
    # Save the calls, since most items are leaves.
    if kind is list:
        for item in value:  # noqa: SIM110 -- all() of a generator takes twice as long
            if type(item) not in LEAVES and not _is_plain(item, depth + 1):
                return False
        return True
    for key, item in value.items():
        if type(key) is not str or (type(item) not in LEAVES and not _is_plain(item, depth + 1)):
            return False
    return TAG not in value


# A self-reference also exceeds the recursion limit, so check_circular is redundant.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=written, check_circular=False)
_CHARACTER_ENCODER = json.JSONEncoder(ensure_ascii=False, default=written, check_circular=False)
_DECODER: Any = json.JSONDecoder()
_TAG_DECODER: Any = json.JSONDecoder(object_hook=untagged)


class JSONSerializer:
    """Beaker's JSON record (zlib around JSON), with more types and a bound on its size.

    Args:
        keys: the keys that seal HTML in a record; the first one is the current one.
        step: the number of bytes to a multiple of which records are padded, without compression, so that the length of
            an encrypted record does not depend on its content; 0 to compress them.
    """

    def __init__(self, keys: Sequence[str] = ("",), *, step: int = 0) -> None:
        self._keys = keys
        self._step = step
        # Use one word for all records of this process, so that an unchanged session is written as the same bytes.
        self._word = secrets.token_hex(16)
        self._seals = Seals(self._word, keys)

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes.

        Raises:
            TypeError, ValueError: something in it is not JSON.
            SessionTooLargeError: its JSON is over ``MAX_PLAIN_SIZE``.
        """
        text = self.encode(record, is_record=True)
        if len(text) > MAX_PLAIN_SIZE:
            raise SessionTooLargeError(
                f"the session would have {len(text)} bytes as JSON, a record holds {MAX_PLAIN_SIZE}", value=len(text)
            )
        if self._step:
            text = _padded(text, self._step, b" ")
            return _stored(text) if len(text) <= _LARGEST_BLOCK else zlib.compress(text, 0)
        return _stored(text) if len(text) <= MAX_STORED_SIZE else _compress(text)

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises ``ValueError`` or another error for bytes that are none."""
        # Read a stored block without a decompressor, which takes long to set up: it can be no bomb.
        json_bytes = _unstored(plain) if plain.startswith(_STORED) else _decompress(plain)
        text = json_bytes.decode("utf-8")
        decoder = _DECODER
        if TAG in text:
            if SEAL_WORD in text:
                return self._unsealed(text)
            decoder = _TAG_DECODER
        # Call what decode() calls, which costs less.
        try:
            record, end = decoder.scan_once(text, 0)
        except StopIteration:
            end = None
        # Let decode() accept white space around the JSON, and refuse anything else.
        return record if end == len(text) else decoder.decode(text)

    def _unsealed(self, text: str) -> Any:
        """Return the record of a text that may have sealed HTML in it."""
        record = _DECODER.decode(text)
        word = record.get(SEAL_WORD) if isinstance(record, dict) else None
        if not isinstance(word, str):
            return _TAG_DECODER.decode(text)
        hook = partial(untagged, seals=Seals(word, self._keys))
        record = json.JSONDecoder(object_hook=hook).decode(text)
        del record[SEAL_WORD]
        return record

    def encode(self, value: Any, is_record: bool = False) -> bytes:
        """Return the JSON of one value, for the detection of changes; raises as :meth:`dumps` does.

        Args:
            value: the value.
            is_record: whether it is a record, which will be read again.
        """
        try:
            if not _is_plain(value):
                value = self._tagged_record(value) if is_record else Tagging(self._seals).value(value)
            text = _ENCODER.encode(value)
        except RecursionError:
            raise ValueError(TOO_DEEP) from None
        if "\\ud" in text and _HALVES.search(_CHARACTER_ENCODER.encode(value)):
            raise ValueError("a text in it has the two halves of a character as two, JSON would join them")
        return text.encode("ascii")

    def _tagged_record(self, record: Any) -> Any:
        tagging = Tagging(self._seals)
        tagged = tagging.record(record, self._word)
        if tagging.converted:
            _warn_of(tagging.converted)
        return tagged


#: The keys and types that were warned of. Guarded by _told_guard.
_told: set[tuple[str, str]] = set()
_told_guard = threading.Lock()


def _warn_of(converted: Iterable[tuple[Any, type, type]]) -> None:
    """Warn once for each key and type of a value that comes back as another type."""
    for key, kind, base in converted:
        name = f"{kind.__module__}.{kind.__qualname__}"
        about = str(key), name
        # Mostly it was told long ago. A fork may have copied the lock as another thread held it.
        if about in _told:
            continue
        with _told_guard:
            is_due = about not in _told and len(_told) < _MAX_TOLD
            if is_due:
                _told.add(about)
        if is_due:
            log.warning(
                "session[%r] holds a %s, which JSON brings back as %s:"
                " store that, or one of the types that survive JSON",
                key,
                name,
                base.__name__,
                extra=fields(failure="value"),
            )


def _compress(data: bytes) -> bytes:
    # Use a small window for a small session, which zlib spends less time on clearing.
    window_bits, memory = (13, 5) if len(data) <= WINDOW else (15, 8)
    compressor = zlib.compressobj(1, zlib.DEFLATED, window_bits, memory)
    return compressor.compress(data) + compressor.flush()


def _stored(data: bytes) -> bytes:
    """Return data in zlib's format, in one block without compression."""
    size = len(data)
    return _STORED + _SIZES.pack(size, size ^ _LARGEST_BLOCK) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    return zlib.adler32(data).to_bytes(4, "big")


def _unstored(plain: bytes) -> bytes:
    """Return the data of such a block; its checksum proves that it is complete, and that nothing follows."""
    data = plain[_DATA]
    if _checksum(data) != plain[_CHECKSUM] or len(data) > _LARGEST_BLOCK:
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


def _padded(data: bytes, step: int, padding: bytes) -> bytes:
    """Return data padded to a multiple of a number of bytes."""
    return data.ljust(-(-len(data) // step) * step, padding)


class PickleSerializer:
    """Beaker's pickled record. Whoever can write to the store can run code: see SECURITY.rst.

    Args:
        step: as :class:`JSONSerializer` has it.
    """

    def __init__(self, *, step: int = 0) -> None:
        self._step = step

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes; raises what ``pickle`` raises."""
        plain = self.encode(record)
        # Pad it behind its end: a pickle ends at its first STOP.
        return _padded(plain, self._step, pickle.STOP) if self._step else plain

    def encode(self, value: Any) -> bytes:
        """Return the pickle of one value, for the detection of changes."""
        return pickle.dumps(value, 2)

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises what ``pickle`` raises."""
        return pickle.loads(plain)  # noqa: S301  # nosec B301 -- asked for by name: data_serializer = pickle
