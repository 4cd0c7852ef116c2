"""Sessions in files, one each, where Beaker keeps them. A reader always finds a complete file."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import groupby
from typing import Any, ClassVar

from beaker_bridge.exceptions import SessionStoreError
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import NamespaceEnvelope
from beaker_bridge.stores._directories import Directories
from beaker_bridge.stores._flock import FileLocks, LockTimeoutError, remove_unheld
from beaker_bridge.stores.base import ID_FORM, LockingStore, Record, Swap, leave_out, lock_timed_out, unreachable

#: The size of one read, in bytes.
_CHUNK = 1 << 16
#: Keeps Windows from translating line ends.
_BINARY = getattr(os, "O_BINARY", 0)
#: The end of a file's name while it is written; a purge removes those that killed processes have left.
TEMPORARY = ".bridge-tmp"
#: The end of the name of a file that Beaker writes, behind that of the session's file.
_BEAKERS_TEMPORARY = ".temp"
#: The ends of the names of a database's files, behind its path, where Beaker has a cache's namespace in one.
_CACHES = ("", ".db", ".dat", ".dir", ".pag")


class DirectoryStore(LockingStore):
    """The base of file and dbm stores: directories, locks, and files that are replaced by a rename.

    Args:
        options: the option table.
        directories: the directories of the sessions' files, and of the lock files.
    """

    #: The end of a file's name, after the id.
    suffix: ClassVar[str]

    def __init__(self, options: SessionOptions, directories: Directories) -> None:
        self._directories = directories
        self._root = directories.records
        self._locks = FileLocks(directories.locks)
        self._timeout = options.store_timeout
        self._clock: Callable[[], float] = options.clock or time.time

    @contextmanager
    def lock(self, session_id: str, timeout: float) -> Iterator[None]:
        with ExitStack() as held:
            # Translate the errors of the lock only, not those of the caller's block.
            with self._translated():
                try:
                    held.enter_context(self._locks.queue(session_id, timeout))
                except LockTimeoutError:
                    raise lock_timed_out(self.kind, timeout) from None
            yield

    def ids(self, form: re.Pattern[str] = ID_FORM) -> Iterator[str]:
        for _folder, name in self._files():
            session_id = name.removesuffix(self.suffix)
            # Leave out the files of Beaker's cache regions, which may be in the same directories.
            if name.endswith(self.suffix) and form.fullmatch(session_id):
                yield session_id

    def delete(self, records: Sequence[tuple[str, Record]]) -> int:
        deleted = 0
        # Take each lock once for the records that share it.
        for _, group in groupby(sorted(records, key=self._slot_of), self._slot_of):
            found = dict(group)
            try:
                with self._locks.guarding([*found], self._timeout) as free:
                    for record_id in free:
                        deleted += self._deleted_here(record_id, found[record_id])
                        del found[record_id]
            except (LockTimeoutError, OSError, SessionStoreError):
                # Delete the others one by one, and report what cannot be deleted.
                deleted += super().delete([*found.items()])
        return deleted

    def _slot_of(self, record: tuple[str, Record]) -> int:
        return self._locks.slot(record[0])

    def _deleted_here(self, record_id: str, record: Record) -> bool:
        """Delete a record if it still is what was read; the caller holds its locks."""
        if self.read(record_id) != record:
            return False
        self._remove(record_id)
        return True

    def sweep(self, before: float, *, dry_run: bool = False) -> int:
        removed = 0
        for folder, name in self._files():
            if TEMPORARY in name or self._is_beakers_temporary(name):
                removed += self._removed(remove_old, os.path.join(folder, name), before, dry_run=dry_run)
        for path in self._dead_locks(before):
            removed += self._removed(self._swept_lock, path, dry_run=dry_run)
        return removed

    def _is_beakers_temporary(self, name: str) -> bool:
        record_id, suffix, rest = name.partition(self.suffix)
        return rest == _BEAKERS_TEMPORARY and bool(suffix and ID_FORM.fullmatch(record_id))

    def _dead_locks(self, before: float) -> Iterator[str]:
        """Yield the paths of old lock files of Beaker's without a session, or a namespace of a cache.

        A file that belongs to one is kept even if nobody holds it: a process of Beaker's may have opened it just now.
        """
        with self._translated():
            live: list[array[int]] = []
            for path in self._locks.beakers_before(before):
                # Keep what is compared small: eight bytes of each digest, by the first one.
                live = live or self._digests()
                digest = os.path.basename(path).removesuffix(".lock")
                if _shortened(bytes.fromhex(digest)) not in live[int(digest[:2], 16)] and not self._is_cache(digest):
                    yield path

    def _digests(self) -> list[array[int]]:
        digests = [array("Q") for _ in range(256)]
        for session_id in self.ids():
            digest = hashlib.sha1(session_id.encode("ascii"), usedforsecurity=False).digest()
            digests[digest[0]].append(_shortened(digest))
        return digests

    def _is_cache(self, digest: str) -> bool:
        """Say whether the namespace of a cache region has a digest."""
        return any(os.path.exists(session_path(self._root, digest, self.suffix) + rest) for rest in _CACHES)

    def _swept_lock(self, path: str, *, dry_run: bool) -> int:
        try:
            return remove_unheld(path, dry_run=dry_run)
        except LockTimeoutError:
            return 0

    @contextmanager
    def purge_turn(self, every: float) -> Iterator[bool]:
        with self._translated(), self._locks.purge_turn(every, self._clock()) as is_due:
            yield is_due

    def _files(self) -> Iterator[tuple[str, str]]:
        """Yield the directory and the name of each file."""
        with self._translated():
            for folder, _folders, names in os.walk(self._root, onerror=self._leave_out):
                for name in names:
                    yield folder, name

    def _removed(self, remove: Callable[..., int], *what: Any, **how: Any) -> int:
        """Return the number of files that a function removed; 0 if it could not, so that one file ends no purge."""
        try:
            return remove(*what, **how)
        except (LockTimeoutError, OSError) as error:
            self._leave_out(error)
            return 0

    def _leave_out(self, error: OSError | LockTimeoutError) -> None:
        """Go on without a file or a directory; raise if it is the directory that has all of them."""
        if isinstance(error, FileNotFoundError):
            return
        if isinstance(error, OSError) and error.filename == self._root:
            raise error
        leave_out(self._unreachable(error))

    def swap(self, session_id: str, record: Record | None, new: bytes | None, expires_in: float | None = None) -> Swap:
        try:
            return super().swap(session_id, record, new, expires_in)
        except (LockTimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    def _guard(self, session_id: str) -> AbstractContextManager[None]:
        return self._locks.guard(session_id, self._timeout)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (LockTimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> SessionStoreError:
        return unreachable(self.kind, error, concerned=self._directories.concerned(error))

    def _path(self, session_id: str) -> str:
        return session_path(self._root, session_id, self.suffix)


def _shortened(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def session_path(root: str, session_id: str, suffix: str) -> str:
    """Return the path of a session's file, as Beaker's ``encoded_path`` has it, without a digest."""
    return f"{root}/{session_id[:1]}/{session_id[:2]}/{session_id}{suffix}"


def remove_old(path: str, before: float, *, dry_run: bool = False) -> int:
    """Remove a file that was last written before a time, and return how many that were.

    Args:
        path: the file.
        before: the time, in seconds since the epoch.
        dry_run: whether to leave it, and only count.
    """
    with suppress(FileNotFoundError):
        if os.stat(path).st_mtime < before:
            if not dry_run:
                os.unlink(path)
            return 1
    return 0


def replace(path: str, content: bytes) -> None:
    """Write a complete file: readers see the old one or the new one."""
    temporary = f"{path}.{secrets.token_hex(8)}{TEMPORARY}"
    try:
        descriptor = _created(temporary)
        try:
            while content:
                content = content[os.write(descriptor, content) :]
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _created(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, flags, 0o666)


def content_of(path: str) -> bytes:
    """Return the bytes of a file, without ``open()``, which takes as long again as reading the file."""
    descriptor = os.open(path, os.O_RDONLY | _BINARY)
    try:
        content = chunk = os.read(descriptor, _CHUNK)
        while len(chunk) == _CHUNK:
            chunk = os.read(descriptor, _CHUNK)
            content += chunk
        return content
    finally:
        os.close(descriptor)


class FileStore(DirectoryStore):
    """Beaker's ``file``.

    Args:
        options: the option table.
    """

    kind = "file"
    envelope = NamespaceEnvelope
    suffix = ".cache"

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options, Directories(options, "file_dir", "container_file"))

    def read(self, session_id: str) -> Record | None:
        try:
            return Record(content_of(self._path(session_id)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreachable(error) from error

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        replace(self._path(session_id), raw)

    def _remove(self, session_id: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path(session_id))
        self._locks.remove_beakers(session_id)
