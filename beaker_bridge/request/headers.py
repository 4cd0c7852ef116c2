"""The headers that keep caches from mixing up users: pure functions."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import NamedTuple

from webob.datetime_utils import parse_date

from beaker_bridge.cookies import BLANK

Headers = list[tuple[str, str]]

_WORD = r"[\w!#$%&'*+.^`|~-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
#: An element of a comma-separated list; an open quote hides all that follows (RFC 9110, 5.6.1).
_ELEMENT = re.compile(rf'(?:[^",]|{_QUOTED}?)+', re.DOTALL)
#: A directive, with its value in quotes or not (RFC 9111, 5.2).
_DIRECTIVE = re.compile(rf"({_WORD})(?:=({_WORD}|{_QUOTED}))?", re.DOTALL | re.ASCII)
#: Directives that let shared caches keep a response, and mean nothing else.
_SHARING = frozenset({"public", "s-maxage"})
#: Directives that let caches serve a response for some time.
_LASTING = frozenset({"max-age", "s-maxage"})
#: Keeps caches from serving our cookie, if the application has no rule of its own.
_GUARD = 'no-cache="Set-Cookie"'


class _Directive(NamedTuple):
    name: str
    #: The value without its quotes, in lower case; None if there is none.
    value: str | None
    text: str
    #: Whether it is the whole element. With more in it, as ``private`` after a blank, the element is malformed.
    is_whole: bool

    @property
    def is_bare(self) -> bool:
        """Whether it is well-formed, and is about the whole response."""
        return self.is_whole and self.value is None

    @property
    def names_cookie(self) -> bool:
        """Whether it is well-formed, and is about the ``Set-Cookie`` field."""
        names = (self.value or "").split(",") if self.is_whole else []
        return "set-cookie" in [name.strip(BLANK) for name in names]

    @property
    def shares(self) -> bool:
        """Whether it asks caches to serve the response."""
        lasts = self.name in _LASTING and ((self.value or "").strip("0") != "" or not self.is_whole)
        return lasts or self.name == "public"


def varied(headers: Headers) -> Headers:
    """Return headers with ``Vary: Cookie``, since the page depends on the cookie."""
    varied = [value for name, value in headers if name.lower() == "vary"]
    names = {name.strip(BLANK).lower() for value in varied for name in value.split(",")}
    if names & {"cookie", "*"}:
        return list(headers)
    others = [header for header in headers if header[0].lower() != "vary"]
    return [*others, ("Vary", ", ".join([*filter(None, varied), "Cookie"]))]


def length_of(headers: Headers) -> str | None:
    """Return the ``Content-Length``, or None if there is none."""
    return next((value for name, value in headers if name.lower() == "content-length"), None)


def guarded(headers: Headers, now: float) -> tuple[Headers, list[str]]:
    """Return headers with which no shared cache serves their cookie, and the directives that would have let it.

    ``Set-Cookie`` alone does not keep a cache from storing a response (RFC 9111, 7.3). Rules that forbid it to shared
    caches are kept: ``no-store``, ``private``, and ``no-cache`` or ``private`` with ``Set-Cookie`` as its value. To any
    other rule of the application ``private`` is added, in the place of ``public`` and ``s-maxage``, which are for
    shared caches alone: the user's own browser goes by the rest. Without a rule it is ``no-cache="Set-Cookie"``.

    Args:
        headers: the response's headers, which are not changed.
        now: the time, in seconds.
    """
    for name, _ in headers:
        if name.lower().endswith(("cache-control", "expires")):
            break
    else:
        return [*headers, ("Cache-Control", _GUARD)], []
    lasting = ["Expires"] if any(name.lower() == "expires" and _is_later(value, now) for name, value in headers) else []
    shared: list[str] = []
    for field in _cache_fields(headers):
        # Join lines of one name: they are one list (RFC 9110, 5.3).
        rules = _directives(", ".join(value for name, value in headers if name.lower() == field.lower()))
        if _forbids_sharing(rules):
            continue
        asked = [rule.name for rule in rules if rule.shares]
        shared += asked
        if rules or lasting:
            kept = [rule.text for rule in rules if rule.name not in _SHARING and rule.name != "private"]
            guard = ", ".join([*kept, "private"])
        else:
            guard = _GUARD
        headers = [*(header for header in headers if header[0].lower() != field.lower()), (field, guard)]
        if field == "Cache-Control" and _LASTING.isdisjoint(rule.name for rule in rules):
            shared += lasting
    return headers, sorted(set(shared))


def _cache_fields(headers: Headers) -> list[str]:
    """Return the names of the fields that rule caches: ``Cache-Control``, and those for some of them (RFC 9213)."""
    aimed = {name.lower(): name for name, _ in headers if name.lower().endswith("-cache-control")}
    return ["Cache-Control", *aimed.values()]


def _directives(values: str) -> list[_Directive]:
    """Return the directives of a list; of a malformed element, the one at its beginning."""
    elements = [element.strip(BLANK) for element in _ELEMENT.findall(values)]
    return [
        _Directive(match[1].lower(), match[2] and match[2].strip('"').lower(), match[0], match[0] == element)
        for element in elements
        if (match := _DIRECTIVE.match(element))
    ]


def _forbids_sharing(rules: list[_Directive]) -> bool:
    """Say whether these rules keep each shared cache from serving the cookie."""
    names = {rule.name for rule in rules}
    # Ignore no-store beside must-understand, by which a cache goes instead (RFC 9111, 5.2.2.3).
    if "must-understand" not in names and any(rule.name == "no-store" and rule.is_bare for rule in rules):
        return True
    # Ask it of all with one name: a cache may go by any of them (RFC 9111, 4.2.1).
    no_cache, private = ([rule for rule in rules if rule.name == name] for name in ("no-cache", "private"))
    if any(said and all(rule.names_cookie for rule in said) for said in (no_cache, private)):
        return True
    # Count no private beside public: a cache may go by either.
    return not names & _SHARING and bool(private) and all(rule.is_bare for rule in private)


def _is_later(date: str, now: float) -> bool:
    """Say whether an HTTP date is in the future; an invalid one is in the past (RFC 9111, 5.3)."""
    time = parse_date(date)
    return time is not None and time > datetime.fromtimestamp(now, timezone.utc)
