"""The contestants: one Pyramid application each, all with the same views.

``/begin`` puts the session's content there, ``/untouched`` leaves the session alone, ``/read`` reads
one key of it, ``/write`` counts one key up. The least possible does the same by hand.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import beaker.middleware
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from beaker_bridge import SessionMiddleware, session_factory_from_settings
from tests.benchmarks.backends import Backend, new_id

#: The view without a session, the least possible, and ours; the peers are called as PyPI calls them.
NONE, LEAST, OURS = "no session", "least possible", "beaker_bridge"
FILTER, PYRAMID_BEAKER, PYRAMID_SESSION_REDIS = "Beaker's filter", "pyramid_beaker", "pyramid_session_redis"
SIGNED_COOKIE = "SignedCookieSessionFactory"

UNTOUCHED, READ, WRITE = "untouched", "read", "write"
OPERATIONS = (UNTOUCHED, READ, WRITE)

SECRET = "a secret for benchmarks, of 32 bytes or more"
_KEY = SECRET.encode("ascii")
NAME = "sid"
_SIGNATURE = 40

Views = dict[str, Callable[[Any], Any]]
#: What each session that is begun holds.
Contents = Iterator[dict[str, Any]]


def _untouched(request):
    return "untouched"


def _plain_views() -> Views:
    return dict.fromkeys(("begin", *OPERATIONS), _untouched)


# -- The views over request.session ------------------------------------------------------------------


def session_views(contents: Contents) -> Views:
    """Return the views of whoever gives a ``request.session``; ``contents`` is what each session holds."""

    def begin(request):
        request.session.update(next(contents))
        return "begun"

    return {"begin": begin, UNTOUCHED: _untouched, READ: _read, WRITE: _write}


def _read(request):
    return str(request.session["count"])


def _write(request):
    session = request.session
    session["count"] += 1
    return "counted"


# -- The views of the least possible -----------------------------------------------------------------


def least_views(backend: Backend, contents: Contents) -> Views:
    """Return the views that check an id's signature, read, write and do JSON by hand, and nothing else."""
    if backend.name == "cookie":
        return _least_cookie_views(contents)
    get, put, swap = backend.get, backend.put, backend.swap

    def begin(request):
        session_id = new_id()
        put(session_id, json.dumps(next(contents)))
        return _with_cookie("begun", session_id.encode("ascii"))

    def read(request):
        return str(json.loads(get(_verified(request)))["count"])

    def write(request):
        session_id = _verified(request)
        text = get(session_id)
        session = json.loads(text)
        session["count"] += 1
        if swap:
            swap(session_id, text, json.dumps(session))
        else:
            put(session_id, json.dumps(session))
        return "counted"

    return {"begin": begin, UNTOUCHED: _untouched, READ: read, WRITE: write}


def _least_cookie_views(contents: Contents) -> Views:
    def begin(request):
        return _with_cookie("begun", base64.b64encode(json.dumps(next(contents)).encode("ascii")))

    def read(request):
        return str(json.loads(base64.b64decode(_verified(request)))["count"])

    def write(request):
        session = json.loads(base64.b64decode(_verified(request)))
        session["count"] += 1
        return _with_cookie("counted", base64.b64encode(json.dumps(session).encode("ascii")))

    return {"begin": begin, UNTOUCHED: _untouched, READ: read, WRITE: write}


def _signature(value: bytes) -> str:
    return hmac.new(_KEY, value, "sha1").hexdigest()


def _verified(request) -> str:
    signed = request.cookies[NAME]
    value = signed[_SIGNATURE:]
    if not hmac.compare_digest(_signature(value.encode("ascii")), signed[:_SIGNATURE]):
        raise ValueError
    return value


def _with_cookie(text: str, value: bytes) -> Response:
    cookie = f"{NAME}={_signature(value)}{value.decode('ascii')}; Path=/; HttpOnly; SameSite=Lax"
    response = Response(text)
    response.headerlist.append(("Set-Cookie", cookie))
    return response


# -- The applications --------------------------------------------------------------------------------


def _application(views: Views, configure: Callable[[Configurator], None] | None = None, **settings):
    config = Configurator(settings=settings)
    if configure:
        configure(config)
    for name, view in views.items():
        config.add_route(name, f"/{name}")
        config.add_view(_answering(view), route_name=name)
    return config.make_wsgi_app()


def _answering(view):
    def answering(request):
        result = view(request)
        return result if isinstance(result, Response) else Response(result)

    return answering


