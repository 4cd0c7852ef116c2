"""The session factories, and the end of a request that no tween ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from beaker.session import SessionObject as BeakerSessionObject
from pyramid.interfaces import ISessionFactory
from zope.interface import implementer

from beaker_bridge.environ import (
    ENVIRON_KEY,
    SessionObject,
    StreamedBody,
    binding_of,
    commit_late,
    discard,
    headers_left,
    is_carried,
    is_streamed,
    let_go,
    make_ready,
    with_session_headers,
)
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.policy import Policy, keeps_session
from beaker_bridge.profile import Binding, SessionProfile
from beaker_bridge.pyramid_session import PyramidSession
from beaker_bridge.settings import Given, SessionOptions, differing, given, prefixed, read_options

log = logging.getLogger(__name__)

#: Set in the environ by the tween: it decides whether the session is kept, and commits it.
TWEEN = "beaker_bridge.tween"
#: The response of this request, for a session that no middleware carries.
RESPONSE = "beaker_bridge.response"


def BeakerSessionFactoryConfig(**options: Any) -> SessionFactory:  # noqa: N802 -- pyramid_beaker's name
    """Return a Pyramid session factory.

    Args:
        options: the options of :class:`SessionOptions`, without a prefix.

    Raises:
        SettingsError: one or more options are wrong.
    """
    if not options:
        log.warning("sessions are kept in memory, under ids without a signature: no option is given")
    return SessionFactory(read_options(given(options)))


def session_factory_from_settings(settings: Mapping[str, Any]) -> SessionFactory:
    """Return a Pyramid session factory.

    Args:
        settings: an application's settings; those under ``session.`` and ``beaker.session.`` count.
            Where there are none, the session must come from a filter in the pipeline.

    Raises:
        SettingsError: one or more options are wrong.
    """
    found: dict[str, Given] = prefixed(settings)
    return SessionFactory(read_options(found) if found else None)


@implementer(ISessionFactory)
class SessionFactory:
    """Makes ``request.session``.

    Args:
        options: what a session is made with where the environ has none; nothing, if it must have one.
    """

    def __init__(self, options: SessionOptions | None) -> None:
        self.options = options
        self._profile = SessionProfile(options) if options else None
        self._csrf_token = options.constant_csrf_token if options else None
        self._compared = False

    def __call__(self, request: Any) -> PyramidSession:
        """Return the session of a request.

        Raises:
            SettingsError: nothing has configured a session.
        """
        environ = request.environ
        session_object = environ.get(ENVIRON_KEY)
        if session_object is None:
            session_object = environ[ENVIRON_KEY] = SessionObject(environ, self._own_profile(), carried=False)
        registry = getattr(request, "registry", None)
        if registry is not None and registry.has_listeners:
            binding_of(session_object, environ).notify = registry.notify
        elif TWEEN not in environ or type(session_object) is not SessionObject:
            # What the tween has done for ours.
            make_ready(session_object, environ)
        profile = session_object.__dict__["profile"]
        if not (self._compared or profile is self._profile):
            self._compare(profile.options)
        # Where our middleware and our tween do it all, which is most often, there is nothing to complete.
        if TWEEN not in environ or not is_carried(session_object):
            _Completion(session_object, self.options).follow(request)
        return PyramidSession(session_object, self._csrf_token)

    def _own_profile(self) -> SessionProfile:
        if self._profile is None:
            raise SettingsError(
                f"no session is configured: environ[{ENVIRON_KEY!r}] is missing and the settings have no session."
                " option. Is the session filter left out of the pipeline (filter-with), is its environ_key another,"
                " or is this a subrequest or a script, which passes no filter?"
            )
        return self._profile

    def _compare(self, used: SessionOptions) -> None:
        """Warn once where settings are given to no effect, since a filter configures the session."""
        self._compared = True
        if self.options is None:
            return
        # What a filter leaves open, the settings may say.
        open_options = {"cookie_on_exception", "constant_csrf_token"} - used.given
        names = [name for name in differing(used, self.options) if name not in open_options]
        if names:
            log.warning(
                "a filter configures the session; the settings' own session options are ignored where they differ: %s",
                ", ".join(names),
            )


# -- The end of a request that no tween ends ---------------------------------------------------------


def remember_response(request: Any, response: Any) -> None:
    """Remember a request's response: a response callback."""
    request.environ[RESPONSE] = response


