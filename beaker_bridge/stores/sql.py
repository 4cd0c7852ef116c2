"""Sessions in a table of an SQL database, where Beaker keeps them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from weakref import finalize

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import NamespaceEnvelope
from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores._lease import HeldBy, TimedLeases, is_held
from beaker_bridge.stores._server import ServerStore, too_large
from beaker_bridge.stores._sql_statements import (
    DELETED_AT_ONCE,
    DELETED_SIZE,
    PROBE,
    READ_AT_ONCE,
    READ_SIZE,
    LostError,
    Retries,
    Statements,
    class_of,
    connected,
    is_over_packet,
    is_refused,
    is_too_large,
    limits_of,
    refused_by,
)
from beaker_bridge.stores.base import BATCH, ID_FORM, RECORD_FORM, Listed, Record, Swap, refused, unreachable
from beaker_bridge.stores.engines import application_engine, is_address, own_engine

T = TypeVar("T")

#: The end of a lock's namespace, after the id of its session.
_LOCK = ".lock"
#: The id of the purge's lock; no session has it.
_PURGE = "0" * 32
#: Seconds after which a purge that has not ended was killed.
PURGE_LASTS = 3600
_COLUMNS = {"namespace", "accessed", "created", "data"}


class _Prepared:
    """The database as this process has prepared it."""

    #: The engine; None before that, and after an error.
    engine: sa.Engine | None = None
    #: The largest record that the column holds, and the largest statement, in bytes; None for no check.
    limits: tuple[int, int] | None = None


class SQLStore(ServerStore):
    """The base of both of Beaker's SQL backends: one statement a step, each a transaction of its own.

    Args:
        options: the option table.
        table: the table, as Beaker has it.
        engine: the application's engine, as :func:`application_engine` takes it; for a URL or None the store makes one
            of its own, from the options.
        name: the option that holds the engine.
    """

    envelope = NamespaceEnvelope

    def __init__(self, options: SessionOptions, table: sa.Table, engine: Any, name: str = "url") -> None:
        super().__init__(options.store_timeout)
        self._clock: Callable[[], float] = options.clock or time.time
        self._table = table
        self._statements = Statements(table)
        self._database = PerProcess(_Prepared)
        self._own: PerProcess[sa.Engine] | None = None
        if is_address(engine):
            self._own = PerProcess(lambda: own_engine(options))
            # Make it now: wrong options must stop the start.
            self._own.get()
            self._engine: Callable[[], sa.Engine] = self._own.get
            finalize(self, _dispose, self._own)
        else:
            self._engine = application_engine(engine, options.label(name))

    def read(self, session_id: str) -> Record | None:
        return self._read(session_id)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        return self._swap(session_id, record and record.raw, new)

    def ids(self, form: re.Pattern[str] = ID_FORM) -> Iterator[str]:
        # Leave out the namespaces of Beaker's caches.
        return filter(form.fullmatch, self._names("%"))

    def scan(self, batch: int = BATCH) -> Iterator[list[Listed]]:
        last, size, largest = "", min(batch, BATCH), 1
        while rows := self._records_after(last, size):
            last, largest = rows[-1][0], max(largest, *(len(raw) for _, raw in rows))
            size = max(1, min(batch, READ_SIZE // largest))
            listed: list[Listed] = [(name, Record(raw)) for name, raw in rows if RECORD_FORM.fullmatch(name)]
            if listed:
                yield listed

    def _records_after(self, last: str, size: int) -> Sequence[Any]:
        return self._run(partial(_rows, self._statements.records, {"last": last, "size": size}))

    def read_all(self, record_ids: Sequence[str]) -> list[Record | None]:
        found: dict[str, Record] = {}
        for start in range(0, len(record_ids), READ_AT_ONCE):
            keys = {"keys": list(record_ids[start : start + READ_AT_ONCE])}
            rows = self._run(partial(_rows, self._statements.read_all, keys))
            found.update((name, Record(raw)) for name, raw in rows)
        return [found.get(record_id) for record_id in record_ids]

    def count(self) -> int:
        return self._run(lambda at: at.scalar(self._statements.count) or 0)

    def delete(self, records: Sequence[tuple[str, Record]]) -> int:
        return sum(map(self._delete_at_once, _portions(records)))

    def _delete_at_once(self, records: Sequence[tuple[str, Record]]) -> int:
        if len(records) == 1:
            return self._deleted(*records[0])
        pairs = [(record_id, record.raw) for record_id, record in records]
        parameters = {"pairs": pairs, "keys": [record_id for record_id, _ in pairs]}
        return self._run(lambda at: at.execute(self._statements.delete_all, parameters).rowcount)

    def sweep(self, before: float, *, dry_run: bool = False) -> int:
        removed, now = 0, self._clock()
        for key in self._names("%" + _LOCK):
            found = self._read(key) if ID_FORM.fullmatch(key.removesuffix(_LOCK)) else None
            if found is not None and not is_held(found.raw, now, max(0, now - before)):
                removed += dry_run or self._swap(key, found.raw, None).made
        return removed

    @contextmanager
    def purge_turn(self, every: float) -> Iterator[bool]:
        began = self._clock()
        lease = self._leases.take(_PURGE, max(every, PURGE_LASTS))
        if isinstance(lease, HeldBy):
            yield False
            return
        try:
            yield True
        finally:
            # Keep the lease until the next purge is due.
            self._leases.renew(_PURGE, lease, began + every, every)

    def unmade(self) -> str:
        engine = self._engine()
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        # Do not connect: that would make the file.
        if file and not file.startswith((":memory:", "file:")) and not os.path.exists(file):
            return f"the database {file}"
        name, schema = self._table.name, self._table.schema
        is_there = self._breaker().call(
            self._probe, self._tried, lambda at: sa.inspect(at).has_table(name, schema=schema), self._engine
        )
        return "" if is_there else f"the table {name}"

    def close(self) -> None:
        if self._own:
            _dispose(self._own)

    def bypass_breaker(self, session_id: str) -> None:
        self._breaker().bypass(self._probe)

    def _names(self, pattern: str) -> Iterator[str]:
        """Yield the namespaces, in chunks of one statement: no cursor stays open while the caller deletes."""
        names = self._names_after("", pattern)
        while names:
            yield from names
            names = self._names_after(names[-1], pattern)

    def _names_after(self, last: str, pattern: str) -> list[str]:
        return self._run(lambda at: list(at.scalars(self._statements.names, {"last": last, "pattern": pattern})))

    @property
    def _leases(self) -> TimedLeases:
        return TimedLeases(self._swap_lease, self._read_lease, self._clock, self.envelope.wrap)

    def _swap_lease(self, session_id: str, old: bytes | None, new: bytes | None, expires_in: float | None) -> Swap:
        return self._swap(session_id + _LOCK, old, new)

    def _read_lease(self, session_id: str) -> bytes | None:
        found = self._read(session_id + _LOCK)
        return found and found.raw

    # -- One row -------------------------------------------------------------------------------------

    def _read(self, key: str) -> Record | None:
        raw = self._run(lambda at: at.scalar(self._statements.read, {"key": key}))
        return None if raw is None else Record(raw)

    def _swap(self, key: str, old: bytes | None, new: bytes | None) -> Swap:
        retries = self._retries()
        while True:
            refusal = self._write(key, old, new)
            if refusal is None:
                return Swap(True, None if new is None else Record(new))
            found = self._read(key)
            stored = found and found.raw
            if stored != old or stored == new:
                return Swap(stored == new, found)
            # Try again: the row is what it was, so what the statement lost to is gone.
            retries.wait(refusal)

    def _write(self, key: str, old: bytes | None, new: bytes | None) -> BaseException | None:
        """Write the row; return the reason if it was not written."""
        statements = self._statements
        if old is None:
            return self._execute(statements.insert, new, key=key, now=self._now()) if new is not None else LostError()
        if new is None:
            return self._execute(statements.delete, key=key, old=old)
        return self._execute(statements.update, new, key=key, old=old, now=self._now())

    def _execute(self, statement: sa.Executable, new: bytes | None = None, **parameters: Any) -> BaseException | None:
        """Execute a statement on one row; return as :meth:`_write` does."""
        if new is not None:
            parameters["new"] = new

        def work(connection: sa.Connection) -> BaseException | None:
            if new is not None:
                self._refuse_too_large(connection, new, parameters.get("old", b""))
            try:
                # Take an INSERT that is not refused for made: not every driver returns its count.
                made = connection.execute(statement, parameters).rowcount == 1 or statement.is_insert
            except IntegrityError as error:
                # Leave out the error's text, which may hold the session's id and the record.
                return LostError(f"an INSERT was refused ({type(error.orig).__name__})")
            except DBAPIError as error:
                if new is not None and is_too_large(error):
                    # Look at the limits again: one may have been lowered.
                    self._database.get().engine = None
                    raise too_large(self.kind, len(new), f"less: {error.orig}") from error
                raise
            return None if made else LostError("no row was written")

        return self._run(work)

    def _refuse_too_large(self, connection: sa.Connection, new: bytes, old: bytes) -> None:
        limits = self._database.get().limits
        if limits is None:
            return
        column, packet = limits
        # MySQL would cut the record unless it is strict.
        if len(new) > column:
            raise too_large(self.kind, len(new), f"{column} bytes in the column data of {self._table.name}")
        # The statement would break its connection, and SQLAlchemy renews all of them then.
        if is_over_packet(connection, new, old, packet):
            limit = f"statements of {packet} bytes (max_allowed_packet): the record before it is in there, too"
            raise too_large(self.kind, len(new), limit)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock())  # noqa: DTZ006 -- local time, as Beaker has it there

    # -- The connection ------------------------------------------------------------------------------

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        answer: T = self._breaker().call(self._probe, self._tried, work)
        return answer

    def _probe(self) -> object:
        return self._tried(lambda connection: connection.scalar(PROBE), self._engine)

    def _tried(self, work: Callable[[sa.Connection], T], engine: Callable[[], sa.Engine] | None = None) -> T:
        """Do something with a connection, again if concurrent statements keep it from being done, or if it was closed.

        Args:
            work: what is done.
            engine: returns the engine; by default that of the prepared database.
        """
        retries = self._retries()
        is_first = True
        while True:
            try:
                with connected((engine or self._prepared)()) as connection:
                    return work(connection)
            except DBAPIError as error:
                if is_refused(error):
                    retries.wait(error.orig)
                    continue
                # Prepare the database again at the next use: the table may have been dropped.
                self._database.get().engine = None
                if not (is_first and error.connection_invalidated) or retries.are_over:
                    raise self._failed(error) from error.orig
                is_first = False
            except SQLAlchemyError as error:
                raise unreachable(self.kind, error) from error

    def _failed(self, error: DBAPIError) -> SessionStoreError:
        # Show the driver's error: SQLAlchemy's text may hold the record.
        error_class, original, what = class_of(error), error.orig or error, refused_by(error)
        if what is None:
            return unreachable(self.kind, original, error_class)
        return refused(self.kind, original, what, error_class)

    def _retries(self) -> Retries:
        return Retries(self.kind, self._timeout)

    def _prepared(self) -> sa.Engine:
        database = self._database.get()
        engine = database.engine
        if engine is None:
            engine = self._engine()
            self._prepare(engine)
            database.engine = engine
        return engine

    def _prepare(self, engine: sa.Engine) -> None:
        """Do what the first use of the database needs; threads and processes may do it at once."""
        if engine.dialect.name in ("mysql", "mariadb"):
            with connected(engine) as connection:
                self._database.get().limits = limits_of(connection, self._table)


def _rows(statement: sa.Executable, parameters: dict[str, Any], connection: sa.Connection) -> Sequence[Any]:
    return connection.execute(statement, parameters).all()


def _portions(records: Sequence[tuple[str, Record]]) -> Iterator[list[tuple[str, Record]]]:
    """Yield records in portions that one statement can hold."""
    portion: list[tuple[str, Record]] = []
    size = 0
    for record_id, record in records:
        if portion and (len(portion) == DELETED_AT_ONCE or size + len(record.raw) > DELETED_SIZE):
            yield portion
            portion, size = [], 0
        portion.append((record_id, record))
        size += len(record.raw)
    if portion:
        yield portion


def _dispose(own: PerProcess[sa.Engine]) -> None:
    """Close the connections of this process; those of its parent are the parent's."""
    engine = own.made()
    if engine is not None:
        engine.dispose()


