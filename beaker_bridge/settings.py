"""The one table of options, and everything that reads it.

:class:`SessionOptions` is the table: each field is an option, with its converter, its default and its
help. Strings from an ``.ini`` are converted; a wrong value is a fault that names the option, the rule
and the value; all faults are told at once.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from beaker.cache import clsmap
from beaker.crypto import get_crypto_module
from pyramid.settings import aslist, truthy
from pyramid.util import DottedNameResolver

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.policy import Policy

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("session.", "beaker.session.")

COOKIE = "cookie"
#: Beaker's nonce before its version 1.8, in bits: the smallest.
MIN_NONCE_BITS = 48
TRUE_WORDS = frozenset(truthy)
FALSE_WORDS = frozenset({"f", "false", "n", "no", "off", "0"})


# -- Converters: each takes a string or a Python value, and raises ValueError or TypeError -----------


class Kind(NamedTuple):
    """A kind of value: the rule in words, and the converter that holds it."""

    rule: str
    convert: Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError
    return word in TRUE_WORDS


def _seconds(value: Any) -> int:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or int(value) != float(value) or int(value) < 1:
        raise ValueError
    return int(value)


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not 0 < float(value) < float("inf"):
        raise ValueError
    return float(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in (aslist(value.replace(",", " ")) if isinstance(value, str) else value))


def _one_of(*words: str) -> Kind:
    def convert(value: Any) -> str:
        found = [word for word in words if str(value).strip().lower() == word.lower()]
        if not found:
            raise ValueError
        return found[0]

    return Kind("one of " + ", ".join(words), convert)


def _cookie_expires(value: Any) -> bool | int | datetime:
    if isinstance(value, (bool, datetime)):
        return value
    if isinstance(value, str) and value.strip().lower() in (TRUE_WORDS | FALSE_WORDS) - {"0", "1"}:
        return _boolean(value)
    return _seconds(value)


def _secure(value: Any) -> bool | str:
    return "auto" if isinstance(value, str) and value.strip().lower() == "auto" else _boolean(value)


def _dotted(value: Any) -> Any:
    """Return the object that a dotted name names; an object passes through."""
    try:
        return DottedNameResolver(None).maybe_resolve(value.strip() if isinstance(value, str) else value)
    except ImportError as error:
        raise ValueError(str(error)) from error


def _policy(value: Any) -> Policy:
    if isinstance(value, str) and value.strip().lower() == "http":
        return "http"
    if isinstance(value, str) and re.search(r"[.:]", value):
        value = _dotted(value)
    if callable(value):
        return value  # type: ignore[no-any-return]
    return _boolean(value)


def _serializer(value: Any) -> Any:
    if isinstance(value, str):
        return _one_of("json", "pickle").convert(value)
    if not (callable(getattr(value, "dumps", None)) and callable(getattr(value, "loads", None))):
        raise TypeError
    return value


def _nonce_bits(value: Any) -> int:
    if isinstance(value, bool) or int(value) < MIN_NONCE_BITS or int(value) % 8:
        raise ValueError
    return int(value)


def _callable(value: Any) -> Any:
    if not callable(value):
        raise TypeError
    return value


def _cookie_name(value: Any) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", _text(value)):
        raise ValueError
    return _text(value)


def _cookie_attribute(value: Any) -> str:
    if re.search(r"[\x00-\x20;\x7f-\uffff]", _text(value)):
        raise ValueError
    return _text(value)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value)


def _anything(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    return value


TEXT = Kind("a text", _text)
BOOLEAN = Kind("true or false", _boolean)
SECONDS = Kind("a whole number of seconds, 1 or more", _seconds)
DURATION = Kind("a number of seconds over 0", _duration)
TEXTS = Kind("a list of texts, with commas or white space between them", _texts)
ANYTHING = Kind("a text or an object", _anything)
DOTTED = Kind("a dotted name that can be imported, or an object", _dotted)
SERIALIZER = Kind("json, pickle or an object with dumps and loads", _serializer)
ATTRIBUTE = Kind("a text without white space, semicolons or characters over 126", _cookie_attribute)


def _option(kind: Kind, default: Any, help: str, *, secret: bool = False) -> Any:  # noqa: A002
    return field(default=default, metadata={"kind": kind, "help": help, "secret": secret})


# -- The table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """The options of a session, converted and checked. A default of nothing means: not set."""

    # What keeps the session.
    type: str | None = _option(
        TEXT, None, "memory, file, dbm, cookie, ext:redis, … as Beaker's; else file with a data_dir, memory without"
    )
    data_dir: str | None = _option(TEXT, None, "the directory for files, dbm files and lock files")
    file_dir: str | None = _option(TEXT, None, "the directory for files, instead of data_dir/container_file")
    dbm_dir: str | None = _option(TEXT, None, "the directory for dbm files, instead of data_dir/container_dbm")
    lock_dir: str | None = _option(TEXT, None, "the directory for lock files")
    dbmmodule: Any = _option(DOTTED, None, "the dbm module; Beaker takes dbm.gnu, else dbm.dumb")
    url: Any = _option(ANYTHING, None, "the address of the store; in Python also a client or an engine")
    urls: Any = _option(
        ANYTHING, None, "the addresses of a Redis Cluster, with commas between them; in Python also a client"
    )
    memcache_module: str | None = _option(TEXT, None, "accepted for Beaker's sake; sessions have a client of their own")
    table_name: str = _option(TEXT, "beaker_cache", "the SQL table")
    schema_name: str | None = _option(TEXT, None, "the SQL table's schema")
    sa_opts: Mapping[str, Any] | None = _option(
        Kind("a dict", _mapping), None, "options for SQLAlchemy's engine_from_config; sa.* in an .ini"
    )
    bind: Any = _option(DOTTED, None, "ext:sqla: the application's engine")
    table: Any = _option(DOTTED, None, "ext:sqla: the application's table")
    store_timeout: float = _option(
        DURATION, 2.0, "seconds that a store may cost a request, connecting, waiting for a lock and merging included"
    )
    store_error: str = _option(
        _one_of("raise", "empty"),
        "raise",
        "a store that cannot be reached: raise SessionStoreError, or empty: serve an empty session that is not saved",
    )

    # What it is kept as.
    data_serializer: Any = _option(SERIALIZER, "json", "json, pickle, or an object with dumps and loads")
    legacy_serializer: Any = _option(SERIALIZER, None, "what older records in the store may be written with")
    invalidate_corrupt: bool = _option(
        BOOLEAN, True, "a damaged record or cookie becomes a new session and a logged warning; else it raises"
    )
    detect_changes: bool = _option(
        BOOLEAN, True, "with JSON, save a list or dict that was changed in place though changed() was forgotten"
    )
    auto: bool = _option(BOOLEAN, False, "save each session that was touched, also an empty one")

    # How long.
    timeout: int | None = _option(SECONDS, None, "idle seconds after which a session expires")
    absolute_timeout: int | None = _option(
        SECONDS, None, "seconds since its creation after which a session expires, whatever the activity"
    )
    reissue_time: int | None = _option(
        SECONDS,
        None,
        "seconds: the access time, and a cookie that has a lifetime, are renewed at most this often; "
        "a tenth of the smaller of timeout and cookie_expires, else 60",
    )
    save_accessed_time: bool = _option(BOOLEAN, True, "keep the time of the last access")

    # The cookie.
    use_cookies: bool = _option(BOOLEAN, True, "read and send a cookie")
    key: str = _option(Kind("a cookie's name (RFC 6265)", _cookie_name), "beaker.session.id", "the cookie's name")
    secret: str | None = _option(TEXT, None, "signs the id in the cookie", secret=True)
    previous_secrets: tuple[str, ...] = _option(TEXTS, (), "retired secrets that are still accepted", secret=True)
    cookie_expires: Any = _option(
        Kind("true, false, a whole number of seconds, a timedelta or a datetime", _cookie_expires),
        True,
        "true: until the browser closes; false: never; or seconds, a timedelta or a datetime",
    )
    cookie_domain: str | None = _option(ATTRIBUTE, None, "the cookie's domain")
    cookie_path: str = _option(ATTRIBUTE, "/", "the cookie's path")
    secure: bool | str = _option(
        Kind("true, false or auto", _secure),
        "auto",
        "send the cookie over https only; auto: where the request came over https",
    )
    httponly: bool = _option(BOOLEAN, True, "hide the cookie from JavaScript")
    samesite: str = _option(
        _one_of("Lax", "Strict", "None"), "Lax", "the cookie's SameSite attribute; None needs secure = true"
    )

    # Signature and encryption of the data.
    validate_key: str | None = _option(
        TEXT, None, "signs a cookie session, and goes into the key that encrypts", secret=True
    )
    previous_validate_keys: tuple[str, ...] = _option(
        TEXTS, (), "retired validate_keys that are still accepted", secret=True
    )
    encrypt_key: str | None = _option(TEXT, None, "encrypts the session; needs validate_key", secret=True)
    previous_encrypt_keys: tuple[str, ...] = _option(
        TEXTS, (), "retired encrypt_keys that are still accepted", secret=True
    )
    encrypt_nonce_bits: int = _option(
        Kind("a multiple of 8, 48 or more", _nonce_bits), 128, "the size of the nonce in bits; 48 before Beaker 1.8"
    )
    crypto_type: str = _option(TEXT, "default", "Beaker's crypto module; stored sessions need cryptography")

    # The request.
    cookie_on_exception: Policy = _option(
        Kind("true, false, http, or the dotted name of a function", _policy),
        True,
        "keep the session and its cookie when an exception view answers",
    )
    constant_csrf_token: str | None = _option(TEXT, None, "the CSRF token of each session, for tests")
    webtest_varname: str | None = _option(TEXT, None, "the name of the session among paste.testing_variables")
    log_file: str | None = _option(TEXT, None, "accepted for Beaker's sake; Beaker ignores it")
    clock: Any = _option(
        Kind("a callable", _callable), None, "what returns the time in seconds, for tests; in Python only"
    )

    # What an unknown backend is given, unchecked.
    backend_arguments: Mapping[str, Any] = field(default_factory=dict)
    # Which of them were given; the others are defaults.
    given: frozenset[str] = frozenset()

    def shown(self) -> dict[str, Any]:
        """Return the options that were given, without the secrets."""
        return {name: "…" if TABLE[name].metadata["secret"] else getattr(self, name) for name in sorted(self.given)}

    @property
    def renewal(self) -> float:
        """The effective ``reissue_time``, in seconds."""
        if self.reissue_time is not None:
            return self.reissue_time
        lifetimes = [seconds for seconds in (self.timeout, self.cookie_lifetime) if seconds]
        return min(lifetimes) / 10 if lifetimes else 60

    @property
    def cookie_lifetime(self) -> int | None:
        """The cookie's lifetime in seconds, where it has a relative one."""
        expires = self.cookie_expires
        return None if isinstance(expires, (bool, datetime)) else expires


