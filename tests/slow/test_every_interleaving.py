"""Every order in which the store's operations of up to three overlapping requests can come."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cache
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import pytest

from beaker_bridge.exceptions import SessionConflictError, SessionTooLateError
from beaker_bridge.record.fields import MOVED, RESERVED_KEYS
from beaker_bridge.session import base as session_base
from beaker_bridge.session import bound, session
from beaker_bridge.session import retry as session_retry
from beaker_bridge.session.context import OVER
from tests.requests import NAME, START, Request, config_of
from tests.schedules import Exploration, Ids, State, SteppedStore, Suspended, Turn, outcome_of

# Millions of schedules of one and the same logic.
pytestmark = [pytest.mark.once, pytest.mark.slow]

#: The id in the cookie of every request, and what stands under it at first.
OLD = "0" * 31 + "f"
BASE = {"name": "base", "a": "base", "b": "base", "n": {"y": "base"}, "_f_": ["old"]}
TIMEOUT = 30
#: The second at which a request comes: before its access time is to be renewed, or when it is.
FRESH, DUE = 1, 5
#: The second at which a session that nobody has renewed is over.
LATE = TIMEOUT + 1


# -- What a request does: one function a kind ----------------------------------------------------------


def read(mapping: Any, number: int) -> None:
    dict(mapping)


def write(mapping: Any, number: int) -> None:
    mapping["a"] = number


def write_another(mapping: Any, number: int) -> None:
    mapping["b"] = number


def change_nested(mapping: Any, number: int) -> None:
    mapping.setdefault("n", {})[str(number)] = number


def flash(mapping: Any, number: int) -> None:
    # As flash() does; all messages are equal: two of them are two.
    mapping.setdefault("_f_", []).append("new")


def flash_once(mapping: Any, number: int) -> None:
    # Of equal messages that are flashed so, one is enough.
    mapping.flash("new", allow_duplicate=False)


def append(mapping: Any, number: int) -> None:
    mapping.setdefault("list", []).append(number)


def delete_nested(mapping: Any, number: int) -> None:
    mapping.pop("n", None)


def replace_nested(mapping: Any, number: int) -> None:
    mapping["n"] = {"z": number}


def pop(mapping: Any, number: int) -> None:
    mapping.pop("_f_", None)


def clear(mapping: Any, number: int) -> None:
    mapping.clear()


def invalidate(mapping: Any, number: int) -> None:
    mapping.invalidate()


def regenerate(mapping: Any, number: int) -> None:
    mapping.regenerate_id()
    mapping["user"] = number


def expire(mapping: Any, number: int) -> None:
    """Only come late."""


def count_exclusively(mapping: Any, number: int) -> None:
    # Where another request has moved the session, the block is refused.
    with suppress(SessionConflictError), mapping.exclusive():
        mapping["count"] = mapping.get("count", 0) + 1


def regenerate_and_count(mapping: Any, number: int) -> None:
    regenerate(mapping, number)
    count_exclusively(mapping, number)


def count_late(mapping: Any, number: int) -> None:
    # A job whose request is over: a change is refused, a block is not. A session that has ended stays so.
    mapping.persist()
    mapping._exchange.phase = OVER
    with pytest.raises(SessionTooLateError):
        mapping["late"] = number
    with suppress(SessionTooLateError):
        count_exclusively(mapping, number)


def regenerate_twice(mapping: Any, number: int) -> None:
    regenerate(mapping, number)
    mapping.persist()
    regenerate(mapping, number)


#: What the model does in the place of a kind that does the same in another way.
MODELS = {count_late: count_exclusively}
KINDS = (read, write, write_another, change_nested, flash, pop, clear, invalidate, regenerate, expire)
ALL_KINDS = (*KINDS, count_exclusively, count_late)
# Which of them is named first makes no difference: all orders of their operations are explored.
PAIRS = tuple(combinations_with_replacement(ALL_KINDS, 2))
TRIPLES = tuple(combinations_with_replacement(ALL_KINDS, 3))
QUADRUPLES = tuple(combinations_with_replacement(KINDS, 4))
#: Rotations one after the other, and what overlaps them.
ROTATIONS = tuple(
    combinations_with_replacement((write, invalidate, regenerate, regenerate_twice, regenerate_and_count), 3)
)
#: What changes the same values in different ways.
MERGED_KINDS = (flash, flash_once, pop, append, change_nested, delete_nested, replace_nested, clear)
MERGES = tuple(combinations_with_replacement(MERGED_KINDS, 3))
#: What ends a session, or moves it.
ENDS = frozenset({invalidate, regenerate, regenerate_twice, regenerate_and_count, expire})


def second_of(kind: Any, usual: int) -> int:
    return LATE if kind is expire else usual


# -- The schedules -----------------------------------------------------------------------------------


_config = config_of(timeout=TIMEOUT, clock=lambda: START)


def _record(content: dict[str, Any]) -> bytes:
    times = {"_creation_time": START, "_accessed_time": START}
    return _config.codec.seal(_config.codec.serialize({**content, **times}))


@cache
def _advance(kind: Any, number: int, second: int, answers: tuple[Any, ...]) -> Turn:
    """Run a request from its start until it needs an answer more than it has."""
    _config.store = store = SteppedStore(answers)
    _config.clock = lambda: START + second_of(kind, second)
    _ids.begin(number)
    try:
        request = Request(_config, f"{NAME}={OLD}")
        request.loaded._writer = f"{number:08x}"
        kind(request.session, number)
        if not request.exchange.over:
            request.commit()
    except Suspended:
        return Turn(answers, store.next)
    # Nobody may answer before the store has: it would be another outcome in another order.
    assert next(store._answers, None) is None
    return Turn(answers, outcome_of(request))


_ids = Ids()


class Schedules(Exploration):
    """All schedules of requests that each do something of a kind.

    Args:
        kinds: what each request does.
        second: the second at which the requests come that are not late.
        alive: whether the session that they name exists.
    """

    def __init__(self, kinds: tuple[Any, ...], second: int, *, alive: bool = True) -> None:
        self.kinds, self.second = kinds, second
        records = {OLD: _record(BASE)} if alive else {}
        state = State(frozenset(records.items()), frozenset({OLD}))
        super().__init__(len(kinds), lambda number, answers: _advance(kinds[number], number, second, answers), state)


# -- One after the other: a model that shares nothing with the product --------------------------------


class Moved(NamedTuple):
    """What the model keeps under an id that has moved: the ids to which it was moved."""

    to: tuple[str, ...]


class ModelSession(dict):
    """A session of the model."""

    rotated = False

    def flash(self, message: str, *, allow_duplicate: bool) -> None:
        queue = self.setdefault("_f_", [])
        if allow_duplicate or message not in queue:
            queue.append(message)

    def regenerate_id(self) -> None:
        self.rotated = True

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        yield


class Model(NamedTuple):
    """The store after requests that did not overlap, or only with the end of their session.

    ``records`` holds content and access time; ``snapshots`` is what the first session held at any time;
    ``unsaved`` is whose changes are not saved.
    """

    second: int
    records: dict[str, Any]
    snapshots: tuple[dict[str, Any], ...]
    browser: str | None = OLD
    unsaved: frozenset[int] = frozenset()

    def ways(self, kind: Any, number: int) -> Iterator[Model]:
        """Yield what a request may come to: with the first cookie, or with what the browser has by now."""
        yield self._run(kind, number, OLD)
        if self.browser != OLD:
            yield self._run(kind, number, self.browser)
        end = self.records.get(OLD)
        if self.snapshots and (end is None or isinstance(end, Moved)):
            # It began before the session ended or moved, and would commit after that: nothing is saved.
            yield self._dropped(number)
            if kind is regenerate and end is not None:
                # But a login that overlaps another one keeps what it began with, under an id of its own.
                for snapshot in self.snapshots:
                    yield self._change(kind, number, OLD, (snapshot, second_of(kind, self.second)))
        elif kind in (pop, clear) and end is not None:
            # It removes the messages that there were when it began, and none that was flashed since.
            for snapshot in self.snapshots:
                yield self._change(kind, number, OLD, end, seen=snapshot)

    def _run(self, kind: Any, number: int, cookie: str | None) -> Model:
        now = second_of(kind, self.second)
        found = self.records.get(cookie)
        is_moved = isinstance(found, Moved)
        if found is not None and not is_moved and now - found[1] > TIMEOUT:
            return self._without(cookie)._change(kind, number, cookie, None)
        if kind is invalidate:
            return self._without(cookie)._replace(browser=None)
        if is_moved and kind is not regenerate:
            return self._dropped(number)
        return self._change(kind, number, cookie, None if is_moved else found)

    def _dropped(self, number: int) -> Model:
        return self._replace(unsaved=self.unsaved | {number})

    def _without(self, cookie: str | None) -> Model:
        """Return the model without a session, and without those that it was moved to."""
        ended, waiting = set(), [cookie]
        while waiting:
            ended.add(name := waiting.pop())
            found = self.records.get(name)
            waiting += found.to if isinstance(found, Moved) else ()
        return self._replace(records={name: record for name, record in self.records.items() if name not in ended})

    def _change(self, kind: Any, number: int, cookie: str | None, found: Any, *, seen: Any = None) -> Model:
        now = second_of(kind, self.second)
        if kind is count_late and not found:
            # Nothing of a new session could be saved any more.
            return self
        before, accessed = found or ({}, now)
        session = ModelSession(deepcopy(before))
        MODELS.get(kind, kind)(session, number)
        if seen is not None:
            unseen = Counter(before.get("_f_", ())) - Counter(seen.get("_f_", ()))
            session.update({"_f_": list(unseen.elements())} if unseen else {})
        if not (found or session):
            return self
        records = dict(self.records)
        if not found or session.rotated:
            new, there = f"{number} after {cookie}", records.get(cookie)
            if there is not None:
                records[cookie] = Moved((*there.to, new) if isinstance(there, Moved) else (new,))
            cookie, accessed = new, now
        renewed = now if now - accessed >= TIMEOUT / 10 else accessed
        records[cookie] = dict(session), renewed
        snapshots = (*self.snapshots, dict(session)) if cookie == OLD else self.snapshots
        return self._replace(records=records, snapshots=snapshots, browser=cookie)


def live(contents: Any) -> tuple[str, ...]:
    """Return the contents of sessions in a form that can be compared."""
    return tuple(sorted(json.dumps(content, sort_keys=True) for content in contents))


def changers(kinds: tuple[Any, ...], numbers: Iterable[int]) -> tuple[int, ...]:
    """Return those of some requests that change something which can be saved or not."""
    return tuple(number for number in numbers if kinds[number] not in (read, expire, invalidate))


def one_after_the_other(schedules: Schedules, *, alive: bool = True) -> set[tuple[Any, ...]]:
    """Return what the store may hold after the same requests, one after the other, and who is not saved."""
    outcomes = set()

    def run(model: Model, waiting: tuple[int, ...]) -> None:
        if not waiting:
            contents = live(record[0] for record in model.records.values() if not isinstance(record, Moved))
            outcomes.add((contents, changers(schedules.kinds, sorted(model.unsaved))))
        for number in waiting:
            for after in model.ways(schedules.kinds[number], number):
                run(after, tuple(other for other in waiting if other != number))

    records, snapshots = ({OLD: (BASE, 0)}, (BASE,)) if alive else ({}, ())
    run(Model(schedules.second, records, snapshots), tuple(range(len(schedules.kinds))))
    return outcomes


# -- The laws ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _known_ids(monkeypatch):
    """Give new ids in a known order: a request that is run again must do the same."""
    for module in (session_base, session, bound):
        monkeypatch.setattr(module, "new_id", _ids)


@pytest.fixture(params=[FRESH, DUE], ids=["fresh", "due"])
def second(request):
    """Return when the requests come: nothing is to be renewed, or each of them renews the access time."""
    return request.param


@cache
def explored(kinds: tuple[Any, ...], second: int) -> Schedules:
    return Schedules(kinds, second)


def sessions(state: State) -> dict[str, dict[str, Any]]:
    """Return the sessions that live, by their ids."""
    records = {name: _config.codec.decode(raw)[0] for name, raw in state.records}
    return {
        name: {key: value for key, value in record.items() if key not in RESERVED_KEYS}
        for name, record in records.items()
        if MOVED not in record
    }


def check_orders(schedules: Schedules, *, alive: bool = True) -> None:
    expected = one_after_the_other(schedules, alive=alive)
    for state, outcomes in schedules.finals:
        unsaved = changers(schedules.kinds, [number for number, outcome in enumerate(outcomes) if outcome.unsaved])

        assert (live(sessions(state).values()), unsaved) in expected, [kind.__name__ for kind in schedules.kinds]
        assert not state.locked


def tell(capsys, number: int, sets: tuple[Any, ...]) -> None:
    with capsys.disabled():
        print(f"\n{number:,} schedules of {len(sets)} sets of {len(sets[0])} requests")  # noqa: T201 -- it is asked for


@pytest.mark.parametrize("sets", [PAIRS, TRIPLES, MERGES], ids=["pairs", "triples", "merges"])
def test_each_outcome_is_that_of_some_order(sets, second, capsys):
    """In whatever order the store's operations come, it holds what the same requests make one after the other."""
    number = 0
    for kinds in sets:
        check_orders(explored(kinds, second))
        number += explored(kinds, second).number

    assert number > len(sets)
    tell(capsys, number, sets)


