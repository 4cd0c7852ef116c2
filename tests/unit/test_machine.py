"""What the tests need from the machine is asked for in one place; what is missing is skipped and counted, or fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import machine
from tests.servers import PATIENCE

pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[2]
#: Tests that need what is not there: themselves, in a fixture, and in one that is shared.
TESTS = """
import pytest
from tests import machine

@pytest.fixture
def own():
    machine.package("no_such_package")

@pytest.fixture(scope="session")
def shared():
    raise machine.MissingError("postgres", "apt-get install postgresql")

def test_needs_none(): pass
def test_asks_itself(): machine.dbm("dbm.no_such")
def test_has_a_fixture(own): pass
def test_shares_one(shared): pass
def test_shares_it_again(shared): pass
"""


def run(folder, *options, **environ):
    """Run those tests as a run of their own, and return its exit code and the last two lines of its output."""
    (folder / "test_needs.py").write_text(TESTS, encoding="ascii")
    without = ["-p", "no:cacheprovider", "-p", "no:warnings"]
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-p", "tests.conftest", *without]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environ}
    done = subprocess.run(
        [*command, *options, str(folder)], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines()[-2:]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_missing_is_skipped_and_counted(tmp_path, workers):
    """Wherever a test asks for what is missing, it is skipped; the last line says how many, of what, and the remedy."""
    code, (passed, last) = run(tmp_path, "-n", workers)

    assert code == 0
    assert re.match("1 passed, 4 skipped in ", passed)
    assert last.startswith("4 tests were skipped, for want of dbm.no_such, no_such_package, postgres. To run them: ")
    assert "apt-get install " in last
    assert "postgresql" in last
    assert "pip install no_such_package" in last


@pytest.mark.slow
def test_in_ci_what_is_missing_is_a_failure(tmp_path):
    """In CI nothing is skipped but what this Python was not built with."""
    code, lines = run(tmp_path, CI="true")
    # Debian packages what its Python was not built with.
    dbm = "1 failed, 1 passed" if sys.base_prefix == "/usr" else "1 passed, 1 skipped"

    assert code == 1
    assert any(line.startswith(f"{dbm}, 3 errors in ") for line in lines)


@pytest.mark.slow
def test_the_quick_run_starts_no_program(tmp_path):
    """With ``--bare`` a program that is there is as good as missing, also in CI."""
    (tmp_path / "test_program.py").write_text(
        "from tests import machine\ndef test_it(): machine.program('bash')", encoding="ascii"
    )
    code, (result, last) = run(tmp_path, "--bare", "-k", "test_it", CI="true")

    assert code == 0
    assert result.startswith("1 skipped, ")
    assert last == "1 tests were left out, which need a program that is no part of Python: tox runs them."


def test_it_is_asked_for_in_one_place():
    """No test looks for a program, a package or root itself: it would be skipped without being counted."""
    looks = re.compile(r"shutil\.which|util\.find_spec|importorskip|geteuid|getuid|pytest\.skip\(|skipif")
    here = {"machine.py", "conftest.py", "installed.py", Path(__file__).name}
    found = {
        f"{path.relative_to(CHECKOUT)}: {line.strip()}"
        for path in (CHECKOUT / "tests").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if path.name not in here and looks.search(line)
    }

    assert found == set()


@pytest.mark.parametrize(
    ("system", "has_it"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, False),
        ({"ID": "debian", "VERSION_ID": "13"}, True),
        ({"ID": "debian"}, True),
        ({"ID": "ubuntu", "VERSION_ID": "24.04"}, False),
        (None, False),
    ],
)
def test_what_a_debian_release_does_not_have(monkeypatch, system, has_it):
    """A program that this release does not package is not installed by CI, and is no failure there."""

    def release():
        if system is None:
            raise FileNotFoundError
        return system

    monkeypatch.setattr(machine.platform, "freedesktop_os_release", release)
    monkeypatch.setattr(machine.Bare, "wanted", True)
    with pytest.raises(machine.MissingError) as missing:
        machine.program("valkey-server")
    with pytest.raises(machine.MissingError) as always:
        machine.program("redis-server")

    assert missing.value.everywhere == has_it
    assert missing.value.remedy.startswith(machine.APT) == has_it
    assert ("valkey-server" in machine.missing_packages()) == has_it
    assert always.value.everywhere
    assert "redis-server" in machine.missing_packages()


def test_a_busy_mount_is_waited_for(tmp_path, monkeypatch):
    """A mount becomes read-only when the last file that is open for writing is closed."""
    refused = threading.Event()

    def run(*arguments, check, **options):
        done = subprocess.run(*arguments, check=check, **options)
        if done.returncode:
            refused.set()
        return done

    (tmp_path / "data").mkdir()
    with machine.mounted(tmp_path, "--bind", str(tmp_path / "data")) as disk, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(machine, "subprocess", SimpleNamespace(run=run))
        with open(disk / "file", "w", encoding="ascii"):
            waiting = pool.submit(machine.remount, disk, "ro")
            assert refused.wait(PATIENCE)
        waiting.result(PATIENCE)
        with pytest.raises(OSError, match="Read-only"):
            (disk / "file").write_text("x", encoding="ascii")
        machine.remount(disk, "rw")

        (disk / "file").write_text("x", encoding="ascii")


def test_a_mount_that_stays_busy_is_an_error(tmp_path, monkeypatch):
    """It is waited for with a bound, and the error says what was refused."""
    monkeypatch.setattr(machine, "BUSY", 0)
    (tmp_path / "data").mkdir()
    with (
        machine.mounted(tmp_path, "--bind", str(tmp_path / "data")) as disk,
        open(disk / "file", "w", encoding="ascii"),
        pytest.raises(OSError, match=r"remount,bind,ro .* busy"),
    ):
        machine.remount(disk, "ro")
