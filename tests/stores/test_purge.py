"""The purge removes what is over, and nothing else."""

from __future__ import annotations

import dbm.dumb
import errno
import fcntl
import hashlib
import os
import sqlite3
import threading
import tracemalloc
from contextlib import closing, suppress
from pathlib import Path

import pytest
from beaker.cache import clsmap
from pyramid.config import Configurator
from pyramid.scripting import prepare
from sqlalchemy import event

import beaker_bridge
from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.session import purge as purge_module
from beaker_bridge.session.base import new_id
from beaker_bridge.session.purge import ABANDONED_AFTER, THREAD, Purged
from beaker_bridge.session.session import MOVED_FOR
from beaker_bridge.stores._breaker import ServerUnavailableError
from beaker_bridge.stores.base import BATCH, RECORD_FORM
from tests import machine
from tests.requests import START, Browser, Clock, config_of, content, options_of, store_options, stored, watched

TIMEOUT = 1000
#: The number of a user without rights.
NOBODY = 65534


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "file", "dbm", "sqlite", "postgresql", "mariadb"])
def options(request, tmp_path, clock):
    """Return the options of each store that does not expire its records itself."""
    return {**options_of(request, tmp_path), "clock": clock, "timeout": TIMEOUT}


@pytest.fixture
def config(options):
    config = config_of(**options)
    # The memory and the databases are other tests' as well.
    for session_id in list(config.store.ids(RECORD_FORM)):
        config.store.swap(session_id, config.store.read(session_id), None)
    yield config
    config.store.close()


@pytest.fixture
def in_memory(clock):
    """Return a configuration in memory, with nothing in it."""
    config = config_of(clock=clock, timeout=TIMEOUT)
    for session_id in list(config.store.ids(RECORD_FORM)):
        config.store.swap(session_id, config.store.read(session_id), None)
    return config


def purge(config, **how):
    """Purge, and return how many records and files were removed."""
    done = purge_module.purge(config, **how)
    return done.deleted + done.swept


def write(config, content):
    """Write a record past all sessions, and return its id."""
    session_id = new_id()
    config.store.swap(session_id, None, config.codec.seal(config.codec.serialize(content)))
    return session_id


def log_in(browser):
    """Give a browser's session a new id, and return the old one."""
    old = browser.id
    request = browser.begin()
    request.session.regenerate_id()
    browser.end(request)
    return old


def test_what_is_over_is_deleted_and_what_lives_is_not(config, clock):
    """A purge deletes the records whose time is over, and says how many."""
    browsers = [Browser(config) for _ in range(5)]
    for browser in browsers:
        browser.write(a=1)
    clock.now += TIMEOUT + 1
    alive = Browser(config)
    alive.write(a=2)

    assert purge(config) == 5
    assert list(config.store.ids()) == [alive.id]
    assert alive.read() == {"a": 2}
    assert purge(config) == 0


def test_a_marker_is_deleted_after_its_time(config, clock):
    """What remembers an old id is kept for its sixty seconds, and no longer."""
    browser = Browser(config)
    browser.write(a=1)
    old = log_in(browser)
    clock.now += MOVED_FOR - 1
    assert purge(config) == 0
    clock.now += 1

    assert purge(config) == 1
    assert stored(config, old) is None
    assert browser.read() == {"a": 1}


def test_a_stub_of_beakers_is_deleted(config):
    """What Beaker's delete() leaves of a session goes, too."""
    write(config, {"_domain": None, "_path": "/"})

    assert purge(config) == 1
    assert list(config.store.ids()) == []


def test_a_session_without_a_timeout_is_never_over(options, config, clock):
    """Without timeout and absolute_timeout nothing is deleted, save where a session has its own expiry."""
    without = config_of(**{**options, "timeout": None})
    browser = Browser(without)
    browser.write(a=1)
    short = Browser(without)
    request = short.begin()
    request.session["a"] = 1
    request.session.set_expiry(50)
    short.end(request)
    clock.now += 10**9

    assert purge(without) == 1
    assert browser.read() == {"a": 1}
    without.store.close()


