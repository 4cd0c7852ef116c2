"""Sessions under real WSGI servers: threads, processes, and processes that were forked with connections open."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest

from tests.connections import connection_of
from tests.forks import silent_fork
from tests.requests import STORES, Browser, config_of, options_of, store_options
from tests.servers import PATIENCE
from tests.wsgi_servers import PROCESSES, UWSGI, Gunicorn, GunicornPreload, GunicornThreads, Waitress

# Processes and real servers: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

#: How many browsers there are, and how many requests each of them makes at once.
BROWSERS, TABS = 3, 4
#: How many of a tab's requests count, and how many write a key.
REQUESTS = 4
#: A server whose processes begin by themselves has nothing to share: two stores tell enough.
FEW = ("redis", "postgresql")
#: Each store that processes can share.
ALL = ("redis", "memcached", "postgresql", "mariadb", "sqlite", "file", "dbm")
SITES = [(server, store) for server in (Waitress, Gunicorn, GunicornThreads) for store in FEW]
SITES += [(server, store) for server in (GunicornPreload, UWSGI) for store in ALL]
#: An id that no session has.
ID = "0" * 32


# -- Under a server ----------------------------------------------------------------------------------


@pytest.fixture(params=SITES, ids=lambda site: f"{site[0].__name__}-{site[1]}")
def site(request, tmp_path):
    """Return a running server of each kind, with the stores that tell most of it."""
    server, store = request.param
    fixture = STORES[store]
    url = request.getfixturevalue(fixture).url if fixture else None
    # As in an .ini file: a module has no name in JSON, and dbm needs none.
    options = {k: v for k, v in store_options(store, tmp_path / "sessions", url).items() if k != "dbmmodule"}
    if store == "sqlite":
        options["url"] = f"sqlite:///{tmp_path}/sessions.db"
    with server(tmp_path, {**options, "store_timeout": 30}) as running:
        yield running


class Visitor:
    """A browser with a cookie, and as many connections as it likes.

    Args:
        site: the server.
        name: its own name, which the site keeps in its session.
    """

    def __init__(self, site, name):
        self._site = site
        self._name = name
        self._cookie = ""
        #: The headers of the last answer.
        self.headers = {}
        self.get("begin")

    def get(self, view, **parameters):
        """Make a request on a connection of its own, and return the session."""
        connection = HTTPConnection(self._site.url, timeout=PATIENCE)
        try:
            query = urlencode({"name": self._name, **parameters})
            connection.request("GET", f"/{view}?{query}", headers={"Cookie": self._cookie})
            response = connection.getresponse()
            self.headers = response.headers
            body = response.read().decode()
            assert response.status == 200, f"{body}\n{self._site.log_tail()}"
            if cookie := response.headers["Set-Cookie"]:
                self._cookie = cookie.partition(";")[0]
            return json.loads(body)
        finally:
            connection.close()

    def work(self, tab):
        """Do what a tab does: count, and write keys of its own."""
        for nth in range(REQUESTS):
            self.get("count")
            self.get("write", key=f"{tab}.{nth}")


def at_once(works):
    """Do all works at once, each in a thread, and return their results."""
    barrier = threading.Barrier(len(works))

    def begin(work):
        barrier.wait(PATIENCE)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(begin, work) for work in works]]


def test_sessions_under_a_server(site):
    """Under each server no count and no key is lost, nobody sees another's, and no connection is shared."""
    browsers = [Visitor(site, f"browser {number}") for number in range(BROWSERS)]
    # So many requests cannot be held by fewer processes.
    everybody = site.holds * (site.processes - 1) + 1
    at_once([lambda: browsers[0].get("meet", processes=site.processes)] * everybody)
    at_once([lambda one=one, tab=tab: one.work(tab) for one in browsers for tab in range(TABS)])

    keys = {f"{tab}.{nth}": True for tab in range(TABS) for nth in range(REQUESTS)}
    for number, browser in enumerate(browsers):
        assert browser.get("show") == {"name": f"browser {number}", "count": TABS * REQUESTS, **keys}

    processes = [json.loads(path.read_text()) for path in (site.folder / PROCESSES).glob("*.json")]
    assert len(processes) == site.processes
    masters = {one["master"]["pid"]: one["master"]["connection"] for one in processes}
    # It was forked with the store in use, if it should have been.
    assert masters.keys().isdisjoint({one["pid"] for one in processes}) == site.forks
    used = masters | {one["pid"]: one["connection"] for one in processes}
    assert len(set(used.values())) == len(used), used


@pytest.mark.parametrize("server", [Waitress, Gunicorn, GunicornThreads, GunicornPreload, UWSGI])
def test_sessions_in_memory_under_a_server(server, tmp_path):
    """A server with several processes says so, and each of those that keep a session in memory warns, once."""
    with server(tmp_path, {"type": "memory"}) as site:
        for number in range(3 * server.processes):
            Visitor(site, f"browser {number}")
        warnings = site.log_tail().count("type = memory gives each process sessions of its own")

    assert (1 <= warnings <= server.processes) if server.processes > 1 else warnings == 0


@pytest.mark.parametrize("server", [Waitress, Gunicorn, UWSGI])
def test_a_streamed_body_under_a_server(server, tmp_path):
    """Its headers say that it varies, though they leave before it touches the session; what it changes is saved."""
    options = {"type": "file", "data_dir": str(tmp_path / "sessions")}
    with server(tmp_path, options) as site:
        browser = Visitor(site, "browser")
        answer = browser.get("stream")
        shown = browser.get("show")

    assert (answer, browser.headers["Vary"]) == ({}, "Cookie")
    assert shown == {"name": "browser", "streamed": True}


# -- A fork by itself --------------------------------------------------------------------------------


@pytest.fixture(params=ALL)
def browser(request, tmp_path):
    """Return a browser with a session in each store that processes can share."""
    browser = Browser(config_of(**options_of(request, tmp_path), store_timeout=30))
    browser.write(name="base")
    yield browser
    browser.config.store.close()


def count(browser, times):
    """Count in a browser's session."""
    for _ in range(times):
        request = browser.begin()
        with request.session.exclusive():
            request.session["count"] = request.session.get("count", 0) + 1
        request.commit()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # other tests' threads
@pytest.mark.parametrize("fork", [os.fork, silent_fork])
def test_parent_and_child_work_on(browser, fork):
    """A forked child has a connection of its own, and both count on in one session."""
    before = connection_of(browser.config)
    child = fork()
    if child == 0:
        try:
            count(browser, times=20)
            os._exit(2 if connection_of(browser.config) == before else 0)
        finally:
            os._exit(1)
    count(browser, times=20)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection_of(browser.config) == before
    assert browser.read() == {"name": "base", "count": 40}
