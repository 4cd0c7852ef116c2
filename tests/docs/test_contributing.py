"""CONTRIBUTING.rst says what is there: its commands run, its files exist, and its list of rooms is the imports'."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from beaker_bridge.options.types import KNOWN_TYPES
from beaker_bridge.testing.contract import PATIENCE, StoreContract
from tests import command_page
from tests.requests import STORES

# Processes: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
BLOCKS = {
    name: textwrap.dedent(body)
    for _, name, body in re.findall(
        r"^( *)\.\. code-block:: \w+\n\1   :name: (\w+)\n\n((?:\1   .*\n|\n)+)", PAGE, re.MULTILINE
    )
}
SHELL = [line for name in ("first", "loop", "before", "option", "measure") for line in BLOCKS[name].split("\n") if line]
TOX = configparser.ConfigParser(interpolation=None)
TOX.read(ROOT / "tox.ini", encoding="utf-8")


def python(*words):
    """Run this Python in the checkout, and return what it says."""
    command = [sys.executable, "-W", "ignore", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands(program):
    """Return the words that follow a program of the virtual environment, for each line that has it."""
    parts = [part.strip() for line in SHELL for part in line.split(" && ")]
    return [shlex.split(part)[1:] for part in parts if part.startswith(f".venv/bin/{program} ")]


def test_the_first_command_is_green():
    """The first command makes an environment, installs what the tests need, and ends with a test that passes."""
    make, install, test = BLOCKS["first"].strip().split(" && ")

    assert make == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install --quiet --editable '.[testing]'"
    assert " passed in " in python(*shlex.split(test)[1:], "-p", "no:cacheprovider")


def test_the_other_tests_are_found():
    """Each module of tests that a command names is there, and has tests."""
    helpers = [words[1] for words in commands("python") if words[1] != "pytest"]
    words = [word for words in commands("python") if words[:2] == ["-m", "pytest"] for word in words[2:]]
    modules = {word for word in words if word.startswith("tests/")}
    collected = python("-m", "pytest", "--collect-only", "-q", *modules)

    assert helpers == ["tests.command_page"]
    assert len(modules) == 5
    assert all(f"{module}::" in collected for module in modules)
    assert "lock" in collected


def test_toxs_environments_are_there():
    """Each environment of tox that is named has a section."""
    named = [words[words.index("-e") + 1].split(",") for words in commands("tox") if "-e" in words]
    named += [[name] for name in re.findall(r"``tox -e ([\w-]+)``", PAGE)]

    assert named == [["lint", "typing", "quick"], ["bench"], ["bench"], ["typing-users"], ["release"], ["lowest"]]
    assert all(TOX.has_section(f"testenv:{name}") for names in named for name in names)
    assert "--instructions" in python("-m", "tests.benchmarks", "--help")


def test_what_is_named_is_there():
    """Each file is there, and each name stands in the file that it is said to be in."""
    paths = re.findall(r"``((?:beaker_bridge|tests|docs|\.ci)/[\w./]*|CHANGES\.rst)``", PAGE)
    named = re.findall(r"``(\w+)(?:\(\))?``(?: and ``(\w+)\(\)``)?\s+(?:in|of) ``([\w/]+\.py)``", PAGE)

    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(named) >= 7
    for *names, path in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert all(re.search(rf"^(?:class |def )?{name}\b", text, re.MULTILINE) for name in filter(None, names)), path
    assert {"memory", "file"} <= KNOWN_TYPES & STORES.keys()
    assert callable(command_page.run)


def test_the_rooms_are_those_of_the_imports():
    """Each room is in the list, and imports from those below its line alone."""
    package = ROOT / "beaker_bridge"
    floors = [line[:31].split() for line in BLOCKS["rooms"].splitlines() if line]
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}

    assert floor_of.keys() == rooms - {"__init__"}
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for other in imported(path) if room != "__init__" else ():
            assert other, f"{path} imports the package itself"
            assert other == room or floor_of[other] > floor_of[room], (
                f"{path} imports {other}, which is not below {room}"
            )


def imported(path):
    """Return the rooms that a module imports from; an empty string for the package itself."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    modules = [node.module.split(".") for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {(*module, "")[1] for module in modules if module[0] == "beaker_bridge"}


def test_the_contract_is_derived_as_shown():
    """The example of a store's tests derives them."""
    names = {}
    exec(BLOCKS["contract"], names)

    assert issubclass(names["TestMyStore"], StoreContract)


def test_each_example_has_a_name():
    """No example escapes the tests."""
    assert len(BLOCKS) == PAGE.count(".. code-block::")
