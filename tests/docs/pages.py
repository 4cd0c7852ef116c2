"""The documentation's pages, and the examples in them."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# For tests that ask the scripts in docs/, such as the diagrams.
sys.path.insert(0, str(DOCS))

#: A code block of a page: its language, its options, and its lines.
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n((?:   :.*\n)*)\n((?:   .*\n|\n)+)", re.MULTILINE)
NAME = re.compile(r"^   :name: ([\w-]+)$", re.MULTILINE)


def read(page: str) -> str:
    """Return the text of a page, which is named by its path in ``docs/`` without the suffix."""
    return (DOCS / f"{page}.rst").read_text(encoding="utf-8")


def examples(text: str) -> dict[str, str]:
    """Return a page's code blocks by their names: each has one, so no example escapes the tests."""
    found = {}
    for _language, options, body in BLOCK.findall(text):
        (name,) = NAME.findall(options)
        assert name not in found
        found[name] = textwrap.dedent(body).rstrip() + "\n"
    assert len(found) == text.count(".. code-block::")
    return found
