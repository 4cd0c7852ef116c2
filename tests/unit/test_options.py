"""The one table of options: conversion, rules, faults, and how secrets stay untold."""

import dataclasses
import difflib
import inspect
import logging
import re
import sys
import traceback
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from types import ModuleType

import beaker.crypto
import pyramid_beaker
import pytest
import redis
import sqlalchemy
from beaker.cache import clsmap
from beaker.container import MemoryNamespaceManager
from beaker.ext.database import DatabaseNamespaceManager
from beaker.ext.memcached import MemcachedNamespaceManager
from beaker.ext.mongodb import MongoNamespaceManager
from beaker.ext.redisnm import RedisNamespaceManager
from beaker.ext.sqla import SqlaNamespaceManager
from beaker.session import CookieSession, Session
from beaker.util import coerce_session_params
from pyramid.request import Request
from pyramid.response import Response

from beaker_bridge.cli.effective import option_text
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.reader import Given, differing, given, prefixed, read_options
from beaker_bridge.options.table import SESSION_TABLE, SessionOptions
from beaker_bridge.options.types import crypto_module

#: A secret of the tests: no text, no representation and no exception may hold it.
GEHEIM = "geheim, and long enough to be a secret"


def options(**values):
    """Return the options that are given in Python."""
    return read_options(given(values))


def faults(values):
    """Return what is told of wrong options, by option, where they are given under these names."""
    with pytest.raises(SettingsError) as caught:
        read_options(values if isinstance(next(iter(values.values())), Given) else given(values))
    return {error.name: str(error) for error in caught.value.errors}


def fault(**values):
    """Return what is told of one wrong option."""
    ((_, told),) = faults(values).items()
    return told


# -- The table ---------------------------------------------------------------------------------------

#: What Beaker's classes take that is no option: the request, its session's id, and the class that is ours.
NO_OPTIONS = {"self", "request", "id", "namespace", "wrap_app", "config", "environ_key", "digest_filenames"}
BEAKERS = [
    Session.__init__,
    CookieSession.__init__,
    MemoryNamespaceManager.__init__,
    clsmap["file"].__init__,
    clsmap["dbm"].__init__,
    DatabaseNamespaceManager.__init__,
    SqlaNamespaceManager.__init__,
    MemcachedNamespaceManager.__init__,
    MongoNamespaceManager.__init__,
    RedisNamespaceManager.__init__,
    # Beaker has it since 1.13.
    *(clsmap[name].__init__ for name in ("ext:rediscluster",) if name in clsmap._clsmap),
]


@pytest.mark.parametrize("function", BEAKERS, ids=lambda function: function.__qualname__)
def test_every_option_of_beakers_is_known(function):
    """Each parameter of Beaker's sessions and backends is an option here."""
    parameters = inspect.signature(function).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}

    assert names - NO_OPTIONS <= set(SESSION_TABLE)


def test_the_options_that_beaker_takes_elsewhere_are_known():
    """What Beaker's middleware and session proxy take beside a session's own parameters is known."""
    assert {"auto", "webtest_varname", "log_file", "username", "password"} <= set(SESSION_TABLE)


@pytest.mark.parametrize(
    ("name", "default"),
    {
        "absolute_timeout": None,
        "auto": False,
        "constant_csrf_token": None,
        "cookie_domain": None,
        "cookie_expires": True,
        "cookie_on_exception": True,
        "cookie_path": "/",
        "crypto_type": "default",
        "data_serializer": "json",
        "detect_changes": True,
        "encrypt_key": None,
        "encrypt_nonce_bits": 128,
        "httponly": True,
        "invalidate_corrupt": True,
        "key": "beaker.session.id",
        "partitioned": False,
        "legacy_serializer": None,
        "previous_encrypt_keys": (),
        "previous_secrets": (),
        "previous_validate_keys": (),
        "reissue_time": None,
        "samesite": "Lax",
        "save_accessed_time": True,
        "secret": None,
        "secure": "auto",
        "store_error": "raise",
        "store_timeout": 2.0,
        "table_name": "beaker_cache",
        "timeout": None,
        "type": "memory",
        "url": None,
        "use_cookies": True,
        "validate_key": None,
    }.items(),
)
def test_defaults(name, default):
    """An option that is not given, or given as nothing, has the default that the documentation names."""
    assert getattr(options(), name) == default
    if name != "samesite":
        assert getattr(options(**{name: None}), name) == default


def test_each_option_of_the_table_can_be_not_given():
    """Nothing at all is a valid configuration, and says that nothing was given."""
    nothing = options(**dict.fromkeys(set(SESSION_TABLE) - {"samesite"}))

    assert nothing == options() == SessionOptions()
    assert nothing.given == frozenset()


def test_the_type_follows_the_directory():
    """Without a type sessions are in files where there is a directory for them, else in memory, as Beaker's."""
    assert options(data_dir="/data").type == SessionOptions(data_dir="/data").type == "file"
    assert options(type=None, data_dir="/data").type == "file"
    assert options(file_dir="/data").type == "memory"
    assert options(type="memory", data_dir="/data").type == "memory"


@pytest.mark.parametrize("name", ["database", "google", "memcached", "sqla"])
def test_beakers_other_names_of_a_backend(name):
    """A backend that Beaker registers under two names is the same one under both."""
    assert issubclass(clsmap[name], clsmap[f"ext:{name}"])
    assert options(type=name, url="x://y", bind=SERIALIZER, table=SERIALIZER).type == f"ext:{name}"


def test_rows_for_the_documentation():
    """Each option has what the documentation shows: its default as an ``.ini`` has it, its rule and a sentence."""
    rows = SESSION_TABLE.values()

    assert {option_text(row.default) for row in rows} == {
        *("", "true", "false", "2", "128", "/", "json", "sha1", "Lax", "auto", "raise", "default"),
        *("beaker_cache", "beaker_cache:", "beaker.session.id"),
    }
    assert all(row.value_type.rule and row.help for row in rows)


@pytest.mark.parametrize(
    "name", sorted(set(SESSION_TABLE) - {"clock", "sa_opts", "namespace_class", "bind", "table", "dbmmodule"})
)
def test_a_default_can_be_written_into_an_ini(name):
    """The default that the documentation shows is a value that the option takes, where it is one."""
    default = option_text(SESSION_TABLE[name].default)
    if default:
        assert getattr(options(**{name: default}), name) == getattr(options(), name)


def test_a_row_that_there_is_not():
    """The table has no row for a name that it does not know; SQLAlchemy's own options have that of ``sa_opts``."""
    assert SESSION_TABLE["sa.url"] is SESSION_TABLE["sa_opts"]
    with pytest.raises(KeyError, match="colour"):
        SESSION_TABLE["colour"]


def test_options_are_immutable():
    """Nobody changes what all of an application's sessions share, nor the dicts that are options."""
    arguments, engine = {"a": 1}, {"sa.url": "sqlite://"}
    read = options(type="ext:google", sa_opts=engine, **arguments)
    engine["sa.echo"] = True
    direct = SessionOptions(backend_arguments=arguments)
    arguments["b"] = 2

    assert read.sa_opts == {"sa.url": "sqlite://"}
    assert read.backend_arguments == direct.backend_arguments == {"a": 1}
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.timeout = 5
    for mapping in (read.sa_opts, read.backend_arguments, direct.backend_arguments, options().backend_arguments):
        with pytest.raises(TypeError):
            mapping["c"] = 3


# -- Conversion --------------------------------------------------------------------------------------


def policy(request, exception):
    """Keep the session."""
    return True


class Serializer:
    """An application's own serializer."""

    def dumps(self, record): ...

    def loads(self, plain): ...


SERIALIZER = Serializer()
EXPIRES = datetime(2030, 1, 1, tzinfo=timezone.utc)
NAIVE = EXPIRES.replace(tzinfo=None)
THIS = __name__

