"""A reader of the tutorial: writes its files, runs its commands, and looks at the site with a browser."""

from __future__ import annotations

import difflib
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from importlib.metadata import entry_points
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, HTTPSHandler, ProxyHandler, Request, build_opener

from bs4 import BeautifulSoup

from tests.certificates import Certificate
from tests.docs import pages
from tests.servers import PATIENCE, Server, free_port, wait_until

#: The port of the tutorial's site.
PORT = "6543"
#: What pip makes of the packages that the tutorial installs.
PROGRAMS = ("beaker-bridge", "pserve")


# -- The pages ---------------------------------------------------------------------------------------


def written() -> list[Page]:
    """Return the steps of the tutorial, in their order."""
    return [Page(path.stem) for path in sorted((pages.DOCS / "tutorial").glob("[0-9]*.rst"))]


class Page:
    """A step of the tutorial.

    Args:
        name: the name of its file, without the suffix.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        text = pages.read(f"tutorial/{name}")
        self.blocks = pages.blocks(text)
        #: The text, in one line.
        self.words = " ".join(text.split())

    def files(self) -> list[tuple[str, pages.Block]]:
        """Return the files that the page has the reader write, with their paths."""
        return [(block.options["caption"], block) for block in self.blocks.values() if "caption" in block.options]


def state_after(page: str) -> dict[str, str]:
    """Return the project's files at the end of a page, or rather at its beginning where it undoes a change."""
    found: dict[str, str] = {}
    for each in written():
        for path, block in reversed(each.files()):
            # What a page shows twice, it tries out: the first form stays.
            found[path] = block.text
        if each.name.startswith(page):
            break
    return found


def changed_lines(old: str, new: str) -> str:
    """Return which lines of a file are new or different, as ``:emphasize-lines:`` has it."""
    lines = new.splitlines()
    matcher = difflib.SequenceMatcher(None, old.splitlines(), lines, autojunk=False)
    ranges = []
    for kind, _, _, first, end in matcher.get_opcodes():
        if kind in {"insert", "replace"}:
            # Blank lines around them need no light.
            shown = [number for number in range(first, end) if lines[number]]
            ranges.append((shown[0] + 1, shown[-1] + 1))
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


# -- The project -------------------------------------------------------------------------------------


class Project:
    """The reader's folder.

    Args:
        parent: the folder in which it is made.
    """

    def __init__(self, parent: Path) -> None:
        self.folder = parent / "mysite"
        self.port = str(free_port())
        self.url = f"http://localhost:{self.port}/"

    def make(self) -> None:
        """Do what the first page says: make the folder, the environment and the files, and install the project."""
        commands = self._commands("visits-folder")
        assert commands[-2:] == ["cd mysite", "python3 -m venv .venv"]
        subprocess.run(["sh", "-ec", "\n".join(commands[:-1])], cwd=self.folder.parent, check=True)
        # Where a reader's pip fetches packages, this environment has those that run the tests.
        self.run(sys.executable, "-m", "venv", "--without-pip", ".venv")
        (packages,) = (self.folder / ".venv/lib").glob("python*/site-packages")
        running = sysconfig.get_path("purelib")
        (packages / "running.pth").write_text(f"import site; site.addsitedir({running!r})\n")
        for program in PROGRAMS:
            self._make_program(program)
        self.write(state_after("1"))
        assert self._commands("visits-start")[0] == ".venv/bin/pip install --editable ."
        self.run(
            *(".venv/bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *("--no-build-isolation", "--editable", "."),
        )

    def _commands(self, block: str) -> list[str]:
        return written()[0].blocks[block].text.splitlines()

    def _make_program(self, name: str) -> None:
        (script,) = entry_points(group="console_scripts", name=name)
        path = self.folder / ".venv/bin" / name
        path.write_text(
            f"#!{self.folder}/.venv/bin/python -Wignore\n"
            f"import sys; from {script.module} import {script.attr}; sys.exit({script.attr}())\n"
        )
        path.chmod(0o755)

    def starts_after_each(self, page: str) -> str:
        """Write a page's files one by one, as a reader does, and return what fails when the site starts after one."""
        loading = (
            "import hashlib, os, sys; import beaker_bridge, pyramid_jinja2\n"
            # No start is to take the time of its hashes.
            "hashlib.scrypt = lambda *_, **__: b''\n"
            "for line in sys.stdin:\n"
            "    path, size = line.split()\n"
            "    open(path, 'w').write(sys.stdin.read(int(size)))\n"
            "    if path.endswith('2'): continue\n"
            "    if not os.fork():\n"
            "        try: __import__('mysite').main({}, **{'pyramid.includes': 'beaker_bridge pyramid_jinja2'})\n"
            "        except Exception as error: print(path, repr(error), flush=True)\n"
            "        os._exit(0)\n"
            "    os.wait()\n"
        )
        files = "".join(
            f"{path} {len(text)}\n{text}"
            for path, text in ((path, self.placed(block.text)) for path, block in Page(page).files())
            if not path.startswith("/")
        )
        return self.run(".venv/bin/python", "-Wignore", "-c", loading, typed=files)

    def write(self, files: dict[str, str]) -> None:
        """Write files, with a port of ours in place of the tutorial's."""
        for path, text in files.items():
            (self.folder / path).write_text(self.placed(text), encoding="utf-8")

    def placed(self, text: str) -> str:
        """Return a text with a port of ours in place of the tutorial's."""
        return text.replace(PORT, self.port)

    def go_to(self, page: str) -> None:
        """Have the files of the end of a page, and no session."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        shutil.rmtree(self.folder / "mysite")
        (self.folder / "mysite/templates").mkdir(parents=True)
        self.write({path: text for path, text in state_after(page).items() if not path.startswith("/")})

    def run(self, *command: str, typed: str = "") -> str:
        """Run a command in the folder, and return what it prints."""
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True, input=typed).stdout

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a shell line of the tutorial in the folder."""
        return subprocess.run(
            ["sh", "-c", self.placed(line)], cwd=self.folder, check=False, capture_output=True, text=True
        )

    @contextmanager
    def serving(self, *, reloading: bool = False, line: str = "") -> Iterator[None]:
        """Start the site by a shell line of the tutorial.

        Args:
            reloading: whether to have it restart when a file changes. Else the files are what they are at the start.
            line: the line's block in the last page, if it is not the first page's.
        """
        command = (written()[-1].blocks[line].text if line else self._commands("visits-start")[1]).split()
        if not reloading:
            command = [part for part in command if part != "--reload"]
        with (self.folder.parent / "log").open("w+") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
            try:
                wait_until(lambda: self._is_up(process))
                yield
            finally:
                process.terminate()
                process.wait(PATIENCE)

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.folder.parent / "log").read_text()
        try:
            # A page without a session.
            Tab(self).open("/no-such-page")
        except OSError:
            return False
        return True


