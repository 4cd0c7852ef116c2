"""SQL sessions: the store contract on real databases, and what only these stores do."""

from __future__ import annotations

import gc
import os
import pickle
import re
import secrets
import socket
import sqlite3
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import pytest
import sqlalchemy as sa
from beaker.ext.sqla import SqlaNamespaceManager, make_cache_table
from sqlalchemy.pool import NullPool, StaticPool

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError, SessionTooLargeError, SettingsError
from beaker_bridge.options.reader import given, prefixed, read_options
from beaker_bridge.stores import _sql_statements, engines, open_store
from beaker_bridge.stores import sql as sql_module
from beaker_bridge.stores._breaker import ServerUnavailableError
from beaker_bridge.stores._lease import HeldBy
from beaker_bridge.stores.base import Record, Swap
from beaker_bridge.testing.contract import KIB, PATIENCE, BeakerStoreContract, text, together
from tests.forks import as_child
from tests.requests import Browser, config_of
from tests.servers.proxy import Proxy

ID = "0123456789abcdef" * 2
OTHER_ID = "f" * 32
SqlaNamespaceManager._init_dependencies()
TABLE = make_cache_table(sa.MetaData())


def opened(url, **options):
    """Return a store."""
    return open_store(read_options(given({"type": "ext:database", "url": url, "store_timeout": 10, **options})))


@contextmanager
def statements(store):
    """Record the statements that a store's engine executes, as their first words."""
    seen = []

    def note(_connection, _cursor, statement, *_rest):
        seen.append(statement.split(None, 1)[0])

    engine = store._prepared()
    sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", note)


def forget_beakers_engines():
    """Forget the engines that Beaker keeps for the life of the process, also those that other tests have had made."""
    for engine in SqlaNamespaceManager.binds.dict.values():
        engine.dispose()
    SqlaNamespaceManager.binds.dict.clear()


# -- On every database -------------------------------------------------------------------------------


class SQLContract(BeakerStoreContract):
    """What both of the stores keep, on each database."""

    @staticmethod
    def _read_by_beaker(namespace):
        # Beaker reads a row once a request, and then no more.
        namespace.loaded = False
        return BeakerStoreContract._read_by_beaker(namespace)

    def test_what_a_write_costs(self, store, session_id, raw):
        """A new session is one statement, a changed one is two, a deleted one is two."""
        record = store.swap(session_id, None, raw()).found
        with statements(store) as seen:
            store.swap(secrets.token_hex(16), None, raw())
            record = store.swap(session_id, store.read(session_id), raw()).found
            store.swap(session_id, store.read(session_id), None)

        assert record
        assert seen == ["INSERT", "SELECT", "UPDATE", "SELECT", "DELETE"]

    def test_the_lock_leaves_nothing_behind(self, store, session_id):
        """A lock that was released has left no row."""
        with store.lock(session_id, PATIENCE):
            held = set(store._names("%"))

        assert f"{session_id}.lock" in held
        assert f"{session_id}.lock" not in set(store._names("%"))

    def test_beaker_can_read_the_rows_of_locks(self, store, session_id):
        """A lock's row is such as Beaker's own are: whoever reads all of the table can do so."""
        row = sa.select(store._table.c.data).where(store._table.c.namespace == f"{session_id}.lock")
        with store.lock(session_id, PATIENCE):
            found = store._run(lambda at: at.scalar(row))

        assert set(found) == {"session"}

    def test_nothing_is_unpickled(self, store, session_id):
        """A pickle that somebody put into the table is bytes to us."""
        raw = pickle.dumps(Trap())
        store.swap(session_id, None, raw)

        assert store.read(session_id).raw == raw
        assert not Trap.sprung


class Trap:
    """An object that tells when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


class DatabaseContract(SQLContract):
    """``type = ext:database``."""

    @pytest.fixture
    def url(self) -> str:
        """Return the database's address."""
        raise NotImplementedError

    @pytest.fixture
    def options(self, url):
        return {"type": "ext:database", "url": url}

    def test_processes_make_the_table_at_once(self, make_store, options):
        """Everybody who begins at the same time finds the table, which one of them has made."""
        options["table_name"] = f"made_at_once_{secrets.token_hex(4)}"
        stores = [make_store() for _ in range(8)]

        assert together(*[lambda store=store: store.read(ID) for store in stores]) == [None] * 8

    def test_another_process_makes_the_table_a_moment_before(self, make_store, options):
        """Who did not see the table, and cannot make it since another one has made it then, finds it."""
        options["table_name"] = f"made_before_{secrets.token_hex(4)}"
        store, other = make_store(), make_store()

        def come_before(_connection, _cursor, statement, *_rest):
            if "CREATE TABLE" in statement:
                other.swap(ID, None, b"x")

        sa.event.listen(store._own.get(), "before_cursor_execute", come_before)

        assert store.read(ID).raw == b"x"

    def test_a_table_that_was_dropped_is_made_again(self, store, session_id, raw):
        """A table that somebody has dropped is one error, and then there again."""
        store.swap(session_id, None, raw())
        store._table.drop(store._own.get())

        assert refused(lambda: store.read(session_id))
        assert store.read(session_id) is None


class TestSQLite(DatabaseContract):
    """SQLite."""

    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path}/sessions.db"


class TestPostgreSQL(DatabaseContract):
    """PostgreSQL."""

    @pytest.fixture
    def url(self, postgresql_server):
        return postgresql_server.url


class TestMariaDB(DatabaseContract):
    """MariaDB, where ``data`` is a BLOB."""

    largest = 65535

    @pytest.fixture
    def url(self, mariadb_server):
        return mariadb_server.url


class SqlaContract(SQLContract):
    """``type = ext:sqla``, with the application's engine, as an application has it."""

    # Another process has an engine of its own.
    several_processes = False

    @pytest.fixture
    def engine(self, url):
        engine = sa.create_engine(url)
        TABLE.drop(engine, checkfirst=True)
        TABLE.create(engine)
        yield engine
        engine.dispose()

    @pytest.fixture
    def options(self, engine, tmp_path):
        # Beaker keeps the first engine of each address, and wants a directory for its locks.
        forget_beakers_engines()
        yield {"type": "ext:sqla", "bind": engine, "table": TABLE, "data_dir": str(tmp_path)}
        forget_beakers_engines()


class TestSqlaOnSQLite(SqlaContract):
    """SQLite."""


class TestSqlaOnPostgreSQL(SqlaContract):
    """PostgreSQL."""

    @pytest.fixture
    def url(self, postgresql_server):
        with postgresql_server.client() as client:
            client.execute("CREATE SCHEMA IF NOT EXISTS sqla")
        return f"{postgresql_server.url}?options=-c%20search_path%3Dsqla"


