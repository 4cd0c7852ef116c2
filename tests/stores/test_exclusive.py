"""``exclusive()`` on every store: a lock a session, re-entrant within a request, and no longer than the store's."""

from __future__ import annotations

import pytest

from beaker_bridge.exceptions import SessionConflictError
from beaker_bridge.stores._flock import SLOTS
from beaker_bridge.stores._server import LEASE
from beaker_bridge.testing.contract import together
from tests.requests import STORES, Browser, Clock, config_of, options_of

LEASING = ["sqlite", "redis", "rediscluster", "memcached", "postgresql", "mariadb"]
#: Where a short wait is for the lock alone.
HERE = ["memory", "file", "dbm", "sqlite"]
TIMEOUT = 2


@pytest.fixture(params=STORES)
def options(request, tmp_path):
    return {**options_of(request, tmp_path), "store_timeout": TIMEOUT}


@pytest.fixture
def config(options):
    config = config_of(**options)
    yield config
    config.store.close()


@pytest.fixture
def browser(config):
    browser = Browser(config)
    browser.write(count=0)
    return browser


@pytest.fixture
def monotonic(config):
    """Return the clock by which a lease is seen to end; the test moves it."""
    config.store.monotonic = Clock()
    return config.store.monotonic


def add(session, then=lambda: None):
    """Count, and do something else before the block ends."""
    with session.exclusive():
        session["count"] += 1
        then()


@pytest.mark.parametrize("options", LEASING, indirect=True)
def test_a_block_that_outlives_its_lease_is_refused(browser, monotonic):
    """When somebody else may have the lock, a block's commit is an error, and no count is lost in silence."""
    request, meanwhile = browser.begin(), browser.begin()

    def second_writer():
        monotonic.now += LEASE - 2 * TIMEOUT + 0.1
        meanwhile.session["count"] += 1
        meanwhile.commit()

    with pytest.raises(SessionConflictError, match="took longer than the lock in the store") as refused:
        add(request.session, second_writer)
    request.session["mine"] = 1
    browser.end(request)

    assert refused.value.name == browser.config.store.kind
    assert browser.read() == {"count": 1, "mine": 1}


@pytest.mark.parametrize("options", LEASING, indirect=True)
def test_a_block_within_its_lease_is_committed(browser, monotonic):
    """A block that ends in time is saved; the next one has as long again."""
    for _ in range(2):
        request = browser.begin()
        with request.session.exclusive():
            request.session["count"] += 1
            monotonic.now += LEASE - 2 * TIMEOUT - 0.1

    assert browser.read() == {"count": 2}


@pytest.mark.parametrize("options", ["redis"], indirect=True)
def test_what_is_saved_within_a_late_block_is_refused_too(browser, monotonic):
    """save() within the block is a commit of the block's."""
    request = browser.begin()

    def save():
        monotonic.now += LEASE
        request.loaded.commit()
        pytest.fail("it was saved")

    with pytest.raises(SessionConflictError):
        add(request.session, save)

    assert browser.read() == {"count": 0}


@pytest.mark.parametrize("options", ["redis"], indirect=True)
def test_a_late_block_that_only_reads_is_no_error(browser, monotonic):
    """What changes nothing loses nothing."""
    request = browser.begin()
    with request.session.exclusive():
        monotonic.now += LEASE

    assert browser.read() == {"count": 0}


@pytest.mark.parametrize("options", ["sqlite"], indirect=True)
def test_a_long_store_timeout_makes_a_long_lease(options):
    """Where waits are long, so are leases: five times as long."""
    browser = Browser(config_of(**{**options, "store_timeout": 10}))
    browser.write(count=0)
    clock = browser.config.store.monotonic = Clock()
    for late, counted in ((29.9, 1), (30.1, 0)):
        request = browser.begin()
        before = request.session["count"]
        try:
            with request.session.exclusive():
                request.session["count"] += 1
                clock.now += late
        except SessionConflictError:
            assert not counted

        assert browser.read()["count"] - before == counted
    browser.config.store.close()


@pytest.mark.parametrize("options", ["memory", "file", "dbm"], indirect=True)
def test_a_lock_that_does_not_end_by_itself_has_no_limit(browser):
    """Where the lock is the process's, a block takes as long as it does."""
    request = browser.begin()
    with request.session.exclusive():
        request.session["count"] += 1

        assert request.loaded._lease is None

    assert browser.read() == {"count": 1}


def test_a_request_does_not_wait_for_itself(browser):
    """A request that locks its session by another object, which it found by the id, has the lock already."""
    request = browser.begin()
    with request.session.exclusive():
        found = request.session.get_by_id(browser.id)
        with found.exclusive():
            found["count"] += 1
            found["found"] = 1
        request.session["mine"] = 1
    add(found)

    assert browser.read() == {"count": 2, "found": 1, "mine": 1}


@pytest.mark.parametrize("options", HERE, indirect=True)
def test_a_lock_is_left_once(browser, options):
    """The lock that was had first is left last: until then nobody else has it."""
    request = browser.begin()
    refused = []

    def try_it():
        try:
            add(browser.begin(hasty).session)
        except SessionConflictError:
            refused.append(True)

    hasty = config_of(**{**options, "store_timeout": 0.1})
    found = request.session.get_by_id(browser.id)
    with request.session.exclusive():
        with found.exclusive():
            pass
        together(try_it)
    hasty.store.close()

    assert refused == [True]


@pytest.mark.parametrize("options", HERE, indirect=True)
def test_a_thread_of_the_same_request_waits(options):
    """Two threads that share a request do not share its locks."""
    browser = Browser(config_of(**{**options, "store_timeout": 0.1}))
    browser.write(count=0)
    request = browser.begin()
    found = request.session.get_by_id(browser.id)

    def wait_in_vain():
        with pytest.raises(SessionConflictError):
            add(found)

    with request.session.exclusive():
        together(wait_in_vain)
    browser.config.store.close()

    assert browser.read() == {"count": 0}


@pytest.mark.parametrize("options", ["file", "dbm"], indirect=True)
def test_a_request_locks_many_sessions(config, options):
    """Whoever locks many sessions waits neither for himself nor keeps strangers from theirs."""
    browsers = [Browser(config) for _ in range(2 * SLOTS)]
    for browser in browsers:
        browser.write(count=0)
    mine, *others = browsers
    strangers, mine_only = others[:SLOTS], others[SLOTS:]
    request = mine.begin()
    sessions = [request.session.get_by_id(browser.id) for browser in mine_only]

    def nested(rest):
        if not rest:
            together(lambda: [add(browser.begin().session) for browser in strangers])
            return
        with rest[0].exclusive():
            rest[0]["count"] += 1
            nested(rest[1:])

    with request.session.exclusive():
        request.session["count"] += 1
        nested(sessions)

    assert [browser.read()["count"] for browser in browsers] == [1] * len(browsers)
