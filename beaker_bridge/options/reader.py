"""Read options: prefixes, conversion, unknown names, near misses, and warnings at the start.

One reader serves the tables of sessions and of cache regions. Strings from an ``.ini`` are converted. An error names
the option as written, the rule and the value; all errors are raised at once. Harmless surprises are logged once.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.logs import log_once
from beaker_bridge.options.rows import Empty, Row, Table, wrong_value
from beaker_bridge.options.rules import Fault, backend_exists, session_faults, type_faults, type_of_address
from beaker_bridge.options.table import SESSION_TABLE, SessionOptions, StoreOptions
from beaker_bridge.options.third_party import own_rows, third_party_store
from beaker_bridge.options.types import COOKIE, FILE, MAX_SECONDS, MEMORY, is_empty

log = logging.getLogger(__name__)

Options = TypeVar("Options", bound=StoreOptions)


# -- What was given ----------------------------------------------------------------------------------


class Given(NamedTuple):
    """One option as given: its name as written, its value, and whether it is an error if the option is unknown."""

    label: str
    value: Any
    strict: bool = True
    #: The same option under another prefix, given before this one.
    also: Given | None = None

    def __repr__(self) -> str:
        # Omit the value: it may be a secret.
        return f"Given({self.label!r}, …)"


def prefixed(settings: Mapping[str, Any], table: Table = SESSION_TABLE) -> dict[str, Given]:
    """Return the options of a table among an application's settings, by name without prefix."""
    found: dict[str, Given] = {}
    for label, value in settings.items():
        name, prefix = table.parted(label) if isinstance(label, str) else ("", "")
        if prefix:
            also = found.get(name)
            strict = prefix != table.prefixes[0] or (also is not None and also.strict)
            found[name] = Given(label, value, strict, also)
    return found


def given(options: Mapping[str, Any], *, strict: bool = True) -> dict[str, Given]:
    """Return a session's options from Python or from a filter's section, with or without prefix.

    Args:
        options: the options.
        strict: whether an unknown one is an error, as in a filter's section; else it is a warning.
    """
    found: dict[str, Given] = {}
    for label, value in options.items():
        name, _ = SESSION_TABLE.parted(label)
        found[name] = Given(label, value, strict, also=found.get(name))
    return found


# -- Reading it --------------------------------------------------------------------------------------


class Notice(NamedTuple):
    """A harmless surprise, to be logged at the start."""

    message: str
    level: int = logging.WARNING


