"""Find a site's sessions and cache regions in its ``.ini``, as ``pserve`` would have them, without starting it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from functools import cached_property
from typing import Any, NamedTuple

import beaker.middleware
import plaster
import plaster_pastedeploy
from plaster.exceptions import PlasterError

from beaker_bridge.exceptions import SettingsError, SiteError
from beaker_bridge.options.reader import Given, filter_defaults, filter_options, given, prefixed, read_options
from beaker_bridge.options.table import SESSION_TABLE, SessionOptions
from beaker_bridge.pyramid.source import OPEN_OPTIONS, REMEDY
from beaker_bridge.regions.settings import Definition, read_regions
from beaker_bridge.request.exchange import ENVIRON_KEY
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.site.contexts import Origin, Written, read_chain

__all__ = ["Filter", "Layer", "Origin", "Site", "SiteError", "Source", "find_site"]

#: The packages that have a session filter, by the module of the functions that make it.
_PACKAGES = {"beaker_bridge.middleware": "beaker_bridge", "beaker.middleware": "Beaker"}
_MAKERS = {"session_filter_factory", "session_filter_app_factory"}


class Source(NamedTuple):
    """A session's options as one part of the file gives them: by name, without prefix."""

    given: Mapping[str, Given]
    #: Where each is written, if that is known.
    origins: Mapping[str, Origin]


class Filter(NamedTuple):
    """A session filter of the pipeline."""

    #: ``beaker_bridge`` or ``Beaker``.
    package: str
    source: Source


class Layer(NamedTuple):
    """A filter of the pipeline, of whatever kind."""

    #: The function that makes it, such as ``paste.deploy.config:make_prefix_middleware``.
    made_by: str
    section: str
    options: Mapping[str, str]


class Site:
    """An application's sessions and cache regions, as one file has them.

    Args:
        uri: the file, as ``pserve`` takes it.
        file: the path of the file.
        loader: plaster's loader.
        variables: the variables behind the file's name.
    """

    def __init__(self, uri: str, file: str, loader: Any, variables: Mapping[str, str]) -> None:
        self.uri = uri
        self.file = file
        self.loader = loader
        self.variables = variables
        #: The application's settings.
        self.settings: dict[str, Any] = {}
        #: The filter whose session a request has; None if there is none.
        self.filter: Filter | None = None
        #: All filters of the pipeline, the outermost first.
        self.layers: list[Layer] = []
        #: The session's options among the settings.
        self.own = Source({}, {})
        #: Sentences about how the file was read.
        self.notes: list[str] = []

    @property
    def source(self) -> Source:
        """The session's options that are in effect: the filter's, if there is one, else the settings'."""
        if self.filter is None:
            return self.own
        theirs = self.filter.source
        names = (OPEN_OPTIONS & self.own.given.keys()) - theirs.given.keys()
        return Source(
            {**theirs.given, **{name: self.own.given[name] for name in names}},
            {**theirs.origins, **{name: self.own.origins[name] for name in names & self.own.origins.keys()}},
        )

    def adopt(self, options: SessionOptions | None) -> None:
        """Take over the options of a session factory that the application has made, where the file has none.

        Args:
            options: its options; None if it has none.
        """
        if options is not None and self.filter is None and not self.own.given:
            self.options = options

    @cached_property
    def options(self) -> SessionOptions:
        """The session's options that are in effect, checked.

        Raises:
            SettingsError: one or more are wrong, or there are none.
        """
        if not self.source.given and self.filter is None:
            where = f"{os.path.relpath(self.file)}: no session is configured there, by a filter or by the settings"
            raise SettingsError(f"{where}: {REMEDY}")
        return read_options(self.source.given)

    @cached_property
    def config(self) -> SessionConfig:
        """The configuration of the site's sessions, with its store; that connects when it is used.

        Raises:
            SettingsError: the options are wrong.
        """
        return SessionConfig(self.options)

    @cached_property
    def own_options(self) -> SessionOptions | None:
        """The session's options among the settings, checked; None if there are none.

        Raises:
            SettingsError: one or more are wrong.
        """
        return read_options(self.own.given) if self.own.given else None

    @cached_property
    def regions(self) -> list[Definition]:
        """The cache regions that the settings define.

        Raises:
            SettingsError: one or more options are wrong.
        """
        return read_regions(self.settings)

    def origin(self, name: str) -> str:
        """Return where an option that is in effect is written, as text; empty if it is nowhere.

        Args:
            name: the option, without prefix.
        """
        origins = self.source.origins
        return origins[name].beside(self.file) if name in origins else ""

    def section_names(self) -> list[str]:
        """Return the names of the file's sections."""
        return list(self.loader.get_sections())

    def section(self, name: str) -> dict[str, Any]:
        """Return one of the file's sections, such as ``server:main``.

        Args:
            name: its name.
        """
        try:
            return dict(self.loader.get_settings(name, self.variables))
        except ConfigError:
            # uWSGI's, for one, has other uses for a %.
            parser = RawConfigParser()
            parser.optionxform = str  # type: ignore[assignment]  # as its documentation has it
            parser.read(self.file)
            return dict(parser.items(name))

    def start(self) -> Any:
        """Start the application, and return it: a WSGI application."""
        return self.loader.get_wsgi_app(None, self.variables)


