"""The session in the WSGI environ: Beaker's ``SessionObject``, and how a request ends it.

Whoever made the ``SessionObject`` (our middleware, Beaker's own, the session factory), a request
commits it or discards it here.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

from beaker.session import SessionObject as BeakerSessionObject

from beaker_bridge.exceptions import BeakerBridgeError, SettingsError
from beaker_bridge.logs import log_once
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.options.types import COOKIE
from beaker_bridge.record.fields import RESERVED_KEYS
from beaker_bridge.request.headers import Headers, guarded, varied
from beaker_bridge.session.base import SafeSession
from beaker_bridge.session.config import SENT, SessionConfig, SessionContext
from beaker_bridge.session.cookie import CookieSession
from beaker_bridge.session.merge import merge
from beaker_bridge.session.session import MemorySession, Session, StandaloneSession

log = logging.getLogger(__name__)

#: Where the session is in the environ, as Beaker has it.
ENVIRON_KEY = "beaker.session"

#: In the state of a session: the route of its request, where Pyramid has found one.
ROUTE = "route"

#: The types whose sessions are of a class of their own.
_CLASSES: dict[str | None, type[SafeSession]] = {COOKIE: CookieSession, "memory": MemorySession}


class Exchange(SessionContext):
    """One attempt at a request, and what was decided about its session.

    Args:
        config: the configuration.
        environ: the request's WSGI environ.
    """

    #: Whether somebody has taken it upon himself to complete the response.
    followed = False
    _discarded_in: object = None

    def __init__(self, config: SessionConfig, environ: Mapping[str, Any]) -> None:
        self.config = config
        self.environ = environ

    def discard(self) -> None:
        """Decide that the request leaves no trace; final for this attempt at it, as pyramid_retry counts them."""
        self.discarded = True
        self._discarded_in = _attempt(self.environ)

    def outlived(self, environ: Mapping[str, Any]) -> bool:
        """Say whether it was discarded in another attempt than this one."""
        return self.discarded and self._discarded_in != _attempt(environ)


def _attempt(environ: Mapping[str, Any]) -> object:
    return environ.get("retry.attempt")


class SessionObject(BeakerSessionObject):
    """Beaker's lazy proxy of a session, over one of ours.

    Args:
        environ: the request's WSGI environ.
        config: the configuration.
        carried: whether a middleware carries the session: commits it last, and adds its headers.
    """

    def __init__(self, environ: MutableMapping[str, Any], config: SessionConfig, *, carried: bool = True) -> None:
        # On the way of each request, also of those that leave the session alone: what only a session
        # needs is made when there is one. The parameters are the config's; Beaker's methods only read them.
        state = self.__dict__
        state["_environ"] = environ
        state["_params"] = config.parameters
        state["_sess"] = None
        state["_headers"] = {}
        state["exchange"] = None
        state["config"] = config
        if carried:
            state["carried"] = True

    def _session(self) -> SafeSession:
        state = self.__dict__
        session: SafeSession | None = state["_sess"]
        if session is None:
            request = state["_headers"] = {"cookie_out": None, "cookie": state["_environ"].get("HTTP_COOKIE")}
            session_class = _CLASSES.get(state["config"].options.type, Session)
            session = state["_sess"] = session_class(request, state["exchange"] or _bound(self))
        return session

    def get_by_id(self, id: str) -> StandaloneSession | None:  # noqa: A002 -- Beaker's name
        """Return the stored session of an id, or None. Its ``commit()`` writes what is changed."""
        return stored_session(exchange_of(self), id)


def stored_session(exchange: Exchange, session_id: str) -> StandaloneSession | None:
    """Return the stored session of an id, or None. Its ``commit()`` writes what is changed.

    Args:
        exchange: the request's, for its configuration and its subscribers.
        session_id: the id.

    Raises:
        BeakerBridgeError: sessions are in cookies, where none can be found by its id.
        SessionStoreError: the store cannot be reached.
    """
    session = standalone_session(exchange.config, session_id, exchange.notify)
    if exchange.locks is None:
        exchange.locks = {}
    session._exchange.locks = exchange.locks
    return None if session.is_new else session


def standalone_session(
    config: SessionConfig, session_id: str | None = None, notify: Callable[[object], None] | None = None
) -> StandaloneSession:
    """Return a session that belongs to no request: the stored one of an id, or a new one.

    Args:
        config: the configuration.
        session_id: the id.
        notify: what gets the session's events.

    Raises:
        BeakerBridgeError: sessions are in cookies, where one cannot be without its request.
        SessionStoreError: the store cannot be reached.
    """
    if config.store is None:
        raise BeakerBridgeError(
            "get_by_id() and beaker.get_session need sessions that are stored on the server, got type = cookie"
        )
    context = SessionContext(config)
    context.notify = notify
    return StandaloneSession({}, exchange=context, session_id=session_id)


# -- Exchange -----------------------------------------------------------------------------------------


def exchange_of(session_object: BeakerSessionObject, environ: Mapping[str, Any] | None = None) -> Exchange:
    """Return the exchange of the environ's session, for this attempt at the request.

    Our session class is placed into an object that Beaker's own middleware made, before its first use.

    Args:
        session_object: the environ's session.
        environ: the request's WSGI environ, where it is known; another attempt begins anew.

    Raises:
        SettingsError: the options of Beaker's own middleware are wrong, or the object is none of Beaker's.
    """
    if not isinstance(session_object, BeakerSessionObject):
        raise SettingsError(f"environ[{ENVIRON_KEY!r}] must be a Beaker session, got a {type(session_object).__name__}")
    state = session_object.__dict__
    exchange: Exchange | None = state.get("exchange")
    if exchange is None:
        return _bound(session_object) if "config" in state else _adopt(session_object)
    if environ is not None and exchange.outlived(environ):
        # pyramid_retry uses the environ again: this attempt starts from the store.
        state.update(_sess=None, _headers={}, _dirty=False)
        return _bound(session_object)
    return exchange


def _bound(session_object: BeakerSessionObject) -> Exchange:
    """Bind the environ's session to its configuration, for this attempt at the request."""
    state = session_object.__dict__
    config: SessionConfig = state["config"]
    exchange = state["exchange"] = Exchange(config, state["_environ"])
    if "sent" in state:
        exchange.phase = SENT
    if type(session_object) is not SessionObject:
        # With these, Beaker's own object makes one of our sessions.
        state["_params"] |= {
            **config.parameters,
            "session_class": _CLASSES.get(config.options.type, Session),
            "exchange": exchange,
        }
        # Beaker's own would read the record in Beaker's way.
        state["get_by_id"] = partial(stored_session, exchange)
    return exchange


