"""``beaker-bridge check``: what is wrong with a site's sessions, what is risky, and the options that are in effect."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import click

from beaker_bridge.cli.command import Subcommand, open_site, site_arguments
from beaker_bridge.cli.effective import Effective, effective_options, option_text
from beaker_bridge.cli.findings import RISKY, WRONG, Finding, as_json, risks, settings_findings, worst
from beaker_bridge.cli.moving import changes
from beaker_bridge.cli.output import OK, Output
from beaker_bridge.cli.output import WRONG as WRONG_SETTINGS
from beaker_bridge.cli.starting import Started, start
from beaker_bridge.cli.trial import Trial, try_store
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.site.find import Site


@click.command(cls=Subcommand)
@click.option("--strict", is_flag=True, help="Exit with 1 if something is risky.")
@click.option("--cron", is_flag=True, help="Cron purges the store: purge_every is not asked for.")
@click.option("--start", "is_started", is_flag=True, help="Start the application, and look at the order of its tweens.")
@click.option("--from-pyramid-beaker", "is_old", is_flag=True, help="Say what a move from pyramid_beaker changes.")
@site_arguments
def check(
    output: Output, *, uri: str, variables: tuple[str, ...], strict: bool, cron: bool, is_started: bool, is_old: bool
) -> int:
    """Look for what is wrong, and what is risky, and show the options in effect.

    Exits with 2 if something is wrong, and with 1 if something is risky and --strict is given. One record is written
    into the site's store, under an id of its own, and removed.
    """
    site = open_site(output, uri, variables)
    if is_old:
        return _move(output, site)
    report = _Report(output, site)
    report.look(is_started=is_started, is_purged=cron)
    report.write()
    return worst(report.findings, strict=strict)


def _move(output: Output, site: Site) -> int:
    """Write what the move from pyramid_beaker changes, and return the exit code."""
    with output.collecting() as notices:
        found = changes(site, notices)
    output.line(f"{os.path.relpath(site.file)}: what a move from pyramid_beaker to beaker_bridge changes", style="bold")
    rows = [(change.option, change.changes, change.write) for change in found if change.is_change]
    output.table(("Option", "What changes", "Write"), rows)
    same = [change.option for change in found if not change.is_change]
    if same:
        output.line(f"Nothing changes for {', '.join(same)}.")
    output.line("The documentation has the steps, and what else differs: 'From pyramid_beaker'.")
    output.result({"file": site.file, "changes": [change._asdict() for change in found], "notes": site.notes})
    return WRONG_SETTINGS if any(change.is_needed for change in found) else OK


class _Report:
    """What is found out about one site.

    Args:
        output: where it is written.
        site: the site.
    """

    def __init__(self, output: Output, site: Site) -> None:
        self._output = output
        self._site = site
        self.findings: list[Finding] = []
        self._started: Started | None = None
        self._trial: Trial | None = None
        #: The options in effect; none if one of them is wrong.
        self._options: list[Effective] = []

    def look(self, *, is_started: bool, is_purged: bool) -> None:
        """Look at everything."""
        site = self._site
        with self._output.collecting() as notices:
            if is_started:
                self._started = start(site)
                site.adopt(self._started.options)
            self.findings += settings_findings(site, notices)
        if self._started:
            self.findings += self._started.findings
        # What raises here is among what was found.
        with suppress(SettingsError):
            self._options = list(effective_options(site))
            self.findings += risks(site, is_purged=is_purged)
        with suppress(SettingsError), self._output.collecting():
            self._trial = try_store(site.config)
        if self._trial:
            self.findings += self._trial.findings()

    # -- Writing it ----------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what was found."""
        output = self._output
        output.line(self._title(), style="bold")
        if self._options:
            self._write_options()
        self._write_regions()
        if self._started and self._started.tweens:
            output.line("Tweens, the outermost first: " + ", ".join(self._started.tweens))
            output.line()
        if self._trial:
            output.line(f"Store: {self._trial.text()}")
            output.line()
        for level, style in ((WRONG, "bold red"), (RISKY, "yellow")):
            texts = [finding.text for finding in self.findings if finding.level == level]
            if texts:
                output.line(f"{level.capitalize()}:", style=style)
                output.bullets(texts, style=style)
                output.line()
        output.line(self._summary())
        output.result(self._json())

    def _title(self) -> str:
        site = self._site
        by = f"the filter of {site.filter.package}" if site.filter else "the application's settings"
        return f"{os.path.relpath(site.file)}: sessions by {by}"

    def _write_options(self) -> None:
        rows = [(row.name, row.value, row.written or "default", row.default) for row in self._options if row.is_set]
        self._output.table(("Option", "Value", "From", "Default"), rows)
        self._output.line(f"Not set: {', '.join(row.name for row in self._options if not row.is_set)}")
        self._output.line()

    def _write_regions(self) -> None:
        rows = [
            (region["region"], region["type"], option_text(region["expire"]), region["fault"] or "")
            for region in self._regions()
        ]
        if rows:
            self._output.table(("Cache region", "Type", "Seconds", "Fault"), rows, right={2})
            self._output.line()

    def _regions(self) -> list[dict[str, Any]]:
        try:
            return [
                {
                    "region": region.options.region,
                    "type": region.options.type,
                    "expire": region.options.expire,
                    "fault": region.fault and region.fault.message,
                }
                for region in self._site.regions
            ]
        except SettingsError:
            return []

    def _summary(self) -> str:
        wrong = sum(finding.level == WRONG for finding in self.findings)
        risky = sum(finding.level == RISKY for finding in self.findings)
        return f"{wrong} wrong, {risky} risky" if wrong or risky else "Nothing is wrong, and nothing is risky."

    def _json(self) -> dict[str, Any]:
        site = self._site
        return {
            "file": site.file,
            "filter": site.filter.package if site.filter else None,
            "options": {row.name: row._asdict() for row in self._options},
            "regions": self._regions(),
            "tweens": self._started.tweens if self._started else None,
            "store": self._trial._asdict() if self._trial else None,
            "findings": as_json(self.findings),
            "notes": site.notes,
        }
