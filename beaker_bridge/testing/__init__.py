"""Helpers for the tests of applications. The package itself imports none of them."""

from __future__ import annotations

from beaker_bridge.regions.define import forget_regions
from beaker_bridge.testing.sessions import seed_session, with_session

__all__ = ["forget_regions", "seed_session", "with_session"]
