"""The targets, each a ratio or difference of figures of one run, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from tests.benchmarks.content import LARGE, MIDDLE, SIZES, SMALL
from tests.benchmarks.contestants import (
    FACTORY,
    FILTER,
    FILTERED,
    INCLUDED,
    LEAST,
    LEAST_POSSIBLE,
    OURS,
    PYRAMID_BEAKER,
    READ,
    UNTOUCHED,
    WRITE,
)
from tests.benchmarks.measures import FEW, JSON, MANY

#: How much a request without a session may take over the view without this package, in µs, and over Beaker's filter.
UNTOUCHED_OVER_NONE, UNTOUCHED_OVER_FILTER = 1.5, 0.5
#: What ours may take, as a multiple of what another contestant takes.
RATIOS = {
    READ: {
        "memory": (LEAST, 1.2),
        "cookie": (LEAST, 1.2),
        "file": (LEAST, 1.15),
        "redis": (LEAST, 1.1),
        "sqlite": (PYRAMID_BEAKER, 0.35),
        "postgresql": (PYRAMID_BEAKER, 0.35),
        "memcached": (PYRAMID_BEAKER, 0.6),
    },
    WRITE: {
        "memory": (LEAST, 1.5),
        "cookie": (LEAST, 1.5),
        "file": (LEAST, 1.2),
        "redis": (LEAST, 1.2),
        "sqlite": (PYRAMID_BEAKER, 0.5),
        "postgresql": (PYRAMID_BEAKER, 0.5),
        "memcached": (PYRAMID_BEAKER, 1.0),
    },
}
#: What ours takes in instructions at most, as a multiple of what the least possible takes, behind our filter; and how
#: much more where it is installed in another way.
INSTRUCTIONS = {READ: 1.2, WRITE: 1.75}
INSTALLATIONS = {FILTERED: 1, INCLUDED: 1.15, FACTORY: 1.25}
#: What a request does at most, by the operation that stands for a round trip there.
TRIPS = {
    READ: {"redis": ("round trip", 1), "sqlite": ("SELECT", 1), "postgresql": ("SELECT", 1), "memcached": ("get", 1)},
    WRITE: {"redis": ("round trip", 2), "file": ("rename", 1)},
}
#: What a larger session's cost grows by, as a multiple of what JSON's grows by: as much, and the tenth by which
#: two runs differ.
GROWTH = 1.1
#: What a request costs where a million sessions are stored, as a multiple of what it costs with a thousand.
STORED = 1.2
#: What threads gain ours, as a multiple of what they gain the plain client: less is worse.
THREADS = 0.9
IMPORT_MS = 15
MEMORY_BYTES = 2048

Report = dict[str, Any]


class Target(NamedTuple):
    """A target: what it is about, the figure that was found, and the most (or least) that it may be."""

    name: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps to the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def told(self) -> dict[str, Any]:
        """Return it as the report holds it."""
        return {**self._asdict(), "measured": round(self.measured, 3), "met": self.met}


def targets(report: Report) -> list[Target]:
    """Return the targets that a report has figures for."""
    return [
        target
        for part in (_untouched, _ratios, _counts, _sizes, _stored, _threads, _process)
        for target in part(report)
    ]


def instruction_targets(report: Report) -> list[Target]:
    """Return the targets that a report on instructions has figures for."""
    count = _finder(report["instructions"], itemgetter("instructions"), "backend", "operation", "contestant")
    found = []
    for row in report["instructions"]:
        backend, operation, contestant = row["backend"], row["operation"], row["contestant"]
        least = count((backend, operation, LEAST_POSSIBLE))
        if least and operation in INSTRUCTIONS and contestant in INSTALLATIONS:
            name = f"{operation}, {backend}, {contestant}: instructions to {LEAST}"
            limit = INSTRUCTIONS[operation] * INSTALLATIONS[contestant]
            found.append(Target(name, row["instructions"] / least, round(limit, 4)))
    return found


def _finder(rows: list[dict[str, Any]], figure: Callable[[dict[str, Any]], float], *keys: str):
    """Return what finds the figure of a row by the row's keys; nothing, where there is no such row."""
    return {tuple(row[key] for key in keys): figure(row) for row in rows}.get