@pytest.mark.soak
def test_each_outcome_of_four_requests_is_that_of_some_order(second, capsys):
    """The same holds of four requests, of which one may lose so often that it queues on the lock."""
    number = 0
    for kinds in QUADRUPLES:
        schedules = Schedules(kinds, second)
        check_orders(schedules)
        number += schedules.number

    tell(capsys, number, QUADRUPLES)


def test_nothing_is_lost_that_only_one_side_changed(second):
    """Where no request ends the session, each key that one of them changed has its value; no message is lost."""
    for kinds in (*PAIRS, *TRIPLES):
        # What a clear() takes along, and what not, is in the orders.
        if {clear, *ENDS} & {*kinds}:
            continue
        for state, _outcomes in explored(kinds, second).finals:
            (kept,) = sessions(state).values()

            assert kept["name"] == "base"
            assert kept["a"] in _numbers(kinds, write)
            assert kept["b"] in _numbers(kinds, write_another)
            changed = {str(number): number for number in _numbers(kinds, change_nested) if number != "base"}
            assert kept["n"] == {"y": "base", **changed}
            assert kept.get("count", 0) == kinds.count(count_exclusively) + kinds.count(count_late)
            if pop not in kinds:
                assert kept["_f_"] == ["old"] + ["new"] * kinds.count(flash)
            else:
                assert "old" not in kept.get("_f_", [])


