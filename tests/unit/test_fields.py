"""The reserved keys of a record, and what their values may be."""

from types import SimpleNamespace

import pytest
from beaker.util import JsonSerializer as BeakerJSONSerializer

from beaker_bridge.exceptions import DamagedRecordError
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.fields import ACCESSED, CREATED, EXPIRY, is_expired, is_stub
from beaker_bridge.record.serializers import JSONSerializer

NO_TIMES = ["yesterday", None, [1], float("nan"), float("inf"), -float("inf"), 10**400]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("_creation_time", value) for value in NO_TIMES),
        *(("_accessed_time", value) for value in NO_TIMES),
        *(("_bb_moved", value) for value in NO_TIMES),
        *(("_bb_expiry", value) for value in (*NO_TIMES, 0, -1, True, 1.5, 1 << 31)),
        *((key, value) for key in ("_domain", "_path") for value in (5, [], {"a": 1}, True)),
    ],
)
def test_what_sessions_compute_with_is_checked(key, value):
    """A record whose own time, lifetime or path is none is damaged: nobody computes with it."""
    codec = RecordCodec(JSONSerializer())

    with pytest.raises(DamagedRecordError, match=rf"session: its {key} is none$"):
        codec.decode(codec.seal(BeakerJSONSerializer().dumps({"a": 1, key: value})))


def test_what_a_session_holds_beside_the_applications_keys():
    """A record with the times, the lifetime, the domain and the path of a session is read, as Beaker writes them."""
    codec = RecordCodec(JSONSerializer())
    record = {
        "_creation_time": 1_700_000_000.5,
        "_accessed_time": 1_700_000_000,
        "_bb_moved": 0,
        "_bb_expiry": 0x7FFFFFFF,
        "_domain": None,
        "_path": "/",
        "_id": "a" * 32,
        "_expires": None,
    }

    assert codec.decode(codec.seal(codec.serialize(record))) == (record, False)
    assert codec.decode(codec.seal(codec.serialize({"_domain": ".e.org"}))) == ({"_domain": ".e.org"}, False)


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("record", "options", "expired"),
    [
        ({}, {"timeout": 10}, False),
        ({ACCESSED: NOW - 10}, {"timeout": 10}, False),
        ({ACCESSED: NOW - 10.5}, {"timeout": 10}, True),
        ({ACCESSED: NOW - 1e6}, {}, False),
        ({ACCESSED: NOW - 10.5, EXPIRY: 20}, {"timeout": 10}, False),
        ({ACCESSED: NOW - 20.5, EXPIRY: 20}, {}, True),
        ({ACCESSED: NOW, CREATED: NOW - 100}, {"timeout": 10, "absolute_timeout": 100}, False),
        ({ACCESSED: NOW, CREATED: NOW - 100.5}, {"timeout": 10, "absolute_timeout": 100}, True),
    ],
)
def test_when_a_session_has_expired(record, options, expired):
    """A session expires after its idle timeout, its own before the option's, or at the absolute timeout."""
    options = SimpleNamespace(**{"timeout": None, "absolute_timeout": None, **options})

    assert is_expired(record, options, NOW) is expired


@pytest.mark.parametrize(
    ("record", "stub"),
    [({}, True), ({"_domain": None, "_path": "/"}, True), ({"_path": "/", "a": 1}, False), ({CREATED: NOW}, False)],
)
def test_what_beakers_delete_leaves(record, stub):
    """A domain and a path alone are no session."""
    assert is_stub(record) is stub
