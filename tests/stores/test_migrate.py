"""Sessions are copied from one store to another while the site runs, and nothing newer is lost for it."""

from __future__ import annotations

import secrets
from decimal import Decimal
from itertools import count

import pytest

from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.record import serializers
from beaker_bridge.session.journal import Journal
from beaker_bridge.session.migrate import COPY, END, MAX_NAMED, VERIFY, Migrated, Refused, migrate, notes
from beaker_bridge.session.session import MOVED_FOR
from beaker_bridge.session.users import UserIndex
from beaker_bridge.stores._breaker import ServerUnavailableError
from tests.requests import START, STORES, Browser, Clock, config_of, options_of, stored

# Real servers and processes: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

TIMEOUT = 1000
#: The stores that list their sessions, and are not in one process.
SOURCES = [name for name in STORES if name not in ("memory", "memcached")]
TARGETS = [name for name in STORES if name != "memory"]


class Foo:
    """A value that JSON does not take."""

    def __init__(self, content):
        self.content = content


@pytest.fixture
def clock():
    return Clock()


class Move:
    """A site that moves from one store to another.

    Args:
        old: the old site's configuration.
        new: the new one's.
        journal: the path of the journal.
    """

    def __init__(self, old, new, journal):
        self.old, self.new, self.journal = old, new, journal
        # The servers are other tests' as well.
        for config in (old, new):
            self.empty(config.store)

    @staticmethod
    def empty(store):
        """Delete what a store lists."""
        for batch in store.scan() if store.lists else ():
            store.delete(batch)

    def run(self, **how):
        """Run the migration, and return what it has done."""
        with Journal(str(self.journal)) as journal:
            return migrate(self.old, self.new, journal, **how)

    def visit(self, browser):
        """Return a browser of the new site with the cookie of one of the old site's."""
        other = Browser(self.new)
        other.cookie = browser.cookie
        return other

    def close(self):
        """Close the connections."""
        for config in (self.old, self.new):
            config.store.close()


@pytest.fixture
def make_move(tmp_path, clock):
    """Return what makes a move, by default from files to other files."""
    made = []

    def make(old=None, new=None, **others):
        old, new = (
            {
                **({} if "type" in (given or {}) else {"type": "file", "data_dir": str(tmp_path / name)}),
                "clock": clock,
                "timeout": TIMEOUT,
                **(given or {}),
            }
            for name, given in (("old", old), ("new", new))
        )
        made.append(Move(config_of(**old), config_of(**new), tmp_path / "journal", **others))
        return made[-1]

    yield make
    for move in made:
        move.close()


@pytest.fixture
def move(make_move):
    return make_move()


def visitor(config, **content):
    """Return a browser with a session."""
    browser = Browser(config)
    browser.write(**content)
    return browser


def log_out(browser):
    """End a browser's session; it keeps its cookie."""
    request = browser.begin()
    request.session.invalidate()
    request.commit()


def rotate(browser):
    """Move a browser's session to a new id."""
    request = browser.begin()
    request.session.regenerate_id()
    browser.end(request)


# -- From any store to any other -----------------------------------------------------------------------


class TestFromEachStore:
    """Each store that lists its sessions can be left."""

    @pytest.fixture(params=SOURCES)
    def move(self, request, make_move, tmp_path):
        (tmp_path / "source").mkdir()
        return make_move(old=options_of(request, tmp_path / "source"))

    def test_sessions_are_copied_with_their_ids_and_times(self, move, clock):
        """A cookie of the old site opens the same session on the new one, for as long as it would have."""
        check_a_move(move, clock)


class TestToEachStore:
    """Each store can be entered that is shared by all processes."""

    @pytest.fixture(params=TARGETS)
    def move(self, request, make_move, tmp_path):
        (tmp_path / "target").mkdir()
        return make_move(new=options_of(request, tmp_path / "target"))

    def test_sessions_are_copied_with_their_ids_and_times(self, move, clock):
        """A cookie of the old site opens the same session on the new one, for as long as it would have."""
        check_a_move(move, clock)

    def test_a_second_run_copies_what_has_changed(self, move):
        """What the old site has changed since is copied again; of the others not a byte is written."""
        same, changed = visitor(move.old, a=1), visitor(move.old, a=1)
        move.run()
        changed.write(a=2)
        before = move.new.store.read(same.id)
        done = move.run()

        assert (done.copied, done.same, done.verified) == (1, 1, 2)
        assert move.visit(changed).read() == {"a": 2}
        assert move.new.store.read(same.id).raw == before.raw

    def test_a_second_run_ends_what_has_ended(self, move):
        """A logout on the old site ends the copy, where the new store can list it."""
        ended, moved = visitor(move.old, a=1), visitor(move.old, a=2)
        before = move.visit(moved)
        move.run()
        log_out(ended)
        rotate(moved)
        done = move.run()

        assert done.ended == move.new.store.lists
        assert move.visit(moved).read() == {"a": 2}
        assert before.read() == {}
        assert (stored(move.new, ended.id) is None) is move.new.store.lists


