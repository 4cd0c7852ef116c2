"""Sessions in a table of an SQL database, where Beaker keeps them."""

from __future__ import annotations

import math
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar
from weakref import finalize

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import NamespaceEnvelope
from beaker_bridge.stores._breaker import AwayError, BrokenError, ServerStore, too_large
from beaker_bridge.stores.base import ID_FORM, Record, Swap, unreachable
from beaker_bridge.stores.engines import application_engine, is_address, own_engine

T = TypeVar("T")

#: The statement by which we find out whether the server answers.
_PROBE: Any = sa.select(sa.literal_column("1"))
#: The shortest and the longest pause before a statement is tried again that the server refuses for what others do
#: at once, in seconds.
PAUSES = (0.001, 0.05)
#: How many namespaces are read at once.
CHUNK = 1000
#: What the namespace of a lock has behind the session's id.
_LOCK = ".lock"
#: The id under which the purge has its lock; no session's.
_PURGE = "0" * 32
#: Seconds after which a purge that has not ended was killed.
PURGE_LASTS = 3600
#: A lease in its envelope: a word of the holder's own, and the time at which it ends.
_LEASE = re.compile(rb"[0-9a-f]{32} ([0-9]+)")
#: A statement that did nothing, for what others do at once: PostgreSQL's states, MySQL's and MariaDB's numbers.
_REFUSED = {"40001", "40P01", "55P03", 1020, 1205, 1213}
#: What a statement takes in MySQL and MariaDB beside the records in it, in bytes.
_AROUND = 1024
#: The bytes that are two within a statement there.
_ESCAPED = re.compile(rb"""[\0\n\r\x1a"'\\]""")
#: A record is over a limit of the database's: the same, and SQLite's words.
_TOO_LARGE = {"54000", 1153, 1406, "string or blob too big"}
_COLUMNS = {"namespace", "accessed", "created", "data"}


