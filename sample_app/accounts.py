"""The passwords of the sample's users, in the memory of its process: a site of yours has them in its database."""

from __future__ import annotations

import hashlib
import hmac
import secrets

#: The shortest and the longest password, in characters.
PASSWORD_SIZES = (8, 200)
#: What a guess costs: about 16 MiB, and a twentieth of a second.
_COST = {"n": 2**14, "r": 8, "p": 1}


class Accounts:
    """The users who have set a password; all other names are open to anybody."""

    def __init__(self) -> None:
        self._hashes: dict[str, tuple[bytes, bytes]] = {}

    def has_password(self, name: str) -> bool:
        """Say whether a user has set a password."""
        return name in self._hashes

    def admits(self, name: str, password: str) -> bool:
        """Say whether this password opens the account of a user."""
        if name not in self._hashes:
            return True
        salt, expected = self._hashes[name]
        return hmac.compare_digest(_hash(password, salt), expected)

    def set_password(self, name: str, password: str) -> None:
        """Set a user's password, in place of an earlier one."""
        salt = secrets.token_bytes(16)
        self._hashes[name] = salt, _hash(password, salt)


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, **_COST)
