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

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from beaker_bridge.events import SessionRevoked
from beaker_bridge.exceptions import (
    BeakerBridgeError,
    DamagedRecordError,
    SessionLimitError,
    SessionValueError,
    SettingsError,
)
from beaker_bridge.record.fields import (
    ACCESSED,
    CREATED,
    END_REASON,
    EXPIRY,
    ID,
    INDEX,
    LOGIN,
    LOGINS,
    MOVED,
    RESERVED_KEYS,
    UNTIL,
    USER,
    in_milliseconds,
    is_expired,
    is_over,
)
from beaker_bridge.session.base import GRACE, MOVED_FOR, retry, shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.stores.base import ID_FORM, Record, Store

log = logging.getLogger(__name__)

#: The most logins of a user: one more ends the oldest.
MAX_LOGINS = 1000
#: The most bytes of a note, as JSON.
MAX_NOTE = 1024
#: A login without a limit looks for entries whose sessions are gone if there are more than these.
PRUNE_ABOVE = 50
#: Seconds for which an index is kept at least, if its sessions expire.
SHORTEST = 86400

#: Why a session was ended from elsewhere; a logout is the browser's own.
REVOKED, LIMIT, LOGOUT = "revoked", "limit", "logout"

#: The form of a handle: the login, and the index in a form that only the secret opens.
_HANDLE = re.compile(r"([0-9a-f]{32})([0-9a-f]{64})")


class UserSession(NamedTuple):
    """One of a user's sessions, as a page shows it.

    Args:
        handle: names it for ``revoke_one()``; it is no id, and opens nothing.
        created: the time of the login, in seconds since the epoch.
        last_seen: the time of its last access, to ``timeout / 10`` or a minute; None if it is not known.
        is_current: whether it is the session of the request that asks.
        note: what the application noted at the login.
    """

    handle: str
    created: float
    last_seen: float | None
    is_current: bool
    note: Mapping[str, Any] | None


class Login(NamedTuple):
    """A login that a commit is about to begin.

    Args:
        user: the user's id, as text.
        login: the name of the login, in the index and in the session's record.
        note: what the application notes of it.
        limit: the most logins of the user, this one included; None for :data:`MAX_LOGINS`.
        refuses: whether a login over the limit is refused, instead of the oldest one ended.
    """

    user: str
    login: str
    note: Mapping[str, Any] | None
    limit: int | None
    refuses: bool


class Place(NamedTuple):
    """Where a session is listed: the id of the index, the login, and the time until which the index is kept."""

    index_id: str
    login: str
    until: float | None


class _Ending(NamedTuple):
    """An entry that is marked as ending."""

    login: str
    ids: tuple[str, ...]
    reason: str


class _Look(NamedTuple):
    """A look at the records of a login."""

    #: The content of the record that opens.
    content: Mapping[str, Any]
    is_open: bool
    #: Whether its record may not be written yet.
    is_young: bool
    is_gone: bool


#: The entries of an index, by their logins: ``{"ids": […], "state": "live" or why it ends, "created": …, "note": …}``.
Entries = dict[str, dict[str, Any]]
_LIVE = "live"


def new_login(
    user_id: str | int, note: Mapping[str, Any] | None, limit: int | None, on_limit: str, login: str
) -> Login:
    """Return a login, from what an application passes to ``bind()``.

    Args:
        user_id: as ``bind()``'s.
        note: as ``bind()``'s.
        limit: as ``bind()``'s.
        on_limit: as ``bind()``'s.
        login: its name.

    Raises:
        SessionValueError: the note is no dict, is not JSON, or too large.
        TypeError: the user's id is neither a text nor an int.
        ValueError: the user's id is empty, or ``limit`` or ``on_limit`` are none.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"limit must be a whole number, 1 or more, or None, got {limit!r}")
    if on_limit not in ("end", "refuse"):
        raise ValueError(f"on_limit must be 'end' or 'refuse', got {on_limit!r}")
    return Login(user_text(user_id), login, _checked(note), limit, on_limit == "refuse")


def user_text(user_id: str | int) -> str:
    """Return a user's id as text: 42 and ``"42"`` are one user.

    Raises:
        TypeError: it is neither a text nor an int.
        ValueError: it is empty, or no text that UTF-8 can hold.
    """
    if not isinstance(user_id, (str, int)) or isinstance(user_id, bool):
        raise TypeError(f"a user's id must be a text or an int, got a {type(user_id).__name__}")
    text = str(user_id)
    if not text or not _is_unicode(text):
        raise ValueError("a user's id must be a text of one character or more, in Unicode")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked(note: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a note as JSON gives it back, so that no later change of the application's dict is in it."""
    if note is None:
        return None
    try:
        text = json.dumps(note, allow_nan=False) if isinstance(note, dict) else ""
    except (TypeError, ValueError, RecursionError) as error:
        raise SessionValueError(f"note must hold only JSON: {error}", name="note", original=error) from error
    if not text or len(text.encode("utf-8")) > MAX_NOTE:
        got = f"{len(text)} bytes" if text else f"a {type(note).__name__}"
        raise SessionValueError(f"note must be a dict of at most {MAX_NOTE} bytes of JSON, got {got}", name="note")
    known: dict[str, Any] = json.loads(text)
    return known


