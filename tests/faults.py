"""Faults in the middle of traffic, on real stores: what the users of a site see of them.

As a program (``python -m tests.faults``) it goes through all of them at their full length, and prints the
table of ``docs/explanation/reliability.rst``.
"""

from __future__ import annotations

import dbm.dumb
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import redis
from pyramid.config import Configurator
from pyramid.response import Response
from webob import Request

from beaker_bridge import SessionMiddleware, SessionStoreError
from tests.machine import mounted, remount
from tests.servers import wait_until
from tests.servers.proxy import Proxy

#: How many browsers there are, each in a thread, and how many requests they send in a second together.
BROWSERS = 8
RATE = 200
#: Of so many requests of a browser one writes; and one asks for a page that has nothing to do with the session.
WRITES = 4
PLAIN = 7
#: Seconds of traffic before a fault.
BEFORE = 0.5


class Pace(NamedTuple):
    """How long a fault lasts.

    Args:
        fault: seconds for which the store is away, or hangs.
        calm: seconds without a failed request after which the service counts as back.
        store_timeout: the option, in seconds.
    """

    fault: float
    calm: float
    store_timeout: float


#: Calm is longer than the pause after a failure, and than what an idle connection that broke may cost.
SHORT = Pace(fault=1.2, calm=1.1, store_timeout=0.5)
LONG = Pace(fault=10, calm=3, store_timeout=2)
#: Seconds after which a service is given up that does not come back.
GIVEN_UP = 10

#: Starts a server of this run: by module, class and options.
Start = Callable[..., Any]


# -- The site ----------------------------------------------------------------------------------------


def site(**options: Any) -> SessionMiddleware:
    """Return a Pyramid application behind the middleware, as a site has it: with a page for a store that is away."""
    with Configurator(settings={"pyramid.includes": "beaker_bridge"}) as config:
        for name, view in (("login", _login), ("read", _read), ("write", _write), ("plain", _plain)):
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name, renderer="json")
        config.add_exception_view(_away, context=SessionStoreError)
        app = config.make_wsgi_app()
    return SessionMiddleware(app, secret="the secret of a site under faults", **options)


def _login(request: Any) -> dict[str, Any]:
    request.session["user"] = request.params["user"]
    return _read(request)


def _read(request: Any) -> dict[str, Any]:
    return {name: request.session.get(name) for name in ("user", "visits")}


def _write(request: Any) -> dict[str, Any]:
    request.session["visits"] = (request.session.get("visits") or 0) + 1
    return _read(request)


def _plain(_request: Any) -> dict[str, Any]:
    return {}


def _away(error: SessionStoreError, _request: Any) -> Response:
    return Response(f"the store is away: {error.name}", status=503)


# -- The traffic -------------------------------------------------------------------------------------


class Sent(NamedTuple):
    """A request and its outcome.

    Args:
        page: what was asked for.
        end: when the answer was there, in seconds.
        seconds: how long it took.
        status: the answer's; nothing where an error reached the server.
        logged_out: whether the answer took from the user what was there before, or set another cookie.
    """

    page: str
    end: float
    seconds: float
    status: int | None
    logged_out: bool


class Browser:
    """A browser with one cookie, whose user is logged in.

    Args:
        app: the site.
        user: the name.
    """

    def __init__(self, app: Any, user: str) -> None:
        self._app = app
        self._user = user
        self._cookie = ""
        #: The visits that the site has acknowledged.
        self._visits = 0

    def log_in(self) -> None:
        """Log in, as a new user."""
        self._cookie, self._visits = "", 0
        response = self.answer(f"login?user={self._user}")
        assert response.status_int == 200, response.text
        self._cookie = response.headers["Set-Cookie"].partition(";")[0]

    def ask(self, page: str) -> Sent:
        """Ask for a page."""
        began = time.monotonic()
        try:
            response = self.answer(page)
        except Exception:  # noqa: BLE001 -- whatever reaches the server is one of the outcomes
            response = None
        end = time.monotonic()
        status = response and response.status_int
        logged_out = response is not None and self._is_logged_out(page, response)
        return Sent(page, end, end - began, status, logged_out)

    def answer(self, page: str) -> Any:
        """Ask for a page, and return the whole response."""
        return Request.blank(f"/{page}", headers={"Cookie": self._cookie}).get_response(self._app)

    def _is_logged_out(self, page: str, response: Any) -> bool:
        if "Set-Cookie" in response.headers:
            return True
        if response.status_int != 200 or page == "plain":
            return False
        found, known = response.json, self._visits
        self._visits = found["visits"] or 0
        return found["user"] != self._user or self._visits < known