CONVERTED = [
    *(("httponly", value, True) for value in ("true", "True", " YES ", "on", "1", "t", "y", True, 1)),
    *(("httponly", value, False) for value in ("false", "False", "no", "off", "0", "f", "n", False, 0)),
    *(("timeout", value, 3600) for value in ("3600", " 3600 ", 3600, 3600.0, Decimal(3600), timedelta(hours=1))),
    ("timeout", "2147483647", 0x7FFFFFFF),
    ("absolute_timeout", "60", 60),
    ("reissue_time", "60", 60),
    ("store_timeout", "0.5", 0.5),
    ("store_timeout", 3, 3.0),
    ("store_timeout", timedelta(milliseconds=100), 0.1),
    ("cookie_expires", "true", True),
    ("cookie_expires", " False ", False),
    ("cookie_expires", "3600", 3600),
    ("cookie_expires", "1", True),
    ("cookie_expires", " 0 ", False),
    ("cookie_expires", 1, 1),
    ("cookie_expires", True, True),
    ("cookie_expires", timedelta(days=1), 86400),
    ("cookie_expires", EXPIRES, EXPIRES),
    ("cookie_expires", NAIVE, NAIVE),
    ("secure", "auto", "auto"),
    ("secure", "AUTO", "auto"),
    ("secure", "true", True),
    ("secure", False, False),
    ("samesite", "lax", "Lax"),
    ("samesite", "STRICT", "Strict"),
    ("store_error", "Empty", "empty"),
    ("data_serializer", "pickle", "pickle"),
    ("data_serializer", "JSON", "json"),
    ("data_serializer", SERIALIZER, SERIALIZER),
    ("legacy_serializer", "pickle", "pickle"),
    ("encrypt_nonce_bits", "48", 48),
    ("encrypt_nonce_bits", 256, 256),
    ("key", "__my$cookie.id", "__my$cookie.id"),
    ("cookie_domain", ".example.org", ".example.org"),
    *(
        ("cookie_domain", value, value)
        for value in (
            "example.org",
            "Example.ORG",
            "my_site.local",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "xn--p1ai",
            "a-b.c",
        )
    ),
    ("cookie_path", "/a", "/a"),
    ("secret", "  as it is  ", "  as it is  "),
    ("cookie_on_exception", "true", True),
    ("cookie_on_exception", "false", False),
    ("cookie_on_exception", " HTTP ", "http"),
    ("cookie_on_exception", f"{THIS}.policy", policy),
    ("cookie_on_exception", f" {THIS}:policy ", policy),
    ("cookie_on_exception", policy, policy),
    ("constant_csrf_token", "token", "token"),
    ("constant_csrf_token", False, None),
    ("constant_csrf_token", "false", None),
    ("dbmmodule", "dbm.dumb", __import__("dbm.dumb").dumb),
    ("dbmmodule", SERIALIZER, SERIALIZER),
    ("namespace_class", "beaker.container.MemoryNamespaceManager", MemoryNamespaceManager),
    ("namespace_class", "beaker.container:MemoryNamespaceManager", MemoryNamespaceManager),
    ("bind", SERIALIZER, SERIALIZER),
    ("url", "redis://localhost", "redis://localhost"),
    ("url", SERIALIZER, SERIALIZER),
    ("urls", "redis://a,redis://b", "redis://a,redis://b"),
    ("clock", policy, policy),
    ("crypto_type", "cryptography", "cryptography"),
    ("crypto_type", "pycryptodome", "pycryptodome"),
]


@pytest.mark.parametrize(("name", "value", "converted"), CONVERTED)
@pytest.mark.parametrize(
    "read",
    [
        lambda name, value: options(**{name: value}),
        lambda name, value: options(**{f"session.{name}": value}),
        lambda name, value: options(**{f"beaker.session.{name}": value}),
        lambda name, value: read_options(prefixed({f"session.{name}": value})),
        lambda name, value: read_options(prefixed({f"beaker.session.{name}": value, "pyramid.includes": "x", 5: 6})),
    ],
    ids=["unprefixed", "session.", "beaker.session.", "settings session.", "settings beaker.session."],
)
def test_conversion(read, name, value, converted):
    """A value, or the string of it in an ``.ini``, is converted wherever it stands."""
    read_value = getattr(read(name, value), name)

    assert read_value == converted
    assert type(read_value) is type(converted)
    assert read(name, value).given == {name}


@pytest.mark.parametrize(
    ("value", "converted"),
    [
        ("one", ("one",)),
        ("one\n  two, with spaces\n\n three ", ("one", "two, with spaces", "three")),
        ("", ()),
        (["one", "two\nlines"], ("one", "two\nlines")),
        (("one",), ("one",)),
        ([], ()),
    ],
)
@pytest.mark.parametrize(
    ("retired", "current"),
    [
        ("previous_secrets", "secret"),
        ("previous_validate_keys", "validate_key"),
        ("previous_encrypt_keys", "encrypt_key"),
    ],
)
def test_lists_have_a_line_for_each(retired, current, value, converted):
    """A list in an ``.ini`` has one secret on each line: a word of a secret never becomes a secret of its own."""
    keys = {"secret": "s", "validate_key": "v", "encrypt_key": "e"}

    assert getattr(options(**keys, **{retired: value}), retired) == converted


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("\n position\n  board\n\n", ("position", "board")),
        ("position", ("position",)),
        ("", ()),
        (["position", "a b, c"], ("position", "a b, c")),
        (("position",), ("position",)),
        ({"position"}, ("position",)),
        (frozenset({"position"}), ("position",)),
    ],
)
def test_whole_keys_have_a_line_for_each(value, keys):
    """A list of keys in an ``.ini`` has one on each line; in Python it may be any collection, of any texts."""
    assert options(whole_keys=value).whole_keys == keys


@pytest.mark.parametrize("value", ["position board", "position, board", "a\nb,c", "a,", 1, ["a", 1], [""], {"a": 1}])
def test_two_whole_keys_on_one_line_are_refused(value):
    """Two keys on one line would be one that no session has: that is an error at the start, not a silent merge."""
    told = faults({"whole_keys": value})

    assert told["whole_keys"].startswith(
        "whole_keys must be a list of keys; in an .ini one on each line, without spaces or commas"
    )


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        *((value, None) for value in (None, False, "", " ", "false", " False ", "no", "0")),
        *((value, "None") for value in ("None", "none", " NONE ")),
        *((value, "Strict") for value in ("Strict", "strict")),
    ],
)
def test_samesite(value, attribute):
    """Python's None, false and an empty string are no attribute, as in Beaker; the text None is one of its values."""
    for read in (
        options(samesite=value, secure=True),
        read_options(prefixed({"session.samesite": value, "session.secure": "true"})),
    ):
        assert read.samesite == attribute
        assert read.given == {"samesite", "secure"}


def test_engine_options_of_an_ini():
    """Settings under ``sa.`` become SQLAlchemy's options, beside those that are given as a dict."""
    read = read_options(
        prefixed({"session.type": "ext:database", "session.sa.url": "sqlite://", "session.sa.pool_recycle": "60"})
    )
    both = options(type="ext:database", sa_opts={"sa.url": "sqlite://", "sa.echo": "1"}, **{"sa.echo": "0"})

    assert read.sa_opts == {"sa.url": "sqlite://", "sa.pool_recycle": "60"}
    assert read.given == {"type", "sa_opts"}
    assert both.sa_opts == {"sa.url": "sqlite://", "sa.echo": "0"}


@pytest.mark.parametrize("kind", ["ext:mongodb", "ext:google"])
def test_an_unknown_backends_arguments_pass_through(kind):
    """For a backend that we do not know, what we do not know is its own, and is neither checked nor converted."""
    read = options(type=kind, url="mongodb://localhost/x", tls="true", **{"session.tineout": "x"})

    assert read.backend_arguments == {"tls": "true", "tineout": "x"}
    assert options(type="memory").backend_arguments == {}


def test_a_namespace_class_has_its_own_arguments():
    """For a class that is given instead of a type, what we do not know is its own as well."""
    read = options(namespace_class=MemoryNamespaceManager, colour="red")

    assert read.backend_arguments == {"colour": "red"}


# -- Wrong values ------------------------------------------------------------------------------------

SECONDS = "a whole number of seconds, 1 or more (68 years at most)"
TEXT = "a non-empty string"
SAMESITE = "one of Lax, Strict, None, or false for no attribute"
POLICY = "true, false, http, or the dotted name of a function"

