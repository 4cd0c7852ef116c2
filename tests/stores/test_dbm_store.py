"""Dbm sessions: the store contract on each kind of dbm file, and what only those do."""

from __future__ import annotations

import dbm
import dbm.dumb
import errno
import os
import pickle
import sys
import types
from pathlib import Path

import pytest
from beaker.cache import clsmap
from beaker.synchronization import FileSynchronizer

from beaker_bridge.exceptions import DamagedRecordError, SessionStoreError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.envelope import PickledEnvelope
from beaker_bridge.record.serializers import JSONSerializer
from beaker_bridge.stores import dbm as dbm_module
from beaker_bridge.stores import open_store
from beaker_bridge.stores.beaker import BeakerStore
from beaker_bridge.stores.dbm import DbmStore, default_module
from beaker_bridge.stores.file import TEMPORARY
from beaker_bridge.testing.contract import KIB, BeakerStoreContract, text, together
from tests import machine

CODEC = RecordCodec(JSONSerializer(), envelope=PickledEnvelope)


class PickledDbm:
    """A dbm module that keeps each database in one file, as gdbm and Berkeley's ndbm do.

    Args:
        name: the module that it stands for.
        suffix: what it appends to a database's path.
        library: as ``dbm.ndbm`` has it.
    """

    class error(OSError):  # noqa: N801, N818 -- the name that dbm modules have for it
        """What a dbm module raises."""

    def __init__(self, name, suffix="", library="a test's own"):
        self.__name__ = name
        self.library = library
        self._suffix = suffix

    def open(self, path, flag="r"):
        return PickledDatabase(self, path + self._suffix, flag)


class PickledDatabase(dict):
    """A database of :class:`PickledDbm`."""

    def __init__(self, module, path, flag):
        super().__init__()
        self._path = path
        self._flag = flag
        try:
            if flag != "n" and (flag == "r" or Path(path).exists()):
                self.update(pickle.loads(Path(path).read_bytes()))
        except OSError as error:
            raise module.error(error.errno, "cannot be opened", path) from error
        except Exception as error:
            raise module.error("Bad magic number") from error

    def __enter__(self):
        return self

    def __exit__(self, *_exc_info):
        self.close()

    def __setitem__(self, key, value):
        super().__setitem__(_bytes(key), value)

    def __getitem__(self, key):
        return super().__getitem__(_bytes(key))

    def __delitem__(self, key):
        super().__delitem__(_bytes(key))

    def close(self):
        if self._flag != "r":
            Path(self._path).write_bytes(pickle.dumps(dict(self)))


def _bytes(key):
    return key.encode("ascii") if isinstance(key, str) else key


class DbmContract(BeakerStoreContract):
    """What every kind of dbm file keeps beside the contract."""

    # A module among the options cannot be given to another process.
    several_processes = False

    @pytest.fixture
    def module(self):
        raise NotImplementedError

    @pytest.fixture
    def options(self, tmp_path, module):
        return {"type": "dbm", "data_dir": str(tmp_path), "dbmmodule": module}

    @pytest.fixture
    def path(self, tmp_path, session_id):
        """Return the path of the session's database, without what the module appends."""
        return tmp_path / "container_dbm" / session_id[:1] / session_id[:2] / f"{session_id}.dbm"

    def test_deletion_leaves_no_file(self, store, session_id, stored, path):
        """After a deletion nothing of the session is left."""
        store.swap(session_id, stored, None)

        assert list(path.parent.iterdir()) == []

    def test_a_session_of_beakers_without_data_is_none(self, store, session_id, namespace):
        """The empty database that Beaker makes for each id that it is asked for is no session."""
        namespace.acquire_read_lock()
        namespace.release_read_lock()

        assert store.read(session_id) is None


