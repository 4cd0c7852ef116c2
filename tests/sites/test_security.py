"""Nobody gets in, and nothing readable gets out: what SECURITY.rst promises, shown on every real store.

An attacker here can write into the store (:class:`Place`), or knows the keys, or sends what he likes.
"""

from __future__ import annotations

import base64
import configparser
import dbm.dumb
import json
import logging
import os
import pickle
import random
import re
import secrets
import signal
import socket
import subprocess
import textwrap
import traceback
import zlib
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import beaker.middleware
import pyramid_beaker
import pytest
import redis
import sqlalchemy as sa
from beaker.container import MemoryNamespaceManager
from docutils import nodes
from docutils.core import publish_doctree
from hypothesis import given, settings
from hypothesis import strategies as st
from paste.deploy import loadfilter
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

from beaker_bridge import SessionMiddleware, SessionStoreError, SettingsError
from beaker_bridge.cookies import MAX_COOKIE_SIZE
from beaker_bridge.options.reader import read_options
from beaker_bridge.record.serializers import MAX_PLAIN_SIZE
from beaker_bridge.record.tagging import MAX_DEPTH
from beaker_bridge.session.base import MAX_COOKIES, new_id
from beaker_bridge.session.config import SECRET_SIZE, STEP
from beaker_bridge.session.context import SessionContext
from beaker_bridge.session.session import MOVED_FOR, Session
from beaker_bridge.stores.base import Store
from tests import machine
from tests.fuzzing.memory import peak_of
from tests.installations import INSTALLATIONS, install
from tests.requests import STORES, Browser, Clock, config_of, options_of

NAME = "sid"
#: The cookie's name where there is no option ``key``.
BEAKERS_NAME = "beaker.session.id"
#: The form of an id.
ID_FORM = re.compile("[0-9a-f]{32}")
SECRET = "a secret for tests, of 32 bytes or more"
VALIDATE_KEY = "a key that signs cookies, for the tests"
ENCRYPT_KEY = "a key that encrypts sessions, for tests"
SIGNED = {"key": NAME, "secret": SECRET}
#: The keys of encryption. Beaker's default is another cipher before 1.14, or none.
KEYS = {"validate_key": VALIDATE_KEY, "encrypt_key": ENCRYPT_KEY, "crypto_type": "cryptography"}
ENCRYPTED = {**SIGNED, **KEYS}
#: A cookie session, signed only, and encrypted too.
COOKIES = {
    "signed": {"type": "cookie", "key": NAME, "validate_key": VALIDATE_KEY},
    "encrypted": {"type": "cookie", "key": NAME, **KEYS},
}
#: The length of the nonce in base64, before the encrypted text.
NONCE_LENGTH = 24
#: What no store and no cookie may show under an ``encrypt_key``.
CONFIDENTIAL = "the patient's name is Ada"


# -- The application ---------------------------------------------------------------------------------


def page(request):
    """Count the visits."""
    request.session["count"] = request.session.get("count", 0) + 1
    return tell(request)


def tell(request):
    """Tell what the session is, without a change."""
    session = request.session
    return {"id": session.id, "new": session.new, "count": session.get("count", 0), "data": sorted(session)}


def confide(request):
    """Put something confidential into the session."""
    request.session["name"] = CONFIDENTIAL
    return tell(request)


def login(request):
    """Log in, as the documentation says."""
    before = request.session.get_csrf_token()
    request.session["user"] = "ada"
    request.session.regenerate_id()
    return {**tell(request), "tokens": [before, request.session.get_csrf_token()]}


def logout(request):
    """Log out."""
    request.session.invalidate()
    return {}


def by_id(request):
    """Look for the session of an id that a browser names."""
    return {"found": request.session.get_by_id(request.params["id"]) is not None}


def public(request):
    """Change the session, and let every cache keep the page."""
    page(request)
    request.response.cache_control = "public, max-age=60"
    return {}


def plain(request):
    """Do without the session."""
    return {}


VIEWS = (page, tell, confide, login, logout, by_id, public, plain)


def configure(config):
    """Add the views."""
    for view in VIEWS:
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")


class Site:
    """An application, and a browser that keeps its cookie, or sends another one.

    Args:
        options: the session's options.
        application: the application; ours, in the pipeline, if nothing is given.
    """

    def __init__(self, options, application=None):
        self.options = options
        self.name = options.get("key", BEAKERS_NAME)
        self.application = application or install("filter", options, configure)
        self.app = TestApp(self.application)

    def visit(self, path="/page", cookie=None):
        """Return what a page tells; with the browser's own cookie, unless one is given."""
        headers = {} if cookie is None else {"Cookie": f"{self.name}={cookie}"}
        if cookie is not None:
            self.app.reset()
        return self.app.get(path, headers=headers).json

    @property
    def cookie(self):
        """The browser's cookie."""
        return self.app.cookies[self.name].strip('"')


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- The stores, as somebody reaches them who can write there ----------------------------------------


class Place:
    """Where the records of one store are, without any code of ours.

    Args:
        options: the session's options.
        server: the store's server, if it has one.
    """

    #: Whether it holds any bytes; text only, otherwise.
    any_bytes = True

    def __init__(self, options, server=None):
        self.options = options
        self.server = server

    def read(self, session_id) -> bytes:
        """Return the bytes of a record."""
        raise NotImplementedError

    def write(self, session_id, raw) -> None:
        """Replace the bytes of a record."""
        raise NotImplementedError

    def envelope(self, value) -> bytes:
        """Return a value pickled as Beaker's backend pickles a record's text."""
        return pickle.dumps(value)

    def breakdown(self, session_id):
        """Return a context in which the store fails for a session."""
        raise NotImplementedError


class MemoryPlace(Place):
    any_bytes = False

    def read(self, session_id):
        return MemoryNamespaceManager.namespaces[session_id]["session"].encode("ascii")

    def write(self, session_id, raw):
        MemoryNamespaceManager.namespaces[session_id]["session"] = raw.decode("ascii")

    def envelope(self, value):
        return pickle.dumps(value, 0)

    @contextmanager
    def breakdown(self, session_id):
        # Memory cannot fail. That it does not hold what we have left there is the worst that can be.
        kept = MemoryNamespaceManager.namespaces.dict.pop(session_id)
        try:
            yield
        finally:
            MemoryNamespaceManager.namespaces.dict[session_id] = kept