WRONG = [
    *(
        ("timeout", value, SECONDS)
        for value in ("1h", "", "0", 0, "-5", "1.5", 1.5, "1_000", "1e3", "\u0663", True, "true", [], {}, float("nan"))
    ),
    *(("timeout", value, SECONDS) for value in (float("inf"), "9" * 400, timedelta(seconds=0.5), timedelta(0))),
    *(
        ("store_timeout", value, "a number of seconds over 0 (68 years at most)")
        for value in (0, "-1", "nan", "inf", "x")
    ),
    ("store_timeout", True, "a number of seconds over 0 (68 years at most)"),
    *(("httponly", value, "true or false") for value in ("perhaps", "", "2", 2, 1.0, [])),
    *(("secure", value, "true, false or auto") for value in ("maybe", "", 3)),
    *(("samesite", value, SAMESITE) for value in ("Loose", True, "true", 5, b"Lax", "null")),
    ("store_error", "ignore", "one of raise, empty"),
    *(
        ("cookie_expires", value, "true, false, a whole number of seconds, a timedelta or a datetime")
        for value in ("tomorrow", "", 0, "2.5", -1, timedelta(0), timedelta(seconds=-1), "2030-01-01", 1.5)
    ),
    *(
        ("data_serializer", value, "json, pickle or an object with dumps and loads")
        for value in ("yaml", "", 5, object)
    ),
    ("legacy_serializer", "yaml", "json, pickle or an object with dumps and loads"),
    *(("encrypt_nonce_bits", value, "a multiple of 8, 48 or more") for value in ("40", "49", "x", 128.5, True)),
    *(
        ("key", value, "a cookie's name (RFC 6265, or with a colon), and not that of an attribute such as Path")
        for value in ("", "a b", "a;b", "a=b", "näme", "a,b", "$a", "Path", "expires", "a\n", 5)
    ),
    *(
        ("cookie_domain", value, "ASCII text without white space or semicolons")
        for value in ("", "a b", "a;b", "a\n", "exämple.org", "a\U0001f36a", 5)
    ),
    *(
        ("cookie_path", value, "a path that begins with /, in ASCII without white space or semicolons")
        for value in ("", "a", "/a b", "/a;b", "/é", 5)
    ),
    *(("cookie_on_exception", value, POLICY) for value in ("perhaps", 5, "no.such.module", f"{THIS}:none", "os:sep")),
    *(
        ("cookie_on_exception", value, POLICY)
        for value in (f"{THIS}.nothing", ".relative", "https", f"{THIS}.SERIALIZER")
    ),
    *(("type", value, TEXT) for value in ("", " ", 5)),
    *(("data_dir", value, TEXT) for value in ("", " ", b"/data")),
    *(
        ("namespace_class", value, "a dotted name that can be imported, or a class")
        for value in ("no.such", "os.sep", 5)
    ),
    ("clock", "time.time", "a callable"),
    *(
        ("crypto_type", value, "default, cryptography, pycryptodome or a name that is registered with Beaker")
        for value in ("rot13", "", 5, [])
    ),
]


@pytest.mark.parametrize(("name", "value", "rule"), WRONG)
def test_a_wrong_value(name, value, rule):
    """A wrong value is told with the option as it was given, the rule and the value."""
    shown = "an empty string" if isinstance(value, str) and not value.strip() else repr(value)
    told = f"{name} must be {rule}, got {shown}"

    assert fault(**{name: value}) == told
    assert fault(**{f"beaker.session.{name}": value}) == f"beaker.session.{told}"
    assert faults(prefixed({f"session.{name}": value})) == {name: f"session.{told}"}


@pytest.mark.parametrize("value", ["no.such", "dbm.dumb.x"])
def test_a_wrong_value_for_a_type(value):
    """A wrong value of an option that the type uses stops the start; where it is not used, nobody misses it."""
    told = f"dbmmodule must be a dotted name that can be imported, or an object, got {value!r}"

    assert fault(dbmmodule=value, type="dbm", data_dir="/d") == told
    assert fault(dbmmodule=value, type="ext:google") == told
    assert options(dbmmodule=value).given == set()


def test_a_wrong_value_is_at_hand():
    """The error carries the option, the value and the converter's own error, not only the text."""
    with pytest.raises(SettingsError) as caught:
        options(cookie_on_exception="no.such.module")

    assert caught.value.name == "cookie_on_exception"
    assert caught.value.value == "no.such.module"
    assert "No module named 'no'" in str(caught.value.__cause__)


def test_a_module_that_fails_when_it_is_imported(tmp_path, monkeypatch):
    """A dotted name whose module fails in whatever way is a wrong value, with the reason as its cause."""
    (tmp_path / "broken_policies.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match="cookie_on_exception must be") as caught:
        options(cookie_on_exception="broken_policies.policy")

    assert "ZeroDivisionError" in str(caught.value.__cause__)


def test_all_faults_are_told_at_once():
    """Wrong values, unknown options and broken rules are told in one error, not one a start."""
    told = faults(
        {"timeout": "1h", "tiemout": 1, "colour": "red", "samesite": "None", "type": "file", "encrypt_key": "é"}
    )

    assert set(told) == {"timeout", "tiemout", "colour", "samesite", "data_dir", "encrypt_key", "validate_key"}


@pytest.mark.parametrize("read", [prefixed, given])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"session.timeout": "60"}, {"beaker.session.timeout": "61"}),
        ({"beaker.session.timeout": "60"}, {"session.timeout": 61}),
        ({"session.timeout": "wrong, and never seen"}, {"beaker.session.timeout": "61"}),
        ({"session.secret": "s" * 40}, {"beaker.session.secret": "t" * 40}),
        ({"session.type": "memory"}, {"beaker.session.type": "cookie"}),
        ({"session.sa.x": "1"}, {"beaker.session.sa.x": "2"}),
        ({"session.timeout": "60"}, {"beaker.session.timeout": None}),
    ],
)
def test_an_option_under_two_prefixes(read, first, second, caplog):
    """Of an option under two prefixes the later one counts, as for Beaker; a warning names both where they differ."""
    common = {"session.validate_key": "v" * 32, "session.store_timeout": 1}
    both = read_options(read({**common, **first, **second}))
    told = [text for text in caplog.messages if " differ: " in text]
    (earlier,), (later,) = first, second

    assert both == read_options(read({**common, **second}))
    assert told == [f"{earlier} and {later} differ: {later} counts, which comes later; remove one of them"]


def test_an_option_under_two_prefixes_that_means_the_same(caplog):
    """One option under several prefixes is fine where all mean the same."""
    same = {"session.timeout": "60", "beaker.session.timeout": 60, "timeout": timedelta(minutes=1)}

    assert options(**same).timeout == 60
    assert options(**{"session.sa.x": 1, "sa.x": 1}).sa_opts == {"sa.x": 1}
    assert [text for text in caplog.messages if " differ: " in text] == []


def test_an_unknown_option_under_two_prefixes():
    """An option that nobody knows is told once, however often it was given."""
    told = faults(prefixed({"session.colour": 1, "beaker.session.colour": 2}))

    assert told == {"colour": "beaker.session.colour is no option that beaker_bridge knows"}


def test_what_beakers_own_middleware_hands_over():
    """Beaker's own middleware hands over an option twice, converted and not: the same options are read."""
    section = {
        "session.type": "cookie",
        "session.validate_key": "key",
        "session.timeout": "3600",
        "session.cookie_expires": "300",
        "session.secure": "true",
        "session.invalidate_corrupt": "false",
    }
    coerced = coerce_session_params({name.removeprefix("session."): value for name, value in section.items()})
    read = options(**coerced, **section)

    assert (read.timeout, read.cookie_expires, read.secure, read.invalidate_corrupt) == (3600, 300, True, False)


# -- What started on pyramid_beaker ------------------------------------------------------------------

