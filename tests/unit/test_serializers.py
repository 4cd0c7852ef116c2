"""Records to plain bytes and back: JSON, and pickle."""

import json
import secrets
import tracemalloc
import zlib
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from beaker.util import JsonSerializer as BeakerJSONSerializer
from beaker.util import PickleSerializer as BeakerPickleSerializer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beaker_bridge.exceptions import DamagedRecordError, SessionTooLargeError, SessionValueError
from beaker_bridge.record import serializers
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.envelope import BareEnvelope, NamespaceEnvelope, PickledEnvelope
from beaker_bridge.record.json_types import TAG
from beaker_bridge.record.serializers import MAX_PLAIN_SIZE, JSONSerializer, PickleSerializer

ENVELOPES = [BareEnvelope, PickledEnvelope, NamespaceEnvelope]
laws = settings(deadline=None)


def through_json(value):
    """Return what is read of a value that was written."""
    serializer = JSONSerializer()
    return serializer.loads(serializer.dumps({"v": value}))["v"]


def exactly(value):
    """Return a value with its types, and what an equality does not see of it."""
    kind = type(value)
    if kind is dict:
        return kind, {key: exactly(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind, list(map(exactly, value))
    if kind is set:
        return kind, sorted(map(repr, map(exactly, value)))
    if kind in (datetime, time):
        return kind, repr(value.replace(tzinfo=None)), value.utcoffset(), getattr(value.tzinfo, "key", None)
    return kind, repr(value)


# -- JSON --------------------------------------------------------------------------------------------

zones = (
    st.none()
    | st.timezones()
    | st.integers(-86_399, 86_399).map(
        # Python itself misreads an offset of less than a second.
        lambda seconds: timezone(timedelta(seconds=seconds))
    )
)
hashables = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.datetimes(timezones=zones, allow_imaginary=True),
        st.dates(),
        st.times(timezones=zones),
        st.timedeltas(),
        st.decimals().filter(lambda value: not value.is_snan()),
        st.uuids(),
        st.binary(),
    ),
    lambda children: st.lists(children, max_size=3).map(tuple),
    max_leaves=4,
)
values = st.recursive(
    hashables | st.sets(hashables, max_size=4),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text() | st.just(TAG), children, max_size=4),
    max_leaves=10,
)


@laws
@given(values)
@example({TAG: 1})
@example({TAG: {TAG: (1, {TAG: b""})}})
@example([{TAG: ["tuple", [1]]}, (1, [2, (3,)])])
@example({"rows": [{"n": number, "at": date(2024, 1, 1)} for number in range(100)]})
@example([[{"n": (number,)}] for number in range(100)])
@example([{TAG: number} for number in range(100)])
@example([[[1]] for number in range(100)])
@example(Decimal("sNaN"))
def test_what_people_store_survives_exactly(value):
    """Every type that the documentation names comes back as it was, nested as it was."""
    assert exactly(through_json(value)) == exactly(value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Paris")),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris")),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=timezone(timedelta(hours=1))),
        datetime(2024, 10, 27, 2, 30, fold=1),  # noqa: DTZ001 -- without a zone is what is tried
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc),
        time(1, 2, 3, 4, fold=1),
        time(1, tzinfo=ZoneInfo("Asia/Tokyo")),
        time(1, tzinfo=timezone(timedelta(seconds=-1))),
    ],
    ids=str,
)
def test_times_keep_their_zone_and_fold(value):
    """A time in a zone stays in that zone, the repeated hour of a change of clocks stays the second one."""
    read = through_json(value)

    assert (read.fold, exactly(read)) == (value.fold, exactly(value))


#: Hypothesis tries the texts that it finds in our code, too; a dict with our tag as its only key is ours.
plain_keys = st.text(st.characters()).filter(lambda key: key != TAG)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(plain_keys, children, max_size=4),
)
plain_records = st.dictionaries(plain_keys, plain_values, max_size=4)


@laws
@given(plain_records)
def test_beaker_reads_our_plain_json(record):
    """What JSON has of its own is written as plain JSON, which Beaker's serializer reads."""
    assert repr(BeakerJSONSerializer().loads(JSONSerializer().dumps(record))) == repr(record)


@laws
@given(plain_records)
@example({"a": {TAG: ["tuple", [1]], "b": 1}})
def test_we_read_beakers_json(record):
    """What Beaker's JSON serializer wrote is read, also where our tag is a key among others."""
    assert repr(JSONSerializer().loads(BeakerJSONSerializer().dumps(record))) == repr(record)


@laws
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers())))
def test_pickles_both_ways(record):
    """Beaker reads our pickled record, and the other way round, also with keys that JSON does not take."""
    record = {**record, 1: object, ("a", 2): {3}}

    assert BeakerPickleSerializer().loads(PickleSerializer().dumps(record)) == record
    assert PickleSerializer().loads(BeakerPickleSerializer().dumps(record)) == record


