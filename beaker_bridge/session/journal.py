"""The journal of a migration: its copies, in a file. One that is gone from the new store early has ended there."""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from bisect import bisect_right
from types import TracebackType
from typing import TYPE_CHECKING

from beaker_bridge.exceptions import SettingsError

if TYPE_CHECKING:
    from typing_extensions import Self

#: The beginning of the file: its format.
_HEAD = b"beaker-bridge migrate 1\n"
#: The form of an entry: a digest of the id, which it cannot be found by, and the time at which the copy expires.
_ENTRY = struct.Struct(">QI")
#: The time of a copy that does not expire.
_NEVER = 0xFFFFFFFF


class Journal:
    """The file, of twelve bytes for each session that was copied; a run that was killed has written a part of it.

    Args:
        path: the path of the file; it is made if it is missing.

    Raises:
        SettingsError: it cannot be made or written, or is another file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        #: By the first byte of their digests: what earlier runs have written, in order.
        self._digests = [array("Q") for _ in range(256)]
        self._times = [array("L") for _ in range(256)]
        try:
            self._file = open(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "r+b")
        except OSError as error:
            raise SettingsError(f"the journal {path} cannot be written: {error.strerror}", name="journal") from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        head = self._file.read(len(_HEAD))
        if head not in (b"", _HEAD):
            raise SettingsError(f"{self.path} is no journal of a migration; name another file", name="journal")
        while len(entry := self._file.read(_ENTRY.size)) == _ENTRY.size:
            digest, time = _ENTRY.unpack(entry)
            self._digests[entry[0]].append(digest)
            self._times[entry[0]].append(time)
        # Write over what a run had begun to write when it was killed.
        self._file.seek(-len(entry), os.SEEK_CUR)
        self._is_empty = not any(self._digests)
        if self._is_empty:
            self._file.seek(0)
            self._file.write(_HEAD)
        for number, digests in enumerate(self._digests):
            # The order of equal ones is that in which they were written.
            pairs = sorted(zip(digests, self._times[number], strict=True), key=lambda pair: pair[0])
            self._digests[number] = array("Q", [digest for digest, _ in pairs])
            self._times[number] = array("L", [time for _, time in pairs])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if self._is_empty:
            # Leave no file where nothing was copied.
            os.unlink(self.path)

    def has_live(self, record_id: str, now: float) -> bool:
        """Say whether an earlier run has copied a record, and the copy has not expired by itself.

        Args:
            record_id: the id.
            now: the time, in seconds since the epoch.
        """
        digest = _digest(record_id)
        known = self._digests[digest >> 56]
        place = bisect_right(known, digest) - 1
        return place >= 0 and known[place] == digest and now < self._times[digest >> 56][place]

    def add(self, record_id: str, expires: float | None) -> None:
        """Add a record that was copied.

        Args:
            record_id: the id.
            expires: the time at which the copy expires if nobody uses it, in seconds since the epoch; None if never.
        """
        self._is_empty = False
        self._file.write(_ENTRY.pack(_digest(record_id), _NEVER if expires is None else min(int(expires), _NEVER)))

    def flush(self) -> None:
        """Hand what was added to the system, so that it stays when this process is killed."""
        self._file.flush()


def _digest(record_id: str) -> int:
    return int.from_bytes(hashlib.sha256(record_id.encode("ascii")).digest()[:8], "big")
