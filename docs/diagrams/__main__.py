"""``python docs/diagrams FOLDER`` writes each diagram into a folder, as a file by itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from diagrams import DIAGRAMS

if __name__ == "__main__":
    folder = Path(*sys.argv[1:2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        (folder / f"{name}.svg").write_text(draw().render(name), encoding="utf-8")
