"""Whatever bytes a browser sends, and whatever bytes stand in a store: the targets of tests/fuzzing.

Hypothesis drives them here, with structure; atheris drives the same ones in processes of their own, guided by coverage.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beaker_bridge.record.serializers import MAX_PLAIN_SIZE, JSONSerializer
from tests import machine
from tests.fuzzing.memory import peak_of
from tests.fuzzing.targets import HEADER_SITES, LOGGER, NOW, PIECES, RECORDS, TARGETS, TIMEOUT, VALUES, seeds, site

pytestmark = [pytest.mark.once, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]
#: The seconds that atheris has for a target in CI, and the inputs that it makes in the long run.
SECONDS, RUNS = 2, 1_000_000
MIB = 1024 * 1024
#: How many times the room of its JSON a record may take in memory.
GROWTH = 40


@pytest.fixture(autouse=True, scope="module")
def whole_log():
    """Let the log tell everything: the targets look into it."""
    level = LOGGER.level
    LOGGER.setLevel(logging.DEBUG)
    yield
    LOGGER.setLevel(level)


# -- Hypothesis --------------------------------------------------------------------------------------

#: Keys of a record: Beaker's, ours, and an application's.
KEYS = st.sampled_from(
    [
        *("_accessed_time", "_creation_time", "_domain", "_path", "_id", "_expires"),
        *("_bb_expiry", "_bb_moved", "_bb_writer", "__bb__", "visited", "owner", "a", ""),
    ]
)
#: Among them are times: the present, one when a renewal is due, one when the session is over, and the future.
NUMBERS = st.sampled_from(
    [
        *(0, 1, -1, 60, 0.5, NOW, NOW - 120, NOW - TIMEOUT + 60, NOW - TIMEOUT - 60, NOW + 60),
        *(1e308, 1e400, -1e400, float("nan"), 10**30, 10**400),
    ]
)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["/", "example.org", "a\r\nSet-Cookie: b=c", "a; Secure", "\x00", "\ud800", "ß"]
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | TEXTS
TAGS = st.sampled_from(
    [
        *("datetime", "date", "time", "timedelta", "Decimal", "UUID", "bytes", "tuple", "set", "dict"),
        *("TranslationString", "Markup", "eval", ""),
    ]
)
CONTENTS = (
    TEXTS
    | NUMBERS
    | st.sampled_from(
        [
            *("2020-01-01T00:00:00", "2020-01-01", "10:00", "1E+9", "sNaN", "YQ==", "0" * 32, [1, 2, 3], [1e308, 0, 0]),
            *(["2020-01-01T00:00:00", 1, "Europe/Berlin"], ["10:00", 0, "../etc/passwd"], [["a", 1], ["__bb__", 2]]),
            ["added", "shop", None, {"n": 2}, None],
        ]
    )
)


def tagged(values):
    """Return strategies for what stands in JSON for a value of another type, or nearly so."""
    return st.builds(lambda tag, content: {"__bb__": [tag, content]}, TAGS, CONTENTS | st.lists(values, max_size=3))


VALUES_IN_JSON = st.recursive(
    LEAVES,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(KEYS, values, max_size=4) | tagged(values),
    max_leaves=12,
)
#: Records whose own keys are nearly right, so that more is done with them.
NEARLY_RIGHT = st.fixed_dictionaries(
    {"visited": st.booleans()},
    optional={
        "_accessed_time": NUMBERS,
        "_creation_time": NUMBERS,
        "_bb_expiry": NUMBERS | st.integers() | st.floats(),
        "_bb_moved": NUMBERS,
        "_domain": TEXTS,
        "_path": TEXTS,
        "_id": TEXTS,
        "a": VALUES_IN_JSON,
    },
)
RECORDS_IN_JSON = (st.dictionaries(KEYS, VALUES_IN_JSON, max_size=8) | NEARLY_RIGHT).map(
    lambda record: json.dumps(record).encode()
)
PIECED = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=16).map(b"".join)


def changed(content, edits):
    """Return some bytes with parts of them replaced."""
    for place, length, piece in edits:
        start = place % (len(content) + 1)
        content = content[:start] + piece + content[start + length :]
    return content


#: What is put at a depth of a record, or into the header, beside what can be put everywhere.
CONTENTS_AT = {"JSON": RECORDS_IN_JSON, "plain": RECORDS_IN_JSON.map(zlib.compress)}
ANYWHERE = st.binary(max_size=200) | PIECED
#: The targets, with the depth for each value of the first byte.
DEPTHS = {
    "header": ["header" for _ in HEADER_SITES],
    "value": [depth for _, depth in VALUES],
    "record": [depth for _, depth in RECORDS],
}


def inputs(target):
    """Return a strategy for a target's inputs: any bytes, pieces, records, and its seeds with changes."""
    edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), st.sampled_from(PIECES) | st.binary(max_size=4)))
    edited = st.builds(changed, st.sampled_from(seeds(target)), edits)
    return edited | st.one_of(
        [CONTENTS_AT.get(depth, ANYWHERE).map(bytes([number]).__add__) for number, depth in enumerate(DEPTHS[target])]
    )