def find_site(uri: str, variables: Mapping[str, str] | None = None) -> Site:
    """Find the sessions of a site.

    Args:
        uri: the file, as ``pserve`` takes it: ``development.ini``, ``production.ini#name``.
        variables: the variables that ``pserve`` takes behind it.

    Raises:
        SiteError: the file cannot be read, or has no such application, or has several and none is named.
    """
    known = {"__script__": "beaker-bridge", **(variables or {})}
    try:
        loader = plaster.get_loader(uri, protocols=["wsgi"])
    except PlasterError as error:
        raise SiteError(f"{uri}: {error}") from None
    site = Site(uri, os.path.abspath(loader.uri.path), loader, known)
    if isinstance(loader, plaster_pastedeploy.Loader) and loader.filepath is not None:
        _read_pipeline(site, loader)
    else:
        try:
            site.settings = dict(loader.get_wsgi_app_settings(None, known))
        except Exception as error:  # noqa: BLE001 -- the loader may be anybody's
            raise SiteError(f"{uri}: {type(error).__name__}: {error}") from None
        name = f"{type(loader).__module__}.{type(loader).__name__}"
        site.notes.append(f"{name}, which reads {uri}, gives the application's settings only: a filter is not seen")
    site.own = _source(prefixed(site.settings), site.settings)
    site.settings = {name: _plain(value) for name, value in site.settings.items()}
    return site


def _read_pipeline(site: Site, loader: Any) -> None:
    """Read the application's settings, and find the innermost session filter: it makes a request's session."""
    chain = read_chain(site.file, loader.uri.fragment or None, loader._get_defaults(site.variables), site.notes)
    site.settings = dict(chain.application.local_conf)
    site.layers = [_layer(context) for context in chain.filters]
    found = [each for each in map(_filter, chain.filters) if each]
    if found:
        site.filter = found[-1]
    if len(found) > 1:
        site.notes.append(f"there are {len(found)} session filters; a request has the session of the innermost one")


def _layer(context: Any) -> Layer:
    section = next((value.origin.section for value in context.local_conf.values() if isinstance(value, Written)), "")
    return Layer(_maker(context), section, {name: _plain(value) for name, value in context.local_conf.items()})


def _maker(context: Any) -> str:
    return f"{getattr(context.object, '__module__', '')}:{getattr(context.object, '__name__', '')}"


def _filter(context: Any) -> Filter | None:
    """Return a session filter of ours or of Beaker's; None for any other filter."""
    module, _, name = _maker(context).partition(":")
    package = _PACKAGES.get(module) if name in _MAKERS else None
    options = {name: _plain(value) for name, value in context.local_conf.items()}
    if package is None or options.pop("environ_key", ENVIRON_KEY) != ENVIRON_KEY:
        return None
    defaults = filter_defaults(context.global_conf)
    plain = {name: _plain(value) for name, value in defaults.items()}
    made = _beakers if package == "Beaker" else filter_options
    return Filter(package, _source(made(plain, options), defaults, context.local_conf))


def _beakers(global_conf: dict[str, Any], options: dict[str, Any]) -> dict[str, Given]:
    """Return the options of Beaker's own filter, as a request hands them to our tween."""
    try:
        return given(beaker.middleware.SessionMiddleware(None, global_conf, **options).options)
    except Exception as error:  # noqa: BLE001 -- Beaker raises Exception itself for a wrong value
        raise SettingsError(f"Beaker's own filter refuses its options: {error}") from None


def _source(options: Mapping[str, Given], *parts: Mapping[str, Any]) -> Source:
    """Return the options with the places where they are written."""
    origins: dict[str, Origin] = {}
    for part in parts:
        for label, value in part.items():
            name = SESSION_TABLE.parted(label)[0]
            if isinstance(value, Written) and name in options:
                origins[name] = value.origin
    return Source(
        {name: option._replace(value=_plain(option.value)) for name, option in options.items()},
        origins,
    )


def _plain(value: Any) -> Any:
    """Return a text without its origin: a store's client may look at its class."""
    return str(value) if isinstance(value, Written) else value
