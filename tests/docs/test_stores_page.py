"""docs/explanation/stores.rst: each cell of its table is what the store's class says, or what a test shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from beaker.container import FileNamespaceManager
from docutils import nodes
from docutils.core import publish_doctree

from beaker_bridge.exceptions import BeakerBridgeError
from beaker_bridge.session.cookie import CookieSession
from beaker_bridge.stores._server import ServerStore
from beaker_bridge.stores.base import Store
from beaker_bridge.stores.beaker import BeakerStore
from beaker_bridge.stores.dbm import DbmStore
from beaker_bridge.stores.file import DirectoryStore, FileStore
from beaker_bridge.stores.memcached import MemcachedStore
from beaker_bridge.stores.memory import MemoryStore
from beaker_bridge.stores.redis import RedisClusterStore, RedisStore
from beaker_bridge.stores.sql import DatabaseStore
from tests.docs.pages import read
from tests.requests import Browser, config_of, store_options

ROOT = Path(__file__).parents[2]
PAGE = read("explanation/stores")
#: The class behind each row.
CLASSES = {
    "memory": MemoryStore,
    "file": FileStore,
    "dbm": DbmStore,
    "ext:redis": RedisStore,
    "ext:rediscluster": RedisClusterStore,
    "ext:memcached": MemcachedStore,
    "SQLite": DatabaseStore,
    "PostgreSQL": DatabaseStore,
    "MariaDB": DatabaseStore,
    "cookie": CookieSession,
    "Beaker's other backends": BeakerStore,
    "a store of your own": Store,
}
MERGE, EXCLUSIVE, LOGOUT, USERS, RESTART, EXPIRED, RIGHTS, CLOCK = range(1, 9)
#: The tests of the contract that prove the first columns; each store's test class derives from it.
CONTRACT = {
    MERGE: "test_requests_that_overlap_lose_nothing",
    EXCLUSIVE: "test_exclusive_blocks_count",
    LOGOUT: "test_a_logout_holds",
    USERS: "test_a_users_sessions_are_listed_and_ended",
}
#: By the row: the test class that runs the contract on it.
RUNS = {
    "memory": "tests/stores/test_memory_store.py::TestMemoryStore",
    "file": "tests/stores/test_file_store.py::TestFileStore",
    "dbm": "tests/stores/test_dbm_store.py::TestDumbDbmStore",
    "ext:redis": "tests/stores/test_redis_store.py::TestRedisStore",
    "ext:rediscluster": "tests/stores/test_redis_store.py::TestRedisClusterStore",
    "ext:memcached": "tests/stores/test_memcached_store.py::TestMemcachedStore",
    "SQLite": "tests/stores/test_sql_store.py::TestSQLite",
    "PostgreSQL": "tests/stores/test_sql_store.py::TestPostgreSQL",
    "MariaDB": "tests/stores/test_sql_store.py::TestMariaDB",
    "Beaker's other backends": "tests/stores/test_beaker_store.py::TestBackendWithFiles",
}
#: By the column and the cell: tests that show what no class says.
SHOWN = {
    (RESTART, "if Redis saves"): "tests/slow/test_faults.py::test_a_fault_logs_nobody_out",
    (RIGHTS, "commands, keys"): "tests/stores/test_redis_store.py::test_the_rights_of_the_documentation_are_enough",
    (RIGHTS, "statements"): "tests/stores/test_sql_store.py::test_the_rights_that_a_database_must_grant",
    (CLOCK, "server"): "tests/stores/test_memcached_store.py::test_the_lock_ends_by_itself",
    (CLOCK, "application"): "tests/stores/test_sql_store.py::test_the_lock_of_a_clock_ahead",
}


def _rows():
    tree = publish_doctree(PAGE, settings_overrides={"report_level": 5, "syntax_highlight": "none"})
    table = next(tree.findall(nodes.table))
    return [[cell.astext().replace("\n", " ") for cell in row.children] for row in table.findall(nodes.row)]


HEADS, *ROWS = _rows()
TABLE = {row[0]: row for row in ROWS}


def test_the_table_has_each_store():
    """The rows are the stores, and each column has a section that explains it."""
    titles = [line.strip("`") for line in re.findall(r"^(.+)\n-+$", PAGE, re.MULTILINE)]

    assert list(TABLE) == list(CLASSES)
    assert titles == [*HEADS[1:], "Which one to choose"]


def _expected(row: str) -> dict[int, str]:
    """Return the cells that follow from a store's class."""
    store = CLASSES[row]
    if store in (BeakerStore, Store):
        return dict.fromkeys((RESTART, EXPIRED, RIGHTS, CLOCK), "its own")
    if store is CookieSession:
        return {MERGE: "no", EXCLUSIVE: "no", LOGOUT: "no", USERS: "no", EXPIRED: "by itself", CLOCK: "none"}
    has_lease = issubclass(store, ServerStore)
    own_clock = has_lease and store._leases is not ServerStore._leases
    purged = store.purge_turn is not Store.purge_turn
    in_files = issubclass(store, DirectoryStore) or row == "SQLite"
    expired = {"by itself": store.expires_by_itself, "purge": purged, "with new ones": not purged}
    return {
        MERGE: "yes",
        EXCLUSIVE: "yes, a lease" if has_lease else "yes",
        EXPIRED: next(how for how, holds in expired.items() if holds),
        **({RIGHTS: "files"} if in_files else {}),
        CLOCK: "application" if own_clock else "server" if has_lease else "none",
    }


