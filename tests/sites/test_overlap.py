"""The sample's page /overlap: requests that overlap, on Beaker's sessions and on ours."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace

import pytest
from pyramid.config import Configurator
from pyramid_beaker import session_factory_from_settings as pyramid_beaker_factory
from webtest import TestApp

import sample_app
from beaker_bridge import SessionMiddleware
from sample_app import lab
from sample_app.beaker_way import add_beaker_session
from tests.live_site import PATIENCE, Visitor, configured, serving

pytestmark = pytest.mark.once

TEN = range(1, 11)


class Browser:
    """A client that sends its cookies with each request, also with requests that overlap.

    Args:
        app: the WSGI application.
    """

    def __init__(self, app):
        self._app = app
        self.cookies = {}
        self.page = self.get("/overlap")
        self.token = re.search(r'data-token="(\w+)"', self.page.text)[1]

    def get(self, path):
        return self._send(path)

    def post(self, path, *, status=200, **fields):
        return self._send(
            f"{lab.PATH}/{path}",
            method="POST",
            body="&".join(f"{name}={value}" for name, value in fields.items()).encode("ascii"),
            headers={"X-CSRF-Token": self.token, "Content-Type": "application/x-www-form-urlencoded"},
            status=status,
        )

    def read(self, path):
        return self.get(f"{lab.PATH}/{path}").json

    def _send(self, path, headers=None, **arguments):
        cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        answer = TestApp(self._app).request(path, headers={**(headers or {}), **cookies}, **arguments)
        for header in answer.headers.getall("Set-Cookie"):
            self.cookies.update({name: morsel.value for name, morsel in SimpleCookie(header).items()})
        return answer


def site(**options):
    includes = "beaker_bridge\npyramid_jinja2\npyramid_tm"
    options = {f"overlap.{name}": value for name, value in options.items()}
    return SessionMiddleware(sample_app.main({}, **{"pyramid.includes": includes, **options}), type="memory")


@pytest.fixture(params=["memory", "file"])
def browser(request, tmp_path):
    options = {"data_dir": str(tmp_path)} if request.param == "file" else {}
    return Browser(site(type=request.param, **options))


def work(monkeypatch, wait):
    """Let the laboratory's requests wait for something else than for time to pass."""
    monkeypatch.setattr(lab, "time", SimpleNamespace(time=time.time, sleep=wait))


def meet(monkeypatch, count):
    """Let some requests go on only when each of them has its session in hand."""
    barrier = Barrier(count)
    work(monkeypatch, lambda _seconds: barrier.wait(PATIENCE))


def at_once(*calls):
    with ThreadPoolExecutor(len(calls)) as threads:
        return [done.result(PATIENCE) for done in [threads.submit(call) for call in calls]]


# -- Ten requests ------------------------------------------------------------------------------------


def test_of_ten_requests_at_once_beaker_keeps_one_and_ours_keeps_ten(browser, monkeypatch):
    """Ten requests load the session before one of them has saved it: Beaker's holds one write, ours all."""
    meet(monkeypatch, 10)
    browser.post("begin")
    times = at_once(*[lambda number=number: browser.post("write", number=number).json for number in TEN])
    stored = browser.read("stored")

    assert max(each["loaded"] for each in times) <= min(each["changed"] for each in times)
    assert len(stored["beaker"]) == 1
    assert sorted(stored["ours"]) == list(TEN)


def test_requests_one_after_the_other_lose_nothing_either_way(browser, monkeypatch):
    """What Beaker loses, it loses because requests overlap."""
    work(monkeypatch, lambda _seconds: None)
    browser.post("begin")
    for number in TEN:
        browser.post("write", number=number)

    assert browser.read("stored") == {"beaker": list(TEN), "ours": list(TEN)}


def test_it_begins_with_empty_carts(browser, monkeypatch):
    """A second run does not show what the first one has stored."""
    work(monkeypatch, lambda _seconds: None)
    browser.post("begin")
    browser.post("write", number=3)
    browser.post("begin")

    assert browser.read("stored") == {"beaker": [], "ours": []}


def test_a_look_writes_neither_session(tmp_path):
    """To ask what is stored writes nothing: Beaker would write back what it has read, and lose a write itself."""
    browser = Browser(site(type="file", data_dir=str(tmp_path)))
    browser.post("begin")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cache")}
    browser.read("stored")
    browser.read("copies")

    assert before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cache")} == before


