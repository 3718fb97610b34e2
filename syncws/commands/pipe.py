"""A connection in a pipe: lines in are messages out, messages in are lines out."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import Optional, Union

from ..exceptions import ConnectionClosed
from .failures import Failure, one_line
from .payloads import decode, write_message
from .watched import WatchedConnection

__all__ = ["talk"]

# After the end of input, how long answers may take if the command line says nothing.
WAIT = 1.0  # seconds

# How often it is looked whether input has ended, while nothing arrives.
TICK = 0.1  # seconds


class Sender(threading.Thread):
    """
    Sends the lines of standard input. A daemon: it may wait for a line when all else has ended.

    ``failure`` says why it stopped before the end of input, ``ended`` when it had sent all.
    """

    def __init__(self, connection: WatchedConnection, form: Optional[str]) -> None:
        super().__init__(name="syncws-stdin", daemon=True)
        self._connection = connection
        self._form = form
        self.failure: Optional[Failure] = None
        self.ended: Optional[float] = None

    def run(self) -> None:
        try:
            self._send_all()
        except ConnectionClosed:
            pass  # the main thread sees it, too
        except Failure as exc:
            self.failure = exc
        except (OSError, ValueError) as exc:
            self.failure = Failure(f"can't read standard input: {one_line(str(exc))}")
        finally:
            self.ended = time.monotonic()

    def _send_all(self) -> None:
        if self._form == "raw":
            data = sys.stdin.buffer.read()
            if data:
                self._connection.send(data)
            return
        for line in sys.stdin:
            self._connection.send(self._message(line.rstrip("\r\n")))

    def _message(self, line: str) -> Union[str, bytes]:
        return line if self._form is None else decode(line, self._form)


def talk(connection: WatchedConnection, opened: str, arguments: argparse.Namespace) -> None:
    """
    Send standard input, and write what arrives, until the end of one of them.

    Raises:
        Failure: input can't be read or sent.
    """

    def tell(text: str) -> None:
        print(f"* {text}", file=sys.stderr, flush=True)

    if arguments.verbose:
        tell(opened)
        connection.on_control = tell
    sender = Sender(connection, arguments.binary)
    sender.start()
    wait = arguments.wait
    if wait is None and arguments.messages is None:
        wait = WAIT
    _receive(connection, sender, arguments.messages, wait, arguments.binary or "hex")
    if sender.failure is not None:
        raise sender.failure


def _receive(
    connection: WatchedConnection,
    sender: Sender,
    messages: Optional[int],
    wait: Optional[float],
    form: str,
) -> None:
    """Write messages until enough have arrived, or the connection or the patience has ended."""
    received = 0
    last = 0.0
    while messages is None or received < messages:
        try:
            message = connection.recv(timeout=TICK if wait is None else min(TICK, wait))
        except TimeoutError:
            ended = sender.ended
            if sender.failure is not None:
                return
            if ended is None or wait is None:
                continue
            if time.monotonic() - max(ended, last) >= wait:
                return
        except ConnectionClosed:
            return
        else:
            received += 1
            last = time.monotonic()
            write_message(message, form)