def test_the_absolute_timeout_counts(clock):
    """A session that is too old is over, however busy it is."""
    browser = Browser(config_of(clock=clock, absolute_timeout=100))
    browser.write(a=1)
    clock.now = START + 101

    assert purge(browser.config) >= 1
    assert stored(browser.config, browser.id) is None


def test_a_record_that_cannot_be_read_stays(in_memory):
    """What is damaged, or another configuration's, is not the purge's to judge."""
    session_id = write(in_memory, {"a": 1})
    in_memory.store.swap(session_id, in_memory.store.read(session_id), b"garbage")

    assert purge(in_memory) == 0
    assert in_memory.store.read(session_id).raw == b"garbage"


def test_a_session_that_is_renewed_meanwhile_stays(in_memory, clock):
    """Between the purge's read and its swap a request may have renewed the session."""
    browser = Browser(in_memory)
    browser.write(a=1)
    clock.now += TIMEOUT
    request = browser.begin()
    request.session["b"] = 2
    clock.now += 1
    watched(in_memory).before_swap[1] = request.commit

    assert purge(in_memory) == 0
    assert content(stored(in_memory, browser.id)) == {"a": 1, "b": 2}


def test_a_session_that_is_deleted_meanwhile_is_not_counted(in_memory, clock):
    """Between the list of ids and the purge's read a session may be logged out."""
    browser = Browser(in_memory)
    browser.write(a=1)
    store = watched(in_memory)
    ids = [browser.id]
    request = browser.begin()
    request.session.invalidate()
    request.commit()
    store.ids = lambda _form: iter(ids)

    assert purge(in_memory) == 0


def test_cookie_sessions_are_not_purged():
    """A cookie session is in its browser only."""
    assert purge(config_of(type="cookie", validate_key="v" * 32)) == 0


def test_a_server_expires_its_records_itself(memcached_server, redis_server):
    """Redis and memcached remove what has expired; they are not even asked for it."""
    for name, server in {"redis": redis_server, "memcached": memcached_server}.items():
        config = config_of(type=f"ext:{name}", url=server.url)
        config.store.ids = config.store.scan = refuse

        assert purge_module.purge(config) == Purged()


def test_the_index_of_a_user_is_no_session(in_memory, clock):
    """What lists a user's sessions is not judged by a session's timeout."""
    index = "u" + "0" * 64
    in_memory.store.swap(index, None, in_memory.codec.encode({"_accessed_time": START, "_bb_logins": {}}))
    clock.now += TIMEOUT + 1

    assert purge_module.purge(in_memory) == Purged(seen=1)
    assert in_memory.store.read(index) is not None

    in_memory.store.swap(index, in_memory.store.read(index), None)


def test_a_list_of_sessions_that_cannot_be_read_ends_no_purge(clock, caplog):
    """An index that is damaged is left, with a warning, and the others are looked at."""
    config = config_of(clock=clock, timeout=TIMEOUT, secret="a secret of thirty-two bytes, or more")
    index = "u" + "1" * 64
    config.store.swap(index, None, config.codec.encode({"_accessed_time": START, "_bb_logins": {"login": None}}))
    purge_module.purge(config)
    raw = config.store.read(index)
    config.store.swap(index, raw, None)

    assert raw is not None
    assert [record.message for record in caplog.records if "not pruned" in record.message] == [
        "index u11111… is not pruned: it is no index of a user's sessions"
    ]


# -- How it is asked for -------------------------------------------------------------------------------


def test_a_dry_run_counts_and_deletes_nothing(config, clock):
    """With dry_run the numbers are those of a purge, and everything stays."""
    browsers = [Browser(config) for _ in range(3)]
    for browser in browsers:
        browser.write(a=1)
    clock.now += TIMEOUT + 1
    Browser(config).write(a=1)
    ids = set(config.store.ids())

    assert purge_module.purge(config, dry_run=True) == Purged(seen=4, deleted=3)
    assert set(config.store.ids()) == ids
    assert purge_module.purge(config) == Purged(seen=4, deleted=3)


