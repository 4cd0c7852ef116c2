"""Whatever a browser sends as its cookies, and whatever stands in the store, gives a normal page."""

from __future__ import annotations

import ast
import base64
import dbm.dumb
import json
import logging
import os
import pickle
import re
import socket
import time
import zlib
from functools import cached_property
from itertools import product
from pathlib import Path

import pytest
from beaker._compat import anydbm
from beaker.container import MemoryNamespaceManager
from hypothesis import given, settings
from hypothesis import strategies as st
from webtest import TestApp
from webtest.http import StopableWSGIServer

import beaker_bridge
from beaker_bridge import DamagedRecordError
from beaker_bridge.cookies import Signer
from beaker_bridge.record.cipher import Cipher
from tests.installations import SECRET, install, store_options

# Thousands of inputs to one and the same logic.
pytestmark = [pytest.mark.once, pytest.mark.slow]

INSTALLED = ("filter", "beaker_filter", "settings", "settings_alone")
STORED = ("memory", "file", "dbm", "file_encrypted")
COOKIES = ("cookie", "cookie_encrypted")
ID_FORM = re.compile(r"[0-9a-f]{32}")
NAME = "sid"


def page(request):
    """Count the visits."""
    session = request.session
    session["count"] = session.get("count", 0) + 1
    return tell(request)


def tell(request):
    """Tell what the session is, without a change."""
    session = request.session
    return {"id": session.id, "new": session.new, "count": session.get("count", 0)}


def end(request):
    """Log out."""
    request.session.invalidate()
    return {}


def configure(config):
    """Add the views."""
    for view in (page, tell, end):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")


class Site:
    """An application, and a browser that sends whatever it is told to send.

    Args:
        installation: how the session is installed.
        options: the session's options.
        folder: a folder of its own.
    """

    def __init__(self, installation, options, folder):
        self.options = options
        self.folder = folder
        self.app = TestApp(install(installation, options, configure))

    def visit(self, cookie="", path="/page"):
        """Return a page that was asked for with a ``Cookie`` header, and no other cookie."""
        self.app.reset()
        return self.app.get(path, extra_environ={"HTTP_COOKIE": cookie})

    def begin(self):
        """Begin a session; return the value of its cookie, and its id."""
        begun = self.visit()
        return self.app.cookies[NAME], begun.json["id"]

    @cached_property
    def kept(self):
        """The value of a cookie, and the id, of a session that is begun once and never changed."""
        return self.begin()

    def sign(self, value):
        """Return the value as this site signs it."""
        secret = self.options.get("secret" if self.options["type"] != "cookie" else "validate_key")
        return Signer([secret] if secret else []).sign(value)


def _made(request, tmp_path_factory, **changed):
    installation, store = request.param
    folder = tmp_path_factory.mktemp("site")
    return Site(installation, {**store_options(store, folder), **changed}, folder)


def _sites(stores):
    return {"params": list(product(INSTALLED, stores)), "ids": "-".join, "scope": "module"}


@pytest.fixture(**_sites((*STORED, *COOKIES)))
def site(request, tmp_path_factory):
    return _made(request, tmp_path_factory)


@pytest.fixture(**_sites(STORED))
def stored_site(request, tmp_path_factory):
    return _made(request, tmp_path_factory)


@pytest.fixture(**_sites(COOKIES))
def cookie_site(request, tmp_path_factory):
    return _made(request, tmp_path_factory)


@pytest.fixture(**_sites(["memory", "file", "dbm"]))
def unsigned_site(request, tmp_path_factory):
    return _made(request, tmp_path_factory, secret=None)


def is_fresh(response, header=""):
    """Say whether a page is a normal one, with a session that the browser did not choose."""
    told = response.json
    return (
        response.status_int == 200
        and told["new"]
        and told["count"] == 1
        and ID_FORM.fullmatch(told["id"]) is not None
        and told["id"] not in header
    )


# -- Other applications' cookies ---------------------------------------------------------------------

