"""Lays the tests out beside the package as it is installed: what is tested is what users get.

``python tests/installed.py FOLDER`` fills an empty folder with links: to the installed ``beaker_bridge``, and to
what else the checkout holds.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
PACKAGE = "beaker_bridge"
#: What is made there, and tells of nothing.
_MADE = {"build", "dist"}
#: Of what is hidden, what tests read.
_CI = ".ci"


def lay_out(folder: Path) -> None:
    """Fill a folder with links to the installed package, and to the rest of the checkout."""
    (installed,) = find_spec(PACKAGE).submodule_search_locations
    (folder / PACKAGE).symlink_to(installed)
    for entry in CHECKOUT.iterdir():
        if entry.name == _CI or not (entry.name in {PACKAGE, *_MADE} or entry.name.startswith(".")):
            (folder / entry.name).symlink_to(entry)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
