"""A private PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psycopg

from tests import machine
from tests.servers import PATIENCE, Server, free_port, wait_until

#: PostgreSQL refuses to run as root: its package's user runs it then.
USER = "postgres"


class PostgreSQL(Server):
    """One PostgreSQL, which may lose its last writes when it is killed.

    Args:
        folder: as :class:`Server`'s.
        settings: other settings, each ``name=value``.
    """

    program = "postgres"
    not_yet = (psycopg.OperationalError,)

    def __init__(self, folder: Path, *settings: str) -> None:
        super().__init__(folder)
        self._settings = settings
        self._initdb = machine.program("initdb")
        self._rights = machine.rights_of(USER)
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
        if self._rights:
            shutil.chown(self._data, USER, USER)
        subprocess.run(
            [*self._rights, self._initdb, "-D", self._data, "--auth=trust", "--no-sync", f"--username={USER}"],
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
        all_settings = [*(f"{name}={value}" for name, value in settings.items()), *self._settings]
        words = [word for setting in all_settings for word in ("-c", setting)]
        return [*self._rights, self.path, "-D", str(self._data), *words]

    @property
    def address(self) -> tuple[str, int]:
        """The address, as a socket takes it."""
        return "127.0.0.1", self.port

    def connect(self) -> None:
        self.client().close()

    def connections(self) -> int:
        """Return how many clients are connected, beside the one that asks."""
        with self.client() as client:
            query = "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return client.execute(query).fetchone()[0]

    def client(self) -> psycopg.Connection:
        """Return a connection for the test itself, each statement of which is a transaction."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres", autocommit=True)

    def kill(self) -> None:
        # Its children end when they see that it has; before that, another one could not start.
        children = self._children()
        super().kill()
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))

    def freeze(self) -> None:
        super().freeze()
        # Those that serve the connections are processes of their own.
        children = self._signal_children(signal.SIGSTOP)
        wait_until(lambda: all(_state(child) in ("T", None) for child in children))

    def thaw(self) -> None:
        self._signal_children(signal.SIGCONT)
        super().thaw()

    def _signal_children(self, number: signal.Signals) -> list[int]:
        """Send a signal to the children, of which each may end at any time; return them."""
        children = self._children()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, number)
        return children

    def _children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(number) for number in found.split()]

    def stop(self) -> None:
        # At once, whoever is connected; its SIGTERM would wait for them. Frozen children would not end.
        if self.process is not None:
            self.thaw()
        self._end(signal.SIGINT)


def _state(process: int) -> str | None:
    """Return the state of a process, as proc(5) has it; nothing where it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return None