# -- What a column holds -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["STRICT_ALL_TABLES", "NO_ENGINE_SUBSTITUTION"])
def test_a_record_over_the_columns_size_is_refused(mariadb_server, mode):
    """MariaDB never cuts a record, whatever its mode; a column that was made larger holds it."""
    name = f"sized_{secrets.token_hex(4)}"
    url = f"{mariadb_server.url}&init_command=SET%20sql_mode%3D'{mode}'"
    new = text(100 * KIB)
    small = opened(url, table_name=name)
    with pytest.raises(SessionTooLargeError, match="65535 bytes in the column data") as refused:
        small.swap(ID, None, new)

    assert refused.value.value == len(new)
    assert small.read(ID) is None

    with mariadb_server.client() as client, client.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} MODIFY data LONGBLOB NOT NULL")
    large = opened(url, table_name=name)

    assert large.swap(ID, None, new).made
    assert large.read(ID).raw == new


def test_a_statement_that_mariadb_refuses_for_its_size(mariadb_server):
    """Whatever we have read of its limits: error 1153 is a session that is too large."""
    name = f"packet_{secrets.token_hex(4)}"
    store = opened(mariadb_server.url, table_name=name)
    store.read(ID)
    execute(
        mariadb_server,
        f"CREATE TRIGGER {name} BEFORE INSERT ON {name} FOR EACH ROW"
        " SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1153, MESSAGE_TEXT = 'Got a packet bigger than that'",
    )
    with pytest.raises(SessionTooLargeError, match="Got a packet bigger") as refused:
        store.swap(ID, None, b"large")

    assert refused.value.value == 5
    assert store.read(ID) is None


@pytest.mark.parametrize(("letter", "fits"), [(b"a", True), (b"'", False)])
def test_a_driver_that_does_not_tell_what_it_writes(tmp_path, letter, fits):
    """A driver without mogrify() escapes records, and nothing makes them larger."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        is_over = _sql_statements.is_over_packet(connection, letter * 6000, b"old", 10_000)
    engine.dispose()

    assert is_over is not fits


def test_a_schema(postgresql_server):
    """The table is made, and found, in the schema that the options name."""
    schema = f"schema_{secrets.token_hex(4)}"
    with postgresql_server.client() as client:
        client.execute(f"CREATE SCHEMA {schema}")
        store = opened(postgresql_server.url, schema_name=schema, table_name="sessions")
        store.swap(ID, None, b"x")
        (count,) = client.execute(f"SELECT count(*) FROM {schema}.sessions").fetchone()

    assert count == 1
    assert store.read(ID).raw == b"x"


# -- A server that fails -----------------------------------------------------------------------------


def refused(operation) -> SessionStoreError:
    """Return the error of an operation on a store that cannot be reached."""
    with pytest.raises(SessionStoreError) as caught:
        operation()
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/sessions.db",
        "postgresql+psycopg://postgres@127.0.0.1:1/postgres",
        "mysql+pymysql://root@127.0.0.1:1/test",
    ],
)
def test_a_database_that_cannot_be_reached_is_an_error(url):
    """A database that is not there is a SessionStoreError that names the store and what its driver said."""
    store = opened(url)
    record = Record(b"x")
    operations = (
        lambda: store.read(ID),
        lambda: store.swap(ID, None, b"y"),
        lambda: store.swap(ID, record, b"y"),
        lambda: store.swap(ID, record, None),
        lambda: list(store.ids()),
        lambda: store.lock(ID, 1).__enter__(),
    )
    errors = [refused(operation) for operation in operations]

    assert {error.name for error in errors} == {"ext:database"}
    assert {error.original.__class__.__name__ for error in errors} == {"OperationalError"}


@contextmanager
def silence():
    """Run a server that accepts connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_server_that_does_not_answer_is_an_error(driver):
    """A database that accepts connections and says nothing costs a bounded time."""
    with silence() as port:
        assert refused(lambda: opened(f"{driver}://someone@127.0.0.1:{port}/test", store_timeout=0.2).read(ID))


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request):
    """Return a database server, and the statement by which it tells a connection's number, and the one that ends it."""
    if request.param == "postgresql":
        return (
            request.getfixturevalue("postgresql_server"),
            "SELECT pg_backend_pid()",
            "SELECT pg_terminate_backend({})",
        )
    return request.getfixturevalue("mariadb_server"), "SELECT connection_id()", "KILL {}"


def execute(server, statement):
    """Execute a statement on a connection of the test's own."""
    with server.client() as client, client.cursor() as cursor:
        cursor.execute(statement)


def test_a_connection_that_the_server_has_closed_is_no_error(database):
    """A pooled connection that was dropped is replaced, for each operation, and it is the request's only loss."""
    server, number, end = database
    store = opened(server.url, table_name="dropped")
    session_id = secrets.token_hex(16)

    def drop():
        execute(server, end.format(store._run(lambda at: at.scalar(sa.text(number)))))

    drop()

    assert store.read(session_id) is None

    drop()
    record = store.swap(session_id, None, b"x").found
    drop()

    assert store.swap(session_id, record, b"y").made
    assert store.read(session_id).raw == b"y"


def test_a_connection_that_is_dropped_at_its_first_use_is_no_error(postgresql_server):
    """The first request of a process, too, tries again where its connection is dropped under its hands."""
    store = opened(postgresql_server.url)
    dropped = []

    def drop(connection, *_rest):
        if not dropped:
            dropped.append(connection.connection.driver_connection.info.backend_pid)
            execute(postgresql_server, f"SELECT pg_terminate_backend({dropped[0]})")

    # Later than SQLAlchemy's own first look at the server.
    sa.event.listen(store._own.get(), "engine_connect", drop)

    assert store.read(ID) is None
    assert dropped


@pytest.mark.parametrize(("stands", "new"), [(None, b"new"), (b"old", b"new"), (b"old", None)])
def test_an_answer_that_was_lost_does_not_undo_the_write(postgresql_server, stands, new):
    """A write whose answer did not come is repeated, and finds itself: it is made, once."""
    session_id = secrets.token_hex(16)
    with Proxy(postgresql_server.port) as proxy:
        store = opened(postgresql_server.url.replace(str(postgresql_server.port), str(proxy.port)))
        record = stands and store.swap(session_id, None, stands).found
        store.read(session_id)
        before = proxy.connections
        proxy.lose_next_answer()
        swap = store.swap(session_id, record, new)
        found = opened(postgresql_server.url).read(session_id)
        after = proxy.connections
        store.close()

    assert after == before + 1
    assert swap.made
    assert (swap.found and swap.found.raw) == (found and found.raw) == new


