"""The envelopes of Beaker's backends: read by their form, and never unpickled."""

import base64
import io
import os
import pickle
import tracemalloc

import pytest
from beaker.container import DBMNamespaceManager, FileNamespaceManager
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beaker_bridge.exceptions import DamagedRecordError
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.envelope import BareEnvelope, NamespaceEnvelope, PickledEnvelope
from beaker_bridge.record.serializers import JSONSerializer

ENVELOPES = [BareEnvelope, PickledEnvelope, NamespaceEnvelope]
laws = settings(deadline=None)

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
