"""The report as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks.content import SIZES
from tests.benchmarks.contestants import LEAST_POSSIBLE, NONE, OPERATIONS, READ, UNTOUCHED, WRITE

Report = dict[str, Any]

_WIDTH, _FIRST = 24, 36


def tables(report: Report) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from _costs(report)
    yield from _counts(report)
    yield from _sizes(report)
    yield from _more(report)
    yield from _targets(report)


def instruction_tables(report: Report) -> Iterator[str]:
    """Yield the lines of a report on instructions."""
    yield f"Python {report['versions']['Python']}"
    yield "thousands of instructions over the view without a session (and times the least possible): median of the runs"
    rows = report["instructions"]
    found = {(row["operation"], row["backend"], row["contestant"]): row["instructions"] for row in rows}
    for operation in dict.fromkeys(row["operation"] for row in rows):
        cells = {}
        for (of, backend, contestant), count in found.items():
            if of == operation:
                least = found.get((operation, backend, LEAST_POSSIBLE))
                is_compared = least and operation != UNTOUCHED and contestant != NONE
                cells[contestant, backend] = f"{count / 1000:.1f}" + (f" ({count / least:.2f})" if is_compared else "")
        yield from _grid(operation, cells, list(dict.fromkeys(row["backend"] for row in rows)))
    yield from _targets(report)


def _line(first: str, *cells: str) -> str:
    return (f"{first:{_FIRST}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)).rstrip()


def _cost(cost: Mapping[str, float]) -> str:
    digits = 2 if cost["median"] < 100 else 0
    return f"{cost['median']:.{digits}f} [{cost['lower']:.{digits}f} {cost['upper']:.{digits}f}]"


def _costs(report: Report) -> Iterator[str]:
    yield "µs over the view without a session: median [quartiles of the rounds]"
    for operation in OPERATIONS:
        found = {
            (row["contestant"], row["backend"]): _cost(row["us"])
            for row in report["costs"]
            if row["operation"] == operation
        }
        yield from _grid(operation, found, report["backends"])


def _counts(report: Report) -> Iterator[str]:
    yield ""
    yield "operations of a request"
    for row in report["counts"]:
        words = [f"{number:g} {name}" for name, number in row["operations"].items()]
        words += [f"{row['cookies']} Set-Cookie"] if row["cookies"] else []
        if words:
            yield _line(f"{row['operation']}, {row['backend']}", row["contestant"]) + "  " + ", ".join(words)


def _sizes(report: Report) -> Iterator[str]:
    for operation in (READ, WRITE):
        found = {
            (f"{row['contestant']}, {SIZES[row['size']]}", row["backend"]): _cost(row["us"])
            for row in report["sizes"]
            if row["operation"] == operation
        }
        yield from _grid(f"{operation}, by the size of the session", found, report["backends"])


def _grid(title: str, cells: Mapping[tuple[str, str], str], backends: list[str]) -> Iterator[str]:
    yield ""
    yield _line(title, *backends)
    for first in dict.fromkeys(first for first, _ in cells):
        yield _line(f"  {first}", *(cells.get((first, backend), "") for backend in backends))


def _more(report: Report) -> Iterator[str]:
    for row in report["stored"]:
        yield _line(f"{row['operation']}, {row['backend']}", f"{row['stored']:,} stored", _cost(row["us"]))
    for row in report["threads"]:
        first = f"{row['operation']}, {row['contestant']}"
        yield _line(first, f"{row['threads']} threads", f"{row['per_second']:.0f} / s")


def _targets(report: Report) -> Iterator[str]:
    yield ""
    yield "targets"
    for target in report["targets"]:
        relation = "≥" if target["at_least"] else "≤"
        verdict = "met" if target["met"] else "NOT MET"
        yield f"{target['name']:<64}{target['measured']:>10.2f} {relation} {target['limit']:<6g} {verdict}"
