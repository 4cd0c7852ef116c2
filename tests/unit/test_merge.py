"""The three-way merge: examples of each sentence of its documentation, and its laws."""

import copy
import pickle
import random
import sys
from collections import Counter, OrderedDict
from datetime import datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from translationstring import TranslationString

from beaker_bridge.record.fields import ACCESSED, EXPIRY, WRITER
from beaker_bridge.session.merge import FLASH, MAX_DEPTH, _essence, merge


def same(one, other):
    """Say whether two values are the same, in type, and a NaN itself; written apart from the merge's own."""
    return repr(in_order(one)) == repr(in_order(other))


def in_order(value):
    """Return a value with each dict's and set's items in one order."""
    if isinstance(value, dict):
        return [type(value), *sorted(((key, in_order(item)) for key, item in value.items()), key=repr)]
    if isinstance(value, (set, frozenset)):
        return [type(value), *sorted(map(in_order, value), key=repr)]
    return [type(value), *map(in_order, value)] if isinstance(value, (list, tuple)) else value


def check(base, ours, theirs, merged, conflicts=(), **options):
    """See that a merge has an outcome, and gives up a change in these keys."""
    outcome = merge(base, ours, theirs, **options)

    assert same(outcome.record, merged)
    assert outcome.conflicts == frozenset(conflicts)


# -- Sentence by sentence ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}),
        ({"a": {"x": 1}}, {"a": [1]}, {"a": {"x": 1}}, {"a": [1]}),
        ({"a": {"x": 1}}, {"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": [2, 1]}, {"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}),
    ],
)
def test_a_key_that_one_side_changed(base, ours, theirs, merged):
    """A key that only one side changed takes that side's value."""
    check(base, ours, theirs, merged)


@pytest.mark.parametrize(
    "both",
    [1, None, [1], [2, 1], ["a", "b"], {"x": 2}, {"x": 1, "y": [1]}, {1, 2}, (1,), "text", Markup("x")],
    ids=repr,
)
@pytest.mark.parametrize("base", [{}, {"v": 0}, {"v": [1, 2]}, {"v": {"x": 1}}, {"v": {3}}], ids=repr)
def test_the_same_change_by_both_is_one(base, both):
    """Where both sides made the same change, that is the outcome; a form that is sent twice is no conflict."""
    check(base, {"v": both}, {"v": copy.deepcopy(both)}, {"v": both})
    check({"d": base}, {"d": {"v": both, "a": 1}}, {"d": {"v": both, "b": 1}}, {"d": {"v": both, "a": 1, "b": 1}})


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"a": 1}, {}, {"a": 1}, {}),
        ({"a": 1}, {"a": 1}, {}, {}),
        ({"a": 1}, {}, {}, {}),
        ({"a": 1, "b": 1}, {"a": 1}, {"b": 1}, {}),
        ({"a": 1}, {}, {"a": 1, "b": 2}, {"b": 2}),
        ({"d": {"x": 1, "y": 1}}, {"d": {"x": 1}}, {"d": {"y": 1}}, {"d": {}}),
        ({"d": {"x": 1, "y": 1}}, {"d": {"y": 1}}, {"d": {"x": 1, "y": 2}}, {"d": {"y": 2}}),
    ],
)
def test_a_deletion_is_a_change(base, ours, theirs, merged):
    """What one side deleted, and the other left alone, is gone."""
    check(base, ours, theirs, merged)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        ({"id": 7}, {"id": 7, "seen": 1}),
        ({"id": 7}, {}),
        ([1], [1, 2]),
        ([1, 2], [1]),
        ({1}, {1, 2}),
        ({"a": {"b": [1]}}, {"a": {"b": [1, 2]}}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("whole_keys", [(), ("user",)])
def test_a_deletion_wins(before, after, whole_keys):
    """A top-level key that both changed and one deleted is deleted, whoever came first: no fragment comes back."""
    base, changed = {"user": before, "n": 1}, {"user": after, "n": 2}

    check(base, {"n": 1}, changed, {"n": 2}, ["user"], whole_keys=whole_keys)
    check(base, changed, {"n": 1}, {"n": 2}, ["user"], whole_keys=whole_keys)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"x": 1}, {"x": 1, "y": 2}, {"x": 1, "z": 3}, {"x": 1, "y": 2, "z": 3}),
        (
            {"e": {"f": {"x": 1}}},
            {"e": {"f": {"x": 2}}},
            {"e": {"f": {"x": 1}, "g": 1}},
            {"e": {"f": {"x": 2}, "g": 1}},
        ),
        ({"x": 1, "l": [1]}, {"x": 2, "l": [1, 2]}, {"x": 1, "l": [1, 3]}, {"x": 2, "l": [1, 3, 2]}),
        ({"s": {1}}, {"s": {1, 2}}, {"s": {3}}, {"s": {2, 3}}),
        ({}, {"e": {"x": 1}}, {"e": {"y": 1}}, {"e": {"x": 1, "y": 1}}),
    ],
)
def test_dicts_merge_at_any_depth(base, ours, theirs, merged):
    """Dicts that both sides changed merge member by member, at any depth; absent counts as empty."""
    check({"d": base}, {"d": ours}, {"d": theirs}, {"d": merged})
    if base == {}:
        check({}, {"d": ours}, {"d": theirs}, {"d": merged})


