"""Wrong uses: each line is an error for both checkers, which also report a comment that hides none."""

from __future__ import annotations

from typing import Any

from beaker_bridge import SessionMerged, SessionStoreError, purge, revoke, session_factory_from_settings, user_sessions
from beaker_bridge.stores.base import Store
from views import Request


def session(request: Request) -> None:
    """Misspelled names, and values of the wrong type."""
    request.session.regenerate()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    request.session[1] = "a"  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    request.session.timeout = 60  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    request.session.created = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    request.session.set_expiry("60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.session.bind(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.session.bind(42, note="Firefox")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.session.lock()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def users(request: Request) -> None:
    """Names that a user's session lacks, and values of the wrong type."""
    print(user_sessions(request, "ann")[0].name)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    revoke(request, 4.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    purge({}, older_than="1 day")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session_factory_from_settings("memory")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def data(event: SessionMerged, error: SessionStoreError) -> None:
    """Names that an event and an error lack."""
    print(event.conflict)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print(error.store)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


class Unfinished(Store):
    """A store without its three methods."""

    kind = "unfinished"


def store(options: Any) -> Store:
    """A store without its three methods cannot be made."""
    return Unfinished(options)  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]


class Session(session_factory_from_settings({})):  # type: ignore[misc]  # pyright follows it, mypy does not
    """A subclass of what a call returns."""
