"""``request.session`` as a mapping, and the session factories."""

import gc
import weakref
from collections.abc import MutableMapping
from types import SimpleNamespace

import pytest
from pyramid import testing
from pyramid.config import Configurator, global_registries
from pyramid.interfaces import ISession, ISessionFactory
from pyramid.paster import bootstrap, get_app
from pyramid.request import Request
from pyramid.scripting import prepare
from pyramid.testing import DummyRequest
from webtest import TestApp
from zope.interface.verify import verifyObject

from beaker_bridge import (
    BeakerBridgeError,
    BeakerSessionFactoryConfig,
    SessionMiddleware,
    SessionValueError,
    SettingsError,
    session_factory_from_settings,
)
from beaker_bridge.request.exchange import ENVIRON_KEY
from tests.installations import INSTALLATIONS, WITH_TWEEN, Views, count, data, install, store_options


@pytest.fixture
def session():
    """Return a ``request.session`` of its own."""
    return BeakerSessionFactoryConfig(type="memory")(DummyRequest())


def _kept(session):
    """Say whether the session is marked as changed."""
    return session.dirty()


def test_it_compares_and_shows_as_a_dict(session):
    """Equality, representation, order and length are a dict's; it has no hash."""
    other = BeakerSessionFactoryConfig(type="memory")(DummyRequest())
    for each in (session, other):
        each.update({"a": 1}, b=2)

    assert session == {"a": 1, "b": 2} == session
    assert session == other
    assert session != {"a": 1}
    assert repr(session) == "{'a': 1, 'b': 2}"
    assert list(session) == list(session.keys()) == ["a", "b"]
    assert list(reversed(session)) == ["b", "a"]
    assert len(session) == 2
    assert isinstance(session, MutableMapping)
    with pytest.raises(TypeError):
        hash(session)


def test_views_and_copies(session):
    """Views follow the session, copies do not."""
    session["a"] = 1
    items, values, copy = session.items(), session.values(), session.copy()
    session["b"] = 2

    assert list(items) == [("a", 1), ("b", 2)]
    assert list(values) == [1, 2]
    assert copy == {"a": 1}
    assert session | {"c": 3} == {"a": 1, "b": 2, "c": 3}
    assert {"c": 3} | session == {"a": 1, "b": 2, "c": 3}


def test_in_place_union(session):
    """``|=`` takes a mapping or pairs."""
    before = session
    session |= {"a": 1}
    session |= [("b", 2)]

    assert session is before
    assert session == {"a": 1, "b": 2}


def test_missing_keys(session):
    """What is not there raises ``KeyError``, or gives the default."""
    for missing in (lambda: session["x"], lambda: session.pop("x"), session.popitem):
        with pytest.raises(KeyError):
            missing()
    with pytest.raises(KeyError):
        del session["x"]

    assert session.get("x", 1) == session.pop("x", 1) == 1
    assert not _kept(session)


def test_changes_are_kept(session):
    """Each way of changing the session marks it; one that changes nothing does not."""
    changes = [
        lambda: session.__setitem__("a", 1),
        lambda: session.setdefault("b", 2),
        lambda: session.update(c=3),
        lambda: session.pop("a"),
        lambda: session.__delitem__("b"),
        session.popitem,
        lambda: session.flash("x"),
        session.clear,
        session.changed,
    ]
    for change in changes:
        session.persist()
        change()
        assert _kept(session)
    session.persist()
    for nothing in (session.clear, session.update, lambda: session.pop("a", None), session.pop_flash):
        nothing()

        assert not _kept(session)


def test_beakers_own_keys_are_not_seen(session):
    """A key of Beaker's own is none of the mapping's, though it is set."""
    session.update(_creation_time=1)

    assert "_creation_time" not in session
    with pytest.raises(KeyError):
        session["_creation_time"]


def test_a_cookie_session_refuses_exclusive():
    """Two requests with the same cookie cannot exclude each other."""
    session = BeakerSessionFactoryConfig(type="cookie", validate_key="k" * 32)(DummyRequest())

    with pytest.raises(BeakerBridgeError, match=r"exclusive\(\) needs a session that is stored on the server"):
        session.exclusive()


def test_set_expiry_takes_seconds(session):
    """``set_expiry`` refuses what is no whole number of seconds."""
    for wrong in (0, -1, 1.5, "60", True, 2**31):
        with pytest.raises(ValueError, match="a whole number"):
            session.set_expiry(wrong)