ORDER = {"item": "silver", "qty": 1, "total": 10}


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        pytest.param(
            ORDER,
            {"item": "gold", "qty": 1, "total": 50},
            {"item": "silver", "qty": 2, "total": 20},
            id="two gold for the price of two silver",
        ),
        pytest.param(..., {"id": 1, "admin": True}, {"id": 2, "name": "bob"}, id="two logins"),
        pytest.param(..., {"id": 1, "roles": ["admin"]}, {"id": 2, "roles": []}, id="two logins with roles"),
        pytest.param({"x": 1}, {"x": 2}, {"x": 3}, id="a member changed twice"),
        pytest.param({"x": 1, "y": 1}, {"y": 1}, {"x": 2, "y": 1}, id="a member deleted and changed"),
        pytest.param({"x": {"z": 1}, "y": 1}, {"y": 1}, {"x": {"z": 1, "a": 1}, "y": 1}, id="a member dict deleted"),
        pytest.param({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}, "n": 1}, {"a": {"b": {"c": 3}}}, id="far down"),
        pytest.param({"x": 1}, {"x": [1]}, {"x": [2]}, id="a member became a list"),
        pytest.param([1.5, 2.5], [3.5, 4.5], [5.5, 6.5], id="a position replaced by both"),
        pytest.param([0] * 9, [0, 1, *[0] * 7], [0, 0, 2, *[0] * 6], id="a board of nine squares"),
        pytest.param([2, 1], [1, 2], [2, 1, 3], id="sorted, and appended to"),
        pytest.param([3, 1, 2], [1, 2, 3], [3, 2, 1], id="sorted in two ways"),
        pytest.param([1, 2], [2, 3], [1, 2, 4], id="removed and appended by one side"),
        pytest.param(["a"], ["b"], ["a", "c"], id="replaced, and appended to"),
        pytest.param(["a"], ["x", "a"], ["a", "b"], id="put in front"),
        pytest.param([{"n": 1}], [{"n": 2}], [{"n": 1}, {"n": 3}], id="an item edited"),
        pytest.param([1], [True], [1, 2], id="1 is not True"),
        pytest.param((1, 2), (3, 4), (5, 6), id="tuples"),
        pytest.param((1,), (1, 2), (1, 3), id="tuples that grow"),
        pytest.param(frozenset({1}), frozenset({1, 2}), frozenset({1, 3}), id="frozensets"),
        pytest.param("a", "ab", "ac", id="texts"),
        pytest.param(1, 2, 3, id="numbers"),
        pytest.param(..., [1], {"a": 1}, id="a list and a dict"),
        pytest.param(..., {1}, [1], id="a set and a list"),
        pytest.param(None, [1], [2], id="None is not absent"),
        pytest.param({}, [1], [2], id="a dict became two lists"),
        pytest.param([], {"a": 1}, {"b": 1}, id="a list became two dicts"),
    ],
)
def test_a_conflict_is_whole(base, ours, theirs):
    """Where two changes touch, the later commit's whole value stays; no mixture that neither request has made."""
    before = {"o": 0} if base is ... else {"v": base, "o": 0}

    check(before, {"v": ours, "o": 0}, {"v": theirs, "o": 1}, {"v": ours, "o": 1}, ["v"])
    check(before, {"v": theirs, "o": 0}, {"v": ours, "o": 1}, {"v": theirs, "o": 1}, ["v"])


