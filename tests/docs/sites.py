"""Sites and servers that are made of a page's examples."""

from __future__ import annotations

import importlib
import re
import shlex
import socket
import sys
import threading
from importlib.metadata import distributions
from pathlib import Path

from paste.deploy import loadapp
from webtest import TestApp

from beaker_bridge import SessionMiddleware
from beaker_bridge.request.exchange import ENVIRON_KEY
from beaker_bridge.session.purge import THREAD as PURGE
from tests import machine
from tests.servers import PATIENCE, Server

CHECKOUT = Path(__file__).parents[2]
#: Python's programs, by their modules: where they are installed depends on the environment.
PROGRAMS = {
    "gunicorn": ("-m", "gunicorn"),
    "python": (),
    "pserve": ("-m", "pyramid.scripts.pserve"),
    "uwsgi": ("-c", "import pyuwsgi; pyuwsgi.run()"),
}


class Scratch:
    """A folder with a package ``myapp`` and its ``.ini``, made of examples.

    Args:
        folder: an empty folder, from which Python imports.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stores = []
        forget()

    def write(self, **modules: str) -> None:
        """Write modules of the package; ``__init__`` is the package itself."""
        (self.folder / "myapp").mkdir(exist_ok=True)
        for name, text in {"__init__": "", **modules}.items():
            (self.folder / "myapp" / f"{name}.py").write_text(text, encoding="utf-8")
        forget()

    def ini(self, text: str) -> Path:
        """Write an ``.ini``, and return its path."""
        path = self.folder / "production.ini"
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, ini: str, **modules: str) -> TestApp:
        """Load the application, in this process."""
        self.write(**modules)
        #: The application that was loaded last, with its filter.
        self.application = loadapp(f"config:{self.ini(ini)}")
        return self.browser(self.application)

    def browser(self, application) -> TestApp:
        """Return a browser of an application, whose store is closed when the test is over."""

        def remembering(environ, start_response):
            answer = application(environ, start_response)
            if ENVIRON_KEY in environ:
                self._stores.append(environ[ENVIRON_KEY].exchange.config.store)
            return answer

        if isinstance(application, SessionMiddleware):
            self._stores.append(application._config.store)
        return TestApp(remembering)

    def end_purges(self) -> None:
        """Wait until no purge is under way, which would use a connection of its own."""
        for thread in threading.enumerate():
            if thread.name == PURGE:
                thread.join(PATIENCE)

    def close(self) -> None:
        """Close the stores, and forget the package."""
        self.end_purges()
        for store in self._stores:
            store.close()
        forget()


def forget() -> None:
    """Have Python import the package anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "myapp"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def words_of(line: str, replaced: dict[str, str] | None = None) -> list[str]:
    """Return the words of a page's shell line, as they are run here.

    Args:
        line: the line.
        replaced: what takes the place of a part of it, such as another port; each part must be there.
    """
    for old, new in (replaced or {}).items():
        assert old in line
        line = line.replace(old, new)
    program, *words = shlex.split(line.replace("\\\n", ""))
    if program in PROGRAMS:
        # Pyramid imports pkg_resources, of which setuptools warns.
        return ["env", f"PYTHONPATH=.:{CHECKOUT}", sys.executable, "-W", "ignore", *PROGRAMS[program], *words]
    return [machine.program(program), *words]


def missing_packages(line: str) -> list[str]:
    """Return the packages of a page's ``pip install`` that are not installed here, where nothing is fetched."""
    program, command, *words = shlex.split(line)
    assert (program, command) == ("pip", "install")
    installed = {found.metadata["Name"].lower() for found in distributions()}
    extras = re.findall(r"^(\w+) = \[", (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    known = installed | {f"beaker_bridge[{extra}]" for extra in extras}
    return [word for word in words if word not in known and word.replace("[binary]", "").lower() not in installed]


class Started(Server):
    """A server that a shell line of a page starts.

    Args:
        folder: where it runs.
        words: the line's words.
        port: where it listens.
    """

    def __init__(self, folder: Path, words: list[str], port: int) -> None:
        self.folder = folder
        self.program = " ".join(words)
        self.process = None
        self.port = port
        self._words = words

    def command(self) -> list[str]:
        return self._words

    def connect(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
