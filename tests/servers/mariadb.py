"""A private MariaDB."""

from __future__ import annotations

import getpass
import socket
import subprocess
from pathlib import Path

import pymysql

from tests.servers import PATIENCE, Server, find

PACKAGE = "mariadb-server"


class MariaDB(Server):
    """One MariaDB on a Unix socket, which forgets everything when it is stopped.

    Args:
        folder: as :class:`Server`'s.
    """

    program = "mariadbd"
    package = PACKAGE
    not_yet = (pymysql.OperationalError,)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._install = find("mariadb-install-db", PACKAGE)
        self._words = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={folder}/data"]
        self.socket = f"{folder}/socket"

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@localhost/test?charset=utf8mb4&unix_socket={self.socket}"

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
        ]

    def connect(self) -> None:
        # PyMySQL leaves a socket behind that it could not connect.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.socket)
        self.client().close()

    def client(self) -> pymysql.Connection:
        """Return a connection for the test itself, each statement of which is a transaction."""
        return pymysql.connect(unix_socket=self.socket, user="root", database="test", autocommit=True)