class FileContract(DbmContract):
    """What the kinds of files keep that we write ourselves."""

    def test_beaker_reads_every_size(self, store, session_id, namespace):
        """Beaker reads each record, however the one before it was larger or smaller."""
        record = None
        for size in (40, 4000, 8, 600, 20000, 513, 1):
            new = text(size)
            record = store.swap(session_id, record, store.envelope.wrap(new)).found

            assert self._read_by_beaker(namespace) == new.decode("ascii")

    def test_a_reader_does_not_wait_for_a_writer(self, store, other_store, session_id, stored):
        """A record is read while somebody holds the lock under which records are written."""
        with store._guard(session_id):
            assert together(lambda: other_store.read(session_id))[0].raw == stored.raw

    def test_only_sessions_are_listed(self, store, session_id, stored, options):
        """The files of a cache region in the same directory are no sessions."""
        region = clsmap["dbm"]("a cached function", data_dir=options["data_dir"], dbmmodule=options["dbmmodule"])
        region.acquire_write_lock()
        region["session"] = 1
        region.release_write_lock()

        assert list(store.ids()) == [session_id]

    def test_what_a_killed_writer_left_is_swept(self, store, session_id, stored, raw, path):
        """A file that a killed writer left is no record, blocks nobody, and is removed when it is old."""
        before = set(path.parent.iterdir())
        left = path.with_name(f"{path.name}.0123456789abcdef{TEMPORARY}")
        young = path.with_name(f"{path.name}.fedcba9876543210{TEMPORARY}")
        for file in (left, young):
            file.write_bytes(b"cut")
        os.utime(left, (1000, 1000))

        assert list(store.ids()) == [session_id]
        assert store.sweep(before=2000) == 1
        assert set(path.parent.iterdir()) == before | {young}
        assert store.swap(session_id, stored, raw()).made


