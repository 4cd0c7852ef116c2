"""Two requests of one session that overlap in a chosen way, on every store."""

from __future__ import annotations

import pytest

from beaker_bridge.exceptions import BeakerBridgeError, SessionConflictError, SessionStoreError
from beaker_bridge.record.fields import MOVED
from beaker_bridge.session.session import MOVED_FOR
from tests.requests import STORES, Browser, Clock, Request, config_of, content, options_of, stored, watched

pytestmark = pytest.mark.usefixtures("clean_up")

TIMEOUT = 1000


@pytest.fixture(params=STORES)
def options(request, tmp_path):
    """Return the options of each store in turn."""
    return {**options_of(request, tmp_path), "timeout": TIMEOUT, "store_timeout": 30}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(options, clock):
    return config_of(**options, clock=clock)


@pytest.fixture
def clean_up(config):
    yield
    config.store.close()


@pytest.fixture
def browser(config):
    """Return the browser whose session the requests share."""
    browser = Browser(config)
    browser.write(name="base", cart={"apples": 1, "deep": {"x": 1}}, _f_=["old"])
    return browser


@pytest.fixture
def kept(config, browser):
    """Return what reads the session as the store has it."""
    session_id = browser.id
    return lambda: content(stored(config, session_id))


# -- Readers and writers -----------------------------------------------------------------------------


def test_a_reader_does_not_overwrite_a_writer(browser, kept, clock):
    """A request that only read leaves another's write alone, also where its access time was due."""
    clock.now += TIMEOUT - 1
    reader, writer = browser.begin(), browser.begin()
    dict(reader.session)
    writer.session["a"] = 1
    browser.end(writer)
    browser.end(reader)

    assert kept()["a"] == 1


def test_a_writer_finds_its_session_after_a_readers_touch(browser, kept, clock):
    """A write is not lost to a request that has renewed the access time meanwhile."""
    clock.now += TIMEOUT - 1
    reader, writer = browser.begin(), browser.begin()
    writer.session["a"] = 1
    browser.end(reader)
    browser.end(writer)

    assert kept()["a"] == 1


def test_writers_of_different_keys_both_last(browser, kept):
    """Of two requests that set different keys, neither is lost, and the second one tells of the merge."""
    one, other = browser.begin(), browser.begin()
    one.session["a"] = 1
    other.session["b"] = 2
    del other.session["name"]
    browser.end(one)
    browser.end(other)

    assert kept() == {"a": 1, "b": 2, "cart": {"apples": 1, "deep": {"x": 1}}, "_f_": ["old"]}
    assert one.told == []
    assert other.told == [("SessionMerged", kept())]
    assert other.events[0].conflicts == frozenset()


def test_of_the_same_key_the_later_commit_wins(browser, kept):
    """Two values of one key cannot both last: the later commit's does, and its event names the key."""
    one, other = browser.begin(), browser.begin()
    other.session.update(a="first commit", b=1)
    one.session.update(a="second commit", c=1)
    browser.end(other)
    browser.end(one)

    assert kept().items() >= {"a": "second commit", "b": 1, "c": 1}.items()
    assert [event.conflicts for event in one.events] == [{"a"}]


def test_nested_dicts_are_merged_at_any_depth(browser, kept):
    """Changes of different keys of one nested dict are both kept."""
    one, other = browser.begin(), browser.begin()
    one.session["cart"]["pears"] = 2
    one.session["cart"]["deep"]["y"] = 2
    del other.session["cart"]["apples"]
    other.session["cart"]["deep"]["z"] = 3
    browser.end(one)
    browser.end(other)

    assert kept()["cart"] == {"pears": 2, "deep": {"x": 1, "y": 2, "z": 3}}


@pytest.mark.parametrize(("message", "another"), [("saved", "sent"), ("saved", "saved")])
def test_no_flash_message_is_lost(browser, kept, message, another):
    """Two messages of two requests are two, also where they are equal."""
    one, other = browser.begin(), browser.begin()
    one.session.flash(message)
    other.session.flash(another)
    browser.end(one)
    browser.end(other)

    assert kept()["_f_"] == ["old", message, another]


