"""The backends: where they are, how their operations are counted, and the plainest calls on them.

``get`` and ``put`` are what the least possible does: the plainest call that the backend's client has. On Redis it
writes by ``swap``, a script that compares and sets.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

#: How many records are sent to a server at once, when it is filled.
CHUNK = 10_000
#: How many names a file system gives to one file: fewer than ext4's 65,000.
LINKS = 50_000


class Backend:
    """Where sessions are kept.

    Args:
        folder: an empty folder for its files.
    """

    name: str
    #: The largest text, in bytes, that the plain calls can store.
    plain_largest: float = float("inf")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()

    def __enter__(self):
        self._open.__enter__()
        try:
            self.start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *exc_info):
        self._open.__exit__(*exc_info)

    def _server(self, module, name, *options):
        server = getattr(import_module(f"tests.servers.{module}"), name)
        place = self.folder / "server"
        place.mkdir()
        return self._open.enter_context(server(place, *options))

    def start(self):
        """Start what the backend needs."""

    def options(self, contestant):
        """Return the session options of a contestant, as Beaker has them."""
        raise NotImplementedError

    def get(self, key):
        """Return what stands under a key, in the plainest way."""
        raise NotImplementedError

    def put(self, key, text):
        """Write a text under a key, in the plainest way."""
        raise NotImplementedError

    #: Writes a text under a key, if another one stands there; nothing, where the least possible is to write.
    swap: Callable[[str, bytes, str], object] | None = None

    @contextmanager
    def counting(self) -> Iterator[Counter]:
        """Count the operations in the block; known at its end. Slows down what it counts."""
        yield Counter()


class Memory(Backend):
    """This process's memory."""

    name = "memory"

    def start(self):
        texts = {}
        self.get, self.put = texts.__getitem__, texts.__setitem__

    def options(self, contestant):
        return {"type": "memory"}


class Cookie(Backend):
    """The cookie itself; the least possible has a view of its own for it."""

    name = "cookie"

    def options(self, contestant):
        return {"type": "cookie", "data_serializer": "json"}


class File(Backend):
    """A file a session. The least possible is whole whenever it is read, as ours is: a new file, renamed."""

    name = "file"

    def start(self):
        self._plain = f"{self.folder}/plain"
        os.mkdir(self._plain)

    def options(self, contestant):
        return {"type": "file", "data_dir": f"{self.folder}/{contestant}"}

    def get(self, key):
        with open(f"{self._plain}/{key}", "rb", buffering=0) as file:
            return file.read()

    def put(self, key, text):
        temporary = f"{self._plain}/{key}.new"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(temporary, f"{self._plain}/{key}")

    def fill(self, ids: Iterable[str], like: str) -> None:
        """Store many sessions; names are what counts, so many of them are links to one file."""
        root = Path(self.options("ours")["data_dir"]) / "container_file"
        raw = (root / like[:1] / like[:2] / f"{like}.cache").read_bytes()
        for number, session_id in enumerate(ids):
            place = f"{root}/{session_id[:1]}/{session_id[:2]}"
            path = f"{place}/{session_id}.cache"
            os.makedirs(place, exist_ok=True)
            if number % LINKS == 0:
                original = path
                Path(path).write_bytes(raw)
            else:
                os.link(original, path)

    @contextmanager
    def counting(self):
        counter = Counter()
        with _file_calls.counted(str(self.folder), counter):
            yield counter


#: Python's audit events of calls on files, and what they are called here.
_FILE_EVENTS = {
    "open": "open",
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "fcntl.flock": "flock",
}


class _FileCalls:
    """Counts the calls on files under a folder, by Python's audit events."""

    def __init__(self):
        self._folder = self._counter = None
        self._hooked = False

    @contextmanager
    def counted(self, folder, counter):
        # A hook cannot be taken away again: it is hung up for the first count, after all that is timed.
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(self._hook)
        self._folder, self._counter = folder, counter
        try:
            yield
        finally:
            self._folder = self._counter = None

    def _hook(self, event, arguments):
        if self._counter is None or event not in _FILE_EVENTS:
            return
        place = arguments[0]
        if event == "fcntl.flock" or (isinstance(place, (str, Path)) and str(place).startswith(self._folder)):
            self._counter[_FILE_EVENTS[event]] += 1


_file_calls = _FileCalls()


_COMPARE_AND_SET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class Redis(Backend):
    """A Redis on the loopback."""

    name = "redis"

    def start(self):
        server = self._server("redis", "Redis")
        self._url = server.url
        self.client = import_module("redis").Redis.from_url(server.url)
        self.get, self.put = self.client.get, self.client.set
        self._digest = self.client.script_load(_COMPARE_AND_SET)

    def swap(self, key, old, new):
        if not self.client.evalsha(self._digest, 1, key, old, new):
            raise RuntimeError

    def options(self, contestant):
        return {"type": "ext:redis", "url": self._url}

    def fill(self, ids, like):
        raw = self.client.get(f"beaker_cache:{like}:session")
        for chunk in _chunks(ids):
            self.client.mset({f"beaker_cache:{session_id}:session": raw for session_id in chunk})

    @contextmanager
    def counting(self):
        counter = Counter()
        before = self._calls()
        yield counter
        counter.update(self._calls() - before)
        # Of these looks, each one sees the two before it.
        counter.subtract({"info": 2, "round trip": 2})

    def _calls(self):
        trips = self.client.info("stats")["total_reads_processed"]
        stats = self.client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
        return Counter({**calls, "round trip": trips})


