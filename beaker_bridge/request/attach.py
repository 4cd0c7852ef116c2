"""Attach: find the exchange of the environ's session, and adopt a session object of Beaker's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any

from beaker.session import SessionObject as BeakerSessionObject

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.logs import log_once
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.record.fields import ID, RESERVED_KEYS, WRITER
from beaker_bridge.request.exchange import BEAKER, ENVIRON_KEY, Exchange, SessionObject
from beaker_bridge.session.base import SafeSession
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.merge import merge, same

log = logging.getLogger(__name__)

#: Logged if Beaker's own filter could not read our session; its default is pickle, whatever our own is.
_UNREAD = (
    "Beaker's own filter reads sessions with data_serializer = {}, and beaker_bridge with {}: other middleware finds"
    " them empty; set data_serializer in the filter's options, or put beaker_bridge's filter in its place"
)


def begin_exchange(environ: MutableMapping[str, Any], config: SessionConfig, finisher: str) -> SessionObject:
    """Put a session object of ours into the environ.

    Args:
        environ: the request's WSGI environ.
        config: the configuration.
        finisher: the one that adds the session's headers to the response.
    """
    session_object = environ[ENVIRON_KEY] = SessionObject(environ, config, finisher)
    if config.options.webtest_varname:
        show_to_test(session_object, environ, config.options.webtest_varname)
    return session_object


def show_to_test(session_object: SessionObject, environ: Mapping[str, Any], name: str) -> None:
    """Give a functional test the session, under the name in ``webtest_varname``."""
    if "paste.testing_variables" in environ:
        environ["paste.testing_variables"][name] = session_object


def attach(session_object: Any, environ: Mapping[str, Any]) -> Exchange:
    """Return the exchange of the environ's session for this attempt at the request; adopt Beaker's own object.

    Args:
        session_object: the environ's session.
        environ: the request's WSGI environ; all attempts of pyramid_retry share it.

    Raises:
        SettingsError: the options of Beaker's own middleware are wrong, or this is no session object.
    """
    if not isinstance(session_object, BeakerSessionObject):
        raise SettingsError(f"environ[{ENVIRON_KEY!r}] must be a Beaker session, got a {type(session_object).__name__}")
    if not isinstance(session_object, SessionObject):
        _adopt(session_object)
    # Default to the known attempt: a subrequest's environ has none.
    known = session_object.exchange.attempt
    attempt = environ.get("retry.attempt", known)
    if attempt != known:
        session_object.begin_attempt(attempt, environ)
    exchange: Exchange = session_object.exchange
    return exchange


def _adopt(session_object: Any) -> None:
    """Make a session object that Beaker's own middleware has put into the environ one of ours, in its place."""
    state = session_object.__dict__
    theirs = state["_sess"]
    environ, config, is_save_asked = state["_environ"], _config_of(dict(state["_params"])), state.get("_dirty", False)
    state.clear()
    # Bypass Beaker's own __setattr__(), which sets attributes of the session.
    object.__setattr__(session_object, "__class__", SessionObject)
    SessionObject.__init__(session_object, environ, config, BEAKER)
    exchange: Exchange = session_object.exchange
    exchange.is_save_asked = is_save_asked
    if theirs is not None:
        _take_over(exchange, theirs)


#: The configurations, by Beaker's options. Guarded by _configs_lock.
_configs: list[tuple[dict[str, Any], SessionConfig]] = []
_configs_lock = threading.Lock()


def _config_of(parameters: dict[str, Any]) -> SessionConfig:
    """Return the configuration of the options of Beaker's own middleware, parsed once."""
    with _configs_lock:
        for known, config in _configs:
            if known == parameters:
                return config
        config = SessionConfig(read_options(given(parameters)))
        _configs.append((parameters, config))
        return config


def _take_over(exchange: Exchange, theirs: Any) -> None:
    """Replace a session that other middleware has loaded through Beaker by one of ours."""
    message = "the session was loaded by other middleware before Pyramid's: it is read again, to be saved safely"
    log_once(log, logging.WARNING, message)
    ours = exchange.load()
    if getattr(theirs, "was_invalidated", False):
        if getattr(theirs, "data_serializer", ours.data_serializer) == ours.data_serializer:
            ours.invalidate()
        else:
            # Keep the session: Beaker has invalidated only what it could not read.
            log_once(log, logging.ERROR, _UNREAD.format(theirs.data_serializer, ours.data_serializer))
    before, now = (
        {key: value for key, value in content.items() if key not in RESERVED_KEYS}
        for content in (getattr(theirs, "accessed_dict", {}), theirs)
    )
    changed = _changed_in_place(theirs, before, now, ours)
    merged = merge({**before, **changed}, now, dict(ours), whole_keys=exchange.config.options.whole_keys)
    ours.clear()
    ours.update(merged.record)
    if changed:
        ours.changed()


def _changed_in_place(theirs: Any, before: dict[str, Any], now: dict[str, Any], ours: SafeSession) -> dict[str, Any]:
    """Return the stored form of the values that other middleware changed in place: both of Beaker's dicts hold those.

    None counts if Beaker has read another record: the difference may be another request's change.
    """
    read, stored = ((record.get(WRITER), record.get(ID)) for record in (theirs, ours._metadata))
    if read != stored or read == (None, None):
        return {}
    return {
        key: value
        for key, value in dict(ours).items()
        if key in before and now.get(key) is before[key] and not same(value, before[key])
    }