class _Key:
    """What is derived from one ``secret``: the ids of indexes, and a mask for what only the secret opens."""

    def __init__(self, secret: str) -> None:
        secret_bytes = secret.encode("utf-8")
        self._index = hmac.new(secret_bytes, b"beaker_bridge: the index of a user", hashlib.sha256).digest()
        self._mask = hmac.new(secret_bytes, b"beaker_bridge: what a handle hides", hashlib.sha256).digest()

    def index_of(self, user: str) -> str:
        """Return the id of a user's index. It cannot be guessed: Beaker's own processes would open it as a session."""
        return "u" + hmac.new(self._index, user.encode("utf-8"), hashlib.sha256).hexdigest()

    def handle_of(self, login: str, index_id: str) -> str:
        """Return the handle of a login."""
        return login + self._masked(login, bytes.fromhex(index_id[1:])).hex()

    def index_in(self, handle: re.Match[str]) -> str:
        """Return the id of the index that a handle names; if it was made under another key, of one that is not."""
        return "u" + self._masked(handle[1], bytes.fromhex(handle[2])).hex()

    def hidden(self, user: str, index_id: str) -> str:
        """Return a user's id as its index holds it, for the time when another secret is the current one."""
        return self._masked(index_id, user.encode("utf-8")).hex()

    def user_in(self, index_id: str, hidden: str) -> str | None:
        """Return the user's id that an index holds; None if it was hidden under another key."""
        with suppress(ValueError):
            user = self._masked(index_id, bytes.fromhex(hidden)).decode("utf-8")
            if self.index_of(user) == index_id:
                return user
        return None

    def _masked(self, name: str, data: bytes) -> bytes:
        # Mask only one text under each name: two would reveal each other.
        blocks = range(1 + len(data) // hashlib.sha256().digest_size)
        mask = b"".join(hmac.new(self._mask, f"{name} {block}".encode(), hashlib.sha256).digest() for block in blocks)
        return bytes(byte ^ other for byte, other in zip(data, mask, strict=False))


class UserIndex:
    """The indexes of users, in the store of one configuration.

    Args:
        config: the configuration.
        notify: what gets the events, or None.

    Raises:
        BeakerBridgeError: sessions are in cookies, which nobody can list or end.
        SettingsError: there is no ``secret``, from which the names of the indexes are derived.
    """

    def __init__(self, config: SessionConfig, notify: Callable[[object], None] | None = None) -> None:
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
        self._key, *self._previous = [_Key(secret) for secret in (options.secret, *options.previous_secrets)]

    # -- For applications ----------------------------------------------------------------------------

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
        for key, index_id in self._indexes(user_text(user_id)):
            for login, entry, content in self._live(index_id):
                handle = key.handle_of(login, index_id)
                seen = content.get(ACCESSED)
                found[login] = UserSession(handle, entry["created"], seen, login == current, entry["note"])
        return sorted(found.values(), key=lambda session: session.last_seen or session.created, reverse=True)

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
        return sum(self.end(index_id, lambda login: login != spare, REVOKED) for index_id in self.ids_for(user_id))

    def revoke_one(self, handle: str) -> bool:
        """End the session of a handle, at once; return whether there was one.

        Args:
            handle: the handle.

        Raises:
            DamagedRecordError: the index cannot be read.
            SessionConflictError: others changed it each time, for ``store_timeout`` seconds.
            SessionStoreError: the store cannot be reached.
        """
        return sum(self.end(index_id, login.__eq__, REVOKED) for index_id, login in self.named_by(handle)) > 0

    def named_by(self, handle: str) -> list[tuple[str, str]]:
        """Return the indexes that a handle may name, one for each secret, and its login."""
        parts = _HANDLE.fullmatch(handle) if isinstance(handle, str) else None
        return [(key.index_in(parts), parts[1]) for key in (*self._previous, self._key)] if parts else []

    def ids_for(self, user_id: str | int) -> list[str]:
        """Return the ids of a user's indexes, one for each secret."""
        return [index_id for _, index_id in self._indexes(user_text(user_id))]

    def keeps(self, login: Login, metadata: Mapping[str, Any]) -> bool:
        """Say whether a session is its user's already: a login again, as before a payment, goes on with that login.

        Args:
            login: the login that ``bind()`` asks for.
            metadata: the reserved keys of the session.
        """
        return metadata.get(INDEX) == self._key.index_of(login.user)

    def ids_of(self, index_id: str, login: str) -> list[str]:
        """Return the ids that open a login."""
        entry = self._entries(index_id).get(login)
        return [] if entry is None else list(entry["ids"])

    def _indexes(self, user: str) -> list[tuple[_Key, str]]:
        return [(key, key.index_of(user)) for key in (*self._previous, self._key)]

    # -- Login ---------------------------------------------------------------------------------------

    def refuse_over_limit(self, login: Login, leaving: str | None) -> None:
        """Raise if a login would be one too many.

        Args:
            login: the login.
            leaving: the login that the session has now, which ends with it.

        Raises:
            SessionLimitError: the user has as many sessions as ``limit`` says.
        """
        entries = self._entries(self._key.index_of(login.user))
        self._over_limit(login, entries, leaving, self._looked_at(entries))

    def add(self, login: Login, session_id: str, leaving: str | None, lasts: float | None) -> Place | None:
        """List a login, and end those over its limit.

        Args:
            login: the login: a new one, or the one that the session has already.
            session_id: the id of its session, whose record is not yet written.
            leaving: the login that the session has; None if it has none.
            lasts: seconds for which the session may last, or None.

        Returns:
            Where it is listed; None if the login that the session has was ended meanwhile.

        Raises:
            SessionLimitError: the user has as many sessions as ``limit`` says, and ``on_limit`` is ``refuse``.
        """
        index_id = self._key.index_of(login.user)
        endings: list[_Ending] = []
        is_live = True

        def add(entries: Entries) -> bool:
            nonlocal is_live
            is_live = login.login != leaving or _is_live(entries.get(login.login))
            if not is_live:
                return False
            looks: Mapping[str, _Look] = {}
            if login.limit is not None or len(entries) > PRUNE_ABOVE:
                looks = self._looked_at(entries)
                _remove(entries, {name for name, look in looks.items() if look.is_gone})
            self._mark(entries, self._over_limit(login, entries, leaving, looks).__contains__, LIMIT)
            _add(entries, login, session_id, in_milliseconds(self._config.clock()))
            endings[:] = _ending(entries)
            return True

        until = self._update(index_id, add, lasts, user=login.user)
        self._finish(index_id, endings)
        return Place(index_id, login.login, until) if is_live else None

    def _over_limit(
        self, login: Login, entries: Entries, leaving: str | None, looks: Mapping[str, _Look]
    ) -> frozenset[str]:
        """Return the logins that a new one ends; or refuse it."""
        own = login.login, leaving
        others = [name for name, entry in entries.items() if entry["state"] == _LIVE and name not in own]
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
                f"the user has {len(others)} sessions, and limit is {limit}: end one of them first", value=limit
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
        is_live = False

        def add(entries: Entries) -> bool:
            nonlocal is_live
            entry = entries.get(login)
            is_live = _is_live(entry)
            if entry is None or not is_live or session_id in entry["ids"]:
                return False
            entry["ids"].append(session_id)
            return True

        self._update(index_id, add, lasts)
        return is_live

    def drop_id(self, index_id: str, login: str, session_id: str) -> None:
        """Remove an id from an entry, after its record was entombed.

        Args:
            index_id: the id of the index.
            login: the login.
            session_id: the old id.
        """

        def drop(entries: Entries) -> bool:
            entry = entries.get(login)
            if entry is None or not _is_live(entry) or session_id not in entry["ids"]:
                return False
            entry["ids"].remove(session_id)
            return True

        self._update(index_id, drop)

    def move(self, index_id: str, login: str, lasts: float | None) -> str:
        """Copy an entry from the index under a previous secret to the one under the current secret.

        Args:
            index_id: the id of the index that the session's record names.
            login: the login.
            lasts: seconds for which the session may last, or None.

        Returns:
            The id of the index that lists the login now: the same one if there is no other, or if the login has ended.
        """
        content = self._content(self._store.read(index_id), index_id)
        entry, user = content.get(LOGINS, {}).get(login), content.get(USER)
        if not _is_live(entry):
            return index_id
        for key in self._previous:
            name = key.user_in(index_id, str(user))
            if name is not None:
                current = self._key.index_of(name)
                self._update(current, lambda entries: entries.setdefault(login, entry) is entry, lasts, user=name)
                return current
        return index_id

    def keep(self, index_id: str, lasts: float | None) -> float | None:
        """Keep an index for as long as a session of it may last; return the time until which it is kept."""
        return self._update(index_id, lambda _: False, lasts)

    # -- The end of logins ---------------------------------------------------------------------------

    def end(self, index_id: str, chosen: Callable[[str], bool], reason: str) -> int:
        """End the logins that are chosen; return how many.

        Args:
            index_id: the id of the index.
            chosen: whether a login ends.
            reason: :data:`REVOKED`, :data:`LIMIT` or :data:`LOGOUT`.
        """
        endings: list[_Ending] = []
        number = 0

        def mark(entries: Entries) -> bool:
            nonlocal number
            number = self._mark(entries, chosen, reason)
            endings[:] = _ending(entries)
            return number > 0

        self._update(index_id, mark)
        self._finish(index_id, endings)
        return number

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
            if swap.made and content and self._notify is not None and reason != LOGOUT:
                data = {key: value for key, value in content.items() if key not in RESERVED_KEYS}
                self._notify(SessionRevoked(session_id, data, reason))
            return swap.made

        self._retry(session_id, end)

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

    def _mark(self, entries: Entries, chosen: Callable[[str], bool], reason: str) -> int:
        number = 0
        for login, entry in entries.items():
            if entry["state"] == _LIVE and chosen(login):
                entry["state"] = reason
                number += 1
        return number

    def _finish(self, index_id: str, endings: Iterable[_Ending]) -> None:
        """Finish entries that are marked as ending."""
        logins = set()
        for login, ids, reason in endings:
            for session_id in ids:
                self.end_id(session_id, index_id, login, reason)
            logins.add(login)
        if logins:
            self._update(index_id, lambda entries: _remove(entries, logins))

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
        entries = self._entries(index_id)
        self._finish(index_id, _ending(entries))
        looks = self._looked_at(entries)
        gone = {login for login, look in looks.items() if look.is_gone}
        if gone:
            self._update(index_id, lambda found: _remove(found, gone))
        return [(login, entries[login], look.content) for login, look in looks.items() if look.is_open]

    def _looked_at(self, entries: Entries) -> dict[str, _Look]:
        """Look at the records of each login that is not ending."""
        return {login: self._look(login, entry) for login, entry in entries.items() if entry["state"] == _LIVE}

    def _look(self, login: str, entry: Mapping[str, Any]) -> _Look:
        now, is_gone = self._config.clock(), True
        is_young = bool(now - entry["created"] <= MOVED_FOR)
        is_moved = False
        # Read the oldest first: its tombstone is written after the record of a newer one.
        for session_id in entry["ids"]:
            record = self._store.read(session_id)
            content = self._session_content(session_id, record) or {}
            if content.get(LOGIN) == login and not is_expired(content, self._config.options, now):
                return _Look(content, is_open=True, is_young=is_young, is_gone=False)
            is_gone = is_gone and record is None
            # It has been moved to an id that this reader does not know yet.
            is_moved = is_moved or now < content.get(MOVED, 0)
        return _Look({}, is_open=is_moved, is_young=is_young, is_gone=is_gone and not is_young)

    # -- The record of an index ----------------------------------------------------------------------

    def _entries(self, index_id: str) -> Entries:
        entries: Entries = self._content(self._store.read(index_id), index_id).get(LOGINS, {})
        return entries

    def _content(self, record: Record | None, index_id: str) -> dict[str, Any]:
        """Return the content of an index; an empty dict if there is none, or none that is still kept."""
        if record is None:
            return {}
        content, _ = self._config.codec.decode(record.raw)
        if is_over(content, self._config.clock()):
            return {}
        if content.get(ID, index_id) != index_id or not all(map(_is_entry, content.get(LOGINS, {}).items())):
            raise DamagedRecordError("it is no index of a user's sessions", value=len(record.raw))
        return content

    def _update(
        self,
        index_id: str,
        change: Callable[[Entries], bool],
        lasts: float | None = 0.0,
        *,
        user: str | None = None,
    ) -> float | None:
        """Change an index; where another process changes it meanwhile, again what that has made of it.

        An index without entries is deleted, and none is written where there was none.

        Args:
            index_id: the id of the index.
            change: changes its entries, and returns whether it did.
            lasts: seconds for which a session of it may last from now; None for one that does not expire.
            user: the user's id, for a login, which may be the first one.

        Returns:
            The time until which it is kept; None if for good.
        """
        record = self._store.read(index_id)
        until: float | None = None

        def update() -> bool:
            nonlocal record, until
            content = self._changeable(record, index_id, user)
            entries: Entries = content.setdefault(LOGINS, {})
            has_changed = change(entries)
            known = content.get(UNTIL, 0.0)
            until = content[UNTIL] = self._until(known, lasts)
            if not has_changed and (until == known or not entries):
                return True
            raw = self._config.codec.encode(content) if entries else None
            now = self._config.clock()
            swap = self._store.swap(index_id, record, raw, None if until is None else until - now)
            record = swap.found
            return swap.made

        self._retry(index_id, update)
        return until

    def _changeable(self, record: Record | None, index_id: str, user: str | None) -> dict[str, Any]:
        """Return the content of an index; of a new one where a login finds none, or none that can be read."""
        content: dict[str, Any] = {}
        try:
            content = self._content(record, index_id)
        except DamagedRecordError as error:
            if user is None or not self._config.options.invalidate_corrupt:
                raise
            log.warning("index %s: %s; the user's earlier sessions are no longer listed", shown(index_id), error)
        if not content and user is not None:
            now = in_milliseconds(self._config.clock())
            content = {CREATED: now, ACCESSED: now, USER: self._key.hidden(user, index_id)}
            if self._config.options.encrypt_key:
                # Bind the ciphertext to its id, as a session's.
                content[ID] = index_id
        return content

    def _until(self, known: float | None, lasts: float | None) -> float | None:
        """Return the time until which an index is kept: for twice as long as its sessions last, for a day at least."""
        if known is None or lasts is None:
            return None
        if not lasts:
            return known
        now = self._config.clock()
        if self._config.options.absolute_timeout:
            return max(known, now + self._config.options.absolute_timeout + GRACE)
        return known if now + lasts <= known else now + max(2 * lasts, SHORTEST)

    def _retry(self, key: str, attempt: Callable[[], bool]) -> None:
        timeout = self._config.options.store_timeout
        retry(attempt, lambda: self._store.lock(key, timeout), timeout, f"the record {shown(key)}")


def _add(entries: Entries, login: Login, session_id: str, now: float) -> None:
    """Add an id to the entry of a login, which may be new."""
    entry = entries.setdefault(login.login, {"ids": [], "state": _LIVE, "created": now, "note": None})
    if session_id not in entry["ids"]:
        entry["ids"].append(session_id)
    if login.note is not None:
        entry["note"] = login.note


def _is_live(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and entry["state"] == _LIVE


def _is_entry(item: tuple[Any, Any]) -> bool:
    """Say whether an item of an index has the form that :func:`_add` gives it: a store can hold anything."""
    login, entry = item
    return (
        isinstance(login, str)
        and isinstance(entry, dict)
        and isinstance(entry.get("ids"), list)
        and all(isinstance(name, str) and ID_FORM.fullmatch(name) for name in entry["ids"])
        and isinstance(entry.get("state"), str)
        and isinstance(entry.get("created"), (int, float))
        and isinstance(entry.get("note"), (dict, type(None)))
    )


def _ending(entries: Entries) -> list[_Ending]:
    return [
        _Ending(login, tuple(entry["ids"]), entry["state"])
        for login, entry in entries.items()
        if entry["state"] != _LIVE
    ]


def _remove(entries: Entries, logins: set[str]) -> bool:
    known = logins & entries.keys()
    for login in known:
        del entries[login]
    return bool(known)
