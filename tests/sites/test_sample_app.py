"""The sample site over real HTTP: `pserve` on development.ini, and those who visit it."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime, timezone

import pytest

from tests.live_site import CHECKOUT, PATIENCE, Visitor, configured, csrf_token, serving
from tests.machine import program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serving(configured(tmp_path_factory.mktemp("site"))) as running:
        yield running


@pytest.fixture
def visitor(site):
    return Visitor(site)


def visits(page):
    found = re.search(r'<strong id="visits">(\d+)</strong>', page.text)
    assert found, page.text
    return int(found[1])


# -- The session across requests ---------------------------------------------------------------------


def test_visits_are_counted(visitor):
    """The next request finds the data that the last one put into the session."""
    counts = [visits(visitor.get("/")) for _ in range(3)]

    assert counts == [1, 2, 3]


def test_visitors_have_sessions_of_their_own(site):
    """Two cookie jars are two sessions."""
    one, other = Visitor(site), Visitor(site)
    one.get("/")
    one.get("/")
    other.get("/")

    assert one.session["data"]["visits"] == 2
    assert other.session["data"]["visits"] == 1
    assert one.session["id"] != other.session["id"]


def test_the_home_page_shows_the_sessions_facts(visitor):
    """Id (shortened), new, created, last accessed and data stand on the home page; the CSRF token does not."""
    first = visitor.get("/").text
    visitor.get("/login")
    second = visitor.get("/").text
    session = visitor.session
    created = datetime.fromtimestamp(session["created"], tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

    assert "<td>yes</td>" in first
    assert "<td>never</td>" in first
    assert "<td>no</td>" in second
    assert "<td>never</td>" not in second
    assert f"<td>{created}</td>" in second
    assert f"<code>{session['id'][:6]}…</code>" in second
    assert session["id"] not in second
    assert "<td><code>2</code></td>" in second
    assert session["data"]["_csrft_"] not in second


def test_session_json_answers_the_facts(visitor):
    """/session.json answers id, new, created, last_accessed and data."""
    visitor.get("/")
    page = visitor.get("/session.json")
    session = visitor.session

    assert page.headers["Content-Type"] == "application/json"
    assert session.keys() == {"id", "new", "created", "last_accessed", "data"}
    assert re.fullmatch("[0-9a-f]{32}", session["id"])
    assert session["new"] is False
    assert isinstance(session["created"], int)
    assert session["created"] <= session["last_accessed"]
    assert session["data"] == {"visits": 1}


def test_looking_leaves_nothing_behind(visitor):
    """A newcomer who only reads the session gets no cookie."""
    session = visitor.session

    assert session["new"] is True
    assert session["last_accessed"] is None
    assert session["data"] == {}
    assert not list(visitor.jar)


def test_the_cookie_is_guarded(visitor):
    """The cookie is hidden from scripts and from other sites' posts, and caches are told of it."""
    headers = visitor.get("/").headers

    assert headers["Set-Cookie"].startswith("sample_app.session=")
    assert "; HttpOnly" in headers["Set-Cookie"]
    assert "; SameSite=Lax" in headers["Set-Cookie"]
    assert headers["Vary"] == "Cookie"


def test_static_files_have_no_session(visitor):
    """The style sheet and the icon are served without a look at the session."""
    pages = [visitor.get("/static/style.css"), visitor.get("/static/icon.svg")]

    assert [page.status for page in pages] == [200, 200]
    assert [page.headers["Vary"] for page in pages] == [None, None]


# -- Login and logout --------------------------------------------------------------------------------


def test_login_redirects_and_flashes_once(visitor):
    """A flash message survives the redirect, is shown once, and a raised HTTPFound keeps the session."""
    answer = visitor.submit("/login", "/login", name="Ada")
    landed = visitor.follow(answer)
    after = visitor.get("/")

    assert answer.status == 302
    assert "Welcome, Ada!" in landed.text
    assert '<span class="user">Ada</span>' in landed.text
    assert "Welcome, Ada!" not in after.text
    assert '<span class="user">Ada</span>' in after.text


