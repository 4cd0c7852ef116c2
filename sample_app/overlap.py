"""The page /overlap: it sends requests that overlap, and draws what becomes of the session in them."""

from __future__ import annotations

from typing import Any

from pyramid.view import view_config
from pyramid.wsgi import wsgiapp2

from sample_app import lab

#: What the settings of the page's own sessions begin with.
PREFIX = "overlap."


def includeme(config: Any) -> None:
    """Add the page, and the laboratory that its script talks to, with the session options under ``overlap.``."""
    options = {
        name.removeprefix(PREFIX): value for name, value in config.get_settings().items() if name.startswith(PREFIX)
    }
    config.add_route("overlap", "/overlap")
    config.add_route("lab", f"{lab.PATH}/*subpath")
    # The site checks the CSRF token of each POST, also of those that another application answers.
    config.add_view(wsgiapp2(lab.make_app(options)), route_name="lab")


@view_config(route_name="overlap", renderer="templates/overlap.jinja2", http_cache=0)
def overlap(request: Any) -> dict[str, Any]:
    """Show the page; its script does the rest."""
    store = request.registry.settings.get(f"{PREFIX}type", "memory")
    return {"numbers": list(lab.WORK), "path": lab.PATH, "type": store}
