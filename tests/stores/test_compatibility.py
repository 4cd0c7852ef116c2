"""Sessions that go back and forth between beaker_bridge, pyramid_beaker and Beaker's own middleware.

One browser, with one cookie jar, visits two applications that share a store, as during a migration.
Everything is written and read by the installed packages; nothing is a recorded byte.
"""

from __future__ import annotations

import json
import secrets
import time
from datetime import date
from http.cookiejar import CookieJar
from itertools import product

import beaker.middleware
import pyramid_beaker
import pytest
from beaker.cache import clsmap
from beaker.ext.database import DatabaseNamespaceManager
from beaker.ext.memcached import MemcachedNamespaceManager
from beaker.ext.redisnm import RedisNamespaceManager
from pyramid.config import Configurator
from webtest import TestApp
from webtest.app import CookiePolicy

from beaker_bridge import SessionTooLargeError
from tests import machine
from tests.installations import INSTALLATIONS, install

# Real servers: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

SIGNED = {"secret": "ein Schlüssel für Prüfungen, von 32 Bytes"}
ENCRYPTED = {
    "validate_key": "a key that signs cookies, for the tests",
    "encrypt_key": "a key that encrypts sessions, for tests",
    # Beaker's default is another cipher before 1.14, or none.
    "crypto_type": "cryptography",
}
#: How the cookie and the record are protected.
PROTECTIONS = {"unsigned": {}, "signed": SIGNED, "encrypted": SIGNED | ENCRYPTED}
COOKIE_PROTECTIONS = {"signed": {"validate_key": ENCRYPTED["validate_key"]}, "encrypted": ENCRYPTED}
SERIALIZERS = ("json", "pickle")

EMBEDDED = ("memory", "file", "dbm", "sqlite")
#: Beaker's type, the option that holds the address, and the fixture of the server.
SERVERS = {
    "redis": ("ext:redis", "url", "redis_server"),
    "rediscluster": ("ext:rediscluster", "urls", "redis_cluster"),
    "memcached": ("ext:memcached", "url", "memcached_server"),
    "postgresql": ("ext:database", "url", "postgresql_server"),
    "mariadb": ("ext:database", "url", "mariadb_server"),
}
STORED = (*EMBEDDED, *SERVERS)
#: A store, its protection and its serializer: all that two applications must agree on.
FORMATS = [
    *product(STORED, PROTECTIONS, SERIALIZERS),
    *product(["cookie"], COOKIE_PROTECTIONS, SERIALIZERS),
]

CART = {"lines": [{"name": "tea", "price": 3.5, "gift": None}], "grüße": {"ß": [True, 1, "…", []]}, "empty": {}}
#: What Beaker shows among the application's keys, and we do not: its own keys, and ours in the record.
BEAKERS_KEYS = {"_accessed_time", "_creation_time", "_domain", "_path", "_id", "_expires"}
OUR_KEYS = ("_bb_expiry", "_bb_moved", "_bb_writer")


# -- Three applications that do the same -------------------------------------------------------------


def fill(request):
    """Change the session as Pyramid's applications do."""
    session = request.session
    session["count"] = session.get("count", 0) + 1
    session["cart"] = CART
    session.flash("saved")
    session.get_csrf_token()
    return {}


def tell(request):
    """Tell what the session holds."""
    session = request.session
    return {"id": session.id, "created": int(session.created), "data": dict(session.items())}


def grow(request):
    """Keep a text of some size, and nothing else."""
    request.session["text"] = secrets.token_hex(int(request.query_string))
    return {}


def remember(request):
    """Give the session an expiry of its own, as only ours can."""
    request.session.set_expiry(600)
    return {}


def repeat(request):
    """Keep a text that is small where it is compressed."""
    request.session["text"] = "the usual words " * 300
    return {}


def order(request):
    """Keep a date, as only ours can in JSON."""
    request.session["due"] = date(2038, 1, 19)
    return {}


def due(request):
    """Tell the date."""
    return repr(request.session["due"])


def configure(config):
    """Add the views."""

    def add(name, view):
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name, renderer="json")

    def calls(method):
        def call(request):
            getattr(request.session, method)()
            return {}

        return call

    for view in (fill, tell, grow, repeat, remember, order, due):
        add(view.__name__, view)
    for name in ("delete", "invalidate", "regenerate_id"):
        add(name, calls(name))


