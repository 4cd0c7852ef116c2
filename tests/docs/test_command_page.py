"""docs/reference/command.rst shows what the command writes."""

from __future__ import annotations

import json

import pytest

from tests import command_page

# Processes.
pytestmark = [pytest.mark.once, pytest.mark.slow]

TEXT = command_page.PAGE.read_text(encoding="utf-8")
OUTPUTS = command_page.outputs(TEXT)


def test_each_example_is_run():
    """No example escapes the tests."""
    assert TEXT.count(".. code-block:: console") == len(OUTPUTS)


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