def test_older_sessions_are_purged_where_they_have_no_timeout(options, config, clock):
    """With older_than sessions that were idle for longer are deleted, too; a lately used one stays."""
    without = config_of(**{**options, "timeout": None})
    old, young = Browser(without), Browser(without)
    old.write(a=1)
    clock.now += 100
    young.write(a=2)
    clock.now += 100

    assert purge(without) == 0
    assert purge(without, older_than=150) == 1
    assert old.read() == {}
    assert young.read() == {"a": 2}
    without.store.close()


def test_a_session_in_use_is_never_older(in_memory):
    """Access times are renewed now and then only, so nothing younger than that can be asked for."""
    with pytest.raises(ValueError, match=r"older_than must be 100 seconds or more, got 99\.5: .*reissue_time"):
        purge_module.purge(in_memory, older_than=99.5)


def test_a_batch_has_a_record(in_memory):
    """A batch of none would never end."""
    with pytest.raises(ValueError, match="batch must be 1 or more, got 0"):
        purge_module.purge(in_memory, batch=0)


def test_progress_is_told_after_each_batch(config, clock):
    """What is done so far is passed on batch by batch."""
    for _ in range(5):
        Browser(config).write(a=1)
    clock.now += TIMEOUT + 1
    told = []
    done = purge_module.purge(config, batch=2, progress=told.append)

    assert told == [Purged(2, 2), Purged(4, 4), Purged(5, 5)]
    assert done == told[-1]


def test_what_cannot_be_read_is_counted(in_memory):
    """A record of another configuration is left, and the numbers say so."""
    write(in_memory, {"_accessed_time": START, "_creation_time": START})
    session_id = write(in_memory, {"a": 1})
    in_memory.store.swap(session_id, in_memory.store.read(session_id), b"garbage")

    assert purge_module.purge(in_memory) == Purged(seen=2, unreadable=1)


# -- In public -----------------------------------------------------------------------------------------


def an_expired_session(config):
    """Write a session that has expired, and return its id."""
    return write(config, {"_accessed_time": 1.0, "_creation_time": 1.0, "a": 1})


def test_the_sessions_of_settings_are_purged(tmp_path):
    """A script purges the sessions that an application's settings name; their connections are closed."""
    settings = {"session.type": "ext:database", "session.url": f"sqlite:///{tmp_path}/s.db", "session.timeout": "60"}
    an_expired_session(config_of(**{name.removeprefix("session."): value for name, value in settings.items()}))

    assert beaker_bridge.purge(settings, dry_run=True) == Purged(1, 1)
    assert beaker_bridge.purge(settings, batch=10) == Purged(1, 1)
    assert beaker_bridge.purge(settings) == Purged()
    assert beaker_bridge.purge({"session.type": "cookie", "session.validate_key": "v" * 32}) == Purged()


def test_the_sessions_of_a_request_are_purged(tmp_path):
    """With a request, its application's settings count, or the filter that wraps the application."""
    with Configurator(settings={"session.data_dir": str(tmp_path / "own"), "session.timeout": "60"}) as configurator:
        configurator.include("beaker_bridge")
    app = configurator.make_wsgi_app()
    config = config_of(data_dir=str(tmp_path / "own"), timeout=60)
    an_expired_session(config)
    with prepare(registry=app.registry) as env:
        assert beaker_bridge.purge(env["request"]) == Purged(1, 1)

    filter_ = beaker_bridge.SessionMiddleware(app, type="file", data_dir=str(tmp_path / "filters"), timeout=60)
    an_expired_session(config)
    an_expired_session(filter_._config)
    with prepare(registry=app.registry) as env:
        assert beaker_bridge.purge(env["request"]) == Purged(1, 1)

    assert beaker_bridge.purge(config) == Purged(1, 1)


