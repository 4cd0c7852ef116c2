"""Which cache regions an application's settings define, and what each of them goes by.

The start stops for a wrong value of an option that Beaker checks at the start, too, or that is ours, and for an option
that is nearly a known one. All else that is wrong is warned of, and fails at the first use of the region, as with
Beaker: a region that nobody uses harms nobody. What has no effect is warned of once.
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
from beaker_bridge.regions.backends import Terms, open_servers

log = logging.getLogger(__name__)

#: The option that names the regions.
REGIONS = "regions"


class Lack(NamedTuple):
    """What keeps a region's store from being used: warned of at the start, raised at the first use."""

    message: str
    error_class: type[Exception] = SettingsError


class Definition(NamedTuple):
    """A region as the settings define it."""

    options: RegionOptions
    lack: Lack | None


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
    # As pyramid_beaker does.
    value = option.value.strip() if isinstance(option.value, str) else option.value
    return option._replace(value=value, also=option.also and _stripped(option.also))


class _Regions:
    """Reads the options of all regions, and collects what is worth a warning.

    Args:
        options: what was given, by name without prefix.
    """

    def __init__(self, options: Mapping[str, Given]) -> None:
        self.notices: list[Notice] = []
        self._errors: list[SettingsError] = []
        self._options = options
        #: What keeps which regions from being used, and the labels of the options about which that tells.
        self._lacks: dict[str, list[str]] = {}
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
        found = [Definition(options[name], self._lack(options[name], regions[name])) for name in names]
        self._warn(read, options)
        return found

    # -- Which regions -------------------------------------------------------------------------------

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
        """Return the names in a text with spaces; a region of pyramid_beaker's may have spaces in its name."""
        is_one = any(name.startswith(f"{part}.") for name in self._options)
        return [part] if is_one else part.split()

    def _parted(self, regions: list[str]) -> dict[str, dict[str, Given]]:
        """Return the options of each region by its name, and those that all share under no name."""
        parts: dict[str, dict[str, Given]] = {owner: {} for owner in ("", *regions)}
        for name, option in self._options.items():
            # The longest one: a region's name may begin with another's.
            owner = max((region for region in parts if name.startswith(f"{region}.")), key=len, default="")
            if name != REGIONS:
                parts[owner][name.removeprefix(f"{owner}.")] = option
        return parts

    def _leave_out_unlisted(self, owner: str, reading: Reading, regions: list[str]) -> None:
        """Take out the options of regions that are not listed, and warn of each of these once."""
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
        # Somebody else's backend takes options that we do not know; it may be registered later.
        is_known = reading.values.get("type", MEMORY) in REGION_TABLE.types
        arguments = {} if is_known else {name: option.value for name, option in reading.rest.items()}
        # Of a missing option the name is as it would be beside the type: for all regions, or for this one.
        label = reading.options["type"].label if "type" in reading.given else self._prefix()
        prefix = label.removesuffix("type")
        return reading.filled(RegionOptions, region=name, backend_arguments=arguments, prefix=prefix)

    # -- What keeps a store from being used ----------------------------------------------------------

    def _lack(self, options: RegionOptions, reading: Reading) -> Lack | None:
        """Return what keeps a region's store from being used; take note of it."""
        for _, error in reading.faults(type_faults(options, REGION_TABLE), options):
            # It may be registered later, and Beaker says so where it is not.
            self._note(options, f"{error}, which Beaker does not have yet")
            return None
        wrong = [error for name, error in reading.wrong.items() if REGION_TABLE.counts(name, options.type)]
        lacks = [self._noted(options, error) for error in wrong]
        for fault, error in reading.faults(store_faults(options), options):
            names = [name for name in (fault.name, *fault.others) if name != "type"]
            self._told.update(reading.options[name].label for name in names if name in reading.options)
            needed = "" if fault.name in options.given else f"{' or '.join(names)} is required: "
            lacks.append(self._noted(options, error, needed))
        if not lacks and options.type in SERVER_TYPES:
            self._open(options)
        return lacks[0] if lacks else None

    def _noted(self, options: RegionOptions, error: SettingsError, needed: str = "") -> Lack:
        self._note(options, str(error))
        return Lack(f"{needed}{error}", MissingCacheParameter if needed else SettingsError)

    def _note(self, options: RegionOptions, message: str) -> None:
        self._lacks.setdefault(message, []).append(options.region)

    def _open(self, options: RegionOptions) -> None:
        """Open a region's servers, which connects to none: what they are called may be no address."""
        try:
            open_servers(terms_of(options), beakers_arguments(options))
        except SettingsError as error:
            self._note(options, str(error))

    # -- What is worth a warning ---------------------------------------------------------------------

    def _warn(self, read: Mapping[str, Reading], options: Mapping[str, RegionOptions]) -> None:
        for message, regions in self._lacks.items():
            which = f"region{'s' * (len(regions) > 1)} {', '.join(regions)}"
            self.notices.append(Notice(f"{message}; the first use of the cache {which} raises an error"))
        for owner, reading in read.items():
            concerned = [options[owner]] if owner else [*options.values()]
            unused = reading.unused([region.type for region in concerned])
            untold = {name: option for name, option in unused.items() if option.label not in self._told}
            empty = [notice for name, notice in reading.empty() if reading.options[name].label not in self._told]
            self.notices += [*reading.twice(), *empty, *reading.useless(untold, concerned)]


