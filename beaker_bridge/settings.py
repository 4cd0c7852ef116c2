"""The one table of options, and everything that reads it.

:class:`SessionOptions` is the table: each field is an option, with its converter, its default and its
help. Strings from an ``.ini`` are converted; a wrong value is a fault that names the option, the rule
and the value; all faults are told at once.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
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
    DIRECTORY,
    DOTTED,
    DURATION,
    MAPPING,
    MAX_SECONDS,
    NONCE_BITS,
    POLICY,
    SAMESITE,
    SECONDS,
    SECRET,
    SECRETS,
    SECURE,
    SERIALIZER,
    TEXT,
    TOKEN,
    Kind,
    OpenError,
    is_empty,
    one_of,
)
from beaker_bridge.once import log_once
from beaker_bridge.option_rules import (
    CLUSTER,
    COOKIE,
    DATABASE,
    DBM,
    FILE,
    KNOWN_TYPES,
    MEMCACHED,
    MEMORY,
    REDIS,
    SQLA,
    backend_exists,
    broken_rules,
    type_of_address,
)
from beaker_bridge.policy import Policy

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("session.", "beaker.session.")
#: The prefix of SQLAlchemy's own options.
ENGINE = "sa."


#: For which types an option counts.
_ALL = KNOWN_TYPES
_STORED = _ALL - {COOKIE}
_FILES = frozenset({FILE, DBM})
_REDIS = frozenset({REDIS, CLUSTER})
_SQL = frozenset({DATABASE, SQLA})


class Empty(Enum):
    """What an empty text is for an option: Beaker refuses it, or takes it for nothing, or for false."""

    WRONG = "wrong"
    DEFAULT = "default"
    FALSE = "false"


def _option(
    kind: Kind,
    default: Any,
    help: str,  # noqa: A002 -- the word for it
    *,
    types: frozenset[str] = _ALL,
    empty: Empty = Empty.WRONG,
    secret: bool = False,
) -> Any:
    metadata = {"kind": kind, "help": help, "types": types, "empty": empty, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


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
        types=_STORED,
        empty=Empty.DEFAULT,
    )
    data_dir: str | None = _option(DIRECTORY, None, "the directory for files, dbm files and lock files", types=_FILES)
    file_dir: str | None = _option(
        DIRECTORY,
        None,
        "the directory for files, instead of data_dir/container_file",
        types=frozenset({FILE}),
        empty=Empty.DEFAULT,
    )
    dbm_dir: str | None = _option(
        DIRECTORY,
        None,
        "the directory for dbm files, instead of data_dir/container_dbm",
        types=frozenset({DBM}),
        empty=Empty.DEFAULT,
    )
    lock_dir: str | None = _option(DIRECTORY, None, "the directory for lock files", types=_FILES)
    dbmmodule: Any = _option(
        DOTTED,
        None,
        "the dbm module; Beaker takes dbm.gnu, else dbm.dumb",
        types=frozenset({DBM}),
        empty=Empty.DEFAULT,
    )
    # There may be a password in an address.
    url: Any = _option(
        ANYTHING,
        None,
        "the address of the store; in Python also a client or an engine",
        types=frozenset({REDIS, MEMCACHED, DATABASE, SQLA}),
        empty=Empty.DEFAULT,
        secret=True,
    )
    urls: Any = _option(
        ANYTHING,
        None,
        "the addresses of a Redis Cluster, with commas between them; in Python also a client",
        types=frozenset({CLUSTER}),
        empty=Empty.DEFAULT,
        secret=True,
    )
    username: str | None = _option(
        TEXT, None, "the user, where the address names none", types=_REDIS, empty=Empty.DEFAULT
    )
    password: str | None = _option(
        TEXT, None, "the password, where the address holds none", types=_REDIS, empty=Empty.DEFAULT, secret=True
    )
    key_prefix: str = _option(
        TEXT, "beaker_cache:", "what the keys in Redis begin with; the default is Beaker's", types=_REDIS
    )
    memcache_module: str | None = _option(
        TEXT,
        None,
        "accepted for Beaker's sake; sessions have a client of their own",
        types=frozenset({MEMCACHED}),
        empty=Empty.DEFAULT,
    )
    table_name: str = _option(TEXT, "beaker_cache", "the SQL table", types=frozenset({DATABASE}), empty=Empty.DEFAULT)
    schema_name: str | None = _option(
        TEXT, None, "the SQL table's schema", types=frozenset({DATABASE}), empty=Empty.DEFAULT
    )
    sa_opts: Mapping[str, Any] | None = _option(
        MAPPING,
        None,
        "options for SQLAlchemy's engine_from_config; sa.* in an .ini, where sa.connect_args is JSON",
        types=_SQL,
        empty=Empty.DEFAULT,
        secret=True,
    )
    bind: Any = _option(DOTTED, None, "the application's engine", types=frozenset({SQLA}), empty=Empty.DEFAULT)
    table: Any = _option(DOTTED, None, "the application's table", types=frozenset({SQLA}), empty=Empty.DEFAULT)
    store_timeout: float = _option(
        DURATION,
        2.0,
        "seconds that a store may cost a request, connecting, waiting for a lock and merging included",
        types=_STORED,
    )
    store_error: str = _option(
        one_of("raise", "empty"),
        "raise",
        "a store that cannot be reached: raise SessionStoreError, or empty: serve an empty session that is not saved",
        types=_STORED,
    )

    # What it is kept as.
    data_serializer: Any = _option(SERIALIZER, "json", "json, pickle, or an object with dumps and loads")
    legacy_serializer: Any = _option(
        SERIALIZER, None, "what older records in the store may be written with", types=_STORED
    )
    invalidate_corrupt: bool = _option(
        BOOLEAN,
        True,
        "a damaged record or cookie becomes a new session and a logged warning; else it raises",
        empty=Empty.FALSE,
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
    use_cookies: bool = _option(BOOLEAN, True, "read and send a cookie", empty=Empty.FALSE)
    key: str = _option(
        COOKIE_NAME,
        "beaker.session.id",
        "the cookie's name",
    )
    secret: str | None = _option(SECRET, None, "signs the id in the cookie", types=_STORED, secret=True)
    sign_algorithm: str = _option(
        ALGORITHM, "sha1", "the hash in the HMAC that signs the cookie: sha1, as Beaker's, sha256 or sha512"
    )
    previous_sign_algorithms: tuple[str, ...] = _option(
        ALGORITHMS, (), "other hashes that are still accepted, or already: while a site changes over"
    )
    previous_secrets: tuple[str, ...] = _option(
        SECRETS, (), "retired secrets that are still accepted", types=_STORED, secret=True
    )
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
        SECRET, None, "signs a cookie session, and goes into the key that encrypts", secret=True
    )
    previous_validate_keys: tuple[str, ...] = _option(
        SECRETS, (), "retired validate_keys that are still accepted", secret=True
    )
    encrypt_key: str | None = _option(SECRET, None, "encrypts the session; needs validate_key", secret=True)
    previous_encrypt_keys: tuple[str, ...] = _option(
        SECRETS, (), "retired encrypt_keys that are still accepted", secret=True
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
        empty=Empty.FALSE,
    )
    constant_csrf_token: str | None = _option(
        TOKEN,
        None,
        "the CSRF token of each session, for tests",
        empty=Empty.DEFAULT,
        secret=True,
    )
    webtest_varname: str | None = _option(TEXT, None, "the name of the session among paste.testing_variables")
    log_file: str | None = _option(TEXT, None, "accepted for Beaker's sake; Beaker ignores it", empty=Empty.DEFAULT)
    clock: Any = _option(CALLABLE, None, "what returns the time in seconds, for tests; in Python only")

    # What an unknown backend is given, unchecked; there may be secrets in it.
    backend_arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # Which of them were given; the others are defaults.
    given: frozenset[str] = frozenset()
    # How they are named where they were given, and the prefix that another one would have there.
    labels: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    prefix: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        # As Beaker has it; and nobody changes what all of an application's sessions share.
        for name, value in (
            ("type", self.type or ("file" if self.data_dir else "memory")),
            ("sa_opts", None if self.sa_opts is None else MappingProxyType(dict(self.sa_opts))),
            ("backend_arguments", MappingProxyType(dict(self.backend_arguments))),
            ("labels", MappingProxyType(dict(self.labels))),
        ):
            object.__setattr__(self, name, value)

    def shown(self) -> dict[str, Any]:
        """Return the options that were given, without the secrets."""
        return {name: "…" if _is_secret(name) else getattr(self, name) for name in sorted(self.given)}

    def label(self, name: str, *beside: str) -> str:
        """Return an option's name as it stands where it was given, or would stand beside some other ones."""
        if name in self.labels:
            return self.labels[name]
        prefixes = [_parted(self.labels[other])[1] for other in beside if other in self.labels]
        return [*prefixes, self.prefix][0] + name

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
    #: The types for which it counts.
    types: str
    rule: str
    help: str


