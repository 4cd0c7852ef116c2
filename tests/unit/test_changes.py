"""What the application changes in place, inside a value that it was handed, is found, and nothing else is."""

from __future__ import annotations

import pickle
import sys
import threading
from collections import defaultdict
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from beaker_bridge.exceptions import SessionValueError
from beaker_bridge.session.changes import IMMUTABLE, MAX_COMPARED
from tests.requests import Browser, Clock, config_of, stored, watched


class Reversed:
    """A serializer of the application's own."""

    @staticmethod
    def dumps(record):
        return pickle.dumps(record)[::-1]

    @staticmethod
    def loads(plain):
        return pickle.loads(plain[::-1])


SERIALIZERS = {"json": "json", "pickle": "pickle", "own": Reversed}
KINDS = {"memory": {}, "cookie": {"type": "cookie", "validate_key": "v" * 32}}


class Basket:
    """An object of the application's own, that can be pickled while its lid is closed."""

    def __init__(self):
        self.things = []
        self.lid = None

    def __repr__(self):
        return repr(vars(self))


#: What holds something that can be changed, and a change of it.
SHAPES = {
    "list": (lambda: ["a"], lambda value: value.append("b")),
    "dict in a dict": (lambda: {"a": {"b": 1}}, lambda value: value["a"].update(b=2)),
    "another type": (lambda: {"a": 1}, lambda value: value.update(a=True)),
    "another zero": (lambda: [0.0], lambda value: value.__setitem__(0, -0.0)),
    "another order": (lambda: {"a": 1, "b": 2}, lambda value: value.update(a=value.pop("a"))),
    "list in a tuple": (lambda: (["a"], 1), lambda value: value[0].append("b")),
    "list in tuples in a dict": (lambda: {"a": ((["a"],),)}, lambda value: value["a"][0][0].clear()),
    "set": (lambda: {1}, lambda value: value.add(2)),
    "set in a list in a tuple": (lambda: ([{1, 2}],), lambda value: value[0][0].discard(1)),
    "html": (lambda: [Markup("<b>")], lambda value: value.__setitem__(0, "<b>")),
    "many": (lambda: ["a" * MAX_COMPARED], lambda value: value.append("b")),
}
#: What JSON does not hold.
PICKLED = {
    "object": (Basket, lambda value: value.things.append("b")),
    "attribute": (Basket, lambda value: setattr(value, "name", "b")),
    "object in a list": (lambda: [Basket()], lambda value: value[0].things.append("b")),
    "bytearray": (lambda: bytearray(b"a"), lambda value: value.extend(b"b")),
    "list by a tuple": (lambda: {(1, 2): []}, lambda value: value[1, 2].append("b")),
    "another key's type": (lambda: {1: "a"}, lambda value: value.update({True: value.pop(1)})),
}
CASES = [
    pytest.param(SERIALIZERS[serializer], kind, *shape, id=f"{serializer}, {kind}, {name}")
    for serializer in SERIALIZERS
    for kind in KINDS
    for name, shape in (SHAPES if serializer == "json" else SHAPES | PICKLED).items()
    # No cookie holds that.
    if (kind, name) != ("cookie", "many")
]

#: Whose session it is: a view's, or that of other WSGI code.
DOORS = {"view": lambda request: request.session, "environ": lambda request: request.object}
#: The ways to a value of it.
WAYS = {
    "item": lambda session: session["key"],
    "get": lambda session: session.get("key"),
    "get with a default": lambda session: session.get("key", ()),
    "setdefault": lambda session: session.setdefault("key", "another"),
    "values": lambda session: next(iter(session.values())),
    "items": lambda session: next(iter(session.items()))[1],
    "copy": lambda session: session.copy()["key"],
    "dict": lambda session: dict(session)["key"],
}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def browser(clock):
    return Browser(config_of(clock=clock))


@pytest.fixture(params=DOORS)
def door(request):
    """Return what shows a request's session to whom it belongs."""
    return DOORS[request.param]


