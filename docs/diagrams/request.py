"""The way of a request through each installation. A real request goes it, and what it meets is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import beaker.middleware
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.interfaces import ITweens
from pyramid.request import Request
from pyramid.response import Response

from beaker_bridge import SessionMiddleware, session_factory_from_settings
from beaker_bridge.stores.base import Swap
from beaker_bridge.stores.memory import MemoryStore
from diagrams.svg import LINE, WIDTH, Picture

OPTIONS = {"type": "memory", "key": "example", "data_serializer": "json"}
#: How the layers are called in the pictures: tweens by their names.
LAYERS = {
    "pyramid_debugtoolbar.toolbar_tween_factory": "debug toolbar",
    "beaker_bridge.session_tween_factory": "session tween",
    "pyramid_tm.tm_tween_factory": "pyramid_tm",
    "pyramid.tweens.excview_tween_factory": "exception views",
}
#: The installations, and their filters.
FILTERS: dict[str, tuple[str, Callable[..., Any]] | None] = {
    "request-filter": ("SessionMiddleware: the filter", SessionMiddleware),
    "request-beaker": ("Beaker's own filter", beaker.middleware.SessionMiddleware),
    "request-factory": None,
    "request-exception": ("SessionMiddleware: the filter", SessionMiddleware),
}
TITLES = {
    "request-filter": "A request with the filter in the pipeline",
    "request-beaker": "A request with Beaker's own filter",
    "request-factory": "A request with the session factory alone",
    "request-exception": "A request whose view raises an exception",
}


class Note(NamedTuple):
    """A thing that happened, or the beginning or the end of a layer."""

    kind: str
    text: str


class Trace(list[Note]):
    """What a request has met, in order."""

    @contextmanager
    def layer(self, name: str) -> Iterator[None]:
        """Note that a layer begins, and ends."""
        begun = Note("enter", name)
        self.append(begun)
        try:
            yield
        finally:
            if self[-1] is begun:
                # Nothing happened there.
                self.pop()
            else:
                self.append(Note("leave", name))

    def event(self, kind: str, text: str) -> None:
        """Note an event."""
        self.append(Note(kind, text))

    def look_at(self, headers: Sequence[tuple[str, str]]) -> None:
        """Note those of the session's headers that were not there before."""
        seen = " ".join(note.text for note in self)
        if added := sorted({name.title() for name, _ in headers} & {"Set-Cookie", "Vary"} - {*seen.split()}):
            self.event("later", f"adds {' and '.join(added)}")

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that notes when another one is called."""

        def traced(*arguments: Any) -> Any:
            with self.layer(name):
                return call(*arguments)

        return traced


class _Tweens:
    """Pyramid's own tweens, in their order, each of them traced."""

    def __init__(self, tweens: Any, trace: Trace) -> None:
        self._tweens = tweens
        self._trace = trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tweens, name)

    def __call__(self, handler: Callable[..., Any], registry: Any) -> Callable[..., Any]:
        for name, factory in reversed(self._tweens.implicit()):
            handler = self._trace.around(LAYERS[name], factory(handler, registry))
        return handler


def traced(name: str) -> Trace:
    """Send a request through an installation, and return what it has met."""
    trace = Trace()
    site = _site(name, trace)
    begun = Request.blank("/begin").get_response(site)
    cookie = begun.headers["Set-Cookie"].partition(";")[0]
    trace.clear()
    with _watched_store(trace, cookie.partition("=")[2]):
        Request.blank("/login", headers={"Cookie": cookie}).get_response(site)
    return trace


def _site(name: str, trace: Trace) -> Callable[..., Any]:
    """Return a site, from the server inwards."""
    config = Configurator(settings={f"session.{key}": value for key, value in OPTIONS.items()})
    config.include("pyramid_tm")
    if name == "request-factory":
        config.set_session_factory(session_factory_from_settings(config.get_settings()))
    else:
        config.include("beaker_bridge")
    for path, view in (("begin", _begin), ("login", partial(_login, trace, fails=name == "request-exception"))):
        config.add_route(path, f"/{path}")
        config.add_view(lambda request, view=view: view(request), route_name=path)
    config.add_exception_view(lambda request: _sorry(trace, request), context=LookupError)
    config.add_subscriber(lambda event: _late(trace, event), NewResponse)
    config.commit()
    registry = config.registry
    registry.registerUtility(_Tweens(registry.getUtility(ITweens), trace), ITweens)
    site = _leaving(trace, trace.around("Pyramid's router", config.make_wsgi_app()))
    if FILTERS[name] is not None:
        label, middleware = FILTERS[name]
        site = trace.around(label, middleware(site, **OPTIONS))
    return trace.around("server", _sending(trace, site))


def _begin(request: Any) -> Response:
    request.session["seen"] = 1
    return Response("")


