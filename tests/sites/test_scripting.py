"""``beaker_bridge.scripting``: a site's sessions without its pipeline, and in ``pshell`` and ``bootstrap()``."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from beaker.container import MemoryNamespaceManager
from pyramid.config import Configurator
from pyramid.paster import get_app
from pyramid.scripting import prepare
from pyramid.session import SignedCookieSessionFactory
from webtest import TestApp

from beaker_bridge import (
    SessionConflictError,
    SessionExpired,
    SessionInvalidated,
    SessionNotFoundError,
    SessionRevoked,
    SessionStoreError,
    SettingsError,
    SiteError,
    revoke,
)
from beaker_bridge.scripting import open_session, sessions
from tests.installations import SECRET, Views, install
from tests.requests import STORES, Clock, options_of, store_options

# Real servers and processes: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[2]
UNKNOWN = "0" * 32


# -- The site, and its visitor -----------------------------------------------------------------------


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return request.session.id


def add(request):
    with request.session.exclusive():
        request.session["count"] += 1


VIEWS = {
    "count": count,
    "add": add,
    "data": lambda request: sorted(request.session.items()),
    "rotate": lambda request: request.session.regenerate_id(),
    "login": lambda request: request.session.bind(request.params["user"], note={"browser": request.params["browser"]}),
    "touch": lambda request: "count" in request.session and count(request),
    "logout": lambda request: request.session.invalidate(),
    "revoke": lambda request: revoke(request, 42),
    "messages": lambda request: request.session.pop_flash(),
}


class Visitor:
    """A browser with a session, and a script with that site's sessions.

    Args:
        options: the filter's options.
        settings: the application's.
    """

    def __init__(self, options, **settings):
        self.options = {"key": "sid", "secret": SECRET, **options}
        self.events = []
        self.app = install("filter", self.options, self._configure, **settings)
        self.registry = self.app.app.registry
        self.browser = TestApp(self.app)
        self.id = self.browser.get("/count").text

    def _configure(self, config):
        Views(**VIEWS)(config)
        for kind in (SessionInvalidated, SessionExpired, SessionRevoked):
            config.add_subscriber(self.events.append, kind)

    @property
    def settings(self):
        """The options as those of an application's settings."""
        return {f"session.{name}": value for name, value in self.options.items()}

    @property
    def data(self):
        """What the browser's next request finds."""
        return self.browser.get("/data").text


@pytest.fixture
def visitor(tmp_path):
    return Visitor(store_options("file", tmp_path))


@pytest.fixture
def site(visitor):
    with sessions(visitor.settings) as opened:
        yield opened


# -- By id, on every store ---------------------------------------------------------------------------


@pytest.fixture(params=STORES)
def on_each_store(request, tmp_path):
    return Visitor(options_of(request, tmp_path))


def test_a_session_is_read_changed_and_ended(on_each_store):
    """On every store a script reads a session, changes it as one step, and ends it, and its browser sees that."""
    visitor = on_each_store
    with sessions(visitor.registry) as site:
        read = dict(site.get(visitor.id))
        with site.exclusive(visitor.id) as session:
            session["count"] += 10
        changed = visitor.data
        ended = site.end(visitor.id), site.end(visitor.id)
        after = site.get(visitor.id)

    assert read == {"count": 1}
    assert changed == "[('count', 11)]"
    assert ended == (True, False)
    assert after is None
    assert visitor.data == "[]"
    assert [type(event) for event in visitor.events] == [SessionInvalidated]
    assert visitor.events[0].data == {"count": 11}


def test_the_connections_of_an_application_stay_open(on_each_store):
    """Closing what was opened from an application's registry leaves the application its connections."""
    site = sessions(on_each_store.registry)
    site.close()

    assert on_each_store.data == "[('count', 1)]"
    assert dict(site.get(on_each_store.id)) == {"count": 1}


