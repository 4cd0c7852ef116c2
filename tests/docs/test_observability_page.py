"""docs/reference/observability.rst against the code: loggers, fields, words and events; and its examples are run."""

from __future__ import annotations

import ast
import gc
import importlib
import logging
import re
import socket
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import statsd
from docutils import nodes
from docutils.core import publish_doctree
from opentelemetry import trace
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from pyramid.config import Configurator

import beaker_bridge
from beaker_bridge import BreakerClosed, BreakerOpened, SessionMerged, SessionNotSaved, StoreFailed, events
from beaker_bridge.exceptions import BeakerBridgeError, SessionStoreError
from tests import machine
from tests.docs import pages
from tests.requests import Browser, config_of, store_options

# The examples of a page: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGE = pages.read("reference/observability")
BLOCKS = pages.examples(PAGE)
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "beaker_bridge").rglob("*.py"))}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
#: The methods of a logger, and their levels.
METHODS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}


def rows(marker):
    """Return the cells of the rows of one of the page's tables."""
    tree = publish_doctree(PAGE.partition(f".. {marker}\n")[2].partition(f".. end of {marker}\n")[0])
    return [[cell.astext() for cell in row.children] for row in next(tree.findall(nodes.tbody)).children]


# -- The page ----------------------------------------------------------------------------------------


def logger_of(path):
    """Return the name of a module's logger."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def logs_of(tree):
    """Return the calls in a module that write to its logger."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if (
            isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id in ("log", "logger")
            and call.func.attr in (*METHODS, "log", "critical")
        )
    ]


def levels_of(tree):
    """Return the levels at which a module logs."""
    by_method = {METHODS[call.func.attr] for call in logs_of(tree) if call.func.attr in METHODS}
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "logging"
    }
    return by_method | named & set(LEVELS)


def test_every_logger_is_on_the_page():
    """The page has each logger of the package, and the levels at which it logs; and no other one."""
    documented = {name: set(levels.split()) for name, levels, _ in rows("loggers")}
    written = {
        logger_of(path): levels_of(tree)
        for path, tree in SOURCES.items()
        if "getLogger(__name__)" in ast.unparse(tree) and path.name != "settings.py"
    }
    # Options of regions are read as a session's are.
    written["beaker_bridge.regions.settings"] = written["beaker_bridge.options.reader"]

    assert documented == written


@pytest.mark.parametrize("path", [path for path, tree in SOURCES.items() if logs_of(tree)], ids=logger_of)
def test_every_line_has_its_fields_and_no_id(path):
    """Each call that logs passes all of the fields, and no id of a session that is not shortened."""
    for call in logs_of(SOURCES[path]):
        extra = {word.arg: ast.unparse(word.value) for word in call.keywords}.get("extra", "")
        passed = [ast.unparse(argument) for argument in call.args[1:]]

        assert re.match(r"fields\(|self\._fields\(|extra$", extra), f"{path}:{call.lineno}"
        assert [text for text in passed if re.search(r"\b(session_)?id\b", re.sub(r"shown\([^()]*\)", "", text))] == []
        assert not isinstance(call.args[0], ast.JoinedStr), f"{path}:{call.lineno}"


def subclasses(kind):
    """Return a class and all that derive from it."""
    return [kind, *(found for sub in kind.__subclasses__() for found in subclasses(sub))]


def test_every_word_is_on_the_page():
    """The page has each word that says what failed, in errors and in log lines; and no other one."""
    documented = [name for name, _ in rows("failures")]
    gc.collect()
    of_errors = {kind.failure for kind in subclasses(BeakerBridgeError) if kind.__module__.startswith("beaker_bridge.")}
    in_sources = {
        match
        for tree in SOURCES.values()
        for match in re.findall(r"failure='(\w+)'|failure = '(\w+)'", ast.unparse(tree))
        for match in match
        if match
    }
    # What a region's lines say.
    in_sources |= {"unpicklable", "conflict"}

    assert set(documented) == of_errors | in_sources
    assert len(documented) == len(set(documented))


