"""Sessions in a table of an SQL database, where Beaker keeps them."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar
from weakref import finalize

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from beaker_bridge.codec import NamespaceEnvelope
from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.settings import SessionOptions
from beaker_bridge.stores.base import ID_FORM, Record, Swap, unreachable
from beaker_bridge.stores.engines import application_engine, is_address, own_engine
from beaker_bridge.stores.servers import AwayError, BrokenError, ServerStore, outcome, too_large

T = TypeVar("T")

#: The statement by which we find out whether the server answers.
_PROBE = sa.select(sa.literal_column("1"))
#: How often a statement is tried that the server refuses for what others do at once.
TRIES = 5
#: How many namespaces are read at once.
CHUNK = 1000
#: What the namespace of a lock has behind the session's id.
_LOCK = ".lock"
#: A lease in its envelope: a word of the holder's own, and the time at which it ends.
_LEASE = re.compile(rb"[0-9a-f]{32} ([0-9]+)")
#: Another statement won: PostgreSQL's states, MySQL's and MariaDB's numbers.
_LOST = {"40001", "40P01", 1020, 1213}
#: A record is over a limit of the database's: the same, and SQLite's words.
_TOO_LARGE = {"54000", 1153, 1406, "string or blob too big"}
_COLUMNS = {"namespace", "accessed", "created", "data"}


class _LostError(Exception):
    """Somebody else was there first: a unique key, a deadlock, a serialization failure."""


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
        super().__init__()
        self._clock: Callable[[], float] = options.clock or time.time
        self._timeout = options.store_timeout
        self._table = table
        self._statements = _Statements(table)
        #: The largest record that the column holds, in bytes, where we must know that.
        self._largest: int | None = None
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

    def _names(self, pattern: str) -> Iterator[str]:
        """Yield the namespaces, a chunk a statement: no cursor stays open while the caller deletes."""
        names = self._names_after("", pattern)
        while names:
            yield from names
            names = self._names_after(names[-1], pattern)

    def _names_after(self, last: str, pattern: str) -> list[str]:
        return self._query(lambda at: list(at.scalars(self._statements.names, {"last": last, "pattern": pattern})))

    def close(self) -> None:
        if self._own:
            self._own.dispose()

    def forget(self) -> None:
        super().forget()
        if self._own:
            self._own.dispose(close=False)

    # -- One row -------------------------------------------------------------------------------------

    def _read(self, key: str) -> Record | None:
        raw = self._query(lambda at: at.scalar(self._statements.read, {"key": key}))
        return None if raw is None else Record(raw)

    def _swap(self, key: str, record: Record | None, new: bytes | None) -> Swap:
        for _ in range(TRIES):
            if self._write(key, record, new):
                return Swap(True, None if new is None else Record(new))
            found = self._read(key)
            # An insert that was refused though nothing stands there lost to what is gone again.
            if found is not None or record is not None or new is None:
                return outcome(found, new)
        raise unreachable(self.kind, _LostError(f"an INSERT was refused {TRIES} times"))

    def _write(self, key: str, record: Record | None, new: bytes | None) -> bool:
        """Say whether the row was written."""
        statements = self._statements
        with suppress(_LostError):
            if record is None:
                return new is not None and self._execute(statements.insert, new, key=key, now=self._now())
            if new is None:
                return self._execute(statements.delete, key=key, old=record.raw)
            return self._execute(statements.update, new, key=key, old=record.raw, now=self._now())
        return False

    def _execute(self, statement: sa.Executable, new: bytes | None = None, **parameters: Any) -> bool:
        """Execute a statement on one row; say whether it was written."""

        def work(connection: sa.Connection) -> bool:
            if new is not None:
                self._refuse_too_large(new)
                parameters["new"] = new
            try:
                # Of an INSERT not every driver tells the count: one that is not refused is made.
                return connection.execute(statement, parameters).rowcount == 1 or statement.is_insert
            except DBAPIError as error:
                if new is not None and _is_too_large(error):
                    raise too_large(self.kind, len(new), f"less: {error.orig}") from error
                raise

        return self._run(work)

    def _query(self, work: Callable[[sa.Connection], T]) -> T:
        for _ in range(TRIES):
            with suppress(_LostError):
                return self._run(work)
        raise unreachable(self.kind, _LostError(f"a query was refused {TRIES} times"))

    def _refuse_too_large(self, new: bytes) -> None:
        # MySQL would cut it, where it is not strict.
        if self._largest is not None and len(new) > self._largest:
            limit = f"{self._largest} bytes in the column data of {self._table.name}, max_allowed_packet included"
            raise too_large(self.kind, len(new), limit)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock())  # noqa: DTZ006 -- local time, as Beaker has it there

    # -- The connection ------------------------------------------------------------------------------

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        answer: T = self._pause.ask(self._probe, self._tried, work)
        return answer

    def _probe(self) -> object:
        return self._tried(lambda connection: connection.scalar(_PROBE))

    def _tried(self, work: Callable[[sa.Connection], T]) -> T:
        """Do something with a connection; once more on a new one, where the server has closed it."""
        deadline = time.monotonic() + self._timeout
        tries = 0
        while True:
            try:
                with _connected(self._prepared()) as connection:
                    return work(connection)
            except DBAPIError as error:
                if _is_lost(error):
                    raise _LostError from None
                # A table that somebody has dropped is made again at the next use.
                self._ready = None
                tries += 1
                if tries > 1 or not error.connection_invalidated or time.monotonic() > deadline:
                    # What the driver said: SQLAlchemy's text may show the record.
                    raise unreachable(self.kind, error.orig or error, _class_of(error)) from error.orig
            except SQLAlchemyError as error:
                raise unreachable(self.kind, error) from error

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
                self._largest = connection.scalar(
                    sa.text(
                        "SELECT least(character_octet_length, @@max_allowed_packet) FROM information_schema.columns"
                        " WHERE table_schema = coalesce(:schema, database()) AND table_name = :name"
                        " AND column_name = 'data'"
                    ),
                    {"schema": self._table.schema, "name": self._table.name},
                )

    # -- The lock: a row beside the session's, until its time is over --------------------------------

    def _take_lease(self, session_id: str, lasts: float) -> bytes | None:
        key = session_id + _LOCK
        found = self._read(key)
        now = self._clock()
        if found is not None and now < _end_of(found.raw):
            return None
        lease = self.envelope.wrap(f"{secrets.token_hex(16)} {math.ceil(now + lasts)}".encode("ascii"))
        return lease if self._swap(key, found, lease).made else None

    def _end_lease(self, session_id: str, lease: bytes) -> None:
        self._swap(session_id + _LOCK, Record(lease), None)


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


def _is_lost(error: DBAPIError) -> bool:
    return isinstance(error, IntegrityError) or not _LOST.isdisjoint(_codes(error))


def _is_too_large(error: DBAPIError) -> bool:
    """Say whether a server, or its driver, refused a record for its size, of which nobody told us before."""
    return not _TOO_LARGE.isdisjoint(_codes(error))


def _class_of(error: DBAPIError) -> type[SessionStoreError]:
    """Return what an error says about the server: it is away, a connection broke, or it refused one statement."""
    # Without a statement it is the connection that could not be had, for whatever reason.
    if error.statement is None:
        return AwayError
    # A statement that was not answered may wait for a row that somebody has locked.
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
