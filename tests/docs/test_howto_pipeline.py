"""Every example in docs/howto/pipeline.rst is run."""

from __future__ import annotations

import re
import subprocess

import pytest
from pyramid import testing
from pyramid.interfaces import ISessionFactory

from tests.docs import pages
from tests.docs.sites import Started, missing_packages, words_of
from tests.live_site import Site, Visitor
from tests.servers import free_port

# The examples of a page: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian")]

BLOCKS = pages.examples(pages.read("howto/pipeline"))


def visits(browser):
    """Visit a site twice, and return what it says."""
    return [browser.get("/").text for _ in range(2)]


@pytest.mark.parametrize("ini", ["pipeline", "chain", "settings", "beaker"])
def test_the_ways(ini, scratch):
    """Each way of installing counts visits, in files, with one cookie of the given name."""
    browser = scratch.load(BLOCKS[ini], __init__=BLOCKS["view"])

    assert visits(browser) == ["visit 1", "visit 2"]
    assert list(browser.cookies) == ["myapp"]
    assert len(list((scratch.folder / "data/sessions/container_file").rglob("*.cache"))) == 1


def test_the_factory(scratch):
    """The session factory alone does the same from the application's settings."""
    ini = BLOCKS["settings"].replace("pyramid.includes = beaker_bridge\n", "")

    assert visits(scratch.load(ini, __init__=BLOCKS["factory"], views=BLOCKS["view"])) == ["visit 1", "visit 2"]


def test_without_paste_deploy(scratch, monkeypatch):
    """An application that wraps itself has sessions."""
    monkeypatch.chdir(scratch.folder)
    scratch.write(__init__=BLOCKS["view"])
    names = {}
    exec(BLOCKS["wrap"], names)

    assert visits(scratch.browser(names["application"])) == ["visit 1", "visit 2"]


def test_a_subclass(scratch):
    """The subclass is a session factory, and keeps the language when a session ends."""
    ini = BLOCKS["settings"].replace("pyramid.includes = beaker_bridge\n", "")
    browser = scratch.load(ini, __init__=BLOCKS["subclass"], views=BLOCKS["view"])
    session = scratch.application.registry.getUtility(ISessionFactory)(testing.DummyRequest())
    session.update(language="eo", user="x")
    session.invalidate()

    assert visits(browser) == ["visit 1", "visit 2"]
    assert dict(session) == {"language": "eo"}


def test_what_is_installed_is_there():
    """The names that pip is given are those of packages."""
    assert missing_packages(BLOCKS["install"].strip()) == []


def test_the_secret():
    """The command prints a secret of 64 digits."""
    said = subprocess.run(words_of(BLOCKS["secret"]), capture_output=True, text=True, check=True)

    assert re.fullmatch(r"[0-9a-f]{64}\n", said.stdout)


@pytest.mark.slow
def test_the_site_is_served(scratch):
    """pserve serves the site of the first example."""
    port = free_port()
    scratch.write(__init__=BLOCKS["view"])
    scratch.ini(BLOCKS["pipeline"].replace("6543", str(port)))
    with Started(scratch.folder, words_of(BLOCKS["serve"]), port):
        visitor = Visitor(Site(f"http://localhost:{port}", None))

        assert [visitor.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
