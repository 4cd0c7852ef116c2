"""What Beaker's sessions have beside the mapping: here it works, or it raises and says what does."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from beaker.session import CookieSession as BeakerCookieSession
from beaker.session import Session as BeakerSession
from beaker.session import SessionObject as BeakerSessionObject
from webtest import TestApp

from beaker_bridge.exceptions import BeakerBridgeError, SessionAttributeError, SessionTooLateError, SettingsError
from beaker_bridge.session.attributes import BEAKERS
from beaker_bridge.session.context import SENT
from tests.installations import INSTALLATIONS, Views, data, install, store_options
from tests.requests import START, Browser, Clock, Request, config_of

STORED = {"type": "memory"}
COOKIE = {"type": "cookie", "validate_key": "v" * 32}
LIFETIME = 30 * 24 * 3600

#: Options that one session cannot set, and what the error names.
FIXED = {
    "timeout": "set_expiry",
    "key": "the option key",
    "use_cookies": "the option use_cookies",
    "type": "the option type",
    "secret": "the option secret",
    "encrypt_key": "the option encrypt_key",
    "validate_key": "the option validate_key",
    "data_serializer": "the option data_serializer",
    "serializer": "the option data_serializer",
    "save_atime": "the option save_accessed_time",
    "invalidate_corrupt": "the option invalidate_corrupt",
    "encrypt_nonce_size": "the option encrypt_nonce_bits",
    "crypto_module": "the option crypto_type",
    "data_dir": "the option data_dir",
    "namespace_class": "the option namespace_class",
}
#: What is no session's business here, and what is used instead.
ABSENT = {
    "lock": "exclusive",
    "unlock": "exclusive",
    "namespace": "get_by_id",
    "accessed_dict": "revert",
    "expire": "set_expiry",
    "cookie": "set_expiry",
    "_create_id": "regenerate_id",
    "_delete_cookie": "delete",
    "_encrypt_data": "encrypt_key",
}


@pytest.fixture(params=INSTALLATIONS)
def installation(request):
    return request.param


@pytest.fixture(params=["memory", "cookie"])
def answer(request, installation, tmp_path):
    """Return a function that returns a site's answer to a request that uses its session, and what the next one finds.

    The session is new, or there already.
    """

    def make(use, *, known):
        def using(request):
            request.session["user"] = "me"
            return use(request)

        views = Views(login=lambda request: request.session.update(user="you"), using=using, data=data)
        app = TestApp(install(installation, store_options(request.param, tmp_path), views))
        if known:
            app.get("/login")
        return app.get("/using"), app.get("/data").text

    return make


def of_request(request):
    return request.session


def of_environ(request):
    # As the application sees it, after Pyramid has seen it.
    assert request.session
    return request.environ["beaker.session"]


def remember(session):
    session.cookie_expires = timedelta(seconds=LIFETIME)


def remember_by_number(session):
    session.cookie_expires = LIFETIME


def remember_as_beaker_does(session):
    session._set_cookie_expires(timedelta(seconds=LIFETIME))
    session._update_cookie_out()


def remember_by_values(session):
    session._set_cookie_values(timedelta(seconds=LIFETIME))


def remember_and_log_in(session):
    session.cookie_expires = timedelta(seconds=LIFETIME)
    session.regenerate_id()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("taken", [of_request, of_environ])
@pytest.mark.parametrize("use", [remember, remember_as_beaker_does])
def test_a_cookie_can_be_given_a_lifetime(answer, use, taken, known):
    """``cookie_expires``, or Beaker's two methods, give this response's cookie its lifetime."""
    response, held = answer(lambda request: use(taken(request)), known=known)

    assert f"Max-Age={LIFETIME}" in response.headers["Set-Cookie"]
    assert held == "[('user', 'me')]"


@pytest.mark.parametrize("options", [STORED, COOKIE])
@pytest.mark.parametrize("use", [remember, remember_by_number, remember_by_values, remember_and_log_in])
def test_a_lifetime_can_be_given_in_several_ways(options, use):
    """As a number, by Beaker's other method, and where a login follows."""
    browser = Browser(config_of(**options))
    browser.write(user="me")
    request = browser.begin()
    use(request.session)
    browser.end(request)

    assert f"Max-Age={LIFETIME}" in request.set_cookie
    assert browser.read() == {"user": "me"}


def set_attribute(name, value):
    return lambda session: setattr(session, name, value)


