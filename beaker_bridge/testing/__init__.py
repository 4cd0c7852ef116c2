"""For the tests of applications."""

from __future__ import annotations

from beaker_bridge.regions.define import forget_regions
from beaker_bridge.testing.sessions import seed_session, with_session

__all__ = ["forget_regions", "seed_session", "with_session"]