LISTS = [
    pytest.param([], ["a"], ["b"], ["b", "a"], id="each began"),
    pytest.param(["a"], ["a", "b", "c"], ["a", "d", "e"], ["a", "d", "e", "b", "c"], id="each appended two"),
    pytest.param(["a"], ["a", "b", "a"], ["a", "c"], ["a", "c", "b", "a"], id="appended an equal one"),
    pytest.param(["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "b"], id="both appended an equal one"),
    pytest.param(["a"], [], ["a", "b"], ["b"], id="removed, and appended to"),
    pytest.param(["a"], ["a", "b"], [], ["b"], id="appended to, and removed"),
    pytest.param(["a", "b"], ["b"], ["a"], [], id="each removed another one"),
    pytest.param(["a", "b", "a"], ["b", "a"], ["a", "b"], ["b"], id="of equal ones, each removed another one"),
    pytest.param(["a", "a", "b"], ["a", "b"], ["a", "a"], ["a"], id="one of two equal ones"),
    pytest.param(["a", "b", "c"], ["a", "c"], ["a", "b", "c", "d"], ["a", "c", "d"], id="from the middle"),
    pytest.param([{"x": [1]}], [{"x": [1]}, 1], [{"x": [1]}, 2], [{"x": [1]}, 2, 1], id="items without a hash"),
    pytest.param([float("nan")], [float("nan"), 1], [float("nan"), 2], [float("nan"), 2, 1], id="NaN"),
]


@pytest.mark.parametrize(("base", "ours", "theirs", "merged"), LISTS)
def test_lists_that_grow_or_shrink_merge(base, ours, theirs, merged):
    """A list to which each side only appended, or from which it only removed, is theirs with our change made to it."""
    check({"l": base}, {"l": ours}, {"l": theirs}, {"l": merged})
    check({"d": {"l": base}}, {"d": {"l": ours}}, {"d": {"l": theirs}}, {"d": {"l": merged}})
    if not base:
        check({}, {"l": ours}, {"l": theirs}, {"l": merged})


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({1}, {1, 2}, {1, 3}, {1, 2, 3}),
        ({1, 2}, {1}, {2, 3}, {3}),
        ({1, 2}, {2, 3}, {1, 4}, {3, 4}),
        ({1}, {1, 2}, {1, 2, 3}, {1, 2, 3}),
        (..., {1}, {2}, {1, 2}),
        ({1, 2}, set(), {1, 2, 3}, {3}),
        ({(1, 2)}, {(1, 2), (3, 4)}, {(5, 6)}, {(3, 4), (5, 6)}),
        ({1}, {True}, {1, 2}, {True, 2}),
        ({float("nan")}, {float("nan"), 1}, {float("nan"), 2}, {float("nan"), 1, 2}),
    ],
)
def test_sets_merge(base, ours, theirs, merged):
    """A set has what either side added, and lacks what either removed."""
    check({} if base is ... else {"s": base}, {"s": ours}, {"s": theirs}, {"s": merged})


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [({"x": 1}, {"x": 1, "y": 1}, {"x": 1, "z": 1}), (..., [1, 2], [3, 4]), ([1], [1, 2], [1, 3]), ({1}, {1, 2}, {3})],
    ids=repr,
)
def test_whole_keys_are_not_merged_inside(base, ours, theirs):
    """What ``whole_keys`` names is the later commit's, though it could be merged; other keys are merged."""
    before, one, other = ({} if side is ... else {"v": side, "w": side} for side in (base, ours, theirs))
    together = merge(before, one, other).record["w"]

    check(before, one, other, {"v": ours, "w": together}, ["v"], whole_keys=("v",))
    check(before, before, other, other, whole_keys=("v", "w"))
    check(before, one, copy.deepcopy(one), one, whole_keys=("v", "w"))


def test_totals_that_coincide():
    """Two requests that change different members, and another one to the same value, are in no conflict."""
    base = {"item": "tea", "quantity": 1, "total": 3}
    ours, theirs = {**base, "item": "rum", "total": 6}, {**base, "quantity": 2, "total": 6}

    merged = merge({"order": base}, {"order": ours}, {"order": theirs})
    assert merged == ({"order": {"item": "rum", "quantity": 2, "total": 6}}, frozenset())
    whole = merge({"order": base}, {"order": ours}, {"order": theirs}, whole_keys=["order"])
    assert whole == ({"order": ours}, {"order"})


# -- Flash queues ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        pytest.param([], ["a"], ["b"], ["b", "a"], id="two messages"),
        pytest.param([], ["a"], ["a"], ["a", "a"], id="two equal messages"),
        pytest.param([], [{"t": "a"}], [{"t": "a"}], [{"t": "a"}, {"t": "a"}], id="two equal dicts"),
        pytest.param(["a"], ["a", "b", "a"], ["a", "c"], ["a", "c", "b", "a"], id="ours appended an equal one last"),
        pytest.param(["a"], [], ["a", "b"], ["b"], id="ours popped, theirs flashed"),
        pytest.param(["a"], ["a", "b"], [], ["b"], id="ours flashed, theirs popped"),
        pytest.param(["a"], [], ["a", "a"], ["a"], id="ours popped, theirs flashed the same again"),
        pytest.param(["a"], ["a", "a"], [], ["a"], id="ours flashed the same again, theirs popped"),
        pytest.param(["a"], ["b"], ["a", "c"], ["c", "b"], id="ours popped and flashed"),
        pytest.param(["a"], ["b"], ["c"], ["c", "b"], id="both popped and flashed"),
        pytest.param(["a", "a"], ["a"], ["a"], ["a"], id="both popped the first of two equal ones"),
        pytest.param([1], [True], [1, 2], [2, True], id="1 is not True"),
        pytest.param([{"x": 1, "y": [2]}], [], [{"y": [2], "x": 1}, "b"], ["b"], id="dicts in another order"),
        pytest.param([("a", {"b"})], [], [("a", {"b"}), "b"], ["b"], id="tuples and sets"),
        pytest.param([Markup("a")], [], [Markup("a"), "a"], ["a"], id="HTML is not its text"),
        pytest.param([TranslationString("a", "d")], [], [TranslationString("a", "d"), "a"], ["a"], id="translations"),
    ],
)
def test_flash_queues_are_merged_by_counts(base, ours, theirs, merged):
    """No message is lost, doubled, or shown twice, whatever each side popped and flashed."""
    check({FLASH: base}, {FLASH: ours}, {FLASH: theirs}, {FLASH: merged})
    sides = ({"_f_q": side} if side else {} for side in (base, ours, theirs))
    check(*sides, {"_f_q": merged} if merged else {})


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "once", "merged"),
    [
        ([], ["m"], ["m"], ["m"], ["m"]),
        (["old"], ["old", "m"], ["old", "m", "n"], ["m"], ["old", "m", "n"]),
        ([], ["m", "n"], ["m"], ["m"], ["m", "n"]),
        ([], ["m", "n"], ["n"], ["m"], ["n", "m", "n"]),
        ([], ["m"], ["x"], ["m"], ["x", "m"]),
        ([], ["m", "m"], ["m"], ["m"], ["m", "m"]),
        (["m"], ["m"], [], ["m"], []),
        (["m"], ["m", "n"], [], ["n"], ["n"]),
        ([], [{"a": [1]}], [{"a": [1]}], [{"a": [1]}], [{"a": [1]}]),
        ([], [True], [1], [True], [1, True]),
    ],
)
def test_a_message_that_is_flashed_once_is_one(base, ours, theirs, once, merged):
    """A message that ours flashed without duplicates is not added to an equal one of theirs."""
    check({FLASH: base}, {FLASH: ours}, {FLASH: theirs}, {FLASH: merged}, flashed_once={FLASH: once})


