"""
Several threads that send on one connection, while another one receives.

With syncws installed (pip install .), and echo_server.py running:

    python examples/many_senders.py [URI]

No lock is needed: messages are never torn or mixed, and those of one thread stay in order.
"""

import sys
import threading

from syncws import connect

SENSORS = ["temperature", "pressure", "humidity"]
READINGS = 5


def measure(connection, sensor):
    for reading in range(READINGS):
        connection.send(f"{sensor} {reading}")


uri = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765"
with connect(uri) as connection:
    threads = [threading.Thread(target=measure, args=(connection, name)) for name in SENSORS]
    for thread in threads:
        thread.start()
    for _ in range(len(SENSORS) * READINGS):
        print(connection.recv(timeout=5))
    for thread in threads:
        thread.join()
