"""The command: a group of subcommands, each in a module of its own."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence

import click

from beaker_bridge.cli.bench import bench
from beaker_bridge.cli.check import check
from beaker_bridge.cli.migrate import migrate_command
from beaker_bridge.cli.output import INTERRUPTED, WRONG
from beaker_bridge.cli.purge import purge_command
from beaker_bridge.cli.sessions import sessions_command
from beaker_bridge.options.masking import clean


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="FILE is the site's .ini, as pserve takes it: development.ini, production.ini#name.",
)
@click.version_option(package_name="beaker_bridge", prog_name="beaker-bridge")
def command() -> None:
    """Look at the sessions of a site, and look after them."""


for subcommand in (check, bench, purge_command, sessions_command, migrate_command):
    command.add_command(subcommand)


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: the command's, without its name.

    Returns:
        The exit code: 0 fine; 1 something was found, or only a part was done; 2 wrong use, wrong settings, or a store
        that cannot be reached; 130 interrupted.
    """
    if not sys.warnoptions:
        # The modules of a site may use what is deprecated; that is not this command's subject.
        warnings.simplefilter("ignore")
    try:
        code = command.main([*arguments], prog_name="beaker-bridge", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return WRONG
    except click.Abort:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- a fault of ours: 1 would mean that something was found
        clean(error)
        traceback.print_exc()
        return WRONG
    return int(code or 0)
