"""Sessions in memory under a server with several processes."""

from __future__ import annotations

import pytest
from beaker.container import MemoryNamespaceManager
from webtest import TestApp

from beaker_bridge.request.exchange import MIDDLEWARE, Exchange
from tests.installations import INSTALLATIONS, SECRET, Views, count, install
from tests.requests import config_of

WARNING = "type = memory gives each process sessions of its own"
SEVERAL = {"wsgi.multiprocess": True}


def visited(options, installation="filter", environ=SEVERAL):
    """Return a site whose session was used twice, after a page that did not touch it."""
    # A key of its own: Beaker's filter's options are parsed once a process.
    options = {"key": f"sid_{installation}_{len(options)}", "secret": SECRET, **options}
    app = TestApp(install(installation, options, Views(count=count, home=lambda request: "")), extra_environ=environ)
    app.get("/home")
    assert app.get("/count").text == "1"
    assert app.get("/count").text == "2"
    return app


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_sessions_in_memory_are_warned_about_once(installation, caplog):
    """Where the server says that it has several processes, the first use of a session in memory warns, however
    it is installed; it names the option, and other types.
    """
    visited({"type": "memory"}, installation)

    (warning,) = warnings_in(caplog)
    assert "wsgi.multiprocess" in warning
    assert "ext:redis" in warning


def test_a_page_that_touches_no_session_does_not_warn(caplog):
    """Only a session that is used can be lost."""
    options = {"type": "memory", "key": "untouched", "secret": SECRET}
    TestApp(install("filter", options, Views(home=lambda request: "")), extra_environ=SEVERAL).get("/home")

    assert warnings_in(caplog) == []


@pytest.mark.parametrize("type_", ["file", "dbm", "cookie"])
def test_other_types_do_not_warn(type_, tmp_path, caplog):
    """What several processes share is not warned about."""
    visited({"type": type_, "data_dir": str(tmp_path), "validate_key": "v" * 32})

    assert warnings_in(caplog) == []


def test_an_own_namespace_manager_does_not_warn(caplog):
    """Where an application's own namespace manager keeps its sessions, only the application knows."""
    visited({"type": "memory", "namespace_class": MemoryNamespaceManager})

    assert warnings_in(caplog) == []


def test_one_process_does_not_warn(caplog):
    """With one process, memory does."""
    visited({"type": "memory"}, environ={"wsgi.multiprocess": False})

    assert warnings_in(caplog) == []


def test_each_configuration_warns(caplog):
    """Two configurations of one process are warned about one by one, and each once."""
    for config in (config_of(type="memory"), config_of(type="memory")):
        for _ in range(2):
            Exchange({**SEVERAL}, config, MIDDLEWARE).load()

    assert len(warnings_in(caplog)) == 2
