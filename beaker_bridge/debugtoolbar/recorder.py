"""Recorder of a request's session for the panel: it watches from outside, and keeps text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from beaker_bridge.debugtoolbar.values import Row, rows_of
from beaker_bridge.events import SessionMerged, SessionNotSaved
from beaker_bridge.exceptions import BeakerBridgeError
from beaker_bridge.record.fields import RESERVED_KEYS
from beaker_bridge.request.exchange import Exchange
from beaker_bridge.request.headers import Headers
from beaker_bridge.session.base import SafeSession, shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.context import OPEN
from beaker_bridge.session.state import COOKIE, Fate, State
from beaker_bridge.stores.base import ID_FORM, Record, Store, Swap


class Call(NamedTuple):
    """A call of the store.

    Args:
        operation: ``read``, ``write``, ``delete`` or ``lock``.
        record: the beginning of the record's id.
        outcome: what came of it.
        size: the bytes that were read or written; None if there were none.
        milliseconds: how long it took.
    """

    operation: str
    record: str
    outcome: str
    size: int | None
    milliseconds: float


class Commit(NamedTuple):
    """A commit that had something to do.

    Args:
        outcome: what came of it, in lines.
        is_error: whether it failed.
        milliseconds: how long it took.
    """

    outcome: str
    is_error: bool
    milliseconds: float


class Region(NamedTuple):
    """A value of a cache region.

    Args:
        region: the region.
        function: the function whose value it is.
        outcome: ``hit``, ``stale``, ``computed``, ``waited`` or ``failed``.
        milliseconds: how long the function's caller waited.
    """

    region: str
    function: str
    outcome: str
    milliseconds: float


class Cookie(NamedTuple):
    """What was decided about the cookie.

    Args:
        is_sent: whether the response carries it.
        reason: why it is, or is not, sent.
        header: the header, without the cookie's value.
    """

    is_sent: bool
    reason: str
    header: str | None = None


class Recorder:
    """Keeps what one request makes of its session, until its headers are sent."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.commits: list[Commit] = []
        self.regions: list[Region] = []
        self.events: list[str] = []
        #: A description of the session as it was loaded; None if it was not loaded.
        self.loaded: str | None = None
        self.keys: list[Row] = []
        self.cookie = Cookie(False, "the application has not used the session")
        #: The type of the store.
        self.store = ""
        #: The number of commits, and of calls of the store, that came after the headers were sent.
        self.late_commits = self.late_calls = 0
        #: Whether the application was asked; before that, other panels were.
        self.is_serving = False
        self.is_frozen = False
        self.is_streamed = False
        self._before: Mapping[str, Any] = {}
        #: Whether a commit is under way, and the headers are to be sent right after it.
        self._is_committing = self._is_freeze_due = False
        self._sent_for: str | None = None

    # -- The session ---------------------------------------------------------------------------------

    def note_loaded(self, session: SafeSession) -> None:
        """Note what the session holds as it is loaded."""
        self._before = _content(session._base())
        state = session._state
        if state.detached:
            self.loaded = "an empty session: this one has moved to another id, or its store cannot be reached"
        elif state.is_new:
            self.loaded = "a new session"
        else:
            self.loaded = f"the session {shown(state.id)}"
        if not self.is_serving:
            self.loaded += ", by another panel of the toolbar, before the application was asked"

    def note_unloaded(self, error: BaseException) -> None:
        """Note that the session could not be loaded."""
        self.loaded = f"none: {error}"
        self.cookie = Cookie(False, "the session could not be loaded")

    def note_event(self, event: object) -> None:
        """Note an event of the session."""
        name = type(event).__name__
        if isinstance(event, SessionMerged):
            tries = f"{event.tries} tr{'y' if event.tries == 1 else 'ies'}"
            lost = ", ".join(sorted(map(repr, event.conflicts)))
            given_up = f"of two changes of {lost} one was given up" if lost else "no change was given up"
            self.events.append(f"{name}: merged with another request's changes, in {tries}; {given_up}")
        elif isinstance(event, SessionNotSaved):
            why = "the session has ended meanwhile" if event.reason == "ended" else "others changed it for too long"
            self.events.append(f"{name}: this request's changes were given up: {why}")
        else:
            self.events.append(name)

    @contextmanager
    def committing(self, exchange: Exchange) -> Iterator[None]:
        """Note what a commit does."""
        session = exchange.session
        if session is None:
            yield
            return
        before, was_set, calls = session._state, exchange.cookies["set_cookie"], len(self.calls)
        asked, began = self._asked, time.perf_counter()
        self._is_committing, outcome, is_error = True, "", False
        try:
            yield
        except BaseException as error:
            outcome, is_error = _failure(error), True
            raise
        finally:
            self._is_committing = False
            has_set = exchange.cookies["set_cookie"] and not was_set
            if has_set:
                self._sent_for = _reason(before, session, exchange)
            if has_set or is_error or self._asked > asked:
                outcome = outcome or _outcome(session, self.calls[calls:], exchange)
                self._note_commit(Commit(outcome, is_error, _since(began)))
            self.look(exchange)
            if self._is_freeze_due:
                self.freeze(exchange)

    @property
    def _asked(self) -> int:
        """The number of calls of the store so far."""
        return len(self.calls) + self.late_calls

    def _note_commit(self, commit: Commit) -> None:
        if self.is_frozen:
            self.late_commits += 1
        else:
            self.commits.append(commit)

    # -- The end of a request ------------------------------------------------------------------------

    def look(self, exchange: Exchange) -> None:
        """Take what the session holds, and what was decided about its cookie, unless the headers were sent."""
        if self.is_frozen:
            return
        session = exchange.session
        self.is_streamed = exchange.is_streamed
        if session is not None:
            self.keys = rows_of(self._before, dict(session))
            self.cookie = self._decided(exchange, session)

    def freeze(self, exchange: Exchange) -> None:
        """Take it for the last time: the headers are sent."""
        if self._is_committing:
            self._is_freeze_due = True
            return
        self.look(exchange)
        self.is_frozen = True
        self._before = {}

    def _decided(self, exchange: Exchange, session: SafeSession) -> Cookie:
        header = exchange.cookies.get("cookie_out")
        if exchange.cookies.get("set_cookie") and header:
            name, _, rest = header.partition("=")
            attributes = rest.partition(";")[2]
            return Cookie(True, self._sent_for or "its commit asked for it", f"{name}=…;{attributes}")
        return Cookie(False, _reason_without(exchange, session))


