"""A site's sessions and regions are found in its ``.ini`` as ``pserve`` would have them, without starting it."""

from __future__ import annotations

import sys
import textwrap

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