def test_a_server_that_loses_every_answer_is_an_error(postgresql_server):
    """An operation is repeated once, and then given up."""
    with Proxy(postgresql_server.port) as proxy:
        store = opened(postgresql_server.url.replace(str(postgresql_server.port), str(proxy.port)))
        store.read(ID)
        engine = store._prepared()

        def lose(*_rest):
            proxy.lose_next_answer()

        sa.event.listen(engine, "before_cursor_execute", lose)
        before = proxy.connections

        assert refused(lambda: store.read(ID))
        assert proxy.connections == before + 1

        store.close()


# -- Others who hold the row -------------------------------------------------------------------------


@contextmanager
def held(server, session_id, table="beaker_cache"):
    """Hold the row of a session in a transaction that has changed it; it is committed at the end."""
    with server.client() as client, client.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE {table} SET data = 'theirs' WHERE namespace = '{session_id}'")
        yield
        cursor.execute("COMMIT")


def test_a_row_that_others_hold_costs_a_bounded_time(database):
    """A write that must wait for another transaction is a SessionStoreError in the end; a reader does not wait."""
    server, *_ = database
    session_id = secrets.token_hex(16)
    patient = opened(server.url)
    record = patient.swap(session_id, None, b"ours").found
    store = opened(server.url, store_timeout=0.3)
    # In a thread, for a store that waits for ever to be a failure.
    with ThreadPoolExecutor(1) as pool, held(server, session_id):
        error = pool.submit(refused, lambda: store.swap(session_id, record, b"mine")).result(PATIENCE)

        assert error.original.__class__.__name__ == "OperationalError"
        assert store.read(session_id).raw == b"ours"

    assert store.read(session_id).raw == b"theirs"


def test_a_locked_sqlite_is_an_error(tmp_path):
    """A SQLite database that another process keeps to itself is a SessionStoreError, also for a reader."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    store = opened(url, store_timeout=0.1)
    store.swap(ID, None, b"ours")
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        error = refused(lambda: store.swap(ID, Record(b"ours"), b"mine"))

        assert "database is locked" in str(error)

    assert store.read(ID).raw == b"ours"


def test_a_serialization_failure_is_a_lost_swap(postgresql_server):
    """Where PostgreSQL refuses a write for what another transaction did meanwhile, the swap is lost to that one."""
    session_id = secrets.token_hex(16)
    store = opened(f"{postgresql_server.url}?options=-c%20default_transaction_isolation%3Dserializable")
    record = store.swap(session_id, None, b"ours").found
    store_pid = store._run(lambda at: at.scalar(sa.text("SELECT pg_backend_pid()")))
    with ThreadPoolExecutor(1) as pool, postgresql_server.client() as watcher:
        with held(postgresql_server, session_id):
            swap = pool.submit(store.swap, session_id, record, b"mine")
            while not watcher.execute("SELECT cardinality(pg_blocking_pids(%s))", (store_pid,)).fetchone()[0]:
                assert not swap.done()

        assert swap.result(PATIENCE) == Swap(False, Record(b"theirs"))


SERIALIZABLE = "options=-c%20default_transaction_isolation%3Dserializable"


# Databases refuse statements when others are at work; here, at the word of a function of the test's own.
REFUSE = """
CREATE SEQUENCE {name}_calls;
CREATE FUNCTION {name}() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('{name}_calls') <= {times} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '40P01'; END IF;
    RETURN true;
