"""Every example in README.rst is run."""

import importlib
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from paste.deploy import loadapp
from webtest import TestApp

from tests.docs import pages
from tests.docs.sites import Started, words_of
from tests.live_site import Site, Visitor
from tests.servers import free_port
from tests.slow.test_every_end import SCHEDULES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
BLOCKS = {
    name: textwrap.dedent(body)
    for name, body in re.findall(r"\.\. code-block:: \w+\n   :name: (\w+)\n\n((?:   .*\n|\n)+)", README)
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that writes a package ``myapp`` and an ``.ini`` file, and loads the application."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(ini, **modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "myapp"]:
            del sys.modules[name]
        (tmp_path / "myapp").mkdir()
        for name, block in modules.items():
            (tmp_path / "myapp" / f"{name}.py").write_text(BLOCKS[block])
        importlib.invalidate_caches()
        (tmp_path / "site.ini").write_text(BLOCKS[ini])
        return TestApp(loadapp(f"config:{tmp_path / 'site.ini'}"))

    return make


def test_every_block_has_a_name():
    """No example escapes the tests."""
    assert README.count(".. code-block::") == len(BLOCKS)


def test_the_readme_is_sound():
    """README.rst is reStructuredText without a fault."""
    tree = publish_doctree(README, settings_overrides={"report_level": 5, "syntax_highlight": "none"})

    assert [node.astext() for node in tree.findall(nodes.system_message)] == []


def test_the_figures():
    """Each figure in the table is that of the test or the report that the row names."""
    outages = re.findall(r"^[a-z ]+: .*?  (?:\d+ +){3}(\d+) ", pages.read("explanation/reliability"), re.MULTILINE)
    report = json.loads((pages.DOCS / "explanation" / "performance.json").read_text(encoding="utf-8"))
    medians = {(row["contestant"], row["backend"], row["operation"]): row["us"]["median"] for row in report["costs"]}
    speeds = "; ".join(
        f"{operation}: "
        + ", ".join(
            f"{name} {medians['beaker_bridge', backend, operation] / medians['pyramid_beaker', backend, operation]:.2f}"
            for name, backend in (("Redis", "redis"), ("PostgreSQL", "postgresql"), ("files", "file"))
        )
        for operation in ("read", "write")
    )

    assert f"all of {max(SCHEDULES.values()):,} schedules" in README
    assert f"0 logouts in {outages.count('0')} of {len(outages)} outages" in README
    assert speeds in README


def test_the_pipeline(load, tmp_path):
    """The recommended installation counts visits, in files under ``data``."""
    app = load("pipeline", __init__="view")

    assert [app.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
    assert list(app.cookies) == ["myapp"]
    assert len(list((tmp_path / "data/sessions/container_file").rglob("*.cache"))) == 1


@pytest.mark.once
@pytest.mark.slow
def test_the_site_is_served(tmp_path):
    """The two files make a site, and the command beside them starts it."""
    port = free_port()
    (tmp_path / "site.ini").write_text(BLOCKS["pipeline"].replace("6543", str(port)))
    (tmp_path / "myapp.py").write_text(BLOCKS["view"])
    path, _, command = BLOCKS["serve"].strip().partition(" ")
    with Started(tmp_path, words_of(command), port):
        visitor = Visitor(Site(f"http://localhost:{port}", None))

        assert path == "PYTHONPATH=."
        assert [visitor.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]

    assert sum(1 for name in ("pipeline", "view") for line in BLOCKS[name].split("\n") if line) <= 30


def test_ci_calls_the_command_for_the_tests():
    """``.ci/run`` runs the very command that the README prints."""
    assert BLOCKS["tests"].strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
