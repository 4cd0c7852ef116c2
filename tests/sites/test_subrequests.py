"""Subrequests: they share the session of the request that makes them, and end nothing of it."""

from __future__ import annotations

import threading
from itertools import product

import pytest
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.installations import INSTALLATIONS, WITH_TWEEN, Views, count, data, install, store_options

pytestmark = [
    pytest.mark.filterwarnings("ignore::beaker.exceptions.BeakerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(params=WITH_TWEEN)
def installation(request):
    return request.param


def _inner(request):
    request.session["inner"] = request.session.get("outer", "no")
    return "inner"


def _failing(request):
    request.session["inner"] = 1
    raise LookupError


def _site(installation, tmp_path, outer, includes=(), store="memory", *, answered=False, **options):
    """Return an application in which ``/outer`` makes a subrequest."""
    views = Views(count=count, data=data, inner=_inner, failing=_failing, outer=outer)
    views.includes = includes
    if answered:
        views.exception_views = {LookupError: lambda _request: Response("sorry", status=500)}
    return TestApp(install(installation, {**store_options(store, tmp_path), **options}, views))


# -- Sharing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_tweens", [False, True])
@pytest.mark.parametrize("touched", ["before", "after", "not at all"])
@pytest.mark.parametrize("store", ["memory", "cookie"])
def test_a_subrequest_shares_the_session(installation, tmp_path, use_tweens, touched, store):
    """Whatever a subrequest and its parent put into the session is in it, and one cookie is sent for both."""

    def outer(request):
        if touched == "before":
            request.session["outer"] = "before"
        answer = request.invoke_subrequest(Request.blank("/inner"), use_tweens=use_tweens)
        if touched == "after":
            request.session["outer"] = request.session["inner"] + " after"
        return answer.text

    app = _site(installation, tmp_path, outer, store=store)
    answer = app.get("/outer")
    held = {"before": "before", "after": "no", "not at all": "no"}[touched]

    assert answer.text == "inner"
    assert len(answer.headers.getall("Set-Cookie")) == 1
    assert f"('inner', '{held}')" in app.get("/data").text
    assert ("outer" in app.get("/data").text) is (touched != "not at all")


@pytest.mark.parametrize("use_tweens", [False, True])
def test_the_response_of_a_subrequest_is_the_parents(installation, tmp_path, use_tweens):
    """A parent that answers with its subrequest's response sends the cookie with it, once."""

    def outer(request):
        return request.invoke_subrequest(Request.blank("/count"), use_tweens=use_tweens)

    app = _site(installation, tmp_path, outer)
    answers = [app.get("/outer") for _ in range(2)]

    assert [answer.text for answer in answers] == ["1", "2"]
    assert [len(answer.headers.getall("Set-Cookie")) for answer in answers] == [1, 0]
    assert [answer.headers.getall("Vary") for answer in answers] == [["Cookie"]] * 2


@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_subrequest_of_a_subrequest(installation, tmp_path, use_tweens):
    """A subrequest's own subrequest shares the same session."""

    def outer(request):
        if request.params.get("depth") == "2":
            return request.session.setdefault("depth", 2)
        depth = int(request.params.get("depth", 0)) + 1
        return request.invoke_subrequest(Request.blank(f"/outer?depth={depth}"), use_tweens=use_tweens).text

    app = _site(installation, tmp_path, outer)

    assert app.get("/outer").text == "2"
    assert app.get("/data").text == "[('depth', 2)]"


@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_logout_in_a_subrequest(installation, tmp_path, use_tweens):
    """A subrequest that ends the session ends its parent's."""

    def outer(request):
        if "depth" in request.params:
            request.session.invalidate()
            return ""
        return request.invoke_subrequest(Request.blank("/outer?depth=1"), use_tweens=use_tweens).text

    app = _site(installation, tmp_path, outer)
    app.get("/count")
    answer = app.get("/outer")

    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert app.get("/data").text == "[]"


@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_parent_that_fails_takes_its_subrequest_with_it(installation, tmp_path, use_tweens):
    """Nothing is committed by a subrequest itself: where its parent fails, neither leaves a trace."""

    def outer(request):
        request.invoke_subrequest(Request.blank("/inner"), use_tweens=use_tweens)
        raise RuntimeError

    app = _site(installation, tmp_path, outer)
    app.get("/count")
    with pytest.raises(RuntimeError):
        app.get("/outer")

    assert app.get("/data").text == "[('count', 1)]"


# -- Who shares nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("use_tweens", [False, True])
@pytest.mark.parametrize("installation", ["filter_alone", "settings_alone", "python_alone"])
def test_without_the_include_a_subrequest_has_a_session_of_its_own(tmp_path, installation, use_tweens):
    """Without ``include`` a subrequest is a request like any other, with the cookies that it is given."""

    def outer(request):
        request.session["outer"] = 1
        answer = request.invoke_subrequest(Request.blank("/inner"), use_tweens=use_tweens)
        return f"{answer.text} {'Set-Cookie' in answer.headers}"

    app = _site(installation, tmp_path, outer)

    assert app.get("/outer").text == "inner True"
    assert app.get("/data").text == "[('outer', 1)]"


def test_a_subrequest_in_another_thread_has_a_session_of_its_own(installation, tmp_path):
    """Two threads do not work on one session: a subrequest that another thread makes shares nothing."""
    answers = []

    def outer(request):
        request.session["outer"] = 1
        inner = Request.blank("/inner")
        thread = threading.Thread(target=lambda: answers.append(request.invoke_subrequest(inner).text))
        thread.start()
        thread.join()
        return ""

    app = _site(installation, tmp_path, outer)
    app.get("/outer")

    assert answers == ["inner"]
    assert app.get("/data").text == "[('outer', 1)]"


@pytest.mark.parametrize("touched", [False, True])
def test_a_subrequest_where_nobody_has_configured_a_session(touched):
    """Sessions in memory, for want of options, are shared as soon as the parent has one."""

    def outer(request):
        if touched:
            request.session["outer"] = 1
        return request.invoke_subrequest(Request.blank("/inner"), use_tweens=True).text

    app = TestApp(install("settings", {}, Views(data=data, inner=_inner, outer=outer)))

    assert app.get("/outer").text == "inner"
    assert app.get("/data").text == ("[('inner', 1), ('outer', 1)]" if touched else "[]")


@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_subrequest_of_another_application_has_a_session_of_its_own(installation, tmp_path, use_tweens):
    """An application shares nothing with another one's requests, though both include the package."""
    other = install("settings", store_options("memory", tmp_path), Views(inner=_inner))

    def outer(request):
        request.session["outer"] = 1
        return other.invoke_subrequest(Request.blank("/inner"), use_tweens=use_tweens).text

    app = _site(installation, tmp_path, outer)

    assert app.get("/outer").text == "inner"
    assert app.get("/data").text == "[('outer', 1)]"


def test_an_application_that_is_called_from_a_view_has_a_session_of_its_own(installation, tmp_path):
    """A WSGI call is no subrequest: to the same application, or to another one."""

    def outer(request):
        request.session["outer"] = 1
        return Request.blank("/inner").get_response(app.app).text

    app = _site(installation, tmp_path, outer)

    assert app.get("/outer").text == "inner"
    assert app.get("/data").text == "[('outer', 1)]"


# -- A subrequest that fails -------------------------------------------------------------------------

LINKS = list(product(("shared", "by hand", "copied"), (False, True)))
EXTRAS = ((), ("pyramid_tm",), ("pyramid_retry",), ("pyramid_tm", "pyramid_retry"))


def _catching(request, link, use_tweens):
    """Make a subrequest that fails, and catch that."""
    inner = request.copy() if link == "copied" else Request.blank("/failing")
    inner.path_info = "/failing"
    if link == "by hand":
        inner.environ["beaker.session"] = request.environ["beaker.session"]
    try:
        request.invoke_subrequest(inner, use_tweens=use_tweens)
    except LookupError:
        return "caught"
    return "answered"


@pytest.mark.parametrize("extras", EXTRAS, ids="+".join)
@pytest.mark.parametrize("policy", ["true", "false", "http"])
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_subrequest_that_fails_ends_nothing(installation, tmp_path, answered, policy, extras):
    """A failure that the parent catches, or an exception view answers, discards nothing of the parent's changes."""

    def outer(request):
        request.session["outer"] = 1
        return _catching(request, *LINKS[int(request.params["link"])])

    app = _site(installation, tmp_path, outer, extras, answered=answered, cookie_on_exception=policy)
    for number, (_link, use_tweens) in enumerate(LINKS):
        app.reset()
        answer = app.get(f"/outer?link={number}")

        assert answer.text == ("answered" if answered and use_tweens else "caught")
        assert len(answer.headers.getall("Set-Cookie")) == 1
        assert "('outer', 1)" in app.get("/data").text


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_logout_beside_a_subrequest_that_fails(installation, tmp_path, link):
    """A page that says "You are logged out" is true, though its subrequest has failed."""

    def outer(request):
        request.session.invalidate()
        return _catching(request, *link)

    app = _site(installation, tmp_path, outer, cookie_on_exception="false")
    app.get("/count")
    before = app.cookies["sid"]
    app.get("/outer")
    app.reset()
    app.set_cookie("sid", before)

    assert app.get("/data").text == "[]"


@pytest.mark.parametrize("installation", ["beaker_filter_alone", "filter_alone"])
@pytest.mark.parametrize("policy", ["true", "false"])
def test_a_subrequest_that_is_the_first_to_use_the_session(installation, tmp_path, policy):
    """Where a subrequest is the first to use its parent's session, the parent's own end counts for it all the same."""

    def outer(request):
        inner = Request.blank("/inner")
        inner.environ["beaker.session"] = request.environ["beaker.session"]
        request.invoke_subrequest(inner)
        raise LookupError

    app = _site(installation, tmp_path, outer, answered=True, cookie_on_exception=policy)
    answer = app.get("/outer", status=500)

    assert answer.headers["Vary"] == "Cookie"
    assert ("inner" in app.get("/data").text) is (policy == "true")


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_subrequest_that_fails_in_a_retried_attempt(installation, tmp_path, use_tweens):
    """A retried attempt starts from the store, also where a subrequest has failed in the one before."""
    from pyramid_retry import RetryableException

    seen = []

    def outer(request):
        seen.append(sorted(request.session))
        _catching(request, "by hand", use_tweens)
        if len(seen) < 3:
            raise RetryableException
        return ""

    app = _site(installation, tmp_path, outer, ("pyramid_retry",))
    app.get("/count")
    app.get("/outer")

    assert seen == [["count"]] * 3
    assert app.get("/data").text == "[('count', 1), ('inner', 1)]"
