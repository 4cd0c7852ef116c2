"""The session factories."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pyramid.interfaces import ISessionFactory
from zope.interface import directlyProvides

from beaker_bridge.logs import fields
from beaker_bridge.options.reader import Given, given, prefixed, read_options
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.pyramid.isession import RequestSession
from beaker_bridge.pyramid.source import SessionSource

log = logging.getLogger(__name__)


def BeakerSessionFactoryConfig(**options: Any) -> type[RequestSession]:  # noqa: N802 -- pyramid_beaker's name
    """Return a Pyramid session factory: a class, which an application may subclass.

    Args:
        options: the session options, without a prefix.

    Raises:
        SettingsError: one or more options are wrong.
    """
    if not options:
        message = "sessions are kept in memory, under ids without a signature: no option is given"
        log.warning(message, extra=fields(store="memory", failure="settings"))
    # Allow unknown options with a warning: pyramid_beaker ignored them.
    return _session_factory(read_options(given(options, strict=False)))


def session_factory_from_settings(settings: Mapping[str, Any]) -> type[RequestSession]:
    """Return a Pyramid session factory: a class, which an application may subclass.

    Args:
        settings: an application's settings; those under ``session.`` and ``beaker.session.`` count.
            If there are none, a filter in the pipeline configures the session, else it is kept in memory.

    Raises:
        SettingsError: one or more options are wrong.
    """
    found: dict[str, Given] = prefixed(settings)
    return _session_factory(read_options(found) if found else None)


def _session_factory(options: SessionOptions | None) -> type[RequestSession]:
    """Return the class of one configuration's sessions, under the name that it has in pyramid_beaker."""
    members = {
        "__slots__": (),
        "__module__": "beaker_bridge",
        "__doc__": RequestSession.__doc__,
        "options": options,
        "_source": SessionSource(options),
    }
    factory: type[RequestSession] = type("PyramidBeakerSessionObject", (RequestSession,), members)
    directlyProvides(factory, ISessionFactory)
    return factory


def source_of(registry: Any) -> SessionSource | None:
    """Return the source of an application's sessions; None if its session factory is not ours."""
    factory = registry.queryUtility(ISessionFactory)
    return factory._source if isinstance(factory, type) and issubclass(factory, RequestSession) else None
