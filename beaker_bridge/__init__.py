"""Beaker sessions and cache regions for Pyramid."""

from __future__ import annotations

from typing import Any

from beaker_bridge.events import (
    BreakerClosed,
    BreakerOpened,
    SessionEvent,
    SessionExpired,
    SessionInvalidated,
    SessionMerged,
    SessionNotSaved,
    SessionRevoked,
    StoreEvent,
    StoreFailed,
)
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    CacheStoreError,
    DamagedRecordError,
    SessionAttributeError,
    SessionConflictError,
    SessionLimitError,
    SessionNotFoundError,
    SessionStoreError,
    SessionTooLargeError,
    SessionTooLateError,
    SessionValueError,
    SettingsError,
    SiteError,
)
from beaker_bridge.middleware import SessionMiddleware
from beaker_bridge.pyramid.csrf import use_session_csrf_policy
from beaker_bridge.pyramid.factory import BeakerSessionFactoryConfig, session_factory_from_settings
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.pyramid.purge import purge
from beaker_bridge.pyramid.tween import NAME, OVER, UNDER, session_tween_factory, set_up_at_start
from beaker_bridge.pyramid.users import revoke, revoke_one, user_sessions
from beaker_bridge.regions.define import define_regions, set_cache_regions_from_settings
from beaker_bridge.session.login import UserSession
from beaker_bridge.session.purge import Purged

__all__ = [
    "BeakerBridgeError",
    "BeakerSessionFactoryConfig",
    "BreakerClosed",
    "BreakerOpened",
    "CacheStoreError",
    "DamagedRecordError",
    "Purged",
    "PyramidSession",
    "SessionAttributeError",
    "SessionConflictError",
    "SessionEvent",
    "SessionExpired",
    "SessionInvalidated",
    "SessionLimitError",
    "SessionMerged",
    "SessionMiddleware",
    "SessionNotFoundError",
    "SessionNotSaved",
    "SessionRevoked",
    "SessionStoreError",
    "SessionTooLargeError",
    "SessionTooLateError",
    "SessionValueError",
    "SettingsError",
    "SiteError",
    "StoreEvent",
    "StoreFailed",
    "UserSession",
    "includeme",
    "purge",
    "revoke",
    "revoke_one",
    "session_factory_from_settings",
    "session_tween_factory",
    "set_cache_regions_from_settings",
    "user_sessions",
]


def includeme(config: Any) -> None:
    """Set up Beaker sessions: ``config.include('beaker_bridge')`` or ``pyramid.includes``.

    - ``request.session`` is the session of a filter in the pipeline; else one of the settings under
      ``session.`` or ``beaker.session.``. A session factory that the application itself sets wins.
    - The tween ``beaker_bridge.session_tween_factory`` is added: over the exception views and
      pyramid_tm, under the debug toolbar.
    - An explicit ``pyramid.tweens`` without that tween, or with it too low, stops the start.
    - Subrequests share the session of the request that makes them.
    - A form that is refused for its CSRF token begins no session. An application's own CSRF storage policy wins.
    - The session's options are an introspectable, without secrets.
    - Beaker's cache regions are set from the settings under ``cache.`` or ``beaker.cache.``; each is an
      introspectable, without passwords.

    Raises:
        SettingsError: one or more options are wrong.
    """
    factory = session_factory_from_settings(config.get_settings())
    config.set_session_factory(factory)
    config.add_tween(NAME, over=OVER, under=UNDER)
    set_up_at_start(config.registry)
    use_session_csrf_policy(config.registry)
    introspectable = config.introspectable("beaker_bridge", "session", "session options", "session options")
    introspectable["options"] = factory.options.shown() if factory.options else None
    config.action(("beaker_bridge", "session"), introspectables=(introspectable,))
    for region in define_regions(config.get_settings(), config.root_package.__name__):
        introspectable = config.introspectable(
            "beaker_bridge cache regions", region.name, f"cache region {region.name}", "cache region"
        )
        introspectable.update(region.shown(), name=region.name)
        config.action(("beaker_bridge", "cache region", region.name), introspectables=(introspectable,))
