"""SQLAlchemy's engines for sessions: our own, made from a URL, or the application's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from inspect import signature
from typing import Any

from pyramid.util import DottedNameResolver
from sqlalchemy import URL, Engine, engine_from_config, event, make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import Pool, QueuePool, SingletonThreadPool

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.masking import clean, numbered
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.options.types import DOTTED, ValueType

_PREFIX = "sa."
#: A name that cannot be mistaken for an address with a password.
_NAME = re.compile(r"[\w.]+(:[\w.]+)?")


def _no_arguments(_seconds: float) -> dict[str, Any]:
    return {}


#: psycopg's argument for the number of uses after which it prepares a statement on the server.
_THRESHOLD = "prepare_threshold"
#: The arguments of a driver: the longest wait for a connection and for an answer, in seconds.
_ARGUMENTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "pysqlite": lambda seconds: {"timeout": seconds},
    # Prepare no statement: behind a pooler, another client would get the server's connection, and the statement, next.
    "psycopg": lambda seconds: {"connect_timeout": math.ceil(seconds), _THRESHOLD: None},
    "pymysql": lambda seconds: dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), seconds),
}

_SKIPS = "skip_autocommit_rollback"
#: Saves the round trip that ends a transaction: there is none. (SQLAlchemy before 2.0.43 makes it anyway.)
_NO_TRANSACTIONS: dict[str, Any] = {
    "pool_reset_on_return": None,
    **({"skip_autocommit_rollback": True} if _SKIPS in signature(DefaultDialect.__init__).parameters else {}),
}
#: Keeps open as many connections as SQLAlchemy's own pool may have, of which it closes most after each use.
_POOL = {"pool_size": 15, "max_overflow": 0}


def is_address(choice: Any) -> bool:
    """Say whether an option is the URL of a database, and not an engine or the name of a function that returns one."""
    return choice is None or isinstance(choice, URL) or (isinstance(choice, str) and "://" in choice)


def own_engine(options: SessionOptions) -> Engine:
    """Return an engine for sessions, from the options ``url`` and ``sa_opts``.

    Raises:
        SettingsError: they name no database, or a driver that is not installed, or are no options of an engine.
    """
    settings = {_PREFIX + name.removeprefix(_PREFIX): value for name, value in (options.sa_opts or {}).items()}
    label = options.label("url") if options.url is not None else _label(options, "sa.url")
    settings["sa.url"] = url = _url(options.url or settings.get("sa.url"), label)
    _convert(settings, options)
    if url.get_dialect().driver == "psycopg":
        _convert_threshold(settings, url, options, label)
    if "sa.poolclass" not in settings and issubclass(_pool_class(url), SingletonThreadPool):
        raise SettingsError(f"{label} must name a file: each thread has another SQLite database in memory", name="url")
    try:
        engine = engine_from_config(settings, _PREFIX, **_defaults(url, settings, options.store_timeout))
    except ImportError as error:
        raise SettingsError(f"{label} {_missing_driver(url, error)}", name="url") from error
    except (ArgumentError, TypeError, ValueError, AttributeError) as error:
        clean(error)
        labels = ", ".join(dict.fromkeys(_label(options, name) for name in _blamed(settings, str(error)))) or label
        # Show SQLAlchemy's message, which names the option, and the URL without its password.
        raise SettingsError(f"{labels} must be what SQLAlchemy makes an engine of: {error}", name="url") from error
    unknown = _unknown_arguments(engine.dialect, url)
    if unknown:
        raise SettingsError(f"{label} has options that {engine.dialect.driver} does not know: {unknown}", name="url")
    if engine.dialect.is_async:
        raise SettingsError(f"{label} must name a driver without asyncio, got {url.drivername}", name="url")
    if engine.dialect.driver == "psycopg":
        _bound(engine, options.store_timeout)
    return engine


def _label(options: SessionOptions, name: str) -> str:
    """Return the name of one of SQLAlchemy's options as the user wrote it: by itself, or in a dict."""
    keys = [key for key in (name, name.removeprefix(_PREFIX)) if key in (options.sa_opts or {})]
    in_dict = name not in options.labels and "sa_opts" in options.labels and keys
    return f"{options.label('sa_opts')}[{keys[0]!r}]" if in_dict else options.label(name)


