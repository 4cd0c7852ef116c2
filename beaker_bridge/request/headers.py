"""The headers that keep caches from mixing up users: pure functions over the headers of a response."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import NamedTuple

from webob.datetime_utils import parse_date

from beaker_bridge.cookies import BLANK

Headers = list[tuple[str, str]]

#: A directive, with its value in quotes or not; or a text in quotes that belongs to none.
_DIRECTIVE = re.compile(r'([^ \t=,"]+)(?:[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"?|[^ \t,]*))?|"(?:[^"\\]|\\.)*"?', re.DOTALL)
#: What lets shared caches keep a response, and means nothing else.
_SHARING = frozenset({"public", "s-maxage"})
#: What lets caches hand out a response for some time.
_LASTING = frozenset({"max-age", "s-maxage"})
#: What forbids caches to hand out a cookie, where the application has no rule of its own.
_GUARD = 'no-cache="Set-Cookie"'


class _Directive(NamedTuple):
    name: str
    #: The value without its quotes, in lower case; None where there is none.
    value: str | None
    text: str

    @property
    def names_cookie(self) -> bool:
        """Whether it is said of the ``Set-Cookie`` field."""
        return self.value is not None and "set-cookie" in [name.strip(BLANK) for name in self.value.split(",")]

    @property
    def shares(self) -> bool:
        """Whether it asks caches to hand the response out."""
        return self.name == "public" or (self.name in _LASTING and (self.value or "").strip("0") != "")


def varied(headers: Headers) -> Headers:
    """Return headers that tell shared caches that the page depends on the cookie."""
    for name, _ in headers:
        if name.lower() == "vary":
            break
    else:
        return [*headers, ("Vary", "Cookie")]
    varied = [value for name, value in headers if name.lower() == "vary"]
    names = {name.strip(BLANK).lower() for value in varied for name in value.split(",")}
    if names & {"cookie", "*"}:
        return list(headers)
    others = [header for header in headers if header[0].lower() != "vary"]
    return [*others, ("Vary", ", ".join([*filter(None, varied), "Cookie"]))]


def guarded(headers: Headers, now: float) -> tuple[Headers, list[str]]:
    """Return headers under which no shared cache hands out their cookie, and what in them asked for that.

    ``Set-Cookie`` keeps no cache from anything (RFC 9111, 7.3). What forbids shared caches to keep it stands:
    ``no-store``, ``private``, and ``no-cache`` or ``private`` with ``Set-Cookie`` as its value. Beside any other rule
    of the application's own ``private`` is written, in the place of ``public`` and ``s-maxage``, which are for shared
    caches alone: the user's own browser goes by the rest. Without a rule it is ``no-cache="Set-Cookie"``.

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
        rules = [rule for name, value in headers if name.lower() == field.lower() for rule in _directives(value)]
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


def _directives(value: str) -> list[_Directive]:
    found = (match for match in _DIRECTIVE.finditer(value) if match[1] is not None)
    return [
        _Directive(match[1].lower(), None if match[2] is None else match[2].strip('"').lower(), match[0])
        for match in found
    ]


def _forbids_sharing(rules: list[_Directive]) -> bool:
    """Say whether no cache that heeds these rules hands out the cookie to others."""
    names = {rule.name for rule in rules}
    # A cache that understands the status code goes by must-understand, and not by no-store (RFC 9111, 5.2.2.3).
    if "no-store" in names and "must-understand" not in names:
        return True
    if any(rule.name in ("no-cache", "private") and rule.names_cookie for rule in rules):
        return True
    # Where public stands beside private, a cache may go by either.
    return not names & _SHARING and any(rule.name == "private" and rule.value is None for rule in rules)


def _is_later(date: str, now: float) -> bool:
    """Say whether an HTTP date is later; what is none is over already (RFC 9111, 5.3)."""
    time = parse_date(date)
    return time is not None and time > datetime.fromtimestamp(now, timezone.utc)
