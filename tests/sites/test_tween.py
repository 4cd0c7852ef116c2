"""The tween's place, and what it does together with pyramid_tm, pyramid_retry and the debug toolbar."""

import itertools
import json
import re
from types import SimpleNamespace

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.interfaces import ITweens
from pyramid.response import Response
from pyramid.wsgi import wsgiapp2
from webtest import TestApp

from beaker_bridge import SessionValueError, SettingsError, session_factory_from_settings
from beaker_bridge.request.exchange import ENVIRON_KEY
from tests.installations import INSTALLATIONS, WITH_TWEEN, Views, count, data, fail, install, store_options

OURS = "beaker_bridge.session_tween_factory"
EXCVIEW = "pyramid.tweens.excview_tween_factory"
TM = "pyramid_tm.tm_tween_factory"
TOOLBAR = "pyramid_debugtoolbar.toolbar_tween_factory"

INCLUDES = ("beaker_bridge", "pyramid_tm", "pyramid_retry", "pyramid_debugtoolbar")

pytestmark = [
    # pyramid_debugtoolbar 4.12 imports pkg_resources and compiles templates with old escapes.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


def _views(*includes, **views):
    configured = Views(count=count, data=data, **views)
    configured.includes = includes
    return configured


# -- Order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(INCLUDES)))
def test_the_implicit_order(order):
    """In any order of inclusion: under the toolbar, over pyramid_tm and the exception views."""
    from pyramid.config import Configurator

    config = Configurator(settings={"session.type": "memory"})
    for name in order:
        config.include(name)
    registry = config.make_wsgi_app().registry
    names = [name for name, _ in registry.getUtility(ITweens).implicit()]

    places = [names.index(name) for name in (TOOLBAR, OURS, TM, EXCVIEW)]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("tweens", "told"),
    [
        (f"{OURS} {EXCVIEW}", None),
        (f"{OURS} {TM} {EXCVIEW}", None),
        ("beaker_bridge.pyramid.tween.session_tween_factory pyramid.tweens.excview_tween_factory", None),
        (OURS, None),
        (EXCVIEW, f"must hold {OURS}, over {EXCVIEW}, got a list without it"),
        (f"{EXCVIEW} {OURS}", f"must hold {OURS} over {EXCVIEW}, got it under that"),
        (f"{TM} {OURS} {EXCVIEW}", f"must hold {OURS} over {TM}, got it under that"),
    ],
)
def test_an_explicit_order(tweens, told, tmp_path):
    """An explicit list in which ours is missing or too low stops the start, with one clear sentence."""
    settings = {"pyramid.tweens": tweens}
    options = store_options("memory", tmp_path)
    if told is None:
        app = TestApp(install("settings", options, _views("pyramid_tm"), **settings))

        assert [app.get("/count").text for _ in range(2)] == ["1", "2"]
    else:
        with pytest.raises(SettingsError, match=rf"^pyramid\.tweens {re.escape(told)}$"):
            install("settings", options, _views("pyramid_tm"), **settings)


def test_an_explicit_order_without_pyramid_tm(tmp_path, monkeypatch):
    """Without pyramid_tm in the process, its place in the list is no matter."""
    import sys

    monkeypatch.delitem(sys.modules, "pyramid_tm", raising=False)
    settings = {"pyramid.tweens": f"{OURS} {EXCVIEW}"}
    app = TestApp(install("settings", store_options("memory", tmp_path), _views(), **settings))

    assert app.get("/count").text == "1"


@pytest.mark.parametrize("subscribed", [False, True])
def test_the_check_leaves_no_listener(subscribed, tmp_path):
    """After the start no subscriber of ours makes each request notify its events; others' stay."""
    from pyramid.events import NewRequest

    def configure(config):
        if subscribed:
            config.add_subscriber(lambda event: None, NewRequest)

    app = install("settings", store_options("memory", tmp_path), configure)

    assert app.registry.has_listeners is subscribed


# -- With pyramid_tm ---------------------------------------------------------------------------------