def drive(target, examples):
    """Drive a target with many inputs."""

    @settings(deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(inputs(target))
    def run(data):
        TARGETS[target](data)

    run()


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_holds(target):
    """What the fuzzers begin with holds what a target asserts."""
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_do_harm(target):
    """No bytes break a request, open another session, tell an id to the log, or take memory without bound."""
    drive(target, 600)


# -- Atheris -----------------------------------------------------------------------------------------


def fuzz(target, *limit):
    """Drive a target with atheris in a process of its own; return how many inputs it has made."""
    # It is made for Linux on x86-64, and breaks our code on Python 3.10.
    machine.package("atheris", everywhere=False)
    # Not measured for coverage: it would be ten times slower, and Hypothesis has been there before.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzzing", target, *limit],
        cwd=CHECKOUT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return int(re.search(r"number_of_executed_units: (\d+)", done.stdout)[1])


@pytest.mark.ci
@pytest.mark.parametrize("target", TARGETS)
def test_atheris_finds_nothing_at_once(target):
    """A fuzzer that is guided by our code's coverage finds no bytes that do harm, for some seconds a target."""
    assert fuzz(target, "--seconds", str(SECONDS)) > len(seeds(target))


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_atheris_finds_nothing_for_long(target):
    """A million inputs a target do no harm."""
    assert fuzz(target, "--runs", str(RUNS)) >= RUNS


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_do_harm_for_long(target):
    """Very many inputs with structure do no harm."""
    drive(target, 50_000)


# -- Bombs -------------------------------------------------------------------------------------------


#: Where a bomb can be put: the target, the site, and the depth.
PLACES = [
    *(("record", *place) for place in RECORDS if place[1] in ("text", "plain")),
    *(("value", *place) for place in VALUES if place[1] == "plain"),
]


@pytest.mark.parametrize(("target", "name", "depth"), PLACES)
def test_a_bomb_is_cut(target, name, depth, caplog):
    """64 MiB in 64 KiB, in a store or in a cookie of ours, are cut at the limit, and give a new session."""
    bomb = zlib.compress(bytes(4 * MAX_PLAIN_SIZE))
    number = (RECORDS if target == "record" else VALUES).index((name, depth))
    found = site(target, name)
    content = base64.b64encode(bomb) if depth == "text" else bomb
    if name == "encrypted" and depth == "text":
        content = found.config.codec._cipher.encrypt(bomb)
    caplog.clear()
    peak = peak_of(TARGETS[target], bytes([number]) + content)

    assert peak < 3 * MAX_PLAIN_SIZE
    assert f"it would have over {MAX_PLAIN_SIZE} bytes" in caplog.text


@pytest.mark.parametrize("part", [b"[],", b"{},", b'{"":0},', b'"ab",', b"1.5,", b'{"__bb__":["set",[]]},'])
def test_a_record_takes_a_bounded_multiple_of_its_json(part):
    """Whatever the JSON of a record is, its objects take no more than 40 times its room."""
    text = b'{"a":[' + part * (MIB // len(part)) + b"0]}"
    peak = peak_of(JSONSerializer().loads, zlib.compress(text))

    assert peak < GROWTH * len(text)
