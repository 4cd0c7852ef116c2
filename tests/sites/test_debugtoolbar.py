"""The debug toolbar's panel: what it shows of a request's session, and that looking costs it nothing."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from threading import Event

import pytest
from beaker.cache import cache_managers, cache_region, region_invalidate
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from pyramid_retry import RetryableException
from webtest import TestApp

from beaker_bridge.debugtoolbar.recorder import Recorder, WatchedExchange, watch
from beaker_bridge.debugtoolbar.regions import watch_regions, watching
from beaker_bridge.exceptions import SessionConflictError, SessionStoreError
from beaker_bridge.regions import creation_lock
from beaker_bridge.regions.define import Region, define_regions
from beaker_bridge.regions.namespace import RegionNamespace
from beaker_bridge.request.exchange import BEAKER, Exchange, SessionObject
from tests.installations import INSTALLATIONS, SECRET, WITH_TWEEN, Views, install, store_options
from tests.live_site import configured, serving
from tests.region_cases import no_region_left
from tests.requests import Browser, Clock, config_of

pytestmark = [
    # pyramid_debugtoolbar 4.12 imports pkg_resources and compiles templates with old escapes.
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:SyntaxWarning"),
]

PANEL = {"debugtoolbar.includes": "beaker_bridge.debugtoolbar"}
PAGE = "<html><body>{}</body></html>"


@pytest.fixture(autouse=True)
def _regions_as_before(monkeypatch):
    monkeypatch.setattr(Region, "namespace_class", RegionNamespace)
    with no_region_left():
        yield


class Site:
    """An application with the toolbar, and its one visitor.

    Args:
        installation: the installation.
        options: the session options.
        views: the views by their path; what they return is shown on a page.
        includes: more of what the application includes.
        settings: more of the application's settings.
    """

    def __init__(self, installation, options, views, *includes, **settings):
        #: The toolbar's ids of the last requests, by their paths.
        self.ids = {}

        def answering(view):
            def answer(request):
                self.ids[request.path] = getattr(request, "pdtb_id", None)
                result = view(request)
                return result if isinstance(result, Response) else Response(PAGE.format(result))

            return answer

        self.views = Views(**{name: answering(view) for name, view in views.items()})
        self.views.includes = ("pyramid_debugtoolbar", *includes)
        app = install(installation, options, self.views, **{**PANEL, **settings})
        self.app = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})

    def get(self, path, **options):
        """Get a page."""
        return self.app.get(path, **options)

    def panel(self, path, **options):
        """Get a page, and return what the panel shows of that, as text."""
        return self.shown(self.get(path, **options))

    def shown(self, page):
        """Return what the panel shows of a page, as text."""
        (url,) = re.findall(r'id="pShowToolBarButton"\s+href="([^"]+)"', page.text)
        return self.text_of(self.app.get(url))

    def earlier(self, path):
        """Return what the panel shows of the last request of a path, as text."""
        return self.text_of(self.app.get(f"/_debug_toolbar/{self.ids[path]}"))

    def text_of(self, page):
        """Return the panel on a page of the toolbar, as text."""
        self.html = page.text.partition('<section class="bridge-panel">')[2].partition("</section>")[0]
        text = re.sub(r"<(span|pre|td|tr|dt|dd|h5|p|div|th)\b[^>]*>", "\n", self.html)
        return " ".join(unescape(re.sub("<[^>]+>", " ", text)).split())


def read(request):
    """Read the session."""
    return sorted(request.session)


def write(request):
    """Change the session."""
    request.session["cart"] = {"apples": 2, "token": "hidden word"}
    request.session["name"] = "ada"


def change(request):
    """Change, remove and add."""
    request.session["cart"]["apples"] = 3
    del request.session["name"]
    request.session["new"] = [1]


def untouched(request):
    """Do without the session."""


VIEWS = {"read": read, "write": write, "change": change, "untouched": untouched}


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_what_a_request_makes_of_its_session(installation):
    """In each installation the panel shows what was loaded, before and after, what was committed, and the cookie."""
    site = Site(installation, {"type": "memory", "secret": SECRET, "key": "sid"}, VIEWS)
    first = site.panel("/write")
    second = site.panel("/change")
    session_id = site.app.cookies["sid"].strip('"')[-32:]

    assert "Loaded a new session" in first
    assert "sent the session is new, and was stored Set-Cookie: sid=…; Path=/; HttpOnly; SameSite=Lax" in first
    assert "2 of 2 keys changed" in first
    assert f"Loaded the session {session_id[:6]}…" in second
    assert "3 of 3 keys changed" in second
    assert "- {'apples': 2, 'token': … (hidden)} + {'apples': 3, 'token': … (hidden)}" in second
    assert "name removed - 'ada'" in second
    assert "new added + [1]" in second
    assert f"commit {session_id[:6]}…: written" in second
    assert "not sent the browser has it: its value is the same, and no lifetime is to be renewed" in second
    assert f"write {session_id[:6]}… written" in second
    assert session_id not in site.html
    assert "hidden word" not in site.html


# -- Looking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_looking_does_not_touch_the_session(installation, tmp_path):
    """With the panel alone, a request that does without the session asks no store, and its response is as ever."""
    options = store_options("file", tmp_path)
    site = Site(installation, options, VIEWS, **{"debugtoolbar.panels": "beaker_bridge"})
    site.get("/write")
    page = site.get("/untouched")
    shown = site.shown(page)

    assert "Loaded not at all: the application has not used the session" in shown
    assert "file : 0 calls" in shown
    assert "not sent the application has not used the session" in shown
    assert {"Set-Cookie", "Vary"}.isdisjoint(page.headers)


def test_another_panel_that_looks():
    """The toolbar's own panel of the request loads the session by showing it: that is said, and the call is there."""
    site = Site("filter", {"type": "memory", "secret": SECRET, "key": "sid"}, VIEWS)
    site.get("/write")
    shown = site.panel("/read")

    assert "by another panel of the toolbar, before the application was asked" in shown
    assert "memory : 1 call" in shown


