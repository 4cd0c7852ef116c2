"""``python -m beaker_bridge.cli`` is the command ``beaker-bridge``."""

from beaker_bridge.cli import main

main()
