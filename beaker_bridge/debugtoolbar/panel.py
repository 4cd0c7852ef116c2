"""The panel: a view of what a request's recorder has kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pyramid_debugtoolbar.panels import DebugPanel

from beaker_bridge.debugtoolbar.recorder import Recorder, watch
from beaker_bridge.debugtoolbar.regions import watching
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.pyramid.factory import source_of
from beaker_bridge.pyramid.tween import attached
from beaker_bridge.request.exchange import ENVIRON_KEY, Exchange


class SessionPanel(DebugPanel):
    """The panel of a request: its session, the store, the cookie and the cache regions.

    Args:
        request: the request.
    """

    name = "beaker_bridge"
    title = "Beaker session"
    nav_title = title
    has_content = True
    template = "beaker_bridge.debugtoolbar:panel.dbtmako"

    def __init__(self, request: Any) -> None:
        # Begin here: another panel may look into the session before a handler is called.
        exchange = _exchange_of(request)
        self._exchange: Exchange | None = exchange
        self._recorder = Recorder() if exchange is None else watch(exchange)
        self.is_configured = exchange is not None

    @property
    def nav_subtitle(self) -> str:
        """The number of changed keys, and of calls of the store."""
        changed, calls = self._changed, len(self._recorder.calls)
        parts = [f"{changed} changed" if changed else "", counted(calls, "call") if calls else ""]
        return ", ".join(filter(None, parts))

    @property
    def _changed(self) -> int:
        return sum(row.status != "same" for row in self._recorder.keys)

    def wrap_handler(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Watch the cache regions while the application answers."""

        def watched(request: Any) -> Any:
            self._recorder.is_serving = True
            with watching(self._recorder):
                return handler(request)

        return watched

    def process_response(self, response: Any) -> None:
        """Take what there is: the session's headers are added later."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._recorder.look(exchange)

    def render_vars(self, request: Any) -> dict[str, Any]:
        """Return the names of the template."""
        recorder = self._recorder
        return {
            "recorder": recorder,
            "is_configured": self.is_configured,
            "counted": counted,
            "changed": self._changed,
            "milliseconds": sum(call.milliseconds for call in recorder.calls),
            "outcomes": Counter(region.outcome for region in recorder.regions),
        }


def counted(count: int, noun: str) -> str:
    """Return a number of things, as English has it."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _exchange_of(request: Any) -> Exchange | None:
    """Return a request's exchange; None if no session is configured, or wrongly: the request itself then says so."""
    try:
        session_object = attached(request, request.environ.get(ENVIRON_KEY), source_of(request.registry))
    except SettingsError:
        return None
    return None if session_object is None else session_object.exchange
