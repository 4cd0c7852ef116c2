"""Several tabs and requests of one browser at once: what overlaps is kept, and what has ended stays ended."""

from __future__ import annotations

import pytest

from tests.browser.test_login import log_in, log_out

pytestmark = [pytest.mark.once, pytest.mark.slow]

SITE = "www.site.test"
REQUESTS = 10


@pytest.fixture
def site(stage, https):
    """Return what makes an address of the sample site."""
    stage.play_sample(SITE)
    return lambda path="/": https(SITE, path)


@pytest.fixture
def user(tab, site):
    """Return a tab in which a user is logged in."""
    tab.open(site("/login"))
    log_in(tab)
    return tab


def add(item):
    """Return the selector of the cart's button for one of the goods."""
    return f"main .row button[value={item}]"


def cart(tab):
    """Return what is in the cart that a tab shows, and how much of each."""
    return dict(zip(tab.texts("main table th"), tab.texts("main table td:not(.action)"), strict=True))


# -- What overlaps -----------------------------------------------------------------------------------


def test_a_cart_in_two_tabs(stage, site, tab):
    """What two tabs add at the same time is in the cart of both."""
    tab.open(site("/cart"))
    other = tab.another()
    other.open(site("/cart"))
    hold = stage.hold("/cart/add", requests=2)
    with tab.leaving():
        tab.begin(add("Tea"))
        with other.leaving():
            other.begin(add("Bread"))
            hold.arrived()
            hold.release()
    for each in (tab, other):
        each.reload()

    assert cart(tab) == cart(other) == {"Bread": "1", "Tea": "1"}


def write(request):
    """Change a key of the request's own, and a list, a dict and a flash queue that all share."""
    number = request.params["number"]
    request.session[f"own {number}"] = number
    request.session.setdefault("list", []).append(number)
    request.session.setdefault("dict", {})[number] = True
    request.session.flash(number)
    return number


def read(request):
    """Show how much of it there is."""
    session = request.session
    own = [key for key in session if key.startswith("own")]
    return "".join(f"<p>{len(each)}</p>" for each in (own, session["list"], session["dict"], session.pop_flash()))


def test_overlapping_fetches(stage, https, tab):
    """Of ten requests that a page sends at once, each of which has read the session before any writes, all is kept."""
    stage.play_sessions(SITE, {"write": write, "read": read})
    tab.open(https(SITE, "/write?number=first"))
    stage.meet("/write", REQUESTS)
    urls = [f"/write?number={number}" for number in range(REQUESTS)]
    answers = tab.fetch(*urls, method="POST")
    tab.open(https(SITE, "/read"))

    assert [answer["text"] for answer in answers] == [str(number) for number in range(REQUESTS)]
    assert tab.texts("p") == [str(REQUESTS + 1)] * 4


def test_a_login_in_two_tabs(stage, site, tab):
    """Two logins that overlap leave one user, whom both tabs show, and one logout ends it for both."""
    other = tab.another()
    for each, name in ((tab, "Ada"), (other, "Grace")):
        each.open(site("/login"))
        each.type("#name", name)
    hold = stage.hold("/login", requests=2)
    with tab.leaving():
        tab.begin("main button")
        with other.leaving():
            other.begin("main button")
            hold.arrived()
            hold.release()
    users = []
    for each in (tab, other):
        each.open(site("/cart"))
        users += each.texts(".user")
    log_out(tab)
    other.reload()

    assert users in (["Ada"] * 2, ["Grace"] * 2)
    assert len(tab.cookies()) == 1
    assert other.texts(".user") == []


# -- Logout ------------------------------------------------------------------------------------------


def test_a_logout_while_another_tab_is_slow(stage, site, user, chromium):
    """A slow request that ends after a logout brings nothing back, and the old cookie opens nothing."""
    user.open(site("/cart"))
    (old,) = user.cookies()
    hold = stage.hold("/cart/add")
    other = user.another()
    other.open(site("/cart"))
    with user.leaving():
        user.begin(add("Tea"))
        hold.arrived()
        log_out(other)
        hold.release()
    (new,) = user.cookies()
    for each in (user, other):
        each.open(site("/cart"))
    with chromium.visitor() as thief:
        thief.call("Network.setCookie", name=old["name"], value=old["value"], url=site("/"))
        thief.open(site("/cart"))

        assert (thief.texts(".user"), cart(thief)) == ([], {})
    assert new["value"] != old["value"]
    for each in (user, other):
        assert (each.texts(".user"), cart(each)) == ([], {})


@pytest.mark.parametrize("is_another", [False, True], ids=["same tab", "another tab"])
def test_the_back_button_after_a_logout(site, user, is_another):
    """After a logout the pages from before it are not shown again: neither by "back" nor by "forward"."""
    pages = ["/", "/cart", "/sessions", "/password"]
    for page in pages:
        user.open(site(page))
    last = user.another() if is_another else user
    last.open(site("/cart"))
    log_out(last)
    shown = []
    for _ in pages:
        user.back()
        shown.append(user.text("body"))
    user.driver.forward()

    assert not [text for text in [*shown, user.text("body")] if "Ada" in text]
