"""Cookies of our name that we have not set, or not in this form: a neighbour's, and our own of another domain."""

from __future__ import annotations

import pytest

from tests.browser.stage import SECRET

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.ci]

SITE, EVIL, DOMAIN = "www.site.test", "evil.site.test", "site.test"
KINDS = {"stored": {"type": "file"}, "cookie": {"type": "cookie", "secret": None, "validate_key": SECRET}}


def begin(request):
    """Begin a session of nobody."""
    request.session["begun"] = True
    return "begun"


def login(request):
    request.session["user"] = request.params["user"]
    request.session.regenerate_id()
    return ""


def logout(request):
    request.session.invalidate()
    return ""


def user(request):
    return request.session.get("user")


VIEWS = {"begin": begin, "login": login, "logout": logout, "user": user}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def play(request, stage, https, tmp_path):
    """Return what plays the site, with options, and makes addresses of it."""
    place = {"data_dir": str(tmp_path)} if request.param["type"] == "file" else {}

    def play(**options):
        stage.play_sessions(SITE, VIEWS, **request.param, **place, **options)
        return lambda path: https(SITE, path)

    return play


@pytest.fixture
def be_neighbour(stage, https):
    """Return what has a tab visit a neighbouring host, which sets some cookies."""

    def visit(tab, *cookies):
        stage.play_page(EVIL, "evil", *(("Set-Cookie", cookie) for cookie in cookies))
        tab.open(https(EVIL))

    return visit


@pytest.fixture
def own_value(chromium):
    """Return what begins a session in a browser of the neighbour's own, and returns its cookie's value."""

    def begin(url):
        with chromium.visitor() as thief:
            thief.open(url)
            (cookie,) = thief.cookies()
        return cookie["value"]

    return begin


def read(tab, url):
    tab.open(url)
    return tab.text("body")


def test_a_neighbour_sets_no_protected_name(play, be_neighbour, own_value, tab):
    """A browser keeps no ``__Host-…`` that a neighbour sets for the domain, so a visitor's session is his own."""
    site = play(key="__Host-sid", secure=True)
    value = own_value(site("/login?user=evil"))
    attempts = [
        f"{name}={value}; Domain={domain}; Path={path}; Secure; HttpOnly"
        for name in ("__Host-sid", "__host-sid", "__Host-Http-sid", "__HOST-SID")
        for domain in (DOMAIN, SITE)
        for path in ("/", "/user")
    ]
    be_neighbour(tab, *attempts, f"=__Host-sid={value}; Domain={DOMAIN}; Path=/; Secure")
    kept, users = tab.cookies(), [read(tab, site("/user"))]
    tab.open(site("/login?user=me"))
    be_neighbour(tab, *attempts)
    users.append(read(tab, site("/user")))

    assert kept == []
    assert users == ["None", "me"]


def test_names_that_look_like_a_protected_one(stage, play, be_neighbour, own_value, tab):
    """What a neighbour sets beside ``__Host-sid`` opens nothing, though Chromium keeps it, and sends it first."""
    site = play(key="__Host-sid", secure=True)
    value = own_value(site("/login?user=evil"))
    # A header is of Latin-1.
    names = [f"{blank}__Host-sid" for blank in "\xa0\x85"]
    pairs = [*(f"{name}={value}" for name in names), f"a=b, __Host-sid={value}"]
    be_neighbour(tab, *(f"{pair}; Domain={DOMAIN}; Path=/" for pair in pairs))
    stage.cookies_sent.clear()
    users = [read(tab, site(page)) for page in ("/user", "/login?user=me", "/user", "/logout", "/user")]
    sent = [cookie for _, cookie in stage.cookies_sent]

    assert users == ["None", "", "me", "", "None"]
    # It did send them: else this would show nothing.
    assert sent[0] == "; ".join(pairs)
    assert sent[2].startswith(sent[0])


@pytest.mark.parametrize("key", ["sid", "__Host-sid"])
def test_a_neighbour_fixes_no_session(play, be_neighbour, own_value, tab, chromium, key):
    """What a neighbour has begun, and given to a visitor for the whole domain, opens nothing after the login."""
    site = play(key=key, secure=True)
    value = own_value(site("/begin"))
    attempt = f"{key}={value}; Domain={DOMAIN}; Path=/; Secure"
    be_neighbour(tab, attempt)
    before = {cookie["name"] for cookie in tab.cookies()}
    tab.open(site("/login?user=me"))
    users = [read(tab, site("/user"))]
    be_neighbour(tab, attempt)
    users.append(read(tab, site("/user")))
    with chromium.visitor() as thief:
        thief.call("Network.setCookie", name=key, value=value, url=site("/"), secure=True, path="/")

        assert read(thief, site("/user")) == "None"
    assert before == ({"sid"} if key == "sid" else set())
    assert users == ["me", "me"]


def test_a_change_to_a_domain(play, tab):
    """Chromium sends both cookies after a change of the site's to a domain: a login counts, and a logout holds."""
    site = play()
    tab.open(site("/login?user=1"))
    play(cookie_domain=DOMAIN)
    tab.open(site("/login?user=2"))
    both, second = len(tab.cookies()), read(tab, site("/user"))
    tab.open(site("/login?user=3"))
    one = len(tab.cookies())
    tab.open(site("/logout"))

    assert (both, second, one, read(tab, site("/user"))) == (2, "2", 1, "None")
