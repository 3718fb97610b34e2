"""The command line: help, errors in one line, exit codes."""

from __future__ import annotations

import itertools
import pathlib
import re
import runpy
import shlex
import socket
import subprocess
import sys

import pytest

from syncws import __version__
from syncws.cli import COMMANDS, main, make_parser

ROOT = pathlib.Path(__file__).parent.parent

# What examples begin with that read from a pipe.
SOURCES = ("echo", "vmstat", "tail", "seq")


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    assert "usage: syncws" in capsys.readouterr().out


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert [module.__name__.rpartition(".")[2] in out for module in COMMANDS] == [True] * 7


@pytest.mark.parametrize("command", COMMANDS, ids=lambda module: module.__name__)
def test_the_help_of_a_command_has_examples_and_exit_codes(command, capsys):
    name = command.__name__.rpartition(".")[2]
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    out = capsys.readouterr().out
    assert f"examples:\n  syncws {name}" in out or f"| syncws {name} " in out
    assert "130  interrupted with Ctrl-C" in out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda module: module.__name__)
def test_the_examples_of_the_help_are_right_command_lines(command):
    for line in command.EXAMPLES.strip().splitlines():
        words = shlex.split(line.partition("|")[2] if line.startswith(SOURCES) else line)
        words = list(itertools.takewhile(lambda word: word[:1] not in ("<", ">", "|"), words))
        assert words[0] == "syncws"
        assert make_parser().parse_args(words[1:]).command is command.run


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"syncws {__version__}\n"


@pytest.mark.parametrize("port", ["-1", "65536", "http", "²"])
def test_a_port_that_is_none_is_a_wrong_command_line(port, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["demo", f"--port={port}"])
    assert f"a port is a number from 0 to 65535, not '{port}'" in capsys.readouterr().err


def test_an_unknown_command_is_a_wrong_command_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])
    assert "fly" in capsys.readouterr().err


def test_an_error_of_the_system_is_one_line(capsys):
    # TEST-NET-3: no machine has an address of it.
    assert main(["demo", "--host", "203.0.113.1"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("syncws: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["connect", "http://localhost"], "did you mean ws://localhost?"),
        (["connect", "https://localhost/x"], "did you mean wss://localhost/x?"),
        (["connect", "ws://localhost#x"], "fragment identifier is meaningless"),
        (["connect", "localhost", "-H", "no header"], "a header is 'Name: value', not 'no header'"),
        (["connect", "localhost", "--timeout=-1"], "a time is a number of seconds, not '-1'"),
        (["serve", "app", "--host=localhost:80"], "a name or an address alone, not 'localhost:80'"),
        (["bench", "localhost", "--size=0"], "expected a number from 1 up, not '0'"),
    ],
)
def test_a_wrong_argument_is_named(arguments, complaint, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert complaint in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert main(["listen", f"--port={port}"]) == 1
    complaint = f"syncws: port {port} of 127.0.0.1 is taken; choose another with --port\n"
    assert capsys.readouterr().err == complaint


def test_a_socket_that_is_taken_is_named(tmp_path, capsys):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        assert main(["listen", f"--unix={path}"]) == 1
    assert f"syncws: cannot listen on {path}: " in capsys.readouterr().err


def test_an_address_of_another_machine_is_named(capsys):
    assert main(["listen", "--host=203.0.113.1"]) == 1
    complaint = "syncws: 203.0.113.1 is no address of this machine; choose one with --host\n"
    assert capsys.readouterr().err == complaint


@pytest.mark.parametrize("arguments", [["--key=key.pem"], ["--cert=missing.pem"]])
def test_certificates_that_are_not_there_are_named(arguments, capsys):
    assert main(["listen", "--port=0", *arguments]) == 1
    assert re.match(r"syncws: .*(cert|missing\.pem)", capsys.readouterr().err)


def test_a_certificate_that_is_none_is_named(tmp_path, capsys):
    path = tmp_path / "cert.pem"
    path.write_text("no certificate")
    assert main(["listen", "--port=0", f"--cert={path}"]) == 1
    assert f"syncws: can't use the certificate {path}: " in capsys.readouterr().err


def test_the_package_can_be_run_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "syncws"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    assert result.stdout.startswith("usage: syncws")
    assert result.stderr == ""


def test_importing_the_module_that_runs_it_runs_nothing(capsys):
    runpy.run_module("syncws.__main__", run_name="syncws.__main__")
    assert capsys.readouterr().out == ""


def test_the_commands_in_the_documentation_are_right_command_lines():
    text = (ROOT / "docs" / "command-line.rst").read_text(encoding="utf-8")
    lines = re.findall(r"^   \$ (?:.*\| )?syncws (.*)$", text, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        words = [word for word in shlex.split(line) if word[:1] not in ("<", ">")]
        if words != ["--help"]:
            assert make_parser().parse_args(words).command is not None


def test_the_help_in_the_documentation_is_that_of_the_program(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    commands = re.search(r"    demo .*?\n\n", capsys.readouterr().out, re.DOTALL).group()
    text = (ROOT / "docs" / "command-line.rst").read_text(encoding="utf-8")
    # Versions of Python lay it out differently.
    assert " ".join(commands.split()) in " ".join(text.split())
