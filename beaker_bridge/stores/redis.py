"""Sessions in Redis and in a Redis Cluster, under Beaker's keys."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ExecAbortError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.options.table import SESSION_TABLE, SessionOptions
from beaker_bridge.record.envelope import PickledEnvelope
from beaker_bridge.stores._breaker import CircuitBreaker, ConnectionLostError, ServerUnavailableError
from beaker_bridge.stores._forks import PerProcess
from beaker_bridge.stores._redis_address import (
    check_address,
    check_addresses,
    client_of,
    client_or_address,
    cluster_of,
)
from beaker_bridge.stores._redis_swap import DIGEST, SCRIPT, TRANSACTION, compare_and_set
from beaker_bridge.stores._server import ServerStore, too_large
from beaker_bridge.stores.base import BATCH, ID_FORM, RECORD_FORM, Listed, Record, Swap, refused, unreachable

T = TypeVar("T")

#: redis-py, without its types: some of what we use has none.
_redis: Any = redis

#: The errors of a server, or of the node that has a key, that cannot be reached.
_UNAVAILABLE = (_redis.ConnectionError, _redis.TimeoutError, ClusterDownError, RedisClusterException, OSError)
#: The error of redis-py's own pool; a plain ConnectionError before redis-py 7.
_POOL_IS_FULL: Any = getattr(_redis.exceptions, "MaxConnectionsError", ())

#: The errors for a missing right. A command that is allowed, but fails, has others (out of memory, a read-only
#: replica).
_REFUSALS = (NoPermissionError, ResponseError, ExecAbortError)
#: The messages for a missing right, also those of other servers that speak Redis's protocol.
_NOT_ALLOWED = re.compile(
    r"no permissions|not permitted|unknown (sub)?command|not allowed|not support|unsupported|script\w* \w+ disabled",
    re.IGNORECASE,
)
#: The messages of a Redis that runs a script, but refuses a command in it.
_IN_SCRIPT = re.compile("executing the script|failure in script")
#: The part of a message that quotes a command, with the session's id in it.
_QUOTED = re.compile(",? with args beginning with:.*", re.DOTALL)
_RIGHTS = "GET, SET and DEL, and EVALSHA and EVAL or else WATCH, UNWATCH, MULTI and EXEC"

#: The characters that have a meaning in a pattern of SCAN's, and a pattern of themselves.
_SPECIAL, _ESCAPED = re.compile(r"[*?\[\]\\^-]"), r"\\\g<0>"
#: The option of Redis that bounds the size of a value, and the smallest size that it may have, in bytes.
_LIMIT, _SMALLEST_LIMIT = "proto-max-bulk-len", 1 << 20

#: The beginning of the locks' keys. Do not use Beaker's: its lock on a session is held while a value is computed.
_LOCKS = "beaker_bridge_lock:"


class RedisStore(ServerStore):
    """Beaker's ``ext:redis``; ``url`` is an address, or in Python a client that the application has.

    A user name and a password are taken from the address, else from ``username`` and ``password``.
    A client that is given keeps its own timeouts and retries: ``store_timeout`` bounds only ours.

    Args:
        options: the option table.

    Raises:
        SettingsError: the address is none.
    """

    kind = "ext:redis"
    envelope = PickledEnvelope
    expires_by_itself = True
    _option = "url"
    _check_address = staticmethod(check_address)
    _open_client = staticmethod(client_of)
    _rights = f"{_RIGHTS}, and SELECT for a database other than 0"

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options.store_timeout)
        prefix = options.key_prefix
        # Keep the locks under a prefix of the site's own, too: a user of Redis may be restricted to it.
        is_beakers = prefix == SESSION_TABLE["key_prefix"].default
        self._prefix, self._lock_prefix = prefix, _LOCKS if is_beakers else f"{prefix}lock:"
        #: By circuit breaker: its ``closed`` when the server refused a script. A breaker that has opened since has
        #: another one, so that scripts are tried again.
        self._scriptless: dict[CircuitBreaker, object] = {}
        self._connecting = PerProcess(threading.Lock)
        given = client_or_address(options, self._option)
        self._address: Any = given if isinstance(given, str) else None
        self._client: Any = None if isinstance(given, str) else given
        self._login = self._check_address(given, options) if isinstance(given, str) else {}

    # -- The contract --------------------------------------------------------------------------------

    def read(self, session_id: str) -> Record | None:
        key = self._key(session_id)
        raw = self._call(key, self._execute, "GET", key)
        return None if raw is None else Record(raw)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        return self._swap(self._key(session_id), record and record.raw, new, expires_in)

    def close(self) -> None:
        if self._address is not None and self._client is not None:
            client, self._client = self._client, None
            client.close()

    def bypass_breaker(self, session_id: str) -> None:
        key = self._key(session_id)
        self._breaker_of(key).bypass(lambda: self._probe(key))

    def _swap_lease(self, session_id: str, old: bytes | None, new: bytes | None, expires_in: float | None) -> Swap:
        return self._swap(self._lock_prefix + session_id, old, new, expires_in)

    def _key(self, session_id: str) -> str:
        return f"{self._prefix}{session_id}:session"

    # -- Listing -------------------------------------------------------------------------------------

    def ids(self, form: re.Pattern[str] = ID_FORM) -> Iterator[str]:
        # Yield an id twice where the server does, whose keys are being spread anew.
        for ids in self._pages(BATCH, form):
            yield from ids

    def scan(self, batch: int = BATCH) -> Iterator[list[Listed]]:
        for ids in self._pages(batch, RECORD_FORM):
            for start in range(0, len(ids), batch):
                listed = ids[start : start + batch]
                records = zip(listed, self.read_all(listed), strict=True)
                yield [(record_id, record) for record_id, record in records if record is not None]

    def read_all(self, record_ids: Sequence[str]) -> list[Record | None]:
        return [None if raw is None else Record(raw) for raw in self._asked("GET", self._values, record_ids)]

    def count(self) -> int:
        return sum(self._asked("DBSIZE", node.dbsize) for node in self._asked("CLUSTER SLOTS", self._nodes))

    def _values(self, ids: Sequence[str]) -> list[bytes | None]:
        pipeline = self._connected().pipeline(transaction=False)
        for record_id in ids:
            pipeline.execute_command("GET", self._key(record_id), NEVER_DECODE=[])
        values: list[bytes | None] = pipeline.execute()
        return values

    def _pages(self, size: int, form: re.Pattern[str]) -> Iterator[list[str]]:
        """Yield the ids of a form in pages of about a size, by SCAN, from each server that has keys."""
        pattern = f"{_SPECIAL.sub(_ESCAPED, self._prefix)}*:session"
        for node in self._asked("CLUSTER SLOTS", self._nodes):
            cursor = None
            while cursor != 0:
                cursor, keys = self._asked("SCAN", node.scan, cursor or 0, pattern, size)
                names = [key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key in keys]
                ids = [name[len(self._prefix) : -len(":session")] for name in names]
                if found := [*filter(form.fullmatch, dict.fromkeys(ids))]:
                    yield found

    def _asked(self, command: str, step: Callable[..., T], *arguments: Any) -> T:
        """Return what a server answers to a step of a listing."""
        try:
            return step(*arguments)
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._failed(command, (), error) from error

    def _nodes(self) -> list[Any]:
        """Return the clients of the servers that have keys."""
        return [self._connected()]

    # -- Compare and set -----------------------------------------------------------------------------

    def _swap(self, key: str, old: bytes | None, new: bytes | None, expires_in: float | None) -> Swap:
        milliseconds = "" if expires_in is None else max(1, int(expires_in * 1000))
        found = self._compare_and_set(key, (old or b"", new or b"", milliseconds))
        made = isinstance(found, int)
        stored = new if made else found
        return Swap(made, Record(stored) if stored else None)

    def _compare_and_set(self, key: str, arguments: tuple[Any, ...]) -> Any:
        """Return 1, or the value that was found instead: by a script, or by a transaction if scripts are refused."""
        breaker = self._breaker_of(key)
        scriptless = self._scriptless.get(breaker)
        if scriptless is None or scriptless is not breaker.closed:
            try:
                return self._run_script(key, arguments)
            except SessionStoreError as error:
                if not _lacks_right(error.original) or _IN_SCRIPT.search(str(error)):
                    raise
        try:
            found = self._call(key, self._transact, key, arguments)
        except SessionStoreError:
            # Try a script again next time: another right may be missing, or the rights may have changed.
            self._scriptless.pop(breaker, None)
            raise
        self._scriptless[breaker] = breaker.closed
        return found

    def _run_script(self, key: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._call(key, self._execute, "EVALSHA", DIGEST, 1, key, *arguments)
        except NoScriptError:
            # Send the script to a server that was restarted, or has flushed its scripts.
            return self._call(key, self._execute, "EVAL", SCRIPT, 1, key, *arguments)

    def _transact(self, key: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return compare_and_set(self._pool_of(key), key, *arguments)
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._failed(TRANSACTION, arguments, error) from error

    def _pool_of(self, key: str) -> Any:
        """Return the connections to the server that has a key."""
        return self._connected().connection_pool

    # -- Commands ------------------------------------------------------------------------------------

    def _call(self, key: str, step: Callable[..., T], *arguments: Any) -> T:
        """Call a step that asks the server of a key, through its circuit breaker."""
        return self._breaker_of(key).call(lambda: self._probe(key), step, *arguments)

    def _breaker_of(self, key: str) -> CircuitBreaker:
        """Return the circuit breaker of the server that has a key."""
        return self._breaker()

    def _probe(self, key: str) -> object:
        # Ask for the key, so that in a cluster its node answers; the answer is small.
        return self._execute("EXISTS", key)

    def _execute(self, *command: Any) -> Any:
        try:
            # Records are bytes, also for a client of the application's that decodes its responses.
            return self._connected().execute_command(*command, NEVER_DECODE=[])
        except NoScriptError:
            raise
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._failed(command[0], command, error) from error

    def _connected(self) -> Any:
        client = self._client
        if client is None:
            with self._connecting.get():
                client = self._client
                if client is None:
                    client = self._client = self._open_client(self._address, self._login, self._timeout)
        return client

    def _drop_idle(self) -> None:
        """Close the idle connections: they may lead to the same dead end, one after the other."""
        # Another thread may close the store at this moment.
        client = self._client
        if self._address is not None and client is not None:
            client.connection_pool.disconnect(inuse_connections=False)

    # -- Failures ------------------------------------------------------------------------------------

    def _failed(self, name: str, arguments: tuple[Any, ...], error: Exception) -> SessionStoreError:
        """Return the error for a command that failed."""
        self._refuse_too_large(arguments, error)
        error_class = _class_of(error)
        if error_class is not SessionStoreError:
            self._drop_idle()
        refusal = _refusal_in(error)
        if refusal is None:
            return unreachable(self.kind, error, error_class)
        if isinstance(refusal, AuthenticationError):
            name = "AUTH"
        elif refusal is not error:
            name = "CLUSTER SLOTS"
        return self._refused(name, refusal, error_class)

    def _refused(self, name: str, error: Exception, error_class: type[SessionStoreError]) -> SessionStoreError:
        """Return the error for a command that the server refuses; it names the missing right."""
        # Remove the quoted command from the traceback, too.
        error.args = (_QUOTED.sub("", str(error)),)
        failure = refused(self.kind, error, name, error_class)
        if _lacks_right(error):
            keys = " and ".join(dict.fromkeys((f"{self._prefix}*", f"{self._lock_prefix}*")))
            failure.args = (f"{failure}; a user of it needs the rights to {self._rights}, for the keys {keys}",)
        return failure

    def _refuse_too_large(self, arguments: tuple[Any, ...], error: Exception) -> None:
        """Raise if the connection broke because of the record's size: Redis ends it in the middle of the command."""
        size = max((len(argument) for argument in arguments if isinstance(argument, bytes)), default=0)
        if size <= _SMALLEST_LIMIT or not isinstance(error, (_redis.ConnectionError, _redis.ResponseError)):
            return
        # Skip the check on a server that is down, or that refuses to tell its options.
        with suppress(RedisError, RedisClusterException, OSError, LookupError, ValueError):
            limit = int(self._connected().config_get(_LIMIT)[_LIMIT])
            if size > limit:
                raise too_large(self.kind, size, f"{limit} bytes in a value (Redis's {_LIMIT})") from error


