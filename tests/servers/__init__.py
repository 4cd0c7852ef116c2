"""Private servers for the tests: processes in temporary folders, on free loopback ports or sockets.

A server class names its program, says how it is started (:meth:`Server.command`), how one sees that it is up
(:meth:`Server.connect`) and where it is (``url``). It is a context manager, and ends only what it started itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from tests import machine

#: Seconds that a server may take to start or to stop.
PATIENCE = 60
#: Seconds between two looks at something that is awaited.
POLL = 0.02
#: Ports below those that the kernel gives to clients, also 10,000 above: none of them is taken between choice and use.
PORTS = range(11000, 21000)
_ports = iter(range(PORTS.start + os.getpid() * 7 % len(PORTS), PORTS.stop))
#: Sockets that keep what was chosen for this run: other runs on this machine leave those ports alone.
_claims: list[socket.socket] = []
atexit.register(lambda: [claim.close() for claim in _claims])


def free_port(*offsets: int) -> int:
    """Return a loopback port that nobody listens on or has chosen, together with those at the offsets from it."""
    global _ports  # noqa: PLW0603 -- one sequence for the run: no two servers are given the same port
    while True:
        port = next(_ports, None)
        if port is None:
            _ports = iter(PORTS)
        elif all(_claim(port + offset) for offset in (0, *offsets)):
            return port


def _claim(port: int) -> bool:
    """Choose a port, if it is free: its UDP port, which no server uses, says so to other runs."""
    claim = socket.socket(type=socket.SOCK_DGRAM)
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        claim.bind(("127.0.0.1", port))
        _claims.append(claim)
        return True
    claim.close()
    return False


def wait_until(condition) -> None:
    """Wait until something holds, at most for as long as a server may take to start."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} did not come to hold")
        time.sleep(POLL)


class Server:
    """A server of the tests' own.

    Args:
        folder: an empty folder for its files.
    """

    #: The program that is started.
    program: ClassVar[str]
    #: What :meth:`connect` raises as long as the server is not up, beside OSError.
    not_yet: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = machine.program(self.program)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self):
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exc_info) -> None:
        self.stop()

    # -- What each kind of server says ---------------------------------------------------------------

    @property
    def url(self) -> str:
        """The address, as the option ``url`` takes it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what the server needs before its first start: by default nothing."""

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        raise NotImplementedError

    def connect(self) -> None:
        """Connect, and raise OSError or one of ``not_yet`` if the server is not up."""
        raise NotImplementedError

    # -- Its life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server, again after :meth:`kill` or :meth:`stop`, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until the server answers; raises with the end of its log if it does not."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect()
                return
            except (OSError, *self.not_yet) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.program} does not start: {error!r}\n{self.log_tail()}") from error
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop the server, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Have the server hang: it accepts connections, and never answers."""
        self.process.send_signal(signal.SIGSTOP)
        # The signal takes a moment, in which a request could still be answered.
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """End what :meth:`freeze` began."""
        self.process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the end of what the server has said."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        # One that is frozen takes its signal only after this.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ServerGroup:
    """Several servers that work as one.

    Args:
        servers: the servers, in the order in which they are started.
    """

    def __init__(self, *servers: Server) -> None:
        self.servers = servers
        self._running = ExitStack()

    def __enter__(self):
        with ExitStack() as starting:
            for server in self.servers:
                starting.enter_context(server)
            self.unite()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *exc_info) -> None:
        self._running.__exit__(*exc_info)

    def unite(self) -> None:
        """Make one of the servers that have been started."""
        raise NotImplementedError
