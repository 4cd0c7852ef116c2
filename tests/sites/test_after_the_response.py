"""What touches a session when its request is over: a change raises, and ``exclusive()`` works at any time."""

from __future__ import annotations

import threading
from itertools import product

import pytest
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import RetryableException
from webtest import TestApp

from beaker_bridge import SessionMiddleware, SessionTooLateError, SessionValueError
from tests.installations import INSTALLATIONS, WITH_TWEEN, Views, count, data, install, store_options

pytestmark = pytest.mark.filterwarnings("ignore::beaker.exceptions.BeakerWarning")

STORED = ("memory", "file")

CHANGES = {
    "save()": lambda session: session.save(),
    "changed()": lambda session: session.changed(),
    "an item": lambda session: session.__setitem__("late", 1),
    "another item": lambda session: session.__setitem__("count", 99),
    "a deletion": lambda session: session.__delitem__("count"),
    "update()": lambda session: session.update(late=1),
    "|=": lambda session: session.__ior__({"late": 1}),
    "setdefault()": lambda session: session.setdefault("late", 1),
    "pop()": lambda session: session.pop("count"),
    "popitem()": lambda session: session.popitem(),
    "clear()": lambda session: session.clear(),
    "invalidate()": lambda session: session.invalidate(),
    "delete()": lambda session: session.delete(),
    "regenerate_id()": lambda session: session.regenerate_id(),
    "flash()": lambda session: session.flash("late"),
    "another flash()": lambda session: session.flash("late", allow_duplicate=False),
    "pop_flash()": lambda session: session.pop_flash(),
    "new_csrf_token()": lambda session: session.new_csrf_token(),
    "set_expiry()": lambda session: session.set_expiry(60),
    "a domain": lambda session: setattr(session, "domain", "example.org"),
    "Beaker's save()": lambda session: session._object.save(),
    "Beaker's delete()": lambda session: session._object.delete(),
    "Beaker's invalidate()": lambda session: session._object.invalidate(),
}


@pytest.fixture(params=INSTALLATIONS)
def installation(request):
    return request.param


def _made(request):
    return ""


def _streamed(request):
    return Response(app_iter=(chunk for chunk in [b"a", b"b"]), content_length=2)


def _generated(request):
    return Response(app_iter=(chunk for chunk in [b"a", b"b"]))


def _failing(request):
    raise LookupError


def _fail(*_arguments):
    raise ZeroDivisionError


def _refused(request):
    request.session["bad"] = UNSTORABLE
    return ""


def _lost(request):
    request.add_response_callback(_fail)
    return _streamed(request)


def _spoilt(request):
    request.add_finished_callback(_fail)
    return _streamed(request)


#: A value that only the commit refuses: it is looked at in depth when it is written.
UNSTORABLE = [*["a"] * 40, object()]

#: How a request gets no answer: an error that no view handles, a commit, a response callback or a finished callback
#: that fails.
UNANSWERED = {"unhandled": _fail, "refused": _refused, "lost": _lost, "spoilt": _spoilt}
ENDS = {"made": _made, "streamed": _streamed, "generated": _generated, "failing": _failing, **UNANSWERED}


