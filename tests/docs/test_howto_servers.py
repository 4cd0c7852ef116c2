"""Every example in docs/howto/servers.rst is run, under real servers."""

from __future__ import annotations

import getpass
import subprocess

import pytest

from tests import machine
from tests.docs import pages
from tests.docs.sites import Started, words_of
from tests.live_site import Site, Visitor
from tests.servers import PATIENCE, free_port, wait_until

# The examples of a page, and servers: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

BLOCKS = pages.examples(pages.read("howto/servers"))
VIEW = pages.examples(pages.read("howto/pipeline"))["view"]
#: An engine that says when it is disposed of.
MODELS = """
class engine:
    @staticmethod
    def dispose(close):
        print("disposed of, close =", close, flush=True)

def get_engine():
    return engine
"""


@pytest.mark.parametrize(
    ("server", "workers", "more"),
    # gunicorn would put a socket into the home directory; uWSGI would reload at the signal that ends it.
    [
        ("gunicorn", 4, "--no-control-socket"),
        ("threads", 2, "--no-control-socket"),
        ("uwsgi", 2, "--die-on-term"),
    ],
)
def test_a_server(server, workers, more, scratch):
    """Several processes count the visits of one session, and each has renewed the application's engine."""
    machine.package("pyuwsgi" if server == "uwsgi" else "gunicorn")
    port, visits = free_port(), 12
    # The scan of the application imports all of them.
    scratch.write(__init__=VIEW, models=MODELS, forks=BLOCKS["postfork"])
    (scratch.folder / "gunicorn.conf.py").write_text(BLOCKS["hook"], encoding="utf-8")
    scratch.ini((BLOCKS["site"] + BLOCKS["uwsgi-section"]).replace("6543", str(port)))
    line = BLOCKS[server].replace("6543", str(port))
    with Started(scratch.folder, [*words_of(line), more], port):
        visitor = Visitor(Site(f"http://127.0.0.1:{port}", None))
        said = [visitor.get("/").text for _ in range(visits)]
        wait_until(lambda: (scratch.folder / "log").read_text().count("disposed of, close = False") == workers)

    assert said == [f"visit {number}" for number in range(1, visits + 1)]


def test_the_directory(tmp_path):
    """The command makes a directory that only the server's user may read."""
    user = getpass.getuser()
    words = words_of(BLOCKS["directory"], {"www-data": user})
    subprocess.run(words, cwd=tmp_path, check=True, timeout=PATIENCE)

    assert (tmp_path / "data/sessions").stat().st_mode & 0o777 == 0o700