TABLE = {entry.name: entry for entry in fields(SessionOptions) if entry.metadata}

#: The address or directory that a type needs: one of these options.
_NEEDED = {
    "file": (("data_dir", "file_dir"), ("data_dir", "lock_dir")),
    "dbm": (("data_dir", "dbm_dir"), ("data_dir", "lock_dir")),
    "ext:redis": (("url",),),
    "ext:rediscluster": (("urls",),),
    "ext:memcached": (("url",),),
    "ext:database": (("url", "sa_opts"),),
    "ext:sqla": (("bind", "url"), ("table",)),
    "ext:mongodb": (("url",),),
}
#: Types that we know: for another one, options that we do not know are the backend's own.
KNOWN_TYPES = frozenset(_NEEDED) - {"ext:mongodb"} | {"memory", COOKIE}


# -- Reading it --------------------------------------------------------------------------------------


class Given(NamedTuple):
    """One option as somebody gave it: under which name, with which value, and how strictly held."""

    label: str
    value: Any
    strict: bool = True


def prefixed(settings: Mapping[str, Any]) -> dict[str, Given]:
    """Return the options that stand in an application's settings, by their names without prefix.

    Raises:
        SettingsError: an option is given under both prefixes, with different values.
    """
    found: dict[str, Given] = {}
    for label, value in settings.items():
        for prefix in PREFIXES:
            if isinstance(label, str) and label.startswith(prefix):
                name = label[len(prefix) :]
                if name in found and found[name].value != value:
                    raise SettingsError(f"{found[name].label} and {label} must not differ", name=name)
                found[name] = Given(label, value, strict=prefix != PREFIXES[0])
    return found


