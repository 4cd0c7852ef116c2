"""A small client for memcached: compare and set, in its text protocol.

Beaker's clients will not do. python-memcached has compare-and-set disabled, so that a stale one succeeds; it unpickles
what it reads; and it takes a dead server for an absent key.
"""

from __future__ import annotations

import math
import re
import socket
import time
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from beaker_bridge.stores._forks import PerProcess

T = TypeVar("T")

#: The default port.
PORT = 11211
MAX_PORT = 0xFFFF
#: python-memcached's flags: the value is a text; the value is compressed.
TEXT = 16
COMPRESSED = 8
#: A compressed value that is larger than this, in bytes, would be a bomb.
MAX_SIZE = 16 * 1024 * 1024
#: The limit of a relative expiry, in seconds: memcached takes a larger one for a date.
MONTH = 60 * 60 * 24 * 30
#: The limit of a date, in seconds since the epoch.
LAST_TIME = 0x7FFFFFFF
#: The time that an operation may take beyond its timeout, in seconds.
SLACK = 0.02
#: The expiry of an item that is gone at once.
AT_ONCE = -1

#: The answers to a write: made, not made, or not made and the key is absent.
_ADD = {b"STORED": True, b"NOT_STORED": False}
_CAS = {b"STORED": True, b"EXISTS": False, b"NOT_FOUND": None}
_ERRORS = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")
_LINE_END = b"\r\n"
_CHUNK = 65536
#: The forms of an address, as python-memcached has them.
_UNIX = re.compile(r"unix:(?P<path>.+)")
_INET6 = re.compile(r"inet6:\[(?P<host>[^\[\]]+)\](:(?P<port>[0-9]+))?")
_INET = re.compile(r"(inet:)?(?P<host>[^:/@\s]+)(:(?P<port>[0-9]+))?")
#: The line before a value: its key, its flags, its size and its token.
_VALUE = re.compile(rb"VALUE (\S+) (\d+) (\d+) (\d+)")


class MemcachedError(Exception):
    """The server refused a command, or its answer cannot be read."""


class RefusedError(MemcachedError):
    """The server answered a command by an error."""


class TooLargeError(RefusedError):
    """The server holds no item of that size."""


class Value(NamedTuple):
    """A value, and the token by which the server recognises it."""

    content: bytes
    token: bytes


class _Answer(NamedTuple):
    """A line; if it announces a value, also the value and its key."""

    line: bytes
    key: bytes = b""
    value: Value | None = None


