"""An installation for editing has the sample site, too. All else is in ``pyproject.toml``."""

from setuptools import setup
from setuptools.command.build_py import build_py


class WithSampleSite(build_py):
    """Adds the sample site where a checkout is installed for editing; a wheel is without it."""

    def finalize_options(self) -> None:
        if self.editable_mode:
            self.distribution.packages.append("sample_app")
            self.distribution.package_data["sample_app"] = ["static/*", "templates/*"]
        super().finalize_options()


setup(cmdclass={"build_py": WithSampleSite})
