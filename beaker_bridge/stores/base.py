"""The contract of every store, and the stores that keep it with a lock of their own."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

from beaker_bridge.events import BreakerClosed, BreakerOpened
from beaker_bridge.exceptions import SessionConflictError, SessionStoreError, failure_of
from beaker_bridge.logs import log_once
from beaker_bridge.options.masking import chain, clean
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import ValueType
from beaker_bridge.record.envelope import BareEnvelope, Envelope
from beaker_bridge.stores._breaker import ServerUnavailableError

E = TypeVar("E", bound=SessionStoreError)

log = logging.getLogger(__name__)

#: The form of a session's id. Whatever else a store holds belongs to others, such as cache regions.
ID_FORM = re.compile(r"[0-9a-f]{32}")
#: The forms of the ids of all our records: of sessions, and of the index of a user's sessions.
RECORD_FORM = re.compile(r"[0-9a-f]{32}|u[0-9a-f]{64}")
#: The number of records that are read at once by default.
BATCH = 250


class Record(NamedTuple):
    """A record as a store holds it: its raw bytes, and a token by which the store recognises it, if it needs one."""

    raw: bytes
    token: Any = None


class Swap(NamedTuple):
    """The outcome of a swap: whether it was made, and what the store holds now."""

    made: bool
    found: Record | None


#: A record that was listed, with its id; None if it cannot be opened.
Listed = tuple[str, "Record | None"]


class Store(ABC):
    """Keeps the records of sessions: the base class of our stores, and of other distributions'.

    A store of another distribution is a class that derives from this one, named by an entry point in the group
    ``beaker_bridge.stores``: the entry point's name is the option ``type``. It needs ``kind``, :meth:`read`,
    :meth:`swap` and :meth:`lock`; with :meth:`ids`, or ``lists = False``, it is complete.
    :class:`beaker_bridge.testing.contract.StoreContract` is the suite that proves it.

    The methods are called by many threads at once, and after a fork. Each raises
    :class:`~beaker_bridge.SessionStoreError` if the store cannot be reached: :func:`unreachable` makes one of a
    client's error.

    Args:
        options: the option table, with the store's own options in ``backend_arguments``.
    """

    #: The name of the backend, as the option ``type`` has it.
    kind: str
    #: The options of the store beside the table's, with their types, such as those in ``beaker_bridge.options.types``;
    #: only for stores of other distributions.
    own_options: ClassVar[Mapping[str, ValueType]] = MappingProxyType({})
    #: The envelope that Beaker's backend puts around a record's text; none where Beaker has no such backend.
    envelope: ClassVar[Envelope] = BareEnvelope
    #: Whether the backend can list its records.
    lists: ClassVar[bool] = True
    #: Whether the server removes expired records by itself, so that there is nothing to purge.
    expires_by_itself: ClassVar[bool] = False
    #: Gets the events of the store's circuit breakers; must return at once.
    on_event: Callable[[BreakerOpened | BreakerClosed], object] | None = None

    def __init__(self, options: SessionOptions) -> None:  # noqa: B027 -- what makes one is the same for all
        """Take what the store needs of the options; connect when it is first used."""

    @abstractmethod
    def read(self, session_id: str) -> Record | None:
        """Return the record of an id, or None. Waits for no lock."""

    @abstractmethod
    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        """Replace a record if it still is the one that was read.

        Args:
            session_id: the id.
            record: what was read; None if there was no record.
            new: the raw bytes to store; None deletes the record.
            expires_in: seconds after which the server may remove the record, if it can.

        Returns:
            Made, also if the store holds exactly ``new`` already: the answer to an earlier try may have been lost
            after the write. Or not made, and what the store holds now.
        """

    @abstractmethod
    def lock(self, session_id: str, timeout: float) -> AbstractContextManager[Callable[[], float] | None]:
        """Return an exclusive lock on one session, for writers that queue; :meth:`swap` does not respect it.

        If the lock ends by itself, the context is a function that returns the seconds for which it still lasts; else
        None.

        Args:
            session_id: the id.
            timeout: the longest wait, in seconds.

        Raises:
            SessionConflictError: another holder kept it for that long.
        """

    def ids(self, form: re.Pattern[str] = ID_FORM) -> Iterator[str]:
        """Yield the id of each record; what is written or deleted meanwhile may be missing, or be there.

        Args:
            form: the form of the ids.

        Raises:
            SessionStoreError: the backend cannot list its records.
        """
        raise SessionStoreError(f"the session store {self.kind} cannot list its sessions", name=self.kind)

    def scan(self, batch: int = BATCH) -> Iterator[list[Listed]]:
        """Yield all our records with their ids, those of users' indexes included, in batches.

        Args:
            batch: the largest number of records in one.

        Raises:
            SessionStoreError: the backend cannot list its records.
        """
        ids = self.ids(RECORD_FORM)
        while listed := list(islice(ids, batch)):
            yield [(record_id, record) for record_id in listed for record in self._opened(record_id)]

    def read_all(self, record_ids: Sequence[str]) -> list[Record | None]:
        """Return the record of each id, or None; in one step where the server can.

        Args:
            record_ids: the ids.
        """
        return [self.read(record_id) for record_id in record_ids]

    def _opened(self, record_id: str) -> tuple[Record | None, ...]:
        """Return the record of an id that was listed; None if it cannot be opened, and nothing if it is gone."""
        try:
            record = self.read(record_id)
        except ServerUnavailableError:
            raise
        except SessionStoreError as error:
            leave_out(error)
            return (None,)
        return () if record is None else (record,)

    def delete(self, records: Sequence[tuple[str, Record]]) -> int:
        """Delete each record that still is the one that was read, and return how many were deleted.

        Args:
            records: the records, with their ids.
        """
        return sum(self._deleted(record_id, record) for record_id, record in records)

    def _deleted(self, record_id: str, record: Record) -> bool:
        try:
            return self.swap(record_id, record, None).made
        except ServerUnavailableError:
            raise
        except SessionStoreError as error:
            # Go on: one record must not end every purge.
            leave_out(error)
            return False

    def count(self) -> int:
        """Return about how many records :meth:`scan` will yield."""
        return sum(1 for _ in self.ids(RECORD_FORM))

    def sweep(self, before: float, *, dry_run: bool = False) -> int:
        """Remove what killed processes have left: unfinished records, which no reader finds, and locks.

        Args:
            before: the time of the last write, in seconds since the epoch, before which something is removed.
            dry_run: whether to remove nothing, and only count.

        Returns:
            The number of files, or rows, that were removed.
        """
        return 0

    @contextmanager
    def purge_turn(self, every: float) -> Iterator[bool]:
        """Yield whether to purge now: no other process is purging, or has begun to within the last seconds.

        A store that overrides it can be purged by ``purge_every``, others by ``beaker-bridge purge`` alone.

        Args:
            every: seconds between the beginnings of two purges.
        """
        yield False

    def unmade(self) -> str:
        """Return what the first use of the store will make, and what only looks at it must not; empty if it is there.

        Raises:
            SessionStoreError: the store cannot be reached.
        """
        return ""

    def close(self) -> None:
        """Close the connections that the store itself has opened; a later use opens new ones."""
        return


class LockingStore(Store):
    """A store that makes its swap under a short lock of its own."""

    @abstractmethod
    def _guard(self, session_id: str) -> AbstractContextManager[Any]:
        """Return the lock under which this store reads, compares and writes."""

    @abstractmethod
    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None: ...

    @abstractmethod
    def _remove(self, session_id: str) -> None: ...

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        with self._guard(session_id):
            found = self.read(session_id)
            stored = found.raw if found else None
            if stored == new:
                return Swap(True, found)
            if stored != (record.raw if record else None):
                return Swap(False, found)
            if new is None:
                self._remove(session_id)
                return Swap(True, None)
            self._write(session_id, new, expires_in)
            return Swap(True, Record(new))


def leave_out(error: BaseException) -> None:
    """Log once what a listing goes on without.

    Args:
        error: the reason.
    """
    message = f"what cannot be opened is left out: {error}"
    log_once(log, logging.WARNING, message, store=getattr(error, "name", None), failure=failure_of(error))


def unreachable(
    kind: str,
    error: BaseException,
    error_class: type[E] = SessionStoreError,  # type: ignore[assignment]  # a default of E needs Python 3.13
    *,
    concerned: str | None = None,
) -> E:
    """Return the error for a store that cannot be reached.

    Args:
        kind: the type of the store.
        error: the error of its client, or of the system.
        error_class: the class of the error to return.
        concerned: the option and its value that name what cannot be reached.
    """
    kept_in = f" ({concerned})" if concerned else ""
    return _failed(kind, error, error_class, f"{kept_in} cannot be reached")


def refused(
    kind: str,
    error: BaseException,
    command: str,
    error_class: type[E] = SessionStoreError,  # type: ignore[assignment]  # a default of E needs Python 3.13
) -> E:
    """Return the error for a command that a store refuses: it was reached.

    Args:
        kind: the type of the store.
        error: the error of its client.
        command: the command.
        error_class: the class of the error to return.
    """
    failed = _failed(kind, error, error_class, f" refuses {command}")
    failed.failure = "refused"
    return failed


def _failed(kind: str, error: BaseException, error_class: type[E], what: str) -> E:
    # Remove the names of files from the error and its traceback: a session's id, which is one, would open it.
    for step in chain(error):
        if isinstance(step, OSError):
            del step.filename, step.filename2
    clean(error)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return error_class(f"the session store {kind}{what}: {reason}", name=kind, original=error)


def lock_timed_out(kind: str, timeout: float) -> SessionConflictError:
    """Return the error for a lock that others held for too long."""
    return SessionConflictError(f"another request held the session's lock for {timeout:g} seconds", name=kind)
