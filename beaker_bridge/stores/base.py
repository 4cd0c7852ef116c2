"""The contract that every store keeps, and the stores that keep it with a lock of their own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError
from beaker_bridge.options.masking import chain, clean
from beaker_bridge.record.envelope import Envelope

E = TypeVar("E", bound=SessionStoreError)

#: The form of an id. What else stands in a store is not a session's: a cache region's, say.
ID_FORM = re.compile(r"[0-9a-f]{32}")


class Record(NamedTuple):
    """What a store holds under an id: its raw bytes, and what the store needs to recognise it again."""

    raw: bytes
    token: Any = None


class Swap(NamedTuple):
    """The outcome of a swap: whether it was made, and what stands in the store now."""

    made: bool
    found: Record | None


class Store(ABC):
    """Where records are kept, under Beaker's names and in Beaker's format.

    Each method raises :class:`SessionStoreError` when the store cannot be reached.
    """

    #: The name of the backend, as the option ``type`` has it.
    kind: str
    #: What Beaker's backend puts around a record's text.
    envelope: ClassVar[Envelope]

    @abstractmethod
    def read(self, session_id: str) -> Record | None:
        """Return the record of an id, or nothing. Waits for no lock."""

    @abstractmethod
    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        """Replace a record if it still is the one that was read.

        Args:
            session_id: the id.
            record: what was read; nothing, where nothing was found.
            new: the raw bytes to store; nothing deletes the record.
            expires_in: seconds after which the server may forget the record, where it can.

        Returns:
            Made, also where exactly ``new`` stands there already: the answer to an earlier try may
            have been lost after the write. Or not made, and what stands there now.
        """

    @abstractmethod
    def lock(self, session_id: str, timeout: float) -> AbstractContextManager[Callable[[], float] | None]:
        """Return an exclusive lock on one session, for those who queue; :meth:`swap` does not heed it.

        Where it ends by itself, the context is what returns the seconds for which it still lasts; else nothing.

        Args:
            session_id: the id.
            timeout: the longest wait, in seconds.

        Raises:
            SessionConflictError: somebody else held it for that long.
        """

    def ids(self) -> Iterator[str]:
        """Yield the id of each record, for a purge; none where the server expires records itself."""
        return iter(())

    def sweep(self, before: float) -> int:
        """Remove what killed writers have left of records that never came to stand.

        Nothing waits for it, and nothing reads it: it only takes room.

        Args:
            before: what was last written before this time, in seconds since the epoch, is removed.

        Returns:
            How many files were removed.
        """
        return 0

    @contextmanager
    def purge_turn(self, every: float) -> Iterator[bool]:
        """Yield whether to purge now: nobody else is at it, and nobody began within the last seconds.

        Args:
            every: seconds between the beginnings of two purges.
        """
        yield False

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
            stands = found.raw if found else None
            if stands == new:
                return Swap(True, found)
            if stands != (record.raw if record else None):
                return Swap(False, found)
            if new is None:
                self._remove(session_id)
                return Swap(True, None)
            self._write(session_id, new, expires_in)
            return Swap(True, Record(new))


def unreachable(
    kind: str, error: BaseException, error_class: type[E] = SessionStoreError, *, concerned: str | None = None
) -> E:
    """Return the error for a store that cannot be reached.

    Args:
        kind: the store's.
        error: what its client, or the system, said.
        error_class: the class of the error.
        concerned: the option and the value that say what cannot be reached.
    """
    # A file is named by the session's id, which would open it: the log, and its traceback, have none.
    for step in chain(error):
        if isinstance(step, OSError):
            del step.filename, step.filename2
    clean(error)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    kept_in = f" ({concerned})" if concerned else ""
    return error_class(f"the session store {kind}{kept_in} cannot be reached: {reason}", name=kind, original=error)


def lock_timed_out(kind: str, timeout: float) -> SessionConflictError:
    """Return the error for a lock that others held too long."""
    return SessionConflictError(f"another request held the session's lock for {timeout:g} seconds", name=kind)