#: What each of Beaker's options may look like in an ``.ini`` file.
LOOKS = ("", " ", "true", "false", "0", "1", "none", "a/b")
NO_SWITCH = {"none", "a/b"}
#: The options that pyramid_beaker and Beaker do not have.
OURS = {
    *("absolute_timeout", "clock", "detect_changes", "key_prefix", "legacy_serializer", "partitioned"),
    *("previous_encrypt_keys", "previous_secrets", "previous_sign_algorithms", "previous_validate_keys"),
    *("purge_every", "reissue_time", "sign_algorithm", "store_error", "store_timeout", "whole_keys"),
}
#: The options that are Beaker's or pyramid_beaker's.
THEIRS = sorted(set(SESSION_TABLE) - OURS)
#: What lets somebody in, though it starts on pyramid_beaker: a key, or token, that anybody can guess.
GUESSED = {(name, look) for name in ("secret", "encrypt_key", "validate_key") for look in LOOKS if look != "a/b"}
GUESSED |= {("constant_csrf_token", look) for look in ("true", "1", "none")}
#: What starts there and does not do what it says: a word that is no switch, what no browser takes, what never lasts.
WRONG_THERE = {
    **dict.fromkeys(("cookie_on_exception", "invalidate_corrupt", "use_cookies"), NO_SWITCH),
    "samesite": {"true", "1", *NO_SWITCH},
    "cookie_domain": {"true", "false", "0", "1", *NO_SWITCH},
    "cookie_path": {"true", "false", "0", "1", *NO_SWITCH},
    "key": {"a/b"},
    "timeout": {"0"},
    "encrypt_nonce_bits": {"0"},
}


def answers(factory_of, settings):
    """Say whether a factory is made of settings, and stores a session."""
    try:
        request = Request.blank("/")
        session = factory_of(settings)(request)
        session["a"] = 1
        session.save()
        response = Response()
        request._process_response_callbacks(response)
    except Exception:  # noqa: BLE001 -- Beaker raises bare exceptions
        return False
    return "Set-Cookie" in response.headers


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("kind", ["memory", "file", "cookie"])
def test_what_started_on_pyramid_beaker_starts(name, kind, tmp_path, monkeypatch):
    """Settings with which pyramid_beaker answers are taken here, whatever an option looks like in the file."""
    # Some of what an option looks like is a directory for Beaker.
    monkeypatch.chdir(tmp_path)
    base = {"session.type": kind, "session.data_dir": str(tmp_path), "session.validate_key": "v"}
    stopped = set()
    for look in LOOKS:
        settings = {**base, f"session.{name}": look}
        if answers(pyramid_beaker.session_factory_from_settings, settings):
            try:
                read_options(prefixed(settings))
            except SettingsError:
                stopped.add((name, look))

    assert stopped <= GUESSED | {(name, look) for look in WRONG_THERE.get(name, ())}


def logged(caplog, settings):
    """Return what is logged of an application's settings, by level."""
    caplog.clear()
    read = read_options(prefixed(settings))
    return read, [(record.levelname, record.getMessage()) for record in caplog.records]


IGNORED = "it is ignored: remove it"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "url",
            "urls",
            "username",
            "password",
            "table_name",
            "schema_name",
            "memcache_module",
            "log_file",
            "file_dir",
        ),
        *("dbm_dir", "dbmmodule", "namespace_class", "constant_csrf_token", "bind", "table", "sa_opts", "sa.echo"),
    ],
)
@pytest.mark.parametrize("prefix", ["session.", "beaker.session."])
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_option_that_beaker_takes_is_ignored(name, prefix, empty, caplog):
    """An empty text of an option that Beaker accepts empty is one warning at the start, and the default counts."""
    settings = {f"{prefix}type": "memory", f"{prefix}{name}": empty}
    read, told = logged(caplog, settings)

    assert told == [("WARNING", f"{prefix}{name} is an empty string; {IGNORED}")]
    assert read == options(type="memory")
    assert logged(caplog, settings)[1] == []


@pytest.mark.parametrize("name", ["cookie_on_exception", "invalidate_corrupt", "use_cookies"])
def test_an_empty_switch_is_false(name, caplog):
    """An empty switch that Beaker took for false stays false, with a warning."""
    read, told = logged(caplog, {f"session.{name}": ""})

    assert getattr(read, name) is False
    assert read.given == {name}
    assert told == [
        (
            "WARNING",
            f"session.{name} is an empty string; that is false, as it was for Beaker: write false, or remove it",
        )
    ]


@pytest.mark.parametrize(
    ("kind", "value", "is_new"),
    [
        *(("memory", word, True) for word in ("false", "0", " Off ")),
        *(("cookie", word, True) for word in ("false", False, 0)),
        *(("memory", word, False) for word in (False, 0, True, "true")),
        ("cookie", True, False),
    ],
)
def test_no_cookies_where_beaker_sent_them(kind, value, is_new, caplog):
    """``use_cookies = false`` is a warning where it had no effect: in an ``.ini``, and of a cookie session."""
    _, told = logged(caplog, {"session.type": kind, "session.validate_key": "v" * 32, "session.use_cookies": value})

    assert [text.partition(",")[0] for _, text in told] == ["session.use_cookies is false"] * is_new


@pytest.mark.parametrize(
    ("number", "word", "meaning"), [("0", "false", "never expires"), ("1", "true", "ends with the browser")]
)
def test_cookie_expires_as_beaker_reads_it(number, word, meaning, caplog):
    """``cookie_expires = 0`` is false for Beaker, and ``1`` true: they stay so, with a warning that says it."""
    read, told = logged(caplog, {"session.cookie_expires": number})

    assert read.cookie_expires is (word == "true")
    assert told == [
        (
            "WARNING",
            (
                f"session.cookie_expires = {number} is {word}, as it was for Beaker: the cookie {meaning};"
                f" write {word}, or a number of seconds"
            ),
        )
    ]
    assert logged(caplog, {"session.cookie_expires": word})[1] == []


@pytest.mark.parametrize("name", ["timeout", "cookie_expires"])
@pytest.mark.parametrize("value", ["3153600000", " 99999999999 ", 1 << 31, timedelta(days=365 * 100)])
def test_more_than_68_years(name, value, caplog):
    """A time that is longer than stores and browsers count starts, as it did with Beaker, and a warning says so."""
    read, told = logged(caplog, {f"session.{name}": value})

    assert getattr(read, name) == 0x7FFFFFFF
    assert told == [("WARNING", f"session.{name} is more than 68 years, and counts as 2147483647 seconds")]
    assert logged(caplog, {f"session.{name}": "2147483647"})[1] == []


def test_an_empty_option_that_beaker_refuses_stops_the_start():
    """What Beaker refuses when it is empty, and an empty secret in any case, stops the start."""
    names = {"type", "data_dir", "lock_dir", "key", "secret", "validate_key", "encrypt_key", "cookie_domain"}
    names |= {"cookie_path", "timeout", "secure", "httponly", "auto", "save_accessed_time", "cookie_expires"}
    names |= {"webtest_varname", "data_serializer", "encrypt_nonce_bits", "crypto_type"}
    values = {"data_dir": "/d", "validate_key": "v"}
    told = [
        faults(prefixed({f"session.{key}": value for key, value in {**values, name: ""}.items()})) for name in names
    ]

    assert {name for fault in told for name in fault} == names
    assert all(
        text == f"session.{name} must be {SESSION_TABLE[name].value_type.rule}, got an empty string"
        for fault in told
        for name, text in fault.items()
    )


def test_a_directory_may_be_a_path(tmp_path):
    """A path of pathlib's is a directory, as Beaker took it."""
    assert options(data_dir=tmp_path).data_dir == str(tmp_path)
    assert options(data_dir=tmp_path).type == "file"


@pytest.mark.parametrize("name", ["secret", "validate_key", "encrypt_key"])
@pytest.mark.parametrize(
    ("value", "word", "got"),
    [
        (True, "True", "True"),
        (False, "False", "False"),
        *(
            (word, word.strip(), "a value that is not shown")
            for word in ("true", "True", "YES", " on ", "1", "none", "no")
        ),
    ],
)
def test_a_switch_is_no_key(name, value, word, got):
    """A switch where a key belongs, which Beaker made a text of, stops the start and says which key it would be."""
    keys = {"validate_key": "v", "encrypt_key": "e"} | {name: value}
    told = f"beaker.session.{name} must be {TEXT}, got {got}: the key would be the word {word}, which anybody can guess"

    assert faults(prefixed({f"beaker.session.{key}": keys[key] for key in keys})) == {name: told}


