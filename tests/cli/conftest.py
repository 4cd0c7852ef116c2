"""A folder for the files of a site, whose module can be imported."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from tests.cli.sites import Folder


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys):
    """Return a folder for a site."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clisite", raising=False)
    made = Folder(tmp_path)
    made.capsys = capsys
    with warnings.catch_warnings():
        yield made
    sys.modules.pop("clisite", None)
    assert logging.getLogger("beaker_bridge").propagate
