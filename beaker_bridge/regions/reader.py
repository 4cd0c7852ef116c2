"""What an application's settings say of cache regions: read, converted and checked.

The start stops for a wrong value of an option that Beaker checks at the start, too, or that is ours, and for an option
that is nearly a known one. All else that is wrong is warned of, and fails at the first use of the region, as with
Beaker; what has no effect is warned of once.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import beaker.cache
from beaker.exceptions import InvalidCacheBackendError, MissingCacheParameter

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.once import forget, log_once
from beaker_bridge.options.rules import MEMCACHED, MEMORY, NEEDED, NO_SASL, backend_exists, type_of_address
from beaker_bridge.options.types import is_empty
from beaker_bridge.regions.backends import SERVER_KINDS, open_servers
from beaker_bridge.regions.options import (
    CHECKED_AT_START,
    KNOWN_TYPES,
    NAMES,
    TABLE,
    RegionOptions,
    counts,
    masked,
)

log = logging.getLogger(__name__)

#: The prefixes of an application's settings. An unknown option stops the start under the second one;
#: under the first it is warned about once, since others may use that word too.
PREFIXES = ("cache.", "beaker.cache.")
#: The option that names the regions.
REGIONS = "regions"
#: The prefix of SQLAlchemy's own options.
ENGINE = "sa."
#: What other caches call our options.
ELSEWHERE = {
    **dict.fromkeys(("expiration_time", "expiry", "ttl", "max_age", "lifetime", "default_timeout"), "expire"),
    **dict.fromkeys(("backend", "cache_type", "engine", "driver", "store", "storage"), "type"),
    **dict.fromkeys(("dir", "directory", "cache_dir", "path"), "data_dir"),
    **dict.fromkeys(("location", "host", "server", "servers", "uri", "redis_url"), "url"),
}


class Lack(NamedTuple):
    """What keeps a region's store from being used: warned of at the start, raised at the first use."""

    message: str
    error_class: type[Exception] = SettingsError


class Definition(NamedTuple):
    """A region as the settings define it."""

    name: str
    options: RegionOptions
    lack: Lack | None


class _Given(NamedTuple):
    """One option as somebody gave it: under which name, with which value, and how strictly held."""

    label: str
    value: Any
    strict: bool

    def __repr__(self) -> str:
        # The value may be a secret.
        return f"_Given({self.label!r}, …)"


class _Read(NamedTuple):
    """The options of a region, or those that all regions share.

    The table's, those of them that are wrong, SQLAlchemy's, and unknown ones.
    """

    values: dict[str, Any]
    wrong: dict[str, SettingsError]
    engine: dict[str, Any]
    rest: dict[str, _Given]


