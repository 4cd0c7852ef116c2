"""What a session does: it is loaded, changed, committed once, and ended."""

from __future__ import annotations

import base64
import logging
import pickle
from datetime import datetime, timezone
from itertools import permutations, product

import pytest

from beaker_bridge.cookies import MAX_COOKIE_SIZE, Signer
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionConflictError,
    SessionStoreError,
    SessionTooLargeError,
    SessionTooLateError,
    SessionValueError,
)
from beaker_bridge.logs import forget
from beaker_bridge.options.reader import given, prefixed, read_options
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.fields import ACCESSED, CREATED, EXPIRY, ID, MOVED, WRITER
from beaker_bridge.record.serializers import PickleSerializer
from beaker_bridge.request.attach import attach
from beaker_bridge.request.exchange import SessionObject
from beaker_bridge.session.base import MAX_COOKIES, new_id
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.context import SessionContext
from beaker_bridge.session.cookie import CookieSession
from beaker_bridge.session.session import GRACE, MOVED_FOR, Session
from beaker_bridge.session.state import Fate, Retired
from beaker_bridge.session.stored import standalone_session
from beaker_bridge.stores.base import Record, Swap
from tests.requests import NAME, START, Browser, Clock, Request, config_of, content, stored, watched

SECRET = "s" * 32
KEYS = {"encrypt_key": "e" * 32, "validate_key": "v" * 32}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(clock):
    return config_of(clock=clock)


@pytest.fixture
def browser(config):
    """Return a browser that has a session."""
    browser = Browser(config)
    browser.write(name="base")
    return browser


@pytest.fixture
def store(browser):
    """Return the store, watched from now on."""
    return watched(browser.config)


def cookie_of(session_id):
    return f"{NAME}={session_id}"


class BrokenStore:
    """A store that cannot be reached."""

    def __getattr__(self, name):
        def fail(*args):
            raise SessionStoreError(f"{name}: no answer")

        return fail


def break_store(config):
    """Let nothing reach a config's store, and return the store."""
    store, config.store = config.store, BrokenStore()
    return store


# -- Load --------------------------------------------------------------------------------------------


def test_a_request_without_a_cookie_begins_a_session(config):
    """Without a cookie, a session is new and empty, and has an id of 128 random bits."""
    one, other = Request(config), Request(config)

    assert one.session.new
    assert dict(one.session) == {}
    assert one.session.last_accessed is None
    assert one.session.created == START
    assert len(one.session.id) == 32
    assert one.session.id != other.session.id


def test_a_session_is_found_again(browser, clock):
    """What one request put there, the next one finds, with the time of the access before."""
    clock.now += 10
    request = browser.begin()

    assert dict(request.session) == {"name": "base"}
    assert not request.session.new
    assert request.session.id == browser.id
    assert request.session.last_accessed == START
    assert request.session.created == START


@pytest.mark.parametrize("secret", [None, SECRET])
def test_an_id_that_the_store_does_not_know_is_not_adopted(clock, secret):
    """An id of a dead session, or of the client's own making, is given to no session, signed or not."""
    config = config_of(clock=clock, secret=secret)
    request = Request(config, cookie_of(Signer([secret] if secret else []).sign("a" * 32)))
    request.session["a"] = 1
    request.commit()

    assert request.session.new
    assert request.session.id != "a" * 32
    assert stored(config, "a" * 32) is None
    assert request.session.id in request.set_cookie


@pytest.mark.parametrize("session_id", ["A" * 32, "a" * 31, "../" * 11, "a" * 32 + "\x00", "", "é" * 32])
def test_what_has_not_the_form_of_an_id_never_reaches_the_store(config, session_id):
    """A cookie may hold anything; the store is asked for ids only."""
    store = watched(config)

    assert Request(config, cookie_of(session_id)).session.new
    assert store.calls == []


def test_a_cookie_that_is_not_signed_opens_nothing(clock):
    """With a secret, an id that it has not signed is no id."""
    browser = Browser(config_of(clock=clock, secret=SECRET))
    browser.write(a=1)
    signed = browser.cookie
    browser.cookie = cookie_of(signed[-32:])

    assert browser.begin().session.new
    browser.cookie = signed
    assert browser.read() == {"a": 1}


def test_a_cookie_of_a_dead_session_does_not_hide_a_living_one(browser, store):
    """Of several cookies of our name, from other paths or domains, the first that opens a session is taken."""
    dead, mine = cookie_of("d" * 32), browser.cookie
    browser.cookie = f"{dead}; {mine}"

    assert browser.begin().session["name"] == "base"
    assert store.calls == ["read", "read"]


def test_only_a_few_cookies_are_tried(browser, store):
    """A header full of ids does not cost a read each."""
    browser.cookie = "; ".join([cookie_of(new_id()) for _ in range(100)] + [browser.cookie])

    assert browser.begin().session.new
    assert store.calls == ["read"] * MAX_COOKIES


def test_a_cookie_is_not_read_where_none_is_used(browser, clock):
    """With use_cookies = false no cookie is read, and none is sent."""
    request = browser.begin(config_of(clock=clock, use_cookies=False))
    request.session["a"] = 1
    request.commit()

    assert request.session.id != browser.id
    assert stored(browser.config, request.session.id)["a"] == 1
    assert request.set_cookie is None


def test_a_stub_that_beaker_left_is_no_session(config):
    """What Beaker's delete() leaves of a session is taken for nothing, and not for an end that is told."""
    session_id = new_id()
    config.store.swap(session_id, None, config.codec.seal(config.codec.serialize({"_domain": None, "_path": "/"})))
    request = Request(config, cookie_of(session_id))
    request.session["a"] = 1
    request.commit()

    assert request.session.new
    assert request.session.id != session_id
    assert request.told == []


def test_a_record_without_times_begins_now(config):
    """A record that somebody wrote without times is a session whose time begins."""
    session_id = new_id()
    config.store.swap(session_id, None, config.codec.seal(config.codec.serialize({"a": 1})))

    assert Request(config, cookie_of(session_id)).session.created == START


def test_a_damaged_record_becomes_a_new_session(browser, config, caplog):
    """A record that cannot be read is warned about, with no more of the id than a log may hold."""
    session_id = browser.id
    config.store.swap(session_id, config.store.read(session_id), b"garbage")
    request = browser.begin()

    assert request.session.new
    assert "it opens nothing" in caplog.text
    assert session_id not in caplog.text
    assert config.store.read(session_id).raw == b"garbage"


def test_a_damaged_record_raises_where_that_is_asked_for(browser, clock):
    """With invalidate_corrupt = false a damaged record is an error."""
    config = config_of(clock=clock, invalidate_corrupt=False)
    config.store.swap(browser.id, config.store.read(browser.id), b"garbage")

    with pytest.raises(DamagedRecordError):
        browser.begin(config)


# -- A store that cannot be reached ------------------------------------------------------------------


def test_a_store_that_cannot_be_reached_raises(browser):
    """A store error is never taken for 'no such session'."""
    break_store(browser.config)

    with pytest.raises(SessionStoreError):
        browser.begin()


@pytest.fixture
def empty(browser, clock):
    """Return the configuration that serves empty sessions instead."""
    return config_of(clock=clock, store_error="empty")


def test_an_empty_session_is_served_instead(browser, empty, caplog):
    """With store_error = empty the page is served; nothing is saved, and the user stays logged in."""
    store = break_store(empty)
    request = browser.begin(empty)
    request.session["a"] = 1
    empty.store = store
    request.commit()

    assert request.set_cookie is None
    assert "an empty session is served" in caplog.text
    assert stored(empty, request.session.id) is None
    assert browser.read() == {"name": "base"}


def test_a_visitor_without_a_session_is_served_too(empty, caplog):
    """Nor does a page fail that begins a session while the store is down: it sends no cookie, and saves nothing."""
    request = Request(empty)
    request.session["a"] = 1
    store = break_store(empty)
    request.commit()
    empty.store = store
    request.commit()

    assert request.set_cookie is None
    assert "a new session is not saved" in caplog.text
    assert stored(empty, request.session.id) is None


def test_a_change_that_cannot_be_written_raises(browser, empty):
    """A session that was read is never silently not saved."""
    request = browser.begin(empty)
    request.session["a"] = 1
    break_store(empty)

    with pytest.raises(SessionStoreError):
        request.commit()


def test_a_logout_holds_though_the_store_was_down(browser, empty):
    """A session that could not be read is deleted by the logout, once the store is back."""
    store = break_store(empty)
    request = browser.begin(empty)
    request.session.invalidate()
    empty.store = store
    session_id = browser.id
    browser.end(request)

    assert stored(empty, session_id) is None
    assert browser.cookie == ""
    assert request.told == [("SessionInvalidated", {"name": "base"})]


def test_a_logout_that_cannot_be_made_raises(browser, empty):
    """A logout that does not reach the store is not said to have happened."""
    break_store(empty)
    request = browser.begin(empty)
    request.session.invalidate()

    with pytest.raises(SessionStoreError):
        request.commit()
    assert request.set_cookie is None


def test_a_login_while_the_store_was_down_is_a_new_session(browser, empty):
    """A login begins a session of its own where the one before could not be read."""
    store = break_store(empty)
    request = browser.begin(empty)
    request.session.regenerate_id()
    request.session["user"] = "ada"
    empty.store = store
    browser.end(request)

    assert browser.read() == {"user": "ada"}


# -- Time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "lives", "dies"),
    [({"timeout": 100}, 100, 101), ({"absolute_timeout": 100}, 100, 101), ({"timeout": 100}, 0, 10_000)],
)
def test_a_session_expires(clock, options, lives, dies):
    """A session that is over is deleted when its id is next brought; the event has its last data."""
    browser = Browser(config_of(clock=clock, **options))
    browser.write(a=1)
    session_id = browser.id
    clock.now = START + lives
    assert not browser.begin().session.new
    clock.now = START + dies
    request = browser.begin()

    assert request.session.new
    assert request.session.id != session_id
    assert stored(browser.config, session_id) is None
    assert request.told == [("SessionExpired", {"a": 1})]


def test_activity_does_not_prolong_the_absolute_timeout(clock):
    """With absolute_timeout a session ends when it is that old, however busy it is."""
    browser = Browser(config_of(clock=clock, timeout=50, absolute_timeout=100))
    browser.write(a=0)
    for second in (40, 80, 100):
        clock.now = START + second
        assert browser.write(a=second).session.created == START
    clock.now += 1

    assert browser.begin().session.new


def test_an_end_that_cannot_be_written_is_an_end(clock, caplog):
    """A record that is over opens nothing, also where the store does not let it be deleted."""
    browser = Browser(config_of(clock=clock, timeout=100))
    browser.write(a=1)
    clock.now += 101
    watched(browser.config).before_swap[1] = BrokenStore().swap
    request = browser.begin()

    assert request.session.new
    assert request.told == []
    assert "its record cannot be deleted" in caplog.text


def test_a_read_renews_the_access_time_at_most_every_reissue_time(clock):
    """A request that only reads writes its time when that is due, and then again a reissue_time later."""
    browser = Browser(config_of(clock=clock, timeout=1000, reissue_time=100))
    browser.write(a=1)
    store = watched(browser.config)
    times = []
    for second in (99, 100, 150, 199, 200):
        clock.now = START + second
        browser.read()
        times.append(stored(browser.config, browser.id)[ACCESSED] - START)

    assert times == [0, 100, 100, 100, 200]
    assert store.calls.count("swap") == 2
    assert content(stored(browser.config, browser.id)) == {"a": 1}