@pytest.mark.parametrize("alone", ["beaker_bridge", ""])
def test_a_page_is_as_without_the_panel(alone, tmp_path):
    """What is stored, and what the browser is sent, is as without the panel."""
    seen = []
    for includes in ("", "beaker_bridge.debugtoolbar"):
        settings = {"debugtoolbar.includes": includes, "debugtoolbar.panels": alone if includes else "headers"}
        site = Site("filter", store_options("file", tmp_path / (includes or "none")), VIEWS, **settings)
        pages = [site.get(f"/{name}") for name in ("write", "read", "change", "read")]
        seen.append(
            [(page.headers.getall("Set-Cookie") != [], re.findall(r"\[.*?\]", page.text)[:1]) for page in pages]
        )

    assert seen[0] == seen[1]
    assert seen[0] == [(True, []), (False, ["['cart', 'name']"]), (False, []), (False, ["['cart', 'new']"])]


def test_without_the_panel_nothing_is_watched():
    """Without the panel a request's exchange, and the regions, are as ever."""
    exchanges = []
    views = {"read": lambda request: exchanges.append(request.environ["beaker.session"].exchange)}
    Site("filter", {"type": "memory", "secret": SECRET}, views, **{"debugtoolbar.includes": ""}).get("/read")

    assert [type(exchange) for exchange in exchanges] == [Exchange]
    assert Region.namespace_class is RegionNamespace


def test_without_a_session():
    """Where no session is configured the panel says so, and the page is served."""
    views = Views(page=lambda request: Response(PAGE.format("")))
    views.includes = ("pyramid_debugtoolbar",)
    site = Site("settings", {"type": "memory", "secret": SECRET}, {})
    config = Configurator(settings=PANEL)
    views(config)
    site.app = TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "127.0.0.1"})

    assert "No session of beaker_bridge is configured for this request." in site.panel("/page")


def test_wrong_options_are_the_requests_matter():
    """Wrong options of Beaker's own filter are shown as the request's error, with the toolbar's page for it."""
    site = Site("beaker_filter", {"type": "memory", "timeout": "soon"}, VIEWS)
    page = site.get("/read", status=500)

    assert "timeout must be" in page.text
    assert "No session of beaker_bridge is configured for this request." in site.shown(page)


def test_a_subrequest_is_its_parents():
    """A subrequest shares the session of its parent, and what is watched of it."""
    recorders = []

    def parent(request):
        request.session["a"] = 1
        request.invoke_subrequest(request.blank("/child", environ={"REMOTE_ADDR": "127.0.0.1"}), use_tweens=True)

    def child(request):
        request.session["b"] = 2
        recorders.append(request.environ["beaker.session"].exchange.recorder)

    site = Site("filter", {"type": "memory", "secret": SECRET}, {"parent": parent, "child": child})
    shown = site.panel("/parent")

    assert "2 of 2 keys changed" in shown
    assert len(recorders) == 1