class FilePlace(Place):
    def _path(self, session_id):
        return Path(self.options["data_dir"], "container_file", session_id[0], session_id[:2], f"{session_id}.cache")

    def read(self, session_id):
        return self._path(session_id).read_bytes()

    def write(self, session_id, raw):
        self._path(session_id).write_bytes(raw)

    def envelope(self, value):
        return pickle.dumps({"session": value})

    def breakdown(self, session_id):
        return replaced_by_a_folder(self._path(session_id))


@contextmanager
def replaced_by_a_folder(path):
    """Put a folder where a file is: it cannot be read, not even by root."""
    kept = path.rename(path.with_name("kept"))
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()
        kept.rename(path)


class DbmPlace(Place):
    def _path(self, session_id):
        return Path(self.options["data_dir"], "container_dbm", session_id[0], session_id[:2], f"{session_id}.dbm")

    def _open(self, session_id):
        return dbm.dumb.open(str(self._path(session_id)), "w")

    def read(self, session_id):
        with self._open(session_id) as database:
            return database["session"]

    def write(self, session_id, raw):
        with self._open(session_id) as database:
            database["session"] = raw

    def breakdown(self, session_id):
        return replaced_by_a_folder(self._path(session_id).with_suffix(".dbm.dir"))


class RedisPlace(Place):
    def _client(self):
        return redis.Redis.from_url(self.options["url"])

    def read(self, session_id):
        with self._client() as client:
            return client.get(f"beaker_cache:{session_id}:session")

    def write(self, session_id, raw):
        with self._client() as client:
            client.set(f"beaker_cache:{session_id}:session", raw)

    @contextmanager
    def breakdown(self, session_id):
        raw = self.read(session_id)
        with self._client() as client:
            # What is no string cannot be read as one.
            client.delete(f"beaker_cache:{session_id}:session")
            client.rpush(f"beaker_cache:{session_id}:session", "a list")
        try:
            yield
        finally:
            self.write(session_id, raw)


class RedisClusterPlace(RedisPlace):
    def _client(self):
        return redis.RedisCluster.from_url(self.options["urls"].split(",")[0])


class MemcachedPlace(Place):
    #: python-memcached's flags for a value that it has pickled, and for one that it has compressed.
    PICKLED, COMPRESSED = 1, 8
    flags = PICKLED

    def _ask(self, request, end):
        host, _, port = self.options["url"].partition(":")
        with socket.create_connection((host, int(port)), 30) as connection:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(end):
                answer += connection.recv(65536)
        return answer

    def read(self, session_id):
        answer = self._ask(f"get {session_id}_session\r\n".encode(), b"END\r\n")
        return answer.split(b"\r\n", 1)[1].removesuffix(b"\r\nEND\r\n")

    def write(self, session_id, raw):
        head = f"set {session_id}_session {self.flags} 0 {len(raw)}\r\n".encode()
        assert self._ask(head + raw + b"\r\n", b"\r\n") == b"STORED\r\n"

    @contextmanager
    def breakdown(self, session_id):
        os.kill(self.server.process.pid, signal.SIGSTOP)
        # It stops some time after the signal was sent.
        os.waitpid(self.server.process.pid, os.WUNTRACED)
        try:
            yield
        finally:
            self.server.thaw()


class SQLPlace(Place):
    def _run(self, statement, **parameters):
        """Execute a statement; return what it found, or the number of rows that it changed."""
        # Without a pool: also after an error no connection stays open.
        with sa.create_engine(self.options["url"], poolclass=sa.NullPool).begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return bytes(result.scalar_one()) if result.returns_rows else result.rowcount

    def read(self, session_id):
        return self._run("SELECT data FROM beaker_cache WHERE namespace = :id", id=session_id)

    def write(self, session_id, raw):
        assert self._run("UPDATE beaker_cache SET data = :raw WHERE namespace = :id", raw=raw, id=session_id) == 1

    def envelope(self, value):
        return pickle.dumps({"session": value})

    @contextmanager
    def breakdown(self, session_id):
        # A table that is gone would be made anew.
        self._run("ALTER TABLE beaker_cache RENAME COLUMN data TO gone")
        try:
            yield
        finally:
            self._run("ALTER TABLE beaker_cache RENAME COLUMN gone TO data")


PLACES = {
    "memory": MemoryPlace,
    "file": FilePlace,
    "dbm": DbmPlace,
    "redis": RedisPlace,
    "rediscluster": RedisClusterPlace,
    "memcached": MemcachedPlace,
    "sqlite": SQLPlace,
    "postgresql": SQLPlace,
    "mariadb": SQLPlace,
}


@pytest.fixture(params=STORES)
def place(request, tmp_path):
    """Return a real store, as who can write there sees it."""
    fixture = STORES[request.param]
    if request.param == "rediscluster":
        machine.backend("ext:rediscluster")
    return PLACES[request.param](options_of(request, tmp_path), request.getfixturevalue(fixture) if fixture else None)


# -- No code from the session's store ----------------------------------------------------------------


class Planted:
    """What creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


def beaker_site(options, values):
    """Return a site of Beaker's own, with pickles, whose every page puts values into the session."""

    def application(environ, start_response):
        environ["beaker.session"].update(values)
        environ["beaker.session"].save()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"id": environ["beaker.session"].id}).encode()]

    return Site(options, beaker.middleware.SessionMiddleware(application, data_serializer="pickle", **options))


def plant_the_record(site, place, planted):
    """Begin a session and put a pickle where its record is."""
    session_id = site.visit()["id"]
    place.write(session_id, pickle.dumps(planted, 2 if place.any_bytes else 0))
    return session_id


def plant_in_the_envelope(site, place, planted):
    """Begin a session and put a pickle into the envelope, in place of the text."""
    session_id = site.visit()["id"]
    place.write(session_id, place.envelope(planted))
    return session_id


