"""A user's sessions: which logins a user has, and the end of one, or of all, from elsewhere.

The *index* of a user is a record beside the sessions, in the same store and under the same contract, with an *entry*
for each login: the ids that open it, and a note. Each change of an index is a swap, and is applied again to what is
found where that is lost. An *end marker* is a record without data, in the place of a session that was ended by these
steps.

======================  ===============================================================================================
step                    in this order
======================  ===============================================================================================
login                   add the entry, with the new id, and mark those over the limit; end these; write the new record;
                        entomb the old one
rotation                add the new id to the entry; write the new record; entomb the old one; remove the old id
logout, revoke, limit   mark the entry as ending; write an end marker over each of its ids; remove the entry
unbind                  write the record without its login; end the login
======================  ===============================================================================================

Once an entry is marked, no id is added to it: a rotation that comes later finds that, and ends the old id. Once the end
markers are written, no record appears under these ids: a login or a rotation that is under way finds its marker. A
tombstone, and a record that does not name the login, are left alone. Whoever meets an entry that is ending, since the
process that marked it was killed, finishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar, cast

from beaker_bridge.events import SessionRevoked
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionLimitError,
    SessionTooLargeError,
    SettingsError,
)
from beaker_bridge.record.fields import (
    ACCESSED,
    CREATED,
    END_REASON,
    EXPIRY,
    INDEX,
    LOGIN,
    LOGINS,
    MOVED,
    RESERVED_KEYS,
    UNTIL,
    USER,
    in_milliseconds,
    is_expired,
)
from beaker_bridge.session.base import GRACE, MOVED_FOR, shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.index import (
    LIVE,
    Ending,
    Entries,
    IndexRecords,
    endings_in,
    is_live,
    list_login,
    remove_logins,
)
from beaker_bridge.session.login import Login, UserSession, user_text
from beaker_bridge.session.retry import retry
from beaker_bridge.session.user_key import HANDLE, UserKey
from beaker_bridge.stores.base import BATCH, Record, Store

F = TypeVar("F", bound=Callable[..., Any])

#: The most logins of a user: one more ends the oldest.
MAX_LOGINS = 1000
#: A login without a limit looks for entries whose sessions are gone each time that there are so many more of them.
PRUNE_EVERY = 50

#: Why a session was ended from elsewhere; a logout is the browser's own.
REVOKED, LIMIT, LOGOUT = "revoked", "limit", "logout"


class Place(NamedTuple):
    """The place where a session is listed: the index's id, the login, and the time until which the index is kept."""

    index_id: str
    login: str
    until: float | None


class _Look(NamedTuple):
    """A look at the records of a login."""

    #: The content of the record that opens.
    content: Mapping[str, Any]
    is_open: bool
    #: Whether its record may not be written yet.
    is_young: bool
    is_gone: bool


def _reporting(method: F) -> F:
    """Have a method send the event of a failure of the store."""

    @wraps(method)
    def reporting(self: UserIndex, *arguments: Any, **options: Any) -> Any:
        with self._config.listeners.reporting("users"):
            return method(self, *arguments, **options)

    return cast(F, reporting)