def test_without_the_access_time_a_read_writes_nothing(clock):
    """With save_accessed_time = false a request that only reads never writes; one that writes sets the time."""
    browser = Browser(config_of(clock=clock, save_accessed_time=False))
    browser.write(a=1)
    clock.now += 10_000
    store = watched(browser.config)
    browser.read()
    assert store.calls == ["read"]
    browser.write(b=1)

    assert stored(browser.config, browser.id)[ACCESSED] == clock.now


def test_a_write_between_does_not_put_the_renewal_off(clock):
    """A cookie with a lifetime is renewed after a reissue_time, though writes come more often than that."""
    browser = Browser(config_of(clock=clock, cookie_expires=1000, reissue_time=100))
    browser.write(a=0)
    sent = []
    for second in (60, 120, 180, 240):
        clock.now = START + second
        sent.append(browser.write(a=second).set_cookie is not None)

    assert sent == [False, True, False, True]


def test_a_cookie_with_a_lifetime_is_renewed_by_reading(clock):
    """A cookie's lifetime counts from the last renewal, and not from the login."""
    browser = Browser(config_of(clock=clock, cookie_expires=1000))
    browser.write(a=1)
    clock.now += 99
    assert browser.end(browser.begin()).set_cookie is None
    clock.now += 1
    request = browser.end(browser.begin())

    assert "Max-Age=1000" in request.set_cookie
    assert browser.id == request.session.id


def test_a_cookie_that_ends_with_the_browser_is_not_sent_again(browser, clock):
    """A cookie without a lifetime has nothing to be renewed."""
    clock.now += 100
    request = browser.end(browser.begin())

    assert stored(browser.config, browser.id)[ACCESSED] == clock.now
    assert request.set_cookie is None


def test_a_renewal_that_another_request_has_made_sends_no_cookie(clock):
    """A request that loses its renewal leaves all to the one that has won it."""
    browser = Browser(config_of(clock=clock, cookie_expires=1000))
    browser.write(a=1)
    clock.now += 500
    one, other = browser.begin(), browser.begin()
    other.session["b"] = 1
    other.commit()
    store = watched(browser.config)
    one.commit().commit()

    assert other.set_cookie is not None
    assert one.set_cookie is None
    assert store.calls == ["swap"]


@pytest.mark.parametrize("writes", [True, False])
def test_a_cookie_that_is_due_is_not_sent_for_a_session_that_ended_meanwhile(clock, writes):
    """Without a swap that was made there is no cookie, also where its renewal and a new signature are due."""
    browser = Browser(config_of(clock=clock, secret=SECRET))
    browser.write(a=1)
    clock.now += 500
    current = config_of(clock=clock, secret="n" * 32, previous_secrets=SECRET, cookie_expires=1000)
    request, logout = browser.begin(current), browser.begin()
    if writes:
        request.session["b"] = 1
    logout.session.invalidate()
    logout.commit()
    store = watched(current)
    request.commit().commit()

    assert request.set_cookie is None
    assert store.calls == ["swap"]


def test_a_renewal_that_fails_does_not_fail_the_request(browser, clock, caplog):
    """A read-only request is served though its access time cannot be saved."""
    clock.now += 100
    request = browser.begin()
    break_store(browser.config)
    request.commit()

    assert request.session["name"] == "base"
    assert "its access time is not saved" in caplog.text


@pytest.mark.parametrize(
    ("options", "expiry", "expected"),
    [
        ({}, None, None),
        ({"timeout": 500}, None, 500 + GRACE),
        ({"absolute_timeout": 800}, None, 700 + GRACE),
        ({"timeout": 500, "absolute_timeout": 800}, None, 500 + GRACE),
        ({"timeout": 500}, 10_000, 10_000 + GRACE),
        ({}, 50, 50 + GRACE),
    ],
)
def test_the_server_may_forget_a_record_after_its_end(clock, options, expiry, expected):
    """A store that expires records itself is told when the session is certainly over."""
    browser = Browser(config_of(clock=clock, **options))
    browser.write(a=1)
    clock.now += 100
    store = watched(browser.config)
    request = browser.begin()
    request.session.set_expiry(expiry)
    request.session["b"] = 1
    request.commit()

    assert store.expiries == [expected]


# -- set_expiry --------------------------------------------------------------------------------------


def test_a_session_can_have_an_expiry_of_its_own(clock):
    """set_expiry() gives one session its own idle timeout and cookie lifetime, which later requests keep."""
    browser = Browser(config_of(clock=clock, timeout=100))
    request = browser.begin()
    request.session["a"] = 1
    request.session.set_expiry(5000)
    browser.end(request)
    assert "Max-Age=5000" in request.set_cookie
    clock.now += 4999
    later = browser.end(browser.begin())

    assert later.session.timeout == 5000
    assert "Max-Age=5000" in later.set_cookie
    assert EXPIRY not in later.session
    clock.now += 5001
    assert browser.begin().session.new


def test_an_expiry_can_be_shorter_than_the_options(clock):
    """A session's own expiry counts, also where it is the shorter one, and is renewed in good time."""
    browser = Browser(config_of(clock=clock, timeout=1000, reissue_time=500))
    request = browser.begin()
    request.session["a"] = 1
    request.session.set_expiry(50)
    browser.end(request)
    for _ in range(3):
        clock.now += 45
        assert browser.read() == {"a": 1}
    clock.now += 51

    assert browser.begin().session.new


def test_an_expiry_can_be_taken_back(clock):
    """set_expiry(None) returns to the options; the cookie is sent anew, without a lifetime."""
    browser = Browser(config_of(clock=clock, timeout=100))
    browser.write(a=1)
    for seconds in (5000, None):
        request = browser.begin()
        request.session.set_expiry(seconds)
        browser.end(request)

    assert "Max-Age" not in request.set_cookie
    clock.now += 101
    assert browser.begin().session.new


def test_an_expiry_alone_stores_nothing(config):
    """A new session with an expiry and nothing else is as empty as any."""
    request = Request(config)
    request.session.set_expiry(50)
    store = watched(config)
    request.commit()

    assert store.calls == []
    assert request.set_cookie is None


@pytest.mark.parametrize("seconds", [0, -1, 1.5, True, "60"])
def test_an_expiry_is_a_whole_number_of_seconds(config, seconds):
    """set_expiry() refuses what is no whole number of seconds, and says what it takes."""
    with pytest.raises(ValueError, match="takes a whole number of seconds"):
        Request(config).session.set_expiry(seconds)


# -- Commit ------------------------------------------------------------------------------------------


def memory(clock):
    return config_of(clock=clock)


def encrypted(clock):
    return config_of(clock=clock, **KEYS)


def automatic(clock):
    return config_of(clock=clock, auto=True)


def encrypted_automatic(clock):
    return config_of(clock=clock, auto=True, **KEYS)


def pickled(clock):
    return config_of(clock=clock, data_serializer="pickle")


def cookie_session(clock):
    return config_of(clock=clock, type="cookie", validate_key="v" * 32)


def encrypted_cookie_session(clock):
    return config_of(clock=clock, type="cookie", **KEYS)


def automatic_cookie_session(clock):
    return config_of(clock=clock, type="cookie", validate_key="v" * 32, auto=True)


@pytest.mark.parametrize("made", [automatic, encrypted_automatic, automatic_cookie_session])
def test_a_reader_writes_nothing_though_each_session_is_saved(clock, made):
    """With auto = true a session that stands there as it is is not written again, but for its access time."""
    browser = Browser(made(clock))
    browser.write(a=1)
    store = watched(browser.config) if browser.config.store else None
    assert browser.end(browser.begin()).set_cookie is None
    assert store is None or store.calls == ["read"]
    clock.now += 100
    browser.read()

    assert store is None or store.calls == ["read", "read", "swap"]
    assert browser.begin().session.last_accessed == clock.now


@pytest.mark.parametrize("made", [automatic, encrypted_automatic, automatic_cookie_session])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda session: session["cart"].append(2), {"a": 1, "cart": [1, 2]}),
        (lambda session: session.update(a=True), {"a": True, "cart": [1]}),
    ],
)
def test_other_wsgi_codes_changes_are_saved_where_each_session_is(clock, made, change, expected):
    """With auto = true a change is saved that nobody has told of, also inside a value, or of its type only."""
    browser = Browser(made(clock))
    browser.write(a=1, cart=[1])
    request = browser.begin()
    change(request.loaded)
    browser.end(request)

    assert repr(browser.read()) == repr(expected)


@pytest.mark.parametrize("made", [automatic, automatic_cookie_session])
def test_an_expiry_is_saved_where_each_session_is(clock, made):
    """With auto = true a session's own expiry is a change, though nothing else is."""
    browser = Browser(made(clock))
    browser.write(a=1)
    request = browser.begin()
    request.session.set_expiry(50)
    browser.end(request)
    clock.now += 51

    assert browser.begin().session.new


@pytest.mark.parametrize(
    ("use", "cost"),
    [
        (lambda session: session.update(a=1), ["read", "swap"]),
        (dict, ["read"]),
        (lambda _session: None, []),
    ],
    ids=["write", "read", "untouched"],
)
def test_what_a_request_costs(browser, store, use, cost):
    """An uncontended write is one read and one swap, a read is one read, and an untouched session is nothing."""
    session_object = SessionObject({"HTTP_COOKIE": browser.cookie}, browser.config)
    use(PyramidSession(session_object))
    session_object.exchange.commit()

    assert store.calls == cost


def test_a_first_write_costs_one_swap(config):
    """A new session is written without being looked for."""
    store = watched(config)
    Browser(config).write(a=1)

    assert store.calls == ["swap"]


@pytest.mark.parametrize(
    "touch",
    [
        lambda session: session.get("a"),
        lambda session: session.changed(),
        lambda session: session.pop_flash(),
        lambda session: session.clear(),
        lambda session: session.invalidate(),
        lambda session: session.regenerate_id(),
    ],
)
def test_a_new_session_that_nothing_was_put_into_leaves_nothing(config, touch):
    """Visitors of whom nothing is known get no record and no cookie."""
    store = watched(config)
    request = Request(config)
    touch(request.session)
    request.commit()

    assert store.calls == []
    assert request.set_cookie is None


def test_an_empty_session_is_stored_where_that_is_asked_for(config):
    """save() stores a new session though nothing is in it, as Beaker's does."""
    request = Request(config)
    request.session.save()
    request.commit()

    assert content(stored(config, request.session.id)) == {}
    assert request.set_cookie is not None


def test_a_session_that_was_emptied_stays_a_session(browser):
    """clear() takes the content away, and not the session."""
    request = browser.begin()
    request.session.clear()
    browser.end(request)

    assert content(stored(browser.config, browser.id)) == {}
    assert not browser.begin().session.new


def merging(request, browser):
    request.session["a"] = 1
    browser.write(b=1)


def rotating(request, browser):
    request.session.regenerate_id()
    request.session["user"] = "ada"


