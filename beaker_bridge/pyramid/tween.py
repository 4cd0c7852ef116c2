"""The tween: decides whether the session is kept, and commits it while exception views can answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IApplicationCreated, ITweens
from pyramid.tweens import EXCVIEW, INGRESS, excview_tween_factory

from beaker_bridge.exceptions import BeakerBridgeError, SettingsError
from beaker_bridge.options.reader import prefixed, read_options
from beaker_bridge.pyramid.factory import (
    TWEEN,
    can_make_session,
    discard_if_failing,
    is_kept,
    note_route,
    remember_response,
)
from beaker_bridge.request.exchange import (
    ENVIRON_KEY,
    commit,
    discard,
    is_carried,
    is_settled,
    make_ready,
    needs_commit,
)
from beaker_bridge.request.streaming import is_streamed

#: The tween's name in ``pyramid.tweens``.
NAME = "beaker_bridge.session_tween_factory"
TM = "pyramid_tm.tm_tween_factory"
#: Where the tween stands in an implicit order: the session is committed when the database transaction
#: has ended, and under the toolbar, which lets an unhandled error look handled.
OVER = (EXCVIEW, TM)
UNDER = ("pyramid_debugtoolbar.toolbar_tween_factory", INGRESS)


def session_tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Return the tween that ends a request's session.

    - An exception that no view handles discards the session.
    - An exception that a view has answered discards it where ``cookie_on_exception`` says so, or
      where pyramid_retry will repeat the attempt.
    - Otherwise the session is committed. A failure discards it and goes to the exception views.
    """
    # Checked when the session factory was made; the policy is all that is read here.
    settings = prefixed(registry.settings or {})
    policy = settings.get("cookie_on_exception")
    is_shown = "webtest_varname" in settings
    fallback = read_options({"cookie_on_exception": policy}, quiet=True) if policy else None

    may_discard = fallback is not None and fallback.cookie_on_exception is not True

    def follow_failure(request: Any) -> None:
        discard_if_failing(request, fallback)

    def session_tween(request: Any) -> Any:
        environ = request.environ
        environ[TWEEN] = registry
        session_object = environ.get(ENVIRON_KEY)
        if session_object is not None:
            make_ready(session_object, environ)
        else:
            # The session may be first touched when the response callbacks are over.
            request.add_response_callback(remember_response)
            if is_shown and "paste.testing_variables" in environ and can_make_session(request):
                # A filter shows it to a functional test on each page.
                _ = request.session
        kept = False
        try:
            response = handler(request)
            session_object = environ.get(ENVIRON_KEY)
            failed = getattr(request, "exception", None) is not None
            kept = not failed or session_object is None or is_kept(request, session_object, fallback)
        finally:
            if not kept and ENVIRON_KEY in environ:
                discard(environ[ENVIRON_KEY])
        config = None if session_object is None else session_object.__dict__.get("config")
        if config is not None and (may_discard or config.options.cookie_on_exception is not True):
            # A response callback, or a tween over this one, may raise when the session is committed.
            request.add_finished_callback(follow_failure)
        if is_settled(session_object):
            return response
        if not is_carried(session_object):
            _have_completed(request, response)
            if not needs_commit(session_object):
                return response
        return _committed(request, response) if kept else response

    return session_tween


def _have_completed(request: Any, response: Any) -> None:
    """Have the response completed whose session no middleware carries, and nobody may have asked Pyramid for.

    A streamed body may be the first to touch it; other WSGI code uses Beaker's own in the environ.
    """
    session_object = request.environ.get(ENVIRON_KEY)
    touched = session_object is not None and session_object.__dict__["_sess"] is not None
    if (touched or is_streamed(response.app_iter, request.environ)) and can_make_session(request):
        # Made, not loaded; what makes it completes the response.
        _ = request.session


def _committed(request: Any, response: Any) -> Any:
    session_object = request.environ[ENVIRON_KEY]
    note_route(session_object, request)
    try:
        commit(session_object)
    except BeakerBridgeError:
        discard(session_object)
        return request.invoke_exception_view(sys.exc_info(), reraise=True)
    return response


def check_tween_order_at_start(registry: Any) -> None:
    """Have the order of the tweens checked when the application is made.

    Not in a configuration action, where the error would be wrapped. The subscriber goes when it has been
    called: a registry that has any makes each request notify four events.
    """

    def check(_event: Any) -> None:
        registry.unregisterHandler(check, (IApplicationCreated,))
        others = (*registry.registeredHandlers(), *registry.registeredSubscriptionAdapters())
        registry.has_listeners = bool(others)
        _check_tween_order(registry.queryUtility(ITweens))

    registry.registerHandler(check, (IApplicationCreated,))


def _check_tween_order(tweens: Any) -> None:
    """Stop the start where an explicit ``pyramid.tweens`` leaves our tween out, or puts it too low.

    Raises:
        SettingsError: the tween is missing, or stands under the exception views or pyramid_tm.
    """
    # By identity: a tween may be named by the module where it is, or by one that imports it.
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
    """Return pyramid_tm's tween, if it is there to be in a list."""
    module = sys.modules.get("pyramid_tm")
    return getattr(module, "tm_tween_factory", None)
