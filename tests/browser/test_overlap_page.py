"""The sample's page /overlap in Chromium, by keyboard: its requests overlap, and it draws what became of them."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from sample_app import lab
from tests.readable import faults
from tests.servers import PATIENCE

pytestmark = [pytest.mark.once, pytest.mark.slow]

SITE = "www.site.test"
SLOWEST = lab.WORK[1]


@pytest.fixture
def work(monkeypatch):
    """Return what sets how the page's requests work: instead of a time, until something has happened."""

    def wait_by(wait):
        monkeypatch.setattr(lab, "time", SimpleNamespace(time=time.time, sleep=wait))

    return wait_by


@pytest.fixture
def page(stage, https, tab):
    """Return the tab, which shows the page."""
    stage.play_sample(SITE)
    tab.open(https(SITE, "/overlap"))
    return tab


def wait_for(page, selector):
    """Wait until the page has an element."""
    page.wait(lambda driver: driver.find_elements("css selector", selector))


def states(page, way):
    """Return the state of each of the ten writes, as a column shows it."""
    return page.texts(f"#ten-{way} .tiles .state")


def cookies(page, column):
    """Return what each copy of a cookie opens, as a column shows it."""
    return page.texts(f"#{column} .cookies dd")


def test_ten_requests(page, work):
    """Request 1 has its session before all others write and writes after them: Beaker keeps it alone, ours all ten.

    The page draws each write as it arrives.
    """
    begun, all_others = threading.Event(), threading.Event()
    work(lambda seconds: begun.set() or all_others.wait(PATIENCE) if seconds == SLOWEST else begun.wait(PATIENCE))
    ready = page.text("#ten-run")
    page.press_by_keyboard("#ten-run")
    page.wait(lambda _driver: states(page, "ours")[1:] == ["kept"] * 9)
    first, status = states(page, "ours")[0], page.text("#ten-status")
    all_others.set()
    wait_for(page, "#ten[data-state=done]")

    assert (ready, first, status) == ("Send ten requests", "under way", "Requests are under way.")
    assert states(page, "ours") == ["kept"] * 10
    assert states(page, "beaker") == ["kept"] + ["lost"] * 9
    assert page.texts("#ten .count") == ["1 of 10 kept", "10 of 10 kept"]
    assert page.text("#ten-status").startswith("Beaker kept 1 of 10, beaker_bridge 10 of 10.")
    assert page.text("#ten-run") == "Run again"
    assert faults(page, "done") == []
    assert page.problems() == []


def test_a_logout_meanwhile(page, work):
    """After a logout no copy of the cookie opens anything, until the slow page has ended: then Beaker's does again."""
    logged_out = threading.Event()
    work(lambda seconds: logged_out.wait(PATIENCE) if seconds == SLOWEST else None)
    page.press_by_keyboard("#logout-run")
    wait_for(page, "#logout-ours [data-moment=logout][data-state=nothing]")
    wait_for(page, "#logout-beaker [data-moment=logout][data-state=nothing]")
    logged_out.set()
    wait_for(page, "#logout[data-state=done]")

    opened = "Ada\N{RIGHT SINGLE QUOTATION MARK}s session"
    assert cookies(page, "logout-beaker") == [opened, "no session", opened]
    assert cookies(page, "logout-ours") == [opened, "no session", "no session"]
    assert page.problems() == []


def test_a_login_in_two_tabs(page, work):
    """Two logins have one session in hand at once; after a logout everywhere all of our cookies are closed."""
    both = threading.Barrier(2)
    work(lambda _seconds: both.wait(PATIENCE))
    page.press_by_keyboard("#login-run")
    wait_for(page, "#login[data-state=done]")

    assert cookies(page, "login-ours") == ["no session"] * 3
    assert cookies(page, "login-beaker") != ["no session"] * 3
    assert page.problems() == []


def test_a_request_that_fails(page, work):
    """Where a request fails the page says so, and can be tried again."""

    def fail(_seconds):
        raise RuntimeError("the laboratory is broken")

    work(fail)
    page.press_by_keyboard("#ten-run")
    wait_for(page, "#ten[data-state=failed]")
    work(lambda _seconds: None)
    said = page.text("#ten-status")
    page.press_by_keyboard("#ten-run")
    wait_for(page, "#ten[data-state=done]")

    assert said == "The server answered 500. Try again in a moment."
    assert page.texts("#ten-ours .count") == ["10 of 10 kept"]
