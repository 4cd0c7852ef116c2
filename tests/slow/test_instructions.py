"""The benchmark's count of instructions: what is counted is what is repeated, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.benchmarks.valgrind import count

pytestmark = [pytest.mark.once, pytest.mark.slow]

CHECKOUT = Path(__file__).parent.parent.parent
#: Three things that are repeated, one of them after a long start; and one that fails.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from tests.benchmarks.valgrind import repeat_in_children

def adder(numbers, start=0):
    sum([1] * start)
    return lambda: sum(numbers)

if "fail" in sys.argv:
    repeat_in_children("failing", lambda: open("/nowhere"), 1)
repeat_in_children("none", lambda: adder([]), 50)
repeat_in_children("once", lambda: adder([1] * 1000), 50)
repeat_in_children(["twice", 2], lambda: adder([1] * 2000, 200_000), 50)
"""


def test_the_count_is_of_one_repetition():
    """Twice the work is counted as twice the instructions, whatever it took to get there."""
    found = [(str(name), instructions) for name, instructions in count(["-I", "-S", "-c", PROGRAM])]
    (_, none), (_, once), (_, twice) = found

    assert [name for name, _ in found] == ["none", "once", "['twice', 2]"]
    assert 0 < none < 2_000
    assert (twice - none) / (once - none) == pytest.approx(2, rel=0.02)
    assert 4_000 < once - none < 100_000


def test_a_program_that_fails_is_an_error(capfd):
    """A child that fails is no figure: its traceback is shown, and the count raises."""
    with pytest.raises(subprocess.CalledProcessError):
        list(count(["-I", "-S", "-c", PROGRAM, "fail"]))

    assert "No such file or directory: '/nowhere'" in capfd.readouterr().err