def test_reading_leaves_no_trace(visitor, site):
    """A session that a script only reads is not renewed: it expires as it would have."""
    before = visitor.app._config.store.read(visitor.id)
    assert dict(site.get(visitor.id)) == {"count": 1}

    assert visitor.app._config.store.read(visitor.id) == before


def test_a_change_is_saved_by_persist(visitor, site):
    """A session that was read is as ``request.session``: ``persist()`` saves it, merged with a request's change."""
    session = site.get(visitor.id)
    session["list"] = []
    session.persist()
    session["list"].append("in place")
    session.flash("Your export is ready")
    visitor.browser.get("/count")
    session.persist()

    assert visitor.browser.get("/messages").text == "['Your export is ready']"
    assert visitor.data == "[('count', 2), ('list', ['in place'])]"


def test_a_change_that_is_not_persisted_is_not_saved(visitor, site):
    """Without ``persist()`` nothing is written."""
    site.get(visitor.id)["count"] = 100

    assert visitor.data == "[('count', 1)]"


def test_a_block_that_raises_changes_nothing(visitor, site):
    """What an ``exclusive()`` block has changed before it raises is not saved, and the lock is free."""

    def fail():
        with site.exclusive(visitor.id) as session:
            session["count"] = 100
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert visitor.data == "[('count', 1)]"
    with site.exclusive(visitor.id) as session:
        assert session["count"] == 1


def test_a_block_within_a_block_does_not_wait(visitor, site):
    """A function that needs the lock may be called by one that has it."""
    with site.exclusive(visitor.id) as outer:
        with site.exclusive(visitor.id) as inner:
            inner["inner"] = 1
        outer["outer"] = 1

    assert visitor.data == "[('count', 1), ('inner', 1), ('outer', 1)]"


@pytest.mark.parametrize("session_id", ["", "x", UNKNOWN, UNKNOWN + "0", "../../etc/passwd"])
def test_there_is_no_such_session(site, session_id):
    """An id that opens nothing is None, False, or an error that does not quote it in full; no record is made."""
    found = site.get(session_id), site.end(session_id)
    with pytest.raises(SessionNotFoundError, match="there is no session") as caught, site.exclusive(session_id):
        pytest.fail("there is no such session")

    assert found == (None, False)
    assert isinstance(caught.value, LookupError)
    assert UNKNOWN not in str(caught.value)
    assert site.get(session_id) is None


def test_an_expired_session_is_gone(tmp_path):
    """An expired session opens nothing, is no session that was ended, and its event is sent."""
    clock = Clock()
    visitor = Visitor({**store_options("file", tmp_path), "timeout": 3600, "clock": clock})
    clock.now += 4000
    with sessions(visitor.registry) as site:
        ended = site.end(visitor.id)

    assert ended is False
    assert [type(event) for event in visitor.events] == [SessionExpired]


@pytest.mark.parametrize(
    ("path", "error"),
    [("/logout", SessionNotFoundError), ("/rotate", SessionConflictError)],
    ids=["logout", "rotation"],
)
def test_a_session_that_ends_before_the_block_begins(visitor, site, monkeypatch, path, error):
    """Where a request ends or moves the session before the lock is held, the block is not run."""
    lock = site._config.store.lock

    def late(*arguments):
        browser.get(path)
        return lock(*arguments)

    (browser,) = log_in(visitor, "desk").values()
    session_id = browser.get("/count").text
    monkeypatch.setattr(site._config.store, "lock", late)
    with pytest.raises(error), site.exclusive(session_id):
        pytest.fail("the session has ended")


def test_an_end_follows_a_rotation(visitor, site):
    """A session that has moved to a new id is ended there, as a logout would end it; to read it, its id is needed."""
    visitor.browser.get("/rotate")
    found = site.get(visitor.id)
    ended = site.end(visitor.id)

    assert found is None
    assert ended is True
    assert visitor.data == "[]"


