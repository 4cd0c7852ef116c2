"""A session's view of its request: how far the response is, whether the request is discarded, whom to notify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from beaker_bridge.session.config import SessionConfig

#: The phases of a response: its headers can still be changed; they were sent; the request is over.
OPEN, SENT, OVER = "open", "sent", "over"


class SessionContext:
    """A session's view of its request. This class itself is for one without: a script's, or one found by its id.

    Args:
        config: the configuration.
        notify: notifies the application's subscribers of an event; set where Pyramid's registry is known.
        locks: the locks that the request holds, by thread and id, and how long they last; shared with the sessions that
            it found by their ids.
    """

    #: How far the response is: :data:`OPEN`, :data:`SENT` or :data:`OVER`.
    phase = OPEN
    #: Whether the request leaves no trace, whatever touches its session from now on.
    discarded = False
    notify: Callable[[object], None] | None = None
    locks: dict[tuple[int, str], Callable[[], float] | None] | None = None
    #: The request's WSGI environ.
    environ: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        config: SessionConfig,
        notify: Callable[[object], None] | None = None,
        locks: dict[tuple[int, str], Callable[[], float] | None] | None = None,
    ) -> None:
        self.config = config
        self.notify = notify
        self.locks = locks

    @property
    def sent(self) -> bool:
        """Whether the response's headers were sent: cookies can no longer be set."""
        return self.phase is not OPEN

    @property
    def over(self) -> bool:
        """Whether the request is over: it commits no more."""
        return self.phase is OVER

    @property
    def https(self) -> bool:
        """Whether the request came over https."""
        return self.environ.get("wsgi.url_scheme") == "https"

    def discard(self) -> None:
        """Decide that the request leaves no trace."""
        self.discarded = True
