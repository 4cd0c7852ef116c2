"""The tween: decides whether the session is kept, and commits it while exception views can answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IApplicationCreated, ITweens
from pyramid.threadlocal import manager
from pyramid.tweens import EXCVIEW, INGRESS, excview_tween_factory

from beaker_bridge.exceptions import BeakerBridgeError, SettingsError
from beaker_bridge.options.reader import prefixed, read_options
from beaker_bridge.pyramid.completion import Completion, discard_if_failing, is_kept, remember_response
from beaker_bridge.pyramid.factory import source_of
from beaker_bridge.pyramid.recorded_filter import recorded_config
from beaker_bridge.pyramid.source import SessionSource
from beaker_bridge.pyramid.subrequest import owner_of, share_sessions
from beaker_bridge.request.attach import attach, begin_exchange
from beaker_bridge.request.exchange import ENVIRON_KEY, FACTORY, MIDDLEWARE, Exchange, SessionObject

#: The tween's name in ``pyramid.tweens``.
NAME = "beaker_bridge.session_tween_factory"
TM = "pyramid_tm.tm_tween_factory"
#: The tween's place in an implicit order: over pyramid_tm, to commit when the database transaction has ended;
#: under the toolbar, which makes an unhandled error look handled.
OVER = (EXCVIEW, TM)
UNDER = ("pyramid_debugtoolbar.toolbar_tween_factory", INGRESS)


def session_tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Return the tween that ends a request's session.

    - An exception that no view handles discards the session.
    - An exception that a view has answered discards it if ``cookie_on_exception`` says so, or if pyramid_retry will
      repeat the attempt.
    - Otherwise the session is committed. A failure discards it and goes to the exception views.
    - A subrequest that shares the session of another request ends nothing of it.
    """
    # Read only the policy: the session factory has checked the other options.
    policy = prefixed(registry.settings or {}).get("cookie_on_exception")
    fallback = read_options({"cookie_on_exception": policy}, quiet=True) if policy else None
    source = source_of(registry)
    may_discard = fallback is not None and fallback.cookie_on_exception is not True

    def follow_failure(request: Any) -> None:
        discard_if_failing(request, fallback)

    def session_tween(request: Any) -> Any:
        environ = request.environ
        session_object = environ.get(ENVIRON_KEY)
        if type(session_object) is not SessionObject or "retry.attempt" in environ:
            session_object = attached(request, session_object, source)
            if session_object is None:
                # Leave it to the session factory, which makes one in memory if the application asks for it.
                return handler(request)
        if len(manager.stack) > 1 and owner_of(request, session_object) is not request:
            # A subrequest ends nothing of its parent's.
            return handler(request)
        exchange: Exchange = session_object.exchange
        exchange.tween = registry
        kept = False
        try:
            response = handler(request)
            kept = getattr(request, "exception", None) is None or is_kept(request, exchange, fallback)
        finally:
            if not kept:
                exchange.discard()
            if exchange.finisher is not MIDDLEWARE:
                _answered(request, exchange, source)
        if may_discard or exchange.config.options.cookie_on_exception is not True:
            # Follow up: a response callback, or a tween over this one, may raise after the commit.
            request.add_finished_callback(follow_failure)
        if kept and exchange.session is not None:
            return _committed(request, response, exchange)
        return response

    return session_tween


def attached(request: Any, session_object: Any, source: SessionSource | None) -> SessionObject | None:
    """Return the environ's session object as one of ours; None if there is none, and none is configured.

    Args:
        request: the request.
        session_object: the environ's session, or None.
        source: the source of the application's sessions, or None.

    Raises:
        SettingsError: the options of Beaker's own middleware are wrong.
    """
    if session_object is not None:
        attach(session_object, request.environ)
        return session_object  # type: ignore[no-any-return]  # it is one of ours by now
    config = None if source is None else recorded_config(request.registry, source.config) or source.in_memory
    if config is None:
        return None
    # Remember the response: the session may first be touched after the response callbacks.
    request.add_response_callback(remember_response)
    begun = begin_exchange(request.environ, config, FACTORY)
    begun.exchange.is_remembered = True
    return begun


def _answered(request: Any, exchange: Exchange, source: SessionSource | None) -> None:
    """Note that Pyramid has answered, and arrange for the response to be completed without our middleware."""
    exchange.is_answered = True
    if source is not None and not exchange.has_completion:
        # Complete an untouched session, too: a thread, or a body that a response callback sets, may read it.
        Completion(exchange, source.options).arrange(request)


def _committed(request: Any, response: Any, exchange: Exchange) -> Any:
    exchange.route = getattr(request, "matched_route", None)
    try:
        exchange.commit()
    except BeakerBridgeError:
        exchange.discard()
        return request.invoke_exception_view(sys.exc_info(), reraise=True)
    return response


def set_up_at_start(registry: Any) -> None:
    """Subscribe to ``ApplicationCreated``, to check the order of the tweens and let subrequests share sessions.

    Do it there since a configuration action would wrap the error. The subscriber removes itself: a registry that has
    any makes each request notify four events.
    """

    def set_up(event: Any) -> None:
        registry.unregisterHandler(set_up, (IApplicationCreated,))
        others = (*registry.registeredHandlers(), *registry.registeredSubscriptionAdapters())
        registry.has_listeners = bool(others)
        _check_tween_order(registry.queryUtility(ITweens))
        share_sessions(event.app)

    registry.registerHandler(set_up, (IApplicationCreated,))


def _check_tween_order(tweens: Any) -> None:
    """Refuse an explicit ``pyramid.tweens`` that leaves our tween out, or puts it too low.

    Raises:
        SettingsError: the tween is missing, or is under the exception views or pyramid_tm.
    """
    # Compare by identity: a tween may be named by its module, or by one that imports it.
    factories = [factory for _, factory in tweens.explicit]
    if not factories:
        return
    if session_tween_factory not in factories:
        raise SettingsError(
            f"pyramid.tweens must hold {NAME}, over {EXCVIEW}, got a list without it", name="pyramid.tweens"
        )
    below = factories[factories.index(session_tween_factory) :]
    for name, factory in ((EXCVIEW, excview_tween_factory), (TM, _tm_tween_factory())):
        if factory in factories and factory not in below:
            raise SettingsError(
                f"pyramid.tweens must hold {NAME} over {name}, got it under that", name="pyramid.tweens"
            )


def _tm_tween_factory() -> Any:
    """Return pyramid_tm's tween, if that package is imported."""
    module = sys.modules.get("pyramid_tm")
    return getattr(module, "tm_tween_factory", None)
