"""Every example in docs/howto/login.rst is run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from webtest import TestApp

from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian")]

BLOCKS = pages.examples(pages.read("howto/login"))
#: What a site has beside: its users, and a page with a form.
SITE = """
from types import SimpleNamespace

def find_user(user_id):
    return SimpleNamespace(id=user_id)

def check_password(name, password):
    return find_user(name) if password == "right" else None

@view_config(route_name="home", renderer="json")
def home(request):
    session = request.session
    shown = {"flash": session.pop_flash(), "token": session.get_csrf_token(), "may": bool(request.has_permission("x"))}
    session.setdefault("cart", 1)
    return shown

@view_config(route_name="session", renderer="json")
def session(request):
    return dict(request.session)
"""
INI = """
[app:main]
use = call:myapp:main
pyramid.includes = beaker_bridge
session.type = memory
session.key = sid
"""


@pytest.fixture
def browser(scratch):
    """Return a browser that has visited the site."""
    text = "\n".join([BLOCKS["policy"], BLOCKS["views"], SITE, BLOCKS["main"]])
    text = text.replace("config.scan()", "config.add_route('session', '/session')\n        config.scan()")
    browser = scratch.load(INI, __init__=text)
    browser.get("/")
    return browser


def token(browser):
    """Return the session's CSRF token."""
    return browser.get("/").json["token"]


def log_in(browser, **fields):
    """Log in."""
    return browser.post("/login", {"name": "ann", "password": "right", "csrf_token": token(browser), **fields})


def test_a_login(browser):
    """The session has a new id and a new token; the old cookie opens nothing."""
    before = SimpleNamespace(cookie=browser.cookies["sid"], token=token(browser))
    answer = log_in(browser)
    old = TestApp(browser.app)
    old.set_cookie("sid", before.cookie)

    assert answer.location == "http://localhost/"
    assert "Max-Age" not in answer.headers["Set-Cookie"]
    assert browser.get("/account").json == {"user": "ann"}
    assert (browser.get("/").json["may"], token(browser) == before.token) == (True, False)
    assert old.get("/account").json == {"user": None}


def test_a_wrong_password(browser):
    """It is a message, and nobody is logged in."""
    log_in(browser, password="wrong")

    assert browser.get("/").json["flash"] == ["Wrong name or password."]
    assert browser.get("/account").json == {"user": None}


def test_a_login_that_stays(browser):
    """Its cookie outlives the browser."""
    assert "Max-Age=2592000" in log_in(browser, stay="1").headers["Set-Cookie"]


def test_a_login_over_another_one(browser):
    """A visitor's cart moves along; what another user has left in the session, and its lifetime, do not."""
    log_in(browser, stay="1")
    kept = browser.get("/session").json
    over = log_in(browser, name="bob")
    left = browser.get("/session").json

    assert kept["cart"] == 1
    assert "cart" not in left
    assert browser.get("/account").json == {"user": "bob"}
    assert "Max-Age" not in over.headers["Set-Cookie"]


def test_a_logout(browser):
    """It ends the session, also for a copy of its cookie, and the message is in a new one."""
    log_in(browser)
    copy = TestApp(browser.app)
    copy.set_cookie("sid", browser.cookies["sid"])
    browser.post("/logout", {"csrf_token": token(browser)})

    assert browser.get("/").json["flash"] == ["You are logged out."]
    assert [each.get("/account").json["user"] for each in (browser, copy)] == [None, None]


def test_only_a_post_with_a_token(browser):
    """A link, or a form without the token, logs nobody in or out."""
    log_in(browser)
    browser.get("/logout", status=404)
    browser.post("/logout", status=400)
    browser.post("/login", {"name": "eve", "password": "right"}, status=400)

    assert browser.get("/account").json == {"user": "ann"}


def test_the_back_button(browser):
    """Pages of users who are logged in are kept by no cache."""
    assert "no-store" in browser.get("/account").headers["Cache-Control"]