END $$;
"""


def refusing(server, times):
    """Return the name of a function that ends so many statements as a deadlock would."""
    name = f"refuse_{secrets.token_hex(4)}"
    with server.client() as client:
        client.execute(REFUSE.format(name=name, times=times))
    return name


@pytest.mark.parametrize(("times", "is_read"), [(7, True), (10**6, False)])
def test_a_refused_read_is_tried_again(postgresql_server, times, is_read):
    """A read that the database refuses for what others do is tried again, for ``store_timeout``."""
    name = refusing(postgresql_server, times)
    # Of a table of its own: another test drops the usual one.
    opened(postgresql_server.url, table_name=f"{name}_rows").swap(OTHER_ID, None, b"x")
    execute(postgresql_server, f"CREATE VIEW {name} AS SELECT * FROM {name}_rows WHERE {name}()")
    store = opened(postgresql_server.url, table_name=name, store_timeout=PATIENCE if is_read else 0.1)

    if is_read:
        assert store.read(OTHER_ID).raw == b"x"
    else:
        error = refused(lambda: store.read(OTHER_ID))
        assert "ext:database refused it for 0.1 s: DeadlockDetected('refused" in str(error)
        assert error.original.sqlstate == "40P01"


@pytest.mark.parametrize(("times", "is_made"), [(7, True), (10**6, False)])
def test_a_refused_insert_is_tried_again(postgresql_server, times, is_made):
    """A new session is not given up where its insert is refused, though nothing stands there."""
    name = refusing(postgresql_server, times)
    store = opened(postgresql_server.url, table_name=name, store_timeout=PATIENCE if is_made else 0.1)
    store.read(ID)
    execute(
        postgresql_server,
        f"CREATE FUNCTION {name}_row() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM {name}(); RETURN NEW; END $$;"
        f"CREATE TRIGGER refuse BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_row()",
    )

    if is_made:
        assert store.swap(ID, None, b"x").made
        assert store.read(ID).raw == b"x"
    else:
        assert "refused it for 0.1 s" in str(refused(lambda: store.swap(ID, None, b"x")))


@pytest.mark.parametrize(
    ("event", "state", "number"),
    [
        ("INSERT", "40001", 1213),
        ("UPDATE", "40001", 1213),
        ("DELETE", "40001", 1213),
        ("UPDATE", "HY000", 1020),
        ("UPDATE", "HY000", 1205),
    ],
)
def test_a_write_that_mariadb_refuses_is_tried_again(mariadb_server, event, state, number):
    """Where MariaDB ends a statement for a deadlock, a changed or a locked row, the swap is made at a later try."""
    name = f"deadlock_{secrets.token_hex(4)}"
    store = opened(mariadb_server.url, table_name=name, store_timeout=PATIENCE)
    record = None if event == "INSERT" else store.swap(ID, None, b"ours").found
    new = None if event == "DELETE" else b"mine"
    store.read(ID)
    execute(
        mariadb_server,
        f"CREATE TRIGGER {name} BEFORE {event} ON {name} FOR EACH ROW BEGIN"
        f" SET @{name} = coalesce(@{name}, 0) + 1; IF @{name} < 7 THEN"
        f" SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'refused'; END IF; END",
    )

    assert store.swap(ID, record, new).made
    assert store.read(ID) == (new and Record(new))


def test_a_lock_that_the_server_would_not_release_at_first(postgresql_server):
    """Where transactions are serializable and the end of a lock is refused, it is tried again: no lock stays."""
    session_id = secrets.token_hex(16)
    store = opened(f"{postgresql_server.url}?{SERIALIZABLE}")
    taken, over = threading.Event(), threading.Event()

    def hold():
        with store.lock(session_id, PATIENCE):
            taken.set()
            over.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool, postgresql_server.client() as other, postgresql_server.client() as watcher:
        holding = pool.submit(hold)
        taken.wait(PATIENCE)
        other.execute("BEGIN")
        # Another version of the same row, for which PostgreSQL refuses the deletion.
        other.execute(f"UPDATE beaker_cache SET accessed = now() WHERE namespace = '{session_id}.lock'")
        over.set()
        while not watcher.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert not holding.done()
        other.execute("COMMIT")
        holding.result(PATIENCE)

    assert store._read(f"{session_id}.lock") is None


def test_exclusive_blocks_where_transactions_are_serializable(postgresql_server):
    """Of blocks of several processes none is lost, and none fails, though the server refuses what overlaps."""
    url = f"{postgresql_server.url}?{SERIALIZABLE}"
    # Each with a store of its own, as processes have.
    configs = [config_of(type="ext:database", url=url, store_timeout=5) for _ in range(4)]
    browser = Browser(configs[0])
    browser.write(count=0)

    def count(config):
        for _ in range(4):
            request = browser.begin(config)
            with request.session.exclusive():
                request.session["count"] += 1
            request.commit()

    together(*[partial(count, config) for config in configs])

    assert browser.read()["count"] == 16
    assert configs[0].store._read(f"{browser.id}.lock") is None

    for config in configs:
        config.store.close()


def journal_of(folder):
    """Return how the SQLite database in a folder journals what it writes."""
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_a_new_sqlite_has_a_write_ahead_log(tmp_path):
    """A database that the store itself makes has the journal that is faster; it is chosen once."""
    store = opened(f"sqlite:///{tmp_path}/sessions.db")
    store.swap(ID, None, b"x")

    assert journal_of(tmp_path) == "wal"

    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        store.close()
        connection.execute("PRAGMA journal_mode = DELETE")
    opened(f"sqlite:///{tmp_path}/sessions.db").read(ID)

    assert journal_of(tmp_path) == "delete"


@pytest.mark.parametrize("whose", ["somebody's tables", "the application's engine"])
def test_somebody_elses_sqlite_keeps_its_journal(tmp_path, whose):
    """A database that has tables, or that the application opens, is somebody's: its journal is left alone."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    engine = sa.create_engine(url)
    if whose == "somebody's tables":
        sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer)).create(engine)
    store = opened(url if whose == "somebody's tables" else engine)
    store.swap(ID, None, b"x")

    assert store.read(ID) == Record(b"x")
    assert journal_of(tmp_path) == "delete"

    engine.dispose()


def test_a_sqlite_that_refuses_another_journal_is_used_all_the_same(tmp_path):
    """Where there cannot be a write-ahead log now, sessions are kept without one."""
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM sqlite_master").fetchall()
        store = opened(f"sqlite:///{tmp_path}/sessions.db", store_timeout=0.1)
        refused(lambda: store.swap(ID, None, b"x"))
        other.execute("ROLLBACK")

    assert store.swap(ID, None, b"x").made


def test_a_table_that_wants_more_is_an_error(tmp_path):
    """A table whose other constraints refuse the row is a SessionStoreError, no session that has ended."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/sessions.db")
    table = make_cache_table(sa.MetaData())
    table.append_column(sa.Column("tenant", sa.Integer, nullable=False))
    table.create(engine)
    store = opened(None, type="ext:sqla", bind=engine, table=table, store_timeout=0.05)

    assert "an INSERT was refused" in str(refused(lambda: store.swap(ID, None, b"x")))

    engine.dispose()


# -- The lock ----------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 1_700_000_000.5

    def __call__(self):
        return self.now


@pytest.fixture
def url(tmp_path):
    """Return a SQLite database's address."""
    return f"sqlite:///{tmp_path}/sessions.db"


def try_lock(store, timeout=0.01):
    """Say whether a lock can be had."""
    try:
        with store.lock(ID, timeout):
            return True
    except SessionConflictError:
        return False


def test_the_lock_ends_by_itself(url):
    """The lock of a process that was killed is had again after half a minute, longer where waits are longer."""
    clock = Clock()
    store, killed = opened(url, clock=clock), opened(url, clock=clock)
    for timeout, lasts in ((2, 30), (10, 50)):
        clock.now += 1000
        assert killed._wait_for_lease(ID, 0, max(30, 5 * timeout))
        clock.now += lasts - 0.1

        assert not try_lock(store)

        clock.now += 1

        assert try_lock(store)


def test_the_lock_of_a_clock_ahead(url):
    """A holder that died with its clock an hour ahead locks the session for no longer than another one would."""
    clock, ahead = Clock(), Clock()
    store, killed = opened(url, clock=clock), opened(url, clock=ahead)
    ahead.now += 3600
    assert killed._wait_for_lease(ID, 0, 30)

    assert try_lock(store)

    ahead.now = clock.now + 29
    assert killed._wait_for_lease(ID, 0, 30)

    assert not try_lock(store)

    clock.now += 60

    assert try_lock(store)


def test_a_lock_that_ended_is_not_taken_from_the_next_holder(url):
    """Who held a lock for too long does not release the one of who has it now."""
    clock = Clock()
    store, other = opened(url, clock=clock), opened(url, clock=clock)
    with ExitStack() as next_holder:
        with store.lock(ID, 0.01):
            clock.now += 31
            next_holder.enter_context(other.lock(ID, 0.01))

        assert not try_lock(store)

    assert try_lock(store)


def test_a_lock_that_cannot_be_read_has_ended(url):
    """A lock's row that somebody has damaged keeps nobody out."""
    store = opened(url)
    store._swap(f"{ID}.lock", None, b"damaged")

    assert try_lock(store)