def test_a_cookies_domain_and_path_are_checked(session):
    """A domain or path that would end the attribute, or begin another one, is refused."""
    for wrong in ("a b", "/;secure", "/\r\nX: y", "/\ud800", 7):
        with pytest.raises(ValueError, match="a cookie's domain must be a string without"):
            session.domain = wrong
        with pytest.raises(ValueError, match="a cookie's path must be a string without"):
            session.path = wrong
    for wrong in (
        "localhost:6543",
        "https://shop.example",
        "*.shop.example",
        "a.example,b.example",
        "shop.example.",
        "/",
    ):
        with pytest.raises(ValueError, match=r"a cookie's domain must be a domain such as \.example\.org, without"):
            session.domain = wrong
    session.domain, session.path = None, "/app"

    assert (session.domain, session.path) == (None, "/app")


def test_a_factory_without_options_is_told(caplog):
    """A memory session without a secret is never silent."""
    BeakerSessionFactoryConfig()

    assert "under ids without a signature" in caplog.text


def test_wrong_options_stop_the_start():
    """Both factories refuse wrong options when they are made."""
    with pytest.raises(SettingsError, match=r"^timeout must be"):
        BeakerSessionFactoryConfig(timeout="1h")
    with pytest.raises(SettingsError, match=r"^session\.timeout must be"):
        session_factory_from_settings({"session.timeout": "1h"})


def test_an_unknown_keyword_is_warned_about(caplog):
    """An option in Python that nobody knows is ignored, with a warning; a near miss stops the start."""
    factory = BeakerSessionFactoryConfig(type="memory", key="sid", data_lock_dir="/nowhere")

    assert factory.options.given == {"type", "key"}
    assert [record.getMessage() for record in caplog.records] == [
        "data_lock_dir is no option that beaker_bridge knows; it is ignored"
    ]
    with pytest.raises(SettingsError, match="did you mean timeout"):
        BeakerSessionFactoryConfig(type="memory", timeuot=60)


def test_the_environs_session_is_found_by_its_id(tmp_path):
    """``environ['beaker.session'].get_by_id`` opens another stored session, as Beaker's does."""

    def look(request):
        request.session["x"] = 1
        session_object = request.environ[ENVIRON_KEY]
        other = session_object.get_by_id(request.params.get("id", "0" * 32))
        return "none" if other is None else other["x"]

    views = Views(look=look, id=lambda request: request.session.id)
    app = TestApp(install("filter", store_options("memory", tmp_path), views))

    assert app.get("/look").text == "none"
    session_id = app.get("/id").text
    app.reset()
    assert app.get("/look", {"id": session_id}).text == "1"


def test_a_vary_that_names_the_cookie_is_left(tmp_path):
    """A response that varies by the cookie, or by everything, already says so."""

    def varied(request):
        request.response.vary = request.params["by"].split(",")
        request.response.text = str(len(request.session))
        return request.response

    app = TestApp(install("filter", store_options("memory", tmp_path), Views(varied=varied, data=data)))

    assert app.get("/varied?by=Accept,cookie").headers.getall("Vary") == ["Accept, cookie"]
    assert app.get("/varied?by=*").headers.getall("Vary") == ["*"]


def test_a_new_id_makes_no_csrf_token(session):
    """``regenerate_id()`` renews the CSRF token where there is one, and makes none."""
    session.regenerate_id()

    assert session == {}


# -- A subclass of what a factory returns ------------------------------------------------------------

FACTORIES = {
    "settings": lambda: session_factory_from_settings({"session.type": "memory", "session.key": "sid"}),
    "python": lambda: BeakerSessionFactoryConfig(type="memory", key="sid"),
}


@pytest.fixture(params=FACTORIES)
def base(request):
    """Return a session factory of each kind."""
    return FACTORIES[request.param]()


def test_a_factory_is_a_class(base):
    """A session is an instance of its factory, which is Pyramid's ``ISessionFactory`` and has the options."""
    session = base(DummyRequest())

    assert isinstance(session, base)
    assert verifyObject(ISession, session)
    assert ISessionFactory.providedBy(base)
    assert base.options.key == "sid"
    # As in pyramid_beaker, but for the package.
    assert str(base) == "<class 'beaker_bridge.PyramidBeakerSessionObject'>"
    assert not isinstance(session, FACTORIES["python"]())


def test_a_factorys_options_can_be_read():
    """The factory of an application has the options of its settings, converted; without any it has None."""
    settings = {"session.auto": "true", "session.key": "k", "session.cookie_on_exception": "false"}
    with testing.testConfig(settings={**settings, "session.constant_csrf_token": "token"}) as config:
        config.include("beaker_bridge")
        options = config.registry.getUtility(ISessionFactory).options

    assert (options.auto, options.key, options.cookie_on_exception) == (True, "k", False)
    assert options.constant_csrf_token == "token"
    assert session_factory_from_settings({}).options is None