FOREIGN = {
    "illegal names": "a@b,c[d]{e}=1; (x)=2; na me=3; <b>=4",
    "JSON": '{"a": "b; c", "sid": ["=", ";"]}',
    "JSON as a value": 'prefs={"theme":"dark, very","list":[1,2],"n":null}',
    "lone separators": ";;= ;=;,;  ; =;==;,=,;",
    "an open quote": 'q="never closed; other="x\\"',
    "bytes over 127": "n\xe4me=v\xfcl\xff; \x80\x9f\xa0=\xad; sid\xa0=\xff; sid=\xe9",
    "control characters": "a=\x00\x01\x1b\x7f; b=\r\nSet-Cookie: sid=1; sid=\x00",
    "64 KiB in one": "x" * 65536,
    "64 KiB in our own": f"{NAME}=" + "f" * 65536,
    "64 KiB of pairs": "; ".join(f"name{number}=value" for number in range(4000)),
    "64 KiB of our name": f"{NAME}=x; " * 9000,
    "names like ours": f'x{NAME}=1; {NAME}2=2; {NAME}.x=3; "{NAME}"=4; {NAME.upper()}=5; ${NAME}=6; evil={NAME}=7',
    "our name without a value": f"{NAME}; {NAME}=; {NAME} = ; ={NAME}; {NAME}=''; {NAME}=\"\"",
    "a cookie's attributes": "expires=1; path=/; domain=x; secure; httponly; samesite=None; max-age=0; $Version=1",
    "formats": "%s=%d; %00=%; {0}={x!r}; \\x00=\\; ${jndi:x}=1",
}


@pytest.mark.parametrize("header", FOREIGN.values(), ids=FOREIGN)
def test_any_header_gives_a_page(site, header):
    """Whatever other applications have put into the header, the page is a normal one, with a new session."""
    assert is_fresh(site.visit(header), header)


@pytest.mark.parametrize("header", FOREIGN.values(), ids=FOREIGN)
def test_no_other_cookie_hides_ours(site, header):
    """Our session is found before, behind and between whatever else is in the header."""
    cookie, session_id = site.begin()
    ours = f"{NAME}={cookie}"
    found = [
        site.visit(sent, "/tell").json
        for sent in (f"{header}; {ours}", f"{ours}; {header}", f"{header};{ours};{header}")
    ]

    assert found == [{"id": session_id, "new": False, "count": 1}] * 3


def test_ours_is_found_however_it_is_written(site):
    """Quotes and white space around our cookie's value, and none at all, are all the same."""
    cookie, session_id = site.begin()
    headers = (
        f"{NAME}={cookie}",
        f'{NAME}="{cookie}"',
        f" {NAME} = {cookie} ",
        f";{NAME}={cookie};",
        f"a;{NAME}={cookie}",
    )
    found = [site.visit(header, "/tell").json["id"] for header in headers]

    assert found == [session_id] * len(headers)


ANY_TEXT = st.text(st.characters(max_codepoint=255), max_size=40)
PIECES = st.sampled_from(
    [NAME, f"{NAME}=", "=", ";", "; ", ",", '"', "\\", "$Version=1", "%00", "\x00", "\n", "{", "}", "0" * 32, "f" * 40]
)
HEADERS = st.lists(ANY_TEXT | PIECES, max_size=12).map("".join)


@settings(deadline=None, max_examples=60)
@given(header=HEADERS)
def test_no_header_at_all_fails(site, header):
    """Every text that a server can hand over as a header gives a normal page, with a new session."""
    assert is_fresh(site.visit(header), header)


@settings(deadline=None, max_examples=60)
@given(before=HEADERS, behind=HEADERS)
def test_no_text_at_all_hides_ours(site, before, behind):
    """Every text can stand before and behind our cookie without hiding it."""
    cookie, session_id = site.kept
    found = site.visit(f"{before};{NAME}={cookie};{behind}", "/tell").json

    assert found == {"id": session_id, "new": False, "count": 1}


@pytest.mark.parametrize("store", ["file", "cookie"])
def test_raw_bytes_through_a_server(tmp_path, store):
    """Bytes that are no text, through a real server and socket, give a normal page."""
    server = StopableWSGIServer.create(install("filter", store_options(store, tmp_path), configure))
    # A server refuses control characters itself, and hands over all the others.
    header = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"; sid=\xff\xfe; \xf0\x9f\x8d\xaa=1"
    try:
        with socket.create_connection((server.effective_host, int(server.effective_port)), timeout=30) as connection:
            connection.sendall(b"GET /page HTTP/1.0\r\nHost: localhost\r\nCookie: " + header + b"\r\n\r\n")
            with connection.makefile("rb") as answer:
                status, body = answer.readline(), answer.read()
    finally:
        server.shutdown()

    assert status.split()[1] == b"200"
    assert b"Set-Cookie: sid=" in body


# -- Our own cookie, mistreated ----------------------------------------------------------------------

