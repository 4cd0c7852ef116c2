"""The purge for applications and scripts: of a request's sessions, or of those of settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.reader import prefixed, read_options
from beaker_bridge.pyramid.factory import source_of
from beaker_bridge.pyramid.recorded_filter import recorded_config
from beaker_bridge.session import purge as engine
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.purge import Purged
from beaker_bridge.stores.base import BATCH


def purge(
    source: Any,
    *,
    older_than: float | None = None,
    dry_run: bool = False,
    batch: int = BATCH,
    progress: Callable[[Purged], object] | None = None,
) -> Purged:
    """Delete expired sessions from files, dbm files or an SQL database, while the site runs.

    A session that a request renews meanwhile stays, and so does a record that cannot be read. What killed processes
    have left is removed, too: unfinished files, and lock files and rows that nobody holds. A purge that was
    interrupted is simply run again.

    Redis and memcached remove expired sessions by themselves, and cookie sessions are in browsers: for these nothing is
    done. Sessions in memory are in their own process; that drops expired ones as new ones come.

    Args:
        source: the sessions: an application's settings, as
            :func:`beaker_bridge.session_factory_from_settings` takes them, or a request, also that of
            ``pyramid.paster.bootstrap``: its filter's options count then. Or a ``SessionConfig``.
        older_than: seconds without a request after which a session counts as expired, too, also where it has no
            timeout; at least ``reissue_time``.
        dry_run: whether to delete nothing, and only count.
        batch: the number of records that are read, and deleted, at once.
        progress: called after each batch with what is done so far.

    Returns:
        How many records were looked at, deleted, and left since they cannot be read, and how many files or rows of
        killed processes were removed.

    Raises:
        SessionStoreError: the store cannot be reached, or its backend cannot list its records.
        SettingsError: the options are wrong, or the source has none.
        ValueError: ``older_than`` is shorter than ``reissue_time``, or ``batch`` is below 1.
    """
    with _config_of(source) as config:
        return engine.purge(config, older_than=older_than, dry_run=dry_run, batch=batch, progress=progress)


@contextmanager
def _config_of(source: Any) -> Iterator[SessionConfig]:
    if isinstance(source, Mapping):
        options = prefixed(source)
        if not options:
            raise SettingsError("the settings have no session. option: no session is configured by them")
        config = SessionConfig(read_options(options))
        try:
            yield config
        finally:
            if config.store is not None:
                # Its connections are not the application's.
                config.store.close()
        return
    if not isinstance(source, SessionConfig):
        factory = source_of(source.registry)
        source = factory and recorded_config(source.registry, factory.config)
        if source is None:
            raise SettingsError("the request has no session of beaker_bridge's")
    yield source
