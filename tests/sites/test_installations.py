"""One behaviour on every installation and every embedded store."""

import gc
import json
import logging
import sys

import pytest
from beaker.session import SessionObject as BeakerSessionObject
from pyramid.config import Configurator
from pyramid.events import NewRequest, NewResponse
from pyramid.interfaces import ISession
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router
from webtest import TestApp
from zope.interface.verify import verifyObject

from beaker_bridge import (
    BeakerBridgeError,
    SessionConflictError,
    SessionMiddleware,
    SessionStoreError,
    SessionTooLargeError,
    SessionValueError,
    SettingsError,
    session_factory_from_settings,
)
from beaker_bridge.logs import forget
from beaker_bridge.stores.base import Swap
from tests.installations import (
    ALONE,
    INSTALLATIONS,
    STORES,
    WITH_TWEEN,
    Views,
    count,
    data,
    fail,
    install,
    redirect,
    store_options,
)
from tests.requests import WatchedStore

#: What the serializer finds when the session is committed.
NOT_JSON = [[[object()]]]
#: What no cookie holds, compressed neither.
LARGE = "".join(map(str, range(3000)))

pytestmark = pytest.mark.filterwarnings("ignore::beaker.exceptions.BeakerWarning")


@pytest.fixture(params=INSTALLATIONS)
def installation(request):
    return request.param


@pytest.fixture
def site(installation, tmp_path):
    """Return a function that installs views, by their names, over a memory session with options."""

    def make(views=None, /, **options):
        named = {"count": count, "data": data, "fail": fail, "redirect": redirect, **(views or {})}
        configure = named.pop("configure", None) or Views(**named)
        return TestApp(install(installation, {**store_options("memory", tmp_path), **options}, configure))

    return make


def _views(**views):
    return Views(count=count, data=data, fail=fail, redirect=redirect, **views)


def _answering(text):
    return lambda _request: Response(text, status=500)


def _headed(*headers):
    return Response(headerlist=[("Content-Type", "text/plain"), ("Content-Length", "0"), *headers])


# -- The main way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_a_session_is_found_again(installation, store, tmp_path):
    """The next request finds what the one before put there, on every store."""
    app = TestApp(install(installation, store_options(store, tmp_path), _views()))

    assert [app.get("/count").text for _ in range(3)] == ["1", "2", "3"]


def test_the_session_is_an_isession(site):
    """``request.session`` is a whole ``ISession``."""
    app = site({"verify": lambda request: verifyObject(ISession, request.session)})

    assert app.get("/verify").text == "True"


def test_beakers_own_keys_are_not_in_the_mapping(site):
    """The mapping holds what the application put there, and nothing of Beaker's."""
    app = site()
    app.get("/count")

    assert app.get("/data").text == "[('count', 1)]"


def test_created_and_new(site):
    """``created`` is an int that survives ``clear()``; ``new`` is true in the first request only."""

    def facts(request):
        session = request.session
        session["x"] = 1
        created = session.created
        session.clear()
        session["x"] = 1
        return json.dumps([session.new, type(created) is int, session.created == created])

    app = site({"facts": facts})

    assert json.loads(app.get("/facts").text) == [True, True, True]
    assert json.loads(app.get("/facts").text) == [False, True, True]


@pytest.mark.parametrize("store", ["memory", "cookie"])
def test_new_is_right_on_every_kind_of_store(installation, store, tmp_path):
    """A cookie session tells new from old, too."""

    def new(request):
        count(request)
        return request.session.new

    app = TestApp(install(installation, store_options(store, tmp_path), _views(new=new)))

    assert [app.get("/new").text for _ in range(2)] == ["True", "False"]


def test_a_nested_change_is_saved_after_changed(site):
    """``changed()`` saves what was changed inside a value."""

    def nest(request):
        request.session["list"] = []

    def change(request):
        request.session["list"].append(1)
        request.session.changed()

    app = site({"nest": nest, "change": change}, detect_changes=False)
    app.get("/nest")
    app.get("/change")

    assert app.get("/data").text == "[('list', [1])]"


def test_flash(site):
    """Messages wait in their queue until they are popped; duplicates only where they are allowed."""

    def flash(request):
        request.session.flash("one")
        request.session.flash("one")
        request.session.flash("one", allow_duplicate=False)
        request.session.flash("other", queue="q")
        return request.session.peek_flash()

    def pop(request):
        session = request.session
        return session.pop_flash(), session.pop_flash("q"), session.pop_flash(), session.peek_flash("q")

    app = site({"flash": flash, "pop": pop})

    assert app.get("/flash").text == "['one', 'one']"
    assert app.get("/pop").text == "(['one', 'one'], ['other'], [], [])"


def test_csrf_token(site):
    """The CSRF token stays until a new one is asked for."""

    def token(request):
        return request.session.get_csrf_token()

    def new_token(request):
        return request.session.new_csrf_token()

    app = site({"token": token, "new": new_token})
    first = app.get("/token").text
    again = app.get("/token").text
    renewed = app.get("/new").text

    assert first == again
    assert len(first) == 40
    assert renewed != first
    assert app.get("/token").text == renewed


def test_constant_csrf_token(site):
    """With ``constant_csrf_token`` every session has that token."""
    app = site({"token": lambda request: request.session.get_csrf_token()}, constant_csrf_token="constant")

    assert app.get("/token").text == "constant"


def test_logout_deletes_the_record(site):
    """After ``invalidate()`` the old cookie opens nothing."""
    app = site({"logout": lambda request: request.session.invalidate()})
    app.get("/count")
    cookie = app.cookies["sid"]
    answer = app.get("/logout")
    app.reset()
    app.set_cookie("sid", cookie)

    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert app.get("/data").text == "[]"


@pytest.mark.parametrize("store", ["memory", "cookie"])
def test_a_new_session_after_a_logout_has_the_id_that_was_seen(installation, store, tmp_path):
    """``invalidate()`` and ``save()``: the next request has the session of which the view has seen the id."""

    def leave(request):
        request.session.invalidate()
        request.session.save()
        return request.session.id

    views = _views(leave=leave, state=lambda request: f"{request.session.id} {request.session.new}")
    app = TestApp(install(installation, store_options(store, tmp_path), views))
    app.get("/count")
    seen = app.get("/leave").text

    assert app.get("/state").text == f"{seen} False"


