"""The steps from pyramid_beaker to JSON, as README.rst has them, each rolled over two running processes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import cycle, islice, pairwise
from typing import NamedTuple
from urllib.parse import quote

import pytest

from tests.live_site import Visitor, running
from tests.test_readme import BLOCKS

# Real processes: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

KEYS = {
    "plain": {},
    "encrypted": {
        "encrypt_key": "an encrypt key of 32 bytes or more",
        "validate_key": "a validate key of 32 bytes or more",
    },
}
#: The steps of the documentation, after the site that was there before.
STEPS = {
    "pyramid_beaker": "",
    **{name: BLOCKS[name].removeprefix("[app:main]\n") for name in sorted(BLOCKS) if name.startswith("step")},
}


class Place(NamedTuple):
    """Where sessions are, and how they are protected."""

    name: str
    options: dict[str, str]


class Roll:
    """Two processes with the same site, each of which may be at any step.

    Args:
        folder: where the ``.ini`` files are.
        processes: both.
        place: the store.
    """

    def __init__(self, folder, processes, place) -> None:
        self._folder = folder
        self.processes = processes
        self._place = place

    def at(self, process, step, **options):
        """Return the address of the site in one process, at a step, with some more options."""
        name = "-".join([self._place.name, step, *options])
        lines = {"key": "sid", "secret": "a secret of 32 bytes or more, for tests", **self._place.options, **options}
        ini = self._folder / f"{name}.ini"
        if not ini.exists():
            package = "pyramid_beaker" if step == "pyramid_beaker" else "beaker_bridge"
            own = "".join(f"session.{option} = {value}\n" for option, value in lines.items())
            ini.write_text(f"[app:main]\nuse = call:tests.rolling_site:main\npackage = {package}\n{own}{STEPS[step]}")
        return Address(self.processes[process], f"/{name}")


class Address(NamedTuple):
    """A site in a process."""

    site: object
    prefix: str


class User:
    """Somebody with a browser.

    Args:
        name: who it is.
        address: where the session begins.
    """

    def __init__(self, name, address) -> None:
        self.name = name
        self.visits = []
        self._visitor = Visitor(address.site)
        self.get(address, f"begin?user={quote(name)}")

    def get(self, address, path):
        """Ask for a page, and return it."""
        self._visitor.site = address.site
        return self._visitor.get(f"{address.prefix}/{path}")

    def change(self, address):
        """Change the session, which must be the user's, with all that was changed before."""
        self.visits.append(str(len(self.visits)))
        page = self.get(address, f"change?visit={self.visits[-1]}")

        assert page.status == 200, address
        assert json.loads(page.text) == self.told(), address

    def read(self, address):
        """Return what a page that changes nothing finds."""
        page = self.get(address, "read")
        return json.loads(page.text) if page.status == 200 else page.status

    def told(self, basket="NoneType"):
        """Return what the session holds where nothing was lost."""
        return {"user": self.name, "visits": self.visits, "flashed": self.visits[1::2], "kept": True, "basket": basket}

    @property
    def cookies(self):
        return {cookie.name: cookie.value for cookie in self._visitor.jar}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Run both processes, and return the folder of their sites, too."""
    folder = tmp_path_factory.mktemp("sites")
    with ExitStack() as stack:
        yield folder, [stack.enter_context(running("tests.rolling_site", str(folder))) for _ in range(2)]


@pytest.fixture(params=["file", "redis"])
def store(request, processes):
    if request.param == "redis":
        return {"type": "ext:redis", "url": request.getfixturevalue("redis_server").url}
    return {"type": "file", "data_dir": str(processes[0] / "sessions")}


@pytest.fixture(params=KEYS)
def roll(request, processes, store):
    """Return both processes, over a store, with sessions in plain text or encrypted."""
    name = f"{store['type'].removeprefix('ext:')}-{request.param}"
    return Roll(*processes, Place(name, {**store, **KEYS[request.param]}))


NOBODY = {"user": None, "visits": [], "flashed": [], "kept": False, "basket": "NoneType"}


# -- In order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), list(pairwise(STEPS)))
def test_a_step_is_rolled(roll, old, new):
    """Users whose requests go now to one process, now to the other, are never logged out, and lose no change."""
    processes = [roll.at(0, old), roll.at(1, new)]
    # In step 4 no record is left from before step 3: these users come from JSON.
    users = [User(f"begun at {step}", address) for step, address in zip((old, new), processes, strict=True)]
    for number, user in enumerate(users):
        for turn in islice(cycle((1 - number, number)), 5):
            user.change(processes[turn])

    for user in users:
        assert [user.read(process) for process in processes] == [user.told(), user.told()]


def test_the_whole_way_and_back(roll):
    """A session goes through all steps, and back to pyramid_beaker, with one process always a step behind the other."""
    way = list(STEPS)
    user = User("constant", roll.at(0, way[0]))
    begun = user.cookies
    for old, new in [*pairwise(way), *pairwise(reversed(way))]:
        for _ in range(2):
            user.change(roll.at(0, old))
            user.change(roll.at(1, new))
        user.change(roll.at(0, new))

    assert user.read(roll.at(1, "pyramid_beaker")) == user.told()
    assert user.cookies == begun
