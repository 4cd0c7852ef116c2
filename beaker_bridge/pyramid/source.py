"""The source of a session factory's sessions, if no middleware has put one into the environ."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any

from beaker_bridge.exceptions import SettingsError
from beaker_bridge.logs import fields
from beaker_bridge.options.reader import differing, read_options
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.pyramid.recorded_filter import recorded_config
from beaker_bridge.request.attach import begin_exchange
from beaker_bridge.request.exchange import ENVIRON_KEY, FACTORY, SessionObject
from beaker_bridge.session.config import SessionConfig

log = logging.getLogger(__name__)

NOT_CONFIGURED = (
    "no session is configured: the settings have no session. option,"
    f" and no filter has put a session into environ[{ENVIRON_KEY!r}]"
)
REMEDY = (
    "set session.type and session.secret (session.type = file, session.data_dir = …),"
    " or put the session filter into the pipeline (filter-with)"
)
#: The options that the settings may add to those of a filter.
OPEN_OPTIONS = frozenset({"cookie_on_exception", "constant_csrf_token"})


class SessionSource:
    """The options of one session factory, and the configuration that follows from them.

    Args:
        options: the options of the settings; None if they have none.
    """

    def __init__(self, options: SessionOptions | None) -> None:
        self.options = options
        self.config = SessionConfig(options) if options else None
        self.csrf_token = options.constant_csrf_token if options else None
        #: Whether the options were compared with those of a filter.
        self.compared = False
        #: The last configuration that a request was served with.
        self.met: SessionConfig | None = None
        self._lock = threading.Lock()
        #: The configuration for want of another, once it was needed.
        self.in_memory: SessionConfig | None = None

    def begin(self, environ: MutableMapping[str, Any], registry: Any) -> SessionObject:
        """Put a session object of ours into an environ that has none.

        Raises:
            SettingsError: no session is configured, and there are several processes.
        """
        config = recorded_config(registry, self.config) or self._in_memory_config(environ)
        return begin_exchange(environ, config, FACTORY)

    def _in_memory_config(self, environ: Mapping[str, Any]) -> SessionConfig:
        """Return the configuration for want of another: sessions in memory, with an error in the log.

        Raises:
            SettingsError: there are several processes.
        """
        if environ.get("wsgi.multiprocess"):
            raise SettingsError(
                f"{NOT_CONFIGURED}, and wsgi.multiprocess says that there are several processes: {REMEDY}"
            )
        with self._lock:
            if self.in_memory is None:
                log.error(
                    "%s: sessions are kept in the memory of this process, and end with it; %s",
                    *(NOT_CONFIGURED, REMEDY),
                    extra=fields(store="memory", failure="settings"),
                )
                self.in_memory = SessionConfig(read_options({}))
            return self.in_memory

    def meet(self, config: SessionConfig, registry: Any) -> None:
        """Prepare, once, to serve requests with a configuration.

        Args:
            config: the configuration.
            registry: the application's registry, or None.
        """
        config.listeners.add(registry)
        with self._lock:
            is_due = not (self.compared or config is self.config)
            self.compared |= is_due
        if is_due:
            self._compare(config.options)
        # Last, so that no request is served before the rest is done.
        self.met = config

    def _compare(self, used: SessionOptions) -> None:
        """Warn of settings that have no effect, since a filter configures the session."""
        if self.options is None:
            return
        names = ignored_settings(used, self.options)
        if names:
            log.warning(
                "a filter configures the session; the settings' own session options are ignored where they differ: %s",
                ", ".join(names),
                extra=fields(failure="settings"),
            )


def ignored_settings(used: SessionOptions, own: SessionOptions) -> list[str]:
    """Return the settings' session options that have no effect, as they are written.

    Args:
        used: the options of the filter that configures the session.
        own: those of the settings.
    """
    # Allow options that a filter does not set.
    open_options = OPEN_OPTIONS - used.given
    return [own.label(name) for name in differing(used, own) if name not in open_options]
