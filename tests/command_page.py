"""The outputs in docs/command.rst, from the command itself: ``python -m tests.command_page`` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "command.rst"
_CONSOLE = re.compile(r"(\.\. code-block:: console\n   :name: \w+\n\n   \$ (.*)\n)((?:   .*\n|\n(?=   ))*)")
_INI = re.compile(r"\.\. code-block:: ini\n   :name: (\w+)\n\n((?:   .*\n|\n)+)")
_APPLICATION = """
from pyramid.config import Configurator


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        return config.make_wsgi_app()
"""


def outputs(text):
    """Return the page's commands, each with its output."""
    return {command: textwrap.dedent(output) for _, command, output in _CONSOLE.findall(text)}


def run(command, folder):
    """Run one of the page's commands with the page's files, and return what it writes to stdout."""
    folder.mkdir(exist_ok=True)
    (folder / "myapp.py").write_text(_APPLICATION)
    for name, ini in _INI.findall(PAGE.read_text(encoding="utf-8")):
        (folder / f"{name}.ini").write_text(textwrap.dedent(ini))
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


def without_figures(text):
    """Return an output without what differs from one run to the next."""
    return re.sub(r" +\d+\.\d{3}\b", " 0.000", text)


def main():
    """Write the outputs into the page."""
    with tempfile.TemporaryDirectory() as folder:

        def renewed(match):
            return match[1] + textwrap.indent(run(match[2], Path(folder)), "   ").rstrip() + "\n"

        PAGE.write_text(_CONSOLE.sub(renewed, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