def test_the_left_column_is_pyramid_beakers_way():
    """Beaker's session is saved as pyramid_beaker saves it: the same writes are left, and the same cookies are sent."""
    options = {
        "type": "memory",
        "key": "beaker",
        "secret": "a secret of thirty-two characters",
        "data_serializer": "json",
    }

    def views(use):
        with Configurator() as config:
            if use is None:
                add_beaker_session(config, options)
            else:
                config.set_session_factory(use)
            for name in ("write", "read", "delete"):
                config.add_route(name, f"/{name}")

            def session_of(request):
                return request.beaker_session if use is None else request.session

            def write(request):
                session = session_of(request)
                session.get("cart")
                barrier.wait(PATIENCE)
                session.setdefault("cart", []).append(request.GET["number"])
                session.save()
                return {}

            def delete(request):
                session_of(request).delete()
                return {}

            config.add_view(write, route_name="write", renderer="json")
            config.add_view(lambda request: session_of(request).get("cart"), route_name="read", renderer="json")
            config.add_view(delete, route_name="delete", renderer="json")
            return config.make_wsgi_app()

    seen = []
    for use in (None, pyramid_beaker_factory({f"session.{name}": value for name, value in options.items()})):
        barrier = Barrier(1)
        app = views(use)
        first = TestApp(app)
        cookies = [first.get("/write?number=0").headers["Set-Cookie"]]
        barrier = Barrier(10)
        others = [TestApp(app, extra_environ={"HTTP_COOKIE": f"beaker={first.cookies['beaker']}"}) for _ in TEN]
        at_once(
            *[
                lambda number=number, each=each: each.get(f"/write?number={number}")
                for number, each in enumerate(others)
            ]
        )
        cookies += [first.get("/read").headers.get("Set-Cookie"), first.get("/delete").headers["Set-Cookie"]]
        seen.append(
            [
                len(others[0].get("/read").json or []),
                *[re.sub(r"[0-9a-f]{72}|\d\d:\d\d:\d\d", "…", str(each)) for each in cookies],
            ]
        )

    assert seen[0] == seen[1]


# -- A logout while a slow request is under way ------------------------------------------------------


def test_a_slow_request_brings_beakers_session_back_and_not_ours(browser, monkeypatch):
    """A copy of the cookie opens nothing after the logout; when a slow request has ended, it opens Beaker's again."""
    work(monkeypatch, lambda _seconds: None)
    browser.post("begin")
    browser.post("login", tab="tab1")
    before = browser.read("copies")["tab1"]
    loaded, go_on = Event(), Event()
    work(monkeypatch, lambda _seconds: (loaded.set(), go_on.wait(PATIENCE)))
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(browser.post, "write", number=1)
        assert loaded.wait(PATIENCE)
        logout = browser.post("logout").json
        meanwhile = browser.read("copies")["tab1"]
        go_on.set()
        write = slow.result(PATIENCE).json
    after = browser.read("copies")["tab1"]

    assert write["loaded"] < logout["changed"] < write["changed"]
    assert before == {"beaker": "login", "ours": "login"}
    assert meanwhile == {"beaker": "nothing", "ours": "nothing"}
    assert after == {"beaker": "login", "ours": "nothing"}


# -- A login in two tabs -----------------------------------------------------------------------------


def test_a_login_in_two_tabs_and_a_logout(browser, monkeypatch):
    """Two logins overlap: with ours the old id is closed at once, and a logout closes both new ones."""
    meet(monkeypatch, 2)
    browser.post("begin")
    at_once(*[lambda tab=tab: browser.post("login", tab=tab) for tab in lab.TABS])
    after_login = browser.read("copies")
    browser.post("logout_everywhere")
    after_logout = browser.read("copies")

    assert after_login == {
        "before": {"beaker": "cart", "ours": "nothing"},
        "tab1": {"beaker": "login", "ours": "login"},
        "tab2": {"beaker": "login", "ours": "login"},
    }
    assert after_logout["before"] == {"beaker": "cart", "ours": "nothing"}
    assert sorted(after_logout[tab]["beaker"] for tab in lab.TABS) == ["login", "nothing"]
    assert [after_logout[tab]["ours"] for tab in lab.TABS] == ["nothing", "nothing"]


def test_a_copy_that_somebody_has_written_opens_nothing(browser):
    """The page's copies are signed: an id that the browser makes up is not looked for."""
    browser.post("begin")
    browser.cookies["overlap.before"] = "x" + browser.cookies["overlap.before"][1:]

    assert browser.read("copies") == {}


def test_a_stranger_logs_nobody_out(monkeypatch):
    """Two visitors whose sessions the page has not begun, or which have expired, are two users."""
    work(monkeypatch, lambda _seconds: None)
    app = site(type="memory")
    one, other = Browser(app), Browser(app)
    for browser in (one, other):
        browser.post("login", tab="tab1")
    other.post("logout_everywhere")

    assert one.read("copies")["tab1"]["ours"] == "login"
    assert other.read("copies")["tab1"]["ours"] == "nothing"


def test_nobody_can_log_out(browser):
    """A logout without a login ends nothing, and is no error."""
    browser.post("logout")
    browser.post("logout_everywhere")

    assert browser.read("copies") == {}


# -- The site around it ------------------------------------------------------------------------------