def beaker_application(environ, start_response):
    """Use ``environ['beaker.session']`` as WSGI code without Pyramid does, with Pyramid's keys."""
    session = environ["beaker.session"]
    if environ["PATH_INFO"] == "/fill":
        session["count"] = session.get("count", 0) + 1
        session["cart"] = CART
        session.setdefault("_f_", []).append("saved")
        session.setdefault("_csrft_", "a token")
        session.save()
    elif environ["PATH_INFO"] == "/grow":
        session["text"] = secrets.token_hex(int(environ["QUERY_STRING"]))
        session.save()
    elif environ["PATH_INFO"] == "/repeat":
        session["text"] = "the usual words " * 300
        session.save()
    elif environ["PATH_INFO"] != "/tell":
        getattr(session, environ["PATH_INFO"][1:])()
        session.save()
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] != "/tell":
        return [b"{}"]
    answer = {"id": session.id, "created": int(session.created), "data": dict(session.items())}
    return [json.dumps(answer).encode("ascii")]


def with_pyramid_beaker(options):
    """Return a Pyramid application over pyramid_beaker."""
    settings = {f"session.{name}": value for name, value in options.items()}
    config = Configurator(settings=settings)
    config.set_session_factory(pyramid_beaker.session_factory_from_settings(settings))
    configure(config)
    return config.make_wsgi_app()


def with_beaker(options):
    """Return an application without Pyramid over Beaker's own middleware."""
    return beaker.middleware.SessionMiddleware(beaker_application, **options)


PEERS = {"pyramid_beaker": with_pyramid_beaker, "beaker": with_beaker}


@pytest.fixture(scope="module", autouse=True)
def _beakers_clients():
    """Close what Beaker keeps open for the life of the process, before the servers stop."""
    yield
    for engine in DatabaseNamespaceManager.binds.dict.values():
        engine.dispose()
    for client in MemcachedNamespaceManager.clients.dict.values():
        client.disconnect_all()
    # Beaker has the second since 1.13.
    for manager in {clsmap._clsmap.get(name) for name in ("ext:redis", "ext:rediscluster")} - {None}:
        for client in manager.clients.dict.values():
            client.close()
    for known in (
        DatabaseNamespaceManager.binds,
        DatabaseNamespaceManager.tables,
        MemcachedNamespaceManager.clients,
        RedisNamespaceManager.clients,
    ):
        known.dict.clear()


@pytest.fixture(params=PEERS)
def peer(request):
    return PEERS[request.param]


@pytest.fixture
def browser():
    return CookieJar(policy=CookiePolicy())


@pytest.fixture
def agreed(request, tmp_path):
    """Return a function that gives the options on which two applications agree."""

    def place(store):
        if store in SERVERS:
            kind, option, fixture = SERVERS[store]
            machine.backend(kind)
            return {"type": kind, option: request.getfixturevalue(fixture).url}
        if store == "sqlite":
            return {"type": "ext:database", "url": f"sqlite:///{tmp_path / 'sessions.db'}"}
        directory = {"data_dir": str(tmp_path / "sessions")} if store in ("file", "dbm") else {}
        return {"type": store, **directory}

    def options_of(store, protection="signed", serializer="json"):
        protections = COOKIE_PROTECTIONS if store == "cookie" else PROTECTIONS
        return {**place(store), **protections[protection], "data_serializer": serializer, "key": "sid"}

    return options_of


@pytest.fixture(params=FORMATS, ids="-".join)
def options(request, agreed):
    return agreed(*request.param)


@pytest.fixture(params=STORED)
def stored_options(request, agreed):
    return agreed(request.param)


@pytest.fixture
def pair(peer, browser):
    """Return a function that starts both applications, theirs and ours, for one browser."""

    def start(options, installation="filter", **only_ours):
        theirs = TestApp(peer(options), cookiejar=browser)
        ours = TestApp(install(installation, {**options, **only_ours}, configure), cookiejar=browser)
        return theirs, ours

    return start


def told_by(app, **environ):
    """Return what an application finds in the session, without the keys that are not the application's."""
    answer = app.get("/tell", extra_environ=environ).json
    data = {key: value for key, value in answer["data"].items() if key not in {*BEAKERS_KEYS, *OUR_KEYS}}
    return {**answer, "data": data}


def filled_by(app):
    """Have an application change the session, and return what it finds then."""
    app.get("/fill")
    return told_by(app)


def cookie_of(browser):
    (cookie,) = browser
    return f"{cookie.name}={cookie.value}"


def told_with(cookie, app):
    """Return what an application finds with a cookie that the browser has kept beside its jar."""
    app.reset()
    return told_by(app, HTTP_COOKIE=cookie)


