"""The purge removes what is over, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beaker_bridge.purge import ABANDONED_AFTER, purge
from beaker_bridge.session import MOVED_FOR
from beaker_bridge.session_base import new_id
from tests.requests import START, Browser, Clock, content, options_of, profile_of, stored, watched

TIMEOUT = 1000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "file", "dbm", "sqlite", "postgresql", "mariadb"])
def options(request, tmp_path, clock):
    """Return the options of each store that does not expire its records itself."""
    return {**options_of(request, tmp_path), "clock": clock, "timeout": TIMEOUT}


@pytest.fixture
def profile(options):
    profile = profile_of(**options)
    # The memory and the databases are other tests' as well.
    for session_id in list(profile.store.ids()):
        profile.store.swap(session_id, profile.store.read(session_id), None)
    yield profile
    profile.store.close()


@pytest.fixture
def in_memory(clock):
    """Return a configuration in memory, with nothing in it."""
    profile = profile_of(clock=clock, timeout=TIMEOUT)
    for session_id in list(profile.store.ids()):
        profile.store.swap(session_id, profile.store.read(session_id), None)
    return profile


def write(profile, content):
    """Write a record past all sessions, and return its id."""
    session_id = new_id()
    profile.store.swap(session_id, None, profile.codec.seal(profile.codec.serialize(content)))
    return session_id


def log_in(browser):
    """Give a browser's session a new id, and return the old one."""
    old = browser.id
    request = browser.begin()
    request.session.regenerate_id()
    browser.end(request)
    return old


def test_what_is_over_is_deleted_and_what_lives_is_not(profile, clock):
    """A purge deletes the records whose time is over, and says how many."""
    browsers = [Browser(profile) for _ in range(5)]
    for browser in browsers:
        browser.write(a=1)
    clock.now += TIMEOUT + 1
    alive = Browser(profile)
    alive.write(a=2)

    assert purge(profile) == 5
    assert list(profile.store.ids()) == [alive.id]
    assert alive.read() == {"a": 2}
    assert purge(profile) == 0


def test_a_marker_is_deleted_after_its_time(profile, clock):
    """What remembers an old id is kept for its sixty seconds, and no longer."""
    browser = Browser(profile)
    browser.write(a=1)
    old = log_in(browser)
    clock.now += MOVED_FOR - 1
    assert purge(profile) == 0
    clock.now += 1

    assert purge(profile) == 1
    assert stored(profile, old) is None
    assert browser.read() == {"a": 1}


def test_a_stub_of_beakers_is_deleted(profile):
    """What Beaker's delete() leaves of a session goes, too."""
    write(profile, {"_domain": None, "_path": "/"})

    assert purge(profile) == 1
    assert list(profile.store.ids()) == []


def test_a_session_without_a_timeout_is_never_over(options, profile, clock):
    """Without timeout and absolute_timeout nothing is deleted, save where a session has its own expiry."""
    without = profile_of(**{**options, "timeout": None})
    browser = Browser(without)
    browser.write(a=1)
    short = Browser(without)
    request = short.begin()
    request.session["a"] = 1
    request.session.set_expiry(50)
    short.end(request)
    clock.now += 10**9

    assert purge(without) == 1
    assert browser.read() == {"a": 1}
    without.store.close()


def test_the_absolute_timeout_counts(clock):
    """A session that is too old is over, however busy it is."""
    browser = Browser(profile_of(clock=clock, absolute_timeout=100))
    browser.write(a=1)
    clock.now = START + 101

    assert purge(browser.profile) >= 1
    assert stored(browser.profile, browser.id) is None


def test_a_record_that_cannot_be_read_stays(in_memory):
    """What is damaged, or another configuration's, is not the purge's to judge."""
    session_id = write(in_memory, {"a": 1})
    in_memory.store.swap(session_id, in_memory.store.read(session_id), b"garbage")

    assert purge(in_memory) == 0
    assert in_memory.store.read(session_id).raw == b"garbage"


def test_a_session_that_is_renewed_meanwhile_stays(in_memory, clock):
    """Between the purge's read and its swap a request may have renewed the session."""
    browser = Browser(in_memory)
    browser.write(a=1)
    clock.now += TIMEOUT
    request = browser.begin()
    request.session["b"] = 2
    clock.now += 1
    watched(in_memory).before_swap[1] = request.commit

    assert purge(in_memory) == 0
    assert content(stored(in_memory, browser.id)) == {"a": 1, "b": 2}


def test_a_session_that_is_deleted_meanwhile_is_not_counted(in_memory, clock):
    """Between the list of ids and the purge's read a session may be logged out."""
    browser = Browser(in_memory)
    browser.write(a=1)
    store = watched(in_memory)
    ids = [browser.id]
    request = browser.begin()
    request.session.invalidate()
    request.commit()
    store.ids = lambda: iter(ids)

    assert purge(in_memory) == 0


def test_cookie_sessions_are_not_purged():
    """A cookie session is in its browser only."""
    assert purge(profile_of(type="cookie", validate_key="v" * 32)) == 0


@pytest.mark.parametrize("name", ["file", "dbm"])
@pytest.mark.parametrize("old", [True, False])
def test_what_a_killed_writer_left_is_swept(tmp_path, name, old):
    """A temporary file that no writer can still be writing is removed; a new one is left alone."""
    profile = profile_of(type=name, data_dir=str(tmp_path))
    browser = Browser(profile)
    browser.write(a=1)
    # Which files there are is the dbm module's own.
    written = min(path for path in Path(tmp_path).rglob(f"{browser.id}.*") if path.suffix != ".lock")
    left = written.with_name(f"{written.name}.0123456789abcdef.bridge-tmp")
    left.write_bytes(b"half")
    age = ABANDONED_AFTER + 60 if old else 0
    os.utime(left, (left.stat().st_mtime - age,) * 2)

    assert purge(profile) == old
    assert left.exists() is not old
    assert browser.read() == {"a": 1}