_configs: list[tuple[dict[str, Any], SessionConfig]] = []
_configs_lock = threading.Lock()


def _adopt(session_object: BeakerSessionObject) -> Exchange:
    """Place our session class into an object of Beaker's own middleware."""
    state = session_object.__dict__
    theirs = state["_sess"]
    state["config"] = _config_of(dict(state["_params"]))
    exchange = _bound(session_object)
    if theirs is not None:
        _take_over(session_object, theirs)
    return exchange


def _config_of(parameters: dict[str, Any]) -> SessionConfig:
    """Return the config of a Beaker middleware's options, parsed once."""
    with _configs_lock:
        for known, config in _configs:
            if known == parameters:
                return config
        config = SessionConfig(read_options(given(parameters)))
        _configs.append((parameters, config))
        return config


def _take_over(session_object: BeakerSessionObject, theirs: Any) -> None:
    """Replace a session that other middleware has loaded through Beaker by one of ours."""
    _tell_once("the session was loaded by other middleware before Pyramid's: it is read again, to be saved safely")
    session_object.__dict__["_sess"] = None
    ours: SafeSession = session_object._session()
    if getattr(theirs, "was_invalidated", False):
        if _reads_as(theirs, ours.data_serializer):
            ours.invalidate()
        else:
            # Beaker itself has invalidated what it could not read.
            log_once(log, logging.ERROR, _UNREAD.format(theirs.data_serializer, ours.data_serializer))
    before, now = (
        {key: value for key, value in content.items() if key not in RESERVED_KEYS}
        for content in (getattr(theirs, "accessed_dict", {}), theirs)
    )
    merged = merge(before, now, dict(ours), whole_keys=ours._config.options.whole_keys)
    ours.clear()
    ours.update(merged.record)


