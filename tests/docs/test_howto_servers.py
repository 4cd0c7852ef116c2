"""Every example in docs/howto/servers.rst is run, under real servers."""

from __future__ import annotations

import getpass
import subprocess
import sys
from types import ModuleType

import pytest
import sqlalchemy as sa

from tests import machine
from tests.docs import pages
from tests.docs.sites import Started, words_of
from tests.live_site import Site, Visitor
from tests.servers import PATIENCE, free_port

# The examples of a page, and servers: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

BLOCKS = pages.examples(pages.read("howto/servers"))
VIEW = pages.examples(pages.read("howto/pipeline"))["view"]


@pytest.mark.parametrize(
    ("server", "more"),
    # gunicorn would put a socket into the home directory; uWSGI would reload at the signal that ends it.
    [("gunicorn", "--no-control-socket"), ("threads", "--no-control-socket"), ("uwsgi", "--die-on-term")],
)
def test_a_server(server, more, scratch):
    """Several processes count the visits of one session."""
    machine.package("pyuwsgi" if server == "uwsgi" else "gunicorn")
    port, visits = free_port(), 12
    scratch.write(__init__=VIEW)
    scratch.ini((BLOCKS["site"] + BLOCKS["uwsgi-section"]).replace("6543", str(port)))
    line = BLOCKS[server].replace("6543", str(port))
    with Started(scratch.folder, [*words_of(line), more], port):
        visitor = Visitor(Site(f"http://127.0.0.1:{port}", None))
        said = [visitor.get("/").text for _ in range(visits)]

    assert said == [f"visit {number}" for number in range(1, visits + 1)]


@pytest.mark.parametrize("block", ["hook", "postfork"])
def test_what_renews_an_engine(block, scratch, monkeypatch, tmp_path):
    """After the hook the pool is another one, and the parent's connection is still open."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db", poolclass=sa.QueuePool)
    scratch.write(models="def get_engine():\n    return engine\n")
    import myapp.models

    myapp.models.engine = engine
    # uWSGI's own module is there under uWSGI alone.
    decorators = ModuleType("uwsgidecorators")
    decorators.postfork = lambda function: function
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    with engine.connect() as connection:
        before = engine.pool
        names = {}
        exec(BLOCKS[block], names)
        names["post_fork"](None, None) if block == "hook" else names["renew_connections"]()

        assert engine.pool is not before
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1

    before.dispose()
    engine.dispose()


def test_the_directory(tmp_path):
    """The command makes a directory that only the server's user may read."""
    user = getpass.getuser()
    words = words_of(BLOCKS["directory"], {"www-data": user})
    subprocess.run(words, cwd=tmp_path, check=True, timeout=PATIENCE)

    assert (tmp_path / "data/sessions").stat().st_mode & 0o777 == 0o700