class UserIndex:
    """The indexes of users, in the store of one configuration.

    Args:
        config: the configuration.
        notify: what gets the events, or None.

    Raises:
        BeakerBridgeError: sessions are in cookies, which nobody can list or end.
        SettingsError: there is no ``secret``, from which the names of the indexes are derived.
    """

    def __init__(self, config: SessionConfig, notify: Callable[[Any], None] | None = None) -> None:
        options = config.options
        if config.store is None:
            raise BeakerBridgeError("a user's sessions need sessions that are stored on the server, got type = cookie")
        if not options.secret:
            label = options.label("secret", "type")
            raise SettingsError(
                f"{label} is not set: the names of users' indexes are derived from it; set it to a long random text",
                name=label,
            )
        self._config = config
        self._store: Store = config.store
        self._notify = notify
        self._key, *self._previous = [UserKey(secret) for secret in (options.secret, *options.previous_secrets)]
        self._records = IndexRecords(config, self._key.hidden)
        #: The events of steps that are under way; None where there are none.
        self._events: list[SessionRevoked] | None = None

    # -- For applications ----------------------------------------------------------------------------

    @_reporting
    def sessions(self, user_id: str | int, current: str | None = None) -> list[UserSession]:
        """Return a user's sessions, the one seen last first.

        Args:
            user_id: the user's id.
            current: the login of the session that asks.

        Raises:
            DamagedRecordError: the index cannot be read.
            SessionStoreError: the store cannot be reached.
        """
        found: dict[str, UserSession] = {}
        user = user_text(user_id)
        for index_id in self._ids_for(user):
            for login, entry, content in self._live(index_id):
                handle = self._key.handle_of(login, user)
                seen = content.get(ACCESSED)
                found[login] = UserSession(handle, entry["created"], seen, login == current, entry["note"])
        return sorted(found.values(), key=lambda session: session.last_seen or session.created, reverse=True)

    @_reporting
    def revoke(self, user_id: str | int, *, spare: str | None = None) -> int:
        """End a user's sessions, at once; return how many.

        Args:
            user_id: the user's id.
            spare: the login that stays.

        Raises:
            DamagedRecordError: the index cannot be read.
            SessionConflictError: others changed it each time, for ``store_timeout`` seconds.
            SessionStoreError: the store cannot be reached.
        """
        # Look under previous secrets first: a login moves to the current one by being added there, and then removed.
        with self._notifying():
            ended = [self.end(index_id, lambda login: login != spare, REVOKED) for index_id in self.ids_for(user_id)]
        return len(frozenset().union(*ended))

    @_reporting
    def revoke_one(self, handle: str) -> bool:
        """End the session of a handle, at once; return whether there was one.

        Args:
            handle: the handle.

        Raises:
            DamagedRecordError: the index cannot be read.
            SessionConflictError: others changed it each time, for ``store_timeout`` seconds.
            SessionStoreError: the store cannot be reached.
        """
        with self._notifying():
            ended = [self.end(index_id, login.__eq__, REVOKED) for index_id, login in self.named_by(handle)]
        return any(ended)

    def named_by(self, handle: str) -> list[tuple[str, str]]:
        """Return the indexes that may list the login of a handle, and that login."""
        parts = HANDLE.fullmatch(handle) if isinstance(handle, str) else None
        if parts is None:
            return []
        users = [key.user_in_handle(parts) for key in (*self._previous, self._key)]
        return [(index_id, parts[1]) for user in users if user is not None for index_id in self._ids_for(user)]

    def ids_for(self, user_id: str | int) -> list[str]:
        """Return the ids of a user's indexes, one for each secret."""
        return self._ids_for(user_text(user_id))

    def keeps(self, login: Login, metadata: Mapping[str, Any]) -> bool:
        """Say whether a session is its user's already: a login again, as before a payment, goes on with that login.

        Args:
            login: the login that ``bind()`` asks for.
            metadata: the reserved keys of the session.
        """
        return metadata.get(INDEX) == self._key.index_of(login.user)

    def ids_named_by(self, handle: str) -> list[str]:
        """Return the ids that open the login of a handle."""
        entries = [self._records.entries(index_id).get(login) for index_id, login in self.named_by(handle)]
        return [session_id for entry in entries if entry is not None for session_id in entry["ids"]]

    def _ids_for(self, user: str) -> list[str]:
        return [key.index_of(user) for key in (*self._previous, self._key)]

    # -- Login ---------------------------------------------------------------------------------------

    def refuse_over_limit(self, login: Login, own: Collection[str | None]) -> None:
        """Raise if a login would be one too many.

        Args:
            login: the login.
            own: the logins that the session has, or leaves.

        Raises:
            SessionLimitError: the user has as many sessions as ``limit`` says.
        """
        entries = self._entries_before(login) | self._records.readable_entries(self._key.index_of(login.user))
        self._over_limit(login, entries, own, self._looked_at(entries))

    def add(self, login: Login, session_id: str, own: Collection[str | None], lasts: float | None) -> Place | None:
        """List a login, and end those over its limit.

        Args:
            login: the login: a new one, or the one that the session has already.
            session_id: the id of its session, whose record is not yet written.
            own: the logins that the session has, or leaves.
            lasts: seconds for which the session may last, or None.

        Returns:
            Where it is listed; None if the login that the session has was ended meanwhile.

        Raises:
            SessionLimitError: the user has as many sessions as ``limit`` says, and ``on_limit`` is ``refuse``.
        """
        index_id = self._key.index_of(login.user)
        endings: list[Ending] = []
        goes_on = True
        before = self._entries_before(login)
        over: frozenset[str] = frozenset()

        def add(entries: Entries) -> bool:
            nonlocal goes_on, over
            goes_on = login.login not in own or is_live(entries.get(login.login))
            if not goes_on:
                return False
            looks: Mapping[str, _Look] = {}
            if login.limit is not None or len(entries) >= MAX_LOGINS or len(entries) % PRUNE_EVERY == PRUNE_EVERY - 1:
                looks = self._looked_at(before | entries)
                remove_logins(entries, {name for name, look in looks.items() if look.is_gone})
            over = self._over_limit(login, before | entries, own, looks)
            self._mark(entries, over.__contains__, LIMIT)
            list_login(entries, login, session_id, in_milliseconds(self._config.clock()))
            endings[:] = endings_in(entries)
            return True

        with self._notifying():
            try:
                until = self._records.update(index_id, add, lasts, user=login.user)
            except SessionTooLargeError:
                # Make room where the store holds no thousand entries.
                self.end(index_id, self._oldest_in(index_id).__contains__, LIMIT)
                until = self._records.update(index_id, add, lasts, user=login.user)
            self._finish(index_id, endings)
            if over & before.keys():
                for key in self._previous:
                    self.end(key.index_of(login.user), over.__contains__, LIMIT)
        return Place(index_id, login.login, until) if goes_on else None

    def _oldest_in(self, index_id: str) -> list[str]:
        """Return the oldest quarter of the logins of an index."""
        entries = self._records.entries(index_id)
        return sorted(entries, key=lambda login: entries[login]["created"])[: 1 + len(entries) // 4]

    def _entries_before(self, login: Login) -> Entries:
        """Return the entries that a limit counts, too: those under previous secrets."""
        found: Entries = {}
        for key in self._previous if login.limit is not None else ():
            found |= self._records.readable_entries(key.index_of(login.user))
        return found

    def _over_limit(
        self, login: Login, entries: Entries, own: Collection[str | None], looks: Mapping[str, _Look]
    ) -> frozenset[str]:
        """Return the logins that a new one ends; or refuse it."""
        others = [
            name
            for name, entry in entries.items()
            if entry["state"] == LIVE and name not in own and name != login.login
        ]
        limit = MAX_LOGINS
        if login.limit is not None:
            limit = min(limit, login.limit)
            # Count a login that is under way: its record is written after its entry.
            others = [name for name in others if looks[name].is_open or looks[name].is_young]
        excess = len(others) + 1 - limit
        if excess <= 0:
            return frozenset()
        if login.refuses:
            raise SessionLimitError(
                f"sessions of this user: {len(others)}, and limit is {limit}: end one of them first", value=limit
            )
        others.sort(key=lambda name: entries[name]["created"])
        return frozenset(others[:excess])

    # -- Rotation ------------------------------------------------------------------------------------

    def add_id(self, index_id: str, login: str, session_id: str, lasts: float | None) -> bool:
        """Add an id to an entry, before its record is written; return whether the login has not ended.

        Args:
            index_id: the id of the index.
            login: the login.
            session_id: the new id.
            lasts: seconds for which the session may last, or None.
        """
        goes_on = False

        def add(entries: Entries) -> bool:
            nonlocal goes_on
            entry = entries.get(login)
            goes_on = is_live(entry)
            if entry is None or not goes_on or session_id in entry["ids"]:
                return False
            entry["ids"].append(session_id)
            return True

        self._records.update(index_id, add, lasts)
        return goes_on

    def drop_id(self, index_id: str, login: str, session_id: str) -> None:
        """Remove an id from an entry, after its record was entombed.

        Args:
            index_id: the id of the index.
            login: the login.
            session_id: the old id.
        """

        def drop(entries: Entries) -> bool:
            entry = entries.get(login)
            if entry is None or not is_live(entry) or session_id not in entry["ids"]:
                return False
            entry["ids"].remove(session_id)
            return True

        self._records.update(index_id, drop)

    def move(self, index_id: str, login: str, lasts: float | None) -> Place | None:
        """Copy an entry from the index under a previous secret to the one under the current secret.

        Args:
            index_id: the id of the index that the session's record names.
            login: the login.
            lasts: seconds for which the session may last, or None.

        Returns:
            Where it is listed now; None if it is under the current secret already, or has ended.
        """
        content = self._records.readable(index_id)
        entry, user = content.get(LOGINS, {}).get(login), content.get(USER)
        for key in self._previous if is_live(entry) else ():
            name = key.user_in(index_id, str(user))
            if name is not None:
                current = self._key.index_of(name)
                until = self._records.update(current, partial(_copy, login, entry), lasts, user=name)
                return Place(current, login, until)
        return None

    def keep(self, index_id: str, lasts: float | None) -> float | None:
        """Keep an index for as long as a session of it may last; return the time until which it is kept."""
        return self._records.update(index_id, lambda _: False, lasts)

    # -- The end of logins ---------------------------------------------------------------------------

    def end(self, index_id: str, chosen: Callable[[str], bool], reason: str) -> frozenset[str]:
        """End the logins that are chosen; return them.

        Args:
            index_id: the id of the index.
            chosen: whether a login ends.
            reason: :data:`REVOKED`, :data:`LIMIT` or :data:`LOGOUT`.
        """
        endings: list[Ending] = []
        marked: frozenset[str] = frozenset()

        def mark(entries: Entries) -> bool:
            nonlocal marked
            marked = self._mark(entries, chosen, reason)
            endings[:] = endings_in(entries)
            return bool(marked)

        self._records.update(index_id, mark, must_be_readable=reason == REVOKED)
        self._finish(index_id, endings)
        return marked

    def end_id(self, session_id: str, index_id: str, login: str, reason: str) -> None:
        """Write an end marker over the record of an id, unless that is another login's.

        Args:
            session_id: the id.
            index_id: the id of the index that lists the login.
            login: the login.
            reason: as :meth:`end`'s.
        """
        record = self._store.read(session_id)

        def end() -> bool:
            nonlocal record
            content = self._session_content(session_id, record)
            if content is not None and (content.get(INDEX), content.get(LOGIN)) != (index_id, login):
                return True
            marker, expires_in = self._end_marker(content, reason)
            swap = self._store.swap(session_id, record, marker, expires_in)
            record = swap.found
            if swap.made and content and self._events is not None and reason != LOGOUT:
                data = {key: value for key, value in content.items() if key not in RESERVED_KEYS}
                self._events.append(SessionRevoked(session_id, data, reason))
            return swap.made

        timeout = self._config.options.store_timeout
        retry(end, lambda: self._store.lock(session_id, timeout), timeout, f"session {shown(session_id)}")

    def _end_marker(self, content: Mapping[str, Any] | None, reason: str) -> tuple[bytes, float | None]:
        """Return an end marker, and seconds for which the store keeps it."""
        now = self._config.clock()
        lasts: float | None = MOVED_FOR
        if content and reason != LOGOUT:
            # Keep it for as long as the session, to tell the browser why it was logged out.
            options = self._config.options
            limits = [limit for limit in (content.get(EXPIRY, options.timeout), options.absolute_timeout) if limit]
            lasts = min(limits) + GRACE if limits else None
        until = None if lasts is None else now + lasts
        return self._config.codec.encode({CREATED: now, ACCESSED: now, END_REASON: reason, UNTIL: until}), lasts

    def _session_content(self, session_id: str, record: Record | None) -> dict[str, Any] | None:
        """Return what is under the id of an entry; None if there is no record, or one that opens nothing."""
        if record is not None:
            with suppress(DamagedRecordError):
                return self._config.codec.decode(record.raw)[0]
        return None

    def _mark(self, entries: Entries, chosen: Callable[[str], bool], reason: str) -> frozenset[str]:
        marked = frozenset(login for login, entry in entries.items() if entry["state"] == LIVE and chosen(login))
        for login in marked:
            # Drop the note: what is marked must not be larger than before.
            entries[login].update(state=reason, note=None)
        return marked

    def _finish(self, index_id: str, endings: Iterable[Ending]) -> None:
        """Finish entries that are marked as ending."""
        logins = set()
        with self._notifying():
            for login, ids, reason in endings:
                for session_id in ids:
                    self.end_id(session_id, index_id, login, reason)
                logins.add(login)
            if logins:
                self._records.update(index_id, lambda entries: remove_logins(entries, logins))

    @contextmanager
    def _notifying(self) -> Iterator[None]:
        """Notify of what is ended, when all is done: a subscriber that raises must not leave a session open."""
        if self._events is not None or self._notify is None:
            yield
            return
        events: list[SessionRevoked] = []
        self._events = events
        try:
            yield
        finally:
            self._events = None
            for event in events:
                self._notify(event)

    # -- What is gone --------------------------------------------------------------------------------

    def prune(self, index_id: str) -> None:
        """Finish the logins of an index that are ending, and remove those whose sessions are gone.

        Args:
            index_id: the id of the index.

        Raises:
            DamagedRecordError: the index cannot be read.
            SessionStoreError: the store cannot be reached.
        """
        self._live(index_id)

    def _live(self, index_id: str) -> list[tuple[str, dict[str, Any], Mapping[str, Any]]]:
        """Return the logins of an index whose sessions live, their entries, and the content of their records."""
        entries = self._records.entries(index_id)
        self._finish(index_id, endings_in(entries))
        looks = self._looked_at(entries)
        gone = {login for login, look in looks.items() if look.is_gone}
        if gone:
            self._records.update(index_id, lambda found: remove_logins(found, gone))
        return [(login, entries[login], look.content) for login, look in looks.items() if look.is_open]

    def _looked_at(self, entries: Entries) -> dict[str, _Look]:
        """Look at the records of each login that is not ending."""
        known: dict[str, Record | None] = {}
        firsts = [session_id for entry in entries.values() if is_live(entry) for session_id in entry["ids"][:1]]
        for begin in range(0, len(firsts), BATCH):
            batch = firsts[begin : begin + BATCH]
            known.update(zip(batch, self._store.read_all(batch), strict=True))
        return {login: self._look(login, entry, known) for login, entry in entries.items() if is_live(entry)}

    def _look(self, login: str, entry: Mapping[str, Any], known: Mapping[str, Record | None]) -> _Look:
        now, is_gone = self._config.clock(), True
        is_young = bool(now - entry["created"] <= MOVED_FOR)
        is_moved = False
        # Read the oldest first: its tombstone is written after the record of a newer one.
        for session_id in entry["ids"]:
            record = known[session_id] if session_id in known else self._store.read(session_id)
            content = self._session_content(session_id, record) or {}
            if content.get(LOGIN) == login and not is_expired(content, self._config.options, now):
                return _Look(content, is_open=True, is_young=is_young, is_gone=False)
            # Allow for a request that still renews it.
            is_gone = is_gone and (record is None or is_expired(content, self._config.options, now - MOVED_FOR))
            # It has been moved to an id that this reader does not know yet.
            is_moved = is_moved or now < content.get(MOVED, 0)
        return _Look({}, is_open=is_moved, is_young=is_young, is_gone=is_gone and not is_young)


def _copy(login: str, entry: dict[str, Any], entries: Entries) -> bool:
    return entries.setdefault(login, entry) is entry
