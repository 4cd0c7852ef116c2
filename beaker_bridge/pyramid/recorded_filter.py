"""A filter's configuration, for requests that pass no filter: those of a script, a shell, or beside the pipeline."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyramid.config import global_registries
from pyramid.router import Router

from beaker_bridge.request.exchange import ENVIRON_KEY
from beaker_bridge.session.config import SessionConfig

#: The attribute of a router's registry that holds it.
_RECORDED = "beaker_bridge_filter"
#: Attributes in which middleware has the application that it wraps; the last two hold several, as in Paste's.
_WRAPPED = ("app", "application", "wrap_app", "applications", "apps")


class _RecordedFilter(NamedTuple):
    config: SessionConfig
    #: Whether the filter was seen to wrap the router; else the router was the last one made.
    wraps_router: bool


def record_filter(app: Any, config: SessionConfig) -> None:
    """Record a filter's configuration in the registry of each router that it wraps.

    Args:
        app: the WSGI application that the filter wraps.
        config: its configuration.
    """
    found = False
    for wrapped in wrapped_applications(app):
        if isinstance(wrapped, Router):
            setattr(wrapped.registry, _RECORDED, _RecordedFilter(config, wraps_router=True))
        found = found or isinstance(wrapped, Router) or _makes_session(wrapped)
    registry = global_registries.last
    if not found and registry is not None and not hasattr(registry, _RECORDED):
        setattr(registry, _RECORDED, _RecordedFilter(config, wraps_router=False))


def wrapped_applications(app: Any) -> list[Any]:
    """Return a WSGI application, and those that it is seen to wrap."""
    found: list[Any] = []
    pending = [app]
    while pending:
        app = pending.pop()
        if isinstance(app, (list, tuple)):
            pending.extend(app)
        elif all(app is not known for known in found):
            found.append(app)
            if not isinstance(app, Router) and not _makes_session(app):
                # Avoid getattr(): a property may raise, and some objects have every attribute.
                attributes = getattr(app, "__dict__", {})
                pending.extend(attributes[name] for name in _WRAPPED if name in attributes)
    return found


def _makes_session(app: Any) -> bool:
    """Say whether an application is a session filter itself: of two, the inner one makes a request's session."""
    return getattr(app, "__dict__", {}).get("environ_key") == ENVIRON_KEY


def recorded_config(registry: Any, own: SessionConfig | None) -> SessionConfig | None:
    """Return the configuration that a request without a session is served with.

    Args:
        registry: the request's registry, or None.
        own: the configuration of the application's settings, if there is one.
    """
    recorded = getattr(registry, _RECORDED, None)
    if isinstance(recorded, _RecordedFilter) and (recorded.wraps_router or own is None):
        return recorded.config
    return own
