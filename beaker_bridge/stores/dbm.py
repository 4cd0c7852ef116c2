"""Sessions in dbm files, one each, where Beaker keeps them.

What makes a swap whole depends on the dbm module. Beside these two kinds of files, with another module
(``dbm.sqlite3``, an ``ndbm`` that makes two files), sessions go through Beaker's own interface.
"""

from __future__ import annotations

import dbm
import errno
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from beaker._compat import anydbm
from beaker.synchronization import file_synchronizer

from beaker_bridge.options.table import SessionOptions
from beaker_bridge.record.envelope import PickledEnvelope
from beaker_bridge.stores._directories import Directories
from beaker_bridge.stores.base import ID_FORM, RECORD_FORM, Record, Store
from beaker_bridge.stores.beaker import BeakerStore
from beaker_bridge.stores.file import TEMPORARY, DirectoryStore, remove_old, replace, session_path

_KEY = "session"
#: The block size of ``dbm.dumb``, in bytes: Beaker's own writes there expect values on its bounds.
_BLOCK = 512
#: The numbers of a dbm module's errors about the content of a file. Others are about the machine.
_DAMAGED = frozenset({None, 0, errno.EINVAL})


def open_dbm(options: SessionOptions) -> Store:
    """Return the store of dbm sessions for the module that the options name.

    Args:
        options: the option table.
    """
    module = options.dbmmodule or default_module(anydbm)
    name = getattr(module, "__name__", "")
    if name == "dbm.dumb":
        return DbmStore(options, _DumbFormat())
    # GNU's ndbm makes two files, which no one rename replaces.
    if name in {"dbm.gnu", "_gdbm"} or (name in {"dbm.ndbm", "_dbm"} and module.library != "GNU gdbm"):
        return DbmStore(options, _SingleFileFormat(module))
    return _OtherDbmStore(options)


def default_module(beakers: Any) -> Any:
    """Return the dbm module of sessions for which no option names one.

    Args:
        beakers: Beaker's. Before Beaker 1.14 that is the package ``dbm``, whose first choice is the same.
    """
    if beakers is not dbm:
        return beakers
    for name in ("dbm.gnu", "dbm.ndbm"):
        with suppress(ImportError):
            return import_module(name)
    return import_module("dbm.dumb")


def _directories(options: SessionOptions) -> Directories:
    return Directories(options, "dbm_dir", "container_dbm")


class _Format(ABC):
    """The files of a dbm module."""

    #: The ends of the names of the files by which a database exists, after its path.
    marks: ClassVar[frozenset[str]]
    #: The ends of the names of files that a killed writer may leave without these: no database yet, or no more.
    leftovers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return the session's value; what cannot be read as the module's files is the damaged value."""

    @abstractmethod
    def write(self, path: str, raw: bytes) -> None:
        """Replace the session's value: readers see the old one or the new one."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove the database."""

    def exists(self, path: str) -> bool:
        """Say whether there is a database."""
        return any(os.path.exists(path + mark) for mark in self.marks)


class DbmStore(DirectoryStore):
    """Beaker's ``dbm``, with ``dbm.dumb`` (``.dat`` and ``.dir``) or a module that makes one file.

    Args:
        options: the option table.
        files: the module's files.
    """

    kind = "dbm"
    envelope = PickledEnvelope
    suffix = ".dbm"

    def __init__(self, options: SessionOptions, files: _Format) -> None:
        super().__init__(options, _directories(options))
        self._format = files

    def read(self, session_id: str) -> Record | None:
        try:
            raw = self._format.read(self._path(session_id))
        except OSError as error:
            raise self._unreachable(error) from error
        return None if raw is None else Record(raw)

    def ids(self, form: re.Pattern[str] = ID_FORM) -> Iterator[str]:
        for session_id, rest in self._parts(form):
            if rest in self._format.marks:
                yield session_id

    def sweep(self, before: float, *, dry_run: bool = False) -> int:
        removed = super().sweep(before, dry_run=dry_run)
        for session_id, rest in self._parts(RECORD_FORM):
            if rest in self._format.leftovers and not self._format.exists(self._path(session_id)):
                removed += self._removed(self._swept, session_id, rest, before, dry_run=dry_run)
        return removed

    def _swept(self, session_id: str, rest: str, before: float, *, dry_run: bool) -> int:
        with self._guard(session_id):
            # Look again: a writer may have come first.
            path = self._path(session_id)
            return 0 if self._format.exists(path) else remove_old(path + rest, before, dry_run=dry_run)

    def _parts(self, form: re.Pattern[str]) -> Iterator[tuple[str, str]]:
        """Yield the id, and what follows the database's path, in the name of each record's file."""
        for _folder, name in self._files():
            session_id, _suffix, rest = name.partition(self.suffix)
            if form.fullmatch(session_id):
                yield session_id, rest

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        self._format.write(self._path(session_id), raw)

    def _remove(self, session_id: str) -> None:
        self._format.remove(self._path(session_id))
        self._locks.remove_beakers(session_id)


