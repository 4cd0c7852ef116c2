"""The events of a store: which are sent, to whom, and that no subscriber costs a request anything."""

import gc
import threading
import weakref
from copy import copy

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from beaker_bridge import (
    SessionConflictError,
    SessionEvent,
    SessionMerged,
    SessionNotSaved,
    SessionStoreError,
)
from beaker_bridge.pyramid.factory import source_of
from beaker_bridge.session import listeners
from beaker_bridge.session.listeners import WAITING, Listeners
from beaker_bridge.session.purge import THREAD as PURGE
from beaker_bridge.session.purge import begin_purge
from beaker_bridge.session.users import UserIndex
from beaker_bridge.stores._breaker import CircuitOpenError, ConnectionLostError, ServerUnavailableError
from beaker_bridge.stores.base import refused
from tests.installations import SECRET, Views
from tests.requests import Browser, Clock, config_of, wait_for_events

PATIENCE = 60


class Registry:
    """The registry of an application that has subscribers.

    Args:
        notify: gets its events.
    """

    has_listeners = True

    def __init__(self, notify):
        self.notify = notify


def sent(step=lambda: None):
    """Do something, and wait until its events are sent."""
    outcome = step()
    wait_for_events()
    return outcome


# -- The thread --------------------------------------------------------------------------------------


def test_a_slow_subscriber_keeps_nobody_waiting():
    """Who sends an event goes on at once, and the events come in their order."""
    told, may_go_on = [], threading.Event()
    target, registry = Listeners(), Registry(lambda event: may_go_on.wait(PATIENCE) and told.append(event))
    target.add(registry)
    for number in range(3):
        target.send(number)
    before = list(told)
    may_go_on.set()
    sent()

    assert (before, told) == ([], [0, 1, 2])


def test_a_subscriber_that_fails_is_logged(caplog):
    """What a subscriber raises is logged, with the event's name; the next event, and other registries, are served."""
    told = []

    def fail(event):
        raise RuntimeError(f"no place for {event}")

    target, failing, well = Listeners(), Registry(fail), Registry(told.append)
    target.add(failing)
    target.add(well)
    target.send("one")
    target.send("two")
    sent()

    assert told == ["one", "two"]
    assert [(record.getMessage(), record.failure) for record in caplog.records] == [
        ("a subscriber of str failed", "RuntimeError")
    ] * 2


def test_without_subscribers_nothing_is_kept():
    """Without a subscriber there is no thread; nor are events kept for one that comes later."""
    told = []
    target, registry = Listeners(), Registry(told.append)
    target.send("one")
    registry.has_listeners = False
    target.add(registry)
    target.add(registry)
    target.add(object())
    target.send("two")
    registry.has_listeners = True
    sent(lambda: target.send("three"))

    assert told == ["three"]


