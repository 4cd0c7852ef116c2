"""The one table of options.

:class:`SessionOptions` is the table: each field is an option, with its converter, its default, its help, the types
for which it counts, and what an empty text is for it. ``option_reader`` fills it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from beaker_bridge.options.masking import HIDDEN, without_address
from beaker_bridge.options.rules import (
    CLUSTER,
    COOKIE,
    DATABASE,
    DBM,
    FILE,
    KNOWN_TYPES,
    MEMCACHED,
    REDIS,
    SQLA,
)
from beaker_bridge.options.types import (
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
    one_of,
)
from beaker_bridge.pyramid.policy import Policy

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("session.", "beaker.session.")
#: The prefix of SQLAlchemy's own options.
ENGINE = "sa."


def parted(label: str) -> tuple[str, str]:
    """Return an option's name without its prefix, and the prefix, if it has one of ours."""
    for prefix in PREFIXES:
        if label.startswith(prefix):
            return label[len(prefix) :], prefix
    return label, ""


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


@dataclass(frozen=True, kw_only=True, repr=False)
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
    purge_every: int | None = _option(
        SECONDS,
        None,
        "seconds: so often a process that writes sessions purges the expired ones, in a thread, one process at a time",
        types=_FILES | _SQL,
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

    def __repr__(self) -> str:
        return f"SessionOptions({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"

    def shown(self) -> dict[str, Any]:
        """Return the options that were given, without the secrets."""
        return {
            name: HIDDEN if is_secret(name) else without_address(getattr(self, name)) for name in sorted(self.given)
        }

    def label(self, name: str, *beside: str) -> str:
        """Return an option's name as it stands where it was given, or would stand beside some other ones."""
        if name in self.labels:
            return self.labels[name]
        prefixes = [parted(self.labels[other])[1] for other in beside if other in self.labels]
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


def is_secret(name: str) -> bool:
    """Say whether an option's value is never shown."""
    return bool(TABLE[name].metadata["secret"])


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
