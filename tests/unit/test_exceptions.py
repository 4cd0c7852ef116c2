"""The family of exceptions: each carries data, not only text."""

import copy
import pickle

import pytest
from beaker.exceptions import BeakerException

from beaker_bridge import exceptions
from beaker_bridge.exceptions import BeakerBridgeError, SessionStoreError, SettingsError

FAMILY = [
    value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, BeakerBridgeError)
]


@pytest.mark.parametrize("kind", FAMILY)
def test_one_root(kind):
    """Whoever catches ``BeakerBridgeError`` catches whatever this package raises on purpose."""
    with pytest.raises(BeakerBridgeError, match=r"^a sentence$") as caught:
        raise kind("a sentence", name="key", value=3)

    assert (caught.value.name, caught.value.value, caught.value.original) == ("key", 3, None)


@pytest.mark.parametrize("kind", FAMILY)
def test_beakers_root(kind):
    """Code that catches Beaker's own exceptions catches ours."""
    with pytest.raises(BeakerException, match=r"^a sentence$"):
        raise kind("a sentence")


def test_an_error_carries_its_cause():
    """The error of a store's client is at hand, with its own data."""
    original = ConnectionRefusedError(111, "refused")
    error = SessionStoreError("the store cannot be reached", name="ext:redis", original=original)

    assert error.original is original
    assert error.name == "ext:redis"
    assert error.value is None


def test_wrong_settings_are_a_value_error():
    """Code that knows only Python's own exceptions catches wrong settings."""
    with pytest.raises(ValueError, match="wrong"):
        raise SettingsError("wrong")


def test_one_fault_is_itself():
    """One fault is told as it is, and is all of the faults."""
    fault = SettingsError("timeout must be a number, got 'x'", name="timeout", value="x")

    assert SettingsError.of([fault]) is fault
    assert fault.errors == (fault,)


def test_all_faults_are_told_at_once():
    """Several faults are one error, which tells each of them and holds each with its data."""
    faults = [SettingsError("first", name="a", value=1), SettingsError("second", name="b", value=2)]
    error = SettingsError.of(faults)

    assert str(error) == "2 options are wrong:\n  first\n  second"
    assert error.errors == tuple(faults)
    assert error.name is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_can_be_copied(kind, copied):
    """An error crosses to another process (a task queue, a test runner) with its data."""
    error = copied(kind("a sentence", name="key", value=3))

    assert type(error) is kind
    assert (str(error), error.name, error.value) == ("a sentence", "key", 3)