def after_change(browser, change, hand_out):
    """Change in place what a request is handed, and return what the next request finds."""
    request = browser.begin()
    change(hand_out(request))
    browser.end(request)
    return browser.read()


def swaps_of(browser, do):
    """Return how often the store is written by a request that does something."""
    store = watched(browser.config)
    request = browser.begin()
    do(request)
    browser.end(request)
    return store.calls.count("swap")


# -- What is found -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("serializer", "kind", "make", "change"), CASES)
def test_a_change_in_place_is_saved(clock, door, serializer, kind, make, change):
    """Whatever holds what was changed, whoever was handed it, and however the session is serialized."""
    browser = Browser(config_of(clock=clock, data_serializer=serializer, **KINDS[kind]))
    browser.write(key=make())
    expected = make()
    change(expected)

    assert repr(after_change(browser, change, lambda request: door(request)["key"])) == repr({"key": expected})


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_a_value_is_watched(clock, door, way, serializer):
    """A value that is handed out by any method of the mapping may be changed in place."""
    browser = Browser(config_of(clock=clock, data_serializer=SERIALIZERS[serializer]))
    browser.write(key=["a"], other=([],))

    held = after_change(browser, lambda value: value.append("b"), lambda request: WAYS[way](door(request)))

    assert held == {"key": ["a", "b"], "other": ([],)}


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("save", [lambda session: session.commit(), lambda session: session.save()])
def test_a_change_in_a_session_that_was_found_by_its_id(clock, serializer, save):
    """Its ``commit()`` and its ``save()`` find out what was changed in place; read alone, it is not written."""
    browser = Browser(config_of(clock=clock, data_serializer=SERIALIZERS[serializer]))
    session_id = browser.write(key=(["a"],)).session.id

    def commit(change):
        found = browser.begin().session.get_by_id(session_id)
        change(found["key"][0])
        save(found)

    store = watched(browser.config)
    commit(len)
    read = store.calls.count("swap")
    commit(lambda value: value.append("b"))

    assert read == 0
    assert browser.read() == {"key": (["a", "b"],)}


def test_detection_can_be_switched_off(clock, door):
    """With ``detect_changes = false`` a change in place needs ``changed()``."""
    browser = Browser(config_of(clock=clock, detect_changes=False))
    browser.write(key=["a"])

    assert after_change(browser, lambda value: value.append("b"), lambda request: door(request)["key"]) == {
        "key": ["a"]
    }


def test_a_change_in_place_after_the_commit_is_detected(browser, door):
    """What was handed out is compared with the last commit, and not with the load."""
    browser.write(cart=["apples"])
    request = browser.begin()
    cart = door(request)["cart"]
    cart.append("pears")
    request.commit()
    cart.append("plums")
    browser.end(request)

    assert browser.read()["cart"] == ["apples", "pears", "plums"]


def test_a_change_back_after_the_commit_is_detected(browser, door):
    """A value that is changed, committed, and changed back to what was loaded is saved as it is in the end."""
    browser.write(cart=[1])
    request = browser.begin()
    cart = door(request)["cart"]
    cart.append(2)
    request.commit()
    cart.pop()
    browser.end(request)

    assert browser.read()["cart"] == [1]


def test_a_change_of_what_was_new_is_detected_after_its_commit(browser, door):
    """What a request has put there is stored by its first commit, and watched from then on."""
    request = browser.begin()
    request.session["cart"] = []
    request.commit()
    door(request)["cart"].append(1)
    browser.end(request)

    assert browser.read() == {"cart": [1]}


def test_a_value_in_anothers_place_is_watched(browser):
    """What a view finds where other WSGI code has replaced a value is another value."""
    browser.write(cart=[])
    request = browser.begin()
    assert request.session["cart"] == []
    request.object["cart"] = [1]
    request.session["cart"].append(2)
    browser.end(request)

    assert browser.read() == {"cart": [1, 2]}