def check_a_move(move, clock):
    """Check that live sessions are copied, and only these."""
    browser, remembered, expired = (visitor(move.old, name=name) for name in ("one", "remembered", "expired"))
    request = remembered.begin()
    request.session.set_expiry(3 * TIMEOUT)
    remembered.end(request)
    clock.now += TIMEOUT // 2
    browser.write(cart=["thing"])
    clock.now += TIMEOUT // 2 + 1
    told = []
    done = move.run(batch=2, progress=lambda stage, steps: told.append((stage, steps)))

    assert (done.seen, done.copied, done.expired, done.verified, done.ended) == (3, 2, 1, 2, 0)
    assert done.is_complete
    assert sum(steps for stage, steps in told if stage == COPY) == 3
    assert sum(steps for stage, steps in told if stage == VERIFY) == 3
    assert sum(steps for stage, steps in told if stage == END) == (2 if move.new.store.lists else 0)
    assert stored(move.new, expired.id) is None
    times = [
        [stored(config, browser.id)[key] for key in ("_creation_time", "_accessed_time")]
        for config in (move.old, move.new)
    ]
    assert times[0] == times[1]
    assert move.visit(browser).read() == {"name": "one", "cart": ["thing"]}
    assert browser.read() == {"name": "one", "cart": ["thing"]}

    clock.now += TIMEOUT + 1

    assert move.visit(browser).read() == {} == browser.read()
    assert move.visit(remembered).read() == {"name": "remembered"}


def test_a_server_is_told_when_a_copy_expires(make_move, redis_server, clock):
    """What expires by itself does so no sooner, and not much later, than it would have."""
    move = make_move(new={"type": "ext:redis", "url": redis_server.url, "absolute_timeout": 700})
    idle, tombstone = visitor(move.old, a=1), visitor(move.old, a=1)
    old_id = tombstone.id
    rotate(tombstone)
    clock.now += 100
    move.run()
    with redis_server.client() as client:
        lives = [client.pttl(f"beaker_cache:{session_id}:session") for session_id in (idle.id, old_id)]

    assert 700_000 < lives[0] <= 720_000
    assert (MOVED_FOR - 120) * 1000 < lives[1] <= (MOVED_FOR - 100) * 1000


def test_sessions_without_a_timeout_are_kept(make_move, redis_server):
    """Where no session expires, no copy does."""
    move = make_move(old={"timeout": None}, new={"type": "ext:redis", "url": redis_server.url, "timeout": None})
    browser = visitor(move.old, a=1)
    move.run()
    log_out(move.visit(browser))

    assert move.run().ended_there == 1


def test_from_one_table_to_another(make_move, tmp_path):
    """Both tables may be in one database."""
    url = {"type": "ext:database", "url": f"sqlite:///{tmp_path}/s.db"}
    move = make_move(old=url, new={**url, "table_name": "sessions"})
    browser = visitor(move.old, a=1)

    assert move.run().copied == 1
    assert move.visit(browser).read() == {"a": 1}


# -- Serializers and keys ------------------------------------------------------------------------------


VALUES = {"price": Decimal("1.50"), "tags": {"a", "b"}, "place": (1, 2), "deep": [{"x": None}]}


@pytest.mark.parametrize("serializers", [("pickle", "json"), ("json", "pickle")])
def test_serializers_differ(make_move, serializers):
    """Values come along from pickles to JSON, and back, with their types."""
    move = make_move(*({"data_serializer": name} for name in serializers))
    browser = visitor(move.old, **VALUES)
    done = move.run()

    assert (done.copied, done.verified, done.is_complete) == (1, 1, True)
    assert move.visit(browser).read() == VALUES


