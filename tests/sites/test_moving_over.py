"""The steps of docs/moving/pyramid_beaker.rst, each rolled over two running processes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from copy import copy
from itertools import cycle, islice, pairwise
from typing import NamedTuple
from urllib.parse import quote

import pytest

from tests.docs import pages
from tests.live_site import Visitor, running

# Real processes: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

KEYS = {
    "plain": {},
    "encrypted": {
        "encrypt_key": "an encrypt key of 32 bytes or more",
        "validate_key": "a validate key of 32 bytes or more",
    },
}
BLOCKS = pages.examples(pages.read("moving/pyramid_beaker"))
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
        name = "-".join([self._place.name, step, *options, *options.values()])
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

    def copy(self):
        """Return another browser with the same cookie, as a request that is under way has it."""
        other = copy(self)
        other._visitor = Visitor(self._visitor.site)
        for cookie in self._visitor.jar:
            other._visitor.jar.set_cookie(cookie)
        return other

    @property
    def shown(self):
        """As much of the session's id as a log holds."""
        return self.cookies["sid"][-32:][:6]

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


@pytest.mark.parametrize("corrupt", ["true", "false"])
def test_the_whole_way_and_back(roll, corrupt):
    """A session goes through all steps, and back to pyramid_beaker, with one process always a step behind the other."""

    def at(process, step):
        return roll.at(process, step, invalidate_corrupt=corrupt)

    way = list(STEPS)
    user = User("constant", at(0, way[0]))
    begun = user.cookies
    for old, new in [*pairwise(way), *pairwise(reversed(way))]:
        for _ in range(2):
            user.change(at(0, old))
            user.change(at(1, new))
        user.change(at(0, new))

    assert user.read(at(1, "pyramid_beaker")) == user.told()
    assert user.cookies == begun


@pytest.mark.parametrize(("old", "new"), list(pairwise(STEPS))[1:])
def test_a_login_and_a_logout_hold_in_both_processes(roll, old, new):
    """A session that one process moves to a new id goes on in the other, and what has ended has ended there."""
    processes = [roll.at(0, old), roll.at(1, new)]
    for here, there in (processes, processes[::-1]):
        user = User("who logs in", here)
        before_the_login = user.copy()
        user.get(here, "log_in")
        user.change(there)
        user.change(here)
        before_the_logout = user.copy()
        user.get(here, "log_out")
        ended = [before_the_login, before_the_logout, user]

        assert [browser.read(process) for browser in ended for process in (there, here)] == [NOBODY] * 6


# -- Out of order ------------------------------------------------------------------------------------

JSON, PICKLE = (
    "it is JSON; legacy_serializer = json reads that",
    "it is a pickle; legacy_serializer = pickle reads those",
)
#: A step that cannot read what another one writes, and what it logs.
STRANGERS = [
    ("step1", "step3", JSON),
    ("step1", "step4", JSON),
    ("step4", "step2", PICKLE),
    ("step4", "step1", PICKLE),
    ("step4", "pyramid_beaker", PICKLE),
]


@pytest.mark.parametrize(("reader", "writer", "told"), STRANGERS)
def test_a_step_that_is_left_out_is_told_of(roll, reader, writer, told):
    """Who cannot read a session leaves it alone, and names the option; it is lost when a new one takes its cookie."""
    ours, theirs = roll.at(0, reader), roll.at(1, writer)
    user = User("met too early", theirs)
    user.change(theirs)
    cookies = user.cookies

    assert user.read(ours) == NOBODY
    assert ours.site.log.has(user.shown, "cannot be read as a session", told)
    assert user.cookies == cookies
    user.change(theirs)
    assert json.loads(user.get(ours, "change?visit=0").text) == {**NOBODY, "visits": ["0"]}
    assert user.cookies != cookies


@pytest.mark.parametrize(("reader", "writer", "told"), STRANGERS)
def test_with_an_error_nobody_is_logged_out(roll, reader, writer, told):
    """With ``invalidate_corrupt = false`` who cannot read a session answers with an error, and nothing is lost."""
    ours, theirs = roll.at(0, reader, invalidate_corrupt="false"), roll.at(1, writer)
    user = User("met too early, and kept", theirs)
    user.change(theirs)

    assert user.get(ours, "change?visit=0").status == 500
    assert ours.site.log.has("DamagedRecordError", told)
    user.change(theirs)


@pytest.mark.parametrize("writer", ["step3", "step4"])
def test_there_is_no_way_from_json_to_pyramid_beaker(roll, writer):
    """pyramid_beaker answers a JSON session with an error; the session goes on where JSON is read."""
    ours, theirs = roll.at(0, writer), roll.at(1, "pyramid_beaker")
    user = User("gone too far", ours)
    user.change(ours)

    assert user.get(theirs, "read").status == 500
    user.change(ours)


# -- What JSON refuses -------------------------------------------------------------------------------


def test_an_object_of_the_applications_own_is_kept_and_told_of(roll):
    """Step 2 names it in the log; step 3 shows it, and refuses to write it with an error that names key and type."""
    before, after = roll.at(0, "step2"), roll.at(1, "step3")
    user = User("with a basket", before)
    user.get(before, "keep")
    read = user.read(after)
    refused = user.get(after, "change?visit=0")

    assert before.site.log.has("with data_serializer = json: session['basket'] cannot be stored", "Basket")
    assert read == user.told("Basket")
    assert refused.status == 500
    assert after.site.log.has("SessionValueError: session['basket'] cannot be stored", "Basket")
    assert [user.read(address) for address in (before, after)] == [user.told("Basket")] * 2


# -- Sessions in the cookie --------------------------------------------------------------------------


@pytest.fixture(params=KEYS)
def cookie_roll(request, processes):
    """Return both processes, with sessions in the cookie itself."""
    keys = {"validate_key": KEYS["encrypted"]["validate_key"], **KEYS[request.param]}
    return Roll(*processes, Place(f"cookie-{request.param}", {"type": "cookie", **keys}))


def test_a_cookie_session_moves_by_name(cookie_roll):
    """The first step is the same for sessions in the cookie, in both directions."""
    test_a_step_is_rolled(cookie_roll, "pyramid_beaker", "step1")


def test_a_cookie_session_with_another_name_begins_anew_and_keeps_the_old_one(cookie_roll):
    """With another ``key`` for JSON each process has a session of its own, and going back finds the old one."""
    old, new = cookie_roll.at(0, "step1"), cookie_roll.at(1, "step4", key="sid2")
    user = User("with two cookies", old)
    user.change(old)
    begun = user.read(new)
    user.get(new, "change?visit=0")
    user.change(old)

    assert begun == NOBODY
    assert user.read(new) == {**NOBODY, "visits": ["0"]}
    assert user.cookies.keys() == {"sid", "sid2"}


@pytest.mark.parametrize("step", ["step3", "step4"])
def test_a_pickle_in_a_cookie_is_never_read_beside_json(cookie_roll, step):
    """Without another ``key`` the first change under JSON replaces the old session."""
    old, new = cookie_roll.at(0, "step1"), cookie_roll.at(1, step)
    user = User("with one cookie", old)

    assert user.read(new) == NOBODY
    assert new.site.log.has("in a cookie", "never those in a cookie")
    user.change(old)
    assert json.loads(user.get(new, "change?visit=0").text) == {**NOBODY, "visits": ["0"]}
    assert user.read(old) == NOBODY
