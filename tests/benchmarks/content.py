"""What the sessions hold: the same in each run."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

#: The sizes of a session, in bytes of its JSON.
SMALL, MIDDLE, LARGE = 100, 64 * 1024, 1024 * 1024
SIZES = {SMALL: "100 B", MIDDLE: "64 KiB", LARGE: "1 MiB"}
#: How many sessions take turns: as much goes through the processor with each of the larger sizes. What one session of
#: 64 KiB is made of, its predictions learn by heart, and it is read in two thirds of the time.
SESSIONS = {SMALL: 1, MIDDLE: LARGE // MIDDLE, LARGE: 1}


def contents_of(size: int) -> Iterator[dict[str, Any]]:
    """Return, for one session after the other, what it holds."""
    return itertools.cycle([_content_of(size, number) for number in range(SESSIONS[size])])


def _content_of(size: int, number: int) -> dict[str, Any]:
    """Return a session whose JSON has about that many bytes: a count, a user, and rows as of a cart."""
    content: dict[str, Any] = {
        "count": 0,
        "user": "someone@example.com",
        "roles": ["editor", "author"],
        "theme": "dark",
    }
    if size > SMALL:
        chance = random.Random(size + number)
        row_size = len(json.dumps(_row(chance))) + 2
        content["rows"] = [_row(chance) for _ in range((size - SMALL) // row_size)]
    return content


def _row(chance: random.Random) -> dict[str, Any]:
    return {
        "id": f"{chance.getrandbits(64):016x}",
        "name": " ".join(chance.choices(("green", "small", "wooden", "chair", "lamp", "shelf"), k=3)),
        "price": f"{chance.uniform(1, 999):.2f}",
        "number": chance.randrange(1, 10),
    }
