"""A site as it is rolled out: each ``.ini`` file in a folder is one state of it, under the file's name.

``python -m tests.rolling_site FOLDER`` serves all of them as one process; an application is loaded when the first
request asks for it. The site's code is the same over ``pyramid_beaker`` and over ``beaker_bridge``.
"""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import waitress
from markupsafe import Markup
from paste.deploy import loadapp
from pyramid.config import Configurator
from pyramid.i18n import TranslationString


class Basket:
    """An object of the application's own: no JSON."""

    def __init__(self) -> None:
        self.things: list[str] = []


#: What sites keep in their sessions.
VALUES = {
    "when": datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc),
    "price": Decimal("1.10"),
    "tags": {"a", "b"},
    "row": (1, [2.0, None]),
    "banner": Markup("<b>x</b>"),
    "notice": TranslationString("added", domain="shop", default="${n} added", mapping={"n": 2}),
}


def begin(request):
    """Begin a user's session."""
    request.session.update({"user": request.params["user"], "visits": [], **VALUES})


def change(request):
    """Change the session: now only within a value, which pyramid_beaker saves with pickles, now by a method, too."""
    session, visit = request.session, request.params["visit"]
    if "visits" not in session:
        session["visits"] = []
    session["visits"].append(visit)
    if int(visit) % 2:
        session.flash(visit)


def keep(request):
    """Keep an object of the application's own."""
    request.session["basket"] = Basket()


def log_in(request):
    """Move the session to a new id."""
    request.session.regenerate_id()


def log_out(request):
    """End the session."""
    request.session.invalidate()


def read(request):
    """Change nothing."""


def exactly(value):
    """Return what a value is, beside what it is equal to."""
    return type(value), value, {name: getattr(value, name, None) for name in ("domain", "default", "mapping")}


def answering(view):
    """Let a view answer with what the session holds."""

    def answer(request):
        view(request)
        session = request.session
        if view is log_out:
            # pyramid_beaker's flash queue would begin a new session.
            return {}
        kept = {name: exactly(session[name]) == exactly(value) for name, value in VALUES.items() if name in session}
        return {
            "user": session.get("user"),
            "visits": session.get("visits", []),
            "flashed": session.peek_flash(),
            "kept": all(kept.values()) and kept.keys() == VALUES.keys(),
            "basket": type(session.get("basket")).__name__,
        }

    return answer


def main(global_config: object, package: str, **settings: str) -> Any:
    """Return the site over one of the two packages: a PasteDeploy application factory."""
    del global_config
    config = Configurator(settings=settings)
    config.include(import_module(package))
    for view in (begin, change, keep, log_in, log_out, read):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(answering(view), route_name=view.__name__, renderer="json")
    return config.make_wsgi_app()


class Sites:
    """The applications of a folder.

    Args:
        folder: where their ``.ini`` files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Hand a request over to the application that the first part of its path names."""
        name, _, path = environ["PATH_INFO"].removeprefix("/").partition("/")
        if name not in self._loaded:
            self._loaded[name] = loadapp(f"config:{self._folder / name}.ini")
        return self._loaded[name]({**environ, "PATH_INFO": f"/{path}"}, start_response)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    # With one thread there is one request at a time.
    waitress.serve(Sites(Path(sys.argv[1])), listen="127.0.0.1:0", threads=1)
