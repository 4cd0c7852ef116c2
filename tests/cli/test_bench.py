"""``beaker-bridge bench``: what a request pays for its session; nothing is left behind."""

from __future__ import annotations

import signal

import pytest

from tests.cli.sites import FINE, SECRET, processes, with_option
from tests.cli.test_trial import ids_of, site_of, tree
from tests.requests import config_of, options_of
from tests.servers import wait_until

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once


@pytest.fixture
def options(request, tmp_path):
    """Return the session options of a store."""
    return options_of(request, tmp_path / "data")


@pytest.mark.parametrize("options", ["memory", "file", "dbm", "redis", "memcached"], indirect=True)
def test_a_read_asks_once_and_a_write_twice(folder, options):
    """The store is asked as often as it is by a site's requests, and holds nothing of the measurement afterwards."""
    file = folder.write(site_of(options))
    config = config_of(**{**options, "key": "mysite", "secret": SECRET})
    before, ids = tree(folder.path), ids_of(config.store)
    outcome = folder.call("bench", file, "--requests", "20", "--json")
    measured = {row["what"]: row for row in outcome.json["measured"]}

    assert (outcome.code, outcome.json["calls"], outcome.json["type"]) == (0, 20, options["type"])
    assert {what: row["round_trips"] for what, row in measured.items()} == {
        "a request that reads": 1,
        "a request that writes": 2,
        "the store alone: read": 1,
        "the store alone: read, swap": 2,
    }
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in measured.values())
    assert (tree(folder.path), ids_of(config.store)) == (before, ids)

    config.store.close()


def test_sessions_in_the_cookie(folder):
    """There is no store to ask: what is measured are the cookie's size and time."""
    ini = with_option(FINE, type="cookie", data_dir=None, purge_every=None, secret=None, validate_key=SECRET)
    outcome = folder.call("bench", folder.write(ini), "--requests", "5")

    assert outcome.code == 0
    assert "5 calls each; a session of" in outcome.text
    assert "bytes in the cookie" in outcome.text
    assert "the store alone" not in outcome.out


def test_without_cookies(folder):
    """A site whose requests find no session has nothing to measure."""
    outcome = folder.call("bench", folder.write(with_option(FINE, use_cookies="false")))

    assert (outcome.code, outcome.out) == (2, "")
    assert "use_cookies is false: a request of the site finds no session" in outcome.err


def test_nothing_expires_meanwhile(folder):
    """Nothing but its own record is touched: an expired session is not purged."""
    config = config_of(type="file", data_dir=str(folder.path / "data"))
    config.store.swap("1" * 32, None, config.codec.encode({"_creation_time": 1, "_accessed_time": 1}))
    folder.call("bench", folder.write(with_option(FINE, purge_every="1")), "--requests", "5")

    assert list(config.store.ids()) == ["1" * 32]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@processes
def test_it_can_be_interrupted(folder, redis_server, number):
    """The exit code is 130, and what was written is removed."""
    prefix = f"bench_{number.name}:"
    options = {"type": "ext:redis", "url": redis_server.url, "key_prefix": prefix}
    with redis_server.client() as client:
        process = folder.command("bench", folder.write(site_of(options)), "--requests", 10**9)
        wait_until(lambda: client.keys(f"{prefix}*"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

        assert (process.returncode, out) == (130, "")
        assert err.endswith("error: interrupted\n")
        assert client.keys(f"{prefix}*") == []