def test_the_session_is_committed_after_the_transaction(tmp_path):
    """When the session is written, the database transaction has ended."""
    events = []

    class Resource:
        transaction_manager = None

        def __getattr__(self, name):
            return lambda *args: events.append(name)

        def sortKey(self):  # noqa: N802 -- transaction's name
            return "resource"

    def clock():
        return 1000.0

    def write(request):
        request.session["x"] = 1
        request.tm.get().join(Resource())

    def serialize(record):
        events.append("session")
        return json.dumps(record).encode()

    serializer = SimpleNamespace(dumps=serialize, loads=json.loads)
    options = {"type": "memory", "clock": clock, "data_serializer": serializer}
    TestApp(install("filter", options, _views("pyramid_tm", write=write))).get("/write")

    assert events == ["tpc_begin", "commit", "tpc_vote", "tpc_finish", "session"]


def test_a_transaction_that_fails_to_commit_discards_the_session(tmp_path):
    """Where pyramid_tm's own commit fails and no view answers, the session leaves no trace."""

    class Failing:
        transaction_manager = None

        def __getattr__(self, name):
            return lambda *args: None

        def tpc_vote(self, txn):
            raise RuntimeError

        def sortKey(self):  # noqa: N802 -- transaction's name
            return "failing"

    def write(request):
        request.session["x"] = 1
        request.tm.get().join(Failing())

    app = TestApp(install("filter", store_options("memory", tmp_path), _views("pyramid_tm", write=write)))
    with pytest.raises(RuntimeError):
        app.get("/write")
    transaction.abort()

    assert app.get("/data").text == "[]"


def test_the_view_of_a_failed_commit_runs_after_the_transaction(tmp_path):
    """The exception view for a failed session commit sees no active transaction, and its changes are lost."""

    def view(request):
        request.session["lost"] = True
        return Response(str(request.environ.get("tm.active", False)), status=500)

    def bad(request):
        request.session["bad"] = [[object()]]

    views = _views("pyramid_tm", bad=bad)
    views.exception_views = {SessionValueError: view}
    app = TestApp(install("filter", store_options("memory", tmp_path), views))

    assert app.get("/bad", status=500).text == "False"
    assert app.get("/data").text == "[]"


# -- With pyramid_retry ------------------------------------------------------------------------------


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize("answered", [False, True])
def test_a_retried_attempt_starts_from_the_stored_session(installation, answered, tmp_path):
    """An attempt never sees what the failed one changed, also where an exception view had answered."""
    from pyramid_retry import RetryableException

    seen = []

    def work(request):
        session = request.session
        seen.append((session.get("count"), session.get("attempt")))
        session["attempt"] = len(seen)
        if len(seen) < 3:
            raise RetryableException
        return sorted(session.items())

    views = _views("pyramid_retry", work=work)
    if answered:
        views.exception_views = {RetryableException: lambda request: Response("try again", status=503)}
    app = TestApp(install(installation, store_options("memory", tmp_path), views))
    app.get("/count")
    answer = app.get("/work")

    assert seen == [(1, None)] * 3
    assert answer.text == "[('attempt', 3), ('count', 1)]"
    assert app.get("/data").text == answer.text


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_new_session_of_a_retried_attempt_gets_its_cookie(installation, tmp_path):
    """A session that is new in the last attempt is stored, with one cookie."""
    from pyramid_retry import RetryableException

    attempts = []

    def work(request):
        attempts.append(count(request))
        if len(attempts) < 2:
            raise RetryableException

    app = TestApp(install(installation, store_options("memory", tmp_path), _views("pyramid_retry", work=work)))
    answer = app.get("/work")

    assert attempts == [1, 1]
    assert len(answer.headers.getall("Set-Cookie")) == 1
    assert app.get("/count").text == "2"


