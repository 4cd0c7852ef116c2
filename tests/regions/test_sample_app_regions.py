"""The sample site's cached page, over real HTTP."""

from __future__ import annotations

import configparser
import re

import pytest

from beaker_bridge.testing.contract import together
from tests.live_site import CHECKOUT, Visitor, configured, serving
from tests.region_cases import SEED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serving(configured(tmp_path_factory.mktemp("site"))) as running:
        yield running


@pytest.fixture
def visitor(site):
    return Visitor(site)


def facts(page):
    """Return what the page says of its cached part."""
    assert page.status == 200
    return dict(re.findall(r'id="(region|made|age|expire)">([^<]+)<', page.text))


def test_development_ini_has_the_seeds_regions():
    """development.ini carries the seed's four regions, as they are."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CHECKOUT / "development.ini", encoding="utf-8")

    assert {name: value for name, value in parser["app:main"].items() if name.startswith("cache.")} == SEED


def test_the_report_is_cached(site):
    """All visitors see the one report, with its region, its age and its expiry."""
    pages = together(*[lambda: facts(Visitor(site).get("/report"))] * 4)

    assert {page["region"] for page in pages} == {"short_term"}
    assert {page["expire"] for page in pages} == {"60"}
    assert len({page["made"] for page in pages}) == 1
    assert all(0 <= int(page["age"]) <= 60 for page in pages)


def test_the_button_has_the_report_made_anew(visitor):
    """The button throws the report away, and the page that follows shows a new one, with a message."""
    before = facts(visitor.get("/report"))
    answer = visitor.submit("/report", "/report/refresh")
    page = visitor.follow(answer)

    assert answer.status == 302
    assert facts(page)["made"] != before["made"]
    assert "The old report is thrown away." in page.text


def test_the_button_needs_the_sessions_token(visitor):
    """Nobody else's page throws the report away."""
    before = facts(visitor.get("/report"))
    page = visitor.post("/report/refresh")

    assert page.status == 400
    assert facts(visitor.get("/report"))["made"] == before["made"]


def test_the_home_page_leads_there(visitor):
    """The home page has a link to the report."""
    assert 'href="/report"' in visitor.get("/").text