def test_three_equal_messages_are_three(browser, kept):
    """Two losers that merge the same way do not take each other's record for their own."""
    requests = [browser.begin() for _ in range(3)]
    for request in requests:
        request.session.flash("saved")
    for request in requests:
        browser.end(request)

    assert kept()["_f_"] == ["old", "saved", "saved", "saved"]


def test_a_message_that_is_flashed_without_duplicates_is_one(browser, kept):
    """Requests that overlap flash a message once where each of them asks for that; others' messages stay."""
    requests = [browser.begin() for _ in range(3)]
    for number, request in enumerate(requests):
        request.session.flash("saved", allow_duplicate=False)
        request.session.flash({"text": "saved", "as": ["note"]}, allow_duplicate=False)
        request.session.flash(number)
    for request in requests:
        browser.end(request)

    assert kept()["_f_"] == ["old", "saved", {"text": "saved", "as": ["note"]}, 0, 1, 2]


@pytest.mark.parametrize("deletes_first", [True, False])
def test_a_logout_by_deletion_holds(browser, kept, deletes_first):
    """What one request deletes while another changes it is gone, whoever ends first: no fragment lets anybody in."""
    browser.write(user={"id": 1, "seen": 0})
    deletes, changes = browser.begin(), browser.begin()
    del deletes.session["user"]
    changes.session["user"]["seen"] = 1
    changes.session["page"] = 2
    later = changes if deletes_first else deletes
    browser.end(deletes if deletes_first else changes)
    browser.end(later)

    assert "user" not in kept()
    assert kept()["page"] == 2
    assert [event.conflicts for event in later.events] == [{"user"}]


def test_two_logins_of_one_session_are_one_of_them(browser, kept):
    """Two requests that both set a user leave one of the two, never one's id with the other's rights."""
    one, other = browser.begin(), browser.begin()
    one.session["user"] = {"id": 1, "admin": True, "groups": ["staff"]}
    other.session["user"] = {"id": 2, "name": "bob", "groups": []}
    browser.end(one)
    browser.end(other)

    assert kept()["user"] == {"id": 2, "name": "bob", "groups": []}


@pytest.mark.parametrize("pops_first", [True, False])
def test_a_popped_message_stays_popped_and_a_new_one_stays(browser, kept, pops_first):
    """A message that one request shows is gone, and one that another adds meanwhile is not."""
    shows, adds = browser.begin(), browser.begin()
    popped = shows.session.pop_flash()
    adds.session.flash("new")
    for request in (shows, adds) if pops_first else (adds, shows):
        browser.end(request)

    assert popped == ["old"]
    assert kept()["_f_"] == ["new"]


def test_a_writer_that_loses_three_times_queues_and_is_merged(config, browser, kept):
    """After three lost swaps a request takes the store's lock; nothing of the others' is lost."""
    store = watched(config)
    slow = browser.begin()
    slow.session["slow"] = True
    for nth in range(1, 5):
        # The watched swap before which it happens is the slow one's; each other one has one of its own.
        store.before_swap[2 * nth - 1] = lambda nth=nth: browser.write(**{f"other{nth}": nth})
    store.calls.clear()
    browser.end(slow)

    assert store.calls.count("lock") == 1
    assert kept().items() >= {"slow": True, "other1": 1, "other2": 2, "other3": 3, "other4": 4}.items()


# -- The end of a session ----------------------------------------------------------------------------


def test_a_logout_holds_against_a_slow_writer(browser, config):
    """A request that was under way at the logout does not bring the session back, and sends no cookie."""
    session_id = browser.id
    slow, logout = browser.begin(), browser.begin()
    slow.session["a"] = 1
    logout.session.invalidate()
    browser.end(logout)
    browser.end(slow)

    assert stored(config, session_id) is None
    assert slow.set_cookie is None
    assert browser.read() == {}


def test_a_logout_takes_a_writers_changes_along(browser, config):
    """A session that was written meanwhile is deleted all the same; the event has its last data."""
    session_id = browser.id
    writer, logout = browser.begin(), browser.begin()
    writer.session["a"] = 1
    logout.session.invalidate()
    browser.end(writer)
    browser.end(logout)

    assert stored(config, session_id) is None
    assert [(name, data["a"]) for name, data in logout.told] == [("SessionInvalidated", 1)]


