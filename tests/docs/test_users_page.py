"""Every example in docs/howto/users.rst is run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from beaker_bridge import SessionMiddleware
from tests.docs import pages
from tests.installations import store_options

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGE = pages.read("howto/users")
BLOCKS = pages.examples(PAGE)
PATHS = {
    "/login": "login",
    "/logout": "logout",
    "/out-there": "log_out_there",
    "/elsewhere": "log_out_elsewhere",
    "/password": "change_password",
    "/lock/{user}": "lock_user",
    "/login-three": "login_where_three_are_enough",
    "/login-one": "login_that_asks",
}


@pytest.fixture
def browser(tmp_path):
    """Return a function that begins a browser of a site of the page's views, logged in if it gets a path."""
    passwords = {"ann": "old"}

    def find_user(name, password):
        return SimpleNamespace(id=name) if passwords.get(name) == password else None

    names = {"find_user": find_user, "set_password": passwords.__setitem__}
    for block in BLOCKS.values():
        exec(block, names)
    config = Configurator()
    config.include("beaker_bridge")
    names["includeme"](config)
    for path, view in PATHS.items():
        config.add_route(view, path)
        config.add_view(names[view], route_name=view)
    config.add_route("where", "/where")
    config.add_view(names["where"], route_name="where", renderer="json")
    config.add_route("home", "/")
    config.add_view(
        lambda request: {"user": request.session.get("user"), "told": request.session.pop_flash()},
        route_name="home",
        renderer="json",
    )
    site = SessionMiddleware(config.make_wsgi_app(), **store_options("memory", tmp_path))

    def begin(path=None, name="ann", password="old"):
        app = TestApp(site)
        if path is not None:
            app.post(path, {"name": name, "password": password}, {"User-Agent": "Firefox"})
        return app

    yield begin
    begin("/login-three", "nobody").get("/lock/ann")


def user(app):
    """Return the user who is logged in."""
    return app.get("/").json["user"]


def test_log_in_and_out(browser):
    """The login lists the session with its note, a wrong one does not; the logout ends it."""
    wrong, app = browser("/login", password="new"), browser("/login")
    (session,) = app.get("/where").json["sessions"]
    app.post("/logout")

    assert user(wrong) is None
    assert (session["browser"], session["is_this"]) == ("Firefox", True)
    assert user(app) is None


def test_log_out_there(browser):
    """One session is ended by its handle, and its browser is told so once; another user's handle ends nobody."""
    app, other = browser("/login"), browser("/login")
    stranger = browser("/login-three", "eve")
    handle = next(each["handle"] for each in app.get("/where").json["sessions"] if not each["is_this"])
    stranger.post("/out-there", {"handle": handle})
    before = user(other)
    app.post("/out-there", {"handle": handle})

    assert before == "ann"
    assert app.get("/").json == {"user": "ann", "told": ["That browser is logged out."]}
    assert other.get("/").json == {"user": None, "told": ["You were logged out elsewhere."]}
    assert other.get("/").json == {"user": None, "told": []}


def test_log_out_everywhere_else(browser):
    """All others are ended, and one's own stays; a change of the password does the same; a lock ends all."""
    app, others = browser("/login"), [browser("/login"), browser("/login")]
    app.post("/elsewhere")

    assert app.get("/").json == {"user": "ann", "told": ["2 other sessions are logged out."]}
    assert [user(other) for other in others] == [None, None]
    other = browser("/login")
    app.post("/password", {"password": "new"})
    assert (user(app), user(other), user(browser("/login"))) == ("ann", None, None)
    assert user(browser("/login", password="new")) == "ann"
    browser("/login-three", "admin").get("/lock/ann")
    assert user(app) is None


def test_limits(browser):
    """The fourth login ends the first, which is told why; where it asks, the second is sent away."""
    first, *others = [browser("/login-three") for _ in range(4)]

    assert first.get("/").json["told"] == ["You have logged in elsewhere."]
    assert [user(app) for app in others] == ["ann"] * 3
    one = browser("/login-one", "bob")
    assert browser().post("/login-one", {"name": "bob"}).location == "http://localhost/already-logged-in"
    assert one.post("/login-one", {"name": "bob"}).location == "http://localhost/"
    assert user(one) == "bob"
