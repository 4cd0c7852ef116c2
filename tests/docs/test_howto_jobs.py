"""Every example in docs/howto/jobs.rst is run."""

from __future__ import annotations

import threading

import pytest
from webtest import TestApp

from beaker_bridge import SessionConflictError
from tests.docs import pages
from tests.installations import Views, install
from tests.sites.test_scripting import run

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

BLOCKS = pages.examples(pages.read("howto/jobs"))


class Job:
    """The thread of a job, which goes on step by step."""

    def __init__(self):
        self._may_go_on = threading.Semaphore(0)
        self.errors = []
        names = {"write_a_quarter": self._may_go_on.acquire}
        exec(BLOCKS["thread"], names)
        self.names = names
        running = names["run"]

        def noting(session):
            try:
                running(session)
            except SessionConflictError as error:
                self.errors.append(error)

        names["run"] = noting

    def begin(self, browser):
        """Begin the job by a request."""
        before = set(threading.enumerate())
        browser.get("/export")
        (self._thread,) = set(threading.enumerate()) - before

    def end(self):
        """Let it go on to its end."""
        self._may_go_on.release(4)
        self._thread.join()


@pytest.fixture
def job():
    """Return a job."""
    return Job()


@pytest.fixture
def browser(job):
    """Return a browser of its site."""
    views = {
        "export": job.names["export"],
        "progress": job.names["progress"],
        "logout": lambda request: request.session.invalidate(),
        "login": lambda request: request.session.regenerate_id(),
    }
    return TestApp(install("filter", {"type": "memory", "key": "sid"}, Views(**views)))


def test_a_thread(job, browser):
    """The job reports its progress when its request is over, and each request sees it."""
    job.begin(browser)
    begun = browser.get("/progress").text
    job.end()

    assert (begun, browser.get("/progress").text) == ("{'progress': 0}", "{'progress': 100}")


def test_a_logout(job, browser):
    """After a logout the job goes on, and brings nothing back."""
    job.begin(browser)
    browser.get("/logout")
    job.end()

    assert browser.get("/progress").text == "{'progress': None}"
    assert job.errors == []


def test_a_login(job, browser):
    """After a login the block raises."""
    job.begin(browser)
    browser.get("/login")
    job.end()

    assert browser.get("/progress").text == "{'progress': 0}"
    assert len(job.errors) == 1


INI = """
[app:main]
use = call:myapp:main
pyramid.includes = beaker_bridge
session.type = file
session.data_dir = %(here)s/sessions
session.key = sid
"""
SITE = """
from pyramid.config import Configurator

class queue:
    jobs = []

    @classmethod
    def enqueue(cls, *job):
        cls.jobs.append(job)

def run_export(path, session_id):
    raise NotImplementedError

{enqueue}

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("export", "/export")
    config.add_view(export, route_name="export")
    config.add_route("logout", "/logout")
    config.add_view(lambda request: request.session.invalidate(), route_name="logout", renderer="json")
    config.add_view(lambda request: dict(request.session), renderer="json")
    return config.make_wsgi_app()
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/logout"])
def test_a_worker(path, scratch):
    """A worker in another process reports its progress; after a logout it goes on, and brings nothing back."""
    browser = scratch.load(INI, __init__=SITE.format(enqueue=BLOCKS["enqueue"]))
    browser.get("/export")
    import myapp

    ((_, ini, session_id),) = myapp.queue.jobs
    browser.get(path)
    worker = scratch.folder / "worker.py"
    worker.write_text(
        f"import sys\n\ndef write_a_quarter():\n    print('.')\n\n{BLOCKS['worker']}\nrun_export(*sys.argv[1:])\n",
        encoding="utf-8",
    )
    said = run(worker, scratch.folder / ini, session_id)

    assert said.count(".") == 4
    assert browser.get("/").json == ({"progress": 100} if path == "/" else {})