def given(options: Mapping[str, Any]) -> dict[str, Given]:
    """Return options that were given in Python, or in a filter's section, with or without prefix."""
    found = {label: Given(label, value) for label, value in options.items() if not label.startswith(PREFIXES)}
    return found | {name: option._replace(strict=True) for name, option in prefixed(options).items()}


def read_options(options: Mapping[str, Given]) -> SessionOptions:
    """Convert and check options.

    Args:
        options: what was given, by name.

    Returns:
        The table, filled.

    Raises:
        SettingsError: one or more of them are wrong; its ``errors`` are all of the faults.
    """
    values: dict[str, Any] = {}
    rest: dict[str, Given] = {}
    errors: list[SettingsError] = []
    for name, option in options.items():
        if name in TABLE:
            try:
                values[name] = _converted(name, option)
            except SettingsError as error:
                errors.append(error)
        else:
            rest[name] = option
    values["given"] = frozenset(name for name in values if options[name].value is not None)
    values["sa_opts"] = {**(values.get("sa_opts") or {}), **_taken(rest, "sa.")} or None
    values.setdefault("type", None)
    if values["type"] is None:
        values["type"] = "file" if values.get("data_dir") else "memory"
    if values["type"] in KNOWN_TYPES:
        errors.extend(_unknown(rest))
    else:
        values["backend_arguments"] = {name: option.value for name, option in rest.items()}
    checked = SessionOptions(**values)
    errors.extend(_faults(checked, {error.name for error in errors}))
    if errors:
        raise SettingsError.of(errors)
    return checked