def test_what_has_no_session_cannot_be_purged():
    """Settings without an option of a session, and a request of an application without our sessions, are refused."""
    with pytest.raises(beaker_bridge.SettingsError, match=r"the settings have no session\. option"):
        beaker_bridge.purge({"pyramid.reload_templates": "true"})

    app = Configurator().make_wsgi_app()
    refused = pytest.raises(beaker_bridge.SettingsError, match="the request has no session of beaker_bridge's")
    with prepare(registry=app.registry) as env, refused:
        beaker_bridge.purge(env["request"])


# -- What cannot be opened -----------------------------------------------------------------------------


def mark_of(config, session_id):
    """Return the file by which a session of files is found."""
    root = Path(config.store._root)
    return next(path for path in root.rglob(f"{session_id}*") if path.suffix in {".cache", ".dir", ".dbm"})


def made_a_directory(path):
    """Put a directory in the place of a session's file, of two in that of the one with the record."""
    file = path.with_suffix(".dat") if path.suffix == ".dir" else path
    file.unlink()
    file.mkdir()


def made_a_link(to):
    """Return what puts a link in the place of a file."""

    def make(path):
        path.unlink()
        path.symlink_to(to or path.name)

    return make


def made_anothers(path):
    """Give a file to root, who alone may read it."""
    path.chmod(0)


def made_anothers_with_its_directory(path):
    """Give root the directory, which nobody else may list."""
    path.parent.chmod(0)


IN_THE_WAY = {
    "a directory": made_a_directory,
    "a looping link": made_a_link(None),
    "a dangling link": made_a_link("nowhere"),
    "a file of root's": made_anothers,
    "a directory of root's": made_anothers_with_its_directory,
}


#: What makes a record one that is not there.
NOT_FOUND = {
    "file": {"a directory", "a dangling link"},
    "dbm.dumb": {"a dangling link"},
    "dbm.gnu": {"a directory", "a dangling link"},
}


def become_nobody():
    """Be a user whom permissions bind, if we are root."""
    with suppress(PermissionError):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.mark.parametrize("module", ["file", "dbm.dumb", "dbm.gnu"])
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_one_record_that_cannot_be_opened_ends_no_purge(what, module, tmp_path, clock, caplog, monkeypatch):
    """What cannot be opened is left out, and told once with its directory; the purge goes on, and does so each time."""
    # Nobody may come in by a relative path: pytest's directories are its own.
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    options = {"type": "file"} if module == "file" else {"type": "dbm", "dbmmodule": machine.dbm(module)}
    config = config_of(**options, data_dir="data", clock=clock, timeout=TIMEOUT)
    before = os.umask(0)
    for session_id in (f"{digit}" * 32 for digit in range(6)):
        record = config.codec.seal(config.codec.serialize({"_accessed_time": START, "_creation_time": START}))
        config.store.swap(session_id, None, record)
    os.umask(before)
    IN_THE_WAY[what](mark_of(config, "2" * 32))
    clock.now += TIMEOUT + 1

    def purge_twice():
        Path("numbers").write_text(f"{purge(config)} {purge(config)}")
        Path("told").write_text("".join(f"{record.message}\n" for record in caplog.records))

    child = os.fork() if "root's" in what else None
    if child == 0:
        try:
            become_nobody()
            purge_twice()
        finally:
            os._exit(0)
    os.waitpid(child, 0) if child else purge_twice()
    told = Path("told").read_text().splitlines()

    assert Path("numbers").read_text() == "5 0"
    assert bool(told) is (what not in NOT_FOUND[module])
    assert len(told) == len(set(told))
    assert all(": the session store" in line and "(data_dir = data) cannot be reached" in line for line in told)


