"""Every example in docs/howto/postgresql.rst is run, with real servers."""

from __future__ import annotations

import sys

import pytest
import sqlalchemy as sa
from paste.deploy import loadapp

from tests.docs import pages
from tests.docs.sites import missing_packages

# The examples of a page, and servers: what the interpreter adds does not differ.
pytestmark = [
    pytest.mark.once,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:venusian"),
]

BLOCKS = pages.examples(pages.read("howto/postgresql"))
VIEW = pages.examples(pages.read("howto/pipeline"))["view"]
APP = BLOCKS["address"].partition("[filter:session]")[0]


@pytest.fixture
def postgresql(postgresql_server):
    """Return a PostgreSQL with the page's user and database."""
    with postgresql_server.client() as client:
        client.execute("CREATE ROLE myapp LOGIN PASSWORD 'password'")
        client.execute("CREATE DATABASE myapp OWNER myapp")
    yield postgresql_server
    with postgresql_server.client() as client:
        client.execute("DROP DATABASE myapp WITH (FORCE)")
        client.execute("DROP ROLE myapp")


@pytest.fixture
def models(scratch):
    """Return the modules of a site, whose engine is disposed of when the test is over."""
    yield {"__init__": VIEW, "models": BLOCKS["models"]}
    scratch.end_purges()
    if "myapp.models" in sys.modules:
        sys.modules["myapp.models"].engine.dispose()


def visits(scratch, ini, **modules):
    """Visit a site once in each of two processes with the same cookie, and return what it says."""
    first = scratch.load(ini, **(modules or {"__init__": VIEW}))
    said = [first.get("/").text]
    second = scratch.browser(loadapp(f"config:{scratch.ini(ini)}"))
    second.set_cookie("myapp", first.cookies["myapp"])
    return [*said, second.get("/").text]


def test_an_address(scratch, postgresql):
    """Two processes share the session, in a table that the first request has made."""
    ini = BLOCKS["address"].replace("5432", str(postgresql.port))

    assert visits(scratch, ini) == ["visit 1", "visit 2"]


def test_the_applications_engine(scratch, postgresql, models):
    """The sessions use the application's engine, which is made when the filter has been."""
    browser = scratch.load(BLOCKS["engine"].replace("5432", str(postgresql.port)), **models)
    engine = sys.modules["myapp.models"].get_engine()
    said = [browser.get("/").text for _ in range(2)]

    assert said == ["visit 1", "visit 2"]
    # A purge may have another one.
    assert engine.pool.checkedin() >= 1
    with engine.connect() as connection:
        query = "SELECT count(*) FROM beaker_cache WHERE namespace NOT LIKE '%.lock'"
        assert connection.execute(sa.text(query)).scalar() == 1


def test_a_table_of_ones_own(scratch, postgresql):
    """The page's table and rights are enough for a user who may create no table."""
    url = postgresql.url.rpartition("/")[0] + "/myapp"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER DATABASE myapp OWNER TO CURRENT_USER"))
        connection.execute(sa.text(BLOCKS["table"]))
    ini = BLOCKS["address"].replace("5432", str(postgresql.port))
    said = visits(scratch, ini)
    with engine.begin() as connection:
        may_create = connection.execute(sa.text("SELECT has_schema_privilege('myapp', 'public', 'CREATE')")).scalar()

    assert said == ["visit 1", "visit 2"]
    assert not may_create


def test_pgbouncer(scratch, postgresql, start_server):
    """Two processes share the session behind pgbouncer, which has one connection for both."""
    pooler = start_server("pgbouncer", "PgBouncer", postgresql.port)
    ini = BLOCKS["pgbouncer"].replace("6432", str(pooler.port))

    assert visits(scratch, APP + ini) == ["visit 1", "visit 2"]


def test_an_engine_behind_pgbouncer(postgresql_server, start_server):
    """Statements of two such engines do not meet on the server's one connection."""
    pooler = start_server("pgbouncer", "PgBouncer", postgresql_server.port)
    names = {}
    exec(BLOCKS["pooled"], names)
    engines = [names["make_engine"]({"sqlalchemy.url": pooler.url}) for _ in range(2)]
    found = []
    for _ in range(10):
        for number, engine in enumerate(engines):
            with engine.connect() as connection:
                found.append(connection.execute(sa.text(f"SELECT {number}")).scalar())
    for engine in engines:
        engine.dispose()

    assert found == [0, 1] * 10


def test_the_packages():
    """The packages have the names that the page says."""
    assert missing_packages(BLOCKS["install"]) == []
