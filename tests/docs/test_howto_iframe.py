"""Every example in docs/howto/iframe.rst is run; ``tests/browser`` has the iframe itself."""

from __future__ import annotations

import re

import pytest

from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian")]

BLOCKS = pages.examples(pages.read("howto/iframe"))
VIEW = pages.examples(pages.read("howto/pipeline"))["view"]


def test_the_page(scratch):
    """The cookie is as the page has it, and the header says who may embed the page."""
    browser = scratch.load(BLOCKS["iframe"], __init__=VIEW, ancestors=BLOCKS["ancestors"])
    answer = browser.get("/")
    cookie = re.sub("=[0-9a-f]+;", "=…;", answer.headers["Set-Cookie"])

    assert BLOCKS["cookie"] == f"Set-Cookie: {cookie}\n"
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self' https://partner.example.com"


def test_a_page_with_a_policy_of_its_own(scratch):
    """Who may embed the page is said beside what the page itself forbids."""
    start = "    session = request.session\n"
    policy = """    request.response.headers["Content-Security-Policy"] = "script-src 'none'"\n"""
    view = VIEW.replace(start, start + policy)
    browser = scratch.load(BLOCKS["iframe"], __init__=view, ancestors=BLOCKS["ancestors"])
    policies = browser.get("/").headers.getall("Content-Security-Policy")

    assert policies == ["script-src 'none'", "frame-ancestors 'self' https://partner.example.com"]
