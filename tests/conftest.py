"""The servers that the tests share, each started when the first test asks for it; and what was not there."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest
from pyramid.threadlocal import manager

# The tests' own modules are `tests.…` wherever pytest is started from.
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import machine

# -- What is missing on this machine -----------------------------------------------------------------

#: The name under which a report says what its test lacked, and how to get it.
MISSING = "missing"
#: How often each of these was lacked.
_missing: Counter[tuple[str, str]] = Counter()


def pytest_addoption(parser) -> None:
    """Add what the quick run needs."""
    parser.addoption("--bare", action="store_true", help="start no server and no other program")


def pytest_configure(config) -> None:
    """Pass it on."""
    machine.Bare.wanted = config.getoption("bare")
    # A shell's job in the background ignores Ctrl-C, and so would the processes that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _skipping(item) -> Iterator[None]:
    """Skip a test that needs what is not there, wherever it asks for it; in CI it fails."""
    try:
        yield
    except machine.MissingError as error:
        if os.environ.get("CI") and error.everywhere and not machine.Bare.wanted:
            raise
        item.user_properties.append((MISSING, (error.what, error.remedy)))
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Skip a test whose fixtures need what is not there; none is the second one to have something logged once."""
    from beaker_bridge.logs import forget, log_once
    from beaker_bridge.options import masking
    from beaker_bridge.session import config

    forget()
    # Another test's password may be a word of this one's message.
    masking._passwords.clear()
    # Nearly each test has Beaker's own cookie name: this counts as logged, at a level that is never shown.
    for label, is_set in product(("key", "session.key", "beaker.session.key"), (False, True)):
        log_once(config.log, logging.NOTSET, config.default_key_warning(label, is_set=is_set))
    with _skipping(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test that needs what is not there."""
    with _skipping(item):
        return (yield)


def pytest_runtest_logreport(report) -> None:
    """Count what was lacked; several workers report to one process."""
    if report.skipped:
        _missing.update(tuple(what) for name, what in report.user_properties if name == MISSING)


def pytest_unconfigure(config) -> None:
    """Say in the run's last line how many tests were skipped for want of something, and how to get that."""
    if _missing and config.pluginmanager.has_plugin("terminalreporter"):
        config.get_terminal_writer().line(_summary(), yellow=True)


def _summary() -> str:
    count = _missing.total()
    if machine.Bare.wanted:
        return f"{count} tests were left out, which need a program that is no part of Python: tox runs them."
    commands = {command: [] for command in (machine.APT, machine.PIP)}
    sentences = set()
    for _what, remedy in sorted(_missing):
        for command, names in commands.items():
            if remedy.startswith(command):
                names.append(remedy.removeprefix(command).strip())
                break
        else:
            sentences.add(remedy)
    remedies = [f"{command} {' '.join(dict.fromkeys(names))}" for command, names in commands.items() if names]
    whats = ", ".join(sorted({what for what, _remedy in _missing}))
    return f"{count} tests were skipped, for want of {whats}. To run them: {'; '.join([*remedies, *sorted(sentences)])}"


# -- Servers -----------------------------------------------------------------------------------------


@contextmanager
def _started(module: str, name: str, tmp_path_factory, *options) -> Iterator:
    """Start a server."""
    server_class = getattr(import_module(f"tests.servers.{module}"), name)
    with server_class(tmp_path_factory.mktemp(name), *options) as server:
        yield server


class _Lines(logging.Handler):
    """Keeps the lines of the package that hold an id, or lack a field."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self.wrong: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if ID.search(line) or not {"store", "failure", "tries"} <= vars(record).keys():
            self.wrong.append(line)


_lines = _Lines()
logging.getLogger("beaker_bridge").addHandler(_lines)
#: An id in full, that is no part of a longer number. Some tests have ids of one repeated digit.
ID = re.compile(r"(?<![0-9a-f])(?!(.)\1{31})[0-9a-f]{32}(?![0-9a-f])")


@pytest.fixture(autouse=True)
def no_id_in_the_log():
    """Have a test fail that makes the package log an id in full, in a line or its traceback, or without the fields."""
    _lines.wrong.clear()
    yield
    assert _lines.wrong == []


@pytest.fixture(autouse=True)
def no_request_of_another_test():
    """Have each test begin without Pyramid's thread-local request: a script's that is not closed would stand there."""
    yield
    manager.clear()


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
def valkey_server(tmp_path_factory):
    """Return a Valkey."""
    with _started("redis", "Valkey", tmp_path_factory) as server:
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


# -- A browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate():
    """Return a certificate that the browser trusts."""
    return import_module("tests.certificates").Certificate("site.test", "*.site.test")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory, certificate):
    """Return a Chromium."""
    trust = f"--ignore-certificate-errors-spki-list={certificate.pin}"
    with import_module("tests.chromium").running(tmp_path_factory.mktemp("chromium"), trust) as browser:
        yield browser


@pytest.fixture
def tab(chromium):
    """Return a new visitor's browser: one tab."""
    with chromium.visitor() as opened:
        yield opened
