"""docs/explanation/commit.rst, and the glossary that it refers to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from beaker_bridge.session import state
from tests.commit_tables import PAGE, tables

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.rst"
#: Entries of the glossary: the terms, each on a line of its own, and the sentence.
ENTRIES = re.findall(r"((?:^   \S.*\n)+)      (\S.*)\n", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
TERMS = [term.strip() for terms, _ in ENTRIES for term in terms.splitlines()]


def test_the_tables_are_the_docstrings():
    """The page's two tables are those of session/state.py: ``python -m tests.commit_tables`` copies them."""
    copied = tables(PAGE.read_text(encoding="utf-8"))

    assert copied == tables(state.__doc__)
    assert len(copied) == 2


def test_each_term_has_one_sentence():
    """The glossary is in the order of the alphabet, and each entry is one sentence."""
    assert TERMS[0] == "adopt"
    assert [terms for terms, _ in ENTRIES] == sorted((terms for terms, _ in ENTRIES), key=str.lower)
    assert [text for _, text in ENTRIES if not re.fullmatch(r"[A-Z].*[^.]\.", text) or ". " in text] == []


@pytest.mark.parametrize("term", TERMS)
def test_each_term_is_in_the_sources(term):
    """The sources use each term of the glossary."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "beaker_bridge").rglob("*.py"))

    assert re.search(rf"(?<![a-z]){term}".replace(" ", "[ _]"), sources, re.IGNORECASE)
