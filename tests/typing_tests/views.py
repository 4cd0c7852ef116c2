"""Views of an application with types."""

from __future__ import annotations

import pyramid.request
from beaker_bridge import PyramidSession, user_sessions


class Request(pyramid.request.Request):
    """Pyramid's request, with the type of its session."""

    session: PyramidSession  # pyright: ignore[reportIncompatibleVariableOverride]


def cart(request: Request) -> list[str]:
    """Put a product into the cart."""
    products: list[str] = request.session.setdefault("cart", [])
    products.append("tea")
    request.session.flash("Added.", queue="notes")
    return products


def vote(request: Request) -> int:
    """Count a vote."""
    with request.session.exclusive():
        request.session["votes"] = request.session.get("votes", 0) + 1
    return int(request.session["votes"])


def where(request: Request) -> list[str]:
    """Return the handles of the user's sessions."""
    return [session.handle for session in user_sessions(request, request.session["user"])]
