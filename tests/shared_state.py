"""Finds what the threads of a process share: mutable values of modules and classes, and attributes of shared objects.

It reads the sources, and looks at the imported modules for the values. It does not follow a value that is handed to
another function under another name.
"""

from __future__ import annotations

import ast
import itertools
import pkgutil
import re
from collections import deque
from collections.abc import Iterator, MutableMapping, MutableSequence, MutableSet
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from threading import Lock, RLock
from typing import Any, NamedTuple

import beaker_bridge

#: The methods that change a container.
CHANGES = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "move_to_end", "pop"),
    *("popitem", "popleft", "remove", "reverse", "rotate", "setdefault", "sort", "update"),
}
MUTABLE = (MutableMapping, MutableSequence, MutableSet, bytearray, deque, itertools.count)
LOCKS = (type(Lock()), type(RLock()))
#: The comment at a mutable value's definition that names its lock.
GUARDED = re.compile(r"[Gg]uarded by (\w+)")


class Source(NamedTuple):
    """A module's name, its text and its tree."""

    name: str
    lines: list[str]
    tree: ast.Module


class Change(NamedTuple):
    """A place in a function where something is changed: the name, the function, and the locks that it holds there."""

    name: str
    function: str
    line: int
    held: tuple[str, ...]


def sources() -> Iterator[Source]:
    """Yield each module of the package, but for the helpers for tests."""
    for found in pkgutil.walk_packages(beaker_bridge.__path__, "beaker_bridge."):
        # What is run as a program runs when it is imported.
        if not found.name.endswith("__main__") and not found.name.startswith("beaker_bridge.testing"):
            yield parsed(found.name, Path(import_module(found.name).__file__).read_text(encoding="utf-8"))


def parsed(name: str, text: str) -> Source:
    """Return a module's source, parsed."""
    return Source(name, text.splitlines(), ast.parse(text))


# -- Values of modules and classes --------------------------------------------------------------------


class Value(NamedTuple):
    """A value that is bound in a module, or in a class of it."""

    module: str
    owner: str
    name: str
    value: Any
    #: The comment at its definition.
    comment: str

    @property
    def label(self) -> str:
        return ".".join(filter(None, (self.module.removeprefix("beaker_bridge."), self.owner, self.name)))


def values(source: Source) -> Iterator[Value]:
    """Yield the values that a module binds at its top level, and in the bodies of its classes."""
    yield from _bound(source, source.tree.body, import_module(source.name), "")


def _bound(source: Source, body: list[ast.stmt], holder: Any, owner: str) -> Iterator[Value]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _bound(source, node.body, vars(holder)[node.name], ".".join(filter(None, (owner, node.name))))
        elif isinstance(node, (ast.If, ast.For, ast.Try, ast.With)):
            inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            yield from _bound(source, inner, holder, owner)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(name, ast.Name) and name.id in vars(holder):
                        yield Value(source.name, owner, name.id, vars(holder)[name.id], _comment(source, node))


def _comment(source: Source, node: ast.stmt) -> str:
    """Return the comment over a statement, and that at its end."""
    start = node.lineno - 1
    while source.lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return "\n".join([*source.lines[start : node.lineno - 1], source.lines[node.end_lineno - 1].partition("#")[2]])


def is_mutable(value: Any) -> bool:
    """Return whether a value is a container that can be changed."""
    return isinstance(value, MUTABLE)


def is_object(value: Any) -> bool:
    """Return whether a value is an object of a class of ours whose attributes can be changed."""
    kind = type(value)
    if not kind.__module__.startswith("beaker_bridge") or isinstance(value, (tuple, str, Enum, type, property)):
        return False
    return not (is_dataclass(kind) and kind.__dataclass_params__.frozen)


# -- Changes -----------------------------------------------------------------------------------------


def changes(source: Source, of: str = "") -> Iterator[Change]:
    """Yield each place in a function at which a name of the module is changed, or an attribute of ``self``.

    Args:
        source: the module.
        of: ``"self."`` for attributes of ``self``; else names.
    """
    for function, path in _functions(source.tree, ""):
        if not (of and path.endswith(("__init__", "__new__", "__post_init__", "__set_name__"))):
            rebound = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
            yield from _changes(function.body, of, path, (), rebound)


def _functions(node: ast.AST, path: str) -> Iterator[tuple[Any, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            inner = f"{path}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef):
                yield child, inner
            else:
                yield from _functions(child, inner)
        else:
            yield from _functions(child, path)


def _changes(nodes: Any, of: str, path: str, held: tuple[str, ...], rebound: set[str]) -> Iterator[Change]:
    for node in nodes:
        if isinstance(node, ast.With):
            inner = (*held, *(ast.unparse(item.context_expr) for item in node.items))
            yield from _changes([item.context_expr for item in node.items], of, path, held, rebound)
            yield from _changes(node.body, of, path, inner, rebound)
            continue
        for target in _targets(node):
            name = _changed_name(target, of, rebound)
            if name:
                yield Change(name, path, node.lineno, held)
        yield from _changes(ast.iter_child_nodes(node), of, path, held, rebound)


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a node binds, deletes or changes by a method."""
    found: list[ast.expr] = []
    if isinstance(node, (ast.Assign, ast.Delete)):
        found = list(node.targets)
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        found = [node.target]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
        # As if an item were set.
        found = [ast.Subscript(node.func.value, ast.Constant(0), ast.Store())]
    for target in found:
        yield from target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]


def _changed_name(target: ast.expr, of: str, rebound: set[str]) -> str:
    """Return the name whose value a target changes; an empty string if it is another variable."""
    is_part = isinstance(target, ast.Subscript)
    while isinstance(target, (ast.Subscript, ast.Call)):
        # Also what PerProcess.get() returns.
        target = target.value if isinstance(target, ast.Subscript) else getattr(target.func, "value", target.func)
    if of:
        is_attribute = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)
        return target.attr if is_attribute and f"{target.value.id}." == of else ""
    if isinstance(target, ast.Attribute):
        return "" if ast.unparse(target).startswith("self.") else ast.unparse(target)
    return target.id if isinstance(target, ast.Name) and (is_part or target.id in rebound) else ""
