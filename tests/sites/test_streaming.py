"""Sessions that are changed while the body is streamed, after the response's headers were sent."""

from __future__ import annotations

import asyncio
import json
import logging
from io import BufferedReader, BytesIO, FileIO, RawIOBase
from itertools import product
from wsgiref.util import FileWrapper

import pytest
from pyramid.events import NewRequest, NewResponse
from pyramid.request import Request
from pyramid.response import FileIter, FileResponse, Response
from waitress.buffers import ReadOnlyFileBasedBuffer
from webob.static import FileIter as WebObFileIter
from webtest import TestApp

from beaker_bridge import SessionMiddleware, SessionTooLateError
from tests import machine
from tests.installations import INSTALLATIONS, WITH_TWEEN, Views, count, data, install, store_options

pytestmark = pytest.mark.filterwarnings("ignore::beaker.exceptions.BeakerWarning")

STORED = ("memory", "file", "dbm", "file_encrypted")


@pytest.fixture(params=INSTALLATIONS)
def installation(request):
    return request.param


def streaming(change, *, touched=True, more=False):
    """Return a view whose body touches the session; it tells what the change has raised.

    Args:
        change: what the body does to the session.
        touched: whether the view itself reads the session, before it answers.
        more: whether the body goes on after the change.
    """

    def view(request):
        if touched:
            request.session.get("count")

        def body():
            yield b"begun "
            try:
                change(request.session)
            except SessionTooLateError as error:
                yield str(error).encode()
            if more:
                yield b"more"

        return Response(app_iter=body())

    return view


def put(session):
    session["put"] = 1


def site(installation, tmp_path, view, store="memory", **options):
    """Return an application with a streaming view, where ``/count`` begins a session."""
    configure = Views(count=count, data=data, stream=view, login=login)
    return TestApp(install(installation, {**store_options(store, tmp_path), **options}, configure))


def errors_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# -- What is saved -----------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORED)
def test_a_change_in_the_body_is_saved(installation, store, tmp_path, caplog):
    """A session that the browser knows keeps what the body puts there while it is streamed, on every store."""
    app = site(installation, tmp_path, streaming(put), store)
    app.get("/count")

    assert app.get("/stream").text == "begun "
    assert app.get("/data").text == "[('count', 1), ('put', 1)]"
    assert errors_of(caplog) == []


@pytest.mark.parametrize("installation", [*WITH_TWEEN, "filter_alone"])
def test_a_session_that_the_body_touches_first_is_saved(installation, tmp_path):
    """It need not have been touched before: our filter, or our tween, sees that it is saved."""
    app = site(installation, tmp_path, streaming(put, touched=False))
    app.get("/count")
    app.get("/stream")

    assert app.get("/data").text == "[('count', 1), ('put', 1)]"


def test_a_change_inside_a_value_is_saved(installation, tmp_path):
    """What the body appends to a list is saved, without ``changed()``."""
    app = TestApp(
        install(
            installation,
            store_options("file", tmp_path),
            Views(
                begin=lambda request: request.session.update(rows=[1]),
                stream=streaming(lambda session: session["rows"].append(2)),
                data=data,
            ),
        )
    )
    app.get("/begin")
    app.get("/stream")

    assert app.get("/data").text == "[('rows', [1, 2])]"


def test_the_view_begins_the_session_and_the_body_goes_on(installation, tmp_path):
    """A session whose cookie leaves with the headers is known to the browser: its body may change it."""

    def view(request):
        request.session["begun"] = 1
        return streaming(put)(request)

    app = site(installation, tmp_path, view)
    app.get("/stream")

    assert app.get("/data").text == "[('begun', 1), ('put', 1)]"


def test_changes_of_other_requests_are_merged(installation, tmp_path):
    """A long stream does not overwrite what other requests change meanwhile."""

    def meanwhile(session):
        other.get("/count")
        session["put"] = 1

    app = site(installation, tmp_path, streaming(meanwhile))
    app.get("/count")
    other = TestApp(app.app, cookiejar=app.cookiejar)
    app.get("/stream")

    assert app.get("/data").text == "[('count', 2), ('put', 1)]"


