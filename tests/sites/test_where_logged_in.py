"""The sample site's "Where you are logged in", and its password: over real HTTP, in several browsers at once."""

from __future__ import annotations

import re
from html import unescape
from typing import NamedTuple

import pytest

from sample_app.account import ago
from sample_app.accounts import Accounts
from sample_app.browsers import browser_name
from tests.live_site import Visitor, configured, serving

pytestmark = [pytest.mark.once, pytest.mark.slow]

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.1 Mobile/15E148 Safari/604.1"
)
AGENTS = {
    FIREFOX: "Firefox on Windows",
    IPHONE: "Safari on an iPhone",
    IPHONE.replace("Version/18.1", "CriOS/131.0"): "Chrome on an iPhone",
    IPHONE.replace("Version/18.1", "FxiOS/133.0"): "Firefox on an iPhone",
    f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT} Mobile Safari/537.36": "Chrome on Android",
    f"Mozilla/5.0 (Linux; Android 14; K) SamsungBrowser/27.0 {WEBKIT} Safari/537.36": "Samsung Internet on Android",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Safari/537.36 Edg/131.0.0.0": "Edge on a Mac",
    f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Safari/537.36": "Chrome on ChromeOS",
    f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Safari/537.36 OPR/116.0": "Opera on Linux",
    "Mozilla/5.0 (iPad; CPU OS 15_0 like Mac OS X) Version/15.0 Safari/604.1": "Safari on an iPad",
    "curl/8.5.0": "curl",
    "Linux": "Another browser on Linux",
    "<script>": "Another browser",
    "": "Another browser",
}
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serving(configured(tmp_path_factory.mktemp("site"))) as running:
        yield running


@pytest.fixture
def user(request):
    """Return the name of a user of this test's own."""
    return f"Ada <{abs(hash(request.node.nodeid)) % 10**8}>"


@pytest.fixture
def two(site, user):
    """Return two browsers in which that user is logged in: at a desk, and on the way."""
    desk, phone = Visitor(site, FIREFOX), Visitor(site, IPHONE)
    for visitor in (desk, phone):
        visitor.log_in(user)
    return desk, phone


class Entry(NamedTuple):
    """An entry of the list, as a visitor sees it."""

    title: str
    facts: str
    handle: str | None
    label: str


def text(markup):
    return " ".join(unescape(re.sub("<[^>]+>", " ", markup)).split())


def entries(page):
    """Return the entries of the list."""
    (markup,) = re.findall(r'(?s)<ul class="logins".*?</ul>', page.text)
    return [
        Entry(
            text(re.search(r"(?s)<h3>(.*?)</h3>", entry)[1]),
            text(re.search(r'(?s)<p class="hint">(.*?)</p>', entry)[1]),
            (re.search(r'name="handle" value="([^"]+)"', entry) or [None, None])[1],
            re.search(r'aria-label="([^"]+)">Log out<', entry)[1],
        )
        for entry in markup.split("<li>")[1:]
    ]


def titles(visitor):
    return [entry.title for entry in entries(visitor.get("/sessions"))]


def messages(page):
    return [text(found) for found in re.findall(r'(?s)<p class="message[^>]*>(.*?)</p>', page.text)]


def is_logged_in(visitor):
    return "user" in visitor.session["data"]


TOLD = "You were logged out elsewhere. Was that not you? Then log in and change your password."


# -- The list ----------------------------------------------------------------------------------------


def test_the_list(two):
    """Each browser of the user is in the list, this one first, with its system, its address, and both times."""
    desk, phone = two
    at_desk, on_the_way = entries(desk.get("/sessions")), entries(phone.get("/sessions"))
    time = r"\d\d \w{3} \d{4}, \d\d:\d\d UTC"

    assert [entry.title for entry in at_desk] == ["Firefox on Windows This browser", "Safari on an iPhone"]
    assert [entry.title for entry in on_the_way] == ["Safari on an iPhone This browser", "Firefox on Windows"]
    assert re.fullmatch(f"127.0.0.1 Active now Logged in {time}", at_desk[0].facts)
    assert re.fullmatch(f"127.0.0.1 Last seen just now Logged in {time}", at_desk[1].facts)
    assert [entry.label for entry in at_desk] == [
        "Log out: this browser",
        "Log out: Safari on an iPhone, last seen just now",
    ]


