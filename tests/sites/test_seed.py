"""What pyramid_beaker documents of sessions is promised here: its settings, and how an application is set up.

The settings are those that its documentation names, and the calls come in its order; each option is tried side by side
with the installed pyramid_beaker.
"""

from __future__ import annotations

import hashlib
import hmac
import re

import plaster
import pyramid_beaker
import pytest
from beaker.container import MemoryNamespaceManager
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

import beaker_bridge

#: All of the settings that it shows, in one section of an ``.ini`` file.
INI = """\
[app:shop]
use = call:{module}:shop
session.type = file
session.data_dir = %(here)s/data/sessions/data
session.lock_dir = %(here)s/data/sessions/lock
session.key = shop
session.secret = known to the tests alone
session.cookie_on_exception = true
"""

#: Its calls: the factory is made of all of the settings, and handed to a configurator that has begun.
CODE = """\
from pyramid.config import Configurator

from {package} import session_factory_from_settings


def shop(global_config, **settings):
    factory = session_factory_from_settings(settings)
    config = Configurator(root_factory=get_root, settings=settings)
    config.begin()
    config.set_session_factory(factory)
    configure(config)
    config.end()
    return config.make_wsgi_app()
"""

#: What it leaves to its reader.
OTHER_CODE = """\
from pyramid.response import Response


def get_root(request):
    return {}


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return Response(str(request.session["count"]))


def fail(request):
    request.session["failed"] = True
    raise RuntimeError("the view fails")


def sorry(error, request):
    return Response("sorry", status=500)


def failed(request):
    return Response(str(request.session.get("failed", False)))


def configure(config):
    config.add_view(count)
    for view in (fail, failed):
        config.add_view(view, name=view.__name__)
    config.add_exception_view(sorry, context=RuntimeError)
"""


# -- The example -------------------------------------------------------------------------------------


