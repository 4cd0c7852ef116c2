"""A user's sessions: bound, listed, ended from elsewhere, on every store."""

from __future__ import annotations

import base64
import json
import os
import threading
from contextlib import suppress
from enum import Enum, IntEnum
from functools import partial
from typing import ClassVar

import pytest

from beaker_bridge import revoke, revoke_one, user_sessions
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionConflictError,
    SessionLimitError,
    SessionStoreError,
    SessionTooLateError,
    SessionValueError,
    SettingsError,
)
from beaker_bridge.record.fields import END_REASON, INDEX, LISTED, LOGIN, LOGINS, UNTIL
from beaker_bridge.session.base import GRACE, MOVED_FOR
from beaker_bridge.session.index import SHORTEST
from beaker_bridge.session.login import MAX_NOTE
from beaker_bridge.session.purge import purge
from beaker_bridge.session.user_key import UserKey
from beaker_bridge.session.users import MAX_LOGINS, PRUNE_EVERY, UserIndex
from tests.requests import START, STORES, Browser, Clock, Request, config_of, options_of, stored, watched

# Real servers and processes: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

TIMEOUT = 1200
USER = "user 4711"


def secret_of(request):
    """Return a secret of the test's own: a server, and this process's memory, keep what other tests have written."""
    return f"a secret of thirty-two bytes, or more: {request.node.nodeid}"


@pytest.fixture
def secret(request):
    return secret_of(request)