class _SingleFileFormat(_Format):
    """A dbm module that keeps each database in one file (gdbm; ndbm's ``.db``): replaced by a rename.

    Args:
        module: the module.
    """

    marks = frozenset({"", ".db"})

    def __init__(self, module: Any) -> None:
        self._module = module

    def read(self, path: str) -> bytes | None:
        try:
            with self._module.open(path, "r") as database:
                return database.get(_KEY.encode("ascii"))  # type: ignore[no-any-return]
        except self._module.error as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno not in _DAMAGED:
                raise
        return b"".join(Path(file).read_bytes() for file in _files(path))

    def write(self, path: str, raw: bytes) -> None:
        temporary = f"{path}.{secrets.token_hex(8)}{TEMPORARY}"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._module.open(temporary, "n") as database:
                database[_KEY] = raw
            for made in _files(temporary):
                os.replace(made, path + made.removeprefix(temporary))
        except BaseException:
            for made in _files(temporary):
                os.unlink(made)
            raise

    def remove(self, path: str) -> None:
        for file in _files(path):
            os.unlink(file)


def _files(path: str) -> list[str]:
    """Return the files that a dbm module made for a path: itself, or with a suffix of its own."""
    return [file for file in (path, path + ".db") if os.path.exists(file)]


class _DumbFormat(_Format):
    """``dbm.dumb``: ``.dir`` says where in ``.dat`` the value is. Two files cannot be replaced by one
    rename, so a value is written where ``.dir`` does not point, and a new ``.dir`` is renamed there.
    """

    marks = frozenset({".dir"})
    leftovers = frozenset({".dat", ".bak"})

    def read(self, path: str) -> bytes | None:
        while True:
            try:
                with open(path + ".dir", "rb", buffering=0) as directory:
                    raw = self._value(path, directory.read())
                    # Compare inodes: if the name still leads to the open file, no writer has replaced it, and so
                    # none has written over the value meanwhile.
                    if os.stat(path + ".dir").st_ino == os.fstat(directory.fileno()).st_ino:
                        return raw
            except FileNotFoundError:
                return None

    def write(self, path: str, raw: bytes) -> None:
        position = self._free(path, len(raw))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path + ".dat", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb", buffering=0) as data:
            data.seek(position)
            _write_all(data.write, raw)
        replace(path + ".dir", f"{_KEY!r}, ({position}, {len(raw)})\n".encode("ascii"))

    def remove(self, path: str) -> None:
        # Remove the directory first: without it there is no record, whatever the data are.
        for suffix in (".dir", ".dat", ".bak"):
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)

    def _value(self, path: str, directory: bytes) -> bytes | None:
        try:
            place = _place(directory)
        except ValueError:
            return directory
        if place is None:
            return None
        position, size = place
        try:
            with open(path + ".dat", "rb", buffering=0) as data:
                data.seek(position)
                # Read no more than the file holds: a damaged size may be beyond any memory.
                return data.read(min(size, os.fstat(data.fileno()).st_size))
        except FileNotFoundError:
            # Gone with .dir, as the caller sees; or the record has lost it.
            return b""

    def _free(self, path: str, size: int) -> int:
        """Return the first block where a value fits without touching the current one."""
        # Nothing to spare where .dir is damaged: the value that it led to cannot be found again.
        with suppress(FileNotFoundError, ValueError):
            place = _place(Path(path + ".dir").read_bytes())
            if place is not None and size > place[0]:
                return -(-(place[0] + place[1]) // _BLOCK) * _BLOCK
        return 0


_LINE = re.compile(rb"""(?P<key>'.*'|".*"), \((?P<position>[0-9]{1,15}), (?P<size>[0-9]{1,15})\)""")


def _place(directory: bytes) -> tuple[int, int] | None:
    """Return position and size of the session's value, as the lines of a ``.dir`` file say.

    Raises:
        ValueError: they are not lines of a ``.dir`` file.
    """
    place = None
    for line in directory.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"a line of {len(line)} bytes is not dbm.dumb's")
        if match["key"] == repr(_KEY).encode("ascii"):
            place = int(match["position"]), int(match["size"])
    return place


def _write_all(write: Callable[[memoryview], int], content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[write(view) :]


class _OtherDbmStore(BeakerStore):
    """Beaker's ``dbm`` with another module, of which we do not know what makes a write whole.

    Beaker's namespace makes an empty database when it is constructed, and takes no lock for that: here
    it is constructed under its lock, and for a reader only where there is a database.

    Args:
        options: the option table.
    """

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options)
        self._directories = _directories(options)
        self._root = self._directories.records
        self._lock_dir = self._directories.locks

    def read(self, session_id: str) -> Record | None:
        lock = self._synchronizer(session_id)
        with self._translated():
            lock.acquire_read_lock()
            try:
                path = session_path(self._root, session_id, DbmStore.suffix)
                if any(os.path.exists(path + rest) for rest in ("", ".db", ".dat", ".dir", ".pag")):
                    return super().read(session_id)
                return None
            finally:
                lock.release_read_lock()

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        lock = self._synchronizer(session_id)
        lock.acquire_write_lock()
        try:
            super()._write(session_id, raw, expires_in)
        finally:
            lock.release_write_lock()

    def _concerned(self, error: Exception) -> str:
        return self._directories.concerned(error)

    def _creation_lock(self, session_id: str, key: str) -> Any:
        return self._synchronizer(f"dbmcontainer/funclock/{session_id}/{key}")

    def _synchronizer(self, identifier: str) -> Any:
        # Use the namespace's own object, which its thread may acquire again.
        return file_synchronizer(identifier, lock_dir=self._lock_dir)
