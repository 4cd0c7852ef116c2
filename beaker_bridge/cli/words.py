"""Times, sizes and numbers as the command takes and shows them."""

from __future__ import annotations

import re

import click

#: The seconds of each unit, the longest first.
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_NAMES = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_KIB = 1024
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
    """Return a time as words, in the largest unit of which it is a multiple, or which it has twice: ``90 minutes``."""
    units = {length: _NAMES[letter] for letter, length in _UNITS.items()}
    exact = (length for length in units if length > 1 and seconds >= length and not seconds % length)
    length = next(exact, None) or next((length for length in units if seconds >= 2 * length), 1)
    return counted(int(seconds // length), units[length])


def size(number: float) -> str:
    """Return a number of bytes as words."""
    units = [*_SIZES]
    while units[1:] and (number >= 10 * _KIB or (number and not number % _KIB)):
        number /= _KIB
        units.pop(0)
    return counted(int(number), "byte") if units[0] == "bytes" else f"{number:,.0f} {units[0]}"


def counted(number: int, noun: str) -> str:
    """Return a number with a noun: ``1 session``, ``2 sessions``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
