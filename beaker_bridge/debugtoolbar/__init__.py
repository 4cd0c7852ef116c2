"""A panel of pyramid_debugtoolbar: ``debugtoolbar.includes = beaker_bridge.debugtoolbar``.

It shows what a request has made of its session, how often and how long the store was asked for it, why a cookie was or
was not sent, and the cache regions' values. A request is watched only where the toolbar serves it.
"""

from __future__ import annotations

from typing import Any

from pyramid_debugtoolbar.toolbar import IPanelMap

from beaker_bridge.debugtoolbar.panel import SessionPanel
from beaker_bridge.debugtoolbar.regions import watch_regions


def includeme(config: Any) -> None:
    """Add the panel to the debug toolbar's own application.

    Args:
        config: its configurator.
    """
    watch_regions()
    panels = config.registry.getUtility(IPanelMap)
    others = dict(panels)
    panels.clear()
    # Put it first: the panel Request Vars shows the environ, and loads the session by that.
    config.add_debugtoolbar_panel(SessionPanel)
    panels.update(others)