def test_a_value_is_watched_that_is_its_own_default(browser):
    """That ``get()`` returns what it was given is no sign that the session has no such value."""
    cart = []
    request = browser.begin()
    request.session["cart"] = cart
    request.commit()
    request.session.get("cart", cart).append(1)
    browser.end(request)

    assert browser.read() == {"cart": [1]}


def test_a_value_that_holds_itself(clock, door):
    """With pickle a value may hold itself."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    knot = ["a"]
    knot.append(knot)
    browser.write(key=knot)
    unchanged = swaps_of(browser, lambda request: door(request)["key"])
    held = after_change(browser, lambda value: value.insert(0, "b"), lambda request: door(request)["key"])["key"]

    assert unchanged == 0
    assert held[:2] == ["b", "a"]
    assert held[2] is held


def test_what_the_serializer_alone_takes_is_compared_as_it_writes_it(clock, door):
    """A serializer of the application's own may hold what cannot be pickled."""

    class Local(dict):
        pass

    class Serializer:
        @staticmethod
        def dumps(record):
            return pickle.dumps(
                {key: [dict(value)] if type(value) is Local else value for key, value in record.items()}
            )

        @staticmethod
        def loads(plain):
            record = pickle.loads(plain)
            return {key: Local(value[0]) if type(value) is list else value for key, value in record.items()}

    browser = Browser(config_of(clock=clock, data_serializer=Serializer))
    browser.write(key=Local(a=1))
    unchanged = swaps_of(browser, lambda request: door(request)["key"])

    assert unchanged == 0
    assert after_change(browser, lambda value: value.update(b=2), lambda request: door(request)["key"]) == {
        "key": {"a": 1, "b": 2}
    }


# -- What is refused ---------------------------------------------------------------------------------


def test_a_value_that_cannot_be_encoded_is_refused_only_when_it_is_saved(browser):
    """Something in a list that is not JSON fails the commit of a change, with the key."""
    request = browser.begin()
    request.session["odd"] = [[object()]]
    assert len(request.session["odd"]) == 1

    with pytest.raises(SessionValueError, match="odd"):
        request.commit()


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("odd", [threading.Lock, lambda: lambda: None, lambda: (n for n in ())])
def test_a_value_that_can_no_longer_be_stored_is_seen(clock, door, serializer, odd):
    """A value that nothing can store since it was changed in place is a change: the commit raises."""
    browser = Browser(config_of(clock=clock, data_serializer=SERIALIZERS[serializer]))
    browser.write(cart=[])
    request = browser.begin()
    door(request)["cart"].append(odd())

    with pytest.raises(SessionValueError, match="cart"):
        request.commit()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_value_that_nothing_can_store_fails_no_read(clock, door, serializer):
    """What cannot be pickled, nor written, is handed out all the same; only to save it fails."""
    browser = Browser(config_of(clock=clock, data_serializer=SERIALIZERS[serializer]))
    browser.write(name="base")
    request = browser.begin()
    request.object["odd"] = threading.Lock()
    assert not door(request)["odd"].locked()
    request.commit()
    request.session.changed()

    with pytest.raises(SessionValueError, match="odd"):
        request.commit()


def test_an_object_that_cannot_be_pickled_for_now(clock, door):
    """What fails to be pickled fails when it is saved, and nothing of it is stored."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(basket=Basket())
    request = browser.begin()
    door(request)["basket"].lid = lambda: None
    with pytest.raises(SessionValueError, match="basket"):
        request.commit()

    assert browser.read()["basket"].lid is None


# -- What waits for save(), as in Beaker's sessions ----------------------------------------------------


@pytest.mark.parametrize(
    "put",
    [
        lambda session: session.setdefault("new", []),
        lambda session: session.update(new=[]) or session["new"],
        lambda session: session.__setitem__("new", []) or session.get("new"),
        lambda session: session.__setitem__("cart", []) or session["cart"],
        lambda session: session.pop("cart") and session.setdefault("cart", []),
        lambda session: session.clear() or session.setdefault("cart", []),
    ],
)
def test_what_other_code_puts_there_waits_for_save(browser, put):
    """A value that WSGI code has put there is no value of the session's before ``save()``, whatever becomes of it."""
    browser.write(cart=["apples"])
    unsaved = swaps_of(browser, lambda request: put(request.object).append("pears"))
    request = browser.begin()
    put(request.object).append("pears")
    request.object.save()
    browser.end(request)

    assert unsaved == 0
    assert ["pears"] in browser.read().values()