@pytest.mark.parametrize("options", [STORED, COOKIE])
@pytest.mark.parametrize("face", ["session", "object", "loaded"])
@pytest.mark.parametrize(
    ("use", "present", "absent"),
    [
        (set_attribute("secure", True), "secure", "-"),
        (set_attribute("httponly", False), "SameSite", "HttpOnly"),
        (set_attribute("samesite", "Strict"), "SameSite=Strict", "Lax"),
        (set_attribute("samesite", None), "HttpOnly", "SameSite"),
        (set_attribute("domain", "shop.example"), "Domain=shop.example", "-"),
        (set_attribute("path", "/shop"), "Path=/shop", "-"),
        (lambda session: session._set_domain("shop.example"), "Domain=shop.example", "-"),
        (lambda session: session._set_path("/shop"), "Path=/shop", "-"),
        (lambda session: session._update_cookie_out(), "Path=/", "Max-Age"),
    ],
)
def test_the_cookies_attributes_can_be_set(options, face, use, present, absent):
    """What is set counts for this response's cookie, which is sent though the browser has one."""
    browser = Browser(config_of(**options))
    browser.write(user="me")
    request = browser.begin()
    use(getattr(request, face))
    cookie = browser.end(request).set_cookie.lower()

    assert present.lower() in cookie
    assert absent.lower() not in cookie


def test_they_count_for_this_response():
    """As in Beaker, the next request's cookie is written as the options say; ``set_expiry()`` stays."""
    browser = Browser(config_of(**COOKIE))
    browser.write(a=1)
    request = browser.begin()
    request.session.cookie_expires = 100
    browser.end(request)

    assert "Max-Age=100" in request.set_cookie
    assert "Max-Age" not in browser.write(a=2).set_cookie


@pytest.mark.parametrize("options", [STORED, COOKIE])
def test_what_is_set_after_a_commit_is_sent(options):
    """A cookie's attribute is a change by itself, though the session is committed already."""
    browser = Browser(config_of(**options, save_accessed_time=False))
    request = browser.write(a=1)
    request.session.secure = True
    request.commit()

    assert "; secure" in request.set_cookie


@pytest.mark.parametrize("options", [STORED, COOKIE])
def test_the_options_can_be_read(options):
    """Both the session and its request's show what counts for them, in the option's own form."""
    request = Request(config_of(**options, cookie_expires=500, timeout=600, key="sid"))
    session = request.session
    before = session.cookie_expires
    session.set_expiry(50)
    expiry = session.cookie_expires, session.timeout
    session.cookie_expires = timedelta(seconds=70)

    assert (before, expiry) == (500, (50, 50))
    for shown in (session, request.object, request.loaded):
        assert (shown.cookie_expires, shown.key, shown.type) == (70, "sid", options["type"])
        assert (shown.secure, shown.httponly, shown.samesite) == ("auto", True, "Lax")
        assert (shown.use_cookies, shown.save_atime, shown.data_serializer) == (True, True, "json")
        assert (shown._get_domain(), shown._get_path()) == (None, "/")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("cookie_expires", "soon", "cookie_expires must be true, false, a whole number of seconds"),
        ("samesite", "None", "samesite must be Lax or Strict unless secure = true"),
        ("secure", "perhaps", "secure must be true, false or auto, got 'perhaps'"),
    ],
)
def test_they_are_held_to_the_options_rules(name, value, rule):
    """A value that the option would refuse is refused where it is set, and changes nothing."""
    browser = Browser(config_of())
    browser.write(a=1)
    request = browser.begin()
    with pytest.raises(SettingsError, match=rule):
        setattr(request.session, name, value)

    assert browser.end(request).set_cookie is None


def test_a_lifetime_may_be_shorter_than_the_time_between_renewals():
    """``reissue_time`` is no rule for one response's cookie."""
    request = Request(config_of(reissue_time=300))
    request.session["a"] = 1
    request.session.cookie_expires = 60

    assert "Max-Age=60" in request.commit().set_cookie


@pytest.mark.parametrize("expires", [datetime.fromtimestamp(START + 90, timezone.utc), False])
def test_a_lifetime_is_whatever_the_option_takes(expires):
    """Also a time, or never."""
    request = Request(config_of(clock=Clock()))
    request.session["a"] = 1
    request.session._set_cookie_expires(expires)

    assert request.session.cookie_expires == expires
    assert ("Max-Age=90" in request.commit().set_cookie) is (expires is not False)


def test_a_cookie_that_is_not_to_be_sent():
    """``_update_cookie_out(False)`` takes back what was asked of the cookie, as Beaker's does."""
    browser = Browser(config_of())
    browser.write(a=1)
    request = browser.begin()
    request.session.cookie_expires = 60
    request.session._update_cookie_out(set_cookie=False)

    assert browser.end(request).set_cookie is None


@pytest.mark.parametrize(
    "use",
    [
        lambda session: setattr(session, "cookie_expires", 60),
        lambda session: session._update_cookie_out(),
        lambda session: session._set_cookie_expires(None),
    ],
)
def test_a_cookie_that_is_asked_for_too_late(use):
    """When the headers were sent, none of them can be kept."""
    request = Request(config_of())
    request.loaded._exchange.phase = SENT

    with pytest.raises(SessionTooLateError):
        use(request.session)