def test_each_attempt_is_watched_by_itself():
    """Of a request that pyramid_retry repeats, each attempt is a request of its own."""
    attempts = []

    def view(request):
        attempts.append(request.environ["beaker.session"].exchange)
        request.session["attempt"] = len(attempts)
        if len(attempts) == 1:
            raise RetryableException

    options = {"type": "memory", "secret": SECRET}
    site = Site("filter", options, {"view": view}, "pyramid_retry", **{"debugtoolbar.intercept_exc": "false"})
    shown = site.panel("/view")

    assert [type(exchange) for exchange in attempts] == [WatchedExchange] * 2
    assert attempts[0].recorder is not attempts[1].recorder
    assert attempts[1].config.original is attempts[0].config.original
    assert "attempt added + 2" in shown


# -- The cookie --------------------------------------------------------------------------------------


def log_in(request):
    """Log in."""
    request.session["user"] = 1
    request.session.regenerate_id()


def log_out(request):
    """Log out."""
    request.session.invalidate()


def fail(request):
    """Change the session, and fail."""
    request.session["a"] = 1
    raise HTTPFound("/read")


REASONS = {
    "new and empty": ({}, [read], "not sent the session is new and empty: it is not stored"),
    "moved": ({}, [write, log_in], "sent the session has moved to a new id"),
    "ended": ({}, [write, log_out], "sent the session has ended: the browser's cookie is deleted"),
    "lifetime": (
        {"cookie_expires": 3600, "reissue_time": 1, "clock": True},
        [write, read],
        "sent its lifetime is renewed",
    ),
    "attributes": (
        {},
        [write, lambda request: request.session.set_expiry(60)],
        "sent what the cookie says was changed: its lifetime, domain or path, or the key that signs it",
    ),
    "no cookies": ({"use_cookies": False}, [write], "not sent use_cookies is off"),
    "cookie session": (
        {"type": "cookie", "validate_key": SECRET},
        [write, change],
        "sent the record is in the cookie, and was changed, or its access time renewed",
    ),
    "same": ({}, [write, write], "not sent the browser has it: its value is the same"),
}


@pytest.mark.parametrize("name", REASONS)
def test_why_a_cookie_is_sent(name):
    """The panel says why a cookie is sent, or not, and never its value."""
    more, steps, expected = REASONS[name]
    options = {"type": "memory", "secret": SECRET, "key": "sid", **more}
    now = [1_700_000_000.0]
    if options.pop("clock", None):
        options["clock"] = lambda: now[0]
    views = {f"step{number}": step for number, step in enumerate(steps)}
    site = Site("filter", options, views)
    for number in range(len(steps)):
        shown = site.panel(f"/step{number}")
        now[0] += 100

    assert f"Cookie {expected}" in shown
    assert all(cookie.value.strip('"') not in site.html for cookie in site.app.cookiejar)


def test_a_cookie_that_replaces_several():
    """It also says that the browser has sent several cookies of ours."""
    config = config_of(secret=SECRET, reissue_time=60, clock=Clock())
    browsers = [Browser(config) for _ in range(2)]
    for browser in browsers:
        browser.write(a=1)
    config.clock.now += 100
    exchange, recorder = watched_request(config, "; ".join(browser.cookie for browser in browsers))
    exchange.load()
    exchange.commit()
    exchange.finish([])

    assert recorder.cookie.is_sent
    assert recorder.cookie.reason == "the browser sent several cookies of ours, which this one replaces"


def test_a_request_that_is_discarded():
    """A request that leaves no trace says that, and why."""
    options = {"type": "memory", "secret": SECRET, "key": "sid", "cookie_on_exception": "false"}
    site = Site("filter", options, {"fail": fail, **VIEWS})
    site.get("/write")
    page = site.get("/fail")
    shown = site.earlier("/fail")

    assert page.status_int == 302
    assert "the request was discarded, since it failed: it leaves no trace (cookie_on_exception)" in shown


def test_the_login_of_a_user():
    """A login writes the index of its user, and the event of a session that it ends is there; the user is not."""

    def bind(request):
        request.session.bind("somebody", limit=1)

    site = Site("filter", {"type": "memory", "secret": SECRET, "key": "sid"}, {"bind": bind, **VIEWS})
    first = site.panel("/bind")
    site.app.reset()
    second = site.panel("/bind")

    assert "a user's index: written" in first
    assert "sent the session is new, and was stored" in first
    assert "event SessionRevoked" in second
    assert "somebody" not in site.html


