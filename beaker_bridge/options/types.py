"""The types of options' values: the rule in words, and the converter that keeps it; and the names of the store types.

A converter takes a string of an ``.ini`` or a Python value, and raises ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple

from beaker.crypto import CRYPTO_MODULES, get_crypto_module
from pyramid.settings import truthy
from pyramid.util import DottedNameResolver

Policy = bool | Literal["http"] | Callable[[object, BaseException], bool]

MEMORY, FILE, DBM, COOKIE = "memory", "file", "dbm", "cookie"
REDIS, CLUSTER, MEMCACHED = "ext:redis", "ext:rediscluster", "ext:memcached"
DATABASE, SQLA, MONGODB = "ext:database", "ext:sqla", "ext:mongodb"
#: The store types that are servers.
SERVER_TYPES = frozenset({REDIS, CLUSTER, MEMCACHED, DATABASE, SQLA})
#: The store types that we know: for another one, options that we do not know are the backend's own.
KNOWN_TYPES = SERVER_TYPES | {MEMORY, FILE, DBM, COOKIE}
#: Beaker's nonce before its version 1.8, in bits: the smallest.
MIN_NONCE_BITS = 48
#: The longest time, in seconds: stores and browsers count in 32 bits. A longer one, which Beaker accepts, is capped.
MAX_SECONDS = 0x7FFFFFFF
#: Names under which Beaker registers some backends once more.
ALIASES = {name: f"ext:{name}" for name in ("database", "google", "memcached", "sqla")}
TRUE_WORDS = frozenset(truthy)
FALSE_WORDS = frozenset({"f", "false", "n", "no", "off", "0"})
#: A cookie domain that browsers accept. RFC 952 forbids underscores in host names; many have them.
COOKIE_DOMAIN = re.compile(r"\.?[\w-]+(?:\.[\w-]+)*|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)
DOMAIN_RULE = "a domain such as .example.org, without scheme, port or path"
#: Words that mean a switch, or no value: trivial to guess as a key.
GUESSED_WORDS = TRUE_WORDS | FALSE_WORDS | {"none", "null"}
#: Attribute names, which are not valid as a cookie's name.
ATTRIBUTES = frozenset(
    {"comment", "domain", "expires", "httponly", "max-age", "partitioned", "path", "samesite", "secure", "version"}
)


class OpenError(ValueError):
    """A converter's error whose text is safe to show: it quotes no secret."""


class ValueType(NamedTuple):
    """A type of value: the rule in words, and the converter that keeps it."""

    rule: str
    convert: Callable[[Any], Any]


