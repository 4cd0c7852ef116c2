"""An application's start, its users' sessions, scripts and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import beaker_bridge
from beaker_bridge import (
    BeakerSessionFactoryConfig,
    Purged,
    PyramidSession,
    SessionMiddleware,
    UserSession,
    purge,
    revoke,
    revoke_one,
    session_factory_from_settings,
    set_cache_regions_from_settings,
    user_sessions,
)
from beaker_bridge.middleware import session_filter_app_factory
from beaker_bridge.scripting import SiteSessions, open_session, sessions
from beaker_bridge.testing import forget_regions, seed_session, with_session
from typing_extensions import assert_type
from views import Request


def start(config: Any, settings: dict[str, str]) -> SessionMiddleware:
    """Set up an application."""
    config.set_session_factory(session_factory_from_settings(settings))
    set_cache_regions_from_settings(settings)
    config.include(beaker_bridge.includeme)
    application = SessionMiddleware(config.make_wsgi_app(), type="file", data_dir="data")
    assert_type(session_filter_app_factory(application, {}, type="memory"), SessionMiddleware)
    return SessionMiddleware(application, {"session.type": "memory"}, environ_key="another")


def factories(request: Request) -> None:
    """A session factory makes sessions of requests."""
    factory = BeakerSessionFactoryConfig(type="memory", timeout=1200)
    session: PyramidSession = factory(request)
    session.save()
    if factory.options is not None:
        assert_type(factory.options.timeout, int | None)
    takes: Callable[[Any], PyramidSession] = session_factory_from_settings({})
    takes(request)


def called(middleware: SessionMiddleware) -> Iterable[bytes]:
    """The middleware is a WSGI application."""
    return middleware({}, lambda status, headers: None)


def users(request: Request) -> None:
    """A user's sessions are listed and ended."""
    found = user_sessions(request, "ann")
    assert_type(found, list[UserSession])
    for session in found:
        assert_type(session.handle, str)
        assert_type(session.is_current, bool)
    assert_type(revoke(request, 42, except_current=True), int)
    assert_type(revoke_one(request, found[0].handle), bool)


def purged(settings: dict[str, str]) -> int:
    """A purge says what it has done."""
    done = purge(settings, older_than=3600, dry_run=True, progress=lambda so_far: print(so_far.deleted))
    assert_type(done, Purged)
    return done.deleted + done.seen + done.unreadable + done.swept


def script(path: str) -> None:
    """A script opens a site's sessions."""
    with sessions(path) as site:
        assert_type(site, SiteSessions)
        assert_type(site.get("0" * 32), PyramidSession | None)
        with site.exclusive("0" * 32) as session:
            assert_type(session, PyramidSession)
        assert_type(site.user_sessions(42), list[UserSession])
        assert_type(site.revoke(42), int)
        assert_type(site.end("0" * 32), bool)


def tests(request: Request, test_app: Any) -> None:
    """The helpers for tests."""
    assert_type(with_session(request, {"user": "ann"}, cart=[]), Request)
    assert_type(open_session(request, "0" * 32), PyramidSession)
    seed_session(test_app, user="ann")
    forget_regions()