def test_every_event_is_on_the_page():
    """The page has each event, with all that it carries."""
    text = PAGE.partition("\nEvents\n")[2].partition("\nMetrics with statsd\n")[0]
    kinds = [
        kind
        for kind in subclasses(events.SessionEvent) + subclasses(events.StoreEvent)[1:]
        if "." not in kind.__qualname__
    ]
    for kind in kinds[1:]:
        row = text.partition(f"``{kind.__name__}`` ")[2]
        names = list(kind.__init__.__code__.co_varnames[1 : kind.__init__.__code__.co_argcount])

        assert row, kind
        assert [name for name in names if f"``{name}``" not in row] == []
        assert getattr(beaker_bridge, kind.__name__) is kind


# -- The examples ------------------------------------------------------------------------------------


def test_the_formatter(caplog):
    """The example's formatter writes the fields of a line."""
    parser = ConfigParser(interpolation=None)
    parser.read_string(BLOCKS["formatter"])
    formatter = logging.Formatter(parser["formatter_generic"]["format"])
    config = config_of(secret="s" * 32)
    caplog.set_level(logging.DEBUG, "beaker_bridge")
    browser = Browser(config)
    browser.write(a=1)
    first, second = browser.begin(), browser.begin()
    first.session["a"], second.session["a"] = 2, 3
    first.commit()
    second.commit()
    lines = [formatter.format(record) for record in caplog.records if record.name == "beaker_bridge.session.session"]

    assert [line.partition("store=")[2] for line in lines] == ["memory failure=conflict tries=2"]
    assert second.loaded.id[:6] in lines[0]


def test_the_panel_is_included():
    """The example includes the panel."""
    name, _, module = BLOCKS["toolbar"].strip().partition(" = ")

    assert name == "debugtoolbar.includes"
    assert callable(importlib.import_module(module).includeme)


@pytest.fixture
def included(tmp_path, monkeypatch):
    """Return a function that includes an example in an application, and returns its registry."""
    monkeypatch.syspath_prepend(tmp_path)

    def include(name, **settings):
        monkeypatch.delitem(sys.modules, f"example_{name}", raising=False)
        (tmp_path / f"example_{name}.py").write_text(BLOCKS[name], encoding="utf-8")
        importlib.invalidate_caches()
        config = Configurator(settings=settings)
        config.include(f"example_{name}")
        config.commit()
        return config.registry

    yield include
    for name in BLOCKS:
        sys.modules.pop(f"example_{name}", None)


SENT = [
    SessionMerged("a" * 32, {}, ["cart", "user"], 3),
    SessionNotSaved("a" * 32, {}, "ended"),
    StoreFailed("ext:redis", "breaker_open", "load", SessionStoreError("no answer")),
    BreakerOpened("ext:redis", "", "unavailable", SessionStoreError("no answer")),
    BreakerClosed("ext:redis", "", 1.5),
]


def test_statsd(included, monkeypatch):
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
        registry = included("statsd", statsd=f"127.0.0.1:{server.getsockname()[1]}")
        for event in SENT:
            registry.notify(event)
        received = [server.recv(1000).decode() for _ in range(2 * len(SENT))]
    clients[0].close()

    assert [line for line in received if "conflicts" not in line] == [
        f"sessions.{type(event).__name__}:1|c" for event in SENT
    ]
    assert "sessions.conflicts:2|c" in received


def test_prometheus(included):
    """The example counts each event with its reason, and shows which server is left alone."""
    registry = included("prometheus")
    open_before = []
    for event in SENT:
        registry.notify(event)
        open_before.append(REGISTRY.get_sample_value("session_breaker_open", {"store": "ext:redis", "server": ""}))
    module = sys.modules["example_prometheus"]
    counted = {
        tuple(sample.labels.values()): sample.value
        for metric in module.EVENTS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    for metric in (module.EVENTS, module.OPEN):
        REGISTRY.unregister(metric)

    assert counted == {
        ("SessionMerged", ""): 1,
        ("SessionNotSaved", "ended"): 1,
        ("StoreFailed", "breaker_open"): 1,
        ("BreakerOpened", "unavailable"): 1,
        ("BreakerClosed", ""): 1,
    }
    assert open_before == [None, None, None, 1, 0]


@pytest.fixture(scope="module")
def spans():
    """Return the spans that are traced; a process has one provider."""
    machine.package("greenlet")
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
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
