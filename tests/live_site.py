"""A live site: `pserve` as a process, and its visitor, a client with a cookie jar."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPErrorProcessor, ProxyHandler, Request, build_opener

CHECKOUT = Path(__file__).parent.parent
#: The longest wait for a process or an answer, in seconds.
PATIENCE = 60


# -- The site ----------------------------------------------------------------------------------------


def configured(directory: Path, **options: str) -> Path:
    """Copy development.ini into a directory, where its data will be too, with some options changed."""
    text = (CHECKOUT / "development.ini").read_text(encoding="utf-8")
    for name, value in options.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert count == 1, f"development.ini has {count} lines {name} = …"
    ini = directory / "development.ini"
    ini.write_text(text, encoding="utf-8")
    return ini


class Log:
    """The lines that a site has logged, and goes on to log."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._grown = threading.Condition()

    def append(self, line: str) -> None:
        """Append a line."""
        with self._grown:
            self._lines.append(line)
            self._grown.notify_all()

    def has(self, *texts: str) -> bool:
        """Say whether a line holds some texts; a line may come after the answer that it is about."""
        with self._grown:
            return self._grown.wait_for(
                lambda: any(all(text in line for text in texts) for line in self._lines), PATIENCE
            )

    def __str__(self) -> str:
        return "".join(self._lines)


class Site:
    """A running site.

    Args:
        url: its address.
        log: what it logs.
    """

    def __init__(self, url: str, log: Log) -> None:
        self.url = url
        self.log = log


@contextmanager
def serving(ini: Path) -> Iterator[Site]:
    """Run pserve on an ini file, on a free port."""
    with running("pyramid.scripts.pserve", str(ini), "http_port=0") as site:
        yield site


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Site]:
    """Run a module that serves a site by waitress. The code comes from this checkout."""
    # Pyramid imports pkg_resources, of which setuptools warns.
    with started(
        [sys.executable, "-W", "ignore:pkg_resources:UserWarning", "-m", module, *arguments], CHECKOUT
    ) as site:
        yield site


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[Site]:
    """Run a command that serves a site by waitress, in a folder."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    log = Log()
    addresses: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read_log, args=(process.stdout, log, addresses))
    reader.start()
    try:
        url = addresses.get(timeout=PATIENCE)
        assert url is not None, str(log)
        yield Site(url, log)
    finally:
        _stop(process)
        reader.join(PATIENCE)


def _read_log(lines: Any, log: Log, addresses: queue.Queue[str | None]) -> None:
    with lines:
        for line in lines:
            log.append(line)
            # waitress logs it when it listens.
            if found := re.search(r"Serving on (http://\S+)", line):
                addresses.put(found[1])
    addresses.put(None)


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


# -- A client ----------------------------------------------------------------------------------------


class Page(NamedTuple):
    """An answer."""

    status: int
    headers: Any
    text: str


class _AsItIs(HTTPErrorProcessor):
    """Hand over each answer, also a redirect or an error."""

    def http_response(self, request, response):
        return response


class Visitor:
    """A client with a cookie jar, that follows a redirect when it is told to.

    Args:
        site: the site that it visits.
        user_agent: what it says that it is; None for urllib's own words.
    """

    def __init__(self, site: Site, user_agent: str | None = None) -> None:
        self.site = site
        self.jar = CookieJar()
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.jar), _AsItIs)
        if user_agent is not None:
            self._opener.addheaders = [("User-Agent", user_agent)]

    def get(self, path: str, **headers: str) -> Page:
        return self._open(Request(self.site.url + path, headers=headers))

    def post(self, path: str, **fields: str) -> Page:
        return self._open(Request(self.site.url + path, data=urlencode(fields).encode("ascii")))

    def submit(self, form: str, path: str, **fields: str) -> Page:
        """Get the page with the form, and post fields with its CSRF token."""
        return self.post(path, csrf_token=csrf_token(self.get(form)), **fields)

    def follow(self, page: Page) -> Page:
        location = page.headers["Location"]
        assert page.status == 302
        assert location.startswith(self.site.url), location
        return self.get(location.removeprefix(self.site.url))

    def log_in(self, name: str, password: str = "") -> Page:
        return self.follow(self.submit("/login", "/login", name=name, password=password))

    @property
    def session(self) -> dict[str, Any]:
        """What /session.json answers."""
        return json.loads(self.get("/session.json").text)

    @property
    def cookie(self) -> str:
        """The one cookie, as a header has it."""
        (cookie,) = self.jar
        return f"{cookie.name}={cookie.value}"

    def _open(self, request: Request) -> Page:
        with self._opener.open(request, timeout=PATIENCE) as response:
            return Page(response.status, response.headers, response.read().decode("utf-8"))


def csrf_token(page: Page) -> str:
    found = re.search(r'name="csrf_token" value="(\w+)"', page.text)
    assert found, page.text
    return found[1]
