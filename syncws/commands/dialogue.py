"""A connection at a terminal: lines are typed below, and what arrives is shown above them."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from typing import Any, Optional, Union

from ..exceptions import ConnectionClosed, WebSocketException
from .failures import Failure, explain
from .payloads import decode, encode
from .watched import WatchedConnection

__all__ = ["Screen", "layout", "talk"]

PROMPT = "> "

# Of a longer message, the beginning is shown: a screen full of it helps nobody.
SHOWN = 2000  # characters

COLUMNS = 80

HISTORY = 1000  # lines

WAKE_INTERVAL = 0.05  # seconds

HELP = """\
  TEXT                  send a text message; one that begins with a slash as //…
  /hex 00 ff            send a binary message, written in hexadecimal
  /base64 AP8=          send a binary message, written in base64
  /file PATH            send the bytes of a file as a binary message
  /ping [TEXT]          send a ping; its pong is shown, and how long it took
  /pong [TEXT]          send a pong that nobody asked for
  /close [CODE REASON]  close the connection
  /quit                 the same, as is Ctrl-D
"""

# Control sequences of ECMA-48 and the DEC VT100, which all terminals in use know.
SAVE, RESTORE, DIM, PLAIN = "\x1b7", "\x1b8", "\x1b[2m", "\x1b[0m"


class Screen:
    """
    Prints above the line that is being typed, and leaves that line and the cursor as they are.

    Any thread may print.
    """

    def __init__(self, editing: Any = None) -> None:
        self._editing = editing  # the readline module, if there is one
        self._lock = threading.Lock()
        self._colours = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.prompting = False

    def show(self, text: str, dim: bool = False) -> None:
        """Print lines above the prompt, or simply print them when there is none."""
        # Some terminals do not know how wide they are, and say 0.
        columns = shutil.get_terminal_size().columns or COLUMNS
        rows = layout(text, columns)
        if dim and self._colours:
            rows = [f"{DIM}{row}{PLAIN}" for row in rows]
        with self._lock:
            if not self.prompting:
                sys.stdout.write("".join(f"{row}\n" for row in rows))
            else:
                sys.stdout.write(self._above(rows, columns))
            sys.stdout.flush()

    def _above(self, rows: list[str], columns: int) -> str:
        """
        Move the prompt down by some rows, and write what goes there.

        Line feeds make room, scrolling if the prompt is at the bottom; inserted lines push
        the prompt into that room, and the cursor follows it. What is typed may take several
        rows; the cursor is taken to be in the last.
        """
        typed = self._editing.get_line_buffer() if self._editing is not None else ""
        height = (width(PROMPT + typed)) // columns
        number = len(rows)
        return (
            f"{SAVE}{chr(10) * number}\x1b[{number + height}A\r\x1b[{number}L"
            + "".join(f"{row}\r\n" for row in rows)
            + f"{RESTORE}\x1b[{number}B"
        )


def width(text: str) -> int:
    """How many columns a text takes."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def layout(text: str, columns: int) -> list[str]:
    """Break a text into rows of a terminal, without anything that would act on the terminal."""
    rows = []
    for line in text.expandtabs(8).split("\n"):
        row, used = "", 0
        for character in line:
            shown = character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
            wide = _columns(shown)
            if used + wide > columns:
                rows.append(row)
                row, used = "", 0
            row, used = row + shown, used + wide
        rows.append(row)
    return rows


def talk(connection: WatchedConnection, opened: str, arguments: argparse.Namespace) -> None:
    """Send what is typed, and show what arrives, until the end of either."""
    Dialogue(connection, arguments.binary or "hex", arguments.messages).run(opened)


