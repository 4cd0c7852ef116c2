"""Every example in docs/howto/metrics.rst is run."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest
import statsd
from opentelemetry import trace
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from beaker_bridge import BreakerClosed, BreakerOpened, SessionMerged, SessionNotSaved, StoreFailed
from beaker_bridge.exceptions import SessionStoreError
from tests import machine
from tests.docs import pages
from tests.docs.sites import missing_packages
from tests.requests import Browser, config_of, store_options

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

BLOCKS = pages.examples(pages.read("howto/metrics"))
SITE = """
from pyramid.config import Configurator

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("logout", "/logout")
    config.add_view(lambda request: request.session.invalidate(), route_name="logout", renderer="json")
    config.add_view(lambda request: request.session.setdefault("user", "ann"), renderer="json")
    return config.make_wsgi_app()
"""
#: What a site's own requests bring about only when its store fails.
SENT = [
    SessionMerged("a" * 32, {}, ["cart", "user"], 3),
    SessionNotSaved("a" * 32, {}, "ended"),
    StoreFailed("ext:redis", "breaker_open", "load", SessionStoreError("no answer")),
    BreakerOpened("ext:redis", "", "unavailable", SessionStoreError("no answer")),
    BreakerClosed("ext:redis", "", 1.5),
]


@pytest.fixture
def site(scratch):
    """Return a function that loads a site with an example, in which a user logs out."""

    def load(block, port=0):
        ini = BLOCKS["statsd-settings"].replace("8125", str(port))
        browser = scratch.load(ini + "session.type = memory\nsession.key = sid\n", __init__=SITE, metrics=BLOCKS[block])
        browser.get("/")
        browser.get("/logout")
        return SimpleNamespace(browser=browser, notify=scratch.application.registry.notify)

    return load


def test_statsd(site, monkeypatch):
    """The example counts each event, and conflicts by their number."""
    clients = []

    class Client(statsd.StatsClient):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            clients.append(self)

    monkeypatch.setattr(statsd, "StatsClient", Client)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        notify = site("statsd", server.getsockname()[1]).notify
        for event in SENT:
            notify(event)
        received = [server.recv(1000).decode() for _ in range(2 * (1 + len(SENT)))]
    clients[0].close()

    assert [line for line in received if "conflicts" not in line] == [
        "sessions.SessionInvalidated:1|c",
        *(f"sessions.{type(event).__name__}:1|c" for event in SENT),
    ]
    assert "sessions.conflicts:2|c" in received


def test_prometheus(site):
    """The example counts each event with its reason, shows which server is left alone, and serves all of it."""
    running = site("prometheus")
    is_open = []
    for event in SENT:
        running.notify(event)
        is_open.append(REGISTRY.get_sample_value("session_breaker_open", {"store": "ext:redis", "server": ""}))
    text = running.browser.get("/metrics").text
    module = sys.modules["myapp.metrics"]
    for metric in (module.EVENTS, module.OPEN):
        REGISTRY.unregister(metric)

    assert {line for line in text.splitlines() if line.startswith("session_events_total")} == {
        f'session_events_total{{event="{event}",why="{why}"}} 1.0'
        for event, why in (
            ("SessionInvalidated", ""),
            ("SessionMerged", ""),
            ("SessionNotSaved", "ended"),
            ("StoreFailed", "breaker_open"),
            ("BreakerOpened", "unavailable"),
            ("BreakerClosed", ""),
        )
    }
    assert is_open == [None, None, None, 1, 0]


@pytest.fixture
def spans(monkeypatch):
    """Return the spans that are traced; a process can have one provider only, so this one takes its place."""
    machine.package("greenlet")
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.mark.parametrize(
    ("store", "fixture", "commands"),
    [
        ("redis", "redis_server", {"EVALSHA", "GET"}),
        ("rediscluster", "redis_cluster", {"EVALSHA", "GET"}),
        ("sqlite", None, {"INSERT", "SELECT", "UPDATE"}),
        ("postgresql", "postgresql_server", {"INSERT", "SELECT", "UPDATE"}),
    ],
)
def test_opentelemetry(store, fixture, commands, spans, request, tmp_path):
    """OpenTelemetry's instrumentation sees each command of a session, below the request's span, without the id."""
    server = request.getfixturevalue(fixture) if fixture else None
    exec(BLOCKS["opentelemetry"], {})
    try:
        config = config_of(**store_options(store, tmp_path, server and server.url))
        browser = Browser(config)
        browser.write(a=1)
        spans.clear()
        with trace.get_tracer("test").start_as_current_span("request") as span:
            browser.write(a=2)
            Browser(config).write(b=1)
    finally:
        RedisInstrumentor().uninstrument()
        SQLAlchemyInstrumentor().uninstrument()
    config.store.close()
    found = spans.get_finished_spans()
    seen = [one for one in found if one.name.partition(" ")[0] in commands]

    assert {one.name.partition(" ")[0] for one in seen} == commands
    assert {one.parent.span_id for one in seen} == {span.get_span_context().span_id}
    assert [one for one in found if browser.id in str(dict(one.attributes))] == []


@pytest.mark.parametrize("kind", ["statsd", "prometheus", "opentelemetry"])
def test_the_packages(kind):
    """The packages have the names that the page says."""
    assert missing_packages(BLOCKS[f"install-{kind}"]) == []