def _options(backend: Backend, contestant: str) -> dict[str, str]:
    options = {"key": NAME, **backend.options(contestant)}
    return options | {"validate_key" if options["type"] == "cookie" else "secret": SECRET}


def none(backend: Backend, contents: Contents):
    """Return the views without a session."""
    return _application(_plain_views())


def least(backend: Backend, contents: Contents):
    """Return the least possible."""
    return _application(least_views(backend, contents))


def ours(backend: Backend, contents: Contents):
    """Return ours, in the pipeline."""
    app = _application(session_views(contents), lambda config: config.include("beaker_bridge"))
    return SessionMiddleware(app, **_options(backend, "ours"))


def _included(backend, contents):
    return _with_settings("included", backend, contents, lambda config: config.include("beaker_bridge"))


def _factory_alone(backend, contents):
    def configure(config):
        config.set_session_factory(session_factory_from_settings(config.get_settings()))

    return _with_settings("factory", backend, contents, configure)


def _with_settings(contestant, backend, contents, configure):
    options = {f"session.{name}": value for name, value in _options(backend, contestant).items()}
    return _application(session_views(contents), configure, **options)


def _filter(backend, contents):
    return beaker.middleware.SessionMiddleware(_application(_plain_views()), **_options(backend, "filter"))


def _pyramid_beaker(backend, contents):
    return _with_settings("pyramid_beaker", backend, contents, lambda config: config.include("pyramid_beaker"))


def _pyramid_session_redis(backend, contents):
    import pyramid_session_redis

    factory = pyramid_session_redis.RedisSessionFactory(SECRET, redis_url=backend.options("")["url"])
    return _application(session_views(contents), lambda config: config.set_session_factory(factory))


def _signed_cookie(backend, contents):
    factory = SignedCookieSessionFactory(SECRET)
    return _application(session_views(contents), lambda config: config.set_session_factory(factory))


#: Whose instructions are counted, in one word each: our installations, the least possible, and what people come from.
LEAST_POSSIBLE, FILTERED, INCLUDED, FACTORY = "least", "filter", "included", "factory"
INSTALLED = {
    NONE: none,
    LEAST_POSSIBLE: least,
    FILTERED: ours,
    INCLUDED: _included,
    FACTORY: _factory_alone,
    PYRAMID_BEAKER: _pyramid_beaker,
}


def contestants(backend: Backend, contents: Contents, operation: str) -> dict[str, Browser]:
    """Return who takes part in an operation on a backend, each with a session of that content."""
    makers = {NONE: none, LEAST: least, OURS: ours}
    if operation == UNTOUCHED:
        makers = {NONE: none, FILTER: _filter, OURS: ours}
    makers[PYRAMID_BEAKER] = _pyramid_beaker
    if backend.name == "redis":
        makers[PYRAMID_SESSION_REDIS] = _pyramid_session_redis
    if backend.name == "cookie":
        makers[SIGNED_COOKIE] = _signed_cookie
    return {name: Browser(maker(backend, contents), operation) for name, maker in makers.items()}


class Browser:
    """Sends one kind of request to an application, with the cookies of its sessions in turn.

    Args:
        app: the WSGI application.
        operation: the name of the view.
        cookies: a ``Cookie`` header for each session; where there are none, sessions are begun.
        sessions: how many.
    """

    def __init__(self, app, operation: str, cookies: list[str] | None = None, sessions: int = 1) -> None:
        self._app = app
        environ = Request.blank(f"/{operation}").environ
        self.cookies = cookies or [self.begin() for _ in range(sessions)]
        self._environs = itertools.cycle([{**environ, "HTTP_COOKIE": cookie} for cookie in self.cookies])
        #: The headers of the last answer.
        self.headers: list[tuple[str, str]] = []

    def begin(self) -> str:
        """Begin a session, and return the ``Cookie`` header that brings it."""
        headers = []
        self._app(Request.blank("/begin").environ, lambda _status, found, _exc_info=None: headers.extend(found))
        return "; ".join(value.partition(";")[0].strip() for name, value in headers if name.lower() == "set-cookie")

    def __call__(self) -> None:
        """Send a request."""
        for _ in self._app(next(self._environs).copy(), self._start_response):
            pass

    def _start_response(self, status, headers, exc_info=None):
        if status != "200 OK":
            raise RuntimeError(status)
        self.headers = headers
