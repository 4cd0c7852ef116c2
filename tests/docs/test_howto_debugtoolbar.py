"""Every example in docs/howto/debugtoolbar.rst is run."""

from __future__ import annotations

import re

import pytest

from beaker_bridge.regions.define import Region
from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # As in tests/sites/test_debugtoolbar.py: pyramid_debugtoolbar 4.12 compiles templates with old escapes.
    pytest.mark.filterwarnings("ignore:invalid escape sequence:SyntaxWarning"),
]

BLOCKS = pages.examples(pages.read("howto/debugtoolbar"))
VIEW = pages.examples(pages.read("howto/pipeline"))["view"].replace(
    'renderer="string")', 'renderer="string", decorator=html)'
)
#: The toolbar is shown on HTML pages alone.
HTML = """
def html(view):
    def answer(context, request):
        response = view(context, request)
        response.content_type = "text/html"
        response.text = f"<html><body>{response.text}</body></html>"
        return response
    return answer
"""


def test_the_panel(scratch, monkeypatch):
    """The toolbar has the panel, which shows what the request has put into its session."""
    monkeypatch.setattr(Region, "namespace_class", Region.namespace_class)
    browser = scratch.load(BLOCKS["toolbar"], __init__=HTML + VIEW)
    page = browser.get("/", extra_environ={"REMOTE_ADDR": "127.0.0.1"}).text
    (path,) = set(re.findall(r"http://localhost(/_debug_toolbar/[0-9a-f]+)", page))
    toolbar = browser.get(path, extra_environ={"REMOTE_ADDR": "127.0.0.1"}).text

    assert "Beaker session" in toolbar
    assert "visits" in toolbar


def test_the_extra():
    """The package has the extra that the page names."""
    metadata = (pages.DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")

    assert BLOCKS["install"] == 'pip install "beaker_bridge[debugtoolbar]"\n'
    assert re.search("^debugtoolbar = ", metadata, re.MULTILINE)
