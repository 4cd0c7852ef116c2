"""The suite behind ``beaker_bridge.testing.contract``, which has its asserts rewritten by pytest."""

from __future__ import annotations

import base64
import os
import pickle  # nosec B403 -- options, for a process of our own
import secrets
import subprocess  # nosec B404 -- as above
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from beaker.cache import clsmap

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError, SessionTooLargeError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.pyramid.isession import PyramidSession
from beaker_bridge.request.exchange import SessionObject
from beaker_bridge.session.base import GRACE
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.context import SessionContext
from beaker_bridge.session.purge import purge
from beaker_bridge.session.session import Session
from beaker_bridge.session.users import UserIndex
from beaker_bridge.stores import open_store
from beaker_bridge.stores.base import Record, Store, Swap

T = TypeVar("T")
#: Makes a new record's raw bytes, of about a size if it is given one.
Raw = Callable[..., bytes]

#: Seconds after which a test that waits for another thread gives up: a bound, not a measure.
PATIENCE = 30
KIB = 1024
#: Seconds after which an idle session expires, where a test has it expire.
TIMEOUT = 1200
#: How often each of two processes replaces one record.
ROUNDS = 40


def text(size: int = 40) -> bytes:
    """Return a new text in base64, as sessions have it, of about ``size`` bytes."""
    return base64.b64encode(secrets.token_bytes(size * 3 // 4))


def together(*tasks: Callable[[], T]) -> list[T]:
    """Run each task in a thread of its own, begun at once, and return their results."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        barrier.wait(PATIENCE)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, task) for task in tasks]]


def raw_of(record: Record | None) -> bytes | None:
    """Return a record's bytes; None if there is no record."""
    return None if record is None else record.raw


def count_up(store: Store, session_id: str) -> None:
    """Add one to the number in a record, again and again, each time by a swap that is made."""
    for _ in range(ROUNDS):
        made = False
        while not made:
            record = store.read(session_id)
            # A word beside the number, so that nobody else's swap stores the same.
            text = f"{number_in(store, record) + 1:08d}{secrets.token_hex(16)}"
            made = store.swap(session_id, record, store.envelope.wrap(text.encode())).made


def number_in(store: Store, record: Record | None) -> int:
    """Return the number in a record that :func:`count_up` wrote; 0 if there is no record."""
    return 0 if record is None else int(store.envelope.unwrap(record.raw)[:8])


def be_another_process() -> None:
    """Hold a session's lock until a line comes in, and then count up; what another process does in a test."""
    options, session_id = pickle.load(sys.stdin.buffer)  # noqa: S301  # nosec B301 -- from the test
    store = open_store(read_options(given(options)))
    with store.lock(session_id, PATIENCE):
        sys.stdout.write("locked\n")
        sys.stdout.flush()
        sys.stdin.buffer.readline()
    count_up(store, session_id)
    store.close()


@contextmanager
def another_process(options: dict[str, Any], session_id: str) -> Iterator[Callable[[], None]]:
    """Run :func:`be_another_process`, and yield what has it go on. At the end it has ended, and has not failed.

    Args:
        options: the session options.
        session_id: the id.
    """
    code = f"from {__name__} import be_another_process as run; run()"
    process = subprocess.Popen(  # noqa: S603  # nosec B603 -- this Python
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"},
    )
    with process:
        stdin, stdout = cast("Any", process.stdin), cast("Any", process.stdout)
        pickle.dump((options, session_id), stdin)
        stdin.flush()

        assert stdout.readline() == b"locked\n"

        def go_on() -> None:
            stdin.write(b"\n")
            stdin.flush()

        yield go_on

    assert process.returncode == 0


class CountedStore:
    """A store that notes which of its methods a session calls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.calls.append(name)
            return getattr(self._store, name)(*args)

        return counted


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Browser:
    """Makes requests with one cookie.

    Args:
        config: the configuration of their sessions.
    """

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._cookie = ""

    def begin(self) -> PyramidSession:
        """Begin a request, and return its session, loaded."""
        session = PyramidSession(SessionObject({"wsgi.url_scheme": "http", "HTTP_COOKIE": self._cookie}, self._config))
        dict(session)
        return session

    def end(self, session: PyramidSession) -> None:
        """Commit a request's session, and keep the cookie of its response."""
        session.persist()
        headers = dict(session._exchange.with_session_headers([]))
        self._cookie = headers.get("Set-Cookie", self._cookie).partition(";")[0]

    def write(self, **values: Any) -> None:
        """Make a request that sets keys."""
        session = self.begin()
        session.update(values)
        self.end(session)

    def read(self) -> dict[str, Any]:
        """Make a request that reads the session."""
        return dict(self.begin())


class StoreContract:
    """The suite: a store's test class derives from it and overrides the fixture ``options``, and ``unreachable``.

    It needs a server of the test's own, or one whose records may be deleted, and runs in a second or two.
    """

    #: Whether the store lists its records; else it refuses to.
    lists_ids = True
    #: Whether the store holds text only: its envelope is bare, and its backend holds strings.
    text_only = False
    #: Whether processes share the store, and can be given its options; else it is for the threads of one.
    several_processes = True
    #: The largest record that the store holds, in bytes, as far as the suite goes.
    largest = 1024 * KIB

    # -- Fixtures ------------------------------------------------------------------------------------

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Return the session options of the store: the one fixture that a store must override."""
        raise NotImplementedError

    @pytest.fixture
    def unreachable(self) -> dict[str, Any] | None:
        """Return options of a store that cannot be reached, such as a port on which nobody listens; None: none can."""
        return None

    @pytest.fixture
    def make_store(self, options: dict[str, Any]) -> Iterator[Callable[[], Store]]:
        """Return what makes stores on the same data, each with connections of its own."""
        made = []

        def make() -> Store:
            made.append(open_store(read_options(given({"store_timeout": 10, **options}))))
            return made[-1]

        yield make
        for store in made:
            store.close()

    @pytest.fixture
    def store(self, make_store: Callable[[], Store]) -> Store:
        """Return the store."""
        return make_store()

    @pytest.fixture
    def other_store(self, make_store: Callable[[], Store]) -> Store:
        """Return another process's store: the same data, other connections."""
        return make_store()

    @pytest.fixture
    def raw(self, store: Store) -> Callable[..., bytes]:
        """Return what makes a new record's raw bytes."""
        return lambda size=40: store.envelope.wrap(text(size))

    @pytest.fixture
    def config(self, options: dict[str, Any]) -> Iterator[SessionConfig]:
        """Return a configuration of sessions in the store, with a clock that only the test moves."""
        more = {"secret": secrets.token_hex(32), "timeout": TIMEOUT, "clock": Clock(), "store_timeout": 10}
        config = SessionConfig(read_options(given({**options, **more})))
        yield config
        cast("Store", config.store).close()

    @pytest.fixture
    def session_id(self) -> str:
        """Return a new id."""
        return secrets.token_hex(16)

    @pytest.fixture
    def stored(self, store: Store, session_id: str, raw: Raw) -> Record:
        """Return a record that is in the store."""
        return cast("Record", store.swap(session_id, None, raw()).found)

    def listed(self, store: Store) -> list[str]:
        """Return the ids that a store lists; none if it says that it cannot."""
        if self.lists_ids:
            return list(store.ids())
        with pytest.raises(SessionStoreError, match=f"the session store {store.kind} cannot list its sessions"):
            store.ids()
        return []

    # -- Read ----------------------------------------------------------------------------------------

    def test_nothing_is_read_where_nothing_was_written(self, store: Store, session_id: str) -> None:
        """An id without a record reads as nothing."""
        assert store.read(session_id) is None

    def test_reading_leaves_nothing_behind(self, store: Store, session_id: str) -> None:
        """A read of an id without a record makes none."""
        store.read(session_id)

        assert session_id not in self.listed(store)
        assert store.swap(session_id, None, None).found is None

    def test_what_was_written_is_read_by_everybody(
        self, store: Store, other_store: Store, session_id: str, raw: Raw
    ) -> None:
        """A record that one process inserts is another one's next read."""
        new = raw()
        store.swap(session_id, None, new)

        assert raw_of(store.read(session_id)) == new
        assert raw_of(other_store.read(session_id)) == new

    def test_sessions_do_not_mix(self, store: Store, raw: Raw) -> None:
        """Records of ids that differ in one digit stand side by side."""
        ids = ["0" * 32, "0" * 31 + "1", "1" + "0" * 31]
        records = {session_id: raw() for session_id in ids}
        for session_id, new in records.items():
            store.swap(session_id, store.read(session_id), new)

        assert {session_id: raw_of(store.read(session_id)) for session_id in ids} == records

        for session_id in ids:
            store.swap(session_id, store.read(session_id), None)

    @pytest.mark.parametrize("size", [1, 64 * KIB, 1024 * KIB - 200])
    def test_a_record_is_held_whole_or_refused(
        self, store: Store, other_store: Store, session_id: str, raw: Raw, size: int
    ) -> None:
        """A large record is read as it was written; one over the store's limit is an error, and nothing is stored."""
        new = raw(size)
        if len(new) > self.largest:
            with pytest.raises(SessionTooLargeError) as refused:
                store.swap(session_id, None, new)

            assert refused.value.value == len(new)
            assert other_store.read(session_id) is None
        else:
            assert store.swap(session_id, None, new).made
            assert raw_of(other_store.read(session_id)) == new

    def test_a_record_is_its_bytes(self, store: Store, other_store: Store, session_id: str) -> None:
        """Every byte value comes back as it was written, also at the ends of a record."""
        new = bytes(range(128)) if self.text_only else bytes(range(256)) + b"\r\n\x00 '\"\\%"
        swap = store.swap(session_id, None, new)

        assert swap.made
        assert raw_of(other_store.read(session_id)) == new

        last = other_store.swap(session_id, other_store.read(session_id), b"\x00")

        assert last.made
        assert raw_of(store.read(session_id)) == b"\x00"

    # -- Swap ----------------------------------------------------------------------------------------

    def test_insert(self, store: Store, session_id: str, raw: Raw) -> None:
        """A record is inserted where there is none; the swap shows it."""
        new = raw()
        swap = store.swap(session_id, None, new)

        assert swap.made
        assert raw_of(swap.found) == new

    def test_insert_loses_against_a_record(self, store: Store, other_store: Store, session_id: str, raw: Raw) -> None:
        """An insert leaves a record that stands there, and shows it."""
        theirs = raw()
        other_store.swap(session_id, None, theirs)
        swap = store.swap(session_id, None, raw())

        assert not swap.made
        assert raw_of(swap.found) == theirs
        assert raw_of(store.read(session_id)) == theirs

    def test_replace(self, store: Store, session_id: str, stored: Record, raw: Raw) -> None:
        """A record that still is the one that was read is replaced."""
        new = raw()
        swap = store.swap(session_id, store.read(session_id), new)

        assert swap.made
        assert raw_of(swap.found) == new
        assert raw_of(store.read(session_id)) == new

    def test_replace_with_another_size(
        self, store: Store, other_store: Store, session_id: str, stored: Record, raw: Raw
    ) -> None:
        """A record may grow and shrink from one swap to the next."""
        for size in (4000, 10, 60 * KIB, 900, 1):
            new = raw(size)

            assert store.swap(session_id, store.read(session_id), new).made
            assert raw_of(other_store.read(session_id)) == new

    def test_replace_loses_against_another_replacement(
        self, store: Store, other_store: Store, session_id: str, stored: Record, raw: Raw
    ) -> None:
        """A replacement of what no longer stands is not made, and shows what stands."""
        theirs = raw()
        other_store.swap(session_id, other_store.read(session_id), theirs)
        swap = store.swap(session_id, stored, raw())

        assert not swap.made
        assert raw_of(swap.found) == theirs
        assert raw_of(store.read(session_id)) == theirs

    def test_replace_loses_against_a_deletion(
        self, store: Store, other_store: Store, session_id: str, stored: Record, raw: Raw
    ) -> None:
        """A record that was deleted is not brought back by a replacement."""
        other_store.swap(session_id, other_store.read(session_id), None)

        assert store.swap(session_id, stored, raw()) == Swap(False, None)
        assert store.read(session_id) is None

    def test_what_a_swap_shows_can_be_replaced(
        self, store: Store, other_store: Store, session_id: str, raw: Raw
    ) -> None:
        """The record that a swap shows, made or lost, is as good for the next swap as one that was read."""
        first = store.swap(session_id, None, raw())
        second = store.swap(session_id, first.found, raw())
        lost = other_store.swap(session_id, None, raw())
        third = other_store.swap(session_id, lost.found, raw())

        assert (first.made, second.made, lost.made, third.made) == (True, True, False, True)
        assert raw_of(lost.found) == raw_of(second.found)
        assert raw_of(store.read(session_id)) == raw_of(third.found)

    def test_delete(self, store: Store, other_store: Store, session_id: str, stored: Record) -> None:
        """A deletion leaves nothing."""
        assert store.swap(session_id, store.read(session_id), None) == Swap(True, None)
        assert other_store.read(session_id) is None
        assert session_id not in self.listed(other_store)

    def test_delete_loses_against_a_replacement(
        self, store: Store, other_store: Store, session_id: str, stored: Record, raw: Raw
    ) -> None:
        """A deletion of what no longer stands is not made, and shows what stands."""
        theirs = raw()
        other_store.swap(session_id, other_store.read(session_id), theirs)
        swap = store.swap(session_id, stored, None)

        assert not swap.made
        assert raw_of(swap.found) == theirs
        assert raw_of(store.read(session_id)) == theirs

    def test_delete_without_a_record_loses_against_one(self, store: Store, session_id: str, stored: Record) -> None:
        """Whoever found nothing and deletes does not delete what came since."""
        swap = store.swap(session_id, None, None)

        assert not swap.made
        assert raw_of(swap.found) == stored.raw
        assert raw_of(store.read(session_id)) == stored.raw

    def test_deleting_what_is_absent_is_made(
        self, store: Store, other_store: Store, session_id: str, stored: Record
    ) -> None:
        """A deletion is made where nothing stands, whether something was read or not."""
        other_store.swap(session_id, other_store.read(session_id), None)

        assert store.swap(session_id, stored, None) == Swap(True, None)
        assert store.swap(session_id, None, None) == Swap(True, None)

    def test_an_id_can_be_used_again(self, store: Store, session_id: str, stored: Record, raw: Raw) -> None:
        """After a deletion, a record can be inserted."""
        store.swap(session_id, store.read(session_id), None)
        new = raw()

        assert store.swap(session_id, None, new).made
        assert raw_of(store.read(session_id)) == new

    def test_an_insert_whose_answer_was_lost_is_made(
        self, store: Store, other_store: Store, session_id: str, raw: Raw
    ) -> None:
        """Inserting what stands there already is made: it was our own write, whose answer was lost."""
        new = raw()
        store.swap(session_id, None, new)
        again = other_store.swap(session_id, None, new)

        assert again.made
        assert raw_of(again.found) == new
        assert store.swap(session_id, again.found, raw()).made

    def test_a_replacement_whose_answer_was_lost_is_made(
        self, store: Store, other_store: Store, session_id: str, stored: Record, raw: Raw
    ) -> None:
        """Replacing a record by what stands there already is made."""
        new = raw()
        before = other_store.read(session_id)
        store.swap(session_id, stored, new)
        again = other_store.swap(session_id, before, new)

        assert again.made
        assert raw_of(again.found) == new
        assert store.swap(session_id, again.found, raw()).made

    def test_replacing_a_record_by_itself_is_made(self, store: Store, session_id: str, stored: Record) -> None:
        """A swap that changes nothing is made."""
        swap = store.swap(session_id, stored, stored.raw)

        assert swap.made
        assert raw_of(store.read(session_id)) == stored.raw

    @pytest.mark.parametrize("seconds", [60.5, 90 * 24 * 3600])
    def test_an_expiry_may_be_given(
        self, store: Store, other_store: Store, session_id: str, raw: Raw, seconds: float
    ) -> None:
        """A record whose expiry lies ahead, however far, is there, also after a swap without an expiry."""
        new = raw()
        swap = store.swap(session_id, None, new, seconds)

        assert swap.made

        # 60 milliseconds are over then.
        time.sleep(0.1)

        assert raw_of(other_store.read(session_id)) == new
        assert store.swap(session_id, swap.found, raw()).made
        assert other_store.read(session_id) is not None

    def test_the_last_swaps_expiry_counts(self, store: Store, other_store: Store, raw: Raw) -> None:
        """A server that removes expired records by itself removes those, and none that a later swap has prolonged."""
        if not store.expires_by_itself:
            return
        ids = expired, prolonged, endless = [secrets.token_hex(16) for _ in range(3)]
        first = {session_id: store.swap(session_id, None, raw(), 1) for session_id in ids}
        later = {
            session_id: raw_of(store.swap(session_id, first[session_id].found, raw(), seconds).found)
            for session_id, seconds in ((prolonged, 60), (endless, None))
        }
        end = time.monotonic() + PATIENCE
        while other_store.read(expired) is not None and time.monotonic() < end:
            time.sleep(0.05)  # between two looks

        assert other_store.read(expired) is None
        assert {session_id: raw_of(other_store.read(session_id)) for session_id in later} == later

    # -- Threads and processes at once ---------------------------------------------------------------

    def test_one_of_two_inserts_is_made(self, store: Store, other_store: Store, raw: Raw) -> None:
        """Of two inserts at once one is made, and the other is shown what it lost to."""
        for _ in range(20):
            self._race(store, other_store, secrets.token_hex(16), [None, None], [raw(), raw()])

    def test_one_of_two_replacements_is_made(self, store: Store, other_store: Store, raw: Raw) -> None:
        """Of two replacements at once one is made, and the other is shown what it lost to."""
        session_id = secrets.token_hex(16)
        store.swap(session_id, None, raw())
        for _ in range(20):
            records = [store.read(session_id), other_store.read(session_id)]
            self._race(store, other_store, session_id, records, [raw(), raw()])

    def test_one_of_a_replacement_and_a_deletion_is_made(self, store: Store, other_store: Store, raw: Raw) -> None:
        """A replacement and a deletion at once do not both happen."""
        for _ in range(20):
            session_id = secrets.token_hex(16)
            store.swap(session_id, None, raw())
            records = [store.read(session_id), other_store.read(session_id)]
            self._race(store, other_store, session_id, records, [raw(), None])

    @staticmethod
    def _race(
        store: Store,
        other_store: Store,
        session_id: str,
        records: Sequence[Record | None],
        news: Sequence[bytes | None],
    ) -> None:
        swaps = together(
            lambda: store.swap(session_id, records[0], news[0]),
            lambda: other_store.swap(session_id, records[1], news[1]),
        )
        won = news[[swap.made for swap in swaps].index(True)]
        stands = store.read(session_id)

        assert [swap.made for swap in swaps].count(True) == 1
        assert (stands and stands.raw) == won
        assert all((swap.found and raw_of(swap.found)) == won for swap in swaps)

    def test_threads_share_a_store(self, store: Store, raw: Raw) -> None:
        """Threads that use one store at once each get their own answers."""

        def use() -> None:
            for _ in range(10):
                session_id, new = secrets.token_hex(16), raw()

                assert store.read(session_id) is None
                assert store.swap(session_id, None, new).made
                assert raw_of(store.read(session_id)) == new

        together(*[use] * 4)

    def test_another_process(self, options: dict[str, Any], store: Store, session_id: str) -> None:
        """Between processes, too, the lock excludes, and of two replacements at once one is made."""
        if not self.several_processes:
            return
        with another_process({"store_timeout": 10, **options}, session_id) as go_on:
            assert self._is_refused(store, session_id)

            go_on()
            with store.lock(session_id, PATIENCE):
                pass
            count_up(store, session_id)

        assert number_in(store, store.read(session_id)) == 2 * ROUNDS

    # -- Lock ----------------------------------------------------------------------------------------

    def test_the_lock_excludes(self, make_store: Callable[[], Store], session_id: str, raw: Raw) -> None:
        """Whoever reads and swaps under the lock never loses a swap."""

        def use() -> list[bool]:
            store = make_store()
            made = []
            for _ in range(5):
                with store.lock(session_id, PATIENCE):
                    made.append(store.swap(session_id, store.read(session_id), raw()).made)
            return made

        assert together(*[use] * 4) == [[True] * 5] * 4

    def _is_refused(self, store: Store, session_id: str) -> SessionConflictError:
        """Return the error of another thread that tries in vain to have the lock."""

        def try_it() -> SessionConflictError:
            with pytest.raises(SessionConflictError) as refused, ExitStack() as held:
                held.enter_context(store.lock(session_id, 0.01))
            return refused.value

        return together(try_it)[0]

    def test_the_lock_excludes_threads_of_one_store(self, store: Store, session_id: str) -> None:
        """Two threads that share a store do not share its lock."""
        with store.lock(session_id, PATIENCE):
            assert self._is_refused(store, session_id)

    def test_the_lock_times_out(self, store: Store, other_store: Store, session_id: str) -> None:
        """A lock that somebody else holds is a SessionConflictError when the time is over."""
        with store.lock(session_id, PATIENCE):
            assert self._is_refused(other_store, session_id).name == store.kind

    def test_the_lock_is_released(self, store: Store, other_store: Store, session_id: str) -> None:
        """A lock can be had again when it was left."""
        with store.lock(session_id, PATIENCE):
            pass
        with other_store.lock(session_id, 0.01):
            pass
        with store.lock(session_id, 0.01):
            pass

    @pytest.mark.parametrize("error", [ZeroDivisionError, OSError, KeyError, LookupError, SystemExit])
    def test_an_error_under_the_lock_is_its_own(
        self, store: Store, other_store: Store, session_id: str, error: type[BaseException]
    ) -> None:
        """An error inside the block releases the lock and reaches the caller as it was raised."""
        with pytest.raises(error) as raised, store.lock(session_id, PATIENCE):
            raise error("the application's")

        assert raised.type is error

        with other_store.lock(session_id, 0.01):
            pass

    def test_a_wait_in_vain_leaves_the_lock_to_its_holder(
        self, store: Store, other_store: Store, make_store: Callable[[], Store], session_id: str
    ) -> None:
        """Who timed out has not released the lock of another."""
        with store.lock(session_id, PATIENCE):
            for waiting in (other_store, make_store()):
                assert self._is_refused(waiting, session_id)

    def test_a_waiter_gets_the_lock_when_it_is_released(
        self, store: Store, other_store: Store, session_id: str
    ) -> None:
        """Who waits for the lock gets it once its holder leaves."""
        waiting = threading.Event()
        order = []

        def wait() -> None:
            waiting.set()
            with other_store.lock(session_id, PATIENCE):
                order.append("second")

        with ThreadPoolExecutor(1) as pool:
            with store.lock(session_id, PATIENCE):
                future = pool.submit(wait)
                waiting.wait(PATIENCE)
                order.append("first")
            future.result(PATIENCE)

        assert order == ["first", "second"]

    def test_locks_of_different_sessions_are_different(self, store: Store, other_store: Store) -> None:
        """The lock on one session does not keep anybody from another one."""
        with store.lock("0" * 32, PATIENCE), other_store.lock("f" * 32, 0.01):
            pass

    def test_a_swap_does_not_wait_for_the_lock(
        self, store: Store, other_store: Store, session_id: str, stored: Record, raw: Raw
    ) -> None:
        """Ordinary writers do not wait for a lock's holder."""
        new = raw()
        with store.lock(session_id, PATIENCE):
            assert other_store.swap(session_id, other_store.read(session_id), new).made
            assert raw_of(store.read(session_id)) == new

    def test_a_reader_does_not_wait_for_the_lock(
        self, store: Store, other_store: Store, session_id: str, stored: Record
    ) -> None:
        """A reader does not wait for a lock's holder."""
        with store.lock(session_id, PATIENCE):
            assert raw_of(other_store.read(session_id)) == stored.raw

    def test_the_lock_makes_no_record(self, store: Store, other_store: Store, session_id: str) -> None:
        """A lock on a session that does not exist is no session."""
        with store.lock(session_id, PATIENCE):
            assert other_store.read(session_id) is None
            assert session_id not in self.listed(other_store)

        assert other_store.read(session_id) is None

    # -- Outages -------------------------------------------------------------------------------------

    def test_an_outage_is_an_error(self, unreachable: dict[str, Any] | None, session_id: str, raw: Raw) -> None:
        """Whatever is asked of a store that cannot be reached, it never answers that there is nothing."""
        if unreachable is None:
            return
        store = open_store(read_options(given({"store_timeout": 1, **unreachable})))
        uses: list[Callable[[], object]] = [
            lambda: store.read(session_id),
            lambda: store.read_all([session_id]),
            lambda: store.swap(session_id, None, raw()),
            lambda: store.swap(session_id, Record(raw()), None),
            lambda: ExitStack().enter_context(store.lock(session_id, 0.01)),
            lambda: list(store.ids()),
        ]
        for use in uses:
            with pytest.raises(SessionStoreError):
                use()
        store.close()

    # -- Cost ----------------------------------------------------------------------------------------

    def test_an_uncontended_write_is_one_read_and_one_swap(self, options: dict[str, Any], store: Store) -> None:
        """A new session costs one swap, a changed one a read and a swap, one that was only read a read."""
        config = SessionConfig(read_options(given({"secret": "s" * 32, **options})))
        counted = CountedStore(store)
        cast("Store", config.store).close()
        config.store = cast("Store", counted)
        new = Session({}, exchange=SessionContext(config))
        new["key"] = "value"
        new.changed()
        new.commit()

        assert counted.calls == ["swap"]

        counted.calls.clear()
        changed = Session({}, exchange=SessionContext(config), session_id=new.id)
        changed["key"] = "another value"
        changed.changed()
        changed.commit()
        changed.commit()

        assert counted.calls == ["read", "swap"]

        counted.calls.clear()
        read = Session({}, exchange=SessionContext(config), session_id=new.id)
        read.commit()

        assert read == {"key": "another value"}
        assert counted.calls == ["read"]

        read.invalidate()
        read.commit()

    # -- Ids -----------------------------------------------------------------------------------------

    def test_ids(self, store: Store, other_store: Store, raw: Raw) -> None:
        """Each record's id is listed once, as long as the record stands, where the store lists any."""
        ids = {secrets.token_hex(16) for _ in range(5)}
        for session_id in ids:
            store.swap(session_id, None, raw())
        listed = [session_id for session_id in self.listed(other_store) if session_id in ids]

        assert sorted(listed) == (sorted(ids) if self.lists_ids else [])

        for session_id in ids:
            store.swap(session_id, store.read(session_id), None)

        assert ids.isdisjoint(self.listed(other_store))

    def test_records_are_read_in_batches(self, store: Store, other_store: Store, raw: Raw) -> None:
        """A scan reads each record once, with its id, and no more of them at once than it was asked for."""
        if not self.lists_ids:
            with pytest.raises(SessionStoreError):
                next(store.scan())
            return
        records = {secrets.token_hex(16): raw() for _ in range(5)}
        for session_id, new in records.items():
            store.swap(session_id, None, new)
        batches = list(other_store.scan(2))
        found = [
            (session_id, raw_of(record)) for batch in batches for session_id, record in batch if session_id in records
        ]

        assert all(0 < len(batch) <= 2 for batch in batches)
        assert sorted(found) == sorted(records.items())
        assert other_store.count() >= 5

    def test_records_are_deleted_as_they_were_read(self, store: Store, other_store: Store, raw: Raw) -> None:
        """Of many records that are deleted at once, one that was replaced since stays."""
        ids = [secrets.token_hex(16) for _ in range(5)]
        records = [(session_id, store.swap(session_id, None, raw()).found) for session_id in ids]
        read = [(session_id, record) for session_id in ids if (record := other_store.read(session_id)) is not None]
        theirs = raw()
        store.swap(*records[2], theirs)

        assert other_store.delete(read) == 4
        assert [store.read(session_id) and session_id for session_id in ids] == [None, None, ids[2], None, None]
        assert raw_of(store.read(ids[2])) == theirs
        assert other_store.delete([]) == 0

    def test_a_sweep_leaves_records(self, store: Store, session_id: str, stored: Record) -> None:
        """A sweep removes nothing of a record, however old it is."""
        store.sweep(before=2**40)

        assert raw_of(store.read(session_id)) == stored.raw
        assert store.swap(session_id, store.read(session_id), None).made

    def test_an_index_is_no_session(self, store: Store, other_store: Store, session_id: str, raw: Raw) -> None:
        """The list of a user's sessions is a record like another one, which is no session's id."""
        index_id = f"u{session_id * 2}"
        new = raw()
        swap = store.swap(index_id, None, new)

        assert raw_of(other_store.read(index_id)) == new
        assert index_id not in self.listed(other_store)
        if self.lists_ids:
            assert [index_id] == [listed for batch in store.scan() for listed, _ in batch if listed == index_id]
        assert store.swap(index_id, swap.found, None).made
        assert other_store.read(index_id) is None

    # -- Sessions ------------------------------------------------------------------------------------

    def test_the_kind_is_the_type(self, options: dict[str, Any], store: Store) -> None:
        """Errors, log lines and events name the store as the option ``type`` does."""
        assert store.kind == read_options(given(options)).type

    def test_requests_that_overlap_lose_nothing(self, config: SessionConfig) -> None:
        """Each of several requests at once sets a key of one session: all of the keys are kept."""
        browser = Browser(config)
        browser.write(first=0)
        requests = [browser.begin() for _ in range(4)]

        def use(session: PyramidSession, number: int) -> None:
            session[f"key {number}"] = number
            browser.end(session)

        together(*[partial(use, session, number) for number, session in enumerate(requests)])

        assert browser.read() == {"first": 0, **{f"key {number}": number for number in range(4)}}

    def test_exclusive_blocks_count(self, config: SessionConfig) -> None:
        """What several requests at once read, change and write in ``exclusive()`` is done by one after the other."""
        browser = Browser(config)
        browser.write(count=0)

        def use() -> None:
            session = browser.begin()
            with session.exclusive():
                session["count"] += 1

        together(*[use] * 4)

        assert browser.read() == {"count": 4}

    def test_a_logout_holds(self, config: SessionConfig) -> None:
        """A request that was under way at a logout does not bring the session back."""
        browser = Browser(config)
        browser.write(user="Ann")
        slow, logout = browser.begin(), browser.begin()
        logout.invalidate()
        logout.persist()
        slow["late"] = True
        browser.end(slow)

        assert browser.read() == {}

    def test_a_users_sessions_are_listed_and_ended(self, config: SessionConfig) -> None:
        """A user's logins from several browsers are listed, and ended from elsewhere."""
        browsers, user = [Browser(config) for _ in range(3)], secrets.token_hex(8)
        for number, browser in enumerate(browsers):
            session = browser.begin()
            session["number"] = number
            session.bind(user, note={"number": number})
            browser.end(session)
        index = UserIndex(config)
        found = {dict(session.note or {})["number"]: session.handle for session in index.sessions(user)}

        assert sorted(found) == [0, 1, 2]
        assert index.revoke_one(found[1])
        assert [browser.read() for browser in browsers] == [{"number": 0}, {}, {"number": 2}]
        assert index.revoke(user) == 2
        assert [browser.read() for browser in browsers] == [{}, {}, {}]
        assert index.sessions(user) == []

    def test_expired_sessions_are_purged(self, config: SessionConfig) -> None:
        """A purge deletes a session that has expired, where the server does not; one that is in use stays."""
        expired, used, store = Browser(config), Browser(config), cast("Store", config.store)
        expired.write(a=1)
        used.write(b=1)
        ids = [browser.begin().id for browser in (expired, used)]
        clock = cast("Clock", config.clock)
        clock.now += TIMEOUT - 1
        used.write(b=2)
        clock.now += GRACE
        if store.expires_by_itself or not self.lists_ids:
            return
        purge(config)

        assert [store.read(session_id) is None for session_id in ids] == [True, False]
        assert used.read() == {"b": 2}


class BeakerStoreContract(StoreContract):
    """The suite for a store that has the place of one of Beaker's backends: both read each other's records."""

    @pytest.fixture
    def namespace(self, options: dict[str, Any], session_id: str) -> Any:
        """Return Beaker's own namespace of the session, as Beaker's sessions make it."""
        arguments = {"data_dir": None, **options}
        kind = arguments.pop("type")
        return clsmap[kind](session_id, digest_filenames=False, **arguments)

    def _written_by_beaker(self, store: Store, session_id: str, namespace: Any) -> str:
        """Have Beaker write a session's text, as ``Session.save()`` does."""
        written = text().decode("ascii")
        namespace.acquire_write_lock(replace=True)
        try:
            namespace["session"] = written
        finally:
            namespace.release_write_lock()
        return written

    @staticmethod
    def _read_by_beaker(namespace: Any) -> Any:
        """Have Beaker read a session's text, as ``Session.load()`` does."""
        namespace.acquire_read_lock()
        try:
            return namespace["session"]
        except KeyError:
            return None
        finally:
            namespace.release_read_lock()

    def test_beakers_record_is_read_and_replaced(self, store: Store, session_id: str, namespace: Any) -> None:
        """A record that Beaker wrote is read, and can be swapped."""
        written = self._written_by_beaker(store, session_id, namespace)
        record = cast("Record", store.read(session_id))
        found = store.envelope.unwrap(record.raw)
        new = text()

        assert (found.decode("ascii") if isinstance(found, bytes) else found) == written
        assert store.swap(session_id, record, store.envelope.wrap(new)).made
        assert self._read_by_beaker(namespace) == new.decode("ascii")

    def test_our_record_is_read_by_beaker(self, store: Store, session_id: str, namespace: Any) -> None:
        """Beaker reads a record that a swap inserted, and finds none that a swap deleted."""
        new = text()
        record = store.swap(session_id, None, store.envelope.wrap(new), 3600).found

        assert self._read_by_beaker(namespace) == new.decode("ascii")
        assert store.swap(session_id, record, None).made
        assert self._read_by_beaker(namespace) is None

    def test_beakers_write_is_not_overwritten(
        self, store: Store, session_id: str, stored: Record, namespace: Any, raw: Raw
    ) -> None:
        """A swap loses against what Beaker has written since the read."""
        written = self._written_by_beaker(store, session_id, namespace)
        swap = store.swap(session_id, stored, raw())

        assert not swap.made
        assert raw_of(swap.found) == raw_of(store.read(session_id))
        assert self._read_by_beaker(namespace) == written
