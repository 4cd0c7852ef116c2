"""A session that belongs to a user: it enters the user's index before it is written, and leaves it at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beaker_bridge.record.fields import INDEX, LISTED, LOGIN
from beaker_bridge.session.base import new_id
from beaker_bridge.session.login import Login, new_login
from beaker_bridge.session.session import Session
from beaker_bridge.session.state import CHANGED, COOKIE, FORCED
from beaker_bridge.session.users import LOGOUT


class BoundSession(Session):
    """A stored session, with the steps that ``session/users.py`` asks of one that is bound to a user."""

    def bind(
        self, user_id: str | int, note: Mapping[str, Any] | None = None, limit: int | None = None, on_limit: str = "end"
    ) -> bool:
        users, metadata = self._users, self._metadata
        login = new_login(user_id, note, limit, on_limit, new_id())
        if users.keeps(login, metadata):
            login = login._replace(login=metadata[LOGIN])
        if login.refuses:
            users.refuse_over_limit(login, self._own_logins())
        state = self._state
        rotates = state.record is not None or state.detached
        self._become((state.rotated(new_id()) if rotates else state).asked(CHANGED | FORCED))
        self._plain, self._binding = None, login
        return rotates

    def unbind(self) -> None:
        self._binding = None
        if LOGIN in self._metadata:
            self._become(self._state.asked(CHANGED))
            self._leave(self._metadata)

    def _leave(self, metadata: dict[str, Any]) -> None:
        if LOGIN in metadata:
            self._leaving = metadata.pop(INDEX), metadata.pop(LOGIN)
            metadata.pop(LISTED, None)

    def _enter_index(self) -> bool:
        """List the session before it is written under an id that its user's index does not have.

        Returns:
            False if its login has ended meanwhile: then it is detached.
        """
        login: Login | None = self._binding
        metadata = self._metadata
        if login is not None:
            # Refuse what cannot be written before others end for it.
            self._serialized()
            listed = self._users.add(login, self.id, self._own_logins(), self._expires_in)
            if listed is None:
                return self._end_here()
            if metadata.get(LOGIN) != login.login:
                self._leave(metadata)
            metadata[INDEX], metadata[LOGIN], metadata[LISTED] = listed
            self._binding = None
            return True
        self._keep_listed()
        if self._state.record is not None:
            return True
        if self._users.add_id(metadata[INDEX], metadata[LOGIN], self.id, self._expires_in):
            return True
        return self._end_here()

    def _end_here(self) -> bool:
        """End what this request has of a login that was ended meanwhile, and detach."""
        for retired in self._state.retired:
            self._users.end_id(retired.id, self._metadata[INDEX], self._metadata[LOGIN], LOGOUT)
        self._detach()
        return False

    def _own_logins(self) -> frozenset[str | None]:
        """Return the logins that the session has, or leaves with this commit."""
        left = self._leaving[1] if self._leaving else None
        return frozenset([left, self._metadata.get(LOGIN), *map(self._login_of, self._state.retired)])

    def _keep_listed(self) -> None:
        """Keep the index for as long as the session may last, under the current secret."""
        metadata, lasts = self._metadata, self._expires_in
        if self._state.pending & COOKIE and self._config.options.previous_secrets:
            place = self._users.move(metadata[INDEX], metadata[LOGIN], lasts)
            if place is not None:
                self._leaving = metadata[INDEX], metadata[LOGIN]
                metadata[INDEX], _, metadata[LISTED] = place
        listed = metadata[LISTED]
        if listed is not None and (lasts is None or self._now + lasts > listed):
            metadata[LISTED] = self._users.keep(metadata[INDEX], lasts)

    def _leave_login(self) -> None:
        """End the login that the session had, once its record no longer names that."""
        place = self._metadata.get(INDEX), self._metadata.get(LOGIN)
        if self._leaving != place and not self._state.detached:
            assert self._leaving is not None
            index_id, login = self._leaving
            self._users.end(index_id, login.__eq__, LOGOUT)
            self._leaving = None