def read_regions(settings: Mapping[str, Any]) -> list[Definition]:
    """Read and check the regions that settings define.

    Args:
        settings: an application's settings; those under ``cache.`` and ``beaker.cache.`` count.

    Raises:
        SettingsError: one or more options are wrong; its ``errors`` are all of the faults.
    """
    reader = _Reader(settings)
    regions = reader.regions()
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
        #: The options that were given as an empty text, which says nothing; and those of them that were told.
        self._empty: list[str] = []
        self._told: set[str] = set()
        #: What keeps which regions from being used.
        self._lacks: dict[str, list[str]] = {}
        for label, value in settings.items():
            for prefix in PREFIXES:
                if isinstance(label, str) and label.startswith(prefix):
                    self._add(label.removeprefix(prefix).strip(), label, value, strict=prefix != PREFIXES[0])

    def _add(self, name: str, label: str, value: Any, *, strict: bool) -> None:
        value = value.strip() if isinstance(value, str) else value
        other = self._options.get(name)
        if other is not None and other.value != value:
            warn_once(f"{other.label} and {label} differ: {label} counts, which comes later; remove one of them")
        self._options[name] = _Given(label, value, strict or (other is not None and other.strict))

    def regions(self) -> list[Definition]:
        """Return the regions; where something is wrong with one, it is among the errors."""
        names = self._names()
        given = self._parted(names)
        read = {owner: self._read(owner, options) for owner, options in given.items()}
        self._leave_out_unlisted("", read[""].rest, names)
        options = {
            name: _combined(read[""], read[name], self._labels(name, {**given[""], **given[name]})) for name in names
        }
        known = [name for name in names if options[name].type in KNOWN_TYPES]
        for owner in ["", *known] if known == names else known:
            self._leave_out_unlisted(owner, read[owner].rest, names)
            self._check_unknown(owner, read[owner].rest)
        # What was wrong would be missing, too.
        lacks = {name: None if self.errors else self._lack(name, options[name], read) for name in names}
        self._warn_of_lacks()
        self._warn_of_empty()
        for owner, own in read.items():
            self._check_use(owner, own, [options[owner]] if owner else [*options.values()])
        return [Definition(name, options[name], lacks[name]) for name in names]

    # -- Which regions -------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        option = self._options.get(REGIONS)
        if option is None or option.value is None:
            return []
        try:
            parts = NAMES.convert(option.value)
        except (ValueError, TypeError):
            self.errors.append(_fault(option.label, REGIONS, NAMES.rule, option.value))
            return []
        names = [name for part in parts for name in self._spaced(part)]
        for name, count in Counter(names).items():
            if count > 1:
                warn_once(f"{option.label} names the region {name} {count} times; once is enough")
        return list(dict.fromkeys(names))

    def _spaced(self, part: str) -> list[str]:
        """Return the names in a text with spaces; a region of pyramid_beaker's may have spaces in its name."""
        is_one = any(name.startswith(f"{part}.") for name in self._options)
        return [part] if is_one else part.split()

    def _parted(self, regions: Iterable[str]) -> dict[str, dict[str, _Given]]:
        """Return the options of each region by its name, and those that all share under no name."""
        parts: dict[str, dict[str, _Given]] = {owner: {} for owner in ("", *regions)}
        for name, option in self._options.items():
            # The longest one: a region's name may begin with another's.
            owner = max((region for region in parts if name.startswith(f"{region}.")), key=len, default="")
            if name != REGIONS:
                parts[owner][name.removeprefix(f"{owner}.")] = option
        return parts

    def _leave_out_unlisted(self, owner: str, options: dict[str, _Given], regions: list[str]) -> None:
        """Take out the options of regions that are not listed, and warn of each of these once."""
        found: dict[str, list[str]] = {}
        for name in [name for name in options if "." in name]:
            region = name.partition(f".{ENGINE}")[0] if f".{ENGINE}" in name else name.rpartition(".")[0]
            found.setdefault(_full(owner, region), []).append(options.pop(name).label)
        for region, labels in found.items():
            meant = "".join(f" (did you mean {near}?)" for near in _nearest(region, regions))
            warn_once(
                f"{', '.join(labels)}: ignored, since {self._label(REGIONS)} does not list a region {region}{meant};"
                " list it there, or remove what is said of it"
            )

    # -- Which options -------------------------------------------------------------------------------

    def _read(self, owner: str, options: Mapping[str, _Given]) -> _Read:
        read = _Read({}, {}, {}, {})
        for name, option in options.items():
            known = name in TABLE or name.startswith(ENGINE)
            if known and is_empty(option.value) and name not in CHECKED_AT_START:
                self._empty.append(_full(owner, name))
            elif name.startswith(ENGINE):
                read.engine[name] = option.value
            elif name not in TABLE:
                read.rest[name] = option
            # Nothing, as Python's and Beaker's defaults have it, says nothing.
            elif option.value is not None:
                self._read_value(read, _full(owner, name), name, option)
        return read

    def _read_value(self, read: _Read, full: str, name: str, option: _Given) -> None:
        kind = TABLE[name].metadata["kind"]
        try:
            read.values[name] = kind.convert(option.value)
        except (ValueError, TypeError, OverflowError):
            read.wrong[name] = _fault(option.label, full, kind.rule, option.value)
            if name in CHECKED_AT_START:
                self.errors.append(read.wrong[name])

    def _check_unknown(self, owner: str, options: Mapping[str, _Given]) -> None:
        """Refuse options that are nearly known, or that stand where only ours do; warn of other unknown ones."""
        for name, option in options.items():
            near = _nearest(name, TABLE if owner else [*TABLE, REGIONS], cutoff=0.8)
            meant = near or [ours for theirs, ours in ELSEWHERE.items() if theirs == name]
            hint = "".join(f"; did you mean {option.label.removesuffix(name)}{ours}?" for ours in meant)
            message = f"{option.label} is no option that beaker_bridge knows"
            if near or option.strict:
                value = masked(name, option.value)
                self.errors.append(SettingsError(message + hint, name=_full(owner, name), value=value))
            else:
                warn_once(f"{message}; it is ignored{hint}")

    # -- What keeps a store from being used ----------------------------------------------------------

    def _lack(self, region: str, options: RegionOptions, read: Mapping[str, _Read]) -> Lack | None:
        """Return what keeps a region's store from being used; take note of it."""
        if not _exists(options.type):
            # It may be registered later, and Beaker says so where it is not.
            self._note_lack(region, self._no_backend(region, options.type))
            return None
        own, shared = read[region], read[""]
        wrong = {name: error for name, error in shared.wrong.items() if name not in own.values} | own.wrong
        lacks = [Lack(str(error)) for name, error in wrong.items() if counts(name, options.type)]
        logins = [name for name in ("username", "password") if options.type == MEMCACHED and own.values.pop(name, None)]
        if logins:
            labels = " and ".join(self._label(_full(region, name)) for name in logins)
            type_label = self._label(self._given_name(region, "type"))
            lacks.append(Lack(f"{labels} must be absent where {type_label} = {options.type}{NO_SASL}"))
        for lack in lacks:
            self._note_lack(region, lack.message)
        lacks = lacks or [*self._missing(region, options)]
        if not lacks and options.type in SERVER_KINDS:
            self._open(region, options)
        return lacks[0] if lacks else None

    def _note_lack(self, region: str, message: str) -> None:
        self._lacks.setdefault(message, []).append(region)

    def _no_backend(self, region: str, kind: str) -> str:
        meant = "".join(f" (did you mean {near}?)" for near in _nearest(kind, [*beaker.cache.clsmap._clsmap]))
        return (
            f"{self._label(self._given_name(region, 'type'))} must be one of {', '.join(sorted(KNOWN_TYPES))}"
            f" or another backend of Beaker's{meant}, got {masked('type', kind)!r}, which Beaker does not have yet"
        )

    def _missing(self, region: str, options: RegionOptions) -> Iterator[Lack]:
        """Yield the addresses and directories that a region's type needs, and that were not given."""
        given = set(options.given) | {name for name in ("sa.url",) if name in (options.sa_opts or {})}
        # They would stand where the type does: for all regions, or for this one.
        type_name = self._given_name(region, "type")
        for names in NEEDED.get(options.type, ()):
            if given.isdisjoint(names):
                given |= set(names)
                first, *others = [self._label(type_name.removesuffix("type") + name) for name in names]
                instead = "".join(f", or {label}" for label in others)
                rule = f"{first} must be given where {self._label(type_name)} = {options.type}{instead}"
                got = "an empty text" if self._was_empty(region, names) else "nothing"
                self._note_lack(region, f"{rule}, got {got}")
                yield Lack(f"{' or '.join(names)} is required: {rule}, got {got}", MissingCacheParameter)

    def _was_empty(self, region: str, names: Iterable[str]) -> bool:
        """Say whether one of the options is an empty text, which then needs no warning of its own."""
        empty = {full for name in names for full in (name, f"{region}.{name}") if full in self._empty}
        self._told.update(empty)
        return bool(empty)

    def _open(self, region: str, options: RegionOptions) -> None:
        """Open a region's servers, which connects to none: what they are called may be no address."""
        try:
            open_servers(options.terms(region), options.arguments)
        except SettingsError as error:
            self._note_lack(region, str(error))

    def _warn_of_lacks(self) -> None:
        for message, regions in self._lacks.items():
            which = f"region{'s' * (len(regions) > 1)} {', '.join(regions)}"
            warn_once(f"{message}; the first use of the cache {which} raises an error")

    # -- What is of no use ---------------------------------------------------------------------------

    def _warn_of_empty(self) -> None:
        for name in [name for name in self._empty if name not in self._told]:
            warn_once(f"{self._label(name)} is an empty text; it is ignored: remove it")

    def _check_use(self, owner: str, read: _Read, regions: list[RegionOptions]) -> None:
        """Warn of options that no region's type uses; where an address has no type, values go to memory."""
        types = sorted({region.type for region in regions})
        unused = {}
        for name in (*read.values, *read.wrong, *read.engine):
            row = "sa_opts" if name in read.engine else name
            if types and not any(counts(row, kind) for kind in types):
                unused[name] = row
        if any("type" not in region.given for region in regions):
            for name in list(unused):
                if self._tell_of_memory(owner, name):
                    del unused[name]
        if unused:
            told = ", ".join(f"{self._label(_full(owner, name))} ({_use(row)})" for name, row in unused.items())
            where = f"{self._label(self._given_name(owner, 'type'))} = {types[0]}"
            where = where if len(types) == 1 else f"the types are {', '.join(types)}"
            which = ("it", "it is") if len(unused) == 1 else ("them", "they are")
            useful = any(TABLE[row].metadata["types"] for row in unused.values())
            remedy = f", or set the type that {which[1]} for" if useful else ""
            warn_once(f"{told}: not used where {where}; remove {which[0]}{remedy}")

    def _tell_of_memory(self, owner: str, name: str) -> bool:
        """Log an error where an option is an address; say whether it is."""
        address = self._options[_full(owner, name)]
        kind = type_of_address(name, address.value)
        if kind:
            type_label = self._label(_full(owner, "type"))
            where = "values are kept in memory, and lost when the process ends"
            log_once(log, logging.ERROR, f"{address.label} without {type_label}: {where}; set {type_label} = {kind}")
        return kind is not None

    # -- Names ---------------------------------------------------------------------------------------

    def _given_name(self, region: str, name: str) -> str:
        """Return the name under which an option was given: the region's own, or the one for all."""
        return next((full for full in (_full(region, name), name) if full in self._options), name)

    def _labels(self, region: str, given: Mapping[str, _Given]) -> dict[str, str]:
        """Return how a region's options are named in the settings, or would be, beside the type."""
        beside = self._label(self._given_name(region, "type")).removesuffix("type")
        return {name: beside + name for name in TABLE} | {name: option.label for name, option in given.items()}

    def _label(self, name: str) -> str:
        """Return an option's name with its prefix, as the settings have it, or would have it."""
        if name in self._options:
            return self._options[name].label
        near = self._options.get(REGIONS) or next(iter(self._options.values()))
        return next(prefix for prefix in PREFIXES if near.label.startswith(prefix)) + name