def test_what_is_no_queue_is_merged_as_any_value():
    """An application's own value under such a key is no queue; ``whole_keys`` may name one."""
    check({}, {FLASH: "a"}, {FLASH: ["b"]}, {FLASH: "a"}, [FLASH])
    check({FLASH: 1}, {}, {FLASH: ["b"]}, {}, [FLASH])
    check({}, {FLASH: ["a"]}, {FLASH: ["b"]}, {FLASH: ["a"]}, [FLASH], whole_keys=(FLASH,))
    check({1: [1]}, {1: [1, 2]}, {1: [1, 3]}, {1: [1, 3, 2]})


# -- Times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"), [(20.0, 30.0, 30.0), (30.0, 20.0, 30.0), (10.0, 30.0, 30.0), (30.0, 10.0, 30.0)]
)
def test_the_later_access_time_counts(ours, theirs, merged):
    """The access time is the later of the two, whoever changed it; that gives nothing up."""
    check({ACCESSED: 10.0}, {ACCESSED: ours}, {ACCESSED: theirs}, {ACCESSED: merged})


def test_reserved_keys_are_no_conflicts():
    """What the record itself keeps is merged as any value, and is none of the application's changes."""
    check({WRITER: "a", EXPIRY: 9}, {WRITER: "b"}, {WRITER: "c", EXPIRY: 8}, {WRITER: "b"})


@pytest.mark.parametrize(("ours", "theirs", "merged"), [(20.0, "never", 20.0), (None, 20.0, None), (20.0, 30, 30)])
def test_an_access_time_that_is_none(ours, theirs, merged):
    """An access time that somebody else wrote as he likes is merged as any other value."""
    assert merge({ACCESSED: 10.0}, {ACCESSED: ours}, {ACCESSED: theirs}).record[ACCESSED] == merged
    assert merge({}, {ACCESSED: 20.0}, {}).record == {ACCESSED: 20.0}


# -- Equality ----------------------------------------------------------------------------------------


BERLIN = ZoneInfo("Europe/Berlin")
BERLIN_TIME = datetime(2026, 1, 1, tzinfo=BERLIN)
VALUES = [
    float("nan"),
    Decimal("NaN"),
    [float("nan")],
    {"x": float("nan")},
    {"x": (1, {2, 3})},
    {float("nan"): 1, 1: 2},
    {(1, float("nan"))},
    frozenset({1, frozenset({2})}),
    bytearray(b"x"),
    None,
    "",
    0,
    False,
    2**70,
    UUID(int=1),
    timedelta(1),
    datetime(2026, 1, 1, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    time(1, tzinfo=timezone(timedelta(seconds=0.5))),
    {datetime(2026, 1, 1, tzinfo=BERLIN)},
    Markup("x"),
    TranslationString("x", "d", mapping={"a": 1, "b": [2]}),
    {TranslationString("x", "d")},
    {("x",)},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_that_nobody_changed_is_no_conflict(value):
    """A value is unchanged if its record is: also a NaN, which is not equal to itself."""
    # As two requests read it: a copy that shares not even a NaN.
    base, ours = ({"v": pickle.loads(pickle.dumps(value)), "o": 1} for _ in range(2))

    check(base, ours, {"v": "changed", "o": 2}, {"v": "changed", "o": 2})
    check(base, {"v": "changed", "o": 2}, ours, {"v": "changed", "o": 2})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((1, True), (0, False), (1, 1.0), ("1", 1), ([], ()), ({}, None)),
        *((0.0, -0.0), (0j, -0j), (1, Decimal(1)), (Decimal("1.0"), Decimal("1.00")), (b"x", bytearray(b"x"))),
        *(([1], [True]), ({"x": 0.0}, {"x": -0.0}), ((0.0,), (-0.0,)), ({1}, {True}), ({1: "x"}, {True: "x"})),
        *((Markup("x"), "x"), ({Markup("x")}, {"x"}), (TranslationString("x"), "x"), ({"x": 1}, OrderedDict(x=1))),
        *((TranslationString("x", "d"), TranslationString("x", "e")), ({(1,)}, {(True,)})),
        (datetime(2026, 1, 1, 1, tzinfo=BERLIN), datetime(2026, 1, 1, tzinfo=timezone.utc)),
        (datetime(2026, 1, 1, tzinfo=BERLIN), datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))),
        (BERLIN_TIME.replace(tzinfo=None), BERLIN_TIME.replace(tzinfo=None, fold=1)),
        ({datetime(2026, 1, 1, 1, tzinfo=BERLIN)}, {datetime(2026, 1, 1, tzinfo=timezone.utc)}),
        (time(1), time(1, fold=1)),
    ],
    ids=repr,
)
def test_equal_values_of_another_type_or_content_are_changes(one, other):
    """Python holds 1 and True, 0.0 and -0.0, HTML and its text for equal; the change from one to the other is kept."""
    for before, after in ((one, other), (other, one)):
        check({"v": before}, {"v": after}, {"v": before, "w": 1}, {"v": after, "w": 1})
        check({"v": before}, {"v": before, "w": 1}, {"v": after}, {"v": after, "w": 1})
        assert merge({"v": before}, {"v": after}, {"v": "other"}).conflicts == {"v"}


