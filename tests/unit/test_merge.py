"""The three-way merge: examples of each sentence of its documentation, and its laws."""

import copy
import math
import pickle
import random
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beaker_bridge.exceptions import SessionValueError
from beaker_bridge.record.fields import ACCESSED
from beaker_bridge.session.merge import merge

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
    ],
)
def test_a_key_that_one_side_changed(base, ours, theirs, merged):
    """A key that only one side changed takes that side's value."""
    assert merge(base, ours, theirs) == merged


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"a": 1}, {}, {"a": 1}, {}),
        ({"a": 1}, {"a": 1}, {}, {}),
        ({"a": 1}, {}, {}, {}),
        ({"a": 1, "b": 1}, {"a": 1}, {"b": 1}, {}),
        ({"a": 1}, {}, {"a": 1, "b": 2}, {"b": 2}),
    ],
)
def test_a_deletion_is_a_change(base, ours, theirs, merged):
    """A key that one side deleted, and the other left alone, is gone."""
    assert merge(base, ours, theirs) == merged


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"d": {"x": 1}}, {"d": {"x": 1, "y": 2}}, {"d": {"x": 1, "z": 3}}, {"d": {"x": 1, "y": 2, "z": 3}}),
        ({"d": {"x": 1, "y": 1}}, {"d": {"x": 1}}, {"d": {"y": 1}}, {"d": {}}),
        (
            {"d": {"e": {"f": {"x": 1}}}},
            {"d": {"e": {"f": {"x": 2}}}},
            {"d": {"e": {"f": {"x": 1}, "g": 1}}},
            {"d": {"e": {"f": {"x": 2}, "g": 1}}},
        ),
        ({"d": 1}, {"d": {"x": 1}}, {"d": {"y": 2}}, {"d": {"x": 1, "y": 2}}),
    ],
)
def test_dicts_merge_at_any_depth(base, ours, theirs, merged):
    """Dicts that both sides changed merge key by key, at any depth."""
    assert merge(base, ours, theirs) == merged


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        pytest.param([], ["a"], ["b"], ["b", "a"], id="two messages"),
        pytest.param([], ["a"], ["a"], ["a", "a"], id="two equal messages"),
        pytest.param(["a"], ["a", "b", "c"], ["a", "d", "e"], ["a", "d", "e", "b", "c"], id="each appended two"),
        pytest.param(["a"], ["a", "b", "a"], ["a", "c"], ["a", "c", "b", "a"], id="ours appended an equal one last"),
        pytest.param(["a"], [], ["a", "b"], ["b"], id="ours popped, theirs flashed"),
        pytest.param(["a"], ["a", "b"], [], ["b"], id="ours flashed, theirs popped"),
        pytest.param(["a"], [], ["a", "a"], ["a"], id="ours popped, theirs flashed the same again"),
        pytest.param(["a"], ["a", "a"], [], ["a"], id="ours flashed the same again, theirs popped"),
        pytest.param(["a"], ["b"], ["a", "c"], ["c", "b"], id="ours popped and flashed"),
        pytest.param(["a", "a"], ["a"], ["a"], ["a"], id="both popped the first of two equal ones"),
        pytest.param(["a", "b"], ["b"], ["a"], [], id="each popped another one"),
        pytest.param(["a", "b", "c"], ["a", "c"], ["x", "a", "b", "c"], ["x", "a", "c"], id="theirs set one before"),
        pytest.param(["a", "b"], ["x", "a", "b"], ["y", "a", "b"], ["y", "a", "b", "x"], id="both set one before"),
        pytest.param(["b", "a"], ["a", "b"], ["a", "b"], ["a", "b"], id="both sorted"),
        pytest.param(["b", "a"], ["b", "a", "d"], ["a", "b", "c"], ["a", "b", "c", "d"], id="theirs sorted"),
        pytest.param([1], [True], [1, 2], [2, True], id="1 is not True"),
        pytest.param([{"x": [1]}], [{"x": [1]}, 1], [{"x": [1]}, 2], [{"x": [1]}, 2, 1], id="items without a hash"),
    ],
)
def test_lists_lose_nothing(base, ours, theirs, merged):
    """A list is theirs, less what ours removed, then what ours added; no message is lost or doubled."""
    assert merge({"q": base}, {"q": ours}, {"q": theirs}) == {"q": merged}
    assert repr(merge({"q": base}, {"q": ours}, {"q": theirs})["q"]) == repr(merged)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({}, {"q": ["a"]}, {"q": ["b"]}, {"q": ["b", "a"]}),
        ({"q": ["a"]}, {}, {"q": ["a", "b"]}, {"q": ["b"]}),
        ({"q": ["a"]}, {"q": ["a", "b"]}, {}, {"q": ["b"]}),
        ({"q": ["a", "b"]}, {}, {"q": ["b"]}, {}),
        ({}, {"d": {"x": 1}}, {"d": {"y": 1}}, {"d": {"x": 1, "y": 1}}),
        ({"d": {"x": 1}}, {}, {"d": {"x": 1, "y": 1}}, {"d": {"y": 1}}),
        ({"d": {"x": 1}}, {"d": {"x": 1, "y": 1}}, {}, {"d": {"y": 1}}),
        ({"d": {"x": 1, "y": 1}}, {}, {"d": {"x": 1}}, {}),
        ({"d": {"x": 1, "y": 1}}, {"d": {"x": 1}}, {}, {}),
        ({"q": ["a", "b"]}, {"q": ["b"]}, {}, {}),
        ({"d": {"x": {"y": 1}}}, {"d": {}}, {"d": {"x": {"y": 1, "z": 1}}}, {"d": {"x": {"z": 1}}}),
    ],
)
def test_absent_counts_as_empty(base, ours, theirs, merged):
    """Absent counts as an empty dict or list: who deletes the parent has touched its children."""
    assert merge(base, ours, theirs) == merged


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
        ({"a": 1}, {}, {"a": 3}, {}),
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),
        ({}, {"a": "x"}, {"a": [1]}, {"a": "x"}),
        ({"a": {}}, {"a": [1]}, {"a": {"x": 1}}, {"a": [1]}),
        ({"a": (1,)}, {"a": (1, 2)}, {"a": (1, 3)}, {"a": (1, 2)}),
        ({"d": {"x": 1, "y": 1}}, {"d": {"x": 2, "y": 1}}, {"d": {"x": 3, "y": 3}}, {"d": {"x": 2, "y": 3}}),
    ],
)
def test_of_anything_else_ours_wins(base, ours, theirs, merged):
    """Where both changed one key otherwise, ours wins, being the later commit."""
    assert merge(base, ours, theirs) == merged


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"), [(20.0, 30.0, 30.0), (30.0, 20.0, 30.0), (10.0, 30.0, 30.0), (30.0, 10.0, 30.0)]
)
def test_the_later_access_time_counts(ours, theirs, merged):
    """The access time is the later of the two, whoever changed it."""
    assert merge({ACCESSED: 10.0}, {ACCESSED: ours}, {ACCESSED: theirs}) == {ACCESSED: merged}