def _full(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def _fault(label: str, name: str, rule: str, value: object) -> SettingsError:
    shown = masked(name.rpartition(".")[2], value)
    told = "an empty text" if is_empty(value) else repr(shown)
    return SettingsError(f"{label} must be {rule}, got {told}", name=name, value=shown)


def _combined(shared: _Read, own: _Read, labels: Mapping[str, str]) -> RegionOptions:
    """Return a region's options: its own over the shared ones, and these over the defaults."""
    values = {**shared.values, **own.values}
    if f"{ENGINE}url" in own.engine and "url" not in own.values:
        # Both name the database: the region's own word counts.
        values.pop("url", None)
    engine = {**shared.values.get("sa_opts", {}), **shared.engine, **own.values.get("sa_opts", {}), **own.engine}
    if engine:
        values["sa_opts"] = engine
    rest = {name: option.value for name, option in {**shared.rest, **own.rest}.items()}
    # Somebody else's backend takes options that we do not know; it may be registered later.
    others = values.get("type", MEMORY) not in KNOWN_TYPES
    arguments = rest if others else {}
    return RegionOptions(**values, backend_arguments=arguments, given=frozenset(values), labels=labels)


def _use(row: str) -> str:
    """Return the types for which an option counts, or what is said of one that counts for none."""
    types = TABLE[row].metadata["types"]
    return f"for {', '.join(sorted(types))}" if types else str(TABLE[row].metadata["help"])


def _exists(kind: str) -> bool:
    """Say whether Beaker has a backend of that name, and has not kept an error in its place."""
    return backend_exists(kind) and not isinstance(beaker.cache.clsmap[kind], InvalidCacheBackendError)


def _nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the name that is meant, if one is near."""
    return difflib.get_close_matches(name.lower(), [*known], n=1, cutoff=cutoff)


def warn_once(message: str) -> None:
    """Log a message as a warning, unless it was logged before."""
    log_once(log, logging.WARNING, message)


def forget_warnings() -> None:
    """Forget what was logged once."""
    forget(log)
