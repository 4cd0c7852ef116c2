"""Mask passwords in option values, and in the errors of stores' clients; an address that cannot be parsed is hidden."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

#: Replaces what is not shown.
HIDDEN = "…"
#: Names of options whose values are credentials, in any backend.
_SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|credential|auth|sasl|dsn|conninfo|salt|signature|pin\b|key(?!_length|_prefix)",
    re.IGNORECASE,
)
#: The form of an address that is shown. With another "@" or "/" the end of the password is ambiguous.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][\w.+-]*)://"
    r"(?:(?P<username>[^:/?#@]*)(?::(?P<password>[^@]*))?(?P<at>@))?"
    r"(?P<hosts>[\w.,:\[\]-]*)(?P<path>/[\w.,/%~+-]*)?(?P<query>\?[^?#@]*)?",
    re.ASCII | re.IGNORECASE,
)
#: Types whose values hold no free text.
_SHOWN_TYPES = (bool, int, float, timedelta, datetime, type(None))
_PLAIN_VALUE = re.compile(r"[0-9.]+|true|false", re.ASCII | re.IGNORECASE)
#: memcached's servers, sockets, directories and dotted names.
_NO_ADDRESS = re.compile(r"[\w.,;:/\[\] ~-]+", re.ASCII)
#: A text that may hold a login, in whatever option it is.
_MAY_BE_ADDRESS = re.compile("://|:.*@", re.DOTALL)
#: Schemes that urllib parses, as their own libraries do; all others are SQLAlchemy's.
_URLLIB = frozenset(
    {"http", "https", "memcache", "memcached", "mongodb", "mongodb+srv", "redis", "redis+sentinel", "rediss", "unix"}
)


# -- Values -----------------------------------------------------------------------------------------


def masked(name: str, value: Any, known: Iterable[str] = ()) -> Any:
    """Return an option's value with its passwords masked.

    Args:
        name: the option.
        value: its value.
        known: the options whose text is safe beside the address; the text of any other option is hidden.
    """
    if value is not None and not isinstance(value, bool) and _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    # Exclude subclasses: SQLAlchemy's URL is a tuple with the password in it.
    if type(value) in (list, tuple):
        return [masked(name, inner, known) for inner in value]
    if isinstance(value, str):
        return _masked_text(name, value, known)
    # Show the class of an engine or a client: its repr may hold anything.
    return value if isinstance(value, _SHOWN_TYPES) else f"<{type(value).__name__}>"


def is_secret_name(name: str) -> bool:
    """Say whether a name is that of a credential."""
    return _SECRET_NAME.search(name) is not None


def _masked_text(name: str, value: str, known: Iterable[str]) -> str:
    if _is_address(name, value):
        return masked_address(value)
    return value if name in known or (name.startswith("sa.") and _PLAIN_VALUE.fullmatch(value)) else HIDDEN


def _is_address(name: str, value: str) -> bool:
    return name.endswith(("url", "urls")) or _MAY_BE_ADDRESS.search(value) is not None


def quoted(name: str, value: Any) -> Any:
    """Return the value of an option that is not secret, as messages quote it: even there an address may be given.

    Args:
        name: the option.
        value: its value.
    """
    if isinstance(value, str):
        return masked_address(value) if _is_address(name, value) else value
    if callable(value) or isinstance(value, (bytes, *_SHOWN_TYPES)):
        return value
    return masked(name, value, (name,))


def masked_address(text: str) -> str:
    """Return an address with its password masked; hide one that its own library parses differently, or not at all.

    Args:
        text: the address, or several with commas or semicolons between them.
    """
    if "://" not in text:
        return text if _NO_ADDRESS.fullmatch(text) else HIDDEN
    for separator in ("", ",", ";"):
        shown = [_masked_address(part) for part in (text.split(separator) if separator else [text])]
        if None not in shown:
            return separator.join(filter(None, shown))
    return HIDDEN


def _masked_address(text: str) -> str | None:
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or not _is_read_so(found):
        return None
    login = "" if found["at"] is None else f"{HIDDEN}@"
    if found["password"] is not None:
        login = f"{found['username']}:{HIDDEN}@"
    # Nothing of a query: a name in it may be a part of a password that has an "&".
    query = f"?{HIDDEN}" if found["query"] else ""
    return f"{found['scheme']}://{login}{found['hosts']}{found['path'] or ''}{query}"


def _is_read_so(found: re.Match[str]) -> bool:
    """Return whether the address's own library finds the same user and password in it."""
    login = (found["username"] or "", found["password"] or "")
    try:
        if found["scheme"].lower() in _URLLIB:
            return _by_urllib(found[0], has_hosts="," in found["hosts"]) == login
        return _by_sqlalchemy(found[0]) == tuple(map(unquote, login))
    except Exception:  # noqa: BLE001 -- ValueError, ImportError, and what SQLAlchemy has of its own
        return False


