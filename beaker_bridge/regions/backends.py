"""The backends of cache regions' values: Beaker's own, and servers."""

from __future__ import annotations

import pickle
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from beaker.cache import clsmap
from beaker.container import MemoryNamespaceManager
from beaker.exceptions import MissingCacheParameter

from beaker_bridge.exceptions import DamagedRecordError
from beaker_bridge.options.masking import clean
from beaker_bridge.options.table import RegionOptions
from beaker_bridge.regions.access_lock import AccessLock
from beaker_bridge.regions.creation_lock import FileLease
from beaker_bridge.stores._flock import LockTimeoutError
from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores._lease import HeldBy

#: The name of a region's namespace.
_NAME = re.compile(r"region\.[0-9a-z_-]*\.[0-9a-f]{40}")
#: Raised by a backend's constructor if an option or a package is missing.
_MISCONFIGURED = (MissingCacheParameter, ImportError, TypeError, RuntimeError)
#: The number of a value's members to look at.
_FIRST = 32
#: Held while Beaker's manager of a file is made.
_making = PerProcess(threading.Lock)


class MisconfiguredError(Exception):
    """A backend lacks an option or a package: an error for the caller, as with Beaker, and no failure of a store."""

    def __init__(self, original: Exception) -> None:
        super().__init__()
        self.original = original


# -- Values ------------------------------------------------------------------------------------------


class _Pickled(NamedTuple):
    """A pickled value in memory: each caller gets a copy."""

    value: bytes


def payload(value: Any) -> Any:
    """Return the function's value out of Beaker's tuple of time, expiry and value."""
    return value[-1] if isinstance(value, tuple) and value else value