def test_a_subclass_overrides_what_it_likes(base):
    """What a subclass overrides is called, calls what it overrides, and keeps attributes of its own."""

    class Mine(base):
        kind = "mine"
        csrf_prefix = "token of "

        def __init__(self, request):
            self.before = "before"
            super().__init__(request)
            self.path_of_request = request.path
            self.invalidated = 0

        def invalidate(self):
            kept = self.get("language")
            super().invalidate()
            self.invalidated += 1
            if kept:
                self["language"] = kept

        def flash(self, msg, queue="", allow_duplicate=True):
            super().flash({"text": msg}, queue, allow_duplicate)

        def get_csrf_token(self):
            return self.csrf_prefix + super().get_csrf_token()

        @property
        def new(self):
            return "very" if super().new else "not"

    session = Mine(DummyRequest(path="/here"))
    session["language"] = "eo"
    session.flash("hello")
    session["other"] = 1
    token = session.get_csrf_token()
    session.invalidate()

    assert (session.before, session.path_of_request, session.invalidated, session.kind) == (
        "before",
        "/here",
        1,
        "mine",
    )
    assert dict(session) == {"language": "eo"}
    assert token.startswith("token of ")
    assert session.new == "very"
    assert isinstance(session, base)
    assert verifyObject(ISession, session)
    assert Mine.options is base.options


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_a_subclass_is_a_session_factory(installation, tmp_path):
    """A subclass serves an application in each installation; one of a subclass does, too."""
    options = store_options("memory", tmp_path)

    def configure(config):
        name = installation.removesuffix("_alone")
        own = options if name in ("settings", "python") else {}
        first = BeakerSessionFactoryConfig(**own) if own else session_factory_from_settings({})

        class Counting(first):
            def __getitem__(self, key):
                return super().__getitem__(key) * 10

        class Mine(Counting):
            def invalidate(self):
                super().invalidate()
                self["ended"] = True

        config.commit()
        config.set_session_factory(Mine)
        Views(count=count, data=data, end=lambda request: request.session.invalidate(), one=one)(config)

    def one(request):
        return request.session["count"]

    app = TestApp(install(installation, options, configure))

    assert app.get("/count").text == "10"
    assert app.get("/one").text == "10"
    app.get("/end")
    assert app.get("/data").text == "[('ended', True)]"


@pytest.mark.parametrize("installation", WITH_TWEEN)
def test_a_streamed_body_with_a_subclass(installation, tmp_path):
    """A body that touches a subclass's session first is saved, as with the factory itself."""

    def stream(request):
        def body():
            yield b"begun"
            request.session["put"] = 1

        request.response.app_iter = body()
        return request.response

    def configure(config):
        own = store_options("memory", tmp_path) if installation == "settings" else {}

        class Mine(session_factory_from_settings({f"session.{name}": value for name, value in own.items()})):
            pass

        config.set_session_factory(Mine)
        Views(count=count, data=data, stream=stream)(config)

    app = TestApp(install(installation, store_options("memory", tmp_path), configure))
    app.get("/count")
    app.get("/stream")

    assert app.get("/data").text == "[('count', 1), ('put', 1)]"


# -- Requests that are hardly any --------------------------------------------------------------------


class Double:
    """A request as unit tests write it: an environ and response callbacks."""

    def __init__(self, **environ):
        self.environ = environ
        self.callbacks = []
        self.add_response_callback = self.callbacks.append

    def answer(self):
        """Call the response callbacks, and return the headers."""
        response = SimpleNamespace(headerlist=[])
        for callback in self.callbacks:
            callback(self, response)
        return response.headerlist


@pytest.mark.parametrize(
    "request_",
    [
        SimpleNamespace(environ={}),
        SimpleNamespace(environ={}, registry=None),
        SimpleNamespace(environ={}, registry=SimpleNamespace(settings={})),
        Double(),
        DummyRequest(),
    ],
)
def test_a_request_needs_an_environ(request_):
    """A request with nothing but an ``environ``, and any registry, gets a session, with all that a session can do."""
    session = BeakerSessionFactoryConfig(type="memory")(request_)
    session["a"] = [1]
    session.flash("message")

    assert session.pop_flash() == ["message"]
    assert session.get_csrf_token() == session["_csrft_"]
    assert session.new
    assert session.accessed()
    assert dict(session, _csrft_=None) == {"a": [1], "_csrft_": None}


