"""``request.session`` and its methods."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import assert_type
from views import Request


def as_a_mapping(request: Request) -> None:
    """It is a mutable mapping with texts as keys."""
    session = request.session
    mapping: MutableMapping[str, Any] = session
    other: Mapping[str, object] = session
    assert_type(session.keys(), KeysView[str])
    assert_type(session.items(), ItemsView[str, Any])
    assert_type(iter(session), Iterator[str])
    assert_type(len(session), int)
    assert_type("user" in session, bool)
    assert_type(session.copy(), dict[str, Any])
    assert_type(session | {"a": 1}, dict[str, Any])
    assert_type(session.popitem(), tuple[str, Any])
    session.update(mapping, a=1)
    session.update({"b": other})
    session |= {"c": 3}
    session.pop("c", None)
    del session["a"]
    session.clear()


def as_pyramids(request: Request) -> None:
    """It is Pyramid's ISession."""
    session = request.session
    assert_type(session.created, int)
    assert_type(session.new, bool)
    session.changed()
    session.invalidate()
    session.flash("Saved.", "notes", allow_duplicate=False)
    assert_type(session.pop_flash(), list[Any])
    assert_type(session.peek_flash("notes"), list[Any])
    assert_type(session.new_csrf_token(), str)
    assert_type(session.get_csrf_token(), str)


def as_beakers(request: Request) -> None:
    """It has the attributes of Beaker's."""
    session = request.session
    assert_type(session.id, str)
    assert_type(session.last_accessed, float | None)
    assert_type(session.timeout, int | None)
    assert_type(session.key, str)
    assert_type(session.domain, str | None)
    assert_type(session.path, str)
    assert_type(session.dirty(), bool)
    assert_type(session.is_new, bool)
    session.cookie_expires = 3600
    session.cookie_expires = timedelta(days=1)
    session.cookie_expires = datetime(2038, 1, 19)  # noqa: DTZ001 -- as Beaker takes it
    session.secure = True
    session.samesite = None
    session.load()
    session.save()
    session.revert()
    session.regenerate_id()
    session.delete()
    session.persist()
    other = session.get_by_id("0" * 32)
    if other is not None:
        other["a"] = 1
        other.commit()


def of_its_own(request: Request) -> None:
    """It has methods of its own."""
    session = request.session
    session.set_expiry(30 * 24 * 3600)
    session.set_expiry(None)
    session.bind("ann", note={"browser": "Firefox"}, limit=3, on_limit="refuse")
    session.bind(42)
    session.unbind()
    assert_type(session.revoked, str | None)
    with session.exclusive() as nothing:
        assert_type(nothing, None)