class Dialogue:
    """
    The two directions of a connection at a terminal.

    The main thread reads the terminal and sends; another one receives and shows. When the
    connection ends, a signal makes the main thread stop reading.
    """

    def __init__(self, connection: WatchedConnection, form: str, messages: Optional[int]) -> None:
        self._connection = connection
        self._form = form if form != "raw" else "hex"
        self._messages = messages
        self._began = time.monotonic()
        self._editing = load_editing()
        self._screen = Screen(self._editing)
        self._left = threading.Event()
        self._reading = False  # main thread only, and its signal handlers

    def run(self, opened: str) -> None:
        self._screen.show(f"* {opened}", dim=True)
        self._screen.show("* /help lists what can be typed; Ctrl-D ends", dim=True)
        self._connection.on_control = lambda text: self._tell(text)
        receiver = threading.Thread(target=self._receive, name="syncws-receiver", daemon=True)
        with history(self._editing), self._woken_by_signal():
            receiver.start()
            try:
                self._read()
            except (EOFError, ConnectionClosed):
                pass
            finally:
                self._left.set()
                self._screen.prompting = False
                sys.stdout.write("\n")
                sys.stdout.flush()
        self._connection.close()
        receiver.join()

    # The main thread

    def _read(self) -> None:
        while True:
            self._screen.prompting = self._reading = True
            try:
                if not self._connection.is_open:
                    return
                line = input(PROMPT)
            finally:
                self._screen.prompting = self._reading = False
            try:
                self._obey(line)
            except ConnectionClosed:
                raise
            except (Failure, OSError, ValueError, WebSocketException) as exc:
                self._screen.show(f"* not sent: {explain(exc)}", dim=True)

    def _obey(self, line: str) -> None:
        """Do what a line says."""
        if not line.startswith("/") or line.startswith("//"):
            if line:
                self._connection.send(line[1:] if line.startswith("//") else line)
            return
        word, _, rest = line[1:].partition(" ")
        action = getattr(self, f"_do_{word}", None)
        if action is None:
            raise Failure(f"there is no /{word}; /help lists what there is")
        action(rest.strip())

    def _do_help(self, rest: str) -> None:
        self._screen.show(HELP.rstrip("\n"))

    def _do_hex(self, rest: str) -> None:
        self._connection.send(decode(rest, "hex"))

    def _do_base64(self, rest: str) -> None:
        self._connection.send(decode(rest, "base64"))

    def _do_file(self, rest: str) -> None:
        data = pathlib.Path(rest).expanduser().read_bytes()
        self._connection.send(data)
        self._tell(f"sent {len(data):,} bytes")

    def _do_ping(self, rest: str) -> None:
        self._connection.ping(rest or None)

    def _do_pong(self, rest: str) -> None:
        self._connection.pong(rest)

    def _do_close(self, rest: str) -> None:
        code, _, reason = rest.partition(" ")
        if code and not code.isdecimal():
            raise Failure(f"a close code is a number, not {code}")
        self._connection.close(int(code or 1000), reason)

    def _do_quit(self, rest: str) -> None:
        raise EOFError

    @contextlib.contextmanager
    def _woken_by_signal(self) -> Iterator[None]:
        """Let a signal of the receiving thread end ``input()``, where the platform can do it."""
        if not hasattr(signal, "pthread_kill"):
            yield
            return

        def on_signal(number: int, frame: Any) -> None:
            # Only while it reads: it may come when the main thread has just gone on.
            if self._reading:
                self._reading = False
                raise EOFError

        previous = signal.signal(signal.SIGUSR1, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, previous)

    # The receiving thread

    def _receive(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            self._show_messages()
        if self._connection.is_open:
            self._connection.close()
        elif not hasattr(signal, "pthread_kill"):
            self._tell("the connection is closed; press Enter")
        self._wake_main_thread()

    def _show_messages(self) -> None:
        received = 0
        while self._messages is None or received < self._messages:
            self._show(self._connection.recv())
            received += 1

    def _wake_main_thread(self) -> None:
        if not hasattr(signal, "pthread_kill"):
            return
        # input() notices a signal only while it waits: one that comes as it deals with a
        # key goes unnoticed until the next key.
        while not self._left.wait(WAKE_INTERVAL):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _show(self, message: Union[str, bytes]) -> None:
        kind, text = "<", message if isinstance(message, str) else ""
        if isinstance(message, bytes):
            kind, text = f"< {len(message):,} bytes:", encode(message, self._form)
        if len(text) > SHOWN:
            text = f"{text[:SHOWN]}… ({len(message):,} in all)"
        self._screen.show(f"{kind} {text}")

    def _tell(self, text: str) -> None:
        self._screen.show(f"* {time.monotonic() - self._began:.3f} s: {text}", dim=True)


def load_editing() -> Any:
    """The module that gives ``input()`` line editing and history; ``None`` where it is missing."""
    try:
        import readline
    except ImportError:
        return None
    return readline


@contextlib.contextmanager
def history(editing: Any) -> Iterator[None]:
    """Keep the lines typed from one time to the next, in a file that only the user can read."""
    if editing is None:
        yield
        return
    folder = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = pathlib.Path(folder).expanduser() / "syncws" / "history"
    editing.clear_history()
    with contextlib.suppress(OSError):
        editing.read_history_file(str(path))
    editing.set_history_length(HISTORY)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            editing.write_history_file(str(path))