@pytest.mark.parametrize(("ours", "theirs", "merged"), [(20.0, "never", 20.0), (None, 20.0, None), (20.0, 30, 30)])
def test_an_access_time_that_is_none(ours, theirs, merged):
    """An access time that somebody else wrote as he likes is merged as any other value."""
    assert merge({ACCESSED: 10.0}, {ACCESSED: ours}, {ACCESSED: theirs})[ACCESSED] == merged
    assert merge({}, {ACCESSED: 20.0}, {}) == {ACCESSED: 20.0}


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        Decimal("NaN"),
        [float("nan")],
        {"x": float("nan")},
        {"x": (1, {2, 3})},
        frozenset({1}),
        bytearray(b"x"),
        None,
        "",
        0,
        False,
    ],
    ids=repr,
)
def test_a_value_that_nobody_changed_is_no_conflict(value):
    """A value is unchanged if its record is: also a NaN, which is not equal to itself."""
    # As two requests read it: a copy that shares not even a NaN.
    base, ours = ({"v": pickle.loads(pickle.dumps(value)), "o": 1} for _ in range(2))

    assert merge(base, ours, {"v": "changed", "o": 2}) == {"v": "changed", "o": 2}
    assert merge(base, {"v": "changed", "o": 2}, ours) == {"v": "changed", "o": 2}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((1, True), (0, False), (1, 1.0), ("1", 1), ([], ()), ({}, None)),
        *((0.0, -0.0), (0j, -0j), (1, Decimal(1)), (Decimal("1.0"), Decimal("1.00")), (b"x", bytearray(b"x"))),
        *(([1], [True]), ({"x": 0.0}, {"x": -0.0}), ((0.0,), (-0.0,)), ({1}, {True}), ({1: "x"}, {True: "x"})),
    ],
    ids=repr,
)
def test_equal_values_of_another_type_or_sign_are_changes(one, other):
    """Python holds 1 and True, and 0.0 and -0.0, for equal; their records are not, and the change is not lost."""
    for base, changed in ((one, other), (other, one)):
        assert same(merge({"v": base}, {"v": changed}, {"v": base, "w": 1}), {"v": changed, "w": 1})
        assert same(merge({"v": base}, {"v": base, "w": 1}, {"v": changed}), {"v": changed, "w": 1})


