"""The output of a subcommand: tables and lines, or one JSON object, on stdout; notes, progress and errors on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich import box, progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beaker_bridge.logs import forget

#: The exit codes: fine; something was found, or only a part was done; wrong use, wrong settings, or a store that
#: cannot be reached; interrupted.
OK, FOUND, WRONG, INTERRUPTED = 0, 1, 2, 130
#: The width of what is no terminal, in columns.
WIDTH = 80
#: Seconds between two lines about progress, where no bar can be drawn.
INTERVAL = 5.0

log = logging.getLogger("beaker_bridge")


class Output:
    """The streams of one subcommand.

    Args:
        as_json: write one JSON object to stdout, and no table or line.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        for stream in (sys.stdout, sys.stderr):
            # A terminal, or a pipe, may have another encoding than UTF-8.
            with suppress(AttributeError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # pytest's streams have none
        #: Whether the last line was blank.
        self._is_blank = True
        self._collected: list[logging.LogRecord] | None = None
        self._out, self._err = (_console(stderr=stderr) for stderr in (False, True))

    # -- Results, on stdout --------------------------------------------------------------------------

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line, wrapped to the width; nothing with ``--json``.

        Args:
            text: the line.
            style: the style on a terminal, as rich names it.
        """
        if not self.as_json:
            self._write(Text(text, style=style))

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", right: Collection[int] = ()
    ) -> None:
        """Write a table that fits the width; nothing with ``--json``.

        Args:
            columns: the headings.
            rows: the cells of each row.
            title: a line over it.
            right: the numbers of the columns that are aligned to the right, from 0.
        """
        if self.as_json:
            return
        table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
        for number, column in enumerate(columns):
            justify: Any = "right" if number in right else "left"
            table.add_column(column, justify=justify, overflow="fold", no_wrap=number == 0)
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._write(table)

    def bullets(self, texts: Iterable[str], style: str = "") -> None:
        """Write a list, each item wrapped under its bullet; nothing with ``--json``."""
        if self.as_json:
            return
        grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        for text in texts:
            grid.add_row(Text("*", style=style), Text(text, overflow="fold"))
        self._write(grid)

    def _write(self, what: Any) -> None:
        """Write a line, a table or a list, without the spaces with which rich fills the width, or two blank lines."""
        with self._out.capture() as captured:
            self._out.print(what)
        for line in map(str.rstrip, captured.get().splitlines()):
            if line or not self._is_blank:
                sys.stdout.write(f"{line}\n")
            self._is_blank = not line

    def result(self, result: Mapping[str, Any]) -> None:
        """Write the JSON object; nothing without ``--json``."""
        if self.as_json:
            sys.stdout.write(json.dumps(result, indent=2, default=str) + "\n")

    # -- Notes and errors, on stderr -----------------------------------------------------------------

    def note(self, text: str) -> None:
        """Write a note to stderr."""
        self._err.print(Text(f"note: {text}"), soft_wrap=True)

    def error(self, text: str) -> None:
        """Write an error to stderr, and as the JSON object with ``--json``."""
        self._err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
        self.result({"error": text})

    @contextmanager
    def collecting(self) -> Iterator[list[logging.LogRecord]]:
        """Yield the list of the package's own warnings, which are not written meanwhile; also those logged before."""
        forget()
        collected: list[logging.LogRecord] = []
        before, self._collected = self._collected, collected
        try:
            yield collected
        finally:
            self._collected = before

    def take(self, record: logging.LogRecord) -> None:
        """Take a warning of the package's own."""
        if self._collected is None:
            self.note(record.getMessage())
        else:
            self._collected.append(record)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Write the package's own warnings as notes, meanwhile."""
        handler = _NoteHandler(self)
        log.addHandler(handler)
        before, log.propagate = log.propagate, False
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.propagate = before

    # -- Progress, on stderr -------------------------------------------------------------------------

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Progress]:
        """Show how far something is: a bar with rate and time left on a terminal, a line now and then elsewhere.

        Args:
            what: what is counted, such as ``sessions read``.
            total: how many there will be, if that is known.
        """
        if not self._err.is_terminal:
            lines = Progress(self, what, total)
            try:
                yield lines
            finally:
                lines.write()
            return
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[done]}"),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._err) as bars:
            yield _Bar(self, what, total, bars)


class Progress:
    """How far something is, in lines.

    Args:
        output: where they are written.
        what: what is counted.
        total: how many there will be, or None.
    """

    def __init__(self, output: Output, what: str, total: int | None) -> None:
        self._output = output
        self._what = what
        self._total = total
        self._began = self._last = time.monotonic()
        self.done = 0

    def advance(self, steps: int = 1) -> None:
        """Count what was done."""
        self.done += steps
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._last = now
            self.write()

    @property
    def rate(self) -> float:
        """How many were done in a second."""
        return self.done / max(time.monotonic() - self._began, 1e-9)

    def text(self) -> str:
        """Return the count, of how many, and the rate."""
        total = "" if self._total is None else f" of {self._total:,}"
        return f"{self.done:,}{total} ({self.rate:,.0f} a second)"

    def write(self) -> None:
        """Write a line, with the time that is left where it is known."""
        left = ""
        if self._total is not None and self.done:
            seconds = max(self._total - self.done, 0) / self.rate
            left = f", {seconds:.0f} seconds left" if seconds else ""
        self._output.note(f"{self._what}: {self.text()}{left}")


class _Bar(Progress):
    """How far something is, as a bar on a terminal."""

    def __init__(self, output: Output, what: str, total: int | None, bars: progress.Progress) -> None:
        super().__init__(output, what, total)
        self._bars = bars
        self._task = bars.add_task(what, total=total, done="")

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        self._bars.update(self._task, completed=self.done, done=self.text())


class _NoteHandler(logging.Handler):
    """Hands over what is logged."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.take(record)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def close_quietly() -> None:
    """Have nothing more written to a pipe whose reader has gone, also when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
