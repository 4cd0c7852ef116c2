"""SQLAlchemy's engines for sessions: of our own from a URL, or the application's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from pyramid.util import DottedNameResolver
from sqlalchemy import URL, Engine, engine_from_config, event, make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import Pool, QueuePool, SingletonThreadPool

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.settings import SessionOptions

_PREFIX = "sa."


def _no_timeouts(_seconds: float) -> dict[str, Any]:
    return {}


#: The arguments by which a driver is told how long it may connect, and wait, in seconds.
_TIMEOUTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "pysqlite": lambda seconds: {"timeout": seconds},
    "psycopg": lambda seconds: {"connect_timeout": math.ceil(seconds)},
    "pymysql": lambda seconds: dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), seconds),
}

_SKIPS = "skip_autocommit_rollback"
#: There never is a transaction to end: no round trip for that. (SQLAlchemy before 2.0.43 makes one.)
_NO_TRANSACTIONS: dict[str, Any] = {
    "pool_reset_on_return": None,
    **({"skip_autocommit_rollback": True} if _SKIPS in signature(DefaultDialect.__init__).parameters else {}),
}
#: As many connections as SQLAlchemy's own pool has at most: it would close most of them after each use.
_POOL = {"pool_size": 15, "max_overflow": 0}


def is_address(choice: Any) -> bool:
    """Say whether an option is a database's URL: no engine, and no name of a function that returns one."""
    return choice is None or isinstance(choice, URL) or (isinstance(choice, str) and "://" in choice)


def own_engine(options: SessionOptions) -> Engine:
    """Return an engine for sessions, from the options ``url`` and ``sa_opts``.

    Raises:
        SettingsError: they name no database, or no driver that is installed, or are no engine's options.
    """
    settings = {_PREFIX + name.removeprefix(_PREFIX): value for name, value in (options.sa_opts or {}).items()}
    settings["sa.url"] = url = _url(options.url or settings.get("sa.url"))
    if "sa.poolclass" not in settings and issubclass(_pool_class(url), SingletonThreadPool):
        raise SettingsError("url must name a file: each thread has another SQLite database in memory", name="url")
    try:
        engine = engine_from_config(settings, _PREFIX, **_defaults(url, settings, options.store_timeout))
    except (ArgumentError, ImportError, TypeError, ValueError) as error:
        # SQLAlchemy's text names the driver or the option, and the URL without its password.
        raise SettingsError(
            f"url and sa_opts must be what SQLAlchemy makes an engine of: {error}", name="url"
        ) from error
    if engine.dialect.driver == "psycopg":
        _bound(engine, options.store_timeout)
    return engine


def _url(choice: Any) -> URL:
    try:
        url = make_url(choice)
        url.get_dialect()
    except (ArgumentError, ValueError):
        # The text itself may hold a password.
        raise SettingsError("url must be a database URL of a kind that SQLAlchemy knows", name="url") from None
    return url


def _pool_class(url: URL) -> type[Pool]:
    dialect: Any = url.get_dialect()
    return dialect.get_pool_class(url)  # type: ignore[no-any-return]


def _defaults(url: URL, settings: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return the engine's options of our own, save those that the application gives."""
    defaults: dict[str, Any] = {"hide_parameters": True, **_NO_TRANSACTIONS}
    if issubclass(settings.get("sa.poolclass") or _pool_class(url), QueuePool):
        # SQLAlchemy takes whole seconds only.
        defaults["pool_timeout"] = math.ceil(timeout)
        if "sa.pool_size" not in settings:
            defaults.update(_POOL)
    open_options = {name: value for name, value in defaults.items() if _PREFIX + name not in settings}
    bounds = _TIMEOUTS.get(url.get_dialect().driver, _no_timeouts)(timeout)
    bounds = {name: value for name, value in bounds.items() if name not in url.query}
    arguments = {**bounds, **settings.get("sa.connect_args", {})}
    # Nobody commits: each statement is a transaction of its own.
    return {**open_options, "connect_args": arguments, "isolation_level": "AUTOCOMMIT"}


def _bound(engine: Engine, timeout: float) -> None:
    from beaker_bridge.stores.bounded_psycopg import bounded

    connection_class = bounded(timeout)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        return connection_class.connect(*arguments, **options)


def application_engine(choice: Any) -> Callable[[], Engine]:
    """Return what returns the application's engine, with each statement a transaction of its own.

    Args:
        choice: the engine, a function that returns it, or the dotted name of either. A function is
            called when the engine is first used: it may be made after the session's configuration.

    Raises:
        SettingsError: it is none of them.
    """
    try:
        found = DottedNameResolver(None).maybe_resolve(choice)
    except (ImportError, ValueError) as error:
        raise _no_engine(choice) from error
    if not (isinstance(found, Engine) or callable(found)):
        raise _no_engine(choice)

    def engine() -> Engine:
        made = found if isinstance(found, Engine) else found()
        if not isinstance(made, Engine):
            raise _no_engine(choice)
        return made.execution_options(isolation_level="AUTOCOMMIT")

    return engine


def _no_engine(choice: Any) -> SettingsError:
    return SettingsError(
        "url or bind must be a database URL, an engine of SQLAlchemy's, or a function that returns one,"
        f" got {choice!r}",
        name="url",
    )
