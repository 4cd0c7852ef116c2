"""Recorder of a request's cache regions: values hit, stale, computed, or waited for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from beaker_bridge.debugtoolbar.recorder import Recorder, Region
from beaker_bridge.regions.define import Region as DefinedRegion
from beaker_bridge.regions.namespace import RegionNamespace

#: The watch of the request that this thread serves.
_watching: ContextVar[_Watch | None] = ContextVar("beaker_bridge_regions", default=None)


class _Value:
    """A value that a request has asked for."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        #: The number of its entry; None before there is one.
        self.number: int | None = None
        #: Whether it is being computed, or waited for.
        self.is_locked = False


class _Watch:
    """What a request has asked its regions for.

    Args:
        recorder: keeps it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._regions = recorder.regions
        #: The values by namespace and key, as they were asked for last.
        self._values: dict[tuple[int, Any], _Value] = {}

    def begin(self, namespace: WatchedNamespace, key: Any) -> None:
        """Begin to look for a value; one that is being computed is looked for once more."""
        if not self._value(namespace, key).is_locked:
            self._values[id(namespace), key] = _Value()

    def found(self, namespace: WatchedNamespace, key: Any) -> None:
        """Note that a value was found."""
        self._note(namespace, key, "waited" if self._value(namespace, key).is_locked else "hit")

    def locked(self, namespace: WatchedNamespace, key: Any) -> None:
        """Note that there is none, or that it is too old: it is to be computed, or waited for."""
        self._value(namespace, key).is_locked = True
        self._note(namespace, key, "failed")

    def computed(self, namespace: WatchedNamespace, key: Any) -> None:
        """Note that a value was computed; one that is only set was not asked for."""
        if self._value(namespace, key).is_locked:
            self._note(namespace, key, "computed")

    def unlocked(self, namespace: WatchedNamespace, key: Any, outcome: str | None = None) -> None:
        """Note the end of that, and what came of it where that is not known yet."""
        self._value(namespace, key).is_locked = False
        if outcome is not None:
            self._note(namespace, key, outcome)

    def _value(self, namespace: WatchedNamespace, key: Any) -> _Value:
        return self._values.setdefault((id(namespace), key), _Value())

    def _note(self, namespace: WatchedNamespace, key: Any, outcome: str) -> None:
        value = self._value(namespace, key)
        if value.number is None:
            value.number = len(self._regions)
            self._regions.append(Region(namespace.region, namespace.function, outcome, 0))
        milliseconds = (time.perf_counter() - value.began) * 1000
        self._regions[value.number] = Region(namespace.region, namespace.function, outcome, milliseconds)


class _WatchedLock:
    """A creation lock that notes what it is taken for.

    Args:
        lock: the lock.
        watch: the request's.
        namespace: the namespace.
        key: the key of the value.
    """

    def __init__(self, lock: Any, watch: _Watch, namespace: WatchedNamespace, key: Any) -> None:
        self._lock, self._watch = lock, watch
        self._about = namespace, key
        # The caller may be an exception handler.
        self._handled = sys.exc_info()[1]

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock: where that fails, another caller computes, and the old value is served."""
        taken: bool = self._lock.acquire(wait)
        if not taken:
            self._watch.unlocked(*self._about, "stale")
        return taken

    def release(self) -> None:
        """Release the lock."""
        self._watch.unlocked(*self._about, None if sys.exc_info()[1] is self._handled else "failed")
        self._lock.release()


class WatchedNamespace(RegionNamespace):
    """A namespace of a region that can be watched; without a request that does, it is as any other."""

    @property
    def region(self) -> str:
        """The name of its region."""
        return self._options.region

    @property
    def function(self) -> str:
        """The name of the function whose values it has."""
        return str(self.namespace).rpartition("|")[2]

    def __contains__(self, key: Any) -> bool:
        watch = _watching.get()
        if watch is not None:
            watch.begin(self, key)
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        watch = _watching.get()
        if watch is not None:
            watch.found(self, key)
        return value

    def set_value(self, key: Any, value: Any, expiretime: float | None = None) -> None:
        super().set_value(key, value, expiretime)
        watch = _watching.get()
        if watch is not None:
            watch.computed(self, key)

    def get_creation_lock(self, key: Any) -> Any:
        lock, watch = super().get_creation_lock(key), _watching.get()
        if watch is None:
            return lock
        watch.locked(self, key)
        return _WatchedLock(lock, watch, self, key)


def watch_regions() -> None:
    """Have the namespaces that are made from now on watched."""
    DefinedRegion.namespace_class = WatchedNamespace


@contextmanager
def watching(recorder: Recorder) -> Iterator[None]:
    """Note what this thread asks its regions for.

    Args:
        recorder: keeps it.
    """
    token = _watching.set(_Watch(recorder))
    try:
        yield
    finally:
        _watching.reset(token)
