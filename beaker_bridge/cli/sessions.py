"""``beaker-bridge sessions``: how many there are, how old and how large; and to show or end one, or a user's."""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import Any

import click

from beaker_bridge.cli.command import Subcommand, open_site
from beaker_bridge.cli.output import FOUND, OK, Output
from beaker_bridge.cli.words import counted, span
from beaker_bridge.cli.words import size as size_of
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.record.fields import ACCESSED, CREATED, EXPIRY, LOGIN, RESERVED_KEYS, is_live
from beaker_bridge.scripting import SiteSessions
from beaker_bridge.session.base import shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.login import UserSession, user_text
from beaker_bridge.session.survey import PART, Histogram, Survey, find_id, survey
from beaker_bridge.session.user_key import HANDLE
from beaker_bridge.session.users import UserIndex
from beaker_bridge.stores.memory import MemoryStore

#: The actions on sessions, beside counting them.
SHOW, END, USER = ACTIONS = ("show", "end", "user")
#: The width of a histogram's longest bar, in characters.
_BAR = 30
#: The most characters of a value that are shown.
_SHOWN = 200
#: A handle as it is listed here: sixteen bytes, and the id of a user, in base64.
_SHORT_HANDLE = re.compile("[0-9A-Za-z._]{23,}")
#: The end of base64's alphabet here: a handle never begins with a hyphen, as an option does.
_ALPHABETS_END = b"._"
_USAGE = "[show HANDLE | end HANDLE | user USER_ID]"


@click.command(cls=Subcommand, name="sessions")
@click.option("--values", "with_values", is_flag=True, help="show: show the values, too.")
@click.option("--end-all", is_flag=True, help="user: end all of the user's sessions.")
@click.argument("uri", metavar="FILE")
@click.argument("words", metavar=f"[NAME=VALUE]... {_USAGE}", nargs=-1)
def sessions_command(output: Output, *, uri: str, words: tuple[str, ...], with_values: bool, end_all: bool) -> int:
    """Count a site's sessions, and show how old and how large they are.

    show HANDLE shows one session, its values only with --values; end HANDLE ends it, as a logout would. user USER_ID
    lists the sessions that the application has bound to a user, and --end-all ends them.

    A HANDLE is what user USER_ID lists. The id of a session does as well, or its beginning as the log shows it.
    """
    variables, action, name = _parsed(words)
    for option, is_given, takes in (("--values", with_values, SHOW), ("--end-all", end_all, USER)):
        if is_given and action != takes:
            raise click.UsageError(f"{option} is for '{takes}' alone")
    config = _config_of(open_site(output, uri, variables).config)
    if action == SHOW:
        return _show(output, config, name, with_values=with_values)
    if action == END:
        return _end(output, config, name)
    if action == USER:
        _check_user(name)
        return _end_all(output, config, name) if end_all else _list(output, config, name)
    return _count(output, config)


def _parsed(words: Sequence[str]) -> tuple[Sequence[str], str, str]:
    """Return the variables, what to do, and with what."""
    place = next((place for place, word in enumerate(words) if word in ACTIONS), len(words))
    variables, rest = words[:place], words[place:]
    for word in variables:
        if "=" not in word:
            raise click.UsageError(f"{word!r} is neither NAME=VALUE nor one of {', '.join(ACTIONS)}")
    if not rest:
        return variables, "", ""
    if len(rest) != len((SHOW, "HANDLE")):
        raise click.UsageError(f"'{rest[0]}' takes one {'USER_ID' if rest[0] == USER else 'HANDLE'}")
    return variables, rest[0], rest[1]