def test_keys_differ(make_move):
    """An encrypted session is encrypted anew, and bound to its id; one that was copied to another id stays behind."""
    keys = {"encrypt_key": "e" * 32, "validate_key": "v" * 32}
    move = make_move(keys, {**keys, "encrypt_key": "f" * 32})
    browser = visitor(move.old, a=1)
    stolen = secrets.token_hex(16)
    move.old.store.swap(stolen, None, move.old.store.read(browser.id).raw)
    done = move.run()

    assert (done.copied, done.verified) == (1, 1)
    assert done.unreadable == {"it is another session's record": 1}
    assert stored(move.new, browser.id)["_id"] == browser.id
    assert move.visit(browser).read() == {"a": 1}

    plain = make_move(keys)
    browser = visitor(plain.old, a=1)
    plain.run()

    assert "_id" not in stored(plain.new, browser.id)


FOO = f"{Foo.__module__}.Foo"
#: Values that JSON refuses, and the type that is named.
REFUSED = {
    "an object": (Foo("secret"), FOO),
    "within a dict": ({"secret": [1, Foo("secret")]}, FOO),
    "a key": ({"secret": {1: "secret"}}, "dict with a key of type int"),
    "a complex number": (1j, "complex"),
    "a set": ([{Foo("secret")}], FOO),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_named_and_stays(make_move, case):
    """A value that JSON refuses is told by its key and its type, never by what it is; the other sessions go."""
    value, kind = REFUSED[case]
    move = make_move({"data_serializer": "pickle"})
    for content in (value, value, "fine"):
        visitor(move.old, cart=content)
    done = move.run()

    assert done.refused == {Refused("cart", kind): 2}
    assert (done.copied, done.verified, done.is_complete) == (1, 1, False)
    assert "secret" not in repr(done)


def test_a_value_that_holds_itself_is_refused(make_move):
    """What is nested without an end is named without following it for ever."""
    move = make_move({"data_serializer": "pickle"})
    one, deep = [], 0
    one.append([one])
    for _ in range(400):
        deep = {"a": deep}
    for value in (one, deep):
        visitor(move.old, cart=value)

    assert move.run().refused == {Refused("cart", "list"): 1, Refused("cart", "dict"): 1}


def test_what_is_too_large_is_refused(make_move, memcached_server, monkeypatch):
    """A session that the new store, or its serializer, does not hold is counted."""
    move = make_move({"data_serializer": "pickle"}, {"type": "ext:memcached", "url": memcached_server.url})
    visitor(move.old, a=secrets.token_bytes(2 << 20))
    visitor(move.old, a=b"x" * 4000)
    monkeypatch.setattr(serializers, "MAX_PLAIN_SIZE", 3000)
    done = move.run()

    assert done.refused == {Refused(None, "too large"): 2}

    monkeypatch.undo()
    done = move.run()

    assert done.refused == {Refused(None, "too large"): 1}
    assert done.copied == 1


def test_a_serializer_that_fails_is_not_quoted(make_move):
    """What an application's own serializer says may be the value."""

    class Picky:
        def dumps(self, record):
            raise ValueError("secret")

        def loads(self, plain):
            return {}

    move = make_move(new={"data_serializer": Picky()})
    visitor(move.old, a=1)
    done = move.run()

    assert done.refused == {Refused("a", "int"): 1}


def test_not_every_key_is_named():
    """A session's keys may be anything: the names are bounded."""
    done = Migrated()
    for number in range(MAX_NAMED + 5):
        done.refuse(Refused(f"{number}", "Foo"))

    assert len(done.refused) == MAX_NAMED + 1
    assert done.refused[None, "others"] == 5


def test_what_cannot_be_read_is_counted_with_the_reason(make_move):
    """A damaged record, and a pickle that the old site would not read either, stay behind."""
    move = make_move()
    visitor(move.old, a=1)
    move.old.store.swap("0" * 32, None, b"garbage")
    move.old.store.swap("1" * 32, None, config_of(data_serializer="pickle", type="file", data_dir="x").codec.encode({}))
    done = move.run()

    assert (done.copied, done.is_complete) == (1, False)
    assert sum(done.unreadable.values()) == 2
    assert any("legacy_serializer = pickle" in reason for reason in done.unreadable)


# -- What the new site has done since ------------------------------------------------------------------


def test_what_the_new_site_has_written_stays(move):
    """A session that goes on at the new site is not taken back to what the old one had."""
    browser = visitor(move.old, a=1)
    move.run()
    move.visit(browser).write(a=2)
    browser.write(b=3)
    done = move.run()

    assert (done.copied, done.newer, done.is_complete) == (0, 1, True)
    assert move.visit(browser).read() == {"a": 2}


def test_what_the_new_site_has_read_stays(move, clock):
    """A session that was used at the new site, and is over at the old one, lives on."""
    browser = visitor(move.old, a=1)
    move.run()
    clock.now += TIMEOUT // 2
    assert move.visit(browser).read() == {"a": 1}
    clock.now += TIMEOUT // 2 + 1
    done = move.run()

    assert (done.expired, done.ended) == (1, 0)
    assert move.visit(browser).read() == {"a": 1}


def test_a_copy_that_was_only_read_is_verified(move, clock):
    """The access time is the new site's, all the rest is as it was copied."""
    browser = visitor(move.old, a=1)
    move.run()
    clock.now += TIMEOUT // 2
    move.visit(browser).read()
    done = move.run()

    assert (done.same, done.verified, done.different) == (1, 1, 0)


def test_a_copy_that_is_not_what_was_written_is_told(move, clock):
    """What differs in a copy that the new site has read, beside its access time, is found out."""
    browser = visitor(move.old, a=1)
    move.run()
    record = move.new.store.read(browser.id)
    content = move.new.codec.decode(record.raw)[0]
    changed = {**content, "_accessed_time": content["_accessed_time"] + 1, "a": 2}
    move.new.store.swap(browser.id, record, move.new.codec.encode(changed))
    done = move.run()

    assert (done.same, done.verified, done.different) == (1, 0, 1)


def test_a_logout_at_the_new_site_holds(move):
    """What a run has copied, and has ended at the new site since, does not come back, though the old site has it."""
    browser = visitor(move.old, a=1)
    move.run()
    log_out(move.visit(browser))
    browser.write(b=2)
    done = move.run()

    assert (done.copied, done.ended_there) == (0, 1)
    assert move.visit(browser).read() == {}


def test_a_login_at_the_new_site_holds(move, clock):
    """What has moved to a new id at the new site does not come back under the old one."""
    browser = visitor(move.old, a=1)
    move.run()
    there = move.visit(browser)
    rotate(there)
    clock.now += TIMEOUT // 2
    browser.write(b=2)

    assert move.run().newer == 1
    assert there.read() == {"a": 1}
    assert move.visit(browser).read() == {}


def test_a_copy_that_expired_unused_is_copied_again(move, clock):
    """A site may run on the old store for days between two runs: nobody has ended what only expired there."""
    browser = visitor(move.old, a=1)
    move.run()
    for _ in range(3):
        clock.now += TIMEOUT // 2
        browser.write(a=2)
    move.empty(move.new.store)
    done = move.run()

    assert (done.copied, done.ended_there) == (1, 0)
    assert move.visit(browser).read() == {"a": 2}


def test_what_the_old_site_was_used_for_later_is_copied(move, clock):
    """Where a site went back to the old store, and moves again, the session that was used last counts."""
    browser = visitor(move.old, a=1)
    move.run()
    move.visit(browser).write(a=2)
    clock.now += TIMEOUT // 2
    browser.write(a=3)
    done = move.run()

    assert (done.copied, done.newer) == (1, 0)
    assert move.visit(browser).read() == {"a": 3}


def test_a_record_that_cannot_be_read_there_is_left(move):
    """What the new store holds already is not written over unless it is known what it is."""
    browser = visitor(move.old, a=1)
    move.new.store.swap(browser.id, None, b"garbage")
    done = move.run()

    assert (done.copied, done.newer) == (0, 1)
    assert move.new.store.read(browser.id).raw == b"garbage"


def test_a_write_of_the_new_site_in_between_wins(move, monkeypatch):
    """A request of the new site may come between what is read there and what is written."""
    browser = visitor(move.old, a=1)
    swap = move.new.store.swap

    def overtaken(session_id, *rest):
        if session_id == browser.id:
            monkeypatch.undo()
            swap(session_id, None, move.new.codec.encode({"_creation_time": START, "_accessed_time": START, "a": 2}))
        return swap(session_id, *rest)

    monkeypatch.setattr(move.new.store, "swap", overtaken)
    done = move.run()

    assert (done.copied, done.newer) == (0, 1)
    assert move.visit(browser).read() == {"a": 2}


# -- While the old site runs ---------------------------------------------------------------------------


def test_what_comes_or_changes_meanwhile_is_copied(move):
    """What the old site begins or changes after it was listed is found by the second look."""
    browser, others = visitor(move.old, a=1), []

    def progress(stage, _steps):
        if stage == COPY and not others:
            browser.write(a=2)
            others.append(visitor(move.old, b=1))

    done = move.run(progress=progress)

    assert (done.copied, done.verified, done.is_complete) == (3, 2, True)
    assert move.visit(browser).read() == {"a": 2}
    assert move.visit(others[0]).read() == {"b": 1}


def test_what_cannot_be_converted_and_comes_meanwhile_is_counted(make_move):
    """No session is left behind without a word."""
    move = make_move({"data_serializer": "pickle"})
    visitor(move.old, a=1)
    come = count()

    def progress(stage, _steps):
        if stage == COPY and not next(come):
            visitor(move.old, cart=Foo(1))

    assert move.run(progress=progress).refused == {Refused("cart", FOO): 1}


def test_a_tombstone_goes_along(move, clock):
    """An id that a login has just left opens nothing at the new site, and ends what it has become."""
    browser = visitor(move.old, a=1)
    before = move.visit(browser)
    rotate(browser)
    move.run()

    assert before.read() == {}

    log_out(before)

    assert move.visit(browser).read() == {}

    clock.now += MOVED_FOR

    assert move.run().expired == 1


# -- Interruptions -------------------------------------------------------------------------------------


def test_a_run_can_be_interrupted_anywhere(make_move, monkeypatch, tmp_path):
    """Whatever step a run ends at, what it has done counts, and the next one completes it."""
    for steps in count():
        move = make_move({"data_dir": str(tmp_path / f"old{steps}")}, {"data_dir": str(tmp_path / f"new{steps}")})
        move.journal = tmp_path / f"journal{steps}"
        ended = visitor(move.old, a=0)
        move.run()
        log_out(ended)
        browsers = [visitor(move.old, a=nth) for nth in range(3)]
        left = [steps]
        for store in (move.old.store, move.new.store):
            for name in ("read", "swap", "delete"):
                monkeypatch.setattr(store, name, interrupting(getattr(store, name), left))
        done = Migrated()
        try:
            move.run(done=done)
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
        monkeypatch.undo()
        again = move.run()

        assert done.copied + again.copied >= 3
        assert again.verified == 3
        assert [move.visit(browser).read()["a"] for browser in browsers] == [0, 1, 2]
        assert stored(move.new, ended.id) is None
        if not interrupted:
            break
    assert steps > 10


def interrupting(step, left):
    """Return a step that is interrupted when so many are over."""

    def stepped(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return step(*arguments)

    return stepped


def test_a_run_that_was_killed_before_it_noted_a_copy(move):
    """A copy that the journal lacks is noted by the next run, so that a logout holds."""
    browser = visitor(move.old, a=1)
    move.run()
    move.journal.unlink()
    move.run()
    log_out(move.visit(browser))

    assert move.run().ended_there == 1


def test_what_is_lost_is_told(move, monkeypatch):
    """Each copy is read back at the end: one that is not what was written is counted."""
    browsers = [visitor(move.old, a=nth) for nth in range(2)]
    read_all, swap = move.new.store.read_all, move.new.store.swap
    reads = count()

    def losing(session_ids):
        if session_ids and next(reads):
            record = move.new.store.read(browsers[0].id)
            content = move.new.codec.decode(record.raw)[0]
            swap(browsers[0].id, record, move.new.codec.encode({**content, "a": 9}))
        return read_all(session_ids)

    monkeypatch.setattr(move.new.store, "read_all", losing)
    done = move.run()

    assert (done.copied, done.verified, done.different, done.is_complete) == (2, 1, 1, False)


# -- Failures ------------------------------------------------------------------------------------------


def test_a_record_that_is_refused_ends_no_run(move, monkeypatch, caplog):
    """Where one session cannot be written, or read back, the others are."""
    browsers = [visitor(move.old, a=nth) for nth in range(3)]
    swap, read = move.new.store.swap, move.new.store.read

    def refusing(session_id, *rest):
        if session_id == browsers[0].id:
            raise SessionStoreError("refused")
        return swap(session_id, *rest)

    def unreadable(session_id):
        if session_id == browsers[1].id:
            raise SessionStoreError("unreadable")
        return read(session_id)

    monkeypatch.setattr(move.new.store, "swap", refusing)
    monkeypatch.setattr(move.new.store, "read", unreadable)
    done = move.run()

    assert (done.copied, done.failed, done.newer, done.verified) == (1, 1, 1, 1)
    assert not done.is_complete
    assert "refused" in caplog.text


def test_what_cannot_be_read_has_not_ended(move, monkeypatch):
    """A copy stays where the old store cannot open the session, or what it opens is damaged."""
    browsers = [visitor(move.old, a=nth) for nth in range(2)]
    move.run()
    record = move.old.store.read(browsers[0].id)
    move.old.store.swap(browsers[0].id, record, b"garbage")
    read = move.old.store.read

    def unreadable(session_id):
        if session_id == browsers[1].id:
            raise SessionStoreError("unreadable")
        return read(session_id)

    monkeypatch.setattr(move.old.store, "read", unreadable)
    done = move.run()

    assert done.ended == 0
    assert sum(done.unreadable.values()) == 2
    assert [move.visit(browser).read()["a"] for browser in browsers] == [0, 1]


@pytest.mark.parametrize("name", ["read", "swap"])
def test_a_server_that_goes_away_ends_a_run(move, monkeypatch, name):
    """Where the new store can no longer be reached, there is nothing to go on with."""
    visitor(move.old, a=1)
    step = getattr(move.new.store, name)
    steps = count()

    def away(*arguments):
        # The first ones are those of the probe.
        if next(steps) > 1:
            raise ServerUnavailableError("away")
        return step(*arguments)

    monkeypatch.setattr(move.new.store, name, away)
    with pytest.raises(ServerUnavailableError):
        move.run()


# -- What is refused -----------------------------------------------------------------------------------


COOKIES = {"type": "cookie", "validate_key": "v" * 32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((COOKIES, None), "cannot be copied from type = cookie: the sessions are in the browsers"),
        ((None, COOKIES), "cannot be copied to type = cookie: the sessions are in the browsers"),
        (({"type": "memory"}, None), "cannot be copied from type = memory: the sessions are in the memory of the site"),
        ((None, {"type": "memory"}), "cannot be copied to type = memory: the sessions are in the memory of the site"),
        (
            ({"type": "ext:memcached", "url": "127.0.0.1:1"}, None),
            "cannot be copied from type = ext:memcached: it cannot list its sessions",
        ),
    ],
)
def test_what_cannot_be_copied_is_refused(tmp_path, options, message):
    """Sessions of cookies, of a process's memory, and of memcached stay where they are, and a sentence says so."""
    files = {"type": "file", "data_dir": str(tmp_path / "files")}
    configs = [config_of(**(given or files)) for given in options]
    with Journal(str(tmp_path / "journal")) as journal, pytest.raises(SettingsError, match=message):
        migrate(*configs, journal)


def test_one_store_is_no_other(make_move, tmp_path):
    """Two names of one place are found out, and nothing is left there."""
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "old")
    move = make_move(new={"data_dir": str(tmp_path / "link"), "data_serializer": "pickle"})
    browser = visitor(move.old, a=1)
    with pytest.raises(SettingsError, match="are the same one"):
        move.run()

    assert list(move.old.store.ids()) == [browser.id]