def test_a_set_is_written_in_one_order():
    """Two processes, whose sets differ in their order, write the same record."""
    ours, theirs = {"a", "b", "c", 1, None}, set()
    for item in (None, 1, "c", "b", "a"):
        theirs.add(item)
    texts = [JSONSerializer().encode(value) for value in (ours, theirs)]

    assert texts[0] == texts[1] == b'{"__bb__":["set",["a","b","c",1,null]]}'


def test_encode_tells_every_change():
    """The encoding that detects changes is another one for another value, type or order of a list."""
    others = [[1, 2], [2, 1], (1, 2), [1, "2"], [1, 2, 2], {"1": 2}, [True, 2], [1, 2.5], {1, 2}, [[1], 2]]
    encoded = [JSONSerializer().encode(value) for value in others]

    assert len(set(encoded)) == len(others)
    assert encoded[0] == JSONSerializer().encode([1, 2])


def test_a_uuid_is_one():
    """The text of a UUID comes back as a ``UUID``, not as a text."""
    value = UUID("12345678-1234-5678-1234-567812345678")

    assert exactly(through_json([value])) == exactly([value])


# -- Refused -----------------------------------------------------------------------------------------


def holding_itself(kind):
    """Return a list or dict that holds itself, several times."""
    value = kind()
    if kind is dict:
        value.update(a=value, b=value)
    else:
        value.extend([value] * 100)
    return value


def deep(depth):
    """Return lists in lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "a value of type object is not JSON (it is of type object)"),
        ([1, {"x": object()}], "a value of type object is not JSON (it is of type list)"),
        ({"x": (1, {frozenset()})}, "a value of type frozenset is not JSON (it is of type dict)"),
        (1j, "a value of type complex is not JSON"),
        ({1: "x"}, "the key 1 is of type int, JSON would turn it into a string"),
        ([{"a": {None: 1}}], "the key None is of type NoneType"),
        ([{True: 1}] * 50, "the key True is of type bool"),
        ([{(1,): 1}], "the key (1,) is of type tuple"),
        (deep(100_000), "nested too deeply"),
        ({"x": deep(100_000)}, "nested too deeply"),
        (holding_itself(dict), "or holds itself"),
        (holding_itself(list), "or holds itself"),
    ],
    ids=range(12),
)
def test_what_json_does_not_hold_is_refused(value, told):
    """A value or key that would not come back is refused, and the error names its key and type."""
    with pytest.raises(SessionValueError) as caught:
        RecordCodec(JSONSerializer()).serialize({"good": 1, "bad": value})

    assert str(caught.value).startswith("session['bad'] cannot be stored: ")
    assert told in str(caught.value)
    assert caught.value.name == "bad"
    assert isinstance(caught.value.original, (TypeError, ValueError))


def test_a_key_of_the_session_that_is_no_text_is_refused():
    """A key of the session itself that is no text is named."""
    with pytest.raises(SessionValueError, match=r"^session\[5\] cannot be stored: the key 5 is of type int") as caught:
        RecordCodec(JSONSerializer()).serialize({"a": 1, 5: 2})

    assert caught.value.name == 5


def test_a_value_that_pickle_refuses_names_its_key():
    """With pickle, too, the error names the key."""
    with pytest.raises(SessionValueError, match=r"^session\['f'\] cannot be stored") as caught:
        RecordCodec(PickleSerializer()).serialize({"a": 1, "f": lambda: None})

    assert caught.value.name == "f"


class Odd:
    """A serializer of an application's."""

    def __init__(self, dumped):
        self._dumped = dumped

    def dumps(self, record):
        if isinstance(self._dumped, Exception) and len(record) > 1:
            raise self._dumped
        return self._dumped

    def loads(self, plain):
        return {"plain": plain}


def test_a_record_that_is_refused_as_a_whole():
    """Where no key alone is to blame, the error tells what the serializer said."""
    cause = OverflowError("too much of it")
    with pytest.raises(SessionValueError, match=r"^the session cannot be stored: too much of it$") as caught:
        RecordCodec(Odd(cause)).serialize({"a": 1, "b": 2})

    assert caught.value.original is cause
    assert caught.value.name is None


def test_a_serializer_that_does_not_return_bytes():
    """A serializer that returns text, as the module ``json`` does, is told instead of failing later."""
    with pytest.raises(SessionValueError, match="dumps must return bytes, got a str"):
        RecordCodec(json).serialize({"a": 1})


def test_an_applications_own_serializer():
    """An object with ``dumps`` and ``loads`` is used as it is."""
    codec = RecordCodec(Odd(b"dumped"))

    assert codec.decode(codec.seal(codec.serialize({"a": 1}))) == ({"plain": b"dumped"}, False)


