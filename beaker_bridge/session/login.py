"""A login, as an application asks for it by ``bind()``, and as a list of a user's sessions shows it. No store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from beaker_bridge.exceptions import SessionValueError

#: The most bytes of a note, as JSON.
MAX_NOTE = 1024


class UserSession(NamedTuple):
    """One of a user's sessions, as a page shows it.

    Args:
        handle: names it for ``revoke_one()``; it is no id, and opens nothing.
        created: the time of the login, in seconds since the epoch.
        last_seen: the time of its last access, to ``timeout / 10`` or a minute; None if it is not known.
        is_current: whether it is the session of the request that asks.
        note: what the application noted at the login.
    """

    handle: str
    created: float
    last_seen: float | None
    is_current: bool
    note: Mapping[str, Any] | None


class Login(NamedTuple):
    """A login that a commit is about to begin.

    Args:
        user: the user's id, as text.
        login: the name of the login, in the index and in the session's record.
        note: what the application notes of it.
        limit: the most logins of the user, this one included; None for :data:`MAX_LOGINS`.
        refuses: whether a login over the limit is refused, instead of the oldest one ended.
    """

    user: str
    login: str
    note: Mapping[str, Any] | None
    limit: int | None
    refuses: bool


def new_login(
    user_id: str | int, note: Mapping[str, Any] | None, limit: int | None, on_limit: str, login: str
) -> Login:
    """Return a login, from what an application passes to ``bind()``.

    Args:
        user_id: as ``bind()``'s.
        note: as ``bind()``'s.
        limit: as ``bind()``'s.
        on_limit: as ``bind()``'s.
        login: its name.

    Raises:
        SessionValueError: the note is no dict, is not JSON, or too large.
        TypeError: the user's id is neither a string nor an int.
        ValueError: the user's id is empty, ``limit`` is below 1, or ``on_limit`` is another word.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"limit must be a whole number, 1 or more, or None, got {limit!r}")
    if on_limit not in ("end", "refuse"):
        raise ValueError(f"on_limit must be 'end' or 'refuse', got {on_limit!r}")
    return Login(user_text(user_id), login, _checked(note), limit, on_limit == "refuse")


def user_text(user_id: str | int) -> str:
    """Return a user's id as text: 42 and ``"42"`` are one user.

    Raises:
        TypeError: it is neither a string nor an int.
        ValueError: it is empty, or no text that UTF-8 can hold.
    """
    if not isinstance(user_id, (str, int)) or isinstance(user_id, bool):
        raise TypeError(
            f"a user's id must be a string or an int, got a {type(user_id).__name__}: pass str(user_id), for example"
        )
    # Skip what a subclass, such as an enumeration's member, is shown as.
    text = str.__str__(user_id) if isinstance(user_id, str) else int.__repr__(user_id)
    if not text or not _is_unicode(text):
        raise ValueError("a user's id must be a non-empty string, in Unicode")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked(note: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a note as JSON gives it back, so that no later change of the application's dict is in it."""
    if note is None:
        return None
    try:
        raw = json.dumps(note, allow_nan=False, ensure_ascii=False).encode("utf-8") if isinstance(note, dict) else b""
    except (TypeError, ValueError, RecursionError) as error:
        raise SessionValueError(f"note must hold only JSON: {error}", name="note", original=error) from error
    if not raw or len(raw) > MAX_NOTE:
        got = f"{len(raw)} bytes" if raw else f"a {type(note).__name__}"
        raise SessionValueError(f"note must be a dict of at most {MAX_NOTE} bytes of JSON, got {got}", name="note")
    known: dict[str, Any] = json.loads(raw)
    return known
