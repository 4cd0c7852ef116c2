"""What each logger of the package writes, from its sources: ``log-lines``. A logger on no page fails the build."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from generated import Generated
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import beaker_bridge

logger = logging.getLogger(__name__)

PACKAGE = Path(beaker_bridge.__file__).parent
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
#: The methods of a logger, and their levels.
METHODS = {name.lower(): name for name in LEVELS} | {"exception": "ERROR"}
#: A logger without a level of its own is passed to the reader of options.
READER = "beaker_bridge.options.reader"
#: What stands for a part of a message that differs from one line to the next.
PART = "…"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class LogLines(Generated):
    """Describes a logger, which its argument names: its levels, and its messages. Its content says when it writes."""

    required_arguments = 1
    has_content = True

    def lines(self) -> Iterator[str]:
        """Yield the description."""
        name = self.arguments[0]
        source = sources().get(name)
        if source is None:
            raise self.error(f"there is no logger {name}")
        yield from [f".. logger:: {name}", "", *(f"   {line}" for line in self.content), ""]
        yield f"   :Levels: {', '.join(f'``{level}``' for level in source.levels or sources()[READER].levels)}"
        messages = sorted(set(source.messages()))
        if messages:
            yield from ["   :Messages:", *(f"      - ``{message}``" for message in messages)]
        yield ""


class Source:
    """A module that has a logger.

    Args:
        tree: the module.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
        self._tree = tree
        self._constants = _assignments(tree.body)
        named = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "logging"
        }
        by_method = {
            METHODS.get(call.func.attr) for _, call in self._calls("log") if isinstance(call.func, ast.Attribute)
        }
        self.levels = [level for level in LEVELS if level in named | by_method]

    def messages(self) -> Iterator[str]:
        """Yield the messages that the module writes, as far as they are in it."""
        for function, call in self._calls("log"):
            assert isinstance(call.func, ast.Attribute)
            place = int(call.func.attr == "log")
            yield from self._texts(call.args[place], function)
        for function, call in self._calls("log_once"):
            yield from self._texts(call.args[2], function)

    def _calls(self, name: str) -> Iterator[tuple[Function, ast.Call]]:
        """Yield the calls of a function, or of an object's methods, each with the function that it is in."""
        for function in self._functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    called = node.func.value if isinstance(node.func, ast.Attribute) else node.func
                    if isinstance(called, ast.Name) and called.id == name and node.args:
                        yield function, node

    def _texts(self, node: ast.expr, function: Function) -> Iterator[str]:
        """Yield the texts that an expression can be, with the parts that differ left out."""
        if isinstance(node, ast.Constant):
            text = re.sub(r"%[\d.]*[a-z]", PART, str(node.value)).strip()
            if text != PART:
                yield text
        elif isinstance(node, ast.JoinedStr):
            yield "".join(self._part(part, function) for part in node.values).strip()
        elif isinstance(node, ast.IfExp):
            yield from self._texts(node.body, function)
            yield from self._texts(node.orelse, function)
        elif isinstance(node, ast.Name):
            for value in _assignments(ast.walk(function)).get(node.id) or self._constants.get(node.id, []):
                yield from self._texts(value, function)
            yield from self._passed(node.id, function)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            yield from (re.sub(r"\{.*?\}", PART, text) for text in self._texts(node.func.value, function))

    def _part(self, node: ast.expr, function: Function) -> str:
        """Return a part of an f-string: its text, or that of a name in it, as far as it is known."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        value = node.value if isinstance(node, ast.FormattedValue) else node
        return next(self._texts(value, function), PART) if isinstance(value, ast.Name) else PART

    def _passed(self, name: str, function: Function) -> Iterator[str]:
        """Yield the texts that the module passes to a function as one of its parameters."""
        parameters = [parameter.arg for parameter in function.args.args]
        if name in parameters:
            for caller, call in self._calls(function.name):
                if isinstance(call.func, ast.Name):
                    yield from self._texts(call.args[parameters.index(name)], caller)


def _assignments(body: Any) -> dict[str, list[ast.expr]]:
    """Return the values that are assigned to names."""
    found: dict[str, list[ast.expr]] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


@cache
def sources() -> dict[str, Source]:
    """Return the modules that have a logger, by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "getLogger(__name__)" in text:
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = Source(ast.parse(text))
    return found


def _check(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each logger that no page describes."""
    described = {name for name, _, kind, *_ in env.get_domain("std").get_objects() if kind == "logger"}
    for name in sources().keys() - described:
        logger.warning("no page describes the logger %s", name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive, and the role ``logger``."""
    app.add_object_type("logger", "logger", "pair: %s; logger")
    app.add_directive("log-lines", LogLines)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
