"""``beaker-bridge migrate`` on a site that is under load."""

from __future__ import annotations

import signal
import time

import pytest

from beaker_bridge.cli import migrate as module
from beaker_bridge.session.base import new_id
from beaker_bridge.testing.contract import PATIENCE
from tests.cli.busy import BusySite, Traffic, paths, url_of
from tests.cli.sites import FINE, SECRET, with_option
from tests.live_site import Visitor
from tests.requests import Browser

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once


@pytest.fixture
def make_sites(folder, request):
    """Return what makes an old and a new site."""
    made = []

    def make(old="file", new="redis", old_options=None, new_options=None):
        for name, store, options in (("old", old, old_options), ("new", new, new_options)):
            made.append(BusySite(folder, name, store, url_of(request, store), **(options or {})))
        return made

    yield make
    for site in made:
        site.close()


def write(site, count, **content):
    """Write live sessions, and return their ids."""
    config = site.config
    ids = [new_id() for _ in range(count)]
    for nth, session_id in enumerate(ids):
        times = {"_creation_time": time.time(), "_accessed_time": time.time()}
        config.store.swap(session_id, None, config.codec.encode({**times, "nth": nth, **content}))
    return ids


def contents(site, ids):
    """Return what a site has under each id."""
    records = [site.config.store.read(session_id) for session_id in ids]
    return [None if record is None else site.config.codec.decode(record.raw)[0].get("nth") for record in records]


def move(folder, *words):
    """Run the command in this process."""
    return folder.call("migrate", "--from", folder.path / "old.ini", "--to", folder.path / "new.ini", *words)


@pytest.mark.once
@pytest.mark.parametrize(("old", "new"), [("file", "redis"), ("redis", "postgresql"), ("sqlite", "dbm")])
def test_a_site_moves_while_it_runs(make_sites, folder, monkeypatch, old, new):
    """One run under load, the switch, another run: each visitor goes on where he was, and who has left stays out."""
    old_site, new_site = make_sites(old, new)
    ids = write(old_site, 200)
    words = "migrate", "--from", old_site.ini, "--to", new_site.ini, "--json"
    monkeypatch.setenv("PYTHONPATH", paths(folder))
    with old_site.serving() as served:
        with Traffic(served) as traffic:
            first = folder.process(*words)
        out, back = Visitor(served), traffic.visitors[0]
        out.get("/count")
        assert folder.call(*words).code == 0
        out.get("/log_out")
    with new_site.serving() as served:
        for visitor in (*traffic.visitors, out):
            visitor.site = served
        early = back.get("/count").text
        last = folder.process(*words)
        texts = [visitor.get("/count").text for visitor in (*traffic.visitors, out)]

    counts = traffic.counts
    assert traffic.wrong == []
    assert (first.code, last.code) == (0, 0)
    assert first.json["copied"] >= 200
    assert (last.json["copied"], last.json["newer"], last.json["ended"]) == (0, 1, 1)
    assert early == str(counts[0] + 1)
    assert texts == [*(str(count + 1 + (nth == 0)) for nth, count in enumerate(counts)), "1"]
    assert contents(new_site, ids) == list(range(200))


@pytest.mark.once
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_migration_is_interrupted_and_run_again(make_sites, folder, how, code):
    """Whenever it is stopped, the next run copies the rest, and nothing twice."""
    old_site, new_site = make_sites()
    ids = write(old_site, 2000)
    process = folder.command("migrate", "--from", old_site.ini, "--to", new_site.ini, "--batch", 1)
    deadline = time.monotonic() + PATIENCE
    while len(list(new_site.config.store.ids())) < 20 and time.monotonic() < deadline:
        time.sleep(0.002)  # until it has begun
    process.send_signal(how)
    _, err = process.communicate(timeout=PATIENCE)
    there = len([nth for nth in contents(new_site, ids) if nth is not None])
    again = move(folder, "--json")

    assert process.returncode == code
    assert 0 < there < 2000
    assert "sessions were copied so far; run it again for the others" in err or how == signal.SIGKILL
    assert (again.code, again.json["copied"], again.json["same"]) == (0, 2000 - there, there)
    assert again.json["verified"] == 2000
    assert contents(new_site, ids) == list(range(2000))