def test_the_list_has_no_id(two):
    """The page shows no session's id, neither this browser's nor another's: a handle opens nothing."""
    desk, phone = two
    page = desk.get("/sessions")
    handle = entries(page)[1].handle

    for visitor in two:
        assert visitor.session["id"] not in page.text
    thief = Visitor(desk.site).get("/session.json", Cookie=phone.cookie.partition("=")[0] + "=" + handle)
    assert '"data": {}' in thief.text


@pytest.mark.parametrize("path", ["/sessions", "/password"])
def test_the_pages_are_not_kept(two, path):
    """No cache keeps the pages of an account: after a logout, "back" does not show them."""
    assert "no-store" in two[0].get(path).headers["Cache-Control"]


def test_users_see_their_own(site, two, user):
    """Another user's list has that user's browsers alone; one of none has this one."""
    eve = Visitor(site, FIREFOX)
    eve.log_in(f"not {user}")
    page = eve.get("/sessions")

    assert [entry.title for entry in entries(page)] == ["Firefox on Windows This browser"]
    assert "You are logged in nowhere else." in page.text
    assert "Log out everywhere else" not in page.text


@pytest.mark.parametrize("path", ["/sessions", "/password"])
def test_the_pages_need_a_login(site, path):
    """Whoever is not logged in is led to the login."""
    visitor = Visitor(site)
    page = visitor.follow(visitor.get(path))

    assert "<h1>Log in</h1>" in page.text


@pytest.mark.parametrize("path", ["/sessions/end", "/sessions/end-others", "/password"])
def test_a_form_needs_a_login(site, path):
    """A form without a login changes nothing, and leads to the login."""
    visitor = Visitor(site)
    page = visitor.follow(visitor.submit("/login", path, handle="0" * 96, new=PASSWORD))

    assert "<h1>Log in</h1>" in page.text
    assert messages(page) == []


# -- Log out, here and there -------------------------------------------------------------------------


def test_another_browser_is_logged_out(two):
    """The button beside another browser ends its session at once, and leaves this one."""
    desk, phone = two
    handle = entries(desk.get("/sessions"))[1].handle
    page = desk.follow(desk.submit("/sessions", "/sessions/end", handle=handle))

    assert messages(page) == ["Safari on an iPhone is logged out."]
    assert titles(desk) == ["Firefox on Windows This browser"]
    assert not is_logged_in(phone)
    assert is_logged_in(desk)


def test_a_browser_that_was_logged_out_is_told(two, user):
    """At its next request it is told why, not only at the first page; then it can log in again, and is told no more."""
    desk, phone = two
    desk.submit("/sessions", "/sessions/end-others")
    told = phone.get("/cart")
    after = phone.get("/cart")
    phone.log_in(user)

    assert messages(told) == [TOLD]
    assert messages(after) == []
    assert messages(phone.get("/cart")) == []
    assert titles(desk) == ["Firefox on Windows This browser", "Safari on an iPhone"]


def test_a_form_of_a_browser_that_was_logged_out(two):
    """Where its next request is a form, the answer says why nothing was changed."""
    desk, phone = two
    phone.get("/cart")
    token = phone.session["data"]["_csrft_"]
    desk.submit("/sessions", "/sessions/end-others")
    page = phone.post("/cart/add", item="Tea", csrf_token=token)

    assert page.status == 400
    assert "<h1>You were logged out elsewhere</h1>" in page.text
    assert not is_logged_in(phone)


def test_everywhere_else(site, two, user):
    """The button for all others ends them, and leaves this one; who presses it again is told that there is none."""
    desk, phone = two
    third = Visitor(site)
    third.log_in(user)
    page = desk.follow(desk.submit("/sessions", "/sessions/end-others"))
    again = desk.follow(desk.submit("/sessions", "/sessions/end-others"))

    assert messages(page) == ["You are logged out in 2 other browsers."]
    assert messages(again) == ["You are logged out everywhere else: there was no other browser."]
    assert [is_logged_in(visitor) for visitor in (desk, phone, third)] == [True, False, False]


def test_this_browser_is_logged_out(two):
    """The button beside this browser is the logout: the other one's list has this one no more."""
    desk, phone = two
    (form,) = re.findall(r'(?s)<li>(?:(?!</li>).)*This browser.*?action="([^"]+)"', desk.get("/sessions").text)
    page = desk.follow(desk.submit("/sessions", form))

    assert "You are logged out" in messages(page)[0]
    assert titles(phone) == ["Safari on an iPhone This browser"]


