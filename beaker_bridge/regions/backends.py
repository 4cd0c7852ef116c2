"""What keeps the values of a cache region: a namespace manager of Beaker's kind, over Beaker's backends.

Beaker's decorators work with it as with Beaker's own. It adds what these lack:

- An expired value stays where it is while one caller computes a new one, on every backend.
- A store that fails costs no page: the value is computed.
- Each value has a name of its own, made of the region, the namespace and the whole key. So two regions
  share nothing, a session's id is no value's name, and no backend's own way to join, cut or compare
  names lets two keys meet.
- To clear a namespace touches nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from math import ceil, inf
from types import MappingProxyType
from typing import Any, NamedTuple

from beaker.cache import clsmap
from beaker.container import DBMNamespaceManager, FileNamespaceManager, MemoryNamespaceManager, NamespaceManager
from beaker.exceptions import MissingCacheParameter

from beaker_bridge.exceptions import (
    CacheStoreError,
    DamagedRecordError,
    SessionStoreError,
    SessionTooLargeError,
)
from beaker_bridge.logs import QUIET, LogLimiter
from beaker_bridge.options.masking import clean
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import MEMCACHED, MEMORY
from beaker_bridge.regions.access_lock import AccessLock
from beaker_bridge.regions.creation_lock import AWAY, CreationLock, FileLease, HeldBy
from beaker_bridge.stores import open_store
from beaker_bridge.stores._breaker import urgently
from beaker_bridge.stores._flock import LockTimeoutError
from beaker_bridge.stores.base import Record, Store

log = logging.getLogger(__name__)

#: What is in the place of a value where nobody can say which, or whether there is one.
UNKNOWN = object()
#: The options of a region that a store on a server is opened with.
_STORE_OPTIONS = (
    *("url", "urls", "username", "password", "key_prefix"),
    *("table_name", "schema_name", "sa_opts", "bind", "table"),
)
#: A lease: a word of its holder's own, and the time at which it ends.
_LEASE = re.compile(rb"[0-9a-f]{32} ([0-9.]+)")

#: The name of a region's namespace.
_NAME = re.compile(r"region\.[0-9a-z_-]*\.[0-9a-f]{40}")

#: What says, when a backend is made, that it lacks an option or a package: Beaker's own, and Python's.
_MISCONFIGURED = (MissingCacheParameter, ImportError, TypeError, RuntimeError)
#: How many of a value's members are looked at, and how many keys of values that are not kept are remembered.
_FIRST, _REMEMBERED = 32, 1000

UNUSABLE = "its store cannot be used, so values are computed"
LOST = "its store cannot be used, so a value that was invalidated is served until it expires"
DAMAGED = "a value in its store cannot be read, so it is computed"


class Terms(NamedTuple):
    """What a region's namespace manager goes by, beside what Beaker hands over."""

    name: str
    kind: str
    store_timeout: float
    lock_timeout: float
    store_error: str
    #: How the options are named in the settings.
    labels: Mapping[str, str] = MappingProxyType({})


class _MisconfiguredError(Exception):
    """A backend lacks what it needs: no failure of a store, but an error for who calls, as it is with Beaker."""

    def __init__(self, original: Exception) -> None:
        super().__init__()
        self.original = original


class _UnkeptError(Exception):
    """A value that cannot be pickled."""


# -- When a store fails ------------------------------------------------------------------------------


