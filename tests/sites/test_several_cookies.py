"""Several cookies of our name: a site has changed its cookie's domain or path, and browsers send both."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import permutations, product

import pytest
from webtest import TestApp

from beaker_bridge.cookies import LONGEST, Signer
from beaker_bridge.record.fields import ACCESSED, CREATED, FORM, MOVED
from tests.installations import ALONE, WITH_TWEEN, Views, install, store_options
from tests.jar import Jar
from tests.requests import NAME, START, Clock, Request, config_of, content, stored, watched

SECRET = "s" * 32
KINDS = {
    "stored": {"secret": SECRET},
    "cookie": {"type": "cookie", "validate_key": SECRET},
}
HOST = {}
DOMAIN = {"cookie_domain": "example.org"}
HOST_X = {"cookie_path": "/x"}
DOMAIN_X = {"cookie_domain": "example.org", "cookie_path": "/x"}
FORMS = {"host /": HOST, "domain /": DOMAIN, "host /x": HOST_X, "domain /x": DOMAIN_X}
PAIRS = [
    pytest.param(old, new, id=f"{before} to {after}") for (before, old), (after, new) in permutations(FORMS.items(), 2)
]
#: The host asked for, and whether the browser tells its own cookies from those of the domain of its name.
BROWSERS = [("www.example.org", True), ("example.org", True), ("example.org", False)]
STEPS = ("login", "plain login", "write", "regenerate", "logout", "read", "wait", "change")


class Visit:
    """A browser's visit to a site that changes its cookie's form, and what its session should hold.

    Args:
        kind: the options of the kind of session.
        forms: the two forms that the site changes between.
        host: the host that is asked for.
        apart: as :class:`Jar`'s.
        forged: what somebody without the secret has put into the browser, before all others.
    """

    def __init__(self, kind, forms, host="www.example.org", apart=True, forged="", **options):
        self.clock = Clock()
        self.configs = [config_of(clock=self.clock, **kind, **options, **form) for form in forms]
        self.jar = Jar(tells_hosts_apart=apart)
        self.host, self.forged = host, forged
        self.expected = {}
        self._number = 0

    def begin(self):
        """Begin a request, with all the cookies that the browser has for it."""
        return Request(self.configs[0], self.forged + self.jar.header(self.host, "/x/page"))

    def end(self, request):
        """End a request, and keep its cookies."""
        for cookie in request.commit().set_cookies:
            self.jar.receive(self.host, cookie)
        return request

    def change(self):
        """Have the site change its cookie's form."""
        self.configs.reverse()

    def step(self, step):
        """Make a step, and say whether the session held what it should, before it and after it."""
        self._number += 1
        self.clock.now += 100 if step == "wait" else 1
        if step == "change":
            self.change()
        request = self.begin()
        held = dict(request.session) == self.expected
        self._act(request.session, step)
        self.end(request)
        return held and dict(self.begin().session) == self.expected

    def _act(self, session, step):
        if step == "logout":
            session.invalidate()
            self.expected = {}
        if step in ("login", "plain login"):
            session["user"] = self.expected["user"] = self._number
        if step == "write":
            session["note"] = self.expected["note"] = self._number
        if step in ("login", "regenerate"):
            session.regenerate_id()


def lost(kind, forms, words, browsers=BROWSERS, **options):
    """Return the words whose steps lose a live session, or bring back one that was logged out."""
    return [
        (word, host, apart)
        for word in words
        for host, apart in browsers
        if not all(map(Visit(kind, forms, host, apart, **options).step, word))
    ]


def words(length):
    """Return all sequences of that many steps that begin with a login and have a change in them."""
    return [("login", *rest) for rest in product(STEPS, repeat=length - 1) if "change" in rest]


