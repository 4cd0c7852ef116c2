"""Every example in docs/howto/testing.rst is run."""

from __future__ import annotations

import re

import pytest
from beaker.cache import cache_regions
from pyramid import testing
from webtest import AppError

from beaker_bridge import set_cache_regions_from_settings
from beaker_bridge.testing import with_session
from tests.docs import pages

# The examples of a page: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian")]

PAGE = pages.read("howto/testing")
BLOCKS = pages.examples(PAGE)
VIEW = pages.examples(pages.read("howto/pipeline"))["view"]


@pytest.fixture
def run(scratch):
    """Return a function that runs an example beside the site of another page, and returns its names."""

    def run(block, site=VIEW):
        scratch.write(__init__=site)
        names = {}
        exec(BLOCKS[block], names)
        return names

    return run


@pytest.mark.parametrize("block", ["unittest", "seeding", "clock"])
def test_the_tests(block, run):
    """Each test passes as it is printed."""
    (test,) = [value for name, value in run(block).items() if name.startswith("test_")]

    assert test() is None


@pytest.mark.parametrize(
    ("block", "wrong"), [("unittest", "visits=40"), ("seeding", "visits=40"), ("clock", "now += 100")]
)
def test_the_tests_can_fail(block, wrong, run, monkeypatch):
    """Each test fails where the site does something else."""
    monkeypatch.setitem(BLOCKS, block, re.sub(r"visits=41|now \+= 1201", wrong, BLOCKS[block]))
    (test,) = [value for name, value in run(block).items() if name.startswith("test_")]

    with pytest.raises(AssertionError):
        test()


def test_a_functional_test(run):
    """The functional test passes as it is printed."""
    run("functional")


def test_an_application_with_settings(scratch):
    """An application whose options are in its settings passes as the page says, without being wrapped."""
    scratch.write(__init__=VIEW)
    (call,) = re.findall(r"``(TestApp\(main.*?)``", PAGE, re.DOTALL)
    names = {}
    exec("from webtest import TestApp\nfrom myapp import main\napp = " + call, names)

    assert [names["app"].get("/").text for _ in range(2)] == ["visit 1", "visit 2"]


def test_options_of_ones_own(run):
    """The session has the options that the page gives it."""
    request = run("options")["request"]
    request.session["anything"] = frozenset({1})
    request.session.persist()

    assert request.session["anything"] == {1}


def test_a_csrf_token(run):
    """A form is accepted with the constant token, and not with another one."""
    site = VIEW.replace(
        '    config.add_route("home", "/")\n',
        '    config.add_route("save", "/save")\n'
        '    config.add_view(lambda request: request.response, route_name="save", require_csrf=True)\n',
    ).replace("    config.scan(__name__)\n", "")
    app = run("csrf", site)["app"]

    with pytest.raises(AppError, match="400"):
        app.post("/save", {"csrf_token": "another"})


def test_what_a_dummy_session_lacks():
    """What the page says that Pyramid's dummy lacks, it lacks; and the real one has it."""
    (lacking,) = re.findall(r"That lacks\s+(.*?);", PAGE, re.DOTALL)
    names = re.findall(r"``(\w+)", lacking)
    real = with_session(testing.DummyRequest()).session

    assert len(names) == 9
    assert [name for name in names if hasattr(testing.DummySession(), name) or not hasattr(real, name)] == []


def test_the_regions_are_forgotten(run):
    """The fixture forgets the regions when a test has ended."""
    names = run("forgetting")
    set_cache_regions_from_settings({"cache.regions": "word", "cache.word.type": "memory"})
    for _ in names["no_regions"].__wrapped__():
        assert "word" in cache_regions

    assert "word" not in cache_regions