class Reading:
    """The result of reading options with one table: values, and errors of the wrong ones.

    Args:
        table: the table.
        options: the options as given, by name without prefix.
    """

    def __init__(self, table: Table, options: Mapping[str, Given]) -> None:
        self.table = table
        self.options = options
        self.values: dict[str, Any] = {}
        self.wrong: dict[str, SettingsError] = {}
        #: Options without a row in the table.
        self.rest = {name: option for name, option in options.items() if not table.knows(name)}
        engine = {name: options[name].value for name in self.given if name not in table}
        for name in self.given:
            try:
                if name in table:
                    self.values[name] = self._converted(name, options[name])
            except SettingsError as error:
                self.wrong[name] = error
        if engine:
            self.values["sa_opts"] = {**(self.values.get("sa_opts") or {}), **engine}

    @property
    def given(self) -> list[str]:
        """The names of the options that are set, SQLAlchemy's own included."""
        known = ((name, option) for name, option in self.options.items() if self.table.knows(name))
        return [name for name, option in known if self.table[name].is_given(option.value)]

    def _converted(self, name: str, option: Given) -> Any:
        return self.table[name].converted(option.value, option.label, self.table.parted(option.label)[0])

    def filled(self, options: type[Options], **more: Any) -> Options:
        """Return the values as an instance of a table; ``more`` are its other fields."""
        named = [*self.given, *more.get("backend_arguments", ())]
        labels = {name: self.options[name].label for name in named}
        return options(**self.values, given=frozenset(self.values), labels=labels, **more)

    def faults(self, faults: Iterable[Fault], options: StoreOptions) -> Iterator[tuple[Fault, SettingsError]]:
        """Yield broken rules with their errors; skip rules about an option whose value is wrong."""
        for fault in faults:
            if self.wrong.keys().isdisjoint(self.table[name].name for name in (fault.name, *fault.others)):
                option, label = self.options.get(fault.name), options.label(fault.name, *fault.others)
                value = option.value if option and is_empty(option.value) else getattr(options, fault.name)
                name, secret = self.table.parted(label)[0], self.table[fault.name].secret
                yield fault, wrong_value(label, name, fault.rule, value, secret=secret)

    def unknown(self, *others: str) -> tuple[list[SettingsError], list[Notice]]:
        """Return the errors and the notices about unknown names.

        Args:
            others: known names that are not in the table.
        """
        errors: list[SettingsError] = []
        notices: list[Notice] = []
        for name, option in self.rest.items():
            theirs = self.table.translated(name)
            near = [] if theirs else difflib.get_close_matches(name.lower(), [*self.table, *others], n=1, cutoff=0.8)
            hint = "".join(f"; did you mean {option.label.removesuffix(name)}{own}?" for own in theirs or near)
            message = f"{option.label} is no option that beaker_bridge knows"
            # Beaker ignored unknown names, so another framework's may stay; a typing error is never intended.
            if near or option.strict:
                errors.append(SettingsError(message + hint, name=self.table.parted(option.label)[0]))
            else:
                notices.append(Notice(f"{message}; it is ignored{hint}"))
        return errors, notices

    def twice(self) -> Iterator[Notice]:
        """Yield notices of options given twice with different values; as for Beaker, the last one counts."""
        for name, option in self.options.items():
            other = option.also
            while other is not None:
                if not self._mean_the_same(name, option, other):
                    counts = f"{option.label} counts, which comes later; remove one of them"
                    yield Notice(f"{other.label} and {option.label} differ: {counts}")
                other = other.also

    def _mean_the_same(self, name: str, one: Given, other: Given) -> bool:
        # Beaker's own middleware passes both, one of them converted.
        try:
            values = [self._converted(name, each) if name in self.table else each.value for each in (one, other)]
        except SettingsError:
            return False
        return bool(values[0] == values[1])

    def empty(self) -> Iterator[tuple[str, Notice]]:
        """Yield the names of options that are, and may be, an empty string, with a notice."""
        for name, option in self.options.items():
            if is_empty(option.value) and self.table.knows(name) and self.table[name].empty is not Empty.WRONG:
                is_false = self.table[name].empty is Empty.FALSE
                off = "that is false, as it was for Beaker: write false, or remove it"
                meaning = off if is_false else "it is ignored: remove it"
                yield name, Notice(f"{option.label} is an empty string; {meaning}")

    def unused(self, stores: Collection[str]) -> dict[str, Given]:
        """Return the options, right or wrong, that none of these store types uses."""
        counts, names = self.table.counts, self.given if stores else []
        return {name: self.options[name] for name in names if not any(counts(name, store) for store in stores)}

    def useless(self, unused: Mapping[str, Given], read: Collection[StoreOptions]) -> Iterator[Notice]:
        """Yield one notice of all unused options; those that belong to an address without its type get another one.

        Args:
            unused: the unused options.
            read: the tables of the sessions, or regions, that they are for.
        """
        typical = next((options for options in read if "type" not in options.given), None)
        found = [(name, type_of_address(name, option.value)) for name, option in unused.items() if typical]
        addresses = {name: store for name, store in found if store}
        if typical and addresses:
            meant = next(iter(addresses.values()))
            lost = [name for name in unused if name in addresses or self.table.counts(name, meant)]
            yield self._without_type([unused[name] for name in lost], self._beside(lost[0], "type"), typical, meant)
            unused = {name: option for name, option in unused.items() if name not in lost}
        if unused:
            beside = self._beside(next(iter(unused)), "type")
            labels = sorted({options.labels.get("type", beside) for options in read})
            stores = ", ".join(sorted({options.type for options in read}))
            where = f"the types are {stores}" if "," in stores else f"{', '.join(labels)} = {stores}"
            told = ", ".join(f"{option.label} ({self.table.use(name)})" for name, option in unused.items())
            pronoun, be = ("it", "it is") if len(unused) == 1 else ("them", "they are")
            remedy = f", or set the type that {be} for" if any(self.table[name].stores for name in unused) else ""
            yield Notice(f"{told}: not used where {where}; remove {pronoun}{remedy}")

    def _beside(self, given: str, name: str) -> str:
        """Return the label that an option would have beside one that was given."""
        return self.options[given].label.removesuffix(given) + name

    def _without_type(self, lost: list[Given], type_label: str, options: StoreOptions, meant: str) -> Notice:
        labels = ", ".join(option.label for option in lost)
        is_lost = options.type == MEMORY
        where = "in memory, and lost when the process ends" if is_lost else f"in {options.label('data_dir')}"
        message = f"{labels} without {type_label}: {self.table.content} are kept {where}; set {type_label} = {meant}"
        return Notice(message, logging.ERROR if is_lost else logging.WARNING)