class Site:
    """An application whose requests leave their session, or themselves, behind."""

    def __init__(self, installation, tmp_path, store="memory", **options):
        self.left = []
        views = Views(count=count, data=data, flash=lambda request: request.session.flash("message"))
        for name, end in ENDS.items():
            views.views[name] = self._leaving(end, touched=True)
            views.views[f"untouched_{name}"] = self._leaving(end, touched=False)
            views.views[f"changed_{name}"] = self._leaving(end, touched=True, changes={"changed": True})
        views.exception_views = {LookupError: lambda _request: Response("sorry", status=500)}
        self.browser = TestApp(install(installation, {**store_options(store, tmp_path), **options}, views))
        self.browser.get("/count")
        self.browser.get("/flash")

    def _leaving(self, end, *, touched, changes=()):
        def view(request):
            if touched:
                self.left.append(request.session)
                request.session.get("count")
                request.session.update(changes)
            else:
                self.left.append(request)
            return end(request)

        return view

    def visit(self, path):
        """Make a request, and return what it has left behind."""
        if path.rpartition("_")[2].strip("/") in UNANSWERED:
            with pytest.raises((ZeroDivisionError, SessionValueError)):
                self.browser.get(path)
        else:
            self.browser.get(path, status="*")
        return self.left[-1]

    def visit_unclosed(self, path):
        """Make a request as a server that never closes the body, and return what it has left behind."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.browser.cookies.items())
        body = self.browser.app({**Request.blank(path).environ, "HTTP_COOKIE": cookie}, lambda *_: None)
        assert b"".join(body) in (b"ab", b"", b"sorry")
        return self.left[-1]

    @property
    def held(self):
        return self.browser.get("/data").text


HELD = "[('_f_', ['message']), ('count', 1)]"


# -- A change ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory", "cookie"])
@pytest.mark.parametrize(("end", "closed"), [*product(ENDS, [True]), ("streamed", False), ("generated", False)])
def test_a_change_raises(installation, tmp_path, end, closed, store):
    """Whatever changes a session whose request is over raises, and says what works; nothing of it is saved."""
    site = Site(installation, tmp_path, store)
    visit = site.visit if closed else site.visit_unclosed
    for change in CHANGES.values():
        session = visit(f"/{end}")
        before = dict(session)
        with pytest.raises(SessionTooLateError, match=r"exclusive\(\)"):
            change(session)

        assert dict(session) == before
    assert site.held == HELD


def test_a_change_in_a_thread_raises(installation, tmp_path):
    """So it does in a thread that the request has started, and in each thread after that."""
    site = Site(installation, tmp_path)
    session, raised = site.visit("/made"), []

    def work():
        for change in (CHANGES["save()"], CHANGES["an item"]):
            try:
                change(session)
            except SessionTooLateError as error:
                raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert len(raised) == 2


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("installation", [*WITH_TWEEN, "filter_alone"], indirect=True)
def test_a_session_that_is_first_touched_when_the_request_is_over(installation, tmp_path, end):
    """A thread that is the first to touch the session can read it, and not change it."""
    site = Site(installation, tmp_path)
    request = site.visit(f"/untouched_{end}")

    assert request.session["count"] == 1
    for name in ("save()", "an item", "invalidate()", "flash()", "regenerate_id()"):
        with pytest.raises(SessionTooLateError, match=r"exclusive\(\)"):
            CHANGES[name](request.session)
    assert site.held == HELD


def test_what_was_read_can_still_be_read(installation, tmp_path):
    """A session can be read at any time, as its request has left it."""
    session = Site(installation, tmp_path).visit("/made")

    assert (session["count"], session.peek_flash(), session.new, len(session)) == (1, ["message"], False, 2)
    session.persist()


@pytest.mark.parametrize("installation", ["filter", "filter_alone", "beaker_filter"], indirect=True)
def test_wsgi_code_around_the_application_is_in_time(installation, tmp_path):
    """What other WSGI code saves when Pyramid has answered, and the headers are still here, is saved."""

    def view(request):
        request.session.get("count")
        return ""

    app = install(installation, store_options("memory", tmp_path), Views(count=count, data=data, view=view))
    inner = app.app

    def around(environ, start_response):
        body = inner(environ, start_response)
        environ["beaker.session"]["around"] = 1
        environ["beaker.session"].save()
        return body

    def earlier(environ, start_response):
        def answer(*arguments):
            environ["beaker.session"]["around"] = 1
            environ["beaker.session"].save()
            return start_response(*arguments)

        return inner(environ, answer)

    # Beaker's own filter commits when the headers come.
    app.app = app.wrap_app = earlier if installation == "beaker_filter" else around
    browser = TestApp(app)
    browser.get("/view")

    assert browser.get("/data").text == "[('around', 1)]"


# With the tween, a change is saved before the callbacks fail.
@pytest.mark.parametrize(
    ("installation", "end"),
    [("beaker_filter", "unhandled"), *product(["beaker_filter_alone"], ["unhandled", "lost", "spoilt"])],
    indirect=["installation"],
)
def test_an_error_page_of_other_middleware(installation, tmp_path, caplog, end):
    """WSGI code within Beaker's own filter answers for an application that fails; nothing is saved, or logged."""
    site = Site(installation, tmp_path)
    app = site.browser.app
    inner = app.app

    def around(environ, start_response):
        try:
            return inner(environ, start_response)
        except ZeroDivisionError:
            start_response("500 Sorry", [("Content-Type", "text/plain")])
            return [str(environ["beaker.session"]["count"]).encode()]

    app.app = app.wrap_app = around
    site.left.clear()
    changing = site.browser.get(f"/changed_{end}", status=500)

    assert changing.text == "1"
    assert "Set-Cookie" not in changing.headers
    assert "not saved" not in caplog.text
    with pytest.raises(SessionTooLateError):
        site.left[0].save()
    assert site.held == HELD


@pytest.mark.parametrize("path", ["made", "streamed"])
@pytest.mark.parametrize("installation", ["beaker_filter", "beaker_filter_alone"], indirect=True)
def test_what_wsgi_code_adds_is_refused(installation, tmp_path, path):
    """Where Beaker's own filter cannot commit what WSGI code has added, the request is over, too."""
    site = Site(installation, tmp_path)
    app = site.browser.app
    inner = app.app

    def around(environ, start_response):
        def answer(*arguments):
            environ["beaker.session"]["bad"] = UNSTORABLE
            environ["beaker.session"].save()
            return start_response(*arguments)

        return inner(environ, answer)

    app.app = app.wrap_app = around
    with pytest.raises(SessionValueError):
        site.browser.get(f"/{path}")
    app.app = app.wrap_app = inner

    with pytest.raises(SessionTooLateError):
        site.left[-1].save()
    _step(site.left[-1])
    assert "('progress', 1)" in site.held


