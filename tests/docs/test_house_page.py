"""docs/explanation/house.rst: the rooms, and the imports between them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import read

from diagrams import house  # isort: skip -- tests.docs.pages makes it importable

PAGE = read("explanation/house")
ROOMS = house.imports()


def test_imports_only_go_down():
    """No import leads up or makes a circle: each room is above all that it imports."""
    floor = {room: number for number, rooms in enumerate(house.floors(ROOMS)) for room in rooms}

    assert [(room, other) for room, others in ROOMS.items() for other in others if floor[other] <= floor[room]] == []


def test_no_module_imports_the_package():
    """No module takes a public name from the package itself: it would be a circle."""
    sources = {path: path.read_text(encoding="utf-8") for path in house.PACKAGE.rglob("*.py")}
    inner = {path for path in sources if path.parent.name not in {"cli", "testing", "debugtoolbar"}}

    assert [
        path.name for path in inner if re.search(r"^from beaker_bridge import (?!\w+ as )", sources[path], re.MULTILINE)
    ] == []


def test_what_is_left_out_is_there_by_way_of_another():
    """The picture's arrows lead, directly or not, to all that a room imports, and none of them is needless."""
    arrows = house.direct(ROOMS)

    def reached(room):
        return arrows[room].union(*map(reached, arrows[room]))

    assert all(reached(room) >= others for room, others in ROOMS.items())
    assert [(room, other) for room, others in arrows.items() for other in others if other not in ROOMS[room]] == []


def test_each_room_says_what_is_in_it():
    """Each room has a sentence or two, which are those of its docstring."""
    assert [room for room in ROOMS if not re.fullmatch(r"[A-Z`].*\.", house.sentence(room))] == []


def test_what_the_page_names_exists():
    """Each module that the page names is there."""
    named = re.findall(r"``([\w/]+\.py)``", PAGE)

    assert [name for name in named if name != "__init__.py" and not Path(house.PACKAGE, name).exists()] == []
    assert len(named) > 10
