"""``syncws bench``: how fast a server that echoes answers, as this client sees it."""

from __future__ import annotations

import argparse
import array
import json
import os
import sys
import threading
import time
from typing import Any, Optional, Union

from ..client import ClientConnection, connect
from ..exceptions import WebSocketException
from .arguments import add_client_arguments, client_options, count, seconds
from .failures import Failure, explain, opening

__all__ = ["EXAMPLES", "HELP", "add_arguments", "percentile", "run"]

HELP = "measure how fast a server echoes"

EXAMPLES = """
syncws bench ws://localhost:8765
syncws bench ws://localhost:8765 --connections 100 --size 1024 --seconds 10
syncws bench wss://localhost:8443 --insecure --in-flight 32 --binary --json
"""

DESCRIPTION = """\
Open connections, each with a thread of its own, that send a message, wait for it to come back,
and send the next (a closed loop). Tells messages per second and how long they took. The server
must echo. This client is written in Python: it is often the slower end, so take the
figures for a comparison, not for what the server can do at most."""

PROGRESS_INTERVAL = 0.25  # seconds
MAX_SIZE = 1 << 30  # bytes

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    add_client_arguments(parser)
    group = parser.add_argument_group("load")
    group.add_argument(
        "-c", "--connections", metavar="N", type=count, default=10, help="(%(default)s)"
    )
    group.add_argument(
        "-s", "--size", metavar="BYTES", type=count, default=32, help="of a message (%(default)s)"
    )
    group.add_argument(
        "-d", "--seconds", metavar="SECONDS", type=seconds, default=5.0, help="(%(default)g)"
    )
    group.add_argument(
        "--in-flight",
        metavar="N",
        type=count,
        default=1,
        help="messages on their way at a time, for each connection (%(default)s)",
    )
    group.add_argument("--binary", action="store_true", help="send binary messages, not text")
    group.add_argument("--compress", action="store_true", help="offer compression")
    group.add_argument("--json", action="store_true", help="write the result as a JSON object")


def run(arguments: argparse.Namespace) -> int:
    if arguments.size > MAX_SIZE:
        raise Failure(f"--size is {arguments.size}, but at most {MAX_SIZE}")
    options = client_options(arguments)
    options.update(max_size=None, compression="deflate" if arguments.compress else None)
    load = Load(make_message(arguments.size, arguments.binary), arguments)
    try:
        load.open(arguments.uri, options, arguments.connections)
        load.run(arguments.seconds)
    finally:
        load.close()
    if arguments.json:
        print(json.dumps(load.result()))
    else:
        print(load.report())
    return 0