def test_a_record_that_is_damaged_is_ended(visitor, site, caplog):
    """A record that cannot be read opens nothing, as in a request, which is logged; ``end()`` deletes it."""
    store = visitor.app._config.store
    store.swap(visitor.id, store.read(visitor.id), b"garbage")
    found = site.get(visitor.id)
    ended = site.end(visitor.id)

    assert found is None
    assert f"session {visitor.id[:6]}…" in caplog.text
    assert ended is False
    assert store.read(visitor.id) is None


def test_a_store_that_is_away_is_an_error(start_server):
    """A script is told that the store is away, also if ``store_error`` has requests served without it."""
    server = start_server("redis", "Redis")
    visitor = Visitor({"type": "ext:redis", "url": server.url, "store_error": "empty"})
    request = prepare(registry=visitor.registry)["request"]
    site = sessions(visitor.settings)
    server.kill()

    assert visitor.data == "[]"
    for ask in (site.get, site.end, partial(open_session, request)):
        with pytest.raises(SessionStoreError):
            ask(visitor.id)


def test_no_purge_is_begun(tmp_path):
    """A script's write begins no purge, which would end with the script."""
    visitor = Visitor({**store_options("file", tmp_path), "purge_every": 3600})
    before = set(threading.enumerate())
    with sessions(visitor.settings) as site, site.exclusive(visitor.id) as session:
        session["count"] = 2

    assert set(threading.enumerate()) <= before
    assert visitor.data == "[('count', 2)]"


# -- By user, on every store -------------------------------------------------------------------------


def log_in(visitor, *browsers, user=42):
    """Log a user in from some browsers, each of which has counted a visit; return them."""
    found = {name: TestApp(visitor.app) for name in browsers}
    for name, browser in found.items():
        browser.get("/count")
        browser.get("/login", {"user": user, "browser": name})
    return found


def by_browser(site, user=42):
    """Return the handles of a user's sessions, by the browser in the note."""
    return {session.note["browser"]: session.handle for session in site.user_sessions(user)}


def test_a_users_sessions(on_each_store):
    """On every store a script lists a user's sessions, reads and changes one by its handle, and ends one or all."""
    visitor = on_each_store
    browsers = log_in(visitor, "desk", "phone", "tablet")
    log_in(visitor, "desk", user=43)
    with sessions(visitor.registry) as site:
        handles = by_browser(site)
        read = dict(site.get(handles["desk"]))
        with site.exclusive(handles["desk"]) as session:
            session["count"] += 10
        one = site.revoke_one(handles["phone"]), site.revoke_one(handles["phone"])
        after_one = [browser.get("/data").text for browser in browsers.values()]
        left = set(by_browser(site))
        number = site.revoke(42), site.revoke(42)
        others = set(by_browser(site, "43"))

    assert set(handles) == {"desk", "phone", "tablet"}
    assert read == {"count": 1}
    assert one == (True, False)
    assert after_one == ["[('count', 11)]", "[]", "[('count', 1)]"]
    assert left == {"desk", "tablet"}
    assert number == (2, 0)
    assert [browser.get("/data").text for browser in browsers.values()] == ["[]"] * 3
    assert others == {"desk"}
    assert {type(event) for event in visitor.events} == {SessionRevoked}


def test_a_message_to_each_browser(visitor, site):
    """A script that knows the user alone reaches each browser."""
    browsers = log_in(visitor, "desk", "phone")
    for found in site.user_sessions(42):
        with site.exclusive(found.handle) as session:
            session.flash("Your export is ready")

    assert [browser.get("/messages").text for browser in browsers.values()] == ["['Your export is ready']"] * 2


def test_a_handle_outlives_a_rotation(visitor, site):
    """A handle names a login: after a rotation it opens the session under its new id."""
    (browser,) = log_in(visitor, "desk").values()
    handle = by_browser(site)["desk"]
    browser.get("/rotate")

    assert dict(site.get(handle)) == {"count": 1}
    assert by_browser(site) == {"desk": handle}