class Troubles:
    """Tells what is wrong with a region's store: in the log, once a minute, or by an exception.

    Args:
        terms: the region's.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._lines = LogLimiter()

    def tell(self, trouble: str, error: Exception) -> None:
        """Log an error of the store, once a minute.

        Raises:
            CacheStoreError: the store cannot be used, and the region's ``store_error`` is ``raise``.
        """
        clean(error)
        message = f"{self._region}: {trouble}: {_reason(error)}"
        if self._terms.store_error == "raise" and trouble != DAMAGED:
            raise CacheStoreError(message, name=self._terms.name, original=error) from error
        self._log(trouble, message, QUIET)

    def tell_of_value(self, function: str, value: Any, error: Exception) -> None:
        """Log that a value is not kept: once for a function and a type; once a minute where it is too large.

        Args:
            function: what returned it.
            value: the value.
            error: what keeps it from being kept.
        """
        told = f"{self._region}: {function} returned a value of type {_type_name(value)}, which is not kept"
        about = (function, _type_name(value), type(error))
        if isinstance(error, SessionTooLargeError):
            limit = str(error).partition(", ")[2]
            self._log(
                about, f"{told}, so each call computes it: {error.value} bytes are too many for it ({limit})", QUIET
            )
        else:
            advice = "let it return data: a list for a generator, what a coroutine gives for the coroutine"
            self._log(about, f"{told}, so each call computes it: {error}; {advice}", inf)

    @property
    def _region(self) -> str:
        return f"cache region {self._terms.name} ({self._terms.kind})"

    def _log(self, about: Hashable, message: str, quiet: float) -> None:
        if self._lines.is_due(about, quiet, time.monotonic()):
            log.warning("%s", message)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _reason(error: BaseException) -> str:
    """Return an error as a line without statements, values or passwords in it."""
    if isinstance(error, SessionStoreError) and error.original is not None:
        error = error.original
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_servers: list[tuple[SessionOptions, Store]] = []
_servers_guard = threading.Lock()


def open_servers(terms: Terms, arguments: Mapping[str, Any]) -> tuple[Store, ...]:
    """Return the servers that a region's arguments name; each is opened once, for all regions.

    Args:
        terms: the region's.
        arguments: the region's options.

    Raises:
        SettingsError: the arguments name no server, or its client is not installed.
    """
    given = {name: arguments[name] for name in _STORE_OPTIONS if arguments.get(name) is not None}
    options = SessionOptions(type=terms.kind, store_timeout=terms.store_timeout, labels=terms.labels, **given)
    if terms.kind != MEMCACHED or not isinstance(options.url, str):
        return (_server(options),)
    # Each by itself: where one of them is down, the others still do their part.
    return tuple(_server(replace(options, url=address)) for address in options.url.split(";"))


def _server(options: SessionOptions) -> Store:
    with _servers_guard:
        for known, server in _servers:
            if known == options:
                return server
        server = open_store(options)
        _servers.append((options, server))
        return server


def close_servers() -> None:
    """Close the connections to all servers, and forget them."""
    with _servers_guard:
        for _, server in _servers:
            server.close()
        _servers.clear()


# -- Values ------------------------------------------------------------------------------------------


class _Pickled(NamedTuple):
    """A value in memory of which each caller gets one of its own."""

    value: bytes


def _payload(value: Any) -> Any:
    """Return what a function returned, of what Beaker keeps: a time, an expiry and that."""
    return value[-1] if isinstance(value, tuple) and value else value


def _can_be_used_up(value: Any) -> bool:
    """Say whether a value is an iterator, a file, a coroutine or the like, or holds one among its first members."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return any(isinstance(one, (Iterator, AsyncIterator, Awaitable)) for one in (value, *islice(members, _FIRST)))


# -- Where the values are ----------------------------------------------------------------------------


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
        """Return a packed value, or nothing."""

    @abstractmethod
    def write(self, key: str, content: Any, seconds: float | None) -> None:
        """Keep a packed value for so many seconds at least."""

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
    """What Beaker's own namespace manager keeps, whichever it is.

    Args:
        terms: the region's.
        name: the name of the namespace.
        arguments: what Beaker hands to a namespace manager.
    """

    def __init__(self, terms: Terms, name: str, arguments: Mapping[str, Any]) -> None:
        self._terms = terms
        self._name = name
        self._arguments = arguments

    @cached_property
    def _manager(self) -> Any:
        # Made at the first use, since some connect: that may fail.
        return self._new_manager()

    def _new_manager(self) -> Any:
        try:
            return clsmap[self._terms.kind](self._name, **self._arguments)
        except _MISCONFIGURED as error:
            clean(error)
            raise _MisconfiguredError(error) from error

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
    """Beaker's ``memory``: the values themselves, which need no lease beside the process's own lock."""

    @staticmethod
    def pack(value: Any) -> Any:
        # Of what the first caller uses up, the next one needs another.
        return _Pickled(Backend.pack(value)) if _can_be_used_up(_payload(value)) else value

    @staticmethod
    def unpack(content: Any) -> Any:
        return Backend.unpack(content.value) if isinstance(content, _Pickled) else content

    def take(self, key: str, seconds: float) -> Any:
        return True

    def end(self, key: str, lease: Any) -> None:
        return


