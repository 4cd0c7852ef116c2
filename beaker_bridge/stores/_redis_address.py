"""Addresses of Redis, its clusters and its sentinels: checked at the start, without connecting."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.logs import log_once
from beaker_bridge.options.masking import numbered
from beaker_bridge.options.table import SessionOptions

T = TypeVar("T")

log = logging.getLogger(__name__)

#: redis-py, without its types: some of what we use has none.
_redis: Any = redis

MAX_PORT = 0xFFFF
_DEFAULTS = {"host": "localhost", "port": 6379}
#: ``redis+sentinel://name:password@host:port,host:port/service/db``, which redis-py does not know.
_SENTINEL = re.compile(
    r"redis\+sentinel://(?:(?P<username>[^:@/]*):(?P<password>[^@/]*)@)?"
    r"(?P<hosts>[^:@/,]+:[0-9]+(?:,[^:@/,]+:[0-9]+)*)/(?P<service>[^/?]+)(?:/(?P<db>[0-9]+))?"
)
_SENTINEL_SCHEME = "redis+sentinel:"
_SENTINEL_FORM = "redis+sentinel://name:password@host:port,host:port/service/database"
#: The message for an address that cannot be read; the part that could not be read may belong to a password.
_UNREADABLE = "it cannot be read (in a name or password, / ? # @ and : are written as %2F %3F %23 %40 and %3A)"
#: The beginnings of redis-py's messages that quote no part of an address which may belong to a password.
_SAFE_MESSAGES = (*("Redis URL must", "Invalid value for", "Port out of range", "protocol must", "Invalid SSL"),)
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")


# -- One server, or sentinels ------------------------------------------------------------------------


def check_address(address: str, options: SessionOptions) -> dict[str, str]:
    """Check the address of a server, or of sentinels.

    Args:
        address: the address.
        options: the option table; ``url`` holds the address.

    Returns:
        The user name and the password that the client needs beside the address.

    Raises:
        SettingsError: it is no such address.
    """
    label = options.label("url")
    if address.startswith(_SENTINEL_SCHEME):
        found: Mapping[str, Any] = _sentinels_login(address, label)
    else:
        found = _parsed(address, label, "url")
        if "host" in found and urlsplit(address).path.strip("/") and "db" not in found:
            _warn(f"{label}: the database behind the host is no number, so that is 0; write {label} = …/0")
    login = _login(options, "url", found)
    _translated(lambda: _check_client(client_of(address, login, options.store_timeout)), address, label, "url")
    return login


def client_of(address: str, login: Mapping[str, str], timeout: float) -> Any:
    """Return a client, which does not connect yet.

    Args:
        address: the address of a server, or of sentinels.
        login: the user name and the password that the address does not hold.
        timeout: the longest wait for the server, in seconds.
    """
    sentinel = _SENTINEL.fullmatch(address)
    if sentinel:
        return _master(sentinel, timeout, login)
    # Without this, redis-py may repeat a refused connection for seconds.
    return _redis.Redis.from_url(address, **login, retry=Retry(NoBackoff(), 0), **_bounded(timeout))


def _bounded(timeout: float) -> dict[str, float]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


def _master(address: re.Match[str], timeout: float, login: Mapping[str, str]) -> Any:
    """Return a client that asks the sentinels for the master whenever it connects."""
    hosts = [host.rsplit(":", 1) for host in address["hosts"].split(",")]
    in_address = {name: unquote(address[name]) for name in ("username", "password") if address[name]}
    sentinel = _redis.sentinel.Sentinel(
        [(host, int(port)) for host, port in hosts],
        # Share the timeout among the sentinels, which are asked one after the other.
        sentinel_kwargs={"retry": Retry(NoBackoff(), 0), **_bounded(timeout / len(hosts))},
        retry=Retry(NoBackoff(), 0),
        db=int(address["db"] or 0),
        **in_address,
        **login,
        **_bounded(timeout),
    )
    return sentinel.master_for(address["service"])


# -- A cluster ---------------------------------------------------------------------------------------


def check_addresses(address: str, options: SessionOptions) -> dict[str, str]:
    """Check the addresses of a cluster.

    Args:
        address: the addresses, with commas between them.
        options: the option table; ``urls`` holds the addresses.

    Returns:
        The user name and the password that the client needs beside the first address.

    Raises:
        SettingsError: one of them is no address.
    """
    label = options.label("urls")
    parsed = [_parsed(one.strip(), label, "urls") for one in address.split(",")]
    if any(found.get("db") for found in parsed):
        raise no_address(label, "a cluster has database 0 alone", "urls")
    login = _login(options, "urls", parsed[0])
    first = address.split(",", maxsplit=1)[0].strip()
    _translated(lambda: _check_cluster(first, label, login), address, label, "urls")
    return login


def cluster_of(address: str, login: Mapping[str, str], timeout: float) -> Any:
    """Return a client of a cluster, which connects at once; the arguments are those of :func:`client_of`."""
    first, *others = [one.strip() for one in address.split(",")]
    nodes = [{**_DEFAULTS, **_redis.connection.parse_url(other)} for other in others]
    return _redis.RedisCluster.from_url(
        first,
        # Let a user name and password in the address win over these.
        **login,
        startup_nodes=[_redis.cluster.ClusterNode(node["host"], node["port"]) for node in nodes],
        # Try once more: the client learns by it that a failover has moved a slot to another node.
        retry=Retry(NoBackoff(), 1),
        **_bounded(timeout / 2),
    )


def _check_cluster(address: str, label: str, login: Mapping[str, str]) -> None:
    try:
        # Check with the client of one server: a cluster's client connects at once.
        _check_client(_redis.Redis.from_url(address, **login))
    except TypeError as error:
        unknown = _UNKNOWN_OPTION.search(str(error))
        if unknown is None:
            raise
        # Warn only: a cluster's client drops the option, and Beaker reads nothing but host and port.
        _warn(f"{label}: {_no_option(address, unknown[1])}; it is ignored")


# -- What both check ---------------------------------------------------------------------------------


def client_or_address(options: SessionOptions, name: str) -> Any:
    """Return the client or the address that an option holds.

    Args:
        options: the option table.
        name: the name of the option.

    Raises:
        SettingsError: the option holds neither.
    """
    choice = getattr(options, name)
    if isinstance(choice, str):
        return choice.strip()
    label = options.label(name)
    if not callable(getattr(choice, "execute_command", None)):
        raise no_address(label, f"a client of redis-py's would do, and this is a {type(choice).__name__}", name)
    for login in ("username", "password"):
        if getattr(options, login) is not None:
            _warn(f"{options.label(login)} is ignored: {label} is a client, which has its own")
    return choice


def no_address(label: str, reason: str, name: str) -> SettingsError:
    """Return the error for an address that cannot be used.

    Args:
        label: the option as the user wrote it.
        reason: what is wrong. The address itself must not be in it: it may hold a password.
        name: the name of the option.
    """
    return SettingsError(f"{label} must be the address of a Redis: {reason}", name=name)


def _no_option(address: str, name: str) -> str:
    names = [given for given, _ in parse_qsl(urlsplit(address).query, keep_blank_values=True)]
    return f"redis-py has no such option: {numbered(names, [name])}"


def _parsed(address: str, label: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = _translated(lambda: _redis.connection.parse_url(address), address, label, name)
    if _is_cut(address):
        raise no_address(label, _UNREADABLE, name)
    if found.get("db", 0) < 0:
        raise no_address(label, "a database's number is 0 or more", name)
    if address.startswith("unix:") and "path" not in found:
        raise no_address(label, "a socket has a path, as in unix:///run/redis.sock", name)
    return found


def _is_cut(address: str) -> bool:
    """Say whether redis-py takes a part of a password for the host, and drops the rest of it."""
    parts = urlsplit(address)
    is_unix = parts.scheme == "unix"
    unread = [parts.fragment, *(pair for pair in parts.query.split("&") if "=" not in pair)]
    if not is_unix:
        unread.append(parts.path)
    return any("@" in part for part in unread) or bool(is_unix and parts.netloc.rpartition("@")[2])


def _translated(step: Callable[[], T], address: str, label: str, name: str) -> T:
    """Return the result of a step that parses an address; translate its errors to one that shows no password."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 -- redis-py raises what an argument happens to lead to
        text = str(error)
    unknown = _UNKNOWN_OPTION.search(text)
    # Leave out the value, which follows a colon.
    reason = _no_option(address, unknown[1]) if unknown else text.partition(": ")[0]
    if not (unknown or text.startswith(_SAFE_MESSAGES)) or "@" in address.partition("?")[2]:
        reason = _UNREADABLE
    # Raise outside of the except block: the error's context, too, may quote the password.
    raise no_address(label, reason, name)


def _check_client(client: Any) -> None:
    """Make a connection without connecting, and a command without sending it: both check their arguments."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs).pack_command("GET", "key")


def _login(options: SessionOptions, name: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Return the user name and the password of the options that the address does not hold."""
    login = {}
    for part in ("username", "password"):
        given = getattr(options, part)
        if given is not None and found.get(part) in (None, ""):
            login[part] = given
        elif given is not None and found[part] != given:
            _warn(f"{options.label(part)} is ignored: {options.label(name)} holds another one")
    return login


def _sentinels_login(address: str, label: str) -> dict[str, str]:
    """Return the user name and the password in the address of sentinels, if there are any."""
    found = _SENTINEL.fullmatch(address)
    if found is None or any(int(host.rsplit(":", 1)[1]) > MAX_PORT for host in found["hosts"].split(",")):
        raise no_address(label, f"that of sentinels has the form {_SENTINEL_FORM}", "url")
    return {name: unquote(found[name]) for name in ("username", "password") if found[name]}


def _warn(message: str) -> None:
    log_once(log, logging.WARNING, message)
