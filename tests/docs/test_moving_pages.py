"""docs/moving/beaker.rst and pyramid_beaker.rst: examples are run, tables compared with the code."""

from __future__ import annotations

import configparser
import inspect
import json

import pyramid_beaker
import pytest
from beaker.session import CookieSession, Session
from paste.deploy import loadapp
from webtest import TestApp

import beaker_bridge
from beaker_bridge.cli.effective import option_text
from beaker_bridge.options.table import SESSION_TABLE
from tests import command_page
from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

BEAKER = pages.read("moving/beaker")
PYRAMID_BEAKER = pages.read("moving/pyramid_beaker")
INI = pages.examples(BEAKER)
#: Names that stand for a family of options, or for Beaker's own words.
NO_SIGNATURE = {"auto", "webtest_varname", "lock_dir", "url", "sa.*", "log_file"}


OPTIONS = {row[0].strip("`"): row[1:] for row in pages.cells(BEAKER) if row[0].startswith("`")}


# -- From Beaker's filter ----------------------------------------------------------------------------


def test_each_of_beakers_options_is_in_the_table():
    """The table has each argument of Beaker's sessions, and no option that we do not know."""
    beakers = {*inspect.signature(Session).parameters, *inspect.signature(CookieSession).parameters}
    beakers -= {"request", "id", "namespace_args", "kwargs"}

    assert OPTIONS.keys() - NO_SIGNATURE == beakers
    assert OPTIONS.keys() - {"sa.*"} <= set(SESSION_TABLE)


@pytest.mark.parametrize("option", sorted(OPTIONS.keys() - NO_SIGNATURE))
def test_the_defaults_are_those_of_the_code(option):
    """Both defaults are true, and bold where they differ."""
    beakers, ours, _ = OPTIONS[option]
    default = inspect.signature(Session).parameters[option].default

    assert beakers.strip("`") == ("none" if default is None else str(default))
    assert ours.strip("`*").lower() == (option_text(SESSION_TABLE[option].default) or "none").lower()
    assert ours.startswith("**") == (ours.strip("`*") != beakers.strip("`"))


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a WSGI site from sections of an ``.ini``, all on the same files."""

    def make(*names):
        ini = configparser.RawConfigParser()
        for name in names:
            ini.read_string(INI[name])
        ini["app:main"]["use"] = f"call:{__name__}:main"
        file = tmp_path / "site.ini"
        with file.open("w") as written:
            ini.write(written)
        return TestApp(loadapp(f"config:{file}"))

    return make


def main(global_config, **settings):
    """Return a site that keeps a list of who was seen, by Beaker's session in the environ."""

    def application(environ, start_response):
        session = environ["beaker.session"]
        session["seen"] = [*session.get("seen", []), environ["PATH_INFO"]]
        session.save()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(session["seen"]).encode()]

    application.settings = settings
    return application


def test_the_filter_is_replaced_and_put_back(load):
    """A session of Beaker's filter goes on under ours, and back under Beaker's; the application does not change."""
    old, new = load("before"), load("replaced", "included")
    new.cookiejar = old.cookiejar
    old.get("/1")
    new.get("/2")

    assert old.get("/3").json == ["/1", "/2", "/3"]
    assert new.get("/4").json == ["/1", "/2", "/3", "/4"]
    assert new.app.app.settings == {"pyramid.includes": "beaker_bridge"}


# -- From pyramid_beaker -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_compares(tmp_path):
    """The command that the page begins with says what changes for a site."""
    (line,) = pages.examples(PYRAMID_BEAKER)["check"].splitlines()

    assert "what a move from pyramid_beaker to beaker_bridge" in command_page.run(
        line.removeprefix("$ "), tmp_path / "site"
    )


def test_what_differs():
    """Each difference says what, why, and what to do."""
    _, _, table = PYRAMID_BEAKER.partition("What differs, and why\n")
    rows = [row for row in pages.cells(table) if row[0] != "What differs"]

    assert len(rows) >= 43
    assert all(len(row) == 3 and all(cell.endswith((".", "above")) for cell in row) for row in rows)


@pytest.mark.parametrize("name", ["session_factory_from_settings", "BeakerSessionFactoryConfig", "includeme"])
def test_the_names(name):
    """What the page says is the same in both packages is there in both."""
    assert f"beaker_bridge.{name}`" in PYRAMID_BEAKER
    assert callable(getattr(beaker_bridge, name))
    assert callable(getattr(pyramid_beaker, name))
