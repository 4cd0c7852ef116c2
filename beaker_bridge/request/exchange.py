"""One request and its session: loaded when it is first touched, committed, discarded, finished.

Behind the ``SessionObject`` in the WSGI environ, whether our middleware, Beaker's own or the session factory made it,
there is one :class:`Exchange`. It holds all that is known of the request's session.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from beaker.session import SessionObject as BeakerSessionObject

from beaker_bridge.exceptions import failure_of
from beaker_bridge.logs import fields
from beaker_bridge.options.types import COOKIE
from beaker_bridge.request.headers import Headers, guarded, length_of, varied
from beaker_bridge.session.base import SafeSession
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.context import OPEN, OVER, SENT, SessionContext
from beaker_bridge.session.cookie import CookieSession
from beaker_bridge.session.stored import (
    MemorySession,
    StandaloneSession,
    StoredSession,
    standalone_session,
)

log = logging.getLogger(__name__)

#: The session's key in the environ, as Beaker has it.
ENVIRON_KEY = "beaker.session"

#: The finishers, which add the session's headers to the response: our middleware, Beaker's, the session factory.
MIDDLEWARE, BEAKER, FACTORY = "middleware", "beaker", "factory"

#: The types whose sessions are of a class of their own.
_CLASSES: dict[str | None, type[SafeSession]] = {COOKIE: CookieSession, "memory": MemorySession}


class Exchange(SessionContext):
    """One request, and its session; of each attempt that pyramid_retry makes at a request, one of its own.

    Args:
        environ: the request's WSGI environ.
        config: the configuration.
        finisher: adds the session's headers to the response: :data:`MIDDLEWARE`, :data:`BEAKER` or :data:`FACTORY`.
    """

    #: The attempt at the request, as pyramid_retry counts them.
    attempt = 0
    #: The registry whose tween decides whether the session is kept and commits it.
    tween: Any = None
    #: Whether a finished callback completes the response, and whether a response callback remembers it.
    has_completion = False
    is_remembered = False
    #: The response, once it is remembered.
    response: Any = None
    #: Whether Pyramid has answered: the next commit by Beaker's middleware is the last one.
    is_answered = False
    #: Whether the body is made while it is sent, and its length in bytes as the headers have it.
    is_streamed = False
    body_length: str | None = None
    #: The route of the request, if Pyramid has found one.
    route: Any = None
    #: Whether a form was refused for its CSRF token: the option ``auto`` then begins no session.
    is_refused = False

    def __init__(self, environ: Mapping[str, Any], config: SessionConfig, finisher: str) -> None:
        self.environ = environ
        self.config = config
        self.finisher = finisher
        self.phase = OPEN
        #: The session, once it is loaded.
        self.session: SafeSession | None = None
        #: Whether WSGI code has called Beaker's ``save()`` since the last commit.
        self.is_save_asked = False
        #: Beaker's dict of the ``Cookie`` header, into which the cookie for the response goes.
        self.cookies: dict[str, Any] = {}

    def load(self) -> SafeSession:
        """Return the session, which is loaded when it is first touched."""
        session = self.session
        if session is None:
            cookies = self.cookies
            # Read the header only now: other middleware may set it until then.
            cookies["cookie"] = self.environ.get("HTTP_COOKIE")
            session_class = _CLASSES.get(self.config.options.type, StoredSession)
            session = self.session = session_class(cookies, self)
        return session

    # -- Commit and discard --------------------------------------------------------------------------

    @property
    def loses_changes(self) -> bool:
        """Whether anything would be lost if the session were not committed."""
        session = self.session
        return session is not None and (self.is_save_asked or session.was_invalidated or session.has_changed())

    def ask_to_save(self) -> None:
        """Have the session stored at the next commit, also if it is new and empty, as Beaker's ``save()`` does.

        Raises:
            SessionTooLateError: the request is over.
        """
        if self.phase is OVER:
            self.load().force()
        self.is_save_asked = True

    def commit(self) -> None:
        """Write what changed in the session since the last commit; idempotent.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it.
        """
        session = self.session
        if session is None:
            return
        if self.is_save_asked:
            session.force()
            self.is_save_asked = False
        elif self.config.options.auto:
            self._force_by_option(session)
        # Look here whether anything is pending: each request comes here three times.
        if session._state.pending or session._changes:
            session.commit()

    def _force_by_option(self, session: SafeSession) -> None:
        if len(session) or not (self.is_refused and session._state.is_new):
            session.force_by_option()

    def commit_or_discard(self) -> None:
        """Commit while the answer can still be an error: a failure is raised, and discards the request.

        Raises:
            BeakerBridgeError: as :meth:`commit`.
        """
        try:
            self.commit()
        except BaseException:
            self.discard()
            raise

    def commit_late(self) -> None:
        """Commit when the answer can no longer become an error: a failure is logged, and discards the request."""
        try:
            self.commit_or_discard()
        except Exception as error:
            extra = fields(store=self.config.options.type, failure=failure_of(error))
            log.exception("a session that was changed too late for an error page is not saved", extra=extra)

    def commit_before_error(self) -> None:
        """Commit before an error page (``exc_info``), which is sent even if the commit fails.

        If it replaces an answer that was begun, nothing more is committed; the cookie of that answer's commit stays.
        """
        if self.phase is OPEN:
            self.commit_late()
        else:
            self.discarded = True

    def persist(self) -> None:
        """Commit, as Beaker's own middleware asks for before the headers are sent; what fails later is logged.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses it; nothing is saved any more.
        """
        session = self.session
        try:
            # Allow for an error page of other middleware, after the request has failed: it commits nothing.
            if session is not None and self.phase is not OVER:
                if self.config.options.auto:
                    self._force_by_option(session)
                is_asked, self.is_save_asked = self.is_save_asked, False
                session.save(accessed_only=not is_asked)
        except BaseException:
            # Expect no body to end with: the server gets no headers.
            self.is_streamed = False
            raise
        finally:
            self.notice_end()

    def discard(self) -> None:
        """Discard the request: it leaves no trace, whatever touches its session afterwards. This is final."""
        super().discard()
        self.cookies["set_cookie"] = False

    # -- The end -------------------------------------------------------------------------------------

    def finish(self, headers: Headers, *, streamed: bool = False) -> Headers:
        """Commit what is left, and return the response's headers with those that its session needs.

        The request is over with these, or, if its body is streamed, when that ends. Beaker's own middleware commits
        once more, and adds the cookie itself.

        Args:
            headers: the response's headers, which are not changed.
            streamed: whether the body is made while it is sent, and may be the first to read the session.

        Raises:
            BeakerBridgeError: the store, the serializer or a limit refuses a change; nothing is saved any more.
        """
        if self.session is None:
            headers = varied(headers) if streamed else headers
        else:
            if not (streamed and self.sent):
                self.commit_or_discard()
            headers = self.with_session_headers(headers)
        if streamed:
            self.is_streamed, self.body_length = True, length_of(headers)
        if self.finisher is BEAKER:
            self.is_answered = True
        elif streamed:
            self.phase = SENT
        else:
            self.end()
        return headers

    def with_session_headers(self, headers: Headers) -> Headers:
        """Return a response's headers with those that a loaded session needs."""
        for name, _ in headers:
            if name.lower() == "vary":
                headers = varied(headers)
                break
        else:
            headers = [*headers, ("Vary", "Cookie")]
        cookies = self.cookies
        if cookies["set_cookie"]:
            if cookies.get("dropped_out"):
                # Delete before setting, for clients that take both for the same cookie.
                headers.append(("Set-Cookie", cookies["dropped_out"]))
            if self.finisher is not BEAKER:
                headers.append(("Set-Cookie", cookies["cookie_out"]))
            headers = self._guarded(headers)
        return headers

    def _guarded(self, headers: Headers) -> Headers:
        """Return headers with which no shared cache keeps the cookie; log once a route what would have let it."""
        now, route = self.config.clock(), self.route
        headers, shared = guarded(headers, now)
        # Log once for all paths without a route: a path may be anything.
        if shared and self.config.log_lines.is_due(("shared", route and route.name), math.inf, now):
            log.warning(
                "%s sets the session's cookie, and lets caches keep the page (%s): it is sent with Cache-Control:"
                " private. Do without the session there, or without http_cache",
                f"route {route.name!r} ({route.pattern})" if route else f"a page at {_shown_path(self.environ)}",
                ", ".join(shared),
                extra=fields(failure="shared_cache"),
            )
        return headers

    def mark_headers_sent(self) -> None:
        """Record that the headers were sent: cookies can no longer be set."""
        if self.phase is OPEN:
            self.phase = SENT

    def notice_end(self) -> None:
        """Record that Beaker's own middleware sends the headers now, if Pyramid has answered."""
        if self.is_answered and self.finisher is BEAKER:
            if self.is_streamed:
                self.mark_headers_sent()
            else:
                self.end()

    def close(self) -> None:
        """Commit the rest of a request that needs no more headers, and end it.

        Raises:
            BeakerBridgeError: as :meth:`finish`.
        """
        self.commit_or_discard()
        self.end()

    def end(self) -> None:
        """Record that the request is over, and break its reference cycles, to spare the garbage collector."""
        self.phase = OVER
        # Release the environ, which holds the session, but keep what a session is loaded from.
        self.environ = {"HTTP_COOKIE": self.environ.get("HTTP_COOKIE")}
        session = self.session
        if session is not None:
            session._exchange = context = SessionContext(self.config, self.notify, self.locks)
            context.phase, context.discarded = OVER, self.discarded

    def reopen(self) -> None:
        """Record that the body of a response goes on, or is closed: its changes are committed after all."""
        self.phase = SENT
        if self.session is not None:
            self.session._exchange = self

    # -- Other sessions ------------------------------------------------------------------------------

    def stored_session(self, session_id: str) -> StandaloneSession | None:
        """Return the stored session of an id, or None. Its ``commit()`` writes what is changed.

        Raises:
            BeakerBridgeError: sessions are in cookies, where none can be found by its id.
            SessionStoreError: the store cannot be reached.
        """
        if self.locks is None:
            self.locks = {}
        session = standalone_session(self.config, session_id, self.notify, self.locks)
        return None if session.is_new else session

    def open(self, session_id: str) -> bool:
        """Make the stored session of an id this request's own, as if its browser had sent that; not with cookies.

        Returns:
            Whether there is one; else the request keeps the session that it has.

        Raises:
            SessionStoreError: as :meth:`stored_session`.
        """
        session = StoredSession(self.cookies, exchange=self, session_id=session_id)
        if session.is_new:
            return False
        self.session = session
        return True


