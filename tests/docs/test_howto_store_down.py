"""Every example in docs/howto/store_down.rst is run, with a Redis that hangs."""

from __future__ import annotations

import subprocess

import pytest

from beaker_bridge.options.table import SESSION_TABLE
from tests.docs import pages
from tests.docs.sites import words_of
from tests.servers import PATIENCE, wait_until

# The examples of a page, and a server: what the interpreter adds does not differ.
pytestmark = [
    pytest.mark.once,
    pytest.mark.ci,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian"),
]

PAGE = pages.read("howto/store_down")
BLOCKS = pages.examples(PAGE)
SITE = pages.examples(pages.read("howto/pipeline"))["view"].replace(
    '    config.add_route("home", "/")\n',
    '    config.add_route("home", "/")\n'
    '    config.add_route("plain", "/plain")\n'
    '    config.add_view(lambda request: request.response, route_name="plain")\n',
)
#: A pause that is over soon, and is longer than the site waits.
SHORT = {"5000": "3000"}


@pytest.fixture
def site(scratch, start_server):
    """Return what loads the page's site, with or without one of its options, and what lets Redis hang."""
    server = start_server("redis", "Redis")

    def load(option):
        ini = BLOCKS["empty"].replace("6379", str(server.port)).replace("store_timeout = 2", "store_timeout = 1")
        return scratch.load(
            ini if option else ini.replace("store_error = empty\n", ""), __init__=SITE, views=BLOCKS["view"]
        )

    def hang():
        words = words_of(BLOCKS["pause"], {"6379": str(server.port), **SHORT})
        subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)

    return load, hang


def test_a_page_of_ones_own(site):
    """A visitor gets the page with 503, others are served, and afterwards everybody is logged in as before."""
    load, hang = site
    browser = load(option=False)
    browser.get("/")
    hang()
    down = [browser.get("/", status=503) for _ in range(2)]
    browser.get("/plain")

    assert {(one.headers["Retry-After"], one.text) for one in down} == {
        ("5", "We cannot reach your session just now. You are still logged in: please try again in a moment.")
    }
    assert [one.headers.getall("Set-Cookie") for one in down if "Set-Cookie" in one.headers] == []
    wait_until(lambda: browser.get("/", expect_errors=True).status_int == 200)
    assert browser.get("/").text == "visit 3"


def test_a_page_without_a_session(site):
    """With ``store_error = empty`` the page is served with an empty session; nothing of it is saved."""
    load, hang = site
    browser = load(option=True)
    browser.get("/")
    hang()
    down = [browser.get("/") for _ in range(2)]

    assert [one.text for one in down] == ["visit 1", "visit 1"]
    assert [one for one in down if "Set-Cookie" in one.headers] == []
    wait_until(lambda: browser.get("/").text == "visit 2")


def test_how_long_a_visitor_waits(site, caplog):
    """The first requests wait for the store; then the breaker is open, and they fail without asking it."""
    load, hang = site
    browser = load(option=False)
    browser.get("/")
    hang()
    for _ in range(3):
        browser.get("/", status=503)
    failures = [record.args[2].failure for record in caplog.records if record.name == "myapp.views"]

    assert [failure == "breaker_open" for failure in failures] == [False, False, True]


def test_the_default():
    """The example names the default."""
    assert f"store_timeout = {SESSION_TABLE['store_timeout'].default:g}" in BLOCKS["empty"]
