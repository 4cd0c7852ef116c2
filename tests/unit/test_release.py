"""What a release says of itself: lowest versions, Pythons, the changelog, and the workflows."""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

# They read files, not the package.
pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[2]
#: The extras of those who work on the package.
OURS = {"benchmarks", "docs", "fuzzing", "testing"}


def text(name):
    """Return a file of the checkout."""
    return (CHECKOUT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pyproject():
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return toml.loads(text("pyproject.toml"))


@pytest.fixture(scope="module")
def pythons(pyproject):
    """Return the Pythons that the classifiers promise."""
    prefix = "Programming Language :: Python :: 3."
    return ["3." + name.removeprefix(prefix) for name in pyproject["project"]["classifiers"] if name.startswith(prefix)]


def test_the_lowest_versions_are_tested(pyproject):
    """Each requirement of a user's has a lower bound, and it is the version that `tox -e lowest` installs."""
    project = pyproject["project"]
    extras = [name for extra, names in project["optional-dependencies"].items() if extra not in OURS for name in names]
    required = [name for name in (*project["dependencies"], *extras) if not name.startswith("beaker_bridge[")]
    lines = [line for line in text("tests/lowest.txt").splitlines() if not line.startswith("#")]

    assert {name.replace(">=", "==") for name in required} == set(lines) - {"setuptools<81"}


def test_each_python_is_promised_and_tested(pyproject, pythons):
    """The Pythons of the classifiers are those of tox and of the workflow; the first is the lowest that installs."""
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini", encoding="utf-8")
    (section,) = (name for name in tox.sections() if name.startswith("testenv:py{"))
    in_ci = tox["tox"]["labels"].split("ci = ")[1].replace(" ", "").split(",")
    (matrix,) = re.findall(r"python: \[(.*)\]", text(".github/workflows/tests.yml"))

    assert pyproject["project"]["requires-python"] == f">={pythons[0]}"
    assert section == "testenv:py{" + ",".join(name.replace(".", "") for name in pythons) + "}"
    assert matrix == ", ".join(f'"{name}"' for name in pythons)
    # What CI runs the tests on beside the Python that it has: the oldest, and a newer one.
    assert {"lowest", "release"} <= set(in_ci)


def test_the_changelog_begins_with_this_version(pyproject):
    """The newest section of CHANGES.rst is the version of the package, with its date."""
    marker = pyproject["tool"]["towncrier"]["start_string"]
    before, marked, after = text("CHANGES.rst").partition(marker)

    assert marked, before
    assert re.match(rf"\s*{re.escape(pyproject['project']['version'])} \(\d{{4}}-\d\d-\d\d\)\n-+\n", after)


def test_an_action_is_pinned_to_a_commit():
    """Each action of a workflow is a full commit, with its version beside it, and leaves no credentials behind."""
    workflows = [text(f".github/workflows/{path.name}") for path in (CHECKOUT / ".github/workflows").iterdir()]
    uses = [line for workflow in workflows for line in workflow.splitlines() if "uses:" in line]

    assert len(uses) > 5
    assert all(re.fullmatch(r" +- uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in uses), uses
    for workflow in workflows:
        assert "\npermissions: {}\n" in workflow
        assert workflow.count("actions/checkout@") == workflow.count("persist-credentials: false")
        assert workflow.count("runs-on:") == workflow.count("timeout-minutes:")


def test_git_works_in_a_container():
    """Where `.ci/run` does everything in a container, what asks git finds the checkout, which is another user's."""
    jobs = re.split(r"\n  (?=\w[\w-]*:\n)", text(".github/workflows/tests.yml"))
    whole = [job for job in jobs if "\n    container:" in job and re.search(r"run: \.ci/run$", job, re.MULTILINE)]
    trusted = 'run: git config --system --add safe.directory "$GITHUB_WORKSPACE"'

    assert len(whole) == 1
    assert re.search(rf"checkout@.*{re.escape(trusted)}.*\.ci/run", whole[0], re.DOTALL)


def test_a_newcomers_job_skips_what_is_missing():
    """GitHub sets CI, where a missing server is a failure: the job of a newcomer, who has none of them, does not."""
    (job,) = re.findall(r"\n  ubuntu:\n(.*?)\n\n", text(".github/workflows/tests.yml"), re.DOTALL)

    assert "-m tox -qq\n" in job
    assert 'CI: ""' in job


def test_only_the_last_job_may_publish():
    """The right to publish is one job's, which builds nothing and runs no code of the checkout."""
    build, publish = text(".github/workflows/release.yml").split("\n  publish:\n")

    assert "id-token" not in build + text(".github/workflows/tests.yml") + text(".github/workflows/docs.yml")
    assert "id-token: write" in publish
    assert "run:" not in publish
    assert "checkout" not in publish
