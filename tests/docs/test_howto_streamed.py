"""Every example in docs/howto/streamed.rst is run."""

from __future__ import annotations

import pytest
from pyramid.response import Response
from webtest import TestApp

from beaker_bridge import SessionTooLateError
from tests.docs import pages
from tests.installations import Views, data, install

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

BLOCKS = pages.examples(pages.read("howto/streamed"))


def example(block, **names):
    """Return the names of an example."""
    exec(BLOCKS[block], names)
    return names


@pytest.mark.parametrize("installation", ["filter", "settings"])
def test_a_report(installation):
    """The view's change brings the cookie, and the body's is saved when the body ends."""
    views = Views(report=example("report")["report"], data=data)
    browser = TestApp(install(installation, {"type": "memory", "key": "sid"}, views))
    answer = browser.get("/report")

    assert answer.text == "row 0\nrow 1\nrow 2\n"
    assert (answer.headers["Vary"], list(browser.cookies)) == ("Cookie", ["sid"])
    assert browser.get("/data").text == "[('report', 'sent')]"


def test_progress():
    """Another request of the browser sees how far the body is."""
    seen = []

    def write_a_quarter():
        seen.append(browser.get("/progress").text)
        return b"."

    names = example("progress", write_a_quarter=write_a_quarter)
    views = Views(export=names["export"], progress=names["progress"], begin=data, data=data)
    views.views["begin"] = lambda request: request.session.setdefault("user", "ann")
    browser = TestApp(install("filter", {"type": "memory", "key": "sid"}, views))
    browser.get("/begin")

    assert browser.get("/export").text == "...."
    assert seen == [f"{{'percent': {percent}}}" for percent in (0, 25, 50, 75)]
    assert browser.get("/data").text == "[('percent', 100), ('user', 'ann')]"


@pytest.mark.parametrize(
    ("kind", "is_known", "change"),
    [
        ("memory", False, lambda session: session.update(a=1)),
        ("memory", True, lambda session: session.regenerate_id()),
        ("memory", True, lambda session: session.set_expiry(60)),
        ("cookie", True, lambda session: session.update(a=1)),
    ],
)
def test_what_raises(kind, is_known, change):
    """What the page says that raises in a body does."""
    raised = []

    def stream(request):
        def body():
            with pytest.raises(SessionTooLateError) as error:
                change(request.session)
            raised.append(error)
            yield b""

        return Response(app_iter=body())

    views = Views(begin=lambda request: request.session.setdefault("user", "ann"), stream=stream)
    options = (
        {"type": kind, "validate_key": "a key that signs cookies, for the tests"}
        if kind == "cookie"
        else {"type": kind}
    )
    browser = TestApp(install("filter", {"key": "sid", **options}, views))
    if is_known:
        browser.get("/begin")
    browser.get("/stream")

    assert len(raised) == 1


def test_a_logout_in_the_body():
    """``invalidate()`` in a body ends the session."""

    def stream(request):
        def body():
            request.session.invalidate()
            yield b""

        return Response(app_iter=body())

    views = Views(begin=lambda request: request.session.setdefault("user", "ann"), stream=stream, data=data)
    browser = TestApp(install("filter", {"type": "memory", "key": "sid"}, views))
    browser.get("/begin")
    browser.get("/stream")

    assert browser.get("/data").text == "[]"
