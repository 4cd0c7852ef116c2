"""The directories of file and dbm sessions: tried when the application starts, and named when they fail later."""

from __future__ import annotations

import dbm.dumb
import errno
import os
import re
import tempfile
from contextlib import nullcontext

import pytest

from beaker_bridge import SessionMiddleware, session_factory_from_settings
from beaker_bridge.exceptions import SessionStoreError, SettingsError
from beaker_bridge.stores import _flock as locks_module
from tests.machine import mounted, remount
from tests.requests import Browser, config_of

#: What the options of each store are; the last one goes through Beaker's own interface.
KINDS = {
    "file": {"type": "file"},
    "dbm": {"type": "dbm", "dbmmodule": dbm.dumb},
    "another dbm": {"type": "dbm", "dbmmodule": tempfile},
}
RULE = "must be a directory that can be made, and in which files and directories can be made"


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def in_the_way(tmp_path):
    """Return a directory that cannot be made: a file has its name."""
    place = tmp_path / "file"
    place.touch()
    return place


def refused(**options):
    """Return the error with which a configuration stops the start."""
    with pytest.raises(SettingsError) as stopped:
        config_of(**options)
    return stopped.value


def test_a_file_in_the_way_stops_the_start(kind, in_the_way):
    """A directory that cannot be made is told at the start, once, by its option and value."""
    for value in (in_the_way, in_the_way / "sessions" / "of_mine"):
        error = refused(data_dir=str(value), **kind)

        assert str(error) == f"data_dir {RULE}, got {str(value)!r}: Not a directory"
        assert error.name == "data_dir"


def test_what_is_in_the_way_below_the_directory_stops_the_start(kind, tmp_path):
    """What the store makes in data_dir has to be possible, too."""
    below = "container_file" if kind["type"] == "file" else "container_dbm"
    for name in (f"{below}_lock", below):
        (tmp_path / name).symlink_to("nowhere")

        assert str(refused(data_dir=str(tmp_path), **kind)).startswith(f"data_dir {RULE}, got {str(tmp_path)!r}: ")

        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["a" * 256, "ü" * 128, "a/" * 2010])
@pytest.mark.parametrize("own", ["data_dir", "lock_dir", "file_dir"])
def test_a_name_that_no_directory_can_have_stops_the_start(own, name, tmp_path):
    """What the file system refuses as a name, in the middle of a path as well, and a path without room for files."""
    for value in (tmp_path / name, tmp_path / "new" / name / "sessions"):
        error = refused(**{"type": "file", "data_dir": str(tmp_path), own: str(value)})

        assert str(error) == f"{own} {RULE}, got {str(value)!r}: File name too long"


def test_a_null_character_in_a_name_stops_the_start(kind, tmp_path):
    """What no file system has is an error of the option, too."""
    # Python says "byte", or since 3.13 "character in path", and may name the function before.
    assert re.search(r"/a\\x00b': (\w+: )?embedded null \w+", str(refused(data_dir=f"{tmp_path}/a\0b", **kind)))


def test_the_longest_name_that_a_directory_can_have(tmp_path):
    """A path in which there is just room for the files is right."""
    place = tmp_path / ("a" * 255)
    browser = Browser(config_of(data_dir=str(place), **KINDS["file"]))
    browser.write(a=1)

    assert browser.read() == {"a": 1}


def test_each_directory_is_told_by_its_own_option(kind, in_the_way, tmp_path):
    """The option that stands in the file is the one that is told; of two, both."""
    own = f"{kind['type']}_dir"
    wrong, right = str(in_the_way), str(tmp_path / "right")

    assert refused(lock_dir=wrong, data_dir=right, **kind).name == "lock_dir"
    assert refused(**{own: wrong, "data_dir": right, **kind}).name == own
    assert refused(**{own: right, "data_dir": wrong, **kind}).name == "data_dir"
    assert [error.name for error in refused(**{own: wrong, "lock_dir": wrong + "/l", **kind}).errors] == [
        own,
        "lock_dir",
    ]


