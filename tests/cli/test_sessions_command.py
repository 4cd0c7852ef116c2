"""``beaker-bridge sessions`` on a site that is under load."""

from __future__ import annotations

import re
import secrets
import time

import pytest

from beaker_bridge.cli.sessions import _handle, _hexadecimal
from beaker_bridge.cli.words import size, span
from beaker_bridge.session.base import new_id, shown
from beaker_bridge.session.login import UserSession
from beaker_bridge.session.survey import Histogram, survey
from tests.cli.busy import BusySite, Traffic, paths, url_of
from tests.cli.sites import FINE, SECRET, with_option
from tests.live_site import Visitor
from tests.requests import STORES, stored

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

LISTED = [name for name in STORES if name not in ("memory", "memcached")]


@pytest.fixture
def make_site(folder, request):
    """Return what makes a site."""
    made = []

    def make(store="file", **options):
        made.append(BusySite(folder, "site", store, url_of(request, store), **options))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site):
    return make_site()


def write(site, ago=0.0, session_id=None, **content):
    """Write a session that was last used some time ago, and return its id."""
    session_id = session_id or new_id()
    at = time.time() - ago
    raw = site.config.codec.encode({"_creation_time": at - 1, "_accessed_time": at, **content})
    site.config.store.swap(session_id, None, raw)
    return session_id


def handles(folder, site, user="42"):
    """Return the handles of a user's sessions, as the command lists them."""
    done = folder.call("sessions", site.ini, "user", user, "--json")
    assert done.code == 0, done.err
    return [session["handle"] for session in done.json["sessions"]]


# -- All of them ---------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("store", LISTED)
def test_sessions_are_counted_and_ended_while_the_site_runs(make_site, folder, monkeypatch, store):
    """A person looks at the sessions, finds those of a user, and ends them; nobody else loses anything."""
    site = make_site(store)
    monkeypatch.setenv("PYTHONPATH", paths(folder))
    with site.serving() as served, Traffic(served, 2) as traffic:
        users = [Visitor(served) for _ in range(3)]
        for visitor in users:
            visitor.get("/count")
            visitor.get("/log_in?user=42")
        counted = folder.process("sessions", site.ini, "--json")
        one, *_ = handles(folder, site)
        seen = folder.call("sessions", site.ini, "show", one, "--values", "--json")
        ended = folder.call("sessions", site.ini, "end", one)
        after_one = [visitor.get("/read").text for visitor in users]
        all_ended = folder.process("sessions", site.ini, "user", "42", "--end-all", "--json")
        after_all = [visitor.get("/read").text for visitor in users]

    assert seen.code == 0, seen.err
    assert counted.json["live"] >= 5
    assert counted.json["indexes"] == 1
    assert sum(counted.json["idle"]["sessions"]) == counted.json["live"]
    assert [each for each in seen.json["keys"] if each["key"] == "count"] == [
        {"key": "count", "type": "int", "value": "1"}
    ]
    assert seen.json["is_bound"] is True
    assert ended.code == all_ended.code == 0
    assert sorted(after_one) == ["0", "1", "1"]
    assert all_ended.json == {"ended": 2}
    assert after_all == ["0", "0", "0"]
    assert handles(folder, site) == []
    assert traffic.wrong == []


def test_how_many_how_old_and_how_large(site, folder):
    """The numbers, and three histograms that fit 80 columns."""
    for ago in (0, 30, 700, 900):
        write(site, ago, text="x" * ago)
    write(site, 2000)
    write(site, 0, _bb_moved=time.time() + 100)
    site.config.store.swap("0" * 32, None, b"garbage")
    done = folder.call("sessions", site.ini)

    assert done.code == 0
    assert re.match(r"4 sessions in file, [\d,]+ bytes; the largest has [\d,]+ bytes", done.out)
    assert "1 record of expired sessions, not purged yet" in done.text
    assert "1 id that a login or a logout has just left" in done.text
    assert "1 record not to be read with this site's options" in done.text
    assert re.search(r"Last access .*under 1 minute +2 █+", done.text)
    assert re.search(r"under 1 hour +2 █+", done.text)
    assert "Created" in done.text
    assert "Size" in done.text
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert len(list(site.config.store.ids())) == 7