def _convert(settings: dict[str, Any], options: SessionOptions) -> None:
    """Convert the values of an ``.ini`` that SQLAlchemy does not convert itself.

    Raises:
        SettingsError: one of them cannot be converted.
    """
    for name, kind in _KINDS.items():
        if isinstance(settings.get(name), str):
            try:
                settings[name] = kind.convert(settings[name])
                continue
            except (ValueError, TypeError, RecursionError):
                pass
            # Hide the value and the cause, which may quote it: it may hold a password.
            raise SettingsError(f"{_label(options, name)} must be {kind.rule}", name=name)


def _convert_threshold(settings: dict[str, Any], url: URL, options: SessionOptions, label: str) -> None:
    """Convert the threshold for prepared statements, which psycopg would take unchanged.

    Raises:
        SettingsError: it is no number, and not ``none``.
    """
    arguments = dict(settings.get("sa.connect_args", {}))
    if _THRESHOLD in arguments:
        label = _label(options, "sa.connect_args")
    elif _THRESHOLD not in url.query:
        return
    choice = arguments.get(_THRESHOLD, url.query.get(_THRESHOLD))
    if isinstance(choice, str):
        choice = None if choice.lower() == "none" else int(choice) if re.fullmatch("[0-9]{1,9}", choice) else choice
    if choice is not None and (type(choice) is not int or choice < 0):
        # Show no value of an address: it may be the beginning of a password.
        got = f", got {choice!r}" if _THRESHOLD in arguments else ""
        raise SettingsError(f"{label}: {_THRESHOLD} must be a whole number or none{got}", name="url")
    settings["sa.connect_args"] = {**arguments, _THRESHOLD: choice}


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError
    return value


_KINDS = {
    "sa.connect_args": ValueType('a JSON object, such as {"sslmode": "require"}', _json_object),
    "sa.poolclass": DOTTED,
}


def _is_cut(url: URL) -> bool:
    """Say whether SQLAlchemy ended a password at an "@" in it: each error would show the rest of it."""
    rest = (url.host or "") + ((url.database or "") if url.host and url.password is not None else "")
    return "@" in rest


def _url(choice: Any, label: str) -> URL:
    reason = ""
    try:
        url = make_url(choice)
        url.get_dialect()
    except NoSuchModuleError:
        hint = "; write postgresql://" if url.drivername == "postgres" else ""
        reason = f": it has none for {url.drivername}{hint}"
    except (ArgumentError, ValueError):
        # Hide the URL: it may hold a password.
        reason = " (dialect://user:password@host:port/database)"
    else:
        if not _is_cut(url):
            return url
        reason = ": in a name or password, @ is written as %40"
    raise SettingsError(f"{label} must be a database URL of a kind that SQLAlchemy knows{reason}", name="url")


#: Another driver of a database, which pip installs without a compiler: its name in a URL, its module, its package.
_OTHERS = {
    "postgresql": ("psycopg", "psycopg", "psycopg[binary]"),
    "mysql": ("pymysql", "pymysql", "pymysql"),
    "mariadb": ("pymysql", "pymysql", "pymysql"),
}
#: The package of a driver's module, if its name is another one.
_PACKAGES = {"MySQLdb": "mysqlclient", "mysql": "mysql-connector-python", "psycopg": "psycopg[binary]"}


def _missing_driver(url: URL, error: ImportError) -> str:
    """Return the advice for a driver that cannot be imported."""
    backend, module = url.get_backend_name(), (error.name or url.get_dialect().driver).partition(".")[0]
    told = f"needs a driver that cannot be imported ({error}): pip install {_PACKAGES.get(module, module)}"
    name, other, package = _OTHERS.get(backend, ("", module, ""))
    if other == module:
        return told
    how = "which is installed" if find_spec(other) else f"pip install {package}"
    return f"{told}, or write {backend}+{name}:// ({how})"


