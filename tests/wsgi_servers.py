"""Real WSGI servers with the site of :mod:`tests.wsgi_site`, as processes on free loopback ports."""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import ClassVar

from tests import machine
from tests.servers import PATIENCE, Server, free_port

CHECKOUT = Path(__file__).parent.parent
SITE = "tests.wsgi_site"
#: The file with the session's options, and the folder in which each process says that it is there:
#: both in the folder in which a server runs.
OPTIONS, PROCESSES = "options.json", "processes"
#: Threads of each process, where a process has several.
THREADS = 4


class WSGIServer(Server):
    """One WSGI server.

    Args:
        folder: an empty folder for its files.
        options: the session's options.
    """

    #: The Python package, and the module in it that is run.
    package = ""
    #: How many processes answer.
    processes: ClassVar[int] = 2
    #: How many requests each of them takes at once, at most.
    holds: ClassVar[int] = 1
    #: Whether the site is imported before the fork, in a process that does not answer itself.
    forks: ClassVar[bool] = False

    def __init__(self, folder: Path, options: dict[str, object]) -> None:
        # None of Debian's programs, as other servers are.
        machine.package(self.package)
        self.folder = folder
        self.program = self.package
        self.process = None
        self.port = free_port()
        self._options = options

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        (self.folder / PROCESSES).mkdir()
        (self.folder / OPTIONS).write_text(json.dumps(self._options), encoding="utf-8")

    def command(self) -> list[str]:
        # The site comes from this checkout. Pyramid imports pkg_resources, of which setuptools warns.
        return ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-W", "ignore", *self.words()]

    def words(self) -> list[str]:
        """Return what Python is told."""
        raise NotImplementedError

    def connect(self) -> None:
        connection = HTTPConnection(self.url, timeout=PATIENCE)
        try:
            connection.request("GET", "/pid")
            connection.getresponse().read()
        finally:
            connection.close()


class Waitress(WSGIServer):
    """One process with threads."""

    package = "waitress"
    processes = 1

    def words(self) -> list[str]:
        return ["-m", "waitress", f"--listen={self.url}", f"--threads={THREADS}", f"{SITE}:application"]


class Gunicorn(WSGIServer):
    """Processes without threads, each of which imports the site."""

    package = "gunicorn"
    processes = 3

    def words(self) -> list[str]:
        # It would put a socket into the home directory.
        words = ["-m", "gunicorn", "--no-control-socket", "-b", self.url, "-w", str(self.processes)]
        return [*words, *self.kind(), f"{SITE}:application"]

    def kind(self) -> list[str]:
        """Return the words for the kind of workers."""
        return []


class GunicornThreads(Gunicorn):
    """Processes with threads."""

    processes = 2
    holds = THREADS

    def kind(self) -> list[str]:
        return ["-k", "gthread", "--threads", str(THREADS), "--worker-connections", str(THREADS)]


class GunicornPreload(GunicornThreads):
    """Processes with threads, forked from one that has imported the site."""

    forks = True

    def kind(self) -> list[str]:
        return [*super().kind(), "--preload"]


class UWSGI(WSGIServer):
    """Processes with threads, forked from one that has imported the site, without Python's own word for that."""

    package = "pyuwsgi"
    holds = 2
    forks = True

    def words(self) -> list[str]:
        return [
            *("-c", "import pyuwsgi; pyuwsgi.run()", "--http-socket", self.url, "--module", f"{SITE}:application"),
            *("--master", "--processes", str(self.processes), "--threads", str(self.holds)),
            *("--need-app", "--die-on-term", "--no-orphans"),
        ]
