"""Records to what the store or the cookie holds, and back: a serializer, a cipher, and the backend's envelope.

A record is the dict that Beaker keeps of a session. Its *plain* bytes are what the serializer makes of it, its *text*
is those in base64 (encrypted first, if there is an ``encrypt_key``), and its *raw* bytes are what the store holds. The
formats are Beaker's: ``beaker/session.py`` (``_encrypt_data``) and the namespace managers.
"""

from __future__ import annotations

import base64
import binascii
import logging
import sys
from collections.abc import Mapping
from typing import Any

from beaker_bridge.exceptions import BeakerBridgeError, DamagedRecordError, SessionValueError
from beaker_bridge.logs import fields
from beaker_bridge.record.cipher import Cipher
from beaker_bridge.record.envelope import BareEnvelope, Envelope
from beaker_bridge.record.fields import UnreadableError, check_record
from beaker_bridge.record.json_types import LEAVES
from beaker_bridge.record.serializers import JSONSerializer, PickleSerializer, Serializer
from beaker_bridge.record.tagging import check_at_once

log = logging.getLogger(__name__)

#: The limit of log lines about keys and types that JSON will refuse.
MAX_REFUSED = 1000


if sys.version_info >= (3, 11):

    def _from_base64(text: str | bytes) -> bytes:
        # Return the same as below, without its Python code.
        return binascii.a2b_base64(text, strict_mode=True)

else:  # pragma: no cover -- Python 3.10 is strict only there

    def _from_base64(text: str | bytes) -> bytes:
        return base64.b64decode(text, validate=True)


class RecordCodec:
    """Turns a record into what the store or the cookie holds, and back.

    Args:
        serializer: the current serializer.
        legacy: a serializer that older records may be written with, or None.
        cipher: encrypts and decrypts, or None.
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
        #: The keys and types that JSON was logged to refuse; None unless JSON is the legacy serializer.
        self._rehearsed: set[tuple[Any, type]] | None = None
        if isinstance(legacy, JSONSerializer) and not isinstance(serializer, JSONSerializer):
            self._rehearsed = set()
        self._cipher = cipher
        self._wrap, self._unwrap = envelope.wrap, envelope.unwrap

    def check(self, key: Any, value: Any) -> None:
        """Refuse at the assignment what is obviously not JSON.

        :meth:`serialize` refuses what is nested deeper. An application's own serializer decides for itself.

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
        """Return the plain bytes of a record by the legacy serializer; None if there is none."""
        return None if self._legacy is None else self._legacy.serialize(record)

    def writes_alike(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Say whether two records serialize to the same bytes; by the legacy serializer if the current one refuses."""
        try:
            return self.serialize(one) == self.serialize(other)
        except SessionValueError:
            if self._legacy is None:
                raise
            return self._legacy.serialize(one) == self._legacy.serialize(other)

    def _rehearse(self, record: Mapping[str, Any], refused: set[tuple[Any, type]]) -> None:
        """Log once for each key and type what JSON will refuse: a site that already reads JSON will write it next."""
        assert self._legacy is not None
        for key, value in record.items():
            kind = key, type(value)
            if kind not in refused and len(refused) < MAX_REFUSED:
                try:
                    self._legacy.serialize({key: value})
                except BeakerBridgeError as error:
                    refused.add(kind)
                    log.warning("with data_serializer = json: %s", error, extra=fields(failure=error.failure))

    def encode(self, record: dict[str, Any]) -> bytes:
        """Return the raw bytes of a record.

        Raises:
            SessionValueError: the serializer refuses it.
        """
        return self.seal(self.serialize(record))

    def seal(self, plain: bytes) -> bytes:
        """Return the raw bytes of plain ones: encrypted if there is a key, in the envelope."""
        text = self._cipher.encrypt(plain) if self._cipher else binascii.b2a_base64(plain)[:-1]
        return self._wrap(text)

    def decode(self, raw: bytes) -> tuple[dict[str, Any], bool]:
        """Return the record of raw bytes, and whether it should be written anew.

        An envelope without a session, as Beaker leaves it behind, is an empty record.

        Raises:
            DamagedRecordError: they are no record under these keys and these serializers.
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
            check_record(record)
        except Exception as error:
            raise DamagedRecordError(
                f"a record of {len(raw)} bytes cannot be read as a session: {_reason(error)}",
                value=len(raw),
                original=error,
            ) from error
        return record, stale

    def _legacy_record(self, plain: bytes, refusal: Exception) -> Any:
        """Return the record by the legacy serializer, after the current one has refused; or raise the reason."""
        tried = {type(self.serializer)}
        if self._legacy is not None:
            tried.add(type(self._legacy.serializer))
            try:
                return self._legacy.serializer.loads(plain)
            except Exception as error:  # noqa: BLE001 -- the serializer may be anybody's
                refusal = error
        # Name the option that would have read it, for a site that has changed its serializer in one step.
        if JSONSerializer not in tried and _is_json(plain):
            raise UnreadableError("it is JSON; legacy_serializer = json reads that in a store, never in a cookie")
        if PickleSerializer not in tried and _is_pickle(plain):
            raise UnreadableError(
                "it is a pickle; legacy_serializer = pickle reads those in a store, never those in a cookie"
            )
        raise refusal

    def _refusal(self, record: Mapping[str, Any], error: Exception) -> SessionValueError:
        """Return the error that names the key at which the serializer fails."""
        for key, value in record.items():
            try:
                self.serializer.dumps({key: value})
            except Exception as cause:  # noqa: BLE001 -- the serializer may be anybody's
                return _refused(key, value, cause)
        return SessionValueError(f"the session cannot be stored: {error}", original=error)


def _refused(key: Any, value: Any, cause: Exception) -> SessionValueError:
    return SessionValueError(
        f"session[{key!r}] cannot be stored: {cause} (it is of type {type(value).__name__})", name=key, original=cause
    )


def _is_json(plain: bytes) -> bool:
    """Say whether plain bytes are what ``data_serializer = json`` writes."""
    try:
        return isinstance(JSONSerializer().loads(plain), dict)
    except Exception:  # noqa: BLE001 -- zlib, the text's encoding, the JSON: each has its own error
        return False


def _is_pickle(plain: bytes) -> bool:
    """Say whether plain bytes look like a pickle of protocol 2 or later, without unpickling them."""
    return plain[:1] == b"\x80" and plain[-1:] == b"."


def _reason(error: Exception) -> str:
    # Keep the words of other libraries out of the log: they may quote the record.
    return str(error) if isinstance(error, UnreadableError) else type(error).__name__
