"""The envelopes that Beaker's backends put around the text of a record: none, a pickled text, or a pickled dict.

Beaker pickles an envelope around a JSON session, too. Parse it by its form instead of unpickling it: nothing in it
can name code, and eight bytes of it cannot ask for gigabytes, as a pickle's can.
"""

from __future__ import annotations

import pickle
import re
from typing import Any

from beaker_bridge.record.fields import UnreadableError

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
    """Memory and memcached: the text itself, as ``bytes()`` returns it."""

    wrap = unwrap = staticmethod(bytes)


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