def test_no_session_begins_unless_it_is_saved(browser):
    """WSGI code that only notes something for the time of the request leaves no record, and sends no cookie."""
    request = browser.begin()
    request.object.setdefault("notes", []).append(1)
    request.commit()

    assert request.set_cookie is None
    assert stored(browser.config, request.session.id) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.__setitem__("cart", _appended(session.get("cart", []))),
        lambda session: session.__setitem__("cart", _appended(session.pop("cart"))),
        lambda session: session.update(cart=_appended(session["cart"])),
    ],
)
def test_a_value_that_is_put_back_is_changed_in_place(browser, change):
    """WSGI code that puts the same value back, changed, has changed it in place."""
    browser.write(cart=["apples"])
    request = browser.begin()
    change(request.object)
    browser.end(request)

    assert browser.read() == {"cart": ["apples", "pears"]}


def _appended(cart):
    cart.append("pears")
    return cart


def test_a_view_changes_what_other_code_has_put_there(browser):
    """What ``request.session`` hands out, and is changed, is saved, whoever has put it there."""
    request = browser.begin()
    request.object["cart"] = []
    request.session["cart"].append(1)
    browser.end(request)

    assert browser.read() == {"cart": [1]}


# -- What is no change -------------------------------------------------------------------------------


def test_a_value_that_was_handed_out_and_deleted_is_no_change(browser):
    """Only what is still in the session is compared."""
    browser.write(cart=["apples"])

    def append_and_delete(request):
        request.session["cart"].append("pears")
        del request.loaded["cart"]

    assert swaps_of(browser, append_and_delete) == 0


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1], lambda value: (value.append(2), value.pop())),
        ({"a": "on", "b": "on"}, lambda value: value.update(a="on!"[:2], b="on")),
        ({"a": [1], "b": [1]}, lambda value: value.update(a=value["b"])),
        ({"a": ("x",), "b": ("x",)}, lambda value: value.update(a=value["b"])),
        ({*"abcdefgh"}, lambda value: (value.remove("a"), value.add("a"), value.add("z"), value.remove("z"))),
        ([{0, 8, 16}], lambda value: value.__setitem__(0, {16, 8, 0})),
    ],
    ids=["back", "one text twice", "one list twice", "one tuple twice", "set", "set in another order"],
)
def test_an_equal_value_is_no_change(clock, door, serializer, value, change):
    """What is equal in all is not written, though it pickles in another way."""
    browser = Browser(config_of(clock=clock, data_serializer=SERIALIZERS[serializer]))
    browser.write(key=value)

    assert swaps_of(browser, lambda request: change(door(request)["key"])) == 0


def test_a_value_that_holds_itself_is_compared_once(clock, door):
    """An equal text in another place of a value that holds itself is no change, and the comparison ends."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    knot = {"a": "on", "b": "on "[:2]}
    knot["itself"] = knot
    browser.write(key=knot)

    assert swaps_of(browser, lambda request: door(request)["key"].update(a="on", b="on")) == 0


def test_a_value_that_is_deleted_is_watched_no_more(browser):
    """Once a deletion is stored, what was taken out before is nothing of the session's."""
    browser.write(cart=["apples"], name="base")
    request = browser.begin()
    cart = request.session["cart"]
    del request.session["cart"]
    request.commit()
    cart.append("pears")

    assert not request.session.dirty()


