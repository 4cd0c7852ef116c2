"""A namespace manager of a cache region, in the place of Beaker's own: its decorators work with either.

It adds to Beaker's:

- An expired value is served while one caller computes a new one, on every backend.
- A failing store does not fail the page: the value is computed.
- Each value has a unique name, made of the region, the namespace and the whole key: no two regions, sessions or keys
  share a name, whatever a backend joins, cuts or compares.
- Clearing a namespace affects no other one.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from math import ceil, inf
from typing import Any

from beaker.cache import clsmap
from beaker.container import DBMNamespaceManager, FileNamespaceManager, NamespaceManager

from beaker_bridge.exceptions import (
    CacheStoreError,
    DamagedRecordError,
    SessionStoreError,
    SessionTooLargeError,
    failure_of,
)
from beaker_bridge.logs import QUIET, LogLimiter, fields
from beaker_bridge.options.masking import clean
from beaker_bridge.options.table import RegionOptions
from beaker_bridge.options.types import MEMORY, SERVER_TYPES
from beaker_bridge.regions.backends import (
    Backend,
    BeakerBackend,
    FileBackend,
    MemoryBackend,
    MisconfiguredError,
    payload,
)
from beaker_bridge.regions.creation_lock import AWAY, CreationLock
from beaker_bridge.regions.servers import ServerBackend, open_servers

log = logging.getLogger(__name__)

#: Returned for a value that cannot be read, or may not exist.
UNKNOWN = object()
#: The number of keys of unkept values to remember.
_REMEMBERED = 1000

UNUSABLE = "its store cannot be used, so values are computed"
LOST = "its store cannot be used, so a value that was invalidated is served until it expires"
DAMAGED = "a value in its store cannot be read, so it is computed"


class _UnkeptError(Exception):
    """A value that cannot be pickled."""


# -- Failures ----------------------------------------------------------------------------------------


class FailureReporter:
    """Reports failures of a region's store: in the log, at most once a minute, or as an exception.

    Args:
        options: the region's.
    """

    def __init__(self, options: RegionOptions) -> None:
        self._options = options
        self._limiter = LogLimiter()

    def report(self, failure: str, error: Exception) -> None:
        """Log an error of the store, at most once a minute.

        Args:
            failure: what follows from it.
            error: the error.

        Raises:
            CacheStoreError: the store cannot be used, and the region's ``store_error`` is ``raise``.
        """
        clean(error)
        message = f"{self._region}: {failure}: {_reason(error)}"
        if self._options.store_error == "raise" and failure != DAMAGED:
            raise CacheStoreError(message, name=self._options.region, original=error) from error
        # Beaker's own backends raise the errors of their clients, and of the system.
        self._log(
            failure, message, QUIET, "damaged" if failure == DAMAGED else getattr(error, "failure", "unavailable")
        )

    def report_unkept(self, function: str, value: Any, error: Exception) -> None:
        """Log that a value is not kept: once per function and type; at most once a minute if it is too large.

        Args:
            function: the function that returned it.
            value: the value.
            error: why it is not kept.
        """
        message = f"{self._region}: {function} returned a value of type {_type_name(value)}, which is not kept"
        about = (function, _type_name(value), type(error))
        if isinstance(error, SessionTooLargeError):
            limit = str(error).partition(", ")[2]
            self._log(
                about,
                f"{message}, so each call computes it: {error.value} bytes are too many for it ({limit})",
                QUIET,
                error.failure,
            )
        else:
            advice = "let it return data: a list for a generator, what a coroutine gives for the coroutine"
            self._log(about, f"{message}, so each call computes it: {error}; {advice}", inf, "unpicklable")

    @property
    def _region(self) -> str:
        return f"cache region {self._options.region} ({self._options.type})"

    def _log(self, about: Hashable, message: str, quiet: float, kind: str) -> None:
        if self._limiter.is_due(about, quiet, time.monotonic()):
            log.warning("%s", message, extra=fields(store=self._options.type, failure=kind))


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _reason(error: BaseException) -> str:
    """Return an error as one line, without statements, values or passwords."""
    if isinstance(error, SessionStoreError) and error.original is not None:
        error = error.original
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -- The namespace -----------------------------------------------------------------------------------


def _open_backend(options: RegionOptions, name: str, arguments: Mapping[str, Any]) -> Backend:
    """Return the backend of a region's namespace."""
    if options.type in SERVER_TYPES:
        return ServerBackend(name, open_servers(options, arguments))
    if options.type == MEMORY:
        return MemoryBackend(options, name, arguments)
    manager = clsmap[options.type]
    # A third party's subclass of these has the same locks.
    in_files = isinstance(manager, type) and issubclass(manager, (FileNamespaceManager, DBMNamespaceManager))
    return (FileBackend if in_files else BeakerBackend)(options, name, arguments)


class _ValueLock:
    """A creation lock that records the key while its value is computed.

    Args:
        lock: the lock.
        key: the key.
        in_work: the keys that this thread computes.
    """

    def __init__(self, lock: CreationLock, key: str, in_work: set[str]) -> None:
        self._lock, self._key, self._in_work = lock, key, in_work

    def acquire(self, wait: bool = True) -> bool:
        taken = self._lock.acquire(wait)
        if taken:
            self._in_work.add(self._key)
        return taken

    def release(self) -> None:
        self._in_work.discard(self._key)
        self._lock.release()


