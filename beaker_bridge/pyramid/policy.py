"""The answer to ``cookie_on_exception``: is a session kept after an exception?"""

from __future__ import annotations

from pyramid.interfaces import IResponse

from beaker_bridge.options.types import Policy

#: The first status of a server error.
SERVER_ERROR = 500


def keeps_session(policy: Policy, request: object, exception: BaseException | None) -> bool:
    """Say whether a request's session, and its cookie, are kept.

    Args:
        policy: the option ``cookie_on_exception``: true, false, ``'http'`` (keep for exceptions
            that are responses below 500: redirects, 403, 404) or ``f(request, exception)``.
        request: the Pyramid request, passed to a policy that is a function.
        exception: the exception that an exception view answered, or None.

    Returns:
        True to keep the session, False to leave no trace of the request.

    Raises:
        Whatever a policy that is a function raises.
    """
    if exception is None:
        return True
    if policy == "http":
        return bool(IResponse.providedBy(exception)) and getattr(exception, "status_int", SERVER_ERROR) < SERVER_ERROR
    if callable(policy):
        return bool(policy(request, exception))
    return policy
