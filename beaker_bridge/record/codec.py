"""Records to what the store or the cookie holds, and back: a serializer, a cipher, and the backend's envelope.

A record is the dict that Beaker keeps of a session. Its *plain* bytes are what the serializer makes of
it, its *text* is those in base64 (encrypted first, where there is an ``encrypt_key``), and its *raw*
bytes are what stands in the store. The formats are Beaker's: ``beaker/session.py``
(``_encrypt_data``) and the namespace managers.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import pickle
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from beaker.crypto import generateCryptoKeys, get_crypto_module, get_nonce_size

from beaker_bridge.exceptions import BeakerBridgeError, DamagedRecordError, SessionValueError
from beaker_bridge.record.fields import wrong_field
from beaker_bridge.record.json_types import LEAVES, check_at_once
from beaker_bridge.record.serializers import JSONSerializer, PickleSerializer, Serializer, UnreadableError

log = logging.getLogger(__name__)

#: Of how many keys and types the log says that JSON will refuse them, at most.
MAX_REFUSED = 1000


def _from_base64(text: str | bytes) -> bytes:
    """Return what ``base64.b64decode(text, validate=True)`` does, without its steps between."""
    if sys.version_info >= (3, 11):
        return binascii.a2b_base64(text, strict_mode=True)
    return base64.b64decode(text, validate=True)  # pragma: no cover -- Python 3.10 is strict only there


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
        raise UnreadableError("its envelope is not Beaker's")
    start = opening.end()
    end = start + int.from_bytes(opening[1] or opening[2], "little")
    if not closes.fullmatch(raw, end):
        raise UnreadableError("its envelope is cut, or holds more than a text")
    return raw[start:end].decode("ascii")


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
        raise UnreadableError("no key opens it")

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
        self._takes_json = type(serializer) is JSONSerializer
        self._legacy = None if legacy is None else RecordCodec(legacy)
        #: The keys and types of which the log has said that JSON will refuse them; nothing where JSON is not next.
        self._rehearsed: set[tuple[Any, type]] | None = None
        if isinstance(legacy, JSONSerializer) and not isinstance(serializer, JSONSerializer):
            self._rehearsed = set()
        self._cipher = cipher
        self._wrap, self._unwrap = envelope.wrap, envelope.unwrap

    def check(self, key: Any, value: Any) -> None:
        """Refuse what is seen at a glance not to be JSON, where it is put into a session.

        What lies deeper is refused by :meth:`serialize`. An application's own serializer decides for itself.

        Args:
            key: the key in the session.
            value: what is assigned to it.

        Raises:
            SessionValueError: the key, the value, or one of its first items; it names the key.
        """
        if self._takes_json and not (type(value) in LEAVES and type(key) is str):
            try:
                check_at_once(key, value)
            except TypeError as error:
                raise _refused(key, value, error) from error

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
        if self._rehearsed is not None:
            self._rehearse(record, self._rehearsed)
        return plain

    def serialize_as_before(self, record: Mapping[str, Any]) -> bytes | None:
        """Return the plain bytes of a record in the legacy serializer's form; None where there is none."""
        return None if self._legacy is None else self._legacy.serialize(record)

    def writes_alike(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Say whether two records are the same as they are written; by the legacy serializer, where need be."""
        try:
            return self.serialize(one) == self.serialize(other)
        except SessionValueError:
            if self._legacy is None:
                raise
            return self._legacy.serialize(one) == self._legacy.serialize(other)

    def _rehearse(self, record: Mapping[str, Any], refused: set[tuple[Any, type]]) -> None:
        """Log, once for each key and type, what JSON will refuse: a site that reads it already will write it next."""
        assert self._legacy is not None
        for key, value in record.items():
            kind = key, type(value)
            if kind not in refused and len(refused) < MAX_REFUSED:
                try:
                    self._legacy.serialize({key: value})
                except BeakerBridgeError as error:
                    refused.add(kind)
                    log.warning("with data_serializer = json: %s", error)

    def seal(self, plain: bytes) -> bytes:
        """Return the raw bytes of plain ones: encrypted where there is a key, in the envelope."""
        text = self._cipher.encrypt(plain) if self._cipher else binascii.b2a_base64(plain)[:-1]
        return self._wrap(text)

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
            except Exception as error:  # noqa: BLE001 -- the serializer may be anybody's
                record, stale = self._legacy_record(plain, error), True
            _check(record)
        except Exception as error:
            raise DamagedRecordError(
                f"a record of {len(raw)} bytes cannot be read as a session: {_reason(error)}",
                value=len(raw),
                original=error,
            ) from error
        return record, stale

    def _legacy_record(self, plain: bytes, refusal: Exception) -> Any:
        """Return the record that the current serializer has refused, by the legacy one; or raise why not."""
        tried = {type(self.serializer)}
        if self._legacy is not None:
            tried.add(type(self._legacy.serializer))
            try:
                return self._legacy.serializer.loads(plain)
            except Exception as error:  # noqa: BLE001 -- the serializer may be anybody's
                refusal = error
        # A site that changes its serializer in one step meets these: name the option that would have read it.
        if JSONSerializer not in tried and _is_json(plain):
            raise UnreadableError("it is JSON; legacy_serializer = json reads that in a store, never in a cookie")
        if PickleSerializer not in tried and _is_pickle(plain):
            raise UnreadableError(
                "it is a pickle; legacy_serializer = pickle reads those in a store, never those in a cookie"
            )
        raise refusal

    def _refusal(self, record: Mapping[str, Any], error: Exception) -> SessionValueError:
        """Find the key at which the serializer fails."""
        for key, value in record.items():
            try:
                self.serializer.dumps({key: value})
            except Exception as cause:  # noqa: BLE001 -- the serializer may be anybody's
                return _refused(key, value, cause)
        return SessionValueError(f"the session cannot be stored: {error}", original=error)


def _refused(key: Any, value: Any, cause: Exception) -> SessionValueError:
    return SessionValueError(
        f"session[{key!r}] cannot be stored: {cause} (it holds a {type(value).__name__})", name=key, original=cause
    )


def _check(record: Any) -> None:
    """Raise :class:`UnreadableError` for what is no record."""
    if not isinstance(record, dict):
        raise UnreadableError(f"it holds a {type(record).__name__}, not a dict")
    wrong = wrong_field(record)
    if wrong is not None:
        raise UnreadableError(f"its {wrong} is none")


def _is_json(plain: bytes) -> bool:
    """Say whether plain bytes are what ``data_serializer = json`` writes."""
    try:
        return isinstance(JSONSerializer().loads(plain), dict)
    except Exception:  # noqa: BLE001 -- zlib, the text's encoding, the JSON: each has its own error
        return False


def _is_pickle(plain: bytes) -> bool:
    """Say whether plain bytes look like a pickle, of a protocol since 2; they are not opened."""
    return plain[:1] == b"\x80" and plain[-1:] == b"."


def _reason(error: Exception) -> str:
    # What others say may quote the record, which is no matter for a log.
    return str(error) if isinstance(error, UnreadableError) else type(error).__name__
