"""The session factories, and the end of a request that no tween ends."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import pyramid.router
from beaker.session import SessionObject as BeakerSessionObject
from pyramid.interfaces import ISessionFactory
from zope.interface import directlyProvides

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.reader import Given, differing, given, prefixed, read_options
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import Policy
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.pyramid.policy import keeps_session
from beaker_bridge.request.exchange import (
    ENVIRON_KEY,
    ROUTE,
    Exchange,
    SessionObject,
    commit_or_discard,
    discard,
    exchange_of,
    headers_left,
    is_carried,
    let_go,
    loses_changes,
    make_ready,
    show_to_test,
    with_session_headers,
)
from beaker_bridge.request.recorded_filter import recorded_config
from beaker_bridge.request.streaming import LENGTH, StreamedBody, is_streamed, length_of
from beaker_bridge.session.config import SessionConfig

log = logging.getLogger(__name__)

#: The registry whose tween decides whether the session is kept, and commits it; set in the environ by the tween.
TWEEN = "beaker_bridge.pyramid.tween"
#: The response of this request, for a session that no middleware carries.
RESPONSE = "beaker_bridge.response"
_NO_REGISTRY: Any = object()

_NOT_CONFIGURED = (
    "no session is configured: the settings have no session. option,"
    f" and no filter has put a session into environ[{ENVIRON_KEY!r}]"
)
_REMEDY = (
    "set session.type and session.secret (session.type = file, session.data_dir = …),"
    " or put the session filter into the pipeline (filter-with)"
)


def BeakerSessionFactoryConfig(**options: Any) -> type[RequestSession]:  # noqa: N802 -- pyramid_beaker's name
    """Return a Pyramid session factory: a class, which an application may subclass.

    Args:
        options: the options of :class:`SessionOptions`, without a prefix.

    Raises:
        SettingsError: one or more options are wrong.
    """
    if not options:
        log.warning("sessions are kept in memory, under ids without a signature: no option is given")
    # pyramid_beaker ignored what it did not know.
    return _session_factory(read_options(given(options, strict=False)))


def session_factory_from_settings(settings: Mapping[str, Any]) -> type[RequestSession]:
    """Return a Pyramid session factory: a class, which an application may subclass.

    Args:
        settings: an application's settings; those under ``session.`` and ``beaker.session.`` count.
            Where there are none, the session comes from a filter in the pipeline, else it is kept in memory.

    Raises:
        SettingsError: one or more options are wrong.
    """
    found: dict[str, Given] = prefixed(settings)
    return _session_factory(read_options(found) if found else None)


class RequestSession(PyramidSession):
    """``request.session``, made from the request: what each session factory is a subclass of.

    A subclass of a session factory is one, too. It may override what it likes, ``__init__(request)`` included.

    Args:
        request: the request; of its attributes only ``environ`` must be there.

    Raises:
        SettingsError: a filter's options are wrong, or nothing has configured sessions for several processes.
    """

    __slots__ = ()

    #: The session options of the settings; None where they have none.
    options: SessionOptions | None = None
    _source: SessionSource

    def __init__(self, request: Any) -> None:
        environ, source = request.environ, self._source
        registry: Any = getattr(request, "registry", None)
        session_object = environ.get(ENVIRON_KEY)
        if session_object is None:
            config = recorded_config(registry, source.config) or source.in_memory(environ)
            session_object = environ[ENVIRON_KEY] = SessionObject(environ, config, carried=False)
            if config.options.webtest_varname:
                show_to_test(session_object, environ, config.options.webtest_varname)
        # A test's own registry need not be one of Pyramid's.
        if getattr(registry, "has_listeners", False):
            exchange_of(session_object, environ).notify = registry.notify
        elif TWEEN not in environ or type(session_object) is not SessionObject:
            # What the tween has done for ours.
            make_ready(session_object, environ)
        config = session_object.__dict__["config"]
        if not (source.compared or config is source.config):
            source.compare(config.options)
        # Where our middleware and our tween do it all, which is most often, there is nothing to complete.
        if environ.get(TWEEN, _NO_REGISTRY) is not registry or not is_carried(session_object):
            _Completion(session_object, source.options).follow(request)
        PyramidSession.__init__(self, session_object, source.csrf_token)


def _session_factory(options: SessionOptions | None) -> type[RequestSession]:
    """Return the class of one configuration's sessions; what it shows itself as, pyramid_beaker's do, too."""
    members = {
        "__slots__": (),
        "__module__": "beaker_bridge",
        "__doc__": RequestSession.__doc__,
        "options": options,
        "_source": SessionSource(options),
    }
    factory: type[RequestSession] = type("PyramidBeakerSessionObject", (RequestSession,), members)
    directlyProvides(factory, ISessionFactory)
    return factory


def can_make_session(request: Any) -> bool:
    """Say whether a request's session factory is one of ours, and somebody has configured sessions."""
    registry = request.registry
    factory = registry.queryUtility(ISessionFactory)
    if not (isinstance(factory, type) and issubclass(factory, RequestSession)):
        return False
    return ENVIRON_KEY in request.environ or recorded_config(registry, factory._source.config) is not None


