"""A failing store never logs anybody out: stores that are killed, hang, fail over, or have no room left.

These are the only tests that look at a clock.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from beaker_bridge.stores._breaker import PAUSE
from tests import faults
from tests.faults import BROWSERS, FAULTS, LONG, SHORT, Browser, fill, on_files, site
from tests.machine import mounted, remount
from tests.requests import Browser as Visitor
from tests.requests import Clock, config_of

pytestmark = [
    # Real servers: what the interpreter adds does not differ.
    pytest.mark.once,
    pytest.mark.slow,
    # PyMySQL leaves a Unix socket behind that it could not connect.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket .* family=1:ResourceWarning"),
]

#: By how much a machine that does other things may be slower.
SLACK = 2
#: Seconds after which the service is back, from the store's return on.
BACK = 2
#: A request connects, and waits for an answer: each may take ``store_timeout``.
STEPS = 2


@pytest.fixture
def disk(tmp_path):
    """Return what mounts something."""
    with ExitStack() as mounts:
        yield lambda *words: mounts.enter_context(mounted(tmp_path, *words))


# -- In the middle of traffic ------------------------------------------------------------------------


#: One fault of each kind that every run goes through; the others take a minute, and are left to CI.
USUAL = {
    *((faults.killed, "redis"), (faults.frozen, "memcached"), (faults.silent, "postgresql")),
    *((faults.full, "file"), (faults.read_only, "dbm")),
}


def runs():
    """Yield each fault at each pace; what takes long is left to the soak run."""
    for fault, name in FAULTS:
        for pace, word in ((SHORT, "short"), (LONG, "long")):
            heavy = pace is LONG or fault is faults.hung_over
            marks = [pytest.mark.soak] if heavy else [] if (fault, name) in USUAL else [pytest.mark.ci]
            if name == "cluster":
                # redis-py leaves a lost node's last connection to the collector; what stays open is counted.
                marks.append(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))
            yield pytest.param(fault, name, pace, id=f"{fault.__name__}-{name}-{word}", marks=marks)


@pytest.mark.parametrize(("fault", "name", "pace"), list(runs()))
def test_a_fault_logs_nobody_out(start_server, tmp_path, fault, name, pace):
    """Whatever becomes of the store: who was logged in is so afterwards, an error is the application's 503,
    no request waits too long, pages without a session are served, the service is back soon, and nothing leaks.
    """
    report = fault(name, start_server, tmp_path, pace)
    forgotten = BROWSERS if (fault, name) == (faults.killed, "memcached") else 0
    # What was asked of a place that never answers is waited for to its end.
    back = max(BACK, pace.store_timeout + PAUSE) if fault is faults.silent else BACK

    assert report.unavailable > 0, report
    assert report.errors == 0, report
    # A memcached comes back empty: each user has a clean new session, and no error.
    assert report.logged_out == forgotten, report
    assert report.plain == 0, report
    # Those that were under way, and after each pause one that finds out; a broken connection needs another one.
    assert report.waited <= BROWSERS + 1 + pace.fault // PAUSE, report
    assert report.longest <= STEPS * pace.store_timeout * SLACK, report
    assert report.back_after <= back * SLACK, report
    assert report.leaked == (0, 0, 0), report


# -- Disks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "dbm"])
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_touch_that_fails_is_logged(disk, tmp_path, caplog, how, name):
    """Where the access time cannot be written, the session is read all the same, and the log says what failed."""
    if how == "full":
        folder = disk("-t", "tmpfs", "-o", "size=256k", "tmpfs")
    else:
        data = tmp_path / "data"
        data.mkdir()
        folder = disk("--bind", str(data))
    clock = Clock()
    config = config_of(**on_files(name, folder), clock=clock, timeout=1000)
    visitor = Visitor(config)
    visitor.write(user="somebody")
    cookie = visitor.cookie
    if how == "full":
        fill(folder)
    else:
        remount(folder, "ro")
    clock.now += 500
    with caplog.at_level(logging.WARNING):
        found = visitor.read()
    if how == "read-only":
        remount(folder, "rw")

    assert found == {"user": "somebody"}
    assert visitor.cookie == cookie
    assert "its access time is not saved" in caplog.text


# -- The document ------------------------------------------------------------------------------------


def test_the_table():
    """The page's table has a row for each fault."""
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "reliability.rst").read_text(encoding="utf-8")
    tree = publish_doctree(page, settings_overrides={"report_level": 5})
    # The others are of what a store must grant, and of clocks.
    table = list(tree.findall(nodes.table))[-1]
    rows = [[cell.astext() for cell in row.findall(nodes.entry)] for row in table.findall(nodes.row)]

    assert rows[0] == list(faults.HEADS)
    assert len(rows) == 1 + len(FAULTS)


# -- store_error -------------------------------------------------------------------------------------


def test_an_empty_session_while_the_store_is_away(start_server):
    """With ``store_error = empty`` a page is served with an empty session, which sends no cookie and is not
    saved; the session from before is there when the store is.
    """
    server = start_server(*faults.SERVERS["redis"])
    app = site(type="ext:redis", url=server.url, store_error="empty")
    browser = Browser(app, "somebody")
    browser.log_in()
    browser.ask("write")
    with server.client() as client:
        keys = client.keys()
    server.kill()
    away = [browser.answer(page) for page in ("read", "write", "read") * 3]
    server.start()
    with server.client() as client:
        keys_after = client.keys()
    faults.wait_until(lambda: browser.answer("read").json["user"])
    back = browser.answer("write")

    assert {response.status_int for response in away} == {200}
    assert [response.json for response in away[:3]] == [
        {"user": None, "visits": None},
        {"user": None, "visits": 1},
        {"user": None, "visits": None},
    ]
    assert not any("Set-Cookie" in response.headers for response in away)
    assert keys_after == keys
    assert back.json == {"user": "somebody", "visits": 2}

    app._config.store.close()
