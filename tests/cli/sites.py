"""Sites in files for the tests of the command, and the command itself: in this process, or as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

from beaker_bridge.cli.commands import run


def processes(test):
    """Mark a test that runs the command as processes."""
    return pytest.mark.once(pytest.mark.slow(test))


SECRET = "a-secret-that-is-never-shown-anywhere-0123456789"
PASSWORD = "hidden-password-of-a-store"

APPLICATION = """
    from pyramid.config import Configurator
    from pyramid.response import Response

    print("the module prints something")

    def main(global_config, **settings):
        print("the application prints something")
        with Configurator(settings=settings) as config:
            config.add_route("home", "/")
            config.add_view(lambda request: Response(str(len(request.session))), route_name="home")
            return config.make_wsgi_app()

    def refusing(global_config, **settings):
        raise RuntimeError("the application refuses to start")

    def mute(global_config, **settings):
        raise ValueError

    def under(global_config, **settings):
        import beaker_bridge
        from pyramid.tweens import EXCVIEW
        with Configurator(settings={**settings, "pyramid.includes": ""}) as config:
            config.set_session_factory(beaker_bridge.session_factory_from_settings(settings))
            config.add_tween("beaker_bridge.session_tween_factory", under=EXCVIEW)
            return config.make_wsgi_app()

    def coded(global_config, **settings):
        import beaker_bridge
        from tests.cli.sites import Codec, SECRET
        with Configurator(settings=settings) as config:
            options = {"type": "memory", "key": "coded", "secret": SECRET, "timeout": 77, "data_serializer": Codec()}
            config.set_session_factory(beaker_bridge.BeakerSessionFactoryConfig(**options))
            return config.make_wsgi_app()

    class Wrapping:
        def __init__(self, application):
            self.application = application

    def wrapping(application, global_config, **options):
        return Wrapping(application)

    def plain(global_config, **settings):
        return lambda environ, start_response: []

    def composite(loader, global_config, **applications):
        raise AssertionError("the composite is started")

    def other_filter(app, global_config, **options):
        return app
"""

#: An application behind our filter: nothing is wrong, and nothing is risky.
FINE = f"""
    [app:main]
    use = call:clisite:main
    filter-with = session
    pyramid.includes = beaker_bridge

    [filter:session]
    use = egg:beaker_bridge#session
    type = file
    data_dir = %(here)s/data
    key = mysite
    secret = {SECRET}
    timeout = 3600
    purge_every = 3600
"""


class Codec:
    """A serializer of the application's own."""

    dumps = staticmethod(lambda record: json.dumps(record).encode())
    loads = staticmethod(json.loads)


@dataclass
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def text(self):
        """The output with its lines joined."""
        return " ".join(self.out.split())


class Folder:
    """A folder with a site's files."""

    def __init__(self, path):
        self.path = path
        self.capsys = None
        (path / "clisite.py").write_text(textwrap.dedent(APPLICATION))

    def write(self, ini, name="site"):
        """Write a file, and return its path."""
        path = self.path / f"{name}.ini"
        path.write_text(textwrap.dedent(ini))
        return str(path)

    def call(self, *arguments):
        """Run the command in this process."""
        self.capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *self.capsys.readouterr())

    def command(self, *arguments, **environ):
        """Return the command as a process that has not been waited for."""
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "beaker_bridge.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(self.path), *sys.path]), **environ},
        )

    def process(self, *arguments, **environ):
        """Run the command as a process."""
        process = self.command(*arguments, **environ)
        out, err = process.communicate(timeout=60)
        return Outcome(process.returncode, out, err)


def with_option(ini, **options):
    """Return a file with options added, or replaced, in its last section."""
    lines = [line for line in ini.rstrip().splitlines() if line.partition("=")[0].strip() not in options]
    return "\n".join([*lines, *(f"    {name} = {value}" for name, value in options.items() if value is not None), ""])
