"""What is measured: the servers, the scenarios, and how both are laid out on the cores."""

from __future__ import annotations

from typing import Any, NamedTuple

# The server that ratios refer to, and ours as it comes.
REFERENCE = "websockets-sync"
OURS = "syncws"

PINNED, FREE = "pinned", "free"
LAYOUTS = {
    PINNED: "pinned: the server has one core, the load generator another",
    FREE: "not pinned: the kernel chooses, server and load generator may use all cores",
}


class Server(NamedTuple):
    """A program in ``servers/``, and how it is called."""

    name: str
    title: str
    program: str
    kind: str  # "ours", "threads" or "loop"
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    deflate: bool = True  # knows permessage-deflate
    layouts: tuple[str, ...] = (PINNED, FREE)
    modes: tuple[str, ...] = ("echo", "paced", "open", "hold", "fanout")
    needs: tuple[str, ...] = ()  # features of syncws that this is about: see environment.PROBE


SERVERS = [
    Server("syncws", "syncws", "syncws_threads", "ours"),
    Server(
        "syncws-pure",
        "syncws (pure Python)",
        "syncws_threads",
        "ours",
        environment=(("SYNCWS_PURE_PYTHON", "1"),),
        needs=("speedups",),
    ),
    Server(
        "syncws-cork",
        "syncws (cork)",
        "syncws_threads",
        "ours",
        options=("cork",),
        modes=("echo", "paced"),
        needs=("recv_many", "cork"),
    ),
    Server(
        "syncws-affinity",
        "syncws (affinity)",
        "syncws_threads",
        "ours",
        options=("affinity",),
        layouts=(FREE,),
        needs=("affinity",),
    ),
    Server("websockets-sync", "websockets (threads)", "websockets_sync", "threads"),
    Server("simple-websocket", "simple-websocket", "simple_websocket_werkzeug", "threads"),
    Server(
        "websocket-server",
        "websocket-server",
        "websocket_server_threads",
        "threads",
        deflate=False,
    ),
    Server("ws4py", "ws4py", "ws4py_threads", "threads", deflate=False),
    Server("websockets-asyncio", "websockets (asyncio)", "websockets_asyncio", "loop"),
    Server("aiohttp", "aiohttp", "aiohttp_web", "loop"),
    Server("aiohttp-uvloop", "aiohttp (uvloop)", "aiohttp_web", "loop", options=("uvloop",)),
    Server("picows", "picows", "picows_listener", "loop", deflate=False),
    Server(
        "picows-uvloop",
        "picows (uvloop)",
        "picows_listener",
        "loop",
        options=("uvloop",),
        deflate=False,
    ),
]


class Scenario(NamedTuple):
    """One run of the load generator."""

    name: str
    title: str
    group: str
    mode: str  # of load.c
    unit: str
    connections: int
    size: int = 32  # bytes
    window: int = 1  # messages in flight, of each connection
    rate: int = 0  # messages per second of all connections
    touch: int = 0
    deflate: bool = False
    layouts: tuple[str, ...] = (PINNED, FREE)
    most_rounds: int = 1000

    @property
    def full_title(self) -> str:
        return f"{PREFIXES[self.group]}, {self.title}"

    @property
    def more_is_better(self) -> bool:
        return self.unit not in ("µs", "KiB")


GROUPS = {
    "connections": "Echo of 32 bytes, by number of connections",
    "size": "Echo by size of the message, 10 connections",
    "more": "More messages, larger messages",
    "latency": "Latency at 5,000 messages a second",
    "handshakes": "Handshakes",
    "broadcast": "Broadcast of 64 bytes",
    "compression": "Echo of compressed JSON, 10 connections",
    "memory": "Memory of an idle connection",
}

# Before the title of a scenario, where it does not stand in the table of its group.
PREFIXES = {
    "connections": "Echo, 32 B",
    "size": "Echo, 10 conn.",
    "more": "Echo",
    "latency": "Latency",
    "handshakes": "Handshakes",
    "broadcast": "Broadcast",
    "compression": "Compressed echo",
    "memory": "Idle memory",
}


def echo(name: str, title: str, group: str, **options: Any) -> Scenario:
    return Scenario(name, title, group, "echo", "msg/s", **options)


def idle(name: str, title: str, connections: int, **options: Any) -> Scenario:
    # Neither cores nor noise matter to it.
    options.update(layouts=(PINNED,), most_rounds=2)
    return Scenario(name, title, "memory", "hold", "KiB", connections, **options)


SCENARIOS = [
    echo("echo-1", "1 conn.", "connections", connections=1),
    echo("echo-10", "10 conn.", "connections", connections=10),
    echo("echo-100", "100 conn.", "connections", connections=100),
    echo("echo-1000", "1,000 conn.", "connections", connections=1000),
    # By size, the first one is echo-10.
    echo("echo-1kib", "1 KiB", "size", connections=10, size=1024),
    echo("echo-16kib", "16 KiB", "size", connections=10, size=16384),
    echo("echo-64kib", "64 KiB", "size", connections=10, size=65536),
    echo("echo-1mib", "1 MiB", "size", connections=10, size=2**20),
    echo("echo-1kib-100", "1 KiB, 100 conn.", "more", connections=100, size=1024),
    echo("window-32", "32 B, 10 conn., 32 in flight", "more", connections=10, window=32),
    Scenario("flood", "1 MiB, 1 conn., 16 in flight", "more", "echo", "MB/s", 1, 2**20, 16),
    Scenario("paced", "100 conn.", "latency", "paced", "µs", 100, rate=5000),
    Scenario("open-16", "16 at a time", "handshakes", "open", "conn/s", 16),
    Scenario("fanout-100", "to 100", "broadcast", "fanout", "copies/s", 100, 64, 8),
    Scenario("fanout-1000", "to 1,000", "broadcast", "fanout", "copies/s", 1000, 64, 8),
    echo("deflate-1kib", "1 KiB", "compression", connections=10, size=1024, deflate=True),
    echo("deflate-16kib", "16 KiB", "compression", connections=10, size=16384, deflate=True),
    idle("idle-100", "100 conn.", 100),
    idle("idle-1000", "1,000 conn.", 1000),
    idle("idle-10000", "10,000 conn.", 10000),
    idle("idle-deflate", "1,000, compression used", 1000, size=1024, touch=1, deflate=True),
]
