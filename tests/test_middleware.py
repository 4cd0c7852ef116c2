"""The middleware by itself, and its PasteDeploy factories."""

import sys

import pytest
from paste.deploy import loadapp
from webtest import TestApp

from beaker_bridge import SessionMiddleware, SettingsError
from beaker_bridge.environ import ENVIRON_KEY
from tests.installations import SECRET


def counting(environ, start_response):
    """A WSGI application without Pyramid: counts the visits."""
    session = environ[ENVIRON_KEY]
    session["count"] = session.get("count", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session["count"]).encode()]


def counting_factory(global_conf, **settings):
    """``counting``, for PasteDeploy."""
    return counting


def _responses(app, environ=None):
    """Call a WSGI application, and return the calls of ``start_response``."""
    calls = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **(environ or {})}
    list(app(environ, lambda *call: calls.append(call)))
    return calls


def test_a_wsgi_application():
    """The middleware serves an application that is not Pyramid's."""
    app = TestApp(SessionMiddleware(counting, {"session.type": "memory"}))

    assert [app.get("/").text for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "config", [{"session.key": "k"}, {"beaker.session.key": "k"}, {"key": "k"}, {"session.key": "k", "debug": "true"}]
)
def test_config_with_and_without_a_prefix(config):
    """``config`` holds options under a prefix, among others; or nothing but options."""
    app = TestApp(SessionMiddleware(counting, config))
    app.get("/")

    assert list(app.cookies) == ["k"]


def test_options_win_over_config():
    """Keyword options win over those in ``config``."""
    app = TestApp(SessionMiddleware(counting, {"session.key": "k"}, key="other"))
    app.get("/")

    assert list(app.cookies) == ["other"]


def test_a_second_start_response_gives_one_cookie():
    """An error answer that replaces the first one carries one cookie, also with the same list of headers."""
    headers = [("Content-Type", "text/plain")]

    def twice(environ, start_response):
        environ[ENVIRON_KEY].save()
        assert environ[ENVIRON_KEY].id
        start_response("200 OK", headers)
        try:
            [].pop()
        except IndexError:
            start_response("500 Internal Server Error", headers, sys.exc_info())
        return []

    calls = _responses(SessionMiddleware(twice, {"session.type": "memory"}))

    assert [call[0] for call in calls] == ["200 OK", "500 Internal Server Error"]
    assert [[name for name, _ in call[1]].count("Set-Cookie") for call in calls] == [1, 1]
    assert calls[0][1][-2] == calls[1][1][-2]
    assert headers == [("Content-Type", "text/plain")]


def test_an_untouched_session_passes_the_headers_on():
    """Where the session was not touched, the headers are passed on as they are."""
    headers = [("Content-Type", "text/plain")]

    def plain(environ, start_response):
        start_response("200 OK", headers)
        return []

    (call,) = _responses(SessionMiddleware(plain, {"session.type": "memory"}))

    assert call[1] is headers


def test_another_environ_key():
    """The session may be elsewhere in the environ."""
    seen = []

    def look(environ, start_response):
        seen.extend(key for key in ("mine", ENVIRON_KEY) if key in environ)
        start_response("200 OK", [])
        return []

    _responses(SessionMiddleware(look, {"session.type": "memory"}, environ_key="mine"))

    assert seen == ["mine"]


def test_get_session_makes_a_session_of_its_own():
    """``environ['beaker.get_session']`` makes a new session, as Beaker's does."""
    ids = []

    def make(environ, start_response):
        ids.extend(environ["beaker.get_session"]().id for _ in range(2))
        start_response("200 OK", [])
        return []

    _responses(SessionMiddleware(make, {"session.type": "memory"}))

    assert len(set(ids)) == 2


def test_auto_stores_each_session_that_was_touched():
    """With ``auto`` a session that was only touched is stored, too; a second request writes nothing new."""

    def touch(environ, start_response):
        assert environ[ENVIRON_KEY].id
        start_response("200 OK", [])
        return []

    (call,) = _responses(SessionMiddleware(touch, {"session.type": "memory", "session.auto": "true"}))

    assert "Set-Cookie" in dict(call[1])


def test_saving_without_touching_does_nothing():
    """``save()`` on a session that was never loaded stores nothing, as with Beaker."""

    def save(environ, start_response):
        environ[ENVIRON_KEY].save()
        start_response("200 OK", [])
        return []

    (call,) = _responses(SessionMiddleware(save, {"session.type": "memory"}))

    assert call[1] == []


def test_pastes_testing_variables_and_registry():
    """``webtest_varname`` and Paste's registry are served, as Beaker's middleware does."""

    class Registry:
        reglist = (1,)
        registered = ()

        def register(self, *pair):
            self.registered = pair

    registry, variables = Registry(), {}
    app = SessionMiddleware(counting, {"session.type": "memory", "session.webtest_varname": "session"})
    _responses(app, {"paste.registry": registry, "paste.testing_variables": variables})

    assert variables["session"]["count"] == 1
    assert registry.registered[1] is variables["session"]


PIPELINE = """
[DEFAULT]
session.secret = {secret}
unrelated = true

[app:main]
paste.app_factory = tests.test_middleware:counting_factory
filter-with = session

[filter:session]
use = egg:beaker_bridge{name}
{options}
"""


def _pipeline(tmp_path, options, name=""):
    ini = tmp_path / "site.ini"
    ini.write_text(PIPELINE.format(secret=SECRET, options=options, name=name))
    return loadapp(f"config:{ini}")


@pytest.mark.parametrize("name", ["", "#main", "#session"])
@pytest.mark.parametrize("prefix", ["", "session.", "beaker.session."])
def test_a_filter_in_an_ini_file(name, prefix, tmp_path):
    """A filter section takes options with and without a prefix; the defaults those with one."""
    app = TestApp(_pipeline(tmp_path, f"{prefix}key = k\n{prefix}timeout = 3600", name))

    assert [app.get("/").text for _ in range(2)] == ["1", "2"]
    assert list(app.cookies) == ["k"]
    assert len(app.cookies["k"]) == 40 + 32


def test_a_filter_as_a_filter_factory():
    """The entry point ``paste.filter_factory`` makes a filter."""
    from beaker_bridge.middleware import session_filter_factory

    app = TestApp(session_filter_factory({"here": "/"}, type="memory")(counting))

    assert app.get("/").text == "1"


def test_an_unknown_option_in_a_filter_stops_the_start(tmp_path):
    """An option that nobody knows stops the start, with the nearest known name; so do all other faults."""
    with pytest.raises(SettingsError) as caught:
        _pipeline(tmp_path, "tiemout = 3600\ncolour = red\nsamesite = None\nhttponly = perhaps")

    told = str(caught.value)
    assert "tiemout is no option that beaker_bridge knows; did you mean timeout?" in told
    assert "colour is no option" in told
    assert "samesite must be Lax or Strict unless secure = true, got 'None'" in told
    assert "httponly must be true or false, got 'perhaps'" in told


def test_a_failing_commit_is_logged(caplog):
    """A failure in the middleware reaches nobody but the log; nothing is saved, no cookie sent."""

    def bad(environ, start_response):
        environ[ENVIRON_KEY]["bad"] = object()
        environ[ENVIRON_KEY].save()
        start_response("200 OK", [])
        return []

    (call,) = _responses(SessionMiddleware(bad, {"session.type": "memory"}))

    assert "session['bad'] cannot be stored" in caplog.text
    assert dict(call[1]) == {"Vary": "Cookie"}