def test_a_purge_ends_where_the_store_cannot_be_reached(in_files, clock):
    """Without a directory to list, or a server to ask, there is nothing to go on with."""
    config = in_files()
    Browser(config).write(a=1)
    root = Path(config.store._root)
    root.rename(root.with_name("away"))
    root.touch()
    with pytest.raises(SessionStoreError, match=f"data_dir = {root.parent}.* cannot be reached: NotADirectoryError"):
        purge(config)

    root.unlink()
    away = in_files()
    away.store.ids = lambda _form: iter([new_id()])
    away.store.read = refuse
    with pytest.raises(ServerUnavailableError):
        purge(away)


def refuse(*_arguments):
    """Be a server that is down."""
    raise ServerUnavailableError("away")


@pytest.mark.parametrize("name", ["file", "dbm"])
def test_what_cannot_be_swept_is_left_out(tmp_path, name, caplog):
    """What a sweep cannot remove is told by its directory, and the others are removed."""
    options = {"type": "file"} if name == "file" else {"type": "dbm", "dbmmodule": dbm.dumb}
    config = config_of(**options, data_dir=str(tmp_path))
    for digit in "012":
        place = Path(config.store._root) / digit / (2 * digit)
        place.mkdir(parents=True)
        left = place / (32 * digit + (".cache.0123.bridge-tmp" if name == "file" else ".dbm.dat"))
        left.symlink_to(left) if digit == "1" else left.touch()
        os.utime(left, (0, 0), follow_symlinks=False)
        # By this one a dbm's id is found.
        left.with_suffix(".bak").symlink_to("nowhere")

    assert purge(config) == 2
    assert f"what cannot be opened is left out: the session store {name} (data_dir = {tmp_path})" in caplog.text


def beakers_lock(config, name):
    """Return the path of the lock file that Beaker has for an id, or for a name of a cache."""
    digest = hashlib.sha1(name.encode()).hexdigest()
    path = Path(config.store._directories.locks) / digest[:1] / digest[:2] / f"{digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("name", ["file", "dbm"])
def test_lock_files_that_nobody_holds_are_swept(tmp_path, name):
    """Beaker leaves a lock file for each session: one without a session, that nobody holds, is removed when it is old.
    One of a session, or of a cache, stays: a process of Beaker's may be about to lock it.
    """
    config = config_of(**store_options(name, tmp_path))
    browser = Browser(config)
    browser.write(a=1)
    cache = clsmap[name]("a cache", data_dir=str(tmp_path), dbmmodule=dbm.dumb)
    cache.acquire_write_lock()
    cache["value"] = 1
    cache.release_write_lock()
    kept = [beakers_lock(config, owner) for owner in (browser.id, "a cache")]
    held, young, *left = (beakers_lock(config, new_id()) for _ in range(5))
    os.utime(young)
    (young.parent / "others.lock").touch()
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)

        assert purge(config, dry_run=True) == 3
        assert all(path.exists() for path in left)
        assert purge(config) == 3

    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in (*kept, held, young))
    assert browser.read() == {"a": 1}


@pytest.mark.parametrize("name", ["file", "dbm"])
def test_the_lock_file_of_a_purged_session_goes_with_it(tmp_path, name, clock):
    """A session that Beaker has locked now stays until the next purge."""
    config = config_of(**store_options(name, tmp_path), clock=clock, timeout=TIMEOUT)
    browsers = [Browser(config) for _ in range(2)]
    for browser in browsers:
        browser.write(a=1)
    free, held = (beakers_lock(config, browser.id) for browser in browsers)
    clock.now += TIMEOUT + 1
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert purge_module.purge(config).deleted == 1

    assert not free.exists()
    assert list(config.store.ids()) == [browsers[1].id]
    assert purge_module.purge(config).deleted == 1
    assert not held.exists()


