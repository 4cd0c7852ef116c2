"""Sessions in Redis and in a Redis Cluster, under Beaker's keys."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable
from inspect import getattr_static, signature
from types import FunctionType
from typing import Any, NamedTuple
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry

from beaker_bridge.codec import PickledEnvelope
from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.settings import SessionOptions
from beaker_bridge.stores.base import Record, Swap, unreachable
from beaker_bridge.stores.servers import AwayError, BrokenError, Pause, ServerStore

#: redis-py, without its types: some of what is used here has none.
_redis: Any = redis


#: What says that the server, or the node that has a key, cannot be reached.
_AWAY = (_redis.ConnectionError, _redis.TimeoutError, ClusterDownError, RedisClusterException, OSError)
#: redis-py before 7 has a plain ConnectionError for this.
_POOL_IS_FULL: Any = getattr(_redis.exceptions, "MaxConnectionsError", ())


class _Script(NamedTuple):
    """A Lua script, and the digest by which Redis knows it once it was sent."""

    text: bytes
    digest: str

    @classmethod
    def of(cls, text: bytes) -> _Script:
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


_SENTINEL_SCHEME = "redis+sentinel:"
#: ``redis+sentinel://name:password@host:port,host:port/service/db``, which redis-py does not know.
_SENTINEL = re.compile(
    r"redis\+sentinel://(?:(?P<username>[^:@/]*):(?P<password>[^@/]*)@)?"
    r"(?P<hosts>[^:@/,]+:[0-9]+(?:,[^:@/,]+:[0-9]+)*)/(?P<service>[^/?]+)(?:/(?P<db>[0-9]+))?"
)

# An empty text stands for no record: none is empty. To write again what stands there already does no
# harm, and gives it the expiry that was asked for.
_SWAP = _Script.of(b"""
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] and found ~= ARGV[2] then return found end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
elseif ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
""")
_RELEASE = _Script.of(b"""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")


class RedisStore(ServerStore):
    """Beaker's ``ext:redis``; ``url`` is an address, or in Python a client that the application has.

    A client that is given keeps its own timeouts and retries: ``store_timeout`` bounds only ours.

    Args:
        options: the option table.

    Raises:
        SettingsError: the address is none.
    """

    kind = "ext:redis"
    envelope = PickledEnvelope

    def __init__(self, options: SessionOptions) -> None:
        super().__init__()
        self._timeout = options.store_timeout
        self._client: Any = None
        #: The connections of a client of our own, where nobody watches what goes through the client itself.
        self._pool: Any = None
        self._connecting = threading.Lock()
        self._address = self._checked_address(options)
        if not isinstance(self._address, str):
            self._client = self._address

    # -- The contract --------------------------------------------------------------------------------

    def read(self, session_id: str) -> Record | None:
        key = _key(session_id)
        raw = self._call(key, "GET", key)
        return None if raw is None else Record(raw)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        milliseconds = "" if expires_in is None else max(1, int(expires_in * 1000))
        found = self._run(_SWAP, _key(session_id), record.raw if record else b"", new or b"", milliseconds)
        made = isinstance(found, int)
        stands = new if made else found
        return Swap(made, Record(stands) if stands else None)

    def close(self) -> None:
        if isinstance(self._address, str) and self._client is not None:
            client, self._client, self._pool = self._client, None, None
            client.close()

    def forget(self) -> None:
        super().forget()
        # The client's pools see a fork themselves.
        self._connecting = threading.Lock()

    # -- How -----------------------------------------------------------------------------------------

    def _take_lease(self, session_id: str, lasts: float) -> bytes | None:
        lease = secrets.token_hex(16).encode("ascii")
        key = _lock(session_id)
        made = self._call(key, "SET", key, lease, "NX", "PX", int(lasts * 1000))
        return lease if made else None

    def _end_lease(self, session_id: str, lease: bytes) -> None:
        self._run(_RELEASE, _lock(session_id), lease)

    def _run(self, script: _Script, key: str, *arguments: Any) -> Any:
        try:
            return self._call(key, "EVALSHA", script.digest, 1, key, *arguments)
        except NoScriptError:
            # A server that was restarted, or told to forget its scripts.
            return self._call(key, "EVAL", script.text, 1, key, *arguments)

    def _call(self, key: str, *command: Any) -> Any:
        return self._pause_of(key).ask(self._execute, command)

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
            error_class = self._class_of(error)
            if error_class is not SessionStoreError:
                self._drop_idle()
            raise unreachable(self.kind, error, error_class) from error

    def _class_of(self, error: Exception) -> type[SessionStoreError]:
        """Return what an error says about the server: it is away, a connection broke, or it refused one command."""
        # Of redis-py's own pool being full, the server knows nothing.
        if not isinstance(error, _AWAY) or isinstance(error, _POOL_IS_FULL):
            return SessionStoreError
        # Behind sentinels a new connection may lead to another master than the one that hangs.
        broken = type(error) is _redis.ConnectionError or (
            self._has_sentinels and isinstance(error, _redis.TimeoutError)
        )
        return BrokenError if broken else AwayError

    @property
    def _has_sentinels(self) -> bool:
        return isinstance(self._address, str) and self._address.startswith(_SENTINEL_SCHEME)

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
        address = options.url
        if isinstance(address, str) and not _SENTINEL.fullmatch(address):
            _parsed(address, "url")
        return address

    def _connect(self) -> Any:
        sentinel = _SENTINEL.fullmatch(self._address)
        if sentinel:
            return _master(sentinel, self._timeout)
        # Left to itself, redis-py may repeat a refused connection for seconds.
        return _redis.Redis.from_url(self._address, retry=Retry(NoBackoff(), 0), **_bounded(self._timeout))


