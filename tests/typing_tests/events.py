"""Events and errors, and their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beaker_bridge import (
    BeakerBridgeError,
    BreakerClosed,
    BreakerOpened,
    DamagedRecordError,
    SessionEvent,
    SessionExpired,
    SessionLimitError,
    SessionMerged,
    SessionNotFoundError,
    SessionNotSaved,
    SessionRevoked,
    SessionStoreError,
    SettingsError,
    StoreEvent,
    StoreFailed,
)
from typing_extensions import assert_type


def ended(event: SessionExpired | SessionRevoked) -> None:
    """A session has ended."""
    assert_type(event.session_id, str)
    assert_type(event.data, Mapping[str, Any])
    if isinstance(event, SessionRevoked):
        assert_type(event.reason, str)


def saved(event: SessionEvent) -> None:
    """A session was merged, or was not saved."""
    if isinstance(event, SessionMerged):
        assert_type(event.conflicts, frozenset[str])
        assert_type(event.tries, int)
    elif isinstance(event, SessionNotSaved):
        assert_type(event.reason, str)
        assert_type(event.tries, int | None)


def store(event: StoreEvent) -> None:
    """A store has failed, or is back."""
    assert_type(event.store, str)
    if isinstance(event, StoreFailed):
        assert_type(event.step, str)
    elif isinstance(event, BreakerOpened):
        assert_type(event.server, str)
        assert_type(event.failure, str)
    elif isinstance(event, BreakerClosed):
        assert_type(event.seconds, float)


def errors() -> None:
    """Errors carry data."""
    try:
        saved(SessionExpired("0" * 32, {}))
    except SettingsError as error:
        assert_type(error.errors, tuple[SettingsError, ...])
        value_error: ValueError = error
        print(value_error)
    except SessionNotFoundError as error:
        lookup_error: LookupError = error
        print(lookup_error)
    except (SessionStoreError, SessionLimitError, DamagedRecordError) as error:
        assert_type(error.name, str | None)
        assert_type(error.value, object)
        assert_type(error.original, BaseException | None)
    except BeakerBridgeError as error:
        assert_type(error.failure, str)
