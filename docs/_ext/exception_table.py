"""A table of the exceptions, from their classes: ``exception-table``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from generated import Generated, table
from sphinx.application import Sphinx

import beaker_bridge
from beaker_bridge.exceptions import BeakerBridgeError


class Exceptions(Generated):
    """A table of the exceptions, with their word for what failed, and what else they are."""

    def lines(self) -> Iterable[str]:
        """Return the table."""
        return table(("Exception", "``failure``", "Also a"), map(_cells, _exceptions()), "45 30 25", "first-stays")


def _exceptions() -> Iterable[type[BeakerBridgeError]]:
    public = (getattr(beaker_bridge, name) for name in beaker_bridge.__all__)
    return (kind for kind in public if isinstance(kind, type) and issubclass(kind, BeakerBridgeError))


def _cells(kind: type[BeakerBridgeError]) -> tuple[str, str, str]:
    others = [f"``{base.__name__}``" for base in kind.__bases__ if base.__module__ == "builtins"]
    return f":exc:`~beaker_bridge.{kind.__name__}`", f"``{kind.failure}``", ", ".join(others)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("exception-table", Exceptions)
    return {"parallel_read_safe": True}
