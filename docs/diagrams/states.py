"""The life of a session as state diagrams.

Real sessions go through them: no arrow is missing, and none is drawn that the code does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

from beaker_bridge import revoke
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.record.fields import END_REASON, MOVED
from beaker_bridge.session.base import MOVED_FOR
from beaker_bridge.session.config import SessionConfig
from beaker_bridge.session.purge import purge
from beaker_bridge.session.state import CHANGED, FORCED
from diagrams.overlap import Visit
from diagrams.svg import Picture

#: Of the sites here, in seconds: a session's idle timeout, and when its access time is renewed.
TIMEOUT, RENEWED = 1200, 600
#: From which state, by what, to which state.
Arrow = tuple[str, str, str]


class Site:
    """A site with a clock of its own, one browser, and a request of it that is under way."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        secret = "a secret for the examples of the documentation"  # noqa: S105 -- it protects nobody
        options = {"type": "memory", "key": "example", "secret": secret, "timeout": TIMEOUT, "clock": self._clock}
        self.config = SessionConfig(read_options(given(options)))
        self.cookie = ""
        self.visit = self.begin()

    def _clock(self) -> float:
        return self.now

    def begin(self) -> Visit:
        """Begin a request with the browser's cookie."""
        return Visit(self.config, self.cookie)

    def visited(self, change: Callable[[Visit], object] = bool) -> None:
        """Make a whole request, and keep the cookie that it sets."""
        visit = self.begin()
        change(visit)
        self.cookie = visit.end() or self.cookie


def _change(visit: Visit) -> None:
    visit.session["changes"] = visit.session.get("changes", 0) + 1


def _regenerate(visit: Visit) -> None:
    visit.session.regenerate_id()


def _invalidate(visit: Visit) -> None:
    visit.session.invalidate()


# -- A session in one request ------------------------------------------------------------------------


def _end_elsewhere(site: Site) -> None:
    other = site.begin()
    other.session.invalidate()
    other.end()
    site.visit.commit()


#: What may happen to a session in a request.
EVENTS: dict[str, Callable[[Site], object]] = {
    "change": lambda site: _change(site.visit),
    "regenerate_id()": lambda site: _regenerate(site.visit),
    "invalidate()": lambda site: _invalidate(site.visit),
    "commit": lambda site: site.visit.commit(),
    "commit, ended elsewhere": _end_elsewhere,
}


def _new(site: Site) -> None:
    """Begin a request without a cookie, as each site does."""


def _read(site: Site) -> None:
    """Begin a request that finds a session."""
    site.visited(_change)
    site.visit = site.begin()


def _read_later(site: Site) -> None:
    """Begin a request that finds a session whose time is to be renewed."""
    site.visited(_change)
    site.now += RENEWED
    site.visit = site.begin()


#: How a request begins.
BEGINNINGS = (_new, _read, _read_later)
#: The states of a session that has a record.
STORED = ("unchanged", "due", "changed")


def state_of(site: Site) -> str:
    """Return the state of the session of the request that is under way."""
    state = site.visit.state
    is_changed = bool(state.pending & (CHANGED | FORCED))
    if state.detached:
        return "detached"
    if state.moved_from:
        return "moving"
    if state.record is None:
        if is_changed and site.visit.session:
            return "begun"
        return "ended" if state.retired else "new"
    return "changed" if is_changed else "due" if state.pending else "unchanged"


def after(beginning: Callable[[Site], None], events: tuple[str, ...]) -> list[str]:
    """Return the states of a session: when its request begins, and after each event."""
    site = Site()
    beginning(site)
    states = [state_of(site)]
    for event in events:
        EVENTS[event](site)
        states.append(state_of(site))
    return states


def arrows() -> frozenset[Arrow]:
    """Return all arrows between the states of a session in a request."""
    ways: dict[str, tuple[Callable[[Site], None], tuple[str, ...]]] = {}
    found = set()
    to_visit = [(beginning, ()) for beginning in BEGINNINGS]
    for beginning, events in to_visit:
        state = after(beginning, events)[-1]
        if state in ways:
            continue
        ways[state] = beginning, events
        for event in EVENTS:
            way = (beginning, (*events, event))
            found.add((state, event, after(*way)[-1]))
            to_visit.append(way)
    # Leave out what the end elsewhere makes no difference to.
    same = {(one, "commit, ended elsewhere", other) for one, event, other in found if event == "commit"}
    return frozenset(found - same)