def test_a_session_that_is_not_current(visitor, site):
    """A script has no session of its own: none of a user's is the current one."""
    log_in(visitor, "desk")

    assert [session.is_current for session in site.user_sessions(42)] == [False]


def test_the_end_of_a_users_session(visitor, site):
    """A session that is ended by its id leaves its user's list; the id of one that was revoked opens nothing."""
    browsers = log_in(visitor, "desk", "phone")
    desk, phone = (browser.get("/count").text for browser in browsers.values())
    ended = site.end(desk)
    left = set(by_browser(site))
    site.revoke(42)

    assert ended is True
    assert left == {"phone"}
    assert site.get(phone) is None
    assert site.end(phone) is False


@pytest.mark.parametrize("options", ["file", "redis"])
def test_nobody_is_left_in(options, tmp_path, request):
    """While browsers count and rotate, a script ends their user's sessions: no cookie opens one after that."""
    fixture = STORES[options]
    visitor = Visitor(store_options(options, tmp_path, fixture and request.getfixturevalue(fixture).url))
    browsers = log_in(visitor, *"abcd")
    is_done = threading.Event()
    is_begun = threading.Barrier(1 + len(browsers))

    def visit(browser):
        is_begun.wait()
        while not is_done.is_set():
            browser.get("/rotate")
            browser.get("/touch")

    threads = [threading.Thread(target=visit, args=[browser]) for browser in browsers.values()]
    for thread in threads:
        thread.start()
    with sessions(visitor.settings) as site:
        is_begun.wait()
        number = site.revoke(42)
        is_done.set()
        for thread in threads:
            thread.join()
        left = site.user_sessions(42)

    assert number == len(browsers)
    assert left == []
    assert [browser.get("/data").text for browser in browsers.values()] == ["[]"] * len(browsers)


def test_the_handle_of_a_session_that_has_ended(visitor, site):
    """A handle whose session has ended opens nothing."""
    (browser,) = log_in(visitor, "desk").values()
    handle = by_browser(site)["desk"]
    browser.get("/logout")

    assert site.user_sessions(42) == []
    assert site.get(handle) is None
    assert site.revoke_one(handle) is False
    with pytest.raises(SessionNotFoundError), site.exclusive(handle):
        pytest.fail("it has ended")


def test_without_a_secret_no_session_belongs_to_a_user(tmp_path):
    """Where there is no ``secret`` the sessions are opened by their ids, and asking for a user's is an error."""
    visitor = Visitor({**store_options("file", tmp_path), "secret": None})
    with sessions(visitor.registry) as site:
        found = dict(site.get(visitor.id)), site.get("x"), site.get(UNKNOWN + "0" * 64)
        for ask in (site.user_sessions, site.revoke, site.revoke_one):
            with pytest.raises(SettingsError, match="secret is not set"):
                ask("42")

    assert found == ({"count": 1}, None, None)


# -- What is opened ----------------------------------------------------------------------------------


def test_an_applications_settings(tmp_path):
    """An application without a filter has its sessions in its settings: they, its registry and its environment do."""
    options = {"key": "sid", "secret": SECRET, **store_options("file", tmp_path)}
    app = install("settings", options, Views(**VIEWS))
    session_id = TestApp(app).get("/count").text
    with prepare(registry=app.registry) as environment:
        known = app.registry.settings, app.registry, environment, environment["request"], app
        found = [dict(sessions(opened).get(session_id)) for opened in known]

    assert found == [{"count": 1}] * 5


@pytest.mark.parametrize("site", [None, b"site.ini", 7, object(), [("session.type", "file")]])
def test_what_is_no_site(site):
    """Whatever else is given is an error that says what can be."""
    with pytest.raises(TypeError, match=r"takes the path of an \.ini, .* got a \w+$"):
        sessions(site)