@pytest.mark.parametrize("installation", WITH_TWEEN)
def test_the_last_attempt_is_not_retried(installation, tmp_path):
    """When the last attempt fails too, the policy decides as for any exception."""
    from pyramid_retry import RetryableException

    def work(request):
        request.session["attempt"] = request.environ["retry.attempt"]
        raise RetryableException

    views = _views("pyramid_retry", work=work)
    views.exception_views = {RetryableException: lambda request: Response("sorry", status=503)}
    app = TestApp(install(installation, store_options("memory", tmp_path), views))
    app.get("/work", status=503)

    assert app.get("/data").text == "[('attempt', 2)]"


@pytest.mark.parametrize("order", list(itertools.permutations(INCLUDES[1:])))
def test_together_with_all_of_them(order, tmp_path):
    """With pyramid_tm, pyramid_retry and the debug toolbar, in any order, a retry starts from the store."""
    from pyramid_retry import RetryableException

    seen = []

    def work(request):
        seen.append(request.session.get("x"))
        request.session["x"] = len(seen)
        if len(seen) == 1:
            raise RetryableException
        return request.session["x"]

    views = _views(*order, work=work)
    app = TestApp(install("settings", store_options("memory", tmp_path), views))

    assert app.get("/work").text == "2"
    assert seen == [None, None]


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_retried_attempt_runs_its_exclusive_block_again(installation, tmp_path):
    """A block stands, whatever becomes of its attempt, and the next attempt runs it again."""
    from pyramid_retry import RetryableException

    attempts = []

    def work(request):
        with request.session.exclusive():
            request.session["votes"] = request.session.get("votes", 0) + 1
        request.session["lost"] = len(attempts)
        attempts.append(request.session["votes"])
        if len(attempts) < 3:
            raise RetryableException

    app = TestApp(install(installation, store_options("memory", tmp_path), _views("pyramid_retry", work=work)))
    app.get("/count")
    app.get("/work")

    assert attempts == [1, 2, 3]
    assert app.get("/data").text == "[('count', 1), ('lost', 2), ('votes', 3)]"


# -- Without a session -------------------------------------------------------------------------------


def test_a_request_without_a_session_passes(tmp_path):
    """A request that never touches its session passes the tween, handled or not."""

    def fail(request):
        raise RuntimeError

    app = TestApp(
        install("settings", store_options("memory", tmp_path), _views(plain=lambda request: "plain", fail=fail))
    )

    assert app.get("/plain").text == "plain"
    with pytest.raises(RuntimeError):
        app.get("/fail")


def test_a_subrequest_shares_the_session_of_its_request(tmp_path):
    """A subrequest made from the request's environ works on the same session, committed once."""

    def inner(request):
        request.session["inner"] = 1
        return "inner"

    def outer(request):
        request.session["outer"] = 1
        subrequest = request.copy()
        subrequest.path_info = "/inner"
        return request.invoke_subrequest(subrequest).text + ENVIRON_KEY

    for installation in ("filter", "settings"):
        app = TestApp(install(installation, store_options("memory", tmp_path), _views(inner=inner, outer=outer)))
        answer = app.get("/outer")

        assert len(answer.headers.getall("Set-Cookie")) == 1
        assert app.get("/data").text == "[('inner', 1), ('outer', 1)]"


# -- What raises when the session is committed -------------------------------------------------------