def test_login_changes_the_id(site, visitor):
    """A login moves the session to a new id with a new token, and the old id opens nothing."""
    visitor.get("/")
    visitor.get("/login")
    before, old_cookie = visitor.session, visitor.cookie
    visitor.log_in("Ada")
    after = visitor.session
    thief = Visitor(site)
    stolen = thief.get("/session.json", Cookie=old_cookie)

    assert after["id"] != before["id"]
    assert after["created"] == before["created"]
    assert after["data"]["visits"] == 2
    assert after["data"]["_csrft_"] != before["data"]["_csrft_"]
    assert '"data": {}' in stolen.text
    assert stolen.headers["Set-Cookie"] is None


def test_logout_deletes_the_session(site, visitor):
    """After a logout nothing is left, and the old cookie opens nothing."""
    visitor.log_in("Ada")
    old, old_cookie = visitor.session, visitor.cookie
    landed = visitor.follow(visitor.submit("/", "/logout"))
    replayed = Visitor(site).get("/session.json", Cookie=old_cookie)

    assert "You are logged out" in landed.text
    assert "Ada" not in landed.text
    assert visits(landed) == 1
    assert visitor.session["id"] != old["id"]
    assert "user" not in visitor.session["data"]
    assert '"data": {}' in replayed.text


@pytest.mark.parametrize("name", ["", "   "])
def test_a_login_needs_a_name(visitor, name):
    """Without a name the form comes back with a message, and nobody is logged in."""
    before = visitor.submit("/login", "/login", name=name)
    landed = visitor.follow(before)

    assert "Please tell us your name." in landed.text
    assert csrf_token(landed)
    assert "user" not in visitor.session["data"]


def test_a_name_is_text(visitor):
    """A name is shown as text, never as markup, and is cut to size."""
    landed = visitor.log_in("<script>alert(1)</script>" + "x" * 40)

    assert "<script>" not in landed.text
    assert '<span class="user">&lt;script&gt;alert(1)' in landed.text
    assert len(visitor.session["data"]["user"]) == 40


@pytest.mark.parametrize(
    "path",
    ["/login", "/logout", "/cart/add", "/cart/remove", "/sessions/end", "/sessions/end-others", "/password"],
)
@pytest.mark.parametrize("token", ["none", "another session's"])
def test_a_post_without_the_sessions_token_is_refused(site, visitor, path, token):
    """A form that lacks the session's CSRF token is answered with a page of its own, and changes nothing."""
    visitor.log_in("Ada")
    before = visitor.session
    stolen = {} if token == "none" else {"csrf_token": csrf_token(Visitor(site).get("/login"))}
    page = visitor.post(path, name="Eve", item="Tea", **stolen)
    after = visitor.session

    assert page.status == 400
    assert "<h1>That form is too old</h1>" in page.text
    assert (after["id"], after["data"]) == (before["id"], before["data"])


# -- The cart ----------------------------------------------------------------------------------------


def test_the_cart_keeps_a_nested_value(visitor):
    """What is added to the list in the session, and removed from it, is there at the next request."""
    visitor.submit("/cart", "/cart/add", item="Tea")
    visitor.submit("/cart", "/cart/add", item="Coffee")
    landed = visitor.follow(visitor.submit("/cart", "/cart/add", item="Tea"))
    full = visitor.session["data"]["cart"]
    visitor.submit("/cart", "/cart/remove", item="Tea")

    assert "Tea added." in landed.text
    assert "Cart (3)" in landed.text
    assert full == ["Tea", "Coffee", "Tea"]
    assert visitor.session["data"]["cart"] == ["Coffee", "Tea"]
    assert "Tea removed." in visitor.get("/cart").text


def test_what_is_gone_from_the_cart_stays_gone(visitor):
    """A second click on "remove" changes nothing."""
    visitor.submit("/cart", "/cart/add", item="Tea")
    visitor.submit("/cart", "/cart/remove", item="Tea")
    visitor.get("/cart")
    landed = visitor.follow(visitor.submit("/cart", "/cart/remove", item="Tea"))

    assert "removed" not in landed.text
    assert "There is nothing in it yet." in landed.text


