"""``beaker_bridge.testing``: sessions for the tests of applications."""

from __future__ import annotations

import json

import pytest
from beaker.middleware import SessionMiddleware as BeakerSessionMiddleware
from pyramid import testing
from pyramid.interfaces import ISession
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp
from zope.interface.verify import verifyObject

from beaker_bridge import SessionInvalidated, SessionMiddleware, SessionValueError, SettingsError
from beaker_bridge.testing import seed_session, with_session
from tests.installations import INSTALLATIONS, SECRET, STORES, Views, count, data, install, store_options

pytestmark = pytest.mark.filterwarnings("ignore::beaker.exceptions.BeakerWarning")


@pytest.fixture(params=[testing.DummyRequest, lambda: Request.blank("/", headers={"Cookie": "lang=en"})])
def request_(request):
    return request.param()


def views():
    return Views(count=count, data=data, new=lambda request: request.session.new)


def test_a_view_gets_a_real_session(request_):
    """A request, also Pyramid's dummy, is given a whole session that holds what the test put there."""
    session = with_session(request_, {"a b": [1]}, user="me").session

    assert verifyObject(ISession, session)
    assert session == {"a b": [1], "user": "me"}
    assert not session.new
    assert session.id == request_.environ["beaker.session"].id


def test_a_view_gets_a_new_session(request_):
    """Without data, the session is new."""
    session = with_session(request_).session

    assert session.new
    assert session == {}


def test_a_session_is_its_requests_alone(request_):
    """Two requests of a test share nothing, and a second session takes the place of the first."""
    other = with_session(testing.DummyRequest(), user="other")
    with_session(request_, user="first")
    session = with_session(request_, user="second").session
    other.session["more"] = 1

    assert session == {"user": "second"}


def test_a_view_does_what_it_does_with_a_session(request_):
    """What a ``DummySession`` has not is there, and what a view changed can be saved."""
    session = with_session(request_, user="me").session
    before = session.id
    session.regenerate_id()
    session["cart"] = [1]
    session.persist()
    saved = session.get_by_id(session.id)

    assert saved == {"user": "me", "cart": [1]}
    assert session.get_by_id(before) is None


def test_a_view_that_puts_a_wrong_value_into_the_session_fails(request_):
    """What no session can hold is refused when it is saved, or when the test gives it."""
    session = with_session(request_).session
    session["lock"] = [[object()]]

    with pytest.raises(SessionValueError, match="lock"):
        session.persist()
    with pytest.raises(SessionValueError, match="lock"):
        with_session(request_, lock=object())


def test_subscribers_hear_of_a_session():
    """The subscribers of the test's registry are called."""
    heard = []
    with testing.testConfig() as config:
        config.add_subscriber(heard.append, SessionInvalidated)
        session = with_session(testing.DummyRequest(), user="me").session
        session.invalidate()
        session.persist()

    assert [event.data for event in heard] == [{"user": "me"}]


# -- Before the first request of a functional test ---------------------------------------------------


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_session_is_seeded(installation, store, tmp_path):
    """What a test puts there, the first request finds, and later ones as well, with each installation."""
    app = TestApp(install(installation, store_options(store, tmp_path), views()))
    seed_session(app, {"a b": 1}, count=41)
    texts = [app.get("/new").text, app.get("/count").text]
    seed_session(app, user="me")

    assert texts == ["False", "42"]
    assert app.get("/data").text == "[('a b', 1), ('count', 42), ('user', 'me')]"


def test_a_session_is_seeded_under_other_middleware(tmp_path):
    """Another middleware around the session's does not hide it; the cookie is as the options have it."""

    class Other:
        def __init__(self, application):
            self.application = application

        def __call__(self, environ, start_response):
            return self.application(environ, start_response)

    options = {**store_options("file", tmp_path), "cookie_path": "/count", "secure": True}
    app = TestApp(Other(install("filter", options, views())), extra_environ={"wsgi.url_scheme": "https"})
    seed_session(app, count=1)

    assert app.get("https://localhost/count").text == "2"


@pytest.mark.parametrize("middleware", [SessionMiddleware, BeakerSessionMiddleware])
@pytest.mark.parametrize("environ_key", ["beaker.session", "my.session"])
def test_a_session_of_an_application_without_pyramid_is_seeded(middleware, environ_key):
    """Any WSGI application in our middleware, or in Beaker's, wherever it looks for the session."""

    def application(environ, start_response):
        session = environ[environ_key]
        text = json.dumps(session.get("user"))
        return Response(text)(environ, start_response)

    app = TestApp(middleware(application, environ_key=environ_key, type="memory", data_serializer="json"))
    seed_session(app, user="me")

    assert app.get("/").text == '"me"'


def test_what_cannot_be_seeded_is_said():
    """A value that is refused is raised, and the ``TestApp`` is as it was."""
    app = TestApp(install("settings", {"type": "memory", "secret": SECRET}, views()))
    with pytest.raises(SessionValueError, match="lock"):
        seed_session(app, lock=object())

    assert app.get("/data").text == "[]"


def test_an_application_without_sessions_is_not_seeded():
    """That is said, and not passed over."""
    with pytest.raises(SettingsError, match="found no session middleware and no session factory"):
        seed_session(TestApp(Response("no sessions here")), user="me")
    with pytest.raises(SettingsError, match="found no session middleware"), testing.testConfig() as config:
        seed_session(TestApp(config.make_wsgi_app()), user="me")
