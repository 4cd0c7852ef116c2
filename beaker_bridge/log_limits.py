"""Log lines that every request could cause, written at most once a minute."""

from __future__ import annotations

import threading
from collections.abc import Hashable

#: Seconds between two lines about one thing.
QUIET = 60


class LogLimiter:
    """Decides whether a line about something is due."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last: dict[Hashable, float] = {}

    def is_due(self, about: Hashable, quiet: float, now: float) -> bool:
        """Say whether to write a line; if so, it counts as written.

        Args:
            about: what the line is about.
            quiet: how long there is no other line about it, in seconds.
            now: the time, in seconds.
        """
        with self._guard:
            # A clock that was set back must not keep it quiet.
            due = about not in self._last or not 0 <= now - self._last[about] < quiet
            if due:
                self._last[about] = now
        return due