def test_what_differs_is_told():
    """Where a cookie of the old site opens nothing at the new one, a sentence says what to do."""
    old = config_of(secret="o" * 32, key="a", sign_algorithm="sha256").options
    new = config_of(secret="n" * 32, key="b").options
    told = notes(old, new)

    assert [
        word
        for word in ("previous_secrets", "previous_sign_algorithms", "key = a, and b")
        for line in told
        if word in line
    ] == [
        "previous_secrets",
        "previous_sign_algorithms",
        "key = a, and b",
    ]
    same = config_of(secret="n" * 32, previous_secrets="o" * 32, key="a", sign_algorithm="sha256").options
    assert notes(old, same) == []


@pytest.mark.parametrize("secret", ["o" * 32, "n" * 32])
def test_lists_of_users_sessions_go_along_under_the_same_secret(make_move, secret):
    """What lists a user's sessions is found by the secret, and is of no use under another one."""
    move = make_move({"secret": "o" * 32}, {"secret": secret})
    is_same = secret == "o" * 32
    browser = Browser(move.old)
    request = browser.begin()
    request.session["a"] = 1
    request.session.bind("user", {"browser": "Firefox"})
    browser.end(request)
    done = move.run()
    there = UserIndex(move.new)

    assert (done.copied, done.indexes, done.verified) == (1 + is_same, not is_same, 1 + is_same)
    assert [session.note for session in there.sessions("user")] == [{"browser": "Firefox"}] * is_same
    if is_same:
        user = move.visit(browser)
        rotate(user)

        assert user.read() == {"a": 1}
        assert there.revoke("user") == 1
        assert user.read() == {}

        again = move.run()

        assert again.copied == 0
        assert user.read() == move.visit(browser).read() == {}
        assert there.sessions("user") == []