class Cart:
    """An object without an equality of its own, as pickled sessions hold them."""

    def __init__(self, *items):
        self.items = list(items)


class Unpicklable:
    """An object that has no state to be told."""

    def __reduce__(self):
        raise NotImplementedError("no state")


def test_an_object_is_compared_by_its_state():
    """With pickled sessions, who writes another key does not overwrite theirs' change of an object."""
    merged = merge({"cart": Cart(1)}, {"cart": Cart(1), "a": 1}, {"cart": Cart(1, 2)})

    assert merged["cart"].items == [1, 2]
    assert merged["a"] == 1


def test_an_object_without_a_state_is_itself():
    """An object that cannot be pickled is compared by its identity, and fails nothing."""
    thing, other = Unpicklable(), Unpicklable()

    assert merge({"v": thing}, {"v": thing}, {"v": 1}) == {"v": 1}
    assert merge({"v": thing}, {"v": other}, {"v": thing}) == {"v": other}


class DeepState:
    """An object whose state is nested too deeply."""

    def __reduce__(self):
        raise RecursionError


def nested(depth, leaf):
    """Return a dict that is so many dicts deep."""
    for _ in range(depth):
        leaf = {"d": leaf}
    return leaf


@pytest.mark.parametrize(
    "sides",
    [
        (nested(3000, 0), nested(3000, 1), nested(3000, 2)),
        ({"v": 1}, {"v": DeepState()}, {"v": 2}),
    ],
    ids=["dicts", "an object"],
)
def test_what_is_nested_too_deeply_is_refused(sides):
    """Values that are nested too deeply to be compared are an error of ours, not a crash."""
    with pytest.raises(SessionValueError, match="nested too deeply") as caught:
        merge(*sides)

    assert isinstance(caught.value.original, RecursionError)


def test_the_order_of_keys_is_theirs_then_ours():
    """The keys stand in the order of the store, with our new ones behind."""
    assert list(merge({"b": 1}, {"c": 1, "b": 1, "a": 1}, {"z": 1, "b": 2})) == ["z", "b", "c", "a"]


def test_long_lists_merge():
    """Two lists of 20,000 items merge item by item; comparing each with each would never end."""
    base = [{"n": number} for number in range(20_000)]
    merged = merge({"q": base}, {"q": [{"n": -1}, *base[1:]]}, {"q": [*base, {"n": -2}]})

    assert merged == {"q": [*base[1:], {"n": -2}, {"n": -1}]}


# -- Laws --------------------------------------------------------------------------------------------

keys = st.sampled_from("abcd")
scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(width=16), st.sampled_from(["", "x", "y"]))
values = st.recursive(
    scalars | st.tuples(scalars) | st.sets(st.integers(0, 3)),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4),
    max_leaves=8,
)
records = st.dictionaries(keys, values, max_size=4)
without_lists = st.recursive(scalars, lambda children: st.dictionaries(keys, children, max_size=4), max_leaves=8)
laws = settings(deadline=None, max_examples=200)


def same(one, other):
    """Say whether two records are the same, in order and type, and a NaN itself."""
    return repr(sorted_deeply(one)) == repr(sorted_deeply(other))


def sorted_deeply(value):
    """Return a value with each dict's and set's items in one order."""
    if isinstance(value, dict):
        return {key: sorted_deeply(value[key]) for key in sorted(value)}
    if isinstance(value, set):
        return sorted(value, key=repr)
    return [type(value), *map(sorted_deeply, value)] if isinstance(value, (list, tuple)) else value


@laws
@example({"a": 0.0}, {"a": -0.0})
@given(records, records)
def test_identity(base, changed):
    """Where one side left base as it was, the outcome is the other side."""
    assert same(merge(base, changed, copy.deepcopy(base)), changed)
    assert same(merge(base, copy.deepcopy(base), changed), changed)


