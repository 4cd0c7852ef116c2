"""A small site for real WSGI servers, which import it in a folder with the session's options.

As it is imported, it uses its session store: a server that forks after that has connections to share.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response
from webob import Request

from beaker_bridge import SessionMiddleware
from tests.connections import connection_of
from tests.servers import wait_until
from tests.wsgi_servers import OPTIONS, PROCESSES


def begin(request):
    """Begin a browser's session."""
    request.session["name"] = request.params["name"]


def count(request):
    """Count in the session, as one step."""
    with request.session.exclusive():
        request.session["count"] = request.session.get("count", 0) + 1


def write(request):
    """Write one key, to be merged with what others write."""
    request.session[request.params["key"]] = True


def show(request):
    """Change nothing."""


def stream(request):
    """Stream an answer that is the first to touch the session, and changes it after its headers were sent."""

    def body():
        yield b"{"
        request.session["streamed"] = True
        yield b"}"

    return Response(app_iter=body(), content_type="application/json", charset="utf-8")


def meet(request):
    """Wait until so many processes answer this, each of which has used the store; tell of this one."""
    folder = Path(PROCESSES)
    found = {"pid": os.getpid(), "master": MASTER, "connection": connection_of(CONFIG)}
    # Renamed: whoever sees the file reads all of it.
    draft = folder / f"{os.getpid()}.{threading.get_ident()}.draft"
    draft.write_text(json.dumps(found), encoding="ascii")
    draft.rename(folder / f"{os.getpid()}.json")
    wait_until(lambda: len(list(folder.glob("*.json"))) >= int(request.params["processes"]))


def answering(view):
    """Let a view answer with the whole session of the one who asks."""

    def answer(request):
        if view is not begin and request.session.get("name") != request.params["name"]:
            raise HTTPBadRequest(f"{request.params['name']} was given {dict(request.session)}")
        view(request)
        return Response(json_body=dict(request.session))

    return answer


def pid(_request):
    """Tell that the server is up, without a session."""
    return Response(str(os.getpid()))


def make_application() -> SessionMiddleware:
    """Return the site."""
    config = Configurator()
    config.include("beaker_bridge")
    views = {view.__name__: answering(view) for view in (begin, count, write, show, meet)}
    for name, view in (views | {"pid": pid, "stream": stream}).items():
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)
    options = json.loads(Path(OPTIONS).read_text(encoding="utf-8"))
    return SessionMiddleware(config.make_wsgi_app(), **options)


# A server's own words for it.
application = make_application()
CONFIG = application._config
assert Request.blank("/begin?name=master").get_response(application).status_code == 200
#: The process that has imported this, and the connection that it has.
MASTER = {"pid": os.getpid(), "connection": connection_of(CONFIG)}