class SessionSource:
    """What the sessions of one factory are made with.

    Args:
        options: the options of the settings; None where they have none.
    """

    def __init__(self, options: SessionOptions | None) -> None:
        self.options = options
        self.config = SessionConfig(options) if options else None
        self.csrf_token = options.constant_csrf_token if options else None
        #: Whether the options were compared with those of a filter.
        self.compared = False
        self._lock = threading.Lock()
        self._in_memory: SessionConfig | None = None

    def in_memory(self, environ: Mapping[str, Any]) -> SessionConfig:
        """Return the configuration where there is none: sessions in memory, with an error in the log.

        Raises:
            SettingsError: there are several processes.
        """
        if environ.get("wsgi.multiprocess"):
            raise SettingsError(
                f"{_NOT_CONFIGURED}, and wsgi.multiprocess says that there are several processes: {_REMEDY}"
            )
        with self._lock:
            if self._in_memory is None:
                log.error(
                    "%s: sessions are kept in the memory of this process, and end with it; %s", _NOT_CONFIGURED, _REMEDY
                )
                self._in_memory = SessionConfig(read_options({}))
            return self._in_memory

    def compare(self, used: SessionOptions) -> None:
        """Warn once where settings are given to no effect, since a filter configures the session."""
        self.compared = True
        if self.options is None:
            return
        # What a filter leaves open, the settings may say.
        open_options = {"cookie_on_exception", "constant_csrf_token"} - used.given
        names = [self.options.label(name) for name in differing(used, self.options) if name not in open_options]
        if names:
            log.warning(
                "a filter configures the session; the settings' own session options are ignored where they differ: %s",
                ", ".join(names),
            )


# -- The end of a request that no tween ends ---------------------------------------------------------


def remember_response(request: Any, response: Any) -> None:
    """Remember a request's response: a response callback."""
    request.environ[RESPONSE] = response


def note_route(session_object: BeakerSessionObject, request: Any) -> None:
    """Note the route of a request, for what the log says of its response."""
    session_object.__dict__[ROUTE] = getattr(request, "matched_route", None)


class _StreamedResponse(StreamedBody):
    """The same for a response whose headers have left when it is iterated over."""

    def __iter__(self) -> Iterator[bytes]:
        headers_left(self._object)
        return super().__iter__()


def _has_tween(request: Any) -> bool:
    """Say whether the tween that decides is this application's own: another one may have it mounted."""
    return request.environ.get(TWEEN, _NO_REGISTRY) is getattr(request, "registry", None)