def test_a_sweep_removes_the_locks_of_dead_processes(url):
    """A sweep removes locks that ended before its time; no lock that is held, no session, nothing that is not ours."""
    clock = Clock()
    store = opened(url, clock=clock)
    store._leases.take(ID, 30)
    store.swap(ID, None, b"x")
    store._swap("a cache.lock", None, b"x")
    with store.lock(OTHER_ID, 1):
        assert store.sweep(clock.now + 1000) == 0

    clock.now += 31
    with store.lock(OTHER_ID, 1):
        assert store.sweep(clock.now - 2) == 0
        assert store.sweep(clock.now) == 1
        assert set(store._names("%")) == {ID, "a cache.lock", f"{OTHER_ID}.lock"}


def test_a_purge_that_was_killed_while_its_clock_was_ahead(url):
    """What is left of its turn keeps the next one from its own no longer than a purge may last."""
    clock, ahead = Clock(), Clock()
    ahead.now += 365 * 86400
    assert not isinstance(opened(url, clock=ahead)._leases.take("0" * 32, 3600), HeldBy)
    with opened(url, clock=clock).purge_turn(300) as is_ours:
        pass

    assert is_ours


def test_a_sweep_removes_the_locks_of_a_clock_that_was_wrong(url):
    """What dead processes have left with their clock ahead by a year is removed, too."""
    clock, ahead = Clock(), Clock()
    ahead.now += 365 * 86400
    store = opened(url, clock=clock)
    opened(url, clock=ahead)._wait_for_lease(ID, 0, 30)

    assert store.sweep(clock.now - 3600) == 1
    assert list(store._names("%")) == []


# -- Ids ---------------------------------------------------------------------------------------------


def test_ids_are_read_in_chunks(url, monkeypatch):
    """Every id is listed, however many there are, while they are deleted; Beaker's caches and locks are none."""
    monkeypatch.setattr(_sql_statements, "CHUNK", 2)
    store = opened(url)
    ids = {secrets.token_hex(16) for _ in range(5)}
    for name in [*ids, "a cache", "F" * 32]:
        store._swap(name, None, b"x")
    with store.lock(ID, 1):
        listed = []
        for session_id in store.ids():
            listed.append(session_id)
            store.swap(session_id, store.read(session_id), None)

    assert sorted(listed) == sorted(ids)
    assert set(store._names("%")) == {"a cache", "F" * 32}


def test_records_are_read_and_deleted_by_few_statements(url):
    """A batch is a statement, and those of others are skipped; large records are read fewer at once."""
    store = opened(url)
    large = b"x" * 300_000
    names = ["0" * 31 + "g", *(f"{digit * 32}" for digit in "123"), "u" + "4" * 64]
    for name in names:
        store._swap(name, None, large)
    with statements(store) as seen:
        batches = [*store.scan(1)]
        deleted = store.delete([record for batch in store.scan() for record in batch])

    assert [[name for name, _ in batch] for batch in batches] == [[name] for name in names[1:]]
    assert deleted == 4
    # Six read one each, and the last one none; two read all of them, and two deleted three and one.
    assert seen == ["SELECT"] * (6 + 2) + ["DELETE"] * 2


def test_fewer_large_records_are_read_at_once(url, monkeypatch):
    """What the records were like that were read tells how many more are read with one statement."""
    monkeypatch.setattr(sql_module, "READ_SIZE", 1000)
    store = opened(url)
    for nth in range(260):
        store._swap(f"{nth:032x}", None, b"x" * (200 if nth < 255 else 10))

    assert [len(batch) for batch in store.scan(1000)] == [250, 5, 5]


# -- Processes ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # other tests' threads
def test_a_forked_child_has_connections_of_its_own(postgresql_server):
    """Parent and child do not share a connection, and the child does not end the parent's."""
    store = opened(postgresql_server.url)
    session_id = secrets.token_hex(16)
    store.swap(session_id, None, b"parent")

    def number():
        return store._run(lambda at: at.scalar(sa.text("SELECT pg_backend_pid()")))

    before = number()
    child = os.fork()
    if not child:
        done = number() != before and store.swap(session_id, store.read(session_id), b"child").made
        os._exit(0 if done else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert number() == before
    assert store.read(session_id).raw == b"child"


def test_what_a_forked_child_forgets(url):
    """After a fork a store has no connection of before, and works; the application's engine is its own matter."""
    store = opened(url)
    engine = sa.create_engine(url)
    theirs = opened(engine)
    for one in (store, theirs):
        one.read(ID)
        pool = one._prepared().pool
        with as_child():
            # A child that has not used the store has no connection to close.
            one.close()

            assert (one._prepared().pool is pool) == (one is theirs)
            assert one.read(ID) is None

            one.close()

        assert one._prepared().pool is pool

        one.close()

    engine.dispose()


# -- Settings ----------------------------------------------------------------------------------------


def test_the_settings_reach_the_engine(tmp_path):
    """``sa.*`` in an .ini are SQLAlchemy's options; ``sa.url`` is the address."""
    settings = {
        "session.type": "ext:database",
        "session.sa.url": f"sqlite:///{tmp_path}/sessions.db",
        "session.sa.pool_size": "3",
        "session.sa.pool_timeout": "7",
        "session.sa.isolation_level": "SERIALIZABLE",
    }
    store = open_store(read_options(prefixed(settings)))
    store.swap(ID, None, b"x")

    assert store._own.get().pool.size() == 3
    assert store._own.get().pool._timeout == 7
    assert opened(settings["session.sa.url"]).read(ID).raw == b"x"


def test_the_address_counts_before_the_engines_options(tmp_path):
    """Where both are given, ``url`` is the address, as in Beaker."""
    store = opened(f"sqlite:///{tmp_path}/one.db", sa_opts={"sa.url": "sqlite:////nowhere/two.db", "pool_size": 2})

    assert store.read(ID) is None
    assert store._own.get().pool.size() == 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////tmp/x", {"timeout": 1.5}),
        ("sqlite:////tmp/x?timeout=9", {}),
        ("postgresql+psycopg://host/name", {"connect_timeout": 2, "prepare_threshold": None}),
        ("mysql+pymysql://host/name?read_timeout=9", {"connect_timeout": 1.5, "write_timeout": 1.5}),
        ("oracle://host/name", {}),
    ],
)
def test_the_drivers_are_told_the_timeout(url, expected):
    """Each driver is told ``store_timeout`` in its own words, save what the address says itself."""
    assert engines._defaults(sa.make_url(url), {}, 1.5)["connect_args"] == expected
    assert engines._defaults(sa.make_url(url), {"sa.connect_args": {"timeout": 3}}, 1.5)["connect_args"]["timeout"] == 3