def _shown_path(environ: Mapping[str, Any]) -> str:
    """Return the first segment of a path, since the rest may hold an id or a user's name."""
    segments = environ.get("PATH_INFO", "").split("/", 2)[1:]
    return "/".join([environ.get("SCRIPT_NAME", ""), *segments[:1], *("…" for _ in segments[1:])])


class SessionObject(BeakerSessionObject):
    """Beaker's lazy proxy of a session, over an exchange.

    Args:
        environ: as :class:`Exchange`'s.
        config: as :class:`Exchange`'s.
        finisher: as :class:`Exchange`'s.
    """

    exchange: Exchange

    def __init__(self, environ: Mapping[str, Any], config: SessionConfig, finisher: str = MIDDLEWARE) -> None:
        self._begin(Exchange(environ, config, finisher))

    def _begin(self, exchange: Exchange) -> None:
        # Write to the __dict__: Beaker's proxy sets attributes on the session. Its middleware reads the cookie from
        # ``_headers``.
        state = self.__dict__
        state["exchange"], state["_headers"] = exchange, exchange.cookies

    def begin_attempt(self, attempt: int, environ: Mapping[str, Any]) -> None:
        """Begin another attempt at the request, as pyramid_retry makes them: from the store, after a discard.

        Args:
            attempt: its number.
            environ: the request's WSGI environ.
        """
        before = self.exchange
        if before.discarded:
            # Leave the earlier one to the threads of that attempt, for which the request is over.
            before.end()
            self._begin(Exchange(environ, before.config, before.finisher))
        self.exchange.attempt = attempt

    def _session(self) -> SafeSession:
        return self.exchange.load()

    def accessed(self) -> bool:
        """Say whether the session is loaded."""
        exchange = self.exchange
        if exchange.session is None:
            exchange.notice_end()
            return False
        return True

    def dirty(self) -> bool:
        """Say whether ``save()`` or ``delete()`` have been called since the last commit."""
        return self.exchange.is_save_asked

    def save(self) -> None:
        """Have the session stored at the next commit."""
        self.exchange.ask_to_save()

    def delete(self) -> None:
        """Delete the session at the next commit."""
        self._session().delete()
        self.exchange.ask_to_save()

    def persist(self) -> None:
        """Commit what was changed."""
        self.exchange.persist()

    def get_by_id(self, id: str) -> StandaloneSession | None:  # noqa: A002 -- Beaker's name
        """Return the stored session of an id, or None. Its ``commit()`` writes what is changed."""
        return self.exchange.stored_session(id)
