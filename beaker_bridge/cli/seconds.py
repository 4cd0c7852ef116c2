"""Times as the command takes and shows them."""

from __future__ import annotations

import re

import click

#: The seconds of each unit, the longest first.
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_NAMES = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}
_FORM = re.compile(r"(\d+)([wdhms]?)", re.IGNORECASE)


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return the seconds of an option: a number of them, or of minutes, hours, days or weeks, as in ``90m``.

    Args:
        _ctx: click's context.
        _param: the option.
        value: its value; None if it was not given.

    Raises:
        BadParameter: it is none.
    """
    if value is None:
        return None
    found = _FORM.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"must be a number of seconds, or as in 90m, 12h, 30d and 4w, got {value!r}")
    return int(found[1]) * _UNITS[found[2].lower() or "s"]


def span(seconds: float) -> str:
    """Return a time as words, in the largest unit that there are two of: ``90 minutes``."""
    for letter, length in _UNITS.items():
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {_NAMES[letter]}s"
    return "1 second" if seconds >= 1 else "0 seconds"