class Zone(tzinfo):
    """A time zone of an application's own, which JSON stores as its offset."""

    def utcoffset(self, _moment):
        return timedelta(hours=1)


def test_a_time_is_compared_as_it_is_stored():
    """A time with a zone of the application's own is the same as what is read back for it, an offset."""
    ours = BERLIN_TIME.replace(tzinfo=Zone())
    read = datetime.fromisoformat(ours.isoformat())

    for one, other in ((ours, read), ({ours}, {read}), ({"x": (ours,)}, {"x": (read,)})):
        check({"v": other}, {"v": one}, {"v": 1}, {"v": 1})
        check({FLASH: [other]}, {}, {FLASH: [one, "new"]}, {FLASH: ["new"]})


@pytest.mark.parametrize("made", [OrderedDict, type("Cart", (dict,), {})])
def test_a_derived_class_of_ours_is_merged(made):
    """JSON stores a derived class as the one that it derives from: what a request puts there still merges."""
    check({"v": {"a": 1}}, {"v": made(a=1, b=2)}, {"v": {"a": 1, "c": 3}}, {"v": {"a": 1, "b": 2, "c": 3}})


class Cart:
    """An object without an equality of its own, as pickled sessions hold them."""

    def __init__(self, *items):
        self.items = list(items)


class Unpicklable:
    """An object that has no state to be told."""

    def __reduce__(self):
        raise NotImplementedError("no state")


class DeepState:
    """An object whose state is nested too deeply."""

    def __reduce__(self):
        raise RecursionError


def test_an_object_is_compared_by_its_state():
    """With pickled sessions, who writes another key does not overwrite theirs' change of an object."""
    merged, conflicts = merge({"cart": Cart(1)}, {"cart": Cart(1), "a": 1}, {"cart": Cart(1, 2)})

    assert merged["cart"].items == [1, 2]
    assert merged["a"] == 1
    assert not conflicts
    assert merge({"cart": Cart(1)}, {"cart": Cart(1, 2)}, {"cart": Cart(1, 3)}).conflicts == {"cart"}


@pytest.mark.parametrize("kind", [Unpicklable, DeepState])
def test_an_object_without_a_state_is_itself(kind):
    """An object that cannot be pickled is compared by its identity, and fails nothing."""
    thing, other = kind(), kind()

    assert merge({"v": thing}, {"v": thing}, {"v": 1}).record == {"v": 1}
    assert merge({"v": thing}, {"v": other}, {"v": thing}).record == {"v": other}
    assert merge({FLASH: [thing]}, {}, {FLASH: [thing, other]}).record == {FLASH: [other]}


# -- Depth, order, cost ------------------------------------------------------------------------------


def nested(depth, leaf, step=dict):
    """Return a value that is so many dicts, lists or tuples deep."""
    for _ in range(depth):
        leaf = step(d=leaf) if step is dict else step([leaf])
    return leaf


@pytest.mark.parametrize("depth", [0, 1, MAX_DEPTH, MAX_DEPTH + 1, 300, 3000])
def test_deeper_than_a_hundred_ours_is_whole(depth):
    """Dicts merge to a depth of 100; deeper, a value that both changed is the later commit's."""
    base, ours, theirs = ({"v": nested(depth, leaf)} for leaf in ({}, {"a": 1}, {"b": 2}))
    merged, conflicts = merge(base, ours, theirs)
    value = merged["v"]
    assert (value is ours["v"]) == (depth > MAX_DEPTH)
    for _ in range(depth):
        value = value["d"]

    assert value == ({"b": 2, "a": 1} if depth <= MAX_DEPTH else {"a": 1})
    assert conflicts == ({"v"} if depth > MAX_DEPTH else set())


@pytest.mark.parametrize("step", [dict, list, tuple])
@pytest.mark.parametrize("depth", [300, 10_000])
def test_at_any_depth_an_unchanged_side_yields_the_other(depth, step):
    """However deep a value is, what one side left alone is the other's, and what one side deleted is gone."""
    base, ours = ({"v": nested(depth, 0, step), "w": 0} for _ in range(2))
    changed = {"v": nested(depth, 1, step), "w": 0}
    for sides in ((base, {**ours, "w": 1}, changed), (base, changed, {**ours, "w": 1})):
        merged, conflicts = merge(*sides)

        assert merged["v"] is changed["v"]
        assert merged["w"] == 1
        assert not conflicts
    assert merge(base, changed, {"w": 0}) == merge(base, {"w": 0}, changed) == ({"w": 0}, {"v"})


