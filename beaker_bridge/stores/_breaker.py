"""The circuit breaker: fail fast for a moment after a server could not be reached, then let one caller probe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from beaker_bridge.exceptions import SessionStoreError

T = TypeVar("T")

#: Seconds for which the breaker stays open after a failure.
PAUSE = 1


class ServerUnavailableError(SessionStoreError):
    """The server itself cannot be reached; an answer that refuses one statement is not this."""

    failure = "unavailable"


class ConnectionLostError(ServerUnavailableError):
    """A statement was not answered: its connection broke, or it timed out.

    The server may be well: the statement may wait for a locked row, its record may be too large, or the server was
    restarted.
    """

    failure = "connection_lost"


class CircuitOpenError(ServerUnavailableError):
    """The server was not asked, since it could not be reached a moment ago."""

    failure = "breaker_open"


class CircuitBreaker:
    """Spares requests the wait for a server that is down.

    Closed, it lets calls through. A call that cannot reach the server opens it for ``PAUSE`` seconds, in which calls
    fail at once. After that, or as soon as a connection was lost, it is half open: one caller sends a probe. The probe
    is a statement of our own, since a user's statement may fail because of that user's record.

    Args:
        patience: the longest wait for the probe of another caller, in seconds.
        on_close: is called by each caller that has found it open, once it is closed.
        on_change: is called once when it has opened, with the failure and 0, and once when it has closed after that,
            with None and the seconds for which it was not closed.
    """

    def __init__(
        self,
        patience: float,
        on_close: Callable[[], object] = lambda: None,
        on_change: Callable[[ServerUnavailableError | None, float], object] = lambda _failure, _seconds: None,
    ) -> None:
        self._patience = patience
        self._on_close = on_close
        self._on_change = on_change
        #: An object while the breaker is closed, a new one each time that it closes; None while it is not. A call
        #: compares it, since a failure that began before the breaker closed says nothing about the server now.
        self.closed: object | None = object()
        self._guard = threading.Lock()
        #: Held by the caller that probes.
        self._probing = threading.Lock()
        #: The time until which the breaker is open; 0 if it is half open after a lost connection.
        self._open_until = 0.0
        #: The time at which it opened; None if it did not since it was closed: a lost connection alone refuses nobody.
        self._opened_at: float | None = None
        self._failure = ServerUnavailableError("")

    def call(self, probe: Callable[[], object], step: Callable[..., T], *arguments: Any) -> T:
        """Call a step that asks the server, unless the breaker is open.

        Args:
            probe: sends a small statement, and raises :class:`ServerUnavailableError` if it reaches no server.
            step: asks the server; raises the same, or :class:`ConnectionLostError` if the server may be well.
            arguments: the arguments of the step.

        Raises:
            ServerUnavailableError: the server cannot be reached, or could not be a moment ago.
        """
        closed = self.closed
        if closed is None:
            closed = self._close(probe)
            self._on_close()
        try:
            return step(*arguments)
        except ServerUnavailableError as failure:
            self._open(failure, closed)
            raise

    def bypass(self, probe: Callable[[], object]) -> None:
        """Probe the server at once unless the breaker is closed, and close the breaker if the server answers.

        Args:
            probe: as :meth:`call` has it.

        Raises:
            ServerUnavailableError: the server cannot be reached.
        """
        if self.closed is None:
            self._probe(probe)
            self._on_close()

    def _open(self, failure: ServerUnavailableError, closed: object) -> None:
        is_lost = isinstance(failure, ConnectionLostError)
        with self._guard:
            if self.closed is not closed:
                return
            self.closed = None
            has_opened = self._note_failure(failure, 0 if is_lost else PAUSE)
        if has_opened:
            self._on_change(self._failure, 0)

    def _note_failure(self, failure: ServerUnavailableError, pause: float) -> bool:
        """Note a failure, under the guard; return whether the breaker has opened by it."""
        now = time.monotonic()
        self._failure, self._open_until = _without_frames(failure), now + pause if pause else 0
        if not pause or self._opened_at is not None:
            return False
        self._opened_at = now
        return True

    def _close(self, probe: Callable[[], object]) -> object:
        """Return the object of a closed breaker, after a probe if need be; raise if the server stays away."""
        # Wait for the probe of another caller only after a lost connection: the server is probably well.
        if not self._probing.acquire(timeout=0 if self._open_until else self._patience):
            raise self._fast_failure()
        try:
            closed = self.closed
            if closed is not None:
                return closed
            if time.monotonic() < self._open_until:
                raise self._fast_failure()
            return self._probe(probe)
        finally:
            self._probing.release()

    def _probe(self, probe: Callable[[], object]) -> object:
        try:
            probe()
        except ServerUnavailableError as failure:
            with self._guard:
                has_opened = self._note_failure(failure, PAUSE)
            if has_opened:
                self._on_change(self._failure, 0)
            raise
        except SessionStoreError:
            # Count a refusal as an answer.
            pass
        closed = object()
        with self._guard:
            self.closed = closed
            opened_at, self._opened_at = self._opened_at, None
        if opened_at is not None:
            self._on_change(None, time.monotonic() - opened_at)
        return closed

    def _fast_failure(self) -> CircuitOpenError:
        failure = self._failure
        return CircuitOpenError(
            f"{failure}; it is left alone for up to {PAUSE} s after a failure",
            name=failure.name,
            original=failure.original,
        )


def _without_frames(failure: ServerUnavailableError) -> ServerUnavailableError:
    """Return a copy of a failure to keep: the frames, and what a client adds to an error, hold sockets and requests."""
    original = failure.original
    copy = None
    # Leave out an error whose class takes other arguments than it shows.
    with suppress(Exception):
        copy = original and type(original)(*original.args)
    kept = ServerUnavailableError(str(failure), name=failure.name, original=copy)
    kept.failure = failure.failure
    return kept