#: Beaker's own filter knows no other default than pickle.
_UNREAD = (
    "Beaker's own filter reads sessions with data_serializer = {}, and beaker_bridge with {}: other middleware finds"
    " them empty; set data_serializer in the filter's options, or put beaker_bridge's filter in its place"
)


def _reads_as(theirs: Any, serializer: Any) -> bool:
    """Say whether a session of Beaker's own reads what a serializer of ours writes."""
    return bool(getattr(theirs, "data_serializer", serializer) == serializer)


def _tell_once(message: str) -> None:
    log_once(log, logging.WARNING, message)


def show_to_test(session_object: BeakerSessionObject, environ: Mapping[str, Any], name: str) -> None:
    """Give a functional test the session, under the name that ``webtest_varname`` has."""
    if "paste.testing_variables" in environ:
        environ["paste.testing_variables"][name] = session_object


def make_ready(session_object: BeakerSessionObject, environ: Mapping[str, Any]) -> None:
    """Have our session class in the environ's session before its first use in this attempt.

    Args:
        session_object: the environ's session.
        environ: the request's WSGI environ.

    Raises:
        SettingsError: as :func:`exchange_of`.
    """
    # Ours that nobody has bound yet is ready, and there is nothing to bind as long as nobody touches it.
    if type(session_object) is not SessionObject or session_object.__dict__["exchange"] is not None:
        exchange_of(session_object, environ)


def is_carried(session_object: BeakerSessionObject | None) -> bool:
    """Say whether our middleware carries the session: commits it last, and adds its headers."""
    return session_object is not None and "carried" in session_object.__dict__


# -- The end of a request ----------------------------------------------------------------------------


def needs_commit(session_object: BeakerSessionObject | None) -> bool:
    """Say whether there is a session, and something has happened to it since the last commit."""
    if session_object is None:
        return False
    state = session_object.__dict__
    session: SafeSession | None = state["_sess"]
    return session is not None and (session.has_pending or "_dirty" in state or state["_params"]["auto"])


def is_asked_to_commit(session_object: BeakerSessionObject) -> bool:
    """Say whether somebody has asked to save, change or end a session that is loaded, since the last commit.

    As :func:`needs_commit`, but where a value was handed out, it is compared.
    """
    state = session_object.__dict__
    session: SafeSession = state["_sess"]
    return bool(session.has_changed() or session.was_invalidated or state.get("_dirty") or state["_params"]["auto"])


def loses_changes(session_object: BeakerSessionObject) -> bool:
    """Say whether anything is lost where the session is not committed; what was only read loses nothing."""
    state = session_object.__dict__
    session: SafeSession | None = state["_sess"]
    return session is not None and bool(state.get("_dirty") or session.was_invalidated or session.has_changed())


def is_settled(session_object: BeakerSessionObject | None) -> bool:
    """Say whether there is nothing to do when a request ends: our middleware carries an unchanged session."""
    if session_object is None:
        return False
    state = session_object.__dict__
    # Most often nobody has touched it.
    return "carried" in state and (state["_sess"] is None or not needs_commit(session_object))


def commit(session_object: BeakerSessionObject) -> None:
    """Write what changed in the environ's session since the last commit; idempotent.

    Raises:
        BeakerBridgeError: the store, the serializer or a limit refuses it.
    """
    state = session_object.__dict__
    session: SafeSession | None = state["_sess"]
    if session is None:
        return
    if state.get("_dirty"):
        session.force()
        state["_dirty"] = False
    elif state["_params"].get("auto"):
        session.force_by_option()
    session.commit()


