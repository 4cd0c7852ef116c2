"""What is installed: a checkout with its sample site, a wheel with the package alone, an sdist with all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import PathDistribution, entry_points
from itertools import product
from pathlib import Path

import pytest

from tests.docs.test_readme import BLOCKS
from tests.live_site import PATIENCE, Visitor, started

# Builds, and processes of their own.
pytestmark = [pytest.mark.once, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a copy of this checkout, without what a clone does not have."""
    made = [Path(line).name for line in (CHECKOUT / ".gitignore").read_text(encoding="utf-8").split()]
    place = tmp_path_factory.mktemp("clone") / "clone"
    return shutil.copytree(CHECKOUT, place, ignore=shutil.ignore_patterns(".git", *made), symlinks=True)


def built(clone, kind, folder):
    """Have setuptools build something, as pip has it; return the names of what is in it, and its path."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    path = folder / done.stdout.splitlines()[-1]
    if kind == "sdist":
        with tarfile.open(path) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}, path
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}, path


def files(clone, *folders):
    """Return the names of the files of a clone, or of some of its folders."""
    paths = [path for folder in folders for path in (clone / folder).rglob("*")]
    names = {str(path.relative_to(clone)) for path in paths if path.is_file() and path.suffix != ".pyc"}
    # Without what was built there, and what a site has kept.
    return {name for name in names if not name.startswith(("build/", "data/", "beaker_bridge.egg-info/"))}


# -- A checkout --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(clone, tmp_path_factory):
    """Return the programs of a virtual environment with the clone, as the README's first command makes it."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # Its dependencies are those of this environment, which is not the one where our package is.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    _, wheel = built(clone, "editable", tmp_path_factory.mktemp("editable"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for script in entry_points(group="console_scripts"):
        # As pip writes them.
        program = place / "bin" / script.name
        program.write_text(
            f"#!{place}/bin/python\nimport sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n",
            encoding="utf-8",
        )
        program.chmod(0o755)
    return place / "bin"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ptweens", "beaker_bridge.session_tween_factory"),
        ("proutes", "sample_app.views.home"),
        ("pviews", "sample_app.views.home"),
        ("prequest", '<strong id="visits">1</strong>'),
        ("pshell", "sample_app"),
    ],
)
def test_the_programs_of_pyramid_work_in_a_checkout(environment, clone, command, said):
    """After the README's first command, Pyramid's programs find the sample site, as users type them."""
    words = [environment / command, "development.ini", *(["/"] if command in ("pviews", "prequest") else [])]
    # Pyramid imports pkg_resources, of which setuptools warns.
    environ = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        words,
        cwd=clone,
        env=environ,
        input="print(registry.package_name)\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_first_command_starts_the_sample_site(environment, clone):
    """What the README's first command ends with starts the site, from a clone."""
    *steps, last = BLOCKS["start"].strip().split(" && ")
    program, ini = last.split()
    with started([str(environment / Path(program).name), ini, "http_port=0"], clone) as site:
        page = Visitor(site).get("/")

    assert steps == ["python3 -m venv .venv", ".venv/bin/pip install --quiet --editable '.[sample]'"]
    assert program == ".venv/bin/pserve"
    assert '<strong id="visits">1</strong>' in page.text


# -- A wheel, and an sdist ---------------------------------------------------------------------------


def test_the_wheel_holds_the_package_alone(clone, tmp_path):
    """What users install has every file of the package, and neither the sample site nor the tests."""
    found, path = built(clone, "wheel", tmp_path)
    said = PathDistribution(zipfile.Path(path, path.name.removesuffix("-py3-none-any.whl") + ".dist-info/"))
    points = {(point.group, point.name) for point in said.entry_points}

    assert found == files(clone, "beaker_bridge")
    assert path.name == f"beaker_bridge-{said.version}-py3-none-any.whl"
    assert (said.metadata["License-Expression"], said.metadata["License-File"]) == ("MIT", "LICENSE.txt")
    assert said.metadata["Description-Content-Type"] == "text/x-rst"
    assert said.metadata["Description"] == (clone / "README.rst").read_text(encoding="utf-8")
    assert points == {
        ("console_scripts", "beaker-bridge"),
        *product(("paste.filter_app_factory", "paste.filter_factory"), ("main", "session")),
    }


def test_the_sdist_holds_what_the_readme_needs(clone, tmp_path):
    """An sdist is as good as a clone: both of the README's commands work in it, and it makes the same wheel."""
    found, path = built(clone, "sdist", tmp_path)
    subprocess.run([sys.executable, "-m", "tarfile", "--extract", path, tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()

    # What is hidden is for those who work on it.
    assert {name for name in files(clone, ".") - found if name.startswith(".ci") or not name.startswith(".")} == set()
    assert built(unpacked, "wheel", tmp_path)[0] == files(clone, "beaker_bridge")