@pytest.mark.parametrize("frames", [0, 60])
def test_there_is_never_a_recursion_error(frames):
    """However deep the values are, and however few frames the caller has left, the merge ends."""
    steps = {"dict": dict, "list": list, "tuple": tuple}
    sides = [{name: nested(150, leaf, step) for name, step in steps.items()} for leaf in (0, 1, 2)]
    for side, leaf in zip(sides, (0, 1, 2), strict=True):
        side[FLASH] = [nested(150, leaf, step) for step in steps.values()]
        side["set"] = {nested(150, leaf, tuple)}
    merged, conflicts = near_the_limit(frames, lambda: merge(*sides)) if frames else merge(*sides)

    assert conflicts == {"dict", "list", "tuple"}
    assert merged["dict"] is sides[1]["dict"]
    assert len(merged[FLASH]) == 6
    assert len(merged["set"]) == 2


def near_the_limit(left, action):
    """Return what an action returns where only so many frames are left."""
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1

    def below(frames):
        return below(frames - 1) if frames else action()

    return below(sys.getrecursionlimit() - depth - left)


def test_what_holds_itself_is_compared():
    """A pickled value that holds itself, or shares one dict at many places, ends the merge all the same."""

    def looped(leaf):
        value = {"leaf": leaf, "list": []}
        value["one"] = value["other"] = value
        value["list"] += [value, value]
        return value

    base, same_again, ours, theirs = map(looped, (0, 0, 1, 2))

    assert merge({"v": base}, {"v": same_again}, {"v": theirs}).record["v"] is theirs
    assert merge({"v": base}, {"v": ours}, {"v": theirs}).record["v"] is ours
    assert merge({"v": base}, {"v": ours}, {"v": theirs}).conflicts == {"v"}
    shared = [[{"d": {}}, {"d": {"a": 1}}, {"d": {"b": 2}}][number] for number in range(3)]
    for number in range(3):
        for _ in range(60):
            shared[number] = {"one": shared[number], "other": shared[number]}
    merged, conflicts = merge(*({"v": value} for value in shared))

    assert conflicts == {"v"}
    assert merged["v"] is shared[1]


def test_the_order_of_keys_is_theirs_then_ours():
    """The keys are in the order of the store, our new ones follow; so are a dict's that both changed."""
    base, ours, theirs = {"b": 1}, {"c": 1, "b": 1, "a": 1}, {"z": 1, "b": 2}

    assert list(merge(base, ours, theirs).record) == ["z", "b", "c", "a"]
    assert list(merge({"d": base}, {"d": ours}, {"d": theirs}).record["d"]) == ["z", "b", "c", "a"]
    assert list(merge({"d": base}, {"d": ours}, {"d": base}).record["d"]) == ["c", "b", "a"]


class Item:
    """An item of which all are of one hash, and whose comparisons are counted."""

    compared = 0

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 1

    def __eq__(self, other):
        Item.compared += 1
        return self.number == other.number

    def __reduce__(self):
        return Item, (self.number,)


class Keys(dict):
    """A dict of which each look at a key is counted."""

    def __iter__(self):
        yield from dict.__iter__(self)


def operations(*sides):
    """Return how many functions a merge calls, and how often it compares items."""
    Item.compared = calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        merge(*sides)
    finally:
        sys.setprofile(None)
    return calls + Item.compared


def numbers(size, start=0):
    return [(start + number) * (2**61 - 1) for number in range(size)]


def one_for_many(n, many, one):
    """Return sides of which both replaced many items by one: each of those is compared with it."""
    return [many() for _ in range(n)], [one()], [one(), 1]


