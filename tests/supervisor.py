"""Processes that inherit listening sockets, as systemd starts them."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent

# LISTEN_PID is known only once there is a process: it sets that itself, then becomes the program.
# Its descriptors first get out of each other's way.
LAUNCHER = """
import fcntl, os, sys
count, rest = int(sys.argv[1]), sys.argv[2:]
spare = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 3 + count) for fd in rest[:count]]
for number, fd in enumerate(spare, 3):
    os.dup2(fd, number)
os.environ.setdefault("LISTEN_FDS", str(count))
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(rest[count], rest[count:])
"""


def catches(process, number):
    """Whether a process has a handler for a signal by now; needs ``/proc``."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
    return bool(caught >> (number - 1) & 1)


def launch(command, *files, cwd=None, **variables):
    """
    Start a program that inherits sockets, or other files, as descriptors 3, 4 and so on.

    It runs in the folder ``cwd``. ``variables`` are added to its environment, or replace what the
    protocol has there.
    """
    descriptors = [file.fileno() for file in files]
    if files:
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, len(files), *descriptors]
        command = [*launcher, *command]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LISTEN_")}
    return subprocess.Popen(
        list(map(str, command)),
        pass_fds=descriptors,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
