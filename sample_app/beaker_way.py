"""Beaker's sessions, saved as pyramid_beaker saves them: the page /overlap compares them with ours.

The sample does not need pyramid_beaker for that. What it does is short: Beaker's own session is loaded whole when it is
first used, and a response callback writes it back whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beaker.session import SessionObject
from beaker.util import coerce_session_params


def add_beaker_session(config: Any, options: Mapping[str, Any]) -> None:
    """Give each request of an application a ``beaker_session``.

    Args:
        config: the application's Configurator.
        options: Beaker's session options.
    """
    config.registry.beaker_options = coerce_session_params(dict(options))
    config.add_request_method(beaker_session, reify=True)


def beaker_session(request: Any) -> SessionObject:
    """Return the session of a request, which is saved with the response."""
    request.add_response_callback(_save)
    return unsaved_session(request)


def unsaved_session(request: Any) -> SessionObject:
    """Return the session of a request that only looks at it: Beaker writes a session that was only read, too."""
    return SessionObject(request.environ, **request.registry.beaker_options)


def _save(request: Any, response: Any) -> None:
    session = request.beaker_session
    session.persist()
    headers = session.__dict__["_headers"]
    if headers["set_cookie"] and headers["cookie_out"]:
        response.headerlist.append(("Set-Cookie", headers["cookie_out"]))
