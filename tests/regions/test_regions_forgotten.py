"""Cache regions that a test forgets, so that the next one starts without them."""

from __future__ import annotations

import beaker.cache
import pytest
from beaker.cache import CacheManager, cache_region
from beaker.exceptions import BeakerException

from beaker_bridge import set_cache_regions_from_settings
from beaker_bridge.options.table import RegionOptions
from beaker_bridge.regions.servers import open_servers
from beaker_bridge.testing import forget_regions
from tests.region_cases import Counted, no_region_left

ONE = {"cache.regions": "one"}
calls = Counted()


@pytest.fixture(autouse=True)
def _no_region_left():
    calls.calls.clear()
    with no_region_left():
        yield


@cache_region("one", "word")
def compute(*arguments):
    """Return how often this was called: a function of a module, which each test of an application finds decorated."""
    return calls(*arguments)


def test_a_function_finds_the_regions_of_the_next_test(tmp_path):
    """A function that was called already goes by the region that is defined next, with all of its options."""
    set_cache_regions_from_settings(ONE)
    first = compute(), compute()
    forget_regions()
    set_cache_regions_from_settings({**ONE, "cache.type": "file", "cache.data_dir": str(tmp_path)})
    in_files = compute(), compute()
    forget_regions()
    set_cache_regions_from_settings({**ONE, "cache.enabled": "false"})
    switched_off = compute(), compute()

    assert (first, in_files, switched_off) == ((1, 1), (2, 2), (3, 4))
    assert list(tmp_path.rglob("*.cache"))


def test_a_function_whose_region_is_not_defined_again():
    """After that a function says what it says before any region is set."""
    set_cache_regions_from_settings(ONE)
    compute()
    forget_regions()

    with pytest.raises(BeakerException, match="Cache region not configured: one"):
        compute()


def test_no_value_in_memory_is_left():
    """Values in memory are gone, also for who holds a cache of Beaker's in his hand."""
    set_cache_regions_from_settings(ONE)
    held = CacheManager(cache_regions=dict(beaker.cache.cache_regions)).get_cache_region("namespace", "one")
    held["a"] = 1
    forget_regions()
    set_cache_regions_from_settings(ONE)
    again = CacheManager(cache_regions=dict(beaker.cache.cache_regions)).get_cache_region("namespace", "one")

    assert "a" not in held
    assert "a" not in again


def test_what_was_warned_of_once_is_warned_of_again(caplog):
    """Each test sees the warnings of its own settings."""
    for _ in range(2):
        set_cache_regions_from_settings({**ONE, "cache.flavour": "mild"})
        forget_regions()

    assert len(caplog.messages) == 2


def test_a_region_that_differs_is_no_surprise_to_the_next_test(caplog):
    """A region of that name with other options is not defined twice: the first one is gone."""
    set_cache_regions_from_settings(ONE)
    forget_regions()
    set_cache_regions_from_settings({**ONE, "cache.expire": "5"})

    assert not caplog.messages


def test_what_others_have_is_left_alone():
    """Regions and caches that are none of ours stay."""
    beaker.cache.cache_regions["theirs"] = {"type": "memory", "expire": 60}
    cache = CacheManager().get_cache("region.theirs")
    cache["a"] = 1
    set_cache_regions_from_settings(ONE)
    forget_regions()

    assert list(beaker.cache.cache_regions) == ["theirs"]
    assert CacheManager().get_cache("region.theirs") is cache
    assert cache["a"] == 1


def test_connections_are_closed(redis_server):
    """Connections that regions had to servers are closed; the next region opens its own."""
    options = RegionOptions(region="one", type="ext:redis")
    opened = [open_servers(options, {"url": redis_server.url}) for _ in range(2)]
    forget_regions()

    assert opened[0][0] is opened[1][0]
    assert open_servers(options, {"url": redis_server.url})[0] is not opened[0][0]


def test_there_is_nothing_to_forget():
    """Where no region is defined, nothing happens."""
    forget_regions()

    assert beaker.cache.cache_regions == {}
