"""``beaker-bridge purge`` on a site that is under load."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack

import pytest

from beaker_bridge.cli import purge as module
from beaker_bridge.session.base import new_id
from beaker_bridge.session.purge import Purged
from beaker_bridge.testing.contract import PATIENCE
from tests.cli.busy import BusySite, Traffic, paths, url_of
from tests.cli.sites import FINE, SECRET, with_option

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

#: The stores that do not expire their records themselves.
PURGED = ["file", "dbm", "sqlite", "postgresql", "mariadb"]


@pytest.fixture
def make_site(folder, request):
    """Return what makes a site."""
    made = []

    def make(store="file", name="site", **options):
        made.append(BusySite(folder, name, store, url_of(request, store), **options))
        return made[-1]

    yield make
    for site in made:
        site.close()


def write(site, count, ago=5000):
    """Write sessions that were last used some time ago, and return their ids."""
    config = site.config
    ids = [new_id() for _ in range(count)]
    for session_id in ids:
        at = time.time() - ago
        config.store.swap(session_id, None, config.codec.encode({"_creation_time": at, "_accessed_time": at}))
    return ids


@pytest.mark.once
@pytest.mark.parametrize("store", PURGED)
def test_a_site_is_purged_while_it_runs(make_site, folder, monkeypatch, store):
    """Expired sessions go, and no visitor loses anything."""
    site = make_site(store)
    write(site, 200)
    monkeypatch.setenv("PYTHONPATH", paths(folder))
    with site.serving() as served, Traffic(served) as traffic:
        done = folder.process("purge", site.ini, "--json", "--batch", 20)

    assert (done.code, done.json["deleted"], done.json["unreadable"]) == (0, 200, 0)
    assert traffic.wrong == []
    assert len(list(site.config.store.ids())) == len(traffic.visitors)


@pytest.mark.once
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_a_purge_is_interrupted_and_run_again(make_site, folder, store, how, code):
    """Whenever a purge is stopped, what it has deleted is deleted, and the next one does the rest."""
    site = make_site(store)
    *_, last = sorted(write(site, 600))
    with ExitStack() as held:
        if store == "file":
            # It waits for this lock, which others of its sessions share, before it can be through.
            held.enter_context(site.config.store._locks.guard(last, PATIENCE))
        process = folder.command("purge", site.ini, "--batch", 1)
        deadline = time.monotonic() + PATIENCE
        while site.config.store.count() == 600 and time.monotonic() < deadline:
            time.sleep(0.002)  # until it has begun
        process.send_signal(how)
        _, err = process.communicate(timeout=PATIENCE)
    left = site.config.store.count()
    again = folder.call("purge", site.ini, "--json")

    assert process.returncode == code
    assert 0 < left < 600
    assert "were deleted so far; run it again for the others" in err or how == signal.SIGKILL
    assert (again.code, again.json["deleted"]) == (0, left)
    assert site.config.store.count() == 0


def test_what_was_purged_before_an_interrupt_is_told(make_site, folder, monkeypatch):
    """Who interrupts a purge is told how far it came, and that it can be run again."""
    site = make_site()
    write(site, 3)

    def interrupted(config, *, progress, **how):
        progress(Purged(2, 1))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "purge", interrupted)
    done = folder.call("purge", site.ini)

    assert done.code == 130
    assert "1 were deleted so far; run it again for the others" in done.err


def test_what_is_purged_is_told(make_site, folder):
    """The numbers are written in words, and as JSON; a dry run deletes nothing."""
    site = make_site()
    write(site, 3)
    write(site, 2, ago=0)
    site.config.store.swap("0" * 32, None, b"garbage")
    left = next((folder.path / "site").rglob("*.cache")).with_suffix(".cache.0123456789abcdef.bridge-tmp")
    left.touch()
    os.utime(left, (0, 0))
    dry = folder.call("purge", site.ini, "--dry-run")
    done = folder.call("purge", site.ini)

    assert (dry.code, done.code) == (0, 0)
    assert "3 of 6 records would be deleted: their sessions have expired, or ended." in dry.text
    assert "1 lock or temporary file (or rows) of killed processes would be removed." in dry.text
    assert "3 of 6 records deleted: their sessions have expired, or ended." in done.text
    assert "1 lock or temporary file (or rows) of killed processes removed." in done.text
    assert "1 record cannot be read with this site's options" in " ".join(done.err.split())
    assert not left.exists()


@pytest.mark.parametrize("text", ["3000", "50m", "1m", "1x"])
def test_older_sessions_are_purged(make_site, folder, text):
    """--older-than takes seconds, minutes, hours, days and weeks, and nothing below the renewal of access times."""
    site = make_site(timeout=10_000)
    write(site, 1, ago=4000)
    done = folder.call("purge", site.ini, "--older-than", text, "--json")

    if text in ("3000", "50m"):
        assert (done.code, done.json["deleted"]) == (0, 1)
    else:
        message = {"1m": "must be 1000 seconds or more, got 60", "1x": "must be a number of seconds"}[text]
        assert done.code == 2
        assert message in " ".join(done.err.split())


#: The options of a store that needs no purge, and a sentence about it.
BY_ITSELF = {
    "redis": ({"type": "ext:redis", "url": "redis://127.0.0.1:1/0"}, "the server removes expired sessions by itself"),
    "memcached": ({"type": "ext:memcached", "url": "127.0.0.1:1"}, "the server removes expired sessions by itself"),
    "cookie": ({"type": "cookie", "validate_key": SECRET, "secret": None}, "the sessions are in the browsers"),
    "memory": ({"type": "memory"}, "the sessions are in the site's own process, which drops expired ones"),
}


@pytest.mark.parametrize("case", BY_ITSELF)
def test_what_expires_by_itself_says_so(folder, case):
    """A store that needs no purge is one sentence, and no failure."""
    options, sentence = BY_ITSELF[case]
    ini = folder.write(with_option(FINE, data_dir=None, purge_every=None, **options))
    done = folder.call("purge", ini)
    as_json = folder.call("purge", ini, "--json")

    assert done.code == as_json.code == 0
    assert sentence in done.text
    assert sentence in as_json.json["note"]
    assert as_json.json["deleted"] == 0


def test_a_store_that_cannot_be_reached_is_an_error(folder):
    """Where there is nothing to purge in, the code says so."""
    ini = folder.write(with_option(FINE, type="ext:database", data_dir=None, url="sqlite:////nowhere/s.db"))
    done = folder.call("purge", ini)

    assert done.code == 2
    assert "the session store ext:database cannot be reached" in " ".join(done.err.split())