def test_only_our_goods_go_into_the_cart(visitor):
    """What the shop does not sell is not found, and the cart stays empty."""
    page = visitor.submit("/cart", "/cart/add", item="Diamonds")

    assert page.status == 404
    assert "cart" not in visitor.session["data"]


# -- When something breaks ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nowhere", "/%ff", "/login%ff", "/logout"])
def test_not_found_has_a_page(visitor, path):
    """An unknown address, also one that is no UTF-8, is answered with a page that leaves the session alone."""
    page = visitor.get(path)

    assert page.status == 404
    assert "<h1>Not found</h1>" in page.text
    assert page.headers["Vary"] is None


def test_an_error_keeps_the_session_by_default(site, visitor):
    """With cookie_on_exception = true the change of a request that fails is kept; the failure has a page and a log."""
    visitor.get("/")
    page = visitor.get("/error")

    assert page.status == 500
    assert "<h1>Something broke</h1>" in page.text
    assert visitor.session["data"] == {"visits": 1, "errors": 1}
    assert site.log.has("RuntimeError: this page is there to fail\n")


def test_an_error_of_a_newcomer_keeps_the_new_session(visitor):
    """With cookie_on_exception = true also a session that the failing request began is kept."""
    page = visitor.get("/error")

    assert page.headers["Set-Cookie"] is not None
    assert visitor.session["data"] == {"errors": 1}


def test_an_error_leaves_no_trace(tmp_path):
    """With cookie_on_exception = false a request that fails leaves nothing stored and no cookie."""
    with serving(configured(tmp_path, cookie_on_exception="false")) as site:
        visitor, newcomer = Visitor(site), Visitor(site)
        visitor.get("/")
        before = visitor.session
        pages = [visitor.get("/error"), newcomer.get("/error")]
        after = visitor.session
        stored = list(tmp_path.rglob("*.cache"))

    assert [page.status for page in pages] == [500, 500]
    assert [page.headers["Set-Cookie"] for page in pages] == [None, None]
    assert (after["id"], after["data"]) == (before["id"], {"visits": 1})
    assert not list(newcomer.jar)
    assert len(stored) == 1


def test_http_keeps_redirects_and_discards_errors(tmp_path):
    """With cookie_on_exception = http a raised redirect keeps the login and its message, an error leaves no trace."""
    with serving(configured(tmp_path, cookie_on_exception="http")) as site:
        visitor = Visitor(site)
        landed = visitor.log_in("Ada")
        error = visitor.get("/error")
        session = visitor.session

    assert "Welcome, Ada!" in landed.text
    assert error.status == 500
    assert session["data"]["user"] == "Ada"
    assert "errors" not in session["data"]


def test_a_restart_keeps_the_sessions(tmp_path):
    """The session is still there when the server is stopped and started again."""
    ini = configured(tmp_path)
    with serving(ini) as site:
        visitor = Visitor(site)
        visitor.log_in("Ada")
        before = visitor.session
    with serving(ini) as visitor.site:
        page = visitor.get("/")
        after = visitor.session

    assert visits(page) == 2
    assert '<span class="user">Ada</span>' in page.text
    assert (after["id"], after["created"]) == (before["id"], before["created"])


def test_a_store_that_is_away_logs_nobody_out(tmp_path):
    """While the store cannot be reached there is a 503 page; when it is back, the visitor is still logged in."""
    sessions = tmp_path / "data" / "sessions"
    with serving(configured(tmp_path)) as site:
        visitor, newcomer = Visitor(site), Visitor(site)
        visitor.log_in("Ada")
        sessions.rename(tmp_path / "away")
        # Where the directory was, a file: root, too, cannot work in it.
        sessions.write_text("")
        # The last one only reads: a store that cannot be read is not a session that is not there.
        away = [newcomer.get("/"), visitor.get("/"), visitor.post("/logout"), visitor.get("/session.json")]
        others = [visitor.get("/nowhere"), visitor.get("/static/style.css")]
        sessions.unlink()
        (tmp_path / "away").rename(sessions)
        back = visitor.get("/")

    assert [page.status for page in away] == [503] * 4
    assert ["<h1>Back in a moment</h1>" in page.text for page in away] == [True] * 4
    assert [page.headers["Retry-After"] for page in away] == ["30"] * 4
    assert [page.headers["Set-Cookie"] for page in away] == [None] * 4
    assert [page.status for page in others] == [404, 200]
    assert '<span class="user">Ada</span>' in back.text
    assert visits(back) == 2
    assert site.log.has(f"GET /: the session store file (data_dir = {sessions}) cannot be reached")


