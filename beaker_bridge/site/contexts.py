"""PasteDeploy's contexts of a site: its filters and its application, each value with the place where it is written.

Nothing is started. What a section names is imported, as ``pserve`` does; where that fails, the section is read as text.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from configparser import (
    DuplicateOptionError,
    DuplicateSectionError,
    Error,
    InterpolationDepthError,
    InterpolationError,
    InterpolationMissingOptionError,
    MissingSectionHeaderError,
    ParsingError,
)
from contextlib import redirect_stdout
from typing import Any, NamedTuple
from urllib.parse import unquote

from paste.deploy import loadwsgi
from paste.deploy.loadwsgi import APP, FILTER_APP, FILTER_WITH, PIPELINE, ConfigLoader, LoaderContext, NicerConfigParser

from beaker_bridge.exceptions import SiteError

#: PasteDeploy's protocols of what serves several applications.
_COMPOSITES = ("paste.composite_factory", "paste.composit_factory")


class Origin(NamedTuple):
    """The place where a value is written."""

    file: str
    section: str
    key: str

    def beside(self, file: str) -> str:
        """Return the place as text; the file's name only if it is another one.

        Args:
            file: the file that the reader has in mind.
        """
        other = "" if self.file == file else f"{os.path.relpath(self.file, os.path.dirname(file))} "
        return f"{other}[{self.section}] {self.key}"


class Written(str):
    """A value with its origin."""

    __slots__ = ("origin",)
    origin: Origin

    def __new__(cls, text: str, origin: Origin) -> Written:  # noqa: PYI034 -- Self is not in Python 3.10
        self = super().__new__(cls, text)
        self.origin = origin
        return self


class _Parser(NicerConfigParser):
    """A parser whose values know where they are written."""

    def get(self, section: str, option: str, **keywords: Any) -> Any:
        """Return a value with its origin."""
        text = super().get(section, option, **keywords)
        return Written(text, Origin(self.filename, section, option)) if isinstance(text, str) else text


class _Loader(ConfigLoader):
    """PasteDeploy's loader, which goes on where a module cannot be imported.

    Args:
        filename: the file.
        notes: takes the sentences about what could not be imported.
    """

    def __init__(self, filename: str, notes: list[str]) -> None:
        super().__init__(filename)
        self.parser.__class__ = _Parser
        self.notes = notes

    def get_context(self, object_type: Any, name: str | None = None, global_conf: Any = None) -> Any:
        if not self.absolute_name(name):
            return super().get_context(object_type, name, global_conf)
        assert name is not None
        scheme, _, path = name.partition(":")
        if scheme.lower() == "config":
            path, _, fragment = path.partition("#")
            path = os.path.join(os.path.dirname(self.filename), unquote(path))
            return _context(path, object_type, fragment or "main", global_conf, self.notes)
        folder = os.path.dirname(self.filename)
        found = self._imported(
            name, lambda: loadwsgi.loadcontext(object_type, name, relative_to=folder, global_conf=global_conf)
        )
        return found or LoaderContext(None, object_type, None, global_conf or {}, {}, self)

    def _context_from_explicit(
        self, object_type: Any, local_conf: Any, global_conf: Any, global_addition: Any, section: str
    ) -> Any:
        explicit = super()._context_from_explicit
        named = {key: value for key, value in local_conf.items() if key.startswith("paste.")}
        found = self._imported(
            " ".join(named.values()), lambda: explicit(object_type, local_conf, global_conf, global_addition, section)
        )
        if found:
            return found
        rest = {key: value for key, value in local_conf.items() if key not in named}
        return LoaderContext(None, object_type, next(iter(named)), global_conf, rest, self)

    def _imported(self, name: str, load: Any) -> Any:
        try:
            # Keep what a module prints out of the command's result.
            with redirect_stdout(sys.stderr):
                return load()
        except (Exception, SystemExit) as error:  # importing runs a module, which may raise anything
            if type(error) is LookupError:
                # PasteDeploy's own: the name is wrong.
                raise
            self.notes.append(
                f"{name} cannot be imported ({type(error).__name__}: {error}); its section is read as text"
            )
            return None


def _context(path: str, object_type: Any, name: str, global_conf: Any, notes: list[str]) -> Any:
    loader = _Loader(os.path.normpath(path), notes)
    loader.update_defaults(global_conf, overwrite=False)
    return loader.get_context(object_type, name, global_conf)


class Chain(NamedTuple):
    """An application and the filters around it, as PasteDeploy's contexts; the outermost filter is the first."""

    filters: list[Any]
    application: Any