def ending(request, browser):
    request.session.invalidate()


def beginning_anew(request, browser):
    request.session.invalidate()
    request.session["a"] = 1


def expiring(request, browser):
    request.session.set_expiry(500)


@pytest.mark.parametrize(
    "made",
    [
        lambda clock: config_of(clock=clock),
        encrypted,
        automatic,
        encrypted_automatic,
        pickled,
        cookie_session,
        encrypted_cookie_session,
        automatic_cookie_session,
    ],
)
@pytest.mark.parametrize(
    "change",
    [lambda request, _browser: request.session.update(a=1), merging, rotating, ending, beginning_anew, expiring],
)
def test_a_second_commit_does_nothing(clock, made, change):
    """A commit with nothing new costs nothing, tells nothing, and leaves the response's cookie as it is."""
    config = made(clock)
    browser = Browser(config)
    browser.write(name="base")
    request = browser.begin()
    change(request, browser)
    request.commit()
    before = request.set_cookie, request.told
    store = watched(config) if config.store else None
    request.commit().commit()

    assert (request.set_cookie, request.told) == before
    assert store is None or store.calls == []


def test_a_change_after_the_commit_is_committed_too(browser):
    """What response callbacks set later goes into the same record."""
    request = browser.begin()
    request.session["a"] = 1
    request.commit()
    request.session["b"] = 2
    browser.end(request)

    assert browser.read() == {"name": "base", "a": 1, "b": 2}


def test_a_discarded_request_leaves_no_trace(browser, store):
    """After a discard nothing is written, and no cookie is sent, whatever is touched."""
    request = browser.begin()
    request.session["a"] = 1
    request.discard()
    request.session.invalidate()
    request.commit()

    assert store.calls == ["read"]
    assert request.set_cookie is None


def test_a_value_that_is_refused_is_named(browser, store):
    """A value that the serializer does not take raises at the commit, with its key; nothing is written."""
    request = browser.begin()
    request.session["lock"] = [[object()]]

    with pytest.raises(SessionValueError) as caught:
        request.commit()
    assert caught.value.name == "lock"
    assert store.calls == ["read"]
    assert request.set_cookie is None


def test_a_failed_first_commit_sends_no_cookie(config):
    """A new session whose record could not be written has no cookie; once it is written, it has."""
    request = Request(config)
    request.session["a"] = 1
    watched(config).before_swap[1] = BrokenStore().swap
    with pytest.raises(SessionStoreError):
        request.commit()
    assert request.set_cookie is None
    request.commit()

    assert request.session.id in request.set_cookie


@pytest.mark.parametrize("made", [lambda clock: config_of(clock=clock), encrypted])
@pytest.mark.parametrize("again", [False, True])
def test_what_was_written_before_the_answer_was_lost_is_the_base(clock, made, again):
    """A commit that is tried again finds what it has written itself, also after a second failure, and doubles
    nothing.
    """
    config = made(clock)
    request = Request(config)
    request.session.flash("saved")
    store = watched(config)
    store.after_swap[1] = store.before_swap[2] = BrokenStore().swap
    for _ in range(2):
        with pytest.raises(SessionStoreError):
            request.commit()
        if again:
            request.session.flash("sent")
    request.commit()

    assert stored(config, request.session.id)["_f_"] == ["saved", "sent", "sent"][: 1 + 2 * again]
    assert request.told == []


def test_an_expiry_that_another_request_renews_is_none(clock):
    """Where a session is renewed just before it is deleted as expired, it is opened."""
    browser = Browser(config_of(clock=clock, timeout=100))
    browser.write(a=1)
    clock.now += 100
    writer = browser.begin()
    writer.session["b"] = 1
    clock.now += 1
    watched(browser.config).before_swap[1] = writer.commit

    assert dict(browser.begin().session) == {"a": 1, "b": 1}


class LosingStore:
    """A store in which others are always faster."""

    def __init__(self, store, clock):
        self._store, self._clock = store, clock

    def __getattr__(self, name):
        return getattr(self._store, name)

    def swap(self, session_id, record, new, expires_in=None):
        return Swap(False, self._store.read(session_id))


def test_who_loses_for_too_long_gives_up(browser, clock):
    """A request that loses each swap raises when its store_timeout is over."""
    config = config_of(clock=clock, store_timeout=0.05)
    config.store = LosingStore(config.store, clock)
    request = browser.begin(config)
    request.session["a"] = 1

    with pytest.raises(SessionConflictError, match="was changed by others each time"):
        request.commit()
    assert request.set_cookie is None


def test_nothing_is_written_over_a_record_that_was_damaged_meanwhile(browser, config, caplog):
    """A record that cannot be merged is left as it is; the request's changes are not saved."""
    request = browser.begin()
    request.session["a"] = 1
    config.store.swap(browser.id, config.store.read(browser.id), b"garbage")
    request.commit()

    assert config.store.read(browser.id).raw == b"garbage"
    assert request.set_cookie is None
    assert "nothing is written over it" in caplog.text


def plain_save(request):
    request.session["a"] = 1
    request.commit()


def rotation(request):
    request.session.regenerate_id()
    request.commit()


def one_step(request):
    with request.session.exclusive():
        request.session["a"] = 1


@pytest.mark.parametrize("work", [plain_save, rotation, one_step])
def test_with_invalidate_corrupt_off_damage_at_the_commit_is_an_error(browser, clock, work):
    """What cannot be merged raises, as it does when it is loaded: no change is lost in silence, no cookie sent."""
    config = config_of(clock=clock, invalidate_corrupt=False)
    request = browser.begin(config)
    config.store.swap(browser.id, config.store.read(browser.id), b"garbage")

    with pytest.raises(DamagedRecordError):
        work(request)
    assert config.store.read(browser.id).raw == b"garbage"
    assert request.set_cookie is None


@pytest.mark.parametrize("write", [b"garbage", RecordCodec(PickleSerializer()).seal(b"\x80\x02}.")])
def test_a_logout_deletes_a_record_that_it_could_not_read(browser, config, write, caplog):
    """A session of a process that has another serializer is left alone until its user logs out."""
    config.store.swap(browser.id, config.store.read(browser.id), write)
    request = browser.begin()
    request.session["a"] = 1
    request.commit()
    left = config.store.read(browser.id).raw
    request = browser.begin()
    request.session.invalidate()
    request.commit()

    assert left == write
    assert config.store.read(browser.id) is None
    assert "Max-Age=0" in request.set_cookie
    assert "nothing is written over it" not in caplog.text


def test_with_invalidate_corrupt_off_a_damaged_session_can_be_ended(browser, clock):
    """A logout deletes what it cannot read."""
    config = config_of(clock=clock, invalidate_corrupt=False)
    request = browser.begin(config)
    config.store.swap(browser.id, config.store.read(browser.id), b"garbage")
    request.session.invalidate()
    request.commit()

    assert config.store.read(browser.id) is None
    assert request.told == []


def test_a_merge_is_told_where_somebody_listens(browser):
    """Without subscribers a merge is as quiet as any commit."""
    one, other = browser.begin(), browser.begin()
    one.loaded._exchange.notify = None
    one.session["a"] = 1
    other.session["b"] = 1
    other.commit()
    one.commit()

    assert browser.read() == {"name": "base", "a": 1, "b": 1}
    assert one.told == []


def test_whole_keys_are_not_merged_inside(clock):
    """A value that only makes sense as one request wrote it is never a mixture, if ``whole_keys`` names its key."""
    browser = Browser(config_of(clock=clock, whole_keys="position\n  board"))
    browser.write(name="base")
    one, other = browser.begin(), browser.begin()
    one.session.update(position=[1, 2], board={"a1": "x"}, log=[1])
    other.session.update(position=[3, 4], board={"b2": "o"}, log=[2])
    browser.end(one)
    browser.end(other)

    assert browser.read() == {"name": "base", "position": [3, 4], "board": {"b2": "o"}, "log": [1, 2]}
    assert other.events[0].conflicts == {"position", "board"}


def test_a_message_may_be_flashed_again_after_a_commit(browser):
    """What was flashed without duplicates counts until it is committed: later the request may flash an equal one."""
    one, other = browser.begin(), browser.begin()
    one.session.flash("saved", allow_duplicate=False)
    one.commit()
    one.session.flash("saved")
    other.session.flash("sent")
    other.commit()
    one.commit()

    assert browser.read()["_f_"] == ["saved", "sent", "saved"]


def test_a_message_that_is_taken_back_may_be_flashed_again(browser):
    """After ``revert()`` no message was flashed: another one is merged as any other."""
    one, other = browser.begin(), browser.begin()
    one.session.flash("saved", allow_duplicate=False)
    one.session.revert()
    one.session.flash("saved")
    other.session.flash("saved")
    other.commit()
    one.commit()

    assert browser.read()["_f_"] == ["saved", "saved"]


# -- Beaker's interface ------------------------------------------------------------------------------


def test_beakers_middleware_saves_through_save(browser):
    """save(), which Beaker's middleware calls at the end, commits; with accessed_only, what was changed."""
    request = browser.begin()
    request.session["a"] = 1
    request.loaded.save(accessed_only=True)
    new = Request(browser.config)
    new.loaded.save()

    assert browser.read() == {"name": "base", "a": 1}
    assert content(stored(browser.config, new.session.id)) == {}


@pytest.mark.parametrize("committed_before", [False, True])
def test_a_save_that_fails_raises_and_sends_no_cookie(config, committed_before):
    """Beaker's middleware saves before the headers leave: a failure is raised, and the session is discarded."""
    request = Request(config)
    request.session["a"] = 1
    if committed_before:
        request.commit()
    request.session["lock"] = [[[object()]]]
    with pytest.raises(SessionValueError):
        request.loaded.save()

    assert request.loaded._exchange.discarded
    assert request.set_cookie is None


def test_other_wsgi_code_sees_beakers_own_keys(browser):
    """A session taken from the environ shows Beaker's own keys when asked for, and has them set."""
    session = browser.begin().loaded
    session[ACCESSED] = START - 1

    assert session[CREATED] == START
    assert session[ACCESSED] == START - 1
    assert CREATED not in session
    assert session.key == NAME
    with pytest.raises(KeyError, match="a"):
        session["a"]


def set_by_operator(session, key):
    session |= {key: 1.0}


@pytest.mark.parametrize("key", [CREATED, ACCESSED, ID, "_expires"])
@pytest.mark.parametrize(
    "change",
    [
        lambda session, key: session.__setitem__(key, 1.0),
        lambda session, key: session.update({key: 1.0}),
        set_by_operator,
        lambda session, key: session.setdefault(key, 1.0),
        lambda session, key: session.pop(key),
        lambda session, key: session.pop(key, default=None),
        lambda session, key: session.__delitem__(key),
    ],
)
@pytest.mark.parametrize("made", [None, "cookie"])
def test_what_sets_beakers_own_keys_is_ignored(clock, caplog, made, change, key):
    """A way round a fault of Beaker's that sets its keys does not fail: one warning, and the times stay right."""
    browser = Browser(cookie_session(clock) if made else config_of(clock=clock))
    browser.write(a=1)
    clock.now += 10
    request = browser.begin()
    change(request.session, key)
    change(request.session, key)
    set_cookie = browser.end(request).set_cookie
    after = browser.begin()

    assert set_cookie is None
    assert (dict(after.session), after.session.created) == ({"a": 1}, int(START))
    assert len([record for record in caplog.records if f"session['{key}']" in record.message]) == 1


