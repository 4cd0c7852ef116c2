"""Every way of installing sessions, as WSGI applications for the tests."""

from __future__ import annotations

import beaker.middleware
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

from beaker_bridge import BeakerSessionFactoryConfig, SessionMiddleware, session_factory_from_settings

SECRET = "a secret for tests, of 32 bytes or more"

#: The installations of the documentation: our filter, Beaker's own, and the application's settings,
#: each with ``config.include('beaker_bridge')``; then the session factory without it.
WITH_TWEEN = ("filter", "beaker_filter", "settings")
ALONE = ("filter_alone", "beaker_filter_alone", "settings_alone", "python_alone")
INSTALLATIONS = WITH_TWEEN + ALONE

#: The embedded stores, and the options that they need.
STORES = ("memory", "file", "dbm", "file_encrypted", "cookie", "cookie_encrypted")


def store_options(store, tmp_path):
    """Return the options of an embedded store."""
    kind, _, encrypted = store.partition("_")
    options = {"type": kind, "key": "sid", "secret": SECRET}
    if kind in ("file", "dbm"):
        options["data_dir"] = str(tmp_path / "sessions")
    if kind == "cookie" or encrypted:
        options["validate_key"] = "a key that signs cookies, for the tests"
    if encrypted:
        options["encrypt_key"] = "a key that encrypts sessions, for tests"
    return options


def install(installation, options, configure, **settings):
    """Return a WSGI application with sessions.

    ``configure`` gets the configurator, to add views; ``settings`` are the application's.
    """
    name = installation.removesuffix("_alone")
    own = {f"session.{key}": value for key, value in options.items()} if name == "settings" else {}
    config = Configurator(settings={**settings, **own})
    if installation in WITH_TWEEN:
        config.include("beaker_bridge")
    elif name == "python":
        config.set_session_factory(BeakerSessionFactoryConfig(**options))
    else:
        config.set_session_factory(session_factory_from_settings(config.get_settings()))
    configure(config)
    app = config.make_wsgi_app()
    if name == "filter":
        return SessionMiddleware(app, **options)
    if name == "beaker_filter":
        return beaker.middleware.SessionMiddleware(app, **options)
    return app


class Views:
    """Views by their path: each is ``view(request)``, and a result that is no response is its text."""

    def __init__(self, **views):
        self.views = views
        self.exception_views = {}
        self.includes = ()

    def __call__(self, config):
        for include in self.includes:
            config.include(include)
        for name, view in self.views.items():
            config.add_route(name, f"/{name}")
            config.add_view(self._answering(view), route_name=name)
        for context, view in self.exception_views.items():
            config.add_exception_view(self._answering(view), context=context)

    @staticmethod
    def _answering(view):
        # Pyramid looks at a view's arguments: one is the request.
        def answering(request):
            result = view(request)
            return result if isinstance(result, Response) else Response(str(result))

        return answering


def count(request):
    """Count the visits."""
    request.session["count"] = request.session.get("count", 0) + 1
    return request.session["count"]


def fail(request):
    """Change the session, and fail."""
    request.session["failed"] = True
    raise RuntimeError("the view fails")


def redirect(request):
    """Flash a message, and raise a redirect."""
    request.session.flash("moved")
    raise HTTPFound("/data")


def data(request):
    """Tell what the session holds."""
    return sorted(request.session.items())
