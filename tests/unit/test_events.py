"""What an application can subscribe to."""

import pytest
from pyramid.config import Configurator

from beaker_bridge.events import SessionEvent, SessionExpired, SessionInvalidated, SessionMerged


@pytest.mark.parametrize("kind", [SessionExpired, SessionInvalidated, SessionMerged])
def test_a_subscriber_gets_the_id_and_the_data(kind):
    """A subscriber of one event, and a subscriber of all of them, get the session's id and what it held."""
    config = Configurator()
    told = []
    config.add_subscriber(told.append, kind)
    config.add_subscriber(told.append, SessionEvent)
    config.commit()
    event = kind("a" * 32, {"user": 1})
    config.registry.notify(event)

    assert told == [event, event]
    assert event.session_id == "a" * 32
    assert event.data == {"user": 1}


def test_a_merge_names_its_conflicts():
    """The event of a merge names the keys in which a change was given up; most often there are none."""
    assert SessionMerged("a" * 32, {}).conflicts == frozenset()
    assert SessionMerged("a" * 32, {}, conflicts=["user"]).conflicts == {"user"}


def test_an_event_does_not_show_the_id():
    """An event that is logged as it stands does not hand the session to whoever reads the log."""
    assert "a" * 32 not in repr(SessionExpired("a" * 32, {}))