def test_a_switch_is_no_retired_key_and_no_token():
    """Nor is a switch a retired key, or a token that shall be the same for everybody."""
    told = faults({"secret": "s", "previous_secrets": "old\nTrue", "constant_csrf_token": "true"})

    assert told["previous_secrets"].endswith(
        "got a value that is not shown: the key would be the word True, which anybody can guess"
    )
    assert told["constant_csrf_token"].endswith("the token would be the word true, which anybody can guess")
    assert fault(constant_csrf_token=True).endswith(
        "got True: the token would be the word True, which anybody can guess"
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("", "an empty string"),
        (" ", "an empty string"),
        (b"bytes", "a value of type bytes that is not shown"),
        (12345, "a value of type int that is not shown"),
        ([GEHEIM], "a value of type list that is not shown"),
    ],
)
def test_what_a_wrong_secret_is(value, got):
    """Of a secret that is wrong the form is told, and never the content."""
    assert fault(secret=value) == f"secret must be {TEXT}, got {got}"


@pytest.mark.parametrize("name", ["secret", "previous_secrets"])
def test_a_secret_of_any_bytes(name):
    """An environment variable may hold bytes that are no text, of which Python makes one that cannot be encoded."""
    told = faults({"secret": "s", name: b"\xff\xfe".decode("utf-8", "surrogateescape") * 16})

    assert told[name].endswith("are not UTF-8, such as those of an environment variable")
    assert "\udcff" not in told[name]


# -- For which types an option counts ----------------------------------------------------------------


REMEDIES = "remove them, or set the type that they are for"


@pytest.mark.parametrize(
    ("settings", "unused", "kind"),
    [
        ({"type": "file", "data_dir": "/d", "username": "u", "password": "p"}, ["username", "password"], None),
        ({"type": "file", "data_dir": "/d", "table_name": "t"}, ["table_name"], None),
        ({"data_dir": "/d", "table_name": "t"}, ["table_name"], "file"),
        ({"type": "file", "data_dir": "/d", "url": "redis://h"}, ["url"], None),
        ({"type": "memory", "url": "redis://h"}, ["url"], None),
        ({"type": "memory", "data_dir": "/d", "lock_dir": "/l"}, ["data_dir", "lock_dir"], None),
        ({"type": "ext:redis", "url": "redis://h", "sa.echo": "1", "urls": "redis://h"}, ["sa.echo", "urls"], None),
        ({"type": "ext:database", "url": "sqlite://", "key_prefix": "k:"}, ["key_prefix"], None),
        ({"type": "ext:database", "url": "sqlite://", "bind": "no.such", "table": "t"}, ["bind", "table"], None),
        ({"type": "dbm", "data_dir": "/d", "file_dir": "/f"}, ["file_dir"], None),
        ({"type": "cookie", "validate_key": "v", "secret": "s"}, ["secret"], None),
        ({"type": "cookie", "validate_key": "v", "legacy_serializer": "pickle"}, ["legacy_serializer"], None),
        ({"username": "u"}, ["username"], "memory"),
    ],
)
def test_an_option_of_another_type_is_one_warning(settings, unused, kind, caplog):
    """What the type does not use is told in one warning that names the options and the type."""
    _, told = logged(caplog, {f"session.{name}": value for name, value in settings.items()})
    labels = ", ".join(f"session.{name} ({SESSION_TABLE.use(name)})" for name in unused)
    remedy = "remove it, or set the type that it is for" if len(unused) == 1 else REMEDIES

    assert told == [("WARNING", f"{labels}: not used where session.type = {kind or settings['type']}; {remedy}")]


@pytest.mark.parametrize(
    ("name", "use"),
    [("secret", "for all but cookie"), ("urls", "for ext:rediscluster"), ("sa.x", "for ext:database, ext:sqla")],
)
def test_for_what_an_option_is(name, use):
    """A warning names the types that use an option, or the one that does not."""
    assert SESSION_TABLE.use(name) == use


@pytest.mark.parametrize(
    "values",
    [
        {"type": "ext:redis", "url": "redis://h", "username": "u", "password": "p", "key_prefix": "k:"},
        {"type": "ext:rediscluster", "urls": "redis://h", "username": "u", "password": "p", "key_prefix": "k:"},
        {"type": "file", "data_dir": "/d", "lock_dir": "/l", "log_file": "x", "secret": "s", "timeout": 60},
        {"type": "ext:memcached", "url": "h", "memcache_module": "auto"},
        {"type": "ext:database", "url": "sqlite://", "sa.echo": "1", "table_name": "t", "schema_name": "s"},
        {"type": "ext:google", "url": "x", "urls": "y", "password": "p", "data_dir": "/d"},
        {"namespace_class": MemoryNamespaceManager, "url": "x", "colour": "red"},
        {"data_dir": "/d"},
    ],
)
def test_what_the_type_uses_is_no_warning(values, caplog):
    """An option that the type uses is none, nor is any option of a backend that we do not know."""
    options(**values)

    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "address", "kind"),
    [
        ("url", "redis://h", "ext:redis"),
        ("url", "rediss://h", "ext:redis"),
        ("url", "unix:///run/redis.sock", "ext:redis"),
        ("url", "redis+sentinel://h:1/s", "ext:redis"),
        ("url", redis.Redis(), "ext:redis"),
        ("urls", "redis://h", "ext:rediscluster"),
        ("url", "h:11211;i:11211", "ext:memcached"),
        ("url", "unix:/run/memcached.sock", "ext:memcached"),
        ("url", "memcached://h", "ext:memcached"),
        ("url", "postgresql://u:p@h/d", "ext:database"),
        ("url", "sqlite:////d", "ext:database"),
        ("url", sqlalchemy.create_engine("sqlite://"), "ext:database"),
        ("sa.url", "mysql://h/d", "ext:database"),
        ("sa_opts", {"sa.url": "mysql://h/d"}, "ext:database"),
        ("bind", SERIALIZER, "ext:sqla"),
        ("url", "mongodb://h", "ext:mongodb"),
        ("file_dir", "/d", "file"),
        ("dbm_dir", "/d", "dbm"),
    ],
)
@pytest.mark.parametrize("prefix", ["session.", "beaker.session."])
def test_an_address_without_a_type_is_an_error_in_the_log(prefix, name, address, kind, caplog):
    """An address without a type, whose data goes to memory, is told as an error that names the type to set."""
    read, told = logged(caplog, {f"{prefix}{name}": address})

    assert read.type == "memory"
    assert told == [
        (
            "ERROR",
            (
                f"{prefix}{name} without {prefix}type: sessions are kept in memory, and lost when the process ends;"
                f" set {prefix}type = {kind}"
            ),
        )
    ]


def test_beakers_own_middleware_and_an_address_without_a_type(caplog):
    """What Beaker's own middleware hands over as not given has no name in the file: the address has."""
    options(type=None, data_dir=None, log_file=None, url="redis://h", **{"session.url": "redis://h"})

    assert [record.getMessage() for record in caplog.records] == [
        (
            "session.url without session.type: sessions are kept in memory, and lost when the process ends;"
            " set session.type = ext:redis"
        )
    ]


def test_an_address_beside_a_directory(caplog):
    """With a ``data_dir`` the data is in files: that is a warning, which names the type, too."""
    read, told = logged(caplog, {"session.data_dir": "/d", "session.url": "redis://h"})

    assert read.type == "file"
    assert told == [
        (
            "WARNING",
            "session.url without session.type: sessions are kept in session.data_dir; set session.type = ext:redis",
        )
    ]


def test_no_warning_where_the_start_is_stopped(caplog):
    """A start that is stopped tells of its faults alone."""
    assert set(faults({"session.url": "redis://h", "session.timeout": "1h"})) == {"timeout"}
    assert caplog.records == []


def test_the_same_configuration_is_warned_about_once(caplog):
    """What is read again, by an application's own factory and by its include, is silent; another application is not."""
    settings = {"session.type": "memory", "session.url": "", "session.cookie_on_exception": "true"}
    told = [logged(caplog, values)[1] for values in (settings, settings, {**settings, "session.timeout": "60"})]
    read_options({"cookie_on_exception": Given("session.cookie_on_exception", "")}, quiet=True)

    assert [len(lines) for lines in told] == [1, 0, 1]
    assert len(caplog.records) == 1


