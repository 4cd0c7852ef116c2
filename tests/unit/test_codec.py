"""Records to what a store holds, and back: the envelopes of Beaker's backends, encryption, and garbage."""

import base64
import io
import json
import os
import pickle
import tracemalloc
import zlib
from collections import OrderedDict

import pytest
from beaker.container import DBMNamespaceManager, FileNamespaceManager
from beaker.session import Session as BeakerSession
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
KEYS = {"encrypt_key": "an encrypt key", "validate_key": "a validate key"}
laws = settings(deadline=None)


def cipher(*pairs, nonce_bits=128):
    """Return a cipher with these pairs of keys."""
    return Cipher(pairs or [tuple(KEYS.values())], crypto_type="default", nonce_bits=nonce_bits)


# -- Envelopes ---------------------------------------------------------------------------------------

texts = st.integers(0, 200_000).map(lambda size: b"QUJD" * (size // 4)) | st.binary(max_size=200).map(base64.b64encode)


@laws
@given(texts)
@example(b"x" * 0xFF)
@example(b"x" * 0x100)
@example(b"x" * 0xFFFF)
@example(b"x" * 0x1_0000)
def test_what_pickle_reads_of_an_envelope(text):
    """An envelope is what Beaker's backends unpickle: the text, or a dict that holds it."""
    assert pickle.loads(PickledEnvelope.wrap(text)) == text.decode()
    assert pickle.loads(NamespaceEnvelope.wrap(text)) == {"session": text.decode()}
    assert BareEnvelope.wrap(text) == BareEnvelope.unwrap(text) == text


@laws
@given(texts, st.sampled_from([1, 2, 3, 4, 5]), st.sampled_from([pickle.dumps, pickle._dumps]))
@example(b"x" * 0x1_0000, 4, pickle._dumps)
def test_every_pickler_of_an_envelope_is_read(text, protocol, dumps):
    """An envelope is read whichever binary protocol, and whichever of Python's picklers, wrote it."""
    assert PickledEnvelope.unwrap(dumps(text.decode(), protocol)) == text.decode()
    assert NamespaceEnvelope.unwrap(dumps({"session": text.decode()}, protocol)) == text.decode()
    assert NamespaceEnvelope.unwrap(dumps({}, protocol)) is None


def test_beakers_own_backends_and_ours(tmp_path):
    """Beaker's file and dbm backends read what we wrap, and what they write is read."""
    text = base64.b64encode(os.urandom(100_000))
    for backend, envelope, path in (
        (FileNamespaceManager, NamespaceEnvelope, "container_file/a/ab/abc.cache"),
        (DBMNamespaceManager, PickledEnvelope, None),
    ):
        namespace = backend("abc", data_dir=str(tmp_path), digest_filenames=False)
        namespace.acquire_write_lock(replace=True)
        namespace["session"] = text.decode()
        raw = namespace.dbm["session"] if path is None else None
        namespace.release_write_lock()
        raw = (tmp_path / path).read_bytes() if path else raw

        assert envelope.unwrap(raw) == text.decode()
        assert envelope.wrap(text) == raw


class Code:
    """Unpickled, it makes a directory."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def with_persistent_id(value):
    """Return a pickle that refers to an object outside of it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "an id" if isinstance(value, Code) else None

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("place", [lambda code: code, lambda code: {"session": code}, lambda code: {"session": [code]}])
def test_no_code_from_the_store(tmp_path, envelope, place, protocol):
    """A pickle that would make a directory is damaged under JSON, and makes none: as envelope, in it, or as record."""
    planted = place(Code(tmp_path / "planted"))
    codec = RecordCodec(JSONSerializer(), envelope=envelope)
    raw = pickle.dumps(planted, protocol)
    for attack in (raw, codec.seal(raw), with_persistent_id(planted)):
        with pytest.raises(DamagedRecordError):
            codec.decode(attack)

    assert not (tmp_path / "planted").exists()
    pickle.loads(raw)
    assert (tmp_path / "planted").exists(), "the attack would work"


@pytest.mark.parametrize(
    "raw",
    [
        b"]r\xff\xff\xff\x07.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f\x8c\x01x.",
        b"\x80\x02X\xff\xff\xff\x7fxq\x00.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
    ids=["memo", "bytes", "frame", "text", "bytearray"],
)
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_few_bytes_ask_for_no_memory(envelope, raw):
    """A pickle of a few bytes that names gigabytes costs none of them."""
    tracemalloc.start()
    try:
        with pytest.raises(DamagedRecordError):
            RecordCodec(JSONSerializer(), envelope=envelope).decode(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


@pytest.mark.parametrize("envelope", [PickledEnvelope, NamespaceEnvelope])
@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b".",
        lambda raw: raw[:-1] + b"0.",
        lambda raw: raw[:20] + raw[21:],
        lambda raw: b"",
        lambda raw: pickle.dumps(None),
        lambda raw: pickle.dumps(["text"]),
        lambda raw: pickle.dumps({"session": 5}),
        lambda raw: pickle.dumps({"another": "text"}),
        lambda raw: pickle.dumps({"session": "text", "another": "text"}),
    ],
    ids=range(10),
)
def test_an_envelope_of_another_form_is_damaged(envelope, change):
    """An envelope that is cut, longer, or holds anything but a session's text is damaged."""
    codec = RecordCodec(JSONSerializer(), envelope=envelope)
    raw = codec.seal(codec.serialize({"a": 1}))

    with pytest.raises(DamagedRecordError, match=r"its envelope (is|holds)|UnicodeDecodeError"):
        codec.decode(change(raw))


def test_an_envelope_without_a_session_is_an_empty_record():
    """What Beaker leaves of a namespace that it emptied is no damage, and no session."""
    codec = RecordCodec(JSONSerializer(), envelope=NamespaceEnvelope)

    assert codec.decode(pickle.dumps({})) == ({}, False)


# -- Encryption --------------------------------------------------------------------------------------


def beakers(serializer="json", nonce_bits=128):
    """Return a session of Beaker's that encrypts with the same keys."""
    return BeakerSession(
        {}, use_cookies=False, data_serializer=serializer, encrypt_nonce_bits=nonce_bits, type="memory", **KEYS
    )


@pytest.mark.parametrize("nonce_bits", [48, 56, 64, 128, 256])
@pytest.mark.parametrize(("name", "serializer"), [("json", JSONSerializer()), ("pickle", PickleSerializer())])
def test_encryption_both_ways(name, serializer, nonce_bits):
    """Beaker decrypts what we encrypt, and the other way round, whatever the size of the nonce."""
    codec = RecordCodec(serializer, cipher=cipher(nonce_bits=nonce_bits))
    theirs = beakers(name, nonce_bits)
    record = {"user": "ada", "n": [1, 2]}

    assert theirs._decrypt_data(codec.seal(codec.serialize(record)).decode()) == record
    assert codec.decode(theirs._encrypt_data(record).encode()) == (record, False)


@pytest.mark.parametrize(("name", "serializer"), [("json", JSONSerializer()), ("pickle", PickleSerializer())])
def test_without_keys_both_ways(name, serializer):
    """Without an ``encrypt_key`` Beaker reads our text, and we read Beaker's."""
    codec = RecordCodec(serializer)
    theirs = BeakerSession({}, use_cookies=False, data_serializer=name, type="memory")
    record = {"user": "ada", "n": [1, 2]}

    assert theirs._decrypt_data(codec.seal(codec.serialize(record)).decode()) == record
    assert codec.decode(theirs._encrypt_data(record).encode()) == (record, False)


def test_nothing_is_readable_and_nothing_repeats():
    """An encrypted record shows nothing of its content, and is another one each time."""
    codec = RecordCodec(PickleSerializer(), cipher=cipher())
    plain = codec.serialize({"name": "the patient's name"})
    texts = {codec.seal(plain) for _ in range(50)}

    assert len(texts) == len({text[:24] for text in texts}) == 50
    assert not any(b"patient" in text or b"patient" in base64.b64decode(text[24:]) for text in texts)


def test_retired_keys_are_accepted_and_told():
    """A record under a retired pair of keys is read, and is to be written anew; a removed key opens nothing."""
    current, retired, removed = ("new", "v"), ("old", "v"), ("removed", "v")
    codec = RecordCodec(JSONSerializer(), cipher=cipher(current, ("new", "v0"), retired))
    sealed = {
        pair: RecordCodec(JSONSerializer(), cipher=cipher(pair)).seal(codec.serialize({"a": 1}))
        for pair in (current, ("new", "v0"), retired, removed)
    }

    assert codec.decode(sealed[current]) == ({"a": 1}, False)
    assert codec.decode(sealed["new", "v0"]) == ({"a": 1}, True)
    assert codec.decode(sealed[retired]) == ({"a": 1}, True)
    with pytest.raises(DamagedRecordError, match="no key opens it"):
        codec.decode(sealed[removed])
    assert RecordCodec(JSONSerializer(), cipher=cipher(current)).decode(codec.seal(codec.serialize({})))[1] is False


def test_a_plain_record_under_keys_is_damaged():
    """Under an ``encrypt_key`` no record in plain text is read, nor an encrypted one without the key."""
    plain, encrypted = RecordCodec(JSONSerializer()), RecordCodec(JSONSerializer(), cipher=cipher())
    written = plain.serialize({"a": 1})

    with pytest.raises(DamagedRecordError):
        encrypted.decode(plain.seal(written))
    with pytest.raises(DamagedRecordError):
        plain.decode(encrypted.seal(written))


def test_a_changed_record_is_damaged():
    """A record of which any one bit was changed opens nothing."""
    codec = RecordCodec(JSONSerializer(), cipher=cipher())
    raw = codec.seal(codec.serialize({"a": 1}))
    nonce, sealed = raw[:24], base64.b64decode(raw[24:])

    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(DamagedRecordError, match="no key opens it"):
            codec.decode(nonce + base64.b64encode(changed))


# -- Older records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("keys", [None, cipher()], ids=["plain", "encrypted"])
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


@pytest.mark.parametrize("keys", [None, cipher()], ids=["plain", "encrypted"])
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
    assert "(it holds a dict)" in messages[0]
    assert "(it holds a list)" in messages[2]


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
    RecordCodec(JSONSerializer(), cipher=keys, envelope=envelope) for keys in (None, cipher()) for envelope in ENVELOPES
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


NO_TIMES = ["yesterday", None, [1], float("nan"), float("inf"), -float("inf"), 10**400]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("_creation_time", value) for value in NO_TIMES),
        *(("_accessed_time", value) for value in NO_TIMES),
        *(("_bb_moved", value) for value in NO_TIMES),
        *(("_bb_expiry", value) for value in (*NO_TIMES, 0, -1, True, 1.5, 1 << 31)),
        *((key, value) for key in ("_domain", "_path") for value in (5, [], {"a": 1}, True)),
    ],
)
def test_what_sessions_compute_with_is_checked(key, value):
    """A record whose own time, lifetime or path is none is damaged: nobody computes with it."""
    codec = RecordCodec(JSONSerializer())

    with pytest.raises(DamagedRecordError, match=rf"session: its {key} is none$"):
        codec.decode(codec.seal(BeakerJSONSerializer().dumps({"a": 1, key: value})))


def test_what_a_session_holds_beside_the_applications_keys():
    """A record with the times, the lifetime, the domain and the path of a session is read, as Beaker writes them."""
    codec = RecordCodec(JSONSerializer())
    record = {
        "_creation_time": 1_700_000_000.5,
        "_accessed_time": 1_700_000_000,
        "_bb_moved": 0,
        "_bb_expiry": 0x7FFFFFFF,
        "_domain": None,
        "_path": "/",
        "_id": "a" * 32,
        "_expires": None,
    }

    assert codec.decode(codec.seal(codec.serialize(record))) == (record, False)
    assert codec.decode(codec.seal(codec.serialize({"_domain": ".e.org"}))) == ({"_domain": ".e.org"}, False)