def plant_a_session(site, place, planted):
    """Have Beaker itself store the pickle as a session, with the right keys."""
    theirs = beaker_site(site.options, {"planted": planted})
    session_id = theirs.visit("/")["id"]
    site.app.set_cookie(NAME, theirs.cookie)
    return session_id


PLANTED = {
    "the record": (plant_the_record, SIGNED),
    "in the envelope": (plant_in_the_envelope, SIGNED),
    "a session": (plant_a_session, SIGNED),
    "an encrypted session": (plant_a_session, ENCRYPTED),
}


@pytest.mark.parametrize(("plant", "keys"), PLANTED.values(), ids=PLANTED)
def test_a_planted_pickle_runs_no_code(place, tmp_path, caplog, plant, keys):
    """A pickle in the store stays closed: no file, a new session, one warning, and the record as it was."""
    site = Site({**place.options, **keys})
    session_id = plant(site, place, Planted(tmp_path / "planted"))
    before = place.read(session_id)
    caplog.clear()
    told = site.visit()
    (warning,) = warnings_of(caplog)

    assert not (tmp_path / "planted").exists()
    assert (told["new"], told["count"]) == (True, 1)
    assert told["id"] != session_id
    assert "cannot be read as a session" in warning
    assert place.read(session_id) == before


def test_the_planted_pickle_is_a_live_one(tmp_path):
    """The pickle of these tests does create its file where pickles are opened: with ``data_serializer = pickle``."""
    options = {"type": "file", "data_dir": str(tmp_path), **SIGNED}
    theirs = beaker_site(options, {"planted": Planted(tmp_path / "planted")})
    theirs.visit("/")
    Site({**options, "data_serializer": "pickle"}).visit(cookie=theirs.cookie)

    assert (tmp_path / "planted").exists()


@pytest.mark.parametrize("changed", [{}, {"legacy_serializer": "pickle"}], ids=["json", "legacy"])
@pytest.mark.parametrize("options", COOKIES.values(), ids=COOKIES)
def test_a_planted_pickle_in_a_cookie_runs_no_code(options, changed, tmp_path, caplog):
    """A pickle in a cookie stays closed, though it has the right keys and older records may be pickled."""
    theirs = beaker_site(options, {"planted": Planted(tmp_path / "planted")})
    theirs.visit("/")
    site = Site({**options, **changed})
    caplog.clear()
    told = site.visit(cookie=theirs.cookie)
    (warning,) = warnings_of(caplog)

    assert not (tmp_path / "planted").exists()
    assert (told["new"], told["count"]) == (True, 1)
    assert "cannot be read as a session" in warning


def test_a_bomb_that_memcached_holds_compressed_is_cut(memcached_server, caplog):
    """A value that is marked as compressed, 128 MiB in 128 KiB, gives a new session, and is no error of the store."""
    place = MemcachedPlace({"type": "ext:memcached", "url": memcached_server.url})
    site = Site({**place.options, **SIGNED})
    session_id = site.visit()["id"]
    place.flags = place.COMPRESSED
    place.write(session_id, zlib.compress(bytes(8 * MAX_PLAIN_SIZE)))
    caplog.clear()
    told = {}
    peak = peak_of(lambda: told.update(site.visit()))
    (warning,) = warnings_of(caplog)

    assert (told["new"], told["count"]) == (True, 1)
    assert "cannot be read as a session" in warning
    assert peak < 4 * MAX_PLAIN_SIZE


# -- From pickle to JSON -----------------------------------------------------------------------------


def pyramid_beaker_site(options):
    """Return the site that a site was before: pyramid_beaker, with its pickles."""
    config = Configurator()
    config.set_session_factory(pyramid_beaker.BeakerSessionFactoryConfig(**options))
    configure(config)
    return Site(options, config.make_wsgi_app())


@pytest.mark.parametrize("keys", [SIGNED, ENCRYPTED], ids=["signed", "encrypted"])
def test_a_pickled_session_becomes_json(place, keys):
    """With ``legacy_serializer`` a session of pyramid_beaker goes on, and is JSON from its next write on."""
    options = {**place.options, **keys}
    before = pyramid_beaker_site(options)
    session_id = before.visit()["id"]
    moved = Site({**options, "legacy_serializer": "pickle"}).visit(cookie=before.cookie)
    after = Site(options).visit(cookie=before.cookie)

    assert (moved["id"], moved["new"], moved["count"]) == (session_id, False, 2)
    assert (after["id"], after["new"], after["count"]) == (session_id, False, 3)


def test_a_pickled_session_without_the_option_is_told_of(place, caplog):
    """Without ``legacy_serializer`` a pickled session is left as it is, and one warning names the option."""
    options = {**place.options, **SIGNED}
    before = pyramid_beaker_site(options)
    session_id = before.visit()["id"]
    raw = place.read(session_id)
    caplog.clear()
    told = Site(options).visit(cookie=before.cookie)
    (warning,) = warnings_of(caplog)

    assert (told["new"], told["count"]) == (True, 1)
    assert "legacy_serializer = pickle" in warning
    assert place.read(session_id) == raw
    assert before.visit()["count"] == 2


# -- Keys --------------------------------------------------------------------------------------------

#: The keys of a stored session and of a cookie session, and the option that holds the retired ones.
PREVIOUS = {
    "secret": "previous_secrets",
    "validate_key": "previous_validate_keys",
    "encrypt_key": "previous_encrypt_keys",
}


def rotate(options, key):
    """Return the sites before a key is changed, while both keys are accepted, and afterwards."""
    changed = {**options, key: f"a new {key}, of 32 bytes or even more"}
    return Site(options), Site({**changed, PREVIOUS[key]: [options[key]]}), Site(changed)


def assert_rotation_holds(before, during, after):
    """Assert that nobody who came during the change is logged out, and that the old key ends with it."""
    told = before.visit()
    idle = Site(before.options, before.application)
    idle.visit()
    seen = during.visit("/tell", before.cookie)
    renewed = during.app.cookies.get(NAME, before.cookie).strip('"')
    later = after.visit("/tell", renewed)
    left = after.visit("/tell", idle.cookie)

    assert (seen["id"], seen["new"], seen["count"]) == (told["id"], False, 1)
    assert (later["id"], later["new"], later["count"]) == (told["id"], False, 1)
    assert (left["new"], left["count"]) == (True, 0)


