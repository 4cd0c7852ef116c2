"""A caching proxy between browsers and a site: it shares what is everybody's, and no visitor's page or cookie."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.ci]

SITE = "www.site.test"


def begin(request):
    """Begin a session."""
    request.session["user"] = request.params["user"]
    return "begun"


def cached_for_all(text):
    """Return a page that the application lets every cache keep, as one does who thinks of no cookies."""

    def view(request):
        request.response.cache_control.public = True
        request.response.cache_control.max_age = 600
        request.response.text = str(text(request))
        return request.response

    return view


def in_a_language(text):
    """Return such a page, of which each language has its own."""
    view = cached_for_all(text)

    def varied(request):
        request.response.vary = ["Accept-Language"]
        return view(request)

    return varied


def name(request):
    return request.session.get("user", "nobody")


def visit(request):
    """Begin a session by a visit."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return request.session.id


VIEWS = {
    "begin": begin,
    "news": lambda request: "news",
    "news/public": cached_for_all(lambda request: "news"),
    "name": name,
    "name/public": cached_for_all(name),
    "name/varied": in_a_language(name),
    "visit": visit,
    "visit/public": cached_for_all(visit),
}


@pytest.fixture(params=["caching", "careless"])
def proxy(request, stage, nginx):
    """Return what makes an address of the site behind a cache; a careless one stores pages that set cookies."""
    stage.play_sessions(SITE, VIEWS)
    port = getattr(nginx, request.param)
    # A query of the test's own: the cache has no page of it yet.
    return lambda path, query="": f"http://{SITE}:{port}{path}?test={id(request)}&{query}"


def get(tab, url):
    """Return the text of a page, and whether it came from the cache."""
    (answer,) = tab.fetch(url)
    return answer["text"], answer["headers"]["x-cache-status"]


@pytest.fixture
def visitors(chromium, proxy):
    """Return the browsers of two users, and of somebody who has no session."""
    with chromium.visitor() as ann, chromium.visitor() as bob, chromium.visitor() as nobody:
        ann.open(proxy("/begin", "user=ann"))
        bob.open(proxy("/begin", "user=bob"))
        nobody.open(proxy("/news"))
        yield ann, bob, nobody


def test_a_page_of_everybody_is_cached(visitors, proxy):
    """A page that uses no session is cached for all, whatever cookie they have."""
    answers = [get(tab, proxy(page, "everybody")) for page in ("/news", "/news/public") for tab in visitors]

    assert answers == [("news", way) for way in ("MISS", "HIT", "HIT")] * 2


def test_no_page_of_one_visitor_reaches_another(visitors, proxy):
    """A page that reads the session is cached for the cookie that it was made for, and for those who have none."""
    pages = ("/name", "/name/public", "/name/varied")
    answers = [get(tab, proxy(page)) for page in pages for tab in (*visitors, *visitors)]

    assert answers == [(name, way) for way in ("MISS", "HIT") for name in ("ann", "bob", "nobody")] * 3


def test_no_cookie_reaches_another(tab, proxy):
    """A page that sends a cookie is cached for nobody: each new visitor has a session of his own, and so a cookie."""
    tab.open(proxy("/news"))
    answers, cookies = [], []
    for page in ("/visit", "/visit/public") * 2:
        answers.append(get(tab, proxy(page)))
        cookies += [cookie["value"] for cookie in tab.cookies()]
        # As another visitor.
        tab.call("Network.clearBrowserCookies")

    assert [way for _, way in answers] == ["MISS"] * 4
    assert len(set(cookies)) == len({text for text, _ in answers}) == 4