def test_an_application_that_is_gone_is_forgotten():
    """A configuration keeps no application alive that has used it."""
    target = Listeners()
    registry = Registry(print)
    target.add(registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    later = []
    other = Registry(later.append)
    target.add(other)
    sent(lambda: target.send("one"))

    assert gone() is None
    assert later == ["one"]


def test_where_no_thread_can_be_started(monkeypatch, caplog):
    """Where the system has no thread left, the events wait for the next one, the last thousand of them."""

    class NoThread:
        def __init__(self, **arguments):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")

    told = []
    target, registry = Listeners(), Registry(told.append)
    target.add(registry)
    with monkeypatch.context() as patched:
        patched.setattr(listeners.threading, "Thread", NoThread)
        for number in range(WAITING + 1):
            target.send(number)
    sent(lambda: target.send("last"))

    assert told == [*range(2, WAITING + 1), "last"]
    assert "the events of the store are sent later: can't start new thread" in caplog.text


# -- Events of a store -------------------------------------------------------------------------------


class FailingStore:
    """A store of which each operation fails, or some.

    Args:
        store: the store that answers the others.
        error: what is raised.
        failing: the names of the operations that fail.
    """

    def __init__(self, store, error, failing):
        self.store, self.error, self.failing = store, error, failing
        self.kind = store.kind

    def __getattr__(self, name):
        if name in self.failing:
            # Each operation raises an error of its own.
            raise copy(self.error)
        return getattr(self.store, name)


FAILURES = {
    "unavailable": ServerUnavailableError("no server", name="ext:test"),
    "connection_lost": ConnectionLostError("no answer", name="ext:test"),
    "breaker_open": CircuitOpenError("left alone", name="ext:test"),
    "refused": refused("ext:test", RuntimeError("no right"), "GET"),
}


@pytest.fixture
def told():
    """Return the store's events, as they are sent."""
    return []


@pytest.fixture
def config(told):
    """Return a configuration whose store's events are listened to."""
    config = config_of(clock=Clock(), timeout=600)
    config.registry = Registry(told.append)
    config.listeners.add(config.registry)
    return config


@pytest.fixture
def browser(config):
    """Return a browser that has a session."""
    browser = Browser(config)
    browser.write(name="base")
    return browser


def broken(config, failing, failure="unavailable"):
    """Have the store fail from now on."""
    config.store = FailingStore(config.store, FAILURES[failure], failing)


def seen(told):
    """Return what the events say."""
    return [(event.store, event.step, event.failure) for event in told]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_session_that_cannot_be_loaded(browser, config, told, failure):
    """A request that cannot load its session is one event, which says what failed, and has the error."""
    broken(config, ["read"], failure)
    with pytest.raises(SessionStoreError) as raised:
        browser.begin()
    sent()

    assert seen(told) == [("ext:test", "load", failure)]
    assert told[0].error is raised.value


def test_a_session_that_is_served_empty(browser, config, told):
    """That holds also where the page is served without its session."""
    config = config_of(clock=Clock(), store_error="empty")
    registry = Registry(told.append)
    config.listeners.add(registry)
    broken(config, ["read", "swap"])
    sent(lambda: browser.begin(config))
    visitor = Browser(config)
    sent(lambda: visitor.write(a=1))

    assert seen(told) == [("ext:test", "load", "unavailable"), ("ext:test", "commit", "unavailable")]


def test_a_commit_that_fails(browser, config, told):
    """A request whose commit fails is one event."""
    request = browser.begin()
    request.session["a"] = 1
    broken(config, ["swap"], "refused")
    with pytest.raises(SessionStoreError):
        request.commit()
    sent()

    assert seen(told) == [("ext:test", "commit", "refused")]


def test_an_access_time_that_is_not_saved(browser, config, told):
    """An access time that is not saved is one, too."""
    config.clock.now += 100
    request = browser.begin()
    broken(config, ["swap"])
    sent(request.commit)

    assert seen(told) == [("ext:test", "touch", "unavailable")]


def test_an_expired_record_that_is_not_deleted(browser, config, told):
    """So is an expired record that is not deleted."""
    config.clock.now += 1000
    broken(config, ["swap"])
    sent(browser.begin)

    assert seen(told) == [("ext:test", "expire", "unavailable")]


def test_a_purge_that_fails(told):
    """So is a purge that the store cuts short."""
    config = config_of(purge_every=60)
    registry = Registry(told.append)
    config.listeners.add(registry)

    def turn(every):
        raise copy(FAILURES["unavailable"])

    config.store.purge_turn = turn
    begin_purge(config)
    for thread in threading.enumerate():
        if thread.name == PURGE:
            thread.join(PATIENCE)
    sent()

    assert seen(told) == [("ext:test", "purge", "unavailable")]


@pytest.mark.parametrize(
    "step",
    [lambda index: index.sessions("ada"), lambda index: index.revoke("ada")],
    ids=["user_sessions", "revoke"],
)
def test_a_users_sessions_that_cannot_be_read(told, step):
    """So is the list of a user's sessions that cannot be read."""
    config = config_of(secret=SECRET)
    registry = Registry(told.append)
    config.listeners.add(registry)
    broken(config, ["read"])
    with pytest.raises(SessionStoreError):
        step(UserIndex(config))
    sent()

    assert seen(told) == [("ext:test", "users", "unavailable")]


def test_a_block_that_cannot_be_run(browser, config, told):
    """So is an exclusive block whose lock, or whose commit, fails."""
    request = browser.begin()
    broken(config, ["lock"], "connection_lost")
    with pytest.raises(SessionStoreError), request.session.exclusive():
        request.session["a"] = 1
    sent()

    assert seen(told) == [("ext:test", "exclusive", "connection_lost")]


def test_an_error_that_passes_several_steps(browser, config, told):
    """An error that passes several steps, such as a commit within a block, is one event."""
    request = browser.begin()

    def commit_in_a_block():
        with request.session.exclusive():
            request.session["a"] = 1
            broken(config, ["swap"])
            request.commit()

    with pytest.raises(SessionStoreError):
        commit_in_a_block()
    sent()

    assert seen(told) == [("ext:test", "commit", "unavailable")]


# -- Changes that are given up -----------------------------------------------------------------------


def test_changes_that_are_lost_to_a_logout(browser):
    """Changes that another request's logout has ended are an event, with what they had made of the session."""
    request, logout = browser.begin(), browser.begin()
    request.session["a"] = 1
    logout.session.invalidate()
    logout.commit()
    request.commit()
    (event,) = request.events

    assert isinstance(event, SessionNotSaved)
    assert isinstance(event, SessionEvent)
    assert (event.session_id, event.data, event.reason) == (browser.id, {"name": "base", "a": 1}, "ended")


def test_changes_that_are_lost_to_others(browser, config, monkeypatch):
    """So are those that could not be merged in time, with the number of tries; the error has it, too."""
    config = config_of(clock=config.clock, store_timeout=0.05)
    request = browser.begin(config)
    request.session["a"] = 1
    swap = config.store.swap

    def lost(session_id, record, new, expires_in=None):
        browser.write(other=browser.read().get("other", 0) + 1)
        return swap(session_id, record, new, expires_in)

    monkeypatch.setattr(config.store, "swap", lost)
    with pytest.raises(SessionConflictError) as raised:
        request.commit()
    (event,) = request.events

    assert (event.reason, event.data["a"]) == ("conflict", 1)
    assert event.tries == raised.value.value > 3


def test_a_merge_counts_its_tries(browser):
    """A merge says how often the record was to be written."""
    first, second = browser.begin(), browser.begin()
    first.session["a"], second.session["b"] = 1, 2
    first.commit()
    second.commit()
    (event,) = second.events

    assert isinstance(event, SessionMerged)
    assert event.tries == 2


def test_a_subscriber_of_a_conflict_that_fails(browser, config, monkeypatch, caplog):
    """A subscriber that fails replaces no conflict."""
    request = browser.begin()
    request.session["a"] = 1

    def fail(event):
        raise RuntimeError("no place")

    request.exchange.notify = fail
    error = SessionConflictError("held")
    monkeypatch.setattr(request.loaded, "_write", lambda: (_ for _ in ()).throw(error))
    with pytest.raises(SessionConflictError):
        request.commit()

    assert "a subscriber of SessionNotSaved failed" in caplog.text


def test_a_conflict_without_subscribers(browser, monkeypatch):
    """Without a subscriber a conflict is an error, as ever."""
    request = browser.begin()
    request.session["a"] = 1
    request.exchange.notify = None
    monkeypatch.setattr(request.loaded, "_write", lambda: (_ for _ in ()).throw(SessionConflictError("held")))

    with pytest.raises(SessionConflictError):
        request.commit()


def test_the_registry_of_an_application_is_met_once():
    """An application's registry is known after its first request, and is not asked for again."""
    views = Views(read=lambda request: len(request.session))
    config = Configurator(settings={"session.secret": SECRET, "session.key": "sid", "session.type": "memory"})
    config.include("beaker_bridge")
    views(config)
    app = TestApp(config.make_wsgi_app())
    app.get("/read")
    app.get("/read")
    source = source_of(config.registry)

    assert source.met is source.config
    assert [known() for known in source.config.listeners._registries] == [config.registry]
