"""``beaker-bridge migrate``: copy the live sessions of one site's store to another one's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

import click

from beaker_bridge.cli.command import Subcommand, open_site
from beaker_bridge.cli.output import FOUND, OK, Output, Progress
from beaker_bridge.session.journal import Journal
from beaker_bridge.session.migrate import END, Migrated, migrate, notes
from beaker_bridge.site.find import Site
from beaker_bridge.stores.base import BATCH, Store

if TYPE_CHECKING:
    from typing_extensions import Self

#: The end of the name of the journal, behind that of the new site's file.
JOURNAL = ".migrated"


@click.command(cls=Subcommand, name="migrate")
@click.option("--from", "old_uri", metavar="FILE", required=True, help="The site as it is, its .ini.")
@click.option("--to", "new_uri", metavar="FILE", required=True, help="The site as it will be, its .ini.")
@click.option("--journal", metavar="PATH", help=f"Where to note what was copied; by default the new FILE{JOURNAL}.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=BATCH, show_default=True, help="Records that are read at once."
)
@click.argument("variables", metavar="[NAME=VALUE]...", nargs=-1)
def migrate_command(
    output: Output, *, old_uri: str, new_uri: str, journal: str | None, batch: int, variables: tuple[str, ...]
) -> int:
    """Copy live sessions to another store, or serializer, while the site runs on the old one.

    Ids and expiries stay, so cookies stay valid. Run it again, also after the switch: a run copies what has changed,
    ends what has ended, and leaves what the new site has written. At the end each session is read back. Exits with 1
    if something could not be converted.
    """
    old, new = (open_site(output, uri, variables) for uri in (old_uri, new_uri))
    for note in notes(old.options, new.options):
        output.note(note)
    done = Migrated()
    with Journal(journal or _journal_of(new)) as noted, _Stages(output, old, new) as stages:
        try:
            migrate(old.config, new.config, noted, batch=batch, progress=stages.count, done=done)
        except KeyboardInterrupt:
            output.note(f"{done.copied:,} sessions were copied so far; run it again for the others")
            raise
    output.line(f"From {old.options.type} ({old_uri}) to {new.options.type} ({new_uri})", style="bold")
    _report(output, done, noted.path, is_listed=_store_of(new).lists)
    return OK if done.is_complete else FOUND


def _journal_of(site: Site) -> str:
    _, _, name = site.uri.partition("#")
    return f"{site.file}{f'.{name}' if name else ''}{JOURNAL}"


def _store_of(site: Site) -> Store:
    store = site.config.store
    assert store is not None
    return store


class _Stages:
    """The progress of each stage.

    Args:
        output: where it is written.
        old: the old site.
        new: the new site.
    """

    def __init__(self, output: Output, old: Site, new: Site) -> None:
        self._output = output
        self._old, self._new = old, new
        self._open = ExitStack()
        self._stage = ""
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def count(self, stage: str, steps: int) -> None:
        """Count a batch of a stage."""
        if stage != self._stage or self._bar is None:
            self._open.close()
            total = _store_of(self._new if stage == END else self._old).count()
            self._bar = self._open.enter_context(self._output.progress(stage, total))
            self._stage = stage
        self._bar.advance(steps)


def _report(output: Output, done: Migrated, journal: str, *, is_listed: bool) -> None:
    rows = [
        ("copied", done.copied),
        ("copied by an earlier run, and still the same", done.same),
        ("left, since the new site has used them", done.newer),
        ("not copied again, since they ended at the new site", done.ended_there),
        ("ended at the old site since, and deleted", done.ended),
        ("expired or ended before", done.expired),
        ("read back, and as they should be", done.verified),
        ("read back, and not as they should be", done.different),
        ("not converted", done.refused.total()),
        ("not readable in the old store", done.unreadable.total()),
        ("refused by the new store", done.failed),
        ("lists of users' sessions left behind", done.indexes),
    ]
    output.table(("Records", "Number"), [(name, f"{number:,}") for name, number in rows if number], right={1})
    _name_refused(output, done)
    if done.ended_there:
        output.note(
            f"{done.ended_there:,} sessions were copied before, and are no longer in the new store: they ended there."
            f" If it was emptied, delete {journal} and run it again"
        )
    if not is_listed:
        output.note("the new store cannot list its sessions: those that end at the old site stay until they expire")
    output.result(
        {
            **{name: value for name, value in vars(done).items() if isinstance(value, int)},
            "refused": [{"key": key, "type": kind, "sessions": count} for (key, kind), count in done.refused.items()],
            "unreadable": [{"reason": reason, "records": count} for reason, count in done.unreadable.items()],
            "complete": done.is_complete,
        }
    )


def _name_refused(output: Output, done: Migrated) -> None:
    """Write what could not be converted, by its key and its type, and why records could not be read."""
    refused: Sequence[tuple[str, str, str]] = [
        ("(the session)" if key is None else repr(key), kind, f"{count:,}")
        for (key, kind), count in done.refused.most_common()
    ]
    if refused:
        output.table(("Key", "Type that the new site cannot store", "Sessions"), refused, right={2})
    unreadable = [(reason, f"{count:,}") for reason, count in done.unreadable.most_common()]
    if unreadable:
        output.table(("Why a record of the old store cannot be read", "Records"), unreadable, right={1})