@pytest.mark.parametrize("key", PREVIOUS)
def test_a_key_of_stored_sessions_is_changed(place, key):
    """A changed key logs nobody out who comes while the old one is accepted; removed, it opens nothing."""
    assert_rotation_holds(*rotate({**place.options, **ENCRYPTED}, key))


@pytest.mark.parametrize(
    ("protection", "key"), [("signed", "validate_key"), ("encrypted", "validate_key"), ("encrypted", "encrypt_key")]
)
def test_a_key_of_cookie_sessions_is_changed(protection, key):
    """The same holds for a session that is all in its cookie."""
    assert_rotation_holds(*rotate(COOKIES[protection], key))


@pytest.mark.parametrize(
    ("kind", "key"), [*product(["file"], PREVIOUS), ("cookie", "validate_key"), ("cookie", "encrypt_key")]
)
def test_several_machines_change_a_key(kind, key, tmp_path):
    """Machines that know the new key as a retired one, and those that use it, read each other's sessions."""
    options = {**COOKIES["encrypted"], "secret": SECRET, "type": kind, "data_dir": str(tmp_path)}
    new = f"a new {key}, of 32 bytes or even more"
    first = Site({**options, PREVIOUS[key]: [new]})
    second = Site({**options, key: new, PREVIOUS[key]: [options[key]]})
    counts, cookie = [first.visit()["count"]], first.cookie
    for site in (second, first, second):
        counts.append(site.visit(cookie=cookie)["count"])
        cookie = site.app.cookies.get(NAME, cookie).strip('"')

    assert counts == [1, 2, 3, 4]


def test_a_retired_secret_signs_nothing_new(tmp_path):
    """While two secrets are accepted, only the new one signs."""
    before, during, after = rotate({"type": "file", "data_dir": str(tmp_path), **SIGNED}, "secret")
    during.visit()

    assert before.visit("/tell", during.cookie)["new"]
    assert not after.visit("/tell", during.cookie)["new"]


# -- Encryption --------------------------------------------------------------------------------------


def readings(raw):
    """Yield what can be read in bytes without a key: themselves, base64 in them, and what is compressed in that."""
    yield raw
    for run, skipped in product(re.findall(rb"[A-Za-z0-9+/]{16,}", raw), range(4)):
        decoded = base64.b64decode(run[skipped : len(run) - (len(run) - skipped) % 4])
        yield decoded
        for start in range(64):
            with suppress(zlib.error):
                yield zlib.decompressobj().decompress(decoded[start:])


def is_readable(value, *contents):
    """Say whether a text can be read in some bytes."""
    return any(value.encode() in reading for raw in contents for reading in readings(raw))


def everything(place, folder, session_id):
    """Return all that a store holds: a session's record, and every file."""
    return [place.read(session_id), *(path.read_bytes() for path in folder.rglob("*") if path.is_file())]


@pytest.mark.parametrize(("keys", "readable"), [(SIGNED, True), (ENCRYPTED, False)], ids=["signed", "encrypted"])
def test_an_encrypted_session_is_nowhere_in_plain_text(place, tmp_path, keys, readable):
    """Under an ``encrypt_key`` what the application stores can be read nowhere in the store; without one it can."""
    site = Site({**place.options, **keys})
    session_id = site.visit("/confide")["id"]
    site.visit("/confide")

    assert is_readable(CONFIDENTIAL, *everything(place, tmp_path, session_id)) is readable
    assert not is_readable(CONFIDENTIAL, site.cookie.encode())


@pytest.mark.parametrize(("protection", "readable"), [("signed", True), ("encrypted", False)])
def test_an_encrypted_cookie_is_not_in_plain_text(protection, readable):
    """Under an ``encrypt_key`` nobody reads in his cookie what the application stores; without one he does."""
    site = Site(COOKIES[protection])
    site.visit("/confide")

    assert is_readable(CONFIDENTIAL, site.cookie[40:].encode()) is readable


def test_no_byte_of_an_encrypted_record_can_be_changed(tmp_path):
    """A record of which one bit was changed, at whatever place, opens nothing."""
    place = FilePlace({"type": "file", "data_dir": str(tmp_path)})
    site = Site({**place.options, **ENCRYPTED})
    session_id = site.visit()["id"]
    text = pickle.loads(place.read(session_id))["session"]
    nonce, sealed = text[:NONCE_LENGTH], base64.b64decode(text[NONCE_LENGTH:])
    cookie, opened = site.cookie, []
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        place.write(session_id, place.envelope(nonce + base64.b64encode(changed).decode()))
        opened.append(site.visit("/tell", cookie)["id"] == session_id)

    assert site.visit("/tell", cookie)["new"]
    assert opened == [False] * len(sealed)


def test_an_encrypted_record_opens_nothing_under_another_id(place, caplog):
    """Who can write into the store cannot open a record there that he cannot read, by copying it to his own id."""
    site, attacker = (Site({**place.options, **ENCRYPTED}) for _ in range(2))
    session_id, attackers_id = site.visit("/confide")["id"], attacker.visit()["id"]
    place.write(attackers_id, place.read(session_id))
    caplog.clear()
    told = attacker.visit("/tell")
    (warning,) = warnings_of(caplog)

    assert told["new"]
    assert told["data"] == []
    assert "another session's record" in warning
    assert attackers_id not in warning
    assert site.visit("/tell")["data"] == ["name"]


def test_an_encrypted_record_is_merged_into_no_other_session(tmp_path):
    """Nor by copying it there while a request of his own is under way, whose commit would merge it."""
    place = FilePlace({"type": "file", "data_dir": str(tmp_path)})
    site, attacker = (Site({**place.options, **ENCRYPTED}) for _ in range(2))
    session_id, attackers_id = site.visit("/confide")["id"], attacker.visit()["id"]
    config = config_of(**place.options, **ENCRYPTED)
    session = Session({}, SessionContext(config), attackers_id)
    place.write(attackers_id, place.read(session_id))
    session["more"] = True
    session.changed()
    session.commit()

    assert sorted(session) == ["count", "more"]
    assert attacker.visit("/tell")["data"] == []


