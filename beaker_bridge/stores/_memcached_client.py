"""A small client for memcached: compare and set, in its text protocol.

Beaker's clients will not do: python-memcached has compare-and-set switched off, so that a stale one
says yes; it unpickles what it is given; and a dead server reads as 'absent' there.
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

T = TypeVar("T")

#: memcached's port.
PORT = 11211
MAX_PORT = 0xFFFF
#: python-memcached's flags: the value is a text; the value is compressed.
TEXT = 16
COMPRESSED = 8
#: A compressed value that is larger than this, in bytes, would be a bomb.
MAX_SIZE = 16 * 1024 * 1024
#: memcached takes an expiry above this, in seconds, for a date.
MONTH = 60 * 60 * 24 * 30
#: The last time that memcached reads, in seconds since the epoch.
LAST_TIME = 0x7FFFFFFF
#: What an operation may take beyond its timeout, in seconds.
SLACK = 0.02
#: The expiry that memcached takes for: at once.
AT_ONCE = -1

#: What the server answers to a write, and what it means.
_ADD = {b"STORED": True, b"NOT_STORED": False}
_CAS = {b"STORED": True, b"EXISTS": False, b"NOT_FOUND": None}
_ERRORS = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")
_LINE_END = b"\r\n"
_CHUNK = 65536
#: The forms of an address that python-memcached knows.
_UNIX = re.compile(r"unix:(?P<path>.+)")
_INET6 = re.compile(r"inet6:\[(?P<host>[^\[\]]+)\](:(?P<port>[0-9]+))?")
_INET = re.compile(r"(inet:)?(?P<host>[^:/@\s]+)(:(?P<port>[0-9]+))?")
#: The line before a value: its key, its flags, its size and its token.
_VALUE = re.compile(rb"VALUE (\S+) (\d+) (\d+) (\d+)")


class MemcachedError(Exception):
    """The server refused a command, or answered what is no answer."""


class TooLargeError(MemcachedError):
    """The server holds no item of that size."""


class Value(NamedTuple):
    """A value, and the number by which the server knows it again."""

    content: bytes
    token: bytes


class _Answer(NamedTuple):
    """A line; where it announces a value, the value and its key."""

    line: bytes
    key: bytes = b""
    value: Value | None = None


class MemcachedServer:
    """One server, and the connections to it.

    Args:
        address: ``host``, ``host:port``, ``inet:host:port``, ``inet6:[host]:port`` or ``unix:path``.
        timeout: the longest that one operation may take, connecting included, in seconds; but for ``SLACK``.

    Each operation raises ``OSError`` where the server cannot be reached, and :class:`MemcachedError`
    where it refuses. An operation may be repeated by itself on a new connection, so it may happen
    twice: an ``add`` or ``cas`` that was not made may find its own value there.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._family, self._address = _parsed(address)
        self._timeout = timeout
        # The last one returned is the first one taken: few are kept busy, and take turns.
        self._idle: deque[_Connection] = deque()

    def gets(self, key: str) -> Value | None:
        """Return the value of a key, or nothing."""
        answer = self._ask(f"gets {key}\r\n".encode("ascii"))
        if answer.line == b"END":
            return None
        # The key is compared, too: never another one's session.
        if answer.key != key.encode("ascii"):
            raise _strange(answer.line)
        return answer.value

    def add(self, key: str, content: bytes, expires: int) -> bool:
        """Insert a value; False where one stands already."""
        return self._store(f"add {key} {TEXT} {expires} {len(content)}", content, _ADD)

    def cas(self, key: str, content: bytes, expires: int, token: bytes) -> bool | None:
        """Replace a value that still has its token; False where another one stands, None where none does."""
        command = f"cas {key} {TEXT} {expires} {len(content)} {token.decode('ascii')}"
        return self._store(command, content, _CAS)

    def close(self) -> None:
        """Close the connections that nobody uses; a later operation opens new ones."""
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
                # The server has closed it while nobody used it (a restart, an idle timeout).
        return self._finish(_Connection(self._family, self._address, deadline), request, deadline)

    def _taken(self) -> _Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _finish(self, connection: _Connection, request: bytes, deadline: float) -> _Answer:
        try:
            answer = connection.ask(request, deadline)
        except BaseException:
            connection.close()
            raise
        # After an error the server may read on in the middle of what we have sent.
        if answer.line.startswith(_ERRORS):
            connection.close()
        else:
            self._idle.append(connection)
        return answer


class _Connection:
    """One connection: a request, an answer; closed after a failure, and when nobody holds it any more."""

    def __init__(self, family: int, address: Any, deadline: float) -> None:
        self._buffer = bytearray()
        #: What the socket is told to wait for at most, in seconds.
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
        """Whether a part of an answer has come."""
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
        """Return a value's bytes, and where the answer ends."""
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
        # Each time is a call of the system: for a few milliseconds it is not worth that.
        if not left <= self._patience <= left + SLACK:
            self._socket.settimeout(left)
            self._patience = left


def server_of(servers: Sequence[MemcachedServer], key: str) -> MemcachedServer:
    """Return the server on which python-memcached has a key; never another one where that is dead."""
    return servers[((zlib.crc32(key.encode("ascii")) >> 16) & 0x7FFF) % len(servers)]


def expiry(seconds: float | None) -> int:
    """Return what memcached is told for an expiry in seconds: nothing is never."""
    if seconds is None:
        return 0
    whole = max(1, math.ceil(seconds))
    if whole <= MONTH:
        return whole
    # A time that it cannot hold never comes.
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
    # The line may be somebody's data: only its first word is told, where the server complains.
    word = line.partition(b" ")[0]
    return MemcachedError(line.decode("latin-1") if b"ERROR" in word else f"an answer of {len(line)} bytes is none")


def _expanded(content: bytes) -> bytes:
    """Return the value that another client has compressed; the bytes as they are if it has not."""
    try:
        return zlib.decompressobj().decompress(content, MAX_SIZE)
    except zlib.error:
        return content
