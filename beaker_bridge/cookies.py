"""Our cookie: found in the header, verified, and written. No other cookie's value is ever parsed."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from itertools import zip_longest

from webob.cookies import Morsel

from beaker_bridge.options.rules import COOKIE_PREFIXES
from beaker_bridge.options.table import SessionOptions

#: The length of Beaker's signature: HMAC-SHA1 in hexadecimal, before the value.
SIGNATURE_LENGTH = 40
#: The size of a cookie that each browser must store: name, value and attributes (RFC 6265, 6.1), in bytes.
MAX_COOKIE_SIZE = 4096
#: Beaker's 'never': the last second that 32 bits hold.
NEVER = 0x7FFFFFFF
#: The longest lifetime of a cookie that browsers keep, in seconds: 400 days.
LONGEST = 400 * 24 * 3600
#: The longest lifetime that is sent, in seconds.
MAX_LIFETIME = 0x7FFFFFFF
#: The domain of a cookie that is sent to its own host alone: it has no ``Domain`` attribute.
HOST_ONLY = ""

#: The white space of a header (RFC 6265). Python's own has more, such as the no-break space.
BLANK = " \t"
_QUOTED = r'"(?:[^"\\]|\\.?)*(?:"|\Z)'
#: The text between two commas outside quotes. An open quote goes up to the end.
_BETWEEN_COMMAS = re.compile(rf'(?:[^",]|{_QUOTED})+', re.DOTALL)
#: The beginning of another pair; a comma before ``=`` at the end of base64 begins none.
_NAME = r"[!#$%&'*+.:^_`|~0-9A-Za-z-]+"
_ANOTHER_PAIR = re.compile(rf"[{BLANK}]+{_NAME}=|{_NAME}=[^=]")

#: The form of any value that is not empty.
ANY_FORM = re.compile(r".+", re.DOTALL)


def cookie_values(header: str, name: str) -> list[str]:
    """Return the value of each cookie of that name, in the order of the header.

    Args:
        header: the ``Cookie`` header, of whatever content.
        name: our cookie's name.
    """
    # Look only at pairs that start with our name: another application's JSON or illegal name cannot hide ours, as it
    # does from a parser of the whole header (python/cpython 86111).
    values = []
    for pair in header.split(";"):
        key, equals, value = pair.partition("=")
        if equals and key.strip(BLANK) == name:
            values.append(value.strip(BLANK).strip('"'))
    return values


def joined_values(header: str, name: str) -> list[str]:
    """Return the value of each cookie of that name in lines that a server has joined with a comma.

    HTTP/2 may send each cookie on a line of its own (RFC 9113, 8.2.3), which servers should join with a semicolon.

    Args:
        header: the ``Cookie`` header, of whatever content.
        name: our cookie's name.
    """
    values = []
    for line in header.split(";"):
        # Skip commas in quotes, as in JSON: they are part of another application's value.
        pairs = _BETWEEN_COMMAS.findall(line)
        for pair, after in zip_longest(pairs, pairs[1:]):
            if after is None or _ANOTHER_PAIR.match(after):
                values += cookie_values(pair, name)
    return values


def _signature(key: hmac.HMAC, value: str) -> str:
    """Return the signature of a value under a key, in hexadecimal."""
    # Copy the HMAC, which saves hashing the key for each value.
    copy = key.copy()
    copy.update(value.encode("utf-8"))
    return copy.hexdigest()


class Signer:
    """The signature of a cookie's value: Beaker's, or one of the same form with another hash.

    Args:
        secrets: the current secret, then the retired ones; none at all for a value without signature.
        algorithms: the current hash, then the other ones that are accepted, as ``hashlib`` names them.
    """

    def __init__(self, secrets: Sequence[str], algorithms: Sequence[str] = ("sha1",)) -> None:
        keys = [hmac.new(secret.encode("utf-8"), digestmod=algorithm) for algorithm in algorithms for secret in secrets]
        #: The accepted keys, the current one first, each with the length of its signatures and whether it is retired.
        self._keys = [(key, 2 * key.digest_size, key is not keys[0]) for key in keys]

    @property
    def signs(self) -> bool:
        """Whether there is a secret, so that our values can be distinguished from others."""
        return bool(self._keys)

    def sign(self, value: str) -> str:
        """Return the value with its signature before it."""
        return _signature(self._keys[0][0], value) + value if self._keys else value

    def verify(self, signed: str) -> tuple[str, bool] | None:
        """Return the value, and whether it was signed under a retired key; None if it was under none."""
        return next(iter(self.verified([signed])), None)

    def verified(self, values: Iterable[str], form: re.Pattern[str] = ANY_FORM) -> list[tuple[str, bool]]:
        """Return what :meth:`verify` returns for each value that was signed under one of the keys.

        Args:
            values: the values, with their signatures.
            form: what a value must match as a whole to count.
        """
        if not self._keys:
            return [(value, False) for value in values if form.fullmatch(value)]
        found = []
        for signed in values:
            # Cut the value by each key's own signature length: however it is cut, what one hash has signed does not
            # verify under another.
            for key, length, is_retired in self._keys:
                value = signed[length:]
                if not (form.fullmatch(value) and signed.isascii()):
                    continue
                if hmac.compare_digest(_signature(key, value), signed[:length]):
                    found.append((value, is_retired))
                    break
        return found


def own_values(header: str, name: str, signer: Signer, form: re.Pattern[str] = ANY_FORM) -> list[tuple[str, bool]]:
    """Return the values of our cookie in a header, and whether each was signed under a retired key.

    Args:
        header: the ``Cookie`` header, of whatever content.
        name: our cookie's name.
        signer: verifies them.
        form: what a value must match as a whole to count.
    """
    found = signer.verified(cookie_values(header, name), form)
    # Split no line at commas for a prefixed name: a browser lets a neighbour set "a=b, __Host-sid=…".
    if found or "," not in header or name.lower().startswith(COOKIE_PREFIXES):
        return found
    return signer.verified(joined_values(header, name), form)


class CookieWriter:
    """Writes our cookie.

    Args:
        options: the option table.
        signer: signs its values.
    """

    def __init__(self, options: SessionOptions, signer: Signer) -> None:
        self._options = options
        self._signer = signer
        # Cache them: nearly all of an application's cookies have the same.
        self._attributes = lru_cache(maxsize=64)(self._attributes_of)

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
            value: the cookie's value, which is signed.
            https: whether the request came over https, for ``secure = auto``.
            now: the time, in seconds.
            lifetime: the cookie's lifetime in seconds, instead of the option's.
            domain: the cookie's domain, instead of the option's, or :data:`HOST_ONLY`.
            path: the cookie's path, instead of the option's.
        """
        value = self._signer.sign(value)
        max_age = self._max_age(now) if lifetime is None else lifetime
        if max_age is None:
            # Quote nothing: our values are hexadecimal digits or base64.
            return f"{self._options.key}={value}{self._attributes(https, domain, path)}"
        morsel = self._morsel(value, https, domain, path)
        _limit(morsel, min(max_age, MAX_LIFETIME), now)
        return self._text(morsel)

    def delete(self, *, https: bool, domain: str | None = None, path: str | None = None) -> str:
        """Return the value of a ``Set-Cookie`` header that makes the browser forget the cookie."""
        morsel = self._morsel("", https, domain, path)
        _limit(morsel, 0, 0)
        return self._text(morsel)

    def _attributes_of(self, https: bool, domain: str | None, path: str | None) -> str:
        return self._text(self._morsel("", https, domain, path)).removeprefix(f"{self._options.key}=")

    def _text(self, morsel: Morsel) -> str:
        # WebOb does not know this attribute.
        return f"{morsel}; Partitioned" if self._options.partitioned else str(morsel)

    def _morsel(self, value: str, https: bool, domain: str | None, path: str | None) -> Morsel:
        options = self._options
        # WebOb refuses a name with a colon.
        morsel = Morsel("_", value)
        morsel.name = options.key.encode("ascii")
        morsel.path = (path or options.cookie_path).encode("utf-8")
        domain = options.cookie_domain if domain is None else domain
        if domain:
            morsel.domain = domain.encode("utf-8")
        morsel.secure = https if options.secure == "auto" else options.secure
        morsel.httponly = options.httponly
        if options.samesite is not None:
            # WebOb takes no None.
            morsel.samesite = options.samesite
        return morsel

    def _max_age(self, now: float) -> int | None:
        expires = self._options.cookie_expires
        if expires is True:
            return None
        if expires is False:
            # Use Beaker's date, or 400 days when that is near or over.
            return max(int(NEVER - now), LONGEST)
        if isinstance(expires, datetime):
            # Take a datetime without a zone as UTC, as Beaker does.
            aware = expires if expires.tzinfo else expires.replace(tzinfo=timezone.utc)
            return max(0, int(aware.timestamp() - now))
        return int(expires)


def _limit(morsel: Morsel, max_age: int, now: float) -> None:
    """Limit a cookie's life to some seconds from now; ``expires`` is for old browsers."""
    # Avoid webob.cookies.make_cookie, which reads the clock itself, by a function that Python deprecates.
    morsel.max_age = max_age
    morsel.expires = datetime.fromtimestamp(now + max_age, timezone.utc)
