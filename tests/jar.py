"""How a browser keeps cookies: by name, domain and path (RFC 6265, 5.3 and 5.4)."""

from __future__ import annotations

from typing import NamedTuple


class Kept(NamedTuple):
    """One cookie of a browser."""

    value: str
    is_host_only: bool
    created: int


class Jar:
    """The cookies of one browser.

    Args:
        tells_hosts_apart: whether a cookie of a host alone and one of the domain of that name are two, as browsers
            have it today (RFC 6265bis, 5.7), or one, as RFC 6265 itself has it.
    """

    def __init__(self, *, tells_hosts_apart: bool = True) -> None:
        self.cookies: dict[tuple[str, str, str, bool], Kept] = {}
        self._tells_hosts_apart = tells_hosts_apart
        self._made = 0

    def receive(self, host: str, set_cookie: str) -> None:
        """Keep, replace or delete the cookie of a ``Set-Cookie`` header that a host has sent."""
        (name, value), *pairs = (part.partition("=")[::2] for part in set_cookie.split("; "))
        attributes = {key.lower(): text for key, text in pairs}
        domain = attributes.get("domain", "").lstrip(".").lower()
        assert not domain or host == domain or host.endswith(f".{domain}"), "a browser takes no other site's domain"
        key = name, domain or host, attributes["path"], self._tells_hosts_apart and not domain
        before = self.cookies.get(key)
        if attributes.get("max-age") == "0":
            self.cookies.pop(key, None)
        else:
            # One that is replaced keeps its place in the order.
            self._made += 1
            self.cookies[key] = Kept(value, not domain, before.created if before else self._made)

    def header(self, host: str, path: str) -> str:
        """Return the ``Cookie`` header of a request: longer paths first, then older cookies."""
        sent = [
            (-len(of_path), kept.created, f"{name}={kept.value}")
            for (name, domain, of_path, _), kept in self.cookies.items()
            if (host == domain or (host.endswith(f".{domain}") and not kept.is_host_only)) and _leads(of_path, path)
        ]
        return "; ".join(pair for _, _, pair in sorted(sent))


def _leads(of_path: str, path: str) -> bool:
    return path == of_path or path.startswith(of_path.rstrip("/") + "/")