def _login(trace: Trace, request: Any, *, fails: bool) -> Response:
    with trace.layer("view"):
        transaction = request.tm.get()
        transaction.addAfterCommitHook(lambda _status: trace.event("quiet", "the transaction is committed"))
        transaction.addAfterAbortHook(lambda: trace.event("quiet", "the transaction is aborted"))
        request.session["user"] = "ann"
        request.session.regenerate_id()
        trace.event("quiet", "changes it, and moves it to a new id")
        if fails:
            trace.event("bad", "raises an exception")
            raise LookupError
    return Response("")


def _sorry(trace: Trace, _request: Any) -> Response:
    with trace.layer("exception view"):
        trace.event("quiet", "answers with an error page")
    return Response("", status=500)


def _late(trace: Trace, event: Any) -> None:
    if event.request.path == "/login":
        with trace.layer("subscriber of NewResponse"):
            event.request.session["late"] = 1
            trace.event("quiet", "changes the session, too")


def _leaving(trace: Trace, site: Callable[..., Any]) -> Callable[..., Any]:
    """Return the application with a look at the headers with which the response leaves Pyramid."""

    def looking(environ: Any, start_response: Any) -> Any:
        def started(status: str, headers: Any, exc_info: Any = None) -> Any:
            trace.look_at(headers)
            return trace.around("start_response()", start_response)(status, headers, exc_info)

        return site(environ, started)

    return looking


def _sending(trace: Trace, site: Callable[..., Any]) -> Callable[..., Any]:
    """Return the application with a look at the headers that are sent."""

    def looking(environ: Any, start_response: Any) -> Any:
        def started(status: str, headers: Any, exc_info: Any = None) -> Any:
            trace.look_at(headers)
            return start_response(status, headers, exc_info)

        return list(site(environ, started))

    return looking


@contextmanager
def _watched_store(trace: Trace, old_id: str) -> Iterator[None]:
    """Note each operation of the store."""
    read, swap = MemoryStore.read, MemoryStore.swap
    is_swapping = False

    def reading(store: MemoryStore, session_id: str) -> Any:
        if not is_swapping:
            trace.event("first", "reads the session from the store")
        return read(store, session_id)

    def swapping(store: MemoryStore, session_id: str, record: Any, new: Any, expires_in: Any = None) -> Swap:
        nonlocal is_swapping
        is_swapping = True
        done = swap(store, session_id, record, new, expires_in)
        is_swapping = False
        assert done.made
        what = "a tombstone, under the old id" if session_id == old_id else "the session, under its new id"
        trace.event("good", f"writes {what}")
        return done

    with patch.object(MemoryStore, "read", reading), patch.object(MemoryStore, "swap", swapping):
        yield


# -- The picture -------------------------------------------------------------------------------------


def draw(name: str) -> Picture:
    """Return the picture of an installation."""
    trace = traced(name)
    picture = Picture(TITLES[name], _described(trace))
    _draw_layers(picture, trace)
    return picture


def _draw_layers(picture: Picture, trace: Trace) -> None:
    """Draw the layers as boxes, each in the one around it, with what happens in it."""
    tops: list[float] = []
    bottoms: dict[int, float] = {}
    begun: list[int] = []
    y = 0.0
    rows: list[tuple[str, float, float, str, str]] = []
    boxes: dict[int, tuple[int, float]] = {}
    for number, note in enumerate(trace):
        depth = len(tops)
        if note.kind == "enter":
            y += 4
            tops.append(y)
            begun.append(number)
            boxes[number] = depth, y
            y += LINE + 2
            rows.append(("text", _left(depth) + 8, y - 5, note.text, "strong small"))
        elif note.kind == "leave":
            y += 5
            tops.pop()
            bottoms[begun.pop()] = y
        else:
            y += LINE
            rows.append(("dot", _left(depth - 1) + 13, y - 9, "", note.kind))
            rows.append(("text", _left(depth - 1) + 22, y - 5, note.text, f"small {note.kind}"))
    for number, (depth, top) in boxes.items():
        width = WIDTH - _left(depth) - 1 - 4 * depth
        picture.box(_left(depth), top, width, bottoms[number] - top, "box" if depth % 2 else "box sheet")
    for what, x, row, text, classes in rows:
        if what == "dot":
            picture.disc(x, row, 3.5, classes)
        else:
            picture.text(x, row, text, classes)


def _left(depth: int) -> float:
    return 1 + 10 * depth


def _described(trace: Trace) -> str:
    sentences, layers = [], []
    for note in trace:
        if note.kind == "enter":
            layers.append(note.text)
        elif note.kind == "leave":
            layers.pop()
        else:
            sentences.append(f"in {layers[-1]}: {note.text}")
    order = list(dict.fromkeys(note.text for note in trace if note.kind == "enter"))
    return f"The request passes these layers: {', '.join(order)}. In this order: {'; '.join(sentences)}."


DIAGRAMS: dict[str, Callable[[], Picture]] = {name: partial(draw, name) for name in FILTERS}
