"""Cache regions from settings: Beaker's ``cache_regions``, checked, and with a namespace manager of ours."""

from __future__ import annotations

import difflib
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, NamedTuple

import beaker.cache
from beaker.exceptions import InvalidCacheBackendError
from beaker.util import DEFAULT_CACHE_KEY_LENGTH

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.kinds import ANYTHING, BOOLEAN, DOTTED, DURATION, SECONDS, TEXT, Kind
from beaker_bridge.option_rules import NEEDED
from beaker_bridge.region_backends import (
    SERVER_KINDS,
    RegionNamespace,
    Terms,
    Troubles,
    close_servers,
    empty_memory,
    open_servers,
)

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("cache.", "beaker.cache.")
#: The option that names the regions.
REGIONS = "regions"
#: The prefix of SQLAlchemy's own options.
ENGINE = "sa."


# -- Converters, beside those of the sessions' options -----------------------------------------------


def _region_names(value: Any) -> tuple[str, ...]:
    names = re.split(r"[,\s]+", value) if isinstance(value, str) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(name.strip() for name in names if name.strip())


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value) or int(value) < 0:
        raise ValueError
    return int(value)


def _store_error(value: Any) -> str:
    if value not in ("compute", "raise"):
        raise ValueError
    return str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value)


NAMES = Kind("a list of regions' names, with commas, spaces or line breaks between them", _region_names)


def _option(kind: Kind, default: Any, help: str) -> Any:  # noqa: A002 -- as in the sessions' table
    return field(default=default, metadata={"kind": kind, "help": help})


# -- The table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RegionOptions:
    """The options of a region, converted and checked. A default of nothing means: not set.

    Each may stand for all regions (``cache.expire``) or for one (``cache.short_term.expire``).
    """

    type: str = _option(TEXT, "memory", "memory, file, dbm, ext:redis, ext:memcached, ext:database, … as Beaker's")
    expire: int = _option(SECONDS, 60, "seconds for which a value is fresh")
    enabled: bool = _option(BOOLEAN, True, "false: cached functions are called each time")
    key_length: int = _option(
        Kind("a whole number, 0 or more", _whole),
        DEFAULT_CACHE_KEY_LENGTH,
        "the length of namespace and key together over which Beaker hashes the key",
    )
    data_dir: str | None = _option(TEXT, None, "the directory for files, dbm files and lock files")
    file_dir: str | None = _option(TEXT, None, "the directory for files, instead of data_dir/container_file")
    dbm_dir: str | None = _option(TEXT, None, "the directory for dbm files, instead of data_dir/container_dbm")
    lock_dir: str | None = _option(TEXT, None, "the directory for lock files")
    dbmmodule: Any = _option(DOTTED, None, "the dbm module; Beaker takes dbm.gnu, else dbm.dumb")
    digest_filenames: bool = _option(BOOLEAN, True, "name files by digests")
    url: Any = _option(ANYTHING, None, "the address of the store; in Python also a client or an engine")
    urls: Any = _option(
        ANYTHING, None, "the addresses of a Redis Cluster, with commas between them; in Python also a client"
    )
    table_name: str = _option(TEXT, "beaker_cache", "the SQL table")
    schema_name: str | None = _option(TEXT, None, "the SQL table's schema")
    sa_opts: Mapping[str, Any] | None = _option(
        Kind("a dict", _mapping), None, "options for SQLAlchemy's engine_from_config; sa.* in an .ini"
    )
    bind: Any = _option(DOTTED, None, "ext:sqla: the application's engine")
    table: Any = _option(DOTTED, None, "ext:sqla: the application's table")
    store_timeout: float = _option(DURATION, 2.0, "seconds that one step of a store on a server may take")
    store_error: str = _option(
        Kind("one of compute, raise", _store_error),
        "compute",
        "a store that cannot be used: compute the value, or raise CacheStoreError",
    )
    lock_timeout: float = _option(
        DURATION,
        30.0,
        "seconds for which one caller may compute a value before another takes its place; nobody waits longer than"
        " twice that",
    )
    memcache_module: str | None = _option(TEXT, None, "accepted for Beaker's sake; regions have a client of their own")
    timeout: int | None = _option(SECONDS, None, "accepted for Beaker's sake; each region has an expire")
    log_file: str | None = _option(TEXT, None, "accepted for Beaker's sake; Beaker ignores it")

    # What an unknown backend is given, unchecked.
    backend_arguments: Mapping[str, Any] = field(default_factory=dict)
    # Which of them were given; the others are defaults.
    given: frozenset[str] = frozenset()