@pytest.mark.parametrize("options", [STORED, COOKIE])
def test_where_no_cookie_is_sent_none_can_be_changed(options):
    """With ``use_cookies = false`` it is said that there is no cookie."""
    session = Request(config_of(**options, use_cookies=False)).session
    for use in (lambda: setattr(session, "secure", True), session._update_cookie_out):
        with pytest.raises(SessionAttributeError, match="use_cookies = false"):
            use()

    assert session.secure == "auto"


def faces(options):
    request = Request(config_of(**options))
    return request.session, request.object, request.loaded


@pytest.mark.parametrize("options", [STORED, COOKIE])
@pytest.mark.parametrize("name", FIXED)
def test_an_option_cannot_be_set_for_one_session(options, name):
    """What counts for all sessions raises when it is set, and names the option or the method."""
    for session in faces(options):
        with pytest.raises(SessionAttributeError, match=FIXED[name]) as caught:
            setattr(session, name, 1)
        with pytest.raises(AttributeError):
            delattr(session, name)

        assert isinstance(caught.value, BeakerBridgeError)
        assert caught.value.name == name


@pytest.mark.parametrize("options", [STORED, COOKIE])
@pytest.mark.parametrize("name", ABSENT)
def test_what_a_session_does_not_have(options, name):
    """A method or attribute that would do nothing raises, and names what does it here."""
    for session in faces(options):
        with pytest.raises(SessionAttributeError, match=ABSENT[name]):
            getattr(session, name)

        assert not hasattr(session, name)


@pytest.mark.parametrize("options", [STORED, COOKIE])
def test_an_id_is_not_chosen(options):
    """A session cannot be given an id: ``regenerate_id()`` does that."""
    for session in faces(options):
        before = session.id
        with pytest.raises(AttributeError):
            session.id = "0" * 32

        assert session.id == before


def test_nothing_of_beakers_does_nothing():
    """Each name that Beaker's own sessions have works here, or raises one of our errors."""
    theirs = BeakerSession({}, type="memory"), BeakerCookieSession({"cookie": ""}, validate_key="v")
    theirs[0].save()
    names = {name for session in (*theirs, BeakerSessionObject) for name in dir(session)} - set(dir(dict))
    ours = {name for name in names if not name.startswith("__")} - {"_config"}
    outcomes = {name: _outcome(name) for name in ours}

    assert len(ours) > 50
    assert {name: outcome for name, outcome in outcomes.items() if outcome == "AttributeError"} == {}
    assert {name for name, outcome in outcomes.items() if outcome == "SessionAttributeError"} < set(BEAKERS)


def _outcome(name):
    request = Request(config_of())
    request.session["a"] = 1
    try:
        getattr(request.session, name)
    except BeakerBridgeError as error:
        return type(error).__name__
    except AttributeError:
        return "AttributeError"
    return "works"


def test_attributes_of_the_applications_own_last_for_the_request():
    """What else is set there is found again in the same request, as in Beaker's, and is no part of the session."""
    browser = Browser(config_of())
    request = browser.write(a=1)
    request.session.visitor = "me"
    request.session.is_new = False
    browser.end(request)

    assert (request.session.visitor, request.loaded.is_new) == ("me", False)
    assert browser.read() == {"a": 1}
    assert not hasattr(browser.begin().session, "visitor")


@pytest.mark.parametrize("end", ["regenerate_id", "set_expiry", "exclusive", "load"])
def test_a_session_found_by_its_id_does_all_that_a_session_does(end):
    """It can be moved, given an expiry, locked and read again, on its own."""
    browser = Browser(config_of())
    browser.write(a=1)
    found = browser.begin().session.get_by_id(browser.id)
    if end == "exclusive":
        with found.exclusive():
            found["a"] += 1
    elif end == "load":
        browser.write(a=2)
        found.load()
    elif end == "regenerate_id":
        found.regenerate_id()
        found["a"] = 2
    else:
        found.set_expiry(50)
        found["a"] = 2
    found.commit()
    again = browser.begin().session.get_by_id(found.id)

    assert again == {"a": 2}
    assert again.timeout == (50 if end == "set_expiry" else None)
    assert (browser.id == found.id) is (end != "regenerate_id")


def test_persist_commits_at_once():
    """``persist()`` commits what was changed so far, and ``dirty()`` says whether there is anything to commit."""
    browser = Browser(config_of())
    request = browser.begin()
    clean = request.session.dirty()
    request.session["a"] = 1
    changed = request.session.dirty()
    request.session.persist()
    committed = request.session.dirty()
    request.object.save()

    assert (clean, changed, committed, request.session.dirty()) == (False, True, False, True)
    assert browser.receive(request)
    assert browser.read() == {"a": 1}


def test_persist_raises():
    """What cannot be saved is raised at that line."""
    request = Request(config_of())
    request.session["lock"] = [[object()]]

    with pytest.raises(BeakerBridgeError, match="lock"):
        request.session.persist()
