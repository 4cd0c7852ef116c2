"""A store of another distribution: the one in docs/howto/store.rst, built, installed, proved and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from beaker.container import MemoryNamespaceManager
from pyramid.config import Configurator
from pyramid.paster import get_app
from webtest import TestApp

from beaker_bridge import (
    SettingsError,
    revoke,
    session_factory_from_settings,
    set_cache_regions_from_settings,
    user_sessions,
)
from beaker_bridge.cli.commands import run
from beaker_bridge.options.reader import given, read_options
from beaker_bridge.session.journal import Journal
from beaker_bridge.session.migrate import migrate
from beaker_bridge.stores import open_store
from tests.docs import pages
from tests.installations import SECRET, Views, count, data
from tests.region_cases import no_region_left
from tests.requests import Browser, Clock, config_of

# Builds, and a suite in a process of its own.
pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[2]
BLOCKS = pages.examples(pages.read("howto/store"))
#: Seconds that the suite may take on a busy machine.
PATIENCE = 240


def built(folder):
    """Build the page's package, as pip does, and return the folder into which it is unpacked."""
    (folder / "source").mkdir()
    (folder / "source/litestore.py").write_text(BLOCKS["litestore"], encoding="utf-8")
    (folder / "source/pyproject.toml").write_text(BLOCKS["pyproject"], encoding="utf-8")
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return the folder in which the page's package is installed."""
    return built(tmp_path_factory.mktemp("litestore"))


@pytest.fixture
def install(monkeypatch):
    """Return what installs a package from such a folder."""
    yield lambda folder: monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("litestore", None)


@pytest.fixture
def options(install, place, tmp_path):
    """Return the options of the page's store, which is installed."""
    install(place)
    return {"type": "lite", "database": str(tmp_path / "sessions.db")}


# -- The suite ---------------------------------------------------------------------------------------


def proved(place, folder, *words):
    """Run the page's proof, outside of this checkout; return what pytest says."""
    (folder / "test_litestore.py").write_text(BLOCKS["proof"], encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), *words]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{CHECKOUT}", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout


@pytest.mark.slow
def test_the_suite_proves_the_pages_store(place, tmp_path):
    """The store on the page passes the whole suite, by a class that overrides one fixture."""
    said = proved(place, tmp_path, "-W", "ignore")

    assert re.search(r"^[5-9]\d passed in [\d.]+s( \(.*\))?$", said, re.MULTILINE), said


def test_the_suite_needs_pytest(monkeypatch):
    """Where pytest is missing, the error says how to get it."""
    name = "beaker_bridge.testing.contract"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pytest", None)

    with pytest.raises(ModuleNotFoundError, match=r"contract needs pytest: pip install pytest"):
        import_module(name)


#: Faults in the page's store, each by the text that makes it; and the test that finds it.
FAULTS = {
    "a swap that does not compare": ("if found != record:", "if False:", "test_replace_loses_against_a_deletion"),
    "a comparison that a writer may overtake": (
        'with self._connected("BEGIN IMMEDIATE") as connection:\n            found = _record(connection, session_id)',
        (
            "found = self.read(session_id)\n        time.sleep(0.02)\n"
            '        with self._connected("BEGIN IMMEDIATE") as connection:'
        ),
        "test_one_of_two_replacements_is_made",
    ),
    "a lock that excludes nobody": (".rowcount == 1", ".rowcount < 2", "test_the_lock_excludes"),
    "a lost answer that counts as a conflict": (
        "if found == (None if new is None else Record(new)):",
        "if False:",
        "test_an_insert_whose_answer_was_lost_is_made",
    ),
    "a lock of one process": (
        "    def _taken(self, session_id, holder):\n",
        (
            "    def _taken(self, session_id, holder, held={}):\n"
            "        return held.setdefault(session_id, holder) == holder\n"
        ),
        "test_another_process",
    ),
    "an outage that counts as no record": (
        "        with self._connected() as connection:\n            return _record(connection, session_id)\n",
        (
            "        try:\n            with self._connected() as connection:\n"
            "                return _record(connection, session_id)\n"
            "        except Exception:\n            return None\n"
        ),
        "test_an_outage_is_an_error",
    ),
    "an index that is listed as a session": ("filter(form.fullmatch, found)", "iter(found)", "test_an_index"),
}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[pytest.mark.ci] if number else [pytest.mark.slow])
        for number, fault in enumerate(FAULTS)
    ],
)
def test_the_suite_finds_a_fault(place, tmp_path, fault):
    """One deliberate fault in the store fails a test of the suite, which shows the values."""
    old, new, test = FAULTS[fault]
    folder = shutil.copytree(place, tmp_path / "installed")
    source = BLOCKS["litestore"].replace(old, new)
    (folder / "litestore.py").write_text(source, encoding="utf-8")
    said = proved(folder, tmp_path, "-W", "ignore", "-k", test)

    assert source != BLOCKS["litestore"]
    assert re.search(r"^\d+ failed", said, re.MULTILINE), said
    assert re.search(r"^E +(assert|AssertionError|Failed)", said, re.MULTILINE), said


