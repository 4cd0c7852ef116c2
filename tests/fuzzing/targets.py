"""The targets of fuzzing. Each takes bytes, makes a request of them, and asserts what must hold for any bytes:

- no exception leaves the middleware, and the page is a normal one, with sound headers;
- no session is opened but the one whose cookie was sent;
- another session's record stays as it was;
- no log line shows a session's id;
- the process needs no more memory than a record may.
"""

from __future__ import annotations

import atexit
import base64
import json
import logging
import re
import resource
import shutil
import tempfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beaker.container import MemoryNamespaceManager
from pyramid.request import Request
from pyramid.response import Response

from beaker_bridge.cookies import SIGNATURE_LENGTH
from beaker_bridge.record.serializers import MAX_PLAIN_SIZE
from beaker_bridge.stores.file import session_path
from tests.installations import install

NAME = "sid"
#: What a request may add to the memory that the process has ever needed, in KiB. Python's objects take
#: up to 40 times the room of their JSON (test_fuzzing.py measures that).
MAX_GROWTH = 48 * MAX_PLAIN_SIZE // 1024
#: What logs what a target does; who drives it has the log tell everything.
LOGGER = logging.getLogger("beaker_bridge")
#: The time, which stands still: what an input does is the same each time.
NOW = 1_700_000_000.0
#: How long a session may be idle, in seconds.
TIMEOUT = 3600
#: The form of an id.
ID_FORM = re.compile("[0-9a-f]{32}")
#: What no header may hold.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECRETS = {
    "secret": "a secret for tests, of 32 bytes or more",
    "validate_key": "a key that signs cookies, for the tests",
}
_ENVIRON = Request.blank("/").environ
_ENCRYPTED = {**_SECRETS, "encrypt_key": "a key that encrypts sessions, for tests"}


# -- A site ------------------------------------------------------------------------------------------


def _page(request):
    session = request.session
    told = {"id": session.id, "new": session.new, "owner": session.get("owner")}
    # What the session knows of itself, and a change, so that there is something to commit.
    told["facts"] = [
        session.created,
        session.last_accessed,
        session.timeout,
        session.domain,
        session.path,
        repr(session),
    ]
    session["visited"] = not session.get("visited")
    # What a record holds may be no JSON.
    return Response(json.dumps(told, default=repr))


def _configure(config):
    config.add_route("page", "/")
    config.add_view(_page, route_name="page")


class _Log(logging.Handler):
    """Formats each line, as a log would, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Site:
    """An application with two sessions: one whose cookie the fuzzer has, and another one's.

    Args:
        options: the session's options.
    """

    def __init__(self, **options: Any) -> None:
        self.app = install("filter", {"key": NAME, "timeout": TIMEOUT, "clock": lambda: NOW, **options}, _configure)
        self.config = self.app._config
        self.cookie, self.id = self._begin("fuzzer")
        self.other_cookie, self.other_id = self._begin("other")
        self.other_record = self._record_of(self.other_id)

    def ask(self, cookie: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Make a request with a ``Cookie`` header; return what the page tells, and the headers."""
        answer: dict[str, Any] = {}

        def start_response(status, headers, exc_info=None):
            answer.update(status=status, headers=headers, exc_info=exc_info)

        environ = {**_ENVIRON, "HTTP_COOKIE": cookie}
        body = b"".join(self.app(environ, start_response))
        assert answer["status"] == "200 OK"
        assert answer["exc_info"] is None
        return json.loads(body), answer["headers"]

    def check(self, cookie: str, *, allowed: bool) -> dict[str, Any]:
        """Make a request, assert what must hold for any, and return what the page tells.

        Args:
            cookie: the ``Cookie`` header.
            allowed: whether the fuzzer's own session may be opened; nobody else's ever may.
        """
        with _watched() as log:
            told, headers = self.ask(cookie)
        _assert_sound(headers)
        assert told["owner"] != "other"
        assert told["id"] != self.other_id
        assert self._record_of(self.other_id) == self.other_record
        assert not any(known in line for line in log.lines for known in (self.id, self.other_id))
        if told["new"]:
            assert ID_FORM.fullmatch(told["id"])
            assert told["id"] not in cookie
            assert told["id"] != self.id
            self._remove(told["id"])
        else:
            assert allowed
        return told

    def _begin(self, owner: str) -> tuple[str, str]:
        """Begin a session of somebody's; return its cookie's value, and its id."""
        told, headers = self.ask("")
        (cookie,) = [value for name, value in headers if name == "Set-Cookie"]
        value = cookie.split(";")[0].partition("=")[2].strip('"')
        return self._owned(value, told["id"], owner)

    def _owned(self, cookie: str, session_id: str, owner: str) -> tuple[str, str]:
        store, codec = self.config.store, self.config.codec
        if store is not None:
            record = store.read(session_id)
            content = {**codec.decode(record.raw)[0], "owner": owner}
            store.swap(session_id, record, codec.seal(codec.serialize(content)))
            return cookie, session_id
        content = {**codec.decode(self.config.signer.verify(cookie)[0].encode())[0], "owner": owner}
        return self.config.signer.sign(codec.seal(codec.serialize(content)).decode()), session_id

    def _record_of(self, session_id: str) -> bytes | None:
        return self.config.store.read(session_id).raw if self.config.store else None

    def _remove(self, session_id: str) -> None:
        """Remove what a new session has left: the store must not grow for the fuzzer's sake."""
        if self.config.store:
            self.config.store.swap(session_id, self.config.store.read(session_id), None)