def test_a_second_click(two):
    """A browser that is logged out already is no error."""
    desk, _ = two
    handle = entries(desk.get("/sessions"))[1].handle
    desk.follow(desk.submit("/sessions", "/sessions/end", handle=handle))
    page = desk.follow(desk.submit("/sessions", "/sessions/end", handle=handle))

    assert messages(page) == ["That browser was logged out before."]


@pytest.mark.parametrize("handle", ["another user's", "", "x", "0" * 96, "\N{SNOWMAN}"])
def test_only_the_users_own_browsers(site, two, user, handle):
    """A handle that is not in the user's list ends nothing, whoever's it is."""
    desk, _ = two
    if handle == "another user's":
        handle = entries(desk.get("/sessions"))[1].handle
    eve = Visitor(site)
    eve.log_in(f"not {user}")
    page = eve.follow(eve.submit("/sessions", "/sessions/end", handle=handle))

    assert messages(page) == ["That browser was logged out before."]
    assert [is_logged_in(visitor) for visitor in two] == [True, True]


# -- The password ------------------------------------------------------------------------------------


def test_a_new_password_ends_the_others(site, two, user):
    """A new password logs all other browsers out, gives this one a new id, and is needed from then on."""
    desk, phone = two
    before = desk.session["id"]
    page = desk.follow(desk.submit("/password", "/password", new=PASSWORD))
    told = phone.get("/cart")
    without = Visitor(site).log_in(user)
    wrong = Visitor(site).log_in(user, "wrong horse battery")
    right = Visitor(site).log_in(user, PASSWORD)

    assert messages(page) == ["Your password is changed, and you are logged out in 1 other browser."]
    assert [entry.title for entry in entries(page)] == ["Firefox on Windows This browser"]
    assert desk.session["id"] != before
    assert messages(told) == [TOLD]
    assert messages(without) == messages(wrong) == ["That name has another password."]
    assert messages(right) == [f"Welcome, {user}! Your session has a new id now."]


@pytest.mark.parametrize(
    ("current", "new", "problem"),
    [
        (PASSWORD, "short", "Please choose a password of 8 to 200 characters."),
        (PASSWORD, "x" * 201, "Please choose a password of 8 to 200 characters."),
        ("wrong", "another good one", "That is not your current password."),
        ("", "another good one", "That is not your current password."),
    ],
)
def test_a_password_that_is_refused(two, current, new, problem):
    """Without the current password, or with a new one of a wrong size, nothing is changed, and nobody is logged out."""
    desk, phone = two
    desk.submit("/password", "/password", new=PASSWORD)
    phone.log_in(desk.session["data"]["user"], PASSWORD)
    page = desk.follow(desk.submit("/password", "/password", current=current, new=new))

    assert messages(page) == [problem]
    assert "Your current password" in page.text
    assert [is_logged_in(visitor) for visitor in two] == [True, True]
    assert "Welcome" in messages(phone.log_in(desk.session["data"]["user"], PASSWORD))[0]


def test_passwords_are_not_kept():
    """What is kept of a password is a hash of its own for each user, and opens that user's account alone."""
    accounts = Accounts()
    for name in ("Ada", "Grace"):
        accounts.set_password(name, PASSWORD)
    accounts.set_password("Odd", "\ud800 half a character")

    assert accounts._hashes["Ada"] != accounts._hashes["Grace"]
    assert PASSWORD not in str(vars(accounts))
    assert [accounts.admits(name, PASSWORD) for name in ("Ada", "Grace", "Odd", "Nobody")] == [True, True, False, True]
    assert accounts.has_password("Ada")
    assert not accounts.has_password("Nobody")


# -- In words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user_agent", "name"), AGENTS.items(), ids=AGENTS.values())
def test_the_name_of_a_browser(user_agent, name):
    """A browser and its system have the names that people know; what is not known is said to be another one."""
    assert browser_name(user_agent) == name


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (0, "just now"),
        (59.9, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (86399, "23 hours ago"),
        (86400, "1 day ago"),
        (1e7, "115 days ago"),
    ],
)
def test_how_long_ago(seconds, words):
    """A time that has passed is in the largest unit of which there is one."""
    assert ago(seconds) == words