TABLE = {entry.name: entry for entry in fields(RegionOptions) if entry.metadata}
#: What Beaker always finds in a region, as pyramid_beaker has it.
_ALWAYS = frozenset({"data_dir", "lock_dir", "expire", "enabled", "key_length", "url"})
#: What is ours alone.
_OURS = frozenset({"type", "store_timeout", "store_error", "lock_timeout"})

#: Types that we know: for another one, options that we do not know are the backend's own.
KNOWN_TYPES = SERVER_KINDS | {"memory", "file", "dbm"}


# -- A region ----------------------------------------------------------------------------------------


class Region:
    """A region of Beaker's, as the settings define it.

    Args:
        name: its name.
        options: its options.
        defined_by: the name of the application.
    """

    def __init__(self, name: str, options: RegionOptions, defined_by: str) -> None:
        self.name = name
        self.options = options
        self.defined_by = defined_by
        self.terms = Terms(name, options.type, options.store_timeout, options.lock_timeout, options.store_error)
        self.troubles = Troubles(self.terms)

    @property
    def effective(self) -> dict[str, Any]:
        """Its options, given or not."""
        return {**{name: getattr(self.options, name) for name in TABLE}, **self.options.backend_arguments}

    @property
    def arguments(self) -> dict[str, Any]:
        """The region as Beaker has it in ``cache_regions``."""
        names = [name for name in TABLE if name in _ALWAYS | self.options.given - _OURS]
        own = {name: getattr(self.options, name) for name in names}
        return {"type": RegionType(self), **own, **self.options.backend_arguments}

    def shown(self) -> dict[str, Any]:
        """Return the options that hold, without passwords."""
        names = self.options.given | {"type", "expire", "enabled", "key_length"} | set(self.options.backend_arguments)
        return {name: _masked(name, value) for name, value in self.effective.items() if name in names}


class RegionType(str):
    """A region's ``type``: the name of Beaker's backend, by which Beaker finds our namespace manager.

    Args:
        region: the region.
    """

    __slots__ = ("region",)
    region: Region

    def __new__(cls, region: Region) -> RegionType:  # noqa: PYI034 -- Self is not in Python 3.10
        self = super().__new__(cls, region.options.type)
        self.region = region
        return self

    def __repr__(self) -> str:
        # Beaker tells its caches apart by this text: two regions have two, whatever their options.
        return f"RegionType({str(self)!r}, {self.region.terms!r})"

    def __deepcopy__(self, _memo: Any) -> RegionType:
        return self


class _NamespaceClasses(dict[str, Any]):
    """Beaker's namespace managers by their names; for the ``type`` of one of our regions, ours."""

    def __getitem__(self, name: str) -> Any:
        if isinstance(name, RegionType):
            return partial(RegionNamespace, name.region.terms, name.region.troubles)
        return super().__getitem__(name)


def _install() -> None:
    """Let Beaker find our namespace manager: it has no other place to say so but a type's name."""
    backends = beaker.cache.clsmap
    if not isinstance(backends._clsmap, _NamespaceClasses):
        backends._clsmap = _NamespaceClasses(backends._clsmap)


_PASSWORD = re.compile(r"(?i)((?:^|[?&;\s])[a-z_]*(?:password|passwd|secret|token)=)[^&;\s]*")
_SECRET_NAME = re.compile(r"(?i)password|passwd|secret|token")