@pytest.fixture(params=["beaker_bridge", "pyramid_beaker"])
def example(request, tmp_path, monkeypatch):
    """Return the documented site, started by PasteDeploy from a real ``.ini``, on either package."""
    # A name of its own for each test: a module is imported once.
    module = tmp_path.name
    code = OTHER_CODE + CODE.format(package=request.param)
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    ini = tmp_path / "example.ini"
    ini.write_text(INI.replace("{module}", module), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return TestApp(plaster.get_loader(str(ini), protocols=["wsgi"]).get_wsgi_app("shop"))


def test_the_example_keeps_a_session(example, tmp_path):
    """The documented site counts its visits, in files where its ``.ini`` says, under its cookie's name."""
    counted = [example.get("/").text for _ in range(3)]
    data = tmp_path / "data" / "sessions"
    session_id = example.cookies["shop"][40:]

    assert counted == ["1", "2", "3"]
    assert list(example.cookies) == ["shop"]
    assert [path.name for path in (data / "data").rglob("*") if path.is_file()] == [f"{session_id}.cache"]
    assert [path for path in (data / "lock").rglob("*") if path.is_file()]


def test_the_example_keeps_what_a_failed_view_changed(example):
    """With ``cookie_on_exception = true`` the example's session survives an exception view."""
    response = example.get("/fail", status=500)

    assert response.headers.getall("Set-Cookie")
    assert example.get("/failed").text == "True"


# -- The options, side by side -----------------------------------------------------------------------

PACKAGES = (pyramid_beaker, beaker_bridge)
SECRET = "a secret for tests, of 32 bytes or more"


def site(package, config=None, **options):
    """Return a site with the package's session factory, set as the documentation says."""
    if config is None:
        settings = {f"session.{name}": value for name, value in options.items()}
        config = Configurator(settings=settings)
        config.set_session_factory(package.session_factory_from_settings(settings))

    def count(request):
        request.session["count"] = request.session.get("count", 0) + 1
        return Response(str(request.session["count"]))

    def fail(request):
        request.session["count"] = request.session.get("count", 0) + 1
        raise RuntimeError("the view fails")

    def sorry(error, request):
        return Response("sorry", status=500)

    config.add_view(count)
    config.add_view(fail, name="fail")
    config.add_exception_view(sorry, context=RuntimeError)
    return TestApp(config.make_wsgi_app())


def id_of(app, key="sid"):
    return app.cookies[key][-32:]


def files(folder, session_id):
    """Return the files under a folder, with ``ID`` where the session's id is."""
    return sorted(
        str(path.relative_to(folder)).replace(session_id, "ID").replace(f"/{session_id[0]}/{session_id[:2]}/", "/I/ID/")
        for path in folder.rglob("*")
        if path.is_file()
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_options_without_settings(package):
    """``BeakerSessionFactoryConfig`` takes the options themselves, in Python and without a prefix."""
    config = Configurator()
    config.set_session_factory(package.BeakerSessionFactoryConfig(type="memory", key="mykey", secret=SECRET))
    app = site(package, config)
    counted = [app.get("/").text for _ in range(2)]

    assert counted == ["1", "2"]
    assert list(app.cookies) == ["mykey"]


@pytest.mark.parametrize("package", PACKAGES)
def test_type(package, tmp_path):
    """``session.type`` says where sessions are: memory keeps no file, file and dbm do, cookie keeps all in it."""
    found = {}
    for kind in ("memory", "file", "dbm", "cookie"):
        folder = tmp_path / kind
        folder.mkdir()
        needed = {"validate_key": SECRET} if kind == "cookie" else {"data_dir": str(folder / "data")}
        app = site(package, type=kind, key="sid", secret=SECRET, **needed)
        app.get("/")
        stored = {path.name.partition(".")[0] for path in folder.rglob("*.*") if not path.name.endswith(".lock")}
        found[kind] = (
            app.get("/").text,
            id_of(app) in MemoryNamespaceManager.namespaces,
            stored == {id_of(app)},
            len(app.cookies["sid"]) > 40 + 32,
        )

    assert found == {
        "memory": ("2", True, False, False),
        "file": ("2", False, True, False),
        "dbm": ("2", False, True, False),
        "cookie": ("2", False, False, True),
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_data_dir(package, tmp_path):
    """``session.data_dir`` is where the records are, under Beaker's names; alone, it means files."""
    app = site(package, data_dir=str(tmp_path / "data"), lock_dir=str(tmp_path / "lock"), key="sid")
    app.get("/")

    assert files(tmp_path / "data", id_of(app)) == ["container_file/I/ID/ID.cache"]


@pytest.mark.parametrize("package", PACKAGES)
def test_lock_dir(package, tmp_path):
    """``session.lock_dir`` is where the lock files are, and nothing else; without it they are in ``data_dir``."""
    apart = site(package, type="file", data_dir=str(tmp_path / "data"), lock_dir=str(tmp_path / "lock"), key="sid")
    apart.get("/")
    together = site(package, type="file", data_dir=str(tmp_path / "both"), key="sid")
    together.get("/")

    assert not list((tmp_path / "data").rglob("*.lock"))
    assert {path.suffix for path in (tmp_path / "lock").rglob("*") if path.is_file()} == {".lock"}
    assert list((tmp_path / "both" / "container_file_lock").rglob("*.lock"))


@pytest.mark.parametrize("package", PACKAGES)
def test_key(package):
    """``session.key`` is the cookie's name; without it, Beaker's own."""
    named, unnamed = site(package, type="memory", key="mykey"), site(package, type="memory")
    named.get("/")
    unnamed.get("/")

    assert list(named.cookies) == ["mykey"]
    assert list(unnamed.cookies) == ["beaker.session.id"]


@pytest.mark.parametrize("package", PACKAGES)
def test_secret(package):
    """``session.secret`` signs the id with HMAC-SHA1; under another secret the cookie opens nothing."""
    signed = site(package, type="memory", key="sid", secret=SECRET)
    signed.get("/")
    cookie = signed.cookies["sid"]
    other = site(package, type="memory", key="sid", secret="another secret, of 32 bytes or more")
    unsigned = site(package, type="memory", key="sid")
    unsigned.get("/")

    assert cookie[:40] == hmac.new(SECRET.encode("ascii"), cookie[40:].encode("ascii"), hashlib.sha1).hexdigest()
    assert re.fullmatch("[0-9a-f]{32}", cookie[40:])
    assert other.get("/", headers={"Cookie": f"sid={cookie}"}).text == "1"
    assert re.fullmatch("[0-9a-f]{32}", unsigned.cookies["sid"])


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("options", [{}, {"cookie_on_exception": "true"}], ids=["by default", "true"])
def test_cookie_on_exception(package, options):
    """``session.cookie_on_exception`` is true by default: what an exception view answers carries the cookie."""
    app = site(package, type="memory", key="sid", secret=SECRET, **options)
    response = app.get("/fail", status=500)

    assert len(response.headers.getall("Set-Cookie")) == 1
    assert app.get("/").text == "2"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cookie_on_exception(package):
    """With ``session.cookie_on_exception = false`` an exception view sends no cookie, and nothing is stored."""
    app = site(package, type="memory", key="sid", secret=SECRET, cookie_on_exception="false")
    first = app.get("/fail", status=500)
    counted = app.get("/").text
    again = app.get("/fail", status=500)

    assert "Set-Cookie" not in first.headers
    assert counted == "1"
    assert "Set-Cookie" not in again.headers
    assert app.get("/").text == "2"
