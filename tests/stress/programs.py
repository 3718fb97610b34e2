"""
Programs that a scenario starts and asks things: servers under test, healthy clients, bad peers.

A program reads commands from its standard input, a line of JSON each (``["name", argument, ...]``),
and answers each with a line of JSON. It ends at once when its input ends, so none outlives the
scenario that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import threading
import time

__all__ = ["HERE", "PATIENCE", "Program", "obey", "use_paths", "wait_until"]

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 60  # seconds for an answer; nothing waits so long unless something hangs

PATHS = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(PATHS),
    # The C library gives memory back when it is freed. By default it keeps some, in each of up to
    # eight arenas for each CPU and for each thread, and grows for minutes: a leak could hide there.
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class ProgramError(Exception):
    """A program died or did not answer."""


class Program:
    """
    A program in a process of its own; a context manager that kills it at the end.

    Args:
        script: its file, below this folder.
        settings: what it is told at the beginning, as JSON.
        nice: added to its niceness.
    """

    def __init__(self, script, settings, *, nice=0):
        self.script = script
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 # __exit__() closes it
        self._answers = b""
        self._process = subprocess.Popen(
            ["nice", "-n", str(nice), sys.executable, str(HERE / script), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env={**os.environ, **ENVIRONMENT},
        )
        self.pid = self._process.pid  # of the program itself: nice replaces itself by it

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.kill()
        self.stderr.close()

    def kill(self):
        """End the process, however busy it is."""
        with self._process:  # closes the pipes
            self._process.kill()

    def ask(self, *command, timeout=PATIENCE):
        """Give a command, and return the answer."""
        self.order(*command)
        return self.answer(timeout)

    def order(self, *command):
        """Give a command; ``answer()`` is to follow."""
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise self._failed("has ended") from exc

    def answer(self, timeout=PATIENCE):
        """The answer to the last command."""
        deadline = time.monotonic() + timeout
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._answers:
            ready, _, _ = select.select([pipe], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise self._failed(f"did not answer within {timeout} s")
            chunk = os.read(pipe, 65536)
            if not chunk:
                raise self._failed("has ended")
            self._answers += chunk
        line, _, self._answers = self._answers.partition(b"\n")
        answer = json.loads(line)
        if "failed" in answer:
            raise self._failed(answer["failed"])
        return answer["result"]

    def log(self):
        """What it wrote to its standard error."""
        size = os.fstat(self.stderr.fileno()).st_size
        return os.pread(self.stderr.fileno(), size, 0).decode(errors="replace")

    def _failed(self, what):
        return ProgramError(f"{self.script} {what}; its log ends:\n{self.log()[-3000:]}")


# In the program


def use_paths():
    """Let a program that is started by hand import what this folder, tests/ and the root have."""
    sys.path[:0] = PATHS


def obey(commands):
    """
    Answer commands until the end of input, then end the process at once.

    Args:
        commands: functions by name; their results are the answers.
    """
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"result": commands[name](*arguments)}
        except Exception as exc:
            answer = {"failed": f"could not {name}: {exc!r}"}
        with contextlib.suppress(OSError):
            print(json.dumps(answer, default=str), flush=True)
    os._exit(0)


def wait_until(condition, timeout, pause=0.05):
    """Wait for something that nothing tells about; tell whether it came."""
    deadline = time.monotonic() + timeout
    nobody = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        nobody.wait(pause)
    return True