def _masked(name: str, value: Any) -> Any:
    """Return a value without the passwords that may be in it."""
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if _SECRET_NAME.search(name):
        return "…"
    if isinstance(value, (list, tuple)):
        return [_masked(name, inner) for inner in value]
    if not isinstance(value, str):
        # An engine or a client: what it says of itself may be anything.
        return value if isinstance(value, (int, float, type(None))) else f"<{type(value).__name__}>"
    return _PASSWORD.sub(r"\1…", re.sub(r"(://[^/?#@:]*):[^/?#]*@", r"\1:…@", value))


# -- Reading the settings ----------------------------------------------------------------------------


class _Given(NamedTuple):
    """One option as somebody gave it: under which name, with which value, and how strictly held."""

    label: str
    value: Any
    strict: bool


class _Read(NamedTuple):
    """The options of a region, or those that all regions share: the table's, SQLAlchemy's, and unknown ones."""

    values: dict[str, Any]
    engine: dict[str, Any]
    rest: dict[str, _Given]


def read_regions(settings: Mapping[str, Any], defined_by: str) -> list[Region]:
    """Read and check the regions that settings define.

    Args:
        settings: an application's settings; those under ``cache.`` and ``beaker.cache.`` count.
        defined_by: the name of the application.

    Raises:
        SettingsError: one or more options are wrong; its ``errors`` are all of the faults.
    """
    reader = _Reader(settings)
    regions = reader.regions(defined_by)
    if reader.errors:
        raise SettingsError.of(reader.errors)
    return regions


