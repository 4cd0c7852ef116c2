"""Beaker's ``SessionMiddleware`` for the WSGI pipeline, and its PasteDeploy factories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

from beaker.middleware import SessionMiddleware as BeakerSessionMiddleware

from beaker_bridge.options.reader import filter_defaults, filter_options, read_options
from beaker_bridge.options.table import SESSION_TABLE
from beaker_bridge.pyramid.recorded_filter import record_filter
from beaker_bridge.request.attach import show_to_test
from beaker_bridge.request.exchange import ENVIRON_KEY, SessionObject
from beaker_bridge.request.headers import Headers
from beaker_bridge.request.streaming import StreamedBody, is_streamed
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.stored import StandaloneSession, standalone_session

WSGIApplication = Callable[[MutableMapping[str, Any], Callable[..., Any]], Iterable[bytes]]

_ABSENT: Any = object()


class _Answer:
    """The ``start_response`` that the application gets.

    It holds the headers back until the application has returned its body, which may be the first to read the session.

    Args:
        session_object: the request's, with the exchange of each attempt at it.
        start_response: the server's.
    """

    __slots__ = ("_held", "_is_going_on", "_session_object", "_start_response", "_write")

    def __init__(self, session_object: SessionObject, start_response: Callable[..., Any]) -> None:
        self._session_object = session_object
        self._start_response = start_response
        self._held: tuple[str, Headers, Any] | None = None
        #: Whether the application works while its response is sent.
        self._is_going_on = False
        self._write: Callable[[bytes], Any]

    def __call__(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], Any]:
        """Take the application's answer, and commit the session."""
        exchange = self._session_object.exchange
        if self._held is not None:
            # Pass both answers on: whether the second may replace the first is for the server to decide.
            exchange.mark_headers_sent()
            self.pass_on(streamed=True)
        if exc_info:
            exchange.commit_before_error()
        elif exchange.session is not None:
            exchange.commit_or_discard()
        self._held = status, headers, exc_info
        if self._is_going_on:
            self.pass_on(streamed=True)
            return self._write
        return self._write_at_once

    def _write_at_once(self, data: bytes) -> None:
        """Send a part of the body: the ``write()`` of old applications."""
        self.go_on()
        self._write(data)

    def go_on(self) -> None:
        """Pass the headers on, now or as soon as they come: the body is made while it is sent."""
        self._is_going_on = True
        if self._held is not None:
            self.pass_on(streamed=True)

    def end(self) -> None:
        """Pass the headers on if they are still held: the body is made."""
        if self._held is not None:
            self.pass_on(streamed=False)
        else:
            self._session_object.exchange.close()

    def pass_on(self, *, streamed: bool) -> None:
        """Pass the headers on to the server.

        Args:
            streamed: whether the application goes on after that, and may still read the session.
        """
        assert self._held is not None
        (status, headers, exc_info), self._held = self._held, None
        headers = self._session_object.exchange.finish(headers, streamed=streamed)
        self._write = self._start_response(status, headers, exc_info)


class SessionMiddleware:
    """Puts a lazy session into the environ, commits it last, and adds its headers to the response.

    Args:
        app: the WSGI application.
        config: options under ``session.`` or ``beaker.session.``; if none is, all of them are options.
        environ_key: where the session is in the environ.
        wrap_app: the WSGI application, as Beaker names it, instead of ``app``.
        options: options, with or without a prefix; they win over those in ``config``.

    Raises:
        SettingsError: one or more options are wrong.
        TypeError: there is not exactly one application.
    """

    session = BeakerSessionMiddleware.session

    def __init__(
        self,
        app: WSGIApplication = _ABSENT,
        config: MutableMapping[str, Any] | None = None,
        environ_key: str = ENVIRON_KEY,
        *,
        wrap_app: WSGIApplication = _ABSENT,
        **options: Any,
    ) -> None:
        if (app is _ABSENT) == (wrap_app is _ABSENT):
            raise TypeError("SessionMiddleware takes one WSGI application: app, or wrap_app, as Beaker names it")
        self.app = self.wrap_app = wrap_app if app is _ABSENT else app
        self.environ_key = environ_key
        table = read_options(filter_options(config or {}, options))
        #: The options by name, converted, defaults and secrets included; to read, not to change.
        self.options: Mapping[str, Any] = MappingProxyType(
            {**table.backend_arguments, **{name: getattr(table, name) for name in SESSION_TABLE}}
        )
        self._config = SessionConfig(table)
        self._webtest_varname = table.webtest_varname
        if environ_key == ENVIRON_KEY:
            record_filter(self.app, self._config)

    def __call__(self, environ: MutableMapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        session_object = environ[self.environ_key] = SessionObject(environ, self._config)
        environ["beaker.get_session"] = self._get_session
        if "paste.registry" in environ and environ["paste.registry"].reglist:
            environ["paste.registry"].register(self.session, session_object)
        if self._webtest_varname:
            show_to_test(session_object, environ, self._webtest_varname)

        answer = _Answer(session_object, start_response)
        try:
            body = self.app(environ, answer)
            # Save a call: most bodies are lists.
            if type(body) is not list and is_streamed(body, environ):
                answer.go_on()
                return StreamedBody(body, session_object.exchange)
            answer.end()
        except BaseException:
            session_object.exchange.end()
            raise
        return body

    def _get_session(self) -> StandaloneSession:
        """Return a session that belongs to no request, as Beaker's middleware does.

        Raises:
            BeakerBridgeError: a cookie session needs a request.
        """
        return standalone_session(self._config)


def session_filter_app_factory(app: WSGIApplication, global_conf: dict[str, Any], **options: Any) -> SessionMiddleware:
    """Return the middleware: PasteDeploy's ``paste.filter_app_factory``.

    Args:
        app: the WSGI application.
        global_conf: PasteDeploy's defaults; those under ``session.`` or ``beaker.session.`` count.
        options: the filter's section, with or without a prefix.

    Raises:
        SettingsError: one or more options are wrong.
    """
    return SessionMiddleware(app, filter_defaults(global_conf), **options)


def session_filter_factory(
    global_conf: dict[str, Any], **options: Any
) -> Callable[[WSGIApplication], SessionMiddleware]:
    """Return a filter: PasteDeploy's ``paste.filter_factory``; see :func:`session_filter_app_factory`."""

    def session_filter(app: WSGIApplication) -> SessionMiddleware:
        return session_filter_app_factory(app, global_conf, **options)

    return session_filter
