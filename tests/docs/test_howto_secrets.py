"""The steps in docs/howto/secrets.rst are rolled over two processes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from paste.deploy import loadapp

from beaker_bridge.options.table import SESSION_TABLE
from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

PAGE = pages.read("howto/secrets")
BLOCKS = pages.examples(PAGE)
SITE = """
from pyramid.config import Configurator

def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return str(request.session["visits"])

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_view(visit, renderer="string")
    return config.make_wsgi_app()
"""
APP = "[app:main]\nuse = call:myapp:main\npyramid.includes = beaker_bridge\nfilter-with = session\n\n"
#: Before the first step.
STEP0 = BLOCKS["step1"].partition("previous_secrets")[0]


@pytest.fixture
def visit(scratch):
    """Return a function by which one browser visits the site under a configuration: each is a process of its own."""
    scratch.write(__init__=SITE)
    cookies = {}

    def visit(ini):
        browser = scratch.browser(loadapp(f"config:{scratch.ini(APP + ini)}"))
        for name, value in cookies.items():
            browser.set_cookie(name, value)
        said = browser.get("/").text
        cookies.update({name: value.strip('"') for name, value in browser.cookies.items()})
        return int(said)

    return visit


def test_the_steps(visit):
    """Processes of two neighbouring steps share each session, in whichever order they are asked."""
    steps = [STEP0, *(BLOCKS[f"step{number}"] for number in (1, 2, 3))]
    visits = [visit(step) for one, other in pairwise(steps) for step in (one, other, one, other)]

    assert visits == list(range(1, 13))


def test_the_first_step_is_needed(visit):
    """Without it, a process that still has the old secret alone knows no session that the new one has signed."""
    assert [visit(STEP0), visit(BLOCKS["step2"]), visit(STEP0)] == [1, 2, 1]


def test_a_stolen_secret(visit):
    """With the third step alone everybody begins anew."""
    assert [visit(STEP0), visit(BLOCKS["step3"])] == [1, 1]


def test_several_secrets(visit):
    """Retired secrets are on lines of their own."""
    three = BLOCKS["step3"] + "previous_secrets =\n    another old secret, a random text of 32 bytes\n    "

    assert [visit(STEP0), visit(three + STEP0.partition("secret = ")[2])] == [1, 2]


def test_the_other_keys():
    """The options that the page names are options."""
    words = ("previous_validate_keys", "previous_encrypt_keys", "previous_sign_algorithms")

    assert all(f"``{word}``" in PAGE and word in SESSION_TABLE for word in words)