def _numbers(kinds: tuple[Any, ...], wanted: Any) -> list[Any]:
    """Return which requests are of a kind; none: what was there before."""
    return [number for number, kind in enumerate(kinds) if kind is wanted] or ["base"]


def test_nobody_is_logged_out_by_a_login(second):
    """Whichever response comes last, the browser's cookie opens a session in which somebody is logged in."""
    for kinds in (*PAIRS, *TRIPLES, *ROTATIONS):
        if {regenerate, regenerate_twice, regenerate_and_count} & {*kinds} and not {invalidate, expire} & {*kinds}:
            for state, outcomes in explored(kinds, second).finals:
                cookies = [outcome.cookie for outcome in outcomes if outcome.sends]

                assert cookies
                assert all("user" in sessions(state)[cookie] for cookie in cookies)


def test_a_cookie_that_is_sent_opens_a_session(second):
    """No cookie is sent for a session that was not stored, or that its own request had to take back."""
    for kinds in (*PAIRS, *TRIPLES, *ROTATIONS):
        for state, outcomes in explored(kinds, second).finals:
            cookies = {outcome.cookie for outcome in outcomes if outcome.cookie is not None}

            # A logout ends it when it was sent, too.
            assert cookies <= (state.known if invalidate in kinds else sessions(state).keys())


