"""The options, from the tables that read them: ``session-options`` and ``region-options``, and a table of each.

A page lists the options' names, in its own order; a name that is missing there fails the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from generated import Generated, sentence, table
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from beaker_bridge.cli.effective import option_text
from beaker_bridge.options.rows import Empty, Row, Table
from beaker_bridge.options.table import REGION_TABLE, SESSION_TABLE

logger = logging.getLogger(__name__)

TABLES = {"session": SESSION_TABLE, "region": REGION_TABLE}
_EMPTY = {Empty.WRONG: "an error", Empty.DEFAULT: "as if the option were not set", Empty.FALSE: "``false``"}


class Options(Generated):
    """Describes options, each with the types for which it counts.

    Its arguments are their names.
    """

    required_arguments = 1
    final_argument_whitespace = True
    kind: ClassVar[str]

    def lines(self) -> Iterator[str]:
        """Yield the description of each option."""
        for name in self.arguments[0].split():
            if name not in TABLES[self.kind]:
                raise self.error(f"there is no {self.kind} option {name}")
            yield from _described(TABLES[self.kind], TABLES[self.kind][name], f"{self.kind}-option")


class Overview(Generated):
    """A table of all options with their defaults and the types for which they count."""

    kind: ClassVar[str]

    def lines(self) -> Iterable[str]:
        """Return the table."""
        options = TABLES[self.kind]
        rows = [(f":{self.kind}-option:`{row.name}`", _default(row), _counts(options, row)) for row in options.values()]
        return table(("Option", "Default", "Counts for"), rows, "30 25 45", "first-stays")


def _described(options: Table, row: Row, role: str) -> Iterator[str]:
    """Yield an option's rule, default and meaning, and the types for which it counts."""
    yield from [f".. {role}:: {row.name}", ""]
    yield from [f"   {sentence(row.help, set(options) - {row.name}, role)}", ""]
    yield f"   :Value: {row.value_type.rule}"
    yield f"   :Default: {_default(row) or 'not set'}"
    yield f"   :Counts for: {_counts(options, row)}"
    yield f"   :Empty text: {_EMPTY[row.empty]}"
    if row.secret:
        yield "   :Secret: its value is in no message, no log line and no ``repr()``"
    yield ""


def _default(row: Row) -> str:
    """Return an option's default as an ``.ini`` has it; an empty string where it is not set."""
    text = option_text(row.default)
    return f"``{text}``" if text else ""


def _counts(options: Table, row: Row) -> str:
    """Return the store types for which an option counts."""
    others = options.types - row.stores
    if not row.stores:
        return "no type"
    if not others:
        return "all types"
    if len(others) == 1:
        return f"all types but ``{next(iter(others))}``"
    return ", ".join(f"``{name}``" for name in sorted(row.stores))


def _check(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each option that no page describes."""
    described = {(kind, name) for name, _, kind, *_ in env.get_domain("std").get_objects()}
    for kind, options in TABLES.items():
        for name in options:
            if (f"{kind}-option", name) not in described:
                logger.warning("no page describes the %s option %s", kind, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives, and the roles ``session-option`` and ``region-option``."""
    for kind in TABLES:
        app.add_object_type(f"{kind}-option", f"{kind}-option", f"pair: %s; {kind} option")
        app.add_directive(f"{kind}-options", type("Described", (Options,), {"kind": kind}))
        app.add_directive(f"{kind}-option-table", type("Listed", (Overview,), {"kind": kind}))
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