class RegionNamespace(NamespaceManager):
    """A namespace of a region: the values of one cached function.

    Each step is atomic by itself, so the locks that Beaker takes around them do nothing here.

    Args:
        options: the region's.
        reporter: reports the failures of its store.
        namespace: the namespace, as Beaker names it.
        arguments: the region's options, as Beaker passes them.
    """

    def __init__(self, options: RegionOptions, reporter: FailureReporter, namespace: str, **arguments: Any) -> None:
        super().__init__(namespace)
        self._options = options
        self._reporter = reporter
        # Readable for operators; the digest makes it unique.
        readable = re.sub(r"[^0-9a-z_]", "-", options.region.lower())[:40]
        self._name = f"region.{readable}.{_digest(repr((options.region, namespace)).encode())}"
        self._backend = _open_backend(options, self._name, arguments)
        self._seen = threading.local()
        #: The keys whose values were not kept: waiting for another caller's computation is useless.
        self._unkept: set[str] = set()
        self._in_work = threading.local()

    # -- Reading -------------------------------------------------------------------------------------

    def __contains__(self, key: Any) -> bool:
        # Beaker calls this right before it gets the value: read the store once for both.
        value = self._read(key)
        self._seen.value = key, value
        # An unknown value counts as present, so that it can be deleted.
        return value is not None

    def __getitem__(self, key: Any) -> Any:
        seen, value = getattr(self._seen, "value", (None, None))
        self._forget_seen()
        if seen != key:
            value = self._read(key)
        if value is None or value is UNKNOWN:
            raise KeyError(key)
        return value

    def _forget_seen(self) -> None:
        self._seen.value = None, None

    def _read(self, key: Any) -> Any:
        """Return the value, None if there is none, or ``UNKNOWN``."""
        content = self._attempt(UNUSABLE, UNKNOWN, self._backend.read, _digest(key))
        if content is None or content is UNKNOWN:
            return content
        try:
            return self._backend.unpack(content)
        except Exception as error:  # noqa: BLE001 -- a missing or changed class may raise anything
            self._reporter.report(DAMAGED, error)
            return UNKNOWN

    # -- Writing -------------------------------------------------------------------------------------

    def set_value(self, key: Any, value: Any, expiretime: float | None = None) -> None:
        self._forget_seen()
        digest = _digest(key)
        try:
            content = self._packed(digest, value)
            self._attempt(UNUSABLE, None, self._backend.write, digest, content, self._kept(expiretime))
        except (_UnkeptError, SessionTooLargeError) as error:
            self._leave_unkept(digest, payload(value), error)
        else:
            self._unkept.discard(digest)

    def _packed(self, digest: str, value: Any) -> Any:
        try:
            return self._backend.pack(value)
        except Exception as error:
            # A caller that sets a value directly must see the error.
            if digest not in self._keys_in_work():
                raise
            raise _UnkeptError(_reason(error)) from error

    def _keys_in_work(self) -> set[str]:
        """Return the keys that this thread computes."""
        keys: set[str] = self._in_work.__dict__.setdefault("keys", set())
        return keys

    def _leave_unkept(self, digest: str, value: Any, error: Exception) -> None:
        """Do not keep a value, which its caller gets all the same: this is no failure of the store."""
        file, has_file, name = self.namespace.rpartition("|")
        self._reporter.report_unkept(f"{name} in {file}" if has_file else name, value, error)
        if len(self._unkept) >= _REMEMBERED:
            self._unkept.clear()
        self._unkept.add(digest)
        # Otherwise an older value would be served until it is replaced.
        self._attempt(LOST, None, self._backend.delete, digest)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set_value(key, value)

    def __delitem__(self, key: Any) -> None:
        self._forget_seen()
        self._attempt(LOST, None, self._backend.delete, _digest(key))

    def do_remove(self) -> None:
        self._attempt(LOST, None, self._backend.clear)

    def _kept(self, expiretime: float | None) -> int | None:
        """Return how long the server keeps a value: while it is fresh, and while a new one is computed."""
        return None if expiretime is None else ceil(expiretime + max(expiretime, self._options.lock_timeout))

    # -- Computing -----------------------------------------------------------------------------------

    def get_creation_lock(self, key: Any) -> _ValueLock:
        """Return the lock for computing a value."""
        digest, patience = _digest(key), self._options.lock_timeout

        def take() -> Any:
            if digest in self._unkept:
                return AWAY
            return self._attempt(UNUSABLE, AWAY, self._backend.take, digest, patience)

        def end(lease: Any) -> None:
            try:
                self._backend.end(digest, lease)
            except Exception as error:  # noqa: BLE001 -- as in _attempt; the value is there, so do not fail
                extra = fields(store=self._options.type, failure=failure_of(error))
                message = "cache region %s: a lease ends by itself: %s"
                log.debug(message, self._options.region, _reason(error), extra=extra)

        return _ValueLock(CreationLock(f"{self._name}.{digest}", patience, take, end), digest, self._keys_in_work())

    def _attempt(self, failure: str, otherwise: Any, step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except MisconfiguredError as error:
            raise error.original from None
        except SessionTooLargeError:
            raise
        except Exception as error:  # noqa: BLE001 -- stores and clients raise errors of their own
            self._reporter.report(DAMAGED if isinstance(error, DamagedRecordError) else failure, error)
            return otherwise


def _digest(key: Any) -> str:
    content = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:40]
