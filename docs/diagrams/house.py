"""The rooms of the house: which part of the package imports which, read from its sources."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import beaker_bridge
from diagrams.svg import WIDTH, Picture

PACKAGE = Path(beaker_bridge.__file__).parent
#: The package itself, whose module has the public names.
PUBLIC = "beaker_bridge"
Rooms = dict[str, frozenset[str]]


def imports() -> Rooms:
    """Return the rooms (folders, and modules beside them), and the rooms that each of them imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = _room(path.relative_to(PACKAGE).with_suffix("").parts)
        found.setdefault(room, set()).update(_imported(ast.parse(path.read_text(encoding="utf-8"))))
    return {room: frozenset(others & {*found} - {room, PUBLIC}) for room, others in found.items()}


def _room(parts: tuple[str, ...]) -> str:
    return PUBLIC if parts[0] == "__init__" else parts[0]


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, inner = name.partition(".")
            if package == PUBLIC and inner:
                yield inner.partition(".")[0]


def floors(rooms: Rooms) -> list[list[str]]:
    """Return the rooms by floors, the highest one first: a room is above all that it imports."""
    height: dict[str, int] = {}

    def of(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle of imports: {above}"
        if room not in height:
            height[room] = max((of(other, (*above, room)) + 1 for other in rooms[room]), default=0)
        return height[room]

    highest = max(map(of, rooms))
    return [[room for room in rooms if height[room] == floor] for floor in range(highest, -1, -1)]


def direct(rooms: Rooms) -> Rooms:
    """Return the imports without those that a room has by way of another one."""

    def reached(room: str) -> frozenset[str]:
        return rooms[room].union(*map(reached, rooms[room]))

    return {room: others - frozenset().union(*map(reached, others)) for room, others in rooms.items()}


def sentence(room: str) -> str:
    """Return what is in a room: the first sentence of its docstring."""
    path = PACKAGE / "__init__.py" if room == PUBLIC else PACKAGE / room / "__init__.py"
    path = path if path.exists() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


#: The size of a room, and the distance of two floors.
ROOM, HEIGHT, FLOOR = 100, 26, 58
#: The distance of an arrow from the picture's edge, at least.
EDGE = 4


def draw() -> Picture:
    """Return the picture of the house."""
    rooms = imports()
    arrows = direct(rooms)
    places = _places(floors(rooms), arrows)
    told = "; ".join(f"{room} imports {', '.join(sorted(others))}" for room, others in arrows.items() if others)
    picture = Picture("The rooms of beaker_bridge", f"Imports only go down, and make no circle: {told}.")
    for room, others in arrows.items():
        for other in sorted(others):
            picture.wire(_way(room, other, places), arrow=True)
    for room, (x, y) in places.items():
        picture.box(x - ROOM / 2, y, ROOM, HEIGHT, "box sheet")
        picture.text(x, y + 17, room, "small strong", "middle")
    return picture


def _way(room: str, other: str, places: dict[str, tuple[float, float]]) -> str:
    """Return the path from a room to another one, between the rooms on the floors that it passes."""
    (x, y), (to_x, to_y) = places[room], places[other]
    path, y = f"M{x:g} {y + HEIGHT:g}", y + HEIGHT
    for floor in sorted({top for _, top in places.values() if y < top < to_y}):
        taken = sorted(left for left, top in places.values() if top == floor)
        gaps = [(one + two) / 2 for one, two in pairwise(taken)]
        gaps += [taken[0] - ROOM / 2 - 9, taken[-1] + ROOM / 2 + 9]
        aim = x + (to_x - x) * (floor - y) / (to_y - y)
        gap = min((gap for gap in gaps if EDGE < gap < WIDTH - EDGE), key=lambda gap: abs(gap - aim))
        path += f" C{x:g} {y + 16:g} {gap:g} {floor - 16:g} {gap:g} {floor:g} V{floor + HEIGHT:g}"
        x, y = gap, floor + HEIGHT
    return f"{path} C{x:g} {y + 16:g} {to_x:g} {to_y - 18:g} {to_x:g} {to_y - 1:g}"


def _places(levels: list[list[str]], arrows: Rooms) -> dict[str, tuple[float, float]]:
    """Return the middle of each room's upper side: a room is near those that import it."""
    places: dict[str, tuple[float, float]] = {}
    for number, level in enumerate(levels):

        def above(room: str) -> float:
            users = [places[user][0] for user, others in arrows.items() if room in others and user in places]
            return sum(users) / len(users) if users else WIDTH / 2

        for i, room in enumerate(sorted(level, key=above)):
            places[room] = (WIDTH * (2 * i + 1) / (2 * len(level)), 4.0 + FLOOR * number)
    return places


DIAGRAMS: dict[str, Callable[[], Picture]] = {"house": draw}
