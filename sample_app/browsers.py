"""What a list of logins says of a browser: its name and system, as people know them, and where it is."""

from __future__ import annotations

from typing import Any

#: What a User-Agent contains, and the browser's name; the first one counts, since each poses as those below it.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
)
_SYSTEMS = (
    ("iPhone", "an iPhone"),
    ("iPad", "an iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "a Mac"),
    ("Linux", "Linux"),
)


def browser_name(user_agent: str) -> str:
    """Return what people call a browser, such as "Firefox on Windows".

    Args:
        user_agent: the ``User-Agent`` header, which may say anything.
    """
    browser = _first(_BROWSERS, user_agent) or "Another browser"
    system = _first(_SYSTEMS, user_agent)
    return f"{browser} on {system}" if system else browser


def _first(names: tuple[tuple[str, str], ...], user_agent: str) -> str | None:
    return next((name for mark, name in names if mark in user_agent), None)


def note_of(request: Any) -> dict[str, str]:
    """Return the note that a login is listed with: what the user will recognise it by.

    Args:
        request: the login's.
    """
    # The address that the server has seen: what a header says of it, anybody may have written.
    return {"browser": browser_name(request.user_agent or ""), "place": request.remote_addr or ""}