def _can_be_used_up(value: Any) -> bool:
    """Return whether a value is an iterator, a file, a coroutine or the like, or has one among its first members."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return any(isinstance(one, (Iterator, AsyncIterator, Awaitable)) for one in (value, *islice(members, _FIRST)))


# -- Backends ----------------------------------------------------------------------------------------


class Backend(ABC):
    """The values of one namespace of a region, by the digests of their keys.

    Each method raises what its store or its client raises.
    """

    @staticmethod
    def pack(value: Any) -> Any:
        """Return a value as the backend keeps it."""
        return pickle.dumps(value)

    @staticmethod
    def unpack(content: Any) -> Any:
        """Return the value that was packed."""
        return pickle.loads(content)  # noqa: S301  # nosec B301 -- a cache holds any value, as Beaker's does

    @abstractmethod
    def read(self, key: str) -> Any:
        """Return a packed value, or None."""

    @abstractmethod
    def write(self, key: str, content: Any, seconds: float | None) -> None:
        """Keep a packed value for at least so many seconds."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a value."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all values of the namespace, and no others."""

    @abstractmethod
    def take(self, key: str, seconds: float) -> Any:
        """Take the lease for computing a value, for so many seconds; ``HeldBy`` where it is taken."""

    @abstractmethod
    def end(self, key: str, lease: Any) -> None:
        """End a lease."""


class BeakerBackend(Backend):
    """Values in any namespace manager of Beaker's.

    Args:
        options: the region's.
        name: the name of the namespace.
        arguments: what Beaker passes to a namespace manager.
    """

    def __init__(self, options: RegionOptions, name: str, arguments: Mapping[str, Any]) -> None:
        self._options = options
        self._name = name
        self._arguments = arguments
        # Made at the first use, because some connect, which may fail. One for all threads, since they share its locks.
        self._managers: PerProcess[Any] = PerProcess(self._new_manager)

    @property
    def _manager(self) -> Any:
        return self._managers.get()

    def _new_manager(self) -> Any:
        try:
            return clsmap[self._options.type](self._name, **self._arguments)
        except _MISCONFIGURED as error:
            clean(error)
            raise MisconfiguredError(error) from error

    def read(self, key: str) -> Any:
        manager = self._manager
        manager.acquire_read_lock()
        try:
            return manager[key]
        except KeyError:
            return None
        finally:
            manager.release_read_lock()

    def write(self, key: str, content: Any, seconds: float | None) -> None:
        manager = self._manager
        manager.acquire_write_lock()
        try:
            manager.set_value(key, content, expiretime=seconds)
        finally:
            manager.release_write_lock()

    def delete(self, key: str) -> None:
        manager = self._manager
        manager.acquire_write_lock()
        try:
            if key in manager:
                del manager[key]
        finally:
            manager.release_write_lock()

    def clear(self) -> None:
        self._manager.remove()

    def take(self, key: str, seconds: float) -> Any:
        lock = self._manager.get_creation_lock(key)
        return lock if lock.acquire(wait=False) else HeldBy()

    def end(self, key: str, lease: Any) -> None:
        lease.release()


class MemoryBackend(BeakerBackend):
    """Beaker's ``memory``: the values themselves; the process's own lock is all the lease that they need."""

    @staticmethod
    def pack(value: Any) -> Any:
        # An iterator can be used once: give each caller a copy.
        return _Pickled(Backend.pack(value)) if _can_be_used_up(payload(value)) else value

    @staticmethod
    def unpack(content: Any) -> Any:
        return Backend.unpack(content.value) if isinstance(content, _Pickled) else content

    def take(self, key: str, seconds: float) -> Any:
        return True

    def end(self, key: str, lease: Any) -> None:
        return


def empty_memory() -> None:
    """Remove the values of all regions in memory, wherever they are referred to."""
    spaces = MemoryNamespaceManager.namespaces.dict
    for name in filter(_NAME.fullmatch, list(spaces)):
        spaces.pop(name).clear()


class FileBackend(BeakerBackend):
    """Beaker's ``file`` and ``dbm``: one file for all values of a namespace.

    A process that is stopped while it reads or writes delays each other process once, for ``lock_timeout`` seconds.
    """

    def _new_manager(self) -> Any:
        # Two threads can have a cache each of one region. Beaker's constructor creates a dbm file, under no lock: the
        # second one would empty what the first one has just written.
        with _making.get():
            manager = super()._new_manager()
        manager.access_lock = AccessLock(
            getattr(manager.access_lock, "filename", manager.file), self._options.lock_timeout, self._held_too_long()
        )
        return manager

    def _held_too_long(self) -> str:
        label = self._options.label
        place = next((name for name in ("lock_dir", "data_dir") if self._arguments.get(name)), "lock_dir")
        return (
            f"for more than {self._options.lock_timeout:g} seconds ({label('lock_timeout')});"
            f" {label(place)} = {self._arguments.get(place)}; fuser or lsof names the process"
        )

    def read(self, key: str) -> Any:
        try:
            return self._step(super().read, key, shared=True)
        except LockTimeoutError:
            raise
        except Exception as error:
            # Raise the system's errors, which have an errno; gdbm's error for a file that is not its own has none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            # Remove it: Beaker would read it again and again, and never write to it.
            self._manager.remove()
            raise DamagedRecordError(f"a damaged file is removed: {error!r}") from error

    def write(self, key: str, content: Any, seconds: float | None) -> None:
        self._step(super().write, key, content, seconds, shared=False)

    def delete(self, key: str) -> None:
        # Wait each time: a value that is not deleted is served until it expires.
        self._step(super().delete, key)

    def clear(self) -> None:
        self._step(super().clear)

    def _step(self, step: Callable[..., Any], *arguments: Any, shared: bool | None = None) -> Any:
        """Do a step; retry once if a directory is missing: a clean-up job may have removed it.

        Args:
            step: the step.
            arguments: its arguments.
            shared: True for a read, False for a write, which fail at once if others have waited in vain; None to wait.
        """
        try:
            return self._unless_held_up(step, *arguments, shared=shared)
        except FileNotFoundError:
            # Beaker creates the directories with the manager.
            self._forget_manager()
            return self._unless_held_up(step, *arguments, shared=shared)

    def _unless_held_up(self, step: Callable[..., Any], *arguments: Any, shared: bool | None) -> Any:
        if shared is not None:
            self._manager.access_lock.check(shared=shared)
        return step(*arguments)

    def _forget_manager(self) -> None:
        self._managers = PerProcess(self._new_manager)

    def take(self, key: str, seconds: float) -> Any:
        return self._step(self._taken_lease, key, seconds, shared=False)

    def _taken_lease(self, key: str, seconds: float) -> FileLease | HeldBy:
        lease = FileLease(f"{self._manager.lock_dir}/{self._name}.{key}.lock", seconds)
        return lease if lease.take() else lease.held_by()

    def end(self, key: str, lease: Any) -> None:
        lease.end()
