"""A private MariaDB."""

from __future__ import annotations

import getpass
import socket
import subprocess
from pathlib import Path

import pymysql

from tests import machine
from tests.servers import PATIENCE, Server


class MariaDB(Server):
    """One MariaDB on a Unix socket, which may lose its last second when it is killed.

    Args:
        folder: as :class:`Server`'s.
        options: further options of ``mariadbd``.
    """

    program = "mariadbd"
    not_yet = (pymysql.OperationalError,)

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._options = options
        self._install = machine.program("mariadb-install-db")
        self._words = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={folder}/data"]
        self.socket = f"{folder}/socket"

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@localhost/test?charset=utf8mb4&unix_socket={self.socket}"

    @property
    def address(self) -> str:
        """The address, as a socket takes it."""
        return self.socket

    def connections(self) -> int:
        """Return how many clients are connected, beside the one that asks."""
        with self.client() as client, client.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM information_schema.processlist WHERE user = 'root'")
            return cursor.fetchone()[0] - 1

    def prepare(self) -> None:
        subprocess.run(
            [self._install, *self._words, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )

    def command(self) -> list[str]:
        return [
            *(self.path, *self._words, "--skip-networking", f"--socket={self.socket}"),
            *("--pid-file=pid", "--max-connections=200"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--skip-log-bin"),
            *self._options,
        ]

    def connect(self) -> None:
        # PyMySQL leaves a socket behind that it could not connect.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.socket)
        self.client().close()

    def client(self) -> pymysql.Connection:
        """Return a connection for the test itself, each statement of which is a transaction."""
        return pymysql.connect(unix_socket=self.socket, user="root", database="test", autocommit=True)