@pytest.mark.parametrize("old", [True, False])
def test_what_a_process_of_beakers_left_is_swept(tmp_path, old):
    """Beaker writes a file beside the session's, and renames it: one that it was killed at is removed."""
    config = config_of(**store_options("file", tmp_path))
    browser = Browser(config)
    browser.write(a=1)
    path = next(tmp_path.rglob("*.cache"))
    left, others = Path(f"{path}.temp"), path.with_name("others.cache.temp")
    for file in (left, others):
        file.write_bytes(b"half")
        os.utime(file, (0, 0) if old else None)

    assert purge(config) == old
    assert left.exists() is not old
    assert others.exists()


def test_a_record_that_cannot_be_deleted_ends_no_purge(tmp_path, clock, caplog, monkeypatch):
    """Of records that share a lock, one that cannot be deleted is left and told; the others go."""
    config = config_of(**store_options("file", tmp_path), clock=clock, timeout=TIMEOUT)
    record = config.codec.encode({"_accessed_time": START, "_creation_time": START})
    ids = [f"{digit * 28}0000" for digit in "123"]
    for session_id in ids:
        config.store.swap(session_id, None, record)
    clock.now += TIMEOUT + 1
    remove = config.store._remove

    def refusing(session_id):
        if session_id == ids[1]:
            raise PermissionError(errno.EPERM, "not permitted", config.store._path(session_id))
        remove(session_id)

    monkeypatch.setattr(config.store, "_remove", refusing)

    assert purge(config) == 2
    assert list(config.store.ids()) == [ids[1]]
    assert "what cannot be opened is left out: the session store file" in caplog.text
    assert ids[1] not in caplog.text


def test_a_purge_ends_where_the_server_goes_away(in_memory, clock, monkeypatch):
    """A server that can no longer be reached when a record is to be deleted ends the purge."""
    an_expired_session(in_memory)
    monkeypatch.setattr(in_memory.store, "swap", lambda *_: refuse())
    with pytest.raises(ServerUnavailableError):
        purge(in_memory)


# -- Many ----------------------------------------------------------------------------------------------


def many_files(config, count):
    """Write many sessions into files, every other one expired, as fast as the disk takes them."""
    root = Path(config.store._root)
    for place in range(256):
        (root / f"{place >> 4:x}" / f"{place:02x}").mkdir(parents=True)
    for session_id, raw in many(config, count):
        Path(config.store._path(session_id)).write_bytes(raw)


def many_rows(config, count):
    """Write many sessions into SQLite, every other one expired, in one transaction."""
    config.store.count()
    rows = ((nth, raw, f"{config.store._now()}") for nth, raw in many(config, count))
    statement = "INSERT INTO beaker_cache (namespace, data, accessed, created) VALUES (?1, ?2, ?3, ?3)"
    with closing(sqlite3.connect(config.store._engine().url.database)) as connection, connection:
        connection.executemany(statement, rows)


def many(config, count):
    """Yield the ids and the records of many sessions, every other one expired."""
    now = config.clock()
    for nth in range(count):
        accessed = now - (nth % 2) * 2 * TIMEOUT
        record = {"_accessed_time": accessed, "_creation_time": accessed, "user": nth, "cart": ["thing"] * 10}
        yield new_id(), config.codec.encode(record)


MANY = [pytest.param(20_000, marks=pytest.mark.ci), pytest.param(1_000_000, marks=pytest.mark.soak)]


