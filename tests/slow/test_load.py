"""Sixty-four threads in eight processes, on real stores: nothing is lost, and nobody gives up.

The processes run this module as a program (``python -m tests.slow.test_load``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.config import log as config_log
from tests.requests import NAME, Browser, config_of, content, options_of, stored

# Processes and real servers: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

PROCESSES = 8
THREADS = 8
WORKERS = PROCESSES * THREADS
#: Changes of one session that each worker makes, and the same for a long run.
WRITES, MANY_WRITES = 5, 200
COUNTS, MANY_COUNTS = 2, 50
#: Sessions that they share, and the same for a long run.
SESSIONS, MANY_SESSIONS = 1_000, 10_000
#: How many workers write to each of many sessions.
SHARERS = 2
#: Seconds after which a test is given up: a bound, not a measure.
PATIENCE = 1200


@pytest.fixture(params=["file", "redis", "memcached", "postgresql"])
def options(request, tmp_path):
    """Return the options of the stores that many processes use."""
    return {**options_of(request, tmp_path), "store_timeout": 60}


@pytest.fixture
def browser(options):
    """Return a browser with a session that all workers share."""
    browser = Browser(config_of(**options))
    browser.write(name="base")
    yield browser
    browser.config.store.close()


def run(task: str, options: dict, **arguments: object) -> None:
    """Have every worker do a task at once, and see that none of them fails."""
    order = json.dumps({"task": task, "options": options, "arguments": arguments})
    # Pyramid imports pkg_resources, of which setuptools warns; errors are all that is looked for here.
    command = [sys.executable, "-W", "ignore", "-m", "tests.slow.test_load", order]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, timeout=PATIENCE, check=False)

    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("writes", [WRITES, pytest.param(MANY_WRITES, marks=pytest.mark.soak)])
def test_one_session_loses_no_key(options, browser, writes):
    """Of distinct keys that all workers write to one session, every one is there, and no other."""
    run("write", options, cookie=browser.cookie, writes=writes)

    keys = {f"{worker}.{nth}" for worker in range(WORKERS) for nth in range(writes)}
    session = browser.read()
    log = session.pop("log")
    assert session == {"name": "base"} | dict.fromkeys(keys, True)
    assert sorted(log) == sorted(keys)


@pytest.mark.parametrize("counts", [COUNTS, pytest.param(MANY_COUNTS, marks=pytest.mark.soak)])
def test_a_counter_is_exact(options, browser, counts):
    """What all workers count under exclusive() is as much as they have counted."""
    run("count", options, cookie=browser.cookie, counts=counts)

    assert browser.read() == {"name": "base", "count": WORKERS * counts}


@pytest.mark.parametrize("sessions", [SESSIONS, pytest.param(MANY_SESSIONS, marks=pytest.mark.soak)])
def test_many_sessions_are_not_mixed_up(options, browser, sessions):
    """Many sessions, each shared by some workers, have what was written to them, and nothing else."""
    run("spread", options, salt=browser.id, sessions=sessions)

    for session in range(sessions):
        record = content(stored(browser.config, id_of(browser.id, session)))
        assert record == {"session": session} | {str(worker): session for worker in sharers(session)}


def id_of(salt: str, session: int) -> str:
    return hashlib.md5(f"{salt} {session}".encode()).hexdigest()


def sharers(session: int) -> list[int]:
    return [(session + nth) % WORKERS for nth in range(SHARERS)]


# -- The program -------------------------------------------------------------------------------------


def write(config: SessionConfig, worker: int, cookie: str, writes: int) -> None:
    """Write distinct keys to the one session, and append each to one list."""
    browser = Browser(config)
    browser.cookie = cookie
    for nth in range(writes):
        request = browser.begin()
        request.session[f"{worker}.{nth}"] = True
        request.session.setdefault("log", []).append(f"{worker}.{nth}")
        request.commit()


def count(config: SessionConfig, worker: int, cookie: str, counts: int) -> None:
    """Count in the one session."""
    browser = Browser(config)
    browser.cookie = cookie
    for _ in range(counts):
        request = browser.begin()
        with request.session.exclusive():
            request.session["count"] = request.session.get("count", 0) + 1
        request.commit()


def spread(config: SessionConfig, worker: int, salt: str, sessions: int) -> None:
    """Write to this worker's share of many sessions."""
    browser = Browser(config)
    for session in range(sessions):
        if worker in sharers(session):
            browser.cookie = f"{NAME}={id_of(salt, session)}"
            browser.write(**{str(worker): session})


def begin_sessions(config: SessionConfig, number: int, salt: str, sessions: int) -> None:
    """Store this process's share of new sessions."""
    for session in range(number, sessions, PROCESSES):
        raw = config.codec.seal(config.codec.serialize({"session": session}))
        config.store.swap(id_of(salt, session), None, raw)


def do_share(number: int, order: dict[str, Any], together: Barrier) -> None:
    """Do a process's share of a task: its workers begin when all of the others do."""
    config = config_of(**order["options"])
    task, arguments = globals()[order["task"]], order["arguments"]
    if task is spread:
        begin_sessions(config, number, **arguments)

    def work(thread: int) -> None:
        together.wait(PATIENCE)
        task(config, number * THREADS + thread, **arguments)

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(work, thread) for thread in range(THREADS)]:
            future.result(PATIENCE)
    config.store.close()


def main(order: str) -> bool:
    """Do a task in processes that are forked before there is a thread or a connection; say whether any has failed."""
    # Beaker's own cookie name is warned about; errors are all that is looked for here.
    config_log.setLevel(logging.ERROR)
    context = get_context("fork")
    together = context.Barrier(WORKERS)
    shares = [(number, json.loads(order), together) for number in range(PROCESSES)]
    processes = [context.Process(target=do_share, args=share) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return any(process.exitcode for process in processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