def _assert_sound(headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        assert not _CONTROL.search(name + value)
        (name + value).encode("latin-1")
    assert sum(name == "Set-Cookie" for name, _ in headers) <= 1
    assert "Cookie" in dict(headers)["Vary"]


@contextmanager
def _watched():
    """Watch the log, and the memory that the process has ever needed."""
    log = _Log()
    LOGGER.addHandler(log)
    before = _peak()
    try:
        yield log
    finally:
        LOGGER.removeHandler(log)
    assert _peak() - before < MAX_GROWTH


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- The sites of all targets ------------------------------------------------------------------------

_sites: dict[tuple[str, str], Site] = {}


def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="beaker-bridge-fuzzing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "memory": lambda: {"type": "memory", **_SECRETS},
    "unsigned": lambda: {"type": "memory"},
    # A cookie that has a lifetime is sent again now and then.
    "file": lambda: {"type": "file", "data_dir": _folder(), "cookie_expires": TIMEOUT, "reissue_time": 60, **_SECRETS},
    "dbm": lambda: {"type": "dbm", "data_dir": _folder(), "dbmmodule": "dbm.dumb", **_SECRETS},
    "encrypted": lambda: {"type": "file", "data_dir": _folder(), **_ENCRYPTED},
    "cookie": lambda: {"type": "cookie", **_SECRETS},
    "encrypted cookie": lambda: {"type": "cookie", **_ENCRYPTED},
}


def site(target: str, name: str) -> Site:
    """Return a target's site by its name; made when it is first asked for."""
    if (target, name) not in _sites:
        _sites[target, name] = Site(**_OPTIONS[name]())
    return _sites[target, name]


def _choice(data: bytes, choices: list[Any]) -> tuple[Any, bytes]:
    """Return what the first byte chooses, and the others."""
    return choices[data[0] % len(choices)] if data else choices[0], data[1:]


# -- The target: the header --------------------------------------------------------------------------

HEADER_SITES = ["memory", "unsigned", "file", "cookie", "encrypted cookie"]
#: Bytes that stand for what no fuzzer can guess: our own cookie, its value, and the value without its signature.
_OWN, _VALUE, _UNSIGNED = "\x01", "\x02", "\x03"


def header(data: bytes) -> None:
    """Send any bytes as the ``Cookie`` header; the first one chooses the site.

    The fuzzer's session is opened if its cookie is among them as it was sent, and only then.
    """
    name, content = _choice(data, HEADER_SITES)
    found = site("header", name)
    cookie = found.cookie
    sent = (
        content.decode("latin-1")
        .replace(_OWN, f"{NAME}={cookie}")
        .replace(_VALUE, cookie)
        .replace(_UNSIGNED, cookie[SIGNATURE_LENGTH:])
    )
    told = found.check(sent, allowed=cookie in sent)
    if name != "unsigned" and any(pair.strip(" \t") == f"{NAME}={cookie}" for pair in sent.split(";")):
        assert not told["new"]
        assert told["owner"] == "fuzzer"