def empty_memory() -> None:
    """Remove the values of all regions in memory, for all who hold them."""
    spaces = MemoryNamespaceManager.namespaces.dict
    for name in filter(_NAME.fullmatch, list(spaces)):
        spaces.pop(name).clear()


class FileBackend(BeakerBackend):
    """Beaker's ``file`` and ``dbm``: one file for all values of a namespace.

    Whoever stops while it reads or writes holds up the others for ``lock_timeout`` seconds, and a process only once.
    """

    _process = 0

    def _new_manager(self) -> Any:
        manager = super()._new_manager()
        manager.access_lock = AccessLock(
            getattr(manager.access_lock, "filename", manager.file), self._terms.lock_timeout, self._held_too_long()
        )
        return manager

    def _held_too_long(self) -> str:
        labels = self._terms.labels
        place = next((name for name in ("lock_dir", "data_dir") if self._arguments.get(name)), "lock_dir")
        return (
            f"for more than {self._terms.lock_timeout:g} seconds ({labels.get('lock_timeout', 'lock_timeout')});"
            f" {labels.get(place, place)} = {self._arguments.get(place)}; fuser or lsof names the process"
        )

    def read(self, key: str) -> Any:
        try:
            return self._step(super().read, key, shared=True)
        except LockTimeoutError:
            raise
        except Exception as error:
            # With a number it is the system's; gdbm says without one that a file is none of its own.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            # Beaker would read it again and again, and never write to it.
            self._manager.remove()
            raise DamagedRecordError(f"a damaged file is removed: {error!r}") from error

    def write(self, key: str, content: Any, seconds: float | None) -> None:
        self._step(super().write, key, content, seconds, shared=False)

    def delete(self, key: str) -> None:
        # What is not deleted is served until it expires: that is worth a wait each time.
        self._step(super().delete, key)

    def clear(self) -> None:
        self._step(super().clear)

    def _step(self, step: Callable[..., Any], *arguments: Any, shared: bool | None = None) -> Any:
        """Do a step; once more where a directory is not there, since a cleaner may have removed it.

        Args:
            step: the step.
            arguments: its arguments.
            shared: whether it reads (True) or writes (False) and does not wait where others have waited in vain.
        """
        try:
            return self._unless_held_up(step, *arguments, shared=shared)
        except FileNotFoundError:
            # Beaker makes the directories when it makes a manager.
            self._forget_manager()
            return self._unless_held_up(step, *arguments, shared=shared)

    def _unless_held_up(self, step: Callable[..., Any], *arguments: Any, shared: bool | None) -> Any:
        if self._process != os.getpid():
            # A fork copies the locks of threads that do not run here, and what they have open.
            self._forget_manager()
            self._process = os.getpid()
        if shared is not None:
            self._manager.access_lock.check(shared=shared)
        return step(*arguments)

    def _forget_manager(self) -> None:
        self.__dict__.pop("_manager", None)

    def take(self, key: str, seconds: float) -> Any:
        return self._step(self._taken_lease, key, seconds, shared=False)

    def _taken_lease(self, key: str, seconds: float) -> FileLease | HeldBy:
        lease = FileLease(f"{self._manager.lock_dir}/{self._name}.{key}.lock", seconds)
        return lease if lease.take() else lease.held_by()

    def end(self, key: str, lease: Any) -> None:
        lease.end()