class Numbered:
    """An object that is pickled in another way each time."""

    numbers = count()

    def __init__(self):
        self.name = "a"

    def __getstate__(self):
        return {**vars(self), "number": next(self.numbers)}


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [Numbered(), 1], lambda value: value.append(2)),
        (lambda: {"a": (Numbered(),), "b": []}, lambda value: value["b"].append(2)),
    ],
)
def test_an_object_that_pickles_differently_each_time(clock, door, make, change):
    """It is not written because it was read; what is changed beside it is saved."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(key=make())
    unchanged = swaps_of(browser, lambda request: door(request)["key"])
    changed = swaps_of(browser, lambda request: change(door(request)["key"]))

    assert unchanged == 0
    assert changed == 1


def test_alone_such_an_object_needs_changed(clock, door):
    """Nothing can tell whether it has changed: it is saved after ``changed()``."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(key=Numbered())
    unseen = after_change(browser, lambda value: setattr(value, "name", "b"), lambda request: door(request)["key"])
    request = browser.begin()
    request.session["key"].name = "b"
    request.session.changed()
    browser.end(request)

    assert unseen["key"].name == "a"
    assert browser.read()["key"].name == "b"


def test_what_changes_when_it_is_read_is_saved(clock, door):
    """A ``defaultdict`` that is asked for what it does not have has it then."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(key=defaultdict(list))

    assert after_change(browser, lambda value: value["a"], lambda request: door(request)["key"]) == {"key": {"a": []}}


class Unopened:
    """An object that can be pickled, and not be opened again."""

    def __init__(self, opens):
        self.opens = opens

    def __setstate__(self, state):
        if not state["opens"]:
            raise RuntimeError("it is not opened")
        vars(self).update(state)


def test_a_pickle_that_cannot_be_opened_is_a_change_if_it_differs(clock):
    """Where values cannot be compared, their pickles say whether there is a change."""
    request = Browser(config_of(clock=clock, data_serializer="pickle")).begin()
    request.session["key"] = [Unopened(opens=False)]
    request.commit()
    unchanged = request.session.dirty()
    request.session["key"].append(1)

    assert not unchanged
    assert request.session.dirty()


class Reader:
    """An object that reads the session while it is pickled."""

    session = None

    def __getstate__(self):
        if Reader.session is not None:
            assert Reader.session["other"] == []
        return vars(self)


def test_an_object_may_read_the_session_while_it_is_compared(clock):
    """What an object's own code does with the session while it is pickled does not stop the comparison."""
    browser = Browser(config_of(clock=clock, data_serializer="pickle"))
    browser.write(key=[Reader()], other=[])
    request = browser.begin()
    assert request.session["key"]
    Reader.session = request.session
    try:
        changed = request.session.dirty()
    finally:
        Reader.session = None

    assert not changed


# -- To read is not to write -------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from(["a", "on", "name"])
    | st.binary(max_size=4)
    | st.decimals(allow_nan=False)
    | st.datetimes()
    | st.uuids()
)
FROZEN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=3)
VALUES = st.recursive(
    FROZEN | st.sets(SCALARS, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | inner.map(lambda value: [value, value])
    ),
    max_leaves=12,
)


def basket_of(value):
    """Return an object with attributes, some of which are one value."""
    basket = Basket()
    basket.things, basket.lid, basket.a = [value, "things", "a"], value, "a"
    return basket


PICKLED_VALUES = st.recursive(
    VALUES | st.binary(max_size=4).map(bytearray) | st.frozensets(FROZEN, max_size=4) | VALUES.map(basket_of),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(FROZEN, inner, max_size=3)
        | inner.map(basket_of)
        | inner.map(lambda value: defaultdict(list, a=value, b=value))
    ),
    max_leaves=6,
)


