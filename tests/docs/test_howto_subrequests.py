"""Every example in docs/howto/subrequests.rst is run."""

from __future__ import annotations

import pytest
from webtest import TestApp

from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

BLOCKS = pages.examples(pages.read("howto/subrequests"))


@pytest.fixture
def browser():
    """Return a browser of a site of the page's views."""

    def add_routes_and_views(config):
        for name in ("dashboard", "news", "page", "advert", "as_a_stranger", "whoami"):
            config.add_route(name, f"/{name}")
            config.add_view(names[name], route_name=name, renderer=None if name == "as_a_stranger" else "json")

    names = {"add_routes_and_views": add_routes_and_views, "whoami": lambda request: dict(request.session)}
    for block in BLOCKS.values():
        exec(block, names)
    settings = {"pyramid.includes": "beaker_bridge", "session.type": "memory", "session.key": "sid"}
    return TestApp(names["main"]({}, **settings))


def test_one_session(browser):
    """Both views share the session, and one cookie is sent."""
    answer = browser.get("/dashboard")

    assert answer.json == {"news": ["one", "two", "three"], "unread": 3}
    assert len(answer.headers.getall("Set-Cookie")) == 1
    assert browser.get("/whoami").json == {"seen": "dashboard", "unread": 3}


def test_a_subrequest_that_fails(browser):
    """What the outer view has changed is saved."""
    assert browser.get("/page").json == {"advert": ""}
    assert browser.get("/whoami").json == {"page": "seen"}


def test_a_request_for_somebody_else(browser):
    """It has a session of its own."""
    browser.get("/page")

    assert browser.get("/as_a_stranger").json == {}
