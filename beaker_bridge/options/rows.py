"""The parts of an option table: a row, which converts and checks a value, and the table that finds rows by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field, fields
from enum import Enum
from typing import Any, NamedTuple

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import quoted
from beaker_bridge.options.types import KNOWN_TYPES, SAMESITE, OpenError, ValueType, is_empty

#: The prefix of SQLAlchemy's own options.
ENGINE = "sa."


class Empty(Enum):
    """The meaning of an empty string: an error, as for Beaker's own checks at the start; not given; or false."""

    WRONG = "wrong"
    DEFAULT = "default"
    FALSE = "false"


class Row(NamedTuple):
    """One option."""

    name: str
    default: Any
    value_type: ValueType
    help: str
    #: The store types that use it.
    stores: frozenset[str]
    empty: Empty
    #: Whether its value is never shown, in no message and no repr.
    secret: bool

    def is_given(self, value: Any) -> bool:
        """Return whether a value sets the option: None, and for some options an empty string, does not."""
        if is_empty(value):
            return self.empty is not Empty.DEFAULT
        return value is not None or self.value_type is SAMESITE

    def converted(self, value: Any, label: str, name: str) -> Any:
        """Return the value, converted; the default if it leaves the option unset.

        Args:
            value: the value.
            label: the option's name as it was written.
            name: the same without prefix.

        Raises:
            SettingsError: it is wrong.
        """
        if not self.is_given(value):
            return self.default
        if is_empty(value) and self.empty is Empty.FALSE:
            return False
        try:
            return self.value_type.convert(value)
        except (ValueError, TypeError, OverflowError) as error:
            reason = error
        # Raise outside of the except block: the converter's error, which may quote a secret, would become the context.
        why = str(reason) if isinstance(reason, OpenError) else ""
        is_shown = not self.secret and quoted(name, value) is value
        raise wrong_value(label, name, self.value_type.rule, value, secret=self.secret, why=why) from (
            reason if is_shown else None
        )


def wrong_value(label: str, name: str, rule: str, value: Any, *, secret: bool = False, why: str = "") -> SettingsError:
    """Return the error that names an option, the rule and the value.

    Args:
        label: the option's name as it was written.
        name: the same without prefix.
        rule: the rule, in words.
        value: the value.
        secret: whether the value is not shown.
        why: more about the value.
    """
    if value is None:
        got = "nothing"
    elif is_empty(value):
        got = "an empty string"
    elif secret and not isinstance(value, bool):
        got = f"a value{'' if isinstance(value, str) else f' of type {type(value).__name__}'} that is not shown"
    else:
        got = repr(quoted(name, value))
    message = f"{label} must be {rule}, got {got}{f': {why}' if why else ''}"
    return SettingsError(message, name=name, value=None if secret else quoted(name, value))


def option(
    value_type: ValueType,
    default: Any,
    help: str,  # noqa: A002 -- the word for it
    stores: Collection[str] = KNOWN_TYPES,
    *,
    empty: Empty = Empty.WRONG,
    secret: bool = False,
) -> Any:
    """Return a row of a table, as a field of a dataclass."""
    rest = {"value_type": value_type, "help": help, "stores": frozenset(stores), "empty": empty, "secret": secret}
    return field(default=default, metadata=rest)


class Table(dict[str, Row]):
    """The rows of a table, by name.

    Args:
        options: the dataclass whose fields are the rows.
        prefixes: the prefixes in an application's settings. An unknown option under the second one is an error; under
            the first, which other packages may use too, it is a warning.
        content: what the stores keep, in the plural.
        types: the store types whose options are all known.
        aliases: our names, by those of other frameworks.
    """

    def __init__(
        self, options: type, prefixes: tuple[str, str], content: str, types: frozenset[str], aliases: Mapping[str, str]
    ) -> None:
        rows = [Row(row.name, row.default, **row.metadata) for row in fields(options) if row.metadata]
        super().__init__({row.name: row._replace(stores=row.stores & types) for row in rows})
        self.prefixes = prefixes
        self.content = content
        self.types = types
        self._aliases = aliases

    def parted(self, label: str) -> tuple[str, str]:
        """Split an option's name into name and prefix, which is empty if it is none of ours."""
        prefix = next((prefix for prefix in self.prefixes if label.startswith(prefix)), "")
        return label.removeprefix(prefix), prefix

    def __missing__(self, name: str) -> Row:
        if name.startswith(ENGINE):
            return self["sa_opts"]
        raise KeyError(name)

    def knows(self, name: str) -> bool:
        """Return whether there is a row for an option; SQLAlchemy's own share that of ``sa_opts``."""
        return name in self or name.startswith(ENGINE)

    def counts(self, name: str, store: str) -> bool:
        """Return whether a store type uses an option; a third party's backend may use any."""
        return store in self[name].stores or store not in self.types

    def use(self, name: str) -> str:
        """Return which store types use an option, as text; its help if none does."""
        row, others = self[name], self.types - self[name].stores
        if not row.stores:
            return row.help
        but = "for all but " if len(others) == 1 else "for "
        return but + ", ".join(sorted(others if len(others) == 1 else row.stores)) if others else "for all"

    def translated(self, name: str) -> list[str]:
        """Return our name for another framework's, if there is one; ``session_`` or ``cache_`` may precede it."""
        full = name.lower().replace(".", "_")
        word = full.removeprefix(self.prefixes[0].replace(".", "_"))
        ours = self._aliases.get(word, word if word != full else "")
        return [ours] if ours in self else []