# -- Too large ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("surplus", [0, 1])
def test_what_is_written_can_be_read(monkeypatch, surplus):
    """A record up to the bound is written and read, a larger one is refused when it is written."""
    monkeypatch.setattr(serializers, "MAX_PLAIN_SIZE", 100)
    codec = RecordCodec(JSONSerializer())
    record = {"v": "x" * (100 - len('{"v":""}') + surplus)}
    if not surplus:
        assert codec.decode(codec.seal(codec.serialize(record))) == (record, False)
        return

    with pytest.raises(SessionTooLargeError, match="would have 101 bytes as JSON, a record holds 100") as caught:
        codec.serialize(record)
    assert caught.value.value == 101


def test_a_record_over_the_bound_is_damaged(monkeypatch):
    """A record of somebody else's that is over the bound is damaged, also by one byte."""
    codec = RecordCodec(JSONSerializer())
    raw = codec.seal(codec.serialize({"v": "x" * 293}))
    monkeypatch.setattr(serializers, "MAX_PLAIN_SIZE", 300)

    with pytest.raises(DamagedRecordError, match="it would have over 300 bytes"):
        codec.decode(raw)


@pytest.fixture(scope="module")
def bomb():
    """Return a quarter of a megabyte that would become a quarter of a gigabyte."""
    compressor = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    return b"".join(compressor.compress(zeros) for _ in range(1 << 8)) + compressor.flush()


@pytest.mark.parametrize("value", ["short", "long" * 100])
def test_nothing_may_follow_a_record(value):
    """Bytes behind a record, be it stored as it is or compressed, are no part of one: it is damaged."""
    plain = JSONSerializer().dumps({"a": value})

    assert JSONSerializer().loads(plain) == {"a": value}
    with pytest.raises(ValueError, match="something follows it"):
        JSONSerializer().loads(plain + b"x")


@pytest.mark.parametrize("number", [1, 40])
@pytest.mark.parametrize("leaf", ["text", ("a", "tuple")])
def test_what_lies_deep_is_carried(number, leaf):
    """A value far down, alone or in each of many rows, comes back as it was, of whatever type."""
    value = leaf
    for _ in range(60):
        value = [value]
    record = {"rows": [value] * number}

    assert JSONSerializer().loads(JSONSerializer().dumps(record)) == record


@pytest.mark.parametrize("place", [20, -1])
def test_a_stored_record_that_was_changed_is_none(place):
    """A record that stands in zlib's format as it is has a checksum: another byte in either of them is noticed."""
    plain = bytearray(JSONSerializer().dumps({"a": "short"}))
    plain[place] ^= 1

    with pytest.raises(ValueError, match="it is cut"):
        JSONSerializer().loads(bytes(plain))


def test_a_stored_record_is_one_block():
    """What is put into zlib's format as it is, and is longer than one of its blocks, is none of it."""
    text = b'{"a": 1' + b" " * 70_000 + b"}"
    with pytest.raises(ValueError, match="it is cut"):
        JSONSerializer().loads(serializers._STORED + bytes(4) + text + zlib.adler32(text).to_bytes(4, "big"))


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_bomb_is_cut(envelope, bomb):
    """A small record that would become a huge one is refused at the bound, and takes no more memory than that."""
    codec = RecordCodec(JSONSerializer(), envelope=envelope)
    raw = codec.seal(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedRecordError, match=f"it would have over {MAX_PLAIN_SIZE} bytes"):
            codec.decode(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(raw) < 1 << 20
    assert peak < 3 * MAX_PLAIN_SIZE


# -- Padded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 63, 64, 300, 65_400, 70_000, 200_000])
@pytest.mark.parametrize(
    ("serializer", "beakers"),
    [(JSONSerializer(step=64), BeakerJSONSerializer()), (PickleSerializer(step=64), BeakerPickleSerializer())],
    ids=["json", "pickle"],
)
def test_a_padded_record_is_read_by_beaker_and_here(serializer, beakers, size):
    """A record that is padded has the same length whatever is in it, and every reader finds the same in it."""
    record = {"a": "x" * size}
    plain = serializer.dumps(record)

    assert serializer.loads(plain) == type(serializer)().loads(plain) == beakers.loads(plain) == record
    assert len(plain) == len(serializer.dumps({"a": secrets.token_hex(size)[:size]}))


def test_white_space_alone_is_no_record():
    """What is nothing but padding, or has something behind it, is no JSON."""
    for text in (b"", b" ", b"{} \xc2\xa0", b"{} {}"):
        with pytest.raises(ValueError, match="E"):
            JSONSerializer().loads(zlib.compress(text))
