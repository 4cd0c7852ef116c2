"""The two option tables: a row holds an option's type, default and help, and the store types that use it.

:class:`SessionOptions` and :class:`RegionOptions` are the tables, each field is a row;
:class:`StoreOptions` holds the rows that both share. ``reader`` fills them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any

from beaker.util import DEFAULT_CACHE_KEY_LENGTH

from beaker_bridge.options import types
from beaker_bridge.options.aliases import REGION_ALIASES, SESSION_ALIASES
from beaker_bridge.options.masking import HIDDEN, quoted
from beaker_bridge.options.rows import Empty, Table, option
from beaker_bridge.options.types import Policy

#: Store types that share options.
_STORED = types.KNOWN_TYPES - {types.COOKIE}
_FILES = frozenset({types.FILE, types.DBM})
_REDIS = frozenset({types.REDIS, types.CLUSTER})
_MEMCACHED = frozenset({types.MEMCACHED})
_SQL = frozenset({types.DATABASE, types.SQLA})


# -- Options of sessions and of regions ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class StoreOptions:
    """The options of a store, converted and checked. A default of None means: not set."""

    type: str = option(
        types.BACKEND,
        types.MEMORY,
        "the store: memory, file, dbm, ext:redis, ext:memcached, … as Beaker's",
    )
    data_dir: str | None = option(types.DIRECTORY, None, "the directory for files, dbm files and lock files", _FILES)
    file_dir: str | None = option(
        types.DIRECTORY,
        None,
        "the directory for files, instead of data_dir/container_file",
        {types.FILE},
        empty=Empty.DEFAULT,
    )
    dbm_dir: str | None = option(
        types.DIRECTORY,
        None,
        "the directory for dbm files, instead of data_dir/container_dbm",
        {types.DBM},
        empty=Empty.DEFAULT,
    )
    lock_dir: str | None = option(types.DIRECTORY, None, "the directory for lock files", _FILES)
    dbmmodule: Any = option(
        types.DOTTED, None, "the dbm module; Beaker takes dbm.gnu, else dbm.dumb", {types.DBM}, empty=Empty.DEFAULT
    )
    # Secret: an address may contain a password.
    url: Any = option(
        types.ANYTHING,
        None,
        "the address of the store; in Python also a client or an engine",
        types.SERVER_TYPES - {types.CLUSTER},
        empty=Empty.DEFAULT,
        secret=True,
    )
    urls: Any = option(
        types.ANYTHING,
        None,
        "the addresses of a Redis Cluster, with commas between them; in Python also a client",
        {types.CLUSTER},
        empty=Empty.DEFAULT,
        secret=True,
    )
    username: str | None = option(
        types.TEXT, None, "the user, where the address names none", _REDIS, empty=Empty.DEFAULT
    )
    password: str | None = option(
        types.TEXT, None, "the password, where the address holds none", _REDIS, empty=Empty.DEFAULT, secret=True
    )
    key_prefix: str = option(
        types.TEXT, "beaker_cache:", "the beginning of all keys in Redis; the default is Beaker's", _REDIS
    )
    memcache_module: Any = option(
        types.ANYTHING, None, "accepted for Beaker's sake; Beaker's client is not used", _MEMCACHED, empty=Empty.DEFAULT
    )
    table_name: str = option(types.TEXT, "beaker_cache", "the SQL table", {types.DATABASE}, empty=Empty.DEFAULT)
    schema_name: str | None = option(types.TEXT, None, "the SQL table's schema", {types.DATABASE}, empty=Empty.DEFAULT)
    sa_opts: Mapping[str, Any] | None = option(
        types.MAPPING,
        None,
        "options for SQLAlchemy's engine_from_config; sa.* in an .ini, where sa.connect_args is JSON",
        _SQL,
        empty=Empty.DEFAULT,
        secret=True,
    )
    bind: Any = option(types.DOTTED, None, "the application's engine", {types.SQLA}, empty=Empty.DEFAULT)
    table: Any = option(types.DOTTED, None, "the application's table", {types.SQLA}, empty=Empty.DEFAULT)
    log_file: Any = option(types.ANYTHING, None, "accepted for Beaker's sake; Beaker ignores it", empty=Empty.DEFAULT)

    # Passed to an unknown backend, unchecked; may contain secrets.
    backend_arguments: Mapping[str, Any] = field(default_factory=dict)
    # The names of the options that were given; the others are defaults.
    given: frozenset[str] = frozenset()
    # The names as written, with prefix, and the prefix for names that were not given.
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    prefix: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        # Read-only: all sessions of an application share these.
        for name in ("sa_opts", "backend_arguments", "labels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"

    def shown(self) -> dict[str, Any]:
        """Return the options that were given, with secrets masked."""
        secrets = {row.name for row in fields(self) if row.metadata.get("secret")}
        return {name: HIDDEN if name in secrets else quoted(name, getattr(self, name)) for name in sorted(self.given)}

    def label(self, name: str, *beside: str) -> str:
        """Return an option's name as written; one that was not given has the prefix of the others.

        Args:
            name: the option.
            beside: options whose prefix it would have.
        """
        if name in self.labels:
            return self.labels[name]
        prefixes = [self.labels[other].removesuffix(other) for other in beside if other in self.labels]
        return [*prefixes, self.prefix][0] + name


# -- Sessions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class SessionOptions(StoreOptions):
    """The options of a session, converted and checked. A default of None means: not set."""

    # The store.
    type: str = option(
        types.BACKEND,
        None,
        "the store: memory, file, dbm, cookie, ext:redis, … as Beaker's; unset: file with a data_dir, else memory",
    )
    namespace_class: Any = option(
        types.CLASS,
        None,
        "a class that does what Beaker's NamespaceManager does, instead of the type's",
        _STORED,
        empty=Empty.DEFAULT,
    )
    store_timeout: float = option(
        types.DURATION,
        2.0,
        "seconds that a store may cost a request, connecting, waiting for a lock and merging included",
        _STORED,
    )
    purge_every: int | None = option(
        types.SECONDS,
        None,
        "seconds between purges of expired sessions, in a background thread of one process at a time",
        _FILES | _SQL,
    )
    store_error: str = option(
        types.one_of("raise", "empty"),
        "raise",
        "if the store cannot be reached: raise SessionStoreError, or empty: serve an empty session that is not saved",
        _STORED,
    )

    # The record.
    data_serializer: Any = option(
        types.SERIALIZER, "json", "how sessions are written: json, pickle, or by an object with dumps and loads"
    )
    legacy_serializer: Any = option(
        types.SERIALIZER, None, "another serializer that records in the store may be written with", _STORED
    )
    invalidate_corrupt: bool = option(
        types.BOOLEAN,
        True,
        "replace a damaged record or cookie by a new session, and log a warning; false: raise",
        empty=Empty.FALSE,
    )
    detect_changes: bool = option(
        types.BOOLEAN,
        True,
        "save a value that was changed in place, though changed() was forgotten",
    )
    whole_keys: tuple[str, ...] = option(
        types.KEYS,
        (),
        "keys of the session whose values are never merged inside, such as a position or a board; one on each line",
        _STORED,
    )
    auto: bool = option(types.BOOLEAN, False, "save each session that was touched, also an empty one")

    # Lifetimes.
    timeout: int | None = option(types.SECONDS, None, "idle seconds after which a session expires")
    absolute_timeout: int | None = option(
        types.SECONDS, None, "seconds since its creation after which a session expires, whatever the activity"
    )
    reissue_time: int | None = option(
        types.SECONDS,
        None,
        "seconds after which the access time, and a cookie that has a lifetime, are renewed; "
        "unset: a tenth of the smaller of timeout and cookie_expires, or 60",
    )
    save_accessed_time: bool = option(types.BOOLEAN, True, "keep the time of the last access")

    # The cookie.
    use_cookies: bool = option(types.BOOLEAN, True, "read and send a cookie", empty=Empty.FALSE)
    key: str = option(types.COOKIE_NAME, "beaker.session.id", "the cookie's name")
    secret: str | None = option(types.SECRET, None, "signs the id in the cookie", _STORED, secret=True)
    sign_algorithm: str = option(
        types.ALGORITHM, "sha1", "the hash in the HMAC that signs the cookie: sha1, as Beaker's, sha256 or sha512"
    )
    previous_sign_algorithms: tuple[str, ...] = option(
        types.ALGORITHMS, (), "other hashes that are accepted, too, while a site changes from one to another"
    )
    previous_secrets: tuple[str, ...] = option(
        types.SECRETS, (), "retired secrets that are still accepted", _STORED, secret=True
    )
    cookie_expires: Any = option(
        types.COOKIE_EXPIRES,
        True,
        "how long the browser keeps the cookie; true: until it closes; false: as long as it keeps any",
    )
    cookie_domain: str | None = option(
        types.COOKIE_ATTRIBUTE, None, "the cookie's domain, without scheme, port or path; else the host alone"
    )
    cookie_path: str = option(types.COOKIE_PATH, "/", "the cookie's path")
    secure: bool | str = option(
        types.SECURE, "auto", "send the cookie over https only; auto: where the request came over https"
    )
    httponly: bool = option(types.BOOLEAN, True, "hide the cookie from JavaScript")
    samesite: str | None = option(
        types.SAMESITE,
        "Lax",
        "the cookie's SameSite attribute; the text None needs secure = true; false, or Python's None: no attribute",
    )
    partitioned: bool = option(
        types.BOOLEAN,
        False,
        "the cookie's Partitioned attribute (CHIPS): one for each site that embeds this one; needs secure = true",
    )

    # Signature and encryption of the data.
    validate_key: str | None = option(
        types.SECRET, None, "signs a cookie session, and goes into the key that encrypts", secret=True
    )
    previous_validate_keys: tuple[str, ...] = option(
        types.SECRETS, (), "retired validate_keys that are still accepted", secret=True
    )
    encrypt_key: str | None = option(types.SECRET, None, "encrypts the session; needs validate_key", secret=True)
    previous_encrypt_keys: tuple[str, ...] = option(
        types.SECRETS, (), "retired encrypt_keys that are still accepted", secret=True
    )
    encrypt_nonce_bits: int = option(types.NONCE_BITS, 128, "the size of the nonce in bits; 48 before Beaker 1.8")
    crypto_type: str = option(
        types.CRYPTO_TYPE, "default", "Beaker's crypto module; stored sessions, and retired keys, need cryptography"
    )

    # The request.
    cookie_on_exception: Policy = option(
        types.POLICY, True, "keep the session and its cookie when an exception view answers", empty=Empty.FALSE
    )
    constant_csrf_token: str | None = option(
        types.TOKEN, None, "the CSRF token of each session, for tests", empty=Empty.DEFAULT, secret=True
    )
    webtest_varname: str | None = option(types.TEXT, None, "the name of the session among paste.testing_variables")
    clock: Any = option(types.CALLABLE, None, "a function that returns the time in seconds, for tests; in Python only")

    def __post_init__(self) -> None:
        super().__post_init__()
        # Beaker's default.
        object.__setattr__(self, "type", self.type or (types.FILE if self.data_dir else types.MEMORY))

    @property
    def touch_interval(self) -> float:
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


# -- Cache regions -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class RegionOptions(StoreOptions):
    """The options of a region, converted and checked. A default of None means: not set.

    Each can be set for all regions (``cache.expire``) or for one (``cache.short_term.expire``).
    """

    expire: int = option(types.FRESHNESS, 60, "seconds for which a value is fresh; 0: never")
    enabled: bool = option(types.BOOLEAN, True, "cache values; false: cached functions are called each time")
    key_length: int = option(
        types.NATURAL,
        DEFAULT_CACHE_KEY_LENGTH,
        "the length of namespace and key together over which Beaker hashes the key",
    )
    digest_filenames: bool = option(types.BOOLEAN, True, "name files by digests", _FILES, empty=Empty.DEFAULT)
    store_timeout: float = option(
        types.DURATION, 2.0, "seconds that one step of a store on a server may take", types.SERVER_TYPES
    )
    store_error: str = option(
        types.one_of("compute", "raise"),
        "compute",
        "if the store cannot be used: compute the value, or raise CacheStoreError",
    )
    lock_timeout: float = option(
        types.DURATION,
        30.0,
        "seconds for which one caller may compute a value before another takes its place; nobody waits longer than"
        " twice that",
    )
    timeout: Any = option(
        types.ANYTHING, None, "accepted for Beaker's sake; expire is what counts", (), empty=Empty.DEFAULT
    )

    # The region's name.
    region: str = ""


# -- The tables --------------------------------------------------------------------------------------

SESSION_TABLE = Table(SessionOptions, ("session.", "beaker.session."), "sessions", types.KNOWN_TYPES, SESSION_ALIASES)
REGION_TABLE = Table(RegionOptions, ("cache.", "beaker.cache."), "values", _STORED, REGION_ALIASES)