# -- Both ways, in every format ----------------------------------------------------------------------


def test_their_session_is_read_here(pair, options):
    """What pyramid_beaker or Beaker has written is found here: id, time of creation, and every value."""
    theirs, ours = pair(options)
    written = filled_by(theirs)
    read = ours.get("/tell").json

    assert written["data"]["count"] == 1
    assert written["data"]["cart"] == CART
    assert read == written


def test_our_session_is_read_there(pair, options):
    """What is written here is found by pyramid_beaker or Beaker: id, time of creation, and every value."""
    theirs, ours = pair(options)
    written = filled_by(ours)
    read = told_by(theirs)

    assert written["data"]["count"] == 1
    assert written["data"]["cart"] == CART
    assert read == written


def test_both_take_turns_on_one_session(pair, options):
    """Each goes on where the other has stopped: a count, the flash queue, and one CSRF token."""
    theirs, ours = pair(options)
    turns = [filled_by(app) for app in (theirs, ours, theirs, ours, ours, theirs)]

    assert [turn["data"]["count"] for turn in turns] == [1, 2, 3, 4, 5, 6]
    assert turns[-1]["data"]["_f_"] == ["saved"] * 6
    assert {(turn["id"], turn["created"], turn["data"]["_csrft_"]) for turn in turns} == {
        (turns[0]["id"], turns[0]["created"], turns[0]["data"]["_csrft_"])
    }


# Bounds of what Beaker's backends put around a record: 256 bytes, and the 64 KiB of a pickle's frame.
@pytest.mark.parametrize("size", [0, 60, 400, 60_000])
@pytest.mark.parametrize("store", ["memory", "file", "dbm", "sqlite", "redis", "memcached", "postgresql"])
def test_small_and_large_sessions_go_both_ways(pair, agreed, store, size):
    """A session of any size is found by the other side."""
    theirs, ours = pair(agreed(store))
    found = []
    for writer, reader in ((theirs, ours), (ours, theirs)):
        writer.get(f"/grow?{size}")
        found.append((told_by(writer), told_by(reader)))

    assert all(len(written["data"]["text"]) == 2 * size for written, _ in found)
    assert all(written == read for written, read in found)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_encrypted_cookies_of_any_size_go_both_ways(pair, agreed, serializer):
    """What is padded here is read there, and what is compressed there is read here, whatever its size."""
    theirs, ours = pair(agreed("cookie", "encrypted", serializer))
    found = []
    for size, (writer, reader) in product([0, 10, 100, 130, 1200], ((theirs, ours), (ours, theirs))):
        writer.get(f"/grow?{size}")
        found.append((size, told_by(writer), told_by(reader)))

    assert all(len(written["data"]["text"]) == 2 * size for size, written, _ in found)
    assert all(written == read for _, written, read in found)


def test_a_cookie_that_fits_only_where_it_is_compressed_is_read(pair, agreed, caplog):
    """A cookie from before is read though it is too large without compression; the log says what is not saved."""
    theirs, ours = pair(agreed("cookie", "encrypted"), clock=lambda: time.time() + 3600)
    theirs.get("/repeat")
    read = told_by(ours)
    with pytest.raises(SessionTooLargeError):
        ours.get("/fill")

    assert read["data"] == told_by(theirs)["data"] == {"text": "the usual words " * 300}
    assert "its access time is not saved: the session's cookie would have" in caplog.text


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize("store", ["file", "cookie"])
def test_each_installation_takes_turns(pair, agreed, store, installation):
    """However ours is installed, the record and the cookie are the same."""
    theirs, ours = pair(agreed(store, "encrypted"), installation)
    turns = [filled_by(app) for app in (theirs, ours, theirs, ours)]

    assert [turn["data"]["count"] for turn in turns] == [1, 2, 3, 4]
    assert len({(turn["id"], turn["created"]) for turn in turns}) == 1


@pytest.mark.parametrize("store", ["file", "cookie"])
def test_old_nonces_are_read_both_ways(pair, agreed, store):
    """Sessions that were encrypted with the nonce of Beaker before 1.8 go both ways, too."""
    theirs, ours = pair({**agreed(store, "encrypted"), "encrypt_nonce_bits": 48})
    turns = [filled_by(app) for app in (theirs, ours, theirs)]

    assert [turn["data"]["count"] for turn in turns] == [1, 2, 3]


