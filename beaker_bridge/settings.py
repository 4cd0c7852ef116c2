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

from beaker.cache import clsmap
from beaker.crypto import get_crypto_module

from beaker_bridge import kinds
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.policy import Policy

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("session.", "beaker.session.")

COOKIE = "cookie"
#: How a cookie's name begins, in lower case, that browsers take over https alone; and of one host alone, too.
SECURE_PREFIX, HOST_PREFIX = "__secure-", "__host-"


def _option(kind: kinds.Kind, default: Any, help: str, *, secret: bool = False) -> Any:  # noqa: A002
    return field(default=default, repr=not secret, metadata={"kind": kind, "help": help, "secret": secret})


# -- The table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """The options of a session, converted and checked. A default of nothing means: not set."""

    # What keeps the session.
    type: str = _option(
        kinds.BACKEND,
        None,
        "memory, file, dbm, cookie, ext:redis, … as Beaker's; else file with a data_dir, memory without",
    )
    namespace_class: Any = _option(
        kinds.CLASS,
        None,
        "a class that does what Beaker's NamespaceManager does, instead of the type's",
    )
    data_dir: str | None = _option(kinds.TEXT, None, "the directory for files, dbm files and lock files")
    file_dir: str | None = _option(kinds.TEXT, None, "the directory for files, instead of data_dir/container_file")
    dbm_dir: str | None = _option(kinds.TEXT, None, "the directory for dbm files, instead of data_dir/container_dbm")
    lock_dir: str | None = _option(kinds.TEXT, None, "the directory for lock files")
    dbmmodule: Any = _option(kinds.DOTTED, None, "the dbm module; Beaker takes dbm.gnu, else dbm.dumb")
    # There may be a password in an address.
    url: Any = _option(
        kinds.ANYTHING, None, "the address of the store; in Python also a client or an engine", secret=True
    )
    urls: Any = _option(
        kinds.ANYTHING,
        None,
        "the addresses of a Redis Cluster, with commas between them; in Python also a client",
        secret=True,
    )
    username: str | None = _option(kinds.TEXT, None, "ext:rediscluster: the user, where urls name none")
    password: str | None = _option(
        kinds.TEXT, None, "ext:rediscluster: the password, where urls hold none", secret=True
    )
    memcache_module: str | None = _option(
        kinds.TEXT, None, "accepted for Beaker's sake; sessions have a client of their own"
    )
    table_name: str = _option(kinds.TEXT, "beaker_cache", "the SQL table")
    schema_name: str | None = _option(kinds.TEXT, None, "the SQL table's schema")
    sa_opts: Mapping[str, Any] | None = _option(
        kinds.MAPPING, None, "options for SQLAlchemy's engine_from_config; sa.* in an .ini", secret=True
    )
    bind: Any = _option(kinds.DOTTED, None, "ext:sqla: the application's engine")
    table: Any = _option(kinds.DOTTED, None, "ext:sqla: the application's table")
    store_timeout: float = _option(
        kinds.DURATION,
        2.0,
        "seconds that a store may cost a request, connecting, waiting for a lock and merging included",
    )
    store_error: str = _option(
        kinds.one_of("raise", "empty"),
        "raise",
        "a store that cannot be reached: raise SessionStoreError, or empty: serve an empty session that is not saved",
    )

    # What it is kept as.
    data_serializer: Any = _option(kinds.SERIALIZER, "json", "json, pickle, or an object with dumps and loads")
    legacy_serializer: Any = _option(kinds.SERIALIZER, None, "what older records in the store may be written with")
    invalidate_corrupt: bool = _option(
        kinds.BOOLEAN, True, "a damaged record or cookie becomes a new session and a logged warning; else it raises"
    )
    detect_changes: bool = _option(
        kinds.BOOLEAN, True, "with JSON, save a list or dict that was changed in place though changed() was forgotten"
    )
    auto: bool = _option(kinds.BOOLEAN, False, "save each session that was touched, also an empty one")

    # How long.
    timeout: int | None = _option(kinds.SECONDS, None, "idle seconds after which a session expires")
    absolute_timeout: int | None = _option(
        kinds.SECONDS, None, "seconds since its creation after which a session expires, whatever the activity"
    )
    reissue_time: int | None = _option(
        kinds.SECONDS,
        None,
        "seconds: the access time, and a cookie that has a lifetime, are renewed at most this often; "
        "a tenth of the smaller of timeout and cookie_expires, else 60",
    )
    save_accessed_time: bool = _option(kinds.BOOLEAN, True, "keep the time of the last access")

    # The cookie.
    use_cookies: bool = _option(kinds.BOOLEAN, True, "read and send a cookie")
    key: str = _option(
        kinds.COOKIE_NAME,
        "beaker.session.id",
        "the cookie's name",
    )
    secret: str | None = _option(kinds.TEXT, None, "signs the id in the cookie", secret=True)
    sign_algorithm: str = _option(
        kinds.ALGORITHM, "sha1", "the hash in the HMAC that signs the cookie: sha1, as Beaker's, sha256 or sha512"
    )
    previous_sign_algorithms: tuple[str, ...] = _option(
        kinds.ALGORITHMS, (), "other hashes that are still accepted, or already: while a site changes over"
    )
    previous_secrets: tuple[str, ...] = _option(kinds.TEXTS, (), "retired secrets that are still accepted", secret=True)
    cookie_expires: Any = _option(
        kinds.COOKIE_EXPIRES,
        True,
        "true: until the browser closes; false: never; or seconds, a timedelta or a datetime",
    )
    cookie_domain: str | None = _option(kinds.COOKIE_ATTRIBUTE, None, "the cookie's domain")
    cookie_path: str = _option(
        kinds.COOKIE_PATH,
        "/",
        "the cookie's path",
    )
    secure: bool | str = _option(
        kinds.SECURE,
        "auto",
        "send the cookie over https only; auto: where the request came over https",
    )
    httponly: bool = _option(kinds.BOOLEAN, True, "hide the cookie from JavaScript")
    samesite: str = _option(
        kinds.one_of("Lax", "Strict", "None"), "Lax", "the cookie's SameSite attribute; None needs secure = true"
    )

    # Signature and encryption of the data.
    validate_key: str | None = _option(
        kinds.TEXT, None, "signs a cookie session, and goes into the key that encrypts", secret=True
    )
    previous_validate_keys: tuple[str, ...] = _option(
        kinds.TEXTS, (), "retired validate_keys that are still accepted", secret=True
    )
    encrypt_key: str | None = _option(kinds.TEXT, None, "encrypts the session; needs validate_key", secret=True)
    previous_encrypt_keys: tuple[str, ...] = _option(
        kinds.TEXTS, (), "retired encrypt_keys that are still accepted", secret=True
    )
    encrypt_nonce_bits: int = _option(kinds.NONCE_BITS, 128, "the size of the nonce in bits; 48 before Beaker 1.8")
    crypto_type: str = _option(
        kinds.CRYPTO_TYPE,
        "default",
        "Beaker's crypto module; stored sessions, and retired keys, need cryptography",
    )

    # The request.
    cookie_on_exception: Policy = _option(
        kinds.POLICY,
        True,
        "keep the session and its cookie when an exception view answers",
    )
    constant_csrf_token: str | None = _option(
        kinds.TOKEN,
        None,
        "the CSRF token of each session, for tests",
        secret=True,
    )
    webtest_varname: str | None = _option(kinds.TEXT, None, "the name of the session among paste.testing_variables")
    log_file: str | None = _option(kinds.TEXT, None, "accepted for Beaker's sake; Beaker ignores it")
    clock: Any = _option(kinds.CALLABLE, None, "what returns the time in seconds, for tests; in Python only")

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