FORGED = "; ".join(
    [
        f"{NAME}={'0123456789abcdef' * 2}",
        f"{NAME}={Signer(['another secret']).sign('0123456789abcdef' * 2)}",
        f"{NAME}={'0' * 40}eyJ9",
        f"{NAME}=",
        "",
    ]
)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_live_session_wins_and_a_logout_holds(kind, old, new):
    """Whatever a browser has of the old form and the new one, the live session is read, and a logout holds."""
    longer = [
        ("login", "change", "login", "logout", "plain login"),
        ("login", "change", "login", "change", "write", "logout", "read"),
        ("login", "change", "login", "wait", "change", "logout", "login", "change", "logout"),
        ("login", "change", "write", "logout", "plain login", "wait", "logout", "read"),
    ]

    assert lost(kind, (old, new), words(3) + longer) == []
    assert lost(kind, (old, new), longer, cookie_expires=500) == []


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("old", "new"), PAIRS)
@pytest.mark.parametrize("options", [{}, {"cookie_expires": 500}, {"forged": FORGED}], ids=["", "expires", "forged"])
def test_the_live_session_wins_in_longer_sequences(kind, old, new, options):
    """The same for all sequences of four steps."""
    assert lost(kind, (old, new), words(4), **options) == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_who_has_no_secret_changes_nothing(kind, old, new):
    """Cookies that we have not signed neither win, nor have a live one deleted."""
    visit = Visit(kind, (new, old), forged=FORGED)
    answers = []
    for step in ("login", "read", "wait", "write"):
        assert visit.step(step)
        answers.append(visit.end(visit.begin()).set_cookies)

    assert answers == [[]] * 4
    assert lost(kind, (old, new), words(3), BROWSERS[:1], forged=FORGED) == []


# -- What a response says ----------------------------------------------------------------------------


def with_both(kind, old, new, **options):
    """Return the visit of a browser that has a cookie of each form, the old one's session moved or outdated."""
    visit = Visit(kind, (old, new), **options)
    for step in ("login", "change", "login"):
        assert visit.step(step)
    assert len(visit.jar.cookies) == 2
    return visit


def shown(cookies):
    """Return, of each cookie, whether it is deleted, and its domain and path."""
    attributes = [dict(part.partition("=")[::2] for part in cookie.split("; ")) for cookie in cookies]
    return [
        ("Max-Age" in found and found["Max-Age"] == "0", found.get("Domain"), found["Path"]) for found in attributes
    ]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_hosts_own_cookie_is_deleted_by_the_next_one_that_is_sent(kind):
    """A touch, or the response that next carries our cookie, deletes the host's own, and then sets the domain's."""
    visit = with_both(kind, HOST, DOMAIN)
    read = visit.end(visit.begin())
    visit.clock.now += 100
    touch = visit.end(visit.begin())
    after = visit.end(visit.begin())

    assert read.set_cookies == []
    assert shown(touch.set_cookies) == [(True, None, "/"), (False, "example.org", "/")]
    assert len(visit.jar.cookies) == 1
    assert after.set_cookies == []
    assert dict(after.session) == visit.expected


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("old", "new"), [(DOMAIN, HOST), (HOST_X, HOST), (HOST, HOST_X), (DOMAIN_X, DOMAIN)])
def test_no_other_path_and_no_parent_domain_is_deleted(kind, old, new):
    """A cookie of another path, or of a parent domain, may be another application's: it stays."""
    visit = with_both(kind, old, new)
    visit.clock.now += 100
    touch = visit.end(visit.begin())
    logout = visit.begin()
    logout.session.invalidate()
    visit.end(logout)
    domain, path = new.get("cookie_domain"), new.get("cookie_path", "/")

    assert (False, domain, path) in shown(touch.set_cookies)
    for deleted, of_domain, of_path in shown(touch.set_cookies + logout.set_cookies):
        assert not deleted or (of_domain in (None, domain) and of_path == path)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_logout_deletes_both_forms(kind):
    """A logout deletes the domain's cookie and the host's own, whichever of them the browser has."""
    visit = Visit(kind, (HOST, DOMAIN))
    visit.step("login")
    visit.change()
    request = visit.begin()
    request.session.invalidate()
    visit.end(request)

    assert shown(request.set_cookies) == [(True, None, "/"), (True, "example.org", "/")]
    assert visit.jar.cookies == {}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_only_a_cookie_of_ours_has_both_forms_deleted(kind):
    """Where none of ours came, a logout deletes no host's own cookie: it may be another application's."""
    request = Request(config_of(**kind, **DOMAIN), f"{NAME}=another")
    request.session.invalidate()

    assert shown(request.commit().set_cookies) == [(True, "example.org", "/")]


