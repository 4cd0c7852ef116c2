"""The reserved keys of a record: what Beaker and we keep in it beside the application's own keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import MAX_SECONDS

# -- Beaker's keys -----------------------------------------------------------------------------------

CREATED = "_creation_time"
ACCESSED = "_accessed_time"
DOMAIN = "_domain"
PATH = "_path"
#: The id of a cookie session.
ID = "_id"

BEAKER_KEYS = frozenset({CREATED, ACCESSED, DOMAIN, PATH, ID, "_expires"})

# -- Our keys ----------------------------------------------------------------------------------------

#: The idle timeout that ``set_expiry`` gave this session, in seconds.
EXPIRY = "_bb_expiry"
#: Marks a tombstone: the time until which an id that was rotated is remembered.
MOVED = "_bb_moved"
#: The ids to which a rotated session was moved, in its tombstone; in the store only.
MOVED_TO = "_bb_moved_to"
#: The domain and path that a cookie session was last set for; in cookies only.
FORM = "_bb_form"
#: The request that wrote the record. Two requests that make the same change, such as two equal flash messages, must
#: not write the same bytes: the second swap would take the first one's record for its own.
WRITER = "_bb_writer"
#: The random word that the seals of a record's HTML are made with.
SEAL_WORD = "_bb_word"
#: The id of the index that lists the session's login, and the login; see ``session/users.py``.
INDEX = "_bb_index"
LOGIN = "_bb_login"
#: The time until which that index is kept, as far as this session knows; None if it is kept for good.
LISTED = "_bb_listed"
#: Marks an end marker: why the session under this id was ended from elsewhere, as a word of ours.
END_REASON = "_bb_end_reason"
#: The time until which an end marker or an index is kept; None if for good.
UNTIL = "_bb_until"
#: The logins that an index lists, and the user's id in a form that only the secret opens.
LOGINS = "_bb_logins"
USER = "_bb_user"

#: Every key that is no key of ``request.session``.
RESERVED_KEYS = BEAKER_KEYS | {
    EXPIRY,
    MOVED,
    MOVED_TO,
    FORM,
    WRITER,
    SEAL_WORD,
    INDEX,
    LOGIN,
    LISTED,
    END_REASON,
    UNTIL,
    LOGINS,
    USER,
}

# -- Their values ------------------------------------------------------------------------------------

#: The limit of a time, in seconds since the epoch.
_MAX_TIME = 1e12
#: Printable ASCII, without the semicolon that would begin another attribute.
_ATTRIBUTE = re.compile(r"[!-:<-~]*")
#: The form of a login's name, and of the id of an index.
LOGIN_FORM = re.compile(r"[0-9a-f]{32}")
INDEX_FORM = re.compile(r"u[0-9a-f]{64}")
#: The keys that Beaker's ``delete()`` leaves.
_STUB = frozenset({DOMAIN, PATH})


def is_time(value: Any) -> bool:
    """Say whether a value can be a time, in seconds since the epoch."""
    # Exclude NaN, infinities and integers that overflow a float.
    return isinstance(value, (int, float)) and -_MAX_TIME < value < _MAX_TIME


def is_attribute(value: Any) -> bool:
    """Say whether a value can be the domain or path of a cookie: None, or text that needs no quoting."""
    return value is None or (isinstance(value, str) and _ATTRIBUTE.fullmatch(value) is not None)


def _is_lifetime(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_SECONDS


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_index(value: Any) -> bool:
    return isinstance(value, str) and INDEX_FORM.fullmatch(value) is not None


def _is_login(value: Any) -> bool:
    return isinstance(value, str) and LOGIN_FORM.fullmatch(value) is not None


def _is_until(value: Any) -> bool:
    return value is None or is_time(value)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    CREATED: is_time,
    ACCESSED: is_time,
    EXPIRY: _is_lifetime,
    MOVED: is_time,
    FORM: _is_text,
    INDEX: _is_index,
    LOGIN: _is_login,
    LISTED: _is_until,
    END_REASON: _is_text,
    UNTIL: _is_until,
    LOGINS: _is_dict,
    USER: _is_text,
    DOMAIN: is_attribute,
    PATH: is_attribute,
}
#: The keys of a session that belongs to a user: it has all, or none.
_OF_LOGIN = frozenset({INDEX, LOGIN, LISTED})
#: The keys of records that are no session's: of tombstones, end markers and indexes.
NO_SESSION = frozenset({MOVED, END_REASON, LOGINS})
#: The keys of these that hardly any record has.
_RARE = frozenset(_CHECKS) - {CREATED, ACCESSED}


class UnreadableError(ValueError):
    """Says in our own words why bytes are no record: the words of others may quote them."""


def check_record(record: Any) -> None:
    """Refuse what cannot be a record: sessions compute with the values of reserved keys, and a store can hold anything.

    Args:
        record: what a serializer has read.

    Raises:
        UnreadableError: it is no dict, or a reserved key has a value that it cannot have.
    """
    if not isinstance(record, dict):
        raise UnreadableError(f"it holds a {type(record).__name__}, not a dict")
    created, accessed = record.get(CREATED), record.get(ACCESSED)
    # Take the short way for two times in order and no rare key, as nearly every record has them.
    if type(created) is type(accessed) is float and 0 < created <= accessed < _MAX_TIME and _RARE.isdisjoint(record):
        return
    for key, is_right in _CHECKS.items():
        if key in record and not is_right(record[key]):
            raise UnreadableError(f"its {key} is none")
    if len(_OF_LOGIN & record.keys()) not in (0, len(_OF_LOGIN)):
        raise UnreadableError("it names a login in part")


def is_expired(record: Mapping[str, Any], options: SessionOptions, now: float) -> bool:
    """Say whether the session of a record has expired.

    Args:
        record: what the store or the cookie holds.
        options: the option table.
        now: the time, in seconds since the epoch.
    """
    idle = record.get(EXPIRY, options.timeout)
    return bool(
        (idle and now - record.get(ACCESSED, now) > idle)
        or (options.absolute_timeout and now - record.get(CREATED, now) > options.absolute_timeout)
    )


def is_over(record: Mapping[str, Any], now: float) -> bool:
    """Say whether the time of a tombstone, an end marker or an index is over.

    Args:
        record: what the store holds.
        now: the time, in seconds since the epoch.
    """
    until = record.get(MOVED, record.get(UNTIL))
    return until is not None and bool(now >= until)


def is_stub(record: Mapping[str, Any]) -> bool:
    """Say whether a record is what Beaker's ``delete()`` leaves: a domain and a path, but no session."""
    return len(record) <= len(_STUB) and record.keys() <= _STUB


def is_live(record: Mapping[str, Any], options: SessionOptions, now: float) -> bool:
    """Say whether a record is a session's that has not moved, ended or expired.

    An end marker and the index of a user's sessions are none.

    Args:
        record: what the store or the cookie holds.
        options: the option table.
        now: the time, in seconds.
    """
    is_session = NO_SESSION.isdisjoint(record)
    return is_session and not (is_expired(record, options, now) or is_stub(record))


def in_milliseconds(now: float) -> float:
    """Return a time as records hold it, in seconds: the digits below a millisecond only cost JSON time."""
    return round(now, 3)
