"""docs/explanation/request.rst: what it says of its pictures is what happens in them."""

from __future__ import annotations

import pytest

from tests.docs import pages  # noqa: F401 -- it makes the diagrams importable

from diagrams import request  # isort: skip

NEW, TOMBSTONE = "writes the session, under its new id", "writes a tombstone, under the old id"


def _events(name):
    """Return what happens in a picture, each with the layer in which it does."""
    layers, events = [], []
    for note in request.traced(name):
        if note.kind == "enter":
            layers.append(note.text)
        elif note.kind == "leave":
            layers.pop()
        elif note.kind != "quiet":
            events.append((layers[-1], note.text))
    return events


READ = ("view", "reads the session from the store")
COMMITTED = [("session tween", NEW), ("session tween", TOMBSTONE)]


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (
            "request-filter",
            [
                READ,
                *COMMITTED,
                ("start_response()", NEW),
                ("SessionMiddleware: the filter", "adds Set-Cookie and Vary"),
            ],
        ),
        (
            "request-beaker",
            [
                READ,
                *COMMITTED,
                ("Pyramid's router", NEW),
                ("Pyramid's router", "adds Vary"),
                ("start_response()", "adds Set-Cookie"),
            ],
        ),
        (
            "request-factory",
            [
                READ,
                ("Pyramid's router", NEW),
                ("Pyramid's router", TOMBSTONE),
                ("Pyramid's router", "adds Set-Cookie and Vary"),
            ],
        ),
        (
            "request-exception",
            [
                READ,
                ("view", "raises an exception"),
                *COMMITTED,
                ("start_response()", NEW),
                ("SessionMiddleware: the filter", "adds Set-Cookie and Vary"),
            ],
        ),
    ],
)
def test_where_it_happens(name, events):
    """The session is read in the view, and written and sent where the page says so."""
    assert _events(name) == events


@pytest.mark.parametrize(("name", "ends"), [("request-filter", "committed"), ("request-exception", "aborted")])
def test_the_transaction_ends_first(name, ends):
    """The database transaction has ended before the session is written."""
    texts = [note.text for note in request.traced(name)]

    assert texts.index(f"the transaction is {ends}") < texts.index(NEW)


def test_the_order_of_the_layers():
    """The tween is above pyramid_tm, which is above the exception views."""
    layers = [note.text for note in request.traced("request-filter") if note.kind == "enter"]

    assert layers[3:7] == ["session tween", "pyramid_tm", "exception views", "view"]
