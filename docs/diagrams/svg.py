"""What the diagrams are drawn with: SVG, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

#: The width of each picture, in its own units. It fits a phone, where a unit is nearly a pixel.
WIDTH = 380
#: The width of a character of code, in the same units.
CHARACTER = 6.75
#: The height of a line of text.
LINE = 18

#: The colours by their names: in a light theme, and in a dark one.
PALETTE = {
    "ink": ("#1b1f24", "#e6e6e6"),
    "quiet": ("#59616b", "#a3abb5"),
    "line": ("#8a939e", "#79828d"),
    "paper": ("#f4f5f7", "#23262b"),
    "sheet": ("#ffffff", "#16181b"),
    "first": ("#0a58a8", "#82bbff"),
    "later": ("#a83f06", "#ffab73"),
    "good": ("#17703a", "#6fd58e"),
    "bad": ("#b0211a", "#ff9088"),
}

_RULES = """
.diagram { display: block; width: 100%; max-width: 470px; height: auto; margin: 1rem auto; }
.diagram text { fill: var(--ink); font: 13px/1.3 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.diagram .code { font: 11.2px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; }
.diagram .small { font-size: 11.5px; }
.diagram .strong { font-weight: 600; }
.diagram .quiet { fill: var(--quiet); }
.diagram .first { fill: var(--first); }
.diagram .later { fill: var(--later); }
.diagram .good { fill: var(--good); }
.diagram .bad { fill: var(--bad); }
.diagram tspan.first { text-decoration: underline; }
.diagram tspan.later { font-weight: 700; }
.diagram tspan.gone { text-decoration: line-through; fill: var(--quiet); }
.diagram .on { fill: var(--sheet); font-weight: 700; }
.diagram .box { fill: var(--paper); stroke: var(--line); stroke-width: 1; }
.diagram .box.sheet { fill: var(--sheet); }
.diagram .wire { fill: none; stroke: var(--line); stroke-width: 1.4; }
.diagram .wire.dashed { stroke-dasharray: 4 3; }
.diagram .wire.first, .diagram .box.first { fill: none; stroke: var(--first); }
.diagram .wire.later, .diagram .box.later { fill: none; stroke: var(--later); }
.diagram .wire.good { fill: none; stroke: var(--good); }
.diagram .wire.bad { fill: none; stroke: var(--bad); }
.diagram .head { fill: var(--line); }
"""


def _style() -> str:
    """Return the style sheet: the reader's colour scheme counts, unless the page has a switch that says otherwise."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in PALETTE.items()) for i in (0, 1))
    return (
        f".diagram{{{light}}}"
        f"@media (prefers-color-scheme:dark){{.diagram{{{dark}}}}}"
        f'body[data-theme="light"] .diagram{{{light}}}body[data-theme="dark"] .diagram{{{dark}}}'
        "@media print{.diagram{" + light + "}}" + _RULES
    )


class Part(NamedTuple):
    """A part of a line of text, and its classes."""

    text: str
    classes: str = ""


class Picture:
    """A picture that grows from its top down.

    Args:
        title: its title, in a few words.
        description: what it shows, in sentences: for who does not see it.
    """

    def __init__(self, title: str, description: str) -> None:
        self.title = title
        self.description = description
        self.height = 0.0
        self._drawn: list[str] = []

    def text(self, x: float, y: float, parts: str | Sequence[Part], classes: str = "", anchor: str = "") -> None:
        """Write a line of text.

        Args:
            x: its left end, or where its anchor is.
            y: its base line.
            parts: the text, or its parts.
            classes: its classes.
            anchor: ``middle`` or ``end``, if x is not its left end.
        """
        inner = escape(parts) if isinstance(parts, str) else "".join(map(_span, parts))
        anchored = f' text-anchor="{anchor}"' if anchor else ""
        self._draw(f'<text x="{x:g}" y="{y:g}" class="{classes}"{anchored}>{inner}</text>', y + 6)

    def box(self, x: float, y: float, width: float, height: float, classes: str = "box", radius: float = 5) -> None:
        """Draw a rectangle."""
        self._draw(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{classes}"/>',
            y + height + 1,
        )

    def disc(self, x: float, y: float, radius: float, classes: str) -> None:
        """Draw a disc."""
        self._draw(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{classes}"/>', y + radius + 1)

    def wire(self, path: str, classes: str = "", *, arrow: bool = False) -> None:
        """Draw a line along a path, with an arrow at its end."""
        head = ' marker-end="url(#NAME-head)"' if arrow else ""
        self._drawn.append(f'<path d="{path}" class="wire {classes}"{head}/>')

    def _draw(self, element: str, bottom: float) -> None:
        self._drawn.append(element)
        self.height = max(self.height, bottom)

    def render(self, name: str) -> str:
        """Return the picture as SVG.

        Args:
            name: its name, with which its own ids begin.
        """
        head = (
            '<defs><marker id="NAME-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
            ' orient="auto"><path d="M0 0 8 4 0 8z" class="head"/></marker></defs>'
        )
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" class="diagram" role="img"'
            f' aria-labelledby="NAME-title NAME-desc"><title id="NAME-title">{escape(self.title)}</title>'
            f'<desc id="NAME-desc">{escape(self.description)}</desc><style>{_style()}</style>{head}'
            f"{''.join(self._drawn)}</svg>\n"
        )
        return svg.replace("NAME-", f"{name}-")


def _span(part: Part) -> str:
    return f'<tspan class="{part.classes}">{escape(part.text)}</tspan>' if part.classes else escape(part.text)


def wrapped(parts: Iterable[Part], columns: int, indent: str = "  ") -> list[list[Part]]:
    """Return parts of code as lines of at most so many characters, broken between parts."""
    lines: list[list[Part]] = [[]]
    length = 0
    for part in parts:
        if length and length + len(part.text.rstrip()) > columns:
            lines.append([Part(indent)])
            length = len(indent)
        lines[-1].append(part)
        length += len(part.text)
    return lines
