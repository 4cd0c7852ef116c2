"""Every example in docs/howto/reverse_proxy.rst is run, with a real nginx."""

from __future__ import annotations

import subprocess
from http.client import HTTPConnection

import pytest

from tests import machine
from tests.docs import pages
from tests.docs.sites import Started, words_of
from tests.servers import PATIENCE, free_port

# The examples of a page, and servers: what the interpreter adds does not differ.
pytestmark = [pytest.mark.once, pytest.mark.slow]

BLOCKS = pages.examples(pages.read("howto/reverse_proxy"))
PIPELINE = pages.examples(pages.read("howto/pipeline"))
REDIS = pages.examples(pages.read("howto/redis"))
#: What nginx needs around the page's examples; what it writes is in the folder in which it runs.
NGINX = """
daemon off;
user root;
pid pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    %s
}
"""
SITE = """
from itertools import count
from pyramid.config import Configurator

numbers = count(1)

def latest_news():
    return next(numbers)

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("home", "/")
    config.add_route("news", "/news")
    config.scan(__name__)
    return config.make_wsgi_app()
"""


@pytest.fixture
def site(scratch):
    """Return the port of the page's site, under waitress as the page configures it."""
    port = free_port()
    scratch.write(__init__=BLOCKS["views"] + SITE)
    scratch.ini(PIPELINE["pipeline"].partition("[server:main]")[0] + BLOCKS["waitress"].replace("6543", str(port)))
    with Started(scratch.folder, words_of(PIPELINE["serve"]), port):
        yield port


@pytest.fixture
def nginx(scratch):
    """Return a function that starts nginx with a part of its configuration."""
    place = scratch.folder / "nginx"
    place.mkdir()
    running = []

    def start(text, port):
        (place / "nginx.conf").write_text(NGINX % text, encoding="ascii")
        words = [machine.program("nginx"), "-p", str(place), "-c", "nginx.conf", "-e", "stderr"]
        running.append(Started(place, words, port))
        running[0].__enter__()

    yield start
    for one in running:
        one.__exit__()


def set_cookie(said):
    """Return the attributes of the cookie in the headers that curl shows."""
    (line,) = [line for line in said.splitlines() if line.lower().startswith("set-cookie:")]
    return {word.strip().lower() for word in line.split(";")[1:]}


def test_tls(scratch, site, nginx):
    """Behind nginx the cookie is secure, and the site believes nobody else."""
    port = free_port()
    subprocess.run(words_of(REDIS["certificate"]), cwd=scratch.folder, capture_output=True, check=True)
    text = BLOCKS["nginx"].replace("443", f"127.0.0.1:{port}").replace("6543", str(site))
    for kind, suffix in (("", ".crt"), ("_key", ".key")):
        line = f"ssl_certificate{kind} /etc/nginx/www.example.org{suffix};"
        assert line in text
        text = text.replace(line, f"ssl_certificate{kind} {scratch.folder}/redis{suffix};")
    nginx(text, port)
    address = f"--insecure https://127.0.0.1:{port}/"
    said = subprocess.run(
        words_of(BLOCKS["curl"], {"https://www.example.org/": address}), capture_output=True, text=True, check=True
    )
    plain = subprocess.run(
        words_of(BLOCKS["curl"], {"https://www.example.org/": f"http://127.0.0.1:{site}/"}),
        capture_output=True,
        text=True,
        check=True,
    )

    assert "secure" in set_cookie(said.stdout)
    assert "secure" not in set_cookie(plain.stdout)


class Visitor:
    """A browser without a jar of its own."""

    def __init__(self, port):
        self._port = port
        self._cookie = ""

    def get(self, path, **headers):
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={**({"Cookie": self._cookie} if self._cookie else {}), **headers})
            response = connection.getresponse()
            if cookie := response.headers["Set-Cookie"]:
                self._cookie = cookie.partition(";")[0]
            return response.read().decode()
        finally:
            connection.close()


def test_a_cache(site, nginx):
    """The proxy keeps what all share, and no visitor's page."""
    port = free_port()
    text = BLOCKS["cache"].replace("listen 80", f"listen 127.0.0.1:{port}").replace("6543", str(site))
    nginx(text.replace("/var/cache/nginx/myapp", "cache"), port)
    one, two = Visitor(port), Visitor(port)

    assert [one.get("/") for _ in range(3)] == ["visit 1", "visit 2", "visit 3"]
    assert [two.get("/") for _ in range(2)] == ["visit 1", "visit 2"]
    assert [each.get("/news") for each in (one, two, Visitor(port))] == ['{"news": 1}'] * 3


def test_a_cache_keeps_hosts_apart(site, nginx):
    """Who asks with another host gets a copy of his own, which nobody else is given."""
    port = free_port()
    text = BLOCKS["cache"].replace("listen 80", f"listen 127.0.0.1:{port}").replace("6543", str(site))
    nginx(text.replace("/var/cache/nginx/myapp", "cache"), port)
    other = [Visitor(port).get("/news", Host="attacker.example") for _ in range(2)]

    assert other == ['{"news": 1}'] * 2
    assert Visitor(port).get("/news") == '{"news": 2}'


def test_a_careless_cache(site, nginx):
    """What the page warns of happens: the proxy gives one visitor's page and cookie to another."""
    port = free_port()
    text = BLOCKS["cache"].replace("listen 80", f"listen 127.0.0.1:{port}").replace("6543", str(site))
    careless = "proxy_cache myapp; proxy_cache_valid 200 1m; proxy_ignore_headers Vary Set-Cookie Cache-Control;"
    nginx(text.replace("/var/cache/nginx/myapp", "cache").replace("proxy_cache myapp;", careless), port)

    assert [Visitor(port).get("/") for _ in range(2)] == ["visit 1", "visit 1"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian")
def test_https_alone(scratch):
    """The cookie is the host's alone, and over https."""
    app = PIPELINE["pipeline"].partition("[filter:session]")[0]
    browser = scratch.load(app + BLOCKS["https"], __init__=PIPELINE["view"])
    cookie = browser.get("/").headers["Set-Cookie"]

    assert cookie.startswith("__Host-myapp=")
    assert {"secure", "path=/"} <= set_cookie(f"Set-Cookie: {cookie}")