@pytest.mark.parametrize("taken", ["request", "environ"])
def test_a_session_found_by_its_id_is_committed(site, taken):
    """``get_by_id()`` opens a stored session, from the request or the environ; its ``commit()`` writes."""

    def change(request):
        session = request.session
        found = (session if taken == "request" else request.environ["beaker.session"]).get_by_id(request.params["id"])
        if found:
            found["note"] = session.new
            found.commit()
        return bool(found)

    app = site({"change": change, "id": lambda request: request.session.id})
    app.get("/count")
    session_id, cookie = app.get("/id").text, app.cookies["sid"]
    app.reset()
    found = [app.get(f"/change?id={known}").text for known in (session_id, "0" * 32)]
    app.set_cookie("sid", cookie)

    assert found == ["True", "False"]
    assert app.get("/data").text == "[('count', 1), ('note', True)]"


def test_no_cookie_session_is_found_by_an_id(installation, tmp_path):
    """With ``type = cookie`` one of our errors says why."""

    def find(request):
        assert not request.session
        with pytest.raises(BeakerBridgeError, match="got type = cookie"):
            request.session.get_by_id("0" * 32)
        with pytest.raises(BeakerBridgeError, match="got type = cookie"):
            request.environ["beaker.session"].get_by_id("0" * 32)
        return "said"

    app = TestApp(install(installation, store_options("cookie", tmp_path), _views(find=find)))

    assert app.get("/find").text == "said"


def test_delete_is_invalidate(site):
    """``delete()`` deletes the record, and what is put there afterwards begins a new session."""

    def begin_again(request):
        request.session.delete()
        request.session["again"] = True

    app = site({"again": begin_again})
    app.get("/count")
    before = app.cookies["sid"]
    app.get("/again")

    assert app.cookies["sid"] != before
    assert app.get("/data").text == "[('again', True)]"


def test_login_moves_the_session(site):
    """``regenerate_id()`` keeps the data under a new id, renews the CSRF token, and ends the old id."""

    def login(request):
        before = request.session.id, request.session.get_csrf_token()
        request.session.regenerate_id()
        return before[0] != request.session.id, before[1] != request.session.get_csrf_token()

    app = site({"login": login})
    app.get("/count")
    before = app.cookies["sid"]

    assert app.get("/login").text == "(True, True)"
    assert app.get("/count").text == "2"
    app.reset()
    app.set_cookie("sid", before)
    assert app.get("/data").text == "[]"


def test_revert(site):
    """``revert()`` returns to what was loaded."""

    def revert(request):
        request.session["count"] = 99
        request.session.revert()
        return request.session["count"]

    app = site({"revert": revert})
    app.get("/count")

    assert app.get("/revert").text == "1"
    assert app.get("/data").text == "[('count', 1)]"


def test_save_stores_an_empty_new_session(site):
    """``save()`` stores a new session that nothing was put into; without it there is none."""
    app = site({"save": lambda request: request.session.save(), "touch": lambda request: len(request.session)})

    assert "Set-Cookie" not in app.get("/touch").headers
    assert "Set-Cookie" in app.get("/save").headers


def test_last_accessed_and_id(site):
    """``last_accessed`` is the time of the access before; ``id`` stays."""
    times = iter([100.0, 100.0, 200.0, 200.0])

    def facts(request):
        request.session.setdefault("x", 1)
        return json.dumps([request.session.last_accessed, request.session.id])

    app = site({"facts": facts}, clock=lambda: next(times, 200.0))
    first = json.loads(app.get("/facts").text)
    second = json.loads(app.get("/facts").text)

    assert (first[0], second[0]) == (None, 100.0)
    assert first[1] == second[1]


def test_beakers_attributes_are_there(site):
    """What Beaker's session has besides, ``request.session`` has: ``timeout``, ``get_by_id``, ``domain``."""

    def facts(request):
        session = request.session
        session["x"] = 1
        session.domain, session.path = "example.com", "/app"
        return json.dumps([session.timeout, session.domain, session.path, session.get_by_id("0" * 32)])

    def other(request):
        found = request.session.get_by_id(request.params["id"])
        return found["x"], found.id == request.params["id"]

    app = site({"facts": facts, "other": other, "id": lambda request: request.session.id}, timeout=300)
    answer = app.get("/facts")

    assert json.loads(answer.text) == [300, "example.com", "/app", None]
    assert "Domain=example.com; Path=/app" in answer.headers["Set-Cookie"]


def test_a_session_is_found_by_its_id(site):
    """``get_by_id`` opens another stored session."""

    def other(request):
        found = request.session.get_by_id(request.params["id"])
        return found["count"]

    app = site({"other": other, "id": lambda request: request.session.id})
    app.get("/count")
    session_id = app.get("/id").text
    app.reset()

    assert app.get("/other", {"id": session_id}).text == "1"


def test_a_private_name_is_not_looked_up_in_the_session(site):
    """Python's own look-ups (copying, pickling) do not load the session."""
    app = site({"private": lambda request: hasattr(request.session, "_sess")})

    assert app.get("/private").text == "False"


def test_exclusive(site):
    """What is read, changed and written in ``exclusive()`` is committed at its end, whatever comes after."""

    def step(request):
        with request.session.exclusive():
            request.session["count"] += 10
        raise RuntimeError

    app = site({"step": step}, cookie_on_exception="false")
    app.get("/count")
    with pytest.raises(RuntimeError):
        app.get("/step")

    assert app.get("/data").text == "[('count', 11)]"


def test_remember_me(site):
    """``set_expiry()`` gives one session a cookie with a lifetime."""

    def remember(request):
        request.session["user"] = "x"
        request.session.set_expiry(3600)

    app = site({"remember": remember})

    assert "Max-Age=3600" in app.get("/remember").headers["Set-Cookie"]


