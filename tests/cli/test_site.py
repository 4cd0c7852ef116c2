"""A site's sessions and regions are found in its ``.ini`` as ``pserve`` would have them, without starting it."""

from __future__ import annotations

import os
import re
import sys
import textwrap

import plaster
import plaster_pastedeploy
import pytest

from beaker_bridge.site.find import SiteError, find_site

APPLICATION = """
    from pyramid.config import Configurator

    def main(global_config, **settings):
        raise AssertionError("the application is started")

    def composite(loader, global_config, **applications):
        raise AssertionError("the composite is started")

    def other_filter(app, global_config, **options):
        raise AssertionError("the filter is made")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return a function that writes a site's files, and finds its sessions."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clisite", raising=False)
    (tmp_path / "clisite.py").write_text(textwrap.dedent(APPLICATION))

    def find(ini, name="", variables=None, **others):
        for stem, text in {"site": ini, **others}.items():
            (tmp_path / f"{stem}.ini").write_text(textwrap.dedent(text))
        return find_site(f"{tmp_path / 'site.ini'}{name}", variables)

    yield find
    sys.modules.pop("clisite", None)


#: Ways to put the same filter around the same application.
PIPELINES = {
    "filter-with": """
        [app:main]
        use = call:clisite:main
        filter-with = session
    """,
    "pipeline": """
        [pipeline:main]
        pipeline = other session blog
        [app:blog]
        paste.app_factory = clisite:main
        [filter:other]
        paste.filter_app_factory = clisite:other_filter
    """,
    "filter-app": """
        [filter-app:main]
        use = egg:beaker_bridge#session
        next = blog
        type = file
        key = sid
        data_dir = %(here)s/data
        timeout = 60
        [app:blog]
        use = call:clisite:main
    """,
    "a filter with a filter": """
        [app:main]
        use = call:clisite:main
        filter-with = other
        [filter:other]
        use = call:clisite:other_filter
        filter-with = session
    """,
    "inherited use": """
        [app:main]
        use = base
        [app:base]
        use = call:clisite:main
        filter-with = session
    """,
}
FILTER = """
        [filter:session]
        use = egg:beaker_bridge#session
        type = file
        key = sid
        data_dir = %(here)s/data
        timeout = 60
"""


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_filters_options_are_found(site, tmp_path, pipeline):
    """However the filter is put around the application, its options are found, and nothing is started."""
    found = site(PIPELINES[pipeline] + FILTER)

    assert (found.filter.package, found.notes) == ("beaker_bridge", [])
    assert (found.options.data_dir, found.options.timeout) == (str(tmp_path / "data"), 60)
    assert found.origin("timeout") == f"[{'filter-app:main' if pipeline == 'filter-app' else 'filter:session'}] timeout"


def test_without_an_application(site):
    """A file without an application is an error."""
    with pytest.raises(SiteError, match="No section 'main'"):
        site("[server:main]\nuse = egg:waitress#main\n")


# -- Where options are written -----------------------------------------------------------------------


def test_each_option_knows_where_it_is_written(site, tmp_path):
    """``use`` of another section or file, ``set``, ``get`` and defaults lead to the line that holds the value."""
    found = site(
        """
        [DEFAULT]
        session.secret = a-default-secret-of-thirty-two-bytes-or-more
        seconds = 60
        [app:main]
        use = call:clisite:main
        set minutes = 1
        filter-with = session
        [filter:session]
        use = config:common.ini#session
        get timeout = seconds
        key = sid
        """,
        common="""
        [filter:session]
        use = egg:beaker_bridge#session
        type = file
        data_dir = %(here)s/data
        """,
    )

    assert {name: found.origin(name) for name in found.options.given} == {
        "secret": "[DEFAULT] session.secret",
        "timeout": "[DEFAULT] seconds",
        "key": "[filter:session] key",
        "type": "common.ini [filter:session] type",
        "data_dir": "common.ini [filter:session] data_dir",
    }
    assert (found.options.timeout, found.options.data_dir) == (60, f"{tmp_path}/data")
    assert found.origin("absolute_timeout") == ""
    assert {type(value) for value in (found.options.key, found.options.data_dir, *found.settings.values())} == {str}


def test_variables_as_pserve_takes_them(site):
    """They come behind the file's name, or in it."""
    ini = "[app:main]\nuse = call:clisite:main\nsession.timeout = %(seconds)s\n"

    assert site(ini, variables={"seconds": "60"}).options.timeout == 60
    assert site(ini, "?seconds=70").options.timeout == 70