def test_two_logouts_are_one(browser, config):
    """Two requests may delete the same session; neither fails."""
    session_id = browser.id
    one, other = browser.begin(), browser.begin()
    one.session.invalidate()
    other.session.delete()
    browser.end(one)
    browser.end(other)

    assert stored(config, session_id) is None
    assert browser.cookie == ""


def test_what_expires_meanwhile_does_not_come_back(browser, config, clock):
    """A slow request does not write over the end of its session."""
    session_id = browser.id
    slow = browser.begin()
    slow.session["a"] = 1
    clock.now += TIMEOUT + 1
    late = browser.end(browser.begin())
    browser.end(slow)

    assert late.told == [("SessionExpired", {"name": "base", "cart": {"apples": 1, "deep": {"x": 1}}, "_f_": ["old"]})]
    assert stored(config, session_id) is None
    assert slow.set_cookie is None


def test_a_renewal_that_comes_before_the_expiry_counts(browser, config, clock, kept):
    """Where another request renews the session before it is deleted as expired, it is not expired."""
    clock.now += TIMEOUT - 1
    writer = browser.begin()
    writer.session["a"] = 1
    store = watched(config)
    store.before_swap[1] = lambda: browser.end(writer)
    clock.now += 2
    late = browser.begin()

    assert late.session["a"] == 1
    assert late.told == []
    assert kept()["a"] == 1


# -- Logins ------------------------------------------------------------------------------------------


def login(browser, name):
    request = browser.begin()
    request.session.regenerate_id()
    request.session["user"] = name
    return request


def test_a_login_takes_the_session_to_a_new_id(browser, config):
    """After a login the session is under a new id, and under the old one is a marker without data."""
    old = browser.id
    browser.end(login(browser, "ada"))

    assert browser.id != old
    assert browser.read()["user"] == "ada"
    assert content(stored(config, old)) == {}
    assert MOVED in stored(config, old)


@pytest.mark.parametrize("reader_first", [True, False])
def test_a_reader_does_not_log_out_who_logs_in(browser, clock, reader_first):
    """A reader that overlaps a login sends no cookie, whichever of them ends first."""
    clock.now += TIMEOUT - 1
    reader, entry = browser.begin(), login(browser, "ada")
    dict(reader.session)
    for request in (reader, entry) if reader_first else (entry, reader):
        browser.end(request)

    assert reader.set_cookie is None
    assert browser.read()["user"] == "ada"


@pytest.mark.parametrize("begun_before", [True, False])
def test_a_writer_with_the_old_cookie_is_not_let_in(browser, config, begun_before):
    """What the old id brings after a login is not saved anywhere: who knew it is not who has logged in."""
    old = browser.cookie
    writer = browser.begin() if begun_before else None
    browser.end(login(browser, "ada"))
    writer = writer or Request(config, old)
    writer.session["a"] = 1
    browser.end(writer)

    assert writer.set_cookie is None
    assert "a" not in browser.read()
    assert browser.read()["user"] == "ada"


@pytest.mark.parametrize("swap", [1, 2])
def test_a_write_that_comes_before_the_old_id_is_left_is_moved_along(browser, config, swap):
    """A write under the old id is kept, also where it comes between the login's two swaps."""
    old = browser.cookie
    entry = login(browser, "ada")

    def write():
        writer = Request(config, old)
        writer.session["a"] = 1
        writer.commit()

    watched(config).before_swap[swap] = write
    browser.end(entry)

    assert browser.read() == {"a": 1, "user": "ada", "name": "base", "_f_": ["old"]} | {"cart": browser.read()["cart"]}
    assert [name for name, _data in entry.told] == ["SessionMerged"]


@pytest.mark.parametrize("overlapping", [True, False])
def test_a_second_login_has_an_id_of_its_own(browser, config, overlapping):
    """Of a login that is clicked twice, each response has a cookie that opens a session with the login in it."""
    tab = Browser(config)
    tab.cookie = browser.cookie
    second = login(tab, "ada") if overlapping else None
    browser.end(login(browser, "ada"))
    tab.end(second or login(tab, "ada"))

    assert browser.cookie != tab.cookie
    assert browser.read()["user"] == "ada"
    assert tab.read()["user"] == "ada"


