"""The pure function that answers ``cookie_on_exception``."""

import pytest
from pyramid.httpexceptions import (
    HTTPForbidden,
    HTTPFound,
    HTTPInternalServerError,
    HTTPNotFound,
    HTTPServiceUnavailable,
)
from pyramid.interfaces import IResponse
from zope.interface import implementer

from beaker_bridge.pyramid.policy import keeps_session


@implementer(IResponse)
class StatuslessError(Exception):
    """An application's own response that does not say its status as WebOb does."""


@pytest.mark.parametrize("policy", [True, False, "http", lambda request, exception: False])
def test_without_an_exception_the_session_is_kept(policy):
    """Where no exception view answered, the policy is not asked."""
    assert keeps_session(policy, object(), None) is True


@pytest.mark.parametrize("policy", [True, False])
@pytest.mark.parametrize("exception", [ValueError(), HTTPFound("/"), HTTPInternalServerError()])
def test_true_and_false_hold_for_every_exception(policy, exception):
    """True keeps the session after each exception, false after none."""
    assert keeps_session(policy, object(), exception) is policy


@pytest.mark.parametrize(
    ("exception", "kept"),
    [
        (HTTPFound("/"), True),
        (HTTPForbidden(), True),
        (HTTPNotFound(), True),
        (HTTPInternalServerError(), False),
        (HTTPServiceUnavailable(), False),
        (ValueError("a bug"), False),
        (StatuslessError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_http_keeps_for_responses_below_500(exception, kept):
    """``http`` keeps the session for a redirect, 403 or 404 that is raised, and for no other exception."""
    assert keeps_session("http", object(), exception) is kept


def test_a_response_of_499_and_one_of_500():
    """The bound of ``http`` is the first status that is the server's own fault."""
    below, from_there_on = HTTPNotFound(), HTTPNotFound()
    below.status, from_there_on.status = "499 Odd", "500 Ours"

    assert keeps_session("http", object(), below) is True
    assert keeps_session("http", object(), from_there_on) is False


@pytest.mark.parametrize(("answer", "kept"), [(True, True), (1, True), ("", False), (None, False)])
def test_a_function_decides(answer, kept):
    """A policy that is a function is handed the request and the exception, and its answer counts."""
    request, exception, asked = object(), KeyError("k"), []

    def policy(*arguments):
        asked.append(arguments)
        return answer

    assert keeps_session(policy, request, exception) is kept
    assert asked == [(request, exception)]


def test_what_a_function_raises_is_raised():
    """A policy that fails is a bug of the application's, and is not hidden."""

    def policy(request, exception):
        raise LookupError("in the policy")

    with pytest.raises(LookupError, match="in the policy"):
        keeps_session(policy, object(), ValueError())