@pytest.fixture(params=list(STORES))
def store(request, tmp_path):
    """Return the options of each store."""
    return options_of(request, tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(store, secret, clock):
    config = config_of(**store, key="sid", secret=secret, timeout=TIMEOUT, clock=clock)
    yield config
    config.store.close()


@pytest.fixture
def memory(secret, clock):
    """Return a function that makes a configuration in memory, with options."""
    return lambda **options: config_of(**{"key": "sid", "secret": secret, "timeout": TIMEOUT, "clock": clock} | options)


@pytest.fixture
def here(memory):
    """Return a configuration in memory."""
    return memory()


def log_in(config, user_id=USER, **options):
    """Return a browser that has logged in."""
    return log_in_at(Browser(config), user_id, **options)


def log_in_at(browser, user_id=USER, **options):
    """Log in, and return the browser."""
    request = browser.begin()
    request.session["name"] = "Ann"
    request.session.bind(user_id, **options)
    browser.end(request)
    return browser


def listed(config, user_id=USER):
    """Return a user's sessions."""
    return UserIndex(config).sessions(user_id)


def notes(config, user_id=USER):
    """Return the notes of a user's sessions, in order."""
    return [session.note for session in listed(config, user_id)]


def index_of(config, user_id=USER):
    """Return the id of the user's index."""
    return UserIndex(config).ids_for(user_id)[-1]


def entries(config, user_id=USER):
    """Return the entries of the user's index; None if there is no index."""
    record = stored(config, index_of(config, user_id))
    return None if record is None else record[LOGINS]


def is_in(browser):
    """Say whether a browser is logged in."""
    return "name" in browser.read()


# -- The list ----------------------------------------------------------------------------------------


def test_a_login_is_listed_and_can_be_ended(config):
    """A login is listed; it can be ended by its handle, once, and all of a user's at once."""
    one, other = log_in(config, note={"browser": "Firefox"}), log_in(config)
    index = UserIndex(config)
    first = next(session.handle for session in index.sessions(USER) if session.note)

    assert len(index.sessions(USER)) == 2
    assert one.read() == other.read() == {"name": "Ann"}
    assert index.revoke_one(first)
    assert not index.revoke_one(first)
    assert one.read() == {}
    assert other.read() == {"name": "Ann"}
    assert index.revoke(USER) == 1
    assert other.read() == {}
    assert index.sessions(USER) == []
    assert entries(config) is None


def test_a_list_says_when_and_which(config, clock):
    """The one seen last is the first; each has the time of its login and of its last access, and its note."""
    one = log_in(config, note={"browser": "Firefox", "place": "Köln"})
    clock.now += 200
    two = log_in(config)
    clock.now += 200
    one.read()
    request = two.begin()
    first, second = user_sessions(request, USER)

    assert (first.created, first.last_seen, first.is_current) == (START, START + 400, False)
    assert first.note == {"browser": "Firefox", "place": "Köln"}
    assert (second.created, second.last_seen, second.is_current, second.note) == (START + 200, START + 200, True, None)


def test_a_handle_opens_nothing(here):
    """A handle is no id, and neither a cookie nor a record is found by it."""
    browser = log_in(here)
    (session,) = listed(here)
    login = session.handle[:32]

    assert browser.begin().session.id not in session.handle
    assert USER.encode().hex() not in session.handle
    for name in (session.handle, login, index_of(here)):
        assert Browser(here).begin().session.get_by_id(name) is None
        assert Request(here, f"sid={name}").session == {}


@pytest.mark.parametrize("handle", ["", "x", "0" * 32, "0" * 33, "0" * 34, "f" * 96, "é" * 96, None, 7, b"0" * 96])
def test_a_handle_that_is_none_ends_nobody(here, handle):
    """Whatever a form sends as a handle: what is none ends nobody, and raises nothing."""
    browser = log_in(here)

    assert not UserIndex(here).revoke_one(handle)
    assert is_in(browser)


def test_the_handle_of_another_user_names_no_login_of_ones_own(here):
    """A handle is one user's: with what it hides changed, it names nothing."""
    browser = log_in(here, 42)
    handle = listed(here, 42)[0].handle
    forged = (
        handle[:32] + bytes(a ^ b ^ c for a, b, c in zip(bytes.fromhex(handle[32:]), b"42", b"43", strict=True)).hex()
    )

    assert not UserIndex(here).revoke_one(forged)
    assert is_in(browser)


def test_a_list_before_the_commit_and_of_nobody(here):
    """A login is listed once it is committed; a user who never logged in has no sessions."""
    request = Browser(here).begin()
    request.session.bind(USER)

    assert user_sessions(request, USER) == []
    assert user_sessions(request, "nobody") == []
    assert UserIndex(here).revoke("nobody") == 0
    assert entries(here, "nobody") is None


@pytest.mark.parametrize("one", [42, "42", IntEnum("Id", {"ANN": 42}).ANN, Enum("Id", {"ANN": "42"}, type=str).ANN])
def test_a_user_is_a_text_or_a_number(here, one):
    """42 and "42" are one user, also as members of an enumeration."""
    log_in(here, one)

    assert len(listed(here, 42)) == len(listed(here, "42")) == 1
    assert listed(here, 43) == []


@pytest.mark.parametrize("user_id", ["é", "e\u0301", "Ω" * 200, "a" * 64, -1, 0, 10**40, "\0", " "])
def test_each_text_is_a_user(here, user_id):
    """Any text is a user's id, of any length; it is moved with the index, whatever it is."""
    browser = log_in(here, user_id)

    assert len(listed(here, user_id)) == 1
    assert UserIndex(here).revoke_one(listed(here, user_id)[0].handle)
    assert not is_in(browser)


@pytest.mark.parametrize(
    ("user_id", "error"),
    [
        (True, TypeError),
        (None, TypeError),
        (b"42", TypeError),
        (4.2, TypeError),
        (["42"], TypeError),
        ("", ValueError),
        ("\ud800", ValueError),
    ],
)
def test_what_is_no_user_is_refused(here, user_id, error):
    """What is no user's id is refused at once, wherever it is passed."""
    request = Browser(here).begin()

    for call in (request.session.bind, UserIndex(here).sessions, UserIndex(here).revoke):
        with pytest.raises(error, match=r"a user's id must be a (non-empty )?string"):
            call(user_id)
    request.commit()
    assert request.set_cookie is None


@pytest.mark.parametrize("limit", [0, -1, 1.0, "1", True])
def test_a_limit_is_a_number(here, limit):
    """A limit is a whole number, 1 or more."""
    with pytest.raises(ValueError, match="limit must be a whole number, 1 or more, or None, got"):
        Browser(here).begin().session.bind(USER, limit=limit)


def test_on_limit_is_one_of_two_words(here):
    """``on_limit`` is ``"end"`` or ``"refuse"``."""
    with pytest.raises(ValueError, match="on_limit must be 'end' or 'refuse', got 'raise'"):
        Browser(here).begin().session.bind(USER, on_limit="raise")


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("Firefox", "note must be a dict of at most 1024 bytes of JSON, got a str"),
        (["Firefox"], "got a list"),
        ({"a": "x" * MAX_NOTE}, f"got {MAX_NOTE + 9} bytes"),
        ({"a": "é" * (MAX_NOTE // 2)}, f"got {MAX_NOTE + 9} bytes"),
        ({"a": b"x"}, "note must hold only JSON: Object of type bytes"),
        ({"a": float("nan")}, "note must hold only JSON"),
        ({"a": "\ud800"}, "note must hold only JSON"),
        ({(1, 2): 3}, "note must hold only JSON"),
    ],
)
def test_a_note_is_a_small_dict_of_json(here, note, reason):
    """A note that is none is refused at once, and the session is as before."""
    request = Browser(here).begin()

    with pytest.raises(SessionValueError, match=reason):
        request.session.bind(USER, note)
    request.commit()
    assert listed(here) == []


def test_a_note_that_holds_itself_is_refused(here):
    """A note that is nested without an end is refused."""
    note = {}
    note["a"] = note

    with pytest.raises(SessionValueError, match="note must hold only JSON"):
        Browser(here).begin().session.bind(USER, note)


def test_a_note_is_taken_as_it_is_then(here):
    """A later change of the application's dict is not in the note; an empty one is one; the largest is taken."""
    note = {"a": "x" * (MAX_NOTE - 9)}
    browser = Browser(here)
    request = browser.begin()
    request.session.bind(USER, note)
    note["b"] = 1
    browser.end(request)
    log_in(here, "another", note={})

    assert notes(here) == [{"a": "x" * (MAX_NOTE - 9)}]
    assert notes(here, "another") == [{}]


# -- Limits ------------------------------------------------------------------------------------------


def test_a_limit_ends_the_oldest(config, clock):
    """A login over the limit ends the oldest, and its browser is told why."""
    browsers = []
    for number in range(3):
        clock.now += 1
        browsers.append(log_in(config, note={"number": number}, limit=2))
    request = browsers[0].begin()

    assert [is_in(browser) for browser in browsers] == [False, True, True]
    assert request.session.revoked == "limit"
    assert {note["number"] for note in notes(config)} == {1, 2}


def test_a_limit_can_refuse(config):
    """Where the application wants to ask, a login over the limit is refused, and changes nothing."""
    one = log_in(config)
    browser = Browser(config)
    request = browser.begin()
    request.session["before"] = 1

    with pytest.raises(
        SessionLimitError, match="sessions of this user: 1, and limit is 1: end one of them first"
    ) as told:
        request.session.bind(USER, limit=1, on_limit="refuse")
    assert told.value.value == 1
    browser.end(request)
    assert browser.read() == {"before": 1}
    assert is_in(one)
    assert len(listed(config)) == 1


def test_of_two_logins_at_once_the_later_is_refused(config):
    """Where both were begun before either was committed, the later commit raises, and nothing of it is stored."""
    first, second = Browser(config), Browser(config)
    requests = [first.begin(), second.begin()]
    for request in requests:
        request.session.bind(USER, limit=1, on_limit="refuse")
    first.end(requests[0])

    with pytest.raises(SessionLimitError):
        requests[1].commit()
    assert requests[1].set_cookie is None
    assert stored(config, requests[1].session.id) is None
    assert len(listed(config)) == len(entries(config)) == 1


def test_a_lower_limit_ends_several(here, clock):
    """A limit that is lower than before ends as many as are too many, the oldest first."""
    browsers = []
    for _ in range(4):
        clock.now += 1
        browsers.append(log_in(here))
    last = log_in(here, limit=2)

    assert [is_in(browser) for browser in browsers] == [False, False, False, True]
    assert is_in(last)


@pytest.mark.parametrize("first", ["bind", "invalidate", "delete", "regenerate_id", "unbind"])
@pytest.mark.parametrize("on_limit", ["end", "refuse"])
def test_a_login_again_counts_once(here, first, on_limit):
    """A browser that logs in again, in whichever way, is not over the limit by its own login, and stays logged in."""
    browser = log_in(here, limit=1)
    request = browser.begin()
    if first == "bind":
        request.session.bind(USER)
    else:
        getattr(request.session, first)()
    request.session["name"] = "Ann"
    request.session.bind(USER, limit=1, on_limit=on_limit)
    browser.end(request)

    assert is_in(browser)
    assert len(listed(here)) == len(entries(here)) == 1


def test_a_limit_counts_no_session_that_is_gone(here, clock):
    """A session that has expired does not count."""
    log_in(here)
    clock.now += TIMEOUT + 1
    browser = log_in(here, limit=1, on_limit="refuse")

    assert is_in(browser)


def test_a_limit_counts_a_login_under_way(here):
    """A login whose record is not written yet counts."""
    other = Browser(here)
    request = other.begin()
    request.session.bind(USER)
    store = watched(here)
    # The index is written, the record is not.
    store.before_swap[2] = lambda: log_in(here, limit=1, on_limit="refuse")
    with pytest.raises(SessionLimitError):
        other.end(request)
    other.end(request)

    assert store.before_swap == {}
    assert len(listed(here)) == 1


def test_a_thousand_logins(here, clock):
    """A user has a thousand sessions at most; one more ends the oldest."""
    browsers = []
    for _ in range(MAX_LOGINS + 1):
        clock.now += 0.01
        browsers.append(log_in(here))

    assert len(listed(here)) == MAX_LOGINS
    assert not is_in(browsers[0])
    assert is_in(browsers[1])
    assert UserIndex(here).revoke(USER) == MAX_LOGINS
    assert not any(map(is_in, browsers))


@pytest.mark.parametrize("store", ["mariadb"], indirect=True)
def test_a_store_that_holds_no_thousand_logins(config):
    """Where an index is too large for the store, a login ends the oldest ones, and is made."""
    browser = log_in(config)
    content = stored(config, index_of(config))
    (entry,) = content[LOGINS].values()
    while len(config.codec.encode(content)) < 65_000:
        name = os.urandom(16).hex()
        content[LOGINS][name] = {**entry, "ids": [name], "created": START + 1, "note": {"a": os.urandom(100).hex()}}
    raw = config.codec.encode(content)
    config.store.swap(index_of(config), config.store.read(index_of(config)), raw, 1000)
    others = [log_in(config, note={"a": os.urandom(400).hex()}) for _ in range(5)]

    assert not is_in(browser)
    assert all(map(is_in, others))
    assert len(entries(config)) < len(content[LOGINS])
    assert UserIndex(config).revoke(USER) > 5
    assert not any(map(is_in, others))


# -- The end -----------------------------------------------------------------------------------------


def test_the_others_are_ended_and_ones_own_stays(config):
    """``except_current`` spares the session of the request, and no other one."""
    mine, others = log_in(config), [log_in(config), log_in(config)]
    request = mine.begin()

    assert revoke(request, USER, except_current=True) == 2
    mine.end(request)
    assert is_in(mine)
    assert [is_in(browser) for browser in others] == [False, False]
    assert [session.is_current for session in user_sessions(mine.begin(), USER)] == [True]


def test_all_are_ended_and_ones_own_request_goes_on(config):
    """Without it the request's own session ends, too, and the request goes on with a new one."""
    mine, other = log_in(config), log_in(config)
    cookie = mine.cookie
    request = mine.begin()

    assert revoke(request, USER) == 2
    assert request.session == {}
    request.session.flash("bye")
    mine.end(request)
    assert mine.begin().session.pop_flash() == ["bye"]
    assert Request(config, cookie).session == {}
    assert not is_in(other)


def test_one_is_ended_by_its_handle(config):
    """``revoke_one`` ends another session, or one's own, with which the request goes on as after a logout."""
    mine, other = log_in(config), log_in(config)
    request = mine.begin()
    own, others = sorted(user_sessions(request, USER), key=lambda session: not session.is_current)

    assert revoke_one(request, others.handle)
    assert not is_in(other)
    assert request.session == {"name": "Ann"}
    assert revoke_one(request, own.handle)
    assert request.session == {}
    mine.end(request)
    assert mine.cookie == ""
    assert listed(config) == []


def test_somebody_elses_sessions_are_ended(here):
    """Who manages users ends another user's sessions, and keeps the own one."""
    admin, user = log_in(here, "admin"), log_in(here)
    request = admin.begin()

    assert revoke(request, USER) == 1
    admin.end(request)
    assert is_in(admin)
    assert not is_in(user)


@pytest.mark.parametrize("end", ["revoke", "revoke_one"])
def test_an_end_stays_if_the_request_fails(here, end):
    """What was revoked is revoked, also where the request is discarded, or over."""
    mine, other = log_in(here), log_in(here, "other")
    request = mine.begin()
    if end == "revoke":
        revoke(request, "other")
    else:
        revoke_one(request, listed(here, "other")[0].handle)
    request.discard()

    assert not is_in(other)
    request.exchange.end()
    assert revoke(request, USER) == 1
    assert not is_in(mine)


def test_a_revoked_browser_is_told_why(config):
    """At each request with that cookie, until it has a new session; after its own logout it is told nothing."""
    browser = log_in(config)
    UserIndex(config).revoke(USER)
    first, second = browser.begin(), browser.begin()

    assert first.session.revoked == second.session.revoked == "revoked"
    assert first.session.new
    first.session.flash("You were logged out elsewhere")
    browser.end(first)
    assert browser.begin().session.revoked is None
    log_in_at(browser)
    cookie = browser.cookie
    request = browser.begin()
    request.session.invalidate()
    browser.end(request)
    assert browser.begin().session.revoked is None
    assert Request(config, cookie).session.revoked is None


def test_a_revoked_browser_forgets_its_cookie(here):
    """``invalidate()`` has the browser forget the cookie of a session that was revoked, so that it is told once."""
    browser = log_in(here)
    UserIndex(here).revoke(USER)
    request = browser.begin()
    request.session.invalidate()
    request.session.flash("You were logged out elsewhere")
    request.session.pop_flash()
    browser.end(request)

    assert request.session.revoked == "revoked"
    assert browser.cookie == ""


def test_a_live_session_beside_a_revoked_one_is_told_nothing(here):
    """Of several cookies the live session's counts: why another one ended is not said."""
    revoked = log_in(here)
    UserIndex(here).revoke(USER)
    live = log_in(here)
    request = Request(here, f"{revoked.cookie}; {live.cookie}")

    assert request.session == {"name": "Ann"}
    assert request.session.revoked is None


def test_why_a_session_ended_is_said_for_as_long_as_it_would_have_lasted(here, clock):
    """An end marker lasts as long as its session, and then says nothing."""
    browser = log_in(here)
    UserIndex(here).revoke(USER)
    clock.now += TIMEOUT
    late = browser.begin().session.revoked
    clock.now += GRACE
    later = browser.begin().session.revoked

    assert (late, later) == ("revoked", None)


@pytest.mark.parametrize("options", [{"timeout": None}, {"timeout": None, "absolute_timeout": 600}])
def test_an_end_marker_lasts_with_any_timeout(memory, clock, options):
    """For good where sessions never expire; else for as long as the shortest of the timeouts."""
    config = memory(**options)
    browser = log_in(config)
    UserIndex(config).revoke(USER)
    clock.now += 10**6 if len(options) == 1 else 600 + GRACE - 1

    assert browser.begin().session.revoked == "revoked"


@pytest.mark.parametrize("option", ["end", "refuse"])
def test_events(here, option):
    """An end from elsewhere is ``SessionRevoked``, a logout ``SessionInvalidated``; each session has one event."""
    one, two = log_in(here), log_in(here)
    request = Browser(here).begin()
    revoke_one(request, listed(here)[0].handle)
    revoked = request.told
    limited = Browser(here).begin()
    limited.session.bind(USER, limit=1)
    limited.commit()
    out = log_in(here, "another").begin()
    out.session.invalidate()
    out.commit()

    assert revoked == [("SessionRevoked", {"name": "Ann"})]
    assert request.events[0].reason == "revoked"
    assert limited.told == [("SessionRevoked", {"name": "Ann"})]
    assert limited.events[0].reason == "limit"
    assert out.told == [("SessionInvalidated", {"name": "Ann"})]
    assert not is_in(one)
    assert not is_in(two)


def test_ones_own_end_is_one_event(here):
    """Where a request ends its own session, too, each session still has one event."""
    mine = log_in(here)
    log_in(here)
    request = mine.begin()
    revoke(request, USER)
    request.commit()

    assert request.told == [("SessionRevoked", {"name": "Ann"})] * 2


def test_a_subscriber_that_raises_leaves_nobody_in(here):
    """Subscribers are notified when all have ended: an error of one leaves no session open."""

    def fail(event):
        raise RuntimeError("a subscriber fails")

    browsers = [log_in(here) for _ in range(3)]

    with pytest.raises(RuntimeError):
        UserIndex(here, fail).revoke(USER)
    assert not any(map(is_in, browsers))
    assert entries(here) is None


def test_a_subscriber_that_raises_at_a_limit_leaves_the_login(here):
    """A login that ends another one is committed before subscribers are notified of that."""
    browser = Browser(here)
    other = log_in(here)
    request = browser.begin()
    request.session["name"] = "Ann"
    request.session.bind(USER, limit=1)
    request.exchange.notify = lambda event: pytest.fail("a subscriber fails")

    with pytest.raises(pytest.fail.Exception):
        request.commit()
    assert not is_in(other)
    assert len(listed(here)) == 1


# -- Requests under way ------------------------------------------------------------------------------


def write(session):
    session["written"] = True


def read(session):
    dict(session)


def regenerate(session):
    session.regenerate_id()


def log_in_again(session):
    session.bind(USER)


def log_in_as_another(session):
    session.bind("another")


def count(session):
    with session.exclusive():
        session["count"] = session.get("count", 0) + 1


def count_at_a_new_id(session):
    session.regenerate_id()
    count(session)


REQUESTS = (write, read, regenerate, log_in_again, count, count_at_a_new_id)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_revoke_ends_a_request_under_way(config, clock, kind):
    """Whatever a request does, and whenever within it its login is revoked: nobody is in afterwards."""
    plain, moments = config.store, 0
    while True:
        config.store = plain
        browser = log_in(config)
        cookie = browser.cookie
        # Read with a time to renew.
        clock.now += TIMEOUT / 2
        request = browser.begin()
        store = watched(config)
        store.before_swap[moments] = lambda: UserIndex(config).revoke(USER)
        if not moments:
            store.before_swap.pop(0)()
        kind(request.session)
        browser.end(request)
        if store.before_swap:
            # It makes no more swaps.
            UserIndex(config).revoke(USER)
            assert moments > 1
            break
        moments += 1

        assert not is_in(browser)
        assert not is_in_with(config, cookie)
        assert listed(config) == []


def is_in_with(config, cookie):
    return "name" in Request(config, cookie).session


@pytest.mark.parametrize("kind", [write, regenerate, log_in_again, log_in_as_another])
@pytest.mark.parametrize("spares", [True, False])
def test_a_session_is_found_whatever_overlaps_its_list(here, kind, spares):
    """A list, or an end of the others, in the middle of a request ends nobody whom it must not, and loses nobody."""
    for moment in range(1, 7):
        browser, elsewhere = log_in(here), log_in(here)
        request = browser.begin()
        own = browser.begin() if spares else None
        store = watched(here)
        store.before_swap[moment] = lambda own=own: revoke(own, USER, except_current=True) if own else listed(here)
        kind(request.session)
        browser.end(request)
        store.before_swap.pop(moment, list)()

        assert is_in(browser)
        assert is_in(elsewhere) is not spares
        mine = listed(here, "another" if kind is log_in_as_another else USER)
        assert len(mine) == (1 if spares or kind is log_in_as_another else 2)
        for user in (USER, "another"):
            UserIndex(here).revoke(user)
        assert not is_in(browser)
        here.store = here.store._store


def test_a_revoke_ends_a_login_with_another_one(here):
    """A request that logs in as another user leaves its login, whenever that is revoked; the new one is listed."""
    for moment in range(1, 8):
        browser = log_in(here)
        cookie = browser.cookie
        request = browser.begin()
        store = watched(here)
        store.before_swap[moment] = lambda: UserIndex(here).revoke(USER)
        log_in_as_another(request.session)
        browser.end(request)
        store.before_swap.pop(moment, list)()
        here.store = store._store

        assert not is_in_with(here, cookie)
        assert is_in(browser) == (len(listed(here, "another")) == 1)
        UserIndex(here).revoke("another")
        assert not is_in(browser)


def test_traffic_on_eight_threads_leaves_nobody_in(store, secret, clock):
    """A revoke in the middle of eight threads' requests ends all of a user's logins, and they stay ended."""
    # Wait for a busy machine.
    config = config_of(**store, key="sid", secret=secret, timeout=TIMEOUT, clock=clock, store_timeout=60)
    browsers = [log_in(config) for _ in range(4)]
    cookies = {browser.cookie for browser in browsers}
    begun, over = threading.Barrier(9), threading.Event()
    errors = []

    def visit(browser, kinds):
        for turn in range(100):
            request = browser.begin()
            kind = kinds[turn % len(kinds)]
            try:
                # A browser that is logged out does not log in again by itself.
                if "name" in request.session:
                    kind(request.session)
                browser.end(request)
            except SessionConflictError:
                # An exclusive() block found that the session has moved.
                continue
            except Exception as error:  # noqa: BLE001 -- the test raises it
                errors.append(error)
            finally:
                cookies.add(browser.cookie)
                if turn == 1:
                    begun.wait()
            if over.is_set() and turn > 3:
                break

    kinds = [(write, regenerate), (log_in_again, write), (count, read), (regenerate, log_in_again)]
    threads = [
        threading.Thread(target=visit, args=(browsers[number % 4], kinds[(number + number // 4) % 4]))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    begun.wait()
    UserIndex(config).revoke(USER)
    over.set()
    for thread in threads:
        thread.join()

    still_in = [cookie for cookie in cookies if is_in_with(config, cookie)]
    left = listed(config)
    config.store.close()

    assert (errors, still_in, left) == ([], [], [])


def test_an_index_that_others_change_is_locked(config):
    """Where each swap of an index is lost, the next one is made under the store's lock, on every store."""
    store = watched(config)
    for moment in range(1, 5):
        # Each login that steps in makes two swaps of its own.
        store.before_swap[3 * moment - 2] = lambda: log_in(config)
    store.calls.clear()
    log_in(config)

    assert "lock" in store.calls
    assert len(listed(config)) == 5


def test_exclusive_blocks_around_a_login(here):
    """A login, a rotation and an end within an ``exclusive()`` block, and around one, are as without it."""
    browser = log_in(here)
    request = browser.begin()
    with request.session.exclusive():
        request.session["count"] = 1
        request.session.regenerate_id()
    browser.end(request)
    request = browser.begin()
    with request.session.exclusive():
        request.session["count"] += 1
        request.session.bind("another")
    request.session["after"] = True
    browser.end(request)

    assert browser.read() == {"name": "Ann", "count": 2, "after": True}
    assert listed(here) == []
    assert entries(here) is None
    assert len(listed(here, "another")) == 1
    request = browser.begin()
    request.session["before"] = True
    with request.session.exclusive():
        request.session.unbind()
    assert listed(here, "another") == []
    browser.end(request)
    assert browser.read() == {"name": "Ann", "count": 2, "after": True, "before": True}
    assert entries(here, "another") is None


def test_an_end_before_an_exclusive_block_is_kept(here):
    """``unbind()`` before a block is committed with the request, and the login ends then."""
    browser = log_in(here)
    request = browser.begin()
    request.session.unbind()
    with request.session.exclusive():
        request.session["count"] = 1
    inside = len(listed(here))
    browser.end(request)

    assert inside == 1
    assert listed(here) == []
    assert browser.read() == {"name": "Ann", "count": 1}


def test_an_unbind_after_the_response_in_a_block(here):
    """After the response a block can still unbind."""
    browser = log_in(here)
    request = browser.begin()
    browser.end(request)
    request.exchange.end()
    with request.session.exclusive():
        request.session.unbind()

    assert is_in(browser)
    assert entries(here) is None


# -- Logins, logouts ---------------------------------------------------------------------------------


def test_a_login_moves_the_session(config):
    """A login moves the session to a new id, with its data and a new CSRF token; the old id opens nothing."""
    browser = Browser(config)
    browser.write(cart=["book"])
    before = browser.begin()
    token, cookie = before.session.get_csrf_token(), browser.cookie
    browser.end(before)
    log_in_at(browser)
    request = browser.begin()

    assert request.session.id != before.session.id
    assert request.session["cart"] == ["book"]
    assert request.session.get_csrf_token() != token
    assert Request(config, cookie).session == {}
    assert len(listed(config)) == 1


def test_a_login_moves_the_session_once(here):
    """What this request has moved already, or has begun, is not moved again."""
    begun = Browser(here).begin()
    first = begun.session.id
    begun.session.bind(USER)
    browser = Browser(here)
    browser.write(cart=1)
    moved = browser.begin()
    moved.session.regenerate_id()
    second = moved.session.id
    moved.session.bind(USER)
    moved.session.bind(USER)

    assert (begun.session.id, moved.session.id) == (first, second)
    browser.end(moved)
    assert browser.read() == {"cart": 1}


def test_a_logout_is_listed_no_more(config):
    """``invalidate()`` and ``delete()`` end the login in the list, too."""
    for end in ("invalidate", "delete"):
        browser = log_in(config)
        request = browser.begin()
        getattr(request.session, end)()
        browser.end(request)

        assert not is_in(browser)
        assert listed(config) == []
        assert entries(config) is None


def test_an_unbound_session_stays(config):
    """``unbind()`` keeps the session, its data and its id; it is listed no more, and revoked no more."""
    browser = log_in(config)
    request = browser.begin()
    request.session.unbind()
    browser.end(request)

    assert listed(config) == []
    assert UserIndex(config).revoke(USER) == 0
    assert is_in(browser)
    assert browser.begin().session.id == request.session.id
    assert not {INDEX, LOGIN, LISTED} & stored(config, request.session.id).keys()


def test_a_login_again_goes_on(config, clock):
    """A bind of the same user moves the session and keeps its login; a new note replaces the old one."""
    browser = log_in(config, note={"browser": "Firefox"})
    (before,) = listed(config)
    clock.now += 10
    log_in_at(browser)
    (again,) = listed(config)
    log_in_at(browser, note={"browser": "Chrome"})
    (noted,) = listed(config)

    assert again == before._replace(last_seen=again.last_seen)
    assert (noted.handle, noted.created, noted.note) == (before.handle, before.created, {"browser": "Chrome"})
    assert is_in(browser)


def test_another_user_in_the_same_browser(config):
    """A bind of another user leaves the login before."""
    browser = log_in(config)
    log_in_at(browser, "another")

    assert listed(config) == []
    assert entries(config) is None
    assert len(listed(config, "another")) == 1
    assert is_in(browser)


def test_a_bind_and_an_unbind_come_to_nothing(here):
    """What is unbound before the commit was never bound; an unbind without a login does nothing."""
    browser = Browser(here)
    request = browser.begin()
    request.session.bind(USER)
    request.session.unbind()
    browser.end(request)
    request = browser.begin()
    request.session.unbind()
    browser.end(request)

    assert listed(here) == []
    assert entries(here) is None


def test_revert_takes_a_bind_back(here):
    """``revert()`` undoes ``bind()`` and ``unbind()``; a new id stays."""
    browser = Browser(here)
    browser.write(cart=1)
    request = browser.begin()
    request.session.bind(USER)
    request.session.revert()
    browser.end(request)
    unbound = listed(here)
    log_in_at(browser)
    request = browser.begin()
    request.session.unbind()
    request.session.revert()
    browser.end(request)

    assert unbound == []
    assert len(listed(here)) == 1
    assert browser.read() == {"cart": 1, "name": "Ann"}


def test_a_bind_can_be_too_late(here):
    """After the headers, no cookie can carry the new id; when the request is over, nothing is committed."""
    browser = log_in(here)
    request = browser.begin()
    request.exchange.mark_headers_sent()
    with pytest.raises(SessionTooLateError):
        request.session.bind("another")
    new = Browser(here).begin()
    new.exchange.mark_headers_sent()
    with pytest.raises(SessionTooLateError):
        new.session.bind("another")
    request.commit()
    request.exchange.end()
    for call in (request.session.unbind, lambda: request.session.bind("another")):
        with pytest.raises(SessionTooLateError):
            call()

    assert listed(here, "another") == []
    assert is_in(browser)


def test_an_unbind_is_not_too_late_in_a_body(here):
    """It needs no cookie, so it is possible until the request is over."""
    browser = log_in(here)
    request = browser.begin()
    request.exchange.mark_headers_sent()
    request.session.unbind()
    request.commit()

    assert listed(here) == []
    assert is_in(browser)


def test_a_session_found_by_its_id(here):
    """What ``get_by_id()`` finds can be bound, unbound and deleted, as a request's own."""
    browser = Browser(here)
    browser.write(name="Ann")
    request = browser.begin()
    found = request.session.get_by_id(request.session.id)
    found.bind(USER, {"by": "a script"})
    found.commit()
    moved = request.session.get_by_id(found.id)

    assert notes(here) == [{"by": "a script"}]
    assert not is_in(browser)
    moved.unbind()
    moved.commit()
    assert listed(here) == []
    moved.bind(USER)
    moved.commit()
    moved.delete()
    moved.commit()
    assert listed(here) == []
    assert request.session.get_by_id(moved.id) is None


def test_a_login_after_an_earlier_request_has_moved_the_session(here):
    """A double-clicked login: the second one finds that the session has moved, and has a login of its own."""
    browser = Browser(here)
    browser.write(cart=1)
    first, second = browser.begin(), browser.begin()
    first.session.bind(USER)
    browser.end(first)
    late = Request(here, second.environ["HTTP_COOKIE"])
    for request in (second, late):
        request.session.bind(USER)
        request.commit()

    assert second.set_cookie is not None
    assert late.set_cookie is not None
    assert len(listed(here)) == 3
    assert UserIndex(here).revoke(USER) == 3


def test_a_detached_session_can_be_bound_to_nothing(here):
    """A session that was ended while its request was under way is not saved, whatever it is bound to."""
    browser = log_in(here)
    request = browser.begin()
    UserIndex(here).revoke(USER)
    request.session["a"] = 1
    request.commit()
    request.session.bind(USER)
    request.commit()

    assert listed(here) == []
    assert request.set_cookie is None


# -- What was left behind ----------------------------------------------------------------------------


class KilledError(BaseException):
    """The process is killed here."""


def killed(config, moment, act):
    """Do something, and kill the process that does it before its n-th swap; return whether it came to that."""

    def kill():
        raise KilledError

    store = watched(config)
    store.before_swap[moment] = kill
    try:
        act()
    except KilledError:
        return True
    finally:
        config.store = store._store
    return False


@pytest.mark.parametrize("finish", ["list", "login", "revoke", "purge"])
@pytest.mark.parametrize("moment", [2, 3, 4])
def test_an_end_whose_process_was_killed_is_finished(tmp_path, secret, clock, finish, moment):
    """The next list, login, revoke or purge finishes what a killed process has begun."""
    config = config_of(type="file", data_dir=str(tmp_path), key="sid", secret=secret, timeout=TIMEOUT, clock=clock)
    browsers = [log_in(config), log_in(config)]
    assert killed(config, moment, lambda: UserIndex(config).revoke(USER))
    if finish == "list":
        assert listed(config) == []
    elif finish == "login":
        log_in(config)
    elif finish == "revoke":
        UserIndex(config).revoke(USER)
    else:
        purge(config)

    assert not any(map(is_in, browsers))
    assert len(entries(config) or ()) == (finish == "login")


def test_logins_whose_sessions_are_gone_are_removed(config, clock):
    """An entry whose session is gone is removed by a list, once it is over 300 seconds old; a young one stays."""
    request = Browser(config).begin()
    request.session.bind(USER)
    # The record is never written.
    assert killed(config, 2, request.commit)
    young = (listed(config), len(entries(config)))
    clock.now += MOVED_FOR
    still = (listed(config), len(entries(config)))
    clock.now += 1

    assert young == still == ([], 1)
    assert listed(config) == []
    assert entries(config) is None


@pytest.mark.parametrize("looks", ["list", "limit", "many", "purge"])
def test_logins_that_have_expired_are_removed(tmp_path, secret, clock, looks):
    """Whoever looks at the logins removes those that have expired, though their records are still there."""
    config = config_of(type="file", data_dir=str(tmp_path), key="sid", secret=secret, timeout=TIMEOUT, clock=clock)
    for _ in range(PRUNE_EVERY - 1 if looks == "many" else 2):
        log_in(config)
    clock.now += TIMEOUT + MOVED_FOR + 1
    if looks == "list":
        assert listed(config) == []
    elif looks == "purge":
        purge(config)
    else:
        log_in(config, limit=1 if looks == "limit" else None)

    assert len(entries(config) or ()) == (looks in ("limit", "many"))


@pytest.mark.parametrize("is_between_ids", [False, True])
def test_a_request_that_renews_a_session_just_in_time_stays_listed(here, clock, is_between_ids):
    """A session that a list finds expired is not removed from it at once: a request may be renewing it."""
    browser = log_in(here)
    if is_between_ids:
        # Its other id has no record.
        rotation = browser.begin()
        rotation.session.regenerate_id()
        assert killed(here, 2, rotation.commit)
    clock.now += TIMEOUT
    request = browser.begin()
    clock.now += 1
    between = listed(here)
    browser.end(request)

    assert between == []
    assert len(listed(here)) == 1


def test_a_login_that_lost_its_record_counts_no_more(here):
    """A session that was unbound by a process that was killed then is not listed; it cannot be revoked."""
    browser = log_in(here)
    request = browser.begin()
    request.session.unbind()
    assert killed(here, 2, request.commit)

    assert listed(here) == []
    assert UserIndex(here).revoke(USER) == 1
    assert is_in(browser)


@pytest.mark.parametrize("moment", range(1, 5))
def test_a_login_between_two_ids_is_listed(here, moment):
    """A rotation whose process was killed leaves a login that is listed once, and that a revoke ends under each id."""
    browser = log_in(here)
    before = browser.begin().session.id
    request = browser.begin()
    request.session.regenerate_id()
    assert killed(here, moment, request.commit)
    open_before = len(listed(here))
    UserIndex(here).revoke(USER)

    assert open_before == 1
    for session_id in (before, request.session.id):
        assert request.session.get_by_id(session_id) is None
    assert listed(here) == []


def test_a_reader_that_does_not_know_the_new_id_yet_still_lists_the_login(here):
    """A list that read the index before a rotation, and the record after it, finds the tombstone, and lists it."""
    browser = log_in(here)
    request = browser.begin()
    request.session.regenerate_id()
    store = watched(here)
    read = store._store.read
    found = []

    def late_read(session_id):
        if session_id == before and not found:
            found.append(True)
            browser.end(request)
        return read(session_id)

    before = next(iter(entries(here).values()))["ids"][0]
    store.read = late_read
    (session,) = listed(here)

    assert (found, session.last_seen, session.created) == ([True], None, START)


# -- The life of an index ----------------------------------------------------------------------------


def kept_until(config):
    return stored(config, index_of(config))[UNTIL]


def test_an_index_outlives_its_sessions(here, clock):
    """It is kept for a day at least, or twice as long as a session; a touch past half of that keeps it longer."""
    browser = log_in(here)
    first = kept_until(here)
    for _ in range(200):
        clock.now += TIMEOUT / 2
        assert is_in(browser)
        assert kept_until(here) > clock.now + TIMEOUT

    assert first == START + SHORTEST
    assert len(listed(here)) == 1


def test_an_index_lasts_as_long_as_the_longest_of_its_sessions(here, clock):
    """Also where one session was given a timeout of its own, in a request or in an ``exclusive()`` block."""
    for in_block in (False, True):
        browser = log_in(here)
        request = browser.begin()
        if in_block:
            with request.session.exclusive():
                request.session.set_expiry(10**6)
        else:
            request.session.set_expiry(10**6)
        browser.end(request)

        assert kept_until(here) >= clock.now + 2 * 10**6
        clock.now += 10**6
        assert len(listed(here)) == 1
        assert UserIndex(here).revoke(USER) == 1
        assert not is_in(browser)


def test_a_session_that_lasts_for_good(memory, clock):
    """With neither timeout the index never expires."""
    config = memory(timeout=None)
    browser = log_in(config)
    clock.now += 10**9

    assert kept_until(config) is None
    assert UserIndex(config).revoke(USER) == 1
    assert not is_in(browser)


def test_an_index_with_an_absolute_timeout(memory, clock):
    """It is kept for that long after the last login, and no touch renews it."""
    config = memory(absolute_timeout=10**6)
    browser = log_in(config)
    clock.now += 1000
    browser.read()

    assert kept_until(config) == START + 10**6 + GRACE


def test_a_timeout_that_was_taken_away(memory, clock):
    """A site that drops its timeout: a session that is written then has its index for good."""
    browser = log_in(memory())
    browser.write(a=1)
    browser.config = memory(timeout=None)
    browser.write(a=2)

    assert kept_until(browser.config) is None


def test_an_index_that_is_over_is_none(here, clock):
    """Where a server has not removed it yet, it lists nobody, and the next login begins another one."""
    log_in(here)
    clock.now += SHORTEST
    before = listed(here)
    log_in(here)

    assert before == []
    assert len(entries(here)) == 1


# -- Secrets -----------------------------------------------------------------------------------------


@pytest.fixture
def secrets(memory):
    """Return the configuration from before a change of the secret, and the one from after it."""
    before = memory(secret="the secret from before, of 32 bytes or more" + memory().options.secret)
    return before, memory(previous_secrets=[before.options.secret])


def test_a_login_under_a_previous_secret(secrets):
    """It is listed and revoked, and moves with the next commit that signs its cookie anew; its handle stays."""
    before, after = secrets
    old, moved = log_in(before, note={"n": 1}), log_in(before, note={"n": 2})
    untouched = listed(after)
    browser = Browser(after)
    browser.cookie = moved.cookie
    browser.read()
    both = listed(after)

    assert sorted(note["n"] for note in notes(after)) == [1, 2]
    assert {session.handle for session in both} == {session.handle for session in untouched}
    assert [entry["note"]["n"] for entry in entries(before).values()] == [1]
    assert [entry["note"]["n"] for entry in entries(after).values()] == [2]
    handles = {session.note["n"]: session.handle for session in untouched}
    assert UserIndex(after).revoke_one(handles[2])
    assert not is_in(browser)
    assert UserIndex(after).revoke(USER) == 1
    assert not is_in_with(after, old.cookie)
    assert listed(after) == []


def test_a_handle_from_before_the_change_of_the_secret(secrets):
    """A page from before the change still ends the session that it showed, wherever that is listed now."""
    before, after = secrets
    browser = log_in(before)
    handle = listed(before)[0].handle
    browser.config = after
    browser.read()

    assert UserIndex(after).revoke_one(handle)
    assert not is_in(browser)


def test_another_secret_finds_no_user():
    """What another secret makes of a hidden user's id is never taken for one, whether it is a text or not."""
    key = UserKey("the secret")
    index_id = key.index_of("7")
    hidden = key.hidden("7", index_id)

    assert key.user_in(index_id, hidden) == "7"
    assert {UserKey(f"secret {number}").user_in(index_id, hidden) for number in range(20)} == {None}


@pytest.mark.parametrize("kind", [read, write, regenerate, log_in_again])
@pytest.mark.parametrize("by", ["user", "handle"])
def test_a_revoke_while_a_login_moves(secrets, kind, by):
    """A revoke that meets a login on its way from one index to the other ends it, at whichever moment."""
    before, after = secrets
    for moment in range(1, 10):
        browser = log_in(before)
        handle = listed(after)[0].handle
        cookie = browser.cookie
        browser.config = after
        request = browser.begin()
        store, index = watched(after), UserIndex(after)
        store.before_swap[moment] = partial(index.revoke, USER) if by == "user" else partial(index.revoke_one, handle)
        kind(request.session)
        browser.end(request)
        store.before_swap.pop(moment, list)()
        after.store = store._store

        assert not is_in_with(after, browser.cookie) or kind is log_in_again
        assert not is_in_with(after, cookie)
        if kind is log_in_again:
            # The login under the new secret is another one, which may begin after the end.
            index.revoke(USER)
            assert not is_in_with(after, browser.cookie)
        assert listed(after) == []


def test_a_revoke_counts_a_login_that_moves_once(secrets):
    """A login that both indexes list is one."""
    before, after = secrets
    browser = log_in(before)
    browser.config = after
    request = browser.begin()
    # It is copied, and not yet removed.
    assert killed(after, 3, lambda: browser.end(request))

    assert len(listed(after)) == 1
    assert UserIndex(after).revoke(USER) == 1


@pytest.mark.parametrize("on_limit", ["end", "refuse"])
def test_a_limit_counts_logins_under_previous_secrets(secrets, clock, on_limit):
    """The limit holds over a change of the secret."""
    before, after = secrets
    old = log_in(before)
    clock.now += 1
    request = Browser(after).begin()
    if on_limit == "refuse":
        with pytest.raises(SessionLimitError):
            request.session.bind(USER, limit=1, on_limit="refuse")
        assert is_in_with(after, old.cookie)
        return
    request.session.bind(USER, limit=1)
    request.commit()

    assert not is_in_with(after, old.cookie)
    assert len(listed(after)) == 1
    assert request.told == [("SessionRevoked", {"name": "Ann"})]


def test_an_index_is_kept_for_a_login_that_has_moved(secrets, clock):
    """The index under the new secret is kept for as long as the session, though the old one was kept longer."""
    before, after = secrets
    long = log_in(before)
    request = long.begin()
    request.session.set_expiry(10**6)
    long.end(request)
    browser = log_in(before)
    browser.config = after
    for _ in range(200):
        clock.now += TIMEOUT / 2
        assert is_in(browser)

    assert UserIndex(after).revoke(USER) == 2
    assert not is_in(browser)


def test_several_previous_secrets(memory):
    """A login under any of them is listed, moved and revoked."""
    secrets = [f"secret {number}, of thirty-two bytes or more, {memory().options.secret}" for number in range(3)]
    logins = [log_in(memory(secret=secret), "Ω-4711") for secret in secrets[1:]]
    config = memory(secret=secrets[0], previous_secrets=secrets[1:])
    logins.append(log_in(config, "Ω-4711"))
    for browser in logins:
        browser.config = config
    before = {session.handle for session in listed(config, "Ω-4711")}
    assert all(map(is_in, logins))
    after = {session.handle for session in listed(config, "Ω-4711")}

    assert before == after
    assert len(after) == len(entries(config, "Ω-4711")) == 3
    assert all(map(UserIndex(config).revoke_one, after))
    assert not any(map(is_in, logins))


def test_a_touch_that_fails_moves_no_login(memory):
    """A login is not ended because its record could not be written under the new secret."""
    old = "the secret from before, of 32 bytes or more" + memory().options.secret
    browser = Browser(memory(secret=old, data_serializer="pickle"))
    request = browser.begin()
    request.session["name"] = {1: "JSON takes no such key"}
    request.session.bind(USER)
    browser.end(request)
    browser.config = memory(previous_secrets=[old], legacy_serializer="pickle")

    assert is_in(browser)
    assert is_in(browser)
    assert len(listed(browser.config)) == 1


# -- Bytes -------------------------------------------------------------------------------------------


class Words:
    """A serializer of an application's own."""

    def dumps(self, record):
        return json.dumps(record).encode("ascii")[::-1]

    def loads(self, raw):
        return json.loads(raw[::-1])


ENCRYPTED = {"encrypt_key": "a key that encrypts, of 32 bytes or more", "validate_key": "v" * 40}


@pytest.mark.parametrize("options", [{}, {"data_serializer": "pickle"}, {"data_serializer": Words()}, ENCRYPTED])
def test_serializers(memory, options):
    """A login is listed and ended with each serializer, and encrypted."""
    config = memory(**options)
    one, other = log_in(config, note={"browser": "Firefox"}), log_in(config, note={})

    assert {str(note) for note in notes(config)} == {"{'browser': 'Firefox'}", "{}"}
    request = one.begin()
    assert revoke(request, USER, except_current=True) == 1
    assert is_in(one)
    assert other.begin().session.revoked == "revoked"


@pytest.mark.parametrize("store", [name for name in STORES if name != "memcached"], indirect=True)
@pytest.mark.parametrize("encrypted", [False, True])
def test_no_user_stands_in_the_store(store, secret, clock, encrypted):
    """No byte of the store names a user: neither an id nor a record, however it is read."""
    options = ENCRYPTED if encrypted else {}
    config = config_of(**store, key="sid", secret=secret, timeout=TIMEOUT, clock=clock, **options)
    user = f"user-{secret[-20:]}"
    request = Browser(config).begin()
    request.session.bind(user)
    request.commit()
    UserIndex(config).revoke_one(listed(config, user)[0].handle)
    request = Browser(config).begin()
    request.session.bind(user)
    request.commit()
    kept = [each for page in config.store.scan() for each in page if each[1] is not None]
    config.store.close()

    assert index_of(config, user) in dict(kept)
    for name, record in kept:
        texts = [name.encode(), record.raw]
        # A server also keeps what other tests have written, under other keys.
        with suppress(DamagedRecordError):
            texts.append(repr(config.codec.decode(record.raw)).encode())
        for form in (user.encode(), base64.b64encode(user.encode())[:-4], user.encode().hex().encode()):
            assert not any(form in text for text in texts)


def test_a_copied_index_is_damaged(memory):
    """Who can write to the store, and not read it, cannot make one user's index another's."""
    config = memory(**ENCRYPTED)
    log_in(config)
    raw = config.store.read(index_of(config)).raw
    config.store.swap(index_of(config, "another"), None, raw)

    with pytest.raises(DamagedRecordError, match="it is no index of a user's sessions"):
        listed(config, "another")
    with pytest.raises(DamagedRecordError):
        UserIndex(config).revoke("another")


def test_an_index_from_before_the_encryption_is_bound_to_its_id(memory):
    """What is encrypted later is bound to its id, too."""
    plain, config = memory(), memory(**ENCRYPTED)
    log_in(plain)
    config.store.swap(index_of(config), config.store.read(index_of(config)), None)
    log_in(config)

    assert stored(config, index_of(config))["_id"] == index_of(config)


DAMAGE = [
    {"a": 1},
    {LOGINS: []},
    {LOGINS: {"x": 1}},
    {LOGINS: {"x": {"ids": ["../x"], "state": "live", "created": 1, "note": None}}},
    {LOGINS: {"x": {"ids": [7], "state": "live", "created": 1, "note": None}}},
    {LOGINS: {"x": {"ids": [], "state": 7, "created": 1, "note": None}}},
    {LOGINS: {"x": {"ids": [], "state": "live", "created": None, "note": None}}},
    {LOGINS: {"x": {"ids": [], "state": "live", "created": 1, "note": "text"}}},
    {LOGINS: {"x": {"ids": None, "state": "live", "created": 1, "note": None}}},
    b"no record",
]


def damage(config, content=b"no record"):
    """Put something else in the place of the user's index."""
    raw = config.store.envelope.wrap(content) if isinstance(content, bytes) else config.codec.encode(content)
    assert config.store.swap(index_of(config), config.store.read(index_of(config)), raw).made


@pytest.mark.parametrize("content", DAMAGE[1:], ids=str)
def test_a_damaged_index(here, caplog, content):
    """A list and a revoke raise: they cannot say that nobody is in. A login begins a new index, with a warning."""
    old = log_in(here)
    damage(here, content)
    with pytest.raises(DamagedRecordError):
        listed(here)
    with pytest.raises(DamagedRecordError):
        UserIndex(here).revoke(USER)
    browser = log_in(here)

    assert is_in(old)
    assert is_in(browser)
    assert len(listed(here)) == 1
    (line,) = caplog.records
    assert "can no longer be listed, nor revoked" in line.getMessage()
    assert index_of(here) not in line.getMessage()
    assert (line.store, line.failure) == ("memory", "damaged")


@pytest.mark.parametrize("kind", ["logout", "regenerate", "unbind", "refuse", "touch", "move", "write"])
def test_a_damaged_index_stops_no_request(memory, clock, caplog, kind):
    """With ``invalidate_corrupt`` it is as if there were none: a logout is one, and nobody gets an error page."""
    config = memory()
    browser = log_in(config)
    cookie = browser.cookie
    damage(config)
    if kind == "move":
        browser.config = memory(secret="another secret, of 32 bytes or more", previous_secrets=[config.options.secret])
    clock.now += TIMEOUT / 2
    request = browser.begin()
    if kind == "logout":
        request.session.invalidate()
    elif kind == "refuse":
        request.session.bind(USER, limit=2, on_limit="refuse")
    elif kind == "write":
        request.session["a"] = 1
    elif kind in ("regenerate", "unbind"):
        getattr(request.session, {"regenerate": "regenerate_id"}.get(kind, kind))()
    browser.end(request)

    # What an index does not list cannot be moved to another id.
    assert is_in_with(config, cookie) == (kind in ("unbind", "touch", "move", "write"))
    assert {record.levelname for record in caplog.records} <= {"WARNING"}


def test_a_damaged_index_where_damage_is_an_error(memory):
    """Without ``invalidate_corrupt`` a login raises, too, and leaves no session."""
    config = memory(invalidate_corrupt=False)
    log_in(config)
    damage(config)
    request = Browser(config).begin()
    request.session.bind(USER)

    with pytest.raises(DamagedRecordError):
        request.commit()
    assert stored(config, request.session.id) is None


def test_a_damaged_record_is_ended(here):
    """A session whose record cannot be read by this process is ended as any: another process may read it."""
    browser = log_in(here)
    session_id = browser.begin().session.id
    here.store.swap(session_id, here.store.read(session_id), here.store.envelope.wrap(b"no record"))

    assert UserIndex(here).revoke(USER) == 1
    assert stored(here, session_id)[END_REASON] == "revoked"


@pytest.mark.parametrize("keys", [{LOGIN}, {INDEX}, {LISTED}, {LOGIN, INDEX}])
def test_a_record_with_half_a_login_is_damaged(here, caplog, keys):
    """A store can hold anything: a record that names a login in part opens nothing, and breaks nothing."""
    browser = log_in(here)
    session_id = browser.begin().session.id
    content = stored(here, session_id)
    for key in {LOGIN, INDEX, LISTED} - keys:
        del content[key]
    here.store.swap(session_id, here.store.read(session_id), here.codec.encode(content))

    assert browser.read() == {}
    assert "its login" in caplog.text or "names a login in part" in caplog.text


# -- A store that fails ------------------------------------------------------------------------------


def fail():
    raise SessionStoreError("the store is down", name="memory")


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_login_while_the_store_is_down(here, moment):
    """A login whose store fails raises, sends no cookie, and leaves nobody logged in; it can be tried again."""
    browser = Browser(here)
    browser.write(cart=1)
    request = browser.begin()
    request.session["name"] = "Ann"
    request.session.bind(USER)
    store = watched(here)
    store.before_swap[moment] = fail
    with pytest.raises(SessionStoreError):
        request.commit()
    cookie, during = request.set_cookie, is_in(browser)
    request.commit()
    browser.receive(request)

    assert (cookie, during) == (None, False)
    assert is_in(browser)
    assert len(listed(here)) == len(entries(here)) == 1


def test_a_login_whose_answer_was_lost(here):
    """A login that the index has already, though its answer was lost, is listed once when it is tried again."""
    browser = Browser(here)
    request = browser.begin()
    request.session["name"] = "Ann"
    request.session.bind(USER)
    store = watched(here)
    store.after_swap[1] = fail
    with pytest.raises(SessionStoreError):
        request.commit()
    browser.end(request)

    assert is_in(browser)
    assert [len(entry["ids"]) for entry in entries(here).values()] == [1]


def test_a_revoke_while_the_store_is_down(here):
    """It raises at whichever step, and is finished when it is called again."""
    for moment in range(1, 5):
        browsers = [log_in(here), log_in(here)]
        store = watched(here)
        store.before_swap[moment] = fail
        with pytest.raises(SessionStoreError):
            UserIndex(here).revoke(USER)
        here.store = store._store
        UserIndex(here).revoke(USER)

        assert not any(map(is_in, browsers))
        assert entries(here) is None


def test_what_cannot_be_written_ends_nobody(here):
    """A login whose data the serializer refuses raises before another one ends for it."""
    other = log_in(here)
    request = Browser(here).begin()
    request.session["list"] = []
    request.session["list"].append(object())
    request.session.bind(USER, limit=1)

    with pytest.raises(SessionValueError):
        request.commit()
    assert is_in(other)
    assert len(entries(here)) == 1


# -- Where it is not possible ------------------------------------------------------------------------


def test_without_a_secret(memory):
    """Nothing is bound, listed or revoked: the names of indexes are derived from the secret."""
    request = Browser(memory(secret=None)).begin()

    for call in (
        lambda: request.session.bind(USER),
        lambda: user_sessions(request, USER),
        lambda: revoke(request, USER),
        lambda: revoke_one(request, "0" * 96),
    ):
        with pytest.raises(SettingsError, match="secret is not set: the names of users' indexes are derived from it"):
            call()


def test_cookie_sessions(memory):
    """A session in a browser can be neither listed nor ended."""
    request = Browser(memory(type="cookie", validate_key="v" * 40)).begin()
    request.session.unbind()

    for call in (request.session.bind, lambda user: user_sessions(request, user), lambda user: revoke(request, user)):
        with pytest.raises(BeakerBridgeError, match=r"on the server, got type = cookie"):
            call(USER)


def test_another_session_factory():
    """A request whose session is another package's is told so."""

    class OtherRequest:
        session: ClassVar = {}

    with pytest.raises(BeakerBridgeError, match=r"request\.session is a dict, and not of beaker_bridge"):
        user_sessions(OtherRequest(), USER)


# -- Costs -------------------------------------------------------------------------------------------


def cost(config, act):
    """Return what something asks of the store: reads and swaps of indexes, and of sessions."""
    plain, asked = config.store, []
    store = watched(config)
    store.read = lambda key: asked.append(("read", key[0] == "u")) or plain.read(key)
    swap = plain.swap
    store.swap = lambda key, *rest: asked.append(("swap", key[0] == "u")) or swap(key, *rest)
    act()
    config.store = plain
    return {
        name: asked.count((name.split()[0], name.endswith("index")))
        for name in ("read index", "swap index", "read", "swap")
    }


def in_request(browser, act):
    def visit():
        request = browser.begin()
        act(request.session)
        browser.end(request)

    return visit


COSTS = {
    "first login": (1, 1, 0, 1),
    "login": (1, 1, 1, 2),
    "login with a limit of several": (1, 1, 3, 2),
    "rotation": (2, 2, 1, 2),
    "revoke of two": (2, 2, 2, 2),
    "logout": (2, 2, 2, 2),
    "read": (0, 0, 1, 0),
    "touch": (0, 0, 1, 1),
    "write": (0, 0, 1, 1),
    "list of two": (1, 0, 2, 0),
}


@pytest.mark.parametrize("what", COSTS)
def test_what_it_costs(here, clock, what):
    """A login reads and swaps the index once, an end and a rotation twice; other requests do not ask for it."""
    browser = Browser(here)
    if what == "login" or "limit" in what:
        browser.write(cart=1)
    if what == "login with a limit of several":
        log_in(here)
        log_in(here)
    elif "login" not in what:
        log_in_at(browser)
    if what.endswith("two"):
        log_in(here)
    if what == "touch":
        clock.now += TIMEOUT / 2
    act = {
        "first login": in_request(browser, log_in_again),
        "login": in_request(browser, log_in_again),
        "login with a limit of several": in_request(browser, lambda session: session.bind(USER, limit=3)),
        "rotation": in_request(browser, regenerate),
        "revoke of two": lambda: UserIndex(here).revoke(USER),
        "logout": in_request(browser, lambda session: session.invalidate()),
        "read": in_request(browser, read),
        "touch": in_request(browser, read),
        "write": in_request(browser, write),
        "list of two": lambda: listed(here),
    }[what]

    assert tuple(cost(here, act).values()) == COSTS[what]
