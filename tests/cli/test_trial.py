"""The record of the command's own: each right that the store lacks is named, and nothing is left behind."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest

from beaker_bridge.exceptions import SessionStoreError
from tests import machine
from tests.cli.sites import FINE, SECRET, with_option
from tests.requests import STORES, config_of, options_of

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

#: A user of the machine who owns nothing.
NOBODY = 65534


def site_of(options):
    """Return the fine site with a store of these options."""
    options = {"data_dir": None, "purge_every": None, **options}
    return with_option(FINE, **{name: getattr(value, "__name__", value) for name, value in options.items()})


def trial(outcome):
    """Return what each step came to."""
    return outcome.json["store"]["steps"]


def tree(path):
    """Return the names of all that is below a directory."""
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if "__pycache__" not in each.parts)


def ids_of(store):
    """Return the ids of a store's records; none if it cannot list them."""
    try:
        return sorted(store.ids())
    except SessionStoreError:
        return []


@pytest.mark.parametrize("options", STORES, indirect=True)
def test_nothing_is_left_in_a_store(folder, options):
    """The record is written, read, swapped and deleted; a store that is in use holds what it held before."""
    file = folder.write(site_of(options))
    config = config_of(**{**options, "key": "mysite", "secret": SECRET})
    if config.store.unmade():
        config.store.swap("0" * 32, None, config.codec.encode({}), 60)
    config.store.swap("1" * 32, None, config.codec.encode({"a": 1}), 60)
    before, ids = tree(folder.path), ids_of(config.store)
    outcome = folder.call("check", "--json", file)
    config.store.close()

    assert trial(outcome) == dict.fromkeys(("write", "read", "swap", "delete"), "ok")
    assert (tree(folder.path), ids_of(config.store)) == (before, ids)


@pytest.fixture
def options(request, tmp_path):
    """Return the session options of a store."""
    (tmp_path / "data").mkdir()
    return options_of(request, tmp_path / "data")


@pytest.mark.parametrize("dbmmodule", ["dbm.dumb", "tests.cli.strange_dbm"])
def test_the_directories_that_were_made_are_removed(folder, dbmmodule):
    """Where the store was never used, its directories are removed, also those of Beaker's own interface."""
    ini = with_option(FINE, type="dbm", data_dir="%(here)s/new/data", dbmmodule=dbmmodule)
    file = folder.write(ini)
    before = tree(folder.path)
    outcome = folder.call("check", "--json", file)

    assert trial(outcome) == dict.fromkeys(("write", "read", "swap", "delete"), "ok")
    assert tree(folder.path) == before


def test_a_directory_that_another_process_uses_meanwhile_stays(folder, monkeypatch):
    """What somebody else has put there is not removed."""
    file = folder.write(FINE)
    swap = "beaker_bridge.stores.file.replace"
    original = __import__("beaker_bridge.stores.file", fromlist=["replace"]).replace

    def replace(path, content):
        original(path, content)
        (folder.path / "data/container_file/other").touch()

    monkeypatch.setattr(swap, replace)
    folder.call("check", file)

    assert tree(folder.path / "data") == ["container_file", "container_file/other"]


def test_as_root_the_owner_of_the_directory_works(folder):
    """What root makes, the site could not write: the owner of its directory makes it, and has to have the right."""
    machine.root()
    data = folder.path / "data"
    data.mkdir()
    file = folder.write(FINE)
    for place in (data, *data.absolute().parents):
        if place.stat().st_uid == 0 and place != Path("/"):
            # The tests' folders are closed to other users.
            place.chmod(place.stat().st_mode | stat.S_IXOTH)
    os.chown(data, NOBODY, NOBODY)
    fine = folder.call("check", "--json", file)
    data.chmod(0o555)
    refused = folder.call("check", "--json", file)

    assert trial(fine)["delete"] == "ok"
    assert (tree(data), os.getresuid(), len(set(os.getresgid()))) == ([], (0, 0, 0), 1)
    assert refused.code == 2
    assert "(data_dir = " in trial(refused)["write"]
    assert "Permission denied" in trial(refused)["write"]


