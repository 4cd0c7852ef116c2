"""What docs/explanation/performance.rst says: sound, and drawn from the figures beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.plot import DRAWING, INSTRUCTIONS, PAGE, REPORT, drawing, with_instructions

pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report():
    return json.loads((CHECKOUT / REPORT).read_text(encoding="utf-8"))


def test_the_drawing_shows_the_figures(report):
    """The drawing is what ``tox -e bench-plot`` makes of the figures."""
    assert drawing(report) == (CHECKOUT / DRAWING).read_text(encoding="utf-8")


def test_the_page_shows_the_instructions():
    """The table of instructions is what ``tox -e bench-plot`` makes of the figures, with each goal."""
    report = json.loads((CHECKOUT / INSTRUCTIONS).read_text(encoding="utf-8"))
    page = (CHECKOUT / PAGE).read_text(encoding="utf-8")

    assert with_instructions(page, report) == page
    assert len(report["targets"]) == 12


@pytest.mark.parametrize("operation", ["read", "write"])
def test_the_tables_tell_the_figures(report, operation):
    """Each median of the figures stands in the document's tables, rounded."""
    page = (CHECKOUT / "docs" / "explanation" / "performance.rst").read_text(encoding="utf-8")
    medians = [row["us"]["median"] for row in report["costs"] if row["operation"] == operation]
    shown = [f"{median:.1f}" if median < 100 else f"{median:.0f}" for median in medians]

    assert [text for text in shown if f" {text}" not in page] == []
