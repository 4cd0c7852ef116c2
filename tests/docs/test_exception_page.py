"""docs/explanation/cookie_on_exception.rst: each case of its table is run, in a site of its own."""

from __future__ import annotations

import configparser
from contextlib import suppress

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from pyramid.httpexceptions import HTTPForbidden, HTTPFound, HTTPInternalServerError
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.docs.pages import examples, read
from tests.installations import SECRET, WITH_TWEEN, Views, count, data, install

PAGE = read("explanation/cookie_on_exception")
EXAMPLES = examples(PAGE)
POLICIES = ("true", "false", "http")


class Server:
    """A server: it answers what the application raises, as long as no headers were sent."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        try:
            body = self.app(environ, start_response)
        except LookupError:
            start_response("500 Error", [("Content-Type", "text/plain")])
            return [b"the server's own page"]
        return list(_sent(body))


def _sent(body):
    with suppress(LookupError):
        yield from body
    getattr(body, "close", lambda: None)()


# -- The cases of the table: each view changes the session, and then something happens ------------------------------


def _changing(then):
    def view(request):
        request.session["changed"] = True
        return then(request)

    return view


def _raising(error, *arguments):
    def view(request):
        raise error(*arguments)

    return _changing(view)


def _retried(request):
    from pyramid_retry import RetryableException

    if request.environ["retry.attempt"] == 0:
        request.session["changed"] = True
        raise RetryableException
    return ""


def _retried_in_vain(request):
    from pyramid_retry import RetryableException

    request.session["changed"] = True
    raise RetryableException


def _exclusive(request):
    with request.session.exclusive():
        request.session["changed"] = True
    raise ValueError


def _persisted(request):
    request.session["changed"] = True
    request.session.persist()
    raise ValueError


def _too_late(request):
    def callback(_request, _response):
        raise LookupError

    request.session["changed"] = True
    request.add_response_callback(callback)
    return ""


def _subrequest(request):
    request.session["changed"] = True
    request.invoke_subrequest(Request.blank("/inner"), use_tweens=True)
    return ""


def _in_the_exception_view(request):
    raise KeyError


def _streamed(request):
    def body():
        yield b"begun"
        raise LookupError

    request.session["changed"] = True
    return Response(app_iter=body())


def _unsaved(request):
    request.session["changed"] = object()
    return ""


#: By the first cell of the row.
CASES = {
    "The view returns a response, whatever its status.": _changing(lambda _request: Response(status=500)),
    "It raises HTTPFound, a redirect.": _raising(HTTPFound, "/"),
    "It raises HTTPForbidden, and a view answers that.": _raising(HTTPForbidden),
    "It raises HTTPInternalServerError.": _raising(HTTPInternalServerError),
    "It raises another exception, and an exception view answers that.": _raising(ValueError),
    "An exception view itself changes the session.": _in_the_exception_view,
    "It raises, and no exception view answers: the server does.": _raising(LookupError),
    "pyramid_retry repeats the request: the attempt that failed.": _retried,
    "The last attempt fails, too, and an exception view answers.": _retried_in_vain,
    "A subrequest raises, and an exception view answers that.": _subrequest,
    "The session cannot be saved: its store is down, or a value is not JSON.": _unsaved,
    "A response callback, or a tween over ours, raises after the commit.": _too_late,
    "A streamed body raises while it is sent.": _streamed,
    "A block of exclusive() has ended, and then the view raises.": _exclusive,
    "The view has called persist(), and raises.": _persisted,
}


def _sorry(request):
    return Response("sorry", status=500)


def _changed(request):
    request.session["changed"] = True
    return _sorry(request)


def _site(installation, case, policy, **options):
    """Return a site with one of the cases."""
    views = Views(case=CASES[case], count=count, data=data, inner=_raising(ValueError))
    views.includes = ("pyramid_retry",)
    views.exception_views = {ValueError: _sorry, KeyError: _changed, **dict.fromkeys(_others(), _sorry)}
    options = {"type": "memory", "key": "sid", "secret": SECRET, "cookie_on_exception": policy, **options}
    return Server(install(installation, options, views))


def _others():
    from pyramid_retry import RetryableException

    from beaker_bridge import SessionValueError

    return RetryableException, SessionValueError


def _outcome(site):
    """Return what browsers find: one that has a session, and a new one."""
    known, new = TestApp(site), TestApp(site)
    known.get("/count")
    known.get("/case", expect_errors=True)
    is_stored = "changed" in known.get("/data").text
    has_cookie = "Set-Cookie" in new.get("/case", expect_errors=True).headers
    return {(True, True): "kept", (False, False): "discarded", (True, False): "stored, no cookie"}[
        is_stored, has_cookie
    ]


def _row(installation, case, **options):
    """Return a row of the table, as it comes out."""
    outcomes = [_outcome(_site(installation, case, policy, **options)) for policy in POLICIES]
    asked = []

    def policy(answer):
        return lambda _request, exception: asked.append(exception) or answer

    kept, discarded = (_outcome(_site(installation, case, policy(answer), **options)) for answer in (True, False))

    assert [kept, discarded] == outcomes[:2]
    if kept == discarded:
        return [case, *outcomes, kept]
    assert asked
    return [case, *outcomes, "as true or false"]


def _table():
    tree = publish_doctree(PAGE, settings_overrides={"report_level": 5, "syntax_highlight": "none"})
    table = next(tree.findall(nodes.table))
    return [[cell.astext().replace("\n", " ") for cell in row.children] for row in table.findall(nodes.row)]


ROWS = _table()


def test_the_table():
    """The table's columns are the option's values, and its rows the cases below."""
    assert ROWS[0] == ["Case", *POLICIES, "a function"]
    assert [row[0] for row in ROWS[1:]] == list(CASES)


@pytest.mark.once
@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row[0])
def test_each_case(row):
    """Each case comes out as the table has it, in each installation with the tween."""
    assert [_row(installation, row[0]) for installation in WITH_TWEEN] == [row] * len(WITH_TWEEN)


@pytest.mark.once
@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row[0])
def test_each_case_without_the_tween(row):
    """Without the tween the same holds, but the commit comes after what raises late: that discards the session."""
    expected = [row[0], *["discarded"] * 4] if row[0].startswith("A response callback") else row

    assert [_row(installation, row[0]) for installation in ("filter_alone", "settings_alone")] == [expected] * 2


@pytest.mark.once
@pytest.mark.parametrize("row", [row for row in ROWS[1:] if "exclusive()" not in row[0]], ids=lambda row: row[0])
def test_each_case_of_a_cookie_session(row):
    """A cookie session is stored by its cookie alone: it is kept, or discarded."""
    expected = [cell.replace("stored, no cookie", "discarded") for cell in row]

    assert _row("filter", row[0], type="cookie", validate_key="a key for tests, of 32 bytes or more") == expected


def test_the_tweens(tmp_path):
    """The explicit list of tweens is accepted."""
    parser = configparser.ConfigParser()
    parser.read_string(EXAMPLES["tweens"])
    views = Views(data=data)
    views.includes = ("pyramid_tm",)
    app = TestApp(install("settings", {"type": "memory"}, views, **parser["app:main"]))

    assert app.get("/data").text == "[]"


def test_the_policy():
    """The policy keeps the session after one exception, and not after another."""
    names = {}
    exec(EXAMPLES["policy"], names)

    def failing(request):
        request.session["failed"] = request.params["with"]
        raise {"key": KeyError, "value": ValueError}[request.params["with"]]

    views = Views(data=data, failing=failing)
    views.exception_views = {Exception: lambda request: "sorry"}
    app = TestApp(install("settings", {"type": "memory", "cookie_on_exception": names["keep"]}, views))
    app.get("/failing?with=value")
    lost = app.get("/data").text
    app.get("/failing?with=key")

    assert lost == "[]"
    assert app.get("/data").text == "[('failed', 'key')]"
