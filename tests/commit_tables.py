"""Tables of docs/explanation/commit.rst, from session/state.py's docstring: ``python -m tests.commit_tables``."""

import re
from pathlib import Path

from beaker_bridge.session import state

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "commit.rst"
#: Three rules, with the heading and the rows between them.
_TABLE = re.compile(r"^=+  .*?^=+  .*?^=+  [= ]*\n", re.MULTILINE | re.DOTALL)


def tables(text):
    """Return the tables of a text, each with its three rules."""
    return _TABLE.findall(text)


def main():
    """Write the docstring's tables into the page, in their order."""
    copies = iter(tables(state.__doc__))
    PAGE.write_text(_TABLE.sub(lambda _: next(copies), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
