"""What the sessions hold: the same in each run."""

from __future__ import annotations

import json
import random
from typing import Any

#: The sizes of a session, in bytes of its JSON.
SMALL, MIDDLE, LARGE = 100, 64 * 1024, 1024 * 1024
SIZES = {SMALL: "100 B", MIDDLE: "64 KiB", LARGE: "1 MiB"}


def content_of(size: int) -> dict[str, Any]:
    """Return a session whose JSON has about that many bytes: a count, a user, and rows as of a cart."""
    content: dict[str, Any] = {
        "count": 0,
        "user": "someone@example.com",
        "roles": ["editor", "author"],
        "theme": "dark",
    }
    if size > SMALL:
        chance = random.Random(size)
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