def test_the_sites_own_session_is_left_alone(browser, monkeypatch):
    """Whoever tries the page stays logged in on the site, with the cart as it was."""
    work(monkeypatch, lambda _seconds: None)
    seen = []
    for _ in range(2):
        seen.append(browser.get("/session.json").json["id"])
        browser.post("begin")
        browser.post("login", tab="tab1")
        browser.post("write", number=2)
        browser.post("logout_everywhere")
    session = browser.get("/session.json").json

    assert {session["id"], *seen} == {session["id"]}
    assert session["data"].keys() == {"_csrft_"}


@pytest.mark.parametrize("path", ["begin", "write", "login", "logout", "logout_everywhere"])
def test_each_post_needs_the_sites_token(browser, path):
    """What changes a session is refused without the token of the site's own session."""
    browser.token = "0" * 40
    refused = browser.post(path, status=400, number=1, tab="tab1")

    assert "<h1>That form is too old</h1>" in refused.text
    assert "overlap.ours" not in browser.cookies


@pytest.mark.parametrize(("path", "fields"), [("write", {"number": 11}), ("write", {}), ("login", {"tab": "tab3"})])
def test_what_the_page_does_not_offer_is_refused(browser, path, fields):
    """A number or a tab that the page does not have is a bad request."""
    refused = browser.post(path, status=400, **fields)

    assert "must be one of" in refused.text
    assert "overlap.ours" not in browser.cookies


@pytest.mark.parametrize("path", [f"{lab.PATH}/nowhere", f"{lab.PATH}/write", f"{lab.PATH}/", "/overlap/"])
def test_what_is_not_there_has_the_sites_page(browser, path):
    """An address of the laboratory's that does not exist is answered as any other of the site's."""
    answer = TestApp(browser._app).get(path, status=404)

    assert "<h1>Not found</h1>" in answer.text


def test_the_work_is_bounded(browser, monkeypatch):
    """More requests than there are places for are refused at once, and none of the others waits for that."""
    entered, go_on = Barrier(lab.PLACES + 1), Event()
    work(monkeypatch, lambda _seconds: (entered.wait(PATIENCE), go_on.wait(PATIENCE)))
    browser.post("begin")
    with ThreadPoolExecutor(lab.PLACES) as threads:
        working = [threads.submit(browser.post, "write", number=1) for _ in range(lab.PLACES)]
        entered.wait(PATIENCE)
        refused = browser.post("write", status=503, number=2)
        others = browser.get("/session.json")
        go_on.set()
        answers = [each.result(PATIENCE).status_int for each in working]
    work(monkeypatch, lambda _seconds: None)
    later = browser.post("write", number=2)

    assert refused.headers["Retry-After"] == "3"
    assert others.status_int == later.status_int == 200
    assert answers == [200] * lab.PLACES


def test_a_request_that_fails_gives_its_place_back(browser, monkeypatch):
    """A failure while a request works costs no place."""

    def fail(_seconds):
        raise OSError("the work has failed")

    work(monkeypatch, fail)
    failed = [browser.post("write", status=500, number=1) for _ in range(lab.PLACES + 1)]
    work(monkeypatch, lambda _seconds: None)

    assert all("<h1>Something broke</h1>" in each.text for each in failed)
    assert browser.post("write", number=1).status_int == 200


def test_without_options_the_sessions_are_in_memory():
    """An application without `overlap.` settings has the page, too."""
    assert "<code>memory</code>" in Browser(site()).page.text


def test_the_page_says_what_it_cannot_do_without_a_script(browser):
    """Without a script, a visitor is told so and led to the cart; no button is there that does nothing."""
    text = browser.page.text

    assert re.search(r'<noscript>.*href="/cart".*</noscript>', text, re.DOTALL)
    assert re.findall(r'<button id="(\w+)-run" type="button" hidden>', text) == ["ten", "logout", "login"]


def test_no_page_has_an_inline_script_or_style():
    """A Content-Security-Policy of `default-src 'self'` breaks none of the site's pages."""
    for template in (Path(sample_app.__file__).parent / "templates").iterdir():
        text = template.read_text(encoding="utf-8")

        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), template.name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), template.name


@pytest.mark.slow
def test_development_ini_lets_ten_requests_overlap(tmp_path):
    """Over HTTP, with the threads of development.ini, ten requests have their session in hand at the same moment."""
    with serving(configured(tmp_path)) as running:
        visitor = Visitor(running)
        fields = {"csrf_token": re.search(r'data-token="(\w+)"', visitor.get("/overlap").text)[1]}
        visitor.post(f"{lab.PATH}/begin", **fields)
        answers = at_once(
            *[lambda number=number: visitor.post(f"{lab.PATH}/write", number=str(number), **fields) for number in TEN]
        )
        stored = visitor.get(f"{lab.PATH}/stored").text

    assert [answer.status for answer in answers] == [200] * 10
    assert '"ours": [' in stored
    assert len(re.findall(r"\d+", stored.partition("ours")[2])) == 10
    assert len(re.findall(r"\d+", stored.partition("ours")[0])) < 10