def test_beakers_own_filter(tmp_path):
    """Behind Beaker's own filter nothing is known of its options before a request; the ``.ini`` has them."""
    visitor = Visitor(store_options("file", tmp_path))
    path = tmp_path / "site.ini"
    options = "\n".join(f"{name} = {value}" for name, value in visitor.options.items() if name not in ("key", "secret"))
    text = INI.format(SECRET=SECRET, options=f"{options}\ndata_serializer = json")
    path.write_text(text.replace("egg:beaker_bridge#session", "egg:Beaker#beaker_session"), encoding="utf-8")
    app = get_app(str(path))

    assert dict(sessions(path).get(visitor.id)) == {"count": 1}
    with pytest.raises(SettingsError, match="no filter of beaker_bridge wraps it"):
        sessions(app.wrap_app.registry)


def test_an_ini(ini):
    """The path of a site's ``.ini`` opens its filter's sessions, on each store that processes share."""
    path, browser, session_id = ini
    with sessions(path) as site, site.exclusive(session_id) as session:
        session["count"] += 10
    with sessions(f"{path}#main") as site:
        ended = site.end(session_id)

    assert session["count"] == 11
    assert ended is True
    assert browser.get("/data").text == "[]"


def test_an_ini_with_settings(tmp_path):
    """Without a filter the application's settings count, with the variables that ``pserve`` takes."""
    path = tmp_path / "site.ini"
    path.write_text(
        "[app:main]\npaste.app_factory = tests.sites.test_scripting:make_site\npyramid.includes = beaker_bridge\n"
        "session.type = file\nsession.data_dir = %(where)s\n",
        encoding="utf-8",
    )
    visitor = Visitor({**store_options("file", tmp_path), "secret": None})
    with sessions(path, {"where": str(tmp_path)}) as site:
        found = dict(site.get(visitor.id))

    assert found == {"count": 1}
    with pytest.raises(SiteError, match="where"):
        sessions(path)


def test_an_application_that_cannot_be_imported(tmp_path, caplog):
    """Where the site's code cannot be imported, its sessions are opened all the same, and a warning says so."""
    visitor = Visitor(store_options("file", tmp_path))
    path = tmp_path / "site.ini"
    options = "\n".join(f"{name} = {value}" for name, value in visitor.options.items())
    text = INI.format(SECRET=SECRET, options=options).replace("tests.sites.test_scripting:make_site", "nowhere:main")
    path.write_text(text.replace(f"key = sid\nsecret = {SECRET}\n", "", 1), encoding="utf-8")
    with sessions(path) as site:
        found = dict(site.get(visitor.id))

    assert found == {"count": 1}
    assert "nowhere:main cannot be imported" in caplog.text


def test_an_ini_that_is_not_there(tmp_path):
    """A path that leads nowhere is an error that names it."""
    with pytest.raises(SiteError, match=r"no\.ini cannot be read"):
        sessions(tmp_path / "no.ini")


def test_sessions_in_memory_are_those_of_the_process():
    """Sessions in memory can be opened from the application's own process, and not from its settings."""
    visitor = Visitor({"type": "memory"})

    assert dict(sessions(visitor.registry).get(visitor.id)) == {"count": 1}
    with pytest.raises(SettingsError, match=r"^session\.type = memory: the sessions are in the memory of the process"):
        sessions(visitor.settings)


def test_an_own_namespace_manager_is_tried(tmp_path):
    """Where an own namespace manager keeps the sessions, only the application knows: they are opened."""
    settings = {"session.type": "memory", "session.namespace_class": MemoryNamespaceManager}

    assert sessions(settings).get(UNKNOWN) is None


def test_sessions_in_cookies_are_in_the_browsers():
    """A script that asks for the sessions of ``type = cookie`` is told where they are."""
    visitor = Visitor({"type": "cookie", "validate_key": SECRET})
    request = prepare(registry=visitor.registry)["request"]

    for opened in (visitor.registry, visitor.settings):
        with pytest.raises(SettingsError, match="type = cookie: the sessions are in the browsers"):
            sessions(opened)
    with pytest.raises(SettingsError, match="type = cookie: the sessions are in the browsers"):
        open_session(request, UNKNOWN)


