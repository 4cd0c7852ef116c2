"""One server that plays all sites that a browser visits, told apart by their hosts; and where requests wait."""

from __future__ import annotations

import threading
from typing import Any

from webtest.http import StopableWSGIServer

import sample_app
from beaker_bridge import SessionMiddleware
from tests.installations import Views, install
from tests.servers import PATIENCE, free_port

#: The WSGI environ's key for where a request waits, if it does.
MEETING = "tests.meeting"
SECRET = "a secret for tests, of 32 bytes or more"


class Meeting:
    """Where requests wait after their views, before their sessions are committed, until all are there.

    Args:
        requests: how many come.
    """

    def __init__(self, requests: int) -> None:
        self._all = threading.Barrier(requests)

    def wait(self) -> None:
        """Wait, as a request, for all the others."""
        self._all.wait(PATIENCE)


class Hold(Meeting):
    """Where they wait until a test lets them go.

    Args:
        requests: how many come.
    """

    def __init__(self, requests: int) -> None:
        super().__init__(requests + 1)
        self._released = threading.Event()

    def wait(self) -> None:
        """Wait, as a request, for all the others, and to be let go."""
        super().wait()
        if not self._released.wait(PATIENCE):
            raise TimeoutError

    def arrived(self) -> None:
        """Wait, as a test, until all requests are held."""
        self._all.wait(PATIENCE)

    def release(self) -> None:
        """Let them go."""
        self._released.set()


def includeme(config: Any) -> None:
    """Have an application's requests wait where a test says."""
    config.add_tween(f"{__name__}.waiting_tween_factory", under="beaker_bridge.session_tween_factory")


def waiting_tween_factory(handler: Any, _registry: Any) -> Any:
    """Return the tween in which requests wait."""

    def tween(request: Any) -> Any:
        response = handler(request)
        if meeting := request.environ.get(MEETING):
            meeting.wait()
        return response

    return tween


class Stage:
    """A server on a free port of its own, in threads of this process."""

    def __init__(self) -> None:
        self._sites: dict[str, Any] = {}
        #: Where the next requests of a path wait.
        self._waiting: dict[str, list[Meeting]] = {}
        #: The host and path, and the Cookie header, of each request to a site.
        self.cookies_sent: list[tuple[str, str]] = []
        self._server = StopableWSGIServer.create(
            self._answer,
            host="127.0.0.1",
            port=free_port(),
            threads=16,
            # Behind a proxy, which says whether a request has come by https.
            trusted_proxy="127.0.0.1",
            trusted_proxy_headers={"x-forwarded-proto"},
            clear_untrusted_proxy_headers=True,
        )
        self.port = int(self._server.effective_port)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()

    def clear(self) -> None:
        """Forget all sites."""
        self._sites.clear()
        self._waiting.clear()
        self.cookies_sent.clear()

    # -- What it plays -------------------------------------------------------------------------------

    def play(self, host: str, app: Any) -> None:
        """Play a WSGI application as the site of a host."""
        self._sites[host] = app

    def play_sessions(self, host: str, views: dict[str, Any], **options: Any) -> None:
        """Play a site with sessions in memory, or with other options.

        Args:
            host: its host.
            views: its views, by their paths without the first slash.
            options: those of the sessions.
        """
        configured = Views(**views)
        configured.includes = (__name__,)
        given = {"type": "memory", "key": "sid", "secret": SECRET, **options}
        # An option that is None is left out.
        options = {name: value for name, value in given.items() if value is not None}
        self.play(host, install("filter", options, configured))

    def play_sample(self, host: str, **options: Any) -> None:
        """Play the sample site, with sessions in memory, or with other options."""
        includes = f"beaker_bridge pyramid_jinja2 pyramid_tm {__name__}"
        app = sample_app.main({}, **{"pyramid.includes": includes})
        options = {"type": "memory", "key": "sample_app.session", "secret": SECRET, **options}
        self.play(host, SessionMiddleware(app, **options))

    def play_page(self, host: str, body: str, *headers: tuple[str, str]) -> None:
        """Play a site without sessions, of one page."""

        def page(_environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), *headers])
            return [f"<!doctype html><title>page</title>{body}".encode()]

        self.play(host, page)

    def meet(self, path: str, requests: int) -> None:
        """Have the next requests of a path wait for each other."""
        self._waiting[path] = [Meeting(requests)] * requests

    def hold(self, path: str, requests: int = 1) -> Hold:
        """Hold the next requests of a path."""
        hold = Hold(requests)
        self._waiting[path] = [hold] * requests
        return hold

    def _answer(self, environ: Any, start_response: Any) -> Any:
        host, path = environ["HTTP_HOST"].partition(":")[0], environ["PATH_INFO"]
        if path == "/favicon.ico" or host not in self._sites:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b""]
        self.cookies_sent.append((host + path, environ.get("HTTP_COOKIE", "")))
        if waiting := self._waiting.get(path):
            environ[MEETING] = waiting.pop()
        return self._sites[host](environ, start_response)
