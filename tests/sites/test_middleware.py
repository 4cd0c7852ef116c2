"""The middleware by itself, and its PasteDeploy factories."""

import sys
from io import BytesIO, StringIO
from wsgiref.handlers import SimpleHandler

import beaker.middleware
import pytest
from paste.deploy import loadapp
from webtest import TestApp

from beaker_bridge import (
    BeakerBridgeError,
    SessionMiddleware,
    SessionTooLargeError,
    SessionTooLateError,
    SessionValueError,
    SettingsError,
)
from beaker_bridge.request.exchange import ENVIRON_KEY
from tests.installations import SECRET, Views, count, data, install


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


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(("kind", "streams"), [("memory", False), ("memory", True), ("cookie", False)])
@pytest.mark.parametrize("answers_first", [False, True])
def test_a_change_in_place_is_saved_without_save(serializer, kind, streams, answers_first):
    """As with Beaker, which writes the access time of what it has loaded, and in that what was changed within."""

    def appending(environ, start_response):
        session = environ[ENVIRON_KEY]
        if environ["PATH_INFO"] == "/begin":
            session["visits"] = ([],)
            session.save()
        elif not answers_first:
            session["visits"][0].append("visit")
        start_response("200 OK", [("Content-Type", "text/plain")])
        if answers_first and environ["PATH_INFO"] != "/begin":
            session["visits"][0].append("visit")
        text = str(len(session["visits"][0])).encode()
        return (part for part in [text]) if streams else [text]

    options = {"type": kind, "validate_key": SECRET, "data_serializer": serializer}
    app = TestApp(SessionMiddleware(appending, **options))

    assert [app.get(path).text for path in ("/begin", "/", "/", "/")] == ["0", "1", "2", "3"]


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

    shown = variables.pop("session")
    # Outside of a functional test nobody asks for it.
    _responses(app)

    assert shown["count"] == 1
    assert registry.registered[1] is shown
    assert variables == {}


PIPELINE = """
[DEFAULT]
session.secret = {secret}
unrelated = true

[app:main]
paste.app_factory = tests.sites.test_middleware:counting_factory
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


# -- A commit that fails -----------------------------------------------------------------------------

FAILING = {
    "not JSON": ({"type": "memory"}, SessionValueError, [[[object()]]]),
    "not JSON in a cookie": ({"type": "cookie", "validate_key": SECRET}, SessionValueError, [[[object()]]]),
    "too large": ({"type": "cookie", "validate_key": SECRET}, SessionTooLargeError, "".join(map(str, range(3000)))),
}


def saving(value):
    """Return an application that saves a value, and answers at once."""

    def app(environ, start_response):
        environ[ENVIRON_KEY]["value"] = value
        environ[ENVIRON_KEY].save()
        start_response("200 OK", [])
        return [b"added"]

    return app


def saving_late(value):
    """Return an application that saves a value, and answers when it is iterated over."""

    def app(environ, start_response):
        environ[ENVIRON_KEY]["value"] = value
        environ[ENVIRON_KEY].save()
        start_response("200 OK", [])
        yield b"added"

    return app


@pytest.mark.parametrize("saves", [saving, saving_late])
@pytest.mark.parametrize("fault", FAILING)
def test_what_cannot_be_saved_is_a_500(saves, fault):
    """A session that cannot be saved raises where the answer begins, and a server answers with a 500."""
    options, error, value = FAILING[fault]
    sent, logged = BytesIO(), StringIO()
    handler = SimpleHandler(BytesIO(), sent, logged, {"SERVER_PROTOCOL": "HTTP/1.0"})
    handler.run(SessionMiddleware(saves(value), **options))

    assert sent.getvalue().startswith(b"HTTP/1.0 500")
    assert b"added" not in sent.getvalue()
    assert b"Set-Cookie" not in sent.getvalue()
    assert error.__name__ in logged.getvalue()


def with_error_pages(app):
    """Return middleware that answers with a page of its own where an application raises."""

    def error_pages(environ, start_response):
        try:
            return list(app(environ, start_response))
        except Exception:  # noqa: BLE001 -- as error middleware does
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"sorry"]

    return error_pages


@pytest.mark.parametrize("saves", [saving, saving_late])
@pytest.mark.parametrize("fault", FAILING)
def test_an_error_page_for_what_cannot_be_saved(saves, fault):
    """Error middleware under the filter answers with its page: that raises nothing again, and saves nothing."""
    options, error, value = FAILING[fault]
    (call,) = _responses(SessionMiddleware(with_error_pages(saves(value)), **options))

    assert call[0] == "500 Internal Server Error"
    assert call[2][0] is error
    assert dict(call[1]) == {"Content-Type": "text/plain", "Vary": "Cookie"}


def test_an_error_page_saves_what_was_saved_before_the_error():
    """An application that fails after ``save()``, before it answered, is saved, as Beaker's is."""

    def failing(environ, start_response):
        counting(environ, lambda *_: None)
        raise RuntimeError

    app = TestApp(SessionMiddleware(with_error_pages(failing), {"session.type": "memory"}))
    app.get("/", status=500)
    app.app.app = counting

    assert app.get("/").text == "2"


