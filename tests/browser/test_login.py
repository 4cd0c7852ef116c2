"""The sample site in Chromium: a login, its messages, and forms that the site must refuse."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]

SITE, EVIL = "www.site.test", "www.evil.test"
TOO_OLD = "It belongs to another session than yours. Please go back, reload the page and try again."


@pytest.fixture
def site(stage, https):
    """Return what makes an address of the sample site."""
    stage.play_sample(SITE)
    return lambda path="/": https(SITE, path)


def log_in(tab, name="Ada"):
    """Log in at the form that the tab shows."""
    tab.type("#name", name)
    tab.click("main button")


def log_out(tab):
    tab.click("nav button")


def session_cookie(tab):
    """Return the value of the one cookie."""
    (cookie,) = tab.cookies()
    return cookie["value"]


def test_a_login_and_a_logout(site, tab):
    """A login has a new cookie, which no script sees; each message is shown once, and a reload sends no form again."""
    tab.open(site())
    tab.open(site("/login"))
    before = session_cookie(tab)
    log_in(tab)
    after, welcome, user = session_cookie(tab), tab.texts(".message"), tab.text(".user")
    seen_by_scripts = tab.run("document.cookie")
    tab.reload()
    reloaded, visits = tab.texts(".message"), tab.text("#visits")
    log_out(tab)
    goodbye = tab.texts(".message")
    tab.reload()

    assert welcome == ["Welcome, Ada! Your session has a new id now."]
    assert (user, reloaded, visits) == ("Ada", [], "3")
    assert goodbye == ["You are logged out, and your session is gone."]
    assert (tab.texts(".message"), tab.texts(".user")) == ([], [])
    assert seen_by_scripts == ""
    assert len({before, after, session_cookie(tab)}) == 3


@pytest.mark.parametrize("logs_out", [False, True], ids=["login", "logout"])
def test_a_form_of_an_older_session(site, tab, logs_out):
    """A form from before a login or a logout is refused, by a page that says why and what to do; that works."""
    tab.open(site("/cart"))
    other = tab.another()
    other.open(site("/login"))
    log_in(other)
    if logs_out:
        log_out(other)
    tab.click("main .row button")
    refused, status = tab.text("main section p"), tab.status
    tab.back()
    tab.reload()
    empty = tab.text("main .empty")
    tab.click("main .row button")

    assert (status, refused) == (400, TOO_OLD)
    assert empty == "There is nothing in it yet."
    assert tab.texts(".message")[-1] == "Apples added."


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("http", {}), ("http", {"samesite": "Strict"}), ("https", {}), ("https", {"samesite": "None", "secure": True})],
    ids=["http", "Strict", "https", "None"],
)
def test_a_form_of_another_site(stage, request, tab, scheme, options):
    """A form that another site sends is refused, and comes without the cookie unless ``samesite`` is None.

    The user stays logged in.
    """
    address = request.getfixturevalue(scheme)
    stage.play_sample(SITE, **options)
    stage.play_page(EVIL, f'<form method="post" action="{address(SITE, "/logout")}"><button>You win!</button></form>')
    tab.open(address(SITE, "/login"))
    log_in(tab)
    sent_before = len(stage.cookies_sent)
    other = tab.another()
    other.open(address(EVIL))
    other.click("button")
    cookies = [cookie for url, cookie in stage.cookies_sent[sent_before:] if url == f"{SITE}/logout"]
    refused, status = other.text("h1"), other.status
    tab.open(address(SITE, "/cart"))

    assert [bool(cookie) for cookie in cookies] == [options.get("samesite") == "None"]
    assert (status, refused) == (400, "That form is too old")
    assert tab.texts(".user") == ["Ada"]
    assert tab.texts("main .empty") == ["There is nothing in it yet."]