@pytest.mark.once
@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("name", ["file", "sqlite"])
def test_many_sessions_are_purged_in_little_memory(tmp_path, clock, count, name):
    """However many sessions there are, a batch of them is in memory, and a statement reads or deletes a batch."""
    config = config_of(**store_options(name, tmp_path), clock=clock, timeout=TIMEOUT)
    (many_files if name == "file" else many_rows)(config, count)
    told, statements = [], []
    if name == "sqlite":
        engine = config.store._engine()
        event.listen(engine, "after_cursor_execute", lambda *_: statements.append(1))
    tracemalloc.start()
    try:
        done = purge_module.purge(config, progress=told.append)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert done == Purged(count, count // 2)
    assert len(told) == count // BATCH
    assert peak < 8 << 20
    # One reads a batch, one deletes what has ended in it, one finds no more; and one looks for locks.
    assert len(statements) == (2 * count // BATCH + 2 if name == "sqlite" else 0)
    assert config.store.count() == count // 2
    config.store.close()


# -- What killed processes have left -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "dbm"])
@pytest.mark.parametrize("old", [True, False])
def test_what_a_killed_writer_left_is_swept(tmp_path, name, old):
    """A temporary file that no writer can still be writing is removed; a new one is left alone."""
    config = config_of(type=name, data_dir=str(tmp_path))
    browser = Browser(config)
    browser.write(a=1)
    # Which files there are is the dbm module's own.
    written = min(path for path in Path(tmp_path).rglob(f"{browser.id}.*") if path.suffix != ".lock")
    left = written.with_name(f"{written.name}.0123456789abcdef.bridge-tmp")
    left.write_bytes(b"half")
    # One that goes meanwhile is none.
    (tmp_path / "container_file_lock").mkdir(exist_ok=True)
    (tmp_path / "container_file_lock" / f"{'0' * 40}.lock").symlink_to("nowhere")
    age = ABANDONED_AFTER + 60 if old else 0
    os.utime(left, (left.stat().st_mtime - age,) * 2)

    assert purge(config, dry_run=True) == old
    assert left.exists()
    assert purge(config) == old
    assert left.exists() is not old
    assert browser.read() == {"a": 1}


# -- By itself -----------------------------------------------------------------------------------------

EVERY = 300


@pytest.fixture(params=["file", "dbm", "sqlite", "postgresql", "mariadb"])
def purging(request, tmp_path, clock):
    """Return what makes a configuration that purges by itself, as each process has one."""
    options = {**options_of(request, tmp_path), "clock": clock, "timeout": TIMEOUT, "purge_every": EVERY}
    made = []

    def make(**others):
        made.append(config_of(**{**options, **others}))
        return made[-1]

    store = make().store
    # The databases are other tests' as well.
    for session_id in [*store.ids(), "0" * 32 + ".lock"]:
        if hasattr(store, "_table") or "." not in session_id:
            store.swap(session_id, store.read(session_id), None)
    yield make
    for config in made:
        config.store.close()


def write_and_wait(config):
    """Let a new visitor come, and a purge that has begun end; return the visitor's id and the ids that stand then."""
    browser = Browser(config)
    browser.write(a=1)
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join()
    return browser.id, set(config.store.ids())


def test_a_process_purges_by_itself(purging, clock):
    """With purge_every a write begins a purge, and the next one not before that many seconds."""
    config = purging()
    first, _ = write_and_wait(config)
    clock.now += TIMEOUT + 1
    second, after_second = write_and_wait(config)
    clock.now += EVERY - 1
    short = Browser(purging(purge_every=None, timeout=1))
    short.write(a=1)
    request = short.begin()
    request.session.set_expiry(1)
    short.end(request)
    _, before_third = write_and_wait(config)
    clock.now += 2
    _, after_third = write_and_wait(config)

    assert first not in after_second
    assert second in after_second
    assert short.id in before_third
    assert short.id not in after_third
    assert second in after_third


def test_processes_purge_once_among_them(purging, clock):
    """A process that begins, or whose time has come, does not purge what another one has purged a moment ago."""
    write_and_wait(purging())
    expired, _ = write_and_wait(purging(timeout=None, purge_every=None))
    clock.now += EVERY - 1
    ids = write_and_wait(purging(timeout=1))[1]
    clock.now += 1
    later = write_and_wait(purging(timeout=1))[1]

    assert expired in ids
    assert expired not in later


def test_one_process_purges_at_a_time(purging, clock):
    """While a process purges, however long it takes, no other one does; what it leaves is the next one's turn."""
    one, other = purging().store, purging().store
    with one.purge_turn(EVERY) as is_ones:
        clock.now += EVERY + 1
        with other.purge_turn(EVERY) as is_others:
            pass
    with other.purge_turn(EVERY) as is_others_now, one.purge_turn(EVERY) as is_ones_again:
        pass

    assert (is_ones, is_others, is_others_now, is_ones_again) == (True, False, True, False)


def test_a_clock_that_was_ahead_does_not_end_the_purges(purging, clock):
    """A year ahead for one purge, of this process or of another: it is due again by the clock that is right."""
    config, other = purging(), purging()
    clock.now += 365 * 86400
    write_and_wait(config)
    clock.now = START
    expired = [write_and_wait(purging(purge_every=None))[0] for _ in range(2)]
    clock.now += TIMEOUT + 1
    _, after = write_and_wait(config)
    clock.now += EVERY + 1
    short = write_and_wait(purging(purge_every=None))[0]
    clock.now += TIMEOUT + 1
    _, after_others = write_and_wait(other)

    assert after.isdisjoint(expired)
    assert short not in after_others


def test_a_purge_that_fails_gives_its_turn_back(purging, clock):
    """An error in a purge is its own, and the next purge comes at its time."""
    store = purging().store
    with pytest.raises(SessionStoreError), store.purge_turn(EVERY):
        raise SessionStoreError("away")
    clock.now += EVERY + 1
    with store.purge_turn(EVERY) as is_ours:
        pass

    assert is_ours


@pytest.fixture
def in_files(tmp_path, clock):
    """Return what makes a configuration of files that purges by itself."""
    return lambda **others: config_of(
        **{
            "type": "file",
            "data_dir": str(tmp_path),
            "clock": clock,
            "timeout": TIMEOUT,
            "purge_every": EVERY,
            **others,
        }
    )


def test_a_clock_that_was_set_back_does_not_end_the_purges(in_files, clock):
    """A last purge that lies in the future, or that cannot be read, is none."""
    store = in_files().store
    turns = []
    for step in (0, -EVERY, EVERY):
        clock.now += step
        with store.purge_turn(EVERY) as is_ours:
            turns.append(is_ours)

    assert turns == [True, True, True]


def test_a_purge_that_fails_is_logged(in_files, tmp_path, caplog):
    """The request whose write began a purge does not notice that it fails."""
    (tmp_path / "container_file_lock" / "bridge-purge.lock").mkdir(parents=True)
    session_id, ids = write_and_wait(in_files())

    assert ids == {session_id}
    assert f"the purge of the store file failed; it is tried again in {EVERY} seconds" in caplog.text


def test_without_threads_there_is_no_purge(in_files, monkeypatch, caplog):
    """Where no thread can be started, the request does not fail for that."""

    def fail(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(purge_module.threading.Thread, "start", fail)
    session_id, ids = write_and_wait(in_files())

    assert ids == {session_id}
    assert "expired sessions are not purged: can't start new thread" in caplog.text


def test_nothing_is_purged_by_itself_by_default(in_files, clock):
    """Without purge_every a store is left alone."""
    config = in_files(purge_every=None)
    expired, _ = write_and_wait(config)
    clock.now += TIMEOUT + 1

    assert expired in write_and_wait(config)[1]


def test_a_forked_child_purges(in_files, clock):
    """A process that was forked when its parent had purged does so, too, when its time has come."""
    config = in_files()
    expired, _ = write_and_wait(config)
    clock.now += TIMEOUT + 1
    child = os.fork()
    if child == 0:
        try:
            os._exit(expired in write_and_wait(config)[1])
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_cannot_be_listed_is_not_purged(in_files, caplog):
    """Where Beaker's own interface is all there is, purge_every is one warning at the start."""
    other = in_files(type="dbm", dbmmodule=threading)
    Browser(in_files(namespace_class=clsmap["memory"])).write(a=1)

    assert "purge_every is ignored: Beaker's own interface, which this type = dbm goes through" in caplog.text
    assert "which this type = file goes through" in caplog.text
    with other.store.purge_turn(EVERY) as is_ours:
        assert not is_ours
