"""Every example in docs/howto/cache.rst is run."""

from __future__ import annotations

import importlib
import sys

import beaker.cache
import pytest
from beaker.cache import cache_region
from paste.deploy import loadapp

from beaker_bridge import set_cache_regions_from_settings
from tests.docs import pages
from tests.region_cases import Counted, no_region_left

PAGE = pages.read("howto/cache")
BLOCKS = pages.examples(PAGE)


@pytest.fixture(autouse=True)
def _no_region_left():
    with no_region_left():
        yield


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads the page's application from one of its ``.ini`` examples."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "myapp", raising=False)
    (tmp_path / "myapp.py").write_text(BLOCKS["application"])
    importlib.invalidate_caches()

    def make(ini):
        (tmp_path / "site.ini").write_text(BLOCKS[ini])
        return loadapp(f"config:{tmp_path / 'site.ini'}", name="myapp")

    yield make
    del sys.modules["myapp"]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a Python example with names, and returns the names after it."""

    def run(block, **names):
        # Beaker asks for the file that a function is from.
        file = tmp_path / f"{block}.py"
        file.write_text(BLOCKS[block])
        exec(compile(BLOCKS[block], file, "exec"), names)
        return names

    return run


def test_the_seeds_example(load):
    """The first example has the seed's four regions, and sets them."""
    load("regions")

    assert {name: (region["type"], region["expire"]) for name, region in beaker.cache.cache_regions.items()} == {
        "default_term": ("memory", 300),
        "second": ("memory", 1),
        "short_term": ("memory", 60),
        "long_term": ("memory", 3600),
    }


def test_a_cached_function(load, run):
    """The cached function is called once for the same arguments, and again when it is invalidated."""
    load("regions")
    find = Counted()
    names = run("use", find=lambda term: [find(term)] * 9)
    first = names["search"]("tea", 3), names["search"]("tea", 3), names["search"]("tea", 4)
    names["forget"]("tea", 3)

    assert first == ([1] * 3, [1] * 3, [2] * 4)
    assert (names["search"]("tea", 3), names["search"]("tea", 4)) == ([3] * 3, [2] * 4)


def test_the_backends(load, tmp_path):
    """Each region of the second example is on its backend, with what it inherits and what it overrides."""
    load("backends")
    found = beaker.cache.cache_regions

    assert {name: (region["type"], region["expire"]) for name, region in found.items()} == {
        "pages": ("ext:redis", 300),
        "reports": ("ext:database", 3600),
        "prices": ("file", 300),
    }
    assert found["pages"]["url"] == "redis://localhost:6379/1"
    assert found["reports"]["sa_opts"] == {"sa.pool_size": "3"}
    assert found["prices"]["data_dir"] == f"{tmp_path}/data/cache"
    assert found["reports"]["type"].region.options.lock_timeout == 120
    assert found["prices"]["type"].region.options.store_error == "raise"


def test_a_tuple_of_arguments(load, run):
    """The function that takes one tuple has two values for the arguments that would be one otherwise."""
    load("regions")
    look_up = Counted()
    names = run("tuple", cache_region=cache_region, look_up=look_up)

    assert look_up.calls == [("x y", "z"), ("x", "y z")]
    assert names["price"](("x y", "z")) == 1


def test_the_empty_texts_and_types_of_the_page(caplog):
    """What the table in docs/reference/regions.rst calls a warning is one."""
    set_cache_regions_from_settings(
        {
            "cache.regions": "one, one",
            "cache.type": "file",
            "cache.two.expire": "5",
            "cache.file_dir": "",
            "cache.urls": "redis://host",
            "cache.lock_dir": "one",
            "beaker.cache.lock_dir": "other",
            "cache.flavour": "mild",
        }
    )

    assert len(caplog.messages) == 6


def test_what_the_page_says_of_beakers_decorator(load):
    """Beaker's decorator does what the page says of it: these calls are one value each."""
    load("regions")
    calls = Counted()

    @cache_region("short_term")
    def compute(*arguments, **named):
        return calls(*arguments, *named)

    pairs = [
        (compute("x y", "z"), compute("x", "y z")),
        (compute(1), compute("1")),
        (compute(name="value"), compute("name:value")),
        (compute("é"), compute(r"\xe9")),
    ]

    assert pairs == [(1, 1), (2, 2), (3, 3), (4, 4)]
