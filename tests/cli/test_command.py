"""The command as a whole: exit codes, streams, widths, and what it says without click."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
import time

import pytest

from beaker_bridge.cli import output as output_module
from beaker_bridge.cli.commands import command, run
from beaker_bridge.cli.output import Output
from tests.cli.sites import FINE, PASSWORD, SECRET, processes, with_option
from tests.servers import wait_until

#: A site on a store that is down, whose every option has a secret.
SECRETIVE = with_option(
    FINE,
    type="ext:redis",
    data_dir=None,
    purge_every=None,
    url=f"redis://user:{PASSWORD}@localhost:1/0",
    previous_secrets=f"{SECRET}-before",
    validate_key=f"{SECRET}-validate",
    constant_csrf_token=f"{SECRET}-token",
)


def test_help_names_each_subcommand(folder):
    """``--help`` is on stdout, and fits 80 columns; each subcommand explains itself."""
    for words in ([], *([name] for name in command.commands)):
        shown = folder.call(*words, "--help")

        assert (shown.code, shown.err) == (0, "")
        assert "--help" in shown.out
        assert max(map(len, shown.out.splitlines())) <= 80
    assert re.fullmatch(r"beaker-bridge, version \S+\n", folder.call("--version").out)


@pytest.mark.parametrize("package", ["click", "rich"])
@processes
def test_without_the_extra(folder, package):
    """Without click, or rich, the command says how to install it, on stderr."""
    code = f"""
        import sys
        sys.modules[{package!r}] = None
        sys.argv = ["beaker-bridge", "check"]
        from beaker_bridge.cli import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"beaker-bridge: error: the package {package} is missing: pip install 'beaker_bridge[cli]'\n"


@processes
def test_another_module_that_is_missing(folder):
    """An error of another kind is not taken for that."""
    code = "import sys; sys.modules['plaster'] = None; from beaker_bridge.cli import main; main()"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "ModuleNotFoundError: import of plaster halted" in done.stderr


@processes
def test_an_interrupt_while_modules_are_imported(folder):
    """It is quiet, too."""
    (folder.path / "click.py").write_text("raise KeyboardInterrupt")
    outcome = folder.process("check")

    assert (outcome.code, outcome.out, outcome.err) == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["check"], "Missing argument 'FILE'"),
        (["check", "site.ini", "--bogus"], "No such option"),
        (["bench", "site.ini", "--requests", "0"], "Invalid value for '--requests'"),
        (["check", "absent.ini"], "absent.ini cannot be read: No such file or directory"),
        (["check", "site.ini", "port"], "port must be NAME=VALUE"),
        (["check", "site.ini#absent"], "No section 'absent'"),
    ],
)
def test_wrong_use(folder, monkeypatch, arguments, message):
    """The exit code is 2, the error is on stderr, and stdout is empty."""
    folder.write(FINE)
    monkeypatch.chdir(folder.path)
    outcome = folder.call(*arguments)

    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


@pytest.mark.parametrize(
    ("ini", "arguments", "code"),
    [
        (FINE, ["--strict"], 0),
        (with_option(FINE, timeout=None), ["--strict"], 1),
        (SECRETIVE, [], 2),
    ],
)
@processes
def test_the_exit_codes_of_a_process(folder, ini, arguments, code):
    """0 fine, 1 something is risky and that counts, 2 something is wrong; with ``--json``, too, which is one object."""
    file = folder.write(ini)
    plain, as_json = folder.process("check", file, *arguments), folder.process("check", file, *arguments, "--json")

    assert (plain.code, as_json.code) == (code, code)
    assert isinstance(json.loads(as_json.out), dict)
    assert max(map(len, plain.out.splitlines())) <= 80
    for text in (plain.out, plain.err, as_json.out, as_json.err):
        assert not re.search(f"{SECRET}|{PASSWORD}", text)


def test_an_error_is_json_too(folder):
    """With ``--json`` an error is an object on stdout, and a sentence on stderr."""
    outcome = folder.call("check", "--json", folder.path / "absent.ini")

    assert outcome.json == {"error": f"{folder.path / 'absent.ini'} cannot be read: No such file or directory"}
    assert outcome.err.startswith("error: ")


