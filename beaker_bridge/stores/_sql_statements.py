"""The statements on Beaker's table, and the meaning of the errors that databases answer them with."""

from __future__ import annotations

import random
import re
import time
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.stores._breaker import ConnectionLostError, ServerUnavailableError

#: The statement of the probe.
PROBE: Any = sa.select(sa.literal_column("1"))
#: The shortest and the longest pause before a statement is tried again that concurrent ones kept from being executed,
#: in seconds.
PAUSES = (0.001, 0.05)
#: The number of namespaces that are read at once.
CHUNK = 1000
#: The lengths of our records' ids: of a session's, and of a user's index.
ID_SIZES = (32, 65)
#: The most records that one statement deletes, as even an old SQLite takes them, and their size together, in bytes.
DELETED_AT_ONCE, DELETED_SIZE = 300, 1 << 20
#: The most records that one statement reads by their ids.
READ_AT_ONCE = 900
#: The size of the records that are read at once, in bytes, as far as the ones before tell it.
READ_SIZE = 1 << 24
#: The codes of a statement that concurrent ones kept from being executed: PostgreSQL's states, MySQL's and MariaDB's
#: numbers.
_REFUSED = {"40001", "40P01", "55P03", 1020, 1205, 1213}
#: The codes of a record over a limit of the database's: the same, and SQLite's message.
_TOO_LARGE = {"54000", 1153, 1406, "string or blob too big"}
#: The size of a statement in MySQL and MariaDB beside the records in it, in bytes.
_AROUND = 1024
#: The bytes that such a statement escapes with another one.
_ESCAPED = re.compile(rb"""[\0\n\r\x1a"'\\]""")


class Statements:
    """The statements on one table, with the data as bytes: SQLAlchemy would unpickle them.

    Args:
        table: the table, as Beaker has it.
    """

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
        after = table.c.namespace > sa.bindparam("last")
        self.names = (
            sa.select(table.c.namespace)
            .where(after, table.c.namespace.like(sa.bindparam("pattern")))
            .order_by(table.c.namespace)
            .limit(CHUNK)
        )
        # Read no values of caches, which may be in the same table.
        is_ours = sa.func.length(table.c.namespace).in_(ID_SIZES)
        self.records = (
            sa.select(table.c.namespace, data)
            .where(after, is_ours)
            .order_by(table.c.namespace)
            .limit(sa.bindparam("size", type_=sa.Integer()))
        )
        self.read_all = sa.select(table.c.namespace, data).where(
            table.c.namespace.in_(sa.bindparam("keys", expanding=True))
        )
        self.count = sa.select(sa.func.count()).where(is_ours).select_from(table)
        # Name the keys apart from the pairs: not each database looks for pairs by its index.
        self.delete_all = table.delete().where(
            table.c.namespace.in_(sa.bindparam("keys", expanding=True)),
            sa.tuple_(table.c.namespace, data).in_(sa.bindparam("pairs", expanding=True)),
        )


class LostError(Exception):
    """A row was not written: it exists already, or has changed."""


class Retries:
    """Pauses between the tries of a statement that concurrent ones keep from being executed.

    Args:
        kind: the store's.
        seconds: the time after which it is given up, in seconds.
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
        """Wait before another try.

        Raises:
            SessionStoreError: the time is over.
        """
        if self.are_over:
            message = f"the session store {self._kind} refused it for {self._seconds:g} s: {refusal!r}"
            raise SessionStoreError(message, name=self._kind, original=refusal) from refusal
        # Vary the pause, so that two which collide do not collide again and again.
        time.sleep(self._pause * (0.5 + random.random()))  # noqa: S311  # nosec B311 -- guards nothing
        self._pause = min(2 * self._pause, self._longest)


def connected(engine: sa.Engine) -> sa.Connection:
    """Return a connection of an engine.

    Raises:
        DBAPIError: there is none to be had.
    """
    try:
        return engine.connect()
    except engine.dialect.loaded_dbapi.Error as error:
        # SQLAlchemy lets the driver's own error through if an idle connection of the application's engine broke, when
        # it sets that to AUTOCOMMIT. Dispose of the others, which are as old.
        engine.dispose()
        raise DBAPIError(None, None, error, connection_invalidated=True) from error


def is_refused(error: DBAPIError) -> bool:
    """Say whether a statement did nothing because of concurrent ones, so that it can be tried again."""
    return not _REFUSED.isdisjoint(_codes(error))


def is_too_large(error: DBAPIError) -> bool:
    """Say whether a record is over a limit of the database's."""
    return not _TOO_LARGE.isdisjoint(_codes(error))


def _codes(error: DBAPIError) -> set[object]:
    """Return the driver's code for an error: PostgreSQL's state, MySQL's and MariaDB's number, SQLite's message."""
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return {state, *(error.orig.args[:1] if error.orig else ())}


def class_of(error: DBAPIError) -> type[SessionStoreError]:
    """Return the class of an error: the server is down, a connection was lost, or one statement was refused."""
    # Without a statement the connection could not be made, whatever the reason.
    if error.statement is None:
        return ServerUnavailableError
    return ConnectionLostError if error.connection_invalidated else SessionStoreError


def limits_of(connection: sa.Connection, table: sa.Table) -> tuple[int, int] | None:
    """Return the largest record of a table in MySQL or MariaDB, and the largest statement, in bytes."""
    row = connection.execute(
        sa.text(
            "SELECT character_octet_length, @@max_allowed_packet FROM information_schema.columns"
            " WHERE table_schema = coalesce(:schema, database()) AND table_name = :name AND column_name = 'data'"
        ),
        {"schema": table.schema, "name": table.name},
    ).first()
    return row and (row[0], row[1])


def refused_by(error: DBAPIError) -> str | None:
    """Return what the server refused, to be named in a message; None if it gave no answer."""
    if error.statement is not None:
        return None if error.connection_invalidated else error.statement.split(None, 1)[0]
    # MySQL's and MariaDB's servers number their errors from 1000, their clients from 2000; PostgreSQL's client only
    # quotes what the server said.
    is_answer = "FATAL:" in str(error.orig) or any(code in range(1000, 2000) for code in _codes(error))
    return "a connection" if is_answer else None


def is_over_packet(connection: sa.Connection, new: bytes, old: bytes, packet: int) -> bool:
    """Say whether a statement with two records is over MySQL's and MariaDB's ``max_allowed_packet``, in bytes."""
    # Measure only near the limit: no driver writes more than two bytes for one.
    if 2 * (len(new) + len(old)) + _AROUND <= packet:
        return False
    return _written(connection, new + old) + _AROUND > packet


def _written(connection: sa.Connection, record: bytes) -> int:
    """Return the size of a record within a statement of MySQL's or MariaDB's, in bytes."""
    with closing(connection.connection.cursor()) as cursor:
        # Ask the driver if it tells: PyMySQL writes hexadecimal digits since 1.2.
        if hasattr(cursor, "mogrify"):
            return len(cursor.mogrify("%s", (record,)))
    return len(record) + len(_ESCAPED.findall(record))
