"""The table of a cache region's options, and for which types each of them counts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from beaker.util import DEFAULT_CACHE_KEY_LENGTH

from beaker_bridge.options.masking import masked as masked_value
from beaker_bridge.options.rules import CLUSTER, DATABASE, DBM, FILE, MEMCACHED, MEMORY, REDIS, SQLA
from beaker_bridge.options.types import (
    ANYTHING,
    BACKEND,
    BOOLEAN,
    DIRECTORY,
    DOTTED,
    DURATION,
    MAPPING,
    MAX_SECONDS,
    TEXT,
    Kind,
    one_of,
)
from beaker_bridge.regions.backends import SERVER_KINDS, Terms

FILES = frozenset({FILE, DBM})
_REDIS = frozenset({REDIS, CLUSTER})
#: Types that we know: for another one, options that we do not know are the backend's own.
KNOWN_TYPES = SERVER_KINDS | FILES | {MEMORY}


# -- Converters, beside those of the sessions' options -----------------------------------------------


def _region_names(value: Any) -> tuple[str, ...]:
    names = re.split(r"[,\r\n]", value) if isinstance(value, str) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(name.strip() for name in names if name.strip())


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value) or int(value) < 0:
        raise ValueError
    return int(value)


def _freshness(value: Any) -> int:
    # Stores count seconds in 32 bits, which is for ever.
    return min(_whole(value.total_seconds() if isinstance(value, timedelta) else value), MAX_SECONDS)


NAMES = Kind("a list of regions' names, with commas, spaces or line breaks between them", _region_names)


def _option(kind: Kind, default: Any, help: str, types: Collection[str] | None = None) -> Any:  # noqa: A002
    """Return a row of the table; it counts for the types, ``None`` for all of them."""
    # There may be a password in any of them: what is shown is masked.
    return field(default=default, repr=False, metadata={"kind": kind, "help": help, "types": types})


# -- The table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RegionOptions:
    """The options of a region, converted and checked. A default of nothing means: not set.

    Each may stand for all regions (``cache.expire``) or for one (``cache.short_term.expire``).
    """

    type: str = _option(BACKEND, MEMORY, "memory, file, dbm, ext:redis, ext:memcached, ext:database, … as Beaker's")
    expire: int = _option(
        Kind("a whole number of seconds, 0 or more", _freshness), 60, "seconds for which a value is fresh; 0: never"
    )
    enabled: bool = _option(BOOLEAN, True, "false: cached functions are called each time")
    key_length: int = _option(
        Kind("a whole number, 0 or more", _whole),
        DEFAULT_CACHE_KEY_LENGTH,
        "the length of namespace and key together over which Beaker hashes the key",
    )
    data_dir: str | None = _option(DIRECTORY, None, "the directory for files, dbm files and lock files", FILES)
    file_dir: str | None = _option(
        DIRECTORY, None, "the directory for files, instead of data_dir/container_file", {FILE}
    )
    dbm_dir: str | None = _option(
        DIRECTORY, None, "the directory for dbm files, instead of data_dir/container_dbm", {DBM}
    )
    lock_dir: str | None = _option(DIRECTORY, None, "the directory for lock files", FILES)
    dbmmodule: Any = _option(DOTTED, None, "the dbm module; Beaker takes dbm.gnu, else dbm.dumb", {DBM})
    digest_filenames: bool = _option(BOOLEAN, True, "name files by digests", FILES)
    url: Any = _option(
        ANYTHING,
        None,
        "the address of the store; in Python also a client or an engine",
        SERVER_KINDS - {CLUSTER},
    )
    urls: Any = _option(
        ANYTHING,
        None,
        "the addresses of a Redis Cluster, with commas between them; in Python also a client",
        {CLUSTER},
    )
    username: str | None = _option(TEXT, None, "the user, where the address names none", _REDIS)
    password: str | None = _option(TEXT, None, "the password, where the address holds none", _REDIS)
    key_prefix: str = _option(
        TEXT, "beaker_cache:", "what the keys in Redis begin with; the default is Beaker's", _REDIS
    )
    table_name: str = _option(TEXT, "beaker_cache", "the SQL table", {DATABASE})
    schema_name: str | None = _option(TEXT, None, "the SQL table's schema", {DATABASE})
    sa_opts: Mapping[str, Any] | None = _option(
        MAPPING, None, "options for SQLAlchemy's engine_from_config; sa.* in an .ini", {DATABASE}
    )
    bind: Any = _option(DOTTED, None, "ext:sqla: the application's engine", {SQLA})
    table: Any = _option(DOTTED, None, "ext:sqla: the application's table", {SQLA})
    store_timeout: float = _option(DURATION, 2.0, "seconds that one step of a store on a server may take", SERVER_KINDS)
    store_error: str = _option(
        one_of("compute", "raise"),
        "compute",
        "a store that cannot be used: compute the value, or raise CacheStoreError",
    )
    lock_timeout: float = _option(
        DURATION,
        30.0,
        "seconds for which one caller may compute a value before another takes its place; nobody waits longer than"
        " twice that",
    )
    memcache_module: Any = _option(
        ANYTHING, None, "accepted for Beaker's sake; regions have a client of their own", {MEMCACHED}
    )
    timeout: Any = _option(ANYTHING, None, "accepted for Beaker's sake; expire is what counts", ())
    log_file: Any = _option(ANYTHING, None, "accepted for Beaker's sake; Beaker ignores it")

    # What an unknown backend is given, unchecked.
    backend_arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # Which of them were given; the others are defaults.
    given: frozenset[str] = frozenset()
    # How they are named in the settings, or would be.
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    def terms(self, region: str) -> Terms:
        """Return what a region's namespace manager goes by."""
        return Terms(region, self.type, self.store_timeout, self.lock_timeout, self.store_error, self.labels)

    @property
    def arguments(self) -> dict[str, Any]:
        """The options as Beaker has them in ``cache_regions``."""
        names = [name for name in TABLE if name in ALWAYS | self.given - OURS]
        return {**{name: getattr(self, name) for name in names}, **self.backend_arguments}


TABLE = {entry.name: entry for entry in fields(RegionOptions) if entry.metadata}
#: What Beaker always finds in a region, as pyramid_beaker has it.
ALWAYS = frozenset({"type", "data_dir", "lock_dir", "expire", "enabled", "key_length", "url"})
#: What is ours alone.
OURS = frozenset({"store_timeout", "store_error", "lock_timeout"})
#: What stops the start where it is wrong: Beaker checks it there, too, or it is ours. Where another one is wrong,
#: Beaker fails at the first use of a region that goes by it, and a region that nobody uses harms nobody.
CHECKED_AT_START = (ALWAYS - {"url"}) | OURS | {"key_prefix"}


def counts(name: str, kind: str) -> bool:
    """Say whether an option counts for a type; another's backend may take whatever it likes."""
    types = TABLE[name].metadata["types"]
    return types is None or kind in types or kind not in KNOWN_TYPES


# -- Passwords ---------------------------------------------------------------------------------------

#: The options whose texts are shown, beside the address, which is masked.
_SHOWN = frozenset(TABLE) - {"sa_opts"} | {"regions"}


def masked(name: str, value: Any) -> Any:
    """Return a value without the passwords that may be in it; of an option that we do not know, no text."""
    return masked_value(name, value, _SHOWN)