# -- Commits, merges, failures -----------------------------------------------------------------------


def watched_request(config, cookie):
    """Begin a request that is watched from its beginning."""
    session_object = SessionObject({"wsgi.url_scheme": "http", "HTTP_COOKIE": cookie}, config)
    recorder = watch(session_object.exchange)
    recorder.is_serving = True
    return session_object.exchange, recorder


@pytest.fixture
def browser():
    """Return a browser that has a session."""
    browser = Browser(config_of(store_timeout=0.05))
    browser.write(name="base", cart=[1])
    return browser


def test_a_merge(browser):
    """A merge says in how many tries it was made, and which change was given up; each call of the store is there."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    session = exchange.load()
    session["name"], session["new"] = "ours", 1
    session.changed()
    browser.write(name="theirs")
    exchange.commit()

    assert recorder.events == [
        "SessionMerged: merged with another request's changes, in 2 tries; of two changes of 'name' one was given up"
    ]
    assert [(call.operation, call.outcome) for call in recorder.calls] == [
        ("read", "found"),
        ("write", "lost to another request's change"),
        ("write", "written"),
    ]
    assert {row.key: row.status for row in recorder.keys} == {"name": "changed", "new": "added", "cart": "same"}
    assert recorder.commits[0].outcome.endswith("…: written")


def test_a_merge_without_a_conflict(browser):
    """A merge that gives nothing up says that."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    session = exchange.load()
    session["new"] = 1
    session.changed()
    browser.write(other=1)
    exchange.commit()

    assert recorder.events[0].endswith("in 2 tries; no change was given up")


@pytest.mark.parametrize("subscribed", [True, False])
def test_changes_that_are_given_up(browser, subscribed):
    """Changes that a logout has ended are given up, and the application's subscribers are notified as ever."""
    told = []
    exchange, recorder = watched_request(browser.config, browser.cookie)
    exchange.notify = told.append if subscribed else None
    session = exchange.load()
    session["new"] = 1
    session.changed()
    logout = browser.begin()
    logout.session.invalidate()
    browser.end(logout)
    exchange.commit()

    assert recorder.events == ["SessionNotSaved: this request's changes were given up: the session has ended meanwhile"]
    assert recorder.commits[0].outcome == "given up: the session has ended, or moved, elsewhere"
    assert recorder.cookie.reason.startswith("the session is not saved: it has ended or moved elsewhere")
    assert [type(event).__name__ for event in told] == (["SessionNotSaved"] if subscribed else [])


def test_changes_that_others_do_not_let_through(browser, monkeypatch):
    """A conflict is a commit that failed, with its sentence."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    session = exchange.load()
    session["new"] = 1
    session.changed()
    monkeypatch.setattr(session, "_write", lambda: (_ for _ in ()).throw(SessionConflictError("held for too long")))
    with pytest.raises(SessionConflictError):
        exchange.commit()

    assert [(commit.outcome, commit.is_error) for commit in recorder.commits] == [("held for too long", True)]
    assert recorder.events == ["SessionNotSaved: this request's changes were given up: others changed it for too long"]


def test_an_error_of_other_code(browser, monkeypatch):
    """Of another error there is the name alone: its text may hold anything."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    session = exchange.load()
    session["new"] = 1
    session.changed()
    monkeypatch.setattr(session, "_write", lambda: (_ for _ in ()).throw(RuntimeError("word")))
    with pytest.raises(RuntimeError):
        exchange.commit()

    assert recorder.commits[0].outcome == "RuntimeError"


def test_a_store_that_fails(browser):
    """A store that fails is a call that failed, and the session was not loaded."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    error = SessionStoreError("no store", name="memory")

    def read(session_id):
        raise error

    exchange.config.store._store = type("Store", (), {"read": staticmethod(read), "kind": "memory"})()
    with pytest.raises(SessionStoreError):
        exchange.load()

    assert [(call.operation, call.outcome) for call in recorder.calls] == [("read", "failed (unavailable)")]
    assert (recorder.loaded, recorder.cookie.reason) == ("none: no store", "the session could not be loaded")


def test_a_block(browser):
    """A block's lock, and its commit, are calls of the store; what a block raises is raised."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    session = exchange.load()
    with session.exclusive():
        session["counter"] = 1
    with pytest.raises(RuntimeError, match="in the block"), session.exclusive():
        raise RuntimeError("in the block")

    assert [call.operation for call in recorder.calls] == ["read", "lock", "read", "write", "lock", "read"]
    assert browser.read()["counter"] == 1