def log_notices(logger: logging.Logger, notices: Iterable[Notice], options: Mapping[str, Given]) -> None:
    """Log notices once for the same options, which an application's factory and its include may both read."""
    about = hash(tuple((option.label, _identity(option.value)) for option in options.values()))
    for message, level in notices:
        log_once(logger, level, message, about)


def _identity(value: object) -> object:
    return value if isinstance(value, (str, int, float)) else id(value)


# -- A session's options -----------------------------------------------------------------------------


def read_options(options: Mapping[str, Given], *, quiet: bool = False) -> SessionOptions:
    """Convert and check a session's options; log harmless surprises once.

    Args:
        options: the options as given, by name.
        quiet: log nothing, because the same options are also read elsewhere.

    Returns:
        The options.

    Raises:
        SettingsError: one or more of them are wrong; its ``errors`` are all of the faults.
    """
    read = Reading(SESSION_TABLE, options)
    errors = list(_refused(read.rest))
    arguments, own = _take_arguments(read)
    checked = read.filled(SessionOptions, backend_arguments=arguments, prefix=_prefix(options))
    unknown, notices = read.unknown(*own)
    unused = read.unused(_stores(read))
    # An option that the type does not use may have any value.
    read.wrong = {name: error for name, error in read.wrong.items() if name not in unused}
    faults = read.faults((*type_faults(checked, SESSION_TABLE), *session_faults(checked)), checked)
    errors = [*read.wrong.values(), *errors, *unknown, *(error for _, error in faults)]
    if errors:
        raise SettingsError.of(errors)
    if not quiet:
        empty = [notice for _, notice in read.empty()]
        useless = read.useless(unused, [checked])
        log_notices(log, [*read.twice(), *empty, *_reread(options, checked), *useless, *notices], options)
    return checked


def _take_arguments(read: Reading) -> tuple[dict[str, Any], Collection[str]]:
    """Take the options of a backend that is not ours out of the rest.

    Returns:
        Their values, converted if the backend says how; and the names of those that it has.
    """
    rest, rows = read.rest, _rows_of_backend(read)
    if rows is None:
        read.rest = {}
        return {name: option.value for name, option in rest.items()}, ()
    read.rest = {name: option for name, option in rest.items() if name not in rows}
    values = {}
    for name, row in rows.items():
        try:
            if name in rest and row.is_given(rest[name].value):
                values[name] = row.converted(rest[name].value, rest[name].label, name)
        except SettingsError as error:
            read.wrong[name] = error
    return values, rows


