"""The values of a session as the panel shows them: without secrets, and without running any code of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from difflib import Differ
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from beaker_bridge.options.masking import HIDDEN, is_secret_name, masked_address
from beaker_bridge.session.merge import same

#: The number of columns in a line, and of lines of a value, that are shown.
WIDTH, LINES = 60, 60
#: The number of characters of a text, and of members of a container, and the depth, that are shown.
CHARACTERS, MEMBERS, DEPTH = 2000, 200, 20
#: Names of secrets that only sessions have.
_SECRET = re.compile("csrf|otp|cookie|jwt|bearer", re.IGNORECASE)
#: A text that may hold a login.
_LOGIN = re.compile("://.*@", re.DOTALL)
#: Types that are shown as they are; a subclass may show itself by code of its own.
_PLAIN = frozenset(
    {bool, int, float, complex, Decimal, UUID, date, datetime, time, timedelta, timezone, type(None), type(...)}
)


class _Text:
    """A text that is shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


_HIDDEN = _Text(f"{HIDDEN} (hidden)")


class Row(NamedTuple):
    """A key of a session.

    Args:
        key: the key.
        status: ``same``, ``changed``, ``added`` or ``removed``.
        lines: the value's lines, each with its sign: ``-`` as it was loaded, ``+`` as it is now, a blank for both.
        is_hidden: whether it has changed in what is hidden alone.
    """

    key: str
    status: str
    lines: list[tuple[str, str]]
    is_hidden: bool = False


def rows_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Row]:
    """Return the keys of a session, those that have changed first.

    Args:
        before: what the session held when it was loaded.
        now: what it holds.
    """
    rows = [_row(key, before, now) for key in sorted({**before, **now}, key=str)]
    return sorted(rows, key=lambda row: row.status == "same")


def _row(key: Any, before: Mapping[str, Any], now: Mapping[str, Any]) -> Row:
    old, new = (_lines(key, content[key]) if key in content else [] for content in (before, now))
    if key not in before:
        return Row(str(key), "added", [("+", line) for line in new])
    if key not in now:
        return Row(str(key), "removed", [("-", line) for line in old])
    if same(before[key], now[key]):
        return Row(str(key), "same", [(" ", line) for line in new])
    lines = [(line[0], line[2:]) for line in Differ().compare(old, new) if line[0] != "?"]
    return Row(str(key), "changed", lines, is_hidden=old == new)


def _lines(key: Any, value: Any) -> list[str]:
    lines = _indented(without_secrets(key, value))
    return [*lines[:LINES], *_more(len(lines) - LINES, "lines")]


def _indented(value: Any, prefix: str = "", indent: str = "", end: str = "") -> list[str]:
    """Return the lines of a value that is shown: a line for each member, unless all of it fits in one."""
    text = repr(value)
    if len(indent + prefix + text) <= WIDTH or not isinstance(value, (dict, list, tuple)):
        return [indent + prefix + text + end]
    members = value.items() if isinstance(value, dict) else (("", member) for member in value)
    lines = [
        line
        for key, member in members
        for line in _indented(member, f"{key!r}: " if isinstance(value, dict) else "", f"{indent}  ", ",")
    ]
    begins, ends = {dict: ("{", "}"), list: ("[", "]"), tuple: ("(", ")")}[type(value)]
    return [indent + prefix + begins, *lines, indent + ends + end]


def _more(count: int, of: str) -> list[str]:
    """Return what stands for the rest of a value."""
    return [f"{HIDDEN} {count} more {of}"] if count > 0 else []


def without_secrets(key: object, value: Any, depth: int = 0) -> Any:
    """Return a value to show: what looks like a secret is hidden, at any depth, and objects are shown by their members.

    Args:
        key: the key, or the name, under which it is.
        value: the value.
        depth: how deep it is nested.
    """
    if value is not None and not isinstance(value, bool) and _is_secret(key):
        return _HIDDEN
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return _shown_text(str.__str__(value))
    if isinstance(value, (bytes, bytearray)):
        return _Text(f"<{len(value)} bytes>")
    return _Text(HIDDEN) if depth > DEPTH else _shown_members(value, depth + 1)


def _is_secret(key: object) -> bool:
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    return isinstance(name, str) and (is_secret_name(name) or _SECRET.search(name) is not None)


def _shown_text(text: str) -> str:
    if _LOGIN.search(text):
        return masked_address(text)
    return "".join([text[:CHARACTERS], *_more(len(text) - CHARACTERS, "characters")])


def _shown_members(value: Any, depth: int) -> Any:
    """Return the members of a container or an object, in the built-in type that shows them."""
    if isinstance(value, dict):
        return _shown_dict(dict.items(value), len(value), depth)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _shown_object(value, dict(zip(value._fields, tuple.__iter__(value), strict=False)), depth)
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset)
    for kind in kinds:
        if isinstance(value, kind):
            return _shown_items(kind, list(islice(kind.__iter__(value), MEMBERS)), kind.__len__(value), depth)
    attributes = None
    with suppress(Exception):
        attributes = vars(value)
    return _shown_object(value, attributes if isinstance(attributes, dict) else {}, depth)


def _shown_dict(items: Any, count: int, depth: int) -> dict[Any, Any]:
    shown = {
        without_secrets(None, key, depth): without_secrets(key, inner, depth) for key, inner in islice(items, MEMBERS)
    }
    return shown | {_Text(text): _Text(HIDDEN) for text in _more(count - MEMBERS, "keys")}


def _shown_items(kind: Any, items: list[Any], count: int, depth: int) -> Any:
    # Show a pair as dict() takes it.
    key = items[0] if kind in (list, tuple) and count == len(("key", "value")) else None
    shown = [without_secrets(key if number else None, item, depth) for number, item in enumerate(items)]
    shown += [_Text(text) for text in _more(count - MEMBERS, "members")]
    if kind in (list, tuple):
        return kind(shown)
    # A set has no order, and what is shown of its members may not be hashable.
    return _Text(f"{kind.__name__}({', '.join(sorted(map(repr, shown)))})")


def _shown_object(value: Any, attributes: dict[str, Any], depth: int) -> Any:
    name = _Text(f"<{type(value).__module__}.{type(value).__qualname__}>")
    return {name: _shown_dict(attributes.items(), len(attributes), depth)} if attributes else name