class TestDumbDbmStore(FileContract):
    """``type = dbm`` with ``dbm.dumb``."""

    @pytest.fixture
    def module(self):
        return dbm.dumb

    def test_a_writer_that_is_killed_has_not_touched_the_record(self, store, session_id, raw, monkeypatch):
        """Whatever the sizes, a record is whole until the one after it stands."""

        def killed(*_args):
            raise KeyboardInterrupt

        record = store.swap(session_id, None, raw()).found
        for size in (30, 600, 5000, 100, 5000, 9000, 10, 2000, 1):
            with monkeypatch.context() as patch:
                patch.setattr(dbm_module, "replace", killed)
                with pytest.raises(KeyboardInterrupt):
                    store.swap(session_id, record, raw(size))

            assert store.read(session_id) == record

            record = store.swap(session_id, record, raw(size)).found

    def test_the_data_do_not_grow_without_end(self, store, session_id, raw, path):
        """A record that is written a hundred times takes no more than a few times its room."""
        record = None
        for number in range(100):
            record = store.swap(session_id, record, raw(1000 + number)).found

        assert path.with_name(path.name + ".dat").stat().st_size < 8 * KIB

    def test_a_reader_whom_writers_overtake_reads_again(self, store, other_store, session_id, stored, raw, monkeypatch):
        """A reader who has read ``.dir`` before two writes, and ``.dat`` after them, sees the last record."""
        last = raw(7)
        found = self._read_overtaken(
            store,
            monkeypatch,
            session_id,
            lambda: other_store.swap(session_id, other_store.swap(session_id, stored, raw(7)).found, last),
        )

        assert found.raw == last

    def test_a_reader_whom_a_deletion_overtakes_reads_nothing(
        self, store, other_store, session_id, stored, monkeypatch
    ):
        """A reader who has read ``.dir`` before a deletion, and ``.dat`` after it, sees no record."""
        found = self._read_overtaken(store, monkeypatch, session_id, lambda: other_store.swap(session_id, stored, None))

        assert found is None

    @staticmethod
    def _read_overtaken(store, monkeypatch, session_id, meanwhile):
        """Read a record, and have something happen between its two files."""
        value = store._format._value
        pending = [meanwhile]

        def overtaken(*args):
            if pending:
                pending.pop()()
            return value(*args)

        monkeypatch.setattr(store._format, "_value", overtaken)
        return store.read(session_id)

    @pytest.mark.parametrize(
        "directory",
        [
            b"\x00garbage",
            b"'session', (0, ",
            b"'session', (-5, 10)\n",
            b"'session', (0, 1)\n'session'",
            b"'session', (0, 99999999999999999999)\n",
            b"((((((((",
        ],
    )
    def test_a_damaged_directory_is_a_damaged_record(self, store, session_id, stored, raw, path, directory):
        """A ``.dir`` that is not dbm.dumb's is a record that cannot be read, not 'nothing'; it can be replaced."""
        self._write(path, ".dir", directory)
        record = store.read(session_id)

        with pytest.raises(DamagedRecordError):
            CODEC.decode(record.raw)

        assert store.swap(session_id, None, raw()) == (False, record)
        assert store.swap(session_id, record, stored.raw).made
        assert store.read(session_id) == stored

    def test_a_damaged_record_can_be_deleted(self, store, session_id, stored, path):
        """What cannot be read can be removed."""
        self._write(path, ".dir", b"garbage")

        assert store.swap(session_id, store.read(session_id), None).made
        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("size", [10, 10**14])
    def test_a_directory_that_leads_nowhere_is_a_damaged_record(self, store, session_id, stored, path, size):
        """A value that lies beyond the data, or is larger than any memory, is a record that cannot be read."""
        self._write(path, ".dir", b"'session', (512000, %d)\n" % size)

        with pytest.raises(DamagedRecordError):
            CODEC.decode(store.read(session_id).raw)

    def test_lost_data_are_a_damaged_record(self, store, session_id, stored, path):
        """A ``.dir`` whose ``.dat`` is gone is a record that cannot be read."""
        path.with_name(path.name + ".dat").unlink()

        with pytest.raises(DamagedRecordError):
            CODEC.decode(store.read(session_id).raw)

    @pytest.mark.parametrize("directory", [b"", b"'another', (0, 10)\n", b'"don\'t", (0, 10)\n'])
    def test_a_directory_without_a_session_is_no_record(self, store, session_id, stored, raw, path, directory):
        """A database that holds no session is none, and can be given one."""
        self._write(path, ".dir", directory)

        assert store.read(session_id) is None
        assert store.swap(session_id, None, raw()).made

    def test_data_that_never_were_a_record_are_swept(self, store, session_id, raw, path):
        """``.dat`` without ``.dir``, left by a writer that was killed, is no record and goes when it is old."""
        path.parent.mkdir(parents=True)
        self._write(path, ".dat", b"cut")

        assert list(store.ids()) == []
        assert store.sweep(before=0) == 0
        assert store.sweep(before=2**40) == 1
        assert list(path.parent.iterdir()) == []

    def test_data_of_a_record_are_not_swept(self, store, session_id, stored):
        """A sweep leaves a record whole, however old it is."""
        assert store.sweep(before=2**40) == 0
        assert store.read(session_id) == stored

    def test_a_file_in_the_way_is_an_unreachable_store(self, store, session_id, path):
        """A record that is there and cannot be opened is not 'nothing'."""
        path.with_name(path.name + ".dir").mkdir(parents=True)

        with pytest.raises(SessionStoreError) as failed:
            store.read(session_id)

        assert failed.value.name == "dbm"

    @staticmethod
    def _write(path, suffix, content):
        path.with_name(path.name + suffix).write_bytes(content)


def test_a_short_write_is_continued():
    """What the system has not taken of a value in one go is written in the next."""
    written = []

    def write(view):
        written.append(bytes(view[:3]))
        return len(written[-1])

    dbm_module._write_all(write, b"12345678")

    assert written == [b"123", b"456", b"78"]


