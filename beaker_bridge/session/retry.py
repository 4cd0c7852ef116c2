"""Swaps that others win: tried again a few times freely, then under the store's lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from beaker_bridge.exceptions import SessionConflictError

#: After so many lost swaps a writer queues on the store's lock.
FREE_TRIES = 3


def retry(
    attempt: Callable[[], bool],
    lock: Callable[[], AbstractContextManager[Any]],
    timeout: float,
    what: str,
    lost: int = 0,
) -> int:
    """Repeat an attempt at a swap until it succeeds: a few times freely, then under the store's lock.

    Args:
        attempt: makes one try, and returns whether it is done.
        lock: returns the lock.
        timeout: seconds for which it is tried under the lock.
        what: what is swapped, for the error.
        lost: the number of tries that were lost before.

    Returns:
        How many tries it took.

    Raises:
        SessionConflictError: no try succeeded.
    """
    tries = lost
    while tries < FREE_TRIES:
        tries += 1
        if attempt():
            return tries
    deadline = time.monotonic() + timeout
    with lock():
        while time.monotonic() < deadline:
            tries += 1
            if attempt():
                return tries
    message = f"{what} was changed by others each time it was merged, for {timeout:g} seconds"
    raise SessionConflictError(message, value=tries)