# -- Headers -----------------------------------------------------------------------------------------


def test_headers_of_a_session_that_was_read(site):
    """A response for which the session was read varies by the cookie; a read sends no cookie."""
    app = site()
    app.get("/count")
    answer = app.get("/data")

    assert answer.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in answer.headers
    assert "Cache-Control" not in answer.headers


def test_headers_of_a_session_that_was_stored(site):
    """A cookie is kept out of shared caches, unless the application has its own rule."""

    def ruled(request):
        count(request)
        return _headed(("Cache-Control", "no-store"), ("Vary", "Accept"))

    app = site({"ruled": ruled})
    answer = app.get("/count")
    app.reset()
    own = app.get("/ruled")

    assert answer.headers.getall("Cache-Control") == ['no-cache="Set-Cookie"']
    assert len(answer.headers.getall("Set-Cookie")) == 1
    assert own.headers.getall("Cache-Control") == ["no-store"]
    assert own.headers.getall("Vary") == ["Accept, Cookie"]


def test_headers_of_an_untouched_session(site):
    """A request that does not touch its session has none of the session's headers."""
    app = site({"plain": lambda request: "plain", "made": lambda request: bool(id(request.session))})
    app.get("/count")

    for path in ("/plain", "/made"):
        assert not {"Vary", "Set-Cookie", "Cache-Control"} & set(app.get(path).headers)


# WebOb's http_cache takes the time from a function that Python 3.12 deprecates.
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.parametrize("store", ["memory", "cookie_encrypted"])
def test_a_page_for_caches_that_begins_a_session_is_the_users_own(installation, tmp_path, caplog, store):
    """``http_cache`` beside our cookie is for the user's browser alone; the log names the route once, and no id."""

    def configure(config):
        for name in ("one", "other"):
            config.add_route(f"{installation}_{store}_{name}", f"/{name}/{{id}}")
            config.add_view(
                lambda request: Response(str(count(request))),
                route_name=f"{installation}_{store}_{name}",
                http_cache=(600, {"public": name == "other"}),
            )

    app = TestApp(install(installation, store_options(store, tmp_path), configure))
    pages = []
    for path in ("/one/4711?q=4711", "/one/4712", "/other/4711", "/one/4711"):
        pages.append(app.get(path))
        app.reset()

    assert [page.headers.getall("Cache-Control") for page in pages] == [["max-age=600, private"]] * 4
    assert {len(page.headers.getall("Set-Cookie")) for page in pages} == {1}
    told = [record.getMessage() for record in caplog.records if record.name == "beaker_bridge.request.exchange"]
    assert [message.split(" sets")[0] for message in told] == [
        f"route '{installation}_{store}_one' (/one/{{id}})",
        f"route '{installation}_{store}_other' (/other/{{id}})",
    ]
    assert ["lets caches keep the page (max-age)" in told[0], "(max-age, public)" in told[1]] == [True, True]
    assert "4711" not in caplog.text


@pytest.mark.parametrize("installation", ["filter", "beaker_filter", "filter_alone"], indirect=True)
def test_what_other_code_does_to_the_session_is_told_to_caches(site):
    """A view may use Beaker's own session in the environ, and never ask Pyramid for one: the headers are the same."""

    def reads(request):
        request.environ["beaker.session"].get("count")

    def writes(request):
        request.environ["beaker.session"]["count"] = 1
        request.environ["beaker.session"].save()
        return _headed(("Cache-Control", "max-age=60"))

    app = site({"reads": reads, "writes": writes})
    written, read = app.get("/writes"), app.get("/reads")

    assert read.headers["Vary"] == written.headers["Vary"] == "Cookie"
    assert written.headers.getall("Cache-Control") == ["max-age=60, private"]
    assert len(written.headers.getall("Set-Cookie")) == 1
    assert app.get("/data").text == "[('count', 1)]"


def test_a_page_for_caches_that_only_reads_stays_one(site):
    """A page that sends no cookie may be kept by caches for as long as the application says: it varies."""

    def public(request):
        request.session.get("count")
        return _headed(("Cache-Control", "public, max-age=60"))

    app = site({"public": public})
    app.get("/count")
    page = app.get("/public")

    assert page.headers.getall("Cache-Control") == ["public, max-age=60"]
    assert page.headers["Vary"] == "Cookie"


def test_secure_follows_the_scheme(site):
    """``secure = auto`` marks the cookie where the request came over https."""
    app = site()
    plain = app.get("/count")
    app.reset()
    secure = app.get("/count", extra_environ={"wsgi.url_scheme": "https"})

    assert "secure" not in plain.headers["Set-Cookie"].lower()
    assert "secure" in secure.headers["Set-Cookie"].lower()
    assert "HttpOnly; SameSite=Lax" in plain.headers["Set-Cookie"]


# -- Late changes ------------------------------------------------------------------------------------


def test_a_response_callback_is_still_saved(site):
    """A response callback that changes the session is saved, also where it comes last."""

    def late(request):
        request.session["view"] = 1

        def callback(request, response):
            request.session["callback"] = 2
            request.add_response_callback(last)

        def last(request, response):
            request.session["last"] = 3

        request.add_response_callback(callback)

    app = site({"late": late})
    app.get("/late")

    assert app.get("/data").text == "[('callback', 2), ('last', 3), ('view', 1)]"


def test_a_first_touch_in_a_response_callback_is_saved(site):
    """The session may be first touched in a response callback."""

    def late(request):
        request.add_response_callback(lambda request, response: request.session.__setitem__("callback", 1))

    app = site({"late": late})
    app.get("/late")

    assert app.get("/data").text == "[('callback', 1)]"


def test_a_subscriber_of_new_response_is_still_saved(site):
    """A ``NewResponse`` subscriber that changes the session is saved."""

    def configure(config):
        _views(touch=lambda request: request.session.setdefault("view", 1))(config)
        config.add_subscriber(
            lambda event: event.request.path == "/touch" and event.request.session.update(event=2), NewResponse
        )

    app = site({"configure": configure})
    app.get("/touch")

    assert app.get("/data").text == "[('event', 2), ('view', 1)]"