class ServerBackend(Backend):
    """Redis, Redis Cluster, memcached and SQL: one record a value, in the stores that sessions use, too.

    A value begins with the namespace's generation, which is a record beside it. To clear the
    namespace is to change that: no server needs to look for what is cleared.

    Args:
        name: the name of the namespace.
        servers: the servers; each value is on one of them.
    """

    def __init__(self, name: str, servers: tuple[Store, ...]) -> None:
        self._name = name
        self._generation = f"{name}.generation"
        self._servers = servers

    def read(self, key: str) -> Any:
        server, name = self._place(key)
        record = server.read(name)
        generation = server.read(self._generation) if record else None
        # Without a generation (evicted, say) nobody knows what was cleared.
        if record is None or generation is None or not record.raw.startswith(generation.raw):
            return None
        return record.raw[len(generation.raw) :]

    def write(self, key: str, content: Any, seconds: float | None) -> None:
        server, name = self._place(key)
        found = server.read(self._generation) or server.swap(self._generation, None, _word()).found
        if found is not None:  # pragma: no branch -- it is there, unless it is deleted at this moment
            # One who writes at the same time has computed it at the same time.
            server.swap(name, server.read(name), found.raw + content, seconds)

    def delete(self, key: str) -> None:
        server, name = self._place(key)
        with urgently():
            record = server.read(name)
            while record is not None:
                record = server.swap(name, record, None).found

    def clear(self) -> None:
        errors = []
        for server in self._servers:
            try:
                self._change_generation(server)
            except SessionStoreError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _change_generation(self, server: Store) -> None:
        with urgently():
            record, new = server.read(self._generation), _word()
            while not (swap := server.swap(self._generation, record, new)).made:
                record = swap.found

    def take(self, key: str, seconds: float) -> Any:
        server, name = self._place(f"{key}.lease")
        found, now = server.read(name), time.time()
        if found is not None and now < _end_of(found.raw):
            return HeldBy(found.raw)
        lease = _word() + f" {now + seconds:.3f}".encode("ascii")
        swap = server.swap(name, found, lease, seconds)
        return lease if swap.made else HeldBy(swap.found and swap.found.raw)

    def end(self, key: str, lease: Any) -> None:
        server, name = self._place(f"{key}.lease")
        server.swap(name, Record(lease), None)

    def _place(self, key: str) -> tuple[Store, str]:
        return self._servers[int(key[:8], 16) % len(self._servers)], f"{self._name}.{key}"


def _word() -> bytes:
    return secrets.token_hex(16).encode("ascii")


def _end_of(lease: bytes) -> float:
    """Return the time at which a lease ends; one that cannot be read has ended."""
    words = _LEASE.fullmatch(lease)
    return float(words[1]) if words else 0


#: The backends that are servers.
SERVER_KINDS = frozenset({"ext:redis", "ext:rediscluster", "ext:memcached", "ext:database", "ext:sqla"})


def _backend(terms: Terms, name: str, arguments: Mapping[str, Any]) -> Backend:
    if terms.kind in SERVER_KINDS:
        return ServerBackend(name, open_servers(terms, arguments))
    if terms.kind == MEMORY:
        return MemoryBackend(terms, name, arguments)
    manager = clsmap[terms.kind]
    # Somebody's own, which is derived from one of these, locks as they do.
    in_files = isinstance(manager, type) and issubclass(manager, (FileNamespaceManager, DBMNamespaceManager))
    return (FileBackend if in_files else BeakerBackend)(terms, name, arguments)


# -- What Beaker sees --------------------------------------------------------------------------------