def test_an_encrypted_session_moves_to_a_new_id(tmp_path):
    """A login moves an encrypted session as any other."""
    place = FilePlace({"type": "file", "data_dir": str(tmp_path)})
    site = Site({**place.options, **ENCRYPTED})
    site.visit("/confide")
    site.visit("/login")

    assert site.visit("/tell")["data"] == ["_csrft_", "name", "user"]


def test_a_plain_record_under_an_encrypt_key_is_refused(place, caplog):
    """A record in plain text, written into the store of an encrypting site, is no session."""
    plain, site = Site({**place.options, **SIGNED}), Site({**place.options, **ENCRYPTED})
    plain.visit()
    caplog.clear()
    told = site.visit("/tell", plain.cookie)
    (warning,) = warnings_of(caplog)

    assert told["new"]
    assert "cannot be read as a session" in warning


def test_a_plain_cookie_under_an_encrypt_key_is_refused(caplog):
    """A cookie that is signed with our key, and not encrypted, is no session of an encrypting site."""
    plain, site = Site(COOKIES["signed"]), Site(COOKIES["encrypted"])
    plain.visit()
    caplog.clear()
    told = site.visit("/tell", plain.cookie)
    (warning,) = warnings_of(caplog)

    assert told["new"]
    assert "cannot be read as a session" in warning


# -- The length of an encrypted cookie ---------------------------------------------------------------

#: What the site knows, and its user shall not.
CODES = ("20481639", "aaaaaaaa")


def reflect(request):
    """Keep what the user sends beside what is hidden from him."""
    request.session.update(code=request.params["code"], note=request.params["note"], text="the usual words " * 20)
    return {}


@pytest.fixture
def length_of(serializer):
    """Return a function that gives the length of an encrypted cookie."""

    def configured(config):
        config.add_route("reflect", "/reflect")
        config.add_view(reflect, route_name="reflect", renderer="json")

    # The clock's digits are no secret, and need not be the same number of them.
    options = {**COOKIES["encrypted"], "data_serializer": serializer, "clock": lambda: 2_000_000_000.125}
    app = TestApp(install("filter", options, configured))

    def length(code, note):
        app.get("/reflect", {"code": code, "note": note})
        return len(app.cookies[NAME])

    return length


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("code", CODES)
def test_an_encrypted_cookie_does_not_tell_by_its_length_what_is_in_it(length_of, code):
    """What a user sends makes no cookie shorter where it repeats what is hidden, in whole, in part, or often."""
    guesses = [code, code[:4] + code[3::-1], code[::-1], "13795246", "zzzzzzzz"]

    assert len({length_of(code, guess) for guess in guesses}) == 1
    assert len({length_of(code, " ".join([guess] * 9)) for guess in guesses}) == 1


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_an_encrypted_cookie_grows_in_steps(length_of):
    """Its length tells what is in it to some 128 bytes: a name, a role or a plan more or less is not seen."""
    lengths = [length_of("20481639", "n" * size) for size in range(3 * STEP)]

    assert len(set(lengths)) in (3, 4)
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_an_encrypted_cookie_holds_what_a_browser_does(length_of):
    """What is neither compressed nor padded over the limit fits: 2,400 bytes of an application's own."""
    assert length_of("20481639", "n" * 2000) < MAX_COOKIE_SIZE


# -- The cookie --------------------------------------------------------------------------------------


def set_cookie(installation, options, path="/page", scheme="http", **headers):
    """Return the parts of the ``Set-Cookie`` header of a first page."""
    app = TestApp(install(installation, options, configure))
    response = app.get(path, headers=headers, extra_environ={"wsgi.url_scheme": scheme})
    (header,) = response.headers.getall("Set-Cookie")
    return header.split("; ")


@pytest.mark.parametrize(("scheme", "secure"), [("http", []), ("https", ["secure"])])
@pytest.mark.parametrize("kind", ["file", "cookie"])
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_the_cookie_is_closed_by_default(installation, kind, scheme, secure, tmp_path):
    """Nothing that was not asked for is in the cookie: HttpOnly, SameSite=Lax, over https Secure, and no domain."""
    options = {"type": kind, "data_dir": str(tmp_path), **SIGNED, "validate_key": VALIDATE_KEY}
    _, *attributes = set_cookie(installation, options, scheme=scheme)

    assert sorted(attributes) == sorted(["Path=/", "HttpOnly", "SameSite=Lax", *secure])


@pytest.mark.parametrize("kind", ["file", "cookie"])
def test_a_deleted_cookie_is_closed_too(kind, tmp_path):
    """The header that deletes a cookie has the same attributes, or a browser would refuse it beside a secure one."""
    options = {"type": kind, "data_dir": str(tmp_path), "key": "__Host-sid", "secret": SECRET, "secure": True}
    site = Site({**options, "validate_key": VALIDATE_KEY})
    site.app.get("/page", extra_environ={"wsgi.url_scheme": "https"})
    value = site.app.cookies["__Host-sid"]
    site.app.reset()
    response = site.app.get(
        "/logout", headers={"Cookie": f"__Host-sid={value}"}, extra_environ={"wsgi.url_scheme": "https"}
    )
    emptied, *attributes = response.headers["Set-Cookie"].split("; ")

    assert emptied == "__Host-sid="
    assert {"Path=/", "secure", "HttpOnly", "SameSite=Lax", "Max-Age=0"} <= set(attributes)


@pytest.mark.parametrize("name", ["__Host-sid", "__Secure-sid", "__host-sid", "__SECURE-sid", "__Http-sid"])
def test_a_prefixed_cookie_keeps_its_rules(name, tmp_path):
    """A cookie with a prefix is sent as browsers take it, and holds the session."""
    site = Site({"type": "file", "data_dir": str(tmp_path), "key": name, "secret": SECRET, "secure": True})
    first = site.app.get("/page", extra_environ={"wsgi.url_scheme": "https"})
    value, *attributes = first.headers["Set-Cookie"].split("; ")
    site.app.reset()
    second = site.app.get("/page", headers={"Cookie": value}, extra_environ={"wsgi.url_scheme": "https"})

    assert value.startswith(f"{name}=")
    assert {"Path=/", "secure", "HttpOnly"} <= set(attributes)
    assert not any(attribute.lower().startswith("domain") for attribute in attributes)
    assert second.json["count"] == 2