def _config_of(config: SessionConfig) -> SessionConfig:
    """Return a configuration whose sessions this process can open.

    Raises:
        SettingsError: they are in browsers, or in the memory of another process.
    """
    label = f"{config.options.label('type')} = {config.options.type}"
    if config.store is None:
        raise SettingsError(f"{label}: the sessions are in the browsers, which alone can list them", name="type")
    if isinstance(config.store, MemoryStore):
        raise SettingsError(f"{label}: the sessions are in the memory of the site's own process", name="type")
    own = copy(config)
    # Be told that the store is away, whatever the site does then.
    own.options = replace(config.options, store_error="raise")
    return own


# -- All of them -------------------------------------------------------------------------------------


def _count(output: Output, config: SessionConfig) -> int:
    assert config.store is not None
    if not config.store.lists:
        # Say so before anything is counted.
        config.store.ids()
    with output.progress("records looked at", config.store.count()) as bar:
        found = survey(config, progress=bar.advance)
    sizes = f"{size_of(found.size)}; the largest has {size_of(found.largest)}"
    output.line(f"{counted(found.live, 'session')} in {config.store.kind}, {sizes}", style="bold")
    output.bullets(
        f"{counted(number, noun)} {what}"
        for number, noun, what in (
            (found.ended, "record", "of expired sessions, not purged yet"),
            (found.moved, "id", "that a login or a logout has just left"),
            (found.indexes, "list", "of users' sessions"),
            (found.unreadable, "record", "not to be read with this site's options"),
        )
        if number
    )
    _histogram(output, "Last access", found.idle, span)
    _histogram(output, "Created", found.age, span)
    _histogram(output, "Size", found.sizes, size_of)
    output.result(_as_json(config.store.kind, found))
    return OK


