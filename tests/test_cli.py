"""The command line: help, errors in one line, exit codes."""

from __future__ import annotations

import pathlib
import runpy
import subprocess
import sys

import pytest

from syncws.cli import main

ROOT = pathlib.Path(__file__).parent.parent


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    assert "usage: syncws" in capsys.readouterr().out


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "demo" in capsys.readouterr().out


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
