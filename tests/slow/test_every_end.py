"""Every order in which logins, rotations, and the ends of a user's sessions can overlap, with one killed on its way."""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import pytest

from beaker_bridge.exceptions import SessionLimitError
from beaker_bridge.record.fields import END_REASON, INDEX, LOGIN, LOGINS, MOVED
from beaker_bridge.session import base as session_base
from beaker_bridge.session import bound, session
from beaker_bridge.session.users import UserIndex
from tests.requests import NAME, START, Request, config_of
from tests.schedules import KILLED, Exploration, Ids, State, SteppedStore, Suspended, Turn, outcome_of

# Millions of schedules of one and the same logic.
pytestmark = [pytest.mark.once, pytest.mark.slow]

USER = 42
_config = config_of(timeout=1200, clock=lambda: START, secret="a secret of thirty-two bytes, or more")


# -- What a request does: one function a kind ----------------------------------------------------------


def write(request: Request, number: int) -> None:
    request.session["a"] = number


def regenerate(request: Request, number: int) -> None:
    request.session.regenerate_id()


def log_in_again(request: Request, number: int) -> None:
    request.session.bind(USER)


def unbind(request: Request, number: int) -> None:
    request.session.unbind()


def log_out(request: Request, number: int) -> None:
    request.session.invalidate()


def log_in_elsewhere(request: Request, number: int) -> None:
    request.session.bind(USER)


def log_in_alone(request: Request, number: int) -> None:
    request.session.bind(USER, limit=1)


def log_in_if_alone(request: Request, number: int) -> None:
    request.session.bind(USER, limit=1, on_limit="refuse")


def list_sessions(request: Request, number: int) -> None:
    UserIndex(_config).sessions(USER)


def revoke(request: Request, number: int) -> None:
    UserIndex(_config).revoke(USER)


def revoke_others(request: Request, number: int) -> None:
    UserIndex(_config).revoke(USER, spare=_first().login)


def revoke_one(request: Request, number: int) -> None:
    UserIndex(_config).revoke_one(_first().handle)


#: What comes from another browser, or from a script: without the cookie.
ELSEWHERE = {log_in_elsewhere, log_in_alone, log_in_if_alone, list_sessions, revoke, revoke_others, revoke_one}
#: What ends the first login, once it is done.
ENDERS = {log_out, log_in_alone, revoke, revoke_one}
#: What leaves the first login, or a session that is not bound.
LEAVERS = {log_in_again, unbind}
LOGINS_IN = {log_in_elsewhere, log_in_alone, log_in_again}
KINDS = (
    write,
    regenerate,
    log_in_again,
    unbind,
    log_out,
    log_in_elsewhere,
    log_in_alone,
    log_in_if_alone,
    list_sessions,
    revoke,
    revoke_others,
    revoke_one,
)
PAIRS = tuple(combinations_with_replacement(KINDS, 2))
#: How many schedules the pairs have, by the number of requests that may be killed. README.rst has the largest.
SCHEDULES = {0: 580_325, 1: 2_751_108, 2: 4_987_149}
#: Where three overlap: a rotation under way, and two ends; an end under way, and who meets it.
TRIPLES = (
    (regenerate, log_out, revoke),
    (regenerate, log_in_alone, list_sessions),
    (log_in_elsewhere, log_out, revoke),
    (log_in_again, log_in_alone, list_sessions),
    (unbind, write, revoke_one),
)
ALL_TRIPLES = tuple(combinations_with_replacement(KINDS, 3))

_ids = Ids()


@cache
def _advance(kind: Any, number: int, cookie: str, answers: tuple[Any, ...]) -> Turn:
    """Run a request from its start until it needs an answer more than it has."""
    _config.store = store = SteppedStore(answers)
    _ids.begin(number)
    try:
        request = Request(_config, cookie if kind not in ELSEWHERE else "")
        request.loaded._writer = f"{number:08x}"
        kind(request, number)
        request.commit()
    except Suspended:
        return Turn(answers, store.next)
    except SessionLimitError:
        return Turn(answers, KILLED)
    return Turn(answers, outcome_of(request))


class First(NamedTuple):
    """The login that there is before the requests: what the store holds, and its cookie, id, login and handle."""

    state: State
    cookie: str
    id: str
    login: str
    handle: str