def _rows_of_backend(read: Reading) -> Mapping[str, Row] | None:
    """Return the options of a backend beside the table's; None if they are known to itself alone."""
    kind = read.values.get("type", MEMORY)
    if read.values.get("namespace_class"):
        return None
    if kind in SESSION_TABLE.types:
        return {}
    try:
        store_class = third_party_store(kind, read.options["type"].label)
    except SettingsError as error:
        read.wrong["type"] = error
        return None
    if store_class is None:
        return None if backend_exists(kind) else {}
    return own_rows(store_class)


def _prefix(options: Mapping[str, Given]) -> str:
    """Return the prefix for options that were not given: that of the type, else of the first one."""
    # Beaker's own middleware passes its defaults as None: they are in no file.
    labels = {name: option.label for name, option in options.items() if option.value is not None}
    return SESSION_TABLE.parted(labels.get("type") or next(iter(labels.values()), ""))[1]


def _stores(read: Reading) -> list[str]:
    """Return the store type; an empty list if it is wrong, or a class of the application's."""
    store = read.values.get("type") or (FILE if "data_dir" in read.given else MEMORY)
    is_known = "type" not in read.wrong and (store == COOKIE or not read.values.get("namespace_class"))
    return [store] if is_known else []


def _refused(rest: dict[str, Given]) -> Iterator[SettingsError]:
    """Remove Beaker's ``session_class``, and yield the error that names the alternative."""
    option = rest.pop("session_class", None)
    if option is not None and option.value is not None:
        way = (
            "subclass what session_factory_from_settings() or BeakerSessionFactoryConfig() returns, and set that class"
        )
        yield SettingsError(
            f"{option.label} is no option that beaker_bridge knows: {way} as the session factory", name="session_class"
        )


def _reread(options: Mapping[str, Given], checked: SessionOptions) -> Iterator[Notice]:
    """Yield notices of values that do not mean what they seem to."""
    option = options.get("cookie_expires")
    value = option.value.strip() if option and isinstance(option.value, str) else None
    for number, word, meaning in (("0", "false", "never expires"), ("1", "true", "ends with the browser")):
        if option and value == number:
            yield Notice(
                f"{option.label} = {number} is {word}, as it was for Beaker: the cookie {meaning};"
                f" write {word}, or a number of seconds"
            )
    option = options.get("use_cookies")
    # Beaker takes any non-empty string for true, and ignores the option for cookie sessions.
    seen = option is None or is_empty(option.value) or not (isinstance(option.value, str) or checked.type == COOKIE)
    if option and not (seen or checked.use_cookies):
        yield Notice(
            f"{option.label} is false, which Beaker did not see: no cookie is read or sent, so that each request has a"
            " session of its own; remove it, unless the application carries the ids itself"
        )
    for name in ("timeout", "cookie_expires"):
        option = options.get(name)
        if option and getattr(checked, name) == MAX_SECONDS and str(option.value).strip() != str(MAX_SECONDS):
            yield Notice(f"{option.label} is more than 68 years, and counts as {MAX_SECONDS} seconds")


def differing(used: SessionOptions, ignored: SessionOptions) -> list[str]:
    """Return the names of the options that have no effect, because other options are used."""
    return sorted(name for name in ignored.given if getattr(used, name) != getattr(ignored, name))


def filter_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Given]:
    """Return the options of a session filter as given.

    Args:
        config: options under ``session.`` or ``beaker.session.``; if none is, all of them are options.
        options: options, with or without a prefix; they win over those in ``config``.
    """
    found = prefixed(config) if any(name.startswith(SESSION_TABLE.prefixes) for name in config) else given(config)
    return found | given(options)


def filter_defaults(global_conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of PasteDeploy's defaults that are a session's options."""
    return {name: value for name, value in global_conf.items() if name.startswith(SESSION_TABLE.prefixes)}
