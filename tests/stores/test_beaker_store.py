"""Other backends, through Beaker's own interface: the store contract as far as that interface keeps it."""

from __future__ import annotations

import pickle
import threading

import pytest
from beaker.cache import clsmap
from beaker.container import AbstractDictionaryNSManager, FileNamespaceManager, NamespaceManager
from beaker.synchronization import null_synchronizer

from beaker_bridge.exceptions import DamagedRecordError, SessionStoreError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.record.serializers import JSONSerializer
from beaker_bridge.stores import open_store
from beaker_bridge.testing.contract import PATIENCE, BeakerStoreContract, together

CODEC = RecordCodec(JSONSerializer(), envelope=BareEnvelope)


class BeakerContract(BeakerStoreContract):
    """What a backend that we do not know keeps."""

    text_only = True
    lists_ids = False
    # A process of its own would not know these backends.
    several_processes = False


class TestBackendWithFiles(BeakerContract):
    """A backend whose locks are files, as Beaker's own ``file`` would be if we did not know it."""

    @pytest.fixture
    def options(self, tmp_path, monkeypatch):
        monkeypatch.setitem(clsmap._clsmap, "ext:files", FileNamespaceManager)
        return {"type": "ext:files", "data_dir": str(tmp_path)}


def test_an_applications_own_class_is_used(tmp_path):
    """With ``namespace_class`` the record stands where the application's class puts it, whatever the type."""
    store = open_store(read_options(given({"namespace_class": FileNamespaceManager, "data_dir": str(tmp_path)})))
    store.swap("0" * 32, None, b"text")

    assert store.read("0" * 32).raw == b"text"
    assert len(list((tmp_path / "container_file").rglob("*.cache"))) == 1


class Dictionary(AbstractDictionaryNSManager):
    """A backend in memory, which takes what arguments it is given and remembers them."""

    held: dict = {}  # noqa: RUF012 -- the server that every namespace talks to
    arguments: dict = {}  # noqa: RUF012 -- as above
    #: What the server says to a reader, instead of a value.
    error = None

    def __init__(self, namespace, **arguments):
        super().__init__(namespace)
        type(self).arguments = arguments
        self.dictionary = self.held.setdefault(namespace, {})

    def __getitem__(self, key):
        if self.error is not None:
            raise self.error
        return super().__getitem__(key)

    def set_value(self, key, value, expiretime=None):
        self[key] = value
        type(self).arguments["expiretime"] = expiretime

    def do_remove(self):
        self.held.pop(self.namespace, None)


@pytest.fixture
def backend(monkeypatch):
    """Return a backend of a test's own, registered as ``ext:dictionary``."""
    monkeypatch.setitem(clsmap._clsmap, "ext:dictionary", Dictionary)
    monkeypatch.setattr(Dictionary, "held", {})
    return Dictionary


