"""Private servers for the tests: processes in temporary folders, on free loopback ports or sockets.

A server class names its programs and its Debian package, says how it is started (:meth:`Server.command`),
how one sees that it is up (:meth:`Server.connect`) and where it is (``url``). It is a context manager,
and ends only what it started itself.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

#: Where servers' programs are beside PATH: Debian keeps them from ordinary users' PATH.
EXTRA_PATHS = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/*/bin")
#: Seconds that a server may take to start or to stop.
PATIENCE = 60
#: Seconds between two looks at something that is awaited.
POLL = 0.02
#: Ports below those that the kernel gives to clients: none of them is taken between choice and use.
PORTS = range(20000, 32000)
_ports = iter(range(PORTS.start + os.getpid() * 7 % len(PORTS), PORTS.stop))


#: The servers that a run had to do without; the coverage gate looks whether there were any.
MISSING = Path(__file__).parent.parent.parent / ".tox" / "missing-servers"


class MissingServerError(Exception):
    """A server's program is not on this machine.

    Args:
        program: the program.
        package: the Debian package that has it.
    """

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is missing (apt-get install {package})")
        self.program = program
        self.package = package


def find(program: str, package: str) -> str:
    """Return the path of a program, or raise :class:`MissingServerError`."""
    folders = [folder for pattern in EXTRA_PATHS for folder in sorted(glob.glob(pattern), reverse=True)]
    found = shutil.which(program) or shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        raise MissingServerError(program, package)
    return found


def free_port(*offsets: int) -> int:
    """Return a loopback port that nobody listens on, together with those at the offsets from it."""
    global _ports  # noqa: PLW0603 -- one sequence for the run: no two servers are given the same port
    while True:
        port = next(_ports, None)
        if port is None:
            _ports = iter(PORTS)
        elif all(_is_free(port + offset) for offset in (0, *offsets)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
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
    #: The Debian package that has it.
    package: ClassVar[str]
    #: What :meth:`connect` raises as long as the server is not up, beside OSError.
    not_yet: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = find(self.program, self.package)
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
