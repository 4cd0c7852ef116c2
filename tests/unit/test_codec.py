"""Records to what a store holds, and back: older records, and garbage."""

import base64
import json
import pickle
import zlib
from collections import OrderedDict

import pytest
from beaker.util import JsonSerializer as BeakerJSONSerializer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beaker_bridge.exceptions import DamagedRecordError
from beaker_bridge.record.cipher import Cipher
from beaker_bridge.record.codec import MAX_REFUSED, RecordCodec
from beaker_bridge.record.envelope import BareEnvelope, NamespaceEnvelope, PickledEnvelope
from beaker_bridge.record.json_types import TAG
from beaker_bridge.record.serializers import JSONSerializer, PickleSerializer

ENVELOPES = [BareEnvelope, PickledEnvelope, NamespaceEnvelope]
laws = settings(deadline=None)
CIPHER = Cipher([("an encrypt key", "a validate key")], crypto_type="default", nonce_bits=128)


# -- Older records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("keys", [None, CIPHER], ids=["plain", "encrypted"])
def test_legacy_serializer(envelope, keys):
    """With ``legacy_serializer`` a pickled record is read, and is to be written anew as JSON."""
    old = RecordCodec(PickleSerializer(), cipher=keys, envelope=envelope)
    codec = RecordCodec(JSONSerializer(), legacy=PickleSerializer(), cipher=keys, envelope=envelope)
    raw, current = old.seal(old.serialize({"a": {1}})), codec.seal(codec.serialize({"a": 1}))

    assert codec.decode(raw) == ({"a": {1}}, True)
    assert codec.decode(current) == ({"a": 1}, False)


class Base85:
    """A serializer of an application's own."""

    dumps = staticmethod(lambda record: base64.b85encode(json.dumps(record).encode()))
    loads = staticmethod(lambda plain: json.loads(base64.b85decode(plain)))


@pytest.mark.parametrize("keys", [None, CIPHER], ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    ("written", "readers", "told"),
    [
        (PickleSerializer(), [JSONSerializer()], "it is a pickle; legacy_serializer = pickle reads those in a store"),
        (PickleSerializer(), [JSONSerializer()] * 2, "it is a pickle; legacy_serializer = pickle reads those in a"),
        (PickleSerializer(), [Base85], "it is a pickle; legacy_serializer = pickle reads those in a store"),
        (JSONSerializer(), [PickleSerializer()], "it is JSON; legacy_serializer = json reads that in a store"),
        (JSONSerializer(), [PickleSerializer()] * 2, "it is JSON; legacy_serializer = json reads that in a store"),
        (BeakerJSONSerializer(), [PickleSerializer()], "it is JSON; legacy_serializer = json reads that in a store"),
        (JSONSerializer(), [Base85, PickleSerializer()], "it is JSON; legacy_serializer = json reads that in a store"),
        (Base85, [PickleSerializer(), JSONSerializer()], "session: error$"),
    ],
)
def test_a_record_of_another_serializer_names_the_option(written, readers, told, keys):
    """A record that another serializer has written is damaged, and the message says which option would read it."""
    record = {"a": 1, "text": "x" * 500}
    raw = RecordCodec(JSONSerializer(), cipher=keys).seal(written.dumps(record))

    with pytest.raises(DamagedRecordError, match=told):
        RecordCodec(readers[0], legacy=readers[1] if readers[1:] else None, cipher=keys).decode(raw)


@pytest.mark.parametrize("plain", [b"\x80garbage", b"\x80", b"", zlib.compress(b"[]"), zlib.compress(b"{}")[:-1]])
def test_what_is_in_no_form_names_no_option(plain):
    """Bytes that no serializer has written are damaged, whatever an option says."""
    for serializer in (PickleSerializer(), JSONSerializer(), Base85):
        with pytest.raises(DamagedRecordError, match=r"session: ([A-Z]?\w*[eE]rror|it (is cut|holds).*)$"):
            RecordCodec(serializer).decode(base64.b64encode(plain))


def test_a_pickle_of_what_is_gone_is_told_by_its_error():
    """A pickle that the legacy serializer cannot open, as its class is gone, names that error, not the option."""
    raw = base64.b64encode(b"\x80\x02cgone\nGone\n.")

    with pytest.raises(DamagedRecordError, match=r"session: ModuleNotFoundError$"):
        RecordCodec(JSONSerializer(), legacy=PickleSerializer()).decode(raw)


def test_what_neither_serializer_reads():
    """A record that is nothing under the older serializer either is damaged."""
    codec = RecordCodec(JSONSerializer(), legacy=PickleSerializer())

    with pytest.raises(DamagedRecordError):
        codec.decode(base64.b64encode(b"neither"))


class Own:
    """An object of the application's own."""


def test_before_json_the_log_names_what_it_will_refuse(caplog):
    """Who writes pickles and reads JSON is about to write it: each key and type that JSON refuses is named once."""
    codec = RecordCodec(PickleSerializer(), legacy=JSONSerializer())
    for name in ("a", "b"):
        codec.serialize({"fine": {"set": {1}}, "cart": {5: name}, "own": Own(), "text": name})
    codec.serialize({"cart": [Own()]})
    messages = [record.getMessage() for record in caplog.records]

    assert [message.partition(" cannot be stored")[0] for message in messages] == [
        "with data_serializer = json: session['cart']",
        "with data_serializer = json: session['own']",
        "with data_serializer = json: session['cart']",
    ]
    assert "(it is of type dict)" in messages[0]
    assert "(it is of type list)" in messages[2]


