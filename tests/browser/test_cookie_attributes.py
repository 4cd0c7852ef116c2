"""The cookie as Chromium keeps it: each attribute that an option sets is what the browser goes by."""

from __future__ import annotations

import time

import pytest

from tests.browser.stage import SECRET

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.ci]

#: A site of each kind of session.
KINDS = {"stored.site.test": {}, "cookie.site.test": {"type": "cookie", "secret": None, "validate_key": SECRET}}
#: A cookie as it is sent by default. The browser says -1 where it ends with the browser.
DEFAULT = {
    "name": "sid",
    "path": "/",
    "expires": -1,
    "session": True,
    "httpOnly": True,
    "secure": False,
    "sameSite": "Lax",
}
CLOSED = {"secure": True}


def begin(request):
    """Begin a session, with an expiry of its own where the address names one."""
    request.session["a"] = 1
    if seconds := request.params.get("seconds"):
        request.session.set_expiry(int(seconds))
    return "begun"


def end(request):
    request.session.invalidate()
    return "ended"


VIEWS = {"begin": begin, "end": end, "x/begin": begin}


def kept(tab):
    """Return what the browser keeps of each cookie, without the value and what it says of all cookies."""
    shown = [*DEFAULT, "domain", "partitionKey"]
    return [{name: cookie[name] for name in shown if name in cookie} for cookie in tab.cookies()]


@pytest.mark.parametrize(
    ("scheme", "options", "expected"),
    [
        ("http", {}, {}),
        ("https", {}, CLOSED),
        ("https", {"secure": False}, {}),
        ("http", {"httponly": False, "samesite": "Strict"}, {"httpOnly": False, "sameSite": "Strict"}),
        ("https", {"secure": True, "samesite": "None"}, {**CLOSED, "sameSite": "None"}),
        ("http", {"cookie_domain": "site.test"}, {"domain": ".site.test"}),
        ("http", {"cookie_path": "/x"}, {"path": "/x"}),
        ("https", {"secure": True, "key": "__Host-sid"}, {**CLOSED, "name": "__Host-sid"}),
        (
            "https",
            {"secure": True, "partitioned": True},
            {**CLOSED, "partitionKey": {"topLevelSite": "https://site.test", "hasCrossSiteAncestor": False}},
        ),
    ],
    ids=["http", "https", "not secure", "script", "none", "domain", "path", "__Host-", "partitioned"],
)
def test_the_cookie_as_the_browser_keeps_it(stage, tab, request, scheme, options, expected):
    """By http and by https, by default and with each option, the browser keeps the attributes that were asked for."""
    url = request.getfixturevalue(scheme)
    found, seen_by_scripts = [], []
    for host, kind in KINDS.items():
        stage.play_sessions(host, VIEWS, **kind, **options)
        tab.open(url(host, "/x/begin"))
        found += kept(tab)
        seen_by_scripts.append("sid=" in tab.run("document.cookie"))
        tab.call("Network.clearBrowserCookies")

    assert found == [{**DEFAULT, "domain": host, **expected} for host in KINDS]
    assert seen_by_scripts == [options.get("httponly") is False] * 2


@pytest.mark.parametrize(
    ("options", "query", "lifetime"),
    [
        ({"cookie_expires": 1000}, "", 1000),
        ({}, "?seconds=5000", 5000),
        ({"cookie_expires": 1000}, "?seconds=5000", 5000),
        # As long as browsers keep any.
        ({"cookie_expires": False}, "", 400 * 24 * 3600),
    ],
    ids=["cookie_expires", "set_expiry", "both", "never"],
)
def test_how_long_the_browser_keeps_it(stage, http, tab, options, query, lifetime):
    """``cookie_expires`` and ``set_expiry()`` are the time for which the browser keeps the cookie."""
    before = time.time()
    for host, kind in KINDS.items():
        stage.play_sessions(host, VIEWS, **kind, **options)
        tab.open(http(host, f"/begin{query}"))
    found, after = kept(tab), time.time()

    assert len(found) == len(KINDS)
    for cookie in found:
        # What is sent has whole seconds.
        assert before + lifetime - 1 <= cookie["expires"] <= after + lifetime + 1
        assert cookie["session"] is False


@pytest.mark.parametrize(
    "options",
    [{}, {"cookie_domain": "site.test"}, {"secure": True, "partitioned": True}],
    ids=["host", "domain", "partitioned"],
)
def test_a_logout_takes_the_cookie_out_of_the_browser(stage, https, tab, options):
    """When a session has ended, the browser has no cookie, whatever its attributes were."""
    begun = []
    for host, kind in KINDS.items():
        stage.play_sessions(host, VIEWS, **kind, **options)
        tab.open(https(host, "/begin"))
        begun += kept(tab)
        tab.open(https(host, "/end"))

    assert len(begun) == len(KINDS)
    assert kept(tab) == []