# -- Other clients -----------------------------------------------------------------------------------


def test_curl_keeps_the_session(site, tmp_path):
    """curl with a cookie jar is a visitor as any other."""
    jar = tmp_path / "jar"
    curl = [program("curl"), "--silent", "--show-error", "--noproxy", "*", "-c", jar, "-b", jar, f"{site.url}/"]
    pages = [subprocess.run(curl, check=True, capture_output=True, timeout=PATIENCE).stdout for _ in range(2)]

    assert b'<strong id="visits">1</strong>' in pages[0]
    assert b'<strong id="visits">2</strong>' in pages[1]
    assert "sample_app.session" in jar.read_text(encoding="utf-8")


# -- The order of the tweens -------------------------------------------------------------------------


def ptweens(ini):
    """Return what ptweens says: the process, and the names that it numbers; those in use come first."""
    command = [sys.executable, "-m", "pyramid.scripts.ptweens", ini]
    done = subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True, text=True, timeout=PATIENCE)
    return done, re.findall(r"(?m)^\d+ +(\S+)", done.stdout)


OURS = "beaker_bridge.session_tween_factory"
TM = "pyramid_tm.tm_tween_factory"
EXCVIEW = "pyramid.tweens.excview_tween_factory"
TOOLBAR = "pyramid_debugtoolbar.toolbar_tween_factory"


def explicit_order(ini, *names):
    """Take away the "#" of development.ini's own example, and name other tweens in it, or in another order."""
    text, count = re.subn(
        r"(?m)^#pyramid\.tweens =\n((?:#    \S+\n)+)",
        lambda found: (
            "pyramid.tweens =\n" + ("".join(f"    {name}\n" for name in names) or found[1].replace("#    ", "    "))
        ),
        ini.read_text(encoding="utf-8"),
    )
    assert count == 1
    ini.write_text(text, encoding="utf-8")
    return ini


def test_ptweens_shows_our_tween(tmp_path):
    """Left to themselves, the tweens stand so: ours, pyramid_tm, the exception views."""
    done, order = ptweens(configured(tmp_path))

    assert "implicitly ordered tweens used" in done.stdout
    assert order == [OURS, TM, EXCVIEW]


def test_ptweens_shows_our_tween_under_the_toolbar(tmp_path):
    """With the debug toolbar, as development.ini has it, ours stands right under it."""
    ini = configured(tmp_path)
    text, count = re.subn(r"(?m)^#   (pyramid_debugtoolbar)$", r"    \1", ini.read_text(encoding="utf-8"))
    ini.write_text(text, encoding="utf-8")
    _, order = ptweens(ini)

    assert count == 1
    assert order == [TOOLBAR, OURS, TM, EXCVIEW]


def test_the_explicit_order_in_the_ini_works(tmp_path):
    """development.ini's example of an explicit order starts, and is the implicit one."""
    done, order = ptweens(explicit_order(configured(tmp_path)))

    explicit, implicit = order[:3], order[3:]

    assert "Explicit Tween Chain (used)" in done.stdout
    assert explicit == implicit == [OURS, TM, EXCVIEW]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((TM, EXCVIEW), "got a list without it"),
        ((TM, EXCVIEW, OURS), f"must hold {OURS} over {EXCVIEW}, got it under that"),
        ((TM, OURS, EXCVIEW), f"must hold {OURS} over {TM}, got it under that"),
    ],
)
def test_a_wrong_explicit_order_stops_the_start(tmp_path, names, sentence):
    """An explicit list without our tween, or with it too low, does not start, and says why in its last line."""
    done, _ = ptweens(explicit_order(configured(tmp_path), *names))

    assert done.returncode != 0
    assert sentence in done.stderr.splitlines()[-1]