def test_before_json_the_log_names_what_it_will_change(caplog):
    """What JSON brings back as another type is named then, too."""
    codec = RecordCodec(PickleSerializer(), legacy=JSONSerializer())
    for _ in range(2):
        codec.serialize({"named before": OrderedDict(a=1)})
    (record,) = caplog.records

    assert "session['named before'] holds a collections.OrderedDict" in record.getMessage()


def test_what_json_will_refuse_is_named_a_limited_number_of_times(caplog):
    """A session whose keys are made of data fills neither the log nor the memory."""
    codec = RecordCodec(PickleSerializer(), legacy=JSONSerializer())
    for number in range(MAX_REFUSED + 10):
        codec.serialize({f"key {number}": Own()})

    assert len(caplog.records) == MAX_REFUSED


@pytest.mark.parametrize("legacy", [None, PickleSerializer()])
def test_without_json_ahead_nothing_is_said_of_it(caplog, legacy):
    """A site that stays with pickles is not told of JSON."""
    RecordCodec(PickleSerializer(), legacy=legacy).serialize({"own": Own()})

    assert caplog.records == []


# -- Garbage -----------------------------------------------------------------------------------------

#: Codecs that meet garbage; none unpickles a record, which only who asks for pickle does.
READERS = [
    RecordCodec(JSONSerializer(), cipher=keys, envelope=envelope) for keys in (None, CIPHER) for envelope in ENVELOPES
]


def decoded(codec, raw):
    """Return a record, or nothing for a damaged one; anything else is raised."""
    try:
        record, _ = codec.decode(raw)
    except DamagedRecordError as error:
        return None if error.value == len(raw) and f"a record of {len(raw)} bytes" in str(error) else error
    return record


@laws
@given(st.binary(max_size=200))
@example(b"")
@example(pickle.dumps({}))
def test_random_bytes_are_damaged(raw):
    """Whatever bytes stand in the store, reading them is a damaged record, or a record."""
    for codec in READERS:
        assert isinstance(decoded(codec, raw), (dict, type(None)))


@laws
@given(st.binary(max_size=60), st.text(max_size=60), st.sampled_from(READERS))
def test_random_content_is_damaged(plain, text, codec):
    """Bytes that are well wrapped, signed and encrypted, and still no session, are damaged."""
    assert decoded(codec, codec.seal(plain)) is None
    for content in (plain, text.encode()):
        assert isinstance(decoded(codec, codec.seal(zlib.compress(content))), (dict, type(None)))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)
tags = st.sampled_from(
    [*"datetime date time timedelta Decimal UUID bytes tuple set dict other".split(), 1, None]  # noqa: SIM905 -- short
)


@laws
@given(tags, values)
@example("UUID", 5)
@example("datetime", ["2024-01-01", 0, "../../etc/passwd"])
@example("datetime", ["2024-01-01", 5, "UTC"])
@example("dict", [[[], 1]])
@example("set", [[]])
@example("timedelta", [1e300, 0, 0])
@example("Decimal", "1e999999999999999999999")
def test_random_tags_are_read(name, content):
    """A record with a tag of ours around anything at all is read."""
    for tagged in ([name, content], content, [name], [name, content, 1]):
        plain = zlib.compress(json.dumps({"a": {TAG: tagged}}).encode())
        assert isinstance(decoded(READERS[0], READERS[0].seal(plain)), dict)


@pytest.mark.parametrize(
    ("plain", "told"),
    [
        (zlib.compress(b"[1]"), "it holds a list, not a dict"),
        (zlib.compress(b"5"), "it holds a int, not a dict"),
        (zlib.compress(b'{"__bb__":["tuple",[1]]}'), "it holds a tuple, not a dict"),
        (zlib.compress(b"{}")[:-1], "it is cut, or something follows it"),
        (zlib.compress(b"{}") + b"x", "it is cut, or something follows it"),
        (b'{"a":1}', "error"),
        (zlib.compress(b'{"a":'), "JSONDecodeError"),
        (zlib.compress(b"[" * 1_000_000), "RecursionError"),
        (zlib.compress(b"\xff"), "UnicodeDecodeError"),
    ],
)
def test_the_reason_is_told(plain, told):
    """The message says what is wrong with a record."""
    codec = RecordCodec(JSONSerializer())

    with pytest.raises(DamagedRecordError, match=f"session: {told}$") as caught:
        codec.decode(codec.seal(plain))
    assert caught.value.original is caught.value.__cause__


@pytest.mark.parametrize(
    "content",
    [
        '{"a":"geheim',
        '"geheim"',
    ],
)
def test_the_reason_quotes_nothing(content):
    """A message that goes into a log holds nothing of what the session held."""
    codec = RecordCodec(JSONSerializer())

    with pytest.raises(DamagedRecordError) as caught:
        codec.decode(codec.seal(zlib.compress(content.encode())))
    assert "geheim" not in str(caught.value)