@pytest.mark.parametrize("swap", [1, 2])
def test_a_logout_before_a_login_is_done_holds(browser, config, swap):
    """A session that is logged out while a login moves it lives on under neither id."""
    old = browser.cookie
    entry = login(browser, "ada")

    def log_out():
        logout = Request(config, old)
        logout.session.invalidate()
        logout.commit()

    watched(config).before_swap[swap] = log_out
    new = entry.session.id
    entry.commit()

    assert stored(config, new) is None
    assert stored(config, browser.id) is None
    assert entry.set_cookie is None
    assert [name for name, _ in entry.told] == ["SessionNotSaved"]


def test_the_marker_is_gone_after_its_time(browser, config, clock):
    """The first request with the old id after the marker's time removes it, and begins anew."""
    old, old_id = browser.cookie, browser.id
    browser.end(login(browser, "ada"))
    clock.now += MOVED_FOR
    late = Request(config, old)
    late.commit()

    assert stored(config, old_id) is None
    assert late.session.new
    assert late.session.id != old_id
    assert late.told == []


# -- New sessions, and answers that are lost ---------------------------------------------------------


def test_two_first_requests_are_two_sessions(config):
    """Requests without a cookie begin sessions that know nothing of each other."""
    browser = Browser(config)
    one, other = browser.begin(), browser.begin()
    one.session["a"] = 1
    other.session["b"] = 2
    first, second = Browser(config), Browser(config)
    first.end(one)
    second.end(other)

    assert first.read() == {"a": 1}
    assert second.read() == {"b": 2}


def test_a_first_write_that_is_made_twice_is_one(config):
    """A second commit of a new session writes nothing, and what is changed between goes into the same record."""
    request = Request(config)
    request.session["a"] = 1
    store = watched(config)
    request.commit().commit()
    request.session["b"] = 2
    request.commit()

    assert store.calls == ["swap", "swap"]
    assert content(stored(config, request.session.id)) == {"a": 1, "b": 2}


def _lose_answer():
    raise SessionStoreError("the connection broke before the answer came")


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_an_answer_that_is_lost_doubles_no_message(options, clock, new, encrypted):
    """A commit whose answer was lost can be tried again: a message that was written is not written twice."""
    keys = {"encrypt_key": "e" * 32, "validate_key": "v" * 32} if encrypted else {}
    config = config_of(**options, **keys, clock=clock)
    browser = Browser(config)
    if not new:
        browser.write(name="base")
    request = browser.begin()
    request.session.flash("saved")
    store = watched(config)
    store.after_swap[1] = _lose_answer
    with pytest.raises(SessionStoreError):
        request.commit()
    assert request.set_cookie is None
    browser.end(request)

    assert browser.read()["_f_"] == ["saved"]
    assert store.calls[:2] == ["swap", "swap"]
    config.store.close()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_what_is_changed_after_a_lost_answer_joins_what_was_written(options, clock, new, encrypted):
    """A request finds what it has itself written, and goes on from there."""
    keys = {"encrypt_key": "e" * 32, "validate_key": "v" * 32} if encrypted else {}
    config = config_of(**options, **keys, clock=clock)
    browser = Browser(config)
    if not new:
        browser.write(name="base")
    request = browser.begin()
    request.session.flash("saved")
    watched(config).after_swap[1] = _lose_answer
    with pytest.raises(SessionStoreError):
        request.commit()
    request.session.flash("sent")
    browser.end(request)

    assert browser.read()["_f_"] == ["saved", "sent"]
    assert request.told == []
    config.store.close()


def test_a_logout_whose_answer_is_lost_can_be_tried_again(browser, config):
    """A delete that was made finds nothing the second time, and is done."""
    session_id = browser.id
    logout = browser.begin()
    logout.session.invalidate()
    watched(config).after_swap[1] = _lose_answer
    with pytest.raises(SessionStoreError):
        logout.commit()
    browser.end(logout)

    assert stored(config, session_id) is None
    assert browser.cookie == ""