@cache
def _first() -> First:
    alone = Exploration(
        1, lambda _number, answers: _advance(log_in_elsewhere, 13, "", answers), State(frozenset(), frozenset())
    )
    ((state, (outcome,)),) = alone.finals
    session_id = outcome.cookie[-32:]
    content = _contents(state)[session_id]
    handle = UserIndex(_config)._key.handle_of(content[LOGIN], str(USER))
    return First(state, f"{NAME}={outcome.cookie}", session_id, content[LOGIN], handle)


def _contents(state: State) -> dict[str, dict[str, Any]]:
    return {name: _config.codec.decode(raw)[0] for name, raw in state.records}


def _live(state: State) -> dict[str, dict[str, Any]]:
    """Return the sessions that live, by their ids."""
    return {
        name: content for name, content in _contents(state).items() if not {MOVED, END_REASON, LOGINS} & content.keys()
    }


# -- The laws ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _known_ids(monkeypatch):
    """Give new ids in a known order: a request that is run again must do the same."""
    for module in (session_base, session, bound):
        monkeypatch.setattr(module, "new_id", _ids)


def explored(kinds: tuple[Any, ...], crashes: int) -> Exploration:
    first = _first()
    return Exploration(
        len(kinds),
        lambda number, answers: _advance(kinds[number], number, first.cookie, answers),
        first.state,
        crashes=crashes,
    )


def check(kinds: tuple[Any, ...], exploration: Exploration) -> None:
    first, names = _first(), [kind.__name__ for kind in kinds]
    for state, outcomes in exploration.finals:
        live, contents = _live(state), _contents(state)
        done = [kind for kind, outcome in zip(kinds, outcomes, strict=True) if outcome is not KILLED]
        sent = {outcome.cookie[-32:] for outcome in outcomes if outcome.cookie}
        firsts = [name for name, content in live.items() if content.get(LOGIN) == first.login]
        killed_enders = {*kinds} & (ENDERS | LEAVERS | {revoke_others}) and KILLED in outcomes

        # After an end, nothing opens the login that it ended, whatever overlapped it.
        ended = [kind for kind in done if kind in ENDERS]
        assert not (ended and firsts), names
        # What ends nobody leaves the user logged in, wherever it was killed.
        assert firsts or {*kinds} & (ENDERS | LEAVERS), names
        # Each session that has a cookie and a login is in its user's index; one that is ending is on its way out.
        for name in sent | {first.id}:
            if LOGIN in live.get(name, ()):
                index = contents.get(live[name][INDEX], {LOGINS: {}})[LOGINS]
                assert name in index.get(live[name][LOGIN], {"ids": []})["ids"], names
                assert index[live[name][LOGIN]]["state"] == "live" or killed_enders, names
        # No cookie is sent for a session that was not stored.
        assert sent <= state.known, names
        if not {*kinds} & (ENDERS | {revoke_others, unbind}):
            assert sent <= live.keys(), names
        if log_in_alone in done and not {log_in_elsewhere, log_in_again} & {*kinds}:
            assert len({content.get(LOGIN) for content in live.values()} - {None}) <= 1, names


def tell(capsys, number: int, sets: tuple[Any, ...]) -> None:
    with capsys.disabled():
        print(f"\n{number:,} schedules of {len(sets)} sets of {len(sets[0])} requests")  # noqa: T201 -- it is asked for


@pytest.mark.parametrize("crashes", SCHEDULES)
def test_an_end_holds_in_whichever_order_two_requests_come(crashes, capsys):
    """Whatever two requests do to a user's sessions, and wherever one of them is killed."""
    number = 0
    for kinds in PAIRS:
        exploration = explored(kinds, crashes)
        check(kinds, exploration)
        number += exploration.number

    assert number == SCHEDULES[crashes]
    tell(capsys, number, PAIRS)


@pytest.mark.ci
def test_an_end_holds_in_whichever_order_three_requests_come(capsys):
    """The same of three."""
    number = 0
    for kinds in TRIPLES:
        exploration = explored(kinds, 0)
        check(kinds, exploration)
        number += exploration.number
        _advance.cache_clear()

    tell(capsys, number, TRIPLES)


@pytest.mark.soak
@pytest.mark.parametrize("crashes", [0, 1])
def test_an_end_holds_in_whichever_order_any_three_requests_come(crashes, capsys):
    """The same of any three, one of which may be killed."""
    number = 0
    for kinds in ALL_TRIPLES:
        exploration = explored(kinds, crashes)
        check(kinds, exploration)
        number += exploration.number
        _advance.cache_clear()

    tell(capsys, number, ALL_TRIPLES)