def test_a_first_touch_in_a_subscriber_of_new_response(installation, tmp_path, caplog):
    """With the tween or a filter, the session may be first touched as late as in ``NewResponse``."""

    def configure(config):
        _views(plain=lambda request: "plain")(config)
        config.add_subscriber(
            lambda event: event.request.path == "/plain" and event.request.session.update(event=2), NewResponse
        )

    app = TestApp(install(installation, store_options("memory", tmp_path), configure))
    app.get("/plain")
    standalone = installation in ("settings_alone", "python_alone")

    assert app.get("/data").text == ("[]" if standalone else "[('event', 2)]")
    assert ("first touched after the response callbacks" in caplog.text) == standalone


# -- Exceptions --------------------------------------------------------------------------------------


def _failing_views(*, late=False):
    def failing(request):
        if late:
            request.add_response_callback(lambda request, response: request.session.__setitem__("late", 1))
        fail(request)

    views = _views(failing=failing)
    views.exception_views = {RuntimeError: _answering("sorry")}
    return views


@pytest.mark.parametrize("store", STORES)
def test_cookie_on_exception_is_true_by_default(installation, store, tmp_path):
    """What a view changed is kept when an exception view answers."""
    app = TestApp(install(installation, store_options(store, tmp_path), _failing_views()))

    assert app.get("/failing", status=500).text == "sorry"
    assert app.get("/data").text == "[('failed', True)]"


@pytest.mark.parametrize("store", STORES)
def test_cookie_on_exception_false_leaves_no_trace(installation, store, tmp_path):
    """With ``cookie_on_exception = false`` nothing is stored and no cookie sent, whatever comes later."""
    options = {**store_options(store, tmp_path), "cookie_on_exception": "false"}
    app = TestApp(install(installation, options, _failing_views(late=True)))
    fresh = app.get("/failing", status=500)
    app.get("/count")
    known = app.get("/failing", status=500)

    assert "Set-Cookie" not in fresh.headers
    assert "Set-Cookie" not in known.headers
    assert app.get("/data").text == "[('count', 1)]"


def test_cookie_on_exception_false_is_told_by_the_policy_of_the_seed(site):
    """With ``false`` a redirect that is raised loses its flash message, as with pyramid_beaker."""
    app = site(cookie_on_exception=False)
    app.get("/redirect", status=302)

    assert app.get("/data").text == "[]"


def test_cookie_on_exception_http_keeps_redirects(site):
    """``http`` keeps a raised redirect's flash message."""
    app = site(cookie_on_exception="http")
    app.get("/redirect", status=302)

    assert app.get("/data").text == "[('_f_', ['moved'])]"


@pytest.mark.parametrize(("kept", "held"), [(True, "[('failed', True)]"), (False, "[]")])
def test_cookie_on_exception_takes_a_function(installation, tmp_path, kept, held):
    """A function of request and exception decides."""
    asked = []

    def policy(request, exception):
        asked.append((request.path, type(exception)))
        return kept

    options = {**store_options("memory", tmp_path), "cookie_on_exception": policy}
    app = TestApp(install(installation, options, _failing_views()))
    app.get("/failing", status=500)

    assert asked == [("/failing", RuntimeError)]
    assert app.get("/data").text == held


def test_an_unhandled_exception_saves_nothing(site):
    """An exception that no view handles saves nothing."""
    app = site()
    app.get("/count")
    with pytest.raises(RuntimeError):
        app.get("/fail")

    assert app.get("/data").text == "[('count', 1)]"


@pytest.mark.parametrize("installation", WITH_TWEEN)
def test_a_refused_value_reaches_the_exception_views(installation, tmp_path):
    """A value that the serializer refuses becomes an exception view, and saves nothing."""

    def refuse(request):
        request.session.update(good=1, bad=NOT_JSON)

    views = _views(refuse=refuse)
    views.exception_views = {SessionValueError: lambda request: Response(str(request.exception), status=500)}
    app = TestApp(install(installation, store_options("file", tmp_path), views))
    answer = app.get("/refuse", status=500)

    assert "session['bad'] cannot be stored" in answer.text
    assert "Set-Cookie" not in answer.headers
    assert app.get("/data").text == "[]"


@pytest.mark.parametrize("installation", WITH_TWEEN)
def test_too_large_a_cookie_session_reaches_the_exception_views(installation, tmp_path):
    """A cookie session over the browser's limit names its size and its largest keys."""

    def grow(request):
        request.session.update(small=1, large=LARGE)

    views = _views(grow=grow)
    views.exception_views = {SessionTooLargeError: lambda request: Response(str(request.exception), status=500)}
    app = TestApp(install(installation, store_options("cookie", tmp_path), views))
    answer = app.get("/grow", status=500)

    assert "a browser holds 4096; the largest keys are 'large', 'small'" in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("installation", WITH_TWEEN)
def test_a_refused_value_without_a_view_for_it_is_raised(installation, tmp_path):
    """Where no exception view handles it, a failed commit is raised as it is."""
    app = TestApp(
        install(
            installation,
            store_options("memory", tmp_path),
            _views(bad=lambda request: request.session.update(bad=NOT_JSON)),
        )
    )

    with pytest.raises(SessionValueError):
        app.get("/bad")


@pytest.mark.parametrize("installation", ALONE)
def test_without_the_tween_a_refused_value_is_raised(installation, tmp_path):
    """The factory alone commits too late for an exception view: the request fails."""
    views = _views(bad=lambda request: request.session.update(bad=NOT_JSON))
    views.exception_views = {SessionValueError: _answering("not asked")}
    app = TestApp(install(installation, store_options("memory", tmp_path), views))

    with pytest.raises(SessionValueError, match=r"session\['bad'\] cannot be stored"):
        app.get("/bad")
    assert app.get("/data").text == "[]"


# -- Nothing is lost behind a 200 --------------------------------------------------------------------


class Busy(WatchedStore):
    """A store on which another request is faster each time."""

    def swap(self, session_id, record, new, expires_in=None):
        return Swap(made=False, found=self._store.read(session_id))


