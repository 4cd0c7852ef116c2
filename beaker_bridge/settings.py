"""The one table of options, and everything that reads it.

:class:`SessionOptions` is the table: each field is an option, with its converter, its default and its
help. Strings from an ``.ini`` are converted; a wrong value is a fault that names the option, the rule
and the value; all faults are told at once.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.kinds import (
    ALGORITHM,
    ALGORITHMS,
    ANYTHING,
    BACKEND,
    BOOLEAN,
    CALLABLE,
    CLASS,
    COOKIE_ATTRIBUTE,
    COOKIE_EXPIRES,
    COOKIE_NAME,
    COOKIE_PATH,
    CRYPTO_TYPE,
    DOTTED,
    DURATION,
    MAPPING,
    NONCE_BITS,
    POLICY,
    SAMESITE,
    SECONDS,
    SECURE,
    SERIALIZER,
    TEXT,
    TEXTS,
    TOKEN,
    Kind,
    one_of,
)
from beaker_bridge.option_rules import KNOWN_TYPES, backend_exists, broken_rules
from beaker_bridge.policy import Policy

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("session.", "beaker.session.")


def _option(kind: Kind, default: Any, help: str, *, secret: bool = False) -> Any:  # noqa: A002
    return field(default=default, repr=not secret, metadata={"kind": kind, "help": help, "secret": secret})


# -- The table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """The options of a session, converted and checked. A default of nothing means: not set."""

    # What keeps the session.
    type: str = _option(
        BACKEND,
        None,
        "memory, file, dbm, cookie, ext:redis, … as Beaker's; else file with a data_dir, memory without",
    )
    namespace_class: Any = _option(
        CLASS,
        None,
        "a class that does what Beaker's NamespaceManager does, instead of the type's",
    )
    data_dir: str | None = _option(TEXT, None, "the directory for files, dbm files and lock files")
    file_dir: str | None = _option(TEXT, None, "the directory for files, instead of data_dir/container_file")
    dbm_dir: str | None = _option(TEXT, None, "the directory for dbm files, instead of data_dir/container_dbm")
    lock_dir: str | None = _option(TEXT, None, "the directory for lock files")
    dbmmodule: Any = _option(DOTTED, None, "the dbm module; Beaker takes dbm.gnu, else dbm.dumb")
    # There may be a password in an address.
    url: Any = _option(ANYTHING, None, "the address of the store; in Python also a client or an engine", secret=True)
    urls: Any = _option(
        ANYTHING,
        None,
        "the addresses of a Redis Cluster, with commas between them; in Python also a client",
        secret=True,
    )
    username: str | None = _option(TEXT, None, "ext:rediscluster: the user, where urls name none")
    password: str | None = _option(TEXT, None, "ext:rediscluster: the password, where urls hold none", secret=True)
    memcache_module: str | None = _option(TEXT, None, "accepted for Beaker's sake; sessions have a client of their own")
    table_name: str = _option(TEXT, "beaker_cache", "the SQL table")
    schema_name: str | None = _option(TEXT, None, "the SQL table's schema")
    sa_opts: Mapping[str, Any] | None = _option(
        MAPPING, None, "options for SQLAlchemy's engine_from_config; sa.* in an .ini", secret=True
    )
    bind: Any = _option(DOTTED, None, "ext:sqla: the application's engine")
    table: Any = _option(DOTTED, None, "ext:sqla: the application's table")
    store_timeout: float = _option(
        DURATION,
        2.0,
        "seconds that a store may cost a request, connecting, waiting for a lock and merging included",
    )
    store_error: str = _option(
        one_of("raise", "empty"),
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
        BOOLEAN, True, "with json and pickle, save a value that was changed in place though changed() was forgotten"
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
    key: str = _option(
        COOKIE_NAME,
        "beaker.session.id",
        "the cookie's name",
    )
    secret: str | None = _option(TEXT, None, "signs the id in the cookie", secret=True)
    sign_algorithm: str = _option(
        ALGORITHM, "sha1", "the hash in the HMAC that signs the cookie: sha1, as Beaker's, sha256 or sha512"
    )
    previous_sign_algorithms: tuple[str, ...] = _option(
        ALGORITHMS, (), "other hashes that are still accepted, or already: while a site changes over"
    )
    previous_secrets: tuple[str, ...] = _option(TEXTS, (), "retired secrets that are still accepted", secret=True)
    cookie_expires: Any = _option(
        COOKIE_EXPIRES,
        True,
        "true: until the browser closes; false: never; or seconds, a timedelta or a datetime",
    )
    cookie_domain: str | None = _option(
        COOKIE_ATTRIBUTE, None, "the cookie's domain, without scheme, port or path; else the host alone"
    )
    cookie_path: str = _option(
        COOKIE_PATH,
        "/",
        "the cookie's path",
    )
    secure: bool | str = _option(
        SECURE,
        "auto",
        "send the cookie over https only; auto: where the request came over https",
    )
    httponly: bool = _option(BOOLEAN, True, "hide the cookie from JavaScript")
    samesite: str | None = _option(
        SAMESITE,
        "Lax",
        "the cookie's SameSite attribute; the text None needs secure = true; false, or Python's None: no attribute",
    )
    partitioned: bool = _option(
        BOOLEAN,
        False,
        "the cookie's Partitioned attribute (CHIPS): one for each site that embeds this one; needs secure = true",
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
    encrypt_nonce_bits: int = _option(NONCE_BITS, 128, "the size of the nonce in bits; 48 before Beaker 1.8")
    crypto_type: str = _option(
        CRYPTO_TYPE,
        "default",
        "Beaker's crypto module; stored sessions, and retired keys, need cryptography",
    )

    # The request.
    cookie_on_exception: Policy = _option(
        POLICY,
        True,
        "keep the session and its cookie when an exception view answers",
    )
    constant_csrf_token: str | None = _option(
        TOKEN,
        None,
        "the CSRF token of each session, for tests",
        secret=True,
    )
    webtest_varname: str | None = _option(TEXT, None, "the name of the session among paste.testing_variables")
    log_file: str | None = _option(TEXT, None, "accepted for Beaker's sake; Beaker ignores it")
    clock: Any = _option(CALLABLE, None, "what returns the time in seconds, for tests; in Python only")

    # What an unknown backend is given, unchecked; there may be secrets in it.
    backend_arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # Which of them were given; the others are defaults.
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        # As Beaker has it; and nobody changes what all of an application's sessions share.
        for name, value in (
            ("type", self.type or ("file" if self.data_dir else "memory")),
            ("sa_opts", None if self.sa_opts is None else MappingProxyType(dict(self.sa_opts))),
            ("backend_arguments", MappingProxyType(dict(self.backend_arguments))),
        ):
            object.__setattr__(self, name, value)

    def shown(self) -> dict[str, Any]:
        """Return the options that were given, without the secrets."""
        return {name: "…" if _is_secret(name) else getattr(self, name) for name in sorted(self.given)}

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


class OptionRow(NamedTuple):
    """One option as the documentation tells it."""

    name: str
    default: str
    rule: str
    help: str


def option_rows() -> list[OptionRow]:
    """Return the table for the documentation, in its order."""
    return [
        OptionRow(name, _default_text(entry.default), entry.metadata["kind"].rule, entry.metadata["help"])
        for name, entry in TABLE.items()
    ]


def _default_text(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


# -- Reading it --------------------------------------------------------------------------------------


class Given(NamedTuple):
    """One option as somebody gave it: under which name, with which value, and how strictly held."""

    label: str
    value: Any
    strict: bool = True
    #: The same option, given under another prefix, too.
    also: Given | None = None

    def __repr__(self) -> str:
        # The value may be a secret.
        return f"Given({self.label!r}, …)"


def prefixed(settings: Mapping[str, Any]) -> dict[str, Given]:
    """Return the options that stand in an application's settings, by their names without prefix."""
    found: dict[str, Given] = {}
    for label, value in settings.items():
        name, prefix = _parted(label) if isinstance(label, str) else ("", "")
        if prefix:
            also = found.get(name)
            strict = prefix != PREFIXES[0] or (also is not None and also.strict)
            found[name] = Given(label, value, strict, also)
    return found


