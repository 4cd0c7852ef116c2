"""What every store keeps, whatever its backend: each store runs this suite against the real thing."""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from beaker.cache import clsmap

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError, SessionTooLargeError
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.context import SessionContext
from beaker_bridge.session.session import Session
from beaker_bridge.stores import open_store
from beaker_bridge.stores.base import Record, Store, Swap

#: Seconds after which a test that waits for another thread gives up: a bound, not a measure.
PATIENCE = 30
KIB = 1024


def text(size: int = 40) -> bytes:
    """Return a new text in base64, as sessions have it, of about ``size`` bytes."""
    return base64.b64encode(secrets.token_bytes(size * 3 // 4))


def together(*tasks: Callable[[], object]) -> list:
    """Run each task in a thread of its own, begun at once, and return their results."""
    barrier = threading.Barrier(len(tasks))

    def run(task):
        barrier.wait(PATIENCE)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, task) for task in tasks]]


class CountedStore:
    """A store that notes which of its methods a session calls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls = []

    def __getattr__(self, name: str):
        def counted(*args):
            self.calls.append(name)
            return getattr(self._store, name)(*args)

        return counted


class StoreContract:
    """The suite. A store's test class derives from it and overrides the fixture ``options``."""

    #: Whether the store lists its records; else it refuses to.
    lists_ids = True
    #: Whether the store holds text only: its envelope is bare, and its backend holds strings.
    text_only = False
    #: The largest record that the store holds, in bytes, as far as the suite goes.
    largest = 1024 * KIB

    # -- Fixtures ------------------------------------------------------------------------------------

    @pytest.fixture
    def options(self) -> dict:
        """Return the session options of the store: the one fixture that a store overrides."""
        raise NotImplementedError

    @pytest.fixture
    def make_store(self, options) -> Iterator[Callable[[], Store]]:
        """Return what makes stores on the same data, each with connections of its own."""
        made = []

        def make() -> Store:
            made.append(open_store(read_options(given({"store_timeout": 10, **options}))))
            return made[-1]

        yield make
        for store in made:
            store.close()

    @pytest.fixture
    def store(self, make_store) -> Store:
        """Return the store."""
        return make_store()

    @pytest.fixture
    def other_store(self, make_store) -> Store:
        """Return another process's store: the same data, other connections."""
        return make_store()

    @pytest.fixture
    def raw(self, store) -> Callable[..., bytes]:
        """Return what makes a new record's raw bytes."""
        return lambda size=40: store.envelope.wrap(text(size))

    @pytest.fixture
    def session_id(self) -> str:
        """Return a new id."""
        return secrets.token_hex(16)

    @pytest.fixture
    def stored(self, store, session_id, raw) -> Record:
        """Return a record that stands in the store."""
        return store.swap(session_id, None, raw()).found

    @pytest.fixture
    def namespace(self, options, session_id):
        """Return Beaker's own namespace of the session, as Beaker's sessions make it."""
        arguments = {"data_dir": None, **options}
        kind = arguments.pop("type")
        return clsmap[kind](session_id, digest_filenames=False, **arguments)

    def listed(self, store: Store) -> list[str]:
        """Return the ids that a store lists; none if it says that it cannot."""
        if self.lists_ids:
            return list(store.ids())
        with pytest.raises(SessionStoreError, match=f"the session store {store.kind} cannot list its sessions"):
            store.ids()
        return []

    # -- Read ----------------------------------------------------------------------------------------

    def test_nothing_is_read_where_nothing_was_written(self, store, session_id):
        """An id without a record reads as nothing."""
        assert store.read(session_id) is None

    def test_reading_leaves_nothing_behind(self, store, session_id):
        """A read of an id without a record makes none."""
        store.read(session_id)

        assert session_id not in self.listed(store)
        assert store.swap(session_id, None, None).found is None

    def test_what_was_written_is_read_by_everybody(self, store, other_store, session_id, raw):
        """A record that one process inserts is another one's next read."""
        new = raw()
        store.swap(session_id, None, new)

        assert store.read(session_id).raw == new
        assert other_store.read(session_id).raw == new

    def test_sessions_do_not_mix(self, store, raw):
        """Records of ids that differ in one digit stand side by side."""
        ids = ["0" * 32, "0" * 31 + "1", "1" + "0" * 31]
        records = {session_id: raw() for session_id in ids}
        for session_id, new in records.items():
            store.swap(session_id, store.read(session_id), new)

        assert {session_id: store.read(session_id).raw for session_id in ids} == records

        for session_id in ids:
            store.swap(session_id, store.read(session_id), None)

    @pytest.mark.parametrize("size", [1, 64 * KIB, 1024 * KIB - 200])
    def test_a_record_is_held_whole_or_refused(self, store, other_store, session_id, raw, size):
        """A large record is read as it was written; one over the store's limit is an error, and nothing is stored."""
        new = raw(size)
        if len(new) > self.largest:
            with pytest.raises(SessionTooLargeError) as refused:
                store.swap(session_id, None, new)

            assert refused.value.value == len(new)
            assert other_store.read(session_id) is None
        else:
            assert store.swap(session_id, None, new).made
            assert other_store.read(session_id).raw == new

    def test_a_record_is_its_bytes(self, store, other_store, session_id):
        """Every byte value comes back as it was written, also at the ends of a record."""
        new = bytes(range(128)) if self.text_only else bytes(range(256)) + b"\r\n\x00 '\"\\%"
        swap = store.swap(session_id, None, new)

        assert swap.made
        assert other_store.read(session_id).raw == new

        last = other_store.swap(session_id, other_store.read(session_id), b"\x00")

        assert last.made
        assert store.read(session_id).raw == b"\x00"

    # -- Swap ----------------------------------------------------------------------------------------

    def test_insert(self, store, session_id, raw):
        """A record is inserted where there is none; the swap shows it."""
        new = raw()
        swap = store.swap(session_id, None, new)

        assert swap.made
        assert swap.found.raw == new

    def test_insert_loses_against_a_record(self, store, other_store, session_id, raw):
        """An insert leaves a record that stands there, and shows it."""
        theirs = raw()
        other_store.swap(session_id, None, theirs)
        swap = store.swap(session_id, None, raw())

        assert not swap.made
        assert swap.found.raw == theirs
        assert store.read(session_id).raw == theirs

    def test_replace(self, store, session_id, stored, raw):
        """A record that still is the one that was read is replaced."""
        new = raw()
        swap = store.swap(session_id, store.read(session_id), new)

        assert swap.made
        assert swap.found.raw == new
        assert store.read(session_id).raw == new

    def test_replace_with_another_size(self, store, other_store, session_id, stored, raw):
        """A record may grow and shrink from one swap to the next."""
        for size in (4000, 10, 60 * KIB, 900, 1):
            new = raw(size)

            assert store.swap(session_id, store.read(session_id), new).made
            assert other_store.read(session_id).raw == new

    def test_replace_loses_against_another_replacement(self, store, other_store, session_id, stored, raw):
        """A replacement of what no longer stands is not made, and shows what stands."""
        theirs = raw()
        other_store.swap(session_id, other_store.read(session_id), theirs)
        swap = store.swap(session_id, stored, raw())

        assert not swap.made
        assert swap.found.raw == theirs
        assert store.read(session_id).raw == theirs

    def test_replace_loses_against_a_deletion(self, store, other_store, session_id, stored, raw):
        """A record that was deleted is not brought back by a replacement."""
        other_store.swap(session_id, other_store.read(session_id), None)

        assert store.swap(session_id, stored, raw()) == Swap(False, None)
        assert store.read(session_id) is None

    def test_what_a_swap_shows_can_be_replaced(self, store, other_store, session_id, raw):
        """The record that a swap shows, made or lost, is as good for the next swap as one that was read."""
        first = store.swap(session_id, None, raw())
        second = store.swap(session_id, first.found, raw())
        lost = other_store.swap(session_id, None, raw())
        third = other_store.swap(session_id, lost.found, raw())

        assert (first.made, second.made, lost.made, third.made) == (True, True, False, True)
        assert lost.found.raw == second.found.raw
        assert store.read(session_id).raw == third.found.raw

    def test_delete(self, store, other_store, session_id, stored):
        """A deletion leaves nothing."""
        assert store.swap(session_id, store.read(session_id), None) == Swap(True, None)
        assert other_store.read(session_id) is None
        assert session_id not in self.listed(other_store)

    def test_delete_loses_against_a_replacement(self, store, other_store, session_id, stored, raw):
        """A deletion of what no longer stands is not made, and shows what stands."""
        theirs = raw()
        other_store.swap(session_id, other_store.read(session_id), theirs)
        swap = store.swap(session_id, stored, None)

        assert not swap.made
        assert swap.found.raw == theirs
        assert store.read(session_id).raw == theirs

    def test_delete_without_a_record_loses_against_one(self, store, session_id, stored):
        """Whoever found nothing and deletes does not delete what came since."""
        swap = store.swap(session_id, None, None)

        assert not swap.made
        assert swap.found.raw == stored.raw
        assert store.read(session_id).raw == stored.raw

    def test_deleting_what_is_absent_is_made(self, store, other_store, session_id, stored):
        """A deletion is made where nothing stands, whether something was read or not."""
        other_store.swap(session_id, other_store.read(session_id), None)

        assert store.swap(session_id, stored, None) == Swap(True, None)
        assert store.swap(session_id, None, None) == Swap(True, None)

    def test_an_id_can_be_used_again(self, store, session_id, stored, raw):
        """After a deletion, a record can be inserted."""
        store.swap(session_id, store.read(session_id), None)
        new = raw()

        assert store.swap(session_id, None, new).made
        assert store.read(session_id).raw == new

    def test_an_insert_whose_answer_was_lost_is_made(self, store, other_store, session_id, raw):
        """Inserting what stands there already is made: it was our own write, whose answer was lost."""
        new = raw()
        store.swap(session_id, None, new)
        again = other_store.swap(session_id, None, new)

        assert again.made
        assert again.found.raw == new
        assert store.swap(session_id, again.found, raw()).made

    def test_a_replacement_whose_answer_was_lost_is_made(self, store, other_store, session_id, stored, raw):
        """Replacing a record by what stands there already is made."""
        new = raw()
        before = other_store.read(session_id)
        store.swap(session_id, stored, new)
        again = other_store.swap(session_id, before, new)

        assert again.made
        assert again.found.raw == new
        assert store.swap(session_id, again.found, raw()).made

    def test_replacing_a_record_by_itself_is_made(self, store, session_id, stored):
        """A swap that changes nothing is made."""
        swap = store.swap(session_id, stored, stored.raw)

        assert swap.made
        assert store.read(session_id).raw == stored.raw

    def test_an_expiry_may_be_given(self, store, other_store, session_id, raw):
        """A record whose expiry lies ahead is there, also after a swap without an expiry."""
        new = raw()
        swap = store.swap(session_id, None, new, 3600.5)

        assert swap.made
        assert other_store.read(session_id).raw == new
        assert store.swap(session_id, swap.found, raw()).made
        assert other_store.read(session_id) is not None

    # -- Threads and processes at once ---------------------------------------------------------------

    def test_one_of_two_inserts_is_made(self, store, other_store, raw):
        """Of two inserts at once one is made, and the other is shown what it lost to."""
        for _ in range(20):
            self._race(store, other_store, secrets.token_hex(16), [None, None], [raw(), raw()])

    def test_one_of_two_replacements_is_made(self, store, other_store, raw):
        """Of two replacements at once one is made, and the other is shown what it lost to."""
        session_id = secrets.token_hex(16)
        store.swap(session_id, None, raw())
        for _ in range(20):
            records = [store.read(session_id), other_store.read(session_id)]
            self._race(store, other_store, session_id, records, [raw(), raw()])

    def test_one_of_a_replacement_and_a_deletion_is_made(self, store, other_store, raw):
        """A replacement and a deletion at once do not both happen."""
        for _ in range(20):
            session_id = secrets.token_hex(16)
            store.swap(session_id, None, raw())
            records = [store.read(session_id), other_store.read(session_id)]
            self._race(store, other_store, session_id, records, [raw(), None])

    @staticmethod
    def _race(store, other_store, session_id, records, news) -> None:
        swaps = together(
            lambda: store.swap(session_id, records[0], news[0]),
            lambda: other_store.swap(session_id, records[1], news[1]),
        )
        won = news[[swap.made for swap in swaps].index(True)]
        stands = store.read(session_id)

        assert [swap.made for swap in swaps].count(True) == 1
        assert (stands and stands.raw) == won
        assert all((swap.found and swap.found.raw) == won for swap in swaps)

    def test_threads_share_a_store(self, store, raw):
        """Threads that use one store at once each get their own answers."""

        def use() -> None:
            for _ in range(10):
                session_id, new = secrets.token_hex(16), raw()

                assert store.read(session_id) is None
                assert store.swap(session_id, None, new).made
                assert store.read(session_id).raw == new

        together(*[use] * 4)

    # -- Lock ----------------------------------------------------------------------------------------

    def test_the_lock_excludes(self, make_store, session_id, raw):
        """Whoever reads and swaps under the lock never loses a swap."""

        def use() -> list[bool]:
            store = make_store()
            made = []
            for _ in range(5):
                with store.lock(session_id, PATIENCE):
                    made.append(store.swap(session_id, store.read(session_id), raw()).made)
            return made

        assert together(*[use] * 4) == [[True] * 5] * 4

    def _is_refused(self, store, session_id) -> SessionConflictError:
        """Return the error of another thread that tries in vain to have the lock."""

        def try_it() -> SessionConflictError:
            with pytest.raises(SessionConflictError) as refused, store.lock(session_id, 0.01):
                pytest.fail("the lock was had twice")
            return refused.value

        return together(try_it)[0]

    def test_the_lock_excludes_threads_of_one_store(self, store, session_id):
        """Two threads that share a store do not share its lock."""
        with store.lock(session_id, PATIENCE):
            assert self._is_refused(store, session_id)

    def test_the_lock_times_out(self, store, other_store, session_id):
        """A lock that somebody else holds is a SessionConflictError when the time is over."""
        with store.lock(session_id, PATIENCE):
            assert self._is_refused(other_store, session_id).name == store.kind

    def test_the_lock_is_released(self, store, other_store, session_id):
        """A lock can be had again when it was left."""
        with store.lock(session_id, PATIENCE):
            pass
        with other_store.lock(session_id, 0.01):
            pass
        with store.lock(session_id, 0.01):
            pass

    @pytest.mark.parametrize("error", [ZeroDivisionError, OSError, KeyError, LookupError])
    def test_an_error_under_the_lock_is_its_own(self, store, other_store, session_id, error):
        """An error inside the block releases the lock and reaches the caller as it was raised."""
        with pytest.raises(error) as raised, store.lock(session_id, PATIENCE):
            raise error("the application's")

        assert raised.type is error

        with other_store.lock(session_id, 0.01):
            pass

    def test_a_wait_in_vain_leaves_the_lock_to_its_holder(self, store, other_store, make_store, session_id):
        """Who timed out has not released the lock of another."""
        with store.lock(session_id, PATIENCE):
            for waiting in (other_store, make_store()):
                assert self._is_refused(waiting, session_id)

    def test_a_waiter_gets_the_lock_when_it_is_released(self, store, other_store, session_id):
        """Who waits for the lock gets it once its holder leaves."""
        waiting = threading.Event()
        order = []

        def wait():
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

    def test_locks_of_different_sessions_are_different(self, store, other_store):
        """The lock on one session does not keep anybody from another one."""
        with store.lock("0" * 32, PATIENCE), other_store.lock("f" * 32, 0.01):
            pass

    def test_a_swap_does_not_wait_for_the_lock(self, store, other_store, session_id, stored, raw):
        """Ordinary writers do not wait for a lock's holder."""
        new = raw()
        with store.lock(session_id, PATIENCE):
            assert other_store.swap(session_id, other_store.read(session_id), new).made
            assert store.read(session_id).raw == new

    def test_a_reader_does_not_wait_for_the_lock(self, store, other_store, session_id, stored):
        """A reader does not wait for a lock's holder."""
        with store.lock(session_id, PATIENCE):
            assert other_store.read(session_id).raw == stored.raw

    def test_the_lock_makes_no_record(self, store, other_store, session_id):
        """A lock on a session that does not exist is no session."""
        with store.lock(session_id, PATIENCE):
            assert other_store.read(session_id) is None
            assert session_id not in self.listed(other_store)

        assert other_store.read(session_id) is None

    # -- Cost ----------------------------------------------------------------------------------------

    def test_an_uncontended_write_is_one_read_and_one_swap(self, options, store):
        """A new session costs one swap, a changed one a read and a swap, one that was only read a read."""
        config = SessionConfig(read_options(given({"secret": "s" * 32, **options})))
        config.store.close()
        config.store = counted = CountedStore(store)
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

    def test_ids(self, store, other_store, raw):
        """Each record's id is listed once, as long as the record stands, where the store lists any."""
        ids = {secrets.token_hex(16) for _ in range(5)}
        for session_id in ids:
            store.swap(session_id, None, raw())
        listed = [session_id for session_id in self.listed(other_store) if session_id in ids]

        assert sorted(listed) == (sorted(ids) if self.lists_ids else [])

        for session_id in ids:
            store.swap(session_id, store.read(session_id), None)

        assert ids.isdisjoint(self.listed(other_store))

    def test_records_are_read_in_batches(self, store, other_store, raw):
        """A scan reads each record once, with its id, and no more of them at once than it was asked for."""
        if not self.lists_ids:
            with pytest.raises(SessionStoreError):
                next(store.scan())
            return
        records = {secrets.token_hex(16): raw() for _ in range(5)}
        for session_id, new in records.items():
            store.swap(session_id, None, new)
        batches = list(other_store.scan(2))
        found = [(session_id, record.raw) for batch in batches for session_id, record in batch if session_id in records]

        assert all(0 < len(batch) <= 2 for batch in batches)
        assert sorted(found) == sorted(records.items())
        assert other_store.count() >= 5

    def test_records_are_deleted_as_they_were_read(self, store, other_store, raw):
        """Of many records that are deleted at once, one that was replaced since stays."""
        ids = [secrets.token_hex(16) for _ in range(5)]
        records = [(session_id, store.swap(session_id, None, raw()).found) for session_id in ids]
        read = [(session_id, other_store.read(session_id)) for session_id in ids]
        theirs = raw()
        store.swap(*records[2], theirs)

        assert other_store.delete(read) == 4
        assert [store.read(session_id) and session_id for session_id in ids] == [None, None, ids[2], None, None]
        assert store.read(ids[2]).raw == theirs
        assert other_store.delete([]) == 0

    def test_a_sweep_leaves_records(self, store, session_id, stored):
        """A sweep removes nothing of a record, however old it is."""
        store.sweep(before=2**40)

        assert store.read(session_id).raw == stored.raw
        assert store.swap(session_id, store.read(session_id), None).made

    # -- Beaker --------------------------------------------------------------------------------------

    def _written_by_beaker(self, store, session_id, namespace) -> str:
        """Have Beaker write a session's text, as ``Session.save()`` does."""
        written = text().decode("ascii")
        namespace.acquire_write_lock(replace=True)
        try:
            namespace["session"] = written
        finally:
            namespace.release_write_lock()
        return written

    @staticmethod
    def _read_by_beaker(namespace):
        """Have Beaker read a session's text, as ``Session.load()`` does."""
        namespace.acquire_read_lock()
        try:
            return namespace["session"]
        except KeyError:
            return None
        finally:
            namespace.release_read_lock()

    def test_beakers_record_is_read_and_replaced(self, store, session_id, namespace):
        """A record that Beaker wrote is read, and can be swapped."""
        written = self._written_by_beaker(store, session_id, namespace)
        record = store.read(session_id)
        found = store.envelope.unwrap(record.raw)
        new = text()

        assert (found.decode("ascii") if isinstance(found, bytes) else found) == written
        assert store.swap(session_id, record, store.envelope.wrap(new)).made
        assert self._read_by_beaker(namespace) == new.decode("ascii")

    def test_our_record_is_read_by_beaker(self, store, session_id, namespace):
        """Beaker reads a record that a swap inserted, and finds none that a swap deleted."""
        new = text()
        record = store.swap(session_id, None, store.envelope.wrap(new), 3600).found

        assert self._read_by_beaker(namespace) == new.decode("ascii")
        assert store.swap(session_id, record, None).made
        assert self._read_by_beaker(namespace) is None

    def test_beakers_write_is_not_overwritten(self, store, session_id, stored, namespace, raw):
        """A swap loses against what Beaker has written since the read."""
        written = self._written_by_beaker(store, session_id, namespace)
        swap = store.swap(session_id, stored, raw())

        assert not swap.made
        assert swap.found.raw == store.read(session_id).raw
        assert self._read_by_beaker(namespace) == written