def _costs(report: Report):
    return _finder(report["costs"], lambda row: row["us"]["median"], "backend", "operation", "size", "contestant")


def _untouched(report: Report) -> Iterator[Target]:
    cost = _costs(report)
    for backend in report["backends"]:
        found, filtered = (cost((backend, UNTOUCHED, SMALL, name)) for name in (OURS, FILTER))
        yield Target(f"untouched, {backend}: µs over no session", found, UNTOUCHED_OVER_NONE)
        yield Target(f"untouched, {backend}: µs over Beaker's filter", found - filtered, UNTOUCHED_OVER_FILTER)


def _ratios(report: Report) -> Iterator[Target]:
    cost = _costs(report)
    for operation, limits in RATIOS.items():
        for backend in report["backends"]:
            other, limit = limits[backend]
            ratio = cost((backend, operation, SMALL, OURS)) / cost((backend, operation, SMALL, other))
            yield Target(f"{operation}, {backend}: ratio to {other}", ratio, limit)


def _counts(report: Report) -> Iterator[Target]:
    found = {(row["backend"], row["operation"]): row for row in report["counts"] if row["contestant"] == OURS}
    for (backend, operation), row in found.items():
        if operation == UNTOUCHED:
            yield Target(f"untouched, {backend}: operations of the store", sum(row["operations"].values()), 0)
        if operation in (UNTOUCHED, READ):
            yield Target(f"{operation}, {backend}: cookies", row["cookies"], 0)
        if backend in TRIPS.get(operation, ()):
            name, limit = TRIPS[operation][backend]
            yield Target(f"{operation}, {backend}: {name}s", row["operations"].get(name, 0), limit)


def _sizes(report: Report) -> Iterator[Target]:
    cost = _finder(report["sizes"], lambda row: row["us"]["median"], "backend", "operation", "size", "contestant")
    for operation in (READ, WRITE):
        for backend in report["backends"]:
            for smaller, larger in ((SMALL, MIDDLE), (MIDDLE, LARGE)):
                ours, json = (
                    (cost((backend, operation, larger, name)), cost((backend, operation, smaller, name)))
                    for name in (OURS, JSON)
                )
                if ours[0] is not None:
                    growth = (ours[0] / ours[1]) / (json[0] / json[1])
                    name = f"{operation}, {backend}: {SIZES[smaller]} to {SIZES[larger]}, growth to JSON's"
                    yield Target(name, growth, GROWTH)


def _stored(report: Report) -> Iterator[Target]:
    cost = _finder(report["stored"], lambda row: row["us"]["median"], "backend", "operation", "stored")
    for backend, operation in dict.fromkeys((row["backend"], row["operation"]) for row in report["stored"]):
        ratio = cost((backend, operation, MANY)) / cost((backend, operation, FEW))
        yield Target(f"{operation}, {backend}: ratio of {MANY:,} sessions to {FEW:,}", ratio, STORED)


def _threads(report: Report) -> Iterator[Target]:
    rate = _finder(report["threads"], lambda row: row["per_second"], "operation", "contestant", "threads")
    for operation, number in dict.fromkeys((row["operation"], row["threads"]) for row in report["threads"]):
        gains = [rate((operation, name, number)) / rate((operation, name, 1)) for name in (OURS, LEAST)]
        if number > 1:
            name = f"{operation}, redis: {number} threads' gain to the plain client's"
            yield Target(name, gains[0] / gains[1], THREADS, at_least=True)


def _process(report: Report) -> Iterator[Target]:
    yield Target("import: ms over pyramid and beaker", report["import"]["ms"]["median"], IMPORT_MS)
    yield Target("import: clients of stores", len(report["import"]["clients"]), 0)
    yield Target("memory: bytes of a session over its data", report["memory"]["bytes"], MEMORY_BYTES)
