"""A site with traffic, for the commands that work on its store meanwhile."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from contextlib import contextmanager

from beaker_bridge.site.find import find_site
from tests.cli.sites import SECRET
from tests.live_site import PATIENCE, Visitor, started
from tests.requests import STORES

APPLICATION = """
    from pyramid.config import Configurator
    from pyramid.response import Response

    class Foo:
        pass

    def count(request):
        request.session["count"] = request.session.get("count", 0) + 1
        return Response(str(request.session["count"]))

    def log_in(request):
        request.session.regenerate_id()
        request.session.bind(request.params["user"], {"browser": "Firefox"})
        return Response("in")

    def log_out(request):
        request.session.invalidate()
        return Response("out")

    def read(request):
        return Response(str(request.session.get("count", 0)))

    def main(global_config, **settings):
        with Configurator(settings=settings) as config:
            for view in (count, log_in, log_out, read):
                config.add_route(view.__name__, f"/{view.__name__}")
                config.add_view(view, route_name=view.__name__)
            return config.make_wsgi_app()
"""

INI = """
    [app:main]
    use = call:busysite:main
    filter-with = session
    pyramid.includes = beaker_bridge

    [filter:session]
    use = egg:beaker_bridge#session
    key = busysite
    secret = {secret}
    store_timeout = 10
    {options}

    [server:main]
    use = egg:waitress#main
    host = 127.0.0.1
    port = 0
    threads = 4

    [loggers]
    keys = root

    [handlers]
    keys = console

    [formatters]
    keys =

    [logger_root]
    level = INFO
    handlers = console

    [handler_console]
    class = StreamHandler
    args = (sys.stderr,)
"""
#: The options of each store, by the name that tests have for it.
OPTIONS = {
    "file": ("type = file", "data_dir = %(here)s/{name}"),
    "dbm": ("type = dbm", "data_dir = %(here)s/{name}", "dbmmodule = dbm.dumb"),
    "sqlite": ("type = ext:database", "url = sqlite:///%(here)s/{name}.db"),
    "redis": ("type = ext:redis", "url = {url}", "key_prefix = {name}:"),
    "rediscluster": ("type = ext:rediscluster", "urls = {url}", "key_prefix = {name}:"),
    "memcached": ("type = ext:memcached", "url = {url}"),
    "postgresql": ("type = ext:database", "url = {url}", "table_name = {name}"),
    "mariadb": ("type = ext:database", "url = {url}", "table_name = {name}"),
}


class BusySite:
    """A site in files of its own.

    Args:
        folder: the folder of the files.
        name: the name of its file.
        store: the store, as the tests name it.
        url: the address of the store's server.
        more: further options.
    """

    def __init__(self, folder, name, store, url=None, *, timeout=1000, **more):
        (folder.path / "busysite.py").write_text(textwrap.dedent(APPLICATION))
        lines = [line.format(name=name, url=str(url).replace("%", "%%")) for line in OPTIONS[store]]
        lines += [f"{option} = {value}" for option, value in {"timeout": timeout, **more}.items() if value]
        options = f"\n{' ' * 4}".join(lines)
        self.ini = folder.write(INI.format(secret=SECRET, options=options), name)
        self.config = find_site(self.ini).config
        store = self.config.store
        for batch in store.scan() if store.lists else ():
            store.delete(batch)

    def close(self):
        """Close the connections."""
        self.config.store.close()

    @contextmanager
    def serving(self):
        """Run the site, and yield it."""
        with started([sys.executable, "-W", "ignore", "-m", "pyramid.scripts.pserve", self.ini], None) as site:
            yield site


def paths(folder):
    """Return PYTHONPATH for a site's process."""
    return os.pathsep.join([str(folder.path), *sys.path])


def url_of(request, store):
    """Return the address of the server that a store needs; None without one."""
    return request.getfixturevalue(STORES[store]).url if STORES[store] else None


class Traffic:
    """Visitors who count, each in a session, until they are told to stop.

    Args:
        site: the running site.
        visitors: how many they are.
    """

    def __init__(self, site, visitors=4):
        self.visitors = [Visitor(site) for _ in range(visitors)]
        self.counts = [0] * visitors
        self.wrong = []
        self._is_over = threading.Event()
        self._begun = threading.Barrier(visitors + 1)
        self._threads = [threading.Thread(target=self._visit, args=(nth,)) for nth in range(visitors)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self._begun.wait(PATIENCE)
        return self

    def __exit__(self, *exc_info):
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _visit(self, nth):
        self._count(nth)
        self._begun.wait(PATIENCE)
        while not self._is_over.is_set():
            self._count(nth)

    def _count(self, nth):
        text = self.visitors[nth].get("/count").text
        self.counts[nth] += 1
        if text != str(self.counts[nth]):
            self.wrong.append((nth, self.counts[nth], text))
