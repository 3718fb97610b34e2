"""
One worker process and two, side by side, under Gunicorn.

    python benchmarks/processes.py [--seconds 3] [--rounds 3]

Runs on Linux, with Gunicorn installed (pip install .[gunicorn]). Two handlers: one echoes, one
computes in Python for a millisecond a message. The clients run on the same cores and take what
they need of them, at the lowest priority. So beside the measured rate stands what the CPU time of
the server for a message allows: what it would be with clients on other machines.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parent.parent

MESSAGE = b"x" * 32
KEY = b"\1\2\3\4"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PATIENCE = 20  # seconds
WARM_UP = 0.5  # seconds


class Load(NamedTuple):
    """
    How clients treat a handler.

    Attributes:
        depth: messages under way in a connection.
        pause: seconds in which they let messages come together, which costs them less. What is
            under way must keep the server busy for longer than this.
    """

    depth: int
    pause: float


LOADS = {"work": Load(16, 0.004), "echo": Load(4, 0.0)}


# --- The server: what Gunicorn loads --------------------------------------------------------------


def make_app(name, loops, core_per_worker):
    """An application that tells its process first, and then computes and echoes."""
    from syncws.gunicorn import App

    def echo(connection):
        connection.send(str(os.getpid()))
        for message in connection:
            connection.send(message)

    def work(connection):
        connection.send(str(os.getpid()))
        for message in connection:
            compute(loops)
            connection.send(message)

    handler = {"echo": echo, "work": work}[name]
    return App(handler, drain=0, core_per_worker=core_per_worker)


def compute(loops):
    total = 0
    for number in range(loops):
        total += number * number % 7
    return total


def calibrate(seconds):
    """How many loops take so long, on a core that does nothing else."""
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        compute(10_000)
        rates.append(10_000 / (time.perf_counter() - began))
    return int(max(rates) * seconds)


@contextlib.contextmanager
def gunicorn(application, workers):
    """Run Gunicorn; yields its port."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "gunicorn.conf.py")
        config.write_text("control_socket_disable = True\n", encoding="utf-8")
        command = [sys.executable, "-m", "gunicorn", "-c", config, "-b", "127.0.0.1:0"]
        command += ["-k", "syncws.gunicorn.Worker", "-w", workers, "--pythonpath", HERE.parent]
        process = subprocess.Popen(
            [*map(str, command), application],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            yield _port(process)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _port(process):
    said = []
    for line in process.stderr:
        said.append(line)
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line)
        if found:
            threading.Thread(
                target=collections.deque, args=(process.stderr, 0), daemon=True
            ).start()
            return int(found[1])
    raise SystemExit("Gunicorn did not start:\n" + "".join(said))


# --- The clients ----------------------------------------------------------------------------------


class Client:
    """A connection with a number of messages under way; the server's frames are counted by size."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(REQUEST)
        data = b""
        while not re.search(rb"\r\n\r\n\x81.\d+$", data, re.DOTALL):
            chunk = self.sock.recv(4096)
            if not chunk:
                raise SystemExit(f"connection refused: {data!r}")
            data += chunk
        self.pid = int(data.rpartition(b"\r\n\r\n")[2][2:])
        self.left = 0  # bytes of a frame that is not complete

    def send(self, count):
        self.sock.sendall(FRAME * count)

    def receive(self):
        """Take what has arrived; returns how many messages were completed."""
        data = self.sock.recv(65536)
        if not data:
            raise SystemExit("the server closed a connection")
        messages, self.left = divmod(self.left + len(data), len(MESSAGE) + 2)
        return messages


FRAME = (
    bytes((0x82, 0x80 | len(MESSAGE)))
    + KEY
    + bytes(byte ^ KEY[index % 4] for index, byte in enumerate(MESSAGE))
)


def connect_evenly(port, workers, connections):
    """Open connections, the same number to each worker: who accepts one is chance."""
    kept = collections.defaultdict(list)
    while sum(map(len, kept.values())) < workers * connections:
        client = Client(port)
        if len(kept[client.pid]) < connections:
            kept[client.pid].append(client)
        else:
            client.sock.close()
    return [client for clients in kept.values() for client in clients]


def run_client(port, workers, connections, depth, pause):
    """
    Send and receive until the end of the input.

    For each line that comes in, a line goes out: messages so far, CPU seconds so far, processes.
    """
    os.nice(19)
    clients = connect_evenly(port, workers, connections)
    pids = sorted({client.pid for client in clients})
    messages = 0
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.send(depth)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    count = key.data.receive()
                    key.data.send(count)
                    messages += count
                elif sys.stdin.readline():
                    print(json.dumps([messages, sum(os.times()[:2]), pids]), flush=True)
                else:
                    return
            time.sleep(pause)


# --- Measuring ------------------------------------------------------------------------------------


def cpu_seconds(pids):
    """CPU time of processes so far, with all their threads."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def machine_seconds():
    """CPU time that the machine has spent so far, on whatever."""
    line = pathlib.Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _, _, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def read_all(clients):
    """Time, messages, and CPU seconds: of all clients together, of the server, of the machine."""
    for client in clients:
        client.stdin.write("\n")
        client.stdin.flush()
    lines = [client.stdout.readline() for client in clients]
    if "" in lines:
        raise SystemExit("a client has ended; it says why above")
    said = [json.loads(line) for line in lines]
    pids = {pid for _, _, some in said for pid in some}
    return (
        time.perf_counter(),
        sum(messages for messages, _, _ in said),
        sum(cpu for _, cpu, _ in said),
        cpu_seconds(pids),
        machine_seconds(),
    )