def test_the_option_is_told_as_it_was_written(in_the_way):
    """A filter's section has no prefix, an application's settings have one."""
    with pytest.raises(SettingsError, match=f"^data_dir {RULE}"):
        SessionMiddleware(lambda *_: [], type="file", data_dir=str(in_the_way))
    for prefix in ("session.", "beaker.session."):
        with pytest.raises(SettingsError, match=f"^{prefix}data_dir {RULE}"):
            session_factory_from_settings({f"{prefix}type": "file", f"{prefix}data_dir": str(in_the_way)})


def test_the_start_leaves_nothing(kind, tmp_path, monkeypatch):
    """The try makes no directory, which would be root's where root starts the application, and leaves no file."""
    config_of(data_dir=str(tmp_path / "new"), **kind)
    monkeypatch.chdir(tmp_path)
    config_of(data_dir="relative/new", **kind)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_stop_the_start(kind, tmp_path, monkeypatch):
    """What is full is no fault of the options: sessions can be read."""

    def fail(**_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)

    assert config_of(data_dir=str(tmp_path), **kind).store.read("0" * 32) is None


def test_a_root_that_is_not_there_is_looked_at(tmp_path, monkeypatch):
    """Where not even a root exists, as with a drive of Windows, the search for what does ends with it."""
    monkeypatch.setattr(os.path, "lexists", lambda _path: False)
    tried = []
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **of: tried.append(of["dir"]) or nullcontext())
    config_of(type="file", data_dir=str(tmp_path))

    assert tried == [tmp_path.anchor] * 2


def test_a_read_only_disk(tmp_path):
    """What cannot be written stops the start; what is read-only later is told with its option, and without the id."""
    (tmp_path / "source").mkdir()
    with mounted(tmp_path, "--bind", str(tmp_path / "source")) as place:
        browser = Browser(config_of(type="file", data_dir=str(place)))
        browser.write(a=1)
        remount(place, "ro")
        error = refused(type="file", data_dir=str(place))
        with pytest.raises(SessionStoreError) as failed:
            browser.write(a=2)
        read = browser.read()

    assert str(error) == f"data_dir {RULE}, got {str(place)!r}: Read-only file system"
    assert f"the session store file (data_dir = {place}) cannot be reached: OSError: " in str(failed.value)
    assert "Read-only file system" in str(failed.value)
    assert browser.id not in str(failed.value)
    assert read == {"a": 1}


@pytest.mark.parametrize("name", ["own", "lock_dir"])
def test_an_error_names_the_directory(kind, name, tmp_path):
    """What fails at a request names the option of the directory, its value and the reason, and no id."""
    own = f"{kind['type']}_dir"
    # One in the other: the more exact one is meant.
    places = {"own": tmp_path / "locks" / "records", "lock_dir": tmp_path / "locks"}
    config = config_of(**{own: str(places["own"]), "lock_dir": str(places["lock_dir"]), **kind})
    browser = Browser(config)
    if name == "own":
        places["lock_dir"].mkdir()
    places[name].touch()
    with pytest.raises(SessionStoreError) as failed:
        browser.write(a=1)

    option = own if name == "own" else name
    assert str(failed.value).startswith(
        f"the session store {kind['type']} ({option} = {places[name]}) cannot be reached: "
    )
    assert failed.value.original.filename is None


def test_a_file_system_without_locks_is_told_by_the_locks_directory(tmp_path, monkeypatch):
    """An error that names no file, of a lock, is about the directory of the locks."""
    config = config_of(type="file", file_dir=str(tmp_path / "f"), lock_dir=str(tmp_path / "l"))

    def fail(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks_module.fcntl, "flock", fail)
    with pytest.raises(SessionStoreError, match=f"\\(lock_dir = {tmp_path}/l\\).*No locks available"):
        Browser(config).write(a=1)


def test_a_lock_that_is_held_too_long_is_the_locks_directory(tmp_path):
    """Who cannot write since another writer hangs is told where the lock is."""
    config = config_of(type="file", file_dir=str(tmp_path / "f"), lock_dir=str(tmp_path / "l"), store_timeout=0.01)
    store, session_id = config.store, "0" * 32
    with store._guard(session_id), pytest.raises(SessionStoreError, match=f"\\(lock_dir = {tmp_path}/l\\)"):
        store.swap(session_id, None, b"raw")