def log_in(config, **note):
    """Return a browser whose session is a user's."""
    browser = Browser(config)
    request = browser.begin()
    request.session["a"] = 1
    request.session.bind("user", note)
    browser.end(request)
    return browser


def test_lists_of_both_sites_are_united(make_move):
    """A login, or a new id, of the old processes' last minutes is revoked at the new site, too."""
    move = make_move({"secret": "o" * 32}, {"secret": "o" * 32})
    one = log_in(move.old, n=1)
    move.run()
    rotate(one)
    two, three = log_in(move.new, n=2), log_in(move.old, n=3)
    there = UserIndex(move.new)
    done = move.run()

    assert (done.newer, done.different, done.is_complete) == (0, 0, True)
    assert {session.note["n"] for session in there.sessions("user")} == {1, 2, 3}
    assert UserIndex(move.old).revoke_one(next(each.handle for each in there.sessions("user") if each.note["n"] == 3))
    assert move.run().is_complete
    assert {session.note["n"] for session in there.sessions("user")} == {1, 2}

    there.revoke("user")

    assert [move.visit(browser).read() for browser in (one, two, three)] == [{}, {}, {}]
    assert move.run().is_complete
    assert [move.visit(browser).read() for browser in (one, two, three)] == [{}, {}, {}]


def test_a_damaged_list_is_left(make_move):
    """What a site would not take for a list of a user's sessions is not united with one, and ends no run."""
    move = make_move({"secret": "o" * 32}, {"secret": "o" * 32})
    log_in(move.old)
    move.run()
    [index_id] = UserIndex(move.new).ids_for("user")
    record = move.new.store.read(index_id)
    raw = move.new.codec.encode({"_bb_logins": {"login": {"ids": None}}})
    move.new.store.swap(index_id, record, raw)
    log_in(move.old)

    assert move.run().newer == 1
    assert move.new.store.read(index_id).raw == raw


