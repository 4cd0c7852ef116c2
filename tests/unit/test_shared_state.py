"""What threads share has its lock: needed on the free-threaded build, and between two bytecodes of any other."""

from __future__ import annotations

import itertools
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import beaker.cache
from pyramid.registry import Registry

from beaker_bridge import logs
from beaker_bridge.options import masking
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.pyramid.source import SessionSource
from beaker_bridge.record import serializers
from beaker_bridge.regions.define import define_regions
from beaker_bridge.session.listeners import Listeners
from beaker_bridge.stores.redis import RedisStore
from beaker_bridge.testing.contract import together
from tests.requests import config_of
from tests.shared_state import GUARDED, LOCKS, changes, is_mutable, is_object, parsed, sources, values

SOURCES = list(sources())
VALUES = [value for source in SOURCES for value in values(source)]


# -- Modules and classes -------------------------------------------------------------------------------


def unguarded(value, found):
    """Return the changes of a module's value that are made without the lock that is named beside it."""
    named = GUARDED.search(value.comment)
    lock = named and named[1]
    if lock:
        assert isinstance(vars(sys.modules[value.module])[lock], LOCKS), (
            f"{lock}, named beside {value.label}, is no lock"
        )
    return [
        change
        for module, change in found
        if (change.name == value.name and module == value.module) or change.name.endswith(f".{value.name}")
        if lock not in change.held or module != value.module
    ]


def changes_of_modules(found):
    return [(source.name, change) for source in found for change in changes(source)]


def test_each_mutable_value_of_a_module_has_its_lock():
    """A container of a module is never changed by a function, or under the lock that is named beside it alone."""
    found = changes_of_modules(SOURCES)
    wrong = {
        value.label: places
        for value in VALUES
        if not value.owner and is_mutable(value.value)
        if (places := unguarded(value, found))
    }

    assert wrong == {}, "name its lock beside it (# Guarded by NAME.) and take it, or make the value immutable"


def test_no_class_has_a_mutable_value():
    """A container of a class would be shared by all of its objects: it is one that cannot be changed."""
    assert [value.label for value in VALUES if value.owner and is_mutable(value.value)] == []


def test_each_object_of_a_module_guards_itself():
    """An object of ours that a module keeps is of a class whose attributes are changed under its lock, if ever."""
    kinds = {type(value.value).__name__ for value in VALUES if is_object(value.value)}
    wrong = {label: place for label, place in changes_of_objects() if label.split(".")[0] in kinds}

    assert wrong.keys() <= SAFE.keys()


NEW = """
import threading

_known = {}  # guarded by _guard
_counts = []
_guard = threading.Lock()
_number = 0
_fixed = {"a": 1}


def learn(name):
    _known[name] = 1
    with _guard:
        _known.pop(name)


def count():
    global _number
    _number += 1
    _counts.append(_number)
    return _fixed["a"], [*_counts]


class Shared:
    def put(self, key):
        self.parts[key] = 1
        with self._lock:
            self.parts.clear()
"""


def test_a_new_one_is_found():
    """The finder sees an item that is set, a method that changes, a name that is rebound, and the locks around them."""
    found = [(change.name, change.held) for change in changes(parsed("new", NEW))]
    attributes = [(change.name, change.held) for change in changes(parsed("new", NEW), "self.")]

    assert found == [("_known", ()), ("_known", ("_guard",)), ("_number", ()), ("_counts", ())]
    assert attributes == [("parts", ()), ("parts", ("self._lock",))]


def test_what_is_never_changed_was_not():
    """The containers that no function is seen to change are as they were when the tests began."""
    found = changes_of_modules(SOURCES)
    constant = [value for value in VALUES if is_mutable(value.value) and value.value is not logs._once]

    for value in constant:
        if not any(change.name.rpartition(".")[2] == value.name for _, change in found):
            assert BEFORE[value.label] == copied(value.value), value.label


def copied(value):
    return dict(value) if isinstance(value, dict) else list(value)


BEFORE = {value.label: copied(value.value) for value in VALUES if is_mutable(value.value)}


# -- Objects that requests share -----------------------------------------------------------------------