def _histogram(output: Output, title: str, histogram: Histogram, text: Callable[[float], str]) -> None:
    names = [f"under {text(bound)}" for bound in histogram.bounds]
    names.append(f"{text(histogram.bounds[-1])} and more")
    most = max(histogram.counts) or 1
    mark = "█" if "utf" in (getattr(sys.stdout, "encoding", None) or "").lower() else "#"
    rows = [
        (name, f"{count:,}", mark * -(-_BAR * count // most))
        for name, count in zip(names, histogram.counts, strict=True)
    ]
    output.table((title, "Sessions", ""), rows, right={1})


def _as_json(kind: str, found: Survey) -> dict[str, Any]:
    result: dict[str, Any] = {"store": kind}
    for name, value in vars(found).items():
        is_histogram = isinstance(value, Histogram)
        result[name] = {"below": [*value.bounds, None], "sessions": value.counts} if is_histogram else value
    return result


# -- One of them -------------------------------------------------------------------------------------


def _show(output: Output, config: SessionConfig, handle: str, *, with_values: bool) -> int:
    found = _content_of(config, _ids_of(config, handle))
    if found is None:
        return _report_none(output)
    session_id, size, content = found
    now = config.clock()
    times = {
        "created": content.get(CREATED),
        "last_access": content.get(ACCESSED),
        "expires": _expires(config, content),
    }
    is_bound = LOGIN in content
    output.line(f"session {shown(session_id)} in {config.options.type}, {size_of(size)}", style="bold")
    rows = [(name.replace("_", " "), _when(at, now)) for name, at in times.items()]
    output.table(("Time", "When"), [*rows, ("of a user", "yes" if is_bound else "no")])
    values = {key: value for key, value in content.items() if key not in RESERVED_KEYS}
    columns = ("Key", "Type", "Value") if with_values else ("Key", "Type")
    output.table(columns, [(_plain(key), _type(value), _cut(value))[: len(columns)] for key, value in values.items()])
    if values and not with_values:
        output.line("The values are shown with --values.")
    keys = [
        {"key": key, "type": _type(value)} | ({"value": _cut(value)} if with_values else {})
        for key, value in values.items()
    ]
    output.result({"session": shown(session_id), "bytes": size, **times, "is_bound": is_bound, "keys": keys})
    return OK


def _end(output: Output, config: SessionConfig, handle: str) -> int:
    hexadecimal = _hexadecimal(handle)
    if hexadecimal:
        has_ended = UserIndex(config).revoke_one(hexadecimal)
    else:
        session_id = find_id(config, handle)
        has_ended = session_id is not None and SiteSessions(config).end(session_id)
    if not has_ended:
        return _report_none(output)
    output.line("The session has ended.")
    output.result({"ended": 1})
    return OK


def _report_none(output: Output) -> int:
    output.error("there is no such session: it has ended, expired or moved to a new id")
    return FOUND


def _ids_of(config: SessionConfig, handle: str) -> list[str]:
    """Return the ids that a handle names, or a part of an id."""
    hexadecimal = _hexadecimal(handle)
    if hexadecimal is None:
        session_id = find_id(config, handle)
        return [] if session_id is None else [session_id]
    return UserIndex(config).ids_named_by(hexadecimal)


def _content_of(config: SessionConfig, ids: Sequence[str]) -> tuple[str, int, dict[str, Any]] | None:
    """Return the id, the size and the content of the first live session; read without a trace."""
    assert config.store is not None
    for session_id in ids:
        record = config.store.read(session_id)
        if record is not None:
            content, _ = config.codec.decode(record.raw)
            if is_live(content, config.options, config.clock()):
                return session_id, len(record.raw), content
    return None


def _expires(config: SessionConfig, content: dict[str, Any]) -> float | None:
    """Return the time at which a session expires if nobody uses it; None if never."""
    options = config.options
    ends = [
        content[key] + seconds
        for key, seconds in (
            (ACCESSED, content.get(EXPIRY, options.timeout)),
            (CREATED, options.absolute_timeout),
        )
        if seconds and key in content
    ]
    return min(ends, default=None)


def _when(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    left = at - now
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return f"{text} (in {span(left)})" if left > 0 else f"{text} ({span(-left)} ago)"


def _type(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, (list, dict, tuple, set, str, bytes)) else ""
    return f"{type(value).__name__}{size}"


def _plain(text: str) -> str:
    """Return a text as a terminal may have it: without control characters."""
    return text if text.isprintable() else repr(text)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


# -- Those of a user ---------------------------------------------------------------------------------


def _check_user(user_id: str) -> None:
    try:
        user_text(user_id)
    except ValueError as error:
        raise click.UsageError(f"USER_ID: {error}") from None


def _list(output: Output, config: SessionConfig, user_id: str) -> int:
    found = UserIndex(config).sessions(user_id)
    now = config.clock()
    output.line(f"{counted(len(found), 'session')} of this user", style="bold")
    for session in found:
        output.line()
        output.line(_handle(session))
        output.line(f"  logged in {_when(session.created, now)}")
        output.line(f"  last seen {_when(session.last_seen, now)}")
        for key, value in (session.note or {}).items():
            output.line(f"  {_plain(key)}: {_plain(str(value))}")
    fields = ("created", "last_seen", "note")
    rows = [{"handle": _handle(session), **{name: getattr(session, name) for name in fields}} for session in found]
    output.result({"sessions": rows})
    return OK


def _end_all(output: Output, config: SessionConfig, user_id: str) -> int:
    number = UserIndex(config).revoke(user_id)
    output.line(f"{counted(number, 'session')} of this user ended.")
    output.result({"ended": number})
    return OK


def _handle(session: UserSession) -> str:
    """Return a handle as it is listed here: that of a user whose id is an address fits a line of 80 columns."""
    return base64.b64encode(bytes.fromhex(session.handle), _ALPHABETS_END).decode("ascii").rstrip("=")


def _hexadecimal(name: str) -> str | None:
    """Return a handle as the application has it; None if a session is named otherwise."""
    if PART.fullmatch(name) or HANDLE.fullmatch(name):
        return None if PART.fullmatch(name) else name
    if _SHORT_HANDLE.fullmatch(name):
        with suppress(ValueError):
            return base64.b64decode(name + "=" * (-len(name) % 4), _ALPHABETS_END).hex()
    return None