class Answering:
    """WSGI code around the router, which answers what it raises, as an error reporter does."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        try:
            return self.app(environ, start_response)
        except RuntimeError:
            start_response("500 Error", [("Content-Type", "text/plain")])
            return [b"reported"]


def raising_tween_factory(handler, _registry):
    """Return a tween that raises when the view has answered."""

    def tween(request):
        response = handler(request)
        if request.path == "/tween":
            raise RuntimeError("the tween fails")
        return response

    return tween


def _raise(*_arguments):
    raise RuntimeError("a callback fails")


def _late(request):
    request.add_response_callback(_raise)
    request.session["late"] = 1
    return ""


def _late_change(request):
    request.add_response_callback(lambda request, _response: request.session.__setitem__("later", 1))
    request.add_response_callback(_raise)
    return ""


def _tween(request):
    request.session["late"] = 1
    return ""


def _under_a_tween(config):
    config.add_tween("tests.sites.test_tween.raising_tween_factory", over=OURS)


@pytest.mark.parametrize("where", ["filter", "settings"])
@pytest.mark.parametrize("store", ["file", "cookie"])
@pytest.mark.parametrize("path", ["/late", "/later", "/tween"])
def test_what_raises_after_the_commit_sends_no_cookie(tmp_path, store, path, where):
    """With ``cookie_on_exception = false`` what raises after the commit sends no cookie, and nothing more is saved."""
    options = store_options(store, tmp_path)
    settings = {"session.cookie_on_exception": "false"} if where == "settings" else {}
    own = {"cookie_on_exception": False} if where == "filter" else {}
    views = _views(late=_late, later=_late_change, tween=_tween)
    views.includes = (_under_a_tween,)
    app = install("filter", {**options, **own}, views, **settings)
    app.app = Answering(app.app)
    browser = TestApp(app)
    fresh = browser.get(path, status=500)
    browser.get("/count")
    known = browser.get(path, status=500)
    kept = browser.get("/data").text

    assert (fresh.text, known.text) == ("reported", "reported")
    assert "Set-Cookie" not in fresh.headers
    assert "Set-Cookie" not in known.headers
    # What the tween has committed to a store stays there: documented.
    assert "later" not in kept
    assert ("late" in kept) == (store == "file" and path != "/later")


@pytest.mark.parametrize("policy", [{}, {"cookie_on_exception": lambda _request, error: type(error) is RuntimeError}])
@pytest.mark.parametrize("path", ["/late", "/tween"])
def test_by_default_the_session_is_kept_whatever_raises_late(tmp_path, path, policy):
    """By default, or by a policy, what was committed is kept, with its cookie, though an upper tween raised."""
    views = _views(late=_late, tween=_tween)
    views.includes = (_under_a_tween,)
    app = install("filter", {**store_options("file", tmp_path), **policy}, views)
    app.app = Answering(app.app)
    browser = TestApp(app)
    fresh = browser.get(path, status=500)

    assert "Set-Cookie" in fresh.headers
    assert browser.get("/data").text == "[('late', 1)]"


# -- An application that is mounted in another -------------------------------------------------------


def _mounting(inner):
    """Return the views of an application that has another one mounted, and looks at the session before that."""
    mounted = wsgiapp2(inner)

    def looking(context, request):
        request.session.get("count")
        return mounted(context, request)

    def outer(config):
        config.add_route("mounted", "/mounted*subpath")
        config.add_view(looking, route_name="mounted")
        _views()(config)

    return outer


@pytest.mark.parametrize("policies", [("false", "true"), ("true", "false"), ("false", None), ("true", None)])
@pytest.mark.parametrize("installation", ["filter", "settings"])
def test_a_mounted_application_has_its_own_policy(tmp_path, installation, policies):
    """Mounted in an application with the tween, one without it discards as its own ``cookie_on_exception`` says."""
    outer_policy, inner_policy = policies
    options = {**store_options("file", tmp_path)}
    own = {} if inner_policy is None else {"session.cookie_on_exception": inner_policy, "session.type": "memory"}
    inner = Configurator(settings=own)
    inner.set_session_factory(session_factory_from_settings(inner.get_settings()))
    views = Views(failing=fail)
    views.exception_views = {RuntimeError: lambda _request: Response("sorry", status=500)}
    views(inner)
    outer = install(
        installation, options, _mounting(inner.make_wsgi_app()), **{"session.cookie_on_exception": outer_policy}
    )
    app = TestApp(outer)
    app.get("/count")
    app.get("/mounted/failing", status=500)

    # Without one, that of who configures the session: a filter's default is to keep it.
    without = outer_policy if installation == "settings" else "true"

    assert ("failed" in app.get("/data").text) == ((inner_policy or without) == "true")