def test_a_logout_that_sets_beakers_own_keys_holds(browser, clock):
    """``clear()`` and the times, as pyramid_beaker needs it after that, is a logout here, too."""
    request = browser.begin()
    request.session.clear()
    request.session[CREATED] = request.session[ACCESSED] = clock.now
    browser.end(request)

    assert browser.read() == {}


def test_beakers_keys_of_the_cookie_can_be_set(browser):
    """``_domain`` and ``_path`` do what ``domain`` and ``path`` do, and are held to their rules."""
    request = browser.begin()
    request.session["_domain"] = "shop.example"
    request.session.update(_path="/shop", a=1)
    shown = request.session.setdefault("_path", "/"), request.session.pop("_domain"), request.session.domain
    with pytest.raises(ValueError, match="domain"):
        request.session["_domain"] = "shop.example; Secure"
    set_cookie = browser.end(request).set_cookie.lower()

    assert shown == ("/shop", "shop.example", None)
    assert "path=/shop" in set_cookie
    assert "domain" not in set_cookie


@pytest.mark.parametrize("key", [EXPIRY, MOVED, WRITER])
@pytest.mark.parametrize("face", ["session", "object", "loaded"])
def test_our_own_keys_are_refused(browser, key, face):
    """A key that only this package sets in a record raises, wherever it is set."""
    session = getattr(browser.begin(), face)
    for change in (
        lambda: session.__setitem__(key, 1),
        lambda: session.update({key: 1}),
        lambda: session.setdefault(key, 1),
        lambda: session.pop(key, None),
        lambda: session.__delitem__(key),
    ):
        with pytest.raises(SessionValueError, match="is beaker_bridge's own"):
            change()


def test_other_wsgi_code_is_held_to_beakers_keys(browser, caplog):
    """In a session from the environ a time can be set, as in Beaker's; what is none is ignored, with a warning."""
    request = browser.begin()
    session = request.object
    session.update({ACCESSED: START - 1, CREATED: "yesterday", "a": 1})
    session[ID] = "x"
    del session[CREATED]
    session.save()
    request.loaded |= {"b": 2}
    shown = session[ACCESSED], session.pop(CREATED), session.setdefault("a", 2), session.pop("a"), session.pop("c", 3)
    del session["name"]
    browser.end(request)

    assert shown == (START - 1, START, 1, 1, 3)
    assert browser.read() == {"b": 2}
    assert len(caplog.records) == 2


def test_a_session_is_found_by_its_id(browser):
    """A session can be opened by its id, changed and committed; an id that is unknown opens nothing."""
    session_object = SessionObject({}, browser.config)
    session = session_object.get_by_id(browser.id)
    session["a"] = 1
    session.changed()
    session.commit()

    assert browser.read() == {"name": "base", "a": 1}
    assert session_object.get_by_id(new_id()) is None


def test_an_empty_session_is_found_by_its_id(browser):
    """A stored session that is empty is true in an ``if``, as Beaker's is."""
    request = browser.begin()
    request.session.clear()
    browser.end(request)
    found = request.session.get_by_id(browser.id)

    assert found
    assert dict(found) == {}


def test_what_was_changed_in_a_session_found_by_its_id_is_committed(browser):
    """Its ``commit()`` finds out what was changed, again and again, and writes nothing without a change."""
    found = browser.begin().session.get_by_id(browser.id)
    found["cart"] = [1]
    found.commit()
    found["cart"].append(2)
    found.commit()
    store = watched(browser.config)
    found.commit()

    assert browser.read() == {"name": "base", "cart": [1, 2]}
    assert store.calls == ["read"]


def test_a_session_found_by_its_id_can_be_ended(browser):
    """``invalidate()`` and ``delete()`` end it at its commit, subscribers hear of it, and none is stored instead."""
    for end in ("invalidate", "delete"):
        browser.write(name="base")
        request = browser.begin()
        found = request.session.get_by_id(browser.id)
        getattr(found, end)()
        found.commit()

        assert request.told == [("SessionInvalidated", {"name": "base"})]
        assert stored(browser.config, browser.id) is None
        assert stored(browser.config, found.id) is None


def test_a_session_found_by_its_id_says_what_it_cannot_save(browser):
    """``save()`` raises: nobody else would tell of it."""
    found = browser.begin().session.get_by_id(browser.id)
    found["lock"] = object()

    with pytest.raises(SessionValueError, match="lock"):
        found.save()


def test_a_session_without_a_request_is_stored_by_save(config):
    """What ``beaker.get_session`` returns is stored by ``save()``, though it is empty, and by ``commit()`` if not."""
    saved, committed, empty = (standalone_session(config) for _ in range(3))
    saved.save()
    committed["a"] = 1
    committed.commit()
    empty.commit()

    assert content(stored(config, saved.id)) == {}
    assert content(stored(config, committed.id)) == {"a": 1}
    assert stored(config, empty.id) is None


def test_a_cookie_session_cannot_be_found_by_an_id(cookies):
    """With ``type = cookie`` no session stands anywhere else: that is said."""
    request = cookies.begin()

    with pytest.raises(BeakerBridgeError, match=r"get_by_id\(\) .* got type = cookie"):
        request.session.get_by_id(request.session.id)
    with pytest.raises(BeakerBridgeError, match=r"get_session .* got type = cookie"):
        standalone_session(cookies.config)


# -- revert ------------------------------------------------------------------------------------------


def test_revert_returns_to_what_was_loaded(browser, store):
    """revert() takes back what was changed, also in place; nothing is written."""
    browser.write(cart=[1])
    request = browser.begin()
    request.session["cart"].append(2)
    request.session["a"] = 1
    request.session.save()
    request.session.revert()
    store.calls.clear()
    request.commit()

    assert dict(request.session) == {"name": "base", "cart": [1]}
    assert store.calls == []


def test_revert_returns_to_the_last_commit(browser):
    """After a commit, that is what revert() returns to."""
    request = browser.write(a=1)
    request.session["a"] = 2
    request.session.revert()

    assert request.session["a"] == 1


def test_load_reads_what_other_requests_have_stored(browser):
    """``load()`` forgets what this request has changed, and takes what stands in the store."""
    request = browser.begin()
    request.session["a"] = 1
    request.commit()
    browser.write(a=2)
    request.session["b"] = 3
    request.session.load()
    loaded = dict(request.session)
    request.session["a"] = 1
    browser.end(request)

    assert loaded == {"name": "base", "a": 2}
    assert browser.read() == {"name": "base", "a": 1}


@pytest.mark.parametrize("made", [memory, cookie_session])
def test_load_undoes_no_logout_and_no_login(clock, made):
    """``load()`` after ``invalidate()`` finds nothing, and after ``regenerate_id()`` the session under its new id."""
    browser = Browser(made(clock))
    old = browser.write(name="base").session.id
    login = browser.begin()
    login.session.regenerate_id()
    login.session.load()
    browser.end(login)
    moved = browser.begin()
    logout = browser.begin()
    logout.session.invalidate()
    logout.session.load()
    browser.end(logout)

    assert moved.session.id == login.session.id != old
    assert dict(moved.session) == {"name": "base"}
    assert dict(logout.session) == browser.read() == {}


def test_load_finds_a_session_ended(browser):
    """``load()`` of a session that a logout has ended meanwhile finds nothing, and nothing is saved any more."""
    request = browser.begin()
    logout = browser.begin()
    logout.session.invalidate()
    logout.commit()
    request.session.load()
    request.session["a"] = 1
    browser.end(request)

    assert request.set_cookie is None
    assert browser.read() == {}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_block_of_other_wsgi_code_is_written(serializer):
    """What a block changes in a session from the environ is committed, as any block's changes are, also in place."""
    browser = Browser(config_of(data_serializer=serializer))
    browser.write(count=1, seen=[1])
    request = browser.begin()
    with request.object.exclusive():
        request.object["count"] += 1
        request.object["seen"].append(2)
    request.discard()

    assert browser.read() == {"count": 2, "seen": [1, 2]}


def test_a_block_that_takes_a_change_back_is_written(browser):
    """What an exclusive block makes of others' change is written, also where this request wrote the same before."""
    request = browser.begin()
    request.session["a"] = 1
    request.commit()
    browser.write(a=2)
    with request.session.exclusive():
        request.session["a"] = 1

    assert browser.read() == {"name": "base", "a": 1}


def test_revert_empties_a_new_session(config):
    """A new session returns to nothing; its time stays."""
    request = Request(config)
    request.session["a"] = 1
    request.session.revert()
    store = watched(config)
    request.commit()

    assert dict(request.session) == {}
    assert request.session.created == START
    assert store.calls == []


@pytest.mark.parametrize("made", [lambda clock: config_of(clock=clock), cookie_session])
def test_revert_after_a_login_keeps_the_session(clock, made):
    """revert() takes back the changes of a login, and neither loses the data nor leaves them under the old id."""
    browser = Browser(made(clock))
    browser.write(name="base")
    old = browser.begin().session.id
    request = browser.begin()
    request.session.regenerate_id()
    request.session["user"] = "ada"
    request.session.revert()
    browser.end(request)

    assert browser.read() == {"name": "base"}
    assert browser.begin().session.id == request.session.id != old


# -- Ends and new ids --------------------------------------------------------------------------------


def test_a_logout_leaves_nothing(browser, config):
    """invalidate() deletes the record and makes the browser forget the cookie; the event has the data."""
    session_id, cookie = browser.id, browser.cookie
    request = browser.begin()
    request.session.invalidate()
    assert request.session.new
    assert dict(request.session) == {}
    browser.end(request)

    assert stored(config, session_id) is None
    assert browser.cookie == ""
    assert request.told == [("SessionInvalidated", {"name": "base"})]
    assert Request(config, cookie).session.new


@pytest.mark.parametrize("made", [None, "file", "cookie", "pickle", "automatic"])
@pytest.mark.parametrize(
    "end",
    [
        lambda request: request.session.invalidate(),
        lambda request: (request.session.invalidate(), request.session.regenerate_id()),
        lambda request: (request.session.regenerate_id(), request.session.invalidate()),
        lambda request: (request.session.delete(), request.session.invalidate()),
        lambda request: request.commit().session.invalidate(),
    ],
    ids=["invalidate", "then_login", "after_login", "after_delete", "after_commit"],
)
@pytest.mark.parametrize("save", [lambda request: request.session.save(), lambda request: request.object.save()])
def test_a_session_that_is_saved_after_a_logout_has_the_id_that_was_seen(clock, tmp_path, made, end, save):
    """``invalidate()`` and then ``save()`` store the new, empty session under the id that the application saw."""
    options = {
        "file": {"type": "file", "data_dir": str(tmp_path)},
        "cookie": {"type": "cookie", "validate_key": "v" * 32},
        "pickle": {"data_serializer": "pickle"},
        "automatic": {"auto": True},
    }.get(made, {})
    browser = Browser(config_of(clock=clock, **options))
    old = browser.write(name="base").session.id
    request = browser.begin()
    end(request)
    seen = request.session.id
    save(request)
    browser.end(request)
    after = browser.begin().session

    assert seen != old
    assert (after.id, after.new, dict(after)) == (seen, False, {})