def test_nothing_is_configured():
    """Settings without a session, and an application that has none of ours, are errors that say so."""
    config = Configurator()
    config.set_session_factory(SignedCookieSessionFactory(SECRET))
    app = config.make_wsgi_app()

    with pytest.raises(SettingsError, match=r"no option under session\. or beaker\.session\."):
        sessions({"pyramid.reload_templates": "true"})
    with pytest.raises(SettingsError, match="no filter of beaker_bridge wraps it"):
        sessions(app.registry)
    with pytest.raises(SettingsError, match="must be a session of beaker_bridge, got a CookieSession"):
        open_session(prepare(registry=app.registry)["request"], UNKNOWN)


def test_wrong_options_are_an_error():
    """Options are checked as the site checks them."""
    with pytest.raises(SettingsError, match=r"session\.timeout must be"):
        sessions({"session.type": "file", "session.timeout": "soon"})


# -- request.session ---------------------------------------------------------------------------------


@pytest.fixture
def request_of_a_script(visitor):
    with prepare(registry=visitor.registry) as environment:
        yield environment["request"]


def test_a_scripts_session_is_empty(visitor, request_of_a_script):
    """Without an id, a script's session is an empty one under the filter's options, and nothing is stored."""
    session = request_of_a_script.session

    assert dict(session) == {}
    assert session.new
    assert session.key == "sid"


def test_a_scripts_session_is_the_one_of_an_id(visitor, request_of_a_script, caplog):
    """``open_session()`` makes a session the request's own, also where that was used before; ``persist()`` saves it."""
    before = request_of_a_script.session
    before["own"] = 1
    session = open_session(request_of_a_script, visitor.id)
    count(request_of_a_script)
    session.persist()
    request_of_a_script.add_finished_callback(lambda request: None)

    assert session is before is request_of_a_script.session
    assert dict(session) == {"count": 2}
    assert visitor.data == "[('count', 2)]"


def test_a_scripts_session_is_the_one_of_a_handle(visitor, request_of_a_script, site):
    """``open_session()`` takes a handle, too."""
    log_in(visitor, "desk")

    assert dict(open_session(request_of_a_script, by_browser(site)["desk"])) == {"count": 1}


def test_a_scripts_session_is_not_found(visitor, request_of_a_script):
    """Where there is no session of that id, ``request.session`` is as it was."""
    request_of_a_script.session["own"] = 1
    with pytest.raises(SessionNotFoundError):
        open_session(request_of_a_script, UNKNOWN)

    assert dict(request_of_a_script.session) == {"own": 1}


def test_what_a_script_forgets_to_persist_is_warned_about(visitor, caplog):
    """A change that is not persisted is one warning at the script's end, and is not saved."""
    with prepare(registry=visitor.registry) as environment:
        open_session(environment["request"], visitor.id)["count"] = 100

    assert "a session that was changed by a script" in caplog.text
    assert visitor.data == "[('count', 1)]"


# -- Processes ---------------------------------------------------------------------------------------

INI = """
[app:main]
paste.app_factory = tests.sites.test_scripting:make_site
pyramid.includes = beaker_bridge
filter-with = session

[filter:session]
use = egg:beaker_bridge#session
key = sid
secret = {SECRET}
{options}
"""


def make_site(_global_config, **settings):
    """Return the site that ``pshell`` and scripts open."""
    config = Configurator(settings=settings)
    Views(**VIEWS)(config)
    return config.make_wsgi_app()


@pytest.fixture(params=["file", "sqlite", "redis"])
def ini(request, tmp_path):
    """Return the ``.ini`` of a site on a store that processes share, its browser, and the session's id."""
    options = "\n".join(f"{name} = {value}" for name, value in options_of(request, tmp_path).items())
    path = tmp_path / "site.ini"
    path.write_text(INI.format(SECRET=SECRET, options=options), encoding="utf-8")
    browser = TestApp(get_app(str(path)))
    return path, browser, browser.get("/count").text


