"""The options that are in effect, as a table: value, default, and where each is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from beaker_bridge.options.masking import HIDDEN, masked, quoted
from beaker_bridge.options.rows import Row
from beaker_bridge.options.table import SESSION_TABLE
from beaker_bridge.site.find import Site

#: Options that may hold a password among other things: an address is shown without it.
_WITH_PASSWORDS = frozenset({"url", "urls", "sa_opts"})


class Effective(NamedTuple):
    """One option that is in effect."""

    name: str
    value: str
    #: Where it is written; empty for a default.
    written: str
    default: str

    @property
    def is_set(self) -> bool:
        """Whether there is a value, given or not."""
        return bool(self.value or self.written)


def effective_options(site: Site) -> Iterator[Effective]:
    """Yield the options of a site's sessions: those that are given, and the others that the type uses.

    Args:
        site: the site; its options are valid.
    """
    options = site.options
    for name, row in SESSION_TABLE.items():
        is_given = name in options.given
        value = getattr(options, name)
        if name == "reissue_time" and value is None:
            value = options.touch_interval
        if is_given or SESSION_TABLE.counts(name, options.type):
            yield Effective(name, _shown(row, value), _written(site, name), option_text(row.default))
    for name, value in options.backend_arguments.items():
        yield Effective(name, option_text(masked(name, value)), _written(site, name), "")


def _written(site: Site, name: str) -> str:
    """Return the section in which an option is written, and its name there if it is another one."""
    if name == "sa_opts":
        names = [each for each in site.source.origins if each.startswith("sa.")]
        return site.origin(names[0]).rpartition(" ")[0] + " sa.*" if names else site.origin(name)
    return site.origin(name).removesuffix(f" {name}")


def _shown(row: Row, value: Any) -> str:
    if value is None or value == ():
        return ""
    if row.name in _WITH_PASSWORDS:
        return option_text(masked(row.name, value))
    if row.secret:
        return HIDDEN
    return option_text(
        [quoted(row.name, each) for each in value] if isinstance(value, tuple) else quoted(row.name, value)
    )


def option_text(value: Any) -> str:
    """Return a value as an ``.ini`` has it.

    Args:
        value: a value that may be shown.
    """
    match value:
        case None:
            text = ""
        case bool():
            text = str(value).lower()
        case float():
            text = f"{value:g}"
        case dict():
            text = ", ".join(f"{name} = {option_text(each)}" for name, each in value.items())
        case list() | tuple():
            text = ", ".join(map(option_text, value))
        case _ if callable(value):
            text = f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
        case _:
            text = str(value)
    return text
