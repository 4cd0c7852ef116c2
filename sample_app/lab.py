"""The laboratory behind the page /overlap: each request changes two sessions, one of Beaker's and one of ours.

It is an application of its own within the site, with sessions of its own: a logout here logs nobody out of the site.
Both sessions have the same options, and the same is done with both. Only the way in which they are saved differs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPServiceUnavailable
from pyramid.view import view_config
from webob.cookies import SignedCookieProfile

from beaker_bridge import SessionMiddleware, revoke
from sample_app.beaker_way import add_beaker_session, unsaved_session

#: Where the site mounts it.
PATH = "/overlap/lab"
#: How long each of the ten requests works, in seconds. A browser sends six at a time: the first one begins before all
#: others and ends after them, and those end one by one.
WORK = dict(enumerate((2.4, 0.4, 0.6, 0.8, 1.0, 1.2, 1.0, 1.0, 1.0, 1.0), start=1))
#: How long a login works, in seconds.
LOGIN_WORK = 1.0
#: The two tabs that log in.
TABS = ("tab1", "tab2")
#: How many requests may work at the same time. Each has a thread of the server's, and the site needs some, too.
PLACES = 18


def make_app(options: Mapping[str, Any]) -> Any:
    """Return the laboratory as a WSGI application.

    Args:
        options: the options of both kinds of sessions.
    """
    options = {"secret": secrets.token_hex(32), "data_serializer": "json", "cookie_path": PATH, **options}
    # No exception views of its own: the site has some.
    with Configurator(exceptionresponse_view=None) as config:
        config.include("beaker_bridge")
        add_beaker_session(config, {**options, "key": "overlap.beaker", "httponly": True})
        config.registry.places = BoundedSemaphore(PLACES)
        config.registry.copies = {
            name: SignedCookieProfile(
                options["secret"], "overlap", f"overlap.{name}", path=PATH, httponly=True, samesite="Lax"
            )
            for name in ("before", *TABS)
        }
        for name in ("begin", "write", "stored", "login", "logout", "logout_everywhere", "copies"):
            config.add_route(name, f"/{name}")
        config.scan(__name__)
        app = config.make_wsgi_app()
    return SessionMiddleware(app, key="overlap.ours", **options)


def both_sessions(request: Any) -> dict[str, Any]:
    """Return the two sessions of a request: whatever is done with them is done with both."""
    return {"beaker": request.beaker_session, "ours": request.session}


@contextmanager
def working(request: Any, seconds: float) -> Iterator[dict[str, float]]:
    """Load both sessions, work a while, and then run the block, which changes them.

    Args:
        request: the request.
        seconds: how long to work.

    Yields:
        By the server's clock, when the sessions were loaded and, after the block, when they were changed.

    Raises:
        HTTPServiceUnavailable: too many requests are at work.
    """
    places = request.registry.places
    # Whoever keeps pressing the button waits for no thread, and keeps none from the others.
    if not places.acquire(blocking=False):
        raise HTTPServiceUnavailable(headers={"Retry-After": "3"})
    try:
        for session in both_sessions(request).values():
            session.get("cart")
        times = {"loaded": time.time()}
        time.sleep(seconds)
    finally:
        places.release()
    yield times
    times["changed"] = time.time()


def chosen(request: Any, field: str, choices: Sequence[str]) -> str:
    """Return which of some choices a request has sent.

    Raises:
        HTTPBadRequest: none of them.
    """
    choice: str = request.POST.get(field, "")
    if choice not in choices:
        raise HTTPBadRequest(f"{field} must be one of {', '.join(choices)}")
    return choice


# -- Ten requests ------------------------------------------------------------------------------------


@view_config(route_name="begin", request_method="POST", renderer="json")
def begin(request: Any) -> dict[str, Any]:
    """Begin two new sessions, each with an empty cart."""
    visitor = secrets.token_hex(8)
    for session in both_sessions(request).values():
        session.invalidate()
        session.update(visitor=visitor, cart=[])
        session.save()
    keep_copy(request, "before")
    return {}


@view_config(route_name="write", request_method="POST", renderer="json")
def write(request: Any) -> dict[str, float]:
    """Work a while, and then add one thing to each cart."""
    number = int(chosen(request, "number", [str(number) for number in WORK]))
    with working(request, WORK[number]) as times:
        for session in both_sessions(request).values():
            session.setdefault("cart", []).append(number)
            session.save()
    return times


@view_config(route_name="stored", renderer="json", http_cache=0)
def stored(request: Any) -> dict[str, list[int]]:
    """Answer what the carts hold. That alone changes neither of them."""
    return {"beaker": unsaved_session(request).get("cart", []), "ours": request.session.get("cart", [])}


# -- Login and logout --------------------------------------------------------------------------------


@view_config(route_name="login", request_method="POST", renderer="json")
def login(request: Any) -> dict[str, float]:
    """Work a while, and then log the visitor in, in one of two tabs."""
    tab = chosen(request, "tab", TABS)
    with working(request, LOGIN_WORK) as times:
        for session in both_sessions(request).values():
            # A new id: whoever has learned the old one does not become the user.
            session.regenerate_id()
            session["user"] = "Ada"
            session.save()
        # With ours, it is one of that user's sessions from now on.
        request.session.bind(request.session.setdefault("visitor", secrets.token_hex(8)))
    keep_copy(request, tab)
    return times


@view_config(route_name="logout", request_method="POST", renderer="json")
def logout(request: Any) -> dict[str, float]:
    """Log the visitor out: the sessions are deleted."""
    for session in both_sessions(request).values():
        session.delete()
    return {"changed": time.time()}


@view_config(route_name="logout_everywhere", request_method="POST", renderer="json")
def logout_everywhere(request: Any) -> dict[str, Any]:
    """Log the visitor out in all tabs. Beaker does not know which sessions are one user's: it ends this one."""
    request.beaker_session.delete()
    if "visitor" in request.session:
        revoke(request, request.session["visitor"])
    return {}


# -- A copy of the cookie ----------------------------------------------------------------------------


def keep_copy(request: Any, name: str) -> None:
    """Keep the ids that the sessions have now, as somebody does who has a copy of the cookies."""
    ids = {way: session.id for way, session in both_sessions(request).items()}
    request.registry.copies[name](request).set_cookies(request.response, ids)


@view_config(route_name="copies", renderer="json", http_cache=0)
def copies(request: Any) -> dict[str, dict[str, str]]:
    """Answer what each of the kept ids opens by now."""
    readers = {"beaker": unsaved_session(request), "ours": request.session}
    kept = {name: copy(request).get_value() for name, copy in request.registry.copies.items()}
    return {
        name: {way: opened_by(readers[way].get_by_id(id_)) for way, id_ in ids.items()}
        for name, ids in kept.items()
        if ids
    }


def opened_by(session: Mapping[str, Any] | None) -> str:
    """Say what somebody gets who comes with a session's id: a ``login``, a ``cart``, or ``nothing``.

    Args:
        session: the session that is stored under it, or None.
    """
    # Beaker leaves a record without content where it has deleted one.
    content = session or {}
    if "user" in content:
        return "login"
    return "cart" if "cart" in content else "nothing"
