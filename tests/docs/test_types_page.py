"""docs/howto/types.rst: its views, which tests/typing_tests has for the type checkers, are run."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from webtest import TestApp

from beaker_bridge import PyramidSession, SessionMiddleware
from beaker_bridge.pyramid import isession
from beaker_bridge.session.attributes import BEAKERS, Absent, BeakerAttributes
from tests.docs import pages
from tests.installations import SECRET

TYPED = Path(__file__).parents[1] / "typing_tests"
BLOCKS = pages.examples(pages.read("howto/types"))


def test_the_views_are_those_that_are_checked():
    """What the page shows is what mypy and pyright check."""
    assert BLOCKS["views"] == (TYPED / "views.py").read_text(encoding="utf-8")


def test_the_views_run(monkeypatch):
    """The page's request class is the request factory, and its views use their session."""
    monkeypatch.syspath_prepend(TYPED)
    # Imported for this test alone.
    monkeypatch.setitem(sys.modules, "views", None)
    monkeypatch.delitem(sys.modules, "views")
    names = {}
    exec(BLOCKS["factory"], names)
    app = TestApp(SessionMiddleware(names["main"]({}), type="memory", secret=SECRET))

    assert app.get("/cart").json == ["tea"]
    assert app.get("/cart").json == ["tea", "tea"]
    assert [app.get("/vote").json for _ in range(2)] == [1, 2]
    with pytest.raises(KeyError, match="user"):
        app.get("/where")


def test_what_is_forwarded_is_declared():
    """A type checker sees each attribute that is forwarded to Beaker's session, and no other one."""
    tree = ast.parse(Path(isession.__file__).read_text(encoding="utf-8"))
    (session,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == PyramidSession.__name__]
    (block,) = [node for node in session.body if isinstance(node, ast.If)]
    declared = {getattr(node, "name", None) or node.target.id for node in block.body}
    forwarded = {
        name for name in BEAKERS if not (name.startswith("_") or isinstance(vars(BeakerAttributes)[name], Absent))
    }

    assert {name for name in declared if not name.startswith("_")} == {
        *forwarded,
        *("is_new", "was_invalidated", "accessed", "load"),
    }