class TestBackendInMemory(BeakerContract):
    """A backend whose locks are the process's."""

    @pytest.fixture
    def options(self, backend):
        return {"type": "ext:dictionary"}

    def test_the_backend_is_given_what_beaker_would_give_it(self, backend, session_id):
        """The options that are the backend's own reach it, and those that were not given do not."""
        options = {"url": "somewhere", "table_name": "a_table", "colour": "blue", "timeout": 100, "data_dir": "there"}
        options |= {"username": "me", "password": "p", "key_prefix": "k:"}
        store = open_store(read_options(given({"type": "ext:dictionary", **options})))
        store.swap(session_id, None, b"raw", 100.5)

        assert backend.arguments == {
            "url": "somewhere",
            "username": "me",
            "password": "p",
            "key_prefix": "k:",
            "table_name": "a_table",
            "colour": "blue",
            "data_dir": "there",
            "digest_filenames": False,
            "timeout": 220,
            "expiretime": 101,
        }

        store = open_store(read_options(given({"type": "ext:dictionary"})))
        store.swap(session_id, store.read(session_id), None)

        assert backend.arguments == {"digest_filenames": False, "data_dir": None}

    def test_a_deletion_removes_the_namespace(self, store, backend, session_id, stored):
        """Where the backend can, nothing of a deleted session is left."""
        store.swap(session_id, stored, None)

        assert session_id not in backend.held

    def test_a_deletion_removes_the_record_at_least(self, store, backend, session_id, stored, monkeypatch):
        """Where the backend cannot remove a namespace, the record is gone all the same."""
        monkeypatch.setattr(backend, "do_remove", NamespaceManager.do_remove)

        assert store.swap(session_id, stored, None).made
        assert backend.held[session_id] == {}

    @pytest.mark.parametrize("value", [b"bytes", "text"])
    def test_a_record_is_a_text_or_bytes(self, store, backend, session_id, value):
        """Some backends give back bytes for the text that they were given."""
        backend.held[session_id] = {"session": value}

        assert store.read(session_id).raw in (b"bytes", b"text")

    def test_a_record_that_is_none_is_nothing(self, store, backend, session_id):
        """Some backends say None for a record that they do not have."""
        backend.held[session_id] = {"session": None}

        assert store.read(session_id) is None

    @pytest.mark.parametrize("value", [{"not": "a text"}, "n\u00f6 base64", 12])
    def test_what_is_no_text_is_a_damaged_record(self, store, backend, session_id, raw, value):
        """What another application has left under the key is a record that cannot be read, and can be replaced."""
        backend.held[session_id] = {"session": value}
        record = store.read(session_id)

        with pytest.raises(DamagedRecordError):
            CODEC.decode(record.raw)

        assert store.swap(session_id, record, raw()).made

    @pytest.mark.parametrize("error", [pickle.UnpicklingError("garbage"), EOFError("cut")])
    def test_what_cannot_be_unpickled_is_a_damaged_record(self, store, backend, session_id, monkeypatch, error):
        """A record that the backend cannot unpickle is damaged, not an unreachable store."""
        monkeypatch.setattr(backend, "error", error)

        with pytest.raises(DamagedRecordError):
            CODEC.decode(store.read(session_id).raw)

    def test_any_other_error_is_an_unreachable_store(self, store, backend, session_id, raw, monkeypatch):
        """What the backend or its client raises is a SessionStoreError with its cause."""

        class ClientError(Exception):
            pass

        def fail(*_args, **_kwargs):
            raise ClientError

        for name, fault in (
            ("set_value", fail),
            ("error", ClientError()),
            ("get_creation_lock", fail),
            ("__init__", fail),
        ):
            monkeypatch.setattr(backend, name, fault)
            with pytest.raises(SessionStoreError) as failed:
                store.swap(session_id, None, raw())

            assert failed.value.name == "ext:dictionary"
            assert isinstance(failed.value.original, ClientError)

        with pytest.raises(SessionStoreError):
            store.read(session_id)
        with pytest.raises(SessionStoreError), store.lock(session_id, PATIENCE):
            pytest.fail("a lock was had without a backend")

    def test_a_swap_that_waits_too_long_is_an_unreachable_store(self, options, backend, session_id, raw):
        """Who cannot write for ``store_timeout`` seconds, since another writer hangs, is told so."""
        store = open_store(read_options(given({**options, "store_timeout": 0.01})))
        held, done = threading.Event(), threading.Event()

        def hold():
            with store._guard(session_id):
                held.set()
                done.wait(PATIENCE)

        def write():
            held.wait(PATIENCE)
            try:
                with pytest.raises(SessionStoreError) as failed:
                    store.swap(session_id, None, raw())
            finally:
                done.set()
            return failed.value.original

        assert isinstance(together(hold, write)[1], TimeoutError)

    def test_a_backend_without_locks_is_used_all_the_same(self, store, backend, session_id, raw, monkeypatch):
        """A backend whose creation lock is none swaps without one."""
        monkeypatch.setattr(backend, "get_creation_lock", lambda _self, _key: null_synchronizer())

        assert store.swap(session_id, None, raw()).made

        with store.lock(session_id, 0.01):
            assert store.read(session_id)
