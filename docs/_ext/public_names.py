"""Fails the build for a public name that no page describes."""

from __future__ import annotations

import importlib
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

logger = logging.getLogger(__name__)

MODULES = ("beaker_bridge", "beaker_bridge.scripting", "beaker_bridge.testing")


def _check(_app: Sphinx, env: BuildEnvironment) -> None:
    described = {name for name, *_ in env.get_domain("py").get_objects()}
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            if f"{module}.{name}" not in described:
                logger.warning("no page describes %s.%s", module, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Check when all pages are read."""
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
