"""The classes of stored sessions: a request's, with ``exclusive()``; a script's; one in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from beaker_bridge.exceptions import BeakerBridgeError, SessionConflictError, SessionStoreError
from beaker_bridge.logs import fields
from beaker_bridge.record.fields import LOGIN
from beaker_bridge.session.base import shown
from beaker_bridge.session.bound import BoundSession
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.context import SessionContext
from beaker_bridge.session.state import CHANGED, FORCED, State
from beaker_bridge.stores.base import Record

log = logging.getLogger(__name__)


class StoredSession(BoundSession):
    """A stored session that can be changed as one step."""

    def load(self) -> None:
        if self._state.record is None:
            # It is new, or moves to another id: its id has no record yet.
            self.revert()
        else:
            self._restart(self._store.read(self.id))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Read, change and write the session as one step, under the store's lock; also after the response.

        The block sees the session as the store holds it, without what this request has changed before. What it changes
        is committed at its end, and stays even if the request is discarded.
        ``invalidate()`` and ``regenerate_id()`` are left to the request's own commit; when the request is over,
        they raise. Threads that share the session wait for each other, as requests do.
        Values that were read before the block no longer belong to the session.
        A new session has no record to lock: its block is run as it is.

        On Redis, memcached and SQL the lock is a lease: it ends by itself after 30 seconds, or five times
        ``store_timeout`` if that is more. A block has that long, less twice ``store_timeout``.

        Raises:
            SessionConflictError: others held the lock for ``store_timeout`` seconds, or the block took so long that
                they may have it now; it is not saved. Or another request has moved the session to a new id.
            SessionStoreError: the store cannot be reached.
        """
        try:
            with self._exclusive():
                yield
        except (SessionConflictError, SessionStoreError) as error:
            self._report_failure(error, "exclusive")
            raise

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        exchange, state = self._exchange, self._state
        is_final = (exchange.discarded or state.detached) and not exchange.over
        if not state.exists or self._locked_by == threading.get_ident() or is_final:
            yield
            return
        moved_from = state.moved_from
        session_id = moved_from.id if moved_from else state.id
        with self._lock(session_id) as lease:
            if state.detached:
                with self._holding(lease):
                    yield
                return
            record = self._store.read(session_id)
            if record is not None and self._is_tombstone(session_id, record):
                if moved_from is None:
                    self._detach()
                    error = SessionConflictError(
                        f"session {shown(session_id)} was moved to a new id by another request"
                    )
                    error.is_reported = True
                    raise error
                # This request moves it, too: what it has begun is under an id of its own.
                yield
                return
            moved_to = self._step_back()
            pending = self._base(), self._as_record(), self._state.pending | (CHANGED if self.has_changed() else 0)
            try:
                with self._holding(lease):
                    self._restart(record)
                    yield
                    moved_to = self._step_back() or moved_to
                    self._notify_after(self._commit_block)
            finally:
                self._resume(*pending, self._step_back() or moved_to)

    def _commit_block(self) -> None:
        # Compare as well: other WSGI code, and ``get_by_id()``, change a session without ``changed()``.
        changed = self.has_changed() or not self._is_as_stored()
        if self._state.record is not None and not self._state.detached and changed:
            self._renew()
            if LOGIN in self._metadata:
                self._keep_listed()
            self._write()
            if self._leaving:
                self._leave_login()

    @contextmanager
    def _holding(self, lease: Callable[[], float] | None) -> Iterator[None]:
        """Mark this thread as the holder of the lock, which may change the session at any time."""
        self._locked_by, self._lease = threading.get_ident(), lease
        try:
            yield
        finally:
            self._locked_by = self._lease = None

    def _step_back(self) -> str | None:
        """Return to the id from before a new one that is not committed; return the new one."""
        before = self._state
        self._state = before.stepped_back()
        return None if self._state is before else before.id

    def _restart(self, record: Record | None) -> None:
        """Start again from the record in the store."""
        content = self._content(self.id, record)
        if content is None:
            self._detach()
            self.clear()
            return
        self._plain = self._changes = None
        self._take(content)
        self._state = self._state.restarted(record)

    def _resume(self, base: dict[str, Any], ours: dict[str, Any], pending: int, moved_to: str | None) -> None:
        """Merge what the request had changed before the block into what the block committed."""
        if self._state.record is None or self._state.detached:
            # The block invalidated it, or it ended elsewhere.
            return
        self._merge(base, ours, self._base())
        self._changes = None
        self._state = self._state.resumed(pending)
        if moved_to is not None:
            self._state, self._plain = self._state.rotated(moved_to), None


class StandaloneSession(StoredSession):
    """A session that belongs to no request: ``commit()`` writes it unless the store holds exactly that."""

    def commit(self) -> None:
        # Ask for a write in any case: one that would change nothing is left out.
        self._become(self._state.asked(CHANGED | FORCED if self._state.exists else CHANGED))
        super().commit()

    def save(self, accessed_only: bool = False) -> None:
        """Commit, also a new session that is empty.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it.
        """
        self.force()
        self.commit()


class MemorySession(StoredSession):
    """A session in the memory of one process; the first new one logs a warning if there are several processes."""

    def _begin_new(self, state: State) -> None:
        super()._begin_new(state)
        several = self._exchange.environ.get("wsgi.multiprocess") and not self._config.options.namespace_class
        # Warn once: the first thread takes this lock, and never releases it.
        if several and self._config.may_warn_of_processes.acquire(blocking=False):
            log.warning(
                "type = memory gives each process sessions of its own, and wsgi.multiprocess says that there are"
                " several: a session is lost whenever another one answers;"
                " type = file, dbm, cookie, ext:redis, ext:memcached or ext:database keeps it for all of them",
                extra=fields(store="memory", failure="settings"),
            )


def standalone_session(
    config: SessionConfig,
    session_id: str | None = None,
    notify: Callable[[object], None] | None = None,
    locks: dict[tuple[int, str], Callable[[], float] | None] | None = None,
) -> StandaloneSession:
    """Return a session that belongs to no request: the stored one of an id, or a new one.

    Args:
        config: the configuration.
        session_id: the id.
        notify: what gets the session's events.
        locks: the locks of a request that has found it.

    Raises:
        BeakerBridgeError: sessions are in cookies, where one needs a request.
        SessionStoreError: the store cannot be reached.
    """
    if config.store is None:
        raise BeakerBridgeError(
            "get_by_id() and beaker.get_session need sessions that are stored on the server, got type = cookie"
        )
    return StandaloneSession({}, exchange=SessionContext(config, notify, locks), session_id=session_id)
