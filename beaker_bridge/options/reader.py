"""Reads the options of sessions: prefixes, conversion, unknown names, and what is worth a warning at the start.

Strings from an ``.ini`` are converted. A wrong value is a fault that names the option as it was written, the rule and
the value; all faults are raised at once. What is harmless, and yet not what somebody may expect, is logged once.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.once import log_once
from beaker_bridge.options.masking import without_address
from beaker_bridge.options.rules import (
    COOKIE,
    FILE,
    KNOWN_TYPES,
    MEMORY,
    backend_exists,
    broken_rules,
    type_of_address,
)
from beaker_bridge.options.table import ENGINE, PREFIXES, TABLE, Empty, SessionOptions, is_secret, parted
from beaker_bridge.options.types import MAX_SECONDS, Kind, OpenError, is_empty

log = logging.getLogger(__name__)

_IGNORED = "it is ignored: remove it"
_FALSE = "that is false, as it was for Beaker: write false, or remove it"
#: What to say of an option that may be an empty text, and is.
_EMPTIES = {
    name: _FALSE if entry.metadata["empty"] is Empty.FALSE else _IGNORED
    for name, entry in TABLE.items()
    if entry.metadata["empty"] is not Empty.WRONG
}


# -- What was given -----------------------------------------------------------------------------------


class Given(NamedTuple):
    """One option as somebody gave it: under which name, with which value, and how strictly held."""

    label: str
    value: Any
    strict: bool = True
    #: The same option, given under another prefix, too.
    also: Given | None = None

    def __repr__(self) -> str:
        # The value may be a secret.
        return f"Given({self.label!r}, …)"


def prefixed(settings: Mapping[str, Any]) -> dict[str, Given]:
    """Return the options that stand in an application's settings, by their names without prefix."""
    found: dict[str, Given] = {}
    for label, value in settings.items():
        name, prefix = parted(label) if isinstance(label, str) else ("", "")
        if prefix:
            also = found.get(name)
            strict = prefix != PREFIXES[0] or (also is not None and also.strict)
            found[name] = Given(label, value, strict, also)
    return found


def given(options: Mapping[str, Any], *, strict: bool = True) -> dict[str, Given]:
    """Return options that were given in Python, or in a filter's section, with or without prefix.

    Args:
        options: the options.
        strict: whether one that nobody knows stops the start, as in a filter's section; else it is warned about.
    """
    found: dict[str, Given] = {}
    for label, value in options.items():
        name, _ = parted(label)
        found[name] = Given(label, value, strict, also=found.get(name))
    return found


def read_options(options: Mapping[str, Given], *, quiet: bool = False) -> SessionOptions:
    """Convert and check options. What is harmless, and yet not what somebody may expect, is logged once.

    Args:
        options: what was given, by name.
        quiet: log nothing, since the same options are read elsewhere, too.

    Returns:
        The table, filled.

    Raises:
        SettingsError: one or more of them are wrong; its ``errors`` are all of the faults.
    """
    values, errors = _converted({name: option for name, option in options.items() if name in TABLE})
    unused = _unused(options, values)
    errors = [error for error in errors if error.name not in unused]
    rest = {name: option for name, option in options.items() if name not in TABLE}
    errors.extend(_refused(rest))
    engine = {name: rest.pop(name).value for name in list(rest) if name.startswith(ENGINE)}
    engine = {name: value for name, value in engine.items() if not is_empty(value)}
    if engine:
        values["sa_opts"] = {**(values.get("sa_opts") or {}), **engine}
    known = _knows_its_arguments(values)
    checked = _table(values, {} if known else rest, options)
    unknown = list(_unknown(rest)) if known else []
    errors.extend(error for error, stops in unknown if stops)
    errors.extend(_faults(checked, options, {error.name for error in errors}))
    if errors:
        raise SettingsError.of(errors)
    if not quiet:
        told = {error.name for error, _ in unknown}
        twice = _given_twice({name: option for name, option in options.items() if name not in told})
        notices = [*twice, *_empty(options), *_reread(options, checked), *_useless(unused, checked)]
        notices.extend(Notice(logging.WARNING, f"{error}; it is ignored") for error, _ in unknown)
        _log(notices, options)
    return checked


