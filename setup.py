"""The package's metadata and entry points."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent


class WithSampleSite(build_py):
    """A checkout that is installed for editing has its sample site, too; a wheel does not."""

    def finalize_options(self) -> None:
        if self.editable_mode:
            self.distribution.packages.append("sample_app")
            self.distribution.package_data["sample_app"] = ["static/*", "templates/*"]
        super().finalize_options()


CLI = ["click>=8.1", "rich>=13"]
CRYPTO = ["cryptography"]
SAMPLE = ["pyramid_jinja2", "pyramid_tm", "waitress"]
# Where it has wheels; on other Pythons the fuzzer's tests are skipped.
FUZZING = ['atheris>=3; sys_platform == "linux" and platform_machine == "x86_64" and python_version >= "3.11"']
# Where it has wheels.
UWSGI = ['pyuwsgi; sys_platform == "linux" and platform_machine in "x86_64 aarch64"']
TESTING = [
    *CLI,
    *CRYPTO,
    *SAMPLE,
    *UWSGI,
    "PyMySQL",
    "SQLAlchemy>=2",
    "WebTest",
    "asgiref",
    "coverage>=7.10",
    "docutils",
    # What OpenTelemetry's instrumentation of SQLAlchemy imports.
    "greenlet",
    "gunicorn>=25",
    "hypothesis",
    "opentelemetry-instrumentation-redis",
    "opentelemetry-instrumentation-sqlalchemy",
    "opentelemetry-sdk",
    "prometheus_client",
    "psycopg[binary]>=3",
    "pyramid_beaker",
    "pyramid_debugtoolbar",
    "pyramid_retry",
    "pytest",
    "pytest-xdist",
    "python-memcached",
    "redis",
    "statsd",
]

setup(
    name="beaker_bridge",
    version="1.0.dev0",
    description="Beaker sessions and cache regions for Pyramid, safe under concurrent requests",
    long_description=(here / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    cmdclass={"build_py": WithSampleSite},
    packages=find_packages(include=["beaker_bridge", "beaker_bridge.*"]),
    package_data={"beaker_bridge": ["py.typed"], "beaker_bridge.debugtoolbar": ["*.dbtmako"]},
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
        "cli": CLI,
        "crypto": CRYPTO,
        "debugtoolbar": ["pyramid_debugtoolbar"],
        "sample": SAMPLE,
        "testing": TESTING,
        "fuzzing": FUZZING,
        "benchmarks": ["pyramid_session_redis"],
    },
    entry_points={
        "console_scripts": ["beaker-bridge = beaker_bridge.cli:main"],
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
