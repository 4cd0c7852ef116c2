"""A proxy before a server, which counts what is asked, and can lose an answer or fall silent."""

from __future__ import annotations

import math
import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes bytes on between its own port and a server's.

    Args:
        place: the server's port on the loopback interface, or the path of its Unix socket.
    """

    def __init__(self, place: int | str) -> None:
        self._server = place
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept)]
        #: How many bytes of the next answer are let through before the connection is closed.
        self._passing = 0
        #: How many answers are let through before the first one that is lost.
        self._kept = 0
        #: How many answers are still to be lost.
        self._losses = 0
        #: How many connections were made.
        self.connections = 0
        #: How many times somebody asked.
        self.asked = 0
        self._silent = False
        #: The largest piece of a request that is passed on, in bytes.
        self._largest: float = math.inf

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_exc_info) -> None:
        # A listener that is only closed leaves its thread waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for one in pair:
                one.close()

    def lose_next_answer(self, passing: int = 0, *, times: int = 1, after: int = 0) -> None:
        """Pass the next request on, but of the answer only the first bytes; then close the connection.

        Args:
            passing: how many bytes are let through.
            times: how many requests are lost so, one after the other.
            after: how many answers come through before.
        """
        self._passing, self._losses, self._kept = passing, times, after

    def fall_silent(self) -> None:
        """Accept connections and requests from now on, and never answer."""
        self._silent = True

    def swallow_large(self, size: int) -> None:
        """Be as a link that does not carry what is large in time: from a piece over ``size`` bytes on, pass nothing."""
        self._largest = size

    def speak(self) -> None:
        """Serve new connections again; those from before hear nothing any more."""
        self._silent = False

    def cut(self) -> None:
        """Close every connection."""
        for pair in self._pairs:
            _end(*pair)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = self._connected()
                self._pairs.append((client, server))
                for target in (self._ask, self._answer):
                    self._threads.append(threading.Thread(target=target, args=(client, server)))
                    self._threads[-1].start()

    def _connected(self) -> socket.socket:
        if isinstance(self._server, int):
            return socket.create_connection(("127.0.0.1", self._server))
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        return server

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        deaf = False
        with suppress(OSError):
            while request := client.recv(65536):
                self.asked += 1
                deaf = deaf or self._silent or len(request) > self._largest
                if not deaf:
                    server.sendall(request)
        _end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while answer := server.recv(65536):
                if self._silent:
                    continue
                if self._losses and self._kept:
                    self._kept -= 1
                elif self._losses:
                    self._losses -= 1
                    client.sendall(answer[: self._passing])
                    break
                client.sendall(answer)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    # Closing would not wake the thread that reads there.
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