class SQLStore(ServerStore):
    """What both of Beaker's SQL backends share: one statement a step, each a transaction of its own.

    Args:
        options: the option table.
        table: the table, as Beaker has it.
        engine: the application's engine, as :func:`application_engine` takes it; a URL or nothing
            makes one of our own, from the options.
        name: the option that holds the engine.
    """

    envelope = NamespaceEnvelope

    def __init__(self, options: SessionOptions, table: sa.Table, engine: Any, name: str = "url") -> None:
        super().__init__(options.store_timeout)
        self._clock: Callable[[], float] = options.clock or time.time
        self._table = table
        self._statements = _Statements(table)
        #: The largest record that the column holds, and the largest statement, in bytes, where we must know that.
        self._largest: tuple[int, int] | None = None
        #: The engine, when the database is known to be prepared.
        self._ready: sa.Engine | None = None
        self._own: sa.Engine | None = None
        if is_address(engine):
            self._own = own = own_engine(options)
            self._engine: Callable[[], sa.Engine] = lambda: own
            finalize(self, own.dispose)
        else:
            self._engine = application_engine(engine, options.label(name))

    def read(self, session_id: str) -> Record | None:
        return self._read(session_id)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        return self._swap(session_id, record, new)

    def ids(self) -> Iterator[str]:
        # The table may hold Beaker's caches, too.
        return filter(ID_FORM.fullmatch, self._names("%"))

    def sweep(self, before: float) -> int:
        removed = 0
        for key in self._names("%" + _LOCK):
            found = self._read(key) if ID_FORM.fullmatch(key.removesuffix(_LOCK)) else None
            if found is not None and _end_of(found.raw) < min(before, self._clock()):
                removed += self._swap(key, found, None).made
        return removed

    @contextmanager
    def purge_turn(self, every: float) -> Iterator[bool]:
        began = self._clock()
        lease = self._take_lease(_PURGE, max(every, PURGE_LASTS))
        try:
            yield lease is not None
        finally:
            if lease is not None:
                # It stays until the next purge is due.
                self._swap(_PURGE + _LOCK, Record(lease), self._lease_until(began + every))

    def _names(self, pattern: str) -> Iterator[str]:
        """Yield the namespaces, a chunk a statement: no cursor stays open while the caller deletes."""
        names = self._names_after("", pattern)
        while names:
            yield from names
            names = self._names_after(names[-1], pattern)

    def _names_after(self, last: str, pattern: str) -> list[str]:
        return self._run(lambda at: list(at.scalars(self._statements.names, {"last": last, "pattern": pattern})))

    def close(self) -> None:
        if self._own:
            self._own.dispose()

    def forget(self) -> None:
        super().forget()
        if self._own:
            self._own.dispose(close=False)

    # -- One row -------------------------------------------------------------------------------------

    def _read(self, key: str) -> Record | None:
        raw = self._run(lambda at: at.scalar(self._statements.read, {"key": key}))
        return None if raw is None else Record(raw)

    def _swap(self, key: str, record: Record | None, new: bytes | None) -> Swap:
        old, refusals = record and record.raw, self._refusals()
        while True:
            refusal = self._write(key, old, new)
            if refusal is None:
                return Swap(True, None if new is None else Record(new))
            found = self._read(key)
            stands = found and found.raw
            if stands != old or stands == new:
                return Swap(stands == new, found)
            # It lost to what is gone again: nobody has changed the row.
            refusals.wait(refusal)

    def _write(self, key: str, old: bytes | None, new: bytes | None) -> BaseException | None:
        """Write the row; return why it was not written, or nothing where it was."""
        statements = self._statements
        if old is None:
            return self._execute(statements.insert, new, key=key, now=self._now()) if new is not None else _LostError()
        if new is None:
            return self._execute(statements.delete, key=key, old=old)
        return self._execute(statements.update, new, key=key, old=old, now=self._now())

    def _execute(self, statement: sa.Executable, new: bytes | None = None, **parameters: Any) -> BaseException | None:
        """Execute a statement on one row; returns as :meth:`_write` does."""
        if new is not None:
            parameters["new"] = new

        def work(connection: sa.Connection) -> BaseException | None:
            if new is not None:
                self._refuse_too_large(new, parameters.get("old", b""))
            try:
                # Of an INSERT not every driver tells the count: one that is not refused is made.
                made = connection.execute(statement, parameters).rowcount == 1 or statement.is_insert
            except IntegrityError as error:
                # Its text may hold the session's id, and the record.
                return _LostError(f"an INSERT was refused ({type(error.orig).__name__})")
            except DBAPIError as error:
                if new is not None and not _TOO_LARGE.isdisjoint(_codes(error)):
                    # It may have been lowered.
                    self._ready = None
                    raise too_large(self.kind, len(new), f"less: {error.orig}") from error
                raise
            return None if made else _LostError("no row was written")

        return self._run(work)

    def _refuse_too_large(self, new: bytes, old: bytes) -> None:
        if self._largest is None:
            return
        column, statement = self._largest
        # MySQL would cut it, where it is not strict.
        if len(new) > column:
            raise too_large(self.kind, len(new), f"{column} bytes in the column data of {self._table.name}")
        # It would break the connection, and SQLAlchemy renews all of them then.
        if 2 * (len(new) + len(old)) + _AROUND > statement < _escaped(new) + _escaped(old) + _AROUND:
            limit = f"statements of {statement} bytes (max_allowed_packet): the record before it is in there, too"
            raise too_large(self.kind, len(new), limit)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock())  # noqa: DTZ006 -- local time, as Beaker has it there

    # -- The connection ------------------------------------------------------------------------------

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        answer: T = self._pause.ask(self._probe, self._tried, work)
        return answer

    def _probe(self) -> object:
        return self._tried(lambda connection: connection.scalar(_PROBE), self._engine)

    def _tried(self, work: Callable[[sa.Connection], T], engine: Callable[[], sa.Engine] | None = None) -> T:
        """Do something with a connection; again where the server refuses it for what others do at once.

        Where the server has closed the connection, once more on a new one.

        Args:
            work: what is done.
            engine: what returns the engine; by default that of a database that is prepared.
        """
        refusals = self._refusals()
        is_first = True
        while True:
            try:
                with _connected((engine or self._prepared)()) as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _REFUSED.isdisjoint(_codes(error)):
                    refusals.wait(error.orig)
                    continue
                # A table that somebody has dropped is made again at the next use.
                self._ready = None
                if not (is_first and error.connection_invalidated) or refusals.are_over:
                    # What the driver said: SQLAlchemy's text may show the record.
                    raise unreachable(self.kind, error.orig or error, _class_of(error)) from error.orig
                is_first = False
            except SQLAlchemyError as error:
                raise unreachable(self.kind, error) from error

    def _refusals(self) -> _Refusals:
        return _Refusals(self.kind, self._timeout)

    def _prepared(self) -> sa.Engine:
        self._notice_fork()
        if self._ready is None:
            engine = self._engine()
            self._prepare(engine)
            self._ready = engine
        return self._ready

    def _prepare(self, engine: sa.Engine) -> None:
        """Do what the first use of the database needs; threads and processes may do it at once."""
        if engine.dialect.name in ("mysql", "mariadb"):
            with _connected(engine) as connection:
                row = connection.execute(
                    sa.text(
                        "SELECT character_octet_length, @@max_allowed_packet FROM information_schema.columns"
                        " WHERE table_schema = coalesce(:schema, database()) AND table_name = :name"
                        " AND column_name = 'data'"
                    ),
                    {"schema": self._table.schema, "name": self._table.name},
                ).first()
                self._largest = row and (row[0], row[1])

    # -- The lock: a row beside the session's, until its time is over --------------------------------

    def _take_lease(self, session_id: str, lasts: float) -> bytes | None:
        key = session_id + _LOCK
        found = self._read(key)
        now = self._clock()
        if found is not None and now < _end_of(found.raw):
            return None
        lease = self._lease_until(now + lasts)
        return lease if self._swap(key, found, lease).made else None

    def _lease_until(self, ends: float) -> bytes:
        return self.envelope.wrap(f"{secrets.token_hex(16)} {math.ceil(ends)}".encode("ascii"))

    def _end_lease(self, session_id: str, lease: bytes) -> None:
        self._swap(session_id + _LOCK, Record(lease), None)