#: What a request may do to its session, by name.
STEPS = {
    "set": lambda request: request.session.update(a=2),
    "clear": lambda request: request.session.clear(),
    "regenerate_id": lambda request: request.session.regenerate_id(),
    "set_expiry": lambda request: request.session.set_expiry(500),
    "cookie_expires": lambda request: setattr(request.session, "cookie_expires", 70),
    "invalidate": lambda request: request.session.invalidate(),
    "delete": lambda request: request.session.delete(),
    "commit": lambda request: request.commit(),
    "save": lambda request: request.session.save(),
    "save by WSGI code": lambda request: request.object.save(),
}


@pytest.mark.parametrize("made", [automatic, memory, automatic_cookie_session, cookie_session])
def test_the_next_request_finds_the_session_that_this_one_saw(clock, made):
    """In whatever order a request does what it does: id, content and expiry are those that it saw at its end."""
    config = made(clock)
    surprising = []
    for steps in product(STEPS, repeat=3):
        browser = Browser(config)
        browser.write(a=1)
        request = browser.begin()
        for step in steps:
            STEPS[step](request)
        seen = request.session.id, dict(request.session), request.session.timeout
        browser.end(request)
        after = browser.begin().session
        found = None if after.new else (after.id, dict(after), after.timeout)
        if found != (seen if _is_kept(steps, seen[1], auto=config.options.auto) else None):
            surprising.append(steps)

    assert surprising == []


def _is_kept(steps, held, *, auto):
    """Say whether a request leaves a session: it was not ended, or holds something, or was saved since."""
    ends = [number for number, step in enumerate(steps) if step in ("invalidate", "delete")]
    if held or not ends:
        return True
    return steps[ends[-1]] == "invalidate" and (auto or any(step.startswith("save") for step in steps[ends[-1] :]))


@pytest.mark.parametrize("made", [automatic, automatic_cookie_session, cookie_session, encrypted])
@pytest.mark.parametrize("delete", [lambda request: request.session.delete(), lambda request: request.object.delete()])
def test_a_session_that_is_saved_after_delete_is_none(clock, made, delete):
    """``delete()`` makes the browser forget its cookie, as Beaker's does, also where ``save()`` or ``auto`` follows."""
    browser = Browser(made(clock))
    browser.write(name="base")
    request = browser.begin()
    delete(request)
    request.session.save()
    browser.end(request)

    assert browser.cookie == ""


def test_after_a_logout_a_new_session_may_begin(browser, config):
    """What is put there after invalidate() goes into a session of its own, with its own cookie."""
    session_id = browser.id
    request = browser.begin()
    request.session.invalidate()
    request.session.flash("good-bye")
    browser.end(request)

    assert stored(config, session_id) is None
    assert browser.id not in ("", session_id)
    assert browser.begin().session.pop_flash() == ["good-bye"]


def test_a_session_that_is_begun_and_ended_in_one_request_sends_no_cookie(config):
    """The browser never hears of a session that was deleted in the request that began it."""
    request = Request(config)
    request.session["a"] = 1
    request.commit()
    session_id = request.session.id
    request.session.invalidate()
    request.commit()

    assert stored(config, session_id) is None
    assert request.set_cookie is None


def test_a_logout_is_told_once_though_its_commit_is_repeated(browser):
    """Where a later step of a commit fails, a second try does not repeat what was done."""
    request = browser.begin()
    request.session.invalidate()
    state = request.loaded._state
    another = Retired(new_id(), Record(b"other"), Fate.DELETE)
    request.loaded._state = state._replace(retired=(*state.retired, another))
    watched(browser.config).before_swap[2] = BrokenStore().swap
    with pytest.raises(SessionStoreError):
        request.commit()
    request.commit()

    assert [name for name, _data in request.told] == ["SessionInvalidated"]


def test_a_second_commit_finishes_a_rotation(browser, config):
    """Where the store fails after the write under the new id, a second commit does the rest, and sends the cookie."""
    old_id = browser.id
    request = browser.begin()
    request.session.regenerate_id()
    watched(config).before_swap[2] = BrokenStore().swap
    with pytest.raises(SessionStoreError):
        request.commit()
    second = watched(config)
    request.commit()

    assert second.calls == ["swap"]
    assert MOVED in stored(config, old_id)
    assert request.set_cookie


def test_a_second_commit_writes_what_was_changed_in_place(browser, config):
    """Where the store fails after a merge, the change in place that was merged is not lost."""
    browser.write(cart=["base"])
    request, other = browser.begin(), browser.begin()
    request.session["cart"].append("ours")
    other.session["cart"].append("theirs")
    other.commit()
    watched(config).before_swap[2] = BrokenStore().swap
    with pytest.raises(SessionStoreError):
        request.commit()
    request.commit()

    assert browser.read()["cart"] == ["base", "theirs", "ours"]


@pytest.mark.parametrize("made", [cookie_session, encrypted])
def test_a_second_commit_sends_what_a_logout_sends(clock, made):
    """Where another commit fails after that of a logout, a later one deletes the browser's cookie all the same."""
    browser = Browser(made(clock))
    browser.write(user="u")
    request = browser.begin()
    request.session.invalidate()
    request.commit()
    dict.__setitem__(request.loaded, "refused", object())
    request.session.changed()
    with pytest.raises(SessionValueError):
        request.commit()
    del request.session["refused"]
    browser.end(request)

    assert browser.cookie == ""


@pytest.mark.parametrize("failing", [3, 4], ids=["write", "entomb"])
def test_a_second_commit_of_a_rotation_merges_once(browser, config, failing):
    """Where the store fails after a merge under the new id, what was merged is not added a second time."""
    request, other = browser.begin(), browser.begin()
    request.session.flash("ours")
    request.session.regenerate_id()
    other.session.flash("theirs")
    other.commit()
    watched(config).before_swap[failing] = BrokenStore().swap
    with pytest.raises(SessionStoreError):
        request.commit()
    browser.end(request)

    assert browser.read()["_f_"] == ["theirs", "ours"]


def test_a_second_commit_after_a_refused_merge_merges_once(clock):
    """Where what another process has written is refused, a second commit does not merge it again."""
    config = config_of(clock=clock, legacy_serializer="pickle")
    older = config_of(clock=clock, data_serializer="pickle", legacy_serializer="json")
    older.store = config.store
    browser = Browser(config)
    browser.write(name="base")
    request, other = browser.begin(), browser.begin(older)
    request.session.flash("ours")
    other.session["only pickle takes"] = complex(1, 2)
    other.session.flash("theirs")
    other.commit()
    with pytest.raises(SessionValueError):
        request.commit()
    del request.session["only pickle takes"]
    request.commit()

    assert browser.read() == {"name": "base", "_f_": ["theirs", "ours"]}


def test_a_login_and_a_logout_in_one_request_is_a_logout(browser, config):
    """invalidate() after regenerate_id() deletes the record under the id that the browser has."""
    session_id = browser.id
    request = browser.begin()
    request.session.regenerate_id()
    request.session.invalidate()
    browser.end(request)

    assert stored(config, session_id) is None
    assert browser.cookie == ""


def test_two_new_ids_in_one_request_are_one(browser, config):
    """Of two regenerate_id() in one request, the second id is kept, and the first was never known."""
    old = browser.id
    request = browser.begin()
    request.session.regenerate_id()
    between = request.session.id
    request.session.regenerate_id()
    browser.end(request)

    assert browser.id == request.session.id != between
    assert stored(config, between) is None
    assert browser.read() == {"name": "base"}
    assert MOVED in stored(config, old)


def test_a_login_after_a_commit_moves_what_was_committed(browser, config):
    """regenerate_id() in a response callback moves the session as it stands by then."""
    request = browser.write(a=1)
    between = request.session.id
    request.session.regenerate_id()
    browser.end(request)

    assert MOVED in stored(config, between)
    assert browser.read() == {"name": "base", "a": 1}


def test_the_marker_lives_from_the_commit_on(browser, config, clock):
    """A login that takes long leaves its marker for the whole of the time, counted from its end."""
    old = browser.id
    request = browser.begin()
    request.session.regenerate_id()
    clock.now += 50
    store = watched(config)
    browser.end(request)

    assert stored(config, old)[MOVED] == clock.now + MOVED_FOR
    assert store.expiries == [None, MOVED_FOR]


def test_a_marker_is_removed_after_its_time(browser, config, clock):
    """The first request with the old id after the marker's time removes it, begins anew, and tells nothing."""
    cookie, old = browser.cookie, browser.id
    request = browser.begin()
    request.session.regenerate_id()
    browser.end(request)
    clock.now += MOVED_FOR
    late = Request(config, cookie)

    assert stored(config, old) is None
    assert late.session.new
    assert late.told == []


def test_what_was_written_before_the_marker_is_moved_along(browser):
    """A write under the old id that comes between the two swaps of a login is merged, and told."""
    login, writer = browser.begin(), browser.begin()
    login.session.regenerate_id()
    writer.session["a"] = 1
    watched(browser.config).before_swap[2] = writer.commit
    browser.end(login)

    assert browser.read() == {"name": "base", "a": 1}
    assert login.told == [("SessionMerged", {"name": "base", "a": 1})]


def test_a_change_that_is_given_up_at_a_login_is_told(browser):
    """Where another request changed the same under the old id, the login's value stays, and its event names the key."""
    login, writer = browser.begin(), browser.begin()
    login.session.regenerate_id()
    login.session["name"] = "login"
    writer.session["name"] = "writer"
    watched(browser.config).before_swap[2] = writer.commit
    browser.end(login)

    assert browser.read() == {"name": "login"}
    assert [event.conflicts for event in login.events] == [{"name"}]


def test_a_logout_before_the_marker_takes_the_new_id_along(browser):
    """A session that is logged out between the two swaps of a login lives on under neither id."""
    login, logout = browser.begin(), browser.begin()
    login.session.regenerate_id()
    logout.session.invalidate()
    watched(browser.config).before_swap[2] = logout.commit
    login.commit()

    assert stored(browser.config, browser.id) is None
    assert stored(browser.config, login.session.id) is None
    assert login.set_cookie is None


def test_a_logout_before_the_marker_and_a_change_under_the_new_id(browser):
    """Whatever stands under the new id before it is known, a logout between the two swaps ends that as well."""
    login, logout = browser.begin(), browser.begin()
    login.session.regenerate_id()
    logout.session.invalidate()
    store = watched(browser.config)
    new = login.session.id
    store.before_swap[2] = logout.commit

    def write():
        # Not by the session: nobody knows its id.
        store._store.swap(new, store._store.read(new), b"another")

    store.before_swap[4] = write
    login.commit()

    assert stored(browser.config, new) is None
    assert login.set_cookie is None


def test_a_new_id_that_ends_before_the_marker_is_no_merge(browser):
    """What comes under the old id at a login is merged into no session that has ended under the new id."""
    login, writer = browser.begin(), browser.begin()
    login.session.regenerate_id()
    writer.session["a"] = 1
    store = watched(browser.config)
    new = login.session.id
    store.before_swap[2] = writer.commit
    store.before_swap[4] = lambda: store._store.swap(new, store._store.read(new), None)
    login.commit()

    assert stored(browser.config, new) is None
    assert login.set_cookie is None
    assert [name for name, _ in login.told] == ["SessionNotSaved"]