# -- The target: the value, under our signature ------------------------------------------------------

#: A site, and how deep in a record the bytes are put.
VALUES = [
    *(("memory", "text"), ("unsigned", "text"), ("cookie", "text"), ("cookie", "plain"), ("cookie", "JSON")),
    *(("encrypted cookie", "text"), ("encrypted cookie", "plain"), ("encrypted cookie", "JSON")),
]


def value(data: bytes) -> None:
    """Send any bytes as our cookie's value, signed by us; the first byte chooses the site, and the depth."""
    (name, depth), content = _choice(data, VALUES)
    found = site("value", name)
    text = _put(found, depth, content).decode("latin-1").replace(_OWN, found.id)
    # A cookie session is what is in the cookie; an id is one as it stands, and anywhere where none is signed.
    allowed = {"memory": text == found.id, "unsigned": found.id in text}.get(name, True)
    told = found.check(f"{NAME}={found.config.signer.sign(text)}", allowed=allowed)
    assert text != found.id or found.config.store is None or told["id"] == found.id


def _put(found: Site, depth: str, content: bytes) -> bytes:
    """Return the text of a record with some content: itself the text, or the plain bytes, or their JSON."""
    if depth == "text":
        return content
    plain = zlib.compress(content, 1) if depth == "JSON" else content
    cipher = found.config.codec._cipher
    return cipher.encrypt(plain) if cipher else base64.b64encode(plain)


# -- The target: the record --------------------------------------------------------------------------

RECORDS = [
    *(("file", "raw"), ("file", "text"), ("file", "plain"), ("file", "JSON")),
    *(("dbm", "raw"), ("dbm", "text"), ("dbm", "JSON"), ("dbm", ".dir"), ("dbm", ".dat")),
    *(("memory", "text"), ("memory", "JSON"), ("encrypted", "text"), ("encrypted", "plain"), ("encrypted", "JSON")),
]


def record(data: bytes) -> None:
    """Put any bytes where our record is, and send our cookie; the first byte chooses the store, and the depth."""
    (name, depth), content = _choice(data, RECORDS)
    found = site("record", name)
    _plant(found, depth, content)
    found.check(f"{NAME}={found.cookie}", allowed=True)


def _plant(found: Site, depth: str, content: bytes) -> None:
    kind, envelope = found.config.options.type, found.config.store.envelope
    raw = content
    if depth in ("text", "plain", "JSON"):
        # An envelope holds ASCII.
        raw = envelope.wrap(_put(found, depth, content).decode("latin-1").encode("ascii", "replace"))
    if kind == "memory":
        MemoryNamespaceManager.namespaces.dict[found.id] = {"session": raw.decode("ascii")}
        return
    path = Path(session_path(found.config.store._root, found.id, found.config.store.suffix))
    if kind == "file":
        path.write_bytes(raw)
        return
    _plant_dumb(path, depth, raw)


def _plant_dumb(path: Path, depth: str, raw: bytes) -> None:
    """Put bytes into one of the two files of ``dbm.dumb``."""
    directory, data = path.with_suffix(".dbm.dir"), path.with_suffix(".dbm.dat")
    if depth == ".dir":
        directory.write_bytes(raw)
        return
    data.write_bytes(raw)
    directory.write_bytes(b"'session', (0, %d)\n" % len(raw))


# -- All of them -------------------------------------------------------------------------------------

TARGETS: dict[str, Callable[[bytes], None]] = {"header": header, "value": value, "record": record}

