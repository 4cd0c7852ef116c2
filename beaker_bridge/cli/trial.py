"""A record of the command's own in a site's store: written, read and removed, with whatever had to be made for it."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from beaker_bridge.cli.findings import WRONG, Finding
from beaker_bridge.exceptions import BeakerBridgeError
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.stores._breaker import ServerUnavailableError
from beaker_bridge.stores._directories import Directories
from beaker_bridge.stores._flock import SLOTS, guard_path
from beaker_bridge.stores.base import Record, Store
from beaker_bridge.stores.file import session_path

#: Seconds after which a server removes a record of ours, where this process was killed before it could.
EXPIRY = 300
#: The outcomes of a step that did not fail: done; or left out, for want of a record.
DONE, UNTRIED = "ok", "untried"


class Trial(NamedTuple):
    """The trial of a store."""

    #: The outcome of each step, by its name: :data:`DONE`, :data:`UNTRIED` or an error's text; empty if none was tried.
    steps: dict[str, str]
    #: The reason why a store was not tried.
    note: str = ""

    def text(self) -> str:
        """Return what the steps came to, in a line."""
        names: dict[str, list[str]] = {}
        for name, text in self.steps.items():
            names.setdefault(text if text in (DONE, UNTRIED) else "failed", []).append(name)
        return "; ".join([*(f"{', '.join(each)}: {how}" for how, each in names.items()), *filter(None, [self.note])])

    def findings(self) -> list[Finding]:
        """Return what is wrong with the store."""
        failed: dict[str, list[str]] = {}
        for name, text in self.steps.items():
            if text not in (DONE, UNTRIED):
                failed.setdefault(text, []).append(name)
        return [Finding(WRONG, "store", f"{', '.join(names)}: {text}") for text, names in failed.items()]


def try_store(config: SessionConfig) -> Trial:
    """Write, read, swap and delete one record in a site's store.

    Args:
        config: the configuration of the site's sessions.
    """
    store = config.store
    if store is None:
        return Trial({}, "sessions are in the cookie: there is no store")
    try:
        unmade = store.unmade()
        if unmade:
            return Trial({}, f"{unmade} is not there yet: the site's first request makes it, and nothing was tried")
        with own_record(store) as session_id:
            return Trial(dict(_steps(config, store, session_id)))
    except BeakerBridgeError as error:
        return Trial({"connect": str(error)})


def _steps(config: SessionConfig, store: Store, session_id: str) -> Iterator[tuple[str, str]]:
    now = int(config.clock())
    one, other = (config.codec.encode({"_creation_time": now, "_accessed_time": now + step}) for step in (0, 1))
    steps: dict[str, Callable[[], bool]] = {
        "write": lambda: store.swap(session_id, None, one, EXPIRY).made,
        "read": lambda: (found := store.read(session_id)) is not None and found.raw == one,
        "swap": lambda: store.swap(session_id, store.read(session_id) or Record(one), other, EXPIRY).made,
        "delete": lambda: store.swap(session_id, store.read(session_id) or Record(other), None).made,
    }
    is_written = True
    for name, step in steps.items():
        try:
            is_done = step()
        except ServerUnavailableError as error:
            yield name, str(error)
            return
        except BeakerBridgeError as error:
            # Go on: a user may lack several rights.
            is_written = is_written and name != "write"
            yield name, str(error)
            continue
        if is_done:
            yield name, DONE
        else:
            yield name, f"the store {store.kind} does not keep what is written" if is_written else UNTRIED


@contextmanager
def own_record(store: Store) -> Iterator[str]:
    """Yield an id that no session has; remove its record afterwards, and the directories that were made for it.

    As root, work as the owner of the store's directory: what root makes there, the site could not write.

    Args:
        store: the site's store.
    """
    directories: Directories | None = getattr(store, "_directories", None)
    with ExitStack() as after:
        session_id = secrets.token_hex(16)
        if directories is not None:
            after.enter_context(_as_owner(directories.records))
            session_id = _with_lock_file(directories.locks)
            after.callback(_remove_made, _missing(directories, session_id))
            after.callback(_remove_files, _folder(directories, session_id), session_id)
        after.callback(_remove_record, store, session_id)
        yield session_id


def _remove_record(store: Store, session_id: str) -> None:
    with suppress(BeakerBridgeError):
        found = store.read(session_id)
        if found is not None:
            store.swap(session_id, found, None)


# -- Stores in files ---------------------------------------------------------------------------------


def _with_lock_file(locks: str) -> str:
    """Return a new id, of those whose lock file is there already, if there is one."""
    ids = {
        guard_path(locks, session_id): session_id for session_id in (secrets.token_hex(16) for _ in range(16 * SLOTS))
    }
    return next((session_id for path, session_id in ids.items() if os.path.exists(path)), secrets.token_hex(16))


def _folder(directories: Directories, session_id: str) -> str:
    """Return the directory of a record's files."""
    return os.path.dirname(session_path(directories.records, session_id, ""))


def _remove_files(folder: str, session_id: str) -> None:
    """Remove the files of a record that was deleted: Beaker's own interface leaves empty ones of some dbm modules."""
    for path in glob.glob(f"{glob.escape(folder)}/{session_id}*"):
        os.unlink(path)


def _missing(directories: Directories, session_id: str) -> list[str]:
    """Return the directories that a record needs and that are not there, the innermost first."""
    innermost = (_folder(directories, session_id), directories.locks)
    missing: set[str] = set()
    for path in map(os.path.abspath, innermost):
        place = path
        while not os.path.lexists(place):
            missing.add(place)
            place = os.path.dirname(place)
    return sorted(missing, key=len, reverse=True)


def _remove_made(made: list[str]) -> None:
    """Remove directories that were made, with their lock files; not those that others use meanwhile."""
    for place in made:
        for folder, _folders, names in os.walk(place, topdown=False):
            with suppress(OSError):
                for name in names:
                    if name.endswith(".lock"):
                        os.unlink(os.path.join(folder, name))
                os.rmdir(folder)


def is_root() -> bool:
    """Say whether this process is root's; none is on Windows."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


@contextmanager
def _as_owner(path: str) -> Iterator[None]:
    """Work as the user that owns a directory, or the nearest one above it, if this process is root's."""
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not is_root():
        yield
        return
    owner, group = os.stat(place), os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