def test_a_rotation_and_a_logout(browser):
    """A rotation leaves a marker under the old id; a logout deletes."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    exchange.load().regenerate_id()
    exchange.commit()
    first = recorder.commits[0].outcome
    exchange.load().invalidate()
    exchange.commit()

    assert re.fullmatch(r"\w+…: written\n\w+…: a marker was written: the session is under another id", first)
    assert "deleted" in recorder.commits[1].outcome


def test_a_session_that_has_moved(browser):
    """A request with the id that a rotation has left gets an empty session: the panel says why."""
    old = browser.cookie
    move = browser.begin()
    move.session.regenerate_id()
    browser.end(move)
    browser.cookie = old
    exchange, recorder = watched_request(browser.config, browser.cookie)
    exchange.load()
    exchange.finish([])

    assert recorder.loaded == "an empty session: this one has moved to another id, or its store cannot be reached"
    assert recorder.cookie.is_sent is False


def test_other_events_have_their_name(browser):
    """Other events of a session are there by their name."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    exchange.load().invalidate()
    exchange.commit()

    assert recorder.events == ["SessionInvalidated"]


def test_the_index_of_a_user_is_no_session(browser):
    """A record that is no session's is named by what it is, and what else a store does works."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    store = exchange.config.store
    store.read("u" + "0" * 64)

    assert recorder.calls[0].record == "a user's index"
    assert store.kind == "memory"
    assert exchange.config.purge_pause == browser.config.purge_pause

    exchange.config.purge_pause = (0.0, 0.0)

    assert browser.config.purge_pause == (0.0, 0.0)


def test_a_session_that_was_loaded_before(browser):
    """A session that other middleware has loaded before the toolbar is watched from then on."""
    request = browser.begin()
    recorder = watch(request.exchange)
    request.session["a"] = 1
    request.commit()

    assert watch(request.exchange) is recorder
    assert [call.operation for call in recorder.calls] == ["write"]
    assert {row.key: row.status for row in recorder.keys} == {"name": "same", "cart": "same", "a": "added"}


def test_a_session_that_is_not_used(browser):
    """A commit of a request that has not used its session is none."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    exchange.commit()
    exchange.finish([])

    assert (recorder.commits, recorder.calls, recorder.loaded) == ([], [], None)


def test_the_commit_of_beakers_filter(browser):
    """The last commit of Beaker's own filter, with which its request ends, is shown as the others."""
    session_object = SessionObject({"HTTP_COOKIE": browser.cookie}, browser.config, BEAKER)
    exchange = session_object.exchange
    recorder = watch(exchange)
    session = exchange.load()
    exchange.is_answered = True
    session["a"] = 1
    session_object.save()
    session_object.persist()

    assert exchange.over
    assert [(commit.outcome.partition("…")[2], commit.is_error) for commit in recorder.commits] == [
        (": written", False)
    ]
    assert recorder.late_commits == 0
    assert [row.key for row in recorder.keys if row.status == "added"] == ["a"]


def test_a_change_that_is_not_committed(browser):
    """Before its commit a session's cookie is not decided."""
    exchange, recorder = watched_request(browser.config, browser.cookie)
    session = exchange.load()
    session["a"] = 1
    session.changed()
    recorder.look(exchange)

    assert recorder.cookie.reason == "the session is not committed yet"


# -- What comes late ---------------------------------------------------------------------------------


def streamed(request):
    """Change the session while the body is sent."""
    request.session["before"] = 1

    def body():
        yield PAGE.format("").encode()
        request.session["after"] = 1

    return Response(app_iter=body(), content_type="text/plain")


@pytest.mark.parametrize("installation", WITH_TWEEN)
def test_what_comes_after_the_headers(installation):
    """What a streamed body changes is committed, and marked as not shown."""
    recorders = []

    def view(request):
        recorders.append(request.environ["beaker.session"].exchange.recorder)
        return streamed(request)

    site = Site(installation, {"type": "memory", "secret": SECRET, "key": "sid"}, {"view": view, **VIEWS})
    site.get("/write")
    site.get("/view")
    page = site.get("/read")
    shown = site.earlier("/view")

    assert "'after', 'before'" in unescape(page.text)
    assert (
        "Not shown is what came after the headers were sent: 1 commit, and 1 call of the store. The body is made"
        in shown
    )
    assert [row.key for row in recorders[0].keys if row.status == "added"] == ["before"]


