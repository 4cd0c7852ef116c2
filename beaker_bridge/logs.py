"""The fields of log lines, and limits for lines that each request, or each start, could cause."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable
from logging import Logger
from typing import Any

#: Seconds between two lines about one thing.
QUIET = 60


def fields(*, store: str | None = None, failure: str | None = None, tries: int | None = None) -> dict[str, Any]:
    """Return the ``extra`` of a log line. Each line of this package has all of them, so that a formatter may name them.

    Args:
        store: the type of the store that the line is about, as the option ``type`` has it.
        failure: what failed, in a word, as :func:`beaker_bridge.exceptions.failure_of` returns it.
        tries: the number of times that something was tried.
    """
    return {"store": store, "failure": failure, "tries": tries}


class LogLimiter:
    """Decides whether a line about something is due."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last: dict[Hashable, float] = {}

    def is_due(self, about: Hashable, quiet: float, now: float) -> bool:
        """Say whether to write a line; if so, it counts as written.

        Args:
            about: what the line is about.
            quiet: seconds without another line about it; ``math.inf`` for one line only.
            now: the time, in seconds.
        """
        with self._guard:
            # Log again if the clock was set back.
            due = about not in self._last or not 0 <= now - self._last[about] < quiet
            if due:
                self._last[about] = now
        return due


#: The keys that were logged already, by logger. Guarded by _once_guard.
_once: dict[str, LogLimiter] = {}
_once_guard = threading.Lock()


def log_once(log: Logger, level: int, message: str, about: Hashable = None, **extra: Any) -> None:
    """Log a message, unless this process has logged it before.

    Args:
        log: the logger.
        level: the level, as ``logging`` has it.
        message: the message.
        about: what else must be the same, such as the configuration that is concerned.
        extra: as :func:`fields` takes it; by default the line is about settings.
    """
    with _once_guard:
        limiter = _once.setdefault(log.name, LogLimiter())
    if limiter.is_due((message, about), math.inf, 0):
        log.log(level, "%s", message, extra=fields(**(extra or {"failure": "settings"})))


def forget(log: Logger | None = None) -> None:
    """Forget what was logged once, by one logger or by all of them."""
    with _once_guard:
        for name in [log.name] if log else [*_once]:
            _once.pop(name, None)
