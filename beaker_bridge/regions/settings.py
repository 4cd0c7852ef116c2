"""Read the cache regions that an application's settings define, and the options of each.

The start fails for a wrong value of an option that is ours, or that Beaker checks at the start too, and for a near
miss of a known option. Any other fault is a warning, and an error at the first use of the region, as with Beaker: an
unused region does no harm. Options without effect are a warning.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from beaker.exceptions import MissingCacheParameter

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.reader import Given, Notice, Reading, log_notices, prefixed
from beaker_bridge.options.rows import ENGINE, Empty, wrong_value
from beaker_bridge.options.rules import store_faults, type_faults
from beaker_bridge.options.table import REGION_TABLE, RegionOptions
from beaker_bridge.options.types import MEMCACHED, MEMORY, REGION_NAMES, SERVER_TYPES
from beaker_bridge.regions.servers import open_servers

log = logging.getLogger(__name__)

#: The option that names the regions.
REGIONS = "regions"


class RegionFault(NamedTuple):
    """Why a region's store cannot be used: a warning at the start, an error at the first use."""

    message: str
    error_class: type[Exception] = SettingsError


class Definition(NamedTuple):
    """A region as the settings define it."""

    options: RegionOptions
    fault: RegionFault | None


def read_regions(settings: Mapping[str, Any]) -> list[Definition]:
    """Read and check the regions that settings define.

    Args:
        settings: an application's settings; those under ``cache.`` and ``beaker.cache.`` count.

    Raises:
        SettingsError: one or more options are wrong; its ``errors`` are all of the faults.
    """
    options = {name.strip(): _stripped(option) for name, option in prefixed(settings, REGION_TABLE).items()}
    regions = _Regions(options)
    definitions = regions.definitions()
    log_notices(log, regions.notices, options)
    return definitions


def _stripped(option: Given) -> Given:
    # pyramid_beaker strips them.
    value = option.value.strip() if isinstance(option.value, str) else option.value
    return option._replace(value=value, also=option.also and _stripped(option.also))


class _Regions:
    """Reads the options of all regions, and collects errors and notices.

    Args:
        options: the options as given, by name without prefix.
    """

    def __init__(self, options: Mapping[str, Given]) -> None:
        self.notices: list[Notice] = []
        self._errors: list[SettingsError] = []
        self._options = options
        #: The regions by the fault that they have, and the labels of the options that these faults name.
        self._faults: dict[str, list[str]] = {}
        self._told: set[str] = set()

    def definitions(self) -> list[Definition]:
        """Return the regions.

        Raises:
            SettingsError: one or more options are wrong.
        """
        names = self._names()
        read = {owner: Reading(REGION_TABLE, options) for owner, options in self._parted(names).items()}
        self._errors += [error for reading in read.values() for error in _stopping(reading)]
        self._leave_out_unlisted("", read[""], names)
        regions = {name: _combined(read[""], read[name]) for name in names}
        options = {name: self._filled(name, reading) for name, reading in regions.items()}
        known = [name for name in names if options[name].type in REGION_TABLE.types]
        for owner in ["", *known] if known == names else known:
            self._leave_out_unlisted(owner, read[owner], names)
            self._check_unknown(owner, read[owner])
        if self._errors:
            raise SettingsError.of(self._errors)
        found = [Definition(options[name], self._fault(options[name], regions[name])) for name in names]
        self._warn(read, options)
        return found

    # -- Regions -------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        option = self._options.get(REGIONS)
        if option is None or option.value is None:
            return []
        self.notices += Reading(REGION_TABLE, {REGIONS: option}).twice()
        try:
            parts = REGION_NAMES.convert(option.value)
        except (ValueError, TypeError):
            self._errors.append(wrong_value(option.label, REGIONS, REGION_NAMES.rule, option.value))
            return []
        names = Counter(name for part in parts for name in self._spaced(part))
        self.notices += [
            Notice(f"{option.label} names the region {name} {count} times; once is enough")
            for name, count in names.items()
            if count > 1
        ]
        return [*names]

    def _spaced(self, part: str) -> list[str]:
        """Split a text at spaces, unless it is one name: pyramid_beaker allows spaces in a region's name."""
        is_one = any(name.startswith(f"{part}.") for name in self._options)
        return [part] if is_one else part.split()

    def _parted(self, regions: list[str]) -> dict[str, dict[str, Given]]:
        """Return the options of each region, by its name, and those of all regions under an empty name."""
        parts: dict[str, dict[str, Given]] = {owner: {} for owner in ("", *regions)}
        for name, option in self._options.items():
            # The longest match: a region's name may begin with another's.
            owner = max((region for region in parts if name.startswith(f"{region}.")), key=len, default="")
            if name != REGIONS:
                parts[owner][name.removeprefix(f"{owner}.")] = option
        return parts

    def _leave_out_unlisted(self, owner: str, reading: Reading, regions: list[str]) -> None:
        """Remove the options of regions that are not listed, with a notice for each region."""
        found: dict[str, list[str]] = {}
        for name in [name for name in reading.rest if "." in name]:
            region = name.partition(f".{ENGINE}")[0] if f".{ENGINE}" in name else name.rpartition(".")[0]
            full = f"{owner}.{region}" if owner else region
            found.setdefault(full, []).append(reading.rest.pop(name).label)
        for region, labels in found.items():
            meant = "".join(f" (did you mean {near}?)" for near in get_close_matches(region.lower(), regions, n=1))
            self.notices.append(
                Notice(
                    f"{', '.join(labels)}: ignored, since {self._prefix()}{REGIONS} does not list a region"
                    f" {region}{meant}; list it there, or remove what is said of it"
                )
            )

    def _prefix(self) -> str:
        near = self._options.get(REGIONS) or next(iter(self._options.values()))
        return REGION_TABLE.parted(near.label)[1]

    def _check_unknown(self, owner: str, reading: Reading) -> None:
        errors, notices = reading.unknown(*([] if owner else [REGIONS]))
        self._errors += errors
        self.notices += notices

    def _filled(self, name: str, reading: Reading) -> RegionOptions:
        # A third party's backend, which may be registered later, gets its own options.
        is_known = reading.values.get("type", MEMORY) in REGION_TABLE.types
        arguments = {} if is_known else {name: option.value for name, option in reading.rest.items()}
        # A missing option is named as if it were given beside the type: for all regions, or for this one.
        label = reading.options["type"].label if "type" in reading.given else self._prefix()
        prefix = label.removesuffix("type")
        return reading.filled(RegionOptions, region=name, backend_arguments=arguments, prefix=prefix)

    # -- Faults of a region ----------------------------------------------------------------------------

    def _fault(self, options: RegionOptions, reading: Reading) -> RegionFault | None:
        """Return the first fault of a region, and note all of them."""
        for _, error in reading.faults(type_faults(options, REGION_TABLE), options):
            # It may be registered later; if not, Beaker raises at the first use.
            self._note(options, f"{error}, which Beaker does not have yet")
            return None
        wrong = [error for name, error in reading.wrong.items() if REGION_TABLE.counts(name, options.type)]
        faults = [self._noted(options, error) for error in wrong]
        for fault, error in reading.faults(store_faults(options), options):
            names = [name for name in (fault.name, *fault.others) if name != "type"]
            self._told.update(reading.options[name].label for name in names if name in reading.options)
            needed = "" if fault.name in options.given else f"{' or '.join(names)} is required: "
            faults.append(self._noted(options, error, needed))
        if not faults and options.type in SERVER_TYPES:
            self._open(options)
        return faults[0] if faults else None

    def _noted(self, options: RegionOptions, error: SettingsError, needed: str = "") -> RegionFault:
        self._note(options, str(error))
        return RegionFault(f"{needed}{error}", MissingCacheParameter if needed else SettingsError)

    def _note(self, options: RegionOptions, message: str) -> None:
        self._faults.setdefault(message, []).append(options.region)

    def _open(self, options: RegionOptions) -> None:
        """Check the addresses of a region's servers by opening them, which does not connect."""
        try:
            open_servers(options, beakers_arguments(options))
        except SettingsError as error:
            self._note(options, str(error))

    # -- Notices -------------------------------------------------------------------------------------

    def _warn(self, read: Mapping[str, Reading], options: Mapping[str, RegionOptions]) -> None:
        for message, regions in self._faults.items():
            which = f"region{'s' * (len(regions) > 1)} {', '.join(regions)}"
            self.notices.append(Notice(f"{message}; the first use of the cache {which} raises an error"))
        for owner, reading in read.items():
            concerned = [options[owner]] if owner else [*options.values()]
            unused = reading.unused([region.type for region in concerned])
            untold = {name: option for name, option in unused.items() if option.label not in self._told}
            empty = [notice for name, notice in reading.empty() if reading.options[name].label not in self._told]
            self.notices += [*reading.twice(), *empty, *reading.useless(untold, concerned)]