class RedisClusterStore(RedisStore):
    """Beaker's ``ext:rediscluster``; ``urls`` are addresses, with commas between them, or a client.

    A user name and a password are taken from the first address, else from ``username`` and ``password``.

    Args:
        options: the option table.

    Raises:
        SettingsError: one of the addresses is none.
    """

    kind = "ext:rediscluster"

    def _checked_address(self, options: SessionOptions) -> Any:
        addresses = options.urls
        if isinstance(addresses, str):
            for address in addresses.split(","):
                _parsed(address.strip(), "urls")
        login = {"username": options.username, "password": options.password}
        self._login = {name: value for name, value in login.items() if value}
        return addresses

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
        return self._pauses.get(name) or self._pauses.setdefault(name, Pause())

    def _drop_idle(self) -> None:
        # The client itself does this for the node that failed.
        return

    def _connect(self) -> Any:
        first, *others = [address.strip() for address in self._address.split(",")]
        nodes = [_parsed(address, "urls") for address in others]
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


def _key(session_id: str) -> str:
    # Beaker's.
    return f"beaker_cache:{session_id}:session"


def _lock(session_id: str) -> str:
    # Not Beaker's: its lock on a session is for as long as a cached value is made.
    return f"beaker_bridge_lock:{session_id}"


def _bounded(timeout: float) -> dict[str, float]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


def _parsed(address: str, option: str) -> dict[str, Any]:
    try:
        return {"host": "localhost", "port": 6379, **_redis.connection.parse_url(address)}
    except ValueError as error:
        # The address itself stays untold: there may be a password in it.
        raise SettingsError(f"{option} must be the address of a Redis: {error}", name=option) from error


def _master(address: re.Match[str], timeout: float) -> Any:
    """Return a client that asks the sentinels for the master whenever it connects."""
    hosts = [host.rsplit(":", 1) for host in address["hosts"].split(",")]
    login = {name: unquote(address[name]) for name in ("username", "password") if address[name]}
    sentinel = _redis.sentinel.Sentinel(
        [(host, int(port)) for host, port in hosts],
        # They are asked one after the other; all of them together may cost the timeout.
        sentinel_kwargs={"retry": Retry(NoBackoff(), 0), **_bounded(timeout / len(hosts))},
        retry=Retry(NoBackoff(), 0),
        db=int(address["db"] or 0),
        **login,
        **_bounded(timeout),
    )
    return sentinel.master_for(address["service"])