def test_without_a_secret_no_other_cookie_is_deleted():
    """Without a secret nobody knows whose the other cookie is: it is not deleted, and no cookie is sent for it."""
    visit = Visit({}, (HOST, DOMAIN))
    for step in ("login", "change", "login", "read"):
        assert visit.step(step)
    visit.clock.now += 100
    touch = visit.end(visit.begin())
    logout = visit.begin()
    logout.session.invalidate()

    assert touch.set_cookies == []
    assert shown(logout.commit().set_cookies) == [(True, "example.org", "/")]


# -- Stored sessions ---------------------------------------------------------------------------------


def cookies_of(config, *session_ids):
    """Return a header with a cookie of each id."""
    return "; ".join(f"{NAME}={config.signer.sign(session_id)}" for session_id in session_ids)


def three_sessions(**options):
    """Return a config, and the ids of two live sessions and of a tombstone."""
    config = config_of(secret=SECRET, clock=Clock(), **options)
    ids = []
    for number in range(2):
        request = Request(config)
        request.session["number"] = number
        ids.append(request.commit().session.id)
    request = Request(config)
    request.session["number"] = 2
    moved = request.commit().session.id
    request = Request(config, cookies_of(config, moved))
    request.session.regenerate_id()
    request.commit()
    return config, *ids, moved


def test_the_first_live_one_wins_then_the_first_tombstone():
    """A tombstone before a live session does not hide it; alone it opens an empty session that is not saved."""
    config, one, other, moved = three_sessions()
    unknown = "0" * 32
    opened = {
        order: dict(Request(config, cookies_of(config, *order)).session)
        for order in [(moved, one), (moved, one, other), (unknown, moved, other, one), (other, moved)]
    }
    request = Request(config, cookies_of(config, unknown, moved))
    request.session["a"] = 1

    assert [found["number"] for found in opened.values()] == [0, 0, 1, 1]
    assert request.commit().set_cookies == []


def test_a_logout_drops_the_tombstones_that_the_browser_still_sends():
    """After a logout a new login is not hidden by what an earlier one has left; another live session stays."""
    config, one, other, moved = three_sessions()
    request = Request(config, cookies_of(config, one, moved, other))
    request.session.invalidate()
    request.commit()

    # What the tombstone leads to has ended, too: its cookie may be on its way to the browser.
    assert request.told == [("SessionInvalidated", {"number": 2}), ("SessionInvalidated", {"number": 0})]
    assert [stored(config, session_id) for session_id in (one, moved)] == [None, None]
    assert content(stored(config, other)) == {"number": 1}


def test_a_tombstone_that_changes_under_a_logout_is_dropped():
    """Where the tombstone is another one when it is to be dropped, that one is dropped."""
    config, one, _, moved = three_sessions()
    request = Request(config, cookies_of(config, one, moved))
    request.session.invalidate()
    store = watched(config)

    def change():
        record = store.read(moved)
        tombstone, _ = config.codec.decode(record.raw)
        other = config.codec.serialize({**tombstone, MOVED: tombstone[MOVED] + 1})
        store._store.swap(moved, record, config.codec.seal(other))

    store.before_swap[1] = change
    request.commit()

    assert [stored(config, session_id) for session_id in (one, moved)] == [None, None]


def test_a_damaged_record_beside_a_tombstone_is_no_obstacle_for_a_logout():
    """What cannot be read is no tombstone, and is left as it is."""
    config, one, other, moved = three_sessions()
    config.store.swap(other, config.store.read(other), b"garbage")
    request = Request(config, cookies_of(config, one, other, moved))
    request.session.invalidate()
    request.commit()

    assert stored(config, moved) is None
    assert config.store.read(other).raw == b"garbage"


def test_one_cookie_costs_one_read():
    """Nothing is read for the sake of cookies that did not come; a live one is not read for one that wins."""
    config, one, other, _ = three_sessions()
    store = watched(config)
    Request(config, cookies_of(config, one)).commit()
    Request(config, cookies_of(config, one, other)).commit()

    assert store.calls == ["read", "read"]


def test_a_write_that_touches_deletes_the_other_cookie():
    """A write that is due to renew the access time carries what a touch would."""
    visit = with_both(KINDS["stored"], HOST, DOMAIN)
    visit.step("write")
    assert len(visit.jar.cookies) == 2
    visit.clock.now += 100
    visit.step("write")

    assert len(visit.jar.cookies) == 1