def test_an_error_page_is_sent_though_the_session_cannot_be_saved(caplog):
    """Where the application failed itself, a failing commit is logged: the page tells of the first error."""

    def failing(environ, start_response):
        saving([[[object()]]])(environ, lambda *_: None)
        raise RuntimeError

    (call,) = _responses(SessionMiddleware(with_error_pages(failing), {"session.type": "memory"}))

    assert call[2][0] is RuntimeError
    assert "session['value'] cannot be stored" in caplog.text
    assert dict(call[1]) == {"Content-Type": "text/plain", "Vary": "Cookie"}


@pytest.mark.parametrize("late", [1, [[[object()]]]])
def test_an_error_page_saves_nothing_more_after_an_answer(late, caplog):
    """An error page that replaces an answer sends that answer's cookie, and commits nothing that came after it."""

    def failing(environ, start_response):
        counting(environ, start_response)
        saving(late)(environ, lambda *_: None)
        raise RuntimeError

    held = []

    def look(environ, start_response):
        held.append(dict(environ[ENVIRON_KEY]))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    app = TestApp(SessionMiddleware(with_error_pages(failing), {"session.type": "memory"}))
    app.get("/", status=500)
    app.app.app = look
    app.get("/")

    assert held == [{"count": 1}]
    assert caplog.text == ""


def beginning(change, body=list):
    """Return an application that begins its answer, and changes the session then."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        change(environ[ENVIRON_KEY])
        return body([b"done"])

    return app


def _look(browser):
    """Return what the next request of a browser finds."""
    held = []
    browser.app.app = beginning(lambda session: held.append(dict(session)))
    browser.get("/")
    return held


def _put(session):
    session["put"] = 1
    session.save()


CHANGES = {
    "save()": (_put, {"count": 1, "put": 1}),
    "delete()": (lambda session: session.delete(), {}),
    "invalidate()": (lambda session: session.invalidate(), {}),
}


@pytest.mark.parametrize("body", [list, tuple, iter])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_start_response_is_saved(change, body):
    """An application may begin its answer before it changes or ends a session that the browser knows."""
    changes, expected = CHANGES[change]
    browser = TestApp(SessionMiddleware(counting, type="memory"))
    browser.get("/")
    browser.app.app = beginning(changes, body)
    browser.get("/")

    assert _look(browser) == [expected]


def test_auto_saves_a_change_after_start_response():
    """So is what is changed without a word, with ``auto``."""
    browser = TestApp(SessionMiddleware(counting, type="memory", auto=True))
    browser.get("/")
    browser.app.app = beginning(lambda session: session.update(put=1))
    browser.get("/")

    assert _look(browser) == [{"count": 1, "put": 1}]


WITH_COOKIES = [{"type": "memory"}, {"type": "cookie", "validate_key": SECRET}]


@pytest.mark.parametrize("options", WITH_COOKIES)
def test_what_needs_a_cookie_after_start_response_is_saved(options):
    """A session that begins, or is in its cookie, is saved, too: the headers wait for the application's body."""
    browser = TestApp(SessionMiddleware(beginning(_put), **options))
    browser.get("/")

    assert _look(browser) == [{"put": 1}]


