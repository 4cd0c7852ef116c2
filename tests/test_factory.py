"""``request.session`` as a mapping, and the session factories."""

from collections.abc import MutableMapping

import pytest
from pyramid.testing import DummyRequest
from webtest import TestApp

from beaker_bridge import (
    BeakerBridgeError,
    BeakerSessionFactoryConfig,
    SettingsError,
    session_factory_from_settings,
)
from beaker_bridge.environ import ENVIRON_KEY
from tests.installations import Views, data, install, store_options


@pytest.fixture
def session():
    """Return a ``request.session`` of its own."""
    return BeakerSessionFactoryConfig(type="memory")(DummyRequest())


def _kept(session):
    """Say whether the session is marked as changed."""
    return session._loaded._dirty


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
    loaded = session._loaded
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
        loaded._dirty = False
        change()
        assert _kept(session)
    loaded._dirty = False
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
        with pytest.raises(ValueError, match="a cookie's domain must be a text without"):
            session.domain = wrong
        with pytest.raises(ValueError, match="a cookie's path must be a text without"):
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