def given(options: Mapping[str, Any]) -> dict[str, Given]:
    """Return options that were given in Python, or in a filter's section, with or without prefix."""
    found: dict[str, Given] = {}
    for label, value in options.items():
        name, _ = _parted(label)
        found[name] = Given(label, value, also=found.get(name))
    return found


def _parted(label: str) -> tuple[str, str]:
    """Return an option's name without its prefix, and the prefix, if it has one of ours."""
    for prefix in PREFIXES:
        if label.startswith(prefix):
            return label[len(prefix) :], prefix
    return label, ""


def read_options(options: Mapping[str, Given]) -> SessionOptions:
    """Convert and check options.

    Args:
        options: what was given, by name.

    Returns:
        The table, filled.

    Raises:
        SettingsError: one or more of them are wrong; its ``errors`` are all of the faults.
    """
    values, errors = _converted({name: option for name, option in options.items() if name in TABLE})
    rest = {name: option for name, option in options.items() if name not in TABLE}
    errors.extend(_clashes(rest))
    engine = {name: rest.pop(name).value for name in list(rest) if name.startswith("sa.")}
    if engine:
        values["sa_opts"] = {**(values.get("sa_opts") or {}), **engine}
    known = _knows_its_arguments(values)
    checked = SessionOptions(
        **values,
        backend_arguments={} if known else {name: option.value for name, option in rest.items()},
        given=frozenset(name for name in values if name not in options or _is_given(name, options[name])),
    )
    errors.extend(_unknown(rest) if known else ())
    errors.extend(_faults(checked, options, {error.name for error in errors}))
    if errors:
        raise SettingsError.of(errors)
    return checked


