"""The servers that the tests share, each started when the first test asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import pytest

# The tests' own modules are `tests.…` wherever pytest is started from.
sys.path.insert(0, str(Path(__file__).parent.parent))
pytest.register_assert_rewrite("tests.contract")

from tests.servers import MISSING, MissingServerError  # noqa: E402 -- after the path is set

#: The servers that tests asked for in vain: the program, and the Debian package that has it.
_missing: dict[str, str] = {}


@contextmanager
def _started(module: str, name: str, tmp_path_factory, *options) -> Iterator:
    """Start a server; where its program is missing, the tests are skipped, but fail in CI."""
    server_class = getattr(import_module(f"tests.servers.{module}"), name)
    try:
        server = server_class(tmp_path_factory.mktemp(name), *options)
    except MissingServerError as error:
        if os.environ.get("CI"):
            raise
        _missing[error.program] = error.package
        pytest.skip(str(error))
    with server:
        yield server


def pytest_sessionstart() -> None:
    """Forget what an earlier run had to do without."""
    MISSING.unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter) -> None:
    """Tell in one line which servers were missing, and how to get them."""
    if _missing:
        MISSING.parent.mkdir(exist_ok=True)
        MISSING.write_text("\n".join(sorted(_missing)))
        terminalreporter.line(
            f"Tests were skipped for want of {', '.join(sorted(_missing))}."
            f" To run them: apt-get install {' '.join(sorted(set(_missing.values())))}",
            yellow=True,
        )


@pytest.fixture
def start_server(tmp_path_factory):
    """Return what starts a server of the test's own, which it may kill: by module, class and options."""
    with ExitStack() as running:
        yield lambda module, name, *options: running.enter_context(_started(module, name, tmp_path_factory, *options))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """Return a Redis."""
    with _started("redis", "Redis", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory):
    """Return a Redis Cluster of three masters."""
    with _started("redis", "RedisCluster", tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinels(tmp_path_factory):
    """Return a Redis with a replica and three sentinels."""
    with _started("redis", "RedisWithSentinels", tmp_path_factory) as group:
        yield group


@pytest.fixture(scope="session")
def memcached_server(tmp_path_factory):
    """Return a memcached."""
    with _started("memcached", "Memcached", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory):
    """Return a PostgreSQL."""
    with _started("postgresql", "PostgreSQL", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory):
    """Return a MariaDB."""
    with _started("mariadb", "MariaDB", tmp_path_factory) as server:
        yield server
