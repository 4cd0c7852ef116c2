"""The move from pyramid_beaker: the changes for a site, option by option, and what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyramid.settings import aslist

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.reader import Given
from beaker_bridge.options.table import REGION_TABLE, SESSION_TABLE
from beaker_bridge.options.types import COOKIE, DATABASE, FALSE_WORDS, MEMORY, REDIS, TRUE_WORDS
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.site.find import Site

#: Regions' options that pyramid_beaker handed on from the options of all regions.
_INHERITED = frozenset({"data_dir", "lock_dir", "expire", "enabled", "key_length", "type", "url", "regions"})
_NOTHING = "nothing"
_INCLUDES = "pyramid.includes"


class Change(NamedTuple):
    """The change that the move makes to one option."""

    #: The option as it is written, or as it would be.
    option: str
    #: Where it is written; empty if it is not.
    written: str
    changes: str
    write: str
    #: Whether the site does not start before it is written.
    is_needed: bool = False

    @property
    def is_change(self) -> bool:
        """Whether anything changes."""
        return self.changes != _NOTHING


def changes(site: Site, notices: list[Any]) -> list[Change]:
    """Return what the move changes for each option of a site of pyramid_beaker's.

    Args:
        site: the site, with its old settings.
        notices: takes what the package logs meanwhile.
    """
    errors = _errors(site)
    said = [notice.getMessage() for notice in notices]
    found = [*_name(site), *_given(site, errors, said), *_missing(site), *_regions(site, errors, said)]
    # The rest is about options that are not there.
    labels = tuple(f"{change.option} " for change in found)
    rest = [
        text
        for text in (*said, *errors)
        if not text.startswith(labels) and not any(text in change.changes for change in found)
    ]
    return [*found, *(Change("", "", text, "correct it", text in errors) for text in rest)]


def _errors(site: Site) -> list[str]:
    """Return what the readers refuse."""
    found: list[str] = []
    readers: tuple[Callable[[], object], ...] = (lambda: _configured(site), lambda: site.regions)
    for read in readers:
        try:
            read()
        except SettingsError as error:
            found += map(str, error.errors)
    return found


def _configured(site: Site) -> None:
    """Do with the settings what the start of the application does, for its warnings."""
    if site.own_options is not None:
        SessionConfig(site.own_options)


# -- The name ----------------------------------------------------------------------------------------


def _name(site: Site) -> Iterator[Change]:
    if "pyramid_beaker" in aslist(site.settings.get(_INCLUDES) or ""):
        yield Change(_INCLUDES, "", "it names pyramid_beaker", "beaker_bridge in its place, and in your code", True)


# -- Options that are given --------------------------------------------------------------------------


def _given(site: Site, errors: list[str], notices: list[str]) -> Iterator[Change]:
    for name, option in site.own.given.items():
        origin = site.own.origins.get(name)
        written = f"[{origin.section}]" if origin else ""
        wrong = [text for text in errors if _is_about(text, option.label)]
        said = [text for text in notices if _is_about(text, option.label)]
        if wrong:
            yield Change(option.label, written, f"the site does not start: {'; '.join(wrong)}", "correct it", True)
            continue
        change, write = _changed(site, name, option)
        said = [*filter(None, [change]), *said]
        if said:
            yield Change(option.label, written, "; ".join(said), write or ("" if change else "correct it"))
        else:
            yield Change(option.label, written, _NOTHING, "")


def _changed(site: Site, name: str, option: Given) -> tuple[str, str]:
    """Return what changes for the value of an option, and what to write; empty texts for nothing."""
    change = _CHANGED.get("sa_opts" if name.startswith("sa.") else name)
    return (change(site, option) if change else None) or ("", "")


def _is_about(text: str, label: str) -> bool:
    return text.startswith(f"{label} ")


def _serializer(site: Site, option: Given) -> tuple[str, str] | None:
    return _pickled(site, option.label) if option.value == "pickle" else None


def _pickled(site: Site, label: str) -> tuple[str, str]:
    """Return what becomes of a site whose sessions are pickles."""
    given = site.own.given.get("type")
    if given is not None and given.value == COOKIE:
        change = "sessions in cookies are pickles, and JSON cannot read those"
        return change, f"{label} = pickle to keep them, or json and another key: everybody logs in again, once"
    return (
        "sessions are pickles",
        f"{label} = pickle at first; then go on step by step: documentation, 'From pyramid_beaker'",
    )


def _boolean(_site: Site, option: Given) -> tuple[str, str] | None:
    is_false = isinstance(option.value, str) and option.value.strip().lower() in FALSE_WORDS
    return (
        ("it was true, since Beaker takes each text for true; now it is false", "true, to keep it")
        if is_false
        else None
    )


def _cookie_expires(_site: Site, option: Given) -> tuple[str, str] | None:
    word = str(option.value).strip().lower()
    if word in FALSE_WORDS - {"0"}:
        return "the cookie lasts until 2038-01-19, but 400 days from now at least", ""
    if word in TRUE_WORDS | {"0"}:
        return None
    return "the cookie is renewed while it is used; it used to end that long after it was made", ""


def _timeout(_site: Site, _option: Given) -> tuple[str, str]:
    return "the access time is saved at most every tenth of it, not with each request", "reissue_time, for another time"


def _login(site: Site, _option: Given) -> tuple[str, str] | None:
    return (
        ("Beaker ignored it; now it counts, where url has none", "remove it if it is wrong")
        if _type(site) == REDIS
        else None
    )


def _engine(site: Site, _option: Given) -> tuple[str, str] | None:
    return (
        ("Beaker ignored sa.* options; now they count", "remove it if it is wrong") if _type(site) == DATABASE else None
    )


def _encrypt_key(site: Site, _option: Given) -> tuple[str, str]:
    change = "without a cipher the site does not start; Beaker stored plain text then"
    if _type(site) == COOKIE:
        change += "; what is encrypted is not compressed any more, so that less fits into a cookie"
    return change, "pip install 'beaker_bridge[crypto]'"


def _directory(_site: Site, _option: Given) -> tuple[str, str]:
    return "a directory that cannot be made or written stops the start", ""


def _type(site: Site) -> str:
    given = site.own.given.get("type")
    return str(given.value) if given is not None else MEMORY


#: The functions that say how the move changes an option's value; the other options keep theirs.
_CHANGED: dict[str, Callable[[Site, Given], tuple[str, str] | None]] = {
    "data_serializer": _serializer,
    "use_cookies": _boolean,
    "invalidate_corrupt": _boolean,
    "cookie_expires": _cookie_expires,
    "timeout": _timeout,
    "username": _login,
    "password": _login,
    "encrypt_key": _encrypt_key,
    "sa_opts": _engine,
    **dict.fromkeys(("data_dir", "file_dir", "dbm_dir", "lock_dir"), _directory),
}


# -- Options that are not given ----------------------------------------------------------------------


def _missing(site: Site) -> Iterator[Change]:
    """Yield what other defaults change."""
    given = site.own.given
    if not given:
        change = "sessions are in memory; with several processes the site's first request that needs one fails"
        yield Change("session.type", "", change, "session.type and session.secret")
        return
    prefix = next(iter(given.values())).label.removesuffix(next(iter(given)))
    label = prefix + "data_serializer"
    if "data_serializer" not in given:
        yield Change(label, "", *_pickled(site, label))
    for name, change, write in _DEFAULTS:
        if name not in given:
            yield Change(prefix + name, "", change, write.format(prefix=prefix))
    if SESSION_TABLE.counts("purge_every", _type(site)):
        change = "new: expired sessions can be removed from the store, which kept them"
        yield Change(f"{prefix}purge_every", "", change, f"{prefix}purge_every = 3600, or cron and beaker-bridge purge")


#: Defaults that are others than pyramid_beaker's.
_DEFAULTS = (
    ("httponly", "it is true, and was false", "{prefix}httponly = false, if a script of yours reads the cookie"),
    ("secure", "it is auto, and was false: Secure is set where the request came over https", ""),
    (
        "invalidate_corrupt",
        "it is true: a damaged record is a new session",
        "{prefix}invalidate_corrupt = false, to raise",
    ),
    ("secret", "the same; but set it: then cookies are signed", "{prefix}secret = a long random text"),
    (
        "key",
        "the same; but another application with Beaker's own name logs users out",
        "{prefix}key = a name of its own",
    ),
)


# -- Regions -----------------------------------------------------------------------------------------


def _regions(site: Site, errors: list[str], notices: list[str]) -> Iterator[Change]:
    for label in site.settings:
        name, prefix = REGION_TABLE.parted(label)
        if not prefix:
            continue
        about = [text for text in (*errors, *notices) if _names(text, label)]
        is_needed = any(_names(text, label) for text in errors)
        if about:
            yield Change(label, "", "; ".join(about), "correct it", is_needed)
        elif "." not in name and name not in _INHERITED:
            yield Change(
                label, "", "it counts for each region; pyramid_beaker ignored it here", "remove it if it is wrong"
            )
        else:
            yield Change(label, "", _NOTHING, "")


def _names(text: str, label: str) -> bool:
    """Return whether a text is about an option, or about several with that one among them."""
    return label in text.partition(":")[0].replace(",", " ").split()
