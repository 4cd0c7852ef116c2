"""Sessions in Redis and in a Redis Cluster, under Beaker's keys."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import getattr_static, signature
from types import FunctionType
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ExecAbortError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.logs import log_once
from beaker_bridge.options.table import SESSION_TABLE, SessionOptions
from beaker_bridge.record.envelope import PickledEnvelope
from beaker_bridge.stores._breaker import AwayError, BrokenError, Pause, ServerStore, too_large
from beaker_bridge.stores.base import Record, Swap, unreachable

T = TypeVar("T")

log = logging.getLogger(__name__)

#: redis-py, without its types: some of what is used here has none.
_redis: Any = redis


#: What says that the server, or the node that has a key, cannot be reached.
_AWAY = (_redis.ConnectionError, _redis.TimeoutError, ClusterDownError, RedisClusterException, OSError)
#: redis-py before 7 has a plain ConnectionError for this.
_POOL_IS_FULL: Any = getattr(_redis.exceptions, "MaxConnectionsError", ())


#: The errors for a right that is missing; for a command that is allowed, and not served, there are others (out of
#: memory, a read-only replica).
_REFUSALS = (NoPermissionError, ResponseError, ExecAbortError)
#: How a right that is missing is told, also by what others serve as Redis.
_NOT_ALLOWED = re.compile(
    r"no permissions|not permitted|unknown (sub)?command|not allowed|not support|unsupported|script\w* \w+ disabled",
    re.IGNORECASE,
)
#: What Redis says where it runs a script, and refuses a command in it.
_IN_SCRIPT = re.compile("executing the script|failure in script")
#: Where Redis begins to quote a command, with the id in it.
_QUOTED = re.compile(",? with args beginning with:.*", re.DOTALL)
_TRANSACTION = "WATCH, MULTI, EXEC"
_RIGHTS = "GET, SET and DEL, and EVALSHA and EVAL or else WATCH, UNWATCH, MULTI and EXEC"

#: The option of Redis's that bounds a value's size, and the smallest size that it may have.
_LIMIT, _SMALLEST_LIMIT = "proto-max-bulk-len", 1 << 20


_SENTINEL_SCHEME = "redis+sentinel:"
MAX_PORT = 0xFFFF
_SENTINEL_FORM = "redis+sentinel://name:password@host:port,host:port/service/database"
#: What is said of an address that cannot be read; what could not be read in it may be a part of a password.
_UNREADABLE = "it cannot be read (in a name or password, / ? # @ and : are written as %2F %3F %23 %40 and %3A)"
#: What redis-py says of an address without quoting a part of it that may be a part of a password.
_SAYABLE = ("Redis URL must", "Invalid value for", "Port out of range", "protocol must", "Invalid SSL")
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")
#: What the keys of the locks begin with. Not Beaker's: its lock on a session is for as long as a cached value is made.
_LOCKS = "beaker_bridge_lock:"
#: ``redis+sentinel://name:password@host:port,host:port/service/db``, which redis-py does not know.
_SENTINEL = re.compile(
    r"redis\+sentinel://(?:(?P<username>[^:@/]*):(?P<password>[^@/]*)@)?"
    r"(?P<hosts>[^:@/,]+:[0-9]+(?:,[^:@/,]+:[0-9]+)*)/(?P<service>[^/?]+)(?:/(?P<db>[0-9]+))?"
)

#: Replace a value that still is the one that was read. An empty text stands for no value: none is empty. To write again
#: what stands there already does no harm, and gives it the expiry that was asked for.
_SWAP = b"""
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] and found ~= ARGV[2] then return found end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
elseif ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
#: The digest by which Redis knows the script once it was sent.
_DIGEST = hashlib.sha1(_SWAP, usedforsecurity=False).hexdigest()


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
    _rights = _RIGHTS

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options.store_timeout)
        self._client: Any = None
        #: The connections of a client of our own, where nobody watches what goes through the client itself.
        self._pool: Any = None
        self._connecting = threading.Lock()
        prefix = options.key_prefix
        # Under a prefix of the site's own are all of its keys: a user of Redis may be held to them.
        is_beakers = prefix == SESSION_TABLE["key_prefix"].default
        self._prefix, self._lock_prefix = prefix, _LOCKS if is_beakers else f"{prefix}lock:"
        self._login: dict[str, str] = {}
        self._address = self._checked_address(options)
        if not isinstance(self._address, str):
            self._client = self._address

    # -- The contract --------------------------------------------------------------------------------

    def read(self, session_id: str) -> Record | None:
        key = self._key(session_id)
        raw = self._call(key, "GET", key)
        return None if raw is None else Record(raw)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        milliseconds = "" if expires_in is None else max(1, int(expires_in * 1000))
        found = self._compare_and_set(self._key(session_id), record.raw if record else b"", new or b"", milliseconds)
        made = isinstance(found, int)
        stands = new if made else found
        return Swap(made, Record(stands) if stands else None)

    def close(self) -> None:
        if isinstance(self._address, str) and self._client is not None:
            client, self._client, self._pool = self._client, None, None
            client.close()

    def _start(self) -> None:
        super()._start()
        #: By the pause of a server that refused scripts: what its ``up`` was then. Once that changes it is asked again.
        self._scriptless: dict[Pause, object] = {}

    def forget(self) -> None:
        super().forget()
        # The client's pools see a fork themselves.
        self._connecting = threading.Lock()

    # -- How -----------------------------------------------------------------------------------------

    def _take_lease(self, session_id: str, lasts: float) -> bytes | None:
        lease = secrets.token_hex(16).encode("ascii")
        key = self._lock_prefix + session_id
        made = self._call(key, "SET", key, lease, "NX", "PX", int(lasts * 1000))
        return lease if made else None

    def _end_lease(self, session_id: str, lease: bytes) -> None:
        self._compare_and_set(self._lock_prefix + session_id, lease, b"", "")

    def _key(self, session_id: str) -> str:
        return f"{self._prefix}{session_id}:session"

    def _compare_and_set(self, key: str, *arguments: Any) -> Any:
        """Return 1, or what stands there instead: by a script, or where the server refuses scripts by a transaction.

        Args:
            key: the key.
            arguments: those of the script.
        """
        pause = self._pause_of(key)
        scriptless = self._scriptless.get(pause)
        if scriptless is None or scriptless is not pause.up:
            try:
                return self._run_script(pause, key, arguments)
            except SessionStoreError as error:
                if not _lacks_right(error.original) or _IN_SCRIPT.search(str(error)):
                    raise
        try:
            found = self._ask(pause, key, self._transact, key, arguments)
        except SessionStoreError:
            # What was refused may be another right, or the rights may be others now.
            self._scriptless.pop(pause, None)
            raise
        self._scriptless[pause] = pause.up
        return found

    def _run_script(self, pause: Pause, key: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._ask(pause, key, self._execute, ("EVALSHA", _DIGEST, 1, key, *arguments))
        except NoScriptError:
            # A server that was restarted, or told to forget its scripts.
            return self._ask(pause, key, self._execute, ("EVAL", _SWAP, 1, key, *arguments))

    def _transact(self, key: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return _compare_and_set(self._pool_of(key), key, *arguments)
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._failed(_TRANSACTION, arguments, error) from error

    def _pool_of(self, key: str) -> Any:
        """Return the connections to the server that has a key."""
        return self._connected().connection_pool

    def _call(self, key: str, *command: Any) -> Any:
        # The probe goes to the node that has the key, and is answered as shortly as it is asked.
        return self._pause_of(key).ask(lambda: self._execute(("EXISTS", key)), self._execute, command)

    def _ask(self, pause: Pause, key: str, step: Callable[..., T], *arguments: Any) -> T:
        """Do what :meth:`_call` does, with a pause that is known, by another step."""
        return pause.ask(lambda: self._execute(("EXISTS", key)), step, *arguments)

    def _pause_of(self, key: str) -> Pause:
        """Return the pause of the server that has a key."""
        return self._pause

    def _execute(self, command: tuple[Any, ...]) -> Any:
        try:
            client, pool = self._connected(), self._pool
            if pool is not None:
                return _answer(pool, command)
            # Records are bytes, whatever the application's own client decodes its responses to.
            return client.execute_command(*command, NEVER_DECODE=[])
        except NoScriptError:
            raise
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._failed(command[0], command, error) from error

    def _failed(self, name: str, arguments: tuple[Any, ...], error: Exception) -> SessionStoreError:
        """Return the error for a command that failed."""
        self._refuse_too_large(arguments, error)
        error_class = self._class_of(error)
        if error_class is not SessionStoreError:
            self._drop_idle()
        hidden = _refused_at_the_start(error)
        if hidden is not None:
            return self._refused("CLUSTER SLOTS", hidden, error_class)
        if isinstance(error, ResponseError) and error_class is SessionStoreError:
            return self._refused(name, error, error_class)
        return unreachable(self.kind, error, error_class)

    def _refused(self, name: str, error: ResponseError, error_class: type[SessionStoreError]) -> SessionStoreError:
        """Return the error for a command that the server does not execute; it names the right that is missing."""
        reason = _QUOTED.sub("", str(error))
        # A traceback shows it, too.
        error.args = (reason,)
        message = f"the session store {self.kind} refuses {name}: {type(error).__name__}: {reason}"
        if _lacks_right(error):
            keys = " and ".join(dict.fromkeys((f"{self._prefix}*", f"{self._lock_prefix}*")))
            message += f"; a user of it needs the rights to {self._rights}, for the keys {keys}"
        return error_class(message, name=self.kind, original=error)

    def _refuse_too_large(self, command: tuple[Any, ...], error: Exception) -> None:
        """Raise where a connection broke because of the record's size: Redis ends it in the middle of the command."""
        size = max((len(argument) for argument in command if isinstance(argument, bytes)), default=0)
        if size <= _SMALLEST_LIMIT or not isinstance(error, (_redis.ConnectionError, _redis.ResponseError)):
            return
        with suppress(RedisError, RedisClusterException, OSError, LookupError, ValueError):
            # A server that is away, or that does not let its clients ask for its options, says nothing.
            limit = int(self._connected().config_get(_LIMIT)[_LIMIT])
            if size > limit:
                raise too_large(self.kind, size, f"{limit} bytes in a value (Redis's {_LIMIT})") from error

    def _class_of(self, error: Exception) -> type[SessionStoreError]:
        """Return what an error says about the server: it is away, a connection broke, or it refused one command."""
        # Of redis-py's own pool being full, the server knows nothing.
        if not isinstance(error, _AWAY) or isinstance(error, _POOL_IS_FULL):
            return SessionStoreError
        # A slow link may not carry a large record in time, and a new connection may lead to another master.
        broken = type(error) is _redis.ConnectionError or isinstance(error, _redis.TimeoutError)
        return BrokenError if broken else AwayError

    def _drop_idle(self) -> None:
        """Close the connections that nobody uses: they may lead to the same dead end, one after the other."""
        if isinstance(self._address, str) and self._client is not None:
            self._client.connection_pool.disconnect(inuse_connections=False)

    def _connected(self) -> Any:
        client = self._client
        if client is None:
            self._notice_fork()
            with self._connecting:
                if self._client is None:
                    client = self._connect()
                    # The client last: who finds it does not come here for its connections.
                    self._pool = _open_pool(client)
                    self._client = client
                client = self._client
        return client

    # -- The client ----------------------------------------------------------------------------------

    def _checked_address(self, options: SessionOptions) -> Any:
        """Return the client that was given, or an address that can be connected to."""
        address = self._client_or_address(options, "url")
        if not isinstance(address, str):
            return address
        label = options.label("url")
        if address.startswith(_SENTINEL_SCHEME):
            found = _sentinels_login(address, label)
        else:
            found = _parsed(address, label, "url")
            if "host" in found and urlsplit(address).path.strip("/") and "db" not in found:
                _warn(f"{label}: the database behind the host is no number, so that is 0; write {label} = …/0")
        self._login = _login(options, "url", found)
        _looked_at(lambda: _check(self._connect_to(address)), address, label, "url")
        return address

    @staticmethod
    def _client_or_address(options: SessionOptions, name: str) -> Any:
        """Return what an option holds, if that can be a client or an address."""
        choice = getattr(options, name)
        if isinstance(choice, str):
            return choice.strip()
        label = options.label(name)
        if not callable(getattr(choice, "execute_command", None)):
            raise _no_address(label, f"a client of redis-py's would do, and this is a {type(choice).__name__}", name)
        for login in ("username", "password"):
            if getattr(options, login) is not None:
                _warn(f"{options.label(login)} is ignored: {label} is a client, which has its own")
        return choice

    def _connect(self) -> Any:
        return self._connect_to(self._address)

    def _connect_to(self, address: str) -> Any:
        """Return a client, which has not connected yet."""
        sentinel = _SENTINEL.fullmatch(address)
        if sentinel:
            return _master(sentinel, self._timeout, self._login)
        # Left to itself, redis-py may repeat a refused connection for seconds.
        return _redis.Redis.from_url(address, **self._login, retry=Retry(NoBackoff(), 0), **_bounded(self._timeout))


class RedisClusterStore(RedisStore):
    """Beaker's ``ext:rediscluster``; ``urls`` are addresses, with commas between them, or a client.

    A user name and a password are taken from the first address, else from ``username`` and ``password``.

    Args:
        options: the option table.

    Raises:
        SettingsError: one of the addresses is none.
    """

    kind = "ext:rediscluster"
    _rights = f"CLUSTER SLOTS, COMMAND, {_RIGHTS}"

    def _checked_address(self, options: SessionOptions) -> Any:
        addresses = self._client_or_address(options, "urls")
        label = options.label("urls")
        if isinstance(addresses, str):
            parsed = [_parsed(address.strip(), label, "urls") for address in addresses.split(",")]
            if any(found.get("db") for found in parsed):
                raise _no_address(label, "a cluster has database 0 alone", "urls")
            self._login = _login(options, "urls", parsed[0])
            first = addresses.split(",")[0].strip()
            _looked_at(lambda: self._check_cluster(first, label), addresses, label, "urls")
        return addresses

    def _check_cluster(self, address: str, label: str) -> None:
        try:
            # Not by a cluster's client, which connects at once.
            _check(_redis.Redis.from_url(address, **self._login))
        except TypeError as error:
            unknown = _UNKNOWN_OPTION.search(str(error))
            if unknown is None:
                raise
            # A cluster's client leaves it out, and Beaker looks at host and port alone.
            _warn(f"{label}: redis-py has no option {unknown[1]}; it is ignored")

    def _start(self) -> None:
        super()._start()
        self._pauses: dict[str, Pause] = {}

    def _pause_of(self, key: str) -> Pause:
        """Return the pause of the node that has a key; while one shard fails over the others serve."""
        client = self._client
        nodes = client and client.nodes_manager.slots_cache.get(client.keyslot(key))
        if not nodes:
            return self._pause
        name = nodes[0].name
        return self._pauses.get(name) or self._pauses.setdefault(name, self._new_pause())

    def _transact(self, key: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return super()._transact(key, arguments)
        except SessionStoreError as error:
            if not isinstance(error.original, MovedError):
                raise
        # The client follows the slot, and remembers its node.
        self._execute(("GET", key))
        return super()._transact(key, arguments)

    def _pool_of(self, key: str) -> Any:
        # Of redis-py's own transactions in a cluster (since 6.1), one whose connection broke goes on without its WATCH.
        client = self._connected()
        node = client.nodes_manager.get_node_from_slot(client.keyslot(key))
        return client.get_redis_connection(node).connection_pool

    def _drop_idle(self) -> None:
        # The client itself does this for the node that failed.
        return

    def _connect(self) -> Any:
        first, *others = [address.strip() for address in self._address.split(",")]
        nodes = [{**_DEFAULTS, **_redis.connection.parse_url(address)} for address in others]
        return _redis.RedisCluster.from_url(
            first,
            # An address's own user name and password win over these.
            **self._login,
            startup_nodes=[_redis.cluster.ClusterNode(node["host"], node["port"]) for node in nodes],
            # One more try: a slot that a failover has moved to another node is known only then.
            retry=Retry(NoBackoff(), 1),
            **_bounded(self._timeout / 2),
        )


def _open_pool(client: Any) -> Any:
    """Return the connections of a client of our own; nothing where its commands have to go through itself.

    That is where a cluster decides on the node, and where somebody has put a tracer around its method.
    """
    method = getattr_static(type(client), "execute_command", None)
    is_redis_pys = isinstance(method, FunctionType) and method.__code__.co_filename == _redis.client.__file__
    pool = getattr(client, "connection_pool", None)
    # redis-py before 5.3 asks for the command's name there.
    return pool if is_redis_pys and pool is not None and _takes_nothing(pool.get_connection) else None


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        signature(function).bind()
    except TypeError:
        return False
    return True


def _lacks_right(error: BaseException | None) -> bool:
    """Say whether a command was refused because the user may not run it, or the server does not have it."""
    text = str(error)
    return type(error) in _REFUSALS and bool(_NOT_ALLOWED.search(text) or _IN_SCRIPT.search(text))


def _refused_at_the_start(error: Exception) -> ResponseError | None:
    """Return what a node of a cluster refused when redis-py looked for the others; it hides that behind two errors."""
    other = error.__cause__ if isinstance(error, RedisClusterException) else None
    refusal = other.__context__ if isinstance(other, RedisClusterException) else None
    return refusal if isinstance(refusal, ResponseError) else None


def _answer(pool: Any, command: tuple[Any, ...]) -> Any:
    """Send a command, and return its answer, undecoded: what the client does, which has no retries, without its steps.

    They take a tenth of the round trip. A connection that fails closes itself.
    """
    connection = pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)
    finally:
        pool.release(connection)


def _compare_and_set(pool: Any, key: str, old: bytes, new: bytes, milliseconds: Any) -> Any:
    """Do what the script does, by WATCH, MULTI and EXEC."""
    expiry = () if milliseconds == "" else ("PX", milliseconds)
    write = ("SET", key, new, *expiry) if new else ("DEL", key)
    with _connection_of(pool) as connection:
        while True:
            found = _answers(connection, ("WATCH", key), ("GET", key))[1] or b""
            if found not in (old, new):
                _answers(connection, ("UNWATCH",))
                return found
            outcome = _answers(connection, ("MULTI",), write, ("EXEC",))[2]
            # None where somebody else has written meanwhile: look at that.
            if outcome is not None:
                _raise_if_failed(outcome[0])
                return 1


@contextmanager
def _connection_of(pool: Any) -> Iterator[Any]:
    """Lend a connection; closed after a failure: it may be watching a key, and have answers that nobody has read."""
    # redis-py before 5.3 asks for the command's name there.
    connection = pool.get_connection() if _takes_nothing(pool.get_connection) else pool.get_connection("WATCH")
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _raise_if_failed(answer: Any) -> None:
    """Raise the error that a transaction's command ended with: EXEC itself does not fail for it."""
    if isinstance(answer, Exception):
        raise answer


def _answers(connection: Any, *commands: tuple[Any, ...]) -> list[Any]:
    """Send some commands at once, and return their answers, undecoded."""
    connection.send_packed_command(connection.pack_commands(commands))
    return [connection.read_response(disable_decoding=True) for _ in commands]


_DEFAULTS = {"host": "localhost", "port": 6379}


def _bounded(timeout: float) -> dict[str, float]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


# -- The address at the start ------------------------------------------------------------------------


def _parsed(address: str, label: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = _looked_at(lambda: _redis.connection.parse_url(address), address, label, name)
    if _is_cut(address):
        raise _no_address(label, _UNREADABLE, name)
    if found.get("db", 0) < 0:
        raise _no_address(label, "a database's number is 0 or more", name)
    if address.startswith("unix:") and "path" not in found:
        raise _no_address(label, "a socket has a path, as in unix:///run/redis.sock", name)
    return found


def _is_cut(address: str) -> bool:
    """Say whether redis-py takes a part of a password for the host, and what is left of it for nothing."""
    parts = urlsplit(address)
    is_unix = parts.scheme == "unix"
    unread = [parts.fragment, *(pair for pair in parts.query.split("&") if "=" not in pair)]
    if not is_unix:
        unread.append(parts.path)
    return any("@" in part for part in unread) or bool(is_unix and parts.netloc.rpartition("@")[2])


def _looked_at(step: Callable[[], T], address: str, label: str, name: str) -> T:
    """Return what a step returns that looks at an address; what redis-py raises becomes an error without a password."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 -- redis-py raises what an argument happens to lead to
        text = str(error)
    unknown = _UNKNOWN_OPTION.search(text)
    reason = f"redis-py has no option {unknown[1]}" if unknown else text
    if not (unknown or text.startswith(_SAYABLE)) or "@" in address.partition("?")[2]:
        reason = _UNREADABLE
    # Outside of the except block: the context, too, may quote the password.
    raise _no_address(label, reason, name)


def _no_address(label: str, reason: str, name: str) -> SettingsError:
    # The address itself stays untold: there may be a password in it.
    return SettingsError(f"{label} must be the address of a Redis: {reason}", name=name)


def _check(client: Any) -> None:
    """Make a connection that does not connect, and a command that is not sent: both look at the arguments."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs).pack_command("GET", "key")


def _login(options: SessionOptions, name: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Return the user name and the password of the options, as far as the address names none."""
    login = {}
    for part in ("username", "password"):
        given = getattr(options, part)
        if given is not None and found.get(part) in (None, ""):
            login[part] = given
        elif given is not None and found[part] != given:
            _warn(f"{options.label(part)} is ignored: {options.label(name)} holds another one")
    return login


def _sentinels_login(address: str, label: str) -> dict[str, str]:
    """Return the user name and the password in the address of sentinels, as far as there are any."""
    found = _SENTINEL.fullmatch(address)
    if found is None or any(int(host.rsplit(":", 1)[1]) > MAX_PORT for host in found["hosts"].split(",")):
        raise _no_address(label, f"that of sentinels has the form {_SENTINEL_FORM}", "url")
    return {name: unquote(found[name]) for name in ("username", "password") if found[name]}


def _warn(message: str) -> None:
    log_once(log, logging.WARNING, message)


def _master(address: re.Match[str], timeout: float, login: Mapping[str, str]) -> Any:
    """Return a client that asks the sentinels for the master whenever it connects."""
    hosts = [host.rsplit(":", 1) for host in address["hosts"].split(",")]
    in_address = {name: unquote(address[name]) for name in ("username", "password") if address[name]}
    sentinel = _redis.sentinel.Sentinel(
        [(host, int(port)) for host, port in hosts],
        # They are asked one after the other; all of them together may cost the timeout.
        sentinel_kwargs={"retry": Retry(NoBackoff(), 0), **_bounded(timeout / len(hosts))},
        retry=Retry(NoBackoff(), 0),
        db=int(address["db"] or 0),
        **in_address,
        **login,
        **_bounded(timeout),
    )
    return sentinel.master_for(address["service"])