class RedisClusterStore(RedisStore):
    """Beaker's ``ext:rediscluster``; ``urls`` are addresses, with commas between them, or a client.

    A user name and a password are taken from the first address, else from ``username`` and ``password``.

    Args:
        options: the option table.

    Raises:
        SettingsError: one of the addresses is none.
    """

    kind = "ext:rediscluster"
    _option = "urls"
    _check_address = staticmethod(check_addresses)
    _open_client = staticmethod(cluster_of)
    _rights = f"CLUSTER SLOTS, COMMAND, {_RIGHTS}"

    def _breaker_of(self, key: str) -> CircuitBreaker:
        client = self._client
        nodes = client and client.nodes_manager.slots_cache.get(client.keyslot(key))
        return self._breaker(nodes[0].name if nodes else "")

    def _transact(self, key: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return super()._transact(key, arguments)
        except SessionStoreError as error:
            if not isinstance(error.original, MovedError):
                raise
        # Let the client follow the slot, and learn its node.
        self._execute("GET", key)
        return super()._transact(key, arguments)

    def _nodes(self) -> list[Any]:
        client = self._connected()
        return [client.get_redis_connection(node) for node in client.get_primaries()]

    def _pool_of(self, key: str) -> Any:
        client = self._connected()
        node = client.nodes_manager.get_node_from_slot(client.keyslot(key))
        return client.get_redis_connection(node).connection_pool

    def _drop_idle(self) -> None:
        # Nothing to do: the client closes the connections to the node that failed.
        return


def _class_of(error: Exception) -> type[SessionStoreError]:
    """Return the class of an error: the server is down, a connection was lost, or one command was refused."""
    # A full pool of redis-py's own says nothing about the server.
    if not isinstance(error, _UNAVAILABLE) or isinstance(error, _POOL_IS_FULL):
        return SessionStoreError
    # A slow link may not carry a large record in time, and a new connection may lead to another master.
    is_lost = type(error) is _redis.ConnectionError or isinstance(error, _redis.TimeoutError)
    return ConnectionLostError if is_lost else ServerUnavailableError


def _lacks_right(error: BaseException | None) -> bool:
    """Say whether a command was refused because the user may not run it, or the server does not have it."""
    text = str(error)
    return type(error) in _REFUSALS and bool(_NOT_ALLOWED.search(text) or _IN_SCRIPT.search(text))


def _refusal_in(error: Exception) -> Exception | None:
    """Return the answer by which a server refused a command; redis-py hides that of a node behind one or two errors."""
    found: Any = error.__cause__ if isinstance(error, RedisClusterException) else error
    found = found.__context__ if isinstance(found, RedisClusterException) else found
    is_answer = isinstance(found, (ResponseError, AuthenticationError)) and not isinstance(found, ClusterDownError)
    return found if is_answer else None