def test_response_callbacks_alone():
    """A request with response callbacks alone is saved by the first of them, which adds the cookie."""
    factory = BeakerSessionFactoryConfig(type="memory", key="sid")
    request = Double()
    factory(request)["a"] = 1
    ((name, cookie),) = request.answer()
    again = Double(HTTP_COOKIE=cookie.split(";")[0])
    session = factory(again)

    assert name == "Set-Cookie"
    assert dict(session) == {"a": 1}
    assert not session.new
    assert again.answer() == []


@pytest.mark.parametrize(("option", "headers"), [({}, 1), ({"cookie_on_exception": False}, 0)])
def test_response_callbacks_alone_after_an_exception(option, headers):
    """``cookie_on_exception`` decides there, too, by the request's ``exception``."""
    request = Double()
    request.exception = True
    BeakerSessionFactoryConfig(**option, type="memory")(request)["a"] = 1

    assert len(request.answer()) == headers


def test_response_callbacks_alone_raise():
    """What cannot be saved raises there, too."""
    request = Double()
    BeakerSessionFactoryConfig(type="memory")(request)["bad"] = [[[object()]]]

    with pytest.raises(SessionValueError):
        request.answer()


def test_response_callbacks_alone_under_a_filter():
    """Where our filter carries the session, it commits, and adds the cookie; the policy counts all the same."""
    seen = {}

    def app(environ, start_response):
        request = Double()
        request.environ = environ
        request.exception = True
        factory = session_factory_from_settings({"session.cookie_on_exception": environ["PATH_INFO"][1:]})
        factory(request)["a"] = 1
        seen[environ["PATH_INFO"]] = request.answer()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    filtered = TestApp(SessionMiddleware(app, type="memory"))

    assert "Set-Cookie" not in filtered.get("/false").headers
    assert "Set-Cookie" in filtered.get("/true").headers
    assert seen == {"/false": [], "/true": []}


# -- Scripts -----------------------------------------------------------------------------------------


def _script_site(tmp_path, **options):
    return install("settings_alone", {**store_options("file", tmp_path), **options}, Views(count=count, data=data))


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_script_that_reads_is_not_warned(tmp_path, caplog, auto, known):
    """A script that only read ``request.session`` loses nothing, and is not warned."""
    app = _script_site(tmp_path, auto=auto)
    cookie = TestApp(app).get("/count").headers["Set-Cookie"].split(";")[0] if known else ""
    with prepare(Request.blank("/", headers={"Cookie": cookie}), registry=app.registry) as environment:
        session = environment["request"].session
        read = session.get("count"), dict(session), session.peek_flash()

    assert read[0] == (1 if known else None)
    assert caplog.text == ""


