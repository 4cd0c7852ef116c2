"""The index of a user: the record that lists the user's logins, read, and changed by a swap."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from beaker_bridge.exceptions import DamagedRecordError
from beaker_bridge.logs import fields
from beaker_bridge.record.fields import ACCESSED, CREATED, ID, LOGINS, UNTIL, USER, in_milliseconds, is_over
from beaker_bridge.session.base import GRACE, shown
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.login import Login
from beaker_bridge.session.retry import retry
from beaker_bridge.stores.base import ID_FORM, Record, Store

log = logging.getLogger(__name__)

#: Seconds for which an index is kept at least, if its sessions expire.
SHORTEST = 86400

#: The entries of an index, by their logins: ``{"ids": […], "state": "live" or why it ends, "created": …, "note": …}``.
Entries = dict[str, dict[str, Any]]
#: The state of an entry that is not ending.
LIVE = "live"


class Ending(NamedTuple):
    """An entry that is marked as ending."""

    login: str
    ids: tuple[str, ...]
    reason: str


class IndexRecords:
    """The records of indexes, in the store of one configuration.

    Args:
        config: the configuration.
        hidden: returns a user's id as an index holds it, from that and the id of the index.
    """

    def __init__(self, config: SessionConfig, hidden: Callable[[str, str], str]) -> None:
        assert config.store is not None
        self._config = config
        self._store: Store = config.store
        self._hidden = hidden

    def entries(self, index_id: str) -> Entries:
        """Return the entries of an index; an empty dict if there is none.

        Args:
            index_id: the id of the index.

        Raises:
            DamagedRecordError: it cannot be read.
            SessionStoreError: the store cannot be reached.
        """
        entries: Entries = self._content(self._store.read(index_id), index_id).get(LOGINS, {})
        return entries

    def readable_entries(self, index_id: str) -> Entries:
        """Return the entries of an index; an empty dict also if it is damaged, and that may be ignored."""
        entries: Entries = self.readable(index_id).get(LOGINS, {})
        return entries

    def readable(self, index_id: str) -> dict[str, Any]:
        """Return the content of an index, as :meth:`readable_entries` does its entries."""
        return self._readable(self._store.read(index_id), index_id)

    def _content(self, record: Record | None, index_id: str) -> dict[str, Any]:
        """Return the content of an index; an empty dict if there is none, or none that is still kept."""
        if record is None:
            return {}
        content, _ = self._config.codec.decode(record.raw)
        if is_over(content, self._config.clock()):
            return {}
        if content.get(ID, index_id) != index_id or not is_index({LOGINS: {}, **content}):
            raise DamagedRecordError("it is no index of a user's sessions", value=len(record.raw))
        return content

    def update(
        self,
        index_id: str,
        change: Callable[[Entries], bool],
        lasts: float | None = 0.0,
        *,
        user: str | None = None,
        must_be_readable: bool = False,
    ) -> float | None:
        """Change an index; where another process changes it meanwhile, again what that has made of it.

        An index without entries is deleted, and none is written where there was none.

        Args:
            index_id: the id of the index.
            change: changes its entries, and returns whether it did.
            lasts: seconds for which a session of it may last from now; None for one that does not expire.
            user: the user's id, for a login, which may be the first one.
            must_be_readable: whether a damaged one is an error, also where ``invalidate_corrupt`` is on.

        Returns:
            The time until which it is kept; None if for good.

        Raises:
            DamagedRecordError: it cannot be read.
            SessionConflictError: others changed it each time, for ``store_timeout`` seconds.
            SessionStoreError: the store cannot be reached.
        """
        record = self._store.read(index_id)
        until: float | None = None

        def update() -> bool:
            nonlocal record, until
            content = (self._content if must_be_readable else self._readable)(record, index_id)
            if not content and user is not None:
                content = self._begun(index_id, user)
            entries: Entries = content.setdefault(LOGINS, {})
            has_changed = change(entries)
            known = content.get(UNTIL, 0.0)
            until = content[UNTIL] = self._until(known, lasts)
            if not has_changed and (until == known or not entries):
                return True
            if self._config.options.encrypt_key:
                # Bind the ciphertext to its id, as a session's.
                content[ID] = index_id
            raw = self._config.codec.encode(content) if entries else None
            expires_in = None if until is None else max(until - self._config.clock(), 1.0)
            swap = self._store.swap(index_id, record, raw, expires_in)
            record = swap.found
            return swap.made

        self._retry(index_id, update)
        return until

    def _readable(self, record: Record | None, index_id: str) -> dict[str, Any]:
        """Return the content of an index, as :meth:`_content` does; of a damaged one none, if that may be ignored."""
        try:
            return self._content(record, index_id)
        except DamagedRecordError as error:
            if not self._config.options.invalidate_corrupt:
                raise
            message = "index %s: %s; the sessions that it listed can no longer be listed, nor revoked"
            log.warning(message, shown(index_id), error, extra=fields(store=self._store.kind, failure=error.failure))
            return {}

    def _begun(self, index_id: str, user: str) -> dict[str, Any]:
        now = in_milliseconds(self._config.clock())
        return {CREATED: now, ACCESSED: now, USER: self._hidden(user, index_id)}

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


def list_login(entries: Entries, login: Login, session_id: str, now: float) -> None:
    """Add an id to the entry of a login, which may be new."""
    entry = entries.setdefault(login.login, {"ids": [], "state": LIVE, "created": now, "note": None})
    if session_id not in entry["ids"]:
        entry["ids"].append(session_id)
    if login.note is not None:
        entry["note"] = login.note


def is_live(entry: Mapping[str, Any] | None) -> bool:
    """Say whether there is an entry, and it is not ending."""
    return entry is not None and entry["state"] == LIVE


def is_index(content: Mapping[str, Any]) -> bool:
    """Say whether a record lists logins, each in the form that :func:`list_login` gives it."""
    return LOGINS in content and all(map(_is_entry, content[LOGINS].items()))


def _is_entry(item: tuple[Any, Any]) -> bool:
    """Say whether an item of an index has the form that :func:`list_login` gives it: a store can hold anything."""
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


def endings_in(entries: Entries) -> list[Ending]:
    """Return the entries that are ending."""
    return [
        Ending(login, tuple(entry["ids"]), entry["state"]) for login, entry in entries.items() if entry["state"] != LIVE
    ]


def remove_logins(entries: Entries, logins: set[str]) -> bool:
    """Remove the entries of logins, and return whether there were any."""
    known = logins & entries.keys()
    for login in known:
        del entries[login]
    return bool(known)


def unite(entries: Entries, others: Entries) -> Entries:
    """Return the entries of two indexes of a user; what is in both has the ids of both, and ends if it does in one."""
    united = others | entries
    for login in entries.keys() & others.keys():
        both = entries[login], others[login]
        ids = dict.fromkeys(session_id for entry in both for session_id in entry["ids"])
        united[login] = {**next((entry for entry in both if not is_live(entry)), both[1]), "ids": [*ids]}
    return united