def _converted(name: str, option: Given) -> Any:
    entry = TABLE[name]
    # Nothing, as Python's and Beaker's defaults have it, is what the table's default says.
    if option.value is None and name != "samesite":
        return entry.default
    kind: Kind = entry.metadata["kind"]
    try:
        return kind.convert(option.value)
    except (ValueError, TypeError, OverflowError) as error:
        shown = "a value that is not shown" if entry.metadata["secret"] else repr(option.value)
        raise SettingsError(
            f"{option.label} must be {kind.rule}, got {shown}",
            name=name,
            value=None if entry.metadata["secret"] else option.value,
        ) from error


def _taken(rest: dict[str, Given], prefix: str) -> dict[str, Any]:
    """Take the options that stand under a prefix of a backend's own (``sa.``)."""
    return {name: rest.pop(name).value for name in list(rest) if name.startswith(prefix)}


def _unknown(rest: Mapping[str, Given]) -> Iterator[SettingsError]:
    for name, option in rest.items():
        nearest = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.8)
        hint = f"; did you mean {option.label[: -len(name)]}{nearest[0]}?" if nearest else ""
        message = f"{option.label} is no option that beaker_bridge knows{hint}"
        if option.strict or nearest:
            yield SettingsError(message, name=name)
        else:
            _warn_once(message)


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        log.warning("%s; it is ignored", message)


# -- Rules between options ---------------------------------------------------------------------------


