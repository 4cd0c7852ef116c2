"""A picture for each rule of the merge. What is in it, real requests have made: see overlap.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from diagrams.overlap import Overlap, overlap
from diagrams.svg import CHARACTER, LINE, WIDTH, Part, Picture, wrapped

#: The left end of what is beside the two bars of time, and the room for it.
LEFT = 50
ROOM = WIDTH - LEFT - 4
COLUMNS = int((ROOM - 14) / CHARACTER)

_ABSENT: Any = object()


class Rule(NamedTuple):
    """A rule of the merge, by an example: the code of three requests."""

    title: str
    before: str
    first: str
    later: str
    options: Mapping[str, Any] = MappingProxyType({})


RULES = {
    "merge-one-key": Rule(
        "One request changed a key",
        'session["lang"] = "en"\nsession["cart"] = ["tea"]',
        'session["lang"] = "fr"',
        'session["cart"].append("rice")',
    ),
    "merge-same": Rule(
        "Both made the same change",
        'session["visits"] = 1',
        'session["visits"] += 1',
        'session["visits"] += 1',
    ),
    "merge-deletion": Rule(
        "A deletion wins",
        'session["user"] = {"name": "ann"}',
        'del session["user"]',
        'session["user"]["name"] = "Ann"',
    ),
    "merge-dict": Rule(
        "Dicts are merged member by member",
        'session["prefs"] = {"lang": "en", "size": 10}',
        'session["prefs"]["lang"] = "fr"',
        'session["prefs"]["size"] = 12',
    ),
    "merge-appended": Rule(
        "Items appended to a list",
        'session["cart"] = ["tea"]',
        'session["cart"].append("milk")',
        'session["cart"].append("rice")',
    ),
    "merge-removed": Rule(
        "Items removed from a list",
        'session["cart"] = ["tea", "milk", "rice"]',
        'session["cart"].remove("tea")',
        'session["cart"].remove("rice")',
    ),
    "merge-set": Rule(
        "Sets",
        'session["tags"] = {"new"}',
        'session["tags"].discard("new")',
        'session["tags"].add("sale")',
    ),
    "merge-flash": Rule(
        "Flash messages",
        'session.flash("Saved.")',
        "session.pop_flash()",
        'session.flash("Sent.")',
    ),
    "merge-flash-twice": Rule(
        "Equal flash messages",
        'session["user"] = "ann"',
        'session.flash("Saved.")',
        'session.flash("Saved.")',
    ),
    "merge-conflict": Rule(
        "A conflict",
        'session["order"] = {"item": "tea", "total": 3}',
        'session["order"].update(item="milk", total=2)',
        'session["order"].update(total=6)',
    ),
    "merge-first-set": Rule(
        "Two lists that were not there before",
        'session["user"] = "ann"',
        'session["position"] = [48.9, 2.3]',
        'session["position"] = [52.5, 13.4]',
    ),
    "merge-whole-keys": Rule(
        "The same, with whole_keys = position",
        'session["user"] = "ann"',
        'session["position"] = [48.9, 2.3]',
        'session["position"] = [52.5, 13.4]',
        {"whole_keys": "position"},
    ),
    "merge-gone": Rule(
        "The session has ended",
        'session["user"] = "ann"',
        "session.invalidate()",
        'session["cart"] = ["tea"]',
    ),
    "merge-exclusive": Rule(
        "exclusive()",
        'session["votes"] = 1',
        'with session.exclusive():\n    session["votes"] += 1',
        'with session.exclusive():\n    session["votes"] += 1',
    ),
}


def made(name: str) -> Overlap:
    """Return what became of a rule's example."""
    rule = RULES[name]
    return overlap(rule.before, rule.first, rule.later, **rule.options)


def draw(name: str) -> Picture:
    """Return the picture of a rule."""
    rule, outcome = RULES[name], made(name)
    picture = Picture(rule.title, _described(rule, outcome))
    sides = (outcome.base, outcome.first, outcome.later)

    y = _session(picture, 0, "The store holds", outcome.base, sides)
    begun_first = y + 8
    begun_later = begun_first + 24
    y = begun_later + 4
    committed_first = y = _request(picture, y, 1, rule.first, outcome.first, sides)
    committed_later = y = _request(picture, y + 10, 2, rule.later, outcome.later, sides)
    _bar(picture, 12, begun_first, committed_first, 1)
    _bar(picture, 32, begun_later, committed_later, 2)
    note = _note(outcome)
    _session(picture, y + 12, "Then the store holds", outcome.result, sides, note)
    return picture


def _bar(picture: Picture, x: float, top: float, bottom: float, number: int) -> None:
    """Draw how long a request lasts, from its read to its commit."""
    name = _name(number)
    picture.wire(f"M{x} {top - 6} V{top + 14}", name)
    picture.box(x - 5, top, 10, bottom - top, name, 5)
    picture.wire(f"M{x} {bottom} V{bottom + 12}", name)
    picture.disc(x, top + 9, 9, name)
    picture.text(x, top + 13, str(number), "on small", "middle")


