"""Sessions for the tests of views, and of whole applications."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any, TypeVar

from beaker.middleware import SessionMiddleware as BeakerSessionMiddleware
from pyramid.interfaces import ISessionFactory
from pyramid.request import Request

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.middleware import SessionMiddleware
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.request.attach import attach
from beaker_bridge.request.exchange import ENVIRON_KEY, FACTORY, SessionObject
from beaker_bridge.session.config import SessionConfig

AnyRequest = TypeVar("AnyRequest")

#: Names under which WSGI middleware has the application that it wraps.
_WRAPPED = ("app", "wrap_app", "application")


def with_session(request: AnyRequest, data: Mapping[str, Any] | None = None, /, **more: Any) -> AnyRequest:
    """Give a request a session of its own, in memory: one that an earlier request has stored, or a new one.

    The request has no response, so ``request.session.persist()`` commits what a view has changed, or raises.

    Args:
        request: a ``pyramid.testing.DummyRequest``, or any request with an ``environ``.
        data: the content of the session; without any, it is new.
        more: the same, by keywords.

    Returns:
        The request.

    Raises:
        SessionValueError: a session cannot hold one of the values.
    """
    environ = request.environ  # type: ignore[attr-defined]  # any object that has one
    config = SessionConfig(read_options(given({"type": "memory"})))
    earlier = PyramidSession(SessionObject({}, config))
    earlier.update(data or {}, **more)
    earlier.persist()
    if earlier:
        # Put it before others of that name: the first one wins.
        environ["HTTP_COOKIE"] = f"{config.options.key}={earlier.id}; {environ.get('HTTP_COOKIE', '')}"
    session_object = environ[ENVIRON_KEY] = SessionObject(environ, config)
    registry = getattr(request, "registry", None)
    if registry is not None:
        session_object.exchange.notify = registry.notify
    request.session = PyramidSession(session_object)  # type: ignore[attr-defined]  # as each of Pyramid's requests
    return request


def seed_session(test_app: Any, data: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Put data into the session of a ``webtest.TestApp``, also before its first request.

    The session is made, or changed, as by a request: with the application's own configuration, and a cookie for the
    ``TestApp``. Middleware around the session's own is not called.

    Args:
        test_app: the ``TestApp``.
        data: the keys and values to set.
        more: the same, by keywords.

    Raises:
        BeakerBridgeError: the session cannot be stored.
        SettingsError: the application has no session middleware and no session factory.
    """
    application = test_app.app
    test_app.app = _seeding(application, {**(data or {}), **more})
    try:
        test_app.get("/")
    finally:
        test_app.app = application


def _seeding(application: Any, data: Mapping[str, Any]) -> Any:
    """Return a WSGI application whose requests put data into the session that the given one would give them."""
    layers = list(_layers(application))
    middleware = [layer for layer in layers if isinstance(layer, (SessionMiddleware, BeakerSessionMiddleware))]
    registries = [layer.registry for layer in layers if hasattr(layer, "registry")]
    registry = next((found for found in registries if found.queryUtility(ISessionFactory)), None)
    if not middleware:
        if registry is None:
            raise SettingsError("seed_session() found no session middleware and no session factory in the application")
        return _Seed(data, registry)
    seeding = copy(middleware[0])
    seeding.app = seeding.wrap_app = _Seed(data, registry, seeding.environ_key)
    return seeding


def _layers(application: Any) -> Iterator[Any]:
    """Yield a WSGI application, and those that it wraps."""
    while application is not None:
        yield application
        application = next((getattr(application, name) for name in _WRAPPED if hasattr(application, name)), None)


class _Seed:
    """A WSGI application that puts data into the session."""

    def __init__(self, data: Mapping[str, Any], registry: Any, environ_key: str = ENVIRON_KEY) -> None:
        self._data = data
        self._registry = registry
        self._environ_key = environ_key

    def __call__(self, environ: MutableMapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        if self._registry is not None and self._environ_key == ENVIRON_KEY:
            request.registry = self._registry
            session = request.session
            exchange = environ[ENVIRON_KEY].exchange
        else:
            exchange = attach(environ[self._environ_key], environ)
            session = PyramidSession(environ[self._environ_key])
        session.update(self._data)
        exchange.commit()
        headers = [("Content-Type", "text/plain"), ("Content-Length", "0")]
        if exchange.finisher is FACTORY:
            headers = exchange.finish(headers)
        start_response("200 OK", headers)
        return [b""]
