"""How much memory something needs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def peak_of(task: Callable[..., object], *arguments: object) -> int:
    """Return the memory that a task needs at its peak, in bytes, beside what was there before."""
    tracemalloc.start()
    try:
        task(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
