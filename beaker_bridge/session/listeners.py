"""The registries whose subscribers get the events of a configuration's store, which no request sends."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from beaker_bridge.events import BreakerClosed, BreakerOpened, StoreFailed
from beaker_bridge.exceptions import SessionStoreError, failure_of
from beaker_bridge.logs import fields
from beaker_bridge.stores._breaker import PAUSE
from beaker_bridge.stores._forks import PerProcess

log = logging.getLogger(__name__)

#: The number of events that wait for their subscribers; older ones are dropped.
WAITING = 1000
#: The name of the thread in which subscribers are notified.
THREAD = "beaker_bridge events"


class _Queue:
    """The events of a process that are to be sent."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.events: deque[object] = deque(maxlen=WAITING)
        #: Whether a thread is sending them.
        self.is_served = False


class Listeners:
    """Sends events in a thread of its own: a subscriber that is slow, or fails, costs no request anything.

    The thread ends when there is nothing left to send, so a server that forks loses none.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # Weak, since a configuration may outlive an application.
        self._registries: list[ref[Any]] = []
        self._queue = PerProcess(_Queue)

    def add(self, registry: Any) -> None:
        """Send the events to an application's subscribers from now on.

        Args:
            registry: its registry; one that is not Pyramid's, as in tests, gets none.
        """
        # Two applications may share a configuration, and have their first requests at once.
        with self._guard:
            living = self._living()
            if hasattr(registry, "has_listeners") and all(known is not registry for known in living):
                self._registries = [ref(known) for known in (*living, registry)]

    def report_breaker(self, event: BreakerOpened | BreakerClosed) -> None:
        """Log that a circuit breaker of the store has opened, or closed, and send the event.

        Args:
            event: a :class:`BreakerOpened` or a :class:`BreakerClosed`.
        """
        if isinstance(event, BreakerOpened):
            message = (
                "the store %s is left alone for %d s, and then asked by one request at a time, until it answers: %s"
            )
            extra = fields(store=event.store, failure=event.failure)
            log.warning(message, _name_of(event), PAUSE, event.error, extra=extra)
        else:
            extra = fields(store=event.store)
            log.info("the store %s answers again, after %.1f s", _name_of(event), event.seconds, extra=extra)
        self.send(event)

    def report_failure(self, error: SessionStoreError, step: str) -> None:
        """Send the event of a failure of the store, once.

        Args:
            error: the error.
            step: what failed, as :class:`StoreFailed` has it.
        """
        if not error.is_reported:
            error.is_reported = True
            self.send(StoreFailed(str(error.name), error.failure, step, error))

    @contextmanager
    def reporting(self, step: str) -> Iterator[None]:
        """Report the store's failure in a block.

        Args:
            step: what the block does.
        """
        try:
            yield
        except SessionStoreError as error:
            self.report_failure(error, step)
            raise

    def send(self, event: object) -> None:
        """Send an event, and return at once."""
        if not any(registry.has_listeners for registry in self._living()):
            return
        queue = self._queue.get()
        with queue.guard:
            queue.events.append(event)
            if queue.is_served:
                return
            queue.is_served = True
        try:
            threading.Thread(target=self._serve, args=(queue,), name=THREAD, daemon=True).start()
        except RuntimeError as error:
            with queue.guard:
                queue.is_served = False
            log.warning("the events of the store are sent later: %s", error, extra=fields(failure=failure_of(error)))

    def _serve(self, queue: _Queue) -> None:
        while True:
            with queue.guard:
                if not queue.events:
                    queue.is_served = False
                    return
                event = queue.events.popleft()
            for registry in self._living():
                notify_safely(registry.notify, event)

    def _living(self) -> list[Any]:
        """Return the registries of the applications that are still there."""
        return [registry for known in self._registries if (registry := known()) is not None]


def _name_of(event: BreakerOpened | BreakerClosed) -> str:
    return f"{event.store} ({event.server})" if event.server else event.store


def notify_safely(notify: Any, event: object) -> None:
    """Notify of an event; log what a subscriber raises.

    Args:
        notify: notifies the subscribers.
        event: the event.
    """
    try:
        notify(event)
    except Exception as error:
        log.exception("a subscriber of %s failed", type(event).__name__, extra=fields(failure=failure_of(error)))
