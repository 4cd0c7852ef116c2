"""A private pgbouncer before a PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import psycopg

from tests import machine
from tests.servers import Server, free_port
from tests.servers.postgresql import USER


class PgBouncer(Server):
    """One pgbouncer that lends a connection for a transaction, and has few: what one client leaves on it, others find.

    Args:
        folder: as :class:`Server`'s.
        port: PostgreSQL's.
        connections: how many connections to PostgreSQL it has.
    """

    program = "pgbouncer"
    not_yet = (psycopg.OperationalError,)

    def __init__(self, folder: Path, port: int, connections: int = 1) -> None:
        super().__init__(folder)
        # It refuses to run as root, as PostgreSQL does.
        self._rights = machine.rights_of(USER)
        self._postgresql = port
        self._connections = connections
        self.port = free_port()

    def __exit__(self, *exc_info) -> None:
        super().__exit__(*exc_info)
        shutil.rmtree(self._place)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        # Not in the tests' folder, which is closed to other users.
        self._place = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._place.chmod(0o755)
        (self._place / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._postgresql} user={USER}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._connections}\n",
            encoding="ascii",
        )

    def command(self) -> list[str]:
        return [*self._rights, self.path, str(self._place / "pgbouncer.ini")]

    def connect(self) -> None:
        with psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=2):
            pass
