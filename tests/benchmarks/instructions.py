"""What a request costs in instructions, which do not depend on how busy the machine is.

``tox -e bench -- --instructions`` counts all of it, in a minute or two. While you work on one thing, count that alone,
from the checkout's sources, in ten seconds::

    python -m tests.benchmarks --instructions --contestants filter --backends memory --operations write --seeds 1

Contestants are ``filter`` (our filter, and the include), ``included`` (without the filter), ``factory`` (the session
factory alone), ``least`` (the least possible) and ``pyramid_beaker``; backends ``memory`` and ``cookie`` (the others'
cost is the kernel's and a server's); operations ``untouched``, ``read`` and ``write``. The figures are over the same
request to an application without a session and without this package, which is always counted, too.

As a program (``python -m tests.benchmarks.instructions``) this is what valgrind runs.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby, product
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks import backends
from tests.benchmarks.content import SMALL, contents_of
from tests.benchmarks.contestants import INSTALLED, NONE, Browser
from tests.benchmarks.valgrind import count, repeat_in_children

#: The backends that are this process alone.
BACKENDS = ("memory", "cookie")
#: How many requests are sent, and in another child twice as many.
REQUESTS = 100
#: How many runs there are, each with another seed of Python's hashes; their median counts. Where objects lie decides
#: which of them collide in a dict: runs differ by 2 %.
SEEDS = 3


class Case(NamedTuple):
    """What is counted: who answers which request, over which backend."""

    backend: str
    contestant: str
    operation: str


def instructions(
    contestants: Sequence[str], backends: Sequence[str], operations: Sequence[str], seeds: int = SEEDS
) -> list[dict[str, Any]]:
    """Return a row for each case: its instructions over those of the application without a session.

    Args:
        contestants: who answers, of :data:`INSTALLED`.
        backends: where the sessions are, of :data:`BACKENDS`.
        operations: what the requests do.
        seeds: how many runs there are.

    Raises:
        MissingError: valgrind is not there.
    """
    cases = [Case(*words) for words in product(backends, [NONE, *contestants], operations)]
    command = ["-W", "ignore", "-m", __name__, json.dumps(cases)]
    runs = [{Case(*name): found for name, found in count(command, seed)} for seed in range(1, seeds + 1)]
    return [
        {**case._asdict(), "instructions": round(statistics.median(_over_none(case, run) for run in runs))}
        for case in cases
    ]


def _over_none(case: Case, found: Mapping[Case, float]) -> float:
    """Return what a case takes over the application without a session; of that one itself, all that it takes."""
    return found[case] if case.contestant == NONE else found[case] - found[case._replace(contestant=NONE)]


def _run(cases: Sequence[Case], folder: Path) -> None:
    """Send the requests of all cases, in the program that valgrind runs."""
    with ExitStack() as running:
        for name, of_backend in groupby(cases, attrgetter("backend")):
            backend = running.enter_context(backends.BACKENDS[name](folder))
            for contestant, of_contestant in groupby(of_backend, attrgetter("contestant")):
                app = INSTALLED[contestant](backend, contents_of(SMALL))
                for case in of_contestant:
                    repeat_in_children(case, lambda app=app, case=case: Browser(app, case.operation), REQUESTS)


if __name__ == "__main__":
    # Beaker and Pyramid warn of what is not ours to mend; a log line is no part of a request's cost.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as root:
        _run([Case(*words) for words in json.loads(sys.argv[1])], Path(root))
