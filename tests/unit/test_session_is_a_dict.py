"""``request.session`` is a ``dict``: whatever is done to both, they hold the same, also after a reload."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beaker_bridge.record.fields import RESERVED_KEYS
from tests.requests import Browser, config_of

pytestmark = pytest.mark.slow

KEYS = st.sampled_from(["a", "b", "c", "", "_f_", "ключ"]) | st.text(max_size=4).filter(
    lambda key: key not in RESERVED_KEYS
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
DICTS = st.dictionaries(KEYS, VALUES, max_size=3)


class SessionIsADict(RuleBasedStateMachine):
    """Does the same to a session and to a dict."""

    serializer = "json"

    @initialize()
    def begin(self) -> None:
        self.browser = Browser(config_of(data_serializer=self.serializer))
        self.request = self.browser.begin()
        self.model: dict = {}
        self.committed: dict = {}

    @property
    def session(self):
        return self.request.session

    def both(self, action) -> None:
        """Do the same to both, and see the same come of it: a value, or a KeyError."""
        assert _outcome(action, self.session) == _outcome(action, self.model)

    # -- What changes it -----------------------------------------------------------------------------

    @rule(key=KEYS, value=VALUES)
    def set_item(self, key, value) -> None:
        self.both(lambda mapping: mapping.__setitem__(key, deepcopy(value)))

    @rule(key=KEYS)
    def delete_item(self, key) -> None:
        self.both(lambda mapping: mapping.__delitem__(key))

    @rule(key=KEYS, default=st.just(()) | st.tuples(VALUES))
    def pop(self, key, default) -> None:
        self.both(lambda mapping: mapping.pop(key, *default))

    @rule(key=KEYS, default=VALUES)
    def pop_by_keyword(self, key, default) -> None:
        assert self.session.pop(key, default=default) == self.model.pop(key, default)

    @rule()
    def pop_item(self) -> None:
        self.both(lambda mapping: mapping.popitem())

    @rule(key=KEYS, value=VALUES)
    def set_default(self, key, value) -> None:
        self.both(lambda mapping: mapping.setdefault(key, deepcopy(value)))

    @rule(changes=DICTS, pairs=st.booleans())
    def update(self, changes, pairs) -> None:
        self.both(lambda mapping: mapping.update(list(deepcopy(changes).items()) if pairs else deepcopy(changes)))

    @rule(changes=st.dictionaries(st.sampled_from(["a", "b"]), VALUES))
    def update_by_keywords(self, changes) -> None:
        self.both(lambda mapping: mapping.update(**deepcopy(changes)))

    @rule(changes=DICTS)
    def update_by_operator(self, changes) -> None:
        session, model = self.session, self.model
        session |= deepcopy(changes)
        model |= deepcopy(changes)

    @rule()
    def clear(self) -> None:
        self.both(lambda mapping: mapping.clear())

    @rule(value=VALUES)
    def change_in_place(self, value) -> None:
        for key, held in self.model.items():
            for inner in (held, self.session[key]):
                if isinstance(inner, list):
                    inner.append(deepcopy(value))
                elif isinstance(inner, dict):
                    inner["new"] = deepcopy(value)
        self.session.changed()

    # -- What a request does -------------------------------------------------------------------------

    @rule()
    def reload(self) -> None:
        """Commit, and go on with the next request."""
        self.browser.end(self.request)
        self.request = self.browser.begin()
        self.committed = deepcopy(self.model)

    @rule()
    def commit(self) -> None:
        """Commit, and go on with the same request."""
        self.browser.end(self.request)
        self.committed = deepcopy(self.model)

    @rule()
    def revert(self) -> None:
        self.session.revert()
        self.model = deepcopy(self.committed)

    @rule()
    def log_in(self) -> None:
        self.session.regenerate_id()

    @precondition(lambda self: self.model)
    @rule()
    def log_out(self) -> None:
        self.session.invalidate()
        self.model, self.committed = {}, {}

    # -- What reads it -------------------------------------------------------------------------------

    @rule(key=KEYS, default=VALUES)
    def get(self, key, default) -> None:
        self.both(lambda mapping: (mapping.get(key), mapping.get(key, default), key in mapping))
        self.both(lambda mapping: mapping[key])

    @rule(other=DICTS)
    def unite(self, other) -> None:
        self.both(lambda mapping: (mapping | other, other | mapping, mapping == other, mapping != other))

    @invariant()
    def they_hold_the_same(self) -> None:
        """The order of the keys included."""
        self.both(lambda mapping: (list(mapping), len(mapping), list(reversed(mapping)), bool(mapping)))
        self.both(lambda mapping: (list(mapping.keys()), list(mapping.values()), list(mapping.items()), mapping.copy()))
        self.both(repr)

        assert self.session == self.model
        assert self.model == self.session


def _outcome(action, mapping) -> object:
    try:
        return deepcopy(action(mapping))
    except KeyError as error:
        return repr(error)


class PickledSessionIsADict(SessionIsADict):
    """The same, pickled: what is changed in place is saved by ``changed()``."""

    serializer = "pickle"


SETTINGS = settings(
    deadline=None, max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
for machine in (SessionIsADict, PickledSessionIsADict):
    machine.TestCase.settings = SETTINGS

TestSessionIsADict = SessionIsADict.TestCase
TestPickledSessionIsADict = PickledSessionIsADict.TestCase