def test_nobody_else_is_sent_a_cookie(second):
    """A request that neither begins, ends nor moves a session sends no cookie, whatever overlaps it."""
    for kinds in (*PAIRS, *TRIPLES):
        if not ENDS & {*kinds}:
            for _state, outcomes in explored(kinds, second).finals:
                assert not any(outcome.sends for outcome in outcomes)


def test_no_session_comes_back(second):
    """After a logout nothing opens what the session held, and nobody is logged in, whatever login had moved it."""
    for kinds in (*PAIRS, *TRIPLES, *ROTATIONS):
        if invalidate in kinds:
            for state, _outcomes in explored(kinds, second).finals:
                assert OLD not in sessions(state)
                assert not any("name" in content for content in sessions(state).values())


def test_no_id_is_adopted(second):
    """An id that the store does not know is given to no session, whatever the requests do."""
    for kinds in (*PAIRS, *TRIPLES):
        schedules = Schedules(kinds, second, alive=False)
        check_orders(schedules, alive=False)

        assert all(OLD not in dict(state.records) for state, _outcomes in schedules.finals)


@pytest.mark.parametrize("free_tries", [0, 1])
def test_those_who_queue_on_the_lock_wait_for_one_another_in_turn(free_tries, second, monkeypatch):
    """Where every writer queues on the store's lock, the outcomes are the same, and nobody waits for ever."""
    monkeypatch.setattr(session_retry, "FREE_TRIES", free_tries)
    _advance.cache_clear()
    for kinds in (*PAIRS, *TRIPLES):
        check_orders(Schedules(kinds, second))
    _advance.cache_clear()