def test_lists_of_users_sessions_are_counted_apart(site):
    """A list of a user's sessions is no session; a script may count them, too."""
    site.config.store.swap("u" + "0" * 64, None, site.config.codec.encode({"_accessed_time": 1.0}))
    write(site)
    found = survey(site.config)

    assert (found.live, found.indexes, found.ended) == (1, 1, 0)


def test_an_empty_store_is_counted(site, folder):
    """Nothing is nothing, and no division by it."""
    done = folder.call("sessions", site.ini)

    assert done.code == 0
    assert "0 sessions in file, 0 bytes" in done.out


def test_bars_where_there_are_no_blocks(site, folder):
    """A terminal that knows no blocks gets other bars."""
    write(site)

    assert "#####" in folder.process("sessions", site.ini, PYTHONIOENCODING="ascii").out


def test_a_histogram_has_a_place_for_each_value():
    """A value counts under the first bound that is above it."""
    histogram = Histogram((10, 20))
    for value in (0, 9.9, 10, 19, 20, 1000):
        histogram.add(value)

    assert histogram.counts == [2, 2, 2]


def test_sizes_and_times_are_words():
    """Numbers are shown in the largest unit that says enough."""
    assert [size(number) for number in (0, 1, 1024, 10_239, 10_241, 5 << 40, 5 << 60)] == [
        "0 bytes",
        "1 byte",
        "1 KiB",
        "10,239 bytes",
        "10 KiB",
        "5 TiB",
        "5,242,880 TiB",
    ]
    assert [span(seconds) for seconds in (0.5, 1, 60, 119, 7200, 7300, 86_400 * 30)] == [
        "0 seconds",
        "1 second",
        "1 minute",
        "119 seconds",
        "2 hours",
        "2 hours",
        "30 days",
    ]


# -- One of them ---------------------------------------------------------------------------------------


def test_a_session_is_shown_without_its_values(site, folder):
    """Who is shown a session sees its keys and types; the values only if he asks for them, and never the whole id."""
    session_id = write(site, 100, name="a secret word", cart=["thing"], **{"a\x1b[31mkey": 1})
    hidden = folder.call("sessions", site.ini, "show", shown(session_id))
    open_ = folder.call("sessions", site.ini, "show", session_id, "--values")
    as_json = folder.call("sessions", site.ini, "show", session_id, "--json")

    assert hidden.code == open_.code == as_json.code == 0
    assert "a secret word" not in hidden.out + as_json.out
    assert "name str of 13" in hidden.text
    assert "cart list of 1" in hidden.text
    assert "of a user no" in hidden.text
    assert "last access" in hidden.text
    assert "100 seconds ago" in hidden.text
    assert "The values are shown with --values." in hidden.text
    assert "'a secret word'" in open_.text
    assert session_id not in hidden.out + open_.out + as_json.out
    assert "\x1b" not in hidden.out
    assert as_json.json["session"] == shown(session_id)
    assert stored(site.config, session_id)["_accessed_time"] < time.time() - 99


def test_a_session_that_does_not_expire_is_shown(make_site, folder):
    """Without a timeout there is no time at which a session ends; a long value is cut."""
    site = make_site(timeout=None)
    session_id = write(site, 100, text="x" * 1000)
    done = folder.call("sessions", site.ini, "show", session_id, "--values")

    assert "expires never" in done.text
    assert "…" in done.text

    empty = folder.call("sessions", site.ini, "show", write(site))

    assert "--values" not in empty.out


@pytest.mark.parametrize("action", ["show", "end"])
def test_what_is_no_session_is_not_found(site, folder, action):
    """An id without a record, an expired session, and a handle of nobody are an error, and the code is 1."""
    for name in (new_id(), "abcdef…", write(site, 5000), "0" * 96, "A" * 64):
        done = folder.call("sessions", site.ini, action, name)

        assert done.code == 1
        assert "there is no such session" in done.err


def test_what_the_log_shows_names_one_session_or_none(site, folder):
    """Several ids with one beginning are an error that lists none of them; what is no part of an id is refused."""
    ids = [write(site, session_id=f"abcdef{nth}" + "0" * 25) for nth in "12"]
    done = folder.call("sessions", site.ini, "end", "abcdef…")

    assert done.code == 2
    assert "2 sessions begin with abcdef…: name one by its handle, or by its id" in " ".join(done.err.split())
    assert set(site.config.store.ids()) == set(ids)
    assert folder.call("sessions", site.ini, "end", "abcdef1...").code == 0
    assert folder.call("sessions", site.ini, "end", "abcdef").code == 0
    assert list(site.config.store.ids()) == []

    wrong = folder.call("sessions", site.ini, "show", "nobody")

    assert wrong.code == 2
    assert "a session is named by its handle, by its id, or by the beginning of that" in " ".join(wrong.err.split())