def _stopping(reading: Reading) -> list[SettingsError]:
    """Return the errors of options that are ours, or that Beaker checks at the start too."""
    return [error for name, error in reading.wrong.items() if REGION_TABLE[name].empty is Empty.WRONG]


def _combined(shared: Reading, own: Reading) -> Reading:
    """Return a region's own options over those of all regions."""
    both = Reading(REGION_TABLE, {})
    # An empty string, which is ignored, must not replace a value.
    kept = {name: option for name, option in shared.options.items() if name in shared.given}
    both.options = {**shared.options, **own.options, **kept, **{name: own.options[name] for name in own.given}}
    both.values = {**shared.values, **own.values}
    both.wrong = {**{name: shared.wrong[name] for name in shared.wrong if name not in own.values}, **own.wrong}
    both.rest = {**shared.rest, **own.rest}
    engines = [reading.values["sa_opts"] for reading in (shared, own) if "sa_opts" in reading.values]
    if engines:
        both.values["sa_opts"] = {name: value for engine in engines for name, value in engine.items()}
    is_memcached = both.values.get("type") == MEMCACHED
    # The region's own sa.url replaces the url of all regions; their login does not apply to memcached.
    for name, is_left_out in (
        ("url", f"{ENGINE}url" in own.given),
        ("username", is_memcached),
        ("password", is_memcached),
    ):
        if is_left_out and name not in own.values:
            both.values.pop(name, None)
    return both


#: Options that pyramid_beaker always sets.
_ALWAYS = frozenset({"type", "data_dir", "lock_dir", "expire", "enabled", "key_length", "url"})
#: Options that Beaker does not have.
_OURS = frozenset({"store_timeout", "store_error", "lock_timeout"})


def beakers_arguments(options: RegionOptions) -> dict[str, Any]:
    """Return a region's options as Beaker keeps them in ``cache_regions``."""
    names = [name for name in REGION_TABLE if name in _ALWAYS | options.given - _OURS]
    return {**{name: getattr(options, name) for name in names}, **options.backend_arguments}