def run(*command, text=""):
    """Run a Python program as a process in this checkout; return its output."""
    # Pyramid imports pkg_resources, of which setuptools warns.
    words = [sys.executable, "-W", "ignore:pkg_resources", *map(str, command)]
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        words, cwd=CHECKOUT, env=environ, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_pshell(ini):
    """In ``pshell`` under the pipeline the session is an empty one with the filter's options, or the one of an id."""
    path, browser, session_id = ini
    said = run(
        *("-m", "pyramid.scripts.pshell", path),
        text=f"""
from beaker_bridge.scripting import open_session, sessions
print("empty", dict(request.session), request.session.key)
print("found", dict(open_session(request, "{session_id}")))
request.session["count"] += 10
request.session.persist()
print("site", dict(sessions(registry).get("{session_id}")))
""",
    )

    assert "empty {} sid" in said
    assert "found {'count': 1}" in said
    assert "site {'count': 11}" in said
    assert browser.get("/data").text == "[('count', 11)]"


BOOTSTRAP = """
import sys
from pyramid.paster import bootstrap
from beaker_bridge.scripting import open_session, sessions

path, session_id = sys.argv[1:]
with bootstrap(path) as env:
    print("empty", dict(env["request"].session), env["request"].session.key)
    print("found", dict(open_session(env["request"], session_id)))
    with sessions(env) as site:
        with site.exclusive(session_id) as session:
            session["count"] += 10
"""


SCRIPT = """
import sys
from beaker_bridge.scripting import sessions

path, session_id = sys.argv[1:]
with sessions(path) as site:
    print("found", dict(site.get(session_id)))
    with site.exclusive(session_id) as session:
        session["count"] += 10
print("pyramid.config" in sys.modules, "click" in sys.modules, "tests.sites.test_scripting" in sys.modules)
"""


@pytest.mark.once
@pytest.mark.slow
def test_a_script(ini, tmp_path):
    """A script that knows the ``.ini`` alone does the same, without click; the application's module is imported."""
    path, browser, session_id = ini
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    said = run(tmp_path / "script.py", path, session_id)

    assert said == "found {'count': 1}\nTrue False True\n"
    assert browser.get("/data").text == "[('count', 11)]"


COUNTER = """
import sys
from beaker_bridge.scripting import sessions

path, session_id = sys.argv[1:]
with sessions(path) as site:
    for _ in range(30):
        with site.exclusive(session_id) as session:
            session["count"] += 1
"""


@pytest.mark.once
@pytest.mark.slow
def test_a_script_and_requests_count_together(ini, tmp_path):
    """While requests change the session, no step of a script is lost, and none of theirs."""
    path, browser, session_id = ini
    (tmp_path / "counter.py").write_text(COUNTER, encoding="utf-8")
    is_done = threading.Event()
    counts = []

    def visit():
        own = TestApp(browser.app, cookiejar=browser.cookiejar)
        steps = 0
        while not is_done.is_set():
            own.get("/add")
            steps += 1
        counts.append(steps)

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for thread in visitors:
        thread.start()
    try:
        run(tmp_path / "counter.py", path, session_id)
    finally:
        is_done.set()
        for thread in visitors:
            thread.join()

    assert len(counts) == 2
    assert browser.get("/data").text == f"[('count', {1 + 30 + sum(counts)})]"


@pytest.mark.once
@pytest.mark.slow
def test_bootstrap(ini, tmp_path):
    """A script under ``bootstrap()`` has the same, and changes a session as one step."""
    path, browser, session_id = ini
    (tmp_path / "script.py").write_text(BOOTSTRAP, encoding="utf-8")
    said = run(tmp_path / "script.py", path, session_id)

    assert said == "empty {} sid\nfound {'count': 1}\n"
    assert browser.get("/data").text == "[('count', 11)]"
