"""The checks that need a started application: its session factory, and the order of its tweens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any, NamedTuple

from beaker.middleware import SessionMiddleware as BeakerSessionMiddleware
from pyramid.interfaces import ITweens
from pyramid.router import Router
from pyramid.tweens import EXCVIEW

from beaker_bridge.cli.findings import RISKY, WRONG, Finding
from beaker_bridge.middleware import SessionMiddleware
from beaker_bridge.options.table import SessionOptions
from beaker_bridge.pyramid.factory import source_of
from beaker_bridge.pyramid.recorded_filter import wrapped_applications
from beaker_bridge.pyramid.tween import NAME, TM, session_tween_factory
from beaker_bridge.site.find import Site


class Started(NamedTuple):
    """The findings of a started application."""

    findings: list[Finding]
    #: The names of the tweens, the outermost first.
    tweens: list[str]
    #: The options of a session factory that the application itself has set; None if it has none of ours.
    options: SessionOptions | None


def start(site: Site) -> Started:
    """Start a site's application, and look at it.

    Args:
        site: the site.
    """
    try:
        # Keep what the application prints out of the command's result.
        with redirect_stdout(sys.stderr):
            application = site.start()
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- an application may raise anything
        return Started([Finding(WRONG, "start", f"the application does not start: {_text(error)}")], [], None)
    router = next(_routers(application), None)
    if router is None:
        text = "no Pyramid application was found in what the file names: the tweens are not seen"
        return Started([Finding(RISKY, "no-pyramid", text)], [], None)
    registry = router.registry
    source = source_of(registry)
    tweens = registry.queryUtility(ITweens)
    order = [*(tweens.explicit or tweens.implicit())] if tweens else []
    found = [*_tween_findings(order), *_factory_findings(site, source)]
    return Started(found, [name for name, _ in order], source.options if source else None)


def _routers(application: Any) -> Iterator[Router]:
    """Yield the Pyramid applications in a WSGI application, also those in a session filter."""
    # A session filter is not looked into by that function: of two, the inner one makes a request's session.
    while isinstance(application, (SessionMiddleware, BeakerSessionMiddleware)):
        application = application.app
    for each in wrapped_applications(application):
        if isinstance(each, Router):
            yield each
        elif isinstance(each, (SessionMiddleware, BeakerSessionMiddleware)):
            yield from _routers(each)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _factory_findings(site: Site, source: Any) -> Iterator[Finding]:
    if source is None:
        text = (
            "the application's session factory is none of ours: request.session is another package's, or there is none;"
            " write beaker_bridge into pyramid.includes"
        )
        yield Finding(WRONG if site.filter is None else RISKY, "no-factory", text)


def _tween_findings(order: list[tuple[str, Any]]) -> Iterator[Finding]:
    """Yield what is wrong with the order of the tweens; an explicit one that is wrong does not start at all."""
    factories = [factory for _, factory in order]
    if session_tween_factory not in factories:
        text = (
            f"the tween {NAME} is missing: a failure to save the session cannot become an error page;"
            " write beaker_bridge into pyramid.includes"
        )
        yield Finding(RISKY, "no-tween", text)
        return
    over = [name for name, _ in order[: factories.index(session_tween_factory)]]
    for name in (EXCVIEW, TM):
        if name in over:
            yield Finding(WRONG, "tween-order", f"the tween {NAME} is under {name}, and must be over it")
