"""The documentation's pages, and the examples in them."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
# For tests that ask the scripts in docs/, such as the diagrams.
sys.path.insert(0, str(DOCS))

#: A code block of a page: its language, its options, and its lines.
BLOCK = re.compile(r"^\.\. code-block:: (\S+)\n((?:   :.*\n)*)\n((?:   .*\n|\n)+)", re.MULTILINE)
OPTION = re.compile(r"^   :([\w-]+): *(.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    options: dict[str, str]
    text: str


def read(page: str) -> str:
    """Return the text of a page, which is named by its path in ``docs/`` without the suffix."""
    return (DOCS / f"{page}.rst").read_text(encoding="utf-8")


def blocks(text: str) -> dict[str, Block]:
    """Return a page's code blocks by their names: each has one, so no example escapes the tests."""
    found = {}
    for language, options, body in BLOCK.findall(text):
        block = Block(language, dict(OPTION.findall(options)), textwrap.dedent(body).rstrip() + "\n")
        name = block.options["name"]
        assert name not in found
        found[name] = block
    assert len(found) == text.count(".. code-block::")
    return found


def examples(text: str) -> dict[str, str]:
    """Return the texts of a page's code blocks by their names."""
    return {name: block.text for name, block in blocks(text).items()}


def cells(text: str) -> list[list[str]]:
    """Return the cells of each row of a page's list-tables, as they are written."""
    return [
        [" ".join(cell.split()) for cell in re.split(r"^     - ", row, flags=re.MULTILINE)]
        for row in re.findall(r"^   \* - (.*?)(?=^   \* - |^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    ]
