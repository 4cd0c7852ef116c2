"""Sphinx's configuration. ``tox -e docs`` builds the pages; a warning is an error."""

from __future__ import annotations

project = "beaker_bridge"
author = "The beaker_bridge developers"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx's name

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
nitpicky = True
exclude_patterns = ["changes.d"]

html_theme = "furo"
html_title = "beaker_bridge"
