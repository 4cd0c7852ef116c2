"""The command's options, from click: ``subcommand``. A subcommand that no page describes fails the build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from generated import Generated
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from beaker_bridge.cli.commands import command

logger = logging.getLogger(__name__)

PROGRAM = "beaker-bridge"


class Subcommand(Generated):
    """Describes a subcommand, which its arguments name: how it is used, its own subcommands, and its options."""

    required_arguments = 1
    final_argument_whitespace = True

    def lines(self) -> Iterator[str]:
        """Yield the usage and the options."""
        found: click.Command = command
        for name in self.arguments[0].split():
            assert isinstance(found, click.Group)
            found = found.commands[name]
        path = f"{PROGRAM} {self.arguments[0]}"
        with click.Context(found, info_name=path) as context:
            usage = found.get_usage(context).removeprefix("Usage: ")
            yield from [".. index::", f"   single: {path}; command", ""]
            yield from [".. code-block:: text", "", *(f"   {line.strip()}" for line in usage.splitlines()), ""]
            yield from [f".. program:: {path}", ""]
            for parameter in found.get_params(context):
                record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
                if record:
                    names, text = record
                    yield from [f".. option:: {names}", "", f"   {_sentence(text)}", ""]


def _sentence(text: str) -> str:
    text = text.replace("*", "\\*")
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "]")) else ".")


def _all(group: click.Command, path: str) -> Iterator[str]:
    """Yield the names of a command's subcommands, those of subcommands included."""
    for name, found in getattr(group, "commands", {}).items():
        yield f"{path} {name}"
        yield from _all(found, f"{path} {name}")


def _check(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each subcommand that no page describes."""
    described = {program for program, _ in env.get_domain("std").data["progoptions"]}
    for name in _all(command, PROGRAM):
        if name.replace(" ", "-") not in described:
            logger.warning("no page describes %s", name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("subcommand", Subcommand)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
