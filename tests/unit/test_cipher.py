"""Beaker's encryption of records, both ways."""

import base64

import pytest
from beaker.session import Session as BeakerSession

from beaker_bridge.exceptions import DamagedRecordError
from beaker_bridge.record.cipher import Cipher
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.serializers import JSONSerializer, PickleSerializer

PAIR = ("an encrypt key", "a validate key")
#: Beaker's default is another cipher before 1.14, or none.
KEYS = {"encrypt_key": PAIR[0], "validate_key": PAIR[1], "crypto_type": "cryptography"}


def cipher(*pairs, nonce_bits=128):
    """Return a cipher with these pairs of keys."""
    return Cipher(pairs or [PAIR], crypto_type="default", nonce_bits=nonce_bits)


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
