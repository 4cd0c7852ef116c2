"""No password is shown, wherever it stands and whatever is wrong with it."""

from __future__ import annotations

import json
import re
import traceback
from contextlib import suppress
from urllib.parse import quote

import beaker.cache
import pytest
from beaker.cache import cache_region
from beaker.container import MemoryNamespaceManager
from pyramid.config import Configurator
from sqlalchemy import URL

from beaker_bridge import BeakerBridgeError
from beaker_bridge.options.masking import HIDDEN, clean, masked, masked_address
from beaker_bridge.options.reader import Given, given, prefixed, read_options
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.regions.define import define_regions, forget_regions
from beaker_bridge.stores import open_store
from tests.servers.redis import Redis

# Hundreds of inputs to one and the same logic.
pytestmark = [pytest.mark.once, pytest.mark.slow]

ID = "0123456789abcdef" * 2
#: Nothing that stands between these may be a part of what is shown.
PARTS = ("Zq9x", "Wv7k", "Jh3m", "48613")
#: What may end a password for somebody who takes an address apart.
ODD = "/#?@:%&;,=+ \"'\\[]{}<>|^`~!$*()é\xa0\x85"
ENDS = ["", "&Jh3m=", ";pwd=", *ODD[:5], ODD[5:]]
PASSWORDS = [f"Zq9x{odd}Wv7k{odd}Jh3m" for odd in ENDS] + [f"48613{odd}Wv7k" for odd in ODD[:5]]
NAMES = [
    *("password", "passwd", "pwd", "passphrase", "secret", "token", "credential", "auth", "api_key", "access_key"),
    *("private_key", "sasl_plain"),
]

# Where nobody listens.
HOST = "127.0.0.1:1"
ADDRESSES = {
    "redis": ("ext:redis", f"redis://me:{{}}@{HOST}/0"),
    "redis without a user": ("ext:redis", f"redis://:{{}}@{HOST}/0"),
    "redis with a word": ("ext:redis", f"redis://{{}}@{HOST}/0"),
    "redis with a query": ("ext:redis", f"redis://{HOST}/0?password={{}}"),
    "redis with a query behind it": ("ext:redis", f"redis://{HOST}/0?client_name=me&{{}}=1"),
    "redis with a wrong value": ("ext:redis", f"rediss://{HOST}/0?ssl_cert_reqs={{}}"),
    "rediscluster with a query": ("ext:rediscluster", f"redis://{HOST},redis://{HOST}?password={{}}"),
    "unix": ("ext:redis", "unix://me:{}@/nowhere.sock"),
    "sentinels": ("ext:redis", f"redis+sentinel://me:{{}}@{HOST}/service/0"),
    "rediscluster": ("ext:rediscluster", f"redis://me:{{}}@{HOST},redis://me:{{}}@{HOST}"),
    "memcached": ("ext:memcached", f"redis://me:{{}}@{HOST}/0"),
    "memcached with a login": ("ext:memcached", f"me:{{}}@{HOST}"),
    "memcached's second": ("ext:memcached", f"{HOST};me:{{}}@{HOST}"),
    "postgresql with a query": ("ext:database", f"postgresql+psycopg://me@{HOST}/db?password={{}}"),
    "postgresql with a query behind it": ("ext:database", f"postgresql+psycopg://me@{HOST}/db?{{}}=1"),
    "postgresql with a wrong value": ("ext:database", f"postgresql+psycopg://me@{HOST}/db?prepare_threshold=5{{}}"),
    "mariadb with a query": ("ext:database", f"mysql+pymysql://me@{HOST}/db?password={{}}"),
    "an address in parts": ("URL", "{}"),
    "postgresql": ("ext:database", f"postgresql+psycopg://me:{{}}@{HOST}/db"),
    "mariadb": ("ext:database", f"mysql+pymysql://me:{{}}@{HOST}/db"),
    "sqlite": ("ext:database", "sqlite://me:{}@/nowhere/db"),
    "no dialect": ("ext:database", f"nosuch://me:{{}}@{HOST}/db"),
    "an engine": ("ext:sqla", f"postgresql://me:{{}}@{HOST}/db"),
    "a type without a scheme": ("type", f"me:{{}}@{HOST}"),
    "a type": ("type", f"redis://me:{{}}@{HOST}/0"),
    "a directory": ("file", f"redis://me:{{}}@{HOST}/0"),
    "another backend": ("ext:foreign", f"foreign://me:{{}}@{HOST}/0"),
}