def test_a_plain_application_that_fails(tmp_path):
    """The request of a WSGI application that raises is over, too."""
    left = []

    def failing(environ, start_response):
        left.append(environ["beaker.session"])
        left[0].get("count")
        raise LookupError

    with pytest.raises(LookupError):
        TestApp(SessionMiddleware(failing, **store_options("memory", tmp_path))).get("/")
    with pytest.raises(SessionTooLateError):
        left[0].save()


def test_an_application_that_answers_nothing(tmp_path):
    """So is that of one that never calls ``start_response()``; what it has changed is saved."""
    left = []

    def silent(environ, _start_response):
        session = environ["beaker.session"]
        session["silent"] = True
        session.save()
        left.append(session)
        return []

    SessionMiddleware(silent, **store_options("memory", tmp_path))(Request.blank("/").environ, lambda *_: None)

    assert left[0].get_by_id(left[0].id)["silent"]
    with pytest.raises(SessionTooLateError):
        left[0].save()


def test_a_discarded_logout_stays_discarded(installation, tmp_path):
    """``persist()`` in a thread commits nothing of a request that was discarded before."""
    left = []

    def logout(request):
        left.append(request.session)
        request.session.invalidate()
        raise LookupError

    browser = TestApp(install(installation, store_options("memory", tmp_path), Views(count=count, logout=logout)))
    browser.get("/count")
    with pytest.raises(LookupError):
        browser.get("/logout")
    left[0].persist()

    assert browser.get("/count").text == "2"


# -- exclusive() -------------------------------------------------------------------------------------


def _step(session, key="progress"):
    with session.exclusive():
        session[key] = session.get(key, 0) + 1


@pytest.mark.parametrize("store", STORED)
@pytest.mark.parametrize(("end", "closed"), [*product(ENDS, [True]), ("streamed", False), ("generated", False)])
def test_exclusive_works_after_the_response(installation, tmp_path, end, closed, store):
    """A job that goes on when its request is over saves its progress, each time that it has some."""
    site = Site(installation, tmp_path, store)
    session = (site.visit if closed else site.visit_unclosed)(f"/{end}")
    seen = []
    for _ in range(3):
        _step(session)
        seen.append(site.held.partition("progress")[2])

    assert seen == ["', 1)]", "', 2)]", "', 3)]"]


def test_exclusive_works_where_the_request_was_discarded(installation, tmp_path):
    """The steps of a job stand, whatever has become of the request that started it."""
    site = Site(installation, tmp_path, cookie_on_exception="false")
    session = site.visit("/failing")
    _step(session)

    assert "('progress', 1)" in site.held


def test_a_thread_of_an_attempt_that_was_repeated(installation, tmp_path):
    """An attempt that pyramid_retry has repeated is over for its threads: what they change raises, a block is saved."""
    left = []

    def work(request):
        left.append(request.session)
        count(request)
        if len(left) < 2:
            raise RetryableException
        return ""

    views = Views(work=work, data=data)
    views.includes = ("pyramid_retry",)
    browser = TestApp(install(installation, store_options("memory", tmp_path), views))
    for _ in range(2):
        left.clear()
        browser.get("/work")
    for change in ("save()", "an item", "flash()", "invalidate()", "regenerate_id()"):
        with pytest.raises(SessionTooLateError):
            CHANGES[change](left[0])
    _step(left[0])

    assert browser.get("/data").text == "[('count', 2), ('progress', 1)]"


def test_exclusive_sees_what_other_requests_have_written(installation, tmp_path):
    """A block sees the session as it stands in the store when it begins, and its changes are merged with none."""
    site = Site(installation, tmp_path)
    session = site.visit("/made")
    site.browser.get("/count")
    with session.exclusive():
        seen = session["count"]
        session["count"] += 10

    assert seen == 2
    assert "('count', 12)" in site.held


def test_threads_of_one_request_wait_for_each_other(installation, tmp_path):
    """Several threads that share the session of a request that is over take their steps one by one."""
    site = Site(installation, tmp_path)
    session = site.visit("/made")
    thread = threading.Thread(target=_step, args=(session,))
    with session.exclusive():
        thread.start()
        # As long as the block goes on, it must not end.
        thread.join(0.05)
        has_waited = thread.is_alive()
        session["progress"] = 1
    thread.join()

    assert has_waited
    assert "('progress', 2)" in site.held


def test_a_change_beside_a_block_raises(installation, tmp_path):
    """A change outside the block raises, also while another thread is in one."""
    site = Site(installation, tmp_path)
    session, raised = site.visit("/made"), []

    def beside():
        try:
            session["late"] = 1
        except SessionTooLateError as error:
            raised.append(error)

    with session.exclusive():
        session["progress"] = 1
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()

    assert len(raised) == 1
    assert "('progress', 1)" in site.held
    assert "late" not in site.held


def test_a_job_of_a_user_who_has_logged_out(installation, tmp_path):
    """A job whose session has ended goes on, and brings nothing back."""
    site = Site(installation, tmp_path)
    session = site.visit("/made")
    found = session.get_by_id(session.id)
    found.invalidate()
    found.commit()
    for _ in range(2):
        _step(session)

    assert session.get_by_id(session.id) is None
    assert site.held == "[]"