class SQL(Backend):
    """A database; its statements are counted in SQLAlchemy, and in the plain calls."""

    _SELECT = "SELECT data FROM plain WHERE name = ?"
    _UPDATE = "UPDATE plain SET data = ? WHERE name = ?"
    _INSERT = "INSERT INTO plain VALUES (?, ?)"

    url: str
    plain_calls = 0

    def connect(self):
        """Return a plain connection that commits each statement."""
        raise NotImplementedError

    def start(self):
        self._plain = self.connect()
        self._plain.execute("CREATE TABLE plain (name VARCHAR(255) PRIMARY KEY, data TEXT)")

    def options(self, contestant):
        return {"type": "ext:database", "url": self.url}

    def get(self, key):
        self.plain_calls += 1
        return self._plain.execute(self._SELECT, (key,)).fetchone()[0]

    def put(self, key, text):
        self.plain_calls += 1
        if not self._plain.execute(self._UPDATE, (text, key)).rowcount:
            self._plain.execute(self._INSERT, (key, text))

    @contextmanager
    def counting(self):
        from sqlalchemy import Engine, event

        counter = Counter()
        before = self.plain_calls

        def statement(_connection, _cursor, text, *_rest):
            counter[text.split(maxsplit=1)[0]] += 1

        def end(connection):
            # SQLAlchemy tells of the end of a transaction also where it has begun none.
            if not connection._is_autocommit_isolation():
                counter["transaction"] += 1

        listeners = [("before_cursor_execute", statement), ("commit", end), ("rollback", end)]
        for name, listener in listeners:
            event.listen(Engine, name, listener)
        try:
            yield counter
        finally:
            for name, listener in listeners:
                event.remove(Engine, name, listener)
        counter["statement"] = self.plain_calls - before


class SQLite(SQL):
    """An SQLite file."""

    name = "sqlite"

    def options(self, contestant):
        # A file each: how it journals is kept in it.
        return {"type": "ext:database", "url": f"sqlite:///{self.folder}/{contestant}.db"}

    def connect(self):
        connection = sqlite3.connect(f"{self.folder}/plain.db", isolation_level=None)
        self._open.callback(connection.close)
        return connection

    def fill(self, ids, like):
        copy = (
            "INSERT INTO beaker_cache (namespace, accessed, created, data)"
            " SELECT ?, accessed, created, data FROM beaker_cache WHERE namespace = ?"
        )
        database = sqlite3.connect(f"{self.folder}/ours.db")
        for chunk in _chunks(ids):
            database.executemany(copy, [(session_id, like) for session_id in chunk])
        database.commit()
        database.close()


class PostgreSQL(SQL):
    """A PostgreSQL on the loopback."""

    name = "postgresql"
    _SELECT, _UPDATE, _INSERT = (text.replace("?", "%s") for text in (SQL._SELECT, SQL._UPDATE, SQL._INSERT))

    def start(self):
        self._process = self._server("postgresql", "PostgreSQL")
        self.url = self._process.url
        super().start()

    def connect(self):
        connection = self._process.client()
        self._open.callback(connection.close)
        return connection


class Memcached(Backend):
    """A memcached on the loopback; the plainest client is python-memcached's, as Beaker has it."""

    name = "memcached"
    plain_largest = 512 * 1024

    def start(self):
        server = self._server("memcached", "Memcached")
        self._address = ("127.0.0.1", server.port)
        self._url = server.url
        client = import_module("memcache").Client([server.url])
        self._open.callback(client.disconnect_all)
        self.get, self.put = client.get, client.set

    def options(self, contestant):
        return {"type": "ext:memcached", "url": self._url}

    @contextmanager
    def counting(self):
        counter = Counter()
        before = self._calls()
        yield counter
        counter.update(self._calls() - before)

    def _calls(self):
        """Return what the server has counted: reads, writes of any kind, and deletions."""
        with socket.create_connection(self._address) as connection, connection.makefile("rb") as answer:
            connection.sendall(b"stats\r\n")
            words = [line.decode("ascii").split() for line in iter(answer.readline, b"END\r\n")]
        stats = {name: int(value) for _stat, name, value in words if value.isdigit()}
        deletions = stats["delete_hits"] + stats["delete_misses"]
        return Counter({"get": stats["cmd_get"], "set": stats["cmd_set"], "delete": deletions})


BACKENDS = {backend.name: backend for backend in (Memory, File, Cookie, Redis, SQLite, PostgreSQL, Memcached)}


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    chunk = []
    for session_id in ids:
        chunk.append(session_id)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def new_id() -> str:
    """Return an id of Beaker's form."""
    return secrets.token_hex(16)