# -- A site ------------------------------------------------------------------------------------------


def make_site(_global_config, **settings):
    """Return a site with a login."""
    config = Configurator(settings=settings)

    def log_in(request):
        request.session["user"] = "ann"
        request.session.bind("ann")

    def where(request):
        return len(user_sessions(request, "ann"))

    def elsewhere(request):
        return revoke(request, "ann", except_current=True)

    def vote(request):
        with request.session.exclusive():
            request.session["votes"] = request.session.get("votes", 0) + 1

    Views(login=log_in, where=where, elsewhere=elsewhere, count=count, data=data, vote=vote)(config)
    return config.make_wsgi_app()


@pytest.fixture
def ini(options, tmp_path):
    """Return the page's site."""
    path = tmp_path / "production.ini"
    text = BLOCKS["site"].replace("call:myapp:main", f"call:{__name__}:make_site")
    path.write_text(text.replace("a long random text, 32 bytes or more", SECRET), encoding="utf-8")
    return str(path)


def test_a_site_is_served(ini):
    """With the page's .ini, sessions are kept, merged, listed and ended in the store."""
    first, second = (TestApp(get_app(ini)) for _ in range(2))
    for app in (first, second):
        app.get("/login")
        app.get("/vote")

    assert first.get("/count").text == "1"
    assert first.get("/where").text == "2"
    assert first.get("/elsewhere").text == "1"
    assert second.get("/data").text == "[]"
    assert first.get("/data").text == "[('count', 1), ('user', 'ann'), ('votes', 1)]"


def test_the_command_works_on_it(ini, capsys):
    """The command checks the site, counts its sessions and purges them."""
    TestApp(get_app(ini)).get("/count")
    checked, counted, purged = [
        (run([word, ini, "--json"]), json.loads(capsys.readouterr().out)) for word in ("check", "sessions", "purge")
    ]

    assert (checked[0], counted[0], purged[0]) == (0, 0, 0)
    assert checked[1]["findings"] == []
    assert (counted[1]["store"], counted[1]["live"]) == ("lite", 1)
    assert (purged[1]["store"], purged[1]["seen"], purged[1]["deleted"]) == ("lite", 1, 0)


def test_sessions_move_there_and_back(options, tmp_path):
    """Sessions are copied from files into the store, and from there into files."""
    clock = Clock()
    more = {"clock": clock, "timeout": 1000, "secret": SECRET}
    files, lite, others = (
        config_of(**store, **more)
        for store in (
            {"type": "file", "data_dir": str(tmp_path / "old")},
            options,
            {"type": "file", "data_dir": str(tmp_path / "new")},
        )
    )
    browser = Browser(files)
    browser.write(name="Ann")
    for number, (old, new) in enumerate(((files, lite), (lite, others))):
        with Journal(str(tmp_path / f"journal {number}")) as journal:
            migrate(old, new, journal)
        browser.config = new

        assert browser.read() == {"name": "Ann"}


# -- Options -----------------------------------------------------------------------------------------


def wrong(**options):
    """Return the errors of options."""
    with pytest.raises(SettingsError) as refused:
        open_store(read_options(given(options)))
    return str(refused.value)