def measure(application, workers, load, options):
    """Messages per second, and CPU seconds per second: of clients, of server, of all others."""
    arguments = [workers, options.connections, *load]
    with gunicorn(application, workers) as port, contextlib.ExitStack() as stack:
        clients = []
        for _ in range(options.clients):
            command = [sys.executable, HERE, "--client", port, *arguments]
            client = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
            clients.append(stack.enter_context(client))
            stack.callback(client.stdin.close)
        read_all(clients)  # all are connected
        time.sleep(WARM_UP)
        before = read_all(clients)
        time.sleep(options.seconds)
        after = read_all(clients)
    seconds, messages, client, server, machine = (b - a for a, b in zip(before, after))
    others = max(0.0, machine - client - server)
    return messages / seconds, client / seconds, server / seconds, others / seconds


def run_all(options):
    """All cases, in turns, so that what disturbs the machine disturbs all; the samples by case."""
    samples = collections.defaultdict(list)
    loops = calibrate(options.work / 1e6)
    cases = itertools.product(("work", "echo"), (False, True), options.workers)
    for number, (name, own_core, workers) in itertools.product(range(options.rounds), list(cases)):
        show(f"round {number + 1}: {name}, workers: {workers}")
        application = f"processes:make_app({name!r}, {loops}, {own_core})"
        sample = measure(application, workers, LOADS[name], options)
        samples[name, own_core, workers].append(sample)
    show("")
    return samples


def show(text):
    """What is going on, in the last line of the terminal."""
    print(f"\r{text:40}\r", end="", file=sys.stderr, flush=True)


HEAD = (
    "handler  own cores  workers  messages/s  ratio  CPU/message      allows  ratio"
    "   cores used by server, clients, others"
)


def limited(server, client, others, cores):
    """What the measured rate is limited by, other than the server itself."""
    if others > 0.1:
        return "  disturbed by other programs"
    if server + client > 0.95 * cores:
        return "  limited by the cores that the clients need too"
    return ""


def print_table(samples, cores):
    print(HEAD)
    first = {}
    for (name, own_core, workers), runs in samples.items():
        rate, client, server, others = (statistics.median(column) for column in zip(*runs))
        cost = statistics.median(server / rate for rate, _, server, _ in runs)
        allows = min(workers, cores) / cost
        base = first.setdefault((name, own_core), (rate, allows))
        print(
            f"{name:8} {'yes' if own_core else 'no':10} {workers:6} {rate:11,.0f}"
            f" {rate / base[0]:6.2f} {cost * 1e6:9.1f} µs {allows:11,.0f} {allows / base[1]:6.2f}"
            f"   {server:.2f}, {client:.2f}, {others:.2f}" + limited(server, client, others, cores)
        )
    print(
        f"\nMedians on {cores} cores. 'allows': what the server's CPU time for a message allows,"
        "\nwith clients on other machines; 'ratio': to the first line of the same kind."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, default=2, help="processes")
    parser.add_argument("--connections", type=int, default=8, help="of a client to each worker")
    parser.add_argument(
        "--work", type=float, default=1000, help="µs that a message takes to compute"
    )
    parser.add_argument("--client", type=float, nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        run_client(*map(int, options.client[:4]), options.client[4])
        return
    if not sys.platform.startswith("linux"):
        parser.error("this reads CPU times from /proc, which only Linux has")
    print_table(run_all(options), len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
