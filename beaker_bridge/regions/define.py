"""Cache regions from settings: Beaker's ``cache_regions``, checked, and with a namespace manager of ours."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import beaker.cache
from beaker.exceptions import InvalidCacheBackendError

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.logs import fields, forget
from beaker_bridge.options.masking import learn_passwords, masked
from beaker_bridge.options.table import REGION_TABLE, RegionOptions
from beaker_bridge.regions.backends import empty_memory
from beaker_bridge.regions.namespace import FailureReporter, RegionNamespace
from beaker_bridge.regions.servers import close_servers
from beaker_bridge.regions.settings import REGIONS, RegionFault, beakers_arguments, read_regions
from beaker_bridge.regions.settings import log as settings_log

log = logging.getLogger(__name__)

#: Held while Beaker's dicts of backends, regions and caches, which all applications of the process share, are changed.
_defining = threading.Lock()


# -- A region ----------------------------------------------------------------------------------------


class Region:
    """A region of Beaker's, as the settings define it.

    Args:
        options: its options.
        fault: why its store cannot be used, or None.
        defined_by: the name of the application.
    """

    #: The class of its namespaces; the debug toolbar's panel sets one that it can watch.
    namespace_class: ClassVar[type[RegionNamespace]] = RegionNamespace

    def __init__(self, options: RegionOptions, fault: RegionFault | None, defined_by: str) -> None:
        self.name = options.region
        self.options = options
        learn_passwords(beakers_arguments(options))
        self.fault = fault
        self.defined_by = defined_by
        self.reporter = FailureReporter(options)

    @property
    def effective(self) -> dict[str, Any]:
        """The options that apply, given or not."""
        fault = {} if self.fault is None else {"fault": self.fault}
        return {
            **{name: getattr(self.options, name) for name in REGION_TABLE},
            **self.options.backend_arguments,
            **fault,
        }

    @property
    def arguments(self) -> dict[str, Any]:
        """The region as Beaker keeps it in ``cache_regions``."""
        return {**beakers_arguments(self.options), "type": RegionType(self)}

    def namespace(self, name: str, **arguments: Any) -> RegionNamespace:
        """Return the namespace manager of a function, when it is first called.

        Args:
            name: the namespace, as Beaker names it.
            arguments: the region's options, as Beaker hands them over.

        Raises:
            MissingCacheParameter: as with Beaker, an option that the type needs was not given.
            SettingsError: an option is wrong, or a client is not installed.
        """
        # Beaker calls this while it handles an error of its own, which quotes the name and then all options.
        not_found = sys.exc_info()[1]
        if isinstance(not_found, KeyError) and str(*not_found.args[:1]).startswith(f"{name}{{"):
            not_found.args = (name,)
        if self.fault is not None:
            raise self.fault.error_class(f"cache region {self.name}: {self.fault.message}")
        try:
            return self.namespace_class(self.options, self.reporter, name, **arguments)
        except SettingsError as error:
            raise SettingsError(f"cache region {self.name}: {error}", name=error.name, value=error.value) from error

    def shown(self) -> dict[str, Any]:
        """Return the options that apply, with passwords masked."""
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
        # Beaker uses this text as a cache key: it must differ for each region.
        options = self.region.options
        terms = options.store_timeout, options.lock_timeout, options.store_error
        return f"{str(self)!r} of the cache region {options.region!r} {terms}"

    def __deepcopy__(self, _memo: Any) -> RegionType:
        return self


class _NamespaceClasses(dict[str, Any]):
    """Beaker's namespace managers by their names; for the ``type`` of one of our regions, ours."""

    def __getitem__(self, name: str) -> Any:
        # Beaker raises for a backend that does not exist, or that failed to load.
        backend = super().__getitem__(name)
        if isinstance(name, RegionType) and not isinstance(backend, InvalidCacheBackendError):
            return name.region.namespace
        return backend


def _install() -> None:
    """Let Beaker find our namespace manager, which it looks up by the name of the type only."""
    backends = beaker.cache.clsmap
    with _defining:
        if not isinstance(backends._clsmap, _NamespaceClasses):
            backends._clsmap = _NamespaceClasses(backends._clsmap)


# -- Defining them -----------------------------------------------------------------------------------


def set_cache_regions_from_settings(settings: Mapping[str, Any]) -> None:
    """Set Beaker's cache regions, for ``@cache_region`` and the rest of ``beaker.cache``.

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
    regions = [Region(*definition, defined_by) for definition in read_regions(settings)]
    _install()
    for region in regions:
        _define(region)
    return regions


def _define(region: Region) -> None:
    # Beaker has one dict of regions per process.
    with _defining:
        standing = beaker.cache.cache_regions.get(region.name, {})
        arguments = region.arguments
        ours = isinstance(standing.get("type"), RegionType)
        before, now = (standing["type"].region.effective, region.effective) if ours else (standing, arguments)
        if not ours or before != now:
            beaker.cache.cache_regions[region.name] = arguments
    if standing and before != now:
        log.warning(
            "the cache region %s is defined twice in this process, and differently: by %s with %s; by %s with %s."
            " Functions that are called for the first time from now on go by the second",
            *(region.name, standing["type"].region.defined_by if ours else "other code", _difference(before, now)),
            *(region.defined_by, _difference(now, before)),
            extra=fields(store=region.options.type, failure="settings"),
        )


#: Options whose text is shown; addresses are masked.
_SHOWN = frozenset(REGION_TABLE) - {"sa_opts"} | {REGIONS}


def _masked(name: str, value: Any) -> Any:
    """Return a value with its passwords masked; the text of an unknown option is hidden."""
    return masked(name, value, _SHOWN)


def _difference(options: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Return the options that the others do not have, or have with another value, as text."""
    names = sorted(name for name, value in options.items() if name not in others or others[name] != value)
    return ", ".join(f"{name} = {_masked(name, options[name])}" for name in names) or "none of them"


# -- Forgetting them between tests -------------------------------------------------------------------


class _ForgottenCache(beaker.cache.Cache):
    """The cache of a forgotten region, which a function that Beaker has decorated still refers to."""

    def __bool__(self) -> bool:
        # Beaker's decorator then looks up the region again.
        return False


def forget_regions() -> None:
    """Forget the regions that settings have defined, their caches, their values in memory, and what was warned once.

    Cached functions find the regions that are defined next. Regions that other code has put into Beaker's own dict
    stay, and so does what is kept in files or on a server.
    """
    regions, managers = beaker.cache.cache_regions, beaker.cache.cache_managers
    with _defining:
        for name in [name for name, region in regions.items() if isinstance(region.get("type"), RegionType)]:
            del regions[name]
        for key in [key for key, cache in managers.items() if isinstance(cache.namespace, RegionNamespace)]:
            managers.pop(key).__class__ = _ForgottenCache
    empty_memory()
    close_servers()
    forget(settings_log)