#: The address or directory that a type needs: one of these options.
_NEEDED = {
    "file": (("data_dir", "file_dir"), ("data_dir", "lock_dir")),
    "dbm": (("data_dir", "dbm_dir"), ("data_dir", "lock_dir")),
    "ext:redis": (("url",),),
    "ext:rediscluster": (("urls",),),
    "ext:memcached": (("url",),),
    "ext:database": (("url", "sa.url"),),
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
    return not values.get("namespace_class") and (kind in KNOWN_TYPES or not _backend_exists(kind))


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
    kind: kinds.Kind = TABLE[name].metadata["kind"]
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


class Fault(NamedTuple):
    """An option that breaks a rule, and the other options that the rule is about."""

    name: str
    rule: str
    others: tuple[str, ...] = ()


def _faults(checked: SessionOptions, options: Mapping[str, Given], wrong: set[str | None]) -> Iterator[SettingsError]:
    """Yield the faults between options, save those about an option that is wrong by itself."""
    # An option that was not given would stand where the type does, or else the first one.
    first = next((options[name] for name in ("type", *options) if name in options), Given("", None))
    prefix = _parted(first.label)[1]
    for rules in (_type_faults, _time_faults, _cookie_faults, _key_faults):
        for fault in rules(checked):
            if wrong.isdisjoint((fault.name, *fault.others)):
                label = options[fault.name].label if fault.name in options else prefix + fault.name
                yield _error(label, fault.name, fault.rule, getattr(checked, fault.name))


def _type_faults(options: SessionOptions) -> Iterator[Fault]:
    kind = options.type
    if kind != COOKIE and not _backend_exists(kind):
        yield Fault("type", f"one of {', '.join(sorted(_all_types()))} or another backend of Beaker's{_meant(kind)}")
    engine = options.sa_opts or {}
    missing: set[str] = set()
    for names in _NEEDED.get(kind, ()):
        # Not by its truth: an SQLAlchemy Table has none.
        found = [engine.get(name) if name in engine else getattr(options, name, None) for name in names]
        is_given = any(value is not None and value != "" for value in found)
        if not is_given and missing.isdisjoint(names):
            missing.update(names)
            instead = "".join(f", or {name}" for name in names[1:])
            yield Fault(names[0], f"given where type = {kind}{instead}", ("type", *names[1:]))


def _all_types() -> frozenset[str]:
    return KNOWN_TYPES | frozenset(_NEEDED)


def _meant(kind: str) -> str:
    """Return the nearest type, as a hint: 'redis' is meant to be 'ext:redis'."""
    names = {name.removeprefix("ext:"): name for name in _all_types()} | {name: name for name in _all_types()}
    nearest = difflib.get_close_matches(kind.lower(), names, n=1)
    return f" (did you mean {names[nearest[0]]}?)" if nearest else ""


def _backend_exists(kind: str) -> bool:
    try:
        return clsmap[kind] is not None
    except KeyError:
        return False


def _time_faults(options: SessionOptions) -> Iterator[Fault]:
    if options.timeout and not options.save_accessed_time:
        yield Fault("save_accessed_time", "true where a timeout is set", ("timeout",))
    for name, seconds in (("timeout", options.timeout), ("cookie_expires", options.cookie_lifetime)):
        if seconds and options.reissue_time and options.reissue_time >= seconds:
            yield Fault("reissue_time", f"less than {name} ({seconds} seconds)", (name,))


def _cookie_faults(options: SessionOptions) -> Iterator[Fault]:
    if options.samesite == "None" and options.secure is not True:
        yield Fault("samesite", "Lax or Strict unless secure = true", ("secure",))
    key = options.key.lower()
    if key.startswith((SECURE_PREFIX, HOST_PREFIX)) and options.secure is not True:
        yield Fault("secure", f"true for a cookie named {options.key}", ("key",))
    if key.startswith(HOST_PREFIX) and options.cookie_domain:
        yield Fault("cookie_domain", f"absent for a cookie named {options.key}", ("key",))
    if key.startswith(HOST_PREFIX) and options.cookie_path != "/":
        yield Fault("cookie_path", f"/ for a cookie named {options.key}", ("key",))


def _key_faults(options: SessionOptions) -> Iterator[Fault]:
    if options.type == COOKIE and not options.validate_key:
        yield Fault("validate_key", "given where type = cookie, which it signs", ("type",))
    for retired, current in (
        ("previous_secrets", "secret"),
        ("previous_validate_keys", "validate_key"),
        ("previous_encrypt_keys", "encrypt_key"),
    ):
        if getattr(options, retired) and not getattr(options, current):
            yield Fault(current, f"given where {retired} are", (retired,))
    if options.encrypt_key:
        yield from _encryption_faults(options)


def _encryption_faults(options: SessionOptions) -> Iterator[Fault]:
    if not options.validate_key and options.type != COOKIE:
        yield Fault("validate_key", "given where encrypt_key is", ("encrypt_key",))
    for name in ("encrypt_key", "validate_key", "previous_encrypt_keys", "previous_validate_keys"):
        # Beaker makes the cipher's key of them, and takes nothing else.
        if not "".join(getattr(options, name) or ()).isascii():
            yield Fault(name, "in ASCII where encrypt_key is given", ("encrypt_key",))
    try:
        module: Any = get_crypto_module(options.crypto_type)
    except Exception:  # noqa: BLE001 -- Beaker raises ImportError, or what a broken library raises
        module = None
    if not getattr(module, "has_aes", False):
        rule = "a cipher that can be loaded where encrypt_key is given (pip install cryptography)"
        yield Fault("crypto_type", rule, ("encrypt_key",))
    elif getattr(module, "__name__", "") != "beaker.crypto.pyca_cryptography":
        yield from _unauthenticated_faults(options)


def _unauthenticated_faults(options: SessionOptions) -> Iterator[Fault]:
    """A cipher that does not notice a wrong key or another's bytes is good enough for a signed cookie."""
    if options.type != COOKIE:
        yield Fault("crypto_type", "cryptography for stored sessions (another cipher does not authenticate the record)")
    elif options.previous_encrypt_keys or options.previous_validate_keys:
        yield Fault("crypto_type", "cryptography where keys are retired (another cipher does not notice a wrong one)")


def differing(used: SessionOptions, ignored: SessionOptions) -> list[str]:
    """Return the names of the options that were given to no effect, since another table is used."""
    return sorted(name for name in ignored.given if getattr(used, name) != getattr(ignored, name))