#: Classes whose objects one request, one call or one command has for itself, by module; the others are shared.
ONE_THREAD = {
    "cli": "a command",
    "site": "a command, or a script that opens a site",
    "middleware": "an answer",
    "debugtoolbar": "a request that is watched",
    "pyramid.completion": "a request",
    "pyramid.isession": "a request",
    "record.tagging": "one encoding",
    "regions.creation_lock.CreationLock": "one computation of a value",
    "regions.creation_lock.FileLease": "one computation of a value",
    "regions.namespace._ValueLock": "one computation of a value; its keys are the thread's",
    "regions.settings": "the start",
    "options.reader": "the start",
    "request": "a request",
    "session.attributes": "a class, while it is made",
    "session.base": "a request; another thread's part is in exclusive()",
    "session.bound": "a request",
    "session.changes": "a request",
    "session.context": "a request",
    "session.cookie": "a request",
    "session.journal": "a command",
    "session.mapping": "a request",
    "session.migrate": "a command",
    "session.session": "a request",
    "session.stored": "a request",
    "session.survey": "a command",
    "session.users": "a request, or a purge",
    "stores._flock._Guard": "one swap",
    "stores._memcached_client._Connection": "one statement: who uses it has taken it out of the idle ones",
    "stores._sql_statements.Retries": "one statement",
}
#: Attributes of shared objects that are changed without a lock of the object's own, and what makes that safe.
SAFE = {
    "AccessLock._descriptor": "set between taking and releasing _thread_lock",
    "AccessLock._held_up": "a set changes as a whole; losing a change costs one wait",
    "BeakerBackend._manager": "its remove() takes the lock of its file, or clears a dict as a whole",
    "CircuitBreaker._failure": "_note_failure() is called under _guard; a reader takes the object as it is",
    "CircuitBreaker._open_until": "as _failure",
    "CircuitBreaker._opened_at": "as _failure",
    "DbmStore._format": "its remove() is called under the store's guard, which swap() holds",
    "FileBackend._manager": "as BeakerBackend's",
    "FileBackend._managers": "one assignment; a thread that still has the old one makes directories again, too",
    "MemcachedServer._idle": "a list's pop() and append() are whole; a connection is in it, or one thread's",
    "MemoryStore._expiring": "under the module's _guard, which swap() holds",
    "MemoryStore._namespaces": "as _expiring; it is Beaker's own dict",
    "PerProcess._made": "setdefault() is whole: of two new objects both threads get the first",
    "RedisStore._client": "close() puts None there; whoever has taken it keeps it, and a closed pool connects again",
    "RedisStore._scriptless": "an item is set or popped as a whole; losing one costs one more try of a script",
    "RegionNamespace._unkept": "a set changes as a whole; losing a change costs one more computation",
    "ServerStore._unreleased": "a deque's append() and popleft() are whole; an empty one is expected",
    "SessionSource.met": "one assignment, after the rest is done; to do that twice is harmless",
}
#: Attributes of shared objects that other code sets, and what makes that safe.
SET_FROM_OUTSIDE = {
    "config.listeners": "its add() takes its lock",
    "config.purge_pause": "one assignment; of two threads that begin a purge, purge_turn() lets one",
    "database.engine": "one assignment, when all is prepared; to prepare twice is harmless",
}
#: The names that shared objects have where other code sets their attributes.
NAMES = ("config.", "store.", "database.", "listeners.", "codec.", "breaker.")


def is_one_threads(label):
    return any(label == name or label.startswith(f"{name}.") for name in ONE_THREAD)


def changes_of_objects():
    """Yield the attributes of shared objects that are changed without a lock of the object's own, and where."""
    for source in SOURCES:
        module = source.name.removeprefix("beaker_bridge").lstrip(".")
        for change in changes(source, "self."):
            owner = change.function.split(".")[0]
            if not is_one_threads(f"{module}.{owner}") and not any(held.startswith("self._") for held in change.held):
                yield f"{owner}.{change.name}", f"{source.name}, line {change.line}"


def test_each_attribute_of_a_shared_object_is_safe():
    """What an object that requests share makes later is made under its lock, or is listed with what makes it safe."""
    found = dict(changes_of_objects())

    assert {label: place for label, place in found.items() if label not in SAFE} == {}
    assert SAFE.keys() - found.keys() == set()


def test_what_is_set_from_outside_is_safe():
    """An attribute of a shared object that other code sets is listed with what makes it safe."""
    found = {
        change.name
        for source in SOURCES
        if not source.name.startswith(("beaker_bridge.cli", "beaker_bridge.debugtoolbar"))
        for change in changes(source)
        if change.name.startswith(NAMES)
    }

    assert found == SET_FROM_OUTSIDE.keys()


# -- Races that were lost ------------------------------------------------------------------------------


class Meeting:
    """Where two threads wait for each other; one that is kept out by a lock goes on alone after a moment."""

    def __init__(self):
        self._barrier = threading.Barrier(2)

    def __call__(self, *_args):
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(0.2)