@pytest.mark.parametrize("words", ["check", "check --json", "bench --json --requests 1"])
@processes
def test_a_closed_pipe_is_quiet(folder, words):
    """Who reads the first line only, as ``head -1`` does, sees no traceback."""
    file = folder.write(FINE)
    command_line = [sys.executable, "-W", "ignore", "-m", "beaker_bridge.cli", *words.split(), file]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command_line, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=folder.path, check=False)
    os.close(writer)

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode == 1


def test_a_fault_of_ours_is_no_finding(folder, monkeypatch, capsys):
    """What nobody expected is a traceback, without a store's password, and the exit code 2."""
    folder.call("check", folder.write(SECRETIVE))

    def fail(*_arguments):
        raise RuntimeError(f"with {PASSWORD}")

    monkeypatch.setattr("beaker_bridge.cli.command.find_site", fail)

    assert folder.call("check", "site.ini").code == 2
    assert run(["check", "site.ini"]) == 2
    assert "RuntimeError: with …" in capsys.readouterr().err


def test_an_interrupted_check(folder, monkeypatch):
    """Ctrl-C ends a subcommand with 130."""

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("beaker_bridge.cli.command.find_site", interrupt)

    assert folder.call("check", "site.ini", "--json").code == 130
    monkeypatch.setattr("click.Context.invoke", interrupt)
    monkeypatch.setattr("click.Group.invoke", interrupt)
    assert folder.call("check", "site.ini").code == 130


def test_notes_are_on_stderr(folder):
    """What was read in another way, and what the package itself warns of, are notes, one in a line."""
    ini = with_option(FINE, secret="short").replace("call:clisite:main", "call:absent:main")
    outcome = folder.call("bench", folder.write(ini), "--requests", "1", "port=1")

    assert outcome.code == 0
    assert [line.partition("(")[0] for line in outcome.err.splitlines()] == [
        "note: call:absent:main cannot be imported ",
        "note: secret is shorter than 32 bytes: it can be guessed",
        "note: calls: 4 of 4 ",
    ]


@processes
def test_an_output_that_is_not_utf_8(folder):
    """What the encoding of a terminal or a pipe lacks is replaced."""
    outcome = folder.process("check", folder.write(FINE), PYTHONIOENCODING="ascii")

    assert (outcome.code, outcome.err.count("Traceback")) == (0, 0)
    assert re.search(r"secret\W+\?\W+filter:session", outcome.out)


def test_long_names_fit(folder):
    """Whatever the names and values are, a table fits 80 columns."""
    ini = FINE.replace("pyramid.includes", f"cache.regions = {'r' * 90}\n    pyramid.includes")
    ini = with_option(ini, namespace_class="tests.cli.losing.Losing", **{"b" * 90: "c" * 90}, key="k" * 90)
    outcome = folder.call("check", folder.write(ini))

    assert max(map(len, outcome.out.splitlines())) <= 80


# -- Progress ----------------------------------------------------------------------------------------


def test_progress_elsewhere_is_lines(capsys, monkeypatch):
    """Where there is no terminal, a line now and then has the rate and the time left; on stderr."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Output().progress("sessions read", 100) as progress:
        for _ in range(20):
            progress.advance()
        now[0] = output_module.INTERVAL
        progress.advance(30)
    with Output().progress("files removed") as progress:
        now[0] += 1
        progress.advance(7)
    out, err = capsys.readouterr()

    assert out == ""
    assert err.splitlines() == [
        "note: sessions read: 50 of 100 (10 a second), 5 seconds left",
        "note: sessions read: 50 of 100 (10 a second), 5 seconds left",
        "note: files removed: 7 (7 a second)",
    ]


@processes
def test_progress_on_a_terminal_is_a_bar(folder):
    """On a terminal there is a bar with rate and time left, which fits 80 columns; results are on stdout."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "beaker_bridge.cli", "bench", folder.write(FINE), "--requests", "300"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={
            **os.environ,
            "TERM": "xterm",
            "COLUMNS": "80",
            "PYTHONPATH": os.pathsep.join([str(folder.path), *sys.path]),
        },
    )
    os.close(terminal)
    seen = b""

    def is_over():
        nonlocal seen
        try:
            seen += (chunk := os.read(main, 65536))
        except OSError:
            return True
        return not chunk

    wait_until(is_over)
    os.close(main)
    out, _ = process.communicate(timeout=60)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())

    assert b"a request that reads" in out
    assert re.search(r"calls [━╸╺ ]+.*1,200 of 1,200 \([0-9,]+ a second\).*0:00:0", text)
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", text))