#: Browsers compare a prefix without case (RFC 6265bis, 5.4): what they would refuse does not start.
REFUSED = [
    *product(["__Host-sid", "__Secure-sid", "__host-sid", "__sECURE-sid"], [{}, {"secure": False}], ["secure"]),
    *product(["__Host-sid", "__HOST-sid"], [{"secure": True, "cookie_domain": "example.org"}], ["cookie_domain"]),
    *product(["__Host-sid", "__host-sid"], [{"secure": True, "cookie_path": "/app"}], ["cookie_path"]),
    *product(["__Http-sid", "__host-HTTP-sid"], [{"secure": True, "httponly": False}], ["httponly"]),
]


@pytest.mark.parametrize(("name", "changed", "told"), REFUSED)
def test_a_prefix_is_held_to_its_rules_at_the_start(name, changed, told):
    """A cookie that browsers would refuse for its prefix stops the start, and the fault names the option."""
    with pytest.raises(SettingsError, match=f"^{told} must be "):
        SessionMiddleware(None, type="memory", key=name, secret=SECRET, **changed)


def test_two_sites_with_the_same_keys_take_each_others_cookies(tmp_path):
    """A limit that SECURITY.rst tells: a cookie's name is not signed; secrets of their own keep two sites apart."""
    options = {"type": "file", "data_dir": str(tmp_path), **SIGNED}
    site = Site(options)
    session_id = site.visit()["id"]
    same = TestApp(install("filter", {**options, "key": "other"}, configure))
    apart = TestApp(install("filter", {**options, "key": "other", "secret": SECRET[::-1]}, configure))
    headers = {"Cookie": f"other={site.cookie}"}

    assert same.get("/tell", headers=headers).json["id"] == session_id
    assert apart.get("/tell", headers=headers).json["id"] != session_id


@pytest.mark.parametrize("limit", ["timeout", "absolute_timeout"])
def test_a_cookie_session_cannot_be_revoked(limit):
    """A limit that SECURITY.rst tells: a copy of a cookie outlives the logout, until its time is over."""
    clock = Clock()
    site = Site({**COOKIES["signed"], limit: 600, "clock": clock})
    site.visit()
    copied = site.cookie
    site.visit("/logout")
    clock.now += 599
    revived = site.visit("/tell", copied)
    clock.now += 2
    ended = site.visit("/tell", copied)

    assert (revived["new"], revived["count"]) == (False, 1)
    assert (ended["new"], ended["count"]) == (True, 0)


