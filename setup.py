"""The package's metadata and entry points, and which of its modules are compiled where they can be.

Compiled, they take half the time, and do the same. Where there is no C compiler, no Cython, or
``BEAKER_BRIDGE_PURE`` in the environment, the package is installed without.
"""

import os
import platform
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

here = Path(__file__).parent

#: What is on the way of each request. Not ``merge`` and ``json_types``, which go as deep as what is stored does:
#: from their source too deep a value is a ``RecursionError``, compiled it would end the process.
COMPILED = [
    "codec",
    "cookie_session",
    "cookies",
    "environ",
    "factory",
    "headers",
    "middleware",
    "profile",
    "pyramid_session",
    "serializers",
    "session",
    "session_base",
    "stores/base",
    "stores/memory",
    "streaming",
    "tween",
]
#: Annotations are for the type checker: a subclass of ``int`` stays what it is.
DIRECTIVES = {"language_level": 3, "annotation_typing": False}
#: Without what a debugger of C would need, which is three quarters of the size.
FLAGS = ["-O3", "-g0"] if os.name == "posix" else []


class WithSampleSite(build_py):
    """A checkout that is installed for editing has its sample site, too; a wheel does not."""

    def finalize_options(self) -> None:
        if self.editable_mode:
            self.distribution.packages.append("sample_app")
            self.distribution.package_data["sample_app"] = ["static/*", "templates/*"]
        super().finalize_options()


class BuildCompiled(build_ext):
    """Compiles the modules, one by one: without any of them the package works."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.parallel = True

    def finalize_options(self) -> None:
        super().finalize_options()
        # Who edits the sources wants them to be run.
        self.extensions = [] if self.editable_mode else self.extensions

    def run(self) -> None:
        # What an earlier build has left there would be installed, too, and run instead of newer sources.
        for left in Path(self.build_lib, "beaker_bridge").rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            left.unlink()
        if self.extensions:
            self.extensions = [extension for extension in self.extensions if self._translated(extension)]
        super().run()

    def _translated(self, extension: Extension) -> bool:
        """Have a module translated to C; say whether it was."""
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError

        try:
            (made,) = cythonize(extension, build_dir=self.build_temp, compiler_directives=DIRECTIVES, quiet=True)
        except CompileError as error:
            self.warn(f"{extension.name} is not compiled: {error}")
            return False
        extension.sources = made.sources
        return True


def _extensions() -> list[Extension]:
    """Return the modules to compile; none where that is not wanted, or nothing is there to do it."""
    # They would switch on the lock that a free-threaded Python does without.
    is_usual = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    if os.environ.get("BEAKER_BRIDGE_PURE") or not is_usual:
        return []
    try:
        import Cython  # noqa: F401
    except ImportError:
        return []
    return [
        Extension(
            f"beaker_bridge.{name.replace('/', '.')}",
            [f"beaker_bridge/{name}.py"],
            extra_compile_args=FLAGS,
            optional=True,
        )
        for name in COMPILED
    ]


CRYPTO = ["cryptography"]
SAMPLE = ["pyramid_jinja2", "pyramid_tm", "waitress"]
# Where it has wheels; on other Pythons the fuzzer's tests are skipped.
FUZZING = ['atheris>=3; sys_platform == "linux" and platform_machine == "x86_64" and python_version >= "3.11"']
# Where it has wheels.
UWSGI = ['pyuwsgi; sys_platform == "linux" and platform_machine in "x86_64 aarch64"']
TESTING = [
    *CRYPTO,
    *SAMPLE,
    *UWSGI,
    "Cython>=3.1",
    "PyMySQL",
    "SQLAlchemy>=2",
    "WebTest",
    "asgiref",
    "coverage>=7.10",
    "docutils",
    "gunicorn>=25",
    "hypothesis",
    "psycopg[binary]>=3",
    "pyramid_beaker",
    "pyramid_debugtoolbar",
    "pyramid_retry",
    "pytest",
    "pytest-xdist",
    "python-memcached",
    "redis",
]

setup(
    name="beaker_bridge",
    version="1.0.dev0",
    description="Beaker sessions and cache regions for Pyramid, safe under concurrent requests",
    long_description=(here / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    cmdclass={"build_ext": BuildCompiled, "build_py": WithSampleSite},
    ext_modules=_extensions(),
    packages=find_packages(include=["beaker_bridge", "beaker_bridge.*"]),
    package_data={"beaker_bridge": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "Beaker>=1.14",
        "PasteDeploy>=3.0",
        "WebOb>=1.8",
        "plaster_pastedeploy>=1.0",
        "pyramid>=2.0",
        "translationstring>=1.0",
    ],
    extras_require={
        "crypto": CRYPTO,
        "sample": SAMPLE,
        "testing": TESTING,
        "fuzzing": FUZZING,
        "benchmarks": ["pyramid_session_redis"],
    },
    entry_points={
        "paste.filter_app_factory": [
            "main = beaker_bridge.middleware:session_filter_app_factory",
            "session = beaker_bridge.middleware:session_filter_app_factory",
        ],
        "paste.filter_factory": [
            "main = beaker_bridge.middleware:session_filter_factory",
            "session = beaker_bridge.middleware:session_filter_factory",
        ],
    },
    zip_safe=False,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Pyramid",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: Session",
        "Typing :: Typed",
    ],
)
