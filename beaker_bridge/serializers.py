"""Records to bytes and back: a serializer, a cipher, and the envelope that Beaker's backend puts around.

A record is the dict that Beaker keeps of a session. Its *plain* bytes are what the serializer makes of
it, its *text* is those in base64 (encrypted first, where there is an ``encrypt_key``), and its *raw*
bytes are what stands in the store. The formats are Beaker's: ``beaker/session.py``
(``_encrypt_data``), ``beaker/util.py`` (``JsonSerializer``) and the namespace managers.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import pickle
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from beaker.crypto import generateCryptoKeys, get_crypto_module, get_nonce_size

from beaker_bridge.exceptions import DamagedRecordError, SessionValueError

#: A compressed record that is larger than this, in bytes, is damaged: it would be a bomb.
MAX_PLAIN_SIZE = 16 * 1024 * 1024

#: The key that marks a JSON object as one of the types below.
TAG = "__bb__"
_TAG_IN_JSON = b'"__bb__"'


class Serializer(Protocol):
    """What ``data_serializer`` may be: an object that turns a dict into bytes and back."""

    def dumps(self, record: Any) -> bytes: ...

    def loads(self, plain: bytes) -> Any: ...


# -- JSON that holds what people store ---------------------------------------------------------------

_SCALARS = frozenset({str, int, float, bool, type(None)})
_JSON_TYPES = _SCALARS | {dict, list}
_STR = {str}

# Exact types first: a datetime is a date, and both are told by their own name.
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("Decimal", str),
    UUID: ("UUID", lambda value: value.hex),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
    tuple: ("tuple", lambda value: [_tagged(item) for item in value]),
    set: ("set", lambda value: [_tagged(item) for item in value]),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda value: timedelta(*value),
    "Decimal": Decimal,
    "UUID": UUID,
    "bytes": base64.b64decode,
    "tuple": tuple,
    "set": set,
    # A dict of the application's that has our tag as its key.
    "dict": dict,
}


def _is_plain(value: Any) -> bool:
    """Say whether JSON carries a value exactly; the loops over its items run in C."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        if TAG in value or (value and set(map(type, value)) != _STR):
            return False
        items: Iterable[Any] = value.values()
    elif kind is list:
        items = value
    else:
        return False
    kinds = set(map(type, items))
    return kinds <= _SCALARS or (kinds <= _JSON_TYPES and all(map(_is_plain, items)))


def _tagged(value: Any) -> Any:
    """Return a value that JSON carries exactly, with each other type as an object that names it."""
    if _is_plain(value):
        return value
    if isinstance(value, dict):
        return _tagged_dict(value)
    for kind, (name, write) in _WRITERS.items():
        if isinstance(value, kind):
            return {TAG: [name, write(value)]}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    # Subclasses of what JSON has (Markup, IntEnum) become what JSON makes of them.
    if isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


def _tagged_dict(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r} is of type {type(key).__name__}, JSON would turn it into a string")
    tagged = {str(key): _tagged(item) for key, item in value.items()}
    return {TAG: ["dict", list(tagged.items())]} if TAG in tagged else tagged


def _untagged(value: dict[str, Any]) -> Any:
    if value.keys() != {TAG}:
        return value
    name, content = value[TAG]
    return _READERS[name](content)


class JSONSerializer:
    """Beaker's JSON record (zlib around JSON), with more types and a bound on its size."""

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes; raises ``TypeError`` or ``ValueError`` for what is not JSON."""
        return _compress(self.encode(record))

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises ``ValueError`` or another error for bytes that are none."""
        text = _decompress(plain)
        if _TAG_IN_JSON in text:
            return json.loads(text, object_hook=_untagged)
        return json.loads(text)

    def encode(self, value: Any) -> bytes:
        """Return the JSON of one value, for the detection of changes."""
        return json.dumps(_tagged(value), separators=(",", ":")).encode("ascii")


def _compress(data: bytes) -> bytes:
    # A small window: zlib.compress spends more time on clearing its 32 KiB than on a small session.
    compressor = zlib.compressobj(1, zlib.DEFLATED, 12, 4)
    return compressor.compress(data) + compressor.flush()


def _decompress(data: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(data, MAX_PLAIN_SIZE)
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"the record is cut, or over {MAX_PLAIN_SIZE} bytes")
    return text


class PickleSerializer:
    """Beaker's pickled record. Who can write into the store can run code: see SECURITY.rst."""

    def dumps(self, record: Any) -> bytes:
        """Return a record as bytes; raises what ``pickle`` raises."""
        return pickle.dumps(record, 2)

    def loads(self, plain: bytes) -> Any:
        """Return the record; raises what ``pickle`` raises."""
        return pickle.loads(plain)  # noqa: S301 -- asked for by name: data_serializer = pickle