# -- Cookie sessions ---------------------------------------------------------------------------------


def sealed(config, **record):
    """Return the pair of a cookie that holds a record."""
    codec = config.codec
    return f"{NAME}={config.signer.sign(codec.seal(codec.serialize(record)).decode())}"


@pytest.fixture(params=[{}, {"encrypt_key": "e" * 32}], ids=["signed", "encrypted"])
def config(request):
    return config_of(**KINDS["cookie"], **request.param, clock=Clock(), timeout=1000)


def test_the_latest_access_wins(config):
    """Of several cookie sessions the one that was accessed last wins, wherever it stands, with its data alone."""
    times = {"old": {CREATED: START - 9, ACCESSED: START - 9}, "new": {CREATED: START - 99, ACCESSED: START - 1}}
    cookies = [sealed(config, **{name: 1}, **record) for name, record in times.items()]
    without = sealed(config, made=1, **{CREATED: START - 2})

    for header in permutations([*cookies, without]):
        assert dict(Request(config, "; ".join(header)).session) == {"new": 1}
    for header in permutations([cookies[0], without]):
        assert dict(Request(config, "; ".join(header)).session) == {"made": 1}


def test_an_expired_one_does_not_win(config):
    """A session whose time is over hides no live one, and is told of once there is no other."""
    expired = sealed(config, a=1, **{CREATED: START - 5000, ACCESSED: START - 2, "_bb_expiry": 1})
    older = sealed(config, b=1, **{CREATED: START - 5000, ACCESSED: START - 1001})
    live = sealed(config, c=1, **{CREATED: START - 5000, ACCESSED: START - 3})
    found = Request(config, f"{expired}; {live}; {older}")
    none = Request(config, f"{older}; {expired}").commit()

    assert dict(found.session) == {"c": 1}
    assert found.told == []
    assert none.told == [("SessionExpired", {"a": 1})]
    assert shown(none.set_cookies) == [(True, None, "/")]


def test_many_cookies_hide_no_live_one(config):
    """However many cookies of ours came, the latest one is found."""
    cookies = [
        sealed(config, number=number, **{CREATED: START, ACCESSED: START - number}) for number in range(9, -1, -1)
    ]

    assert dict(Request(config, "; ".join(cookies)).session) == {"number": 0}


def test_a_write_is_newer_than_what_came(config):
    """A write wins over the cookie that it was read from, also where another process's clock was ahead."""
    before = sealed(config, a=1, **{CREATED: START, ACCESSED: START + 30})
    request = Request(config, before)
    request.session["a"] = 2
    after = request.commit().set_cookies[0].partition(";")[0]

    assert request.session.last_accessed == START + 30
    for header in (f"{before}; {after}", f"{after}; {before}"):
        assert dict(Request(config, header).session) == {"a": 2}


def test_a_logout_of_several_leaves_an_empty_one(config):
    """Where several came, a logout sets an empty, signed, newer one, and what is older stays closed for ever."""
    remembered = sealed(config, a=1, **{CREATED: START, ACCESSED: START + 5, "_bb_expiry": 10**8})
    other = sealed(config, b=1, **{CREATED: START, ACCESSED: START})
    request = Request(config, f"{other}; {remembered}")
    request.session.invalidate()
    (cookie,) = request.commit().set_cookies
    closed = cookie.partition(";")[0]
    config.clock.now += 10**6
    later = Request(config, f"{remembered}; {closed}; {other}")

    assert f"Max-Age={LONGEST}" in cookie
    assert request.told == [("SessionInvalidated", {"a": 1})]
    assert later.session.new
    assert dict(later.session) == {}
    assert later.commit().set_cookies == []
    assert later.told == []


