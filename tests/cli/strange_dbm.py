"""A dbm module that we do not know: ``dbm.dumb`` under another name."""

from dbm.dumb import error, open  # noqa: A004, F401 -- the names that a dbm module has
