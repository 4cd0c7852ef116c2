"""Records to bytes and back: a serializer, a cipher, and the envelope that Beaker's backend puts around.

A record is the dict that Beaker keeps of a session. Its *plain* bytes are what the serializer makes of
it, its *text* is those in base64 (encrypted first, where there is an ``encrypt_key``), and its *raw*
bytes are what stands in the store. The formats are Beaker's: ``beaker/session.py``
(``_encrypt_data``), ``beaker/util.py`` (``JsonSerializer``) and the namespace managers.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import pickle
import re
import struct
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain, compress
from typing import Any, Protocol
from uuid import UUID

from beaker.crypto import generateCryptoKeys, get_crypto_module, get_nonce_size

from beaker_bridge.exceptions import BeakerBridgeError, DamagedRecordError, SessionTooLargeError, SessionValueError
from beaker_bridge.settings import MAX_SECONDS

#: The largest JSON, in bytes, that a record is compressed from. A larger one is refused when it is
#: written, and damaged when it is read: it would be a bomb.
MAX_PLAIN_SIZE = 16 * 1024 * 1024

#: JSON up to this size, in bytes, is put into zlib's format as it is: to compress it takes ten times as
#: long, and makes it little smaller.
MAX_STORED_SIZE = 256
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


# As base64.b64decode(…, validate=True), without its steps between.
if sys.version_info >= (3, 11):
    _from_base64 = partial(binascii.a2b_base64, strict_mode=True)
else:  # pragma: no cover -- Python 3.10 is strict only there
    _from_base64 = partial(base64.b64decode, validate=True)


class _UnreadableError(ValueError):
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
            raise _UnreadableError("something follows it")
        if len(json_bytes) > MAX_PLAIN_SIZE:
            raise _UnreadableError(f"it would have over {MAX_PLAIN_SIZE} bytes")
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
    # A small window: zlib.compress spends more time on clearing its 32 KiB than on a small session.
    compressor = zlib.compressobj(1, zlib.DEFLATED, 12, 4)
    return compressor.compress(data) + compressor.flush()


def _stored(data: bytes) -> bytes:
    """Return data as zlib has them that are not worth compressing: one block, as they are."""
    size = len(data)
    return _STORED + _SIZES.pack(size, size ^ 0xFFFF) + data + zlib.adler32(data).to_bytes(4, "big")


def _decompress(data: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(data, MAX_PLAIN_SIZE + 1)
    if len(text) <= MAX_PLAIN_SIZE and (not decompressor.eof or decompressor.unused_data):
        raise _UnreadableError("it is cut, or something follows it")
    return text


class PickleSerializer:
    """Beaker's pickled record. Who can write into the store can run code: see SECURITY.rst."""

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes; raises what ``pickle`` raises."""
        return pickle.dumps(record, 2)

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises what ``pickle`` raises."""
        return pickle.loads(plain)  # noqa: S301  # nosec B301 -- asked for by name: data_serializer = pickle


# -- The envelope of a backend -----------------------------------------------------------------------

# Beaker pickles an envelope around a JSON session, too. It is read by its form, not by ``pickle``:
# nothing in it can name any code, and eight bytes of it cannot ask for gigabytes, as a pickle's can.
_HEAD = rb"(?:\x80[\x02-\x05](?:\x95.{8})?)?"
_MEMO = rb"(?:\x94|q.)?"
_SIZE = rb"(?:X(.{4})|\x8c(.))"
_KEY = rb"(?:X\x07\0\0\0|\x8c\x07)session"
_TEXT_OPENS = re.compile(_HEAD + _SIZE, re.DOTALL)
_TEXT_CLOSES = re.compile(_MEMO + rb"\.", re.DOTALL)
_DICT_OPENS = re.compile(_HEAD + rb"}" + _MEMO + _KEY + _MEMO + _SIZE, re.DOTALL)
_DICT_CLOSES = re.compile(_MEMO + rb"s\.", re.DOTALL)
_EMPTY_DICT = re.compile(_HEAD + rb"}" + _MEMO + rb"\.", re.DOTALL)


def _framed(raw: bytes, opens: re.Pattern[bytes], closes: re.Pattern[bytes]) -> str:
    """Return the text between an opening, which ends with the text's size, and a closing."""
    opening = opens.match(raw)
    if opening is None:
        raise _UnreadableError("its envelope is not Beaker's")
    start = opening.end()
    end = start + int.from_bytes(opening[1] or opening[2], "little")
    if not closes.fullmatch(raw, end):
        raise _UnreadableError("its envelope is cut, or holds more than a text")
    return raw[start:end].decode("ascii")


