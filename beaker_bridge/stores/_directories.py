"""The directories of a store in files: their paths, the options that name them, and whether they can be used."""

from __future__ import annotations

import errno
import os
import tempfile

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import quoted
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.stores._flock import LockTimeoutError

#: The errors of a full disk. The options are right then, and sessions can be read.
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", None)})
#: The longest path below one of the directories: that of a dbm's file while it is written.
_LONGEST = "/0/00/" + 32 * "0" + ".dbm.dir." + 16 * "0" + ".bridge-tmp"


class Directories:
    """The directories of the records and of the lock files, which can be made and written at the start.

    Args:
        options: the option table.
        own: the option that names the directory of the records; without it, that is below ``data_dir``.
        below: the name of the directory there.

    Raises:
        SettingsError: one of them cannot be made or written.
    """

    def __init__(self, options: SessionOptions, own: str, below: str) -> None:
        self.records = getattr(options, own) or f"{options.data_dir}/{below}"
        self.locks = options.lock_dir or f"{options.data_dir}/{below}_lock"
        self._options = options
        names = {self.records: own, self.locks: "lock_dir"}
        self._names = {path: name if getattr(options, name) else "data_dir" for path, name in names.items()}
        faults = {self._names[path]: error for path in self._names if (error := _why_not(path))}
        if faults:
            raise SettingsError.of([self._fault(name, error) for name, error in faults.items()])

    def concerned(self, error: BaseException) -> str:
        """Return the option that names the directory that an error is about, and its value.

        Args:
            error: the error of the system; a file that it names is a session's.
        """
        file = self.locks if isinstance(error, LockTimeoutError) else str(getattr(error, "filename", None))
        # Choose the longer path, since one may be in the other.
        place = max((path for path in self._names if file.startswith(path)), key=len, default=self.records)
        name = self._names[place]
        return f"{self._options.label(name)} = {quoted(name, getattr(self._options, name))}"

    def _fault(self, name: str, error: OSError) -> SettingsError:
        label, value = self._options.label(name), quoted(name, getattr(self._options, name))
        rule = "a directory that can be made, and in which files and directories can be made"
        return SettingsError(f"{label} must be {rule}, got {value!r}: {error.strerror}", name=name, value=value)


def _why_not(path: str) -> OSError | None:
    """Return the reason if a directory cannot be made or written; None if it can.

    Do not make it: the user that starts the application, perhaps root, need not be the one that serves requests.
    """
    place = os.path.abspath(path)
    names = [place + _LONGEST]
    # Stop at a root, which may be missing, too: a drive of Windows.
    while not os.path.lexists(place) and os.path.dirname(place) != place:
        place, name = os.path.split(place)
        names.append(name)
    try:
        # Look for each name where there is something to look in: only the file system knows which ones it takes.
        for name in names:
            _refuse_too_long(os.path.join(place, name))
        with tempfile.TemporaryFile(dir=place):
            return None
    except ValueError as error:
        # A null character.
        return OSError(errno.EINVAL, str(error))
    except OSError as error:
        return None if error.errno in _FULL else error


def _refuse_too_long(path: str) -> None:
    """Raise if the file system has no such path, since it is too long."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
