"""Builds a release in ``dist`` and checks it.

``python tests/release.py [--version VERSION]``: the sdist and the wheel are built, twine reads their metadata, and the
quick tests pass in the unpacked sdist. ``--version`` is what the release is meant to be.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
DIST = CHECKOUT / "dist"


def run(folder: Path, *words: str) -> None:
    """Run a module of Python's in a folder; this program ends where it fails."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Build and check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", help="stop if it is not what was built")
    version = parser.parse_args().version
    shutil.rmtree(DIST, ignore_errors=True)
    # The wheel is built from the sdist.
    run(CHECKOUT, "build", "--outdir", str(DIST))
    names = sorted(path.name for path in DIST.iterdir())
    run(CHECKOUT, "twine", "check", "--strict", *(str(DIST / name) for name in names))
    expected = [f"beaker_bridge-{version}-py3-none-any.whl", f"beaker_bridge-{version}.tar.gz"]
    if version is not None and names != expected:
        sys.exit(f"the tag says {version}, what was built is {', '.join(names)}")
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), "tarfile", "--extract", str(DIST / names[1]))
        (unpacked,) = Path(folder).iterdir()
        run(unpacked, "pytest", "-q", "-n", "2", "-m", "not slow and not ci and not soak", "--bare")


if __name__ == "__main__":
    main()
