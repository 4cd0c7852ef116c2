"""The compare-and-set of Redis: a script, and a transaction for users who may not run scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import OutOfMemoryError

#: Replaces a value that still is the one that was read. An empty text stands for no value, since no record is empty.
#: Writes again what is there already: that does no harm, and sets the expiry that was asked for.
SCRIPT = b"""
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] and found ~= ARGV[2] then return found end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
elseif ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
#: The digest by which Redis knows the script once it was sent.
DIGEST = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
#: The commands of the transaction, for messages.
TRANSACTION = "WATCH, MULTI, EXEC"


def compare_and_set(pool: Any, key: str, old: bytes, new: bytes, milliseconds: Any) -> Any:
    """Do in a transaction what the script does: return 1, or the value that was found instead.

    Args:
        pool: the connections to the server that has the key.
        key: the key.
        old: the value that was read; empty for none.
        new: the value to write; empty to delete the key.
        milliseconds: the time after which the value expires; empty for never.
    """
    expiry = () if milliseconds == "" else ("PX", milliseconds)
    write = ("SET", key, new, *expiry) if new else ("DEL", key)
    with _connection_of(pool) as connection:
        while True:
            found = _answers(connection, ("WATCH", key), ("GET", key))[1] or b""
            if found not in (old, new):
                _answers(connection, ("UNWATCH",))
                return found
            try:
                outcome = _answers(connection, ("MULTI",), write, ("EXEC",))[2]
            except OutOfMemoryError:
                if new:
                    raise
                break
            # None after a write of another client: look at that.
            if outcome is not None:
                _raise_if_failed(outcome[0])
                return 1
        # Over its maxmemory Redis queues no command of a transaction. Delete without one: nobody can write meanwhile.
        connection.disconnect()
        _answers(connection, ("DEL", key))
        return 1


@contextmanager
def _connection_of(pool: Any) -> Iterator[Any]:
    """Lend a connection, and close it after a failure: it may watch a key, or have answers that were not read.

    Do not use redis-py's own transactions: in a cluster (since 6.1), one whose connection broke goes on without its
    WATCH.
    """
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _answers(connection: Any, *commands: tuple[Any, ...]) -> list[Any]:
    """Send some commands at once, and return their answers, undecoded."""
    connection.send_packed_command(connection.pack_commands(commands))
    return [connection.read_response(disable_decoding=True) for _ in commands]


def _raise_if_failed(answer: Any) -> None:
    """Raise the error of a command in a transaction: EXEC itself does not fail for it."""
    if isinstance(answer, Exception):
        raise answer