@pytest.mark.parametrize("fault", FAILING)
def test_what_cannot_be_saved_after_start_response_is_a_500(fault):
    """What fails there raises, and nothing has been sent."""
    options, error, value = FAILING[fault]
    calls = []

    def put(session):
        session["value"] = value
        session.save()

    app = SessionMiddleware(beginning(put), **options)
    with pytest.raises(error):
        app({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *call: calls.append(call))

    assert calls == []


@pytest.mark.parametrize("options", WITH_COOKIES)
def test_what_needs_a_cookie_after_a_part_is_sent_is_an_error(options):
    """A session that begins when the application has sent a part of its body raises."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"begun ")
        _put(environ[ENVIRON_KEY])
        return [b"done"]

    def start_response(*_):
        return lambda _data: None

    with pytest.raises(SessionTooLateError):
        SessionMiddleware(app, **options)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, start_response)


@pytest.mark.parametrize("fault", FAILING)
@pytest.mark.parametrize("auto", [False, True])
def test_code_behind_beakers_own_filter(fault, auto):
    """What other WSGI code saves after Pyramid has used the session raises, too, as Beaker's own does."""
    options, error, value = FAILING[fault]
    inner = install("settings", {}, Views(count=count, data=data))

    def changing(environ, start_response):
        def change(status, headers, exc_info=None):
            if environ["PATH_INFO"] == "/count":
                environ[ENVIRON_KEY]["value"] = value
                environ[ENVIRON_KEY].save()
            return start_response(status, headers, exc_info)

        return inner(environ, change)

    def site(changing):
        return TestApp(beaker.middleware.SessionMiddleware(changing, data_serializer="json", auto=auto, **options))

    app, with_pages = site(changing), site(with_error_pages(changing))
    with pytest.raises(error):
        app.get("/count")
    page = with_pages.get("/count", status=500)

    assert app.get("/data").text == "[]"
    assert page.text == "sorry"
    assert "Set-Cookie" not in page.headers
    assert with_pages.get("/data").text == "[]"


def test_persist_raises():
    """``persist()``, Beaker's commit at once, raises, and nothing is saved any more."""
    raised = []

    def persisting(environ, start_response):
        session = environ[ENVIRON_KEY]
        session["value"] = [[[object()]]]
        session.save()
        try:
            session.persist()
        except SessionValueError as error:
            raised.append(error)
        session["value"] = 1
        start_response("200 OK", [])
        return []

    (call,) = _responses(SessionMiddleware(persisting, {"session.type": "memory"}))

    assert len(raised) == 1
    assert dict(call[1]) == {"Vary": "Cookie"}


def test_persist_in_the_body_logs(caplog):
    """When the headers were sent, ``persist()`` can only log what it cannot save."""

    def persisting(environ, start_response):
        environ[ENVIRON_KEY].get("value")
        start_response("200 OK", [])
        environ[ENVIRON_KEY]["value"] = 1
        environ[ENVIRON_KEY].save()
        environ[ENVIRON_KEY].persist()
        yield b"sent"

    _responses(SessionMiddleware(persisting, {"session.type": "memory"}))

    assert "a session that was changed after the response's headers were sent is not saved" in caplog.text


# -- As Beaker's middleware --------------------------------------------------------------------------


def test_beakers_name_for_the_application():
    """The application may be given as ``wrap_app``, as to Beaker's middleware, but not twice, nor left out."""
    app = SessionMiddleware(wrap_app=counting, type="memory")

    assert TestApp(app).get("/").text == "1"
    assert app.app is app.wrap_app is counting
    for wrong in ({}, {"app": counting, "wrap_app": counting}):
        with pytest.raises(TypeError, match="takes one WSGI application: app, or wrap_app"):
            SessionMiddleware(**wrong)


def test_its_options_can_be_read():
    """``options`` has each option by its name, converted, whether it was given or not; nobody can change it."""
    options = SessionMiddleware(counting, {"session.key": "k", "session.timeout": "300"}, secret=SECRET).options

    assert (options["key"], options["timeout"], options["secret"], options["auto"]) == ("k", 300, SECRET, False)
    with pytest.raises(TypeError):
        options["key"] = "other"


@pytest.mark.parametrize("key", ["type", "session.type"])
def test_get_session_refuses_a_cookie_session(key):
    """A cookie session is its request's alone: ``environ['beaker.get_session']`` has none to give."""

    def make(environ, start_response):
        with pytest.raises(BeakerBridgeError, match="got type = cookie"):
            environ["beaker.get_session"]()
        start_response("200 OK", [])
        return []

    assert _responses(SessionMiddleware(make, {key: "cookie"}, validate_key=SECRET)) == [("200 OK", [], None)]


# -- What caches are told ----------------------------------------------------------------------------


def _headers_of(app, path="/"):
    """Return the headers that the server gets, when it has sent the whole body."""
    calls = []

    def server(*call):
        calls.append(call)
        return lambda data: None

    body = SessionMiddleware(app, type="memory")({"REQUEST_METHOD": "GET", "PATH_INFO": path}, server)
    _ = list(body)
    getattr(body, "close", list)()
    (call,) = calls
    return dict(call[1])


def test_a_page_without_a_route_is_told_of_by_the_beginning_of_its_path(caplog):
    """Other WSGI code has no routes: what comes later in a path may be an id."""

    def keeping(environ, start_response):
        environ[ENVIRON_KEY].save()
        assert environ[ENVIRON_KEY].id
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return []

    assert _headers_of(keeping, "/users/ada/4711")["Cache-Control"] == "max-age=60, private"
    assert "a page at /users/… sets the session's cookie" in caplog.text
    assert "ada" not in caplog.text


def _as_list(environ, start_response):
    start_response("200 OK", [])
    return [str(environ[ENVIRON_KEY].get("count")).encode()]


def _as_generator(environ, start_response):
    start_response("200 OK", [])
    yield str(environ[ENVIRON_KEY].get("count")).encode()


def _as_iterator(environ, start_response):
    start_response("200 OK", [])
    return map(str.encode, map(environ[ENVIRON_KEY].get, ["count"], ["none"]))


def _as_written(environ, start_response):
    write = start_response("200 OK", [])
    write(b"a")
    write(str(environ[ENVIRON_KEY].get("count")).encode())
    return []


def _as_late_writing(environ, start_response):
    write = start_response("200 OK", [])
    write(b"a")
    yield str(environ[ENVIRON_KEY].get("count")).encode()


@pytest.mark.parametrize("app", [_as_list, _as_generator, _as_iterator, _as_written, _as_late_writing])
def test_what_reads_the_session_after_start_response_varies(app):
    """An application may begin its answer before it reads the session, while its body is sent or before that."""
    assert _headers_of(app) == {"Vary": "Cookie"}


def test_an_answer_that_is_replaced_while_it_is_written():
    """When the headers have been sent, the server is asked at once, and has the error raised."""
    calls = []

    def server(status, headers, exc_info=None):
        calls.append(status)
        if exc_info:
            raise exc_info[1]
        return lambda data: None

    def failing(environ, start_response):
        start_response("200 OK", [])(b"begun")
        try:
            [].pop()
        except IndexError:
            start_response("500 Internal Server Error", [], sys.exc_info())
        return []

    with pytest.raises(IndexError):
        SessionMiddleware(failing, type="memory")({}, server)
    assert calls == ["200 OK", "500 Internal Server Error"]
