"""The rules of a site's settings, wrong and risky: each one once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from beaker_bridge.cli.hosting import https_hint, processes_hint
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import COOKIE, DATABASE, DBM, FILE, MEMCACHED, MEMORY, SQLA
from beaker_bridge.pyramid.source import ignored_settings
from beaker_bridge.site.find import Site

#: The levels: the site does not start, or does not work; it works, and may be attacked or fill up.
WRONG, RISKY = "wrong", "risky"
#: The types whose stores keep what has expired, until it is purged.
PURGED = (FILE, DBM, DATABASE, SQLA)
#: The types whose sessions end by themselves: with the process, with the browser, or when memory is short.
_EMPTYING = (MEMORY, COOKIE, MEMCACHED)
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_hex(32))"'


class Finding(NamedTuple):
    """Something that is wrong, or risky."""

    level: str
    #: The rule's name, for programs.
    rule: str
    text: str


def settings_findings(site: Site, notices: list[logging.LogRecord]) -> list[Finding]:
    """Read all options, and return what the readers find.

    Args:
        site: the site.
        notices: takes what the package logs meanwhile.
    """
    readers: list[Callable[[], object]] = [lambda: site.config, lambda: site.regions]
    if site.filter is not None:
        readers.insert(1, lambda: site.own_options)
    found: list[Finding] = []
    for read in readers:
        try:
            read()
        except SettingsError as error:
            found += [Finding(WRONG, "settings", str(each)) for each in error.errors]
    unusable = _unusable_regions(site)
    for notice in notices:
        text = notice.getMessage()
        is_wrong = notice.levelno >= logging.ERROR or any(text.startswith(each) for each in unusable)
        found.append(Finding(WRONG if is_wrong else RISKY, "notice", text))
    return found


def _unusable_regions(site: Site) -> list[str]:
    """Return what is wrong with regions whose first use raises an error, as their notices begin."""
    try:
        return [
            region.fault.message.partition(" is required: ")[2] or region.fault.message
            for region in site.regions
            if region.fault
        ]
    except SettingsError:
        return []


def risks(site: Site, *, is_purged: bool) -> Iterator[Finding]:
    """Yield what is risky about valid options.

    Args:
        site: the site.
        is_purged: whether something else, such as cron, purges the store.
    """
    options = site.options
    for rule in (_secret, _workers, _https, _pickle, _lifetime):
        yield from rule(site, options)
    ends = options.timeout or options.absolute_timeout
    if options.type in PURGED and ends and not (options.purge_every or is_purged):
        text = (
            f"{options.label('purge_every')} is not set: expired sessions stay in the store {options.type}; set it to"
            " a number of seconds such as 3600, or have cron run beaker-bridge purge, and say so with --cron"
        )
        yield Finding(RISKY, "no-purge", text)
    if site.filter is not None and site.own_options is not None:
        yield from _ignored(ignored_settings(options, site.own_options))


def _secret(_site: Site, options: SessionOptions) -> Iterator[Finding]:
    if options.type != COOKIE and options.use_cookies and not options.secret:
        text = (
            f"{options.label('secret')} is not set: the cookie is not signed, and request.session.bind() raises;"
            f" write what this prints: {_MAKE_ONE}"
        )
        yield Finding(RISKY, "no-secret", text)


def _workers(site: Site, options: SessionOptions) -> Iterator[Finding]:
    hint = processes_hint(site)
    if options.type == MEMORY and not options.namespace_class and hint:
        text = (
            f"{options.label('type')} = memory, and {hint}: each process has sessions of its own, so they come and go;"
            " take a store that all processes share"
        )
        yield Finding(RISKY, "memory-with-processes", text)


def _https(site: Site, options: SessionOptions) -> Iterator[Finding]:
    hint = https_hint(site)
    if options.secure is False and hint:
        text = (
            f"{options.label('secure')} = false, and {hint} says that the site is behind https: the cookie also travels"
            f" over http; set {options.label('secure')} to true, or remove it"
        )
        yield Finding(RISKY, "not-secure", text)


def _pickle(_site: Site, options: SessionOptions) -> Iterator[Finding]:
    for name in ("data_serializer", "legacy_serializer"):
        if getattr(options, name) == "pickle":
            text = (
                f"{options.label(name)} = pickle: who can write into the store can run code in the application"
                " (CVE-2013-7489); move to json step by step: the documentation's 'From pyramid_beaker' says how"
            )
            yield Finding(RISKY, "pickle", text)


def _lifetime(_site: Site, options: SessionOptions) -> Iterator[Finding]:
    if options.type not in _EMPTYING and not (options.timeout or options.absolute_timeout):
        text = (
            f"{options.label('timeout')} is not set: a session never expires, and the store {options.type} only grows;"
            " set it, in seconds, or absolute_timeout"
        )
        yield Finding(RISKY, "no-timeout", text)


def _ignored(names: list[str]) -> Iterator[Finding]:
    if names:
        text = (
            "a filter configures the session, and the settings' own session options are ignored where they differ:"
            f" {', '.join(names)}; remove them there, or write them into the filter's section"
        )
        yield Finding(RISKY, "filter-and-settings", text)


def worst(findings: Iterable[Finding], *, strict: bool) -> int:
    """Return the exit code for what was found.

    Args:
        findings: what was found.
        strict: whether what is risky counts.
    """
    levels = {finding.level for finding in findings}
    if WRONG in levels:
        return 2
    return 1 if strict and RISKY in levels else 0


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return what was found, for JSON."""
    return [finding._asdict() for finding in findings]
