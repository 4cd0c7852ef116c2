"""File sessions: the store contract on real files, and what only files do."""

from __future__ import annotations

import errno
import os

import pytest
from beaker.cache import clsmap

from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.stores import file as file_module
from beaker_bridge.stores import open_store
from beaker_bridge.stores.file import TEMPORARY
from beaker_bridge.testing.contract import PATIENCE, BeakerStoreContract, together


def files(folder):
    """Return the names of the files below a folder, locks aside."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


class TestFileStore(BeakerStoreContract):
    """``type = file``."""

    @pytest.fixture
    def options(self, tmp_path):
        return {"type": "file", "data_dir": str(tmp_path)}

    @pytest.fixture
    def path(self, tmp_path, session_id):
        """Return the path of the session's file."""
        return tmp_path / "container_file" / session_id[:1] / session_id[:2] / f"{session_id}.cache"

    def test_a_reader_does_not_wait_for_a_writer(self, store, other_store, session_id, stored):
        """A record is read while somebody holds the lock under which records are written."""
        with store._guard(session_id):
            assert together(lambda: other_store.read(session_id))[0].raw == stored.raw

    def test_a_reader_sees_one_record(self, store, other_store, session_id, stored, raw, path):
        """Who has opened a record reads it whole, though it is replaced and deleted meanwhile."""
        with path.open("rb", buffering=0) as opened:
            swap = other_store.swap(session_id, other_store.read(session_id), raw(100))
            other_store.swap(session_id, swap.found, None)

            assert opened.read() == stored.raw

    def test_deletion_leaves_no_file(self, store, session_id, namespace, tmp_path):
        """After a deletion nothing of the session is left: no record, no stub, no lock file of Beaker's."""
        self._written_by_beaker(store, session_id, namespace)
        beakers = {path.name for path in tmp_path.rglob("*.lock")}
        store.swap(session_id, store.read(session_id), None)

        assert len(beakers) == 1
        assert beakers.isdisjoint(path.name for path in tmp_path.rglob("*"))
        assert files(tmp_path) == []

    def test_a_write_that_fails_leaves_nothing(self, store, session_id, stored, raw, tmp_path, monkeypatch):
        """A write that fails is an unreachable store; the record stands, and no file is left over."""

        def fail(*_args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(file_module.os, "replace", fail)
        with pytest.raises(SessionStoreError) as failed:
            store.swap(session_id, stored, raw())

        assert failed.value.name == "file"
        assert failed.value.original.errno == errno.ENOSPC
        assert store.read(session_id) == stored
        assert files(tmp_path) == [f"{session_id}.cache"]

    def test_what_a_killed_writer_left_is_swept(self, store, session_id, stored, raw, path):
        """A file that a killed writer left is no record, blocks nobody, and is removed when it is old."""
        left = path.with_name(f"{path.name}.0123456789abcdef{TEMPORARY}")
        young = path.with_name(f"{path.name}.fedcba9876543210{TEMPORARY}")
        for file in (left, young):
            file.write_bytes(b"cut")
        os.utime(left, (1000, 1000))
        os.utime(path, (1000, 1000))

        assert list(store.ids()) == [session_id]
        assert store.sweep(before=2000) == 1
        assert sorted(path.parent.iterdir()) == sorted([path, young])
        assert store.swap(session_id, stored, raw()).made
        assert store.sweep(before=2000) == 0

    def test_a_file_that_goes_while_it_is_swept_is_none(self, tmp_path):
        """Two purges at once do not fail each other."""
        assert file_module.remove_old(str(tmp_path / "gone"), 2000) == 0

    def test_only_sessions_are_listed(self, store, session_id, stored, options, path):
        """The files of a cache region in the same directory, and others, are no sessions."""
        region = clsmap["file"]("a cached function", data_dir=options["data_dir"])
        region.acquire_write_lock()
        region["session"] = 1
        region.release_write_lock()
        path.with_name(f"{session_id}.cache.bak").touch()

        assert list(store.ids()) == [session_id]

    def test_a_guard_that_is_held_too_long_is_an_unreachable_store(self, store, options, session_id, stored, raw):
        """Who cannot write for ``store_timeout`` seconds, since another writer hangs, is told so."""
        hasty = open_store(read_options(given({**options, "store_timeout": 0.01})))
        with store._guard(session_id), pytest.raises(SessionStoreError) as failed:
            hasty.swap(session_id, stored, raw())

        assert failed.value.name == "file"
        assert store.read(session_id) == stored

    @pytest.mark.parametrize("broken", ["container_file", "container_file_lock"])
    def test_directories_that_are_none_are_an_unreachable_store(self, store, session_id, raw, tmp_path, broken):
        """A file where a directory should be is an unreachable store, never an empty one."""
        (tmp_path / broken).touch()

        with pytest.raises(SessionStoreError) as failed:
            store.swap(session_id, None, raw())

        assert isinstance(failed.value.original, OSError)

        if broken == "container_file":
            for use in (lambda: store.read(session_id), lambda: list(store.ids()), lambda: store.sweep(0)):
                with pytest.raises(SessionStoreError):
                    use()
        else:
            with pytest.raises(SessionStoreError), store.lock(session_id, PATIENCE):
                pytest.fail("a lock was had without a file")

    def test_a_record_that_cannot_be_opened_is_an_unreachable_store(self, store, session_id, path):
        """A record that is there and cannot be read is not 'nothing'."""
        path.mkdir(parents=True)

        with pytest.raises(SessionStoreError) as failed:
            store.read(session_id)

        assert failed.value.original.errno == errno.EISDIR


class TestFileStoreElsewhere(BeakerStoreContract):
    """``type = file`` with directories of its own."""

    @pytest.fixture
    def options(self, tmp_path):
        return {"type": "file", "file_dir": str(tmp_path / "files"), "lock_dir": str(tmp_path / "locks")}

    def test_the_directories_are_used(self, store, session_id, stored, tmp_path):
        """Records and locks stand where ``file_dir`` and ``lock_dir`` say."""
        assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "locks"]