def test_another_user_than_root_works_as_it_is(folder, monkeypatch):
    """Only root may become another user."""
    monkeypatch.setattr("beaker_bridge.cli.trial.is_root", lambda: False)
    monkeypatch.setattr(os, "seteuid", None)

    assert folder.call("check", "--strict", folder.write(FINE)).code == 0


# -- Rights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "failing"),
    [
        ("get", ["read"]),
        ("set", ["write"]),
        ("del", ["delete"]),
        ("eval", []),
    ],
)
def test_the_right_that_a_user_of_redis_lacks(folder, redis_server, missing, failing):
    """The step that fails is named, and the command that the user may not run."""
    rights = [f"+{name}" for name in ("get", "set", "del", "watch", "unwatch", "multi", "exec") if name != missing]
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "clerk", "reset", "on", ">a-password", "~beaker_cache:*", *rights)
    url = f"redis://clerk:a-password@127.0.0.1:{redis_server.port}/0"
    outcome = folder.call("check", "--json", folder.write(site_of({"type": "ext:redis", "url": url})))
    steps = trial(outcome)
    texts = [each["text"] for each in outcome.json["findings"] if each["level"] == "wrong"]

    assert [name for name in failing if steps[name] == "ok"] == []
    assert outcome.code == (2 if failing else 0)
    assert all("needs the rights to GET, SET and DEL" in text for text in texts)
    assert "a-password" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("missing", "failing"),
    [
        (["SELECT"], "read, swap, delete: "),
        (["INSERT"], "write: "),
        (["UPDATE"], "swap: "),
        (["DELETE"], "delete: "),
        ([], None),
    ],
)
def test_the_right_that_a_user_of_postgresql_lacks(folder, postgresql_server, missing, failing):
    """Each step that fails is named, and the statement that the user may not run."""
    table, user = (f"{kind}_{secrets.token_hex(4)}" for kind in ("sessions", "clerk"))
    config = config_of(type="ext:database", url=postgresql_server.url, table_name=table)
    config.store.read("0" * 32)
    config.store.close()
    with postgresql_server.client() as client:
        client.execute(f"CREATE ROLE {user} LOGIN")
        rights = [right for right in ("SELECT", "INSERT", "UPDATE", "DELETE") if right not in missing]
        client.execute(f"GRANT {', '.join(rights)} ON {table} TO {user}")
        client.execute(f"GRANT USAGE ON SEQUENCE {table}_id_seq TO {user}")
    url = postgresql_server.url.replace("postgres@", f"{user}@")
    options = {"type": "ext:database", "url": url, "table_name": table}
    outcome = folder.call("check", "--json", folder.write(site_of(options)))
    texts = [each["text"] for each in outcome.json["findings"] if each["level"] == "wrong"]

    if failing is None:
        assert (outcome.code, texts) == (0, [])
    else:
        assert outcome.code == 2
        assert f"ext:database refuses {missing[0]}" in " ".join(texts)
        assert texts[0].startswith(failing.partition(":")[0])


@pytest.mark.parametrize("server", [None, "postgresql_server"])
def test_a_table_is_not_made(folder, request, server):
    """Where the site has not made its table yet, that is said, and no table and no file is made."""
    url = request.getfixturevalue(server).url if server else f"sqlite:///{folder.path}/sessions.db"
    table = f"never_{secrets.token_hex(4)}"
    options = {"type": "ext:database", "url": url, "table_name": table}
    outcome = folder.call("check", folder.write(site_of(options)))
    benched = folder.call("bench", folder.path / "site.ini")

    assert outcome.code == 0
    assert "is not there yet: the site's first request makes it" in outcome.text
    assert benched.code == 2
    assert "is not there yet" in benched.err
    assert not (folder.path / "sessions.db").exists()


def test_a_store_that_keeps_nothing(folder):
    """A store that loses what is written is found."""
    outcome = folder.call("check", "--json", folder.write(with_option(FINE, namespace_class="tests.cli.losing.Losing")))

    assert trial(outcome)["write"] == "ok"
    assert "does not keep what is written" in trial(outcome)["read"]
    assert outcome.code == 2


def test_sessions_in_cookies_have_no_store(folder):
    """That is said."""
    ini = with_option(FINE, type="cookie", data_dir=None, purge_every=None, secret=None, validate_key=SECRET)

    assert "Store: sessions are in the cookie: there is no store" in folder.call("check", folder.write(ini)).text