def untouched_paths(base, side, path=()):
    """Yield each path at which a side is what base is: it, and whatever is below, was not touched."""
    for key in {**base, **side}:
        below = base.get(key), side.get(key)
        if key in base and key in side and same(*below):
            yield (*path, key)
        elif isinstance(below[0], dict) and isinstance(below[1], dict):
            yield from untouched_paths(*below, (*path, key))


def at(record, path):
    """Return what is at a path, or nothing."""
    for key in path:
        if not isinstance(record, dict) or key not in record:
            return ...
        record = record[key]
    return record


@laws
@given(records, records, records)
def test_nothing_is_lost_that_one_side_touched(base, ours, theirs):
    """At any depth, where ours left alone what theirs changed, theirs' change stands, and the other way round."""
    merged = merge(base, ours, theirs)
    touched = [(path, theirs) for path in untouched_paths(base, ours)]
    touched += [(path, ours) for path in untouched_paths(base, theirs)]

    for path, side in touched:
        if all(isinstance(at(side, path[:depth]), dict) for depth in range(len(path))):
            assert same(at(merged, path), at(side, path)), path


@laws
@given(records, records, records, records)
def test_a_key_beside_is_never_lost(base, ours, theirs, beside):
    """What one side adds under keys that nobody else knows is there, whatever else is merged."""
    added = {key.upper(): value for key, value in beside.items()}
    from_ours, from_theirs = merge(base, {**ours, **added}, theirs), merge(base, ours, {**theirs, **added})

    for key, value in added.items():
        assert same(from_ours[key], value)
        assert same(from_theirs[key], value)


@laws
@given(records, st.dictionaries(keys, without_lists, max_size=4))
def test_agreement(base, both):
    """Where both sides did the same, that is the outcome; appended lists excepted."""
    assert same(merge(base, copy.deepcopy(both), both), both)


@laws
@given(st.lists(scalars, max_size=5), st.data())
def test_agreement_on_removed_items(base, data):
    """Where both sides removed the same items of a list, or brought them into the same order, that is the outcome."""
    kept = data.draw(st.lists(st.sampled_from(base), max_size=5) if base else st.just([]))
    both = list((Counter(map(repr, kept)) & Counter(map(repr, base))).elements())
    items = {repr(item): item for item in base}
    both = [items[name] for name in both]

    assert same(merge({"q": base}, {"q": list(both)}, {"q": both}), {"q": both})


@laws
@given(records, records, records, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(base, ours, theirs, shuffler):
    """The outcome is the same dict, in whatever order the sides' keys stand."""
    shuffled = [shuffled_deeply(side, shuffler) for side in (base, ours, theirs)]

    assert same(merge(base, ours, theirs), merge(*shuffled))


def shuffled_deeply(value, shuffler: random.Random):
    """Return a value with the keys of each dict in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled_deeply(item, shuffler)) for key, item in value.items()]
        shuffler.shuffle(items)
        return dict(items)
    return [shuffled_deeply(item, shuffler) for item in value] if isinstance(value, list) else value


@laws
@given(records, records, records)
def test_purity(base, ours, theirs):
    """The arguments are as they were, and the same arguments give the same outcome."""
    before = copy.deepcopy((base, ours, theirs))
    merged = merge(base, ours, theirs)

    assert all(map(same, (base, ours, theirs), before))
    assert same(merged, merge(*before))
    assert merged is not ours
    assert merged is not theirs


messages = st.lists(st.sampled_from(["m", "n", math.nan]), max_size=4)


@laws
@given(messages, messages, messages, st.integers(0, 4), st.integers(0, 4))
def test_flash_queues(queue, our_flashes, their_flashes, our_pops, their_pops):
    """No message is lost and none comes back, whoever popped and whoever flashed."""
    ours, theirs = queue[our_pops:] + our_flashes, queue[their_pops:] + their_flashes
    left = queue[max(our_pops, their_pops) :]
    merged = merge(*({"_f_": side} if side else {} for side in (queue, ours, theirs))).get("_f_", [])
    expected = Counter(map(repr, left + our_flashes + their_flashes))

    if not overlap(queue, our_pops, our_flashes) and not overlap(queue, their_pops, their_flashes):
        assert Counter(map(repr, merged)) == expected
    assert Counter(map(repr, merged)) <= Counter(map(repr, queue + our_flashes + their_flashes))


def overlap(queue, pops, flashes):
    """Say whether a popped message was flashed again: then nobody can tell it from one that stayed."""
    return bool({*map(repr, queue[:pops])} & {*map(repr, flashes)})
