"""The diagrams of the documentation: SVG, made from facts of the code whenever the pages are built.

``.. diagram:: NAME`` puts one into a page, and ``python docs/diagrams FOLDER`` writes them all as files. None of these
files is kept, so none can be out of date.
"""

from __future__ import annotations

from collections.abc import Callable

from diagrams import house, merge, request, states
from diagrams.svg import Picture

#: How to draw each picture, by its name.
DIAGRAMS: dict[str, Callable[[], Picture]] = {**merge.DIAGRAMS, **request.DIAGRAMS, **states.DIAGRAMS, **house.DIAGRAMS}
