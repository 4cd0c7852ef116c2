"""docs/reference/logs.rst and exceptions.rst against the code: loggers, fields, and the words for what failed."""

from __future__ import annotations

import ast
import gc
import inspect
import logging
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from beaker_bridge import events
from beaker_bridge.exceptions import BeakerBridgeError
from tests.docs import pages
from tests.requests import Browser, config_of

# Pages and sources: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGE = pages.read("reference/logs")
BLOCKS = pages.examples(PAGE)
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "beaker_bridge").rglob("*.py"))}
#: The methods of a logger.
METHODS = ("debug", "info", "warning", "error", "exception", "critical", "log")


def logger_of(path):
    """Return the name of a module's logger."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def logs_of(tree):
    """Return the calls in a module that write to its logger."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if (
            isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id in ("log", "logger")
            and call.func.attr in METHODS
        )
    ]


@pytest.mark.parametrize("path", [path for path, tree in SOURCES.items() if logs_of(tree)], ids=logger_of)
def test_every_line_has_its_fields_and_no_id(path):
    """Each call that logs passes all of the fields, and no id of a session that is not shortened."""
    for call in logs_of(SOURCES[path]):
        extra = {word.arg: ast.unparse(word.value) for word in call.keywords}.get("extra", "")
        passed = [ast.unparse(argument) for argument in call.args[1:]]

        assert re.match(r"fields\(|self\._fields\(|extra$", extra), f"{path}:{call.lineno}"
        assert [text for text in passed if re.search(r"\b(session_)?id\b", re.sub(r"shown\([^()]*\)", "", text))] == []
        assert not isinstance(call.args[0], ast.JoinedStr), f"{path}:{call.lineno}"


def subclasses(kind):
    """Return a class and all that derive from it."""
    return [kind, *(found for sub in kind.__subclasses__() for found in subclasses(sub))]


def test_every_word_is_on_the_page():
    """The page has each word that says what failed, in errors and in log lines; and no other one."""
    table = pages.read("reference/exceptions").partition(".. failures\n")[2].partition(".. end of failures\n")[0]
    documented = re.findall(r"^``(\w+)``", table, re.MULTILINE)
    gc.collect()
    of_errors = {kind.failure for kind in subclasses(BeakerBridgeError) if kind.__module__.startswith("beaker_bridge.")}
    in_sources = {
        match
        for tree in SOURCES.values()
        for match in re.findall(r"failure='(\w+)'|failure = '(\w+)'", ast.unparse(tree))
        for match in match
        if match
    }
    # What a region's lines say.
    in_sources |= {"unpicklable", "conflict"}

    assert set(documented) == of_errors | in_sources
    assert len(documented) == len(set(documented))


@pytest.mark.parametrize("kind", subclasses(events.SessionEvent) + subclasses(events.StoreEvent))
def test_every_event_says_what_it_carries(kind):
    """The page shows the docstring of each event, which has all of its attributes."""
    names = inspect.signature(kind).parameters
    documented = re.findall(r"^    (\w+): ", inspect.getdoc(kind) or "", re.MULTILINE)

    assert documented == list(names) or kind.__init__ is kind.__base__.__init__


def test_the_formatter(caplog):
    """The example's formatter writes the fields of a line."""
    parser = ConfigParser(interpolation=None)
    parser.read_string(BLOCKS["formatter"])
    formatter = logging.Formatter(parser["formatter_generic"]["format"])
    config = config_of(secret="s" * 32)
    caplog.set_level(logging.DEBUG, "beaker_bridge")
    browser = Browser(config)
    browser.write(a=1)
    first, second = browser.begin(), browser.begin()
    first.session["a"], second.session["a"] = 2, 3
    first.commit()
    second.commit()
    lines = [formatter.format(record) for record in caplog.records if record.name == "beaker_bridge.session.session"]

    assert [line.partition("store=")[2] for line in lines] == ["memory failure=conflict tries=2"]
    assert second.loaded.id[:6] in lines[0]
