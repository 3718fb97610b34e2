"""
The server of the soak: in addition to the paths of echo.py,

/checked/NAME  echoes, and checks that no message is lost, doubled, reordered or crossed
/shared/NAME   echoes from three threads at the same time
/stream        gets the numbered messages of a broadcast
"""

from __future__ import annotations

import random
import threading

from echo import EchoServers, run
from ledger import Ledger, Wrong, make_message, read_message

from syncws import ConnectionClosed, broadcast

SHARING = 3  # threads that share a connection
STREAM_LARGEST = 4096  # bytes
STREAM_PAUSE = 0.1  # seconds between two broadcasts


class SoakServers(EchoServers):
    """Servers that keep an account of what they received."""

    def __init__(self, options, certificate):
        self.handlers = {
            **self.handlers,
            "/checked": self.echo_checked,
            "/shared": self.echo_shared,
            "/stream": self.subscribe,
        }
        self._faults = []
        self._messages = 0
        self._subscribers = set()  # changed and copied by single, atomic operations
        self._streaming = threading.Event()
        super().__init__(options, certificate)
        threading.Thread(target=self._stream, daemon=True).start()

    def commands(self):
        return {
            **super().commands(),
            "stream": self.stream,
            "account": self.account,
        }

    def stream(self, wanted):
        """Go on with the broadcasts, or pause."""
        (self._streaming.set if wanted else self._streaming.clear)()

    def account(self):
        """What was checked, and what was wrong."""
        return {"messages": self._messages, "faults": self._faults[:10]}

    def echo_checked(self, connection):
        ledger = Ledger(connection.request.path.split("/")[2])
        for message in connection:
            try:
                if message:
                    ledger.check(message)
            except Wrong as exc:
                self._faults.append(f"server: {exc}")
            self._messages += 1
            connection.send(message)
            del message  # idle connections are to hold none

    def echo_shared(self, connection):
        threads = [threading.Thread(target=self._share, args=(connection,)) for _ in range(SHARING)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def subscribe(self, connection):
        self._subscribers.add(connection)
        try:
            for message in connection:
                self._faults.append(f"server: a subscriber sent {message[:60]!r}")
        finally:
            self._subscribers.discard(connection)

    def _share(self, connection):
        try:
            for message in connection:
                read_message(message)
                self._messages += 1
                connection.send(message)
                del message
        except Wrong as exc:
            self._faults.append(f"server: {exc}")
        except ConnectionClosed:
            return

    def _stream(self):
        number, rng, pause = 0, random.Random(7), threading.Event()
        while True:
            self._streaming.wait()
            number += 1
            message = make_message("stream.0", number, rng, STREAM_LARGEST)
            broadcast(list(self._subscribers), message, on_full="close")
            pause.wait(STREAM_PAUSE)


if __name__ == "__main__":
    run(SoakServers)