# -- Unknown options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [given, prefixed], ids=["filter or Python", "settings"])
@pytest.mark.parametrize("name", ["colour", "", "cookie_class", "id"])
def test_an_unknown_option_stops_the_start(read, name):
    """An option that nobody knows stops the start in a filter's section, in Python and under ``beaker.session.``."""
    told = faults(read({f"beaker.session.{name}": GEHEIM}))[name]

    assert told == f"beaker.session.{name} is no option that beaker_bridge knows"


@pytest.mark.parametrize(
    ("read", "label"),
    [
        (given, "session_class"),
        (given, "session.session_class"),
        (prefixed, "session.session_class"),
        (prefixed, "beaker.session.session_class"),
    ],
)
@pytest.mark.parametrize("others", [{}, {"session.namespace_class": dict}], ids=["known backend", "unknown backend"])
def test_session_class_names_the_way_that_there_is(read, label, others):
    """Beaker's ``session_class`` is refused everywhere, with the way to subclass; None is Beaker's default."""
    told = faults(read({label: dict, **others}))["session_class"]

    assert told.startswith(
        f"{label} is no option that beaker_bridge knows: subclass what session_factory_from_settings()"
    )
    assert "session_class" not in read_options(read({label: None, **others})).backend_arguments


def test_an_unknown_option_without_a_prefix():
    """Without a prefix an unknown option stops the start, too."""
    assert fault(colour="red") == "colour is no option that beaker_bridge knows"


def test_an_unknown_option_under_session_is_warned_about_once(caplog):
    """Under ``session.``, which others may use, too, an unknown option is warned about, and once."""
    for _ in range(3):
        read = read_options(prefixed({"session.colour": GEHEIM, "session.shape": 1, "session.timeout": 5}))
    told = [record.getMessage() for record in caplog.records]

    assert told == [
        f"session.{name} is no option that beaker_bridge knows; it is ignored" for name in ("colour", "shape")
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert read.given == {"timeout"}


def test_an_unknown_option_under_both_prefixes_stops_the_start():
    """The stricter of two prefixes counts."""
    for names in (["session.x", "beaker.session.x"], ["beaker.session.x", "session.x"]):
        assert set(faults(prefixed(dict.fromkeys(names, 1)))) == {"x"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tiemout", "timeout"),
        ("Timeout", "timeout"),
        ("SECRET", "secret"),
        ("secrt", "secret"),
        ("lock-dir", "lock_dir"),
        ("cookie_expire", "cookie_expires"),
        ("http_only", "httponly"),
        ("same_site", "samesite"),
        ("encryption_key", "encrypt_key"),
        ("previous_secret", "previous_secrets"),
        ("ur", "url"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "session.", "beaker.session."])
def test_a_near_miss_stops_the_start(prefix, name, meant):
    """An unknown option that looks like a known one stops the start wherever it stands, and names that one."""
    read = prefixed({f"{prefix}{name}": GEHEIM}) if prefix else given({name: GEHEIM})

    assert faults(read)[name] == (
        f"{prefix}{name} is no option that beaker_bridge knows; did you mean {prefix}{meant}?"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    {
        "cookie_httponly": "httponly",
        "cookie_secure": "secure",
        "cookie_samesite": "samesite",
        "cookie_name": "key",
        "cookie_max_age": "cookie_expires",
        "cookie_age": "cookie_expires",
        "session_cookie_age": "cookie_expires",
        "session_cookie_httponly": "httponly",
        "max_age": "cookie_expires",
        "session_timeout": "timeout",
        "SESSION_TIMEOUT": "timeout",
        "expires": "cookie_expires",
        "serializer": "data_serializer",
        "hashalg": "sign_algorithm",
        "set_on_exception": "cookie_on_exception",
        "redis.url": "url",
        "prefix": "key_prefix",
    }.items(),
)
def test_another_frameworks_name_has_a_hint(name, meant, caplog):
    """A name that another framework has for one of our options is told with ours; under ``session.`` Beaker took it."""
    _, told = logged(caplog, {f"session.{name}": "x"})
    text, ignored = "is no option that beaker_bridge knows; did you mean {}?", "; it is ignored; did"
    warning = text.replace("; did", ignored).format(f"session.{meant}")

    assert told == [("WARNING", f"session.{name} {warning}")]
    assert faults(prefixed({f"beaker.session.{name}": "x"}))[name].endswith(text.format(f"beaker.session.{meant}"))
    assert fault(**{name: "x"}) == f"{name} {text.format(meant)}"


# -- Secrets -----------------------------------------------------------------------------------------

SECRETS = {
    "secret",
    "previous_secrets",
    "validate_key",
    "previous_validate_keys",
    "encrypt_key",
    "previous_encrypt_keys",
    "password",
    "url",
    "urls",
    "sa_opts",
    "constant_csrf_token",
}


def everything(error):
    """Return all that an exception shows: its text and representation, its data, and what it was caused by."""
    shown = "".join(traceback.format_exception(type(error), error, None, chain=True))
    data = repr(vars(error)) + repr(error.args)
    others = [other for other in (error.__cause__, error.__context__) if other is not None]
    return shown + data + str(error) + repr(error) + "".join(map(everything, others))


def test_what_is_a_secret():
    """The table marks each option that may hold a secret."""
    assert {name for name in SESSION_TABLE if SESSION_TABLE[name].secret} == SECRETS


class Quoting(str):
    """A value that is quoted by whatever is said of it."""

    __slots__ = ()

    def strip(self):
        raise ValueError(f"{self} cannot be stripped")


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize(
    "value",
    [[GEHEIM, 5], {GEHEIM: 1}, GEHEIM.encode(), (GEHEIM, ""), Quoting(GEHEIM), "sa://" + GEHEIM],
    ids=["list", "dict", "bytes", "tuple", "quoting", "text"],
)
def test_a_secret_is_never_printed(name, value):
    """No text, representation or cause of an error holds a secret that is wrong, nor does any of the options."""
    values = {name: value, "timeout": "1h", "type": "ext:redis"}
    with pytest.raises(SettingsError) as caught:
        options(**values)

    for error in (caught.value, *caught.value.errors):
        assert "geheim" not in everything(error)
    assert "geheim" not in repr(given(values))


@pytest.mark.parametrize(
    "values",
    [
        {"encrypt_key": "é" + GEHEIM, "validate_key": "é" + GEHEIM, "previous_encrypt_keys": ["é" + GEHEIM]},
        {"previous_secrets": [GEHEIM], "previous_validate_keys": [GEHEIM], "previous_encrypt_keys": [GEHEIM]},
        {"secret": GEHEIM, "session.secret": GEHEIM + "2", "timeout": 0},
        {"secert": GEHEIM},
        {"colour": GEHEIM},
        {"type": "cookie", "encrypt_key": GEHEIM},
        {"type": "ext:database", "sa.echo": GEHEIM},
    ],
)
def test_a_broken_rule_shows_no_secret(values):
    """Nor does the error of a rule between options hold one."""
    with pytest.raises(SettingsError) as caught:
        options(**values)

    for error in (caught.value, *caught.value.errors):
        assert "geheim" not in everything(error)


def test_the_options_show_no_secret():
    """The table's representation, and what introspection shows of it, hold no secret."""
    names = SECRETS - {"sa_opts"}
    read = options(
        type="ext:mongodb",
        timeout=60,
        sa_opts={"sa.url": GEHEIM},
        token=GEHEIM,
        **{name: [GEHEIM] if name.startswith("previous") else GEHEIM for name in names},
    )

    assert "geheim" not in repr(read)
    assert "timeout=60" in repr(read)
    assert read.shown() == {"timeout": 60, "type": "ext:mongodb", **dict.fromkeys(SECRETS, "…")}
    assert list(read.shown()) == sorted(read.given)


# -- Rules between options ---------------------------------------------------------------------------

KNOWN = "cookie, dbm, ext:database, ext:memcached, ext:mongodb, ext:redis, ext:rediscluster, ext:sqla, file, memory"


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("redis", " (did you mean ext:redis?)"),
        ("memcache", " (did you mean ext:memcached?)"),
        ("data-base", " (did you mean ext:database?)"),
        ("rediscluster", " (did you mean ext:rediscluster?)"),
        ("mongo", " (did you mean ext:mongodb?)"),
        ("ext:memory", " (did you mean memory?)"),
        ("Memory", " (did you mean memory?)"),
        ("files", " (did you mean file?)"),
        ("cookies", " (did you mean cookie?)"),
        ("xyz", ""),
    ],
)
def test_a_type_that_does_not_exist(kind, hint):
    """A type that no backend has stops the start, and names the nearest."""
    told = fault(**{"beaker.session.type": kind})

    assert told == f"beaker.session.type must be one of {KNOWN} or another backend of Beaker's{hint}, got {kind!r}"