def _table(values: Mapping[str, Any], others: Mapping[str, Given], options: Mapping[str, Given]) -> SessionOptions:
    # What Beaker's own middleware hands over as not given stands in no file.
    labels = {name: option.label for name, option in options.items() if option.value is not None}
    return SessionOptions(
        **values,
        backend_arguments={name: option.value for name, option in others.items()},
        given=frozenset(name for name in values if name not in options or _is_given(name, options[name])),
        labels=labels,
        prefix=parted(labels.get("type") or next(iter(labels.values()), ""))[1],
    )


def _knows_its_arguments(values: Mapping[str, Any]) -> bool:
    """Say whether the table holds all options of the backend; of one that does not exist nobody knows more."""
    kind = values.get("type") or MEMORY
    return not values.get("namespace_class") and (kind in KNOWN_TYPES or not backend_exists(kind))


def _is_given(name: str, option: Given) -> bool:
    """Say whether an option was given: None, as Python's and Beaker's defaults have it, and an empty text are none."""
    if is_empty(option.value):
        return _meaning_of_empty("sa_opts" if name.startswith(ENGINE) else name) is not Empty.DEFAULT
    return option.value is not None or name == "samesite"


def _unused(options: Mapping[str, Given], values: Mapping[str, Any]) -> dict[str, Given]:
    """Return the options that the type does not use, whatever their values."""
    if "type" in options and "type" not in values:
        # A wrong one: nobody knows which was meant.
        return {}
    has_directory = "data_dir" in options and options["data_dir"].value is not None
    kind = values.get("type") or (FILE if has_directory else MEMORY)
    if kind not in KNOWN_TYPES or (kind != COOKIE and values.get("namespace_class")):
        return {}
    return {name: option for name, option in options.items() if kind not in _types_of(name) and _is_given(name, option)}


def _types_of(name: str) -> frozenset[str]:
    """Return the types for which an option counts."""
    if name.startswith(ENGINE):
        name = "sa_opts"
    types: frozenset[str] = TABLE[name].metadata["types"] if name in TABLE else KNOWN_TYPES
    return types


def _meaning_of_empty(name: str) -> Empty:
    meaning: Empty = TABLE[name].metadata["empty"]
    return meaning


def _converted(options: Mapping[str, Given]) -> tuple[dict[str, Any], list[SettingsError]]:
    """Return the options' values, and what is wrong with the others."""
    values: dict[str, Any] = {}
    errors: list[SettingsError] = []
    for name, option in options.items():
        try:
            values[name] = _value(name, option)
        except SettingsError as error:
            errors.append(error)
    return values, errors


def _value(name: str, option: Given) -> Any:
    return _convert(name, option) if _is_given(name, option) else TABLE[name].default


def _convert(name: str, option: Given) -> Any:
    kind: Kind = TABLE[name].metadata["kind"]
    if is_empty(option.value) and _meaning_of_empty(name) is Empty.FALSE:
        return False
    try:
        return kind.convert(option.value)
    except (ValueError, TypeError, OverflowError) as error:
        reason = error
    # Outside of the except block, since an error that is handled there would be the new one's context:
    # what a converter says may quote a secret.
    why = str(reason) if isinstance(reason, OpenError) else ""
    is_quoted = is_secret(name) or without_address(option.value) is not option.value
    raise _error(option.label, name, kind.rule, option.value, why) from None if is_quoted else reason


def _error(label: str, name: str, rule: str, value: object, why: str = "") -> SettingsError:
    hidden, value = is_secret(name), without_address(value)
    message = f"{label} must be {rule}, got {_shown(value, hidden=hidden)}"
    return SettingsError(f"{message}: {why}" if why else message, name=name, value=None if hidden else value)