class Name(str):
    """A key as whose text is asked for when both threads are there."""

    __slots__ = ()
    meeting = None

    def __str__(self):
        self.meeting()
        return "key"


def test_a_value_is_warned_of_once(caplog, monkeypatch):
    """Two requests at once that store a value which JSON changes cause one warning."""
    monkeypatch.setattr(serializers, "_told", set())
    Name.meeting = Meeting()
    together(*[lambda: serializers._warn_of([(Name(), Name, str)])] * 2)

    assert caplog.text.count("which JSON brings back as str") == 1


class Password(str):
    """A password during whose look-up another store is opened."""

    __slots__ = ()
    opening = None

    def __len__(self):
        self.opening()
        return super().__len__()


def test_a_password_is_learned_while_an_error_is_cleaned(monkeypatch):
    """Masking goes through the passwords while another thread learns one."""
    Password.opening = lambda _self: None
    known = Password("correct horse")
    monkeypatch.setattr(masking, "_passwords", {known})
    more = itertools.count()
    Password.opening = lambda _self: together(lambda: masking.learn_passwords({"password": f"another {next(more)}"}))

    assert masking._cleaned("it is correct horse, sir") == "it is \u2026, sir"


def test_a_lock_that_a_fork_has_copied_stops_no_request(monkeypatch):
    """In a child, a lock that another thread held at the fork stays held: no request waits for it."""
    monkeypatch.setattr(serializers, "_told", {("key", "builtins.bool")})

    def use():
        masking._cleaned("an error's text")
        serializers._warn_of([("key", bool, str)])

    thread = threading.Thread(target=use)
    with masking._passwords_guard, serializers._told_guard:
        thread.start()
        thread.join(5)

        assert not thread.is_alive()


class MetRegistry(Registry):
    """A registry that is asked for its subscribers when both threads are there."""

    meeting = None

    def __getattribute__(self, name):
        if name == "has_listeners" and self.meeting is not None:
            self.meeting()
        return super().__getattribute__(name)


def test_two_applications_get_a_stores_events():
    """Of two applications that serve their first requests with one configuration at once, both are remembered."""
    listeners, registries = Listeners(), [MetRegistry(), MetRegistry()]
    MetRegistry.meeting = Meeting()
    together(*[lambda registry=registry: listeners.add(registry) for registry in registries])
    MetRegistry.meeting = None

    assert {id(registry) for registry in listeners._living()} == {id(registry) for registry in registries}


class MetSource(SessionSource):
    """A session factory's source whose own configuration is asked for when both threads are there."""

    meeting = None

    @property
    def config(self):
        self.meeting()

    @config.setter
    def config(self, config):
        """Keep none."""


def test_a_difference_is_warned_of_once(caplog):
    """Two first requests at once warn once of settings that a filter's options replace."""
    MetSource.meeting = Meeting()
    source = MetSource(read_options(given({"type": "memory", "key": "settings"})))
    config = config_of(type="memory", key="filter")
    together(*[lambda: source.meet(config, None)] * 2)

    assert caplog.text.count("the settings' own session options are ignored") == 1


class MetDict(dict):
    """A dict whose items are asked for when both threads are there."""

    meeting = None

    def get(self, *args):
        found = super().get(*args)
        self.meeting()
        return found


def test_a_region_that_two_applications_define_is_warned_of(caplog, monkeypatch):
    """Two applications that start at once and define a region differently are warned."""
    MetDict.meeting = Meeting()
    monkeypatch.setattr(beaker.cache, "cache_regions", MetDict())
    together(
        *[
            lambda seconds=seconds: define_regions(
                {"cache.regions": "short", "cache.short.expire": seconds}, f"application {seconds}"
            )
            for seconds in ("10", "20")
        ]
    )

    assert caplog.text.count("is defined twice in this process, and differently") == 1


def test_a_store_that_is_closed_meanwhile_has_no_idle_connections():
    """A thread that drops idle connections while another one closes the store finds the client, or none."""

    class Closing(RedisStore):
        clients = None

        @property
        def _client(self):
            return next(self.clients) if self.clients else None

        @_client.setter
        def _client(self, client):
            """Keep none."""

    closed = []
    client = SimpleNamespace(connection_pool=SimpleNamespace(disconnect=lambda **how: closed.append(how)))
    store = Closing(read_options(given({"type": "ext:redis", "url": "redis://localhost"})))
    store.clients = iter([client, None])
    store._drop_idle()

    assert closed == [{"inuse_connections": False}]