def test_of_a_type_that_does_not_exist_the_other_faults_are_told_too():
    """Who misspells the type is told of his other mistakes at once."""
    assert set(faults({"type": "redis", "tiemout": 5})) == {"type", "tiemout"}


def test_a_backend_of_somebody_elses_exists(monkeypatch):
    """A backend that is registered with Beaker is a type, whatever its name."""
    monkeypatch.setitem(clsmap._clsmap, "ext:theirs", MemoryNamespaceManager)

    assert options(type="ext:theirs", colour="red").backend_arguments == {"colour": "red"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"type": "file"}, {"data_dir": "{} = file, or session.file_dir"}),
        ({"type": "dbm"}, {"data_dir": "{} = dbm, or session.dbm_dir"}),
        ({"type": "file", "file_dir": "/d"}, {"data_dir": "{} = file, or session.lock_dir"}),
        ({"type": "ext:redis"}, {"url": "{} = ext:redis"}),
        ({"type": "ext:mongodb"}, {"url": "{} = ext:mongodb"}),
        ({"type": "ext:memcached"}, {"url": "{} = ext:memcached"}),
        ({"type": "ext:rediscluster"}, {"urls": "{} = ext:rediscluster"}),
        ({"type": "ext:database"}, {"url": "{} = ext:database, or session.sa.url"}),
        ({"type": "ext:database", "sa.echo": "1"}, {"url": "{} = ext:database, or session.sa.url"}),
        ({"type": "ext:sqla"}, {"bind": "{} = ext:sqla, or session.url", "table": "{} = ext:sqla"}),
    ],
)
@pytest.mark.parametrize(("empty", "got"), [(None, "nothing"), ("", "an empty string"), (" ", "an empty string")])
def test_a_missing_address_or_directory(values, told, empty, got):
    """A type without the address or directory that it needs stops the start; all options have the file's prefix."""
    # Beaker takes no empty data_dir: that is wrong by itself.
    empties = dict.fromkeys(set(told) - {"data_dir"}, empty)
    read = prefixed({f"session.{name}": value for name, value in {**values, **empties}.items()})

    assert faults(read) == {
        name: f"session.{name} must be given where {needed.format('session.type')},"
        f" got {got if name in empties else 'nothing'}"
        for name, needed in told.items()
    }


@pytest.mark.parametrize(
    "values",
    [
        {"type": "file", "data_dir": "/d"},
        {"type": "file", "file_dir": "/d", "lock_dir": "/l"},
        {"type": "dbm", "dbm_dir": "/d", "data_dir": "/l"},
        {"type": "ext:redis", "url": SERIALIZER},
        {"type": "ext:rediscluster", "urls": "redis://a"},
        {"type": "ext:database", "url": "sqlite://"},
        {"type": "ext:database", "sa.url": "sqlite://"},
        {"type": "ext:database", "sa_opts": {"url": "sqlite://"}},
        {"type": "ext:sqla", "bind": SERIALIZER, "table": SERIALIZER},
        {"type": "ext:sqla", "url": "myapp.engine", "table": SERIALIZER},
        {"type": "cookie", "validate_key": "v"},
        {"timeout": 60, "reissue_time": 59, "cookie_expires": 60},
        {"timeout": 60, "cookie_expires": True, "save_accessed_time": True},
        {"samesite": "None", "secure": "true"},
        {"partitioned": "true", "secure": "true"},
        {"partitioned": "false"},
        {"key": "__Host-sid", "secure": True},
        {"key": "__Secure-sid", "secure": True, "cookie_domain": "e.org", "cookie_path": "/a"},
        {"key": "__Http-sid", "secure": True, "cookie_domain": "e.org", "cookie_path": "/a"},
        {"key": "__Host-Http-sid", "secure": True},
        {"key": "__Host-sid", "secure": True, "httponly": False},
        {"previous_secrets": ["a"], "secret": "b"},
        {"encrypt_key": "e", "validate_key": "v", "crypto_type": "cryptography"},
    ],
)
def test_what_is_allowed(values):
    """Options that break no rule start."""
    assert options(**values).given >= set(values) - {"sa.url"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"save_accessed_time": False, "timeout": 60},
            "save_accessed_time must be true where timeout is set, got False",
        ),
        ({"timeout": 60, "reissue_time": 60}, "reissue_time must be less than timeout (60 seconds), got 60"),
        ({"timeout": 60, "reissue_time": "61"}, "reissue_time must be less than timeout (60 seconds), got 61"),
        (
            {"cookie_expires": 60, "reissue_time": 60},
            "reissue_time must be less than cookie_expires (60 seconds), got 60",
        ),
        ({"samesite": "None"}, "samesite must be Lax or Strict unless secure = true, got 'None'"),
        *(
            (
                {"cookie_domain": value},
                f"cookie_domain must be a domain such as .example.org, without scheme, port or path, got {value!r}",
            )
            for value in (
                "localhost:6543",
                "https://shop.example",
                "//shop.example",
                "shop.example/",
                "*.shop.example",
                "a.example,b.example",
                "shop.example.",
                "..shop.example",
                "shop..example",
                ".",
                "::1",
                "[::1]:80",
                "user@shop.example",
                "%2eshop.example",
                '"shop.example"',
            )
        ),
        ({"partitioned": True}, "partitioned must be false unless secure = true, got True"),
        ({"partitioned": "true", "secure": False}, "partitioned must be false unless secure = true, got True"),
        ({"samesite": "none", "secure": False}, "samesite must be Lax or Strict unless secure = true, got 'None'"),
        ({"key": "__Secure-sid"}, "secure must be true for a cookie named __Secure-sid, got 'auto'"),
        ({"key": "__Host-sid", "secure": "false"}, "secure must be true for a cookie named __Host-sid, got False"),
        ({"key": "__host-sid"}, "secure must be true for a cookie named __host-sid, got 'auto'"),
        ({"key": "__Http-sid"}, "secure must be true for a cookie named __Http-sid, got 'auto'"),
        (
            {"key": "__http-sid", "secure": True, "httponly": "false"},
            "httponly must be true for a cookie named __http-sid, got False",
        ),
        (
            {"key": "__Host-Http-sid", "secure": True, "httponly": False},
            "httponly must be true for a cookie named __Host-Http-sid, got False",
        ),
        (
            {"key": "__Host-Http-sid", "secure": True, "cookie_path": "/a"},
            "cookie_path must be / for a cookie named __Host-Http-sid, got '/a'",
        ),
        (
            {"key": "__Host-sid", "secure": True, "cookie_domain": "e.org"},
            "cookie_domain must be absent for a cookie named __Host-sid, got 'e.org'",
        ),
        (
            {"key": "__Host-sid", "secure": True, "cookie_path": "/a"},
            "cookie_path must be / for a cookie named __Host-sid, got '/a'",
        ),
        *(
            (
                {"type": "ext:memcached", "url": "h:1", **login},
                (
                    f"{told} where type = ext:memcached, which is asked without a login (SASL): run it where only the"
                    f" application reaches it, or take ext:redis, got {got}"
                ),
            )
            for login, told, got in (
                ({"username": "u"}, "username must be absent", "'u'"),
                ({"password": "p"}, "password must be absent", "a value that is not shown"),
                ({"username": "u", "password": "p"}, "username must be absent (and password)", "'u'"),
            )
        ),
        ({"type": "cookie"}, "validate_key must be given where type = cookie, which it signs, got nothing"),
        ({"encrypt_key": "e"}, "validate_key must be given where encrypt_key is, got nothing"),
        ({"previous_secrets": ["s"]}, "secret must be given where previous_secrets are, got nothing"),
        ({"previous_validate_keys": ["s"]}, "validate_key must be given where previous_validate_keys are, got nothing"),
        ({"previous_encrypt_keys": ["s"]}, "encrypt_key must be given where previous_encrypt_keys are, got nothing"),
    ],
)
def test_a_broken_rule(values, told):
    """Options that do not go together stop the start, and the rule says why."""
    assert fault(**values) == told