@pytest.mark.once
def test_the_end_of_an_id_that_was_left_ends_the_session(make_site, folder, monkeypatch):
    """A session that has just moved to a new id is ended by the old one, as a logout would."""
    site = make_site()
    monkeypatch.setenv("PYTHONPATH", paths(folder))
    with site.serving() as served:
        visitor = Visitor(served)
        visitor.get("/count")
        (old,) = site.config.store.ids()
        visitor.get("/log_in?user=a")
        done = folder.call("sessions", site.ini, "end", old)
        text = visitor.get("/read").text

    assert done.code == 0
    assert text == "0"
    assert handles(folder, site, "a") == []


@pytest.mark.once
def test_the_sessions_of_a_user_are_listed(site, folder, monkeypatch):
    """The handles fit a line, and name a session as those of the application do."""
    monkeypatch.setenv("PYTHONPATH", paths(folder))
    with site.serving() as served:
        Visitor(served).get("/log_in?user=a@b=c")
        done = folder.call("sessions", site.ini, "user", "a@b=c")

    assert "1 session of this user" in done.out
    assert "browser: Firefox" in done.text
    assert "logged in" in done.text
    assert all(len(line) <= 80 for line in done.out.splitlines())
    handle = done.out.split("\n\n")[1].split("\n")[0]
    assert folder.call("sessions", site.ini, "show", handle).code == 0

    ended = folder.call("sessions", site.ini, "user", "a@b=c", "--end-all")

    assert "1 session of this user ended." in ended.out


def test_no_handle_is_an_option():
    """However it begins, a handle is no option to the command, and is understood again."""
    for first in range(256):
        for length in (17, 18, 19, 59):
            handle = (bytes([first]) + secrets.token_bytes(length - 1)).hex()
            short = _handle(UserSession(handle, 0, 0, False, None))

            assert re.fullmatch(r"[0-9A-Za-z._]+", short)
            assert _hexadecimal(short) == _hexadecimal(handle) == handle

    assert [_hexadecimal(name) for name in ("3f2a9c…", "0" * 32, "nobody", "A" * 25)] == [None] * 4


# -- What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show",), "'show' takes one HANDLE"),
        (("end", "a", "b"), "'end' takes one HANDLE"),
        (("user",), "'user' takes one USER_ID"),
        (("user", ""), "USER_ID: a user's id must be a non-empty string"),
        (("list",), "'list' is neither NAME=VALUE nor one of show, end, user"),
        (("end", "a", "--values"), "--values is for 'show' alone"),
        (("--end-all",), "--end-all is for 'user' alone"),
    ],
)
def test_wrong_words_are_refused(site, folder, words, message):
    """What the command does not understand is an error of usage."""
    done = folder.call("sessions", site.ini, *words)

    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_variables_of_the_file(site, folder):
    """NAME=VALUE behind the file is the file's, as pserve takes it."""
    assert folder.call("sessions", site.ini, "a=b", "user", "c").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "cookie", "validate_key": SECRET, "secret": None}, "in the browsers, which alone can list them"),
        ({"type": "memory"}, "the sessions are in the memory of the site's own process"),
        ({"type": "ext:memcached", "url": "127.0.0.1:1"}, "the session store ext:memcached cannot list its sessions"),
    ],
)
def test_what_cannot_be_listed_is_refused(folder, options, message):
    """Sessions of cookies, of a process's memory and of memcached are refused with a sentence."""
    ini = folder.write(with_option(FINE, data_dir=None, purge_every=None, **options))
    done = folder.call("sessions", ini)

    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_a_store_that_is_away_is_told(folder):
    """Whatever the site does without its store, the command says that it cannot be reached."""
    ini = folder.write(
        with_option(FINE, type="ext:redis", data_dir=None, url="redis://127.0.0.1:1/0", store_error="empty")
    )
    for words in ((), ("end", "0" * 32), ("show", "0" * 32)):
        done = folder.call("sessions", ini, *words)

        assert done.code == 2
        assert "the session store ext:redis cannot be reached" in " ".join(done.err.split())