def _shown(value: object, *, hidden: bool) -> str:
    if value is None:
        return "nothing"
    if is_empty(value):
        return "an empty text"
    if isinstance(value, bool) or not hidden:
        return repr(value)
    form = "" if isinstance(value, str) else f" of type {type(value).__name__}"
    return f"a value{form} that is not shown"


def _refused(rest: dict[str, Given]) -> Iterator[SettingsError]:
    """Take out an option of Beaker's that has another way here, and yield the error that names that way."""
    option = rest.pop("session_class", None)
    if option is not None and option.value is not None:
        way = (
            "subclass what session_factory_from_settings() or BeakerSessionFactoryConfig() returns, and set that class"
        )
        yield SettingsError(
            f"{option.label} is no option that beaker_bridge knows: {way} as the session factory", name="session_class"
        )


def _unknown(rest: Mapping[str, Given]) -> Iterator[tuple[SettingsError, bool]]:
    """Yield an error for each option that nobody knows, and whether it stops the start."""
    for name, option in rest.items():
        others = _others_name(name)
        near = [] if others else difflib.get_close_matches(name.lower(), TABLE, n=1, cutoff=0.8)
        hint = "".join(f"; did you mean {option.label.removesuffix(name)}{own}?" for own in others or near)
        message = f"{option.label} is no option that beaker_bridge knows{hint}"
        # Beaker ignored another framework's name, and so may we; a typing error is none that anybody wants.
        yield SettingsError(message, name=name), option.strict or bool(near)


#: What other frameworks call what we call otherwise; also with ``session_`` before it.
_OTHERS_NAMES = {
    "age": "cookie_expires",
    "backend": "type",
    "cookie_age": "cookie_expires",
    "cookie_httponly": "httponly",
    "cookie_key": "key",
    "cookie_lifetime": "cookie_expires",
    "cookie_max_age": "cookie_expires",
    "cookie_name": "key",
    "cookie_samesite": "samesite",
    "cookie_secret": "secret",
    "cookie_secure": "secure",
    "cookie_signature": "secret",
    "db": "url",
    "directory": "data_dir",
    "domain": "cookie_domain",
    "engine": "type",
    "expire": "timeout",
    "expires": "cookie_expires",
    "file_path": "data_dir",
    "hashalg": "sign_algorithm",
    "host": "url",
    "idle_timeout": "timeout",
    "lifetime": "cookie_expires",
    "max_age": "cookie_expires",
    "name": "key",
    "path": "cookie_path",
    "permanent_lifetime": "cookie_expires",
    "port": "url",
    "prefix": "key_prefix",
    "redis_url": "url",
    "secret_key": "secret",
    "serializer": "data_serializer",
    "set_on_exception": "cookie_on_exception",
    "signing_key": "secret",
    "timeout_trigger": "reissue_time",
}


def _others_name(name: str) -> list[str]:
    """Return our name of what another framework calls so, if there is one."""
    full = name.lower().replace(".", "_")
    word = full.removeprefix("session_")
    return [_OTHERS_NAMES[word]] if word in _OTHERS_NAMES else [word] if word in TABLE and word != full else []


# -- What is logged at the start ---------------------------------------------------------------------


class Notice(NamedTuple):
    """Something that is harmless, and yet not what somebody may expect."""

    level: int
    message: str


def _log(notices: Iterable[Notice], options: Mapping[str, Given]) -> None:
    # An application's own factory and its include read the same options; another application's are others.
    about = hash(tuple((option.label, _identity(option.value)) for option in options.values()))
    for level, message in notices:
        log_once(log, level, message, about)


def _identity(value: object) -> object:
    return value if isinstance(value, (str, int, float)) else id(value)


def _given_twice(options: Mapping[str, Given]) -> Iterator[Notice]:
    """Yield the options that were given under several prefixes, differently: as for Beaker, the last one counts."""
    for name, option in options.items():
        other = option.also
        while other is not None:
            if not _mean_the_same(name, option, other):
                counts = f"{option.label} counts, which comes later; remove one of them"
                yield Notice(logging.WARNING, f"{other.label} and {option.label} differ: {counts}")
            other = other.also