@pytest.mark.parametrize("apart", [240, -240])
def test_a_marker_on_two_machines(browser, config, clock, apart):
    """Where the clocks of two machines are apart by minutes, a request with the old id is still no new visitor: it gets
    an empty session, which is not saved, and no cookie.
    """
    cookie, old = browser.cookie, browser.id
    request = browser.begin()
    request.session.regenerate_id()
    browser.end(request)
    # The other machine's.
    clock.now += apart
    late = Request(config, cookie)
    late.session["a"] = 1
    late.commit()

    assert content(stored(config, old)) == {}
    assert late.set_cookie is None


def test_a_marker_is_not_saved_into(browser, config):
    """A request that finds a marker has an empty session; what it changes goes nowhere, also by exclusive()."""
    cookie, old = browser.cookie, browser.id
    request = browser.begin()
    request.session.regenerate_id()
    browser.end(request)
    late = Request(config, cookie)
    late.session["a"] = 1
    with late.session.exclusive():
        late.session["b"] = 1
    late.commit()

    assert late.session.new
    assert content(stored(config, old)) == {}
    assert late.set_cookie is None


# -- Domain and path ---------------------------------------------------------------------------------


def test_a_domain_and_a_path_are_kept_with_the_session(browser):
    """Domain and path that are set go into the cookie, and into the record for the next one."""
    request = browser.begin()
    request.session.domain = "example.com"
    request.session.path = "/shop"
    browser.end(request)
    later = browser.begin()

    assert "Domain=example.com; Path=/shop" in request.set_cookie
    assert (later.session.domain, later.session.path) == ("example.com", "/shop")


@pytest.mark.parametrize(("name", "value", "rule"), [("domain", "example.org", "absent"), ("path", "/a", "/")])
def test_a_cookie_of_one_host_stays_so(name, value, rule):
    """A session whose cookie is named ``__Host-`` refuses a domain or path with which no browser would take it."""
    session = Request(config_of(key="__Host-sid", secure=True)).session
    with pytest.raises(ValueError, match=f"the {name} of a cookie named __Host-sid must be {rule}, got '{value}'"):
        setattr(session, name, value)
    session.domain, session.path = None, "/"

    assert (session.domain, session.path) == (None, "/")


def test_a_domain_can_be_taken_back(browser):
    """A domain of nothing is the option's."""
    request = browser.begin()
    request.session.domain = "example.com"
    request.session.domain = None
    browser.end(request)

    assert "Domain" not in request.set_cookie


@pytest.mark.parametrize("made", [lambda clock: config_of(clock=clock), cookie_session])
def test_a_logout_forgets_the_cookie_of_the_domain_that_it_was_set_for(clock, made):
    """A browser keeps a cookie for each domain and path: the logout must name those of the session."""
    browser = Browser(made(clock))
    request = browser.write(a=1)
    request.session.domain = "example.com"
    request.session.path = "/shop"
    browser.end(request)
    logout = browser.begin()
    logout.session.invalidate()
    logout.commit()

    assert set(logout.set_cookie.split("; ")) >= {"Max-Age=0", "Domain=example.com", "Path=/shop"}


@pytest.mark.parametrize("made", [lambda clock: config_of(clock=clock), cookie_session])
def test_a_domain_that_stays_the_same_sends_the_cookie_once(clock, made):
    """What is set to what it was sends the cookie, once, and does nothing at the second commit."""
    browser = Browser(made(clock))
    browser.write(a=1)
    request = browser.begin()
    request.session.domain = "example.com"
    cookie = request.commit().set_cookie
    request.session.domain = "example.com"
    store = watched(browser.config) if browser.config.store else None
    request.commit().commit()

    assert "Domain=example.com" in cookie
    assert request.set_cookie == cookie
    assert store is None or store.calls == []


# -- Secrets and keys that change --------------------------------------------------------------------


@pytest.mark.parametrize("timed", [True, False])
def test_a_cookie_that_a_retired_secret_signed_is_signed_anew(clock, timed):
    """A reader's cookie is written anew under the current secret, and then stays as it is."""
    browser = Browser(config_of(clock=clock, secret=SECRET))
    browser.write(a=1)
    old = browser.cookie
    options = {"clock": clock, "save_accessed_time": timed}
    browser.config = config_of(**options, secret="n" * 32, previous_secrets=SECRET)
    request = browser.end(browser.begin())

    assert request.set_cookie is not None
    assert browser.cookie != old
    assert browser.end(browser.begin()).set_cookie is None
    browser.config = config_of(clock=clock, secret="n" * 32)
    assert browser.read() == {"a": 1}


def test_a_record_that_a_retired_key_encrypted_is_encrypted_anew(clock):
    """A reader writes the record anew under the current keys."""
    browser = Browser(config_of(clock=clock, **KEYS))
    browser.write(a=1)
    new = {"encrypt_key": "n" * 32, "validate_key": "w" * 32}
    retired = {"previous_encrypt_keys": "e" * 32, "previous_validate_keys": "v" * 32}
    browser.config = config_of(clock=clock, **new, **retired)
    assert browser.read() == {"a": 1}
    browser.config = config_of(clock=clock, **new)

    assert browser.read() == {"a": 1}


def test_a_record_of_a_legacy_serializer_is_written_anew(clock):
    """A pickled record becomes a JSON one when it is read."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(a=1)
    browser.config = config_of(clock=clock, legacy_serializer="pickle")
    assert browser.read() == {"a": 1}
    browser.config = config_of(clock=clock)

    assert browser.read() == {"a": 1}


@pytest.mark.parametrize(
    ("here", "there"),
    list(permutations([{"data_serializer": "pickle", "legacy_serializer": "json"}, {"legacy_serializer": "pickle"}])),
)
def test_overlapping_requests_under_two_serializers_are_merged(clock, here, there):
    """While a site is rolled out, one request writes pickle and another JSON: both changes stand, whoever is first."""
    browser = Browser(config_of(clock=clock, **here))
    browser.write(cart=["apples"], when=datetime(2026, 1, 1, tzinfo=timezone.utc))
    request = browser.begin()
    request.session["cart"].append("pears")
    other = browser.begin(config_of(clock=clock, **there))
    other.session["cart"].append("plums")
    other.session["count"] = 1
    browser.end(other)
    browser.end(request)

    assert browser.read() == {
        "cart": ["apples", "plums", "pears"],
        "when": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "count": 1,
    }


class Own:
    """An object of the application's own: no JSON."""


@pytest.fixture
def pickled(clock):
    """Return a browser whose session holds a pickled object, and whose site writes JSON by now."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(own=Own(), count=1)
    browser.config = config_of(clock=clock, legacy_serializer="pickle", timeout=600, reissue_time=60)
    return browser


def test_a_pickled_session_that_json_refuses_lives_as_long_as_it_is_read(pickled, clock, caplog):
    """Its access time is renewed in the form that it has, as often as others', and a line names key and type."""
    record, renewed = pickled.config.store.read(pickled.id), []
    for seconds in (1, 59, 1, 500, 500):
        clock.now += seconds
        assert pickled.read()["count"] == 1
        before, record = record, pickled.config.store.read(pickled.id)
        renewed.append(record.raw != before.raw)
    lines = [record.getMessage() for record in caplog.records]

    assert renewed == [False, True, False, True, True]
    assert len(lines) == 3
    assert all("session['own'] cannot be stored: a value of type Own is not JSON" in line for line in lines)


def test_a_pickled_session_that_json_refuses_is_not_lost_by_a_write(pickled):
    """A change is refused by key and type, and the session stays as it was; without the object it becomes JSON."""
    request = pickled.begin()
    request.session["count"] = 2
    with pytest.raises(SessionValueError, match=r"session\['own'\] cannot be stored: .* type Own"):
        request.commit()
    kept = pickled.read()
    request = pickled.begin()
    request.session["count"] = 2
    del request.session["own"]
    pickled.end(request)
    pickled.config = config_of(clock=pickled.config.clock)

    assert kept["count"] == 1
    assert type(kept["own"]) is Own
    assert pickled.read() == {"count": 2}


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({5: []}, lambda cart: cart[5].append(1)),
        ({5: 1}, lambda cart: cart.update({5: 2})),
        ([Own()], lambda cart: setattr(cart[0], "a", 1)),
        (["fine"], lambda cart: cart.append(Own())),
        (["fine"], lambda cart: cart.append(lambda: None)),
    ],
)
def test_a_change_in_place_that_json_refuses_is_not_lost_in_silence(clock, value, change):
    """Changed in place, a value of which JSON takes nothing is refused at the commit, as any change of it is."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(cart=value)
    browser.config = config_of(clock=clock, legacy_serializer="pickle")
    request = browser.begin()
    change(request.session["cart"])

    with pytest.raises(SessionValueError, match=r"session\['cart'\] cannot be stored"):
        request.commit()


def test_auto_leaves_a_pickled_session_that_json_refuses(pickled, clock):
    """With ``auto``, a page that only reads is no error, and writes no sooner than without; a change is refused."""
    pickled.config = config_of(clock=clock, legacy_serializer="pickle", auto=True)
    before = pickled.config.store.read(pickled.id)
    request = pickled.begin()
    assert request.session["count"] == 1
    request.session.save()
    pickled.end(request)
    after = pickled.config.store.read(pickled.id)
    request = pickled.begin()
    request.session["count"] = 2

    assert after.raw == before.raw
    with pytest.raises(SessionValueError, match="own"):
        request.commit()


def test_a_record_that_can_only_be_read_is_served(clock, caplog):
    """A serializer of the application's own that refuses what it has read costs the access time, not the page."""

    class Fussy(Reversed):
        @staticmethod
        def dumps(record):
            raise TypeError(f"{len(record)} keys are too many")

    browser = Browser(config_of(clock=clock, data_serializer=Reversed))
    browser.write(count=1)
    browser.config = config_of(clock=clock, data_serializer=Fussy)
    clock.now += 61

    assert browser.read() == {"count": 1}
    assert "its access time is not saved: session['count'] cannot be stored" in caplog.text


@pytest.mark.parametrize("end", ["invalidate", "delete"])
def test_a_pickled_session_that_json_refuses_can_be_ended(pickled, end):
    """A logout writes nothing that could be refused."""
    session_id = pickled.id
    request = pickled.begin()
    getattr(request.session, end)()
    pickled.end(request)

    assert pickled.config.store.read(session_id) is None


# -- One step ----------------------------------------------------------------------------------------


def test_what_an_exclusive_block_changed_stands_whatever_becomes_of_the_request(browser):
    """A block's changes are committed at its end; a discard afterwards takes the request's others back."""
    request = browser.begin()
    request.session["mine"] = 1
    with request.session.exclusive():
        assert "mine" not in request.session
        request.session["count"] = 1
    request.session["later"] = 1
    request.discard()
    request.commit()

    assert browser.read() == {"name": "base", "count": 1}