class DatabaseStore(SQLStore):
    """Beaker's ``ext:database``: a table of our own, made at its first use.

    Args:
        options: the option table.
    """

    kind = "ext:database"

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options, _table(options), options.url)

    def _prepare(self, engine: sa.Engine) -> None:
        with connected(engine) as connection:
            if self._own is not None:
                _choose_journal(connection)
            try:
                self._table.create(connection, checkfirst=True)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                # Look again: another process may have made the table meanwhile. Otherwise this raises the reason.
                self._table.create(connection, checkfirst=True)
        super()._prepare(engine)


def _choose_journal(connection: sa.Connection) -> None:
    """Give a new SQLite database a write-ahead log: half as much for the disk to do, and readers wait for no writer.

    SQLite keeps the choice in the file. Leave a database alone that has tables: its owner has chosen.
    """
    if connection.dialect.name == "sqlite" and not sa.inspect(connection).get_table_names():
        # Go on without it if the file system has none, or another process is using the database.
        with suppress(DBAPIError):
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def _table(options: SessionOptions) -> sa.Table:
    """Return the table as ``beaker.ext.database`` makes it."""
    return sa.Table(
        options.table_name,
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("namespace", sa.String(255), nullable=False),
        sa.Column("accessed", sa.DateTime, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("data", sa.PickleType, nullable=False),
        sa.UniqueConstraint("namespace"),
        schema=options.schema_name,
    )


class SqlaStore(SQLStore):
    """Beaker's ``ext:sqla``: the application's engine, and its table, which it makes itself.

    Args:
        options: the option table.
    """

    kind = "ext:sqla"

    def __init__(self, options: SessionOptions) -> None:
        name = "url" if options.bind is None else "bind"
        super().__init__(options, _checked(options.table, options.label("table")), getattr(options, name), name)


def _checked(table: Any, label: str) -> sa.Table:
    if isinstance(table, sa.Table) and set(table.c.keys()) >= _COLUMNS:
        return table
    raise SettingsError(
        f"{label} must be a table of SQLAlchemy's with the columns of beaker.ext.sqla.make_cache_table, got {table!r}",
        name="table",
        value=table,
    )
