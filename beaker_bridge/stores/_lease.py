"""Leases: locks on a server that end by themselves, since nobody releases the lock of a holder that has died."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from beaker_bridge.stores.base import Swap

#: The words of a lease on a server that removes no entry: a random word, the time at which it ends, and its length, in
#: seconds. Earlier releases wrote no length.
_TIMED = re.compile(rb"[0-9a-f]{32} ([0-9]+(?:\.[0-9]+)?)(?: ([0-9]+(?:\.[0-9]+)?))?")

#: Replaces an entry, as :meth:`Store.swap` does; it takes the bytes that were read, or None.
SwapEntry = Callable[[str, bytes | None, bytes | None, float | None], "Swap"]


class HeldBy(NamedTuple):
    """The answer instead of a lease that another holder has.

    Args:
        whose: identifies that holder's lease, to see when the next one begins; None if it is not known.
    """

    whose: object = None


class Leases:
    """Leases on a server that removes an entry when its time is over.

    Each is an entry with a random word in it, by which a holder recognises its own.

    Args:
        swap: replaces an entry.
    """

    def __init__(self, swap: SwapEntry) -> None:
        self._swap = swap

    def words(self, seconds: float) -> bytes:
        """Return the words of a new lease.

        Args:
            seconds: the time after which the lease ends by itself.
        """
        return _random_word()

    def take(self, name: str, seconds: float, words: bytes | None = None) -> bytes | HeldBy:
        """Return the words of a new lease, or whose it is.

        Args:
            name: what is locked.
            seconds: the time after which the lease ends by itself.
            words: its words, for callers that release it if no answer comes.
        """
        return self._taken(name, None, words or self.words(seconds), seconds)

    def end(self, name: str, words: bytes) -> None:
        """End a lease, if it is still held by these words."""
        self._swap(name, words, None, None)

    def _taken(self, name: str, found: bytes | None, words: bytes, seconds: float) -> bytes | HeldBy:
        swap = self._swap(name, found, words, seconds)
        return words if swap.made else HeldBy(swap.found and swap.found.raw)


class TimedLeases(Leases):
    """Leases on a server that keeps an entry whose time is over: the words name the time.

    Args:
        swap: replaces an entry.
        read: returns the bytes of an entry, or None.
        clock: returns the time, in seconds since the epoch; on two machines it may differ by less than a lease lasts.
            Where it differs by more, a lease keeps nobody out.
        wrap: turns the words into what the server holds.
    """

    def __init__(
        self,
        swap: SwapEntry,
        read: Callable[[str], bytes | None],
        clock: Callable[[], float],
        wrap: Callable[[bytes], bytes] = bytes,
    ) -> None:
        super().__init__(swap)
        self._read, self._clock, self._wrap = read, clock, wrap

    def words(self, seconds: float) -> bytes:
        return self._words(self._clock() + seconds, seconds)

    def take(self, name: str, seconds: float, words: bytes | None = None) -> bytes | HeldBy:
        found = self._read(name)
        if found is not None and is_held(found, self._clock()):
            return HeldBy(found)
        return self._taken(name, found, words or self.words(seconds), seconds)

    def renew(self, name: str, words: bytes, ends: float, seconds: float) -> None:
        """Let a lease end at another time, if it is still held by these words.

        Args:
            name: what is locked.
            words: the words of the lease.
            ends: the time, in seconds since the epoch.
            seconds: the length of the lease, in seconds.
        """
        self._swap(name, words, self._words(ends, seconds), None)

    def _words(self, ends: float, seconds: float) -> bytes:
        return self._wrap(_random_word() + f" {ends:.3f} {seconds:.3f}".encode("ascii"))


def is_held(words: bytes, now: float, grace: float = 0) -> bool:
    """Say whether a timed lease has not ended; one that cannot be read has.

    The time left is at most the length, and as much again if the clock of its holder is ahead. What ends later was
    written by a clock that was wrong, and would last as long as that was.

    Args:
        words: the words of the lease.
        now: the time, in seconds since the epoch.
        grace: the time for which one that has ended counts as held all the same, in seconds.
    """
    found = _TIMED.search(words)
    return found is not None and -grace < float(found[1]) - now < 2 * float(found[2] or math.inf) + grace


def _random_word() -> bytes:
    return secrets.token_hex(16).encode("ascii")