def test_what_the_request_had_changed_before_is_kept_beside_the_block(browser):
    """After the block the request has both, and commits its own at its end."""
    browser.write(cart=[1], count=1)
    request = browser.begin()
    request.session["cart"].append(2)
    request.session["mine"] = 1
    with request.session.exclusive():
        request.session["count"] += 1

    assert dict(request.session) == {"name": "base", "cart": [1, 2], "count": 2, "mine": 1}
    assert browser.read() == {"name": "base", "cart": [1], "count": 2}
    browser.end(request)
    assert browser.read() == {"name": "base", "cart": [1, 2], "count": 2, "mine": 1}


def test_a_change_in_place_in_a_block_is_detected(browser):
    """A block's changes are found as any others are."""
    browser.write(cart=[1])
    request = browser.begin()
    with request.session.exclusive():
        request.session["cart"].append(2)
    request.discard()

    assert browser.read()["cart"] == [1, 2]


def test_a_block_renews_the_session(clock):
    """What a block commits has the access time of its request: it does not expire with what it replaced."""
    browser = Browser(config_of(clock=clock, timeout=100))
    browser.write(a=1)
    clock.now += 99
    request = browser.begin()
    with request.session.exclusive():
        request.session["a"] = 2
    clock.now += 99

    assert browser.begin().session["a"] == 2


def test_a_block_that_only_reads_writes_nothing(browser, store):
    """A block costs the lock, a read, and a swap where it changes something."""
    request = browser.begin()
    store.calls.clear()
    with request.session.exclusive():
        dict(request.session)
    request.commit()

    assert store.calls == ["lock", "read"]


def test_a_block_that_raises_changes_nothing(browser):
    """Where the block fails, its changes are gone, and those from before it are not."""
    request = browser.begin()
    request.session["mine"] = 1
    with pytest.raises(ZeroDivisionError), request.session.exclusive():
        request.session["count"] = 1 / 0 or request.session.pop("name")
    browser.end(request)

    assert browser.read() == {"name": "base", "mine": 1}


def test_a_block_within_a_block_is_part_of_it(browser):
    """A second exclusive() within the first does not wait for itself."""
    request = browser.begin()
    with request.session.exclusive():
        request.session["a"] = 1
        with request.session.exclusive():
            request.session["b"] = 2

    assert browser.read() == {"name": "base", "a": 1, "b": 2}


def test_a_block_in_a_new_session_is_the_requests_own(config):
    """Nobody else knows a new session: the block is run as it is, and saved with the request."""
    request = Request(config)
    store = watched(config)
    with request.session.exclusive():
        request.session["a"] = 1

    assert store.calls == []
    request.commit()
    assert content(stored(config, request.session.id)) == {"a": 1}


def test_a_block_in_a_discarded_request_changes_nothing(browser, store):
    """A discard is final."""
    request = browser.begin()
    request.discard()
    store.calls.clear()
    with request.session.exclusive():
        request.session["a"] = 1

    assert store.calls == []


def test_a_block_finds_its_session_ended(browser):
    """Where the session was logged out meanwhile, the block finds it empty, and nothing is saved."""
    request = browser.begin()
    request.session["mine"] = 1
    logout = browser.begin()
    logout.session.invalidate()
    logout.commit()
    with request.session.exclusive():
        assert dict(request.session) == {}
        request.session["a"] = 1
    request.commit()

    assert stored(browser.config, browser.id) is None
    assert request.set_cookie is None


def test_a_session_that_ends_during_a_block_stays_ended(browser):
    """A logout does not wait for a block, and the block does not bring the session back."""
    request = browser.begin()
    with request.session.exclusive():
        request.session["a"] = 1
        logout = browser.begin()
        logout.session.invalidate()
        logout.commit()
    request.commit()

    assert stored(browser.config, browser.id) is None


def test_a_logout_in_a_block_is_made_with_the_request(browser):
    """invalidate() in a block drops what the request had changed, and is undone by a discard."""
    for ends in (False, True):
        request = browser.begin()
        request.session["mine"] = 1
        with request.session.exclusive():
            request.session.invalidate()
            request.session["after"] = 1
        session_id = browser.id
        if ends:
            browser.end(request)
        else:
            request.discard()
            assert browser.read() == {"name": "base"}

    assert stored(browser.config, session_id) is None
    assert browser.read() == {"after": 1}


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_block_counts_exactly_where_the_same_request_logs_in(browser, config, moment):
    """Before a new id is committed, a block works on the session as others still see it."""
    browser.write(count=1)
    old = browser.cookie
    request = browser.begin()
    if moment == "before":
        request.session.regenerate_id()
    request.session["user"] = "ada"
    with request.session.exclusive():
        request.session["count"] += 1
        if moment == "within":
            request.session.regenerate_id()
    other = Request(config, old)
    assert other.session["count"] == 2
    with other.session.exclusive():
        other.session["count"] += 1
    browser.end(request)

    assert browser.read() == {"name": "base", "count": 3, "user": "ada"}
    assert Request(config, old).session.new


def test_a_login_in_a_block_is_made_with_the_request(browser):
    """A block that does nothing but regenerate_id() leaves that to the request's commit."""
    old = browser.id
    request = browser.begin()
    with request.session.exclusive():
        request.session.regenerate_id()
    assert stored(browser.config, old) is not None
    browser.end(request)

    assert browser.id == request.session.id != old
    assert browser.read() == {"name": "base"}


def test_a_login_in_a_block_is_undone_by_a_discard(browser):
    """What the block has changed stands under the id that the browser has."""
    request = browser.begin()
    with request.session.exclusive():
        request.session.regenerate_id()
        request.session["count"] = 1
    request.discard()

    assert browser.read() == {"name": "base", "count": 1}


def test_a_block_that_finds_no_store_leaves_the_request_as_it_was(browser, store):
    """An exclusive() that fails takes nothing from the request."""
    request = browser.begin()
    request.session["mine"] = 1
    store.read = BrokenStore().read
    with pytest.raises(SessionStoreError), request.session.exclusive():
        pytest.fail("no lock, no block")
    del store.read
    browser.end(request)

    assert browser.read() == {"name": "base", "mine": 1}


# -- Cookie sessions ---------------------------------------------------------------------------------


@pytest.fixture(params=[cookie_session, encrypted_cookie_session])
def cookies(request, clock):
    """Return a browser with a cookie session, signed or encrypted as well."""
    browser = Browser(request.param(clock))
    browser.write(name="base")
    return browser


def test_a_cookie_session_is_found_again(cookies, clock):
    """A session may be all in its cookie; what only reads sends none, what writes keeps the id."""
    session_id = cookies.begin().session.id
    clock.now += 10
    request = cookies.end(cookies.begin())

    assert dict(request.session) == {"name": "base"}
    assert not request.session.new
    assert request.session.last_accessed == START
    assert request.set_cookie is None
    assert cookies.write(a=1).set_cookie is not None
    assert cookies.read() == {"name": "base", "a": 1}
    assert cookies.begin().session.id == session_id


def test_a_cookie_session_without_a_cookie_is_new(cookies):
    """Without a cookie a cookie session is new, and without content it sends none."""
    cookies.cookie = ""
    request = cookies.end(cookies.begin())

    assert request.session.new
    assert request.set_cookie is None


@pytest.mark.parametrize("forge", [lambda value: value[:-2], lambda value: "0" * 40 + value[40:], lambda _value: "x"])
def test_a_forged_cookie_is_a_new_session(cookies, caplog, forge):
    """A cookie that is not signed with our key opens nothing, and is warned about."""
    name, _, value = cookies.cookie.partition("=")
    cookies.cookie = f"{name}={forge(value)}"

    assert cookies.begin().session.new
    assert "not signed with a key of ours" in caplog.text


def test_a_cookie_that_is_signed_but_damaged_is_a_new_session(cookies, caplog):
    """A cookie that we have signed and that holds no session is damaged."""
    cookies.cookie = cookie_of(cookies.config.signer.sign("garbage"))

    assert cookies.begin().session.new
    assert "it opens nothing" in caplog.text


def test_a_damaged_cookie_raises_where_that_is_asked_for(clock):
    """With invalidate_corrupt = false a cookie that is not ours is an error."""
    config = config_of(clock=clock, type="cookie", validate_key="v" * 32, invalidate_corrupt=False)

    with pytest.raises(DamagedRecordError):
        Request(config, cookie_of("x" * 60))


def test_a_cookie_session_expires_and_is_told_of_once(clock):
    """A cookie whose time is over begins a new session, and the browser is made to forget it."""
    browser = Browser(config_of(clock=clock, type="cookie", validate_key="v" * 32, timeout=100))
    request = browser.begin()
    request.session["a"] = 1
    request.session.path = "/shop"
    browser.end(request)
    clock.now += 101
    request = browser.end(browser.begin())

    assert request.session.new
    assert dict(request.session) == {}
    assert request.told == [("SessionExpired", {"a": 1})]
    assert "Path=/shop" in request.set_cookie
    assert browser.cookie == ""


def test_a_cookie_session_that_was_emptied_stays_a_session(cookies):
    """clear() takes the content away, and not the session."""
    request = cookies.begin()
    request.session.clear()
    cookies.end(request)

    assert cookies.read() == {}
    assert cookies.begin().session.id == request.session.id


def test_a_cookie_session_ends(cookies):
    """invalidate() makes the browser forget the cookie, and tells what it held."""
    request = cookies.begin()
    request.session.invalidate()
    cookies.end(request)

    assert cookies.cookie == ""
    assert request.told == [("SessionInvalidated", {"name": "base"})]


def test_a_new_cookie_session_that_ends_tells_nothing(cookies):
    """There was no session to be told of."""
    cookies.cookie = ""
    request = cookies.begin()
    request.session.invalidate()
    request.commit()

    assert request.told == []
    assert request.set_cookie is None


def test_a_cookie_session_takes_a_new_id(cookies):
    """regenerate_id() gives a cookie session a new id, with its data."""
    old = cookies.begin().session.id
    request = cookies.begin()
    request.session.regenerate_id()
    cookies.end(request)

    assert cookies.begin().session.id == request.session.id != old
    assert cookies.read() == {"name": "base"}


@pytest.fixture(
    params=[
        (cookie_session, lambda request: request.session.changed()),
        (cookie_session, lambda request: request.session.save()),
        (encrypted_cookie_session, lambda request: request.object.save()),
        (automatic_cookie_session, lambda _request: None),
    ],
    ids=["changed", "saved", "saved_by_wsgi_code", "auto"],
)
def saving(request):
    """Return what makes a config, and what a request does to have its session saved."""
    return request.param


def test_a_new_id_of_a_cookie_session_is_saved(clock, saving):
    """A new id is a change, though nothing else is, and though the session is saved anyway."""
    made, save = saving
    browser = Browser(made(clock))
    browser.write(name="base")
    request = browser.begin()
    old = request.session.id
    request.session.regenerate_id()
    save(request)
    browser.end(request)

    assert browser.begin().session.id == request.session.id != old
    assert browser.read() == {"name": "base"}


def test_a_cookie_without_an_id_is_given_one(clock, saving):
    """A record that somebody wrote into a cookie without an id has one from then on."""
    made, save = saving
    browser = Browser(made(clock))
    codec = browser.config.codec
    browser.cookie = cookie_of(browser.config.signer.sign(codec.seal(codec.serialize({"a": 1})).decode()))
    request = browser.begin()
    save(request)
    browser.end(request)

    assert len(request.session.id) == 32
    assert browser.begin().session.id == request.session.id
    assert browser.read() == {"a": 1}