#: Every way to read a session.
READS = {
    "in": lambda session: "count" in session,
    "len": len,
    "bool": bool,
    "iter": list,
    "repr": repr,
    "==": lambda session: session == {},
    "get": lambda session: session.get("count"),
    "keys": lambda session: session.keys(),
    "id": lambda session: session.id,
    "new": lambda session: session.new,
    "created": lambda session: session.created,
    "last_accessed": lambda session: session.last_accessed,
    "peek_flash": lambda session: session.peek_flash(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_whatever_reads_the_session_tells_caches(installation, read, tmp_path):
    """A page for which the session was read, in whatever way, varies with the cookie; another one does not."""

    def reading(request):
        read(request.session)
        return Response()

    def configured(config):
        configure(config)
        config.add_route("reading", "/reading")
        config.add_view(reading, route_name="reading")

    app = TestApp(install(installation, {"type": "file", "data_dir": str(tmp_path), **SIGNED}, configured))

    assert app.get("/reading").headers["Vary"] == "Cookie"
    assert "Vary" not in app.get("/plain").headers


# -- Ids ---------------------------------------------------------------------------------------------


def test_an_id_is_128_bits_of_secrets(tmp_path, monkeypatch):
    """An id is 32 hexadecimal digits from ``secrets``: the clock and ``random`` have no part in it."""
    drawn = []

    def token_hex(size):
        drawn.append(os.urandom(size).hex())
        return drawn[-1]

    options = {"type": "file", "data_dir": str(tmp_path), **SIGNED, "clock": Clock()}
    monkeypatch.setattr(secrets, "token_hex", token_hex)
    told = []
    for _ in range(3):
        random.seed(1)
        told.append(Site(options).visit()["id"])

    assert len(set(told)) == 3
    assert set(told) <= set(drawn)
    assert all(ID_FORM.fullmatch(session_id) for session_id in told)


class NotingStore(Store):
    """A store that notes every id that it is asked for.

    Args:
        store: the store itself.
    """

    def __init__(self, store):
        self._store = store
        self.kind, self.envelope = store.kind, store.envelope
        self.ids_seen = []

    def read(self, session_id):
        self.ids_seen.append(session_id)
        return self._store.read(session_id)

    def swap(self, session_id, record, new, expires_in=None):
        self.ids_seen.append(session_id)
        return self._store.swap(session_id, record, new, expires_in)

    def lock(self, session_id, timeout):
        self.ids_seen.append(session_id)
        return self._store.lock(session_id, timeout)


@pytest.fixture(scope="module", params=[None, SECRET], ids=["unsigned", "signed"])
def noting_site(request):
    """Return a site whose store notes what it is asked for."""
    site = Site({"type": "memory", "key": NAME, "secret": request.param})
    site.config = site.application._config
    site.config.store = NotingStore(site.config.store)
    return site


ID = "0123456789abcdef" * 2
#: What is nearly an id, or what a path, a key or a statement could be made of.
MALFORMED = [
    *("", "../../etc/passwd", "/etc/passwd", "../" * 10 + "ab", "." * 32, "%2e%2e%2f", "C:\\boot.ini"),
    *(
        ID.upper(),
        ID[:-1],
        ID + "0",
        ID + "\n",
        "\n" + ID,
        ID[:-1] + "\n",
        ID[:-1] + "\x00",
        ID + "\x00",
        ID[:-1] + "g",
    ),
    *(
        "' or 1=1 --",
        "*",
        "a" * 65536,
        ID.replace("1", "\xb9"),
        f"{ID}.lock",
        f"{ID}_session",
        f"{ID}:session",
        "\r\nget x",
    ),
]


def assert_is_used_for_nothing(site, session_id):
    """Assert that an id from a browser reaches nothing, in the cookie nor by ``get_by_id()``."""
    site.config.store.ids_seen.clear()
    signed = site.config.signer.sign(session_id)
    site.app.reset()
    told = site.app.get("/page", extra_environ={"HTTP_COOKIE": f"{NAME}={signed}"}).json
    found = site.app.get("/by_id", params={"id": session_id}).json["found"]

    assert told["new"]
    assert not found
    # What is white space around it in a header is none of it.
    assert set(site.config.store.ids_seen) <= {told["id"], session_id.strip()}
    assert all(ID_FORM.fullmatch(asked) for asked in site.config.store.ids_seen)


@pytest.mark.parametrize("session_id", MALFORMED, ids=repr)
def test_a_malformed_id_is_used_for_nothing(noting_site, session_id):
    """Before its form is checked, what a browser sends as an id, signed or not, reaches no store."""
    assert_is_used_for_nothing(noting_site, session_id)


#: Texts that a header can carry, without those that are ids.
NO_IDS = st.text(
    st.sampled_from("0123456789abcdefABCDEF./\\%'\n\x00 \xb2\xe9") | st.characters(max_codepoint=255), max_size=40
).filter(lambda text: not ID_FORM.fullmatch(text))


@settings(deadline=None, max_examples=100)
@given(session_id=NO_IDS)
def test_no_text_but_an_id_is_used_as_one(noting_site, session_id):
    """Whatever the text, if it has not the form of an id, no store is asked for it."""
    assert_is_used_for_nothing(noting_site, session_id)


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_login_renews_id_and_csrf_token(installation, tmp_path):
    """``regenerate_id()`` gives a new id and a new CSRF token; the old ones open and confirm nothing."""
    site = Site(SIGNED, install(installation, {"type": "file", "data_dir": str(tmp_path), **SIGNED}, configure))
    before, old_cookie = site.visit(), site.cookie
    told, new_cookie = site.visit("/login"), site.cookie
    token_before, token = told["tokens"]

    assert told["id"] != before["id"]
    assert token != token_before
    assert site.visit("/tell", old_cookie)["data"] == []
    assert site.visit("/login", new_cookie)["tokens"][0] == token


# -- Logs --------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """Return the tokens that are drawn from ``secrets`` in this test: all ids are among them."""
    tokens = []
    token_hex = secrets.token_hex
    monkeypatch.setattr(secrets, "token_hex", lambda size=32: tokens.append(token_hex(size)) or tokens[-1])
    return tokens


def overlap(browser, first, second):
    """Make two requests that overlap: the second one ends first."""
    one, other = browser.begin(), browser.begin()
    second(other.session)
    other.commit()
    first(one.session)
    browser.end(one)


def live_through_everything(place, clock):
    """Make a session meet all that can become of it: merges, logins, logouts, expiry, damage, a store that fails."""
    config = config_of(**place.options, timeout=600, clock=clock, store_error="empty", store_timeout=0.3)
    browser = Browser(config)
    browser.write(name="Ada")
    overlap(browser, lambda session: session.update(a=1), lambda session: session.update(b=2))
    overlap(browser, lambda session: session.update(a=2), lambda session: session.regenerate_id())
    browser.cookie = ""
    browser.write(name="Ada")
    overlap(browser, lambda session: session.update(a=1), lambda session: session.invalidate())
    browser.cookie = ""
    browser.write(name="Ada")
    place.write(browser.id, b"% no record %")
    browser.read()
    browser.cookie = ""
    browser.write(name="Ada")
    clock.now += 601
    browser.read()
    browser.write(name="Ada")
    # Last, since a server that has failed is left alone for a while.
    fail(place, browser, clock)


def fail(place, browser, clock):
    """Let the store fail a request that reads, one that writes late, and one that renews the access time."""
    reading, writing = browser.begin(), browser.begin()
    writing.session["late"] = True
    clock.now += 300
    touching = browser.begin()
    with place.breakdown(browser.id):
        browser.read()
        touching.commit()
        writing.exchange.commit_late()
        reading.commit()


def test_no_log_line_has_a_whole_id(place, drawn, caplog):
    """Whatever happens to a session, and however much is logged, no line shows its id: it would open it."""
    caplog.set_level(logging.DEBUG)
    live_through_everything(place, Clock())
    lines = caplog.text
    ids = [token for token in drawn if ID_FORM.fullmatch(token)]

    assert len(ids) >= 5
    assert "damaged" in lines or "cannot be read as a session" in lines
    assert [session_id for session_id in ids if session_id in lines] == []


@pytest.mark.parametrize("place", [name for name in STORES if name != "memory"], indirect=True)
def test_no_error_of_a_store_has_a_whole_id(place):
    """An application that logs a :class:`SessionStoreError` with its traceback logs no id."""
    browser = Browser(config_of(**place.options, store_timeout=0.3))
    browser.write(name="Ada")
    with place.breakdown(browser.id), pytest.raises(SessionStoreError) as raised:
        browser.begin()
    told = "".join(traceback.format_exception(raised.value))

    assert browser.id not in told


@pytest.mark.parametrize(("kind", "folder"), [("file", "container_file"), ("dbm", "container_dbm")])
def test_no_error_behind_an_error_has_a_whole_id(kind, folder, tmp_path, drawn):
    """The same holds for an error that came before the one that is told, and that a traceback shows, too."""
    request = Browser(config_of(type=kind, data_dir=str(tmp_path), dbmmodule=dbm.dumb)).begin()
    request.session["name"] = "Ada"
    # Neither is there a folder for the file, nor can one be made.
    (tmp_path / folder).symlink_to(tmp_path / "nowhere")
    with pytest.raises(SessionStoreError) as raised:
        request.commit()
    told = "".join(traceback.format_exception(raised.value))

    assert request.session.id in drawn
    assert [token for token in drawn if ID_FORM.fullmatch(token) and token in told] == []


# -- SECURITY.rst ------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "SECURITY.rst").read_text(encoding="utf-8")
RECIPES = {
    name: textwrap.dedent(body)
    for name, body in re.findall(r"\.\. code-block:: \w+\n   :name: (\w+)\n\n((?:   .*\n|\n)+)", DOCUMENT)
}


def test_the_document_is_sound():
    """SECURITY.rst is reStructuredText without a fault, and no recipe escapes the tests."""
    tree = publish_doctree(DOCUMENT, settings_overrides={"report_level": 5, "syntax_highlight": "none"})

    assert [node.astext() for node in tree.findall(nodes.system_message)] == []
    assert RECIPES.keys() == {"key", "rotation", "signing", "shared", "both", "moving"}
    assert DOCUMENT.count(".. code-block::") == len(RECIPES)


def test_the_document_tells_the_true_limits():
    """The numbers in SECURITY.rst are the code's."""
    told = " ".join(DOCUMENT.split())

    for sentence in (
        f"{MAX_PLAIN_SIZE // 1024**2} MiB (``serializers.MAX_PLAIN_SIZE``)",
        f"{MAX_DEPTH} levels (``tagging.MAX_DEPTH``)",
        f"{MAX_COOKIE_SIZE} bytes (``cookies.MAX_COOKIE_SIZE``)",
        f"{MAX_COOKIES} cookies (``session.base.MAX_COOKIES``)",
        f"``store_timeout``, {read_options({}).store_timeout:g} seconds",
        f"For {MOVED_FOR} seconds the old id opens an empty session",
    ):
        assert sentence in told


#: The requirements of OWASP's ASVS 5.0, by section.
REQUIREMENTS = {"7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 3, "7.6": 2, "3.3": 5}
ASVS = DOCUMENT.partition("   :name: asvs\n")[2].partition("\nLimits\n")[0]


def test_each_requirement_of_asvs_is_answered():
    """Each requirement of V7 and V3.3 has its row, which says whose it is; what is ours names a test."""
    rows = [re.split(r"\n     - ", row) for row in ASVS.split("\n   * - ")[2:]]
    whose = {row[0]: row[2].strip() for row in rows}
    untested = [row[0] for row in rows if row[2].startswith("Ours") and "``test_" not in row[3]]

    assert list(whose) == [f"{part}.{number}" for part, last in REQUIREMENTS.items() for number in range(1, last + 1)]
    assert set(whose.values()) == {"Ours by default", "Ours by an option", "The application's"}
    assert untested == []


def test_the_tests_that_the_document_names_exist():
    """Each test that SECURITY.rst names is one."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")]
    named = set(re.findall(r"``(test_\w+)``", DOCUMENT))

    assert named
    assert {name for name in named if not any(f"def {name}(" in source for source in sources)} == set()


def test_an_id_is_128_bits_of_a_secure_source(monkeypatch):
    """An id is 16 bytes of ``secrets``, and nothing else goes into it."""
    drawn = []
    monkeypatch.setattr("secrets.token_hex", lambda size: drawn.append(size) or f"{len(drawn):0{2 * size}x}")

    assert [new_id(), new_id()] == [f"{number:032x}" for number in (1, 2)]
    assert drawn == [16, 16]


def cooked(name, folder):
    """Return the site of a recipe, and the options of the site that was there before it, with Beaker's names."""
    (folder / "site.ini").write_text(RECIPES[name], encoding="utf-8")
    parser = configparser.ConfigParser(defaults={"here": str(folder)})
    parser.read(folder / "site.ini")
    options = parser["filter:session"]
    before = {"type": options["type"], "data_dir": options["data_dir"]}
    for key, previous in PREVIOUS.items():
        if key in options:
            before[key] = options.get(previous, options[key])
    config = Configurator()
    config.include("beaker_bridge")
    configure(config)
    session_filter = loadfilter(f"config:{folder / 'site.ini'}", name="session")
    return Site({"key": BEAKERS_NAME}, session_filter(config.make_wsgi_app())), before


@pytest.mark.parametrize(("name", "begin"), [("rotation", Site), ("signing", Site), ("moving", pyramid_beaker_site)])
def test_a_recipe_logs_nobody_out(name, begin, tmp_path):
    """The recipes for a change of keys and for the move from pickle to JSON work as they are printed."""
    site, options = cooked(name, tmp_path)
    before = begin(options)
    session_id = before.visit()["id"]
    told = site.visit(cookie=before.cookie)

    assert (told["id"], told["new"], told["count"]) == (session_id, False, 2)


def test_the_recipe_for_a_shared_store(tmp_path):
    """With pickle, as it is printed, pyramid_beaker's processes read what ours write, and the other way round."""
    site, options = cooked("shared", tmp_path)
    theirs = pyramid_beaker_site(options)
    counts = [theirs.visit()["count"]]
    cookie = theirs.cookie
    counts += [there.visit(cookie=cookie)["count"] for there in (site, theirs, site)]

    assert counts == [1, 2, 3, 4]


def test_the_recipes_of_neighbouring_steps_read_each_other(tmp_path):
    """From pickle to JSON, as it is printed: sites of two steps that follow each other take turns on one session."""
    sites = [cooked(name, tmp_path)[0] for name in ("shared", "both", "moving")]
    # A session becomes a pickle again before a site comes that reads nothing else.
    turns = [sites[number] for number in (0, 1, 0, 1, 2, 1, 2, 1, 0)]
    counts = [turns[0].visit()["count"]]
    cookie = turns[0].cookie
    counts += [site.visit(cookie=cookie)["count"] for site in turns[1:]]

    assert counts == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_recipe_for_a_key():
    """The command prints a key that is long enough."""
    key = subprocess.run(
        [machine.program("bash"), "-c", RECIPES["key"]], capture_output=True, check=True, text=True
    ).stdout.strip()

    assert len(key) >= SECRET_SIZE
