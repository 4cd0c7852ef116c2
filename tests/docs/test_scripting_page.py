"""Every example in docs/howto/scripting.rst is run."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.paster import get_app
from webtest import TestApp

from beaker_bridge.scripting import SiteSessions, sessions
from tests.docs import pages
from tests.installations import SECRET, Views
from tests.sites.test_scripting import run

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGE = pages.read("howto/scripting")
BLOCKS = pages.examples(PAGE)

INI = f"""
[app:main]
paste.app_factory = tests.docs.test_scripting_page:make_site
pyramid.includes = beaker_bridge
filter-with = session

[filter:session]
use = egg:beaker_bridge#session
type = file
data_dir = %(here)s/sessions
key = sid
secret = {SECRET}
"""


def make_site(_global_config, **settings):
    """Return a site with credits."""
    config = Configurator(settings=settings)

    def begin(request):
        request.session["credits"] = 0
        request.session.bind(42, note={"browser": "Firefox"})
        return request.session.id

    Views(begin=begin, messages=lambda request: request.session.pop_flash())(config)
    config.add_view(lambda request: dict(request.session), renderer="json")
    return config.make_wsgi_app()


@pytest.fixture
def path(tmp_path):
    """Return the site's ``.ini``."""
    path = tmp_path / "production.ini"
    path.write_text(INI, encoding="utf-8")
    return path


@pytest.fixture
def browser(path):
    """Return a browser of the site."""
    return TestApp(get_app(str(path)))


@pytest.fixture
def session_id(browser):
    """Return the id of its session."""
    return browser.get("/begin").text


@pytest.fixture
def script(tmp_path, path, session_id):
    """Return a function that runs a script of the page as a process, with the arguments that its first line names."""

    def run_script(block):
        file = tmp_path / f"{block}.py"
        file.write_text(BLOCKS[block], encoding="utf-8")
        assert f"python {file.name} production.ini SESSION_ID" in BLOCKS[block]
        return run(file, path, session_id)

    return run_script


@pytest.fixture
def names():
    """Return the functions of the page's examples that are no scripts of their own."""
    names = {"sessions": sessions}
    for block in ("read", "flash", "end", "user", "broadcast"):
        exec(BLOCKS[block], names)
    return names


@pytest.mark.once
@pytest.mark.slow
def test_the_first_script(script, browser):
    """The first script gives a session ten credits, each time that it is run."""
    script("grant")
    script("grant")

    assert browser.get("/").json["credits"] == 20


def test_a_session_is_read(names, path, session_id):
    """The report says since when there is a session, or that there is none."""
    found = names["report"](path, session_id)

    assert re.fullmatch(r"since \d+, last seen \d+\.\d+: \['credits'\]", found)
    assert names["report"](path, "0" * 32) == "no such session"


def test_a_message(names, path, browser, session_id):
    """The browser gets the script's message."""
    names["notify"](path, session_id)

    assert browser.get("/messages").text == "['Your export is ready.']"


def test_a_logout(names, path, browser, session_id):
    """The session is ended, and then there is none."""
    assert [names["log_out"](path, session_id), names["log_out"](path, session_id)] == [True, False]
    assert browser.get("/").json == {}


def test_a_users_browsers(names, path, browser, session_id):
    """The user's browsers are listed with the time of their login, and all of them are logged out."""
    ((name, created),) = names["list_browsers"](path, "42")

    assert name == "Firefox"
    assert abs(created - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert [names["log_out_everywhere"](path, 42), names["log_out_everywhere"](path, 42)] == [1, 0]
    assert browser.get("/").json == {}


def test_a_message_to_all(names, path, browser, session_id, monkeypatch):
    """The message reaches each browser of the user; one that logs out meanwhile is left out."""
    other = TestApp(browser.app)
    other.get("/begin")
    listed = SiteSessions.user_sessions

    def late(site, user_id):
        found = listed(site, user_id)
        site.revoke_one(found[0].handle)
        return found

    names["tell_everywhere"](path, 42, "Hello")
    both = [each.get("/messages").text for each in (browser, other)]
    monkeypatch.setattr(SiteSessions, "user_sessions", late)
    names["tell_everywhere"](path, 42, "Hello again")
    left = [each.get("/messages").text for each in (browser, other)]

    assert both == ["['Hello']"] * 2
    assert sorted(left) == ["['Hello again']", "[]"]


@pytest.mark.once
@pytest.mark.slow
def test_pshell(path, browser, session_id, script):
    """The page shows what pshell answers."""
    script("grant")
    command, *lines = BLOCKS["pshell"].strip().splitlines()
    typed = [line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")]
    said = run("-m", "pyramid.scripts.pshell", path, text="\n".join([f"session_id = {session_id!r}", *typed, ""]))

    assert command == "$ pshell production.ini"
    answers = [line for line in lines if not line.startswith(">>> ")]
    assert re.findall(r"^(?:>>> )+(\{.*)$", said, re.MULTILINE) == answers
    assert browser.get("/").json["credits"] == 15


@pytest.mark.once
@pytest.mark.slow
def test_a_view_in_a_script(script):
    """A view that is called in a script sees the session of the id."""
    script("grant")

    assert script("render") == '{"credits": 10}\n'
