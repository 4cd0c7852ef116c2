"""The end of a request that our middleware does not finish: the last finished callback completes the response."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pyramid.router

from beaker_bridge.logs import fields
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import Policy
from beaker_bridge.pyramid.policy import keeps_session
from beaker_bridge.request.exchange import BEAKER, ENVIRON_KEY, MIDDLEWARE, Exchange
from beaker_bridge.request.streaming import StreamedBody, is_streamed

log = logging.getLogger(__name__)


def remember_response(request: Any, response: Any) -> None:
    """Remember a request's response: a response callback."""
    request.environ[ENVIRON_KEY].exchange.response = response


class _StreamedResponse(StreamedBody):
    """The same for a response whose headers are sent when its body is iterated over."""

    def __iter__(self) -> Generator[bytes]:
        self._exchange.mark_headers_sent()
        return super().__iter__()


class Completion:
    """Completes the response of a request as late as Pyramid allows, if the middleware does not.

    Response callbacks that are added later, subscribers of ``NewResponse`` and other finished callbacks may
    still change the session; the last finished callback comes after them, and before the response is sent.

    Args:
        exchange: the request's.
        options: the session factory's own options.
    """

    def __init__(self, exchange: Exchange, options: SessionOptions | None) -> None:
        self._exchange = exchange
        self._options = options

    def arrange(self, request: Any) -> None:
        """Arrange once for the request to be completed, unless our middleware and our tween do it all."""
        exchange = self._exchange
        if (exchange.finisher is not MIDDLEWARE or exchange.tween is None) and not exchange.has_completion:
            exchange.has_completion = True
            if hasattr(request, "add_finished_callback"):
                if not exchange.is_remembered:
                    request.add_response_callback(remember_response)
                request.add_finished_callback(self._complete)
                # Put it first: Pyramid calls no callback after one that raises. It calls the others itself.
                _others(request).rotate(1)
            elif hasattr(request, "add_response_callback"):
                request.add_response_callback(self._add_cookie)
        elif exchange.tween is not None and not self._has_tween(request):
            # Decide only: this application is mounted in one whose tween completes it all.
            request.add_finished_callback(self._decide)

    def _has_tween(self, request: Any) -> bool:
        """Say whether the tween that decides is this application's own: it may be mounted in another one."""
        return self._exchange.tween is getattr(request, "registry", None) is not None

    def _decide(self, request: Any) -> None:
        """Discard the session if this application's own ``cookie_on_exception`` says so."""
        own = self._options
        exception = getattr(request, "exception", None)
        if self._exchange.finisher is MIDDLEWARE or own is None or "cookie_on_exception" not in own.given:
            # Let a filter's policy win over both applications' settings.
            kept = is_kept(request, self._exchange, own)
        else:
            kept = keeps_session(own.cookie_on_exception, request, exception)
        if not kept:
            self._exchange.discard()

    def _complete(self, request: Any) -> None:
        """Complete the response after all other finished callbacks, or end a request that gets none."""
        exchange = self._exchange
        is_answered = False
        try:
            others = _others(request)
            while others:
                others.popleft()(request)
            exchange.route = getattr(request, "matched_route", None)
            if sys.exc_info()[1] is None or not _is_failing():
                self._answer(request)
                is_answered = True
        finally:
            exchange.response = None
            if not is_answered:
                exchange.discard()
                if exchange.finisher is not MIDDLEWARE:
                    # End it here: there is no response with which it would end.
                    exchange.end()

    def _answer(self, request: Any) -> None:
        exchange = self._exchange
        if not (self._has_tween(request) or is_kept(request, exchange, self._options)):
            exchange.discard()
        if exchange.finisher is MIDDLEWARE:
            return
        if exchange.response is not None:
            self._finish(exchange.response, request.environ)
        elif exchange.finisher is BEAKER:
            exchange.is_answered = True
        else:
            if exchange.loses_changes:
                log.warning(
                    "a session that was changed by a script, or first touched after the response callbacks, is not"
                    " saved: see the tween",
                    extra=fields(store=exchange.config.options.type, failure="too_late"),
                )
            exchange.discard()
            exchange.end()

    def _add_cookie(self, request: Any, response: Any) -> None:
        """Commit, and add the cookie alone: for a request without finished callbacks, as in tests."""
        exchange = self._exchange
        if not is_kept(request, exchange, self._options):
            exchange.discard()
        if exchange.finisher is not MIDDLEWARE:
            exchange.commit_or_discard()
            headers = exchange.with_session_headers([])
            response.headerlist.extend(header for header in headers if header[0] == "Set-Cookie")

    def _finish(self, response: Any, environ: Any) -> None:
        """Add the session's headers, and save what a streamed body changes."""
        exchange = self._exchange
        streamed = is_streamed(response.app_iter, environ)
        response.headerlist = exchange.finish(response.headerlist, streamed=streamed)
        if streamed:
            # Restore the length, which WebOb removes with a new body.
            length = response.content_length
            response.app_iter = _StreamedResponse(response.app_iter, exchange)
            response.content_length = length


def _others(request: Any) -> deque[Callable[[Any], None]]:
    """Return the request's finished callbacks that are still to be called: a test's request may have none."""
    others: deque[Callable[[Any], None]] = getattr(request, "finished_callbacks", None) or deque()
    return others


def _is_failing() -> bool:
    """Say whether an exception is leaving the router, which then calls the finished callbacks.

    ``sys.exc_info()`` alone may also be the exception of a caller's ``except`` block.
    """
    exception = sys.exc_info()[1]
    router: FrameType | None = sys._getframe()
    while router is not None and not _is_routers(router):
        router = router.f_back
    traceback = exception.__traceback__ if exception else None
    while traceback is not None and traceback.tb_frame is not router:
        traceback = traceback.tb_next
    return traceback is not None


def _is_routers(frame: FrameType) -> bool:
    # Compare names instead of the method: a tracer may have put a function of its own in its place.
    return frame.f_code.co_name == "invoke_request" and frame.f_globals is vars(pyramid.router)


def discard_if_failing(request: Any, fallback: SessionOptions | None) -> None:
    """Discard the session if an exception leaves the router after the tween's commit, unless the policy keeps it.

    Args:
        request: the Pyramid request, whose finished callbacks are being called.
        fallback: the options of the settings, for those that a filter does not set.
    """
    exception, session_object = sys.exc_info()[1], request.environ.get(ENVIRON_KEY)
    if exception is None or session_object is None or not _is_failing():
        return
    exchange = session_object.exchange
    if not keeps_session(_policy(exchange, fallback), request, exception):
        exchange.discard()


def is_kept(request: Any, exchange: Exchange, fallback: SessionOptions | None) -> bool:
    """Say whether a request's session is kept, after its view or exception view has answered.

    Args:
        request: the Pyramid request.
        exchange: the request's.
        fallback: the options of the settings, for those that a filter does not set.
    """
    exception = getattr(request, "exception", None)
    if exception is None:
        return True
    return not _will_be_retried(request, exception) and keeps_session(_policy(exchange, fallback), request, exception)


def _policy(exchange: Exchange, fallback: SessionOptions | None) -> Policy:
    options = exchange.config.options
    if "cookie_on_exception" in options.given or fallback is None:
        return options.cookie_on_exception
    return fallback.cookie_on_exception


def _will_be_retried(request: Any, exception: BaseException) -> bool:
    """Say whether pyramid_retry, if it is there, will repeat this attempt."""
    if "retry.attempts" not in request.environ:
        return False
    from pyramid_retry import is_error_retryable

    return bool(is_error_retryable(request, exception))
