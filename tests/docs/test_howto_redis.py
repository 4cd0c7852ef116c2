"""Every example in docs/howto/redis.rst is run, with real servers."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack

import pytest
import redis
from paste.deploy import loadapp

from tests import machine
from tests.docs import pages
from tests.docs.sites import Started, missing_packages, words_of
from tests.servers import PATIENCE, free_port

# The examples of a page, and servers: what the interpreter adds does not differ.
pytestmark = [
    pytest.mark.once,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian"),
]

BLOCKS = pages.examples(pages.read("howto/redis"))
VIEW = pages.examples(pages.read("howto/pipeline"))["view"]
APP = BLOCKS["one"].partition("[filter:session]")[0]


def visits(scratch, ini):
    """Visit a site once in each of two processes with the same cookie, and return what it says."""
    first = scratch.load(ini, __init__=VIEW)
    said = [first.get("/").text]
    second = scratch.browser(loadapp(f"config:{scratch.ini(ini)}"))
    second.set_cookie("myapp", first.cookies["myapp"])
    return [*said, second.get("/").text]


def hosts(ini, port, ports):
    """Return an ``.ini`` with servers of this machine in the place of its hosts."""
    for name, one in zip(("one", "two", "three"), ports, strict=True):
        assert f"{name}.example.org:{port}" in ini
        ini = ini.replace(f"{name}.example.org:{port}", f"127.0.0.1:{one}")
    return ini


def test_one_server(scratch, redis_server):
    """Two processes share the session, and the command lists it."""
    ini = BLOCKS["one"].replace("localhost:6379", f"127.0.0.1:{redis_server.port}")
    said = visits(scratch, ini)
    words = words_of(BLOCKS["list"], {"6379": str(redis_server.port)})
    listed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout

    assert said == ["visit 1", "visit 2"]
    assert re.search(r"^beaker_cache:[0-9a-f]{32}:session$", listed, re.MULTILINE)


def test_the_client_is_installed():
    """The package has the name that the page says."""
    assert missing_packages(BLOCKS["install"]) == []


def test_sentinel(scratch, redis_sentinels):
    """The sentinels lead to the master."""
    ini = hosts(BLOCKS["sentinel"], 26379, [sentinel.port for sentinel in redis_sentinels.sentinels])

    assert visits(scratch, APP + ini) == ["visit 1", "visit 2"]


def test_cluster(scratch, redis_cluster):
    """Two processes share the session in a cluster."""
    ini = hosts(BLOCKS["cluster"], 6379, [node.port for node in redis_cluster.servers])

    assert visits(scratch, APP + ini) == ["visit 1", "visit 2"]


# -- Behind TLS --------------------------------------------------------------------------------------


@pytest.fixture
def certificate(scratch):
    """Return the folder in which the page's command has made a certificate."""
    words = words_of(BLOCKS["certificate"])
    subprocess.run(words, cwd=scratch.folder, capture_output=True, check=True, timeout=PATIENCE)
    return scratch.folder


@pytest.fixture
def server(certificate):
    """Return a Redis behind TLS, as the page starts it."""
    port = free_port()
    with Started(certificate, [*words_of(BLOCKS["server"], {"6380": str(port)}), "--save", ""], port) as server:
        yield server


def test_tls(scratch, server):
    """The site reaches the server behind TLS, which speaks nothing else."""
    said = visits(scratch, APP + BLOCKS["tls"].replace("6380", str(server.port)))

    assert said == ["visit 1", "visit 2"]
    with redis.Redis(port=server.port, socket_timeout=PATIENCE) as plain, pytest.raises(redis.ConnectionError):
        plain.ping()


def test_a_certificate_that_nobody_trusts(scratch, server):
    """Without ``ssl_ca_certs`` the server is not trusted."""
    ini = BLOCKS["tls"].replace("6380", str(server.port)).replace("?ssl_ca_certs=%(here)s/redis.crt", "")
    browser = scratch.load(APP + ini, __init__=VIEW)

    with pytest.raises(Exception, match="certificate verify failed"):
        browser.get("/")


@pytest.fixture
def sentinels(certificate, server):
    """Return the ports of three sentinels behind TLS, who watch the server."""
    ports = [free_port() for _ in range(3)]
    with ExitStack() as running:
        for port in ports:
            place = certificate / str(port)
            place.mkdir()
            lines = [
                *("port 0", f"tls-port {port}", f"dir {place}", "tls-auth-clients no", "tls-replication yes"),
                *(f"tls-{what}-file {certificate}/redis.crt" for what in ("cert", "ca-cert")),
                f"tls-key-file {certificate}/redis.key",
                *("sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"),
                f"sentinel monitor main localhost {server.port} 2",
            ]
            (place / "sentinel.conf").write_text("\n".join(lines), encoding="ascii")
            words = [machine.program("redis-server"), "sentinel.conf", "--sentinel"]
            running.enter_context(Started(place, words, port))
        yield ports


def test_sentinels_behind_tls(scratch, sentinels):
    """A client of the application's own asks sentinels behind TLS for a master behind TLS."""
    ini = hosts(BLOCKS["client-settings"], 26379, sentinels).replace("127.0.0.1", "localhost")
    view = VIEW.partition("\n\ndef main")[0]
    first = scratch.load(ini, __init__=BLOCKS["client"], views=view)

    assert [first.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