def test_after_such_a_logout_a_login_is_a_session_again(config):
    """What is put into the session after a logout of several, in the same request or later, is kept."""
    cookies = "; ".join(sealed(config, number=number, **{CREATED: START, ACCESSED: START}) for number in range(2))
    request = Request(config, cookies)
    request.session.invalidate()
    request.session["message"] = "bye"
    (kept,) = request.commit().set_cookies
    later = Request(config, f"{cookies}; {kept.partition(';')[0]}")
    later.session.invalidate()
    (closed,) = later.commit().set_cookies
    login = Request(config, f"{cookies}; {closed.partition(';')[0]}")
    login.session["user"] = 1
    (again,) = login.commit().set_cookies

    assert dict(later.session) == {}
    assert dict(Request(config, f"{again.partition(';')[0]}; {cookies}").session) == {"user": 1}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DOMAIN, HOST),
        (HOST_X, HOST),
        (HOST, HOST_X),
        (DOMAIN_X, HOST_X),
        ({"secure": True}, {"secure": True, "partitioned": True}),
        ({"secure": True, "partitioned": True}, {"secure": True}),
        ({"cookie_domain": ".www.example.org"}, DOMAIN),
    ],
)
def test_a_logout_holds_where_the_one_cookie_cannot_be_named(old, new):
    """A cookie that was set under another domain, path or partition is logged out of by a newer, empty one."""
    visit = Visit(KINDS["cookie"], (old, new))
    visit.step("login")
    visit.change()
    request = visit.begin()
    request.session.invalidate()
    visit.end(request)

    assert [deleted for deleted, _, _ in shown(request.set_cookies)][-1:] == [False]
    assert visit.begin().session.new


@pytest.mark.parametrize("form", [*FORMS.values(), {"cookie_domain": ".Example.ORG"}])
def test_a_logout_of_a_cookie_that_can_be_named_deletes_it(form):
    """Where the form has not changed, a logout leaves no cookie."""
    visit = Visit(KINDS["cookie"], (form, form))
    visit.step("login")
    visit.step("logout")

    assert visit.jar.cookies == {}


def test_the_form_is_in_the_record_where_it_is_not_the_usual_one():
    """A cookie session's record names its cookie's domain and path, unless it is the host's own for all paths."""
    forms = []
    for options in (HOST, HOST_X, DOMAIN_X, {"cookie_domain": ".Example.org", "secure": True, "partitioned": True}):
        config = config_of(**KINDS["cookie"], **options)
        request = Request(config)
        request.session["a"] = 1
        pair, _, _ = request.commit().set_cookies[0].partition(";")
        value, _ = config.signer.verify(pair.partition("=")[2])
        forms.append(config.codec.decode(value.encode())[0].get(FORM))

    assert forms == [None, "/x", "example.org/x", "example.org/; Partitioned"]


# -- Over HTTP ---------------------------------------------------------------------------------------


def login(request):
    request.session["user"] = request.params["user"]
    request.session.regenerate_id()
    return ""


def logout(request):
    request.session.invalidate()
    return ""


def user(request):
    return request.session.get("user")


VIEWS = Views(**{"x/login": login, "x/logout": logout, "x/user": user})


class Sites:
    """A site before and after a change of its cookie's form, as one WSGI application."""

    def __init__(self, installation, options, old, new):
        self.apps = [install(installation, {**options, **form}, VIEWS) for form in (old, new)]

    def __call__(self, environ, start_response):
        return self.apps[0](environ, start_response)

    def change(self):
        self.apps.reverse()


@pytest.mark.parametrize("installation", WITH_TWEEN + ALONE)
@pytest.mark.parametrize("store", ["file", "cookie"])
@pytest.mark.parametrize(("old", "new"), [(HOST, DOMAIN), (DOMAIN, HOST), (HOST, DOMAIN_X), (HOST_X, DOMAIN)])
def test_over_http(tmp_path, installation, store, old, new):
    """In every installation, with Python's own cookie jar: a login after the change counts, and a logout holds."""
    sites = Sites(installation, store_options(store, tmp_path), old, new)
    jar = CookieJar(DefaultCookiePolicy(rfc2965=False))
    app = TestApp(sites, extra_environ={"HTTP_HOST": "www.example.org:80"}, cookiejar=jar)
    users = []
    app.get("/x/login?user=1")
    users.append(app.get("/x/user").text)
    sites.change()
    users.append(app.get("/x/user").text)
    app.get("/x/login?user=2")
    users.append(app.get("/x/user").text)
    app.get("/x/login?user=3")
    users.append(app.get("/x/user").text)
    app.get("/x/logout")
    users.append(app.get("/x/user").text)

    assert users == ["1", "1", "2", "3", "None"]