def _keep_the_store_busy(session, _folder, patch):
    session["put"] = 1
    config = session._exchange.config
    patch.setattr(config, "store", Busy(config.store))


def _break_the_folder(session, folder, _patch):
    session["put"] = 1
    folder.rename(folder.with_name("away"))
    folder.write_text("no folder")


#: What makes a commit fail, with the store on which it does, and what is raised.
FAULTS = {
    "not JSON": ("memory", SessionValueError, lambda session, *_: session.update(bad=NOT_JSON)),
    "not JSON in a cookie": ("cookie", SessionValueError, lambda session, *_: session.update(bad=NOT_JSON)),
    "too large a cookie": ("cookie", SessionTooLargeError, lambda session, *_: session.update(large=LARGE)),
    "a store that is away": ("file", SessionStoreError, _break_the_folder),
    "a conflict": ("memory", SessionConflictError, _keep_the_store_busy),
}


@pytest.mark.parametrize("place", ["view", "response callback", "last response callback", "subscriber"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_saved_is_an_error(installation, tmp_path, fault, place, monkeypatch):
    """Whatever refuses the session, and wherever it was changed: the request fails, and nothing is saved."""
    store, error, change = FAULTS[fault]

    def act(request, _response=None):
        change(request.session, tmp_path / "sessions", monkeypatch)

    def act_last(request, _response):
        request.add_response_callback(act)

    def view(request):
        request.session.get("count")
        if place == "view":
            act(request)
        elif place.endswith("callback"):
            request.add_response_callback(act if place == "response callback" else act_last)

    def configure(config):
        _views(fault=view)(config)
        if place == "subscriber":
            config.add_subscriber(lambda event: event.request.path == "/fault" and act(event.request), NewResponse)

    app = TestApp(install(installation, {**store_options(store, tmp_path), "store_timeout": 0.01}, configure))
    app.get("/count")
    with pytest.raises(error):
        app.get("/fault")
    monkeypatch.undo()
    if fault == "a store that is away":
        (tmp_path / "sessions").unlink()
        (tmp_path / "away").rename(tmp_path / "sessions")

    assert app.get("/data").text == "[('count', 1)]"


# -- Configuration -----------------------------------------------------------------------------------


UNCONFIGURED = ("settings", "settings_alone")


@pytest.mark.parametrize("installation", UNCONFIGURED, indirect=True)
def test_no_configuration_at_all(installation, caplog):
    """Without any option sessions are kept in memory, as pyramid_beaker's; one error in the log says what to do."""
    app = TestApp(install(installation, {}, _views()))
    silent = caplog.text

    assert [app.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert told.levelno == logging.ERROR
    assert "set session.type and session.secret" in told.message
    assert "or put the session filter into the pipeline" in told.message
    assert silent == ""


@pytest.mark.parametrize("installation", UNCONFIGURED, indirect=True)
def test_no_configuration_and_no_use(installation, caplog):
    """An application that has no sessions need not configure any, whatever it answers with."""
    views = _views(plain=lambda _request: "plain", stream=lambda _request: Response(app_iter=iter([b"stream"])))
    app = TestApp(install(installation, {}, views), extra_environ={"wsgi.multiprocess": True})

    assert [app.get(path).text for path in ("/plain", "/stream")] == ["plain", "stream"]
    assert caplog.text == ""


@pytest.mark.parametrize("installation", UNCONFIGURED, indirect=True)
def test_no_configuration_and_several_processes(installation):
    """Where the server says that there are several processes, each use without any option raises."""
    app = TestApp(install(installation, {}, _views()), extra_environ={"wsgi.multiprocess": True})

    for _ in range(2):
        with pytest.raises(SettingsError, match=r"there are several processes: set session\.type"):
            app.get("/count")


def test_a_functional_test_wraps_the_application():
    """A functional test puts the middleware around the application, as the pipeline would."""
    app = TestApp(SessionMiddleware(install("settings", {}, _views()), type="memory"))

    assert [app.get("/count").text for _ in range(2)] == ["1", "2"]


def test_a_filter_wins_over_the_settings(tmp_path, caplog):
    """Where both configure a session, the filter's wins, and one warning names what differs."""
    settings = {"type": "memory", "key": "ours", "timeout": "300", "secret": "s" * 32}
    inner = install("settings", settings, _views())
    app = TestApp(SessionMiddleware(inner, **store_options("file", tmp_path)))
    for _ in range(2):
        app.get("/count")

    assert list(app.cookies) == ["sid"]
    warned = [record.message for record in caplog.records if "a filter configures" in record.message]
    assert len(warned) == 1
    assert warned[0].endswith("differ: session.key, session.secret, session.timeout, session.type")


def test_settings_that_agree_with_the_filter_are_not_warned_about(tmp_path, caplog):
    """Settings that say the same as the filter are no cause for a warning."""
    options = store_options("file", tmp_path)
    app = TestApp(SessionMiddleware(install("settings", options, _views()), **options))
    app.get("/count")

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("with_tween", [True, False])
def test_the_settings_say_what_a_filter_leaves_open(with_tween, tmp_path):
    """``cookie_on_exception`` and ``constant_csrf_token`` may stand in the settings beside a filter."""
    views = _failing_views()
    views.views["token"] = lambda request: request.session.get_csrf_token()
    own = {"cookie_on_exception": "false", "constant_csrf_token": "constant"}
    name = "settings" if with_tween else "settings_alone"
    app = TestApp(SessionMiddleware(install(name, own, views), **store_options("memory", tmp_path)))
    app.get("/failing", status=500)

    assert app.get("/data").text == "[]"
    assert app.get("/token").text == "constant"


def test_a_session_that_other_middleware_has_loaded(tmp_path, caplog):
    """A session that other middleware loaded through Beaker is taken over, with what that changed."""
    import beaker.middleware

    inner = install("settings", {}, _views())
    early = iter([{"early": 1}, {"early": 2}, None, "invalidate"])

    def other_middleware(environ, start_response):
        change = next(early, None)
        session = environ["beaker.session"]
        if change == "invalidate":
            session.invalidate()
        elif change:
            session.update(change)
            session.save()
        else:
            assert session.id
        return inner(environ, start_response)

    options = {**store_options("file", tmp_path), "data_serializer": "json"}
    app = TestApp(beaker.middleware.SessionMiddleware(other_middleware, **options))
    texts = [app.get("/count").text for _ in range(2)]
    held = app.get("/data").text
    ended = app.get("/data").text

    assert texts == ["1", "2"]
    assert held == "[('count', 2), ('early', 2)]"
    assert ended == "[]"
    assert sum("loaded by other middleware" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("store", ["memory", "cookie"])
def test_what_other_middleware_has_changed_in_place(tmp_path, store, serializer):
    """What it has changed within a value of Beaker's own session is saved; what it has read reverts nobody's write."""
    import beaker.middleware

    def fill(request):
        request.session.update(cart=["apples"], count=[])

    def other_middleware(environ, start_response):
        session = environ["beaker.session"]
        if environ["PATH_INFO"] == "/change":
            session["cart"].append("pears")
        elif environ["PATH_INFO"] == "/read":
            assert session["cart"]
            app.get("/change")
        return inner(environ, start_response)

    inner = install("settings", {}, _views(fill=fill, read=data, change=data))
    options = {**store_options(store, tmp_path), "data_serializer": serializer}
    app = TestApp(beaker.middleware.SessionMiddleware(other_middleware, **options))
    app.get("/fill")
    app.get("/change")
    changed = app.get("/data").text
    app.get("/read")

    assert changed == "[('cart', ['apples', 'pears']), ('count', [])]"
    assert app.get("/data").text == "[('cart', ['apples', 'pears', 'pears']), ('count', [])]"


@pytest.mark.parametrize("store", ["memory", "file"])
def test_a_session_that_beakers_filter_cannot_read(tmp_path, caplog, store):
    """Beaker's filter reads pickles where its options name no serializer: whoever shows the environ ends no session."""
    import beaker.middleware

    inner = install("settings", {}, _views())

    def shows_environ(environ, start_response):
        assert repr(environ)
        return inner(environ, start_response)

    app = TestApp(beaker.middleware.SessionMiddleware(shows_environ, **store_options(store, tmp_path)))
    texts = [app.get("/count").text for _ in range(3)]

    assert texts == ["1", "2", "3"]
    assert sum("set data_serializer in the filter's options" in record.message for record in caplog.records) == 1


def test_something_else_in_the_environ(tmp_path):
    """What is no Beaker session in the environ is told, not used."""
    inner = install("settings", {}, _views())

    def confused(environ, start_response):
        environ["beaker.session"] = {}
        return inner(environ, start_response)

    with pytest.raises(SettingsError, match="must be a Beaker session, got a dict"):
        TestApp(confused).get("/count")


def test_faults_of_beakers_own_filter_are_told_at_the_first_request(tmp_path):
    """Over Beaker's own filter nothing can be checked at start."""
    import beaker.middleware

    inner = install("settings", {}, _views())
    app = TestApp(beaker.middleware.SessionMiddleware(inner, type="memory", tiemout="1"))

    with pytest.raises(SettingsError, match="did you mean timeout"):
        app.get("/count")


def test_beakers_contract_in_the_environ(installation, tmp_path):
    """Other WSGI code finds Beaker's ``SessionObject``, which is stored after ``save()`` only."""

    def through_environ(request):
        # Without the tween, Beaker's own filter makes Beaker's own session until request.session is used.
        assert request.session is not None
        session = request.environ["beaker.session"]
        session["seen"] = session["_creation_time"] > 0
        if "save" in request.params:
            session.save()
        return isinstance(session, BeakerSessionObject)

    app = TestApp(install(installation, store_options("memory", tmp_path), _views(environ=through_environ)))
    app.get("/environ")
    unsaved = app.get("/data").text
    app.get("/environ", {"save": "1"})

    assert unsaved == "[]"
    assert app.get("/data").text == "[('seen', True)]"


#: Whose session it is: a view's, or that of other WSGI code.
DOORS = {"view": lambda request: request.session, "environ": lambda request: request.environ["beaker.session"]}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("store", ["memory", "file", "cookie"])
@pytest.mark.parametrize("door", DOORS)
def test_a_change_in_place_is_saved(installation, tmp_path, store, serializer, door):
    """What is changed inside a value is saved without ``changed()`` or ``save()``; what is only read is not written."""

    def fill(request):
        request.session["cart"] = {"rows": ([], 1)}

    def change(request):
        # Without the tween, Beaker's own filter makes Beaker's own session until request.session is used.
        assert request.session is not None
        DOORS[door](request)["cart"]["rows"][0].append("pears")

    def read(request):
        assert request.session is not None
        return repr(DOORS[door](request)["cart"])

    options = {**store_options(store, tmp_path), "data_serializer": serializer}
    app = TestApp(install(installation, options, _views(fill=fill, change=change, read=read)))
    app.get("/fill")
    app.get("/change")
    app.get("/change")
    answer = app.get("/read")

    assert answer.text == "{'rows': (['pears', 'pears'], 1)}"
    assert "Set-Cookie" not in answer.headers


def test_what_other_code_notes_for_a_request_is_not_stored(installation, tmp_path):
    """A value that WSGI code puts into the environ's session, and changes, begins no session without ``save()``."""

    def note(request):
        assert request.session is not None
        request.environ["beaker.session"].setdefault("notes", []).append(1)

    answer = TestApp(install(installation, store_options("memory", tmp_path), _views(note=note))).get("/note")

    assert "Set-Cookie" not in answer.headers


# -- A failed request --------------------------------------------------------------------------------


def test_a_request_within_an_except_block(site):
    """What a caller handles while it calls the application is none of the request's failures."""
    app = site()
    answers = []
    try:
        [].pop()
    except IndexError:
        answers.append(app.get("/count").text)
    try:
        [].pop()
    except IndexError as error:
        error.__traceback__ = None
        answers.append(app.get("/count").text)
    try:
        app.get("/fail")
    except RuntimeError:
        # Its traceback has a frame of the router's, but of another request.
        answers.append(app.get("/count").text)

    assert answers == ["1", "2", "3"]


def test_a_request_that_fails_within_an_except_block(site):
    """A request that fails itself saves nothing, also where its caller handles another exception."""
    app = site()
    app.get("/count")
    try:
        [].pop()
    except IndexError:
        with pytest.raises(RuntimeError):
            app.get("/fail")

    assert app.get("/data").text == "[('count', 1)]"


@pytest.mark.parametrize("installation", ALONE, indirect=True)
def test_a_request_that_fails_after_its_response_callbacks(site):
    """A subscriber of ``NewResponse`` that raises fails the request: without the tween nothing is saved by then."""

    def configure(config):
        _views()(config)
        config.add_subscriber(lambda event: event.request.params["x"], NewResponse)

    app = site({"configure": configure})
    app.get("/count?x=")
    with pytest.raises(KeyError):
        app.get("/count")

    assert app.get("/data?x=").text == "[('count', 1)]"


@pytest.mark.parametrize("installation", ALONE, indirect=True)
def test_a_failing_request_of_a_router_that_is_traced(site, monkeypatch):
    """A request that fails late saves nothing, though a tool that traces requests has wrapped the router's method."""
    original = Router.invoke_request

    def traced(self, request, **options):
        return original(self, request, **options)

    monkeypatch.setattr(Router, "invoke_request", traced)

    def fail_late(request):
        request.session.get("count")

        def change(request, _response):
            request.session["late"] = True
            raise RuntimeError

        request.add_response_callback(change)

    app = site({"late": fail_late})
    app.get("/count")
    with pytest.raises(RuntimeError):
        app.get("/late")

    assert app.get("/data").text == "[('count', 1)]"


def _with_error_pages(app):
    """Return middleware that answers with a page of its own where an application raises."""

    def error_pages(environ, start_response):
        try:
            return app(environ, start_response)
        except Exception:  # noqa: BLE001 -- as error middleware does
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"sorry"]

    return error_pages


@pytest.mark.parametrize("installation", ["filter", "beaker_filter", "filter_alone", "beaker_filter_alone"])
def test_an_error_page_under_the_filter(installation, tmp_path):
    """What no exception view handles saves nothing, though error middleware under the filter answers."""
    app = install(installation, store_options("memory", tmp_path), _views())
    app.app = app.wrap_app = _with_error_pages(app.app)
    browser = TestApp(app)
    browser.get("/count")

    assert browser.get("/fail", status=500).text == "sorry"
    assert browser.get("/data").text == "[('count', 1)]"


@pytest.mark.parametrize("installation", ["filter", "beaker_filter", "filter_alone", "beaker_filter_alone"])
def test_a_policy_that_raises(installation, tmp_path):
    """A policy that is a function and raises fails the request, and nothing is saved, whoever answers."""

    def policy(_request, _exception):
        raise LookupError

    options = {**store_options("memory", tmp_path), "cookie_on_exception": policy}
    app = install(installation, options, _failing_views())
    app.app = app.wrap_app = _with_error_pages(app.app)
    browser = TestApp(app)
    browser.get("/count")

    assert browser.get("/failing", status=500).text == "sorry"
    assert browser.get("/data").text == "[('count', 1)]"


@pytest.mark.parametrize("nested", ["subrequest", "wsgi"])
def test_a_request_within_a_views_except_block(installation, tmp_path, nested):
    """A subrequest, and a call of the application itself, are saved where the view handles an exception."""

    def outer(request):
        inner = Request.blank("/count", cookies=dict(request.cookies))
        try:
            fail(request)
        except RuntimeError:
            if nested == "wsgi":
                return inner.get_response(app)
            if "filter" not in installation:
                return request.invoke_subrequest(inner)
            inner.environ["beaker.session"] = request.environ["beaker.session"]
            return request.invoke_subrequest(inner, use_tweens=True)

    app = install(installation, store_options("memory", tmp_path), _views(outer=outer))
    browser = TestApp(app)
    browser.get("/count")

    assert browser.get("/outer").text == "2"
    assert "('count', 2)" in browser.get("/data").text


def test_an_exception_that_an_exception_view_answers_within_an_except_block(installation, tmp_path):
    """The policy decides on what an exception view answered, whatever the caller handles."""
    app = TestApp(install(installation, store_options("memory", tmp_path), _failing_views()))
    try:
        [].pop()
    except IndexError:
        app.get("/failing", status=500)

    assert app.get("/data").text == "[('failed', True)]"


@pytest.mark.parametrize("store", ["memory", "cookie"])
def test_a_finished_callback_is_still_saved(installation, store, tmp_path):
    """A finished callback that changes the session is saved, wherever it comes among them."""

    def late(request):
        for number in (1, 2):
            request.add_finished_callback(lambda request, number=number: request.session.update({str(number): number}))
            request.session.get("count")

    app = TestApp(install(installation, store_options(store, tmp_path), _views(late=late)))
    app.get("/late")

    assert app.get("/data").text == "[('1', 1), ('2', 2)]"


@pytest.mark.parametrize("installation", ALONE)
def test_a_finished_callback_that_fails(installation, tmp_path):
    """A finished callback that raises fails the request: without the tween nothing is saved by then."""

    def failing(request):
        request.session["x"] = 1
        request.add_finished_callback(lambda request: request.params["missing"])

    app = TestApp(install(installation, store_options("memory", tmp_path), _views(failing=failing)))
    app.get("/count")
    with pytest.raises(KeyError):
        app.get("/failing")

    assert app.get("/data").text == "[('count', 1)]"


def test_all_finished_callbacks_run_before_a_failed_commit_is_raised(site):
    """A commit that fails in the finished callbacks is raised by the last of them."""
    ran = []

    def bad(request):
        request.session["bad"] = NOT_JSON
        request.add_finished_callback(lambda _request: ran.append("after"))

    def early(event):
        event.request.add_finished_callback(lambda _request: ran.append("before"))

    def configure(config):
        _views(bad=bad)(config)
        config.add_subscriber(early, NewRequest)

    app = site({"configure": configure})
    with pytest.raises(SessionValueError):
        app.get("/bad")

    assert ran == ["before", "after"]


# -- What the request says of itself -----------------------------------------------------------------


@pytest.mark.parametrize("touched", [True, False])
def test_a_scheme_that_is_told_later_counts(site, touched):
    """Behind a proxy an application may say itself that it is reached by https: the cookie is Secure then."""

    def view(request):
        if touched:
            request.session["a"] = 1
        request.scheme = "https"
        request.session["b"] = 2

    app = site({"view": view})

    assert "secure" in app.get("/view").headers["Set-Cookie"].lower()


def test_a_cookie_that_is_put_there_later_counts(site):
    """Whoever stands before the application may change the header that brings the cookie, until the session is read."""

    def view(request):
        request.environ["HTTP_COOKIE"] = cookie
        return sorted(request.session)

    app = site({"view": view})
    cookie = app.get("/count").headers["Set-Cookie"].split(";")[0]
    app.reset()

    assert app.get("/view").text == "['count']"


@pytest.mark.slow
@pytest.mark.parametrize("installation", [name for name in INSTALLATIONS if "beaker" not in name], indirect=True)
@pytest.mark.parametrize("path", ["/count", "/data", "/untouched"])
def test_nothing_is_left_to_the_collector(installation, path, tmp_path):
    """A request's objects end with it, and do not wait for the garbage collector."""
    views = Views(count=count, data=data, untouched=lambda _request: "untouched")
    app = install(installation, store_options("memory", tmp_path), views)
    environ = Request.blank(path).environ
    for _ in range(3):
        app(environ.copy(), lambda *_: None)
    # What other tests have left: a finalizer may leave objects to the next pass.
    for _ in range(3):
        gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            app(environ.copy(), lambda *_: None)
        left = gc.collect()
    finally:
        gc.enable()

    assert left < 10


# -- A functional test sees the session --------------------------------------------------------------


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_webtest_varname(installation, tmp_path):
    """A functional test finds the session under the name of ``webtest_varname``, as with Beaker's own filter."""
    options = {**store_options("file", tmp_path), "webtest_varname": "beaker"}
    app = TestApp(install(installation, options, Views(count=count, still=lambda request: "still")))
    app.get("/count")

    assert app.get("/count").beaker["count"] == 2
    # Without a filter and without the tween nobody makes a session that no page asks for.
    untouched = app.get("/still")
    assert hasattr(untouched, "beaker") is (installation not in ("settings_alone", "python_alone"))


@pytest.mark.parametrize("installation", ["filter", "settings"])
def test_webtest_varname_of_a_site(installation, tmp_path):
    """A request that no functional test makes is served with the option as without it."""
    options = {**store_options("file", tmp_path), "webtest_varname": "beaker"}
    app = install(installation, options, Views(count=count))

    assert Request.blank("/count").get_response(app).text == "1"


def test_another_factory_is_left_alone_by_webtest_varname(tmp_path):
    """Where the application has a session factory of its own, the option of the settings shows no session."""

    def configured(config):
        Views(still=lambda request: "still")(config)
        config.set_session_factory(lambda request: pytest.fail("nobody asked for a session"))

    app = TestApp(install("settings", {**store_options("file", tmp_path), "webtest_varname": "beaker"}, configured))

    assert not hasattr(app.get("/still"), "beaker")


# -- Options as they stood with pyramid_beaker -------------------------------------------------------


def _leave(request):
    request.session.invalidate()
    return "left"


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize(
    ("value", "attribute"), [(None, False), (False, False), ("", False), ("false", False), ("None", True)]
)
def test_no_samesite(installation, value, attribute, tmp_path):
    """Without the attribute, neither the cookie nor its deletion has one, whoever read the options first."""
    options = {**store_options("file", tmp_path), "samesite": value, "secure": True}
    app = TestApp(
        install(installation, options, Views(count=count, leave=_leave)), extra_environ={"wsgi.url_scheme": "https"}
    )
    sent = [app.get(path).headers["Set-Cookie"] for path in ("/count", "/leave")]

    assert ["SameSite=None" in header for header in sent] == [attribute] * 2
    assert attribute or all("SameSite" not in header for header in sent)


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize("value", [True, "true"])
def test_a_switch_signs_no_cookie(installation, value):
    """``validate_key = true`` starts nowhere; over Beaker's own filter, which has started, no request is answered."""
    with pytest.raises(SettingsError, match=r"validate_key must be .*: the key would be the word [Tt]rue"):
        TestApp(install(installation, {"type": "cookie", "validate_key": value}, Views(count=count))).get("/count")


def test_an_own_factory_beside_the_include_is_warned_once(caplog):
    """An application that sets the factory itself and includes the package reads its options twice, and warns once."""
    settings = {f"session.{name}": "" for name in ("url", "cookie_on_exception")}
    settings |= {"session.type": "memory", "session.secret": "short"}
    config = Configurator(settings=settings)
    config.set_session_factory(session_factory_from_settings(settings))
    config.include("beaker_bridge")
    Views(count=count)(config)
    app = TestApp(config.make_wsgi_app())
    app.get("/count")

    assert [record.getMessage().partition(" is ")[0] for record in caplog.records] == [
        "session.url",
        "session.cookie_on_exception",
        "session.secret",
    ]


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_beakers_own_cookie_name_is_warned_about(installation, tmp_path, caplog):
    """However sessions are installed, one warning says that the cookie has the name that Beaker gives to all."""
    forget(logging.getLogger("beaker_bridge.session.config"))
    # One configuration of Beaker's own middleware is read once in a process.
    options = {"type": "memory", "secret": f"a secret of the installation {installation} alone"}
    app = TestApp(install(installation, options, Views(count=count)))
    for _ in range(2):
        app.get("/count")

    assert list(app.cookies) == ["beaker.session.id"]
    assert caplog.text.count("another application on this host") == 1