@pytest.mark.parametrize("swap", [1, 2])
@pytest.mark.parametrize("made", [True, False])
def test_a_login_whose_answer_is_lost_can_be_tried_again(browser, config, swap, made):
    """Neither of a login's two swaps is harmed by a second try; the cookie comes with the one that succeeds."""
    old = browser.id
    entry = login(browser, "ada")
    store = watched(config)
    (store.after_swap if made else store.before_swap)[swap] = _lose_answer
    with pytest.raises(SessionStoreError):
        entry.commit()
    assert entry.set_cookie is None
    browser.end(entry)

    assert browser.read()["user"] == "ada"
    assert content(stored(config, old)) == {}


# -- One step ----------------------------------------------------------------------------------------


def test_exclusive_blocks_see_one_anothers_changes(browser, kept):
    """What two requests read, change and write as one step is counted twice."""
    one, other = browser.begin(), browser.begin()
    for request in (one, other):
        with request.session.exclusive():
            request.session["count"] = request.session.get("count", 0) + 1
    browser.end(one)
    browser.end(other)

    assert kept()["count"] == 2


def test_an_exclusive_block_excludes_another_one(browser, options, clock):
    """Who finds the lock held gives up after its time, with what the request had unharmed."""
    impatient = Browser(config_of(**{**options, "store_timeout": 0.05}, clock=clock))
    impatient.config.store.close()
    # In that time a busy server may not even accept a connection.
    impatient.config.store = browser.config.store
    impatient.cookie = browser.cookie
    holder, waiter = browser.begin(), impatient.begin()
    waiter.session["mine"] = 1
    with (
        holder.session.exclusive(),
        pytest.raises(BeakerBridgeError, match="held the session's lock"),
        waiter.session.exclusive(),
    ):
        pytest.fail("two blocks at once")
    impatient.end(waiter)

    assert browser.read()["mine"] == 1


def test_ordinary_writers_do_not_wait_for_an_exclusive_block(browser, kept):
    """A write that needs no step of its own goes past an exclusive block, and is kept beside it."""
    holder = browser.begin()
    with holder.session.exclusive():
        browser.write(b=2)
        holder.session["a"] = 1

    assert kept().items() >= {"a": 1, "b": 2}.items()


def test_a_login_that_is_filled_later_joins_the_first_one(browser, config):
    """The new id of an empty session is named by the tombstone when it is stored, so that a logout finds it."""
    old = browser.cookie
    first = login(browser, "ada").commit()
    second = Request(config, old)
    second.session.regenerate_id()
    second.commit()
    second.session["user"] = "bob"
    second.commit()
    logout = Request(config, old)
    logout.session.invalidate()
    logout.commit()

    assert [stored(config, request.session.id) for request in (first, second)] == [None, None]


def test_a_login_that_overlaps_another_one_keeps_its_block(browser, config):
    """exclusive() in a request that moves the session, after another one has: both logins have what they began with."""
    old = browser.cookie
    second = Request(config, old)
    login(browser, "ada").commit()
    second.session.regenerate_id()
    second.session["user"] = "bob"
    with second.session.exclusive():
        second.session["votes"] = 1
    second.commit()

    kept = content(stored(config, second.session.id))
    assert (kept["user"], kept["votes"]) == ("bob", 1)
    assert second.set_cookie is not None


def test_a_block_in_a_session_that_has_moved_is_refused(browser, config):
    """exclusive() does not run where its changes would be lost, since a login has moved the session."""
    second = Request(config, browser.cookie)
    login(browser, "ada").commit()
    with pytest.raises(SessionConflictError, match="was moved to a new id"), second.session.exclusive():
        second.session["votes"] = 1

    assert "votes" not in second.session
    assert second.commit().set_cookie is None


def test_a_value_that_was_taken_out_is_still_the_sessions_after_a_merge(browser, config):
    """Where no other request has changed a value, a change in place is saved also after a commit that merged."""
    request = browser.begin()
    cart = request.session["cart"]
    browser.write(b=1)
    request.session["a"] = 1
    request.commit()
    cart["pears"] = 2
    request.commit()

    kept = content(stored(config, request.session.id))
    assert (kept["cart"]["pears"], kept["a"], kept["b"]) == (2, 1, 1)
