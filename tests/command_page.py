"""The outputs in docs/reference/command.rst, from the command itself; ``python -m tests.command_page`` writes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from beaker_bridge.request.exchange import standalone_session
from beaker_bridge.site.find import find_site

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "command.rst"
_CONSOLE = re.compile(r"(\.\. code-block:: console\n   :name: \w+\n\n   \$ (.*)\n)((?:   .*\n|\n(?=   ))*)")
_INI = re.compile(r"\.\. code-block:: ini\n   :name: (\w+)\n\n((?:   .*\n|\n)+)")
_APPLICATION = """
from pyramid.config import Configurator


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        return config.make_wsgi_app()
"""


#: What differs from one run to the next, and what stands for it.
_FIGURES = {
    r" +\d+\.\d{3}\b": " 0.000",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \((in )?\d+ \w+( ago)?\)": "a time",
    r"(?m)^[\w.]{23,}$": "a handle",
    r"[\d,]+ bytes": "some bytes",
}
#: The sessions in the site's store: seconds since their last access, and what is in them.
_SESSIONS = {
    "3f2a9c0d5b7e4c1890ab12cd34ef5678": (40, {"cart": ["a book", "a pen"], "visits": 12}),
    "81c4e2f7a05d4b9e8f3a6b2c1d0e9f87": (900, {"visits": 1}),
    "c09d8e7f6a5b4c3d2e1f0a9b8c7d6e5f": (5000, {"visits": 3}),
    "f1e2d3c4b5a697887766554433221100": (90_000, {"visits": 2}),
}


def outputs(text):
    """Return the page's commands, each with its output."""
    return {command: textwrap.dedent(output) for _, command, output in _CONSOLE.findall(text)}


def run(command, folder):
    """Run one of the page's commands with the page's files, and return what it writes to stdout."""
    folder.mkdir(exist_ok=True)
    (folder / "myapp.py").write_text(_APPLICATION)
    for name, ini in _INI.findall(PAGE.read_text(encoding="utf-8")):
        (folder / f"{name}.ini").write_text(textwrap.dedent(ini))
    if command.split()[1] not in ("check", "bench"):
        _fill(folder)
    program, *arguments = command.split()
    assert program == "beaker-bridge"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "beaker_bridge.cli", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        check=False,
    )
    assert not done.stderr.startswith("error"), done.stderr
    return done.stdout


def _fill(folder):
    """Write the sessions of ``production.ini``, two of them a user's, unless they are there."""
    ini = f"{folder / 'production.ini'}"
    before = os.getcwd()
    # The page's site names its directory from where it is started.
    os.chdir(folder)
    try:
        config = find_site(ini).config
        shutil.rmtree("data/sessions", ignore_errors=True)
        (folder / "sessions.db").unlink(missing_ok=True)
        (folder / "next.ini.migrated").unlink(missing_ok=True)
        for session_id, (ago, content) in _SESSIONS.items():
            at = float(int(time.time() - ago))
            record = {"_creation_time": at - 300, "_accessed_time": at, **content}
            config.store.swap(session_id, None, config.codec.encode(record))
        for browser, ago in {"Firefox": 200, "Safari": 1000}.items():
            config.clock = lambda ago=ago: time.time() - ago
            session = standalone_session(config)
            session["visits"] = 1
            session.bind("42", {"browser": browser}, None, "end")
            session.commit()
    finally:
        os.chdir(before)


def without_figures(text):
    """Return an output without what differs from one run to the next."""
    for pattern, figure in _FIGURES.items():
        text = re.sub(pattern, figure, text)
    return text


def main():
    """Write the outputs into the page."""
    with tempfile.TemporaryDirectory() as folder:

        def renewed(match):
            return match[1] + textwrap.indent(run(match[2], Path(folder)), "   ").rstrip() + "\n"

        PAGE.write_text(_CONSOLE.sub(renewed, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