def test_a_session_can_end_in_the_body(installation, tmp_path):
    """``invalidate()`` in the body deletes the session, though the cookie is still there."""
    app = site(installation, tmp_path, streaming(lambda session: session.invalidate()))
    app.get("/count")
    app.get("/stream")

    assert app.get("/data").text == "[]"


def _begin_anew(session):
    session.invalidate()
    session["put"] = 1
    session.save()


@pytest.mark.parametrize("change", [_begin_anew, lambda session: (session.delete(), session.save())])
@pytest.mark.parametrize("face", ["request.session", "environ['beaker.session']"])
def test_a_logout_holds_though_nothing_can_begin(installation, tmp_path, face, change):
    """A session that is to begin after ``invalidate()`` is refused; the one before ends all the same."""

    def end(session):
        change(session if face == "request.session" else session._object)

    app = site(installation, tmp_path, streaming(end))
    app.get("/count")
    app.get("/stream")

    assert app.get("/data").text == "[]"


def test_the_body_is_closed_first(installation, tmp_path):
    """What a body changes in its ``close()`` is saved, too."""

    class Body:
        def __init__(self, request):
            self._request = request

        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            put(self._request.session)

    def view(request):
        request.session.get("count")
        return Response(app_iter=Body(request))

    app = site(installation, tmp_path, view)
    app.get("/count")

    assert app.get("/stream").text == "ab"
    assert app.get("/data").text == "[('count', 1), ('put', 1)]"


def test_a_body_that_fails_is_saved_as_far_as_it_came(installation, tmp_path):
    """An error in the middle of the body is the server's matter; what was changed before it stands."""

    def change(session):
        put(session)
        raise RuntimeError("the body fails")

    app = site(installation, tmp_path, streaming(change))
    app.get("/count")
    with pytest.raises(RuntimeError, match="the body fails"):
        app.get("/stream")

    assert app.get("/data").text == "[('count', 1), ('put', 1)]"


# -- What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("touched", [True, False])
@pytest.mark.parametrize("installation", [*WITH_TWEEN, "filter_alone"])
def test_a_new_session_cannot_begin_in_the_body(installation, tmp_path, caplog, touched):
    """A session that the browser does not know raises, and is logged: no request would ever find it."""
    app = site(installation, tmp_path, streaming(put, touched=touched))
    answer = app.get("/stream")

    assert "change it before the body is streamed" in answer.text
    assert "Set-Cookie" not in answer.headers
    assert len(errors_of(caplog)) == 1
    assert "change it before the body is streamed" in errors_of(caplog)[0]
    assert app.get("/data").text == "[]"


LATE = {
    "an expiry": lambda session: session.set_expiry(60),
    "a domain": lambda session: setattr(session, "domain", "example.org"),
    "a path": lambda session: setattr(session, "path", "/a"),
    "a new id": lambda session: session.regenerate_id(),
    "a session after a logout": lambda session: (session.invalidate(), put(session)),
    "save() after a logout": lambda session: (session.invalidate(), session.save()),
}


@pytest.mark.parametrize("change", LATE.values(), ids=LATE)
def test_what_needs_a_cookie_is_refused(installation, tmp_path, caplog, change):
    """What the browser would have to be told by a cookie raises in the body, and is logged."""
    app = site(installation, tmp_path, streaming(change))
    app.get("/count")

    assert "change it before the body is streamed" in app.get("/stream").text
    assert len(errors_of(caplog)) == 1