class ForeignNamespace(MemoryNamespaceManager):
    """Another backend, whose errors quote all that it is given."""

    def __init__(self, namespace, **arguments):
        super().__init__(namespace)
        raise OSError(5, f"cannot connect with {arguments}")


@pytest.fixture(autouse=True)
def foreign(monkeypatch, tmp_path):
    # An address that is given as a directory is made as one.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:foreign", ForeignNamespace)
    forget_regions()
    yield
    forget_regions()


def shown_by(error, seen=()):
    """Yield all that an error shows: its texts, those before it, and its data."""
    if error is None or error in seen:
        return
    seen = (*seen, error)
    yield from (str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error)))
    yield repr([getattr(error, name, None) for name in ("name", "value", "strerror", "errors")])
    for step in (error.__cause__, error.__context__, getattr(error, "original", None), *getattr(error, "errors", ())):
        yield from shown_by(step, seen)


def found_in(texts):
    """Return the parts of passwords that stand in texts."""
    # An object's address in memory may hold any digits.
    told = re.sub("0x[0-9a-f]+", "", "\n".join(texts))
    return [part for part in PARTS if part in told]


def options_of(kind, address):
    """Return the options of a session or a region."""
    if kind == "type":
        return {"type": address}
    if kind == "file":
        return {"type": kind, "data_dir": address, "lock_dir": address, "file_dir": address}
    if kind == "URL":
        return {"type": "ext:database", "url": URL.create("postgresql+psycopg", "me", address, query={address: "1"})}
    if kind == "ext:sqla":
        return {"type": kind, "bind": address, "table": address}
    return {"type": kind, "urls" if kind == "ext:rediscluster" else "url": address, "store_timeout": "0.5"}


def sessions_show(options):
    """Yield what is shown of a session's options, and of its store at the first request."""
    try:
        read = read_options(given(options))
        yield from (repr(read), str(read.shown()), repr(given(options)))
        store = open_store(read)
        yield repr(store)
        store.read(ID)
    except (BeakerBridgeError, OSError, TypeError) as error:
        yield from shown_by(error)


def regions_show(options):
    """Yield what is shown of a region's options, and of its store at the first call."""
    settings = {"cache.regions": "one, two", **{f"cache.{name}": value for name, value in options.items()}}
    try:
        # The second time differently: that is logged, with what differs.
        for expire in (5, 6):
            for region in define_regions({**settings, "cache.expire": expire, "cache.store_error": "raise"}, "app"):
                yield from (repr(region.shown()), repr(region), repr(region.options))
        cache_region("one")(lambda: 1)()
    except Exception as error:  # noqa: BLE001 -- of whatever class: its text is what counts
        yield from shown_by(error)