class BareEnvelope:
    """Memory and memcached: the text itself."""

    # Which return them as they are.
    wrap: Callable[[bytes], bytes] = staticmethod(bytes)
    unwrap: Callable[[bytes], Any] = staticmethod(bytes)


class PickledEnvelope:
    """Redis and dbm: the pickled text."""

    @staticmethod
    def wrap(text: bytes) -> bytes:
        return pickle.dumps(text.decode("ascii"))

    @staticmethod
    def unwrap(raw: bytes) -> Any:
        return _framed(raw, _TEXT_OPENS, _TEXT_CLOSES)


class NamespaceEnvelope:
    """File and SQL: a pickled dict that holds the text under ``'session'``."""

    @staticmethod
    def wrap(text: bytes) -> bytes:
        return pickle.dumps({"session": text.decode("ascii")})

    @staticmethod
    def unwrap(raw: bytes) -> Any:
        return None if _EMPTY_DICT.fullmatch(raw) else _framed(raw, _DICT_OPENS, _DICT_CLOSES)


Envelope = type[BareEnvelope] | type[PickledEnvelope] | type[NamespaceEnvelope]


# -- The cipher --------------------------------------------------------------------------------------


class Cipher:
    """Beaker's encryption: a nonce in base64, then the ciphertext in base64.

    Args:
        pairs: ``(encrypt_key, validate_key)``, the current pair first, then the retired ones.
        crypto_type: the name of Beaker's crypto module.
        nonce_bits: the size of the nonce.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, crypto_type: str, nonce_bits: int) -> None:
        self._pairs = tuple(pairs)
        self._module = get_crypto_module(crypto_type)
        self._nonce_size, self._nonce_length = get_nonce_size(nonce_bits)

    def encrypt(self, plain: bytes) -> bytes:
        """Return the text of plain bytes, under the current keys and a new nonce."""
        nonce = base64.b64encode(os.urandom(self._nonce_size))[: self._nonce_length].decode("ascii")
        ciphertext = self._module.aesEncrypt(plain, self._key(self._pairs[0], nonce))
        return nonce.encode("ascii") + base64.b64encode(ciphertext)

    def decrypt(self, text: bytes) -> tuple[bytes, bool]:
        """Return the plain bytes, and whether a retired key was needed.

        Raises:
            ValueError: it is no such text, or no key opens it.
        """
        nonce = text[: self._nonce_length].decode("ascii")
        ciphertext = base64.b64decode(text[self._nonce_length :], validate=True)
        for pair in self._pairs:
            try:
                plain = self._module.aesDecrypt(ciphertext, self._key(pair, nonce))
            except Exception:  # noqa: BLE001, S112 -- each cipher library has its own error for a wrong key
                continue
            return plain, pair is not self._pairs[0]
        raise _UnreadableError("no key opens it")

    def _key(self, pair: tuple[str, str], nonce: str) -> bytes:
        encrypt_key, validate_key = pair
        return bytes(generateCryptoKeys(encrypt_key, validate_key + nonce, 1, self._module.getKeyLength()))


# -- All of it ---------------------------------------------------------------------------------------


#: Printable ASCII, without the semicolon that would begin another attribute.
_ATTRIBUTE = re.compile(r"[!-:<-~]*")
#: No time is later: in seconds since the epoch.
_LATEST = 1e12


def _is_time(value: Any) -> bool:
    # No NaN, no infinity, and nothing that overflows a float.
    return isinstance(value, (int, float)) and -_LATEST < value < _LATEST


def _is_lifetime(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_SECONDS


def is_attribute(value: Any) -> bool:
    """Say whether a value can be a cookie's domain or path: nothing, or text that needs no quoting."""
    return value is None or (isinstance(value, str) and _ATTRIBUTE.fullmatch(value) is not None)


#: What a record holds beside the application's keys is computed with: it must be what it is named.
_OWN_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "_creation_time": _is_time,
    "_accessed_time": _is_time,
    "_bb_expiry": _is_lifetime,
    "_bb_moved": _is_time,
    "_domain": is_attribute,
    "_path": is_attribute,
}


#: Of them, what hardly any record has.
_RARE = frozenset(_OWN_VALUES) - {"_creation_time", "_accessed_time"}


