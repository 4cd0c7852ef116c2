"""Drive a target with atheris: ``python -m tests.fuzzing TARGET --seconds 15`` or ``--runs 1000000``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["beaker_bridge"]):
    from tests.fuzzing.targets import LOGGER, PIECES, TARGETS, seeds

#: The longest input, in bytes.
MAX_LENGTH = 2048
#: What the process may need, in MiB: a record that is at its largest is well under it.
MEMORY = 1536


def main(arguments: list[str]) -> int:
    """Fuzz until the runs or the seconds are over; what fails is shown. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--seconds", type=int, help="how long")
    limit.add_argument("--runs", type=int, help="how many inputs")
    parser.add_argument("--corpus", type=Path, help="a folder for inputs that reach something new, kept for later")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="beaker-bridge-fuzzing-", dir=in_memory()) as folder:
        # The fuzzer ends its process at once and cleans nothing up, so it has one of its own.
        fuzzer = os.fork()
        if fuzzer == 0:
            tempfile.tempdir = folder
            fuzz(given, Path(folder))
        return waited_for(fuzzer)


def in_memory() -> str | None:
    """Return a folder in memory, if there is one: a million records would wear a disk."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def waited_for(fuzzer: int) -> int:
    """Return the exit code of the fuzzer's process, which ends with this one."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return os.waitstatus_to_exitcode(os.waitpid(fuzzer, 0)[1])
    except BaseException:
        os.kill(fuzzer, signal.SIGTERM)
        os.waitpid(fuzzer, 0)
        raise


def fuzz(given: argparse.Namespace, folder: Path) -> None:
    """Fuzz as was asked for, from the target's seeds; this does not return."""
    corpus = given.corpus or folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds(given.target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = folder / "dictionary"
    dictionary.write_text("".join(f'"{_escaped(piece)}"\n' for piece in PIECES), encoding="ascii")
    limit = f"-runs={given.runs}" if given.seconds is None else f"-max_total_time={given.seconds}"
    options = [
        *(limit, f"-dict={dictionary}", f"-max_len={MAX_LENGTH}", f"-rss_limit_mb={MEMORY}", "-timeout=20"),
        # Failing inputs are printed in base64 and kept nowhere; nothing is said of each new find.
        *(f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=1", str(corpus)),
    ]
    LOGGER.setLevel(logging.DEBUG)
    atheris.Setup([sys.argv[0], *options], TARGETS[given.target])
    atheris.Fuzz()


def _escaped(piece: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in piece)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