@pytest.mark.parametrize(
    "values",
    [
        {"type": "file", "data_dir": ""},
        {"type": "", "encrypt_key": "e", "validate_key": "v"},
        {"samesite": "None", "secure": "perhaps"},
        {"key": "__Host-sid", "secure": "perhaps"},
        {"type": "cookie", "validate_key": ""},
        {"encrypt_key": "e", "validate_key": 5},
        {"timeout": "1h", "reissue_time": 60, "save_accessed_time": False},
        {"secret": "", "previous_secrets": ["x"]},
    ],
)
def test_a_wrong_value_breaks_no_rule_besides(values):
    """An option that is wrong by itself is told once, not again by the rules that it is part of."""
    assert len(faults(values)) == 1


def test_a_fault_names_the_option_as_it_was_given():
    """A broken rule names an option as it stands in the settings, and another one as it would stand there."""
    told = faults(prefixed({"beaker.session.encrypt_key": "e", "session.timeout": 5, "session.reissue_time": 5}))

    assert told["reissue_time"] == "session.reissue_time must be less than session.timeout (5 seconds), got 5"
    assert told["validate_key"] == (
        "beaker.session.validate_key must be given where beaker.session.encrypt_key is, got nothing"
    )


@pytest.mark.parametrize("prefix", ["session.", "beaker.session."])
def test_a_fault_names_all_options_with_their_prefix(prefix):
    """No option that a message names lacks the prefix that it has in the file."""
    values = {
        "type": "cookie",
        "encrypt_key": "é",
        "timeout": "60",
        "reissue_time": "60",
        "save_accessed_time": "false",
    }
    values |= {
        "samesite": "None",
        "previous_secrets": "s",
        "cookie_expires": "60",
        "key": "__Host-a",
        "cookie_path": "/a",
    }
    names = "|".join(sorted(SESSION_TABLE, key=len, reverse=True))
    for error in faults(prefixed({f"{prefix}{name}": value for name, value in values.items()})).values():
        bare = re.findall(rf"(?<![\w.])(?:{names})(?= (?:is|are|=|must|\())", error)

        assert bare == [], error


# -- Encryption --------------------------------------------------------------------------------------

KEYS = {"encrypt_key": "e", "validate_key": "v"}
NO_CIPHER = (
    "crypto_type must be a cipher that can be loaded where encrypt_key is given (pip install cryptography), got "
)


def module(name, *, has_aes=True):
    """Return a crypto module, as Beaker keeps them."""
    made = ModuleType(name)
    made.has_aes = has_aes
    return made


def test_without_a_cipher_the_application_does_not_start(monkeypatch):
    """Where Beaker finds no cipher, and would store plain text without a word, an ``encrypt_key`` stops the start."""
    monkeypatch.setattr(beaker.crypto, "CRYPTO_MODULES", {})
    monkeypatch.setitem(sys.modules, "beaker.crypto.pyca_cryptography", None)
    monkeypatch.setitem(sys.modules, "beaker.crypto.pycrypto", None)
    monkeypatch.delattr(beaker.crypto, "pyca_cryptography", raising=False)
    monkeypatch.delattr(beaker.crypto, "pycrypto", raising=False)

    assert beaker.crypto.load_default_module().has_aes is False
    for kind in ("memory", "cookie"):
        for name in ("default", "cryptography"):
            assert fault(**KEYS, type=kind, crypto_type=name) == NO_CIPHER + repr(name)
    assert options(validate_key="v", crypto_type="cryptography").crypto_type == "cryptography"


def test_the_default_is_cryptography(monkeypatch):
    """Where Beaker's own default is another cipher, or none, as before Beaker 1.14, ours is cryptography."""
    monkeypatch.setitem(beaker.crypto.CRYPTO_MODULES, "default", module("beaker.crypto.noencryption", has_aes=False))

    assert options(**KEYS).crypto_type == "default"
    assert crypto_module("default").__name__ == "beaker.crypto.pyca_cryptography"


def test_a_cipher_that_does_not_authenticate_is_refused(monkeypatch):
    """Without authentication a stored record could be changed unseen: only cryptography encrypts stored sessions."""
    monkeypatch.setitem(beaker.crypto.CRYPTO_MODULES, "pycryptodome", module("beaker.crypto.pycrypto"))
    monkeypatch.setitem(beaker.crypto.CRYPTO_MODULES, "theirs", object())
    monkeypatch.setitem(beaker.crypto.CRYPTO_MODULES, "mine", module("mine"))
    told = "must be cryptography for stored sessions (another cipher does not authenticate the record), got"

    assert fault(**KEYS, crypto_type="pycryptodome") == f"crypto_type {told} 'pycryptodome'"
    assert fault(**KEYS, crypto_type="mine") == f"crypto_type {told} 'mine'"
    assert fault(**KEYS, crypto_type="theirs") == NO_CIPHER + "'theirs'"
    assert options(**KEYS, type="cookie", crypto_type="pycryptodome").crypto_type == "pycryptodome"


@pytest.mark.parametrize("retired", ["previous_encrypt_keys", "previous_validate_keys"])
def test_a_cipher_that_notices_no_wrong_key_cannot_rotate(monkeypatch, retired):
    """A signed cookie may be encrypted by another cipher, but not under retired keys: it would read garbage."""
    monkeypatch.setitem(beaker.crypto.CRYPTO_MODULES, "pycryptodome", module("beaker.crypto.pycrypto"))

    told = fault(**KEYS, **{retired: ["x"]}, type="cookie", crypto_type="pycryptodome")
    assert told.startswith("crypto_type must be cryptography where keys are retired")


@pytest.mark.parametrize(
    "values",
    [
        {"encrypt_key": "é", "validate_key": "v"},
        {"encrypt_key": "e", "validate_key": "☃"},
        {**KEYS, "previous_encrypt_keys": ["a", "é"]},
        {**KEYS, "previous_validate_keys": ["é"]},
    ],
)
def test_a_key_that_beaker_cannot_use(values):
    """A key that Beaker would fail on at the first request stops the start; to sign with, any text is good."""
    told = fault(**values)

    assert "must be in ASCII where encrypt_key is given, got a value" in told
    assert told.endswith("that is not shown")
    assert options(type="cookie", validate_key="☃", previous_validate_keys=["é"], secret="é").type == "cookie"


# -- What follows from them --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ({}, 60),
        ({"timeout": 1200}, 120),
        ({"cookie_expires": 600}, 60),
        ({"timeout": 1200, "cookie_expires": 300}, 30),
        ({"timeout": 300, "cookie_expires": 1200}, 30),
        ({"timeout": 5}, 0.5),
        ({"cookie_expires": False}, 60),
        ({"cookie_expires": EXPIRES}, 60),
        ({"timeout": 1200, "cookie_expires": EXPIRES}, 120),
        ({"timeout": 1200, "reissue_time": 7}, 7),
    ],
)
def test_touch_interval(values, interval):
    """The access time is renewed after ``reissue_time``: a tenth of the smaller lifetime, else 60 seconds."""
    assert options(**values).touch_interval == interval


@pytest.mark.parametrize(
    ("value", "lifetime"), [(True, None), (False, None), (EXPIRES, None), (60, 60), (timedelta(minutes=2), 120)]
)
def test_cookie_lifetime(value, lifetime):
    """A cookie has a lifetime of its own where it is told in seconds."""
    assert options(cookie_expires=value).cookie_lifetime == lifetime


def test_differing():
    """The options that are given to no effect are those that another table does not have, or has otherwise."""
    used = options(timeout=60, key="sid", type="memory")
    ignored = options(timeout="60", key="other", secret=GEHEIM, httponly=True, samesite="strict")

    assert differing(used, ignored) == ["key", "samesite", "secret"]
    assert differing(ignored, used) == ["key"]
    assert differing(used, options(key=None)) == []


def test_no_two_options_look_alike():
    """No option is a near miss of another one, so that the hint for a typing error is worth something."""
    alike = {name: difflib.get_close_matches(name, set(SESSION_TABLE) - {name}, cutoff=0.95) for name in SESSION_TABLE}

    assert {name: others for name, others in alike.items() if others} == {}