class SingleFileContract(FileContract):
    """What the kinds with one file keep."""

    @pytest.fixture
    def file(self, path, stored):
        """Return the session's file."""
        return next(path.parent.iterdir())

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x00" * 5000, b"\xff\x13\x57\x9a" * 999])
    def test_a_damaged_file_is_a_damaged_record(self, store, session_id, stored, raw, file, content):
        """A file that is not the module's is a record that cannot be read, not 'nothing'; it can be replaced."""
        file.write_bytes(content)
        record = store.read(session_id)

        with pytest.raises(DamagedRecordError):
            CODEC.decode(record.raw)

        assert store.swap(session_id, None, raw()) == (False, record)
        assert store.swap(session_id, record, stored.raw).made
        assert store.read(session_id) == stored

    def test_a_file_that_cannot_be_opened_is_an_unreachable_store(self, store, session_id, file):
        """A record that is there and cannot be opened is not 'nothing'."""
        file.unlink()
        file.mkdir()

        with pytest.raises(SessionStoreError) as failed:
            store.read(session_id)

        assert failed.value.original.errno == errno.EISDIR

    def test_a_write_that_fails_leaves_nothing(self, store, session_id, stored, raw, file, monkeypatch):
        """A write that fails is an unreachable store; the record stands, and no file is left over."""

        def fail(*_args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(dbm_module.os, "replace", fail)
        with pytest.raises(SessionStoreError) as failed:
            store.swap(session_id, stored, raw())

        assert failed.value.original.errno == errno.ENOSPC
        assert store.read(session_id) == stored
        assert list(file.parent.iterdir()) == [file]


class TestSingleFileStore(SingleFileContract):
    """``type = dbm`` with a module that makes one file of the given name."""

    @pytest.fixture
    def module(self):
        return PickledDbm("dbm.gnu")


class TestSingleFileWithSuffixStore(SingleFileContract):
    """``type = dbm`` with a module that makes one file with a suffix."""

    @pytest.fixture
    def module(self):
        return PickledDbm("dbm.ndbm", ".db")


class TestGdbmStore(SingleFileContract):
    """``type = dbm`` with the real gdbm."""

    @pytest.fixture
    def module(self):
        return machine.dbm("dbm.gnu")


class TestNdbmStore(SingleFileContract):
    """``type = dbm`` with the real ndbm, where it makes one file."""

    @pytest.fixture
    def module(self):
        module = machine.dbm("dbm.ndbm")
        if module.library == "GNU gdbm":
            raise machine.MissingError("an ndbm of one file", "a Python that has it", everywhere=False)
        return module


class TestOtherDbmStore(DbmContract):
    """``type = dbm`` with a module of which we know nothing: through Beaker's own interface."""

    text_only = True
    lists_ids = False

    @pytest.fixture
    def module(self):
        return PickledDbm("somebodys.dbm", ".db")

    def test_what_a_browser_sends_makes_no_file(self, store, session_id, path):
        """A read of an id without a record makes no database, though Beaker would."""
        store.read(session_id)

        assert not path.parent.exists()

    def test_beaker_makes_a_database_under_its_lock(self, store, module, session_id, raw, tmp_path, monkeypatch):
        """Nobody reads a database that is just being made."""
        opened, alone = module.open, []

        def is_locked() -> bool:
            lock = FileSynchronizer(session_id, str(tmp_path / "container_dbm_lock"))
            had = lock.acquire_read_lock(wait=False)
            if had:
                lock.release_read_lock()
            return not had

        def noted(path, flag):
            alone.append((flag, together(is_locked)[0]))
            return opened(path, flag)

        monkeypatch.setattr(module, "open", noted)
        store.swap(session_id, None, raw())

        assert alone == [("c", True), ("c", True)]


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (dbm.dumb, DbmStore),
        (PickledDbm("dbm.gnu"), DbmStore),
        (PickledDbm("_gdbm"), DbmStore),
        (PickledDbm("dbm.ndbm", library="Berkeley DB"), DbmStore),
        (PickledDbm("_dbm", library="ndbm"), DbmStore),
        (PickledDbm("dbm.ndbm", library="GNU gdbm"), BeakerStore),
        (PickledDbm("dbm.sqlite3"), BeakerStore),
        (dbm, BeakerStore),
        (types.SimpleNamespace(), BeakerStore),
        (None, DbmStore),
    ],
)
def test_a_module_whose_files_we_know_is_ours(tmp_path, module, kind):
    """We write the files of the modules that we know; any other module goes through Beaker."""
    store = open_store(read_options(given({"type": "dbm", "data_dir": str(tmp_path), "dbmmodule": module})))

    assert isinstance(store, kind)
    assert store.kind == "dbm"


@pytest.mark.parametrize("first", ["dbm.gnu", "dbm.ndbm", "dbm.dumb"])
def test_the_default_of_an_older_beaker(monkeypatch, first):
    """Before Beaker 1.14 its module is Python's package, of which ours is the first that there is."""
    names = ("dbm.gnu", "dbm.ndbm", "dbm.dumb")
    for name in names[: names.index(first)]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, first, PickledDbm(first))

    assert default_module(dbm).__name__ == first
    assert default_module(dbm.dumb) is dbm.dumb