def _check(record: Any) -> None:
    """Raise where something is no record, or one whose own keys hold what nobody has written there."""
    if not isinstance(record, dict):
        raise _UnreadableError(f"it holds a {type(record).__name__}, not a dict")
    created, accessed = record.get("_creation_time"), record.get("_accessed_time")
    # As we write them ourselves, which is nearly always.
    are_times = type(created) is type(accessed) is float and 0 < created < _LATEST and 0 < accessed < _LATEST
    if are_times and _RARE.isdisjoint(record):
        return
    for key, is_right in _OWN_VALUES.items():
        if key in record and not is_right(record[key]):
            raise _UnreadableError(f"its {key} is none")


class RecordCodec:
    """Turns a record into what the store or the cookie holds, and back.

    Args:
        serializer: the current serializer.
        legacy: a serializer that older records may be written with, or nothing.
        cipher: encrypts and decrypts, or nothing.
        envelope: what the backend puts around the text.
    """

    def __init__(
        self,
        serializer: Serializer,
        *,
        legacy: Serializer | None = None,
        cipher: Cipher | None = None,
        envelope: Envelope = BareEnvelope,
    ) -> None:
        self.serializer = serializer
        self._legacy = legacy
        self._cipher = cipher
        self._envelope = envelope
        self._unwrap = envelope.unwrap

    def serialize(self, record: Mapping[str, Any]) -> bytes:
        """Return the plain bytes of a record.

        Raises:
            SessionValueError: a key or value is not what the serializer takes; it names the key.
            SessionTooLargeError: its JSON is over ``MAX_PLAIN_SIZE``.
        """
        try:
            plain = self.serializer.dumps(record)
        except BeakerBridgeError:
            raise
        except Exception as error:
            raise self._refusal(record, error) from error
        if not isinstance(plain, bytes):
            raise SessionValueError(f"data_serializer.dumps must return bytes, got a {type(plain).__name__}")
        return plain

    def seal(self, plain: bytes) -> bytes:
        """Return the raw bytes of plain ones: encrypted where there is a key, in the envelope."""
        text = self._cipher.encrypt(plain) if self._cipher else binascii.b2a_base64(plain, newline=False)
        return self._envelope.wrap(text)

    def decode(self, raw: bytes) -> tuple[dict[str, Any], bool]:
        """Return the record of raw bytes, and whether it should be written anew.

        An envelope without a session, as Beaker leaves it behind, is an empty record.

        Raises:
            DamagedRecordError: they are no record, or not under these keys and this serializer.
        """
        try:
            text = self._unwrap(raw)
            if text is None:
                return {}, False
            if self._cipher is None:
                plain, stale = _from_base64(text), False
            else:
                plain, stale = self._cipher.decrypt(text.encode("ascii") if isinstance(text, str) else text)
            try:
                record = self.serializer.loads(plain)
            except Exception:  # noqa: BLE001 -- the serializer may be anybody's
                record, stale = self._legacy_record(plain), True
            _check(record)
        except Exception as error:
            raise DamagedRecordError(
                f"a record of {len(raw)} bytes cannot be read as a session: {_reason(error)}",
                value=len(raw),
                original=error,
            ) from error
        return record, stale

    def _legacy_record(self, plain: bytes) -> Any:
        """Return the record that the current serializer has just refused, by the legacy one; or raise again."""
        if self._legacy is not None:
            return self._legacy.loads(plain)
        if plain[:1] == b"\x80" and isinstance(self.serializer, JSONSerializer):
            raise _UnreadableError(
                "it is a pickle; legacy_serializer = pickle reads those in a store, never those in a cookie"
            ) from None
        raise  # noqa: PLE0704 -- what the serializer has raised

    def _refusal(self, record: Mapping[str, Any], error: Exception) -> SessionValueError:
        """Find the key at which the serializer fails."""
        for key, value in record.items():
            try:
                self.serializer.dumps({key: value})
            except Exception as cause:  # noqa: BLE001 -- the serializer may be anybody's
                return SessionValueError(
                    f"session[{key!r}] cannot be stored: {cause} (it holds a {type(value).__name__})",
                    name=key,
                    original=cause,
                )
        return SessionValueError(f"the session cannot be stored: {error}", original=error)


def _reason(error: Exception) -> str:
    # What others say may quote the record, which is no matter for a log.
    return str(error) if isinstance(error, _UnreadableError) else type(error).__name__