def test_its_options_are_checked(options, tmp_path):
    """A store's own option that is wrong, misspelled or missing stops the start, by its name as it was written."""
    assert wrong(**{"session.type": "lite"}) == "session.database must be given where session.type = lite"
    assert wrong(**{"session.type": "lite", "session.database": ""}).startswith("session.database must be given")
    assert wrong(type="lite", database=3) == "database must be a non-empty string, got 3"
    assert wrong(**{"session.type": "lite", "session.databse": "x"}).endswith("did you mean session.database?")
    assert wrong(**options, colour="blue") == "colour is no option that beaker_bridge knows"
    assert "(did you mean lite?)" in wrong(type="lit")
    # Those of the table are there by their names.
    checked = read_options(given({**options, "database": tmp_path, "url": "somewhere", "beaker.session.timeout": "5"}))

    assert (checked.backend_arguments, checked.url, checked.timeout) == ({"database": str(tmp_path)}, "somewhere", 5)
    assert checked.label("database") == "database"


def test_another_packages_option_is_ignored(options, caplog):
    """What stands under session. in an application's settings may be another package's: it is one warning."""
    settings = {f"session.{name}": value for name, value in options.items()}
    factory = session_factory_from_settings({**settings, "session.colour": "blue"})

    assert factory.options.backend_arguments == {"database": options["database"]}
    assert "session.colour is no option that beaker_bridge knows; it is ignored" in caplog.text


def test_a_store_without_turns_warns_of_purge_every(options, caplog):
    """``purge_every`` needs a store that takes turns: one that does not says so at the start."""
    config = config_of(**options, purge_every=60)

    assert "purge_every is ignored: the store of type = lite takes no turns with other processes" in caplog.text
    with config.store.purge_turn(60) as is_due:
        assert not is_due


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lite = litestore:Missing", "cannot be imported: module 'litestore' has no attribute 'Missing'"),
        ("lite = missing:LiteStore", "of the package litestore cannot be imported: No module named 'missing'"),
        (
            "lite = litestore:secrets",
            "of the package litestore is no store: derive it from beaker_bridge.stores.base.Store",
        ),
    ],
)
def test_an_entry_point_that_leads_nowhere_stops_the_start(install, tmp_path, place, line, message):
    """A class that cannot be imported, or is no store, is an error that names the type."""
    folder = shutil.copytree(place, tmp_path / "installed")
    (entries,) = folder.glob("*.dist-info/entry_points.txt")
    entries.write_text(f"[beaker_bridge.stores]\n{line}\n", encoding="utf-8")
    install(folder)

    assert message in wrong(type="lite", database="x")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("LiteStore = LiteStore.__new__(LiteStore)", "is no store: derive it from"),
        ("class LiteStore(Store): kind = 'lite'", "is no whole store: it lacks lock, read, swap"),
        ("LiteStore.own_options = {'database': str}", "without a type of beaker_bridge.options.types: database"),
        ("LiteStore.own_options = {'url': DIRECTORY}", "take them from the option table: url"),
    ],
)
def test_a_store_with_a_fault_stops_the_start(install, tmp_path, place, source, message):
    """Whatever is wrong with a package's module or class is an error that names the package."""
    folder = shutil.copytree(place, tmp_path / "installed")
    text = f"{BLOCKS['litestore']}\n{source}\n"
    (folder / "litestore.py").write_text(text, encoding="utf-8")
    install(folder)

    said = wrong(type="lite", database="x")

    assert said.startswith("type = lite: litestore:LiteStore of the package litestore")
    assert message in said


def test_two_packages_with_one_type_stop_the_start(install, tmp_path, place):
    """Where two packages bring the same type along, nobody can know which one is meant."""
    folder = shutil.copytree(place, tmp_path / "installed")
    (info,) = folder.glob("*.dist-info")
    other = shutil.copytree(info, folder / "other-1.0.dist-info")
    metadata = (other / "METADATA").read_text(encoding="utf-8").replace("Name: litestore", "Name: other")
    (other / "METADATA").write_text(metadata, encoding="utf-8")
    install(folder)

    assert "type = lite is a store of several packages: litestore, other; keep one of them" in wrong(type="lite")


def test_a_class_of_the_applications_wins(options):
    """With ``namespace_class`` Beaker's interface is used, whatever the type."""
    store = open_store(read_options(given({**options, "namespace_class": MemoryNamespaceManager})))

    assert type(store).__name__ == "BeakerStore"


def test_a_region_cannot_use_it(options, caplog):
    """A store for sessions is none for cache regions."""
    with no_region_left():
        set_cache_regions_from_settings({"cache.regions": "short", "cache.short.type": "lite"})

    assert "cache.short.type must be one of" in caplog.text
    assert "lite" not in str(re.search("one of (.*) or another", caplog.text)[1])
