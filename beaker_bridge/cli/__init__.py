"""The command ``beaker-bridge``: what the person who runs a site does with its sessions; nothing imports it from below.

All modules but this one need click and rich.
"""

from __future__ import annotations

import signal
import sys

#: The packages of the extra ``cli``.
_EXTRA = frozenset({"click", "rich"})


def main() -> None:
    """Run the command, and exit with its code: the console script ``beaker-bridge``."""
    # End as after Ctrl-C, so that what was written for a trial is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from beaker_bridge.cli.commands import run

        sys.exit(run(sys.argv[1:]))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        message = f"beaker-bridge: error: the package {package} is missing: pip install 'beaker_bridge[cli]'"
        print(message, file=sys.stderr)  # noqa: T201 -- click and rich are what is missing
        sys.exit(2)
    except KeyboardInterrupt:
        # It came while the modules were imported.
        sys.exit(130)
