"""Which form of this package's modules is run: the compiled one, or their sources.

Imported before all other modules of the package, which are imported in that form.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader

log = logging.getLogger(__name__)

#: A variable of the environment: where it is set, the sources are run (and, at its installation, nothing is compiled).
PURE = "BEAKER_BRIDGE_PURE"
_FOLDER = os.path.dirname(__file__)


def _are_compiled() -> bool:
    """Say whether the compiled modules can be used, and are wanted; else have all of them found as sources."""
    if not os.environ.get(PURE):
        try:
            module = import_module("beaker_bridge.serializers")
            return str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))
        except ImportError as error:
            # They are those of one interpreter: another one of the same process, as mod_wsgi and uWSGI have them,
            # gets this error from the first.
            log.info("the compiled modules of beaker_bridge are not used: %s", error)
    for folder in (_FOLDER, os.path.join(_FOLDER, "stores")):
        sys.path_importer_cache[folder] = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
    return False


#: Whether the compiled modules are run.
COMPILED = _are_compiled()