# -- Cache regions -----------------------------------------------------------------------------------


def test_regions():
    """The panel shows which of the regions' values were hit, computed, stale, waited for, or failed."""
    calls = []

    @cache_region("short", "fast")
    def fast(number):
        calls.append(number)
        return number

    @cache_region("short", "failing")
    def failing():
        raise ValueError("no value")

    def view(request):
        fast(1)
        fast(1)
        with pytest.raises(ValueError, match="no value"):
            failing()

    def again(request):
        try:
            return {}["handled meanwhile"]
        except KeyError:
            return fast(1), fast(2)

    settings = {"cache.regions": "short", "cache.type": "memory", "cache.short.expire": "600"}
    site = Site("settings", {"type": "memory", "secret": SECRET}, {"view": view, "again": again}, **settings)
    first = site.panel("/view")
    second = site.panel("/again")

    assert "1 computed 1 hit 1 failed" in first
    assert re.search(r"short fast computed [\d.]+ ms short fast hit [\d.]+ ms short failing failed [\d.]+ ms", first)
    assert "1 hit 1 computed" in second
    assert calls == [1, 2]


def test_a_stale_value_and_one_that_is_waited_for():
    """An old value that is served while another request computes is stale; one that another computes is waited for."""
    watch_regions()
    define_regions({"cache.regions": "short", "cache.type": "memory", "cache.short.expire": "1"}, "test")
    go, begun = Event(), Event()
    go.set()

    @cache_region("short", "slow")
    def slow():
        begun.set()
        go.wait(60)
        return len(calls)

    calls = []

    def asked():
        recorder = Recorder()
        with watching(recorder):
            slow()
        return [region.outcome for region in recorder.regions]

    first = asked()
    Event().wait(1.1)
    go.clear()
    begun.clear()
    with ThreadPoolExecutor(2) as pool:
        computing = pool.submit(asked)
        begun.wait(60)
        stale = asked()
        go.set()
        computed = computing.result(60)
        recorder = Recorder()
        with watching(recorder):
            region_invalidate(slow, "short", "slow")
        go.clear()
        begun.clear()
        computing = pool.submit(asked)
        begun.wait(60)
        waiting = pool.submit(asked)
        while not any(turn.is_awaited for turn in _turns()):
            Event().wait(0.01)
        go.set()
        waited = waiting.result(60)
        computing.result(60)

    assert (first, stale, computed, waited) == (["computed"], ["stale"], ["computed"], ["waited"])
    assert recorder.regions == []


def test_regions_that_nothing_watches():
    """Without a request that watches, a region is as any other; a value that is only set was not asked for."""
    watch_regions()
    define_regions({"cache.regions": "short", "cache.type": "memory", "cache.short.expire": "600"}, "test")

    @cache_region("short", "plain")
    def plain():
        return 1

    values = [plain(), plain()]
    (cache,) = [one for one in cache_managers.values() if "plain" in one.namespace.namespace]
    recorder = Recorder()
    with watching(recorder):
        cache.put("another", 2)

    assert (values, cache.get("another")) == ([1, 1], 2)
    assert recorder.regions == []


def _turns():
    return list(creation_lock._turns.get()._turns.values())


# -- In a browser ------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.slow
def test_in_a_browser(tmp_path, tab):
    """In a real browser the panel shows a visit of the sample site, light and dark, and fits narrow and wide pages."""
    ini = configured(tmp_path)
    text = re.sub(r"(?m)^#   (pyramid_debugtoolbar)$", r"    \1", ini.read_text(encoding="utf-8"))
    ini.write_text(text.replace("\n#debugtoolbar.includes", "\ndebugtoolbar.includes"), encoding="utf-8")
    overflowing, link = [], "#pDebugPanel-beaker_bridge a"
    with serving(ini) as site:
        for _ in range(2):
            tab.open(f"{site.url}/")
        url = tab.run("document.querySelector('#pShowToolBarButton').href")
        for scheme in ("light", "dark"):
            for width in (400, 1200):
                tab.show_as(scheme, width)
                tab.open(url)
                tab.run(f"document.querySelector('{link}').click()")
                wide = tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                overflowing += [(scheme, width)] * (wide > 0)
        shown, title = tab.run("document.querySelector('.bridge-panel').innerText"), tab.text(link)

    assert overflowing == []
    assert "1 changed, 2 calls" in title
    assert "visits" in shown
    assert "- 1\n+ 2" in shown
    assert "not sent the browser has it" in " ".join(shown.split())