def _content(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in RESERVED_KEYS}


#: The name of the record of a user's sessions.
_INDEX = "a user's index"
#: The outcome of a write that was made.
_WRITTEN = "written"
#: The calls that change a record.
_CHANGES = ("write", "delete")


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _failure(error: BaseException) -> str:
    return str(error) if isinstance(error, BeakerBridgeError) else type(error).__name__


def _outcome(session: SafeSession, calls: list[Call], exchange: Exchange) -> str:
    if session._state.detached:
        return "given up: the session has ended, or moved, elsewhere"
    if exchange.config.store is None:
        return "the record is in the cookie"
    changes = [_change(call, session.id) for call in calls if call.operation in _CHANGES]
    return "\n".join(changes) or "the store was read"


def _change(call: Call, session_id: str) -> str:
    is_marker = call.outcome == _WRITTEN and call.record not in (shown(session_id), _INDEX)
    return f"{call.record}: {'a marker was written: the session is under another id' if is_marker else call.outcome}"


def _reason(before: State, session: SafeSession, exchange: Exchange) -> str:
    """Return why a commit has set the cookie."""
    state = session._state
    has_moved = any(retired.fate is not Fate.DELETE for retired in before.retired)
    reasons = [
        (
            state.is_invalidated and state.record is None,
            "the session has ended: the browser's cookie is deleted",
        ),
        (
            exchange.config.store is None,
            "the record is in the cookie, and was changed, or its access time renewed",
        ),
        (has_moved, "the session has moved to a new id"),
        (before.record is None, "the session is new, and was stored"),
        (
            before.pending & COOKIE,
            "what the cookie says was changed: its lifetime, domain or path, or the key that signs it",
        ),
        (session._another_lost, "the browser sent several cookies of ours, which this one replaces"),
    ]
    return next((reason for holds, reason in reasons if holds), "its lifetime is renewed")


def _reason_without(exchange: Exchange, session: SafeSession) -> str:
    """Return why there is no cookie."""
    state = session._state
    is_stored = exchange.config.store is None or state.record is not None
    reasons = [
        (
            exchange.discarded,
            "the request was discarded, since it failed: it leaves no trace (cookie_on_exception)",
        ),
        (not exchange.config.options.use_cookies, "use_cookies is off"),
        (
            state.detached,
            "the session is not saved: it has ended or moved elsewhere, or its store cannot be reached",
        ),
        (not is_stored and not len(session), "the session is new and empty: it is not stored"),
        (state.pending or session.has_changed(), "the session is not committed yet"),
    ]
    otherwise = "the browser has it: its value is the same, and no lifetime is to be renewed"
    return next((reason for holds, reason in reasons if holds), otherwise)


