"""Subrequests: they share the session of the request that makes them, and end nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.threadlocal import manager

from beaker_bridge.request.exchange import ENVIRON_KEY


def owner_of(request: Any, session_object: Any) -> Any:
    """Return the request that owns a session: the outermost one of this thread and application that has it.

    Args:
        request: a request that has the session in its environ.
        session_object: the environ's session.
    """
    registry = getattr(request, "registry", None)
    owners = (
        entry["request"]
        for entry in manager.stack
        if entry["request"] is request
        or (entry["registry"] is registry and _environ_of(entry["request"]).get(ENVIRON_KEY) is session_object)
    )
    return next(owners, request)


def _environ_of(request: Any) -> Mapping[str, Any]:
    # A test's stack may hold no request, or one of its own making.
    return getattr(request, "environ", None) or {}


def share_sessions(router: Any) -> None:
    """Let the subrequests of an application share the session of the request that makes them.

    Replace the router's method instead of using ``add_request_method()``, whose bound method would make each request a
    reference cycle.

    Args:
        router: the application.
    """
    invoke = router.invoke_subrequest

    def invoke_subrequest(request: Any, use_tweens: bool = False) -> Any:
        parent: Any = manager.get()["request"]
        # Share only with this application's request on this thread.
        if ENVIRON_KEY not in request.environ and getattr(parent, "registry", None) is router.registry:
            session_object = parent.environ.get(ENVIRON_KEY)
            if session_object is not None:
                request.environ[ENVIRON_KEY] = session_object
        return invoke(request, use_tweens)

    router.invoke_subrequest = invoke_subrequest
