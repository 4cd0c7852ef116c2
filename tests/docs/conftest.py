"""Fixtures for the examples of pages."""

from __future__ import annotations

import pytest

from tests.docs.sites import Scratch


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return a folder for a site that is made of examples."""
    monkeypatch.syspath_prepend(tmp_path)
    made = Scratch(tmp_path)
    yield made
    made.close()
