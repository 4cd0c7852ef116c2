"""CSRF tokens, as Pyramid keeps them in the session; but a form that is refused begins no session."""

from __future__ import annotations

from typing import Any

from pyramid.csrf import LegacySessionCSRFStoragePolicy
from pyramid.interfaces import ICSRFStoragePolicy

from beaker_bridge.pyramid.isession import CSRF_TOKEN, PyramidSession


class SessionCSRFStoragePolicy(LegacySessionCSRFStoragePolicy):
    """Pyramid's default policy, which leaves no token in a session that had none when a check fails.

    A browser sends another site's form without our ``SameSite`` cookie. Pyramid's check makes a token to compare with,
    and so a new session, whose cookie would replace the visitor's own: any site could log visitors out.
    """

    def check_csrf_token(self, request: Any, supplied_token: str) -> bool:
        """Say whether a token is the session's."""
        session = request.session
        had_token = CSRF_TOKEN in session
        if super().check_csrf_token(request, supplied_token):
            return True
        if not had_token:
            session.pop(CSRF_TOKEN, None)
            if isinstance(session, PyramidSession):
                session._exchange.is_refused = True
        return False


def use_session_csrf_policy(registry: Any) -> None:
    """Have an application check CSRF tokens so, unless it has a policy of its own.

    Register it without an action, which would conflict with that of another package.
    """
    if type(registry.queryUtility(ICSRFStoragePolicy)) is LegacySessionCSRFStoragePolicy:
        registry.registerUtility(SessionCSRFStoragePolicy(), ICSRFStoragePolicy)