def test_the_settings_complete_a_filter(site):
    """The filter wins; what it does not say of exceptions and tokens, the settings say."""
    settings = "session.timeout = 5\n        session.cookie_on_exception = false\n"
    found = site(PIPELINES["filter-with"].replace("filter-with", f"{settings}        filter-with") + FILTER)

    assert (found.options.timeout, found.options.cookie_on_exception) == (60, False)
    assert found.origin("cookie_on_exception") == "[app:main] session.cookie_on_exception"
    assert found.own_options.timeout == 5


@pytest.mark.parametrize("use", ["egg:beaker_bridge", "egg:beaker_bridge#main", "egg:beaker_bridge#session"])
def test_our_filter_by_each_of_its_names(site, use):
    """``#main`` is the default."""
    assert site(PIPELINES["filter-with"] + FILTER.replace("egg:beaker_bridge#session", use)).options.timeout == 60


@pytest.mark.parametrize(
    "line",
    [
        "use = egg:Beaker#beaker_session",
        "paste.filter_factory = beaker.middleware:session_filter_factory",
        "paste.filter_app_factory = beaker.middleware:session_filter_app_factory",
        "use = call:beaker.middleware:session_filter_factory",
    ],
)
def test_beakers_own_filter(site, line):
    """Its options are those that a request hands to our tween, with or without a prefix."""
    ini = PIPELINES["filter-with"] + FILTER.replace("use = egg:beaker_bridge#session", line)
    found = site(ini.replace("timeout", "session.timeout"))

    assert (found.filter.package, found.options.timeout) == ("Beaker", 60)
    assert found.origin("timeout") == "[filter:session] session.timeout"


def test_the_innermost_filter_makes_the_session(site):
    """Of two filters the inner one counts; a filter of another key in the environ is none."""
    found = site(
        """
        [pipeline:main]
        pipeline = outer session caches blog
        [app:blog]
        use = call:clisite:main
        [filter:outer]
        use = egg:beaker_bridge#session
        type = memory
        [filter:caches]
        use = egg:beaker_bridge#session
        environ_key = another.session
        type = memory
        """
        + FILTER
    )

    assert found.options.type == "file"
    assert found.notes == ["there are 2 session filters; a request has the session of the innermost one"]


# -- Several applications ----------------------------------------------------------------------------

COMPOSITE = """
        [pipeline:main]
        pipeline = session both
        [composite:both]
        use = {use}
        / = home
        /cms = config:cms.ini
        /static = egg:beaker_bridge
        not_found = none
        [app:home]
        use = call:clisite:main
        session.key = home
"""
CMS = "[app:main]\nuse = call:clisite:main\n"


