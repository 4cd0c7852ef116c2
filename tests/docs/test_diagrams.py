"""The diagrams of the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.docs.pages import DOCS

from diagrams import DIAGRAMS, svg  # isort: skip -- tests.docs.pages makes it importable

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", params=DIAGRAMS)
def drawn(request) -> ET.Element:
    """Return a diagram, as a tree."""
    return ET.fromstring(DIAGRAMS[request.param]().render(request.param))


def test_each_is_on_one_page():
    """Each diagram is on a page of the documentation, and each that a page names exists."""
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.rst")]
    shown = [name for page in pages for name in re.findall(r"^\.\. diagram:: (\S+)$", page, re.MULTILINE)]

    assert sorted(shown) == sorted(DIAGRAMS)


def test_each_says_what_it_shows(drawn):
    """A screen reader finds an image with a title and a description in sentences."""
    labels = [drawn.find(f"{SVG}{name}") for name in ("title", "desc")]

    assert drawn.get("role") == "img"
    assert drawn.get("aria-labelledby").split() == [label.get("id") for label in labels]
    assert re.fullmatch(r"[A-Z`a-z].*", labels[0].text)
    assert re.fullmatch(r"[A-Z].*\.", labels[1].text, re.DOTALL)


def test_code_fits(drawn):
    """No line of code runs out of its picture."""
    lines = [text for text in drawn.iter(f"{SVG}text") if "code" in text.get("class", "").split()]
    wide = [
        "".join(line.itertext())
        for line in lines
        if float(line.get("x")) + svg.CHARACTER * len("".join(line.itertext())) > svg.WIDTH
    ]

    assert [line for line in lines if line.get("text-anchor")] == []
    assert wide == []


def test_each_colour_is_in_both_schemes(drawn):
    """A diagram uses the palette's colours alone, which have a light and a dark form."""
    style = drawn.find(f"{SVG}style").text
    used = set(re.findall(r"var\(--([\w-]+)\)", style))

    assert used <= {*svg.PALETTE}
    assert re.findall(r"(?:fill|stroke)=", ET.tostring(drawn, encoding="unicode")) == []


def _contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("ink", ["ink", "quiet", "first", "later", "good", "bad"])
@pytest.mark.parametrize("ground", ["paper", "sheet"])
def test_contrast(scheme, ink, ground):
    """Text has the contrast that WCAG 2 asks for (4.5), in both schemes."""
    assert _contrast(svg.PALETTE[ink][scheme], svg.PALETTE[ground][scheme]) >= 4.5


@pytest.mark.once
def test_the_script(tmp_path):
    """``python docs/diagrams FOLDER`` writes each diagram as a file."""
    subprocess.run([sys.executable, "-W", "ignore", DOCS / "diagrams", tmp_path / "made"], check=True)

    assert sorted(path.stem for path in (tmp_path / "made").iterdir()) == sorted(DIAGRAMS)
