"""``beaker-bridge purge``: delete expired sessions, and what killed processes have left."""

from __future__ import annotations

import click

from beaker_bridge.cli.command import Subcommand, open_site, site_arguments
from beaker_bridge.cli.output import OK, Output, Progress
from beaker_bridge.cli.words import counted, duration
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.purge import Purged, purge
from beaker_bridge.stores.base import BATCH
from beaker_bridge.stores.memory import MemoryStore


@click.command(cls=Subcommand, name="purge")
@click.option(
    "--older-than",
    callback=duration,
    metavar="DURATION",
    help="Also end sessions without a request for so long: seconds, or as in 12h and 30d.",
)
@click.option("--dry-run", is_flag=True, help="Delete nothing, and only count.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=BATCH, show_default=True, help="Records that are deleted at once."
)
@site_arguments
def purge_command(
    output: Output, *, uri: str, variables: tuple[str, ...], older_than: int | None, dry_run: bool, batch: int
) -> int:
    """Delete expired sessions from files, dbm files and SQL, while the site runs.

    A session that a request has just renewed stays. What killed processes have left goes, too: unfinished files, and
    lock files and rows that nobody holds.
    """
    config = open_site(output, uri, variables).config
    reason = _why_not(config)
    if reason:
        output.line(reason)
        output.result({"store": config.options.type, "seen": 0, "deleted": 0, "swept": 0, "note": reason})
        return OK
    assert config.store is not None
    with output.progress("records looked at", config.store.count()) as bar:
        run = _Run(bar)
        try:
            done = purge(config, older_than=older_than, dry_run=dry_run, batch=batch, progress=run.count)
        except ValueError as error:
            raise click.UsageError(f"--older-than: {error}") from None
        except KeyboardInterrupt:
            output.note(f"{run.done.deleted:,} were deleted so far; run it again for the others")
            raise
    _report(output, config, done, dry_run=dry_run)
    return OK


class _Run:
    """The numbers of a purge so far.

    Args:
        bar: the progress.
    """

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self.done = Purged()

    def count(self, done: Purged) -> None:
        """Count a batch."""
        self._bar.advance(done.seen - self.done.seen)
        self.done = done


def _why_not(config: SessionConfig) -> str | None:
    """Return a sentence about a store that needs no purge; None about another one."""
    options = config.options
    label = f"{options.label('type')} = {options.type}"
    if config.store is None:
        return f"{label}: the sessions are in the browsers, there is nothing to purge."
    if isinstance(config.store, MemoryStore):
        return f"{label}: the sessions are in the site's own process, which drops expired ones as new ones come."
    if config.store.expires_by_itself:
        return f"{label}: the server removes expired sessions by itself, there is nothing to purge."
    return None


def _report(output: Output, config: SessionConfig, done: Purged, *, dry_run: bool) -> None:
    verb = "would be deleted" if dry_run else "deleted"
    output.line(f"{done.deleted:,} of {counted(done.seen, 'record')} {verb}: their sessions have expired, or ended.")
    if done.swept:
        verb = "would be removed" if dry_run else "removed"
        output.line(f"{counted(done.swept, 'lock or temporary file')} (or rows) of killed processes {verb}.")
    if done.unreadable:
        output.note(
            f"{counted(done.unreadable, 'record')} cannot be read with this site's options, and stay: damaged, or"
            " another configuration's"
        )
    output.result({"store": config.options.type, "dry_run": dry_run, **done._asdict()})