CHANGES = {
    "a key": put,
    "a logout": lambda session: session.invalidate(),
    "save()": lambda session: session.save(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("store", ["cookie", "cookie_encrypted"])
def test_a_cookie_session_cannot_change_in_the_body(installation, store, tmp_path, caplog, change):
    """A session that is all in its cookie cannot change any more: that raises, and is logged."""
    app = site(installation, tmp_path, streaming(change), store)
    app.get("/count")

    assert "change it before the body is streamed" in app.get("/stream").text
    assert len(errors_of(caplog)) == 1
    assert app.get("/data").text == "[('count', 1)]"


def test_a_change_inside_a_value_of_a_cookie_session_is_logged(installation, tmp_path, caplog):
    """A change that nobody can see at once is logged when the body is closed."""

    def begin(request):
        request.session["rows"] = [1]

    app = TestApp(
        install(
            installation,
            store_options("cookie", tmp_path),
            Views(begin=begin, stream=streaming(lambda session: session["rows"].append(2)), data=data),
        )
    )
    app.get("/begin")
    app.get("/stream")

    assert app.get("/data").text == "[('rows', [1])]"
    assert any("change it before the body is streamed" in error for error in errors_of(caplog))


def test_a_failing_store_is_logged(installation, tmp_path, caplog):
    """A change that the store refuses when the body is closed is logged."""

    def unserializable(session):
        session["put"] = [[object()]]

    app = site(installation, tmp_path, streaming(unserializable), "file")
    app.get("/count")
    app.get("/stream")

    assert len(errors_of(caplog)) == 1
    assert app.get("/data").text == "[('count', 1)]"


# -- What stays as it was ----------------------------------------------------------------------------


def test_a_body_that_only_reads_writes_nothing(installation, tmp_path):
    """A stream that reads the session finds it, and writes nothing."""
    found = []
    app = site(installation, tmp_path, streaming(lambda session: found.append(dict(session))), "file")
    app.get("/count")
    before = [(path, path.stat().st_mtime_ns) for path in (tmp_path / "sessions").rglob("*.cache")]
    app.get("/stream")

    assert found == [{"count": 1}]
    assert [(path, path.stat().st_mtime_ns) for path in (tmp_path / "sessions").rglob("*.cache")] == before


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("touched", [True, False])
@pytest.mark.parametrize("store", [*STORED, "cookie", "cookie_encrypted"])
def test_a_body_that_only_reads_logs_nothing_with_auto(installation, store, tmp_path, caplog, touched, known):
    """With ``auto`` a stream that only reads writes nothing and logs nothing, whoever touched the session first."""

    def read(session):
        # A list that is handed out is looked at again at the end.
        assert (dict(session), session.get("list")) == (({"list": [1]}, [1]) if known else ({}, None))

    configure = Views(begin=lambda request: request.session.update(list=[1]), stream=streaming(read, touched=touched))
    app = TestApp(install(installation, {**store_options(store, tmp_path), "auto": True}, configure))
    if known:
        app.get("/begin")
    caplog.clear()

    assert app.get("/stream").text == "begun "
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("installation", ["filter", "filter_alone"], indirect=True)
def test_auto_saves_what_other_code_changes_in_the_body(installation, tmp_path):
    """With ``auto`` what the body puts into ``environ['beaker.session']`` is saved, without ``save()``."""

    def view(request):
        def body():
            yield b"begun"
            request.environ["beaker.session"]["put"] = 1

        return Response(app_iter=body())

    app = site(installation, tmp_path, view, "file", auto=True)
    app.get("/count")
    app.get("/stream")

    assert app.get("/data").text == "[('count', 1), ('put', 1)]"


def test_a_session_that_is_discarded_stays_so(installation, tmp_path, caplog):
    """Where ``cookie_on_exception`` keeps nothing, the body of the error page changes nothing, and raises nothing."""

    def fail(request):
        request.session["failed"] = True
        raise RuntimeError("the view fails")

    views = Views(count=count, data=data, fail=fail)
    views.exception_views[RuntimeError] = streaming(put)
    app = TestApp(install(installation, {**store_options("memory", tmp_path), "cookie_on_exception": "false"}, views))
    answer = app.get("/fail")

    assert answer.text == "begun "
    assert app.get("/data").text == "[]"
    assert errors_of(caplog) == []


def test_an_empty_session_of_a_store_that_is_down_raises_nothing(installation, tmp_path, caplog):
    """Where ``store_error = empty``, a body that changes the session is sent all the same, and nothing is saved."""
    app = site(installation, tmp_path, streaming(put, touched=False), "file", store_error="empty")
    app.get("/count")
    folder = tmp_path / "sessions"
    folder.rename(tmp_path / "away")
    folder.write_text("no folder")

    assert app.get("/stream").text == "begun "
    assert errors_of(caplog) == []
    assert folder.read_text() == "no folder"


def test_a_length_that_was_given_stays(installation, tmp_path):
    """A streamed body of a known length is sent with that length."""

    def view(request):
        request.session.get("count")
        return Response(app_iter=iter([b"abc"]), content_length=3)

    app = install(installation, store_options("memory", tmp_path), Views(stream=view))
    sent = []
    app(Request.blank("/stream").environ, lambda _status, headers, *_: sent.extend(headers))

    assert dict(sent)["Content-Length"] == "3"


def test_a_body_without_close(installation, tmp_path):
    """A body that is any iterator, with nothing to close, is sent as it is."""

    def view(request):
        request.session["a"] = 1
        return Response(app_iter=iter([b"a", b"b"]))

    app = site(installation, tmp_path, view)

    assert app.get("/stream").text == "ab"
    assert app.get("/data").text == "[('a', 1)]"


def test_a_file_is_left_to_the_server(installation, tmp_path):
    """A file as a body, which uWSGI's own file wrapper returns, is handed back as it is."""

    def view(request):
        request.session.get("count")
        return Response(app_iter=BytesIO(b"abc"))

    app = install(installation, store_options("memory", tmp_path), Views(stream=view))
    body = app(Request.blank("/stream").environ, lambda *_: None)

    assert isinstance(body, BytesIO)


@pytest.mark.parametrize("wrapper", [FileWrapper, ReadOnlyFileBasedBuffer, FileIter])
def test_a_servers_own_file_wrapper_is_left_to_it(installation, tmp_path, wrapper):
    """What the server's file wrapper has made is handed back as it is: the server sends it in a way of its own."""

    def view(request):
        request.session.get("count")
        return Response(app_iter=wrapper(BytesIO(b"abc")))

    app = install(installation, store_options("memory", tmp_path), Views(stream=view))
    environ = TestApp(app).get("/stream").request.environ
    for key in [key for key in environ if key.startswith(("beaker", "webob", "paste", "webtest"))]:
        del environ[key]
    body = app({**environ, "wsgi.file_wrapper": wrapper}, lambda *_: None)

    assert type(body) is wrapper
    assert b"".join(body) == b"abc"


def test_an_application_that_answers_late(tmp_path):
    """A WSGI application that begins its response while it is iterated over may change its session until then."""

    def late(environ, start_response):
        session = environ["beaker.session"]
        session["count"] = session.get("count", 0) + 1
        session.save()
        start_response("200 OK", [("Content-Type", "application/json")])
        yield json.dumps(session["count"]).encode()

    app = TestApp(SessionMiddleware(late, **store_options("memory", tmp_path)))

    assert [app.get("/").json for _ in range(3)] == [1, 2, 3]


def test_an_id_without_a_cookie_is_the_applications_matter(tmp_path):
    """Without cookies the application itself carries the id, so that the body may begin a session."""
    app = site("filter", tmp_path, streaming(put), "file", use_cookies=False)
    app.get("/stream")

    assert len(list((tmp_path / "sessions").rglob("*.cache"))) == 1


# -- What caches are told ----------------------------------------------------------------------------


def reading(request):
    """Stream a page that is the first to read the session."""

    def body():
        yield b"you are "
        yield request.session.get("user", "nobody").encode()

    return Response(app_iter=body())


def made(request):
    """Make the session, and stream a page that is the first to read it."""
    _ = request.session
    return reading(request)


def elsewhere(request):
    """Stream a page in which other WSGI code is the first to read the session."""

    def body():
        yield b"you are "
        yield request.environ["beaker.session"].get("user", "nobody").encode()

    return Response(app_iter=body())


def login(request):
    """Log in."""
    request.session["user"] = request.params["name"]


@pytest.mark.parametrize(
    ("installation", "view"),
    [
        *product([*WITH_TWEEN, "filter_alone"], [reading]),
        *product(INSTALLATIONS, [made]),
        *product(["filter", "beaker_filter", "filter_alone"], [elsewhere]),
    ],
    indirect=["installation"],
)
def test_a_body_that_is_the_first_to_read_the_session_varies(installation, view, tmp_path):
    """A shared cache keeps the page of each user apart from the others', though the headers leave first."""
    app = site(installation, tmp_path, view)
    app.app = SharedCache(app.app)
    pages = []
    for name in ("ada", "bob", "ada"):
        app.reset()
        app.post("/login", {"name": name})
        pages.append(app.get("/stream").text)

    assert pages == ["you are ada", "you are bob", "you are ada"]
    assert app.get("/stream").headers["Vary"] == "Cookie"
    assert app.head("/stream").headers["Vary"] == "Cookie"


class LazyFile(RawIOBase):
    """A file whose content is made while it is read, from the session of the request, which it counts in."""

    def __init__(self, request):
        self._request = request
        self._content = None

    def readable(self):
        return True

    def readinto(self, buffer):
        if self._content is None:
            session = self._request.session
            session["put"] = 1
            self._content = BytesIO(session.get("user", "nobody").encode())
        return self._content.readinto(buffer)


class LazyList(list):
    """A list whose content is made while it is sent."""

    def __init__(self, request):
        super().__init__([b"later"])
        self._request = request

    def __iter__(self):
        return iter(LazyFile(self._request))


class LazyRealFile(FileIO):
    """A real file, in whose place another content is sent."""

    def __init__(self, request):
        super().__init__(__file__)
        self._lazy = LazyFile(request)

    def readinto(self, buffer):
        return self._lazy.readinto(buffer)

    def __next__(self):
        return next(self._lazy)


class LazyWrapper(FileIter):
    """A wrapper of a real file, in whose place another content is sent."""

    def __init__(self, request):
        super().__init__(BytesIO(b"later"))
        self._lazy = LazyFile(request)

    def __next__(self):
        return next(self._lazy)


def by_server(request):
    """Return what the server's own file wrapper makes of a file; the tests' server has Python's."""
    return request.environ["wsgi.file_wrapper"](LazyFile(request))


#: Bodies of the types that most often are there before they are sent, and here are not.
LAZY = {
    "a file": LazyFile,
    "a buffered file": lambda request: BufferedReader(LazyFile(request)),
    "a subclass of a file": LazyRealFile,
    "a buffered subclass": lambda request: BufferedReader(LazyRealFile(request)),
    "Pyramid's wrapper": lambda request: FileIter(LazyFile(request)),
    "a subclass of it": LazyWrapper,
    "WebOb's wrapper": lambda request: WebObFileIter(LazyFile(request)),
    "Python's wrapper": lambda request: FileWrapper(LazyFile(request)),
    "the server's wrapper": by_server,
    "a subclass of a list": LazyList,
}


@pytest.mark.parametrize("body", LAZY.values(), ids=LAZY)
@pytest.mark.parametrize("installation", [*WITH_TWEEN, "filter_alone"], indirect=True)
def test_a_body_whose_type_says_that_it_is_made(installation, body, tmp_path):
    """A file or a list may read and change the session while it is sent: only a plain one is known not to."""
    app = site(installation, tmp_path, lambda request: Response(app_iter=body(request)))
    app.post("/login", {"name": "ada"})
    page = app.get("/stream", extra_environ={"wsgi.file_wrapper": FileWrapper})

    assert (page.text, page.headers["Vary"]) == ("ada", "Cookie")
    assert app.get("/data").text == "[('put', 1), ('user', 'ada')]"


def by_response_callback(config, answered):
    """Replace a body in a response callback."""
    config.add_subscriber(lambda event: event.request.add_response_callback(answered), NewRequest)


def by_subscriber(config, answered):
    """Replace a body in a subscriber of ``NewResponse``."""
    config.add_subscriber(lambda event: answered(event.request, event.response), NewResponse)


def by_finished_callback(config, answered):
    """Replace a body in a finished callback, which comes after all else."""

    def remember(event):
        request, response = event.request, event.response
        request.add_finished_callback(lambda _request: answered(request, response))

    config.add_subscriber(remember, NewResponse)


def replacing_tween(handler, registry):
    """Replace a response in a tween over ours."""

    def tween(request):
        response = handler(request)
        return registry.replaced(request, response)

    return tween


def by_tween(config, answered):
    """Replace a response in a tween over ours."""

    def replaced(request, response):
        response = Response(response.text)
        answered(request, response)
        return response

    config.registry.replaced = replaced
    config.add_tween(f"{__name__}.replacing_tween", over="beaker_bridge.session_tween_factory")


@pytest.mark.parametrize("replace", [by_response_callback, by_subscriber, by_finished_callback, by_tween])
@pytest.mark.parametrize("installation", WITH_TWEEN, indirect=True)
def test_a_body_that_is_replaced_at_the_end_varies(installation, replace, tmp_path):
    """Whatever puts a streamed body in a made one's place, the body that is sent is the one that is looked at."""

    def answered(request, response):
        if request.path == "/stream":
            response.app_iter = iter(LazyFile(request))

    configure = Views(login=login, data=data, stream=lambda _request: "made")
    configure.includes = [lambda config: replace(config, answered)]
    app = TestApp(install(installation, store_options("memory", tmp_path), configure))
    app.post("/login", {"name": "ada"})
    page = app.get("/stream")

    assert (page.text, page.headers["Vary"]) == ("ada", "Cookie")
    assert app.get("/data").text == "[('put', 1), ('user', 'ada')]"


class SharedCache:
    """A cache that keeps each page for all users, as far as ``Vary`` lets it."""

    def __init__(self, app):
        self._app = app
        self._kept = []

    def __call__(self, environ, start_response):
        for path, varied, answer in self._kept:
            if path == environ["PATH_INFO"] and all(environ.get(name) == value for name, value in varied.items()):
                return answer(environ, start_response)
        request = Request(environ)
        answer = request.get_response(self._app)
        # All of it, as a cache has it.
        _ = answer.body
        if request.method == "GET":
            varied = {f"HTTP_{name.upper()}": environ.get(f"HTTP_{name.upper()}") for name in answer.vary or ()}
            self._kept.append((request.path_info, varied, answer))
        return answer(environ, start_response)


def failing_page(request):
    """Fail, for an error page that is streamed."""
    raise LookupError


@pytest.mark.parametrize("policy", [True, False])
@pytest.mark.parametrize("installation", WITH_TWEEN, indirect=True)
def test_an_error_page_that_is_streamed_varies(installation, tmp_path, policy):
    """So does an error page that reads the session, whatever becomes of its changes."""
    configure = Views(stream=failing_page)
    configure.exception_views = {LookupError: reading}
    app = TestApp(install(installation, store_options("memory", tmp_path) | {"cookie_on_exception": policy}, configure))

    assert app.get("/stream").headers["Vary"] == "Cookie"


def _opened(tmp_path, *args, **options):
    (tmp_path / "page").write_bytes(b"0123456789")
    return (tmp_path / "page").open(*args, **options)


def _file(request, tmp_path):
    with _opened(tmp_path, "rb") as file:
        return FileResponse(file.name, request)


STATIC = {
    "a list": lambda request, _: Response(b"0123456789", conditional_response=True),
    "an iterator of a list": lambda request, _: Response(app_iter=iter([b"0123456789"])),
    "a file": _file,
    "WebOb's file without a wrapper": lambda request, _: Response(app_iter=WebObFileIter(BytesIO(b"0123456789"))),
    "a file without a wrapper": lambda request, _: Response(app_iter=FileIter(BytesIO(b"0123456789"))),
    "a file in memory": lambda request, _: Response(app_iter=BytesIO(b"0123456789")),
    "an open file": lambda request, tmp_path: Response(app_iter=_opened(tmp_path, "rb")),
    "an open file to write, too": lambda request, tmp_path: Response(app_iter=_opened(tmp_path, "r+b")),
    "an open file without a buffer": lambda request, tmp_path: Response(app_iter=_opened(tmp_path, "rb", buffering=0)),
    "a temporary file": lambda request, tmp_path: Response(app_iter=FileIter(_opened(tmp_path, "r+b"))),
    "Python's own wrapper": lambda request, _: Response(app_iter=FileWrapper(BytesIO(b"0123456789"))),
}


@pytest.mark.parametrize("view", STATIC.values(), ids=STATIC)
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=2-4"}])
def test_what_is_there_before_it_is_sent_does_not_vary(installation, view, headers, tmp_path):
    """A file, or a body that is made already, reads no session: caches may keep it for all, in parts or by HEAD."""
    app = site(installation, tmp_path, lambda request: view(request, tmp_path))
    app.get("/count")
    page, head = app.get("/stream", headers=headers), app.head("/stream", headers=headers)

    assert page.text in ("0123456789", "234")
    assert "Vary" not in page.headers
    assert "Vary" not in head.headers


def test_the_answer_to_head_has_the_headers_of_the_page(installation, tmp_path):
    """A body that nobody sends is known by how it is closed: with a way of its own it may have read the session."""

    class Body:
        def __init__(self):
            self.close = lambda: None

        def __iter__(self):
            return iter([b"page"])

    def view(request):
        _ = request.session
        return Response(app_iter=Body())

    app = site(installation, tmp_path, view)

    assert app.get("/stream").headers["Vary"] == app.head("/stream").headers["Vary"] == "Cookie"


# -- Servers that never close ------------------------------------------------------------------------


def asgi_answer(app, path, cookie):
    """Return the headers and the body of a request through asgiref, whose adapter never calls ``close()``."""
    machine.package("asgiref")
    from asgiref.wsgi import WsgiToAsgi

    messages = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        messages.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": b"name=ada",
        "headers": [(b"cookie", cookie.encode("ascii")), (b"host", b"localhost")],
    }
    asyncio.run(WsgiToAsgi(app)(scope, receive, send))
    return messages[0]["headers"], b"".join(message.get("body", b"") for message in messages[1:])


def asgi_site(installation, tmp_path, view):
    """Return a function that asks a site through asgiref, with the cookie of a session that counts."""
    options = store_options("file", tmp_path)
    app = install(installation, options, Views(count=count, data=data, stream=view))
    set_cookie = dict(asgi_answer(app, "/count", "")[0])[b"set-cookie"].decode("ascii")
    return lambda path: asgi_answer(app, path, set_cookie.partition(";")[0])[1].decode("ascii")


@pytest.mark.parametrize("length", [None, 10, 99])
def test_a_server_that_never_closes_the_body(installation, tmp_path, length):
    """What the body changes is saved when it has come to its end, or a server that counts has all of it."""

    def view(request):
        answer = streaming(put, more=True)(request)
        answer.content_length = length
        return answer

    ask = asgi_site(installation, tmp_path, view)

    assert ask("/stream") == "begun more"
    assert ask("/data") == "[('count', 1), ('put', 1)]"


def test_a_body_that_fails_under_a_server_that_never_closes_it(installation, tmp_path):
    """An error in the middle of the body is the server's matter; what was changed before it stands."""

    def change(session):
        put(session)
        raise RuntimeError("the body fails")

    ask = asgi_site(installation, tmp_path, streaming(change))
    with pytest.raises(RuntimeError, match="the body fails"):
        ask("/stream")

    assert ask("/data") == "[('count', 1), ('put', 1)]"


def test_a_body_that_is_dropped_saves_nothing_until_it_is_closed(installation, tmp_path):
    """A generator that is dropped may go at any moment, also within a store's own work: only ``close()`` counts."""
    app = site(installation, tmp_path, streaming(put, more=True))
    app.get("/count")
    cookie = "; ".join(f"{name}={value}" for name, value in app.cookies.items())
    environ = {**Request.blank("/stream").environ, "HTTP_COOKIE": cookie}
    body = app.app(environ, lambda *_: None)
    chunks = iter(body)
    assert [next(chunks), next(chunks)] == [b"begun ", b"more"]
    del chunks
    before = app.get("/data").text
    body.close()

    assert before == "[('count', 1)]"
    assert app.get("/data").text == "[('count', 1), ('put', 1)]"
