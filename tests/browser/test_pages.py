"""Each page of the sample site in Chromium: as readable in the dark and on a phone, and whole without scripts."""

from __future__ import annotations

import pytest

from tests.live_site import Visitor, configured, serving
from tests.readable import faults

pytestmark = [pytest.mark.once, pytest.mark.slow]

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.1 Mobile/15E148 Safari/604.1"
)
PASSWORD = "correct horse battery"
TOLD = "You were logged out elsewhere. Was that not you? Then log in and change your password."
#: The pages that need no login, and the status of each.
OPEN_PAGES = {"/": 200, "/login": 200, "/cart": 200, "/report": 200, "/overlap": 200, "/nowhere": 404, "/error": 500}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the sample site, as development.ini starts it."""
    with serving(configured(tmp_path_factory.mktemp("site"))) as running:
        yield running


def test_the_open_pages(site, tab):
    """Each page is readable, has no error in the browser's console, and is kept by no cache if it knows its visitor."""
    found, statuses, problems, kept = [], {}, [], []
    for page, status in OPEN_PAGES.items():
        tab.open(site.url + page)
        found += faults(tab, page)
        statuses[page] = tab.status
        # The console has an entry for each page that is no success.
        problems += [] if status >= 400 else tab.problems()
        if tab.texts("nav"):
            (answer,) = tab.fetch(site.url + page)
            kept += [page] * ("no-store" not in answer["headers"].get("cache-control", ""))

    assert found == []
    assert statuses == OPEN_PAGES
    assert problems == []
    assert kept == []


def test_by_keyboard(site, tab):
    """The first stop of the tabulator leads past the navigation; a form is filled and sent without a mouse."""
    tab.open(f"{site.url}/cart")
    stops = tab.press_by_keyboard("a.skip")
    content = tab.run("document.activeElement.tagName")
    with tab.leaving():
        tab.press_by_keyboard("button[value=Tea]")
    said = tab.texts(".message")
    with tab.leaving():
        tab.press_by_keyboard("nav a[href='/login']")
    tab.type("#name", "Ada")
    with tab.leaving():
        tab.press_by_keyboard("main button")

    assert (stops, content) == (1, "MAIN")
    assert said == ["Tea added."]
    assert tab.texts(".user") == ["Ada"]


def test_without_scripts(site, tab):
    """Without scripts a visitor fills a cart and empties it, has the report made anew, and is told what needs one."""
    tab.without_scripts()
    tab.open("data:text/html,<title>without</title><script>document.title = 'with'</script>")
    title = tab.run("document.title")
    tab.open(f"{site.url}/cart")
    said = []
    for selector in ("button[value=Tea]", "button[value=Bread]", "button[aria-label='Remove one of Tea']"):
        tab.click(selector)
        said += tab.texts(".message")
    found, cart = faults(tab, "/cart"), tab.texts("main th")
    tab.open(f"{site.url}/report")
    tab.click("main form button")
    said += tab.texts(".message")
    tab.open(f"{site.url}/overlap")
    buttons = tab.texts("main button")

    assert title == "without"
    assert found == []
    assert said == ["Tea added.", "Bread added.", "Tea removed.", "The old report is thrown away."]
    assert cart == ["Bread"]
    assert tab.text("noscript .message").startswith("Only a script can send ten requests at once")
    assert set(buttons) <= {""}


def test_the_pages_of_a_user(site, tab):
    """Without scripts a user logs another browser out, changes the password, and is told at the end; each page is as
    readable in the dark and on a phone.
    """
    user, phone = "Ada <of the pages>", Visitor(site, IPHONE)
    found = []
    tab.without_scripts()
    tab.open(f"{site.url}/login")
    tab.type("#name", user)
    tab.click("main button")
    found += faults(tab, "home")
    phone.log_in(user)
    tab.click("nav a[href='/sessions']")
    both = tab.text(".logins")
    found += faults(tab, "sessions")
    tab.click(".logins li:nth-child(2) button")
    ended, alone = tab.text(".message"), tab.text(".logins")
    found += faults(tab, "ended")
    tab.click("a.button")
    found += faults(tab, "password")
    tab.type("#new", PASSWORD)
    tab.click("main button")
    changed = tab.text(".message")
    tab.click("a.button")
    tab.type("#current", "wrong horse battery")
    tab.type("#new", PASSWORD)
    tab.click("main button")
    refused = tab.text(".problem")
    found += faults(tab, "refused")
    phone.log_in(user, PASSWORD)
    phone.submit("/sessions", "/sessions/end-others")
    tab.open(f"{site.url}/sessions")
    told, heading = tab.text(".problem"), tab.text("h1")
    found += faults(tab, "told")

    assert (found, tab.problems()) == ([], [])
    assert both.startswith("Chrome on Linux This browser")
    assert "Safari on an iPhone" in both
    assert ended == "Safari on an iPhone is logged out."
    assert "Safari" not in alone
    assert changed == "Your password is changed, and you are logged out everywhere else: there was no other browser."
    assert refused == "That is not your current password."
    assert (told, heading) == (TOLD, "Log in")