def make_message(size: int, binary: bool) -> Union[str, bytes]:
    return os.urandom(size) if binary else ("0123456789abcdef" * (size // 16 + 1))[:size]


class Load:
    """Connections that send and receive in their threads, and what they measured."""

    def __init__(self, message: Union[str, bytes], arguments: argparse.Namespace) -> None:
        self._message = message
        self._in_flight: int = arguments.in_flight
        self._timeout: float = arguments.timeout
        self._connections: list[ClientConnection] = []
        # One for each thread, which alone appends to it; in seconds.
        self._times: list[array.array[float]] = []
        self._begin = threading.Event()
        self._stop = threading.Event()
        self._failure: Optional[Failure] = None
        self._lasted = 0.0

    def open(self, uri: str, options: dict[str, Any], number: int) -> None:
        with opening():
            for _ in range(number):
                self._connections.append(connect(uri, **options))

    def close(self) -> None:
        """Close all connections at once, not one after the other."""
        threads = [threading.Thread(target=connection.close) for connection in self._connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run(self, duration: float) -> None:
        """
        Have all threads work for so many seconds.

        Raises:
            Failure: a connection ended, or did not echo.
        """
        self._times = [array.array("d") for _ in self._connections]
        threads = [
            threading.Thread(target=self._work, args=pair)
            for pair in zip(self._connections, self._times)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        try:
            self._begin.set()
            self._watch(began, duration)
        finally:
            self._stop.set()
            self._begin.set()
            for thread in threads:
                thread.join()
            self._lasted = time.monotonic() - began
        if self._failure is not None:
            raise self._failure

    def _watch(self, began: float, duration: float) -> None:
        """Wait for the end, with a line that tells how far it is."""
        shown = sys.stderr.isatty()
        while (remaining := began + duration - time.monotonic()) > 0:
            if self._stop.wait(min(PROGRESS_INTERVAL, remaining)):
                break
            if shown:
                elapsed = time.monotonic() - began
                done = sum(map(len, self._times))
                bar = ("━" * int(20 * elapsed / duration)).ljust(20, "─")[:20]
                line = f"\r{bar} {elapsed:4.1f} s  {done / elapsed:,.0f} messages/s   "
                sys.stderr.write(line)
                sys.stderr.flush()
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _work(self, connection: ClientConnection, times: array.array[float]) -> None:
        self._begin.wait()
        try:
            self._check_echo(connection)
            self._exchange(connection, times)
        except TimeoutError:
            self._fail(f"no answer within {self._timeout:g} s: does the server echo?")
        except (OSError, WebSocketException) as exc:
            self._fail(explain(exc))
        except Failure as exc:
            self._fail(str(exc))

    def _fail(self, text: str) -> None:
        self._failure = Failure(text)
        self._stop.set()

    def _check_echo(self, connection: ClientConnection) -> None:
        """The first exchange, not measured, also sees to that both ends have warmed up."""
        connection.send(self._message)
        if connection.recv(timeout=self._timeout) != self._message:
            raise Failure("the server does not echo: it answered with another message")

    def _exchange(self, connection: ClientConnection, times: array.array[float]) -> None:
        clock, message, timeout = time.perf_counter, self._message, self._timeout
        size, stop = len(message), self._stop
        sent = []
        for _ in range(self._in_flight):
            sent.append(clock())
            connection.send(message)
        at = 0
        while not stop.is_set():
            if len(connection.recv(timeout=timeout)) != size:
                raise Failure("the server does not echo: it answered with another message")
            now = clock()
            times.append(now - sent[at])
            sent[at] = now
            connection.send(message)
            at = (at + 1) % len(sent)
        for _ in sent:
            connection.recv(timeout=timeout)

    def result(self) -> dict[str, Any]:
        """What was measured, as plain data; times in seconds."""
        times = array.array("d")
        for some in self._times:
            times.extend(some)
        ordered = sorted(times)
        rate = len(ordered) / self._lasted
        result: dict[str, Any] = {
            "connections": len(self._connections),
            "size": len(self._message),
            "in_flight": self._in_flight,
            "seconds": self._lasted,
            "messages": len(ordered),
            "messages_per_second": rate,
            "bytes_per_second": rate * len(self._message),
        }
        for share in PERCENTILES:
            result[f"p{share:g}"] = percentile(ordered, share)
        result["max"] = ordered[-1] if ordered else 0.0
        return result

    def report(self) -> str:
        """The same for people."""
        result = self.result()
        times = [(f"{share:g} %", result[f"p{share:g}"]) for share in PERCENTILES]
        times.append(("max", result["max"]))
        return "\n".join(
            [
                f"{result['connections']:,} connections, {result['size']:,} bytes, "
                f"{result['in_flight']:,} in flight, {result['seconds']:.1f} s",
                f"  {result['messages_per_second']:,.0f} messages/s each way, "
                f"{result['bytes_per_second'] / 1e6:,.1f} MB/s each way",
                "  round trip in ms: "
                + ", ".join(f"{name} {value * 1000:.2f}" for name, value in times),
            ]
        )


def percentile(ordered: list[float], share: float) -> float:
    """The value that so many percent of the values, in ascending order, do not exceed."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]
