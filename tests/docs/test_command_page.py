"""docs/reference/command.rst shows what the command writes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib import metadata

import pytest

from tests import command_page
from tests.docs import pages

# Processes.
pytestmark = [pytest.mark.once, pytest.mark.slow]

TEXT = command_page.PAGE.read_text(encoding="utf-8")
OUTPUTS = command_page.outputs(TEXT)
BLOCKS = pages.examples(TEXT)


def test_each_example_is_run():
    """No example escapes the tests."""
    assert TEXT.count(".. code-block:: console") == len(OUTPUTS)


def test_the_extra():
    """The command that installs is for an extra of this package."""
    _, _, requirement = shlex.split(BLOCKS["install"])
    name, _, extra = requirement.rstrip("]").partition("[")

    assert extra in metadata.metadata(name).get_all("Provides-Extra")


def test_a_deployment(tmp_path):
    """A site that is at risk is not restarted."""
    command_page.run("beaker-bridge check production.ini", tmp_path)
    functions = f"""
        beaker-bridge() {{ {shlex.quote(sys.executable)} -W ignore -m beaker_bridge.cli "$@"; }}
        systemctl() {{ echo restarted; }}
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        ["bash", "-c", functions + BLOCKS["deploy"]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )

    assert done.returncode == 1
    assert "4 risky" in done.stdout
    assert "restarted" not in done.stdout


def test_a_crontab(tmp_path):
    """The line's command purges."""
    line = BLOCKS["cron"].replace("/srv/mysite/bin/", "").replace("/srv/mysite/", "").partition(" >/dev/null")[0]
    *when, _user, program, subcommand, site, option = line.split()
    done = json.loads(command_page.run(f"{program} {subcommand} {site} {option}", tmp_path / "site"))

    assert len(when) == 5
    assert done["deleted"] == 2


def test_the_json_object(tmp_path):
    """What the page says of it is in it."""
    found = json.loads(command_page.run("beaker-bridge check production.ini --json", tmp_path / "site"))

    assert {"findings", "options", "regions", "tweens", "notes", "store"} < found.keys()
    assert all(each.keys() == {"level", "rule", "text"} for each in found["findings"])
    assert all(each.keys() == {"name", "value", "written", "default"} for each in found["options"].values())
    assert found["store"]["steps"]["write"] == "ok"


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output(command, tmp_path):
    """It is what the command writes: ``python -m tests.command_page`` writes it anew. Figures are another machine's."""
    written = command_page.run(command, tmp_path / "site")

    assert command_page.without_figures(written).strip() == command_page.without_figures(OUTPUTS[command]).strip()
    assert all(len(line) <= 80 for line in written.splitlines())