class _Reader:
    """Reads the options under our prefixes, and collects what is wrong with them.

    Args:
        settings: an application's settings.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.errors: list[SettingsError] = []
        self._options: dict[str, _Given] = {}
        for label, value in settings.items():
            for prefix in PREFIXES:
                if isinstance(label, str) and label.startswith(prefix):
                    self._add(label.removeprefix(prefix).strip(), label, value, strict=prefix != PREFIXES[0])

    def _add(self, name: str, label: str, value: Any, *, strict: bool) -> None:
        value = value.strip() if isinstance(value, str) else value
        other = self._options.get(name)
        if other is not None and other.value != value:
            self.errors.append(SettingsError(f"{other.label} and {label} must not differ", name=name))
        self._options[name] = _Given(label, value, strict or (other is not None and other.strict))

    def regions(self, defined_by: str) -> list[Region]:
        """Return the regions; where something is wrong with one, it is among the errors."""
        names = self._names()
        read = {owner: self._read(owner, options) for owner, options in self._parted(names).items()}
        regions = [Region(name, _combined(read[""], read[name]), defined_by) for name in names]
        self._check_unlisted(read[""].rest, names)
        known = [region.name for region in regions if not _is_others(region.options.type)]
        for owner in ["", *known] if known == names else known:
            self._check_unknown(owner, read[owner].rest)
        for region in regions:
            self._check(region)
        return regions

    def _names(self) -> list[str]:
        option = self._options.get(REGIONS)
        names: tuple[str, ...] = ()
        if option is not None and option.value is not None:
            names = self._converted(NAMES, REGIONS, option) or ()
        for name, count in Counter(names).items():
            if count > 1:
                self._fault(REGIONS, "a list that names each region once", name)
            if f"{name}." == ENGINE:
                self._fault(REGIONS, "a list without sa, which stands for SQLAlchemy's options", name)
        return list(dict.fromkeys(names))

    def _parted(self, regions: Iterable[str]) -> dict[str, dict[str, _Given]]:
        """Return the options of each region by its name, and those that all share under no name."""
        parts: dict[str, dict[str, _Given]] = {owner: {} for owner in ("", *regions)}
        for name, option in self._options.items():
            # The longest one: a region's name may begin with another's.
            owner = max((region for region in parts if name.startswith(f"{region}.")), key=len, default="")
            if name != REGIONS:
                parts[owner][name.removeprefix(f"{owner}.")] = option
        return parts

    def _read(self, owner: str, options: Mapping[str, _Given]) -> _Read:
        read = _Read({}, {}, {})
        for name, option in options.items():
            if name.startswith(ENGINE):
                read.engine[name] = option.value
            elif name not in TABLE:
                read.rest[name] = option
            # Nothing, as Python's and Beaker's defaults have it, says nothing.
            elif option.value is not None:
                value = self._converted(TABLE[name].metadata["kind"], _full(owner, name), option)
                if value is not None:
                    read.values[name] = value
        return read

    def _converted(self, kind: Kind, name: str, option: _Given) -> Any:
        """Return the value; nothing, if it is wrong."""
        try:
            return kind.convert(option.value)
        except (ValueError, TypeError, OverflowError):
            self._fault(name, kind.rule, option.value)
            return None

    def _check_unlisted(self, options: dict[str, _Given], regions: list[str]) -> None:
        """Take out the options of regions that are not listed, and tell of them."""
        for name in list(options):
            region, _, option = name.partition(".sa.") if ".sa." in name else name.rpartition(".")
            if region and (option in TABLE or ".sa." in name):
                message = f"{options[name].label} is for a region that {self._label(REGIONS)} does not list"
                stops = REGIONS in self._options
                self._tell(name, options.pop(name), message, _nearest(region, regions), stops=stops)

    def _check_unknown(self, owner: str, options: Mapping[str, _Given]) -> None:
        """Tell of options that nobody knows."""
        for name, option in options.items():
            message = f"{option.label} is no option that beaker_bridge knows"
            meant = [option.label.removesuffix(name) + near for near in _nearest(name, [*TABLE, REGIONS], cutoff=0.8)]
            self._tell(_full(owner, name), option, message, meant, stops=bool(meant))

    def _tell(self, name: str, option: _Given, message: str, meant: list[str], *, stops: bool) -> None:
        if stops or option.strict:
            hint = f"; did you mean {meant[0]}?" if meant else ""
            self.errors.append(SettingsError(message + hint, name=name, value=_masked(name, option.value)))
        else:
            _warn_once(f"{message}; it is ignored")

    def _check(self, region: Region) -> None:
        """Check a region's type, and that it has what that needs."""
        kind, options = region.options.type, region.options
        if not _exists(kind):
            known = ", ".join(sorted(KNOWN_TYPES))
            meant = "".join(f" (did you mean {near}?)" for near in _nearest(kind, [*beaker.cache.clsmap._clsmap]))
            self._fault(self._given_name(region, "type"), f"one of {known} or another backend of Beaker's{meant}", kind)
            return
        wrong = {str(error.name).removeprefix(f"{region.name}.") for error in self.errors}
        given = {"sa.url"} if ENGINE + "url" in (options.sa_opts or {}) else set()
        given |= options.given | wrong
        for names in NEEDED.get(kind, ()):
            if given.isdisjoint(names):
                instead = "".join(f", or {self._label(f'{region.name}.{name}')}" for name in names[1:])
                self._fault(f"{region.name}.{names[0]}", f"given where type = {kind}{instead}", None)
                given |= set(names)
                wrong |= set(names)
        if kind in SERVER_KINDS and wrong.isdisjoint(TABLE):
            self._open(region)

    def _open(self, region: Region) -> None:
        """Open a region's servers, which connects to none: what they are called may be no address."""
        try:
            open_servers(region.options.type, region.arguments, region.options.store_timeout)
        except SettingsError as error:
            name = _full(region.name, str(error.name))
            self.errors.append(SettingsError(f"{self._label(name)}: {error}", name=name, value=error.value))

    def _given_name(self, region: Region, name: str) -> str:
        """Return the name under which an option was given: the region's own, or the one for all."""
        return next((full for full in (f"{region.name}.{name}", name) if full in self._options), name)

    def _fault(self, name: str, rule: str, value: object) -> None:
        shown = _masked(name, value)
        told = "nothing" if value is None else repr(shown)
        self.errors.append(SettingsError(f"{self._label(name)} must be {rule}, got {told}", name=name, value=shown))

    def _label(self, name: str) -> str:
        """Return an option's name with its prefix, as the settings have it."""
        if name in self._options:
            return self._options[name].label
        regions = self._options.get(REGIONS)
        return f"{regions.label.removesuffix(REGIONS) if regions else PREFIXES[0]}{name}"


