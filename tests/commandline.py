"""Commands of ``python -m syncws`` as the tests run them: inside of a test, and as processes."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import threading

import syncws
from syncws.cli import main

__all__ = ["PATIENCE", "address_of", "echo", "echoing", "feed", "program", "run_main"]

ROOT = pathlib.Path(__file__).parent.parent

PATIENCE = 20  # seconds; a process takes a while to start


def echo(connection):
    """A handler for servers of the tests."""
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def echoing(handler=echo, **options):
    """A server in the background; yields its address."""
    with syncws.serve(handler, "127.0.0.1", 0, **options).start() as server:
        scheme = "ws" if server.ssl is None else "wss"
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"


def feed(monkeypatch, data):
    """Make bytes the standard input of the test."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@contextlib.contextmanager
def run_main(*arguments):
    """Run a command in a thread of its own; yields a list that gets the exit code at the end."""
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(arguments)))
    thread.start()
    yield codes
    thread.join(PATIENCE)
    assert not thread.is_alive()


@contextlib.contextmanager
def program(*arguments, cwd=ROOT, env_more=(), **options):
    """A command as a process, with pipes; killed at the end if it has not ended."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **dict(env_more)}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "syncws", *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def address_of(line):
    """The address in the line in which a command tells it."""
    return next(word for word in line.split() if word.startswith(("ws:", "wss:", "http")))
