"""The parts that all subcommands share: ``--json``, the file's name and its variables, errors and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from beaker_bridge.cli.output import FOUND, INTERRUPTED, WRONG, Output, close_quietly
from beaker_bridge.exceptions import BeakerBridgeError
from beaker_bridge.site.find import Site, SiteError, find_site

F = TypeVar("F", bound=Callable[..., int])


class Subcommand(click.Command):
    """A subcommand: its function gets an :class:`Output` before its parameters, and returns the exit code.

    ``--json`` is added, and the errors of this package become the exit code 2.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Write one JSON object."))

    def invoke(self, ctx: click.Context) -> int:
        """Call the function, and return its exit code."""
        parameters = dict(ctx.params)
        output = Output(as_json=parameters.pop("as_json"))
        assert self.callback is not None
        try:
            with output.logging():
                code: int = ctx.invoke(self.callback, output, **parameters)
            sys.stdout.flush()
        except BrokenPipeError:
            close_quietly()
            return FOUND
        except BeakerBridgeError as error:
            output.error(str(error))
            return WRONG
        except KeyboardInterrupt:
            output.error("interrupted")
            return INTERRUPTED
        return code


def site_arguments(function: F) -> F:
    """Add the arguments FILE and NAME=VALUE, as ``pserve`` has them, to a subcommand: ``uri`` and ``variables``."""
    variables = click.argument("variables", metavar="[NAME=VALUE]...", nargs=-1)
    return click.argument("uri", metavar="FILE")(variables(function))


def open_site(output: Output, uri: str, variables: Sequence[str] = ()) -> Site:
    """Find the site of a file, and write what is to be known of how it was read.

    Args:
        output: where.
        uri: the file, as ``pserve`` takes it.
        variables: as ``pserve`` takes them: ``NAME=VALUE`` each.

    Raises:
        SiteError: the file cannot be read, or has no such application.
    """
    for variable in variables:
        if "=" not in variable:
            raise SiteError(f"{variable} must be NAME=VALUE, a variable of the file")
    site = find_site(uri, dict(variable.split("=", 1) for variable in variables))
    for note in site.notes:
        output.note(note)
    return site
