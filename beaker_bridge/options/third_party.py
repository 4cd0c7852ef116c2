"""Stores of other distributions: found by their entry points, with the options that are their own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import is_secret_name
from beaker_bridge.options.rows import Empty, Row
from beaker_bridge.options.table import SESSION_TABLE
from beaker_bridge.options.types import ValueType

#: The group of the entry points. The name of one is the option ``type``, its value the store's class.
GROUP = "beaker_bridge.stores"


def third_party_types() -> list[str]:
    """Return the store types that other distributions bring along."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def third_party_store(kind: str, label: str) -> Any:
    """Return the class of another distribution's store; None if no distribution brings the type along.

    Args:
        kind: the store type.
        label: the name of the option ``type``, as it was written.

    Raises:
        SettingsError: the class cannot be imported, or is no store, or lacks a part, or several distributions have one.
    """
    found = sorted(entry_points(group=GROUP, name=kind), key=_name)
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(map(_name, found))
        raise SettingsError(f"{label} = {kind} is a store of several packages: {names}; keep one of them", name="type")
    named = f"{label} = {kind}: {found[0].value} of the package {_name(found[0])}"
    try:
        store_class = found[0].load()
    except Exception as error:
        # A module may raise anything when it is imported.
        why = error if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"{named} cannot be imported: {why}", name="type") from error
    if fault := _fault_of(store_class):
        raise SettingsError(f"{named} {fault}", name="type")
    return store_class


def _fault_of(store_class: Any) -> str:
    """Return what keeps a class from being a store, if anything."""
    # The base class, which a room above has, gives each store its own_options.
    own_options = getattr(store_class, "own_options", None)
    if not isinstance(store_class, type) or not isinstance(own_options, Mapping):
        return "is no store: derive it from beaker_bridge.stores.base.Store"
    if missing := sorted(getattr(store_class, "__abstractmethods__", ())):
        return f"is no whole store: it lacks {', '.join(missing)}"
    if wrong := [name for name, value_type in own_options.items() if not isinstance(value_type, ValueType)]:
        return f"has own_options without a type of beaker_bridge.options.types: {', '.join(wrong)}"
    if known := [name for name in own_options if SESSION_TABLE.knows(name)]:
        return f"has own_options that are this package's; take them from the option table: {', '.join(known)}"
    return ""


def own_rows(store_class: Any) -> dict[str, Row]:
    """Return the options that a store of another distribution has beside the table's, as rows.

    Args:
        store_class: the class.
    """
    return {
        name: Row(name, None, value_type, "", frozenset(), Empty.DEFAULT, is_secret_name(name))
        for name, value_type in store_class.own_options.items()
    }


def _name(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
