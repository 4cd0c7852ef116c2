"""A store of another distribution, and its proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import DIRECTORY
from beaker_bridge.stores.base import Record, Store, Swap, lock_timed_out, unreachable
from beaker_bridge.testing.contract import StoreContract
from typing_extensions import assert_type


class MyStore(Store):
    """A store."""

    kind = "mine"
    own_options = {"folder": DIRECTORY}  # noqa: RUF012 -- typed by the base class
    lists = False

    def __init__(self, options: SessionOptions) -> None:
        self._folder: str = options.backend_arguments["folder"]
        assert_type(options.store_timeout, float)
        assert_type(options.label("folder"), str)

    def read(self, session_id: str) -> Record | None:
        try:
            return Record(Path(self._folder, session_id).read_bytes())
        except OSError as error:
            raise unreachable(self.kind, error) from error

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        return Swap(made=False, found=self.read(session_id))

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[Callable[[], float] | None]:
        if timeout < 1:
            raise lock_timed_out(self.kind, timeout)
        yield None


class TestMyStore(StoreContract):
    """Its proof."""

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        """Return its options."""
        return {"type": "mine", "folder": str(tmp_path)}