@pytest.mark.parametrize(
    ("query", "arguments", "expected"),
    [
        ("", None, None),
        ("?prepare_threshold=None", None, None),
        ("?prepare_threshold=7", None, 7),
        ("?prepare_threshold=7", '{"prepare_threshold": null}', None),
        ("?prepare_threshold=7", {"prepare_threshold": 0}, 0),
        ("", '{"prepare_threshold": "3"}', 3),
        ("?prepare_threshold=7", '{"application_name": "x"}', 7),
    ],
)
def test_when_psycopg_prepares_statements(postgresql_server, query, arguments, expected):
    """By default never; the address may say otherwise, and ``connect_args`` win."""
    store = opened(postgresql_server.url + query, sa_opts={"sa.connect_args": arguments or {}})
    with store._prepared().connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold == expected

    store.close()


# -- What the database must grant ------------------------------------------------------------------


@pytest.fixture
def closed(database):
    """Return a database in which nobody has a right, a new user of it, as a grant names him, and his address."""
    server, *_ = database
    user = f"clerk_{secrets.token_hex(4)}"
    if "postgresql" in server.url:
        execute(server, f"CREATE ROLE {user} LOGIN")
        return server.url, user, server.url.replace("postgres@", f"{user}@")
    # Everybody may do everything in the one that is named test.
    execute(server, f"CREATE DATABASE {user}")
    execute(server, f"CREATE USER {user}@localhost")
    url = server.url.replace("/test?", f"/{user}?")
    return url, f"{user}@localhost", url.replace("root@", f"{user}@")


def use_all(store):
    """Use everything that a store can do."""
    session_id = secrets.token_hex(16)
    record = store.swap(session_id, None, b"one").found
    record = store.swap(session_id, record, b"two").found
    with store.lock(session_id, PATIENCE):
        assert store.read(session_id) == record
    assert session_id in set(store.ids())
    store.sweep(2**40)
    return store.swap(session_id, record, None).made


def test_the_rights_that_a_database_must_grant(database, closed, caplog):
    """A user with the rights in ``explanation/reliability.rst`` can do everything; without one of them he cannot."""
    server, url, user, users_url = database[0], *closed
    opened(url, table_name="granted").read(ID)
    table = "granted" if "postgresql" in url else f"{user.partition('@')[0]}.granted"
    rights = [f"{right} ON {table}" for right in ("SELECT", "INSERT", "UPDATE", "DELETE")]
    if "postgresql" in url:
        rights.append("USAGE ON SEQUENCE granted_id_seq")
    for right in rights:
        execute(server, f"GRANT {right} TO {user}")
    store = opened(users_url, table_name="granted")

    assert use_all(store)
    # Not even a warning.
    assert caplog.text == ""

    for right in rights:
        execute(server, f"REVOKE {right} FROM {user}")
        assert re.search(r"ext:database refuses \w+: .* denied", str(refused(lambda: use_all(store))))
        execute(server, f"GRANT {right} TO {user}")

    store.close()


def test_the_rights_to_make_the_table(database, closed):
    """Who may also create a table makes his own at the first use."""
    server, url, user, users_url = database[0], *closed
    if "postgresql" in url:
        execute(server, f"GRANT CREATE, USAGE ON SCHEMA public TO {user}")
    else:
        table = f"{user.partition('@')[0]}.made"
        execute(server, f"GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON {table} TO {user}")
    store = opened(users_url, table_name="made")

    assert use_all(store)

    store.close()


def test_a_table_that_cannot_be_made(database, closed):
    """What the first use of the database lacks is refused, too."""
    _url, _user, users_url = closed
    store = opened(users_url, table_name="not_made")

    error = refused(lambda: store.read(ID))

    # MariaDB does not even let him into a database in which he has no right.
    assert re.search(r"ext:database refuses (CREATE|a connection): .* denied", str(error))

    store.close()


def test_a_connection_that_is_refused(database):
    """A database that is not there is no server that cannot be reached."""
    server, *_ = database
    store = opened(re.sub(r"/(postgres|test)\b(?!:)", "/missing", server.url))
    error = refused(lambda: store.read(ID))

    assert str(error).startswith("the session store ext:database refuses a connection: ")
    assert type(error) is ServerUnavailableError

    store.close()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def read_only(request, tmp_path):
    """Return the address of a database that can only be read, with the table in it."""
    url = f"sqlite:///{tmp_path}/a.db"
    if request.param != "sqlite":
        url = request.getfixturevalue(f"{request.param}_server").url
    opened(url).read(ID)
    # A replica's answer is the same.
    return {
        "sqlite": f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true",
        "postgresql": f"{url}?options=-c%20default_transaction_read_only%3Don",
        "mariadb": f"{url}&init_command=SET%20SESSION%20TRANSACTION%20READ%20ONLY",
    }[request.param]


def test_a_database_that_is_read_only(read_only):
    """A replica serves reads; what it refuses is told by the statement, and keeps nobody from it."""
    store = opened(read_only)
    errors = [str(refused(lambda: store.swap(ID, None, b"x"))) for _ in range(2)]

    assert store.read(ID) is None
    assert all(error.startswith("the session store ext:database refuses INSERT: ") for error in errors)

    store.close()


# -- Behind a pooler ---------------------------------------------------------------------------------


def test_two_applications_behind_a_pooler(postgresql_server, start_server):
    """Where several applications are lent one connection of PostgreSQL's, statement by statement, each answer is the
    right one: none leaves anything on it.
    """
    pooler = start_server("pgbouncer", "PgBouncer", postgresql_server.port)
    stores = [opened(pooler.url, table_name=f"pooled_{secrets.token_hex(4)}") for _ in range(2)]
    ids = [secrets.token_hex(16) for _ in range(8)]
    wrong = []

    def expect(answer, right):
        if answer != right:
            wrong.append(answer)

    # Both ids are in both tables, with other records: another one's statement finds another one's session.
    for session_id in ids:
        for number, store in enumerate(stores):
            one, two = Record(b"one %d" % number), Record(b"two %d" % number)
            expect(store.swap(session_id, None, one.raw), Swap(True, one))
            expect(store.read(session_id), one)
            with store.lock(session_id, PATIENCE):
                expect(store.swap(session_id, one, two.raw), Swap(True, two))
    for session_id in ids:
        for number, store in enumerate(stores):
            expect(store.read(session_id), Record(b"two %d" % number))
            expect(store.swap(session_id, Record(b"two %d" % number), None), Swap(True, None))

    assert wrong == []

    for store in stores:
        store.close()