CHANGES = {
    "a key": lambda session: session.update(a=1),
    "a value": lambda session: session["list"].append(1),
    "save()": lambda session: session.save(),
    "a logout": lambda session: session.invalidate(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_script_that_changes_is_warned(tmp_path, caplog, change):
    """A script that changed ``request.session`` is told that nothing is saved, and nothing is."""
    views = Views(begin=lambda request: request.session.update(list=[]), data=data)
    app = install("settings_alone", store_options("file", tmp_path), views)
    browser = TestApp(app)
    cookie = browser.get("/begin").headers["Set-Cookie"].split(";")[0]
    with prepare(Request.blank("/", headers={"Cookie": cookie}), registry=app.registry) as environment:
        change(environment["request"].session)

    (told,) = caplog.records
    assert told.message.startswith("a session that was changed by a script, or first touched after the response")
    assert browser.get("/data").text == "[('list', [])]"


# -- The filter's configuration beside the pipeline --------------------------------------------------


def _session_of(app, cookie=""):
    """Return a script's session of an application."""
    return dict(prepare(Request.blank("/", headers={"Cookie": cookie}), registry=app.registry)["request"].session)


class Wrapping:
    """Middleware that holds what it wraps in an attribute."""

    def __init__(self, attribute, wrapped):
        if attribute:
            setattr(self, attribute, wrapped)
        self.wrapped = wrapped

    def __call__(self, environ, start_response):
        return self.wrapped(environ, start_response)


def _pyramid(own=()):
    """Return an application with session settings of its own, or none."""
    return install("settings", {}, Views(count=count, data=data), **dict(own))


@pytest.mark.parametrize("attribute", [None, "app", "application", "wrap_app", "hidden"])
@pytest.mark.parametrize("own", [{}, {"session.type": "memory", "session.key": "own"}])
def test_a_script_uses_the_filters_configuration(tmp_path, caplog, attribute, own):
    """What passes no filter is served with the configuration of the one that wraps the application."""
    app = _pyramid(own)
    wrapped = Wrapping(attribute, app) if attribute else app
    browser = TestApp(SessionMiddleware(wrapped, **store_options("file", tmp_path)))
    cookie = browser.get("/count").headers["Set-Cookie"].split(";")[0]
    caplog.clear()

    # A filter that was not seen to wrap the application leaves its settings alone.
    if not (attribute == "hidden" and own):
        assert _session_of(app, cookie) == {"count": 1}
    assert "no session is configured" not in caplog.text


PIPELINE = """
[app:main]
paste.app_factory = tests.sites.test_factory:counting_site
pyramid.includes = beaker_bridge
filter-with = session

[filter:session]
use = egg:beaker_bridge#session
type = file
data_dir = %(here)s/sessions
key = sid
"""


def counting_site(_global_config, **settings):
    """Return a site that counts its visits."""
    config = Configurator(settings=settings)
    Views(count=count, data=data)(config)
    return config.make_wsgi_app()


def test_bootstrap_uses_the_pipelines_filter(tmp_path, caplog):
    """A script that ``bootstrap`` starts from the ``.ini``, as ``pshell`` is, reads the sessions of its filter."""
    ini = tmp_path / "site.ini"
    ini.write_text(PIPELINE, encoding="utf-8")
    browser = TestApp(get_app(str(ini)))
    browser.get("/count")
    request = Request.blank("/", cookies=browser.cookies)
    with bootstrap(str(ini), request=request) as environment:
        read = dict(environment["request"].session)

    assert read == {"count": 1}
    assert "no session is configured" not in caplog.text


def test_a_request_that_passes_no_filter_is_saved(tmp_path):
    """A request beside the pipeline reads and writes the filter's sessions."""
    app = _pyramid()
    browser = TestApp(SessionMiddleware(app, **store_options("file", tmp_path)))
    browser.get("/count")
    beside = TestApp(app, cookiejar=browser.cookiejar)

    assert beside.get("/count").text == "2"
    assert browser.get("/count").text == "3"


@pytest.mark.parametrize("several", ["urlmap", "cascade"])
def test_several_applications_under_one_filter(tmp_path, several):
    """Each application that a filter wraps has its configuration; another filter's have theirs."""
    apps = [_pyramid() for _ in range(3)]
    together = Wrapping(None, apps[0])
    # As Paste's URLMap has them, and its Cascade.
    if several == "urlmap":
        together.applications = [((None, "/a"), apps[0]), ((None, "/b"), apps[1])]
    else:
        together.apps = [Wrapping("app", apps[0]), apps[1]]
    browser = TestApp(SessionMiddleware(together, **store_options("file", tmp_path)))
    SessionMiddleware(apps[2], type="memory")
    cookie = browser.get("/count").headers["Set-Cookie"].split(";")[0]

    assert [_session_of(app, cookie) for app in apps] == [{"count": 1}, {"count": 1}, {}]


def test_the_nearest_filter_counts(tmp_path, caplog):
    """Of two filters the inner one makes a request's session, and a script's."""
    app = _pyramid()
    inner = SessionMiddleware(app, **store_options("file", tmp_path))
    browser = TestApp(SessionMiddleware(inner, type="memory"))
    SessionMiddleware(app, type="memory", environ_key="another")
    cookie = browser.get("/count").headers["Set-Cookie"].split(";")[0]

    assert _session_of(app, cookie) == {"count": 1}


def test_a_filter_without_an_application(monkeypatch):
    """A filter in a process without Pyramid has nowhere to record its configuration."""
    monkeypatch.setattr("beaker_bridge.pyramid.recorded_filter.global_registries", SimpleNamespace(last=None))

    assert SessionMiddleware(lambda *_: [], type="memory").options["type"] == "memory"


def test_an_application_of_any_kind_can_be_wrapped():
    """An object that has every attribute, one that raises, one that wraps itself: the filter takes each."""

    class Endless:
        def __getattr__(self, name):
            return Endless()

    class Raising:
        @property
        def app(self):
            raise RuntimeError

    for app in (None, Endless(), Raising(), object()):
        assert SessionMiddleware(app, type="memory").options["type"] == "memory"
    circle = Wrapping("app", None)
    circle.app = circle
    assert SessionMiddleware(circle, type="memory").options["type"] == "memory"


def test_a_recorded_configuration_keeps_nothing_alive(tmp_path):
    """A filter and its application end together, and their configuration with them."""
    app = _pyramid()
    filtered = SessionMiddleware(app, **store_options("file", tmp_path))
    left = [weakref.ref(filtered._config), weakref.ref(app.registry)]
    global_registries.remove(app.registry)
    del app, filtered
    gc.collect()

    assert [reference() for reference in left] == [None, None]