@pytest.mark.parametrize(
    "options", [chosen for chosen in FORMATS if chosen[1] != "unsigned"], ids="-".join, indirect=True
)
def test_with_other_keys_nothing_of_theirs_opens_here(pair, options):
    """With another secret and other keys, a session of theirs is none of ours."""
    others = {name: f"another {options[name]}" for name in {"secret", "validate_key", "encrypt_key"} & options.keys()}
    theirs, ours = pair(options, **others)
    written = filled_by(theirs)
    read = told_by(ours)

    assert read["data"] == {}
    assert read["id"] != written["id"]


@pytest.mark.parametrize("store", ["file", "cookie"])
def test_a_date_of_ours_survives_their_write(pair, agreed, store):
    """What our JSON has beyond Beaker's goes through a whole write of theirs unharmed."""
    theirs, ours = pair(agreed(store))
    ours.get("/order")
    filled_by(theirs)

    assert ours.get("/due").json == "datetime.date(2038, 1, 19)"


@pytest.mark.parametrize("store", ["file", "cookie"])
def test_an_expiry_of_ours_survives_their_write(pair, agreed, store):
    """A session that was given its own expiry here keeps it, though the other side has written it since."""
    now = [time.time()]
    theirs, ours = pair(agreed(store), clock=lambda: now[0])
    filled_by(ours)
    ours.get("/remember")
    filled_by(theirs)
    before = told_by(ours)
    now[0] += 601
    after = told_by(ours)

    assert before["data"]["count"] == 2
    assert after["data"] == {}


# -- The end of a session ----------------------------------------------------------------------------


def test_their_delete_ends_the_session_here(pair, browser, stored_options):
    """The stub that Beaker's ``delete()`` leaves is no session here."""
    theirs, ours = pair(stored_options)
    old_id = filled_by(theirs)["id"]
    cookie = cookie_of(browser)
    theirs.get("/delete")
    read = told_with(cookie, ours)

    assert read["data"] == {}
    assert read["id"] != old_id


def test_our_invalidate_ends_the_session_there(pair, browser, stored_options):
    """A session that is invalidated here opens nothing there."""
    theirs, ours = pair(stored_options)
    ours.get("/fill")
    cookie = cookie_of(browser)
    ours.get("/invalidate")

    assert told_with(cookie, theirs)["data"] == {}


def test_our_new_id_is_known_there(pair, browser, stored_options):
    """After ``regenerate_id()`` here the new id opens the session there, and the old one no data."""
    theirs, ours = pair(stored_options)
    before = filled_by(ours)
    cookie = cookie_of(browser)
    ours.get("/regenerate_id")
    after = told_by(theirs)
    under_the_old_id = told_with(cookie, theirs)

    assert after["id"] != before["id"]
    assert after["data"]["cart"] == CART
    assert not {"cart", "count", "_f_", "_csrft_"} & under_the_old_id["data"].keys()


def test_their_new_id_is_known_here(pair, stored_options):
    """After ``regenerate_id()`` there the new id opens the session here."""
    theirs, ours = pair(stored_options)
    before = filled_by(theirs)
    theirs.get("/regenerate_id")
    after = ours.get("/tell").json

    assert after["id"] != before["id"]
    assert after["data"] == before["data"]


@pytest.mark.parametrize("store", ["memory", "cookie"])
def test_an_idle_session_of_theirs_expires_here(pair, agreed, store):
    """The time of the access that they note counts here."""
    theirs, ours = pair({**agreed(store), "timeout": 1800}, clock=lambda: time.time() + 1801)
    theirs.get("/fill")

    assert ours.get("/tell").json["data"] == {}


def test_an_idle_session_of_ours_expires_there(pair, agreed):
    """The time of the access that we note counts there."""
    theirs, ours = pair({**agreed("memory"), "timeout": 1800}, clock=lambda: time.time() - 1801)
    ours.get("/fill")

    assert told_by(theirs)["data"] == {}


# -- Moving from one to the other --------------------------------------------------------------------


def test_pickled_sessions_move_to_json(peer, browser, stored_options):
    """With ``legacy_serializer = pickle`` the pickled sessions of theirs are read, and written as JSON."""
    pickling = peer({**stored_options, "data_serializer": "pickle"})
    migrating = install("filter", {**stored_options, "legacy_serializer": "pickle"}, configure)
    with_json = peer(stored_options)
    turns = [filled_by(TestApp(app, cookiejar=browser)) for app in (pickling, migrating, with_json)]

    assert [turn["data"]["count"] for turn in turns] == [1, 2, 3]
    assert len({turn["id"] for turn in turns}) == 1
