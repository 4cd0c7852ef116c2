"""What the directives share that write a part of a page from facts of the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

#: What is code in a sentence of the sources: calls, names with underscores, and settings with their values.
_CODE = re.compile(r"(?<![\w./])([A-Za-z_][\w.]*\(\)|[a-z]+(?:\.\*|_[a-z_]+)|[a-z]+ = [a-z]+)(?![\w(])")


class Generated(SphinxDirective):
    """A directive that is replaced by reStructuredText."""

    def lines(self) -> Iterable[str]:
        """Return the lines."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the lines, parsed."""
        return self.parse_text_to_nodes("\n".join(self.lines()), offset=self.content_offset)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: str = "auto", style: str = "") -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        head: the cells of the head.
        rows: the cells of the rows.
        widths: the widths of the columns.
        style: the table's class in the style sheet.
    """
    yield from [
        ".. list-table::",
        "   :header-rows: 1",
        f"   :widths: {widths}",
        *([f"   :class: {style}"] if style else []),
        "",
    ]
    for cells in chain([head], rows):
        yield from (f"   {' ' if number else '*'} - {cell}".rstrip() for number, cell in enumerate(cells))
    yield ""


def sentence(text: str, names: Iterable[str] = (), role: str = "") -> str:
    """Return a text of the sources as a sentence of a page, with its code marked.

    Args:
        text: the text.
        names: what is linked if it is in the text, and has an underscore.
        role: the role of these links.
    """

    def marked(match: re.Match[str]) -> str:
        return f":{role}:`{match[1]}`" if match[1] in names else f"``{match[1]}``"

    begun = _CODE.sub(marked, text)
    return f"{begun[0].upper()}{begun[1:]}" + ("" if begun.endswith(".") else ".")
