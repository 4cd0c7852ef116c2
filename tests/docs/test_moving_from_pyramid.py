"""docs/moving/carry_over.rst, pyramid_cookie_sessions.rst and pyramid_session_redis.rst, with the real packages."""

from __future__ import annotations

import base64
import configparser
import importlib
import inspect
import json
import re
import secrets
import sys
import time
from types import SimpleNamespace

import pyramid.session
import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.session import BaseCookieSessionFactory, JSONSerializer, SignedCookieSessionFactory
from webtest import TestApp

from beaker_bridge import BeakerSessionFactoryConfig, SessionTooLargeError, SessionValueError
from beaker_bridge.cli.effective import option_text
from beaker_bridge.options.table import SESSION_TABLE
from beaker_bridge.pyramid.isession import PyramidSession
from tests import machine
from tests.docs import pages

pytestmark = [
    pytest.mark.once,
    # pyramid_session_redis uses a command that the client of Redis calls old.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

CARRY, COOKIES, REDIS = (
    pages.read(f"moving/{name}") for name in ("carry_over", "pyramid_cookie_sessions", "pyramid_session_redis")
)
#: Defaults that a table says in words.
IN_WORDS = {"required", "48 random bytes", "JSONSerializer", "pickle.dumps", "pickle.loads"}


@pytest.fixture
def session_redis():
    """The package pyramid_session_redis, where it is installed."""
    machine.package("pyramid_session_redis")
    return importlib.import_module("pyramid_session_redis")


# -- The tables --------------------------------------------------------------------------------------


def named(cell):
    """Return the name of an option and its default, as a cell has them: ``name`` (``default``)."""
    name, _, default = cell.partition(" (")
    return name.strip("`"), default.removesuffix(")")


def check_options(text, parameters):
    """Say that a page has each parameter of a factory, with the defaults of both packages, bold where they differ."""
    rows = [row for row in pages.cells(text) if len(row) == 3 and row[0].startswith("`")]
    assert [named(row[0])[0] for row in rows] == list(dict.fromkeys(named(row[0])[0] for row in rows))
    assert {named(row[0])[0] for row in rows} == parameters.keys()
    for theirs, ours, meaning in rows:
        name, written = named(theirs)
        default = parameters[name].default
        if written.strip("`") not in IN_WORDS:
            right = "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            assert written.strip("`") == right, name
        assert meaning.endswith((".", "``"))
        if ours == "—":
            continue
        our_name, our_default = named(ours)
        row = SESSION_TABLE[our_name]
        if our_default == "**a tenth**":
            assert our_name == "reissue_time"
            continue
        assert our_default.strip("`*") == (option_text(row.default) or "none"), name
        assert our_default.startswith("**") == (our_default.strip("`*") != written.strip("`")), name


def test_the_options_of_cookie_sessions():
    """The table has each option of Pyramid's two factories, with both defaults."""
    parameters = dict(inspect.signature(SignedCookieSessionFactory).parameters)

    check_options(COOKIES, parameters)
    assert (
        parameters.keys() - {"secret", "hashalg", "salt"}
        == inspect.signature(BaseCookieSessionFactory).parameters.keys()
    )


def test_the_options_of_pyramid_session_redis(session_redis):
    """The table has each option of pyramid_session_redis, with both defaults."""
    check_options(REDIS, dict(inspect.signature(session_redis.RedisSessionFactory).parameters))


def test_what_code_may_call_on_a_session_of_pyramid_session_redis(session_redis):
    """The last table has each public name that our sessions lack, and its counterparts are there."""
    rows = [row for row in pages.cells(REDIS) if len(row) == 2 and row[0].startswith("`")]
    found = {name.removesuffix("()") for row in rows for name in re.findall("``([^`]+)``", row[0])}
    theirs = {name for name in vars(session_redis.RedisSession) if not name.startswith("_")}
    counterparts = {name for row in rows for name in re.findall(r"``(\w+)\(", row[1])}
    ours = {name for name in dir(PyramidSession) if not name.startswith("_")}

    assert found == theirs - ours
    assert counterparts - {"dict", "in"} <= ours


# -- Carrying over -----------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a site of the page's modules, with settings."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "myapp"
    package.mkdir()
    (package / "carrying.py").write_text(pages.examples(CARRY)["carrying"])
    (package / "routes.py").write_text(f"from {__name__} import add_views as includeme\n")
    (package / "views.py").write_text("")

    def make(main, ini, **changes):
        (package / "__init__.py").write_text(main)
        for name in [name for name in sys.modules if name.partition(".")[0] == "myapp"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        parser = configparser.ConfigParser()
        parser.read_string(ini)
        parser["DEFAULT"]["here"] = str(tmp_path)
        settings = {name: value for name, value in parser["app:main"].items() if name != "use"} | changes
        return TestApp(importlib.import_module("myapp").main({}, **settings))

    return make


def add_views(config):
    """Add what a browser does in these tests."""
    for view in (log_in, show, log_out, raise_out, empty, fail, add, slow):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")
    config.add_view(lambda error, request: {"error": type(error).__name__}, context=Exception, renderer="json")


def log_in(request):
    request.session["user"] = "ann"
    request.session["cart"] = ["apple"]
    request.session.flash("Welcome.")
    return request.session.get_csrf_token()


def show(request):
    return dict(request.session.items())


def slow(request):
    """Load the session; the test then makes other requests."""
    user = request.session["user"]
    request.environ["tests.meanwhile"]()
    return user


def log_out(request):
    request.session.invalidate()


def raise_out(request):
    request.session.invalidate()
    raise HTTPFound("/show")


def empty(request):
    for key in list(request.session.keys()):
        del request.session[key]


def fail(request):
    request.session["failed"] = True
    raise RuntimeError


def add(request):
    request.session["cart"].append("bread")


def old_site(factory):
    config = Configurator()
    config.set_session_factory(factory)
    add_views(config)
    return TestApp(config.make_wsgi_app())


@pytest.fixture(params=["signed", "base", "redis"])
def sites(request, load):
    """The old site and the new one, which a browser visits one after the other."""
    main, ini = pages.examples(CARRY)["carrying-main"], pages.examples(CARRY)["settings"]
    secret = "the secret that the site has had until now"
    signed = 'SignedCookieSessionFactory(settings["old_secret"], '
    if request.param == "redis":
        package, server = request.getfixturevalue("session_redis"), request.getfixturevalue("redis_server")
        examples = pages.examples(REDIS)
        main, ini = examples["redis-main"], examples["before"].replace("pyramid_session_redis", "beaker_bridge")
        _, _, new = examples["after"].partition("pyramid.includes = beaker_bridge\n")
        ini = (ini + new).replace("redis://localhost:6379/0", server.url)
        parser = configparser.ConfigParser()
        parser.read_string(ini)
        factory = package.session_factory_from_settings(dict(parser["app:main"]))
    elif request.param == "base":
        factory = BaseCookieSessionFactory(Base64())
        replaced = f"from {__name__} import Base64\nfrom pyramid.session import BaseCookieSessionFactory"
        main = main.replace("from pyramid.session import SignedCookieSessionFactory", replaced)
        main = main.replace(signed, "BaseCookieSessionFactory(Base64(), ")
    else:
        factory = SignedCookieSessionFactory(secret)
    old = old_site(factory)

    def again(**changes):
        new = load(main, ini, **changes)
        new.cookiejar = old.cookiejar
        return new

    return old, again


class Base64:
    """A serializer for the base of Pyramid's cookie sessions, which signs nothing."""

    def dumps(self, value):
        return base64.urlsafe_b64encode(json.dumps(value).encode())

    def loads(self, text):
        return json.loads(base64.urlsafe_b64decode(text))


CONTENT = {"user": "ann", "cart": ["apple"], "_f_": ["Welcome."]}


def test_a_session_is_carried_over(sites, monkeypatch):
    """A browser's first request finds its data, its messages and its token; the second ends the old session."""
    old, start = sites
    new = start()
    token = old.get("/log_in").json
    first = new.get("/show")
    second = new.get("/show")
    # A cookie of Pyramid's is renewed when it is a second old, by default.
    monkeypatch.setattr(pyramid.session, "time", SimpleNamespace(time=lambda: time.time() + 10))
    third = new.get("/show")

    assert first.json == second.json == third.json == {**CONTENT, "_csrft_": token}
    assert [each.headers.getall("Set-Cookie")[0].split("=")[0] for each in (first, second)] == ["myapp", "session"]
    assert "Set-Cookie" not in third.headers
    assert old.get("/show").json == {}


def test_what_the_first_request_changes_is_kept(sites):
    """A change of the first request is in the new session."""
    old, start = sites
    new = start()
    old.get("/log_in")
    new.get("/add")

    assert new.get("/show").json["cart"] == ["apple", "bread"]


@pytest.mark.parametrize("path", ["/log_out", "/raise_out", "/empty"])
def test_a_logout_in_the_first_request_holds(sites, path):
    """No later request brings back what the first one has ended or emptied, however it does so."""
    old, start = sites
    new = start()
    old.get("/log_in")
    new.get(path)

    assert [new.get("/show").json for _ in range(2)] == [{}, {}]
    assert old.get("/show").json == {}


def test_a_first_request_that_fails_loses_nothing(sites):
    """Where a failed request is not saved, the next one carries the session over."""
    old, start = sites
    new = start(**{"session.cookie_on_exception": "false"})
    old.get("/log_in")
    failed = new.get("/fail").json
    found = new.get("/show").json

    assert failed == {"error": "RuntimeError"}
    assert found.items() >= CONTENT.items()
    assert "failed" not in found


def test_a_visitor_without_an_old_session(sites):
    """A new visitor, and one whose old session is empty, get what they would without the factory."""
    old, start = sites
    new = start()

    assert new.get("/show").headers.getall("Set-Cookie") == []
    old.get("/log_in")
    old.get("/log_out")
    assert new.get("/show").json == {}
    assert "myapp" not in new.cookies


def test_two_first_requests_that_overlap(sites):
    """Each of them makes a session, and the browser keeps the one whose response comes last."""
    old, start = sites
    new = start()
    old.get("/log_in")
    header = "; ".join(f"{name}={value}" for name, value in old.cookies.items())
    answers = [new.get(path, headers={"Cookie": header}) for path in ("/add", "/show")]
    cookies = [re.search("myapp=([^;]+)", answer.headers["Set-Cookie"])[1] for answer in answers]
    found = [new.get("/show", headers={"Cookie": f"myapp={cookie}"}).json["cart"] for cookie in cookies]

    assert found == [["apple", "bread"], ["apple"]]


def test_a_logout_during_a_slow_first_request(sites):
    """As the page says: a first request that was under way at the logout has a session of its own, which stays."""
    old, start = sites
    new = start()
    old.get("/log_in")
    header = "; ".join(f"{name}={value}" for name, value in old.cookies.items())

    def others():
        new.get("/show")
        new.get("/log_out")

    late = new.get("/slow", headers={"Cookie": header}, extra_environ={"tests.meanwhile": others})
    cookie = re.search("myapp=([^;]+)", late.headers["Set-Cookie"])[1]

    assert new.get("/show", headers={"Cookie": f"myapp={cookie}"}).json["user"] == "ann"


def test_a_copy_of_an_old_cookie(sites, request):
    """A copied cookie session opens a session even after the logout, as it did before; one in Redis has ended."""
    old, start = sites
    new = start()
    old.get("/log_in")
    copied = old.cookies["session"]
    new.get("/log_out")
    found = new.get("/show", headers={"Cookie": f"session={copied}"}).json

    assert ("user" in found) == ("redis" not in request.node.name)


# -- What else the pages say ---------------------------------------------------------------------------


@pytest.fixture
def site(load):
    """Return a function that starts a site with settings and no factory of its own."""

    def start(ini, **changes):
        parser = configparser.RawConfigParser()
        parser.read_string(ini)
        config = Configurator(settings={**dict(parser["app:main"]), **changes})
        config.include("beaker_bridge")
        add_views(config)
        return config

    return start


def test_a_cookie_session(site):
    """The settings for a session that stays in a cookie work, and one that is too large raises in an exception view."""
    config = site(pages.examples(COOKIES)["cookie"])
    config.add_route("large", "/large")
    config.add_view(
        lambda request: request.session.update(text=secrets.token_hex(4000)), route_name="large", renderer="json"
    )
    browser = TestApp(config.make_wsgi_app())
    browser.get("/log_in")

    assert browser.get("/show").json.items() >= CONTENT.items()
    assert browser.get("/large").json == {"error": SessionTooLargeError.__name__}
    assert browser.get("/show").headers["Vary"] == "Cookie"


def test_a_session_is_carried_over_into_a_cookie(load):
    """The same factory carries a session over into one that stays in a cookie."""
    secret = "the old one"
    old = old_site(SignedCookieSessionFactory(secret))
    ini = pages.examples(COOKIES)["cookie"] + f"old_secret = {secret}\n"
    new = load(pages.examples(CARRY)["carrying-main"], ini)
    new.cookiejar = old.cookiejar
    old.get("/log_in")
    found = [new.get("/show").json for _ in range(2)]

    assert [each.items() >= CONTENT.items() for each in found] == [True, True]
    assert old.get("/show").json == {}


def test_a_key_that_is_no_text(site):
    """Pyramid's serializer makes a text of a number that is a key. Ours refuses it."""
    config = site(pages.examples(CARRY)["settings"], **{"session.type": "memory"})
    config.add_route("number", "/number")
    config.add_view(lambda request: request.session.update(counts={1: 2}), route_name="number", renderer="json")

    assert JSONSerializer().loads(JSONSerializer().dumps({1: 2})) == {"1": 2}
    assert TestApp(config.make_wsgi_app()).get("/number").json == {"error": SessionValueError.__name__}


def test_sessions_in_redis(site, redis_server):
    """Ids, keys, expiry, headers and empty sessions are as the page says; ``url`` may be a client."""
    with redis_server.client() as client:
        client.flushdb()
        ini = pages.examples(REDIS)["after"].replace("redis://localhost:6379/0", redis_server.url)
        browser = TestApp(site(ini).make_wsgi_app())
        answer = browser.get("/log_in")
        (key,) = client.keys()
        expiry = client.ttl(key)
        browser.get("/empty")
        empty_stays = client.exists(key)
        factory = BeakerSessionFactoryConfig(type="ext:redis", url=client, key="other", secret="x" * 32)
        config = Configurator()
        config.set_session_factory(factory)
        add_views(config)
        TestApp(config.make_wsgi_app()).get("/log_in")

        assert re.fullmatch(rb"beaker_cache:[0-9a-f]{32}(:.*)?", key)
        assert expiry >= 1200
        assert answer.headers["Vary"] == "Cookie"
        assert answer.headers["Cache-Control"] == 'no-cache="Set-Cookie"'
        assert (browser.get("/show").json, empty_stays) == ({}, 1)
        assert len(client.keys()) == 2
