"""A private PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.servers import PATIENCE, MissingServerError, Server, find, free_port

PACKAGE = "postgresql"
#: PostgreSQL refuses to run as root: its package's user runs it then.
USER = "postgres"


class PostgreSQL(Server):
    """One PostgreSQL, which forgets everything when it is stopped.

    Args:
        folder: as :class:`Server`'s.
    """

    program = "postgres"
    package = PACKAGE
    not_yet = (psycopg.OperationalError,)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._initdb = find("initdb", PACKAGE)
        self.port = free_port()

    def __exit__(self, *exc_info) -> None:
        super().__exit__(*exc_info)
        shutil.rmtree(self._data)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        # Not in the tests' folder, which is closed to other users.
        self._data = Path(tempfile.mkdtemp(prefix="postgresql-"))
        if os.geteuid() == 0:
            shutil.chown(self._data, USER, USER)
        subprocess.run(
            [*self._rights(), self._initdb, "-D", self._data, "--auth=trust", "--no-sync", f"--username={USER}"],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            cwd=self._data,
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._rights(), self.path, "-D", str(self._data), *words]

    def connect(self) -> None:
        self.client().close()

    def client(self) -> psycopg.Connection:
        """Return a connection for the test itself, each statement of which is a transaction."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres", autocommit=True)

    def stop(self) -> None:
        # At once, whoever is connected; its SIGTERM would wait for them.
        self._end(signal.SIGINT)

    def _rights(self) -> list[str]:
        """Return the words that lay down root's rights."""
        if os.geteuid() != 0:
            return []
        try:
            user = pwd.getpwnam(USER)
        except KeyError:
            raise MissingServerError(f"the user {USER}", PACKAGE) from None
        setpriv = find("setpriv", "util-linux")
        return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
