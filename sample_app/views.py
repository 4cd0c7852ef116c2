"""The site's pages. What they keep of a visitor is in ``request.session``, and nowhere else."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from datetime import datetime, timezone
from typing import Any, NoReturn

from beaker.cache import cache_region, cache_regions, region_invalidate
from pyramid.exceptions import BadCSRFOrigin, BadCSRFToken, URLDecodeError
from pyramid.httpexceptions import HTTPBadRequest, HTTPFound, HTTPNotFound
from pyramid.view import exception_view_config, notfound_view_config, view_config

from beaker_bridge import SessionStoreError

log = logging.getLogger(__name__)

#: What the shop sells.
GOODS = ("Apples", "Bread", "Coffee", "Tea")
#: The cache region of the report: ``development.ini`` says how long it keeps a value, and where.
REGION = "short_term"
#: How long the report takes, in seconds.
SLOW = 1


# -- Pages -------------------------------------------------------------------------------------------

# http_cache=0 sends no-store: after a logout the back button must not show a visitor's pages again.


@view_config(route_name="home", renderer="templates/home.jinja2", http_cache=0)
def home(request: Any) -> dict[str, Any]:
    """Count the visit, and show what the session knows."""
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    return {
        "visits": session["visits"],
        "id": f"{session.id[:6]}…",
        "new": session.new,
        "created": shown_time(session.created),
        "last_accessed": shown_time(session.last_accessed),
        # Pyramid's own keys, the CSRF token among them, begin with an underscore.
        "content": {key: json.dumps(value) for key, value in session.items() if not key.startswith("_")},
    }


def shown_time(seconds: float | None) -> str:
    """Return a time as people read it.

    Args:
        seconds: since the epoch; nothing, if there is no such time yet.
    """
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


@view_config(route_name="session_json", renderer="json", http_cache=0)
def session_json(request: Any) -> dict[str, Any]:
    """Answer what the session knows, all of it, without changing it."""
    session = request.session
    return {
        "id": session.id,
        "new": session.new,
        "created": session.created,
        "last_accessed": session.last_accessed,
        "data": dict(session),
    }


# -- The cart ----------------------------------------------------------------------------------------


@view_config(route_name="cart", renderer="templates/cart.jinja2", http_cache=0)
def cart(request: Any) -> dict[str, Any]:
    """Show the cart."""
    return {"goods": GOODS, "cart": sorted(Counter(request.session.get("cart", [])).items())}


@view_config(route_name="add_to_cart", request_method="POST")
def add_to_cart(request: Any) -> NoReturn:
    """Put one more of the goods into the cart.

    The cart is a list that things are appended to: what two tabs add at the same time is merged.
    """
    item = chosen(request)
    request.session.setdefault("cart", []).append(item)
    # A change inside a value.
    request.session.changed()
    request.session.flash(f"{item} added.")
    raise HTTPFound(request.route_path("cart"))


@view_config(route_name="remove_from_cart", request_method="POST")
def remove_from_cart(request: Any) -> NoReturn:
    """Take one of the goods out of the cart."""
    item = chosen(request)
    items = request.session.get("cart", [])
    # A second click, or another tab, may have removed it already.
    if item in items:
        items.remove(item)
        request.session.changed()
        request.session.flash(f"{item} removed.")
    raise HTTPFound(request.route_path("cart"))


def chosen(request: Any) -> str:
    """Return which of the goods a form has sent.

    Raises:
        HTTPNotFound: none that we sell.
    """
    item: str = request.POST.get("item", "")
    if item not in GOODS:
        raise HTTPNotFound("none of our goods")
    return item


# -- The cached report -------------------------------------------------------------------------------


@cache_region(REGION, "report")
def report() -> dict[str, Any]:
    """Find out what takes a while to find out: here, as a slow database would, by sleeping."""
    time.sleep(SLOW)
    return {"made": time.time(), "sold": {item: 7 * len(item) for item in GOODS}}


@view_config(route_name="report", renderer="templates/report.jinja2", http_cache=0)
def show_report(_request: Any) -> dict[str, Any]:
    """Show the report: the first one who asks waits for it, the others do not."""
    began = time.monotonic()
    found = report()
    region = cache_regions[REGION]
    return {
        "sold": found["sold"],
        "made": shown_time(found["made"]),
        "region": REGION,
        "type": region["type"],
        "age": int(time.time() - found["made"]),
        "expire": region["expire"],
        "waited": time.monotonic() - began,
    }


@view_config(route_name="refresh_report", request_method="POST")
def refresh_report(request: Any) -> NoReturn:
    """Throw the report away: whoever asks next has it made anew."""
    region_invalidate(report, None, "report")
    request.session.flash("The old report is thrown away.")
    raise HTTPFound(request.route_path("report"))


# -- When something breaks ---------------------------------------------------------------------------


@view_config(route_name="error")
def error(request: Any) -> NoReturn:
    """Change the session, and fail: ``cookie_on_exception`` says whether the change is kept."""
    request.session["errors"] = request.session.get("errors", 0) + 1
    raise RuntimeError("this page is there to fail")


# Their pages leave the session alone: it may be what is broken.


@exception_view_config(Exception, renderer="templates/error.jinja2")
def failed(exception: Exception, request: Any) -> dict[str, str]:
    """Answer an exception that nothing else has answered."""
    log.error("%s %s failed", request.method, request.path, exc_info=exception)
    request.response.status_int = 500
    return {
        "title": "Something broke",
        "message": "The fault is ours, and it is in the log. What you had put into your session is still there.",
    }


@exception_view_config(SessionStoreError, renderer="templates/error.jinja2")
def store_unreachable(exception: SessionStoreError, request: Any) -> dict[str, str]:
    """Answer that the sessions cannot be reached just now; nobody is logged out by that."""
    log.error("%s %s: %s", request.method, request.path, exception)
    request.response.status_int = 503
    request.response.retry_after = 30
    return {
        "title": "Back in a moment",
        "message": "We cannot reach your session just now. You stay logged in: please try again soon.",
    }


@exception_view_config(BadCSRFToken, renderer="templates/error.jinja2")
@exception_view_config(BadCSRFOrigin, renderer="templates/error.jinja2")
def bad_csrf(exception: HTTPBadRequest, request: Any) -> dict[str, str]:
    """Answer a form that was not sent from a page of ours, or from one of an older session."""
    log.warning("%s %s refused: %s", request.method, request.path, exception)
    request.response.status_int = 400
    # The session was read to compare the token: it is sound.
    if request.session.revoked:
        return {
            "title": "You were logged out elsewhere",
            "message": "Nothing was changed. Was that not you? Then log in, and change your password.",
        }
    return {
        "title": "That form is too old",
        "message": "It belongs to another session than yours. Please go back, reload the page and try again.",
    }


@notfound_view_config(renderer="templates/error.jinja2")
@exception_view_config(URLDecodeError, renderer="templates/error.jinja2")
def not_found(request: Any) -> dict[str, str]:
    """Answer an address that we do not have."""
    request.response.status_int = 404
    return {"title": "Not found", "message": "There is no page at this address."}