class Front(Server):
    """The nginx of the tutorial's last page.

    Args:
        folder: as :class:`Server`'s.
        site: the site that it is before.
        certificate: what it proves itself with.
    """

    program = "nginx"

    def __init__(self, folder: Path, site: Project, certificate: Certificate) -> None:
        super().__init__(folder)
        self.port = free_port()
        certificate.write(folder)
        (block,) = (block for path, block in written()[-1].files() if path.startswith("/"))
        server = site.placed(block.text)
        for old, new in (
            ("listen 443", f"listen 127.0.0.1:{self.port}"),
            ("/etc/ssl/mysite.pem", "certificate.pem"),
            ("/etc/ssl/mysite.key", "key.pem"),
        ):
            assert old in server
            server = server.replace(old, new)
        temporary = "".join(
            f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            "daemon off; user root; pid pid; error_log stderr; events {}\n"
            f"http {{ access_log off; {temporary}\n{server} }}\n"
        )

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/"

    def command(self) -> list[str]:
        return [self.path, "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]

    def connect(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=2).close()


# -- The browser -------------------------------------------------------------------------------------


class Tab:
    """A tab of a browser, which finds fields by their labels and buttons by their words, as a person does.

    Args:
        site: what it shows.
        beside: another tab of the same browser; without one the browser is new.
        user_agent: what the browser says that it is.
    """

    def __init__(
        self, site: Project | Front, beside: Tab | None = None, user_agent: str = "Mozilla/5.0 Firefox/140.0"
    ) -> None:
        self.root = site.url
        self.jar = beside.jar if beside else CookieJar()
        # A certificate of ours, that no authority has signed.
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.jar), HTTPSHandler(context=trusting))
        self._opener.addheaders = [("User-Agent", user_agent)]
        self.url = self.root
        self.status = 0
        self.page = BeautifulSoup()

    @property
    def text(self) -> str:
        """What is to be read on the page, in one line."""
        return " ".join(self.page.body.get_text(" ").split())

    def open(self, path: str) -> None:
        """Open a page, and follow where it redirects to."""
        self._load(Request(urljoin(self.url, path)))

    def reload(self) -> None:
        """Reload the page: each came by GET, after a redirect."""
        self.open(self.url)

    def choose(self, words: str) -> None:
        """Follow the link that begins with some words."""
        (link,) = [each for each in self.page.find_all("a") if each.get_text().startswith(words)]
        self.open(link["href"])

    def fill_in(self, **values: str) -> None:
        """Fill in fields, each named by the first word of its label."""
        for word, value in values.items():
            (label,) = [each for each in self.page.find_all("label") if each.get_text().split()[0] == word]
            self.page.find(id=label["for"])["value"] = value

    def press(self, words: str) -> None:
        """Press a button: send its form, and follow where that redirects to."""
        (button,) = [each for each in self.page.find_all("button") if each.get_text() == words]
        form = button.find_parent("form")
        assert form["method"] == "post"
        fields = [(field["name"], field.get("value", "")) for field in form.find_all("input")]
        if button.get("name"):
            fields.append((button["name"], button["value"]))
        url = urljoin(self.url, form.get("action", ""))
        origin = {"Origin": self.root.rstrip("/")}
        self._load(Request(url, data=urlencode(fields).encode(), headers=origin))

    def value(self, label: str) -> str:
        """Return what a field holds."""
        (found,) = [each for each in self.page.find_all("label") if each.get_text() == label]
        return self.page.find(id=found["for"])["value"]

    def cookie(self):
        """Return the one cookie, as the browser has it."""
        (cookie,) = self.jar
        return cookie

    def _load(self, request: Request) -> None:
        try:
            answer = self._opener.open(request, timeout=PATIENCE)
        except HTTPError as error:
            answer = error
        with answer:
            self.url, self.status = answer.url, answer.status
            self.headers = answer.headers
            self.page = BeautifulSoup(answer.read().decode(), "html.parser")
