"""A filter's configuration, for what passes no filter: a script, a shell, a request beside the pipeline."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyramid.config import global_registries
from pyramid.router import Router

from beaker_bridge.environ import ENVIRON_KEY
from beaker_bridge.profile import SessionProfile

#: The attribute of a router's registry.
_RECORDED = "beaker_bridge_filter"
#: Where middleware has the application that it wraps; the last two hold several, as Paste's.
_WRAPPED = ("app", "application", "wrap_app", "applications", "apps")
#: How many objects are looked at: those that have each attribute would never end.
_MOST = 100


class _RecordedFilter(NamedTuple):
    profile: SessionProfile
    #: Whether the filter was seen to wrap the router; else that was the last one made.
    wraps_router: bool


def record_filter(app: Any, profile: SessionProfile) -> None:
    """Record a filter's configuration in the registry of each router that it wraps.

    Args:
        app: the WSGI application that the filter wraps.
        profile: its configuration.
    """
    looked_at: list[Any] = []
    pending = [app]
    found = False
    while pending and len(looked_at) < _MOST:
        app = pending.pop()
        if any(app is known for known in looked_at):
            continue
        looked_at.append(app)
        # The session of a filter under this one is the one that a request gets.
        nearer = getattr(app, "environ_key", None) == ENVIRON_KEY
        if isinstance(app, Router):
            setattr(app.registry, _RECORDED, _RecordedFilter(profile, wraps_router=True))
        elif isinstance(app, (list, tuple)):
            pending.extend(app)
        elif not nearer:
            pending.extend(wrapped for name in _WRAPPED if (wrapped := getattr(app, name, None)) is not None)
        found = found or nearer or isinstance(app, Router)
    registry = global_registries.last
    if not found and registry is not None and not hasattr(registry, _RECORDED):
        setattr(registry, _RECORDED, _RecordedFilter(profile, wraps_router=False))


def recorded_profile(registry: Any, own: SessionProfile | None) -> SessionProfile | None:
    """Return the configuration that a request without a session is served with.

    Args:
        registry: the request's registry, or None.
        own: the configuration of the application's settings, if there is one.
    """
    recorded = getattr(registry, _RECORDED, None)
    if isinstance(recorded, _RecordedFilter) and (recorded.wraps_router or own is None):
        return recorded.profile
    return own