def read_chain(path: str, name: str | None, global_conf: Mapping[str, str], notes: list[str]) -> Chain:
    """Return an application and its filters.

    Args:
        path: the file.
        name: the application's name; None for ``main``.
        global_conf: the defaults, as plaster's loader hands them to PasteDeploy.
        notes: takes the sentences about what could not be imported.

    Raises:
        SiteError: the file cannot be read, or has no such application.
    """
    try:
        *filters, application = _flat(_context(path, APP, name or "main", dict(global_conf), notes))
        if application.protocol in _COMPOSITES:
            raise SiteError(_choice(path, name, application))
        around = _around(path, name, global_conf) if name not in (None, "main") else []
    except OSError as error:
        raise SiteError(f"{error.filename or path} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise SiteError(f"{path}: an application, or a filter of it, uses itself") from None
    except UnicodeDecodeError as error:
        raise SiteError(f"{path} cannot be read: {error.reason} at byte {error.start}") from None
    except KeyError as error:
        raise SiteError(f"{path}: a line begins with 'get', and [DEFAULT] has no {error}") from None
    except LookupError as error:
        raise SiteError(str(error)) from None
    except ImportError as error:
        raise SiteError(f"{path}: {error}, which a line 'require' names") from None
    except Error as error:
        raise SiteError(_sentence(path, error)) from None
    return Chain([*around, *filters], application)


def _flat(context: Any) -> Iterator[Any]:
    """Yield the filters around an application, the outermost first, and then the application."""
    kind = context.object_type
    if kind is PIPELINE:
        parts = [*context.filter_contexts, context.app_context]
    elif kind in (FILTER_WITH, FILTER_APP):
        parts = [context.filter_context, context.next_context]
    else:
        yield context
        return
    for part in parts:
        yield from _flat(part)


def _around(path: str, name: str | None, global_conf: Mapping[str, str]) -> list[Any]:
    """Return the filters of the file's main application, if that is a composite which serves the named one."""
    try:
        *filters, application = _flat(_context(path, APP, "main", dict(global_conf), []))
    except LookupError:
        return []
    return filters if application.protocol in _COMPOSITES and name in application.local_conf.values() else []


def _choice(path: str, name: str | None, composite: Any) -> str:
    """Return the sentence that lists the applications of a composite."""
    found: dict[str, None] = {}
    for value in composite.local_conf.values():
        if value.startswith("config:"):
            found[os.path.join(os.path.dirname(path), value.removeprefix("config:"))] = None
        elif not composite.loader.absolute_name(value) and _has_application(composite.loader, value):
            found[f"{path}#{value}"] = None
    names = ", ".join(os.path.relpath(each) for each in found) or "none was found"
    return f"{os.path.relpath(path)}#{name or 'main'} is a composite of several applications: name one of them: {names}"


def _has_application(loader: Any, name: str) -> bool:
    try:
        loader.find_config_section(APP, name)
    except LookupError:
        return False
    return True


def _sentence(path: str, error: Error) -> str:
    """Return what is wrong with a file, without its values: one may be a secret."""
    if isinstance(error, ParsingError) and not isinstance(error, MissingSectionHeaderError):
        return f"{path} cannot be parsed at line {', '.join(str(number) for number, _ in error.errors)}"
    if isinstance(error, InterpolationError):
        return f"{path}: [{error.section}] {error.option}: {_interpolation(error)}"
    if isinstance(error, (DuplicateOptionError, DuplicateSectionError)):
        option = getattr(error, "option", "")
        return f"{path}: [{error.section}] {option}".rstrip() + f" is there twice, again in line {error.lineno}"
    where = f" at line {error.lineno}, which is in no section" if isinstance(error, MissingSectionHeaderError) else ""
    return f"{path} cannot be parsed{where}"


def _interpolation(error: InterpolationError) -> str:
    if isinstance(error, InterpolationMissingOptionError):
        way = f"define it in [DEFAULT], or write {error.reference}=… behind the file's name"
        return f"%({error.reference})s is not defined; {way}"
    if isinstance(error, InterpolationDepthError):
        return "its %(…)s refer to each other"
    return "a % must be written %%, or begin %(name)s"