def logged(caplog):
    """Return the log's lines, each with the traceback that it has."""
    return [caplog.text, *(str(record.args) for record in caplog.records)]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("form", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("show", [sessions_show, regions_show])
def test_no_part_of_a_password_is_shown(caplog, show, form, encoded):
    """Of no password, with whatever character in it, a part is in an error, its chain, the log or a representation."""
    kind, address = form
    if kind == "type" and show is regions_show:
        # Of a backend that does not exist Beaker itself says so, when a function is called.
        return
    told = {}
    for password in PASSWORDS:
        if "//{}" in address and ":" in password:
            # There it ends a user's name, which is shown.
            continue
        caplog.clear()
        text = address.replace("{}", quote(password, safe="") if encoded else password)
        found = found_in([*show(options_of(kind, text)), *logged(caplog)])
        if found:
            told[password] = found

    assert told == {}


@pytest.mark.parametrize("kind", ["ext:redis", "ext:memcached", "ext:database", "ext:foreign"])
@pytest.mark.parametrize("show", [sessions_show, regions_show])
@pytest.mark.parametrize("name", NAMES)
def test_no_password_under_its_own_name_is_shown(caplog, show, kind, name):
    """Nor one that is an option of its own, whatever it is called, or stands within another option."""
    password = "Zq9xWv7kJh3m"
    texts = []
    for options in (
        {name: password},
        {f"me_{name}": password},
        {"connect_args": {name: [password]}},
        {"sa.connect_args": json.dumps({name: password})},
        {"sa_opts": {"sa.connect_args": {name: password}}},
    ):
        texts += show({**options_of(kind, HOST if kind == "ext:memcached" else f"redis://{HOST}"), **options})

    assert found_in([*texts, *logged(caplog)]) == []


class RedisWithoutLogin(Redis):
    """A Redis that knows no command by which somebody logs in."""

    def __init__(self, folder):
        super().__init__(folder, "--rename-command", "AUTH", "", "--rename-command", "HELLO", "")

    def client(self, **options):
        return super().client(protocol=2, **options)


def test_a_server_that_quotes_the_password(tmp_path):
    """A Redis that knows no AUTH quotes what it was sent; the error of the session does not."""
    password = "Zq9x/Wv7k@Jh3m"
    with RedisWithoutLogin(tmp_path) as server:
        url = f"redis://:{quote(password, safe='')}@127.0.0.1:{server.port}/0"
        with pytest.raises(BeakerBridgeError, match=r"unknown command") as raised:
            open_store(read_options(given({"type": "ext:redis", "url": url}))).read(ID)

    assert found_in(shown_by(raised.value)) == []


def test_a_filter_that_wins_shows_no_password(caplog):
    """Where the settings' options are ignored, their names are logged, and the introspectables show no value."""
    settings = {
        "session.type": "ext:redis",
        "session.url": f"redis://:Zq9xWv7kJh3m@{HOST}/0",
        "session.password": "Wv7k",
    }
    config = Configurator(settings=settings)
    config.include("beaker_bridge")
    config.commit()
    shown = [str(dict(entry["introspectable"])) for _, group in config.introspector.categorized() for entry in group]
    read = read_options(prefixed(settings))

    assert found_in([*shown, *logged(caplog), repr(read)]) == []


# -- What is shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://me:private@host:1/0", "redis://me:…@host:1/0"),
        ("redis://private@host", "redis://…@host"),
        ("redis://me:pri/vate@host", HIDDEN),
        ("redis://me:12/vate@host", HIDDEN),
        ("redis://[::1]:6379/0?db=1&client_name=me&x", "redis://[::1]:6379/0?…"),
        ("redis+sentinel://me:private@a:1,b:2/service/0", "redis+sentinel://me:…@a:1,b:2/service/0"),
        ("postgresql://me:pri/v#a?te@host/db", "postgresql://me:…@host/db"),
        ("postgresql://me:pri@vate@host/db", HIDDEN),
        ("postgresql://me:%70rivate@host/db", "postgresql://me:…@host/db"),
        ("sqlite:////srv/sessions.db", "sqlite:////srv/sessions.db"),
        ("mongodb://me:private@a:1,b:2/db", "mongodb://me:…@a:1,b:2/db"),
        ("redis://a:p@h:1;redis://b:p@h:2", "redis://a:…@h:1;redis://b:…@h:2"),
        ("host:11211;unix:/run/m.sock;inet6:[::1]", "host:11211;unix:/run/m.sock;inet6:[::1]"),
        ("me:private@host", HIDDEN),
        ("myapp.db:engine", "myapp.db:engine"),
    ],
)
def test_an_address_is_shown_as_its_own_library_reads_it(address, shown):
    """What a site needs to see of an address is shown, without the password; where that cannot be told, nothing."""
    assert masked_address(address) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("colour", "blue", HIDDEN),
        ("weight", 3, 3),
        ("api_key", 3, HIDDEN),
        ("enabled", True, True),
        ("client", object(), "<object>"),
        ("sa.pool_size", "5", "5"),
        ("sa.creator", "app.connect", HIDDEN),
    ],
)
def test_of_another_backends_options_no_text_is_shown(name, value, shown):
    """Nobody knows what another backend's options mean: their texts stay untold."""
    assert masked(name, value) == shown


def test_what_was_given_shows_no_value():
    """What stands between the settings and their reading shows the option's name alone."""
    assert repr(Given("cache.url", "redis://:private@host")) == "Given('cache.url', …)"


def test_a_cycle_of_errors_ends():
    """A client's errors may name each other as their cause."""
    first, second = OSError(5, "first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    with suppress(OSError):
        raise first
    clean(first)

    assert str(first) == "[Errno 5] first"
    assert SessionOptions().shown() == {}
