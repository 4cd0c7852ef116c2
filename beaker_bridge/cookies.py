"""Our cookie: found in the header, verified, and written. Nobody else's value is ever parsed."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from webob.cookies import make_cookie

from beaker_bridge.settings import SessionOptions

#: Beaker's signature: HMAC-SHA1 in hexadecimal, before the value.
SIGNATURE_LENGTH = 40
#: What a browser must hold of a cookie: name, value and attributes (RFC 6265, 6.1), in bytes.
MAX_COOKIE_SIZE = 4096
#: Beaker's 'never': the last second that 32 bits hold.
NEVER = datetime.fromtimestamp(0x7FFFFFFF, timezone.utc)


def cookie_values(header: str, name: str) -> Iterator[str]:
    """Yield the value of each cookie of that name, in the order of the header.

    Args:
        header: the ``Cookie`` header, of whatever content.
        name: our cookie's name.
    """
    # Only pairs that start with our name are looked at: another application's JSON or illegal name
    # cannot hide ours, as it does from a parser of the whole header (python/cpython 86111).
    if name not in header:
        return
    for pair in header.split(";"):
        key, equals, value = pair.partition("=")
        if equals and key.strip() == name:
            yield value.strip().strip('"')


class Signer:
    """Beaker's signature of a cookie's value.

    Args:
        secrets: the current secret, then the retired ones; none at all for a value without signature.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secret.encode("utf-8") for secret in secrets)

    def sign(self, value: str) -> str:
        """Return the value with its signature before it."""
        return _signature(self._secrets[0], value) + value if self._secrets else value

    def verify(self, signed: str) -> tuple[str, bool] | None:
        """Return the value, and whether a retired secret signed it; nothing if none of them did."""
        if not self._secrets:
            return signed, False
        signature, value = signed[:SIGNATURE_LENGTH], signed[SIGNATURE_LENGTH:]
        if not signed.isascii() or not value:
            return None
        for secret in self._secrets:
            if hmac.compare_digest(_signature(secret, value), signature):
                return value, secret is not self._secrets[0]
        return None


def _signature(secret: bytes, value: str) -> str:
    return hmac.digest(secret, value.encode("utf-8"), "sha1").hex()


class CookieWriter:
    """Writes our cookie.

    Args:
        options: the option table.
    """

    def __init__(self, options: SessionOptions) -> None:
        self._options = options

    def write(
        self,
        value: str,
        *,
        https: bool,
        now: float,
        lifetime: int | None = None,
        domain: str | None = None,
        path: str | None = None,
    ) -> str:
        """Return the value of a ``Set-Cookie`` header.

        Args:
            value: the cookie's value, signed.
            https: whether the request came over https, for ``secure = auto``.
            now: the time, in seconds.
            lifetime: the cookie's lifetime in seconds, instead of the option's.
            domain: the cookie's domain, instead of the option's.
            path: the cookie's path, instead of the option's.
        """
        return self._cookie(value, self._max_age(now) if lifetime is None else lifetime, https, domain, path)

    def delete(self, *, https: bool, domain: str | None = None, path: str | None = None) -> str:
        """Return the value of a ``Set-Cookie`` header that makes the browser forget the cookie."""
        return self._cookie(None, 0, https, domain, path)

    def _cookie(self, value: str | None, max_age: int | None, https: bool, domain: str | None, path: str | None) -> str:
        options = self._options
        secure = https if options.secure == "auto" else options.secure
        cookie: Any = make_cookie(
            options.key,
            value,
            max_age=max_age,
            path=path or options.cookie_path,
            domain=domain or options.cookie_domain,
            secure=bool(secure),
            httponly=options.httponly,
            samesite=options.samesite,
        )
        return str(cookie)

    def _max_age(self, now: float) -> int | None:
        expires = self._options.cookie_expires
        if expires is True:
            return None
        if expires is False:
            expires = NEVER
        if isinstance(expires, datetime):
            # A datetime without a zone is UTC, as Beaker writes it.
            aware = expires if expires.tzinfo else expires.replace(tzinfo=timezone.utc)
            return max(0, int(aware.timestamp() - now))
        return int(expires)
