"""What may be shown of an option's value: no password, and of an address that cannot be taken apart nothing at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

#: What stands for what is not shown.
HIDDEN = "…"
#: Names of options whose values let somebody in, whosever options they are.
_SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|credential|auth|sasl|dsn|conninfo|salt|signature|pin\b|key(?!_length|_prefix)",
    re.IGNORECASE,
)
#: The one form of an address that is shown. Where "@" or "/" stands once more, nobody can tell what the password is.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][\w.+-]*)://"
    r"(?:(?P<username>[^:/?#@]*)(?::(?P<password>[^@]*))?(?P<at>@))?"
    r"(?P<hosts>[\w.,:\[\]-]*)(?P<path>/[\w.,/%~+-]*)?(?:\?(?P<query>[^?#@]*))?",
    re.ASCII | re.IGNORECASE,
)
_PAIR = re.compile(r"(?P<name>[\w.-]+)=(?P<value>.*)", re.ASCII)
#: What is no text of somebody's choice.
_SHOWN_TYPES = (bool, int, float, timedelta, datetime, type(None))
_PLAIN_VALUE = re.compile(r"[0-9.]+|true|false", re.ASCII | re.IGNORECASE)
#: memcached's servers, sockets, directories and dotted names.
_NO_ADDRESS = re.compile(r"[\w.,;:/\[\] ~-]+", re.ASCII)
#: Schemes that are taken apart by urllib, as their own libraries do; all others are SQLAlchemy's.
_URLLIB = frozenset(
    {"http", "https", "memcache", "memcached", "mongodb", "mongodb+srv", "redis", "redis+sentinel", "rediss", "unix"}
)


def masked(name: str, value: Any, known: Iterable[str] = ()) -> Any:
    """Return an option's value without the passwords that may be in it.

    Args:
        name: the option.
        value: its value.
        known: the options whose texts hold no password beside the address; of another backend's options no text is
            shown.
    """
    if value is not None and not isinstance(value, bool) and _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(name, inner, known) for inner in value]
    if isinstance(value, str):
        return _masked_text(name, value, known)
    # Of an engine or a client the class: what it says of itself may be anything.
    return value if isinstance(value, _SHOWN_TYPES) else f"<{type(value).__name__}>"


def _masked_text(name: str, value: str, known: Iterable[str]) -> str:
    if "://" in value or name.endswith(("url", "urls")):
        return masked_address(value)
    return value if name in known or (name.startswith("sa.") and _PLAIN_VALUE.fullmatch(value)) else HIDDEN


def without_address(value: Any) -> Any:
    """Return a value; an address that stands where none belongs, which may hold a password, is masked."""
    return masked_address(value) if isinstance(value, str) and "://" in value else value


def masked_address(text: str) -> str:
    """Return an address without its password; of one that its own library reads otherwise, or not at all, nothing.

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
    query = "" if found["query"] is None else f"?{'&'.join(_masked_query(found['query']))}"
    return f"{found['scheme']}://{login}{found['hosts']}{found['path'] or ''}{query}"


def _is_read_so(found: re.Match[str]) -> bool:
    """Say whether the library that an address is for finds the same name, password and host in it."""
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
        # Raises where what stands there is no number, as a part of a password.
        _ = parts.port
    return parts.username or "", parts.password or ""


def _by_sqlalchemy(address: str) -> tuple[str, str]:
    from sqlalchemy import make_url

    url = make_url(address)
    return url.username or "", str(url.password or "")


def _masked_query(query: str) -> Iterator[str]:
    for pair in query.split("&"):
        found = _PAIR.fullmatch(pair)
        if found is None:
            yield HIDDEN
        elif _PLAIN_VALUE.fullmatch(found["value"]) and not _SECRET_NAME.search(found["name"]):
            yield pair
        else:
            yield f"{found['name']}={HIDDEN}"