@pytest.mark.parametrize("use", ["call:clisite:composite", "egg:Paste#urlmap"])
def test_a_composite_without_a_name(site, tmp_path, monkeypatch, use):
    """The error lists the applications to name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SiteError) as refused:
        site(COMPOSITE.format(use=use) + FILTER, cms=CMS)

    assert str(refused.value) == (
        "site.ini#main is a composite of several applications: name one of them: site.ini#home, cms.ini"
    )


def test_a_composite_of_nothing(site):
    """A composite without applications that can be named is told as that."""
    with pytest.raises(SiteError, match="name one of them: none was found"):
        site("[composite:main]\npaste.composite_factory = clisite:composite\n")


def test_a_named_application_has_the_filters_around_the_composite(site):
    """A request of it passes them, too."""
    found = site(COMPOSITE.format(use="call:clisite:composite") + FILTER, "#home", cms=CMS)

    assert (found.options.timeout, found.settings) == (60, {"session.key": "home"})


@pytest.mark.parametrize(
    "more",
    [
        "",
        "[app:main]\nuse = call:clisite:main\n",
        "[composite:main]\nuse = call:clisite:composite\n/ = another\n[app:another]\nuse = call:clisite:main\n",
    ],
)
def test_a_named_application_that_is_in_no_composite(site, more):
    """It has its own filters alone."""
    found = site(f"[app:blog]\nuse = call:clisite:main\nsession.timeout = 60\n{more}", "#blog")

    assert (found.filter, found.options.timeout) == (None, 60)


# -- What cannot be read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "use = call:absent:main",
            "call:absent:main cannot be imported (ModuleNotFoundError: No module named 'absent')",
        ),
        ("use = egg:absent", "egg:absent cannot be imported (PackageNotFoundError"),
        ("paste.app_factory = absent:main", "absent:main cannot be imported"),
        ("use = call:failing:main", "call:failing:main cannot be imported (KeyError: 'HOME_OF_X')"),
        ("use = call:leaving:main", "call:leaving:main cannot be imported (SystemExit: 3)"),
    ],
)
def test_what_cannot_be_imported_is_read_as_text(site, tmp_path, line, error):
    """The sections are read all the same, and that is said."""
    (tmp_path / "failing.py").write_text("import os; os.environ['HOME_OF_X']")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    found = site(PIPELINES["filter-with"].replace("use = call:clisite:main", line) + FILTER)

    assert (found.options.timeout, found.settings) == (60, {})
    assert len(found.notes) == 1
    assert found.notes[0].startswith(error)
    assert found.notes[0].endswith("its section is read as text")


@pytest.mark.parametrize(
    ("ini", "error"),
    [
        ("[app:main]\nuse = egg:beaker_bridge#absent\n", "Entry point 'absent' not found"),
        ("[app:main]\nsession.type = memory\n", "No loader given in section 'app:main'"),
        ("[app:main]\nuse = main\n", "an application, or a filter of it, uses itself"),
        ("[app:main]\nuse = config:absent.ini\n", "absent.ini cannot be read: No such file or directory"),
        ("[app:main]\nuse = call:clisite:main\nrequire = absent\n", "which a line 'require' names"),
        ("[app:main]\nuse = call:clisite:main\nget a = b\n", "a line begins with 'get', and [DEFAULT] has no 'b'"),
        ("[app:main]\nsecret = %(absent)s\n", "[app:main] secret: %(absent)s is not defined; define it in [DEFAULT]"),
        ("[app:main]\nsecret = hush%hush\n", "[app:main] secret: a % must be written %%, or begin %(name)s"),
        ("[app:main]\nsecret = %(secret)s\n", "[app:main] secret: its %(…)s refer to each other"),
        ("secret = hush\n", "cannot be parsed at line 1, which is in no section"),
        ("[app:main]\nhush\n", "cannot be parsed at line 2"),
        ("[app:main]\nsecret = hush\nsecret = hush\n", "[app:main] secret is there twice, again in line 3"),
        ("[app:main]\n[app:main]\n", "[app:main] is there twice, again in line 2"),
    ],
)
def test_what_is_wrong_with_a_file(site, ini, error):
    """The error names the place and the rule, and never a value."""
    with pytest.raises(SiteError) as refused:
        site(ini)

    assert error in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_file_that_is_no_text(site, tmp_path):
    """The error says so."""
    (tmp_path / "latin.ini").write_bytes(b"[app:main]\nname = \xe9\n")
    with pytest.raises(SiteError, match=r"cannot be read: .* at byte 18"):
        find_site(str(tmp_path / "latin.ini"))


@pytest.mark.parametrize("uri", ["absent+scheme://x", "site.unknown"])
def test_what_plaster_does_not_know(uri):
    """A file that plaster has no loader for is an error."""
    with pytest.raises(SiteError, match=re.escape(uri)):
        find_site(uri)


def test_a_loader_of_another_kind(site, tmp_path, monkeypatch):
    """A loader of plaster's that is not PasteDeploy's gives the settings alone, and that is said."""
    monkeypatch.setattr(plaster, "get_loader", lambda uri, protocols: TomlLoader(plaster.parse_uri(uri)))
    found = find_site(str(tmp_path / "site.toml"))

    assert (found.options.timeout, found.origin("timeout"), found.section_names()) == (60, "", ["main"])
    assert "gives the application's settings only: a filter is not seen" in found.notes[0]


class TomlLoader(plaster.ILoader):
    """A loader that knows one application."""

    def __init__(self, uri):
        self.uri = uri

    def get_sections(self):
        return ["main"]

    def get_settings(self, section=None, defaults=None):
        return {}

    def setup_logging(self, defaults=None):
        raise NotImplementedError

    def get_wsgi_app_settings(self, name=None, defaults=None):
        return {"session.timeout": "60"}


def test_a_loader_that_knows_the_environment(site, tmp_path, monkeypatch):
    """A loader that derives from PasteDeploy's is used with the defaults that it adds."""

    class EnvironLoader(plaster_pastedeploy.Loader):
        def _get_defaults(self, defaults=None):
            return {"ENV_SECONDS": os.environ["SECONDS_OF_X"], **super()._get_defaults(defaults)}

    monkeypatch.setenv("SECONDS_OF_X", "60")
    monkeypatch.setattr(plaster, "get_loader", lambda uri, protocols: EnvironLoader(plaster.parse_uri(uri)))
    found = site("[app:main]\nuse = call:clisite:main\nsession.timeout = %(ENV_SECONDS)s\n")

    assert found.options.timeout == 60


def test_what_another_loader_cannot_read():
    """Its error names the file."""
    with pytest.raises(SiteError, match="egg:beaker_bridge: LookupError: Entry point 'main' not found"):
        find_site("egg:beaker_bridge")
