"""A private memcached, on a port or on a Unix socket."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.servers import PATIENCE, Server, free_port


class Memcached(Server):
    """One memcached.

    Args:
        folder: as :class:`Server`'s.
        options: further options of ``memcached``.
    """

    program = "memcached"
    family = socket.AF_INET

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._options = options

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> Any:
        """The address, as a socket takes it."""
        return "127.0.0.1", self.port

    def command(self) -> list[str]:
        # Started by root, it wants to be told whose rights to keep; others cannot change theirs.
        return [self.path, "-u", "root", *self._place(), "-U", "0", *self._options]

    def connect(self) -> None:
        self.ask("version", "VERSION ")

    def stop(self) -> None:
        # It has nothing to save, and would take a second for it.
        self.kill()

    def ask(self, command: str, *last: str) -> str:
        """Return the answer to a command, whose last line begins with one of these words."""
        with socket.socket(self.family) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.address)
            connection.sendall(f"{command}\r\n".encode("latin-1"))
            with connection.makefile("r", encoding="latin-1", newline="\r\n") as lines:
                answer = ""
                for line in lines:
                    answer += line
                    if line.startswith(last):
                        break
        return answer

    def stats(self) -> dict[str, str]:
        """Return what the server counts."""
        lines = self.ask("stats", "END").splitlines()[:-1]
        return dict(line.split(" ", 2)[1:] for line in lines)

    def connections(self) -> int:
        """Return how many clients are connected, beside the one that asks."""
        return self.ask("stats conns", "END").count(":listen_addr ") - 1

    def left(self, key: str) -> int:
        """Return the seconds after which a key expires; -1: never."""
        return int(self.ask(f"mg {key} t", "HD t", "EN").removeprefix("HD t"))

    def _place(self) -> list[str]:
        return ["-l", "127.0.0.1", "-p", str(self.port)]


class MemcachedOnSocket(Memcached):
    """One memcached on a Unix socket."""

    family = socket.AF_UNIX

    @property
    def url(self) -> str:
        return f"unix:{self.address}"

    @property
    def address(self) -> Any:
        return f"{self.folder}/socket"

    def _place(self) -> list[str]:
        return ["-s", self.address]
