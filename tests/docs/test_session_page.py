"""The examples of docs/reference/session.rst and events.rst."""

from __future__ import annotations

from webtest import TestApp

from beaker_bridge import SessionInvalidated
from tests.docs import pages
from tests.installations import Views, data, install

BLOCKS = pages.examples(pages.read("reference/session"))
EVENTS = pages.examples(pages.read("reference/events"))


def test_what_is_its_own():
    """``set_expiry()`` and ``exclusive()`` work as shown."""
    names = {}
    exec(BLOCKS["own"], names)
    app = TestApp(install("settings", {"type": "memory"}, Views(login=names["login"], vote=names["vote"], data=data)))
    answer = app.get("/login?user=me")
    app.get("/vote")
    app.get("/vote")

    assert "Max-Age=2592000" in answer.headers["Set-Cookie"]
    assert app.get("/data").text == "[('user', 'me'), ('votes', 2)]"


def test_a_subscriber(monkeypatch):
    """The example's subscriber is sent the session that a logout ends, with its data."""
    saved: list = []
    names = {"__name__": "example", "save_for_later": saved.append}
    exec(EVENTS["subscriber"], names)

    def log_out(request):
        request.session.invalidate()
        return "bye"

    def configure(config):
        views = Views(log_out=log_out, fill=lambda request: request.session.update(cart=["tea"]))
        views(config)
        config.add_subscriber(names["remember_cart"], SessionInvalidated)

    app = TestApp(install("settings", {"type": "memory"}, configure))
    app.get("/fill")
    app.get("/log_out")

    assert saved == [["tea"]]
