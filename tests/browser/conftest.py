"""The server that plays the sites which a browser visits, and the nginx before it."""

from __future__ import annotations

import pytest

from tests.browser.stage import Stage
from tests.servers.nginx import Nginx


@pytest.fixture(scope="session")
def _stage():
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def nginx(tmp_path_factory, _stage, certificate):
    """Return an nginx before that server."""
    with Nginx(tmp_path_factory.mktemp("nginx"), _stage.port, certificate) as server:
        yield server


@pytest.fixture
def stage(_stage):
    """Return the server, which plays no site yet."""
    _stage.clear()
    return _stage


@pytest.fixture
def http(stage):
    """Return what makes an address of a host and a path, over http."""
    return lambda host, path="/": f"http://{host}:{stage.port}{path}"


@pytest.fixture
def https(stage, nginx):
    """Return what makes an address of a host and a path, over https."""
    return lambda host, path="/": f"https://{host}:{nginx.tls}{path}"