class MemcachedServer:
    """One server, and the connections to it.

    Args:
        address: ``host``, ``host:port``, ``inet:host:port``, ``inet6:[host]:port`` or ``unix:path``.
        timeout: the longest time of one operation, connecting included, in seconds; ``SLACK`` may be added.

    Each operation raises ``OSError`` if the server cannot be reached, and :class:`MemcachedError` if it refuses. An
    operation repeats itself on a new connection if the server has closed an idle one, so it may happen twice: an
    ``add`` or ``cas`` that was not made may find its own value.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.name = address
        self._family, self._address = _parsed(address)
        self._timeout = timeout
        #: The idle connections. The last one returned is the first one taken, so that few are kept busy.
        self._idle: PerProcess[deque[_Connection]] = PerProcess(deque)

    def gets(self, key: str) -> Value | None:
        """Return the value of a key, or None."""
        answer = self._ask(f"gets {key}\r\n".encode("ascii"))
        if answer.line == b"END":
            return None
        # Compare the key: never return the session of another one.
        if answer.key != key.encode("ascii"):
            raise _strange(answer.line)
        return answer.value

    def add(self, key: str, content: bytes, expires: int) -> bool:
        """Insert a value; return False if there is one already."""
        return self._store(f"add {key} {TEXT} {expires} {len(content)}", content, _ADD)

    def cas(self, key: str, content: bytes, expires: int, token: bytes) -> bool | None:
        """Replace a value that still has its token; return False if it has another one, None if it is absent."""
        command = f"cas {key} {TEXT} {expires} {len(content)} {token.decode('ascii')}"
        return self._store(command, content, _CAS)

    def close(self) -> None:
        """Close the idle connections; a later operation opens new ones."""
        while connection := self._taken():
            connection.close()

    def _store(self, command: str, content: bytes, answers: Mapping[bytes, T]) -> T:
        line = self._ask(b"%b\r\n%b\r\n" % (command.encode("ascii"), content)).line
        if line in answers:
            return answers[line]
        if line.startswith(b"SERVER_ERROR object too large"):
            raise TooLargeError(line.decode("ascii"))
        raise _strange(line)

    def _ask(self, request: bytes) -> _Answer:
        deadline = time.monotonic() + self._timeout
        connection = self._taken()
        if connection is not None:
            try:
                return self._finish(connection, request, deadline)
            except ConnectionError:
                if connection.answered:
                    raise
                # Try a new one: the server has closed an idle connection (a restart, an idle timeout).
        return self._finish(_Connection(self._family, self._address, deadline), request, deadline)

    def _taken(self) -> _Connection | None:
        try:
            return self._idle.get().pop()
        except IndexError:
            return None

    def _finish(self, connection: _Connection, request: bytes, deadline: float) -> _Answer:
        try:
            answer = connection.ask(request, deadline)
        except BaseException:
            connection.close()
            raise
        # Close it after an error: the server may read on in the middle of our request.
        if answer.line.startswith(_ERRORS):
            connection.close()
        else:
            self._idle.get().append(connection)
        return answer


class _Connection:
    """One connection, for one request at a time; closed after a failure, and when it is garbage."""

    def __init__(self, family: int, address: Any, deadline: float) -> None:
        self._buffer = bytearray()
        #: The timeout of the socket, in seconds.
        self._patience = -1.0
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._limit(deadline)
            self._socket.connect(address)
            if isinstance(address, tuple):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def answered(self) -> bool:
        """Whether a part of an answer was received."""
        return bool(self._buffer)

    def ask(self, request: bytes, deadline: float) -> _Answer:
        """Send a request, and return the whole answer to it."""
        self._limit(deadline)
        self._socket.sendall(request)
        self._receive(1, deadline)
        line = self._line(0, deadline)
        end = len(line) + 2
        if announced := _VALUE.fullmatch(line):
            key, flags, size, token = announced.groups()
            content, end = self._content(end, int(size), deadline)
            answer = _Answer(line, key, Value(_expanded(content) if int(flags) & COMPRESSED else content, token))
        else:
            answer = _Answer(line)
        if len(self._buffer) != end:
            raise _strange(bytes(self._buffer[end:]))
        self._buffer.clear()
        return answer

    def _content(self, start: int, size: int, deadline: float) -> tuple[bytes, int]:
        """Return a value's bytes, and the end of the answer."""
        self._receive(start + size + 2, deadline)
        last = self._line(start + size + 2, deadline)
        if last != b"END":
            raise _strange(last)
        return bytes(self._buffer[start : start + size]), start + size + 2 + len(last) + 2

    def _line(self, start: int, deadline: float) -> bytes:
        while (end := self._buffer.find(_LINE_END, start)) < 0:
            self._receive(len(self._buffer) + 1, deadline)
        return bytes(self._buffer[start:end])

    def _receive(self, size: int, deadline: float) -> None:
        """Receive until the buffer has that size."""
        while len(self._buffer) < size:
            self._limit(deadline)
            chunk = self._socket.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += chunk

    def _limit(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        # Set it only if it differs by more than a few milliseconds: each time is a system call.
        if not left <= self._patience <= left + SLACK:
            self._socket.settimeout(left)
            self._patience = left


def server_of(servers: Sequence[MemcachedServer], key: str) -> MemcachedServer:
    """Return the server of a key, as python-memcached places it; never another one while that is dead."""
    return servers[((zlib.crc32(key.encode("ascii")) >> 16) & 0x7FFF) % len(servers)]


def expiry(seconds: float | None) -> int:
    """Return memcached's number for an expiry in seconds; None is never."""
    if seconds is None:
        return 0
    whole = max(1, math.ceil(seconds))
    if whole <= MONTH:
        return whole
    # Take a date beyond the limit for never.
    ends = int(time.time()) + whole
    return ends if ends <= LAST_TIME else 0


def _parsed(address: str) -> tuple[int, Any]:
    if found := _UNIX.fullmatch(address):
        return socket.AF_UNIX, found["path"]
    if found := _INET6.fullmatch(address):
        return socket.AF_INET6, (found["host"], _port(found["port"]))
    if found := _INET.fullmatch(address):
        return socket.AF_INET, (found["host"], _port(found["port"]))
    raise ValueError(address)


def _port(text: str | None) -> int:
    port = int(text or PORT)
    if port > MAX_PORT:
        raise ValueError(text)
    return port


def _strange(line: bytes) -> MemcachedError:
    # Show the line only if it is an error of the server: it may be the data of a session.
    word = line.partition(b" ")[0]
    if b"ERROR" in word:
        return RefusedError(line.decode("latin-1"))
    return MemcachedError(f"an answer of {len(line)} bytes is none")


def _expanded(content: bytes) -> bytes:
    """Return the value that another client has compressed, or the bytes as they are."""
    try:
        return zlib.decompressobj().decompress(content, MAX_SIZE)
    except zlib.error:
        return content
