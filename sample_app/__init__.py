"""A small site on beaker_bridge.

Requests that overlap, visits, a login and where it is, a cart, a cached report, and what breaks.
"""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator

from sample_app.accounts import Accounts


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
        config.add_route("sessions", "/sessions")
        config.add_route("end_session", "/sessions/end")
        config.add_route("end_other_sessions", "/sessions/end-others")
        config.add_route("password", "/password")
        config.add_route("cart", "/cart")
        config.add_route("add_to_cart", "/cart/add")
        config.add_route("remove_from_cart", "/cart/remove")
        config.add_route("report", "/report")
        config.add_route("refresh_report", "/report/refresh")
        config.add_route("error", "/error")
        config.add_route("session_json", "/session.json")
        config.include(".overlap")
        config.scan(".views")
        config.scan(".account")
        config.scan(".overlap")
        config.registry.accounts = Accounts()
        return config.make_wsgi_app()
