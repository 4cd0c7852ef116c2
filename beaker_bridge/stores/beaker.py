"""Sessions behind any other backend of Beaker's, through Beaker's own interface."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from math import ceil
from typing import Any

from beaker.cache import clsmap

from beaker_bridge.exceptions import BeakerBridgeError
from beaker_bridge.logs import log_once
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.stores.base import LockingStore, Record, lock_timed_out, unreachable

log = logging.getLogger(__name__)

_KEY = "session"
#: The name of our lock, beside Beaker's lock that the swap takes.
_QUEUE = "beaker_bridge_lock"
#: Seconds between two tries for a lock that another holder has.
POLL = 0.005
#: The options that Beaker passes to a backend unchanged.
_BACKENDS_OWN = (
    *("url", "urls", "lock_dir", "file_dir", "dbm_dir", "dbmmodule", "memcache_module"),
    *("table_name", "schema_name", "sa_opts", "bind", "table", "username", "password", "key_prefix"),
)
#: Seconds that Beaker adds to a session's timeout for the backend.
_GRACE = 120


class BeakerStore(LockingStore):
    """``ext:mongodb``, and each backend that we do not know, through Beaker's namespace manager.

    Its guarantees, and their limits:

    - A swap reads, compares and writes under the creation lock of Beaker's backend. It is atomic among
      our processes as far as that lock is a lock: on one machine for locks in files, everywhere for
      MongoDB's, not at all for a backend whose lock is a ``null_synchronizer``.
    - A lock whose holder was killed lasts as long as the backend keeps it (MongoDB: 15 minutes).
    - A reader waits if the backend's own read lock makes it wait.
    - ``store_timeout`` bounds the wait for locks; the backend and its client decide how long to wait for a server that
      hangs. Any error of theirs counts as a store that cannot be reached.
    - The backend pickles what it stores: whoever can write to the store can run code, even with JSON.
    - Records are not listed: a purge finds none, and the backend has to expire them. Beaker makes a lock file for each
      session, and removes none.

    Args:
        options: the option table.
    """

    envelope = BareEnvelope
    lists = False

    def __init__(self, options: SessionOptions) -> None:
        self.kind = str(options.type)
        self._timeout = options.store_timeout
        if options.purge_every:
            purge_every, store = options.label("purge_every"), options.label("type")
            message = (
                f"{purge_every} is ignored: Beaker's own interface, which this {store} = {self.kind} goes through,"
            )
            log_once(log, logging.WARNING, f"{message} lists no sessions")
        self._namespace_class = options.namespace_class or clsmap[self.kind]
        own = {name: getattr(options, name) for name in _BACKENDS_OWN if name in options.given}
        if options.timeout:
            own["timeout"] = options.timeout + _GRACE
        self._arguments = {"data_dir": options.data_dir, **own, **options.backend_arguments}

    def read(self, session_id: str) -> Record | None:
        with self._translated():
            return _record(self._namespace(session_id))

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[None]:
        with ExitStack() as held:
            # Translate the errors of the lock only, not those of the caller's block.
            with self._translated():
                lock = self._creation_lock(session_id, _QUEUE)
                if not _acquired(lock, timeout):
                    raise lock_timed_out(self.kind, timeout)
            held.callback(self._release, lock)
            yield

    def _guard(self, session_id: str) -> AbstractContextManager[None]:
        return self._guarded(session_id)

    @contextmanager
    def _guarded(self, session_id: str) -> Iterator[None]:
        with self._translated(), ExitStack() as held:
            lock = self._creation_lock(session_id, _KEY)
            if not _acquired(lock, self._timeout):
                raise TimeoutError(f"another request held Beaker's lock for {self._timeout:g} seconds")
            held.callback(self._release, lock)
            yield

    def _release(self, lock: Any) -> None:
        with self._translated():
            lock.release()

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        namespace = self._namespace(session_id)
        namespace.acquire_write_lock(replace=True)
        try:
            expires = None if expires_in is None else ceil(expires_in)
            namespace.set_value(_KEY, raw.decode("ascii"), expiretime=expires)
        finally:
            namespace.release_write_lock()

    def _remove(self, session_id: str) -> None:
        namespace = self._namespace(session_id)
        namespace.acquire_write_lock()
        try:
            del namespace[_KEY]
        finally:
            namespace.release_write_lock()
        # Remove the rest of the namespace, if the backend can.
        with suppress(NotImplementedError):
            namespace.remove()

    def _concerned(self, error: Exception) -> str | None:
        """Return the option that an error is about, and its value, if they are known."""
        return None

    def _creation_lock(self, session_id: str, key: str) -> Any:
        return self._namespace(session_id).get_creation_lock(key)

    def _namespace(self, session_id: str) -> Any:
        return self._namespace_class(session_id, digest_filenames=False, **self._arguments)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BeakerBridgeError:
            raise
        except Exception as error:
            raise unreachable(self.kind, error, concerned=self._concerned(error)) from error


def _record(namespace: Any) -> Record | None:
    namespace.acquire_read_lock()
    try:
        value = namespace[_KEY]
    except KeyError:
        return None
    except (pickle.UnpicklingError, EOFError) as error:
        # Return what is no session's text, so that it is reported as damaged.
        return Record(repr(error).encode("ascii", "backslashreplace"))
    finally:
        namespace.release_read_lock()
    if value is None:
        return None
    return Record(value if isinstance(value, bytes) else str(value).encode("ascii", "backslashreplace"))


def _acquired(lock: Any, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not lock.acquire(wait=False):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
