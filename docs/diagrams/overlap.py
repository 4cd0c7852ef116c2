"""Two requests of one session that overlap: really made, with the package itself."""

from __future__ import annotations

import copy
import textwrap
from typing import Any, NamedTuple

from beaker_bridge.events import SessionMerged
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.request.exchange import SessionObject
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.state import State


class Overlap(NamedTuple):
    """What became of two requests that overlap."""

    #: What both have read.
    base: dict[str, Any]
    #: What the session of the one that is committed first holds when its code has run, and what the other one's does.
    first: dict[str, Any]
    later: dict[str, Any]
    #: What the store holds when both are committed; None if it holds no session.
    result: dict[str, Any] | None
    #: The keys in which a change was given up; None if nothing was merged.
    conflicts: frozenset[str] | None


class Visit:
    """A request: its session is read when it begins.

    Args:
        config: the configuration of the site.
        cookie: the ``Cookie`` header.
    """

    def __init__(self, config: SessionConfig, cookie: str = "") -> None:
        self._object = SessionObject({"wsgi.url_scheme": "http", "HTTP_COOKIE": cookie}, config)
        self.events: list[Any] = []
        self._object.exchange.notify = self.events.append
        self.session = PyramidSession(self._object)
        self.base = self.data()

    @property
    def state(self) -> State:
        """The state of the session."""
        return self._object.exchange.load()._state

    def data(self) -> dict[str, Any]:
        """Return a copy of what the session holds."""
        return copy.deepcopy(dict(self.session))

    def run(self, code: str) -> dict[str, Any]:
        """Run code with the session, and return what that holds then."""
        exec(textwrap.dedent(code), {"session": self.session})  # noqa: S102 -- the examples of this folder
        return self.data()

    def commit(self) -> None:
        """Commit what was changed, as the tween does."""
        self._object.exchange.commit()

    def end(self) -> str:
        """End the request, and return the cookie that it sets; empty if it sets none."""
        headers = dict(self._object.exchange.finish([]))
        return headers.get("Set-Cookie", "").partition(";")[0]


def overlap(before: str, first: str, later: str, **options: Any) -> Overlap:
    """Make two requests that overlap, and say what became of them.

    Args:
        before: the code of an earlier request of the same browser.
        first: the code of the request that is committed first.
        later: the code of the one that is committed later.
        options: options of the session.
    """
    config = SessionConfig(read_options(given({"type": "memory", "key": "example", "timeout": 1200, **options})))
    begun = Visit(config)
    begun.run(before)
    cookie = begun.end()
    one, other = Visit(config, cookie), Visit(config, cookie)
    base, first_data = one.base, one.run(first)
    one.end()
    later_data = other.run(later)
    other.end()
    merged = [event for event in other.events if isinstance(event, SessionMerged)]
    reader = Visit(config, cookie)
    return Overlap(
        base,
        first_data,
        later_data,
        None if reader.session.new else reader.base,
        frozenset(merged[-1].conflicts) if merged else None,
    )
