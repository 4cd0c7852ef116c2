"""A fork of which Python is not told, and what makes this process look like a child."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from beaker_bridge.stores import _forks


def silent_fork() -> int:
    """Fork without a word to Python, as uWSGI does."""
    return ctypes.PyDLL(None).fork()


@contextmanager
def as_child() -> Iterator[None]:
    """Let this process have another number, as one that was forked has."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_forks, "os", SimpleNamespace(getpid=lambda: 0))
        yield
