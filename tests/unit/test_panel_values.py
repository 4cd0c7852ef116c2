"""The values of a session as the debug toolbar's panel shows them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import NamedTuple
from uuid import UUID

import pytest

from beaker_bridge.debugtoolbar.values import CHARACTERS, DEPTH, LINES, MEMBERS, rows_of, without_secrets

WORD = "the hidden word"


@dataclass
class User:
    """An object of an application's, as pickle stores it."""

    name: str
    password: str

    def __repr__(self):
        raise AssertionError("nothing of an application's is run")


class Slotted:
    """An object without a __dict__."""

    __slots__ = ("password",)


class Hostile(str):
    """A text that shows itself by code of its own."""

    __slots__ = ()

    def __repr__(self):
        raise AssertionError("nothing of an application's is run")

    __str__ = __repr__


class Lazy:
    """An object whose __dict__ is computed."""

    @property
    def __dict__(self):
        raise RuntimeError("not now")


class Colour(Enum):
    """An enumeration."""

    RED = 1


class Pair(NamedTuple):
    """A tuple with names."""

    user: str
    password: str | None


SECRETS = {
    "password": WORD,
    "PassWord2": WORD,
    "api_key": WORD,
    "_csrft_": WORD,
    "otp": WORD,
    "jwt": WORD,
    "bearer": WORD,
    "auth_token": {"inner": WORD},
    "deep": [{"a": ({"credentials": [WORD]},)}],
    "bytes": {b"secret": WORD, b"\xff secret": WORD},
    "pairs": [("password", WORD), ["token", WORD]],
    "object": User("ada", WORD),
    "tuple": Pair("ada", WORD),
    "set": frozenset({("secret", WORD)}),
    "address": f"postgresql://ada:{WORD.replace(' ', '')}@localhost/site",
    "odd address": f"see https://ada:{WORD}/@localhost",
    "ordered": OrderedDict(secret=WORD),
}


@pytest.mark.parametrize("key", SECRETS)
def test_secrets_are_hidden(key):
    """What looks like a secret by the name under which it is, or is a login in an address, is hidden at any depth."""
    shown = repr(without_secrets(key, SECRETS[key]))

    assert WORD not in shown
    assert WORD.replace(" ", "") not in shown
    assert "…" in shown


VALUES = [
    ("text", "'text'"),
    (1, "1"),
    (True, "True"),
    (None, "None"),
    (1.5, "1.5"),
    (Decimal("1.50"), "Decimal('1.50')"),
    (UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
    (date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
    (datetime(2026, 1, 2, tzinfo=timezone.utc), "datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)"),
    (timedelta(1), "datetime.timedelta(days=1)"),
    (b"bytes", "<5 bytes>"),
    ({"b": [1, (2,)], "a": {3}}, "{'b': [1, (2,)], 'a': set(3)}"),
    (["a", "b"], "['a', 'b']"),
    (("user", 1), "('user', 1)"),
    (frozenset({2, 1}), "frozenset(1, 2)"),
    (Hostile("text"), "'text'"),
    (Slotted(), f"<{__name__}.Slotted>"),
    (Lazy(), f"<{__name__}.Lazy>"),
    (int, "<builtins.type>"),
    (Pair("ada", None), f"{{<{__name__}.Pair>: {{'user': 'ada', 'password': None}}}}"),
    ({"has_password": True, "password": None}, "{'has_password': True, 'password': None}"),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=lambda value: type(value).__name__)
def test_values_are_shown(value, shown):
    """Values are shown as Python has them; of an object its type and its attributes, without any code of its own."""
    assert repr(without_secrets("name", value)) == shown


def test_an_object_is_shown_by_its_attributes():
    """Of an object there are its type and its attributes."""
    shown = repr(without_secrets("name", User("ada", WORD)))

    assert shown == f"{{<{__name__}.User>: {{'name': 'ada', 'password': … (hidden)}}}}"
    assert "Colour" in repr(without_secrets("name", Colour.RED))


def test_what_is_large_is_cut():
    """A long text, many members, many lines and a great depth are cut, and that is said."""
    deep = []
    for _ in range(DEPTH + 10):
        deep = [deep]
    holds_itself = {}
    holds_itself["me"] = holds_itself
    (many,) = rows_of({}, {"many": list(range(1000, 1000 + MEMBERS + 5))})
    (long,) = rows_of({}, {"long": {str(number): "x" * 70 for number in range(LINES + 5)}})

    assert without_secrets("name", "x" * (CHARACTERS + 5)) == "x" * CHARACTERS + "… 5 more characters"
    assert len(many.lines) == LINES + 1
    assert long.lines[-1] == ("+", "… 7 more lines")
    assert repr(without_secrets("name", [0] * (MEMBERS + 5))).endswith("… 5 more members]")
    assert "… 5 more keys: …" in repr(without_secrets("name", dict.fromkeys(range(MEMBERS + 5))))
    assert "…" in repr(without_secrets("name", deep))
    assert "…" in repr(without_secrets("name", holds_itself))


def test_what_has_changed():
    """What has changed comes first, line by line; a change in what is hidden is said, and shows nothing."""
    before = {"same": 1, "cart": {"apples": 1, "pears": 2}, "gone": "x", "password": "one", "one": 1}
    now = {"same": 1, "cart": {"apples": 1, "pears": 3}, "password": "two", "new": None, "one": True}
    rows = {row.key: row for row in rows_of(before, now)}

    assert [(row.key, row.status) for row in rows.values()] == [
        ("cart", "changed"),
        ("gone", "removed"),
        ("new", "added"),
        ("one", "changed"),
        ("password", "changed"),
        ("same", "same"),
    ]
    assert rows["cart"].lines == [("-", "{'apples': 1, 'pears': 2}"), ("+", "{'apples': 1, 'pears': 3}")]
    assert (rows["password"].lines, rows["password"].is_hidden) == ([(" ", "… (hidden)")], True)
    assert rows["one"].lines == [("-", "1"), ("+", "True")]
    assert not rows["cart"].is_hidden


def test_only_the_lines_that_differ():
    """Of a long value only the lines that differ are marked."""
    before = {f"item {number}": "x" * 40 for number in range(4)}
    (row,) = rows_of({"cart": before}, {"cart": {**before, "item 2": "y"}})

    assert [sign for sign, _ in row.lines] == [" ", " ", " ", "-", "+", " ", " "]