def _by_urllib(address: str, *, has_hosts: bool) -> tuple[str, str]:
    parts = urlsplit(address)
    if not has_hosts:
        # Raises ValueError for a port that is no number, such as a part of a password.
        _ = parts.port
    return parts.username or "", parts.password or ""


def _by_sqlalchemy(address: str) -> tuple[str, str]:
    from sqlalchemy import make_url

    url = make_url(address)
    return url.username or "", str(url.password or "")


def numbered(names: Iterable[str], unknown: Collection[str]) -> str:
    """Return which options of an address's query are meant, without their names: one may be a part of a password.

    Args:
        names: the names in the query.
        unknown: those that are meant.
    """
    numbers = [str(number) for number, name in enumerate(names, 1) if name in unknown]
    return f"number{'s' * (len(numbers) > 1)} {', '.join(numbers)} after the ?"


# -- Errors of clients -------------------------------------------------------------------------------

#: The length of the parts of a password that are searched for in an error's text.
_PART = 4
#: The passwords of all stores of this process. Guarded by _passwords_guard.
_passwords: set[str] = set()
_passwords_guard = threading.Lock()
_NEXT_ADDRESS = re.compile(r"[,;]\s*(?=[a-z][\w.+-]*://)", re.ASCII | re.IGNORECASE)


def learn_passwords(options: Mapping[str, Any]) -> None:
    """Remember the passwords among a store's options, so that they can be masked in its client's errors.

    Args:
        options: the options, by name.
    """
    found = [*_passwords_in(options.items())]
    with _passwords_guard:
        _passwords.update(found)


def _passwords_in(options: Iterable[tuple[Any, Any]]) -> Iterator[str]:
    for name, value in options:
        if isinstance(value, Mapping):
            yield from _passwords_in(value.items())
        elif isinstance(value, (list, tuple)):
            yield from _passwords_in((name, inner) for inner in value)
        elif isinstance(value, str) and ("://" in value or "@" in value):
            for address in _NEXT_ADDRESS.split(value):
                yield from _passwords_of(address)
        elif isinstance(value, str) and _SECRET_NAME.search(str(name)):
            yield value


def _passwords_of(address: str) -> Iterator[str]:
    """Yield every candidate for the password in an address, however its library splits it."""
    login = (address.partition("://")[2] or address).rpartition("@")[0]
    username, colon, password = login.partition(":")
    yield from (password if colon else username, unquote(password if colon else username))
    for pair in re.split("[?&;]", address):
        name, _, value = pair.partition("=")
        if _SECRET_NAME.search(name):
            yield from (value, unquote(value))


def clean(error: BaseException | None = None) -> None:
    """Mask passwords in an error, in the one that is being handled, and in their causes and contexts.

    Args:
        error: the error of a store's client.
    """
    for step in (*chain(error), *chain(sys.exc_info()[1])):
        # Some exceptions have read-only attributes; their text comes from the others.
        with suppress(Exception):
            step.args = tuple(map(_cleaned, step.args))
        for name in ("strerror", *vars(step)):
            with suppress(Exception):
                setattr(step, name, _cleaned(getattr(step, name)))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and its causes and contexts."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _cleaned(value: Any) -> Any:
    """Return a text with every part of a password masked; anything else as it is."""
    if not isinstance(value, str):
        return value
    # A copy is made at once. Without the lock: a fork may have copied it as another thread held it.
    parts = {password[at : at + _PART] for password in _passwords.copy() for at in range(len(password) - _PART + 1)}
    covered = {at + place for part in parts for at in _places(part, value) for place in range(_PART)}
    kept = ("\0" if at in covered else character for at, character in enumerate(value))
    return re.sub("\0+", HIDDEN, "".join(kept)) if covered else value


def _places(part: str, text: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