def _faults(options: SessionOptions, known: Iterable[str | None]) -> Iterator[SettingsError]:
    """Yield the faults between options, save those about an option that is wrong by itself."""
    for check in (_type_faults, _time_faults, _cookie_faults, _key_faults):
        for error in check(options):
            if error.name not in known:
                yield error


def _fault(name: str, rule: str, value: object) -> SettingsError:
    return SettingsError(f"{name} must be {rule}, got {value!r}", name=name, value=value)


def _type_faults(options: SessionOptions) -> Iterator[SettingsError]:
    kind = str(options.type)
    if kind != COOKIE and not _backend_exists(kind):
        known = [*KNOWN_TYPES, "ext:mongodb"]
        nearest = difflib.get_close_matches(kind, known, n=1)
        rule = f"one of {', '.join(sorted(known))} or another backend of Beaker's"
        yield _fault("type", rule + (f" (did you mean {nearest[0]}?)" if nearest else ""), kind)
    for names in _NEEDED.get(kind, ()):
        if not any(getattr(options, name) for name in names):
            yield SettingsError(
                f"type = {kind} needs {' or '.join(names)}, got neither"
                if len(names) > 1
                else f"type = {kind} needs {names[0]}, got none",
                name=names[-1],
            )


def _backend_exists(kind: str) -> bool:
    try:
        return clsmap[kind] is not None
    except KeyError:
        return False


def _time_faults(options: SessionOptions) -> Iterator[SettingsError]:
    if options.timeout and not options.save_accessed_time:
        yield _fault("save_accessed_time", "true where a timeout is set", False)
    for name, seconds in (("timeout", options.timeout), ("cookie_expires", options.cookie_lifetime)):
        if seconds and options.reissue_time and options.reissue_time >= seconds:
            yield _fault("reissue_time", f"less than {name} ({seconds} seconds)", options.reissue_time)


def _cookie_faults(options: SessionOptions) -> Iterator[SettingsError]:
    if options.samesite == "None" and options.secure is not True:
        yield _fault("samesite", "Lax or Strict unless secure = true", "None")
    if options.key.startswith(("__Secure-", "__Host-")) and options.secure is not True:
        yield _fault("secure", f"true for a cookie named {options.key}", options.secure)
    if options.key.startswith("__Host-") and options.cookie_domain:
        yield _fault("cookie_domain", f"absent for a cookie named {options.key}", options.cookie_domain)
    if options.key.startswith("__Host-") and options.cookie_path != "/":
        yield _fault("cookie_path", f"/ for a cookie named {options.key}", options.cookie_path)


def _key_faults(options: SessionOptions) -> Iterator[SettingsError]:
    if options.type == COOKIE and not options.validate_key:
        yield SettingsError("type = cookie needs validate_key, which signs the cookie, got none", name="validate_key")
    if not options.encrypt_key:
        return
    if not options.validate_key:
        yield SettingsError("encrypt_key needs validate_key, got none", name="validate_key")
    try:
        module = get_crypto_module(options.crypto_type)
    except Exception as error:  # noqa: BLE001 -- Beaker raises its own, ImportError or what a broken library raises
        yield SettingsError(
            f"crypto_type must be a cipher that can be loaded, got {options.crypto_type!r} ({error})",
            name="crypto_type",
            value=options.crypto_type,
        )
        return
    if not module.has_aes:
        yield SettingsError("encrypt_key needs a cipher, got none: pip install cryptography", name="crypto_type")
    elif options.type != COOKIE and module.__name__ != "beaker.crypto.pyca_cryptography":
        yield _fault(
            "crypto_type",
            "cryptography for stored sessions (another cipher does not authenticate the record)",
            options.crypto_type,
        )


def differing(used: SessionOptions, ignored: SessionOptions) -> list[str]:
    """Return the names of the options that were given to no effect, since another table is used."""
    return sorted(name for name in ignored.given if getattr(used, name) != getattr(ignored, name))
