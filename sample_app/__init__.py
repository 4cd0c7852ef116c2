"""A small site on beaker_bridge: a visit count, a login, a cart, a cached report, and what happens when it breaks."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator


def main(global_config: dict[str, str], **settings: Any) -> Any:  # noqa: ARG001 -- PasteDeploy hands over both
    """Return the WSGI application: what ``[app:main]`` of ``development.ini`` names.

    Args:
        global_config: PasteDeploy's ``[DEFAULT]``.
        settings: the options of ``[app:main]``, ``pyramid.includes`` with our package among them.
    """
    with Configurator(settings=settings) as config:
        # Each POST must carry the session's token.
        config.set_default_csrf_options(require_csrf=True)
        config.add_static_view("static", "static")
        config.add_route("home", "/")
        config.add_route("login", "/login")
        config.add_route("logout", "/logout")
        config.add_route("cart", "/cart")
        config.add_route("add_to_cart", "/cart/add")
        config.add_route("remove_from_cart", "/cart/remove")
        config.add_route("report", "/report")
        config.add_route("refresh_report", "/report/refresh")
        config.add_route("error", "/error")
        config.add_route("session_json", "/session.json")
        config.scan(".views")
        return config.make_wsgi_app()