class Report(NamedTuple):
    """What became of the requests.

    Args:
        fault: the fault's name.
        sent: how many were sent.
        unavailable: how many were answered 503.
        errors: how many had another error.
        logged_out: how many users lost what was there before.
        plain: how many pages that have nothing to do with the session failed.
        waited: how many were answered only when a wait for the store was over.
        longest: the longest request, in seconds.
        back_after: seconds from the store's return to the end of the last request that failed.
        leaked: the threads, the sockets and the server's clients that are left.
    """

    fault: str
    sent: int
    unavailable: int
    errors: int
    logged_out: int
    plain: int
    waited: int
    longest: float
    back_after: float
    leaked: tuple[int, int, int]


class Traffic:
    """Requests of several browsers to a site, in the middle of which something happens.

    Args:
        app: the site.
        pace: how long it lasts.
        forgets: whether the store comes back empty: then users log in again, where they find that they must.
    """

    def __init__(self, app: SessionMiddleware, pace: Pace, *, forgets: bool = False) -> None:
        self._app = app
        self._pace = pace
        self._forgets = forgets
        self._sent: list[Sent] = []
        self._over = threading.Event()
        self._back_at = 0.0

    def run(self, name: str, fault: Callable[[], Any], clients: Callable[[], int] = lambda: 0) -> Report:
        """Send requests before, during and after a fault.

        Args:
            name: the fault's.
            fault: makes it, and returns when the store is back.
            clients: counts the server's clients.
        """
        before = _held()
        threads = [threading.Thread(target=self._browse, args=(f"user{number}",)) for number in range(BROWSERS)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(BEFORE)  # the traffic before the fault
            fault()
            self._back_at = time.monotonic()
            self._wait_for_calm()
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        at_most = clients() - BROWSERS
        self._app._config.store.close()
        gc.collect()
        wait_until(lambda: clients() == 0)
        return self._report(name, (*_more_than(before), max(0, at_most)))

    def _wait_for_calm(self) -> None:
        failed_at = self._back_at
        while failed_at + self._pace.calm > (now := time.monotonic()) < self._back_at + GIVEN_UP:
            time.sleep(failed_at + self._pace.calm - now)  # until it would be calm, if nothing fails
            failed_at = max([self._back_at] + [sent.end for sent in self._sent if sent.status != 200])

    def _browse(self, user: str) -> None:
        browser = Browser(self._app, user)
        browser.log_in()
        interval = BROWSERS / RATE
        due = time.monotonic()
        number = 0
        while not self._over.wait(max(0, due - time.monotonic())):
            number += 1
            page = "plain" if number % PLAIN == 0 else "write" if number % WRITES == 0 else "read"
            sent = browser.ask(page)
            if sent.logged_out and self._forgets:
                browser.log_in()
            self._sent.append(sent)
            # Those that a slow answer has kept back are not sent after it all at once.
            due = max(due + interval, time.monotonic())

    def _report(self, name: str, leaked: tuple[int, int, int]) -> Report:
        failed = [sent for sent in self._sent if sent.status != 200]
        return Report(
            name,
            len(self._sent),
            sum(sent.status == 503 for sent in failed),
            sum(sent.status != 503 for sent in failed),
            sum(sent.logged_out for sent in self._sent),
            sum(sent.page == "plain" for sent in failed),
            sum(sent.seconds > 0.8 * self._pace.store_timeout for sent in failed),
            max(sent.seconds for sent in self._sent),
            max([sent.end - self._back_at for sent in failed] + [0]),
            leaked,
        )


def _held() -> tuple[int, int]:
    """Return how many threads this process runs, and how many sockets it has open."""
    sockets = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            sockets += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        except FileNotFoundError:
            # The directory's own.
            continue
    return threading.active_count(), sockets


def _more_than(before: tuple[int, int]) -> tuple[int, int]:
    """Return how many threads and sockets there are more than before; what others have left may have ended."""
    threads, sockets = _held()
    return max(0, threads - before[0]), max(0, sockets - before[1])


# -- Servers -----------------------------------------------------------------------------------------

#: The servers, each so that what it has acknowledged stands when it is killed.
SERVERS: dict[str, tuple[str, ...]] = {
    "redis": ("redis", "Redis", "--appendonly", "yes", "--appendfsync", "always"),
    "memcached": ("memcached", "Memcached"),
    "postgresql": ("postgresql", "PostgreSQL", "fsync=on", "synchronous_commit=on", "full_page_writes=on"),
    "mariadb": ("mariadb", "MariaDB", "--innodb-flush-log-at-trx-commit=1"),
}
#: What the option ``url`` is, from the address of a proxy.
PROXIED = {
    "redis": "redis://127.0.0.1:{}/0",
    "memcached": "127.0.0.1:{}",
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:{}/postgres",
    "mariadb": "mysql+pymysql://root@127.0.0.1:{}/test?charset=utf8mb4",
}


def _site_on(name: str, url: str, pace: Pace) -> SessionMiddleware:
    kind = "ext:database" if name in ("postgresql", "mariadb") else f"ext:{name}"
    return site(type=kind, url=url, store_timeout=pace.store_timeout)


def killed(name: str, start: Start, _folder: Path, pace: Pace) -> Report:
    """A server is killed, stays away, and is started again."""
    server = start(*SERVERS[name])

    def fault() -> None:
        server.kill()
        time.sleep(pace.fault)  # the fault's length
        server.start()

    forgets = name == "memcached"
    traffic = Traffic(_site_on(name, server.url, pace), pace, forgets=forgets)
    return traffic.run(f"{name}: SIGKILL, {pace.fault:g} s, restart", fault, server.connections)


def frozen(name: str, start: Start, _folder: Path, pace: Pace) -> Report:
    """A server hangs."""
    server = start(*SERVERS[name])

    def fault() -> None:
        server.freeze()
        time.sleep(pace.fault)  # the fault's length
        server.thaw()

    traffic = Traffic(_site_on(name, server.url, pace), pace)
    return traffic.run(f"{name}: SIGSTOP for {pace.fault:g} s", fault, server.connections)


def silent(name: str, start: Start, _folder: Path, pace: Pace) -> Report:
    """What stands where the server was accepts connections, and never answers."""
    server = start(*SERVERS[name])
    place = server.address if isinstance(server.address, str) else server.address[1]
    before = _held()
    with Proxy(place) as proxy:

        def fault() -> None:
            proxy.fall_silent()
            time.sleep(pace.fault)  # the fault's length
            proxy.speak()

        traffic = Traffic(_site_on(name, PROXIED[name].format(proxy.port), pace), pace)
        report = traffic.run(f"{name}: accepts, no answer for {pace.fault:g} s", fault)
    # Of its own connections the proxy has threads and sockets, too: it is counted when it has ended.
    wait_until(lambda: server.connections() == 0)
    return report._replace(leaked=(*_more_than(before), 0))


# -- A failover --------------------------------------------------------------------------------------


def failed_over(name: str, start: Start, _folder: Path, pace: Pace) -> Report:
    """A master is killed, and its replica is promoted."""
    return _failover(name, start, pace, "is killed", lambda master: master.kill())


def hung_over(name: str, start: Start, _folder: Path, pace: Pace) -> Report:
    """A master hangs, and its replica is promoted."""
    return _failover(name, start, pace, "hangs", lambda master: master.freeze())


def _failover(name: str, start: Start, pace: Pace, what: str, happens: Callable[[Any], None]) -> Report:
    if name == "sentinel":
        group = start("redis", "RedisWithSentinels")
        app = site(type="ext:redis", url=group.url, store_timeout=pace.store_timeout)
        master, replicas = group.master, [group.replica]
    else:
        group = start("redis", "RedisCluster", 1)
        app = site(type="ext:rediscluster", urls=group.url, store_timeout=pace.store_timeout)
        master, replicas = group.servers[0], group.servers[3:]

    def fault() -> None:
        happens(master)
        wait_until(lambda: any(_is_master(replica) for replica in replicas))

    return Traffic(app, pace).run(f"redis {name}: the master {what}", fault)


def _is_master(node: Any) -> bool:
    # A sentinel ends the connections of whom it promotes.
    with suppress(redis.ConnectionError), node.client() as client:
        return bool(client.info("replication")["role"] == "master")
    return False


# -- Disks -------------------------------------------------------------------------------------------


def on_files(name: str, folder: Path) -> dict[str, Any]:
    """Return the options of sessions in files, or in dbm files."""
    return {"type": name, "data_dir": str(folder), **({"dbmmodule": dbm.dumb} if name == "dbm" else {})}


def fill(folder: Path) -> Path:
    """Fill a file system, and return the file that does it."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return filler


def full(name: str, _start: Start, folder: Path, pace: Pace) -> Report:
    """The disk is full."""
    with mounted(folder, "-t", "tmpfs", "-o", "size=256k", "tmpfs") as disk:

        def fault() -> None:
            filler = fill(disk)
            time.sleep(pace.fault)  # the fault's length
            filler.unlink()

        traffic = Traffic(site(**on_files(name, disk), store_timeout=pace.store_timeout), pace)
        return traffic.run(f"{name}: full disk for {pace.fault:g} s", fault)


def read_only(name: str, _start: Start, folder: Path, pace: Pace) -> Report:
    """The disk becomes read-only."""
    data = folder / "data"
    data.mkdir()
    with mounted(folder, "--bind", str(data)) as disk:

        def fault() -> None:
            remount(disk, "ro")
            time.sleep(pace.fault)  # the fault's length
            remount(disk, "rw")

        traffic = Traffic(site(**on_files(name, disk), store_timeout=pace.store_timeout), pace)
        return traffic.run(f"{name}: read-only disk for {pace.fault:g} s", fault)


# -- The table ---------------------------------------------------------------------------------------

Fault = Callable[[str, Start, Path, Pace], Report]
#: Each fault, and on what.
FAULTS: list[tuple[Fault, str]] = [
    *((killed, name) for name in SERVERS),
    *((frozen, name) for name in SERVERS),
    *((silent, name) for name in SERVERS),
    *((failed_over, name) for name in ("sentinel", "cluster")),
    *((hung_over, name) for name in ("sentinel", "cluster")),
    *((full, name) for name in ("file", "dbm")),
    *((read_only, name) for name in ("file", "dbm")),
]
HEADS = ("Fault", "Requests", "503", "Other errors", "Logged out", "Waited", "Longest", "Back after")


def table(reports: list[Report]) -> str:
    """Return reports as a reStructuredText table."""
    rows = [
        (
            report.fault,
            f"{report.sent}",
            f"{report.unavailable}",
            f"{report.errors}",
            f"{report.logged_out}",
            f"{report.waited}",
            f"{report.longest:.2f} s",
            f"{report.back_after:.2f} s",
        )
        for report in reports
    ]
    widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in (HEADS, *rows)]
    return "\n".join([rule, lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), rule])


def main() -> None:
    """Go through all faults at their full length, and print the table."""
    reports = []
    for fault, name in FAULTS:
        with ExitStack() as running, tempfile.TemporaryDirectory() as folder:

            def start(module: str, server: str, *options: Any, running: ExitStack = running) -> Any:
                place = Path(running.enter_context(tempfile.TemporaryDirectory()))
                return running.enter_context(getattr(import_module(f"tests.servers.{module}"), server)(place, *options))

            reports.append(fault(name, start, Path(folder), LONG))
        print(reports[-1], file=sys.stderr)  # noqa: T201 -- a program's own output
    print(table(reports))  # noqa: T201 -- as above


if __name__ == "__main__":
    main()
