"""A private Redis, a Redis Cluster, and a Redis with its replica and sentinels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import machine
from tests.servers import PATIENCE, Server, ServerGroup, free_port, wait_until

#: The port of a cluster's own traffic, from the one for clients.
BUS = 10000


class Redis(Server):
    """One Redis.

    Args:
        folder: as :class:`Server`'s.
        options: further options of ``redis-server``, each ``--name value``.
    """

    program = "redis-server"
    not_yet = (redis.RedisError,)

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.port = free_port(BUS)
        self._options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def address(self) -> tuple[str, int]:
        """The address, as a socket takes it."""
        return "127.0.0.1", self.port

    def connections(self) -> int:
        """Return how many clients are connected, beside the one that asks."""
        with self.client() as client:
            return len(client.client_list(_type="normal")) - 1

    def command(self) -> list[str]:
        return [
            *(self.path, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", "", "--daemonize", "no", *self._options),
        ]

    def connect(self) -> None:
        with self.client() as client:
            client.ping()

    def client(self, **options) -> redis.Redis:
        """Return a client for the test itself."""
        return redis.Redis(port=self.port, socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0), **options)


class Valkey(Redis):
    """One Valkey, which is what Redis's free successor is called."""

    program = "valkey-server"


class RedisCluster(ServerGroup):
    """A Redis Cluster.

    Args:
        folder: an empty folder.
        replicas: how many each of the three masters has.
    """

    def __init__(self, folder: Path, replicas: int = 0) -> None:
        self._cli = machine.program("redis-cli")
        self._replicas = replicas
        nodes = []
        for number in range(3 * (1 + replicas)):
            place = folder / str(number)
            place.mkdir()
            nodes.append(Redis(place, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"))
        super().__init__(*nodes)

    @property
    def url(self) -> str:
        """The addresses, as the option ``urls`` takes them."""
        return ",".join(f"redis://127.0.0.1:{node.port}" for node in self.servers)

    def unite(self) -> None:
        addresses = [f"127.0.0.1:{node.port}" for node in self.servers]
        subprocess.run(
            [
                self._cli,
                "--cluster",
                "create",
                *addresses,
                *f"--cluster-replicas {self._replicas} --cluster-yes".split(),
            ],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        wait_until(self._is_whole)

    def _is_whole(self) -> bool:
        return all(_is_ready(node) for node in self.servers)


def _is_ready(node: Redis) -> bool:
    """Say whether a node serves every slot, and, as a replica, follows its master."""
    with node.client() as client:
        return client.cluster("info")["cluster_state"] == "ok" and _follows(node)


class _Sentinel(Redis):
    """A sentinel that watches one master."""

    def __init__(self, folder: Path, master: Redis, quorum: int) -> None:
        super().__init__(folder)
        self._master = master
        self._quorum = quorum

    def prepare(self) -> None:
        # A sentinel keeps what it learns in the file itself.
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {self._master.port} {self._quorum}\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n",
            encoding="ascii",
        )

    def command(self) -> list[str]:
        return [self.path, str(self.folder / "sentinel.conf"), "--sentinel"]


class RedisWithSentinels(ServerGroup):
    """A Redis with one replica, and three sentinels who watch them under the name ``main``.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        places = [folder / str(number) for number in range(5)]
        for place in places:
            place.mkdir()
        self.master = Redis(places[0], "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        following = ("--replicaof", "127.0.0.1", str(self.master.port), "--repl-diskless-sync-delay", "0")
        self.replica = Redis(places[1], "--appendonly", "yes", *following)
        self.sentinels = [_Sentinel(place, self.master, quorum=2) for place in places[2:]]
        super().__init__(self.master, self.replica, *self.sentinels)

    @property
    def url(self) -> str:
        """The address, as the option ``url`` takes it."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/main/0"

    def unite(self) -> None:
        wait_until(self._is_whole)

    def _is_whole(self) -> bool:
        return _follows(self.replica) and all(self._is_known_to(sentinel) for sentinel in self.sentinels)

    @staticmethod
    def _is_known_to(sentinel: Redis) -> bool:
        with sentinel.client() as client:
            known = client.info("sentinel")["master0"]
            return (known["slaves"], known["sentinels"]) == (1, 3)


def _follows(node: Redis) -> bool:
    with node.client() as client:
        return client.info("replication").get("master_link_status", "up") == "up"