def test_what_was_copied_before_an_interrupt_is_told(make_sites, folder, monkeypatch):
    """Who interrupts a migration is told how far it came, and that it can be run again."""
    make_sites("file", "file")

    def interrupted(_old, _new, _journal, *, done, **how):
        done.copied = 2
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "migrate", interrupted)
    done = move(folder)

    assert done.code == 130
    assert "2 sessions were copied so far; run it again for the others" in done.err


def test_what_cannot_be_converted_is_named(make_sites, folder):
    """A pickled value that JSON does not take is named by key and type, never by value, and the code is 1."""
    old_site, _ = make_sites("file", "file", {"data_serializer": "pickle"})
    import busysite

    foo = busysite.Foo()
    foo.word = "a word of the visitor's"
    write(old_site, 2, cart=[foo])
    write(old_site, 3)
    old_site.config.store.swap("0" * 32, None, b"garbage")
    done, as_json = move(folder), move(folder, "--json")

    assert (done.code, as_json.code) == (1, 1)
    assert "'cart' busysite.Foo 2" in done.text
    assert "copied 3" in done.text
    assert "not converted 2" in done.text
    assert as_json.json["refused"] == [{"key": "cart", "type": "busysite.Foo", "sessions": 2}]
    assert as_json.json["unreadable"] == [{"reason": "its envelope is not Beaker's", "records": 1}]
    assert as_json.json["complete"] is False
    assert all("a word of" not in text for each in (done, as_json) for text in (each.out, each.err))


def test_what_has_ended_there_is_told_with_the_journal(make_sites, folder):
    """Where the new store was emptied, the journal says that all has ended there: the note says what to do."""
    old_site, new_site = make_sites("file", "file")
    write(old_site, 2)
    assert move(folder).code == 0
    for batch in new_site.config.store.scan():
        new_site.config.store.delete(batch)
    done = move(folder)

    assert done.code == 0
    assert f"delete{new_site.ini}.migratedandrunitagain" in "".join(done.err.split())

    (folder.path / "new.ini.migrated").unlink()

    assert move(folder, "--json").json["copied"] == 2
    assert move(folder, "--json", "--journal", folder.path / "another").json["same"] == 2
    assert (folder.path / "another").exists()


def test_what_the_new_store_cannot_list_is_told(make_sites, folder, memcached_server):
    """memcached does not list what it has: what ends at the old site stays there."""
    old_site, _ = make_sites("file", "memcached")
    write(old_site, 1)

    assert "the new store cannot list its sessions" in " ".join(move(folder).err.split())


def test_what_differs_is_told(make_sites, folder):
    """Cookies that would open nothing are a note before anything is copied."""
    make_sites("file", "file", None, {"key_prefix": "x"})
    text = (folder.path / "new.ini").read_text()
    (folder.path / "new.ini").write_text(text.replace(SECRET, SECRET[::-1]))
    done = move(folder)

    assert done.code == 0
    assert "the new secret is another one" in " ".join(done.err.split())


def test_what_cannot_be_copied_is_refused(folder):
    """From cookies and from memcached nothing is copied, a sentence says so, and no journal is left."""
    folder.write(FINE, "new")
    for options, word in (
        ({"type": "cookie", "validate_key": SECRET, "secret": None}, "the sessions are in the browsers"),
        ({"type": "ext:memcached", "url": "127.0.0.1:1"}, "it cannot list its sessions"),
    ):
        folder.write(with_option(FINE, data_dir=None, purge_every=None, **options), "old")
        done = move(folder)

        assert done.code == 2
        assert word in " ".join(done.err.split())
        assert not (folder.path / "new.ini.migrated").exists()


def test_two_applications_of_one_file(folder):
    """A file may have both sites; the journal is named by the new one."""
    both = FINE + FINE.replace("[app:main]", "[app:next]").replace("session]", "other]").replace(
        "filter-with = session", "filter-with = other"
    ).replace("data_dir = %(here)s/data", "data_dir = %(here)s/next")
    ini = folder.write(both, "both")
    done = folder.call("migrate", "--from", f"{ini}#main", "--to", f"{ini}#next", "--json")
    assert done.code == 0, done.err

    from beaker_bridge.site.find import find_site

    Browser(find_site(f"{ini}#main").config).write(a=1)
    done = folder.call("migrate", "--from", f"{ini}#main", "--to", f"{ini}#next", "--json")

    assert done.json["copied"] == 1
    assert (folder.path / "both.ini.next.migrated").exists()