# -- Watching ----------------------------------------------------------------------------------------


class WatchedStore:
    """A store whose calls are noted.

    Args:
        store: the store.
        recorder: notes them.
    """

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, session_id: str) -> Record | None:
        """Read a record, as :class:`Store` has it."""
        with self._noting("read", session_id) as note:
            record = self._store.read(session_id)
            note("found" if record else "none", record and len(record.raw))
        return record

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        """Swap a record, as :class:`Store` has it."""
        with self._noting("delete" if new is None else "write", session_id) as note:
            swap = self._store.swap(session_id, record, new, expires_in)
            done = "deleted" if new is None else _WRITTEN
            note(done if swap.made else "lost to another request's change", None if new is None else len(new))
        return swap

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[Callable[[], float] | None]:
        """Hold a lock, as :class:`Store` has it; the wait for it is what counts."""
        with ExitStack() as held:
            with self._noting("lock", session_id) as note:
                lease = held.enter_context(self._store.lock(session_id, timeout))
                note("taken", None)
            yield lease

    @contextmanager
    def _noting(self, operation: str, record_id: str) -> Iterator[Callable[[str, int | None], None]]:
        outcome, size = "failed", None

        def note(what: str, how_large: int | None) -> None:
            nonlocal outcome, size
            outcome, size = what, how_large

        began = time.perf_counter()
        try:
            yield note
        except BeakerBridgeError as error:
            outcome = f"failed ({error.failure})"
            raise
        finally:
            name = shown(record_id) if ID_FORM.fullmatch(record_id) else _INDEX
            call = Call(operation, name, outcome, size, _since(began))
            if self._recorder.is_frozen:
                self._recorder.late_calls += 1
            else:
                self._recorder.calls.append(call)


class WatchedConfig(SessionConfig):
    """A configuration whose store is watched for one request.

    Args:
        config: the configuration.
        recorder: notes the calls.
    """

    def __init__(self, config: SessionConfig, recorder: Recorder) -> None:
        vars(self).update(vars(config))
        self.original = config
        store: Any = config.store and WatchedStore(config.store, recorder)
        self.store = store

    @property
    def purge_pause(self) -> tuple[float, float]:
        """The configuration's own: the next request goes by it."""
        return self.original.purge_pause

    @purge_pause.setter
    def purge_pause(self, pause: tuple[float, float]) -> None:
        self.original.purge_pause = pause


class WatchedExchange(Exchange):
    """An exchange that is watched: one that stands is made one by :func:`watch`."""

    recorder: Recorder

    @property
    def notify(self) -> Callable[[object], None]:
        """Notes the session's events before its subscribers get them."""
        return self._notify

    @notify.setter
    def notify(self, notify: Callable[[object], None] | None) -> None:
        vars(self)["subscribers"] = notify

    def _notify(self, event: object) -> None:
        self.recorder.note_event(event)
        subscribers = vars(self).get("subscribers")
        if subscribers is not None:
            subscribers(event)

    def load(self) -> SafeSession:
        if self.session is not None:
            return self.session
        try:
            session = super().load()
        except BaseException as error:
            self.recorder.note_unloaded(error)
            raise
        self.recorder.note_loaded(session)
        return session

    def commit(self) -> None:
        with self.recorder.committing(self):
            super().commit()

    def persist(self) -> None:
        with self.recorder.committing(self):
            super().persist()

    def finish(self, headers: Headers, *, streamed: bool = False) -> Headers:
        headers = super().finish(headers, streamed=streamed)
        if self.phase is not OPEN:
            self.recorder.freeze(self)
        return headers

    def mark_headers_sent(self) -> None:
        self.recorder.freeze(self)
        super().mark_headers_sent()

    def end(self) -> None:
        self.recorder.freeze(self)
        super().end()


def watch(exchange: Exchange) -> Recorder:
    """Watch an exchange from now on.

    Args:
        exchange: the exchange; one that is watched already, as a subrequest's is, goes on so.

    Returns:
        What keeps what it does.
    """
    if isinstance(exchange, WatchedExchange):
        return exchange.recorder
    recorder = Recorder()
    config = exchange.config.original if isinstance(exchange.config, WatchedConfig) else exchange.config
    recorder.store = str(config.options.type)
    exchange.config = WatchedConfig(config, recorder)
    subscribers = vars(exchange).pop("notify", None)
    exchange.__class__ = WatchedExchange
    vars(exchange).update(recorder=recorder, subscribers=subscribers)
    if exchange.session is not None:
        exchange.session._config = exchange.config
        recorder.note_loaded(exchange.session)
    return recorder