def test_an_address_that_asks_for_prepared_statements_behind_a_pooler(postgresql_server, start_server):
    """What the default is for: with prepared statements the second application is refused on the same connection."""
    pooler = start_server("pgbouncer", "PgBouncer", postgresql_server.port)
    stores = [opened(f"{pooler.url}?prepare_threshold=0", table_name="pooled") for _ in range(2)]
    stores[0].read(ID)

    assert refused(lambda: stores[1].read(ID))

    for store in stores:
        store.close()
    # SQLAlchemy before 2.1 leaves a connection open that was refused at its first use.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_a_pool_that_does_not_wait_is_told_no_timeout(tmp_path):
    """The application may choose another pool."""
    store = opened(f"sqlite:///{tmp_path}/sessions.db", sa_opts={"sa.poolclass": NullPool})

    assert store.swap(ID, None, b"x").made


def test_a_pool_that_is_exhausted_is_an_error(tmp_path):
    """A request that gets no connection in time is a SessionStoreError."""
    store = opened(f"sqlite:///{tmp_path}/x.db", store_timeout=0.1, sa_opts={"sa.pool_size": 1, "sa.max_overflow": 0})
    with store._prepared().connect():
        error = refused(lambda: store.read(ID))

    assert isinstance(error.original, sa.exc.TimeoutError)
    assert store._own.get().pool._timeout == 1


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("nonsense://secret@host/name", {}, "a database URL"),
        ("sqlite://user:secret@host:port/name", {}, "a database URL"),
        ("postgresql+pg8000://user:secret@host/name", {}, "pg8000"),
        ("sqlite:////tmp/x", {"sa.pool_sizes": 5}, "pool_sizes"),
        ("sqlite:////tmp/x", {"sa.pool_size": "many"}, "many"),
        ("no.such.module", {}, "a function that returns one"),
        ("not a name", {}, "a function that returns one"),
        (11211, {}, "a function that returns one"),
    ],
)
def test_wrong_settings_stop_the_start(url, options, message):
    """What no engine can be made of is told at start, and no password is shown."""
    with pytest.raises(SettingsError, match=message) as refused:
        opened(url, **options)

    assert refused.value.name == "url"
    assert "secret" not in str(refused.value)


NO_ENGINE = "must be a database URL, an engine of SQLAlchemy's, or a function that returns one, or its dotted name"
NO_JSON = 'must be a JSON object, such as {"sslmode": "require"}'


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"url": "mysql://me:secret@h/d"},
            (
                "session.url needs a driver that cannot be imported (No module named 'MySQLdb'):"
                " pip install mysqlclient, or write mysql+pymysql:// (which is installed)"
            ),
        ),
        (
            {"sa.url": "mariadb://h/d"},
            (
                "session.sa.url needs a driver that cannot be imported (No module named 'MySQLdb'):"
                " pip install mysqlclient, or write mariadb+pymysql:// (which is installed)"
            ),
        ),
        (
            {"url": "oracle+cx_oracle://h/d"},
            "session.url needs a driver that cannot be imported (No module named 'cx_Oracle'): pip install cx_Oracle",
        ),
        (
            {"url": "postgres://me:secret@h/d"},
            (
                "session.url must be a database URL of a kind that SQLAlchemy knows: it has none for postgres;"
                " write postgresql://"
            ),
        ),
        (
            {"url": "nonsense://me:secret@h/d"},
            "session.url must be a database URL of a kind that SQLAlchemy knows: it has none for nonsense",
        ),
        (
            {"sa.url": "postgresql://me:secret@h:secret/d"},
            (
                "session.sa.url must be a database URL of a kind that SQLAlchemy knows"
                " (dialect://user:password@host:port/database)"
            ),
        ),
        ({"url": "me:secret@h/d"}, f"session.url {NO_ENGINE}"),
        ({"url": True}, f"session.url {NO_ENGINE}"),
        (
            {"url": "postgresql+psycopg_async://h/d"},
            "session.url must name a driver without asyncio, got postgresql+psycopg_async",
        ),
        (
            {"url": "postgresql+psycopg://h/d?sslmode=require&timeout=1"},
            "session.url has options that psycopg does not know: number 2 after the ?",
        ),
        (
            {"url": "postgresql+psycopg://h/d?row_factory=x&autocommit=true"},
            "session.url has options that psycopg does not know: number 1 after the ?",
        ),
        (
            {"url": "postgresql+psycopg://h/d?prepare_threshold=-1"},
            "session.url: prepare_threshold must be a whole number or none",
        ),
        (
            {"sa.url": "postgresql+psycopg://h/d?prepare_threshold=1&prepare_threshold=2"},
            "session.sa.url: prepare_threshold must be a whole number or none",
        ),
        (
            {"url": "postgresql+psycopg://h/d", "sa.connect_args": '{"prepare_threshold": true}'},
            "session.sa.connect_args: prepare_threshold must be a whole number or none, got True",
        ),
        (
            {"url": "mysql+pymysql://h/d?charset=utf8&read_timeout=9&foo=1&bar=2"},
            "session.url has options that pymysql does not know: numbers 3, 4 after the ?",
        ),
        (
            {"sa.url": "sqlite://"},
            "session.sa.url must name a file: each thread has another SQLite database in memory",
        ),
        ({"url": "sqlite:////x", "sa.connect_args": "{secret"}, f"session.sa.connect_args {NO_JSON}"),
        ({"url": "sqlite:////x", "sa.connect_args": '["secret"]'}, f"session.sa.connect_args {NO_JSON}"),
        ({"url": "sqlite:////x", "sa.connect_args": "[" * 100_000}, f"session.sa.connect_args {NO_JSON}"),
        (
            {"url": "sqlite:////x", "sa_opts": {"connect_args": "{secret"}},
            f"session.sa_opts['connect_args'] {NO_JSON}",
        ),
        (
            {"url": "sqlite:////x", "sa.poolclass": "NullPool"},
            "session.sa.poolclass must be a dotted name that can be imported, or an object",
        ),
        (
            {"url": "sqlite:////x", "sa.pool_size": "many"},
            (
                "session.sa.pool_size must be what SQLAlchemy makes an engine of: invalid literal for int()"
                " with base 10: 'many'"
            ),
        ),
        (
            {"type": "ext:sqla", "bind": "os.sep", "table": TABLE},
            f"session.bind {NO_ENGINE}",
        ),
        (
            {"type": "ext:sqla", "bind": sa.create_engine("sqlite://"), "table": "os.sep"},
            (
                "session.table must be a table of SQLAlchemy's with the columns of beaker.ext.sqla.make_cache_table,"
                " got '/'"
            ),
        ),
    ],
)
def test_what_is_wrong_names_the_option_as_it_stands(settings, told):
    """Each error names the option as it stands in the file, says what to do, and shows no password."""
    prefixed_settings = {f"session.{name}": value for name, value in {"type": "ext:database", **settings}.items()}
    with pytest.raises(SettingsError) as refused:
        open_store(read_options(prefixed(prefixed_settings)))

    assert str(refused.value) == told
    assert "secret" not in "".join(traceback.format_exception(refused.value))


