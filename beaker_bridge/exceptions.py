"""The exceptions of this package: one family, whose members carry data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Beaker has no types: with its class as the base, a type checker would take any attribute for granted.
    BeakerException = Exception
else:
    from beaker.exceptions import BeakerException


class BeakerBridgeError(BeakerException):
    """The root of every exception that this package raises on purpose; also one of Beaker's.

    Args:
        message: the sentence for the log or the page.
        name: the option or session key that is wrong, if there is one.
        value: the offending value (never a secret).
        original: the exception that was the cause, if there was one.
    """

    #: What failed, in a word, as events and log lines have it.
    failure: str = "other"
    #: Whether subscribers were notified of it.
    is_reported = False

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        value: object = None,
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.value = value
        self.original = original


class SettingsError(BeakerBridgeError, ValueError):
    """One or more options are wrong: the application must not start.

    ``errors`` holds each fault as an error of its own, so that all of them are reported at once.
    """

    failure = "settings"

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        value: object = None,
        errors: Sequence[SettingsError] = (),
    ) -> None:
        super().__init__(message, name=name, value=value)
        self.errors: tuple[SettingsError, ...] = tuple(errors) or (self,)

    @classmethod
    def of(cls, errors: Sequence[SettingsError]) -> SettingsError:
        """Return one error that reports all of ``errors``, which must not be empty."""
        if len(errors) == 1:
            return errors[0]
        lines = "\n".join(f"  {error}" for error in errors)
        return cls(f"{len(errors)} options are wrong:\n{lines}", errors=errors)


class SiteError(BeakerBridgeError):
    """A site cannot be found in its file."""

    failure = "settings"


class SessionStoreError(BeakerBridgeError):
    """The store cannot be reached, or refused the work; nothing is known about the session.

    ``name`` is the store's kind (``'file'``, ``'ext:redis'``), ``original`` what its client raised. ``failure`` is
    ``unavailable``, ``connection_lost``, ``breaker_open`` (it was not asked, since it could not be reached a moment
    ago) or ``refused``.
    """

    failure = "unavailable"


class CacheStoreError(BeakerBridgeError):
    """The store of a cache region cannot be used, and its ``store_error`` is ``raise``.

    ``name`` is the region, ``original`` what the store or its client raised.
    """

    failure = "unavailable"


class SessionValueError(BeakerBridgeError):
    """A key or a value that the serializer refuses; ``name`` is the key in the session."""

    failure = "value"


class SessionTooLargeError(BeakerBridgeError):
    """The session is larger than its cookie or its store can hold; ``value`` is its size in bytes."""

    failure = "too_large"


class SessionConflictError(BeakerBridgeError):
    """Other requests changed the session each time that this one tried to merge its changes, or held its lock.

    ``value`` is the number of tries, if it was the merge that was given up.
    """

    failure = "conflict"


class SessionNotFoundError(BeakerBridgeError, LookupError):
    """There is no live session of an id that a script has named."""

    failure = "not_found"


class SessionAttributeError(BeakerBridgeError, AttributeError):
    """An attribute of Beaker's sessions, ``name``, that cannot be set for one session, or that ours do not have."""

    # Override AttributeError's own ``name``, which a copy of the error would lack.
    name: str | None = None


class SessionTooLateError(BeakerBridgeError):
    """The session was changed after the headers were sent, and the change needs a cookie; or after its request.

    ``exclusive()`` works at any time.
    """

    failure = "too_late"


class SessionLimitError(BeakerBridgeError):
    """The user has ``limit`` sessions already, and ``on_limit`` is ``refuse``; ``value`` is the limit."""

    failure = "limit"


class DamagedRecordError(BeakerBridgeError):
    """A record or a cookie that cannot be read as a session; ``value`` is its size in bytes."""

    failure = "damaged"


def failure_of(error: BaseException) -> str:
    """Return what failed, in a word: an error's ``failure``, or the name of the class of one that is not ours."""
    return error.failure if isinstance(error, BeakerBridgeError) else type(error).__name__