class _LostError(Exception):
    """A row was not written: it stands already, or is not what it was."""


class _Refusals:
    """Pauses between the tries of what others keep from being done, until the time for it is over.

    Args:
        kind: the store's.
        seconds: the time, in seconds.
    """

    def __init__(self, kind: str, seconds: float) -> None:
        self._kind = kind
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._pause, self._longest = PAUSES

    @property
    def are_over(self) -> bool:
        return time.monotonic() > self._deadline

    def wait(self, refusal: BaseException | None) -> None:
        """Wait before another try; raises where the time is over."""
        if self.are_over:
            message = f"the session store {self._kind} refused it for {self._seconds:g} s: {refusal!r}"
            raise SessionStoreError(message, name=self._kind, original=refusal) from refusal
        # Of two who meet again and again one comes first.
        time.sleep(self._pause * (0.5 + random.random()))  # noqa: S311  # nosec B311 -- guards nothing
        self._pause = min(2 * self._pause, self._longest)


class _Statements:
    """The statements, with the data as bytes: SQLAlchemy would unpickle them."""

    def __init__(self, table: sa.Table) -> None:
        binary = sa.LargeBinary()
        key = table.c.namespace == sa.bindparam("key")
        data = sa.type_coerce(table.c.data, binary)
        same = data == sa.bindparam("old", type_=binary)
        new = sa.bindparam("new", type_=binary)
        now = sa.bindparam("now", type_=sa.DateTime())
        self.read = sa.select(data).where(key)
        self.insert = table.insert().inline().values(namespace=sa.bindparam("key"), data=new, accessed=now, created=now)
        self.update = table.update().where(key, same).values(data=new, accessed=now)
        self.delete = table.delete().where(key, same)
        self.names = (
            sa.select(table.c.namespace)
            .where(table.c.namespace > sa.bindparam("last"), table.c.namespace.like(sa.bindparam("pattern")))
            .order_by(table.c.namespace)
            .limit(CHUNK)
        )


def _connected(engine: sa.Engine) -> sa.Connection:
    """Return a connection of an engine.

    Raises:
        DBAPIError: there is none to be had. Where an idle connection of the application's engine has
            broken, SQLAlchemy lets the driver's own error through, which comes when it is set to AUTOCOMMIT.
    """
    try:
        return engine.connect()
    except engine.dialect.loaded_dbapi.Error as error:
        # The other idle ones are as old as this one.
        engine.dispose()
        raise DBAPIError(None, None, error, connection_invalidated=True) from error


def _codes(error: DBAPIError) -> set[object]:
    """Return what the driver says of an error: PostgreSQL's state, the number of MySQL and MariaDB, SQLite's words."""
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return {state, *(error.orig.args[:1] if error.orig else ())}


def _escaped(record: bytes) -> int:
    """Return the size of a record within a statement of MySQL's or MariaDB's."""
    return len(record) + len(_ESCAPED.findall(record))


def _class_of(error: DBAPIError) -> type[SessionStoreError]:
    """Return what an error says about the server: it is away, a connection broke, or it refused one statement."""
    # Without a statement it is the connection that could not be had, for whatever reason.
    if error.statement is None:
        return AwayError
    return BrokenError if error.connection_invalidated else SessionStoreError


def _end_of(lease: bytes) -> float:
    """Return the time at which a lease ends; one that cannot be read has ended."""
    words = _LEASE.search(lease)
    return int(words[1]) if words else 0


class DatabaseStore(SQLStore):
    """Beaker's ``ext:database``: a table of our own, made at its first use.

    Args:
        options: the option table.
    """

    kind = "ext:database"

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options, _table(options), options.url)

    def _prepare(self, engine: sa.Engine) -> None:
        with _connected(engine) as connection:
            if self._own is not None:
                _choose_journal(connection)
            try:
                self._table.create(connection, checkfirst=True)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                # Another process has made it meanwhile: this look finds it, or tells what is wrong.
                self._table.create(connection, checkfirst=True)
        super()._prepare(engine)


def _choose_journal(connection: sa.Connection) -> None:
    """Give a new SQLite database a write-ahead log: half as much for the disk to do, and readers wait for no writer.

    SQLite keeps the choice in the file. One that has tables already has been somebody's choice.
    """
    if connection.dialect.name == "sqlite" and not sa.inspect(connection).get_table_names():
        # Where there cannot be one, or another process is just there, it stays as it is.
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