class _StreamedResponse(StreamedBody):
    """The same for a response whose headers have left when it is iterated over."""

    def __iter__(self) -> Iterator[bytes]:
        headers_left(self._object)
        return super().__iter__()


class _Completion:
    """Completes the response of a request, as late as Pyramid allows, where nobody else does.

    Response callbacks that are added later, and subscribers of ``NewResponse``, may still change the
    session; a finished callback comes after both, and the remembered response has not been sent yet.

    Args:
        session_object: the environ's session.
        options: the session factory's own options.
    """

    def __init__(self, session_object: BeakerSessionObject, options: SessionOptions | None) -> None:
        self._object = session_object
        self._options = options
        ours = isinstance(session_object, SessionObject)
        # Beaker's own middleware adds the cookie, and nothing else.
        self._adds_cookie = ours and not is_carried(session_object)
        self._adds_headers = self._adds_cookie or not ours

    def follow(self, request: Any) -> None:
        """Have the request completed, once, where our middleware and our tween do not do it all."""
        binding = binding_of(self._object)
        if (self._adds_headers or TWEEN not in request.environ) and not binding.followed:
            binding.followed = True
            request.add_response_callback(remember_response)
            request.add_finished_callback(self._complete)

    def _complete(self, request: Any) -> None:
        environ = request.environ
        response = environ.pop(RESPONSE, None)
        # In a finished callback, this is the exception that leaves the application.
        failed = sys.exc_info()[1] is not None
        if failed or (TWEEN not in environ and not is_kept(request, self._object, self._options)):
            discard(self._object, environ)
        if response is not None and self._adds_headers:
            commit_late(self._object, environ)
            response.headerlist = with_session_headers(self._object, response.headerlist, cookie=self._adds_cookie)
            self._end(response, environ)
        elif self._adds_cookie and not failed:
            discard(self._object, environ)
            log.warning("a session that was first touched after the response callbacks is not saved: see the tween")

    def _end(self, response: Any, environ: Mapping[str, Any]) -> None:
        """Have saved what a body changes that is made while it is sent; otherwise nothing more happens."""
        if is_streamed(response.app_iter, environ):
            # WebOb takes a new body for one of another length.
            length = response.content_length
            response.app_iter = _StreamedResponse(response.app_iter, self._object, environ)
            response.content_length = length
        elif self._adds_cookie:
            let_go(self._object)


def is_kept(request: Any, session_object: BeakerSessionObject, fallback: SessionOptions | None) -> bool:
    """Say whether a request's session is kept, after its view or exception view has answered.

    Args:
        request: the Pyramid request.
        session_object: the environ's session.
        fallback: the options of the settings, for what a filter leaves open.
    """
    exception = getattr(request, "exception", None)
    if exception is None:
        return True
    return not _will_be_retried(request, exception) and keeps_session(
        _policy(binding_of(session_object), fallback), request, exception
    )


def _policy(binding: Binding, fallback: SessionOptions | None) -> Policy:
    options = binding.profile.options
    if "cookie_on_exception" in options.given or fallback is None:
        return options.cookie_on_exception
    return fallback.cookie_on_exception


def _will_be_retried(request: Any, exception: BaseException) -> bool:
    """Say whether pyramid_retry, if it is there, will repeat this attempt."""
    if "retry.attempts" not in request.environ:
        return False
    from pyramid_retry import is_error_retryable

    return bool(is_error_retryable(request, exception))