def option_rows() -> list[OptionRow]:
    """Return the table for the documentation, in its order."""
    return [
        OptionRow(
            name,
            _default_text(entry.default),
            _types_text(entry.metadata["types"]),
            entry.metadata["kind"].rule,
            entry.metadata["help"],
        )
        for name, entry in TABLE.items()
    ]


def _types_text(types: frozenset[str]) -> str:
    others = _ALL - types
    if not others:
        return "all"
    return ", ".join(sorted(types)) if len(types) <= len(others) else f"all but {' and '.join(sorted(others))}"


def _default_text(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


_IGNORED = "it is ignored: remove it"
_FALSE = "that is false, as it was for Beaker: write false, or remove it"
#: What to say of an option that may be an empty text, and is.
_EMPTIES = {
    name: _FALSE if entry.metadata["empty"] is Empty.FALSE else _IGNORED
    for name, entry in TABLE.items()
    if entry.metadata["empty"] is not Empty.WRONG
}


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


def read_options(options: Mapping[str, Given], *, quiet: bool = False) -> SessionOptions:
    """Convert and check options. What is harmless, and yet not what somebody may expect, is logged once.

    Args:
        options: what was given, by name.
        quiet: log nothing, since the same options are read elsewhere, too.

    Returns:
        The table, filled.

    Raises:
        SettingsError: one or more of them are wrong; its ``errors`` are all of the faults.
    """
    values, errors = _converted({name: option for name, option in options.items() if name in TABLE})
    unused = _unused(options, values)
    errors = [error for error in errors if error.name not in unused]
    rest = {name: option for name, option in options.items() if name not in TABLE}
    errors.extend(_clashes(rest))
    errors.extend(_refused(rest))
    engine = {name: rest.pop(name).value for name in list(rest) if name.startswith(ENGINE)}
    engine = {name: value for name, value in engine.items() if not is_empty(value)}
    if engine:
        values["sa_opts"] = {**(values.get("sa_opts") or {}), **engine}
    known = _knows_its_arguments(values)
    checked = _table(values, {} if known else rest, options)
    unknown = list(_unknown(rest)) if known else []
    errors.extend(error for error, stops in unknown if stops)
    errors.extend(_faults(checked, options, {error.name for error in errors}))
    if errors:
        raise SettingsError.of(errors)
    if not quiet:
        notices = [*_empty(options), *_reread(options, checked), *_useless(unused, checked)]
        notices.extend(Notice(logging.WARNING, f"{error}; it is ignored") for error, _ in unknown)
        _log(notices, options)
    return checked


def _table(values: Mapping[str, Any], others: Mapping[str, Given], options: Mapping[str, Given]) -> SessionOptions:
    # What Beaker's own middleware hands over as not given stands in no file.
    labels = {name: option.label for name, option in options.items() if option.value is not None}
    return SessionOptions(
        **values,
        backend_arguments={name: option.value for name, option in others.items()},
        given=frozenset(name for name in values if name not in options or _is_given(name, options[name])),
        labels=labels,
        prefix=_parted(labels.get("type") or next(iter(labels.values()), ""))[1],
    )


def _knows_its_arguments(values: Mapping[str, Any]) -> bool:
    """Say whether the table holds all options of the backend; of one that does not exist nobody knows more."""
    kind = values.get("type") or MEMORY
    return not values.get("namespace_class") and (kind in KNOWN_TYPES or not backend_exists(kind))


def _is_given(name: str, option: Given) -> bool:
    """Say whether an option was given: None, as Python's and Beaker's defaults have it, and an empty text are none."""
    if is_empty(option.value):
        return _meaning_of_empty("sa_opts" if name.startswith(ENGINE) else name) is not Empty.DEFAULT
    return option.value is not None or name == "samesite"


def _unused(options: Mapping[str, Given], values: Mapping[str, Any]) -> dict[str, Given]:
    """Return the options that the type does not use, whatever their values."""
    if "type" in options and "type" not in values:
        # A wrong one: nobody knows which was meant.
        return {}
    has_directory = "data_dir" in options and options["data_dir"].value is not None
    kind = values.get("type") or (FILE if has_directory else MEMORY)
    if kind not in KNOWN_TYPES or (kind != COOKIE and values.get("namespace_class")):
        return {}
    return {name: option for name, option in options.items() if kind not in _types_of(name) and _is_given(name, option)}


def _types_of(name: str) -> frozenset[str]:
    """Return the types for which an option counts."""
    if name.startswith(ENGINE):
        name = "sa_opts"
    types: frozenset[str] = TABLE[name].metadata["types"] if name in TABLE else _ALL
    return types


def _meaning_of_empty(name: str) -> Empty:
    meaning: Empty = TABLE[name].metadata["empty"]
    return meaning


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
    if is_empty(option.value) and _meaning_of_empty(name) is Empty.FALSE:
        return False
    try:
        return kind.convert(option.value)
    except (ValueError, TypeError, OverflowError) as error:
        reason = error
    # Outside of the except block, since an error that is handled there would be the new one's context:
    # what a converter says may quote a secret.
    why = str(reason) if isinstance(reason, OpenError) else ""
    raise _error(option.label, name, kind.rule, option.value, why) from None if _is_secret(name) else reason


def _is_secret(name: str) -> bool:
    return bool(TABLE[name].metadata["secret"])


def _error(label: str, name: str, rule: str, value: object, why: str = "") -> SettingsError:
    hidden = _is_secret(name)
    message = f"{label} must be {rule}, got {_shown(value, hidden=hidden)}"
    return SettingsError(f"{message}: {why}" if why else message, name=name, value=None if hidden else value)


def _shown(value: object, *, hidden: bool) -> str:
    if value is None:
        return "nothing"
    if is_empty(value):
        return "an empty text"
    if isinstance(value, bool) or not hidden:
        return repr(value)
    form = "" if isinstance(value, str) else f" of type {type(value).__name__}"
    return f"a value{form} that is not shown"


def _clashes(rest: Mapping[str, Given]) -> Iterator[SettingsError]:
    for name, option in rest.items():
        if option.also is not None and option.also.value != option.value:
            yield _clash(name, option, option.also)


def _clash(name: str, option: Given, also: Given) -> SettingsError:
    return SettingsError(f"{also.label} and {option.label} must not differ", name=name)


def _refused(rest: dict[str, Given]) -> Iterator[SettingsError]:
    """Take out an option of Beaker's that has another way here, and yield the error that names that way."""
    option = rest.pop("session_class", None)
    if option is not None and option.value is not None:
        way = (
            "subclass what session_factory_from_settings() or BeakerSessionFactoryConfig() returns, and set that class"
        )
        yield SettingsError(
            f"{option.label} is no option that beaker_bridge knows: {way} as the session factory", name="session_class"
        )


def _unknown(rest: Mapping[str, Given]) -> Iterator[tuple[SettingsError, bool]]:
    """Yield an error for each option that nobody knows, and whether it stops the start."""
    for name, option in rest.items():
        others = _others_name(name)
        near = [] if others else difflib.get_close_matches(name.lower(), TABLE, n=1, cutoff=0.8)
        hint = "".join(f"; did you mean {option.label.removesuffix(name)}{own}?" for own in others or near)
        message = f"{option.label} is no option that beaker_bridge knows{hint}"
        # Beaker ignored another framework's name, and so may we; a typing error is none that anybody wants.
        yield SettingsError(message, name=name), option.strict or bool(near)


#: What other frameworks call what we call otherwise; also with ``session_`` before it.
_OTHERS_NAMES = {
    "age": "cookie_expires",
    "backend": "type",
    "cookie_age": "cookie_expires",
    "cookie_httponly": "httponly",
    "cookie_key": "key",
    "cookie_lifetime": "cookie_expires",
    "cookie_max_age": "cookie_expires",
    "cookie_name": "key",
    "cookie_samesite": "samesite",
    "cookie_secret": "secret",
    "cookie_secure": "secure",
    "cookie_signature": "secret",
    "db": "url",
    "directory": "data_dir",
    "domain": "cookie_domain",
    "engine": "type",
    "expire": "timeout",
    "expires": "cookie_expires",
    "file_path": "data_dir",
    "hashalg": "sign_algorithm",
    "host": "url",
    "idle_timeout": "timeout",
    "lifetime": "cookie_expires",
    "max_age": "cookie_expires",
    "name": "key",
    "path": "cookie_path",
    "permanent_lifetime": "cookie_expires",
    "port": "url",
    "prefix": "key_prefix",
    "redis_url": "url",
    "secret_key": "secret",
    "serializer": "data_serializer",
    "set_on_exception": "cookie_on_exception",
    "signing_key": "secret",
    "timeout_trigger": "reissue_time",
}


def _others_name(name: str) -> list[str]:
    """Return our name of what another framework calls so, if there is one."""
    full = name.lower().replace(".", "_")
    word = full.removeprefix("session_")
    return [_OTHERS_NAMES[word]] if word in _OTHERS_NAMES else [word] if word in TABLE and word != full else []


# -- What is logged at the start ---------------------------------------------------------------------


class Notice(NamedTuple):
    """Something that is harmless, and yet not what somebody may expect."""

    level: int
    message: str


def _log(notices: Iterable[Notice], options: Mapping[str, Given]) -> None:
    # An application's own factory and its include read the same options; another application's are others.
    about = hash(tuple((option.label, _identity(option.value)) for option in options.values()))
    for level, message in notices:
        log_once(log, level, message, about)


def _identity(value: object) -> object:
    return value if isinstance(value, (str, int, float)) else id(value)


def _empty(options: Mapping[str, Given]) -> Iterator[Notice]:
    for name, option in options.items():
        if is_empty(option.value) and name in _EMPTIES:
            yield Notice(logging.WARNING, f"{option.label} is an empty text; {_EMPTIES[name]}")
        elif is_empty(option.value) and name.startswith(ENGINE):
            yield Notice(logging.WARNING, f"{option.label} is an empty text; {_IGNORED}")


def _reread(options: Mapping[str, Given], checked: SessionOptions) -> Iterator[Notice]:
    """Yield what counts otherwise than it looks."""
    option = options.get("cookie_expires")
    value = option.value.strip() if option and isinstance(option.value, str) else None
    for number, word, meaning in (("0", "false", "never expires"), ("1", "true", "ends with the browser")):
        if option and value == number:
            yield Notice(
                logging.WARNING,
                f"{option.label} = {number} is {word}, as it was for Beaker: the cookie {meaning};"
                f" write {word}, or a number of seconds",
            )
    for name in ("timeout", "cookie_expires"):
        option = options.get(name)
        if option and getattr(checked, name) == MAX_SECONDS and str(option.value).strip() != str(MAX_SECONDS):
            yield Notice(logging.WARNING, f"{option.label} is more than 68 years, and counts as {MAX_SECONDS} seconds")


def _useless(unused: Mapping[str, Given], checked: SessionOptions) -> Iterator[Notice]:
    """Yield the options that the type does not use, as one."""
    kind, type_label = checked.type, checked.label("type", *unused)
    labels = ", ".join(option.label for option in unused.values())
    meant = None if "type" in checked.given else _type_of(unused)
    if meant:
        where = "in memory, and lost when the process ends" if kind == MEMORY else f"in {checked.label('data_dir')}"
        level = logging.ERROR if kind == MEMORY else logging.WARNING
        yield Notice(level, f"{labels} without {type_label}: sessions are kept {where}; set {type_label} = {meant}")
    elif unused:
        ignored = _IGNORED if len(unused) == 1 else "they are ignored: remove them"
        yield Notice(logging.WARNING, f"{labels}: not used where {type_label} = {kind}; {ignored}")


def _type_of(options: Mapping[str, Given]) -> str | None:
    """Return the type to which an address belongs, if one of the options is an address."""
    found = (type_of_address(name, option.value) for name, option in options.items())
    return next((kind for kind in found if kind), None)


# -- Rules between options ---------------------------------------------------------------------------


def _faults(checked: SessionOptions, options: Mapping[str, Given], wrong: set[str | None]) -> Iterator[SettingsError]:
    """Yield the faults between options, save those about an option that is wrong by itself."""
    for fault in broken_rules(checked):
        if wrong.isdisjoint((fault.name, *fault.others)):
            option = options.get(fault.name)
            value = option.value if option and is_empty(option.value) else getattr(checked, fault.name)
            yield _error(checked.label(fault.name, *fault.others), fault.name, fault.rule, value)


def differing(used: SessionOptions, ignored: SessionOptions) -> list[str]:
    """Return the names of the options that were given to no effect, since another table is used."""
    return sorted(name for name in ignored.given if getattr(used, name) != getattr(ignored, name))