def _stopping(reading: Reading) -> list[SettingsError]:
    """Return what is wrong of that which Beaker checks at the start, too, or which is ours."""
    return [error for name, error in reading.wrong.items() if REGION_TABLE[name].empty is Empty.WRONG]


def _combined(shared: Reading, own: Reading) -> Reading:
    """Return a region's own options over those that all share."""
    both = Reading(REGION_TABLE, {})
    # An empty text, which says nothing, replaces nothing.
    kept = {name: option for name, option in shared.options.items() if name in shared.given}
    both.options = {**shared.options, **own.options, **kept, **{name: own.options[name] for name in own.given}}
    both.values = {**shared.values, **own.values}
    both.wrong = {**{name: shared.wrong[name] for name in shared.wrong if name not in own.values}, **own.wrong}
    both.rest = {**shared.rest, **own.rest}
    engines = [reading.values["sa_opts"] for reading in (shared, own) if "sa_opts" in reading.values]
    if engines:
        both.values["sa_opts"] = {name: value for engine in engines for name, value in engine.items()}
    is_memcached = both.values.get("type") == MEMCACHED
    # Another option of the region's own says it; and the login of all is for those that have one.
    for name, is_left_out in (
        ("url", f"{ENGINE}url" in own.given),
        ("username", is_memcached),
        ("password", is_memcached),
    ):
        if is_left_out and name not in own.values:
            both.values.pop(name, None)
    return both


#: What Beaker always finds in a region, as pyramid_beaker has it.
_ALWAYS = frozenset({"type", "data_dir", "lock_dir", "expire", "enabled", "key_length", "url"})
#: What is ours alone.
_OURS = frozenset({"store_timeout", "store_error", "lock_timeout"})


def beakers_arguments(options: RegionOptions) -> dict[str, Any]:
    """Return a region's options as Beaker has them in ``cache_regions``."""
    names = [name for name in REGION_TABLE if name in _ALWAYS | options.given - _OURS]
    return {**{name: getattr(options, name) for name in names}, **options.backend_arguments}


def terms_of(options: RegionOptions) -> Terms:
    """Return what a region's namespace manager goes by."""
    labels = {name: options.label(name) for name in REGION_TABLE} | dict(options.labels)
    waits = options.store_timeout, options.lock_timeout
    return Terms(options.region, options.type, *waits, options.store_error, labels)