def test_a_wrong_option_of_an_engine_is_named(monkeypatch):
    """Of SQLAlchemy's options the one is named that is wrong; where none is, the address."""
    with pytest.raises(SettingsError, match=r"^sa\.pool_sizes must be what SQLAlchemy makes an engine of: Invalid"):
        opened("sqlite:////x", **{"sa.pool_sizes": "5", "sa.echo": "false"})
    with pytest.raises(SettingsError, match=r"^sa\.module must be what SQLAlchemy makes an engine of: 'str' object"):
        opened("sqlite:////x", **{"sa.module": "str"})

    def fail(*_arguments, **_options):
        raise TypeError("of nobody's making")

    monkeypatch.setattr(engines, "engine_from_config", fail)
    with pytest.raises(SettingsError, match=r"^url must be what SQLAlchemy makes an engine of: of nobody's making"):
        opened("sqlite:////x", **{"sa.echo": "false"})


@pytest.mark.parametrize("installed", [True, False])
def test_the_driver_that_is_missing_and_the_one_that_would_do(installed, monkeypatch):
    """Where a driver is missing, another one is named, which is installed, or how to get it."""
    monkeypatch.setattr(engines, "find_spec", lambda name: object() if installed else None)
    told = engines._missing_driver(
        sa.make_url("postgresql://h"), ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")
    )
    other = engines._missing_driver(sa.make_url("postgresql+psycopg://h"), ImportError("no pq wrapper available"))
    how = "which is installed" if installed else "pip install psycopg[binary]"

    assert told == (
        "needs a driver that cannot be imported (No module named 'psycopg2'): pip install psycopg2,"
        f" or write postgresql+psycopg:// ({how})"
    )
    assert other == ("needs a driver that cannot be imported (no pq wrapper available): pip install psycopg[binary]")


def test_the_drivers_arguments_in_an_ini(tmp_path):
    """``sa.connect_args`` is JSON in an ``.ini``, and wins over our own; other texts are SQLAlchemy's to convert."""
    settings = {
        "session.type": "ext:database",
        "session.url": f"sqlite:///{tmp_path}/x.db",
        "session.sa.connect_args": '{"timeout": 7.5, "cached_statements": 3}',
        "session.sa.pool_recycle": "60",
        "session.sa.poolclass": "sqlalchemy.pool.NullPool",
    }
    store = open_store(read_options(prefixed(settings)))
    connected = []
    sa.event.listen(
        store._own.get(), "do_connect", lambda _dialect, _record, _arguments, options: connected.append(options)
    )
    store.swap(ID, None, b"x")

    assert connected[0]["timeout"] == 7.5
    assert connected[0]["cached_statements"] == 3
    assert type(store._own.get().pool) is NullPool
    assert store._own.get().pool._recycle == 60


def test_a_database_in_memory_stops_the_start():
    """SQLite in memory would be another database in each thread, unless the pool has one connection."""
    with pytest.raises(SettingsError, match="url must name a file"):
        opened("sqlite://")

    store = opened("sqlite://", sa_opts={"sa.poolclass": StaticPool, "connect_args": {"check_same_thread": False}})
    store.swap(ID, None, b"x")

    assert together(lambda: store.read(ID).raw) == [b"x"]


# -- The application's engine ------------------------------------------------------------------------

_engines: list[sa.Engine] = []


def application_engine():
    """Return the application's engine, which was made after the session's configuration."""
    return _engines[-1]


@pytest.fixture
def engine(url):
    """Return the application's engine."""
    engine = sa.create_engine(url)
    _engines.append(engine)
    yield engine
    _engines.pop()
    engine.dispose()


@pytest.mark.parametrize("name", [f"{__name__}.application_engine", f"{__name__}:application_engine"])
def test_the_engine_may_be_named(name, url, tmp_path):
    """An address in an .ini may be the name of a function, which is first called when a session is used."""
    store = opened(name)
    engine = sa.create_engine(url)
    _engines.append(engine)
    store.swap(ID, None, b"x")
    store.close()
    _engines.pop()

    assert opened(url).read(ID).raw == b"x"
    assert engine.pool.checkedin() == 1

    engine.dispose()


@pytest.mark.parametrize("option", ["url", "bind"])
def test_the_engine_may_be_given(option, engine):
    """In Python, an engine is taken as it is, as the address or as ext:sqla's bind."""
    TABLE.create(engine)
    store = open_store(read_options(given({"type": "ext:sqla", option: engine, "table": TABLE})))

    assert store.swap(ID, None, b"x").made
    assert engine.pool.checkedin() == 1


def test_a_table_with_an_address(url, engine):
    """ext:sqla also makes an engine of its own, from an address; the table is the application's to make."""
    store = opened(url, type="ext:sqla", table=TABLE)

    assert "no such table" in str(refused(lambda: store.read(ID)))

    TABLE.create(engine)

    assert store.swap(ID, None, b"x").made


def test_a_function_that_returns_no_engine_is_told():
    """The function that ``url`` names must return an engine."""
    with pytest.raises(SettingsError, match="a function that returns one"):
        opened(dict).read(ID)


@pytest.mark.parametrize("table", [object(), sa.Table("narrow", sa.MetaData(), sa.Column("namespace", sa.String))])
def test_a_table_that_is_none_stops_the_start(url, table):
    """ext:sqla needs a table with Beaker's columns."""
    with pytest.raises(SettingsError, match="make_cache_table") as refused:
        opened(url, type="ext:sqla", table=table)

    assert refused.value.name == "table"


def test_the_log_of_the_engine_does_not_show_the_record(url, caplog):
    """Who has SQLAlchemy log its statements has no sessions in the log."""
    store, new = opened(url), text()
    with caplog.at_level("INFO", "sqlalchemy.engine"):
        store.swap(ID, None, new)

    assert "INSERT INTO beaker_cache" in caplog.text
    assert new.decode("ascii") not in caplog.text
    assert ID not in caplog.text


def test_an_error_does_not_show_the_record(engine):
    """What a session holds is in no error, though the application's engine would show it."""
    store = opened(engine)
    store.read(ID)
    TABLE.drop(engine)
    new = text()
    error = refused(lambda: store.swap(ID, Record(b"x"), new))
    shown = "".join(traceback.format_exception(error))

    assert "no such table" in shown
    assert new.decode("ascii") not in shown
    assert ID not in shown