def _unknown_arguments(dialect: Any, url: URL) -> str:
    """Return what of a URL's query its driver does not know, as far as that can be found out without connecting."""
    given = dialect.create_connect_args(url)[1]
    known = _arguments_of(dialect)
    unknown = [name for name in given if name not in known] if known else []
    return numbered(url.query, unknown) if unknown else ""


def _arguments_of(dialect: Any) -> set[str]:
    """Return the arguments that a driver takes; an empty set if they are not known."""
    driver = dialect.loaded_dbapi
    if dialect.driver == "pymysql":
        return set(signature(driver.connections.Connection.__init__).parameters)
    if dialect.driver == "psycopg":
        # Add psycopg's own, save those that are Python objects; SQLAlchemy passes the context.
        own = {"autocommit", "context", _THRESHOLD}
        return own | {option.keyword.decode("ascii") for option in driver.pq.Conninfo.get_defaults()}
    return set()


def _blamed(settings: Mapping[str, Any], text: str) -> list[str]:
    """Return the names of the options that an error is about: its message quotes their names, or their values."""
    others = {name.removeprefix(_PREFIX): value for name, value in settings.items() if name != "sa.url"}
    return [_PREFIX + name for name, value in others.items() if f"'{name}'" in text or repr(value) in text]


def _pool_class(url: URL) -> type[Pool]:
    dialect: Any = url.get_dialect()
    return dialect.get_pool_class(url)  # type: ignore[no-any-return]


def _defaults(url: URL, settings: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return our own options of an engine, save those that the application gives."""
    defaults: dict[str, Any] = {"hide_parameters": True, **_NO_TRANSACTIONS}
    if issubclass(settings.get("sa.poolclass") or _pool_class(url), QueuePool):
        # Round up, since SQLAlchemy takes whole seconds only.
        defaults["pool_timeout"] = math.ceil(timeout)
        if "sa.pool_size" not in settings:
            defaults.update(_POOL)
    open_options = {name: value for name, value in defaults.items() if _PREFIX + name not in settings}
    bounds = _ARGUMENTS.get(url.get_dialect().driver, _no_arguments)(timeout)
    bounds = {name: value for name, value in bounds.items() if name not in url.query}
    arguments = {**bounds, **settings.get("sa.connect_args", {})}
    # Make each statement a transaction of its own: nothing here commits.
    return {**open_options, "connect_args": arguments, "isolation_level": "AUTOCOMMIT"}


def _bound(engine: Engine, timeout: float) -> None:
    from beaker_bridge.stores.postgresql import bounded

    connection_class = bounded(timeout)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        return connection_class.connect(*arguments, **options)


def application_engine(choice: Any, label: str) -> Callable[[], Engine]:
    """Return a function that returns the application's engine, with each statement a transaction of its own.

    Args:
        choice: the engine, a function that returns it, or the dotted name of either. A function is called when the
            engine is first used, since the application may make it after the session's configuration.
        label: the name of the option.

    Raises:
        SettingsError: the choice is none of them.
    """
    cause: Exception | None = None
    try:
        found = DottedNameResolver(None).maybe_resolve(choice)
    except (ImportError, ValueError) as error:
        found = None
        # Show the cause for a name only: another text may be an address with a password.
        cause = error if _NAME.fullmatch(choice) else None
    if not (isinstance(found, Engine) or callable(found)):
        raise _no_engine(label) from cause

    def engine() -> Engine:
        made = found if isinstance(found, Engine) else found()
        if not isinstance(made, Engine):
            raise _no_engine(label)
        return made.execution_options(isolation_level="AUTOCOMMIT")

    return engine


def _no_engine(label: str) -> SettingsError:
    return SettingsError(
        f"{label} must be a database URL, an engine of SQLAlchemy's, or a function that returns one, or its dotted"
        " name",
        name="url",
    )
