"""Starting a program again when one of its files has changed."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from typing import Callable, NoReturn, Optional

__all__ = ["FileWatch", "own_files", "start_again", "watching"]

# How often files are looked at. Looking at a hundred takes about a millisecond.
INTERVAL = 0.5  # seconds


def own_files() -> Iterator[str]:
    """The source files of the modules that are loaded, but for Python's own and installed ones."""
    paths = sysconfig.get_paths()
    foreign = tuple(
        os.path.join(os.path.realpath(paths[name]), "")
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if isinstance(name, str) and not os.path.realpath(name).startswith(foreign):
            yield name


class FileWatch:
    """
    Tells when a file has changed.

    Args:
        began: nanoseconds since 1970 when this program began to import modules; what has
            changed since then may have been read before.
        more: files to watch besides the sources of the modules that are loaded.
    """

    def __init__(self, began: int, more: tuple[str, ...] = ()) -> None:
        self._began = began
        self._more = more
        self._seen: dict[str, Optional[int]] = {}

    def changed(self) -> Optional[str]:
        """Look once; returns the file that has changed, if one has."""
        for name in {*own_files(), *self._more}:
            stamp = _stamp(name)
            if name not in self._seen:
                self._seen[name] = stamp
                # A time to come is that of another machine's clock, and says nothing.
                if stamp is not None and self._began < stamp <= time.time_ns():
                    return name
            elif self._seen[name] != stamp:
                return name
        return None

    def wait(self, stop: threading.Event) -> Optional[str]:
        """Wait until a file has changed; returns ``None`` when told to stop."""
        name = self.changed()
        while name is None and not stop.wait(INTERVAL):
            name = self.changed()
        return name


def _stamp(name: str) -> Optional[int]:
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return None


@contextlib.contextmanager
def watching(watch: FileWatch, on_change: Callable[[str], None]) -> Iterator[None]:
    """Watch in a thread of its own while the block runs."""
    stop = threading.Event()

    def look() -> None:
        name = watch.wait(stop)
        if name is not None:
            on_change(name)

    thread = threading.Thread(target=look, name="syncws-reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def start_again(listener: Optional[socket.socket]) -> NoReturn:
    """
    Put this program, started anew, in the place of this process.

    Args:
        listener: handed to it as systemd would, so that those who come meanwhile wait in
            its backlog; ``None`` to hand over nothing.
    """
    if listener is not None:
        # The protocol of sd_listen_fds(3) has it that descriptors begin at 3. Whatever that is
        # here: nothing of this program will run after the next call.
        os.dup2(listener.fileno(), 3, inheritable=True)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    # Python 3.9 does not know its own arguments.
    command = getattr(sys, "orig_argv", None) or [sys.executable, "-m", "syncws", *sys.argv[1:]]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *command[1:]])