def test_a_cookie_session_that_is_too_large_is_refused(cookies):
    """Over what browsers hold, the commit names the size and the largest keys, and no cookie is sent."""
    request = cookies.begin()
    request.session["small"] = 1
    request.session["large"] = base64.b64encode(bytes(range(256)) * 16).decode()
    request.session["noise"] = "".join(new_id() for _ in range(200))

    with pytest.raises(SessionTooLargeError, match="the largest keys are 'noise', 'large', ") as caught:
        request.commit()
    assert caught.value.name == NAME
    assert caught.value.value > MAX_COOKIE_SIZE
    assert request.set_cookie is None
    assert cookies.read() == {"name": "base"}


def test_a_cookie_session_that_is_too_large_at_the_end_sends_no_cookie(cookies):
    """Where Beaker's middleware saves it, a cookie that no browser holds is not sent either."""
    request = cookies.begin()
    request.session["noise"] = "".join(new_id() for _ in range(200))
    with pytest.raises(SessionTooLargeError):
        request.loaded.save()

    assert request.set_cookie is None


def test_a_cookie_is_renewed_by_reading(clock):
    """A cookie session's access time and lifetime are renewed at most every reissue_time."""
    browser = Browser(config_of(clock=clock, type="cookie", validate_key="v" * 32, cookie_expires=1000))
    browser.write(a=1)
    clock.now += 99
    assert browser.end(browser.begin()).set_cookie is None
    clock.now += 1
    assert "Max-Age=1000" in browser.end(browser.begin()).set_cookie

    assert browser.end(browser.begin()).set_cookie is None


def test_a_renewal_that_makes_a_cookie_too_large_fails_no_request(clock, caplog, monkeypatch):
    """A read-only request is served though its cookie cannot be renewed."""
    browser = Browser(cookie_session(clock))
    browser.write(a=1)
    clock.now += 100
    monkeypatch.setattr("beaker_bridge.session.cookie.MAX_COOKIE_SIZE", 10)
    request = browser.begin().commit()

    assert request.set_cookie is None
    assert "its access time is not saved" in caplog.text


def test_a_cookie_of_a_retired_key_is_written_anew(clock):
    """A reader's cookie is signed anew, also where the access time is not kept."""
    old = {"type": "cookie", "validate_key": "v" * 32, "save_accessed_time": False}
    new = {**old, "validate_key": "w" * 32}
    browser = Browser(config_of(clock=clock, **old))
    browser.write(a=1)
    browser.config = config_of(clock=clock, **new, previous_validate_keys="v" * 32)
    browser.read()
    browser.config = config_of(clock=clock, **new)

    assert browser.read() == {"a": 1}


def test_a_cookie_session_has_no_exclusive(cookies):
    """Two requests that hold the same cookie cannot exclude each other: that is said."""
    with pytest.raises(BeakerBridgeError, match="needs a session that is stored on the server"):
        cookies.begin().session.exclusive()


def test_a_cookie_session_without_cookies_keeps_nothing(clock):
    """With use_cookies = false a cookie session is a dict for one request."""
    request = Request(config_of(clock=clock, type="cookie", validate_key="v" * 32, use_cookies=False))
    request.session["a"] = 1
    request.commit()

    assert request.set_cookie is None


def test_beakers_keys_are_in_the_cookie(cookies):
    """A cookie session's record has its id, as Beaker's has."""
    value = cookies.cookie.partition("=")[2]
    signed, _ = cookies.config.signer.verify(value)
    record, _ = cookies.config.codec.decode(signed.encode())

    assert record == {"name": "base", CREATED: START, ACCESSED: START, ID: cookies.begin().session.id}


# -- The configuration and the exchange --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "not set"),
        ({"cookie_path": "/"}, "not set"),
        ({"cookie_path": None}, "not set"),
        ({"key": "beaker.session.id"}, "Beaker's default"),
        ({"key": "beaker.session.id", "cookie_path": "/"}, "Beaker's default"),
        ({"type": "cookie", "validate_key": SECRET, "key": "beaker.session.id"}, "Beaker's default"),
    ],
)
def test_beakers_own_cookie_name_is_warned_about_once(options, what, caplog):
    """Two applications under one host with Beaker's own name and path log each other out: one warning says so.

    However these came to be: also Beaker's own middleware hands on a name, whether or not it was set.
    """
    forget(logging.getLogger("beaker_bridge.session.config"))
    settings = {f"session.{name}": value for name, value in options.items()}
    for _ in range(2):
        SessionConfig(read_options(prefixed({**settings, "session.timeout": "60"})))
    warnings = [record.getMessage() for record in caplog.records]

    assert len(warnings) == 1
    assert warnings[0].startswith(f"session.key is {what}: if another application on this host")


@pytest.mark.parametrize(
    "options",
    [
        {"key": "sid"},
        {"cookie_path": "/shop"},
        {"key": "beaker.session.id", "cookie_path": "/shop"},
        {"key": "sid", "cookie_path": "/"},
        {"use_cookies": False},
    ],
)
def test_a_cookie_of_ones_own_is_not_warned_about(options, caplog):
    """Where the cookie has a name or a path of its own, or none is sent, nothing is said of other applications."""
    forget(logging.getLogger("beaker_bridge.session.config"))
    SessionConfig(read_options(given(options)))

    assert "another application" not in caplog.text


@pytest.mark.parametrize(
    "options",
    [{"secret": "short"}, {**KEYS, "encrypt_key": "short"}, {"type": "cookie", "validate_key": "short"}],
)
def test_a_short_secret_is_warned_about(options, caplog):
    """A secret that can be guessed is told by its name, and not shown."""
    config_of(**options)

    assert "is shorter than 32 bytes" in caplog.text
    assert "short " not in caplog.text.replace("is shorter", "")


def test_a_long_secret_is_not_warned_about(caplog):
    """A secret of 32 bytes is enough."""
    config_of(secret=SECRET, **KEYS)

    assert caplog.records == []


class Reversed:
    """A serializer of the application's own."""

    @staticmethod
    def dumps(record):
        return pickle.dumps(record)[::-1]

    @staticmethod
    def loads(plain):
        return pickle.loads(plain[::-1])


def test_a_serializer_may_be_the_applications_own(clock):
    """An object with dumps and loads serializes."""
    browser = Browser(config_of(clock=clock, data_serializer=Reversed))
    browser.write(when=datetime(2026, 1, 1, tzinfo=timezone.utc), cart=[1])

    assert browser.read() == {"when": datetime(2026, 1, 1, tzinfo=timezone.utc), "cart": [1]}


def test_a_pickle_in_a_cookie_is_not_read(clock):
    """A cookie session takes no legacy pickle: who learns the key could run code."""
    options = {"type": "cookie", "validate_key": "v" * 32, "clock": clock}
    browser = Browser(config_of(**options, data_serializer="pickle"))
    browser.write(a=1)
    browser.config = config_of(**options, legacy_serializer="pickle")

    assert browser.begin().session.new


def test_without_a_clock_the_time_is_the_machines():
    """The clock is injected by tests only."""
    assert Request(config_of()).session.created > START


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_a_cookie_is_secure_over_https(config, scheme, secure):
    """secure = auto says so in the cookie where the request came over https."""
    request = Request(config, scheme=scheme)
    request.session["a"] = 1
    request.commit()

    assert ("secure" in request.set_cookie.lower()) is secure


def test_a_discard_belongs_to_one_attempt(config):
    """A discard belongs to one attempt of pyramid_retry; a subrequest has the attempt of its parent."""
    session_object = SessionObject({}, config)
    attach(session_object, {"retry.attempt": 1}).discard()
    found = [attach(session_object, environ).discarded for environ in ({"retry.attempt": 1}, {}, {"retry.attempt": 2})]

    assert found == [True, True, False]


def test_an_attempt_that_goes_on_changes_nothing_of_the_next(config):
    """What a thread of a discarded attempt changes in its session is not in that of the next attempt."""
    session_object = SessionObject({}, config)
    before = PyramidSession(session_object)
    attach(session_object, {"retry.attempt": 0}).discard()
    exchange = attach(session_object, {"retry.attempt": 1})
    with pytest.raises(SessionTooLateError):
        before["late"] = True
    after = PyramidSession(session_object)
    after["a"] = 1
    exchange.commit()

    assert dict(after) == {"a": 1}


def test_a_writer_is_named_in_its_records(browser, config):
    """Each request's records differ from every other's, also where they hold the same."""
    one = stored(config, browser.id)[WRITER]
    browser.write(name="base")

    assert stored(config, browser.id)[WRITER] != one


@pytest.mark.parametrize("made", [Session, CookieSession])
def test_a_session_can_be_made_without_a_request(clock, made):
    """beaker.get_session and scripts make sessions of nothing."""
    config = cookie_session(clock) if made is CookieSession else config_of(clock=clock)
    session = made({}, exchange=SessionContext(config))
    session["a"] = 1
    session.changed()
    session.commit()

    assert session.request["set_cookie"]


def test_nothing_is_logged_that_opens_a_session(browser, caplog):
    """The log says which session it speaks of by the beginning of its id only."""
    caplog.set_level(logging.DEBUG)
    request = browser.begin()
    request.session["a"] = 1
    logout = browser.begin()
    logout.session.invalidate()
    logout.commit()
    request.commit()

    assert "has ended meanwhile" in caplog.text
    assert browser.id not in caplog.text


def test_what_a_subscriber_changes_is_saved(browser):
    """A change that a subscriber of an event makes to the session is committed, too, and tells the browser."""
    request = browser.begin()
    request.exchange.notify = lambda event: request.session.flash(type(event).__name__)
    request.session.invalidate()
    browser.end(request)

    assert browser.begin().session.peek_flash() == ["SessionInvalidated"]


def test_what_a_subscriber_changes_in_place_is_saved(browser):
    """So is a change in place."""
    browser.write(log=[])
    request = browser.begin()
    request.exchange.notify = lambda _event: request.session["log"].append("merged")
    browser.write(theirs=1)
    request.session["ours"] = 1
    request.commit()

    assert browser.read()["log"] == ["merged"]


def test_what_a_subscriber_changes_after_a_block_is_saved(browser):
    """So is what it changes when an ``exclusive()`` block was merged, and with the block."""
    request = browser.begin()
    request.exchange.notify = lambda event: request.session.flash(type(event).__name__)
    with request.session.exclusive():
        request.session["ours"] = 1
        browser.write(theirs=1)
    request.discard()

    assert browser.read() == {"name": "base", "theirs": 1, "ours": 1, "_f_": ["SessionMerged"]}


def test_a_subscriber_that_changes_the_session_each_time_ends(browser, config):
    """Of a merge that is followed by another one at each commit there are two, and no more."""
    request = browser.begin()
    told = []

    def subscriber(event):
        told.append(event)
        browser.write(**{f"theirs{len(told)}": 1})
        request.session["ours"] = len(told)

    request.exchange.notify = subscriber
    browser.write(theirs=1)
    request.session["ours"] = 0
    request.commit()

    assert len(told) == 2