SHAPES = {
    "a large dict": lambda n: one_for_many(n, Keys, lambda: Keys.fromkeys(map(str, range(n)), 0)),
    "a large dict of numbers": lambda n: one_for_many(n, lambda: {0: 0}, lambda: dict.fromkeys(range(n), 0)),
    "a large key": lambda n: one_for_many(n, lambda: {(0,): 0}, lambda: {tuple(range(n)): 0}),
    "a large set": lambda n: one_for_many(n, lambda: {0}, lambda: set(range(n))),
    "a large set in a list": lambda n: one_for_many(n, lambda: [{0}], lambda: [set(range(n))]),
    "a large member of a set": lambda n: one_for_many(n, lambda: {(0,)}, lambda: {tuple(range(n))}),
    "a large object": lambda n: one_for_many(n, lambda: Item(0), lambda: Item([*map(Item, range(n))])),
    "appended": lambda n: ([0], numbers(n), numbers(n, n)),
    "appended to": lambda n: (numbers(n), [*numbers(n), 1], [*numbers(n), 2]),
    "the first removed": lambda n: (numbers(n), numbers(n - 1, 1), [*numbers(n), 1]),
    "all removed": lambda n: (numbers(n), [], [*numbers(n), 1]),
    "each other removed": lambda n: (numbers(n), numbers(n)[::2], numbers(n)[1::2]),
    "reversed": lambda n: (numbers(n), numbers(n)[::-1], [*numbers(n), 1]),
    "items": lambda n: ([*map(Item, range(n))], [*map(Item, range(n + 1))], [*map(Item, range(1, n))]),
    "nearly equal items": lambda n: (
        [[*[0] * 20, number] for number in range(n)],
        [[*[0] * 20, n - 1]],
        [[*[0] * 20, number] for number in range(n + 1)],
    ),
    "members": lambda n: (dict.fromkeys(map(str, range(n)), 0), {"a": 1}, {"b": 1}),
    "members changed": lambda n: tuple({f"{side}{number}": side for number in range(n)} for side in "abc"),
    "a set": lambda n: (set(range(n)), set(range(n, 2 * n)), set(range(2 * n, 3 * n))),
    "wide and deep": lambda n: tuple(
        nested(n // 20, {str(number): side for number in range(n)} | {side: 1}) for side in "abc"
    ),
    "a rope": lambda n: tuple(rope(n // 4, leaf) for leaf in ({}, {"a": 1}, {"b": 1})),
    "a rope of lists": lambda n: tuple(rope(n // 4, leaf) for leaf in ([1], [1, 2], [3])),
}


def rope(depth, leaf):
    """Return dicts that are so deep, with members beside at each depth."""
    for _ in range(depth):
        leaf = {"x": list(range(10)), "d": leaf, "y": 1}
    return leaf


@pytest.mark.parametrize("key", ["v", FLASH])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_cost_is_linear(shape, key):
    """Twice as large a session costs twice as many operations, whatever the hashes, and wherever the changes are."""
    small, large = (operations(*({key: side} for side in shape(size))) for size in (400, 800))

    assert large < 2.3 * small + 100


SHARED_SHAPES = {
    "replaced": lambda n: ([[*range(n)]] * n, [[-1, *range(1, n)]], [[-1, *range(1, n)], 1]),
    "appended to": lambda n: tuple([[*range(n)]] * n + added for added in ([], [1], [2])),
}


@pytest.mark.parametrize("shape", SHARED_SHAPES.values(), ids=SHARED_SHAPES)
def test_an_item_that_is_held_many_times(shape):
    """A list that holds one large item many times, as a pickle may, costs as much as one of so many and that item."""
    small, large = (operations(*({"v": side} for side in shape(size))) for size in (400, 800))

    assert large < 2.3 * small + 100


def test_nobody_chooses_a_hash():
    """Numbers of equal hash do not have it when the merge counts them; text has another one in each process."""
    assert len(set(map(hash, numbers(1000)))) == 1
    assert len({hash(_essence(number)) for number in numbers(1000)}) > 990
    assert len({hash(_essence((number, {"n": number}))) for number in numbers(1000)}) > 990


# -- Laws --------------------------------------------------------------------------------------------

keys = st.sampled_from("abcd")
scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(width=16), st.sampled_from(["", "x", "y"]))
values = st.recursive(
    scalars | st.tuples(scalars) | st.sets(st.integers(0, 3)),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4),
    max_leaves=8,
)
queues = st.lists(st.sampled_from(["m", "n", 1, True]), max_size=3)
records = st.builds(
    lambda record, queue: record | queue,
    *(
        st.dictionaries(keys, values, max_size=4),
        st.dictionaries(st.just(FLASH), queues),
    ),
)
laws = settings(deadline=None, max_examples=200)


@st.composite
def edits(draw, value):
    """Draw a value that somebody may have made of another one: most often a change of a part of it."""
    kind = type(value)
    if kind is dict and draw(st.integers(0, 4)):
        kept = {key: item for key, item in value.items() if draw(st.integers(0, 5))}
        edited = {key: draw(edits(item)) if draw(st.booleans()) else item for key, item in kept.items()}
        return edited | draw(st.dictionaries(keys, values, max_size=1))
    if kind is list and draw(st.integers(0, 4)):
        if draw(st.booleans()):
            return value + draw(st.lists(values, max_size=2))
        return [item for item in value if draw(st.booleans())]
    if kind is set and draw(st.integers(0, 4)):
        return value ^ draw(st.sets(st.integers(0, 3), max_size=2))
    return copy.deepcopy(value) if draw(st.booleans()) else draw(values)


@st.composite
def histories(draw):
    """Draw a record, and two that were made of it."""
    base = draw(records)
    ours, theirs = draw(edits(base)), draw(edits(base))
    return base, *(side if isinstance(side, dict) else {} for side in (ours, theirs))


@laws
@example({"a": 0.0}, {"a": -0.0})
@given(records, records)
def test_a_side_that_changed_nothing_yields_the_other(base, changed):
    """Where one side left base as it was, the outcome is the other side."""
    check(base, changed, copy.deepcopy(base), changed)
    check(base, copy.deepcopy(base), changed, changed)


@laws
@given(histories())
def test_what_is_merged_is_merged_into_what_the_store_holds(history):
    """Over theirs, the outcome is nothing but a change of ours: merging it again makes the same."""
    _base, _ours, theirs = history
    merged = merge(*history).record

    check(theirs, merged, copy.deepcopy(theirs), merged)


@laws
@given(histories())
def test_without_a_conflict_it_does_not_matter_who_came_first(history):
    """Whoever commits later, the same keys are conflicts, and all others hold the same, up to its order."""
    base, ours, theirs = history
    (one, conflicts), (other, others) = merge(base, ours, theirs), merge(base, theirs, ours)

    assert conflicts == others
    for key in {*one, *other} - conflicts:
        assert repr(in_any_order(one[key])) == repr(in_any_order(other[key]))


def in_any_order(value):
    if isinstance(value, list):
        return sorted(map(in_any_order, value), key=repr)
    return {key: in_any_order(value[key]) for key in sorted(value)} if isinstance(value, dict) else in_order(value)


@laws
@given(histories())
def test_a_value_is_one_sides_or_made_of_what_they_wrote(history):
    """Each value is ours', theirs', or made of members and items that one of them wrote and neither removed."""
    _, ours, theirs = history
    merged, conflicts = merge(*history)

    for key in {*ours, *theirs} - {FLASH}:
        sides = [side.get(key, ...) for side in history]
        if sides[0] is not ... and ... in sides:
            assert key not in merged
        elif key in conflicts:
            assert same(merged[key], ours[key])
        else:
            assert is_made_of(merged[key], *sides)
    assert conflicts <= {*ours, *theirs}
    assert merged.keys() <= {*ours, *theirs}


def is_made_of(merged, base, ours, theirs):
    """Say whether a value without a conflict has all that was added to it, and nothing else."""
    if same(merged, ours) or same(merged, theirs):
        return same(ours, theirs) or same(base, theirs if same(merged, ours) else ours) or are_merged(ours, theirs)
    if isinstance(merged, dict):
        return (
            all(
                key not in merged
                if key in base and (key not in ours or key not in theirs)
                else is_made_of(merged[key], *(side.get(key, ...) for side in (base, ours, theirs)))
                for key in {*ours, *theirs}
            )
            if isinstance(base, dict)
            else is_made_of(merged, {}, ours, theirs)
        )
    base_items, our_items, their_items, items = (
        Counter(repr(in_order(item)) for item in side) if isinstance(side, (list, set)) else Counter()
        for side in (base, ours, theirs, merged)
    )
    added = (our_items - base_items) + (their_items - base_items)
    if isinstance(merged, set):
        added &= items
    kept = our_items & their_items & base_items
    return added <= items <= added + kept


def are_merged(ours, theirs):
    """Say whether the merge of two values may happen to be one of them."""
    return type(ours) is type(theirs) and isinstance(ours, (dict, list, set))


@laws
@given(records, records, records, records)
def test_a_key_beside_is_never_lost(base, ours, theirs, beside):
    """What one side adds under keys that nobody else knows is there, whatever else is merged."""
    added = {key.upper(): value for key, value in beside.items()}
    from_ours = merge(base, {**ours, **added}, theirs).record
    from_theirs = merge(base, ours, {**theirs, **added}).record

    for key, value in added.items():
        assert same(from_ours[key], value)
        assert same(from_theirs[key], value)


@laws
@given(records, st.dictionaries(keys, values, max_size=4))
def test_the_same_record_by_both_is_the_outcome(base, both):
    """Where both sides made the same of a session, that is the outcome; flashed messages are counted apart."""
    del_queue = {key: value for key, value in base.items() if key != FLASH}

    check(del_queue, copy.deepcopy(both), both, both)


@laws
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(history, shuffler):
    """The outcome is the same dict, in whatever order the sides' keys are."""
    shuffled = [shuffled_deeply(side, shuffler) for side in history]

    assert same(merge(*history).record, merge(*shuffled).record)


def shuffled_deeply(value, shuffler: random.Random):
    """Return a value with the keys of each dict in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled_deeply(item, shuffler)) for key, item in value.items()]
        shuffler.shuffle(items)
        return dict(items)
    return [shuffled_deeply(item, shuffler) for item in value] if isinstance(value, list) else value


@laws
@given(histories())
def test_purity(history):
    """The arguments are as they were, and the same arguments give the same outcome."""
    before = copy.deepcopy(history)
    merged, conflicts = merge(*history)

    assert all(map(same, history, before))
    check(*before, merged, conflicts)
    assert all(merged is not side for side in history)


messages = st.lists(st.sampled_from(["m", "n", float("nan")]), max_size=4)


@laws
@given(messages, messages, messages, st.integers(0, 4), st.integers(0, 4))
def test_flash_queues(queue, our_flashes, their_flashes, our_pops, their_pops):
    """No message is lost and none comes back, whoever popped and whoever flashed."""
    ours, theirs = queue[our_pops:] + our_flashes, queue[their_pops:] + their_flashes
    left = queue[max(our_pops, their_pops) :]
    merged, conflicts = merge(*({FLASH: side} if side else {} for side in (queue, ours, theirs)))
    expected = Counter(map(repr, left + our_flashes + their_flashes))
    found = Counter(map(repr, merged.get(FLASH, [])))

    assert not conflicts
    if not overlap(queue, our_pops, our_flashes) and not overlap(queue, their_pops, their_flashes):
        assert found == expected
    assert found <= Counter(map(repr, queue + our_flashes + their_flashes))


def overlap(queue, pops, flashes):
    """Say whether a popped message was flashed again: then nobody can tell it from one that stayed."""
    return bool({*map(repr, queue[:pops])} & {*map(repr, flashes)})
