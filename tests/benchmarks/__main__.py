"""``python -m tests.benchmarks``: run the benchmark, and print what was found."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import instructions, measures
from tests.benchmarks.backends import BACKENDS, Backend
from tests.benchmarks.contestants import INSTALLED, NONE, OPERATIONS
from tests.benchmarks.tables import instruction_tables, tables
from tests.benchmarks.targets import instruction_targets, targets
from tests.machine import MissingError

#: How many rounds there are; how many repetitions of what takes long by itself.
ROUNDS, REPETITIONS = 60, 5
#: The backends of which the million of stored sessions, and the threads, are measured.
STORED, THREADED = ("file", "sqlite", "redis"), "redis"


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for."""
    choices = _parser().parse_args(arguments)
    # Beaker and Pyramid warn of what is not ours to mend; a log line is no part of a request's cost.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    report, lines = _counted(choices) if choices.instructions else _timed(choices)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if choices.json:
        Path(choices.json).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _counted(choices: argparse.Namespace) -> tuple[dict[str, Any], Iterable[str]]:
    """Count instructions; return the report, and its lines."""
    backends = [name for name in choices.backends if name in instructions.BACKENDS]
    rows = instructions.instructions(choices.contestants, backends, choices.operations, choices.seeds)
    report = {"versions": measures.versions(), "seeds": choices.seeds, "instructions": rows}
    report |= {"targets": [target.told() for target in instruction_targets(report)]}
    return report, instruction_tables(report)


def _timed(choices: argparse.Namespace) -> tuple[dict[str, Any], Iterable[str]]:
    """Measure times; return the report, and its lines."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as root, ExitStack() as running:
        folder = measures.folder_of(Path(root))
        opened = [running.enter_context(backend) for backend in _available(choices.backends, folder)]
        report = _report(opened, choices, folder)
    return report, tables(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="where the report is written to")
    parser.add_argument("--stored", action="store_true", help="also with 1,000 and 1,000,000 stored sessions")
    parser.add_argument("--threads", action="store_true", help="also with 1 to 32 threads on one Redis")
    counting = parser.add_argument_group("instructions, instead of times")
    counting.add_argument("--instructions", action="store_true", help="of memory and cookie, by valgrind")
    installed = [name for name in INSTALLED if name != NONE]
    counting.add_argument("--contestants", nargs="+", choices=installed, default=installed, metavar="NAME")
    counting.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS, metavar="NAME")
    counting.add_argument("--seeds", type=int, default=instructions.SEEDS, help="runs (default: %(default)s)")
    return parser


def _available(names: Sequence[str], folder: Any) -> list[Backend]:
    """Return the backends whose servers are on this machine, and tell which are not."""
    found = []
    for name in names:
        try:
            found.append(BACKENDS[name](folder()))
        except MissingError as error:
            sys.stderr.write(f"{name} is left out: {error}\n")
    return found


def _report(opened: Sequence[Backend], choices: argparse.Namespace, folder: Any) -> dict[str, Any]:
    report: dict[str, Any] = {
        "versions": measures.versions(),
        "rounds": choices.rounds,
        "backends": [backend.name for backend in opened],
        "import": measures.import_time(3 * REPETITIONS),
        "memory": measures.memory(),
    }
    parts: dict[str, list[Any]] = {"costs": [], "sizes": [], "stored": [], "threads": [], "counts": []}
    for backend in opened:
        parts["costs"] += _told(backend, measures.operation_costs(backend, choices.rounds))
        parts["sizes"] += _told(backend, measures.size_costs(backend, choices.rounds))
        if choices.threads and backend.name == THREADED:
            parts["threads"] += _told(backend, measures.throughputs(backend, REPETITIONS))
        if choices.stored and backend.name in STORED:
            fresh = partial(_opened, type(backend), folder)
            parts["stored"] += _told(backend, measures.stored_costs(fresh, choices.rounds))
    # To count slows down whatever comes after it.
    for backend in opened:
        parts["counts"] += _told(backend, measures.counts(backend))
    report |= parts
    return report | {"targets": [target.told() for target in targets(report)]}


def _opened(backend_class: type[Backend], folder: Any) -> Backend:
    return backend_class(folder())


def _told(backend: Backend, rows: Any) -> list[Any]:
    sys.stderr.write(f"{backend.name} …\n")
    return list(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