FORGED = {
    "cut by one": lambda cookie: cookie[:-1],
    "cut at the front": lambda cookie: cookie[1:],
    "half of it": lambda cookie: cookie[: len(cookie) // 2],
    "its signature alone": lambda cookie: cookie[:40],
    "its value alone": lambda cookie: cookie[40:],
    "longer": lambda cookie: cookie + "0",
    "longer at the front": lambda cookie: "0" + cookie,
    "twice in one": lambda cookie: cookie * 2,
    "with a comma": lambda cookie: f"{cookie},{cookie}",
    "in capitals": lambda cookie: cookie.upper(),
    "one character changed": lambda cookie: cookie[:50] + ("1" if cookie[50] == "0" else "0") + cookie[51:],
    "with a byte over 127": lambda cookie: cookie[:60] + "\xe9" + cookie[61:],
    "with a NUL": lambda cookie: cookie[:60] + "\x00" + cookie[60:],
    "with a newline": lambda cookie: cookie[:60] + "\n" + cookie[60:],
    "signed with another key": lambda cookie: Signer(["another secret"]).sign(cookie[40:]),
    "signed with no key": lambda cookie: Signer([""]).sign(cookie[40:]),
    "64 KiB longer": lambda cookie: cookie + "0" * 65536,
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_cookie_opens_nothing(site, forge):
    """Our cookie is ours only as it was sent: anything else begins a new session, and the true one stays."""
    cookie, session_id = site.begin()
    forged = forge(cookie)
    response = site.visit(f"{NAME}={forged}")
    untouched = site.visit(f"{NAME}={cookie}", "/tell").json

    assert response.json["id"] != session_id
    assert is_fresh(response)
    assert untouched == {"id": session_id, "new": False, "count": 1}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_cookie_hides_nothing(site, forge):
    """The true cookie counts though a forged one of the same name is sent before it."""
    cookie, session_id = site.begin()
    forged = forge(cookie)
    found = [
        site.visit(header, "/tell").json["id"]
        for header in (f"{NAME}={forged}; {NAME}={cookie}", f"{NAME}={cookie}; {NAME}={forged}")
    ]

    assert found == [session_id] * 2


def test_the_same_cookie_twice_is_one(site):
    """A browser that sends our cookie twice has one session."""
    cookie, session_id = site.begin()
    response = site.visit(f"{NAME}={cookie}; {NAME}={cookie}")

    assert response.json == {"id": session_id, "new": False, "count": 2}


def test_a_cookie_of_another_site_opens_nothing(site):
    """A cookie that another site with another secret has signed opens nothing, though both share the store."""
    keys = {name: f"another {site.options[name]}" for name in {"secret", "validate_key"} & site.options.keys()}
    other_site = Site("filter", {**site.options, **keys}, site.folder)
    cookie, session_id = other_site.begin()
    header = f"{NAME}={cookie}"
    response = site.visit(header)

    assert other_site.visit(header, "/tell").json["id"] == session_id
    assert response.json["id"] != session_id
    assert is_fresh(response)


# -- Ids that the browser chooses --------------------------------------------------------------------

LIVE = "{live}"
CHOSEN = {
    "a path": "../../etc/passwd",
    "an absolute path": "/etc/passwd",
    "a path of the right length": "../" * 10 + "ab",
    "dots": "." * 32,
    "an unknown id": "0123456789abcdef" * 2,
    "an id in capitals": "0123456789ABCDEF" * 2,
    "the live id in capitals": LIVE,
    "an id with a newline": "0123456789abcdef" * 2 + "\n",
    "a newline within": "0123456789abcde\n" * 2,
    "a NUL within": "0123456789abcde\x00" * 2,
    "a NUL at the end": "0123456789abcdef" * 2 + "\x00",
    "too short": "0" * 31,
    "too long": "0" * 33,
    "a UUID with its hyphens": "01234567-89ab-cdef-0123-456789abcdef",
    "other digits": "\xb2" * 32,
    "SQL": "' or 1=1 --",
    "a glob": "*",
    "one letter": "0",
    "64 KiB": "0" * 65536,
}


def _chosen(site, chosen):
    return site.begin()[1].upper() if chosen is LIVE else chosen


def files_of(site):
    """Return the names of the files in a site's folder, save its lock files, up to their first dot."""
    return {
        path.name.partition(".")[0]
        for path in site.folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_a_chosen_id_is_not_adopted(unsigned_site, chosen):
    """Without a secret any id can be sent; one that the store does not know is never taken over."""
    session_id = _chosen(unsigned_site, chosen)
    header = f"{NAME}={session_id}"
    before = files_of(unsigned_site)
    first, second = unsigned_site.visit(header), unsigned_site.visit(header)
    after = files_of(unsigned_site)

    assert is_fresh(first)
    assert is_fresh(second)
    assert session_id not in {first.json["id"], second.json["id"]}
    assert after - before <= {first.json["id"], second.json["id"]}
    assert session_id not in MemoryNamespaceManager.namespaces


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_a_chosen_id_is_not_adopted_though_it_is_signed(stored_site, chosen):
    """A signature is no reason to trust the form of an id, nor that a session exists under it."""
    session_id = _chosen(stored_site, chosen)
    header = f"{NAME}={stored_site.sign(session_id)}"
    before = files_of(stored_site)
    first, second = stored_site.visit(header), stored_site.visit(header)
    after = files_of(stored_site)

    assert is_fresh(first)
    assert is_fresh(second)
    assert session_id not in {first.json["id"], second.json["id"]}
    assert after - before <= {first.json["id"], second.json["id"]}
    assert session_id not in MemoryNamespaceManager.namespaces


def test_the_id_of_a_dead_session_is_not_adopted(stored_site):
    """A well-signed cookie of a session that was logged out begins a new one, under a new id."""
    cookie, session_id = stored_site.begin()
    header = f"{NAME}={cookie}"
    stored_site.visit(header, "/end")
    response = stored_site.visit(header)

    assert is_fresh(response)
    assert response.json["id"] != session_id
    assert session_id not in files_of(stored_site)
    assert session_id not in MemoryNamespaceManager.namespaces


def test_a_dead_cookie_does_not_hide_a_live_one(stored_site):
    """A dead cookie of ours that the browser still has, for another path or domain, hides no live one."""
    dead, _ = stored_site.begin()
    stored_site.visit(f"{NAME}={dead}", "/end")
    live, session_id = stored_site.begin()
    response = stored_site.visit(f"{NAME}={dead}; {NAME}={live}", "/tell")

    assert response.json == {"id": session_id, "new": False, "count": 1}


@pytest.mark.parametrize("store", [*STORED, *COOKIES])
def test_an_expired_cookie_does_not_hide_a_live_one(tmp_path, store):
    """A session that has expired, under a cookie for another path or domain, hides no live one."""
    now = [time.time()]
    site = Site("filter", {**store_options(store, tmp_path), "timeout": 1800, "clock": lambda: now[0]}, tmp_path)
    expired, _ = site.begin()
    now[0] += 1801
    live, session_id = site.begin()
    response = site.visit(f"{NAME}={expired}; {NAME}={live}", "/tell")

    assert response.json == {"id": session_id, "new": False, "count": 1}


def test_an_unsigned_cookie_of_another_application_does_not_hide_ours(unsigned_site):
    """Another Beaker application's id under the same name hides no session of ours, even without a secret."""
    cookie, session_id = unsigned_site.begin()
    response = unsigned_site.visit(f"{NAME}={'0123456789abcdef' * 2}; {NAME}={cookie}", "/tell")

    assert response.json == {"id": session_id, "new": False, "count": 1}


# -- Damaged records ---------------------------------------------------------------------------------


class Planted:
    """What makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _json(value):
    return zlib.compress(json.dumps(value).encode("ascii"))


def seal(site, plain, encrypt_key=None):
    """Return plain bytes as a record of a site's store, encrypted where the site, or the call, has a key."""
    key = encrypt_key or site.options.get("encrypt_key")
    text = base64.b64encode(plain)
    if key:
        pair = key, site.options.get("validate_key", SECRET)
        text = Cipher([pair], crypto_type="default", nonce_bits=128).encrypt(plain)
    return _enveloped(site, text)


def _enveloped(site, text):
    kind = site.options["type"]
    if kind == "file":
        return pickle.dumps({"session": text.decode("ascii")})
    return pickle.dumps(text.decode("ascii")) if kind == "dbm" else text


def _encrypted_or_not(site):
    plain = _json({"count": 7})
    if "encrypt_key" in site.options:
        return _enveloped(site, base64.b64encode(plain))
    return seal(site, plain, encrypt_key="a key where there should be none")


def _cached(site):
    """Return what a cache region of Beaker's keeps: a time, an expiry, and a value."""
    entry = (1e9, None, "cached")
    if site.options["type"] == "file":
        return pickle.dumps({"session": entry})
    return pickle.dumps(entry) if site.options["type"] == "dbm" else repr(entry).encode("ascii")


#: What may stand where a record was: each gets the site, the record, and a path that must stay free.
DAMAGED = {
    "half of it": lambda site, raw, path: raw[: len(raw) // 2],
    "all but its end": lambda site, raw, path: raw[:-1],
    "garbage": lambda site, raw, path: b"% garbage, and no record of ours %",
    "zeros": lambda site, raw, path: bytes(512),
    "under another key": lambda site, raw, path: seal(site, _json({"count": 7}), encrypt_key="another key"),
    "encrypted or not": lambda site, raw, path: _encrypted_or_not(site),
    "pickled": lambda site, raw, path: seal(site, pickle.dumps({"count": 7}, 2)),
    "a planted pickle": lambda site, raw, path: pickle.dumps(Planted(path), 0),
    "a planted pickle within": lambda site, raw, path: seal(site, pickle.dumps(Planted(path), 2)),
    "a list": lambda site, raw, path: seal(site, _json([1, 2])),
    "a text": lambda site, raw, path: seal(site, _json("another application's")),
    "a cache's value": lambda site, raw, path: _cached(site),
    "JSON without compression": lambda site, raw, path: seal(site, b'{"count": 7}'),
    "deep": lambda site, raw, path: seal(site, zlib.compress(b"[" * 100_000 + b"]" * 100_000)),
    "a bomb": lambda site, raw, path: seal(site, zlib.compress(bytes(32 * 1024 * 1024))),
    "times that are none": lambda site, raw, path: seal(site, _json({"_accessed_time": "now", "_creation_time": None})),
    "an expiry that is none": lambda site, raw, path: seal(site, _json({"_accessed_time": 1e9, "_bb_expiry": "soon"})),
    "a marker that is none": lambda site, raw, path: seal(site, _json({"_bb_moved": "soon"})),
    "a path that is none": lambda site, raw, path: seal(site, _json({"count": 7, "_path": ["/"], "_domain": 7})),
}


def raw_of(site, session_id):
    """Return what stands in a site's store."""
    kind, data_dir = site.options["type"], site.options.get("data_dir")
    if kind == "memory":
        return MemoryNamespaceManager.namespaces[session_id]["session"].encode("ascii")
    if kind == "file":
        return Path(data_dir, "container_file", session_id[:1], session_id[:2], f"{session_id}.cache").read_bytes()
    with anydbm.open(_dbm_of(site, session_id), "r") as database:
        return database["session"]


def plant(site, session_id, raw):
    """Put something into a site's store where the record of a session is."""
    kind, data_dir = site.options["type"], site.options.get("data_dir")
    if kind == "memory":
        MemoryNamespaceManager.namespaces[session_id]["session"] = raw.decode("ascii")
    elif kind == "file":
        Path(data_dir, "container_file", session_id[:1], session_id[:2], f"{session_id}.cache").write_bytes(raw)
    else:
        with anydbm.open(_dbm_of(site, session_id), "w") as database:
            database["session"] = raw


def _dbm_of(site, session_id):
    return f"{site.options['data_dir']}/container_dbm/{session_id[:1]}/{session_id[:2]}/{session_id}.dbm"


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("damage", [*DAMAGED.values(), lambda site, raw, path: b""], ids=[*DAMAGED, "empty"])
def test_a_damaged_record_gives_a_new_session(stored_site, caplog, tmp_path, damage):
    """A record that cannot be read gives a new session and one warning, and is left for who looks into it."""
    cookie, session_id = stored_site.begin()
    planted = damage(stored_site, raw_of(stored_site, session_id), tmp_path / "planted")
    plant(stored_site, session_id, planted)
    caplog.clear()
    response = stored_site.visit(f"{NAME}={cookie}")
    (warning,) = warnings_of(caplog)

    assert is_fresh(response)
    assert response.json["id"] != session_id
    assert raw_of(stored_site, session_id) == planted
    assert not (tmp_path / "planted").exists()
    assert session_id[:6] in warning
    assert session_id not in warning
    assert f"{len(planted)} bytes" in warning


def test_a_damaged_record_does_not_hide_a_sound_one(stored_site):
    """A cookie whose record is damaged, sent before another of ours, does not hide that one's session."""
    damaged, damaged_id = stored_site.begin()
    plant(stored_site, damaged_id, b"% garbage %")
    sound, session_id = stored_site.begin()
    response = stored_site.visit(f"{NAME}={damaged}; {NAME}={sound}", "/tell")

    assert response.json == {"id": session_id, "new": False, "count": 1}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_cookie_gives_a_new_session(cookie_site, caplog, tmp_path, damage):
    """A cookie that is signed with our key and yet no session gives a new one, and one warning."""
    cookie, session_id = cookie_site.begin()
    planted = damage(cookie_site, cookie[40:].encode("ascii"), tmp_path / "planted")
    caplog.clear()
    response = cookie_site.visit(f"{NAME}={cookie_site.sign(planted.decode('ascii'))}")
    (warning,) = warnings_of(caplog)

    assert is_fresh(response)
    assert response.json["id"] != session_id
    assert not (tmp_path / "planted").exists()
    assert "cookie" in warning
    assert f"{len(planted)} bytes" in warning


@pytest.mark.parametrize(("installation", "store"), list(product(INSTALLED, COOKIES)))
def test_a_cookie_that_is_not_ours_is_warned_of_once_a_minute(tmp_path, caplog, installation, store):
    """Cookie sessions under another key are told in the log as what they are, without their content, once a minute."""
    now = [time.time()]
    site = Site(installation, {**store_options(store, tmp_path), "clock": lambda: now[0]}, tmp_path)
    cookie, _ = site.begin()
    caplog.clear()
    lines = []
    for seconds in (0, 1, 58.9, 0.2, 1):
        now[0] += seconds
        for key in ("another key", "a third one"):
            assert is_fresh(site.visit(f"{NAME}={Signer([key]).sign(cookie[40:])}"))
        lines.append(len(warnings_of(caplog)))
    warning = warnings_of(caplog)[0]

    assert lines == [1, 1, 1, 2, 2]
    assert "the cookie is not signed with a key of ours" in warning
    assert "in a c…" not in warning
    assert cookie[40:60] not in warning


EMPTY = (
    f"{NAME}=",
    f'{NAME}=""',
    f" {NAME} = ; a=b",
    f"{NAME}; {NAME}=",
    f'{NAME}="',
    f"a=b, {NAME}=",
    f"{NAME}=, a=b",
    f"{NAME}=,",
)


@pytest.mark.parametrize("store", [*STORED, *COOKIES])
@pytest.mark.parametrize("header", EMPTY)
def test_an_empty_cookie_is_none(tmp_path, caplog, store, header):
    """An empty cookie is no error, no line in the log, and a logout has nothing to delete."""
    site = Site("filter", {**store_options(store, tmp_path), "invalidate_corrupt": False}, tmp_path)
    caplog.clear()
    page, logout = site.visit(header), site.visit(header, "/end")

    assert is_fresh(page)
    assert warnings_of(caplog) == []
    assert "Set-Cookie" not in logout.headers


# -- Lines of the header that a server has joined with a comma ---------------------------------------

JOINED = {
    "ours last": "lang=en, {}",
    "without a blank": "lang=en,{}",
    "ours first": "{}, lang=en",
    "first, without a blank": "{},lang=en",
    "between": 'prefs={{"a": "b, c"}}, {}, tz=UTC',
    "two lines": "a=b; lang=en, {}; c=d",
    "a forged one before": f"{NAME}=forged, {{}}",
    "another one before": f"{NAME}=forged; lang=en, {{}}",
}


@pytest.mark.parametrize("header", JOINED.values(), ids=JOINED)
def test_ours_is_found_in_lines_that_were_joined(site, header):
    """A cookie on a line of its own, which a server has joined with a comma, is found, and a logout deletes it."""
    cookie, session_id = site.begin()
    sent = header.format(f"{NAME}={cookie}")
    found = site.visit(sent, "/tell").json
    logout = site.visit(sent, "/end")

    assert found == {"id": session_id, "new": False, "count": 1}
    assert "Max-Age=0" in logout.headers["Set-Cookie"]


@pytest.mark.parametrize("store", ["file", "cookie"])
@pytest.mark.parametrize("lines", ["lang=en {}", "{} lang=en", "lang=en {} tz=UTC"])
def test_lines_that_a_server_joins(tmp_path, store, lines):
    """Several ``Cookie`` lines, as HTTP/2 has them, through a server that joins them with commas."""
    site = Site("filter", store_options(store, tmp_path), tmp_path)
    cookie, session_id = site.begin()
    server = StopableWSGIServer.create(site.app.app)
    headers = "".join(f"Cookie: {line}\r\n" for line in lines.format(f"{NAME}={cookie}").split())
    try:
        with socket.create_connection((server.effective_host, int(server.effective_port)), timeout=30) as connection:
            connection.sendall(f"GET /tell HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n".encode("ascii"))
            with connection.makefile("rb") as answer:
                page = answer.read()
    finally:
        server.shutdown()

    assert session_id.encode("ascii") in page


def test_joined_lines_are_found_without_a_secret(unsigned_site):
    """Without a secret an id that the store knows is found in joined lines, and no other is adopted."""
    cookie, session_id = unsigned_site.begin()
    unknown = "0123456789abcdef" * 2

    assert unsigned_site.visit(f"lang=en, {NAME}={cookie}", "/tell").json["id"] == session_id
    assert is_fresh(unsigned_site.visit(f"lang=en, {NAME}={unknown}"), unknown)


WITHIN = {
    "quotes": 'q="a, {}"',
    "an open quote": 'q="a, {}',
    "quotes with a quote in them": 'q="a\\", {}"',
    "JSON": 'prefs={{"a": "b, {}, c=d"}}',
    "another value": "q=a {}",
    "another name": "q=a, x{}",
}


@pytest.mark.parametrize("header", WITHIN.values(), ids=WITHIN)
def test_another_applications_value_holds_none_of_ours(site, header):
    """A cookie of ours that was put into another application's value, in quotes, opens nothing."""
    cookie, session_id = site.begin()

    assert site.visit(header.format(f"{NAME}={cookie}"), "/tell").json["id"] != session_id


def test_ours_comes_before_what_a_comma_parts(site):
    """Where our cookie stands as it should, no comma is looked at."""
    ours, session_id = site.begin()
    other, _ = site.begin()

    for header in (f"q=a, {NAME}={other}; {NAME}={ours}", f"{NAME}={ours}; q=a, {NAME}={other}"):
        assert site.visit(header, "/tell").json["id"] == session_id


@pytest.mark.parametrize("name", ["__Host-sid", "__Secure-sid", "__host-sid", "__Http-sid"])
@pytest.mark.parametrize("store", ["file", "cookie"])
def test_no_comma_is_looked_at_where_the_name_is_protected(tmp_path, store, name):
    """A browser lets a neighbour set ``a=b, __Host-sid=…``: where the name has a prefix, that opens nothing."""
    options = {**store_options(store, tmp_path), "key": name, "secure": True}
    site = Site("filter", options, tmp_path)
    _, cookie = site.visit().headers["Set-Cookie"].partition(";")[0].split("=", 1)

    assert site.visit(f"{name}={cookie}").json["count"] == 2
    assert is_fresh(site.visit(f"a=b, {name}={cookie}"))


# -- What Python's texts take for more than a header's grammar does ----------------------------------

#: What a ``Cookie`` header may hold beside the white space of its grammar; a semicolon ends a cookie.
CHARACTERS = "".join(map(chr, range(256))).translate({ord(character): None for character in " \t;"})


@pytest.mark.parametrize("store", ["memory", "cookie"])
@pytest.mark.parametrize("form", ["{0}{1}={2}", "{1}{0}={2}", "{1}={0}{2}", "{1}={2}{0}"])
def test_no_character_but_space_and_tab_is_white_space(tmp_path, store, form):
    """Beside the name or the value no character is left out, whatever Python takes for white space: RFC 6265."""
    site = Site("filter", store_options(store, tmp_path), tmp_path)
    cookie, _ = site.begin()
    # Those that a value may stand between.
    characters = [character for character in CHARACTERS if form.startswith("{0}") or character not in '",']
    opened = [sent for sent in characters if not site.visit(form.format(sent, NAME, cookie), "/tell").json["new"]]

    assert site.visit(form.format(" ", NAME, cookie), "/tell").json["new"] is False
    # A name may begin after the comma of a line that was joined.
    assert opened == ([","] if form.startswith("{0}") else [])


#: What reads options, answers of servers and files of our own, and nothing that a request sends.
NO_REQUEST = ("cli", "options", "regions", "site", "stores", "testing")
_PACKAGE = Path(beaker_bridge.__file__).parent
READERS = [
    path
    for path in sorted(_PACKAGE.rglob("*.py"))
    if path.relative_to(_PACKAGE).parts[0] not in NO_REQUEST and path.stem not in ("migrate", "journal")
]
#: Methods that go by Unicode; the first ones where they are not told what to look for.
UNICODE_WITHOUT_ARGUMENT = {"strip", "lstrip", "rstrip", "split", "rsplit"}
UNICODE = {
    *("splitlines", "isdigit", "isdecimal", "isnumeric", "isalpha", "isalnum", "isspace", "isidentifier", "isupper"),
    *("islower", "istitle", "isprintable", "upper", "casefold", "title", "capitalize", "swapcase"),
}
#: Numbers that are no texts: what Python reads as one is more than ASCII's digits.
NUMBERS = {
    "cookies.py": {"int(NEVER - now)", "int(aware.timestamp() - now)", "int(expires)"},
    "isession.py": {"int(self._loaded.created)"},
    "base.py": {"float(int(self._now))", "int(self._now)"},
}


def _wide_calls(tree):
    """Yield the calls of functions and methods that go by Unicode."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        is_wide = name in UNICODE or (name in UNICODE_WITHOUT_ARGUMENT and not call.args)
        if is_wide or (name in ("int", "float") and isinstance(call.func, ast.Name)):
            yield ast.unparse(call)


def _wide_patterns(tree):
    """Yield the patterns of texts whose classes are Unicode's."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        source = ast.unparse(call)
        is_bytes = source.partition("(")[2].startswith(("b'", 'b"', "rb'"))
        is_wide = re.search(r"\\\\?[swdbSWDB]", source) and "re.ASCII" not in source
        if source.startswith("re.") and is_wide and not is_bytes:
            yield source


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_nothing_on_a_requests_way_goes_by_unicode(path):
    """What reads a request uses no method, number or pattern that takes more than the grammar's own characters."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    assert {*_wide_calls(tree), *_wide_patterns(tree)} <= NUMBERS.get(path.name, set())


def test_a_pickle_in_a_cookie_is_never_opened(cookie_site, tmp_path):
    """``legacy_serializer = pickle`` is for stores: a browser's pickle stays closed, even with our signature."""
    migrating = Site("filter", {**cookie_site.options, "legacy_serializer": "pickle"}, cookie_site.folder)
    planted = seal(migrating, pickle.dumps(Planted(tmp_path / "planted"), 2)).decode("ascii")
    response = migrating.visit(f"{NAME}={migrating.sign(planted)}")

    assert is_fresh(response)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("store", [*STORED, *COOKIES])
def test_a_damaged_record_raises_where_that_is_asked_for(tmp_path, store):
    """With ``invalidate_corrupt = false`` the application is told, with the record's size."""
    site = Site("filter", {**store_options(store, tmp_path), "invalidate_corrupt": False}, tmp_path)
    cookie, session_id = site.begin()
    if store in STORED:
        plant(site, session_id, b"% garbage %")
    else:
        cookie = site.sign("% garbage %")
    with pytest.raises(DamagedRecordError) as raised:
        site.visit(f"{NAME}={cookie}")

    assert raised.value.value == len(b"% garbage %")


#: What may stand in the two files of ``dbm.dumb``.
DUMB_FILES = {
    "a directory of garbage": (".dir", b"\x8f\x00 garbage (((\n"),
    "a directory of zeros": (".dir", bytes(512)),
    "a place before the file": (".dir", b"'session', (-512, 10)\n"),
    "a place behind the file": (".dir", b"'session', (1048576, 10)\n"),
    "a place that is none": (".dir", b"'session', ('here', 'there')\n"),
    "a place without end": (".dir", b"'session', (1e999, 1e999)\n"),
    "a size over all memory": (".dir", b"'session', (0, 4611686018427387904)\n"),
    "a deep directory": (".dir", b"(" * 10_000 + b"\n"),
    "no data": (".dat", b""),
    "data of garbage": (".dat", b"\x8f\x00 garbage"),
}


@pytest.mark.parametrize(("suffix", "content"), DUMB_FILES.values(), ids=DUMB_FILES)
def test_damaged_dbm_files_give_a_new_session(tmp_path, caplog, suffix, content):
    """Whatever stands in the files of ``dbm.dumb``, the page is a normal one, and the log tells of it."""
    site = Site("filter", {**store_options("dbm", tmp_path), "dbmmodule": dbm.dumb}, tmp_path)
    cookie, session_id = site.begin()
    file = Path(_dbm_of(site, session_id) + suffix)
    file.write_bytes(content)
    caplog.clear()
    response = site.visit(f"{NAME}={cookie}")
    (warning,) = warnings_of(caplog)

    assert is_fresh(response)
    assert response.json["id"] != session_id
    assert file.read_bytes() == content
    assert session_id[:6] in warning