@pytest.mark.parametrize("row", CLASSES)
def test_what_the_class_says(row):
    """Each cell that follows from a store's class is what the class says."""
    cells = {column: TABLE[row][column] for column in _expected(row)}

    assert cells == _expected(row)


@pytest.mark.parametrize("row", RUNS)
def test_what_the_contract_shows(row):
    """A store that merges, excludes and ends sessions runs the contract's tests of that."""
    shows = {"as its lock"} if CLASSES[row] is BeakerStore else {"yes", "yes, a lease", "unless evicted"}
    module, _, name = RUNS[row].partition("::")
    suite = __import__(module.removesuffix(".py").replace("/", "."), fromlist=[name]).__dict__[name]

    assert {TABLE[row][column] for column in CONTRACT} <= shows
    assert [test for test in CONTRACT.values() if not callable(getattr(suite, test))] == []


@pytest.mark.parametrize("node", SHOWN.values())
def test_what_other_tests_show(node):
    """The tests that show the other cells exist."""
    module, _, name = node.partition("::")

    assert f"def {name}(" in (ROOT / module).read_text(encoding="utf-8")
    assert all(any(row[column] == cell for row in ROWS) for column, cell in SHOWN)


def _overlapping(config):
    """Return what two requests that overlap have saved."""
    browser = Browser(config)
    browser.write(began=True)
    one, other = browser.begin(), browser.begin()
    one.session["one"] = other.session["other"] = True
    browser.end(one)
    browser.end(other)
    return {"one", "other"} <= {*browser.read()}


def _held(config):
    """Return whether a logout holds against a request that began before it."""
    browser = Browser(config)
    browser.write(user="me")
    slow, logout = browser.begin(), browser.begin()
    slow.session["slow"] = True
    logout.session.invalidate()
    browser.end(logout)
    browser.end(slow)
    return browser.read() == {}


def _excludes(config):
    browser = Browser(config)
    browser.write(began=True)
    try:
        with browser.begin().session.exclusive():
            return True
    except BeakerBridgeError:
        return False


def _binds(config):
    browser = Browser(config)
    try:
        browser.begin().session.bind("me")
    except BeakerBridgeError:
        return False
    return True


TRIED = {MERGE: _overlapping, EXCLUSIVE: _excludes, LOGOUT: _held, USERS: _binds}


@pytest.mark.parametrize("row", ["memory", "file", "dbm", "SQLite", "cookie", "Beaker's other backends"])
@pytest.mark.parametrize("column", TRIED)
def test_what_an_embedded_store_does(row, column, tmp_path):
    """What the table says of a store that needs no server is tried."""
    options = _options(row, tmp_path)
    config = config_of(secret="a secret for tests, of 32 bytes or more", key="sid", **options)

    assert TRIED[column](config) == (TABLE[row][column] != "no")


def _options(row, folder):
    if row == "cookie":
        return {"type": "cookie", "validate_key": "a key for tests, of 32 bytes or more"}
    if row == "Beaker's other backends":
        return {"type": "file", "data_dir": str(folder), "namespace_class": FileNamespaceManager}
    return store_options(row.lower(), folder)


#: A process: of each store it reads the session of a cookie, and then adds a key.
PROCESS = """
import json, sys
from pathlib import Path
from tests.docs.test_stores_page import _options
from tests.requests import Browser, config_of

found = {}
for row, cookie in json.loads(sys.argv[2]).items():
    folder = Path(sys.argv[1], row)
    folder.mkdir(exist_ok=True)
    browser = Browser(config_of(secret="a secret for tests, of 32 bytes or more", key="sid", **_options(row, folder)))
    browser.cookie = cookie
    survived = "stays" in browser.read()
    browser.write(stays=True)
    found[row] = browser.cookie, survived
print(json.dumps(found))
"""


@pytest.mark.once
def test_what_survives_a_restart(tmp_path):
    """What the table says of a restart holds for processes that begin one after the other."""
    cookies = dict.fromkeys(["memory", "file", "dbm", "SQLite", "cookie"], "")
    for _ in range(2):
        command = [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path), json.dumps(cookies)]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        found = json.loads(output)
        cookies = {row: cookie for row, (cookie, _) in found.items()}

    assert {row: survived for row, (_, survived) in found.items()} == {
        row: TABLE[row][RESTART] == "yes" for row in cookies
    }
