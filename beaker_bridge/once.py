"""Log a message once: a start may read the same options twice, and each request may find the same fault."""

from __future__ import annotations

from collections.abc import Hashable
from logging import Logger

_logged: set[tuple[str, str, Hashable]] = set()


def forget(log: Logger) -> None:
    """Forget what a logger has logged once."""
    _logged.difference_update([key for key in _logged if key[0] == log.name])


def log_once(log: Logger, level: int, message: str, about: Hashable = None) -> None:
    """Log a message, unless this process has logged it before.

    Args:
        log: the logger.
        level: the level, as ``logging`` has it.
        message: the message.
        about: what else must be the same, such as the configuration that is concerned.
    """
    key = log.name, message, about
    if key not in _logged:
        _logged.add(key)
        log.log(level, "%s", message)