def _knows_its_arguments(values: Mapping[str, Any]) -> bool:
    """Say whether the table holds all options of the backend; of one that does not exist nobody knows more."""
    kind = values.get("type") or "memory"
    return not values.get("namespace_class") and (kind in KNOWN_TYPES or not backend_exists(kind))


def _is_given(name: str, option: Given) -> bool:
    """Say whether an option was given: nothing, as Python's and Beaker's defaults have it, is none."""
    return option.value is not None or name == "samesite"


def _converted(options: Mapping[str, Given]) -> tuple[dict[str, Any], list[SettingsError]]:
    """Return the options' values, and what is wrong with the others."""
    values: dict[str, Any] = {}
    errors: list[SettingsError] = []
    for name, option in options.items():
        try:
            values[name] = _value(name, option)
        except SettingsError as error:
            errors.append(error)
    return values, errors


def _value(name: str, option: Given) -> Any:
    value = _convert(name, option) if _is_given(name, option) else TABLE[name].default
    # By what they mean: Beaker's own middleware hands over both, one of them converted.
    if option.also is not None and _value(name, option.also) != value:
        raise _clash(name, option, option.also)
    return value


def _convert(name: str, option: Given) -> Any:
    kind: Kind = TABLE[name].metadata["kind"]
    try:
        return kind.convert(option.value)
    except (ValueError, TypeError, OverflowError) as error:
        reason = error
    # Outside of the except block, since an error that is handled there would be the new one's context:
    # what a converter says may quote a secret.
    raise _error(option.label, name, kind.rule, option.value) from None if _is_secret(name) else reason


def _is_secret(name: str) -> bool:
    return bool(TABLE[name].metadata["secret"])


def _error(label: str, name: str, rule: str, value: object) -> SettingsError:
    hidden = _is_secret(name)
    shown = "nothing" if value is None else "a value that is not shown" if hidden else repr(value)
    return SettingsError(f"{label} must be {rule}, got {shown}", name=name, value=None if hidden else value)


def _clashes(rest: Mapping[str, Given]) -> Iterator[SettingsError]:
    for name, option in rest.items():
        if option.also is not None and option.also.value != option.value:
            yield _clash(name, option, option.also)


def _clash(name: str, option: Given, also: Given) -> SettingsError:
    return SettingsError(f"{also.label} and {option.label} must not differ", name=name)


def _unknown(rest: Mapping[str, Given]) -> Iterator[SettingsError]:
    for name, option in rest.items():
        nearest = difflib.get_close_matches(name.lower(), TABLE, n=1, cutoff=0.8)
        hint = f"; did you mean {option.label.removesuffix(name)}{nearest[0]}?" if nearest else ""
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


def _faults(checked: SessionOptions, options: Mapping[str, Given], wrong: set[str | None]) -> Iterator[SettingsError]:
    """Yield the faults between options, save those about an option that is wrong by itself."""
    # An option that was not given would stand where the type does, or else the first one.
    first = next((options[name] for name in ("type", *options) if name in options), Given("", None))
    prefix = _parted(first.label)[1]
    for fault in broken_rules(checked):
        if wrong.isdisjoint((fault.name, *fault.others)):
            label = options[fault.name].label if fault.name in options else prefix + fault.name
            yield _error(label, fault.name, fault.rule, getattr(checked, fault.name))


def differing(used: SessionOptions, ignored: SessionOptions) -> list[str]:
    """Return the names of the options that were given to no effect, since another table is used."""
    return sorted(name for name in ignored.given if getattr(used, name) != getattr(ignored, name))
