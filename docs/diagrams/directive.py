"""``.. diagram:: NAME`` puts a diagram into a page: as part of the page, so that it follows the theme's colours.

``.. rooms::`` lists the rooms of the package, with what is in them.
"""

from __future__ import annotations

import logging
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from diagrams import DIAGRAMS, house


class Diagram(SphinxDirective):
    """A diagram, by its name. Its description is what other formats than HTML show, and what a screen reader says."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        picture = DIAGRAMS[name]()
        figure = nodes.container(classes=["diagram-figure"])
        figure += nodes.raw("", picture.render(name), format="html")
        return [figure]


class Rooms(SphinxDirective):
    """The rooms of the package from the highest floor down, each with the first sentences of its docstring."""

    def run(self) -> list[nodes.Node]:
        rooms = [room for floor in house.floors(house.imports()) for room in floor]
        return self.parse_text_to_nodes("\n".join(f"``{room}``\n   {house.sentence(room)}\n" for room in rooms))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    # The log of the examples is about nobody's site.
    logging.getLogger("beaker_bridge").setLevel(logging.CRITICAL)
    app.add_directive("diagram", Diagram)
    app.add_directive("rooms", Rooms)
    # Draw each page anew: a diagram depends on the package, of which Sphinx knows nothing.
    app.connect("env-get-outdated", lambda _app, env, *_changes: sorted(env.found_docs))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