class _ValueLock:
    """A creation lock that takes note of the key while its value is computed.

    Args:
        lock: the lock.
        key: the key.
        in_work: the keys whose values this thread computes.
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

    Each step is whole by itself, so that the locks around them, which Beaker takes, are none here.

    Args:
        terms: the region's.
        troubles: where to tell what goes wrong.
        namespace: the namespace, as Beaker names it.
        arguments: the region's options, as Beaker hands them over.
    """

    def __init__(self, terms: Terms, troubles: Troubles, namespace: str, **arguments: Any) -> None:
        super().__init__(namespace)
        self._terms = terms
        self._troubles = troubles
        # Operators shall see whose it is; the digest makes it unique.
        readable = re.sub(r"[^0-9a-z_]", "-", terms.name.lower())[:40]
        self._name = f"region.{readable}.{_digest(repr((terms.name, namespace)).encode())}"
        self._backend = _backend(terms, self._name, arguments)
        self._seen = threading.local()
        #: The keys whose values were not kept: nobody needs to wait for who computes one.
        self._unkept: set[str] = set()
        self._in_work = threading.local()

    # -- Reading -------------------------------------------------------------------------------------

    def __contains__(self, key: Any) -> bool:
        # Beaker asks this right before it takes the value: the store is asked once for both.
        value = self._read(key)
        self._seen.value = key, value
        # Nobody can say: then there is something to delete, and nothing to be had.
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
        """Return the value, nothing if there is none, or ``UNKNOWN``."""
        content = self._attempt(UNUSABLE, UNKNOWN, self._backend.read, _digest(key))
        if content is None or content is UNKNOWN:
            return content
        try:
            return self._backend.unpack(content)
        except Exception as error:  # noqa: BLE001 -- a class may be gone or changed, and say so as it likes
            self._troubles.tell(DAMAGED, error)
            return UNKNOWN

    # -- Writing -------------------------------------------------------------------------------------

    def set_value(self, key: Any, value: Any, expiretime: float | None = None) -> None:
        self._forget_seen()
        digest = _digest(key)
        try:
            content = self._packed(digest, value)
            self._attempt(UNUSABLE, None, self._backend.write, digest, content, self._kept(expiretime))
        except (_UnkeptError, SessionTooLargeError) as error:
            self._leave_unkept(digest, _payload(value), error)
        else:
            self._unkept.discard(digest)

    def _packed(self, digest: str, value: Any) -> Any:
        try:
            return self._backend.pack(value)
        except Exception as error:
            # Who puts a value there has nobody to return it to.
            if digest not in self._keys_in_work():
                raise
            raise _UnkeptError(_reason(error)) from error

    def _keys_in_work(self) -> set[str]:
        """Return the keys whose values this thread computes."""
        keys: set[str] = self._in_work.__dict__.setdefault("keys", set())
        return keys

    def _leave_unkept(self, digest: str, value: Any, error: Exception) -> None:
        """Leave a value to who has computed it: that is no failure of the store."""
        file, has_file, name = self.namespace.rpartition("|")
        self._troubles.tell_of_value(f"{name} in {file}" if has_file else name, value, error)
        if len(self._unkept) >= _REMEMBERED:
            self._unkept.clear()
        self._unkept.add(digest)
        # An older value would be given to others for as long as nothing takes its place.
        self._attempt(LOST, None, self._backend.delete, digest)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set_value(key, value)

    def __delitem__(self, key: Any) -> None:
        self._forget_seen()
        self._attempt(LOST, None, self._backend.delete, _digest(key))

    def do_remove(self) -> None:
        self._attempt(LOST, None, self._backend.clear)

    def _kept(self, expiretime: float | None) -> int | None:
        """Return how long the server keeps a value: the old one is served while a new one is computed."""
        return None if expiretime is None else ceil(expiretime + max(expiretime, self._terms.lock_timeout))

    # -- Computing -----------------------------------------------------------------------------------

    def get_creation_lock(self, key: Any) -> _ValueLock:
        """Return the lock for computing a value."""
        digest, patience = _digest(key), self._terms.lock_timeout

        def take() -> Any:
            if digest in self._unkept:
                return AWAY
            return self._attempt(UNUSABLE, AWAY, self._backend.take, digest, patience)

        def end(lease: Any) -> None:
            try:
                self._backend.end(digest, lease)
            except Exception as error:  # noqa: BLE001 -- as in _attempt; and the value is there: nobody needs an error
                log.debug("cache region %s: a lease ends by itself: %s", self._terms.name, _reason(error))

        return _ValueLock(CreationLock(f"{self._name}.{digest}", patience, take, end), digest, self._keys_in_work())

    def _attempt(self, trouble: str, otherwise: Any, step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except _MisconfiguredError as error:
            raise error.original from None
        except SessionTooLargeError:
            raise
        except Exception as error:  # noqa: BLE001 -- each store and each client has errors of its own
            self._troubles.tell(DAMAGED if isinstance(error, DamagedRecordError) else trouble, error)
            return otherwise


def _digest(key: Any) -> str:
    content = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:40]