class Drawn(NamedTuple):
    """How an arrow is drawn: its path, and where its label is."""

    path: str
    x: float
    y: float
    anchor: str = ""


#: The width of a state's box.
NODE = 120
NODES = {
    "new": (14, 24, "new"),
    "begun": (246, 24, "new, with data"),
    "unchanged": (30, 150, "as it was read"),
    "changed": (240, 116, "changed"),
    "due": (240, 196, "its time is due"),
    "moving": (14, 304, "moving"),
    "ended": (246, 304, "ended"),
    "detached": (150, 404, "detached"),
}
#: The arrows that the picture has; "stored" are those three states that have a record, together.
ARROWS: dict[Arrow, Drawn] = {
    ("new", "change", "begun"): Drawn("M134 41 H246", 190, 35, anchor="middle"),
    ("begun", "commit", "unchanged"): Drawn("M246 52 L118 150", 200, 78, anchor="end"),
    ("unchanged", "change", "changed"): Drawn("M150 158 L240 134", 186, 136, anchor="middle"),
    ("changed", "commit", "unchanged"): Drawn("M240 142 L150 167", 202, 171, anchor="middle"),
    ("due", "commit", "unchanged"): Drawn("M240 210 L150 180", 182, 208, anchor="middle"),
    ("due", "change", "changed"): Drawn("M310 196 V150", 316, 178),
    ("stored", "regenerate_id()", "moving"): Drawn("M104 246 V304", 110, 278),
    ("moving", "commit", "unchanged"): Drawn("M50 304 V184", 56, 278),
    ("stored", "invalidate()", "ended"): Drawn("M320 246 V304", 314, 278, anchor="end"),
    ("ended", "change", "begun"): Drawn("M366 321 H375 V41 H366", 369, 296, anchor="end"),
    ("ended", "commit", "new"): Drawn("M358 336 V456 H5 V41 H14", 352, 356, anchor="end"),
    ("changed", "commit, ended elsewhere", "detached"): Drawn("M256 150 L222 196 V404", 0, 0),
    ("moving", "commit, ended elsewhere", "detached"): Drawn("M96 338 L164 404", 227, 374),
    ("detached", "regenerate_id()", "moving"): Drawn("M150 421 H46 V338", 46, 438),
}
#: The arrows that are not drawn, and said on the page instead.
SAID = {("moving", "invalidate()", "ended"), ("detached", "invalidate()", "ended"), ("begun", "invalidate()", "new")}


def expected() -> frozenset[Arrow]:
    """Return the arrows that the picture shows, those of "stored" for each of its states, and those that are said."""
    shown = {
        (one, event, other) for start, event, other in ARROWS for one in (STORED if start == "stored" else (start,))
    }
    return frozenset(shown | SAID)


def draw_request() -> Picture:
    """Return the picture of a session in one request."""
    found = {arrow for arrow in arrows() if arrow[0] != arrow[2]}
    assert found == expected(), found ^ expected()
    sentences = "; ".join(f"from {one} by {event} to {other}" for one, event, other in sorted(found))
    picture = Picture("The states of a session in one request", f"The session goes {sentences}.")
    picture.box(18, 88, 350, 158, "box")
    picture.text(28, 106, "it has a record", "small strong quiet")
    _draw(picture, NODES, ARROWS)
    picture.height = max(picture.height, 460)
    return picture


# -- An id in the store ------------------------------------------------------------------------------


def kind_of(site: Site, session_id: str) -> str:
    """Return what the store holds under an id."""
    record = site.config.store.read(session_id)
    content = {} if record is None else site.config.codec.decode(record.raw)[0]
    if MOVED in content:
        return "tombstone"
    return "end marker" if END_REASON in content else "live" if content else "none"


