"""Connections to PostgreSQL by psycopg 3 that keep to a timeout, whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not answer in time.

    The server's own ``statement_timeout`` will not do: poolers refuse it, or pass it on to other clients, and a server
    that hangs does not apply it.
    """

    #: The longest wait for a connection, and for a statement, in seconds.
    seconds: float = 0

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        # Bound it here: like libpq, psycopg takes whole seconds for connect_timeout, and 2 at least.
        steps: Generator[Any, Any, Any] = super()._connect_gen(*args, **kwargs)
        try:
            return (yield from _within(cls.seconds, steps))
        except TimeoutError:
            raise psycopg.OperationalError(f"no connection within {cls.seconds:g} seconds") from None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for a statement; raises ``psycopg.OperationalError`` after the timeout."""
        try:
            return super().wait(_within(self.seconds, gen), *args, **kwargs)
        except TimeoutError:
            self.close()
            raise psycopg.OperationalError(f"no answer within {self.seconds:g} seconds") from None


def _within(seconds: float, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Yield a statement's steps until its time is over; psycopg resumes them even if nothing was received."""
    deadline = time.monotonic() + seconds
    ready = None
    try:
        while True:
            ready = yield steps.send(ready)
            if not ready and time.monotonic() > deadline:
                raise TimeoutError
    except StopIteration as end:
        return end.value


def bounded(seconds: float) -> type[BoundedConnection]:
    """Return a class of connections.

    Args:
        seconds: the longest wait for one of them, and for each of its statements.
    """
    return type("BoundedConnection", (BoundedConnection,), {"seconds": seconds})