def is_empty(value: Any) -> bool:
    """Return whether a value is a string of white space only."""
    # Call str's own method: a subclass's may raise.
    return isinstance(value, str) and not str.strip(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _secret(value: Any) -> str:
    _refuse_word(value, "key")
    text = _text(value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise OpenError("it is made of bytes that are not UTF-8, such as those of an environment variable")
    return text


def _refuse_word(value: Any, purpose: str) -> None:
    """Refuse a boolean, or a word for one: Beaker signs with str(True)."""
    if isinstance(value, (bool, str)) and str(value).strip().lower() in GUESSED_WORDS:
        raise OpenError(f"the {purpose} would be the word {str(value).strip()}, which anybody can guess")


def _path(value: Any) -> str:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _backend(value: Any) -> str:
    kind = _text(value)
    return ALIASES.get(kind, kind)


def _boolean(value: Any) -> bool:
    word = str(int(value)) if isinstance(value, int) else _text(value).strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError
    return word in TRUE_WORDS


def _whole(value: Any) -> int:
    if isinstance(value, str) and not re.fullmatch(r"\s*[0-9]+\s*", value):
        raise ValueError
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _at_least(least: int, value: Any) -> int:
    number = _whole(value)
    if number < least:
        raise ValueError
    return number


def _seconds(value: Any, least: int = 1) -> int:
    return min(_at_least(least, value.total_seconds() if isinstance(value, timedelta) else value), MAX_SECONDS)


def _duration(value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not 0 < float(seconds) <= MAX_SECONDS:
        raise ValueError
    return float(seconds)


def _texts(value: Any) -> tuple[str, ...]:
    # Split at line breaks only: secrets may contain spaces and commas.
    if isinstance(value, str):
        value = [line.strip() for line in value.splitlines() if line.strip()]
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return tuple(map(_text, value))


def _keys(value: Any) -> tuple[str, ...]:
    # Two on one line would be one key, which no session has.
    if isinstance(value, str) and any(re.search(r"[\s,]", line.strip()) for line in value.splitlines()):
        raise ValueError
    return _texts(list(value) if isinstance(value, (set, frozenset)) else value)


def _region_names(value: Any) -> tuple[str, ...]:
    names = re.split(r"[,\r\n]", value) if isinstance(value, str) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(name.strip() for name in names if name.strip())


def _secrets(value: Any) -> tuple[str, ...]:
    return tuple(map(_secret, _texts(value)))


def one_of(*words: str) -> ValueType:
    """Return the type of a word from a list, in any case."""

    def convert(value: Any) -> str:
        found = [word for word in words if str(value).strip().lower() == word.lower()]
        if not found:
            raise ValueError
        return found[0]

    return ValueType("one of " + ", ".join(words), convert)


def _cookie_expires(value: Any) -> bool | int | datetime:
    if isinstance(value, (bool, datetime)):
        return value
    # Beaker reads the strings 0 and 1 as false and true; the integer 1 is one second.
    if isinstance(value, str) and value.strip().lower() in TRUE_WORDS | FALSE_WORDS:
        return _boolean(value)
    return _seconds(value)


def _secure(value: Any) -> bool | str:
    return "auto" if isinstance(value, str) and value.strip().lower() == "auto" else _boolean(value)


def _samesite(value: Any) -> str | None:
    # Python's None omits the attribute; the string None is one of its values.
    if value is None or value is False:
        return None
    if not isinstance(value, str):
        raise TypeError
    word = value.strip().lower()
    return None if word in FALSE_WORDS | {""} else str(one_of("Lax", "Strict", "None").convert(word))


def _dotted(value: Any) -> Any:
    """Resolve a dotted name; return any other object as it is."""
    if not isinstance(value, str):
        return value
    try:
        return DottedNameResolver(None).resolve(value.strip())
    except Exception as error:
        # Catch all, since importing runs the module, which may raise anything.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _policy(value: Any) -> Policy:
    if isinstance(value, str) and value.strip().lower() == "http":
        return "http"
    if isinstance(value, str) and re.search(r"[.:]", value):
        return _callable(_dotted(value))  # type: ignore[no-any-return]
    return value if callable(value) else _boolean(value)


def _serializer(value: Any) -> Any:
    if isinstance(value, str):
        return one_of("json", "pickle").convert(value)
    if not (callable(getattr(value, "dumps", None)) and callable(getattr(value, "loads", None))):
        raise TypeError
    return value


def _nonce_bits(value: Any) -> int:
    bits = _at_least(MIN_NONCE_BITS, value)
    if bits % 8:
        raise ValueError
    return bits


def _crypto_type(value: Any) -> str:
    if value not in {"default", "cryptography", "pycryptodome", "pycrypto", *CRYPTO_MODULES}:
        raise ValueError
    return str(value)


def crypto_module(name: str) -> Any:
    """Return the crypto module of Beaker's that the option ``crypto_type`` names.

    The default is cryptography where it can be imported. Beaker's own default is the same since 1.14; before, it was a
    cipher without authentication, or none at all.

    Raises:
        Exception: it cannot be imported, or Beaker knows none of that name.
    """
    if name == "default":
        with suppress(ImportError):
            return get_crypto_module("cryptography")
    return get_crypto_module(name)


def _callable(value: Any) -> Any:
    if not callable(value):
        raise TypeError
    return value


def _token(value: Any) -> str | None:
    # pyramid_beaker's default is False, which must not become the token of all sessions.
    if value is False or (isinstance(value, str) and value.strip().lower() in FALSE_WORDS):
        return None
    _refuse_word(value, "token")
    return _text(value)


def _cookie_name(value: Any) -> str:
    # RFC 6265 forbids the colon; Python's parser, Beaker and browsers accept it.
    known = re.fullmatch(r"[!#%&'*+.:^_`|~0-9A-Za-z-][!#$%&'*+.:^_`|~0-9A-Za-z-]*", value)
    if not known or value.lower() in ATTRIBUTES:
        raise ValueError
    return str(value)


def _cookie_attribute(value: Any) -> str:
    if not re.fullmatch(r"[\x21-\x3a\x3c-\x7e]+", value):
        raise ValueError
    return str(value)


def _cookie_path(value: Any) -> str:
    if not _cookie_attribute(value).startswith("/"):
        raise ValueError
    return str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value)


def _anything(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


TEXT = ValueType("a non-empty string", _text)
SECRET = ValueType(TEXT.rule, _secret)
SECRETS = ValueType("a list of strings; in an .ini one on each line", _secrets)
DIRECTORY = ValueType(TEXT.rule, _path)
BOOLEAN = ValueType("true or false", _boolean)
SECONDS = ValueType("a whole number of seconds, 1 or more (68 years at most)", _seconds)
FRESHNESS = ValueType("a whole number of seconds, 0 or more", partial(_seconds, least=0))
NATURAL = ValueType("a whole number, 0 or more", partial(_at_least, 0))
DURATION = ValueType("a number of seconds over 0 (68 years at most)", _duration)
KEYS = ValueType("a list of keys; in an .ini one on each line, without spaces or commas", _keys)
REGION_NAMES = ValueType("a list of regions' names, with commas, spaces or line breaks between them", _region_names)
ALGORITHM = one_of("sha1", "sha256", "sha512")
ALGORITHMS = ValueType(
    "a list of sha1, sha256 and sha512, each on a line of its own",
    lambda value: tuple(map(ALGORITHM.convert, _texts(value))),
)
ANYTHING = ValueType("a non-empty string, or an object", _anything)
DOTTED = ValueType("a dotted name that can be imported, or an object", _dotted)
SERIALIZER = ValueType("json, pickle or an object with dumps and loads", _serializer)
BACKEND = ValueType(TEXT.rule, _backend)
CLASS = ValueType("a dotted name that can be imported, or a class", lambda value: _callable(_dotted(value)))
MAPPING = ValueType("a dict", _mapping)
COOKIE_NAME = ValueType(
    "a cookie's name (RFC 6265, or with a colon), and not that of an attribute such as Path", _cookie_name
)
COOKIE_EXPIRES = ValueType("true, false, a whole number of seconds, a timedelta or a datetime", _cookie_expires)
COOKIE_ATTRIBUTE = ValueType("ASCII text without white space or semicolons", _cookie_attribute)
COOKIE_PATH = ValueType("a path that begins with /, in ASCII without white space or semicolons", _cookie_path)
SAMESITE = ValueType("one of Lax, Strict, None, or false for no attribute", _samesite)
SECURE = ValueType("true, false or auto", _secure)
NONCE_BITS = ValueType("a multiple of 8, 48 or more", _nonce_bits)
CRYPTO_TYPE = ValueType("default, cryptography, pycryptodome or a name that is registered with Beaker", _crypto_type)
POLICY = ValueType("true, false, http, or the dotted name of a function", _policy)
TOKEN = ValueType("a non-empty string, or false", _token)
CALLABLE = ValueType("a callable", _callable)
