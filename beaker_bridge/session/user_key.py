"""The ids of users' indexes, and the handles that hide a user's id: derived from ``secret``. No store."""

from __future__ import annotations

import hashlib
import hmac
import re
from contextlib import suppress

#: The form of a handle: the login, and the user's id in a form that only the secret opens.
HANDLE = re.compile(r"([0-9a-f]{32})((?:[0-9a-f]{2})+)")


class UserKey:
    """The keys derived from one ``secret``: the ids of indexes, and a mask for what only the secret opens."""

    def __init__(self, secret: str) -> None:
        secret_bytes = secret.encode("utf-8")
        self._index = hmac.new(secret_bytes, b"beaker_bridge: the index of a user", hashlib.sha256).digest()
        self._mask = hmac.new(secret_bytes, b"beaker_bridge: what a handle hides", hashlib.sha256).digest()

    def index_of(self, user: str) -> str:
        """Return the id of a user's index. It cannot be guessed: Beaker's own processes would open it as a session."""
        return "u" + hmac.new(self._index, user.encode("utf-8"), hashlib.sha256).hexdigest()

    def handle_of(self, login: str, user: str) -> str:
        """Return the handle of a login."""
        return login + self._masked(login, user.encode("utf-8")).hex()

    def user_in_handle(self, handle: re.Match[str]) -> str | None:
        """Return the user's id that a handle holds; if it was made under another key, None or any text."""
        with suppress(ValueError):
            return self._masked(handle[1], bytes.fromhex(handle[2])).decode("utf-8")
        return None

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
