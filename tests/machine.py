"""What the tests need from the machine, beside Python and its packages: it is asked for here, and nowhere else.

What is missing raises :class:`MissingError`, wherever in a test or a fixture: the test is skipped and counted in the
last line of the run. In CI it fails. As a program (``python3 tests/machine.py``) this prints the Debian packages that
CI has to install.
"""

from __future__ import annotations

import glob
import os
import platform
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

#: The programs that tests run, and the Debian package of each.
PROGRAMS = {
    "bash": "bash",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "initdb": "postgresql",
    "mariadb-install-db": "mariadb-server",
    "mariadbd": "mariadb-server",
    "install": "coreutils",
    "memcached": "memcached",
    "mount": "mount",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
    "valgrind": "valgrind",
    "valkey-server": "valkey-server",
}
#: The first Debian release that has a package, where not each one has that is in use.
SINCE = {"valkey-server": 13}
#: The number of a release that has none yet.
UNNUMBERED = 99
#: The users as whom servers run that refuse root, and the Debian package that makes each.
USERS = {"postgres": "postgresql"}
#: Where programs are beside PATH: Debian keeps some of them from ordinary users' PATH.
EXTRA_PATHS = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/*/bin")
#: The Python that Debian's packages are for.
DEBIAN_PYTHON = "/usr/bin/python3"
#: What gets a Debian package, and one of Python's.
APT, PIP = "apt-get install", "pip install"
#: Seconds for which a mount may be busy, and between two tries.
BUSY, POLL = 30, 0.05


class MissingError(Exception):
    """A test needs what is not on this machine.

    Args:
        what: what it needs.
        remedy: how to get it: :data:`APT` or :data:`PIP` and a name, or a sentence.
        everywhere: whether CI has it on every Python, so that it is a failure there.
    """

    def __init__(self, what: str, remedy: str, *, everywhere: bool = True) -> None:
        super().__init__(f"{what} is missing ({remedy})")
        self.what = what
        self.remedy = remedy
        self.everywhere = everywhere


class Bare:
    """Whether to do as if nothing were there: ``pytest --bare``."""

    wanted = False


# -- Programs ----------------------------------------------------------------------------------------


def program(name: str) -> str:
    """Return the path of a program."""
    folders = [folder for pattern in EXTRA_PATHS for folder in sorted(glob.glob(pattern), reverse=True)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if found is None or Bare.wanted:
        package = PROGRAMS[name]
        if not _is_packaged(package):
            raise MissingError(name, f"a Debian that has {package}", everywhere=False)
        raise MissingError(name, f"{APT} {package}")
    return found


def _is_packaged(package: str) -> bool:
    """Say whether this Debian release has a package."""
    return _debian() >= SINCE.get(package, 0)


def _debian() -> int:
    """Return the number of the Debian release; 0 on another system."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        return 0
    return int(system.get("VERSION_ID", UNNUMBERED)) if system["ID"] == "debian" else 0


def rights_of(user: str) -> list[str]:
    """Return the words by which root runs a command with the rights of a user; none for others."""
    if os.geteuid() != 0:
        return []
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise MissingError(f"the user {user}", f"{APT} {USERS[user]}") from None
    return [program("setpriv"), f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--clear-groups"]


def root() -> None:
    """Ask for the rights of root."""
    if os.geteuid() != 0:
        raise MissingError("the user root", "run the tests as root")


# -- Python's modules --------------------------------------------------------------------------------


def package(name: str, *, everywhere: bool = True) -> None:
    """Ask for an installed package, by the name of its module."""
    if find_spec(name) is None:
        raise MissingError(name, f"{PIP} {name}", everywhere=everywhere)


def backend(name: str) -> None:
    """Ask for a backend of Beaker's own, which older ones lack."""
    from beaker.cache import clsmap

    if name not in clsmap._clsmap:
        raise MissingError(f"Beaker's own {name}", "Beaker 1.14", everywhere=False)


def dbm(name: str) -> ModuleType:
    """Return one of Python's own dbm modules; Debian packages them, another Python is built with them or not."""
    try:
        return import_module(name)
    except ImportError:
        if sys.base_prefix == "/usr":
            raise MissingError(name, f"{APT} python3-gdbm") from None
        raise MissingError(name, f"a Python that has {name}", everywhere=False) from None


# -- Mounts ------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """Mount something on a new folder, which only root may, and not in every container.

    Args:
        folder: where the new folder is made.
        words: what, as ``mount`` takes it.
    """
    mount = program("mount")
    place = folder / "mounted"
    place.mkdir()
    done = subprocess.run([mount, *words, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        missing = MissingError("the right to mount", "root, where mounts are allowed")
        raise missing from OSError(done.stderr.strip())
    try:
        yield place
    finally:
        _when_idle("umount", str(place))


def remount(place: Path, how: str) -> None:
    """Make a bind mount read-only (``ro``), or writable (``rw``)."""
    _when_idle("mount", "-o", f"remount,bind,{how}", str(place))


def _when_idle(*command: str) -> None:
    """Change a mount when it is not busy: a file that is open for writing keeps it so, as any request has one."""
    deadline = time.monotonic() + BUSY
    # What it says is looked at.
    environ = {**os.environ, "LC_ALL": "C"}
    while (done := subprocess.run(command, env=environ, capture_output=True, text=True, check=False)).returncode:
        if "busy" not in done.stderr or time.monotonic() > deadline:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        time.sleep(POLL)  # between two tries


# -- What CI installs --------------------------------------------------------------------------------


def missing_packages() -> set[str]:
    """Return the Debian packages of what is not on this machine."""
    found = {package for name, package in PROGRAMS.items() if _is_packaged(package) and not _has(name)}
    if subprocess.run([DEBIAN_PYTHON, "-c", "import dbm.gnu"], capture_output=True, check=False).returncode:
        found.add("python3-gdbm")
    return found


def _has(name: str) -> bool:
    try:
        program(name)
    except MissingError:
        return False
    return True


if __name__ == "__main__":
    print(*sorted(missing_packages()))  # noqa: T201 -- a program's own output
