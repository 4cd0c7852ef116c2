"""A fork of which Python is not told."""

from __future__ import annotations

import ctypes


def silent_fork() -> int:
    """Fork without a word to Python, as uWSGI does."""
    return ctypes.PyDLL(None).fork()
