"""A user's sessions over each installation: log in, list, end elsewhere, be told why."""

from __future__ import annotations

import json

import pytest
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request
from webtest import TestApp

from beaker_bridge import SessionLimitError, SessionRevoked, revoke, revoke_one, user_sessions
from tests.installations import INSTALLATIONS, WITH_TWEEN, Views, install, store_options


def log_in(request):
    """Log in, with the options that the query names."""
    limit = request.params.get("limit")
    request.session.bind(
        "ann", {"browser": request.user_agent}, int(limit) if limit else None, request.params.get("on", "end")
    )
    request.session["user"] = "ann"


def where(request):
    """List the user's sessions."""
    return json.dumps([each._asdict() for each in user_sessions(request, "ann")])


def out(request):
    """Log out."""
    request.session.invalidate()


def out_there(request):
    """End one session."""
    return revoke_one(request, request.params["handle"])


def elsewhere(request):
    """End all others; fail then, if asked to."""
    number = revoke(request, "ann", except_current=True)
    if "fail" in request.params:
        raise HTTPForbidden
    return number


def everywhere(request):
    """End all, and greet."""
    number = revoke(request, "ann")
    request.session.flash("bye")
    return number


def home(request):
    """Tell once why the session has ended, and what was flashed."""
    if request.session.revoked:
        request.session.flash(f"logged out: {request.session.revoked}")
    return json.dumps([request.session.get("user"), request.session.pop_flash()])


def told(request):
    """Flash why the session has ended, for the next page."""
    if request.session.revoked:
        request.session.flash(f"logged out: {request.session.revoked}")


def within(request):
    """Log in within a subrequest."""
    return request.invoke_subrequest(Request.blank("/log_in", cookies=request.cookies))


VIEWS = {view.__name__: view for view in (log_in, where, out, out_there, elsewhere, everywhere, home, told, within)}


@pytest.fixture(params=INSTALLATIONS)
def installation(request):
    return request.param


@pytest.fixture
def events():
    return []


@pytest.fixture
def begin(installation, tmp_path, events):
    """Return a function that begins a browser of a site, logged in."""
    views = Views(**VIEWS)
    views.exception_views[SessionLimitError] = lambda request: "full"

    def configure(config):
        views(config)
        config.add_subscriber(events.append, SessionRevoked)

    site = install(installation, store_options("file", tmp_path), configure)

    def browser(**options):
        app = TestApp(site)
        if options.pop("logs_in", True):
            app.get("/log_in", options, {"User-Agent": "Firefox"})
        return app

    return browser


def user(app):
    """Return the user who is logged in."""
    return json.loads(app.get("/home").text)[0]


def listed(app):
    """Return the user's sessions."""
    return json.loads(app.get("/where").text)


def test_a_login_is_listed(begin):
    """Each login is on the list, with its note, and one's own is marked."""
    one, two = begin(), begin()

    assert [each["is_current"] for each in listed(one)].count(True) == 1
    assert [each["note"] for each in listed(two)] == [{"browser": "Firefox"}] * 2
    one.get("/out")
    assert len(listed(two)) == 1


def test_another_session_is_ended(begin, events):
    """One that is ended elsewhere is told so by a flash, once; it is one event."""
    one, two = begin(), begin()
    (handle,) = [each["handle"] for each in listed(one) if not each["is_current"]]
    one.get("/out_there", {"handle": handle})
    two.get("/told")

    assert json.loads(two.get("/home").text) == [None, ["logged out: revoked"]]
    assert json.loads(two.get("/home").text) == [None, []]
    assert json.loads(one.get("/home").text) == ["ann", []]
    assert [(dict(event.data), event.reason) for event in events] == [({"user": "ann"}, "revoked")]


def test_all_others_are_ended_even_if_the_request_fails(begin):
    """What is ended is ended, whatever becomes of the request."""
    one, two = begin(), begin()
    one.get("/elsewhere", {"fail": 1}, status=403)

    assert (user(one), user(two)) == ("ann", None)


def test_all_are_ended(begin):
    """The request that ends its own session, too, goes on with a new one."""
    one, two = begin(), begin()

    assert one.get("/everywhere").text == "2"
    assert json.loads(one.get("/home").text) == [None, ["bye"]]
    assert user(two) is None


def test_a_limit(begin):
    """A login over the limit ends the oldest, or is answered by an exception view."""
    one, two = begin(limit=1), begin(limit=1)
    refused = begin(logs_in=False).get("/log_in", {"limit": 1, "on": "refuse"})

    assert (user(one), user(two)) == (None, "ann")
    assert refused.text == "full"
    assert "Set-Cookie" not in refused.headers


@pytest.mark.parametrize("installation", WITH_TWEEN, indirect=True)
def test_a_login_in_a_subrequest(begin):
    """A subrequest's login is its parent's, which sends the cookie."""
    app = begin(logs_in=False)
    app.get("/within")

    assert user(app) == "ann"
    assert len(listed(app)) == 1
