"""Sessions in dbm files, one each, where Beaker keeps them."""

from __future__ import annotations

import ast
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from beaker._compat import anydbm

from beaker_bridge.serializers import PickledEnvelope
from beaker_bridge.settings import SessionOptions
from beaker_bridge.stores.base import Record, unreachable
from beaker_bridge.stores.file import TEMPORARY, DirectoryStore, replace

_KEY = "session"
#: The block size of ``dbm.dumb``, in bytes: Beaker's own writes there expect values on its bounds.
_BLOCK = 512


class DbmStore(DirectoryStore):
    """Beaker's ``dbm``, with ``dbm.dumb`` (``.dat`` and ``.dir``) or a module that makes one file.

    Args:
        options: the option table.
    """

    kind = "dbm"
    envelope = PickledEnvelope
    suffix = ".dbm"

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(
            options.dbm_dir or f"{options.data_dir}/container_dbm",
            options.lock_dir or f"{options.data_dir}/container_dbm_lock",
            options.store_timeout,
        )
        module = options.dbmmodule or anydbm
        self._format = _DumbFormat() if module.__name__ == "dbm.dumb" else _SingleFileFormat(module)

    def read(self, session_id: str) -> Record | None:
        try:
            raw = self._format.read(self._path(session_id))
        except OSError as error:
            raise unreachable(self.kind, error) from error
        return None if raw is None else Record(raw)

    def ids(self) -> Any:
        seen = set()
        for name in self._names():
            session_id, dbm, _rest = name.partition(self.suffix)
            if dbm and TEMPORARY not in name and session_id not in seen:
                seen.add(session_id)
                yield session_id

    def _write(self, session_id: str, raw: bytes, expires_in: float | None) -> None:
        self._format.write(self._path(session_id), raw)

    def _remove(self, session_id: str) -> None:
        self._format.remove(self._path(session_id))


class _SingleFileFormat:
    """A dbm module that keeps each database in one file (gdbm; ndbm's ``.db``): replaced by a rename."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def read(self, path: str) -> bytes | None:
        try:
            with self._module.open(path, "r") as database:
                return database.get(_KEY.encode("ascii"))  # type: ignore[no-any-return]
        except self._module.error as error:
            if _files(path):
                raise OSError(f"{path} cannot be opened: {error}") from error
            return None

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


class _DumbFormat:
    """``dbm.dumb``: ``.dir`` says where in ``.dat`` the value is. Two files cannot be replaced by one
    rename, so a value is written where ``.dir`` does not point, and a new ``.dir`` is renamed there.
    """

    def read(self, path: str) -> bytes | None:
        while True:
            try:
                with open(path + ".dir", "rb", buffering=0) as directory:
                    raw = self._value(path, directory.read())
                    # The open file keeps its inode: if the name still leads there, nobody has
                    # replaced it, and so nobody has written over the value meanwhile.
                    if os.stat(path + ".dir").st_ino == os.fstat(directory.fileno()).st_ino:
                        return raw
            except FileNotFoundError:
                return None

    def write(self, path: str, raw: bytes) -> None:
        position = self._free(path, len(raw))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path + ".dat", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as data:
            data.seek(position)
            _write_all(data.write, raw)
        replace(path + ".dir", f"{_KEY!r}, ({position}, {len(raw)})\n".encode("ascii"))

    def remove(self, path: str) -> None:
        # The directory first: without it there is no record, whatever stands in the data.
        for suffix in (".dir", ".dat", ".bak"):
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)

    def _value(self, path: str, directory: bytes) -> bytes | None:
        place = _place(directory)
        if place is None:
            return None
        position, size = place
        with open(path + ".dat", "rb", buffering=0) as data:
            data.seek(position)
            return data.read(size)

    def _free(self, path: str, size: int) -> int:
        """Return the first block where a value fits without touching the one that stands."""
        with suppress(FileNotFoundError):
            place = _place(Path(path + ".dir").read_bytes())
            if place is not None and size > place[0]:
                return -(-(place[0] + place[1]) // _BLOCK) * _BLOCK
        return 0


def _place(directory: bytes) -> tuple[int, int] | None:
    """Return position and size of the session's value, as the lines of a ``.dir`` file say."""
    for line in directory.decode("latin-1").splitlines():
        try:
            key, (position, size) = ast.literal_eval(line)
        except (ValueError, SyntaxError, TypeError):
            continue
        if key == _KEY:
            return int(position), int(size)
    return None


def _write_all(write: Callable[[memoryview], int], content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[write(view) :]
