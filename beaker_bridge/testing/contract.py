"""The contract of every store as a suite of tests, for pytest. Importing it needs pytest.

A store's test class derives from :class:`StoreContract` and overrides one fixture, ``options``::

    import pytest
    from beaker_bridge.testing.contract import StoreContract


    class TestMyStore(StoreContract):
        @pytest.fixture
        def options(self, tmp_path):
            return {"type": "mystore", "path": str(tmp_path / "sessions.db")}

The stores of this package run the same suite.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "beaker_bridge.testing.contract needs pytest: pip install pytest", name="pytest"
    ) from error

# Before the suite is imported, so that a failed assert shows its values.
pytest.register_assert_rewrite("beaker_bridge.testing._contract")

from beaker_bridge.testing._contract import (  # noqa: E402 -- as above
    KIB,
    PATIENCE,
    BeakerStoreContract,
    StoreContract,
    text,
    together,
)

__all__ = ["KIB", "PATIENCE", "BeakerStoreContract", "StoreContract", "text", "together"]
