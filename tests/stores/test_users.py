"""A user's sessions: bound, listed, ended from elsewhere, on every store."""

from __future__ import annotations

import pytest

from beaker_bridge.session.users import UserIndex
from tests.requests import STORES, Browser, Clock, config_of, options_of

SECRET = "a secret of thirty-two bytes, or more"


@pytest.fixture(params=list(STORES))
def store(request, tmp_path):
    """Return the options of each store."""
    return options_of(request, tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(store, clock):
    config = config_of(**store, secret=SECRET, timeout=1200, clock=clock)
    yield config
    config.store.close()


@pytest.fixture
def memory(clock):
    return config_of(type="memory", secret=SECRET, timeout=1200, clock=clock)


def log_in(config, user_id=42, **options):
    """Return a browser that has logged in."""
    browser = Browser(config)
    request = browser.begin()
    request.session["user"] = user_id
    request.session.bind(user_id, **options)
    browser.end(request)
    return browser


def handles(config, user_id=42):
    return [session.handle for session in UserIndex(config).sessions(user_id)]


def test_a_login_is_listed_and_can_be_ended(config):
    one, other = log_in(config, note={"browser": "Firefox"}), log_in(config)
    index = UserIndex(config)
    listed = {session.handle: session for session in index.sessions(42)}

    assert len(listed) == 2
    assert {"browser": "Firefox"} in [session.note for session in listed.values()]
    assert one.read() == other.read() == {"user": 42}
    first = next(handle for handle, session in listed.items() if session.note)
    assert index.revoke_one(first)
    assert not index.revoke_one(first)
    assert one.read() == {}
    assert other.read() == {"user": 42}
    assert index.revoke(42) == 1
    assert other.read() == {}
    assert index.sessions(42) == []