def _full(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def _combined(shared: _Read, own: _Read) -> RegionOptions:
    """Return a region's options: its own over the shared ones, and these over the defaults."""
    values = {**shared.values, **own.values}
    if f"{ENGINE}url" in own.engine and "url" not in own.values:
        # Both name the database: the region's own word counts.
        values.pop("url", None)
    engine = {**shared.values.get("sa_opts", {}), **shared.engine, **own.values.get("sa_opts", {}), **own.engine}
    if engine:
        values["sa_opts"] = engine
    rest = {name: option.value for name, option in {**shared.rest, **own.rest}.items()}
    others = _is_others(values.get("type", "memory"))
    return RegionOptions(**values, backend_arguments=rest if others else {}, given=frozenset(values))


def _is_others(kind: str) -> bool:
    """Say whether somebody else's backend takes options that we do not know."""
    return kind not in KNOWN_TYPES and _exists(kind)


def _exists(kind: str) -> bool:
    try:
        return not isinstance(beaker.cache.clsmap[kind], InvalidCacheBackendError)
    except KeyError:
        return False


def _nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the name that is meant, if one is near."""
    return difflib.get_close_matches(name.lower(), [*known], n=1, cutoff=cutoff)


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        log.warning("%s", message)


# -- Defining them -----------------------------------------------------------------------------------


def set_cache_regions_from_settings(settings: Mapping[str, Any]) -> None:
    """Set Beaker's cache regions: ``@cache_region`` and all else in ``beaker.cache`` find them.

    Args:
        settings: an application's settings; those under ``cache.`` and ``beaker.cache.`` count.

    Raises:
        SettingsError: one or more options are wrong; its ``errors`` are all of the faults.
    """
    define_regions(settings, sys._getframe(1).f_globals.get("__name__", "an application"))


def define_regions(settings: Mapping[str, Any], defined_by: str) -> list[Region]:
    """Set Beaker's cache regions, and return them.

    Args:
        settings: an application's settings.
        defined_by: the application's name, for a warning where another one defines a region differently.

    Raises:
        SettingsError: one or more options are wrong; its ``errors`` are all of the faults.
    """
    regions = read_regions(settings, defined_by)
    _install()
    for region in regions:
        _define(region)
    return regions


def _define(region: Region) -> None:
    # Beaker has one dict of regions for the process.
    standing = beaker.cache.cache_regions.get(region.name, {})
    arguments = region.arguments
    ours = isinstance(standing.get("type"), RegionType)
    before, now = (standing["type"].region.effective, region.effective) if ours else (standing, arguments)
    if standing and before != now:
        log.warning(
            "the cache region %s is defined twice in this process, and differently: by %s with %s; by %s with %s."
            " Functions that are called for the first time from now on go by the second",
            *(region.name, standing["type"].region.defined_by if ours else "other code", _difference(before, now)),
            *(region.defined_by, _difference(now, before)),
        )
    if not ours or before != now:
        beaker.cache.cache_regions[region.name] = arguments


def _difference(options: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Return the options that are not the same among the others, as a text."""
    names = sorted(name for name, value in options.items() if name not in others or others[name] != value)
    return ", ".join(f"{name} = {_masked(name, options[name])}" for name in names) or "none of them"


# -- Forgetting them, between tests ------------------------------------------------------------------


class _ForgottenCache(beaker.cache.Cache):
    """A cache of a region that was forgotten. A function that Beaker has decorated keeps its cache for good."""

    def __bool__(self) -> bool:
        # Beaker's decorator asks this, and then looks for the function's region again.
        return False


def forget_regions() -> None:
    """Forget the regions that settings have defined, their caches, their values in memory, and what was warned once.

    Cached functions find the regions that are defined next. Regions that other code has put into Beaker's own dict
    stay, and so does what is kept in files or on a server.
    """
    regions, managers = beaker.cache.cache_regions, beaker.cache.cache_managers
    for name in [name for name, region in regions.items() if isinstance(region.get("type"), RegionType)]:
        del regions[name]
    for key in [key for key, cache in managers.items() if isinstance(cache.namespace, RegionNamespace)]:
        managers.pop(key).__class__ = _ForgottenCache
    empty_memory()
    close_servers()
    _warned.clear()
