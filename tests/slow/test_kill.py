"""Writers that are killed in the middle of a commit: the next request finds the state before or after.

The writers are forked, and so this module is also a program: a process without threads that forks,
kills and looks (``python -m tests.slow.test_kill``).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from tests.requests import Browser, config_of, store_options

# Files and processes: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

#: How many writers are killed, and the same for a long run.
KILLS, MANY_KILLS = 50, 500
#: The longest time that a writer may live after its first commit has begun, in seconds: a few commits.
LIFE = {"file": 0.01, "dbm": 0.01, "sqlite": 0.04}


@pytest.mark.parametrize("kills", [KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", ["file", "dbm", "sqlite"])
def test_a_killed_writer_leaves_a_whole_session(tmp_path, name, kills):
    """Whenever a writer is killed, the session is what it was before the commit or what it is after it,
    and the next request writes without waiting for anything that the dead one left.
    """
    command = [sys.executable, "-m", "tests.slow.test_kill", name, str(tmp_path), str(kills)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["before"] + found["after"] == kills
    assert found["left"] == []


# -- The program -------------------------------------------------------------------------------------


def filling(number: int) -> str:
    """Return a content of a size of its own, by which a mixed record would be seen."""
    return f"{number} " * (1 + number * 37 % 600)


def write_for_ever(options: dict, cookie: str, number: int, pipe: int) -> None:
    """Write one number after the other into the session, and tell of each before it is written."""
    browser = Browser(config_of(**options))
    browser.cookie = cookie
    while True:
        number += 1
        request = browser.begin()
        request.session.update(number=number, filling=filling(number))
        os.write(pipe, b"%d\n" % number)
        request.commit()


def kill_one(options: dict, cookie: str, number: int, life: float) -> int:
    """Let a writer live for a moment, and return the last number that it began to write."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            write_for_ever(options, cookie, number, writing)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        begun = pipe.read(20)
        time.sleep(random.uniform(0, life))  # not for luck: it is the random moment
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        begun += pipe.read()
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise RuntimeError("a writer has ended by itself")
    return int(begun.split()[-1])


def kill_all(name: str, folder: str, kills: int) -> dict:
    """Kill writers one after the other, and look at the session after each."""
    options = {**store_options(name, folder), "store_timeout": 2}
    browser = Browser(config_of(**options))
    browser.write(number=0, filling=filling(0))
    found = {"before": 0, "after": 0}
    for _ in range(kills):
        # No connection may be carried over a fork.
        browser.config.store.close()
        last = kill_one(options, browser.cookie, browser.read()["number"], LIFE[name])
        session = browser.read()
        if session["filling"] != filling(session["number"]):
            raise RuntimeError(f"the session is damaged: {session['number']}, {session['filling'][:20]}")
        found[{last - 1: "before", last: "after"}[session["number"]]] += 1
        browser.write(looked_at=last)
        if browser.read()["looked_at"] != last:
            raise RuntimeError("the next request's write is lost")
    swept = browser.config.store.sweep(time.time() + 60)
    left = [path.name for path in Path(folder).rglob("*") if "tmp" in path.name]
    return {**found, "swept": swept, "left": left}


if __name__ == "__main__":
    print(json.dumps(kill_all(sys.argv[1], sys.argv[2], int(sys.argv[3]))))  # noqa: T201 -- read by the test