def read_all(value):
    """Read all of a value, in the ways in which values are read."""
    repr(value)
    if isinstance(value, dict):
        for key in value:
            read_all(key)
            read_all(value[key])
        for part in value.values():
            hasattr(part, "keys")
    elif isinstance(value, (list, tuple, set, frozenset)):
        sorted(value, key=repr)
        for part in value:
            read_all(part)
    elif isinstance(value, Basket):
        for name in vars(value):
            read_all(getattr(value, name))


@pytest.mark.parametrize("serializer", SERIALIZERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_to_read_is_not_to_write(serializer, data):
    """Whatever a session holds: who only reads it, all of it and in any way, has changed nothing."""
    values = VALUES if serializer == "json" else PICKLED_VALUES
    browser = Browser(config_of(clock=Clock(), data_serializer=SERIALIZERS[serializer]))
    browser.write(key=data.draw(values))

    def read(request):
        for door in DOORS.values():
            for way in WAYS.values():
                read_all(way(door(request)))
        request.commit()
        read_all(request.session["key"])

    assert swaps_of(browser, read) == 0


@pytest.mark.parametrize("serializer", SERIALIZERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_clean(serializer, data):
    """Whatever a request has put there, and reads again once that is written, has not changed by that."""
    values = VALUES if serializer == "json" else PICKLED_VALUES
    request = Browser(config_of(clock=Clock(), data_serializer=SERIALIZERS[serializer])).begin()
    request.session["key"] = value = data.draw(values)
    for door in DOORS.values():
        assert door(request)["key"] is value
    request.commit()
    read_all(value)
    was_clean = not request.session.dirty()
    for door in DOORS.values():
        read_all(door(request)["key"])

    assert was_clean
    assert not request.session.dirty()


@pytest.mark.parametrize("serializer", SERIALIZERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_replaced_inside_is_found(serializer, data):
    """Whatever a list holds, deep in a value: what is put in its place is stored."""
    values = VALUES if serializer == "json" else PICKLED_VALUES
    browser = Browser(config_of(clock=Clock(), data_serializer=SERIALIZERS[serializer]))
    before, now = data.draw(values), data.draw(values)
    browser.write(key={"a": ([before, 0],)}, expected={"a": ([now, 0],)})
    request = browser.begin()
    request.session["key"]["a"][0][0] = now
    browser.end(request)
    found = browser.read()

    assert shown(found["key"]) == shown(found["expected"])


def shown(value):
    """Return a value as a text, with sets in one order."""
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(repr(shown(part)) for part in value)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [shown(part) for part in value]
    if isinstance(value, dict):
        return type(value).__name__, [(shown(key), shown(part)) for key, part in value.items()]
    return shown(vars(value)) if isinstance(value, Basket) else repr(value)


# -- What it costs -----------------------------------------------------------------------------------


def calls_of(do):
    """Return how many functions of Python's are called."""
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(frame) if event == "call" else None)
    try:
        do()
    finally:
        sys.setprofile(None)
    return len(calls) - 1


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_what_cannot_be_changed_costs_nothing(clock, serializer):
    """An immutable value is read in one call, a list in two; where it is handed out for the first time, in five."""
    browser = Browser(config_of(clock=clock, data_serializer=SERIALIZERS[serializer]))
    browser.write(name="base", cart=[1], more=[1])
    session = browser.begin().session

    assert calls_of(lambda: session["name"]) == 1
    assert not session.dirty()
    assert calls_of(lambda: session["cart"]) == 5
    assert calls_of(lambda: session["cart"]) == 2
    assert calls_of(lambda: session["more"]) == 4


@pytest.mark.parametrize("kind", sorted(IMMUTABLE, key=repr))
def test_immutable_types_hold_nothing_that_changes(kind):
    """What is never compared has no attributes, and no items that could be assigned."""
    assert not hasattr(kind, "__setitem__")
    assert not hasattr(kind, "__dict__") or "__dict__" not in vars(kind)
