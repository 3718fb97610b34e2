"""The README: its first server and its first client run, and talk to each other."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest
from conftest import wait_until

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

PATIENCE = 20  # seconds; a process takes a while to start


def program(title):
    """The first Python program under a heading."""
    _, _, text = README.partition(f"\n## {title}\n")
    return re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)


def run(source):
    """Start a program, with all warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def listens(port, process):
    """Whether a program that prints nothing serves already; connecting is the way to find out."""
    assert process.poll() is None, process.stderr.read()
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("title", ["The first server", "The first client"])
def test_a_first_program_has_ten_lines_of_code_or_so(title):
    assert len([line for line in program(title).splitlines() if line]) <= 10


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send the signal")
def test_the_first_client_gets_an_answer_of_the_first_server(port):
    server_source = program("The first server").replace("8765", str(port))
    client_source = program("The first client").replace("8765", str(port))
    with run(server_source) as server:
        try:
            assert wait_until(lambda: listens(port, server))
            with run(client_source) as client:
                out, err = client.communicate(timeout=PATIENCE)
            assert (client.returncode, out, err) == (0, "Hello!\n", "")
            server.send_signal(signal.SIGTERM)
            out, err = server.communicate(timeout=PATIENCE)
        finally:
            server.kill()
    assert (server.returncode, out, err) == (0, "", "")
