"""How many instructions something takes, counted under valgrind.

A program calls :func:`repeat_in_children`, which forks twice: one child repeats something N times, the other one 2N
times. valgrind counts what each process has executed, its parent's past included, so the difference of the two children
is N repetitions and nothing else: whatever it takes to get there falls out. :func:`count` runs such a program.

Only Python's own modules are imported here: a small program is counted in a second.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from tests import machine

#: Repetitions before those that count: the first ones import what is imported late, and specialize bytecode.
WARM = 10
#: To valgrind, memory that the C library copies by ``rep movsb`` is an instruction a byte; and whether a block that
#: grows is copied depends on what lies behind it. Have it use loops.
TUNABLES = "glibc.cpu.x86_rep_movsb_threshold=1000000000"

#: Makes what is repeated: each child calls it once.
Make = Callable[[], Callable[[], object]]


def repeat_in_children(name: Any, make: Make, number: int) -> None:
    """Repeat something ``number`` times in one child, and twice as often in another; print which children did.

    Args:
        name: what it is called, in JSON.
        make: makes what is repeated.
        number: how often the first child repeats it.
    """
    # The collector would go through all that was made before, in one child more often than in the other.
    gc.collect()
    gc.freeze()
    children = [_child(make, repetitions) for repetitions in (number, 2 * number)]
    sys.stdout.write(f"{json.dumps([name, number, *children])}\n")
    sys.stdout.flush()


def _child(make: Make, number: int) -> int:
    """Repeat something in a child, and wait for its end; return its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action = make()
            for _ in repeat(None, WARM + number):
                action()
            status = 0
        except BaseException:  # noqa: BLE001 -- the parent's code goes on behind the fork
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"a child ended with {os.waitstatus_to_exitcode(status)}")
    return pid


def count(command: Sequence[str], seed: int = 0) -> Iterator[tuple[Any, float]]:
    """Run a Python program, and yield each name that it repeats something under, with the instructions of one time.

    Args:
        command: what follows ``python``: the program, and its arguments.
        seed: of Python's hashes.

    Raises:
        MissingError: valgrind is not there.
        CalledProcessError: the program failed.
    """
    valgrind = machine.program("valgrind")
    # Nothing else of the environment: its size moves the stack.
    environ = {"PYTHONHASHSEED": str(seed), "GLIBC_TUNABLES": TUNABLES, "PATH": os.defpath}
    with tempfile.TemporaryDirectory() as folder:
        files = [f"--cachegrind-out-file={folder}/%p", f"--log-file={folder}/log.%p"]
        tool = [valgrind, "--tool=cachegrind", "--cache-sim=no", *files, sys.executable]
        done = subprocess.run([*tool, *command], env=environ, check=True, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            name, number, once, twice = json.loads(line)
            yield name, (_total(folder, twice) - _total(folder, once)) / number


def _total(folder: str, pid: int) -> int:
    """Return how many instructions valgrind has counted in a process."""
    text = Path(folder, str(pid)).read_text(encoding="utf-8", errors="replace")
    return int(text.rpartition("summary:")[2])
