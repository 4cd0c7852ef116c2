"""CSRF tokens: a form that is refused leaves no trace, and an application's own policy wins."""

from __future__ import annotations

import pytest
from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy, LegacySessionCSRFStoragePolicy
from pyramid.exceptions import BadCSRFToken
from pyramid.interfaces import ICSRFStoragePolicy
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory
from webtest import TestApp

from tests.installations import WITH_TWEEN, Views, data, install, store_options


def form(request):
    """Show the token, as a form's hidden field has it."""
    return request.session.get_csrf_token()


def begin(request):
    """Begin a session that has no token."""
    request.session["user"] = "Ada"
    return "begun"


def user(request):
    return request.session.get("user")


def refused(request):
    """Answer a form that is refused; with what the view itself does to the session."""
    if "flash" in request.params:
        request.session.flash("Please try again.")
    token = request.session.get_csrf_token() if "form" in request.params else "refused"
    return Response(token, 400)


@pytest.fixture(params=WITH_TWEEN)
def site(request, tmp_path):
    """Return what makes an application that asks for a token, in each installation."""

    def make(**options):
        views = Views(form=form, begin=begin, user=user)
        views.exception_views = {BadCSRFToken: refused}

        def configure(config):
            views(config)
            config.set_default_csrf_options(require_csrf=True)

        return TestApp(install(request.param, {**store_options("file", tmp_path), **options}, configure))

    return make


@pytest.mark.parametrize(
    "options",
    [{}, {"type": "cookie", "validate_key": "v" * 32}, {"auto": True}, {"auto": True, "detect_changes": False}],
)
def test_a_refused_form_begins_no_session(site, options):
    """A form that comes without a session has none afterwards: no cookie takes the place of the one in the browser."""
    answers = [site(**options).post("/user", {"csrf_token": token}, status=400) for token in ("", "wrong")]

    assert [answer.headers.getall("Set-Cookie") for answer in answers] == [[], []]


def test_a_refused_form_changes_no_session(site):
    """Of a session that has no token, or has one, nothing is changed."""
    app = site()
    app.get("/begin")
    without = app.post("/user", {"csrf_token": "wrong"}, status=400)
    token = app.get("/form").text
    answer = app.post("/user", {"csrf_token": "wrong"}, status=400)

    assert (without.headers.getall("Set-Cookie"), answer.headers.getall("Set-Cookie")) == ([], [])
    assert app.get("/form").text == token
    assert app.post("/user", {"csrf_token": token}).text == "Ada"


def test_what_the_page_of_a_refusal_adds_is_kept(site):
    """A message, or a form with a token, on the page that refuses, is kept in a new session."""
    app = site()
    app.post("/user?flash=1", status=400)
    flashed = dict(app.cookies)
    app.reset()
    token = app.post("/user?form=1", status=400).text

    assert set(flashed) == {"sid"}
    assert app.post("/user", {"csrf_token": token}).text == "None"


def test_a_session_of_another_kind():
    """A refused form leaves no token in another package's session either, which is the application's choice."""
    config = Configurator()
    config.include("beaker_bridge")
    config.set_session_factory(SignedCookieSessionFactory("secret"))
    config.set_default_csrf_options(require_csrf=True)
    views = Views(user=user, data=data)
    views.exception_views = {BadCSRFToken: refused}
    views(config)
    app = TestApp(config.make_wsgi_app())
    app.post("/user", {"csrf_token": "wrong"}, status=400)

    assert app.get("/data").text == "[]"


def test_a_constant_token(site):
    """``constant_csrf_token`` is the token of a new session, too."""
    app = site(constant_csrf_token="constant")

    assert app.post("/user", {"csrf_token": "constant"}).text == "None"
    assert "Set-Cookie" not in app.post("/user", {"csrf_token": "wrong"}, status=400).headers


class Own(LegacySessionCSRFStoragePolicy):
    """A policy of the application's."""


def another_package(config):
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy())


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_the_applications_own_policy_wins(is_first, autocommit):
    """A policy that the application, or another package of its, has set is the one that is used; none conflicts."""
    own, other = Configurator(autocommit=autocommit), Configurator(autocommit=autocommit)
    steps = [lambda: own.include("beaker_bridge"), lambda: own.set_csrf_storage_policy(Own())]
    others = ["beaker_bridge", another_package]
    for step in reversed(steps) if is_first else steps:
        step()
    for package in reversed(others) if is_first else others:
        other.include(package)
    own.commit()
    other.commit()

    assert type(own.registry.getUtility(ICSRFStoragePolicy)) is Own
    assert type(other.registry.getUtility(ICSRFStoragePolicy)) is CookieCSRFStoragePolicy
