"""The compiled modules: that they are run where they can be, and that nothing depends on them."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import beaker_bridge
from beaker_bridge import compiled
from tests import machine

CHECKOUT = Path(__file__).parent.parent
PACKAGE = Path(beaker_bridge.__file__).parent
#: What tells of each module that setup.py has compiled which file it is of.
FILES = """
import sys
from importlib import import_module
import beaker_bridge
print(beaker_bridge.COMPILED)
for name in sys.argv[1:]:
    print(import_module("beaker_bridge." + name.replace("/", ".")).__file__)
"""
#: What uses a session in whichever interpreter it is run in.
SESSION = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
import beaker_bridge
from beaker_bridge.environ import SessionObject, commit
middleware = beaker_bridge.SessionMiddleware(None, type="memory", secret="s" * 32)
session_object = SessionObject({{}}, middleware._profile)
session_object["a"] = 1
session_object.save()
commit(session_object)
again = session_object.get_by_id(session_object.id)
print(beaker_bridge.COMPILED, again["a"], flush=True)
"""
#: Runs that in the first interpreter of a process, and in a second one, as mod_wsgi and uWSGI make them.
INTERPRETERS = f"""
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    second = interpreters.create("legacy")
else:
    import _xxsubinterpreters as interpreters
    second = interpreters.create(isolated=False)
code = {SESSION!r}
exec(code)
failure = interpreters.run_string(second, code)
if failure is not None:
    sys.exit(str(failure))
"""


def compiled_names():
    """Return the modules that ``setup.py`` has compiled, as paths without suffix."""
    tree = ast.parse((CHECKOUT / "setup.py").read_text(encoding="utf-8"))
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "COMPILED"
    ]
    return names


def output(code, *arguments, **environ):
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environ, cwd=CHECKOUT)
    return done.stdout.splitlines()


# -- Which form is run -------------------------------------------------------------------------------


def test_the_form_that_is_tested_is_run():
    """Where there is a compiler, what is installed is compiled; a checkout's sources are run as they are."""
    expected = os.environ.get("FORM") == "compiled"
    if expected:
        machine.compiler()

    assert expected == beaker_bridge.COMPILED


@pytest.mark.parametrize("pure", ["1", ""])
def test_all_modules_are_run_in_the_same_form(pure):
    """Each module that can be compiled is run as the others are; ``BEAKER_BRIDGE_PURE`` has the sources run."""
    is_compiled, *files = output(FILES, *compiled_names(), BEAKER_BRIDGE_PURE=pure)

    assert is_compiled == "False" or not pure
    assert is_compiled == "True" or pure or not beaker_bridge.COMPILED
    assert len(files) == len(compiled_names())
    assert {file.endswith(".py") for file in files} == {is_compiled == "False"}


def test_another_interpreter_of_the_process_runs_the_sources():
    """A compiled module is one interpreter's alone: others of the same process have sessions all the same."""
    first, second = output(INTERPRETERS)

    assert first == f"{beaker_bridge.COMPILED} 1"
    assert second == "False 1"


@pytest.mark.parametrize("reason", ["asked for", "refused"])
def test_both_folders_are_read_as_sources(monkeypatch, caplog, reason):
    """Where the sources are asked for, or a compiled module is refused, none is looked for any more."""

    def refused(name):
        raise ImportError("Interpreter change detected")

    folders = [str(PACKAGE), str(PACKAGE / "stores")]
    for folder in folders:
        monkeypatch.setitem(sys.path_importer_cache, folder, None)
    monkeypatch.setenv(compiled.PURE, "1" if reason == "asked for" else "")
    monkeypatch.setattr(compiled, "import_module", refused)
    caplog.set_level("INFO", "beaker_bridge.compiled")

    assert compiled._are_compiled() is False
    for folder in folders:
        found = sys.path_importer_cache[folder].find_spec(
            f"beaker_bridge.{'session' if folder == folders[0] else 'base'}"
        )
        assert found.origin.endswith(".py")
    assert ("Interpreter change detected" in caplog.text) == (reason == "refused")


# -- What is compiled --------------------------------------------------------------------------------


def callees(function):
    """Return what a function calls: by name, and (with a dot before it) of its own object."""
    found = set()
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                found.add(f".{name}")
    return found


@pytest.mark.parametrize("name", compiled_names())
def test_nothing_that_is_compiled_calls_itself(name):
    """How deep a value is must not decide how deep compiled functions go: they have no ``RecursionError``.

    One that calls itself counts its depth.
    """
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    methods = {
        member
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, ast.FunctionDef)
    }
    functions = {node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} - methods

    assert functions | methods
    assert [method.name for method in methods if f".{method.name}" in callees(method)] == []
    found = [function for function in functions if function.name in callees(function)]
    assert [function.name for function in found if function.args.args[-1].arg != "depth"] == []


# -- How it is installed -----------------------------------------------------------------------------


#: A Cython that cannot translate anything.
BROKEN = {
    "__init__": "",
    "Build": "from Cython.Compiler.Errors import CompileError\ndef cythonize(*_, **__): raise CompileError",
    "Compiler/__init__": "",
    "Compiler/Errors": "class CompileError(Exception): pass",
}


@pytest.fixture
def broken_cython(tmp_path):
    """Return a folder for ``PYTHONPATH`` in which Cython is broken."""
    for name, code in BROKEN.items():
        path = tmp_path / "broken" / "Cython" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="ascii")
    return str(tmp_path / "broken")


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize("without", ["compiler", "wish", "translator"])
def test_it_is_installed_where_it_is_not_compiled(tmp_path, broken_cython, without):
    """Where there is no C compiler, none is wanted or Cython fails, the sources are installed, and all of them."""
    environ = {
        "compiler": {"CC": "/nowhere/cc"},
        "wish": {"BEAKER_BRIDGE_PURE": "1"},
        "translator": {"PYTHONPATH": broken_cython},
    }[without]
    source, built = tmp_path / "source", tmp_path / "built"
    shutil.copytree(PACKAGE, source / "beaker_bridge", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "README.rst"):
        shutil.copy(CHECKOUT / name, source)
    if without != "wish":
        # What an earlier build has left; one that is to compile nothing has a folder of its own.
        (built / "beaker_bridge").mkdir(parents=True)
        (built / "beaker_bridge" / f"session{EXTENSION_SUFFIXES[0]}").touch()
    command = [sys.executable, "-W", "ignore", "setup.py", "--quiet", "build", "--build-lib", built]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environ, cwd=source)
    expected = {path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")}

    assert {path.relative_to(built) for path in built.rglob("*") if path.suffix in {".py", ".so"}} == expected