def _mean_the_same(name: str, one: Given, other: Given) -> bool:
    # Beaker's own middleware hands over both, one of them converted.
    try:
        return bool(_value(name, one) == _value(name, other) if name in TABLE else one.value == other.value)
    except SettingsError:
        return False


def _empty(options: Mapping[str, Given]) -> Iterator[Notice]:
    for name, option in options.items():
        if is_empty(option.value) and name in _EMPTIES:
            yield Notice(logging.WARNING, f"{option.label} is an empty text; {_EMPTIES[name]}")
        elif is_empty(option.value) and name.startswith(ENGINE):
            yield Notice(logging.WARNING, f"{option.label} is an empty text; {_IGNORED}")


def _reread(options: Mapping[str, Given], checked: SessionOptions) -> Iterator[Notice]:
    """Yield what counts otherwise than it looks."""
    option = options.get("cookie_expires")
    value = option.value.strip() if option and isinstance(option.value, str) else None
    for number, word, meaning in (("0", "false", "never expires"), ("1", "true", "ends with the browser")):
        if option and value == number:
            yield Notice(
                logging.WARNING,
                f"{option.label} = {number} is {word}, as it was for Beaker: the cookie {meaning};"
                f" write {word}, or a number of seconds",
            )
    option = options.get("use_cookies")
    # For Beaker a text that is not empty is true, and a cookie session never asks.
    seen = option is None or is_empty(option.value) or not (isinstance(option.value, str) or checked.type == COOKIE)
    if option and not (seen or checked.use_cookies):
        yield Notice(
            logging.WARNING,
            f"{option.label} is false, which Beaker did not see: no cookie is read or sent, so that each request has a"
            " session of its own; remove it, unless the application carries the ids itself",
        )
    for name in ("timeout", "cookie_expires"):
        option = options.get(name)
        if option and getattr(checked, name) == MAX_SECONDS and str(option.value).strip() != str(MAX_SECONDS):
            yield Notice(logging.WARNING, f"{option.label} is more than 68 years, and counts as {MAX_SECONDS} seconds")


def _useless(unused: Mapping[str, Given], checked: SessionOptions) -> Iterator[Notice]:
    """Yield the options that the type does not use, as one."""
    kind, type_label = checked.type, checked.label("type", *unused)
    labels = ", ".join(option.label for option in unused.values())
    meant = None if "type" in checked.given else _type_of(unused)
    if meant:
        where = "in memory, and lost when the process ends" if kind == MEMORY else f"in {checked.label('data_dir')}"
        level = logging.ERROR if kind == MEMORY else logging.WARNING
        yield Notice(level, f"{labels} without {type_label}: sessions are kept {where}; set {type_label} = {meant}")
    elif unused:
        ignored = _IGNORED if len(unused) == 1 else "they are ignored: remove them"
        yield Notice(logging.WARNING, f"{labels}: not used where {type_label} = {kind}; {ignored}")


def _type_of(options: Mapping[str, Given]) -> str | None:
    """Return the type to which an address belongs, if one of the options is an address."""
    found = (type_of_address(name, option.value) for name, option in options.items())
    return next((kind for kind in found if kind), None)


# -- Rules between options ---------------------------------------------------------------------------


def _faults(checked: SessionOptions, options: Mapping[str, Given], wrong: set[str | None]) -> Iterator[SettingsError]:
    """Yield the faults between options, save those about an option that is wrong by itself."""
    for fault in broken_rules(checked):
        if wrong.isdisjoint((fault.name, *fault.others)):
            option = options.get(fault.name)
            value = option.value if option and is_empty(option.value) else getattr(checked, fault.name)
            yield _error(checked.label(fault.name, *fault.others), fault.name, fault.rule, value)


def differing(used: SessionOptions, ignored: SessionOptions) -> list[str]:
    """Return the names of the options that were given to no effect, since another table is used."""
    return sorted(name for name in ignored.given if getattr(used, name) != getattr(ignored, name))