#: Records in JSON that are sound, or nearly so.
_JSONS = [
    b'{"_accessed_time":1699999999.5,"_creation_time":1699999999.5,"visited":[1],"a":{"b":[null,true,"c"]}}',
    b'{"_accessed_time":1e308,"_creation_time":-1,"_bb_expiry":60,"_domain":"example.org","_path":"/","_id":"x"}',
    b'{"_bb_moved":99999999999,"_bb_writer":"0123"}',
    b'{"_domain":null,"_path":null}',
    b'{"a":{"__bb__":["datetime","2020-01-01T00:00:00"]},"b":{"__bb__":["tuple",[{"__bb__":["Decimal","1.0"]}]]}}',
    b'{"a":{"__bb__":["set",[1,{"__bb__":["bytes","YQ=="]}]]},"b":{"__bb__":["timedelta",[1,2,3]]}}',
    b'{"a":{"__bb__":["datetime",["2020-01-01T00:00:00",1,"Europe/Berlin"]]},"b":{"__bb__":["dict",[["__bb__",1]]]}}',
    b'{"a":{"__bb__":["UUID","0123456789abcdef0123456789abcdef"]},"b":{"__bb__":["time","10:00"]}}',
    b'{"_f_":["a"],"_csrft_":"b","owner":"fuzzer"}',
    # What has once done harm.
    b'{"_accessed_time":"now"}',
    b'{"_accessed_time":1699996460,"_creation_time":null}',
    b'{"_accessed_time":1699999000,"_bb_expiry":0.5}',
    b'{"_accessed_time":1699999000,"_bb_expiry":1e9}',
    b'{"_accessed_time":1699999000,"_path":"\\ud800"}',
    b'{"_accessed_time":1699999000,"_domain":"\\ud800"}',
    b'{"_bb_moved":null}',
    b"[1]",
]

#: What is worth putting together: for atheris a dictionary, for Hypothesis pieces.
PIECES: list[bytes] = [
    *(NAME.encode() + b"=", b"=", b";", b"; ", b",", b'"', b"\\", b"$Version=1", b"\x00", b"\x01", b"\x02", b"\x03"),
    *(b"_accessed_time", b"_creation_time", b"_bb_expiry", b"_bb_moved", b"_bb_writer", b"_domain", b"_path", b"_id"),
    *(b"__bb__", b"datetime", b"date", b"time", b"timedelta", b"Decimal", b"UUID", b"bytes", b"tuple", b"set", b"dict"),
    *(b'{"', b'":', b'"}', b"[", b"]", b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"1e308", b"true", b"9" * 400),
    *(
        b'{"__bb__":["',
        b'",[',
        b"]]}",
        b"\x80\x04\x95",
        b"\x8c\x07session\x94",
        b"\x94.",
        b"s.",
        b"}\x94",
        b"X\x04\x00",
    ),
    *(
        b"'session', (0, 1)\n",
        b"(0, ",
        b"-512",
        b"1e999",
        b"\\u0000",
        b"\\ud800",
        b"\r\nSet-Cookie: a=b",
        b"example.org",
    ),
]


def seeds(target: str) -> list[bytes]:
    """Return inputs of a target for a fuzzer to begin with."""
    if target == "header":
        contents = [
            *(b"", b"\x01", b"a=b; \x01; c", b"sid=\x02", b'sid="\x02"', b"\x01; \x01", b"sid=x; \x01"),
            *(b"sid=\x03", b"sid=" + b"0" * SIGNATURE_LENGTH + b"\x03"),
        ]
        return [bytes([number]) + content for number in range(len(HEADER_SITES)) for content in contents]
    if target == "value":
        return [bytes([number]) + text for number, (_, depth) in enumerate(VALUES) for text in _contents(depth)]
    return [bytes([number]) + text for number, (_, depth) in enumerate(RECORDS) for text in _contents(depth)]


def _contents(depth: str) -> list[bytes]:
    """Return contents that are sound at a depth of a record, or nearly so."""
    plains = [zlib.compress(content, 1) for content in _JSONS]
    texts = [base64.b64encode(plain) for plain in plains]
    if depth == "JSON":
        return _JSONS
    if depth == "plain":
        return [*plains, b"\x80\x02}q\x00."]
    if depth == "text":
        return [*texts, b"\x01", b"0" * 32]
    if depth == "raw":
        return [b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.", b"}.", *map(_dict_pickle, texts)]
    return [b"'session', (0, 10)\n", b"'session', (512, 3)\n'other', (0, 1)\n"]


def _dict_pickle(text: bytes) -> bytes:
    return b"\x80\x02}X\x07\x00\x00\x00sessionX" + len(text).to_bytes(4, "little") + text + b"s."