# -- The envelope of a backend -----------------------------------------------------------------------


class _PlainUnpickler(pickle.Unpickler):
    """Beaker pickles an envelope around a JSON session, too: nothing in it may name any code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the envelope names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the envelope names a persistent object")


def _unpickled(raw: bytes) -> Any:
    return _PlainUnpickler(io.BytesIO(raw)).load()


class BareEnvelope:
    """Memory and memcached: the text itself."""

    @staticmethod
    def wrap(text: bytes) -> bytes:
        return text

    @staticmethod
    def unwrap(raw: bytes) -> Any:
        return raw


class PickledEnvelope:
    """Redis and dbm: the pickled text."""

    @staticmethod
    def wrap(text: bytes) -> bytes:
        return pickle.dumps(text.decode("ascii"))

    @staticmethod
    def unwrap(raw: bytes) -> Any:
        return _unpickled(raw)


class NamespaceEnvelope:
    """File and SQL: a pickled dict that holds the text under ``'session'``."""

    @staticmethod
    def wrap(text: bytes) -> bytes:
        return pickle.dumps({"session": text.decode("ascii")})

    @staticmethod
    def unwrap(raw: bytes) -> Any:
        return _unpickled(raw).get("session")


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
        """Return the plain bytes, and whether a retired key was needed; raises if no key opens it."""
        nonce = text[: self._nonce_length].decode("ascii")
        ciphertext = base64.b64decode(text[self._nonce_length :], validate=True)
        for pair in self._pairs:
            try:
                plain = self._module.aesDecrypt(ciphertext, self._key(pair, nonce))
            except Exception:  # noqa: BLE001, S112 -- each cipher library has its own error for a wrong key
                continue
            return plain, pair is not self._pairs[0]
        raise ValueError("no key opens it")

    def _key(self, pair: tuple[str, str], nonce: str) -> bytes:
        encrypt_key, validate_key = pair
        return bytes(generateCryptoKeys(encrypt_key, validate_key + nonce, 1, self._module.getKeyLength()))


# -- All of it ---------------------------------------------------------------------------------------


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

    def serialize(self, record: Mapping[str, Any]) -> bytes:
        """Return the plain bytes of a record.

        Raises:
            SessionValueError: a key or value is not what the serializer takes; it names the key.
        """
        try:
            return self.serializer.dumps(record)
        except Exception as error:
            raise self._refusal(record, error) from error

    def seal(self, plain: bytes) -> bytes:
        """Return the raw bytes of plain ones: encrypted where there is a key, in the envelope."""
        text = self._cipher.encrypt(plain) if self._cipher else base64.b64encode(plain)
        return self._envelope.wrap(text)

    def decode(self, raw: bytes) -> tuple[dict[str, Any], bool]:
        """Return the record of raw bytes, and whether it should be written anew.

        An envelope without a session, as Beaker leaves it behind, is an empty record.

        Raises:
            DamagedRecordError: they are no record, or not under these keys and this serializer.
        """
        try:
            text = self._envelope.unwrap(raw)
            if text is None:
                return {}, False
            if isinstance(text, str):
                text = text.encode("ascii")
            return self._open(text)
        except Exception as error:
            raise DamagedRecordError(
                f"a record of {len(raw)} bytes cannot be read as a session: {_reason(error)}",
                value=len(raw),
                original=error,
            ) from error

    def _open(self, text: bytes) -> tuple[dict[str, Any], bool]:
        if self._cipher:
            plain, stale = self._cipher.decrypt(text)
        else:
            plain, stale = base64.b64decode(text, validate=True), False
        try:
            record = self.serializer.loads(plain)
        except Exception:
            if self._legacy is None:
                if plain[:1] == b"\x80" and isinstance(self.serializer, JSONSerializer):
                    raise ValueError("it is a pickle: set legacy_serializer = pickle to read it") from None
                raise
            record, stale = self._legacy.loads(plain), True
        if not isinstance(record, dict):
            raise TypeError(f"it holds a {type(record).__name__}, not a dict")
        return record, stale

    def _refusal(self, record: Mapping[str, Any], error: Exception) -> SessionValueError:
        """Find the key at which the serializer fails."""
        for key, value in record.items():
            try:
                self.serializer.dumps({key: value})
            except Exception as cause:  # noqa: BLE001 -- the serializer may be anybody's
                return SessionValueError(
                    f"session[{key!r}] cannot be stored: {cause} (a value of type {type(value).__name__})",
                    name=key,
                    original=cause,
                )
        return SessionValueError(f"the session cannot be stored: {error}", original=error)


def _reason(error: Exception) -> str:
    # The bytes themselves stay out of the log: they may be a secret.
    if isinstance(error, (binascii.Error, zlib.error, UnicodeError)):
        return type(error).__name__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