def test_an_ending_at_the_old_site_holds(make_move):
    """A session that was revoked at one site is not served by the other, though that has written it."""
    move = make_move({"secret": "o" * 32}, {"secret": "o" * 32})
    browser = log_in(move.old)
    move.run()
    move.visit(browser).write(b=1)
    UserIndex(move.old).revoke("user")

    assert move.run().is_complete
    assert move.visit(browser).read() == {}


# -- The journal ---------------------------------------------------------------------------------------


def test_a_journal_that_was_cut_goes_on(tmp_path):
    """What a killed run has written half is written over."""
    path = tmp_path / "journal"
    ids = [secrets.token_hex(16) for _ in range(3)]
    with Journal(str(path)) as journal:
        journal.add(ids[0], None)
        journal.add(ids[1], START)
    with path.open("ab") as file:
        file.write(b"half")
    with Journal(str(path)) as journal:
        assert [journal.has_live(session_id, START - 1) for session_id in ids] == [True, True, False]
        assert not journal.has_live(ids[1], START)
        journal.add(ids[1], START + 10)
        journal.flush()
    with Journal(str(path)) as journal:
        assert journal.has_live(ids[1], START + 9)
        assert path.stat().st_size == 24 + 3 * 12


def test_another_file_is_no_journal(tmp_path):
    """A file that holds something else is left as it is."""
    path = tmp_path / "journal"
    path.write_text("a text that is long enough to be looked at")
    with pytest.raises(SettingsError, match="is no journal of a migration; name another file"):
        Journal(str(path))

    assert path.read_text().startswith("a text")

    with pytest.raises(SettingsError, match=r"the journal .* cannot be written: Not a directory"):
        Journal(str(path / "within"))