class Life(Site):
    """The life of one id in the store, and its way through it."""

    def __init__(self) -> None:
        super().__init__()
        self.arrows: list[Arrow] = []
        self.visited(_change)
        self.id = self.begin().state.id
        self.arrows.append(("none", "first change", self._kind()))

    def _kind(self) -> str:
        return kind_of(self, self.id)

    def then(self, name: str, happen: Callable[[], object]) -> None:
        """Let something happen, and note what the id leads to afterwards."""
        before = self._kind()
        happen()
        self.arrows.append((before, name, self._kind()))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and purge the store."""
        self.now += seconds
        purge(self.config)


def lives() -> frozenset[Arrow]:
    """Return the arrows between what a store may hold under an id."""
    found: list[Arrow] = []

    life = Life()
    life.then("change, visit", partial(life.visited, _change))
    life.then("logout", partial(life.visited, _invalidate))
    found += life.arrows

    life = Life()
    life.then("its time is over", partial(life.pass_time, TIMEOUT + 1))
    found += life.arrows

    life = Life()
    slow = life.begin()
    life.then("regenerate_id()", partial(life.visited, _regenerate))
    _invalidate(slow)
    life.then("logout", slow.end)
    found += life.arrows

    life = Life()
    life.then("regenerate_id()", partial(life.visited, _regenerate))
    life.then("300 seconds", partial(life.pass_time, MOVED_FOR + 1))
    found += life.arrows

    life = Life()
    life.visited(lambda visit: visit.session.bind("ann"))
    life.id = life.begin().state.id
    life.then("revoke()", lambda: revoke(SimpleNamespace(session=life.begin().session), "ann"))
    life.then("its time is over", partial(life.pass_time, 2 * TIMEOUT))
    return frozenset(found + life.arrows)


#: What a store may hold under an id, and how the arrows between that are drawn.
KINDS = {
    "none": (130, 12, "no record"),
    "live": (130, 128, "live record"),
    "tombstone": (14, 254, "tombstone"),
    "end marker": (246, 254, "end marker"),
}
LIVES: dict[Arrow, Drawn] = {
    ("none", "first change", "live"): Drawn("M166 46 V128", 160, 92, anchor="end"),
    ("live", "logout", "none"): Drawn("M214 128 V46", 220, 84),
    ("live", "its time is over", "none"): Drawn("M214 128 V46", 220, 100),
    ("live", "change, visit", "live"): Drawn("M250 138 H272 V154 H250", 278, 150),
    ("live", "regenerate_id()", "tombstone"): Drawn("M154 162 L88 254", 130, 214),
    ("live", "revoke()", "end marker"): Drawn("M226 162 L292 254", 272, 214),
    ("tombstone", "logout", "none"): Drawn("M14 271 H5 V29 H130", 11, 168),
    ("tombstone", "300 seconds", "none"): Drawn("M14 271 H5 V29 H130", 11, 184),
    ("end marker", "its time is over", "none"): Drawn("M366 271 H375 V29 H250", 369, 188, anchor="end"),
}


def draw_store() -> Picture:
    """Return the picture of what a store may hold under an id."""
    found = lives()
    assert found == {*LIVES}, found ^ {*LIVES}
    sentences = "; ".join(f"from {one} by {event} to {other}" for one, event, other in sorted(found))
    picture = Picture("What the store holds under a session's id", f"The id leads {sentences}.")
    _draw(picture, KINDS, LIVES)
    return picture


def _draw(picture: Picture, nodes: dict[str, tuple[int, int, str]], shown: dict[Arrow, Drawn]) -> None:
    for x, y, label in nodes.values():
        picture.box(x, y, NODE, 34, "box sheet", 17)
        picture.text(x + NODE / 2, y + 22, label, "small strong", "middle")
    for (_, event, _), drawn in shown.items():
        picture.wire(drawn.path, arrow=True)
        if drawn.x:
            for number, line in enumerate(event.replace(", ended", ",\nended").splitlines()):
                picture.text(drawn.x, drawn.y + 14 * number, line, "small", drawn.anchor)


DIAGRAMS: dict[str, Callable[[], Picture]] = {"states-store": draw_store, "states-request": draw_request}
