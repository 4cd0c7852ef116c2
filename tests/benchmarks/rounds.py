"""Times in interleaved rounds: what a busy machine does to one contestant, it does to all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import NamedTuple

#: Seconds of one contestant's turn in a round: short, so that a round sees one state of the machine.
TURN = 0.004
MICROSECONDS = 1e6


class Cost(NamedTuple):
    """What something takes in µs: the median of the rounds, their quartiles, and the least of them."""

    median: float
    lower: float
    upper: float
    least: float

    @classmethod
    def of(cls, times: list[float]) -> Cost:
        lower, median, upper = statistics.quantiles(times, n=4)
        return cls(*(round(time, 3) for time in (median, lower, upper, min(times))))


def rounds(contestants: Mapping[str, Callable[[], object]], number: int) -> dict[str, list[float]]:
    """Return for each contestant its time in each round, in µs.

    Args:
        contestants: what is timed, by name.
        number: how many rounds there are.
    """
    turns = {name: _repetitions(action) for name, action in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    gc.collect()
    gc.freeze()
    for _ in range(number):
        # Each one follows each other one in turn: nobody always finds the caches as the same one left them.
        names = names[1:] + names[:1]
        for name in names:
            times[name].append(_turn(contestants[name], turns[name]) * MICROSECONDS)
    gc.unfreeze()
    return times


def _turn(action: Callable[[], object], repetitions: int) -> float:
    # The collector's long pauses would hit whoever's turn it is.
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        for _ in repeat(None, repetitions):
            action()
        return (time.perf_counter() - began) / repetitions
    finally:
        gc.enable()


def _repetitions(action: Callable[[], object]) -> int:
    """Return how many times something is done in a turn, after it is warm."""
    for repetitions in (1, 10):
        took = _turn(action, repetitions)
    return max(1, round(TURN / took))


def costs(times: dict[str, list[float]], base: str) -> dict[str, Cost]:
    """Return what each contestant takes over the base, compared within each round."""
    return {
        name: Cost.of([one - other for one, other in zip(found, times[base], strict=True)])
        for name, found in times.items()
        if name != base
    }
