"""All schedules of requests that overlap: each operation of the store is a step, and they come in every order.

A request runs until it needs the store, and is then left; when its turn comes it is run again from its
start, with the answers that it had. So a schedule needs no threads, and what two schedules have in
common is run once: the outcomes are those of all schedules, each counted.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.record.fields import END_REASON
from beaker_bridge.stores.base import ID_FORM, Record, Store, Swap
from tests.requests import Request


class Suspended(BaseException):
    """The request waits for its turn at the store; no error, and nobody may catch it as one."""


class SteppedStore(Store):
    """A store that answers from a record of answers, and suspends its request where that ends."""

    kind = "stepped"
    envelope = BareEnvelope

    def __init__(self, answers: tuple[Any, ...]) -> None:
        self._answers = iter(answers)
        self.next: tuple[Any, ...] | None = None

    def read(self, session_id: str) -> Record | None:
        return self._step("read", session_id)

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        return self._step("swap", session_id, record, new)

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[None]:
        self._step("lock", session_id)
        try:
            yield
        finally:
            self._step("unlock", session_id)

    def _step(self, *operation: Any) -> Any:
        if self.next is not None:
            # It is being left: what its blocks do on the way out is not done.
            return None
        for answer in self._answers:
            return answer
        self.next = operation
        raise Suspended


class State(NamedTuple):
    """What stands in the store, the ids that it ever knew, and who holds which lock."""

    records: frozenset[tuple[str, bytes]]
    known: frozenset[str]
    locked: frozenset[str] = frozenset()

    def can(self, operation: tuple[Any, ...]) -> bool:
        """Say whether an operation need not wait."""
        return operation[0] != "lock" or operation[1] not in self.locked

    def do(self, operation: tuple[Any, ...]) -> tuple[State, Any]:
        """Return the state after an operation, and its answer: the contract of ``Store``."""
        name, session_id, *arguments = operation
        if name == "lock":
            return self._replace(locked=self.locked | {session_id}), operation
        if name == "unlock":
            return self._replace(locked=self.locked - {session_id}), operation
        records = dict(self.records)
        found = Record(records[session_id]) if session_id in records else None
        if name == "read":
            return self, found
        return self._swap(records, session_id, found, *arguments)

    def _swap(
        self, records: dict[str, bytes], session_id: str, found: Record | None, record: Record | None, new: bytes | None
    ) -> tuple[State, Swap]:
        if (found.raw if found else None) == new:
            return self, Swap(True, found)
        if found != record:
            return self, Swap(False, found)
        if new is None:
            del records[session_id]
            return self._replace(records=frozenset(records.items())), Swap(True, None)
        was_known = (
            session_id in self.known and ID_FORM.fullmatch(session_id) and END_REASON.encode() not in b64decode(new)
        )
        assert found or not was_known, f"{session_id} is back from the dead, or adopted"
        records[session_id] = new
        return State(frozenset(records.items()), self.known | {session_id}, self.locked), Swap(True, Record(new))


class Outcome(NamedTuple):
    """What a request came to: whether it sends a cookie, and the id in it; none makes the browser forget."""

    sends: bool
    cookie: str | None
    #: Whether it knows that its changes are not saved, since the session ended or moved.
    unsaved: bool


class Turn(NamedTuple):
    """A request that waits for its turn: the answers that it had, and what it does next."""

    answers: tuple[Any, ...]
    next: tuple[Any, ...] | Outcome


#: What a request that was killed came to.
KILLED = Outcome(False, None, True)


class Exploration:
    """Explores all schedules of some requests.

    Args:
        number: how many requests there are.
        advance: runs a request, by its number, with the answers that it had, until it waits for its turn or is done.
        state: what the store holds at first.
        crashes: how many of the requests may be killed, each before any of its operations.
    """

    def __init__(
        self, number: int, advance: Callable[[int, tuple[Any, ...]], Turn], state: State, *, crashes: int = 0
    ) -> None:
        self._advance = advance
        #: What the store holds at the end, and what the requests came to.
        self.finals: set[tuple[State, tuple[Outcome, ...]]] = set()
        self._counts: dict[Any, int] = {}
        #: How many schedules there are.
        self.number = self._explore(state, tuple(advance(nth, ()) for nth in range(number)), crashes)
        self._counts.clear()

    def _explore(self, state: State, turns: tuple[Turn, ...], crashes: int) -> int:
        """Return the number of schedules from here."""
        key = state, turns, crashes
        if key not in self._counts:
            waiting = [number for number, turn in enumerate(turns) if not isinstance(turn.next, Outcome)]
            ready = [number for number in waiting if state.can(turns[number].next)]
            assert ready or not waiting, f"{[turns[number].next for number in waiting]} wait for one another"
            if not waiting:
                self.finals.add((state, tuple(turn.next for turn in turns)))
            count = sum(self._take_turn(state, turns, number, crashes) for number in ready)
            if crashes:
                count += sum(self._crash(state, turns, number, crashes) for number in waiting)
            self._counts[key] = count or 1
        return self._counts[key]

    def _take_turn(self, state: State, turns: tuple[Turn, ...], number: int, crashes: int) -> int:
        after, answer = state.do(turns[number].next)
        turn = self._advance(number, (*turns[number].answers, answer))
        return self._explore(after, (*turns[:number], turn, *turns[number + 1 :]), crashes)

    def _crash(self, state: State, turns: tuple[Turn, ...], number: int, crashes: int) -> int:
        """Kill a request before its next operation; a lock that it holds is a lease, which ends."""
        locks = [answer for answer in turns[number].answers if type(answer) is tuple]
        held = {key for kind, key, *_ in locks if kind == "lock"} - {key for kind, key, *_ in locks if kind == "unlock"}
        after = state._replace(locked=state.locked - held)
        return self._explore(after, (*turns[:number], Turn((), KILLED), *turns[number + 1 :]), crashes - 1)


def outcome_of(request: Request) -> Outcome:
    """Return what a request that is done came to."""
    header, unsaved = request.set_cookie, request.loaded._state.detached
    if header is None:
        return Outcome(False, None, unsaved)
    return Outcome(True, None if "Max-Age=0" in header else header.split(";")[0].partition("=")[2], unsaved)


class Ids:
    """New ids: the same ones each time that a request is run again."""

    def begin(self, number: int) -> None:
        self._numbers = (f"{number + 1:x}{nth:031x}" for nth in count())

    def __call__(self) -> str:
        return next(self._numbers)
