"""For the tests of applications."""

from __future__ import annotations

from beaker_bridge.regions import forget_regions

__all__ = ["forget_regions"]