def commit_or_discard(session_object: BeakerSessionObject) -> None:
    """Commit while the answer can still be an error: a failure is raised, and the request leaves no trace.

    Raises:
        BeakerBridgeError: as :func:`commit`.
    """
    try:
        commit(session_object)
    except BaseException:
        discard(session_object)
        raise


def commit_late(session_object: BeakerSessionObject) -> None:
    """Commit when the answer cannot become an error any more: a failure is logged, and nothing is saved."""
    try:
        commit_or_discard(session_object)
    except Exception:
        log.exception("a session that was changed too late for an error page is not saved")


def commit_before_error(session_object: BeakerSessionObject) -> None:
    """Commit before an error page (``exc_info``), which is sent whatever becomes of that.

    Where it replaces an answer that was begun, nothing more is committed; the cookie of that answer's commit stays.
    """
    if "sent" in session_object.__dict__:
        exchange_of(session_object).discard()
    else:
        commit_late(session_object)


def discard(session_object: BeakerSessionObject) -> None:
    """Let the request leave no trace, whatever touches its session afterwards; final."""
    exchange_of(session_object).discard()
    session_object.__dict__["_headers"]["set_cookie"] = False


def headers_left(session_object: BeakerSessionObject) -> None:
    """Take note that the response's headers have left: no cookie reaches the browser any more."""
    state = session_object.__dict__
    state["sent"] = True
    exchange: Exchange | None = state.get("exchange")
    if exchange is not None:
        exchange.phase = SENT


def let_go(session_object: BeakerSessionObject) -> None:
    """Let go of the environ, which holds the session: the cycle would leave all of the request to the collector."""
    state = session_object.__dict__
    known = state["_environ"].get
    environ = state["_environ"] = {
        "HTTP_COOKIE": known("HTTP_COOKIE"),
        "wsgi.url_scheme": known("wsgi.url_scheme"),
        "wsgi.multiprocess": known("wsgi.multiprocess"),
    }
    exchange: Exchange | None = state.get("exchange")
    if exchange is not None:
        exchange.environ = environ


def with_session_headers(
    session_object: BeakerSessionObject, headers: Headers, *, cookie: bool = True, streamed: bool = False
) -> Headers:
    """Return a response's headers with those that its session needs.

    Args:
        session_object: the environ's session.
        headers: the response's headers, which are not changed.
        cookie: whether to add the cookie; Beaker's own middleware adds it itself.
        streamed: whether the body is made while it is sent, and may be the first to read the session.
    """
    state = session_object.__dict__
    if state["_sess"] is None:
        return varied(headers) if streamed else headers
    headers = varied(headers)
    request = state["_headers"]
    if request.get("set_cookie") and request.get("cookie_out"):
        if request.get("dropped_out"):
            # First, so that what takes both for the same cookie keeps the one that is set.
            headers.append(("Set-Cookie", request["dropped_out"]))
        if cookie:
            headers.append(("Set-Cookie", request["cookie_out"]))
        headers = _guarded(session_object, headers)
    return headers


def _guarded(session_object: BeakerSessionObject, headers: Headers) -> Headers:
    """Return headers under which no cache hands out the cookie; what asked for that is logged once a route."""
    state = session_object.__dict__
    now = state["_sess"]._now
    headers, shared = guarded(headers, now)
    route = state.get(ROUTE)
    # A path may be anything: of those without a route the first one stands for all.
    if shared and state["config"].log_lines.is_due(("shared", route and route.name), math.inf, now):
        log.warning(
            "%s sets the session's cookie, and lets caches keep the page (%s): it is sent with Cache-Control: private."
            " Do without the session there, or without http_cache",
            f"route {route.name!r} ({route.pattern})" if route else f"a page at {_shown_path(state['_environ'])}",
            ", ".join(shared),
        )
    return headers


def _shown_path(environ: Mapping[str, Any]) -> str:
    """Return the beginning of a path: the rest may hold an id, or a user's name."""
    segments = environ.get("PATH_INFO", "").split("/", 2)[1:]
    return "/".join([environ.get("SCRIPT_NAME", ""), *segments[:1], *("…" for _ in segments[1:])])
