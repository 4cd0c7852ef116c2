"""docs/explanation/json.rst: each value of its tables is stored and read again."""

from __future__ import annotations

import ast
import collections
import datetime as dt
import decimal
import enum
import uuid
import zoneinfo

import markupsafe
import pytest
from docutils import nodes
from docutils.core import publish_doctree
from translationstring import TranslationString

from beaker_bridge.exceptions import SessionValueError
from tests.docs.pages import read
from tests.requests import Browser, config_of

PAGE = read("explanation/json")


class Color(enum.IntEnum):
    RED = 1


class Size(str, enum.Enum):
    SMALL = "small"


NAMES = {
    **vars(dt),
    **vars(collections),
    "Color": Color,
    "Decimal": decimal.Decimal,
    "Markup": markupsafe.Markup,
    "Point": collections.namedtuple("Point", "x y"),  # noqa: PYI024 -- the one of the page
    "Size": Size,
    "TranslationString": TranslationString,
    "UUID": uuid.UUID,
    "ZoneInfo": zoneinfo.ZoneInfo,
}


def _values(cell):
    """Return the expressions in a cell that are values, and not names of types."""
    texts = [literal.astext() for literal in cell.findall(nodes.literal)]
    return [text for text in texts if not isinstance(ast.parse(text, mode="eval").body, (ast.Name, ast.Attribute))]


def _tables():
    tree = publish_doctree(PAGE, settings_overrides={"report_level": 5, "syntax_highlight": "none"})
    return [[row.children for row in table.findall(nodes.row)][1:] for table in tree.findall(nodes.table)]


KEPT, CHANGED, REFUSED = _tables()


@pytest.fixture
def browser():
    """Return a browser of a site with the default serializer."""
    return Browser(config_of(type="memory", key="sid", secret="a secret for tests, of 32 bytes or more"))


def _evaluated(text):
    return eval(text, dict(NAMES))


@pytest.mark.parametrize("text", [text for row in KEPT for text in _values(row[1])])
def test_what_comes_back_as_it_was(browser, text):
    """A value of the first table comes back equal, and of its type."""
    value = _evaluated(text)
    browser.write(value=value)
    found = browser.read()["value"]

    assert (found, type(found)) == (value, type(value))


def test_each_type_has_an_example():
    """Each type that the first table names has an example beside it."""
    named = {literal.astext() for row in KEPT for literal in row[0].findall(nodes.literal)}
    shown = {type(_evaluated(text)).__name__ for row in KEPT for text in _values(row[1])}

    assert {name.rpartition(".")[2].replace("None", "NoneType") for name in named} == shown


@pytest.mark.parametrize("row", CHANGED, ids=lambda row: row[0].astext())
def test_what_comes_back_as_something_else(browser, row, caplog):
    """A value of the second table comes back as the table says, and the log names its key."""
    stored, expected = row[0].next_node(nodes.literal).astext(), _evaluated(row[1].astext())
    browser.write(value=_evaluated(stored))
    found = browser.read()["value"]

    assert (found, type(found)) == (expected, type(expected))
    assert "session['value'] holds a" in caplog.text


@pytest.mark.parametrize("text", [text for row in REFUSED for text in _values(row[0])])
def test_what_is_refused(browser, text):
    """A value of the third table raises an error that names its key."""
    with pytest.raises(SessionValueError, match="value"):
        browser.write(value=_evaluated(text))


@pytest.mark.parametrize("text", [text for row in REFUSED for text in _values(row[1])])
def test_what_is_stored_instead(browser, text):
    """What the third table advises is stored."""
    browser.write(value=_evaluated(text))

    assert browser.read() == {"value": _evaluated(text)}