def _name(number: int) -> str:
    return "first" if number == 1 else "later"


def _request(
    picture: Picture, y: float, number: int, code: str, session: dict[str, Any], sides: tuple[dict[str, Any], ...]
) -> float:
    """Draw a request's code and its session; return where it is committed."""
    picture.text(LEFT, y + 12, f"Request {number}", f"strong {_name(number)}")
    y += 16
    for line in code.splitlines():
        y += LINE - 2
        picture.text(LEFT, y - 2, line, "code")
    return _sheet(picture, y + 4, _lines(session, sides, {*sides[0]} - {*session}), f"box {_name(number)}")


def _session(
    picture: Picture,
    y: float,
    title: str,
    session: dict[str, Any] | None,
    sides: tuple[dict[str, Any], ...],
    note: str = "",
) -> float:
    """Draw what the store holds; return the bottom."""
    picture.text(LEFT if y else 4, y + 13, title, "strong")
    if note:
        picture.text(WIDTH - 4, y + 13, note, "small bad", "end")
    lines = [[Part("no session", "quiet")]] if session is None else _lines(session, sides, set())
    return _sheet(picture, y + 20, lines, "box", 4)


def _sheet(picture: Picture, y: float, lines: list[list[Part]], classes: str, left: float = LEFT) -> float:
    height = LINE * len(lines) + 8
    picture.box(left, y, WIDTH - left - 2, height, classes)
    for number, line in enumerate(lines):
        picture.text(left + 8, y + LINE * (number + 1), line, "code")
    return y + height


def _note(outcome: Overlap) -> str:
    if outcome.conflicts:
        return "given up: " + ", ".join(sorted(outcome.conflicts))
    return ""


# -- Values, and who has made them -------------------------------------------------------------------


def _lines(session: dict[str, Any], sides: tuple[dict[str, Any], ...], gone: set[str]) -> list[list[Part]]:
    """Return a session as lines of code; what one request alone has put there is marked as its."""
    lines = []
    for key, value in session.items():
        own = tuple(side.get(key, _ABSENT) for side in sides)
        label = "flash" if key == "_f_" else key
        parts = [Part(f"{label}: ", _maker(key, *(side.keys() for side in sides))), *_value(value, own)]
        lines += wrapped(parts, COLUMNS)
    lines += [[Part(f"{'flash' if key == '_f_' else key}", "gone")] for key in sorted(gone)]
    return lines or [[Part("no keys", "quiet")]]


def _maker(item: Any, base: Any, first: Any, later: Any) -> str:
    """Return whose an item of a dict, list or set is: a class; empty if it was there, or if both have put it there."""
    if item in base or (item in first and item in later):
        return ""
    return "first" if item in first else "later" if item in later else ""


def _value(value: Any, own: tuple[Any, ...]) -> Iterator[Part]:
    if isinstance(value, dict):
        members = ({} if not isinstance(side, dict) else side for side in own)
        yield from _members(value, tuple(members))
    elif isinstance(value, (list, set)):
        ends = "[]" if isinstance(value, list) else "{}"
        sides = tuple(_items(side) for side in own)
        items = sorted(value) if isinstance(value, set) else value
        yield Part(ends[0])
        for number, item in enumerate(items):
            yield Part(repr(item).replace("'", '"'), _maker(item, *sides))
            yield Part(", " if number + 1 < len(items) else "")
        yield Part(ends[1])
    else:
        yield Part(repr(value).replace("'", '"'), _maker(value, *([side] for side in own)))


def _items(side: Any) -> list[Any]:
    return list(side) if isinstance(side, (list, set)) else []


def _members(value: dict[str, Any], sides: tuple[Any, ...]) -> Iterator[Part]:
    yield Part("{")
    for number, (key, member) in enumerate(value.items()):
        yield Part(f'"{key}": ')
        yield from _value(member, tuple(side.get(key, _ABSENT) for side in sides))
        yield Part(", " if number + 1 < len(value) else "")
    yield Part("}")


# -- For who does not see it -------------------------------------------------------------------------


def _described(rule: Rule, outcome: Overlap) -> str:
    given_up = f" What is {_note(outcome)}." if outcome.conflicts else ""
    return (
        f"Two requests read the same session, {_plain(outcome.base)}. Request 1 runs {_inline(rule.first)}, and is"
        f" committed. Request 2, which began before that, runs {_inline(rule.later)}, and is committed later. Then the"
        f" store holds {_plain(outcome.result)}.{given_up}"
    )


def _inline(code: str) -> str:
    return " ".join(code.split())


def _plain(session: dict[str, Any] | None) -> str:
    if session is None:
        return "no session"
    return ", ".join(f"{key} = {value!r}" for key, value in session.items()) or "a session without keys"


DIAGRAMS: dict[str, Callable[[], Picture]] = {name: partial(draw, name) for name in RULES}
