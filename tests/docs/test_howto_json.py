"""Every example in docs/howto/json.rst is run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

BLOCKS = pages.examples(pages.read("howto/json"))
SITE = """
from pyramid.config import Configurator

{convert}

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("old", "/old")
    config.add_view(lambda request: request.session.update(cart={{7: 2}}), route_name="old", renderer="json")
    config.add_route("new", "/new")
    config.add_view(cart_of, route_name="new", renderer="json")
    config.add_view(lambda request: dict(request.session), renderer="json")
    return config.make_wsgi_app()
"""
#: The steps that follow.
NEXT = ("data_serializer = json", "legacy_serializer = pickle")


def test_what_json_refuses(scratch, caplog):
    """The log names the key, the value is converted where it is read, and the next step reads the session as JSON."""
    site = SITE.format(convert=BLOCKS["convert"])
    browser = scratch.load(BLOCKS["find"], __init__=site)
    browser.get("/old")
    named = [line for line in caplog.messages if BLOCKS["warning"].strip() in line]
    caplog.clear()
    converted = browser.get("/new").json
    ini = BLOCKS["find"].replace("data_serializer = pickle", NEXT[0]).replace("legacy_serializer = json", NEXT[1])
    cookies = SimpleNamespace(**browser.cookies)
    browser = scratch.load(ini, __init__=site)
    browser.set_cookie("myapp", cookies.myapp)
    browser.get("/new")

    assert len(named) == 1
    assert converted == browser.get("/").json["cart"] == {"7": 2}
    assert [line for line in caplog.messages if "cannot be stored" in line] == []
