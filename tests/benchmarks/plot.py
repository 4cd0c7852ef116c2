"""``python -m tests.benchmarks.plot``: put what the benchmark has found into the documentation."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmarks.contestants import (
    LEAST,
    OURS,
    PYRAMID_BEAKER,
    PYRAMID_SESSION_REDIS,
    READ,
    SIGNED_COOKIE,
    WRITE,
)
from tests.benchmarks.tables import instruction_tables

#: The documentation's page; times and their drawing; instructions, whose table stands in the page between two comments.
PAGE = Path("docs/explanation/performance.rst")
REPORT, DRAWING = Path("docs/explanation/performance.json"), Path("docs/explanation/performance.svg")
INSTRUCTIONS, OPENING, CLOSING = Path("docs/explanation/instructions.json"), ".. instructions\n", ".. end\n"

#: The bars of a group from above, and their colours: told apart also by who sees no red or green.
COLOURS = {
    LEAST: "#bbbbbb",
    OURS: "#0072b2",
    PYRAMID_BEAKER: "#e69f00",
    PYRAMID_SESSION_REDIS: "#cc79a7",
    SIGNED_COOKIE: "#56b4e9",
}
#: Sizes in pixels: the bars begin at LEFT, a tenfold time is DECADE wide.
WIDTH, LEFT, DECADE = 820, 110, 150
BAR, GAP, TITLE, LEGEND = 12, 14, 34, 64
#: The scale begins at 1 µs and ends at 10 ms.
TICKS = {1: "1 µs", 10: "10 µs", 100: "100 µs", 1_000: "1 ms", 10_000: "10 ms"}


def main(arguments: Sequence[str]) -> int:
    """Draw the times, and write the table of instructions."""
    argparse.ArgumentParser(prog="python -m tests.benchmarks.plot", description=__doc__).parse_args(arguments)
    DRAWING.write_text(drawing(_read(REPORT)), encoding="utf-8")
    PAGE.write_text(with_instructions(PAGE.read_text(encoding="utf-8"), _read(INSTRUCTIONS)), encoding="utf-8")
    return 0


def _read(report: Path) -> dict[str, Any]:
    return json.loads(report.read_text(encoding="utf-8"))


def with_instructions(page: str, report: dict[str, Any]) -> str:
    """Return the page with the table of a report on instructions."""
    before, _, rest = page.partition(OPENING)
    _, _, after = rest.partition(CLOSING)
    lines = "\n".join(f"    {line}".rstrip() for line in instruction_tables(report))
    return f"{before}{OPENING}\n::\n\n{lines}\n\n{CLOSING}{after}"


def drawing(report: dict[str, Any]) -> str:
    """Return a report as an SVG: a bar for what a session costs each contestant, on a logarithmic scale."""
    parts: list[str] = []
    y = LEGEND
    for operation, title in ((READ, "A request that reads its session"), (WRITE, "A request that changes it")):
        parts.append(_text(LEFT, y + TITLE - 14, title, 'font-weight="bold"'))
        top = y = y + TITLE
        groups = list(_groups(report, operation))
        height = sum(len(bars) * BAR + GAP for _, bars in groups)
        parts += _scale(top, height)
        for backend, bars in groups:
            parts += _group(y, backend, bars)
            y += len(bars) * BAR + GAP
        y += BAR
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + GAP}" viewBox="0 0 {WIDTH} {y + GAP}"'
        ' font-family="sans-serif" font-size="11" role="img">'
    )
    title = "What a request pays for its session, over the same view without one"
    return "\n".join([head, f"<title>{title}</title>", _background(), *_legend(report), *parts, "</svg>", ""])


def _groups(report: dict[str, Any], operation: str) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yield each backend, and the costs of those who take part there."""
    for backend in report["backends"]:
        found = {
            row["contestant"]: row["us"]
            for row in report["costs"]
            if row["operation"] == operation and row["backend"] == backend
        }
        yield backend, {name: found[name] for name in COLOURS if name in found}


def _group(y: int, backend: str, bars: dict[str, dict[str, float]]) -> Iterator[str]:
    middle = y + len(bars) * BAR / 2 + 4
    yield _text(LEFT - 10, middle, backend, 'text-anchor="end"')
    for place, (name, cost) in enumerate(bars.items()):
        top = y + place * BAR
        end, lower, upper = (_x(cost[figure]) for figure in ("median", "lower", "upper"))
        width, centre = end - LEFT, top + BAR / 2
        yield f'<rect x="{LEFT}" y="{top + 1}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>'
        yield f'<path d="M{lower:.1f} {centre}H{upper:.1f}" stroke="#333333"/>'
        yield _text(max(end, upper) + 5, top + BAR - 2.5, f"{cost['median']:.{0 if cost['median'] >= 100 else 1}f}")


def _scale(top: int, height: int) -> Iterator[str]:
    for value, label in TICKS.items():
        x = _x(value)
        yield f'<path d="M{x:.1f} {top - 4}V{top + height - GAP + 4}" stroke="#dddddd"/>'
        yield _text(x, top + height, label, 'text-anchor="middle" fill="#666666"')


def _legend(report: dict[str, Any]) -> Iterator[str]:
    yield _text(LEFT, 18, "µs over the same Pyramid view without a session, and their quartiles", "")
    x = LEFT
    there = {row["contestant"] for row in report["costs"]}
    for name in [name for name in COLOURS if name in there]:
        yield f'<rect x="{x}" y="32" width="10" height="10" fill="{COLOURS[name]}"/>'
        yield _text(x + 14, 41, name)
        x += 28 + 6 * len(name)


def _background() -> str:
    return '<rect width="100%" height="100%" fill="#ffffff"/>'


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _x(microseconds: float) -> float:
    """Return where a time is on the scale."""
    return LEFT + DECADE * math.log10(max(1, microseconds))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
