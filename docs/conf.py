"""Sphinx's configuration. ``tox -e docs`` builds the pages; a warning is an error."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# The diagrams are made by a package beside this file; the directives are in a folder.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "_ext")]

project = "beaker_bridge"
author = "the beaker_bridge contributors"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx's name
version = release = metadata.version(project)

extensions = [
    "diagrams.directive",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_line",
    "exception_table",
    "log_lines",
    "option_tables",
    "public_names",
]
exclude_patterns = ["_build", "changes.d"]

# -- Links ---------------------------------------------------------------------------------------------

nitpicky = True
nitpick_ignore_regex = [
    # Other projects' inventories are not loaded: the pages build without a network.
    ("py:.*", r"(collections\.abc|contextlib|re|types|typing)\..*"),
    # Type variables.
    ("py:class", r"beaker_bridge\..*\.(AnyRequest|E)"),
    # Not public: they are in the signatures of what is.
    ("py:class", r"beaker_bridge\.(options|record|session)\..*"),
]

# -- The API -------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_docstring_signature = False
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
napoleon_numpy_docstring = False

# -- The pages -----------------------------------------------------------------------------------------

# The Pylons projects' colours: a deep red, and a dark sidebar.
_SIDEBAR = {
    "color-sidebar-background": "#2a2321",
    "color-sidebar-background-border": "#2a2321",
    "color-sidebar-brand-text": "#ffffff",
    "color-sidebar-caption-text": "#d9a7a2",
    "color-sidebar-link-text": "#e9e2e0",
    "color-sidebar-link-text--top-level": "#ffffff",
    "color-sidebar-item-background--current": "#7d1a19",
    "color-sidebar-item-background--hover": "#4a3a37",
    "color-sidebar-item-expander-background--hover": "#5f4a46",
    "color-sidebar-search-background": "#3a302d",
    "color-sidebar-search-background--focus": "#4a3a37",
    "color-sidebar-search-border": "#5f4a46",
    "color-sidebar-search-icon": "#e9e2e0",
    "color-sidebar-search-text": "#ffffff",
    "color-header-background": "#8f1d1c",
    "color-header-border": "#8f1d1c",
    "color-header-text": "#ffffff",
}
_LIGHT = {
    "color-brand-primary": "#8f1d1c",
    "color-brand-content": "#9b211f",
    "color-brand-visited": "#6b2a4f",
}
_DARK = {
    "color-brand-primary": "#f2958d",
    "color-brand-content": "#f2958d",
    "color-brand-visited": "#d9a3c4",
}
html_theme = "furo"
html_theme_options: dict[str, Any] = {
    "light_css_variables": _LIGHT | _SIDEBAR,
    "dark_css_variables": _DARK | _SIDEBAR,
}
html_title = f"{project} {version}"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