class _Completion:
    """Completes the response of a request, as late as Pyramid allows, where nobody else does.

    Response callbacks that are added later, subscribers of ``NewResponse`` and other finished callbacks may
    still change the session; the last finished callback comes after them, and the response has not been sent yet.

    Args:
        session_object: the environ's session.
        options: the session factory's own options.
    """

    _is_last = False

    def __init__(self, session_object: BeakerSessionObject, options: SessionOptions | None) -> None:
        self._object = session_object
        self._options = options
        ours = isinstance(session_object, SessionObject)
        # Beaker's own middleware adds the cookie, and nothing else.
        self._adds_cookie = ours and not is_carried(session_object)
        self._adds_headers = self._adds_cookie or not ours

    def follow(self, request: Any) -> None:
        """Have the request completed, once, where our middleware and our tween do not do it all."""
        exchange = exchange_of(self._object)
        if (self._adds_headers or TWEEN not in request.environ) and not exchange.followed:
            exchange.followed = True
            if hasattr(request, "add_finished_callback"):
                request.add_response_callback(remember_response)
                request.add_finished_callback(self._complete)
            elif hasattr(request, "add_response_callback"):
                request.add_response_callback(self._add_cookie)
        elif TWEEN in request.environ and not _has_tween(request):
            # Mounted in an application that has the tween, and completes it all.
            request.add_finished_callback(self._decide)

    def _decide(self, request: Any) -> None:
        """Discard the session where this application's own ``cookie_on_exception`` says so."""
        own = self._options
        exception = getattr(request, "exception", None)
        if is_carried(self._object) or own is None or "cookie_on_exception" not in own.given:
            # A filter's wins over both applications' settings.
            kept = is_kept(request, self._object, own)
        else:
            kept = keeps_session(own.cookie_on_exception, request, exception)
        if not kept:
            discard(self._object)

    def _complete(self, request: Any) -> None:
        """Complete the response: the last finished callback, since Pyramid calls none after one that raises."""
        if not self._is_last and getattr(request, "finished_callbacks", None):
            self._is_last = True
            request.add_finished_callback(self._complete)
            return
        environ = request.environ
        note_route(self._object, request)
        response = environ.pop(RESPONSE, None)
        failed = sys.exc_info()[1] is not None and _is_failing()
        kept = False
        try:
            kept = not failed and (_has_tween(request) or is_kept(request, self._object, self._options))
        finally:
            if not kept:
                discard(self._object)
        if response is not None and self._adds_headers:
            commit_or_discard(self._object)
            streamed = is_streamed(response.app_iter, environ)
            response.headerlist = with_session_headers(
                self._object, response.headerlist, cookie=self._adds_cookie, streamed=streamed
            )
            self._end(response, streamed=streamed)
        elif self._adds_cookie and not failed:
            if loses_changes(self._object):
                log.warning(
                    "a session that was changed by a script, or first touched after the response callbacks, is not"
                    " saved: see the tween"
                )
            discard(self._object)

    def _add_cookie(self, request: Any, response: Any) -> None:
        """Commit, and add the cookie alone: the response callback of a request that has no other, as a test's own."""
        if not is_kept(request, self._object, self._options):
            discard(self._object)
        if self._adds_headers:
            commit_or_discard(self._object)
            headers = with_session_headers(self._object, [], cookie=self._adds_cookie)
            response.headerlist.extend(header for header in headers if header[0] == "Set-Cookie")

    def _end(self, response: Any, *, streamed: bool) -> None:
        """Have saved what a body changes that is made while it is sent; otherwise nothing more happens."""
        if streamed:
            # WebOb takes a new body for one of another length.
            length = response.content_length
            self._object.__dict__[LENGTH] = length_of(response.headerlist)
            response.app_iter = _StreamedResponse(response.app_iter, self._object)
            response.content_length = length
        elif self._adds_cookie:
            let_go(self._object)


def _is_failing() -> bool:
    """Say whether an exception is leaving the router, which calls its finished callbacks on the way.

    The exception that is being handled may also be the one of a caller's ``except`` block.
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
    # Not by the router's method itself: what traces requests may have put a function of its own in its place.
    return frame.f_code.co_name == "invoke_request" and frame.f_globals is vars(pyramid.router)


def discard_if_failing(request: Any, fallback: SessionOptions | None) -> None:
    """Discard the session where an exception leaves the router after the tween has committed, unless that keeps it.

    Args:
        request: the Pyramid request, whose finished callbacks are being called.
        fallback: the options of the settings, for what a filter leaves open.
    """
    exception, session_object = sys.exc_info()[1], request.environ.get(ENVIRON_KEY)
    if exception is None or session_object is None or not _is_failing():
        return
    if not keeps_session(_policy(exchange_of(session_object), fallback), request, exception):
        discard(session_object)


def is_kept(request: Any, session_object: BeakerSessionObject, fallback: SessionOptions | None) -> bool:
    """Say whether a request's session is kept, after its view or exception view has answered.

    Args:
        request: the Pyramid request.
        session_object: the environ's session.
        fallback: the options of the settings, for what a filter leaves open.
    """
    exception = getattr(request, "exception", None)
    if exception is None:
        return True
    return not _will_be_retried(request, exception) and keeps_session(
        _policy(exchange_of(session_object), fallback), request, exception
    )


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
