"""Who is let in: the threads of a server, and the limits that hold before one is spent."""

from __future__ import annotations

import collections
import ipaddress
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from .ledger import Ledger
from .sending import LoggerLike

if TYPE_CHECKING:
    from .server_connection import ServerConnection

__all__ = ["Admission", "Limits", "Slot", "host_of", "make_limits"]

# A limit that is reached is reported once, then at most so often.
REPORT_INTERVAL = 60.0  # seconds

# Over max_connections, an opening handshake that takes longer makes room for a new connection.
SLOW_HANDSHAKE = 1.0  # seconds


class Limits(NamedTuple):
    """Limits of a server; ``None`` for none."""

    max_connections: Optional[int]
    max_connections_per_ip: Optional[int]
    max_handshakes: Optional[int]


def make_limits(
    max_connections: Optional[int],
    max_connections_per_ip: Optional[int],
    max_handshakes: Optional[int],
) -> Limits:
    """
    Check what the user gave.

    Raises:
        ValueError: a limit is negative, or lets in nobody at all but ``max_connections``.
    """
    limits = Limits(max_connections, max_connections_per_ip, max_handshakes)
    for name, value in limits._asdict().items():
        least = 0 if name == "max_connections" else 1
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    return limits


class Slot:
    """A thread of the server, from before it starts until it ends, and its connection."""

    __slots__ = ("address", "client", "connection", "dropped", "late", "since", "sock")

    def __init__(self, sock: Any, address: Any, late: bool) -> None:
        self.sock = sock
        self.address = address
        self.late = late  # accepted while the server was draining
        self.client = ""  # what counts as one, for those who come through a trusted proxy
        self.dropped = False  # to make room for a newer connection
        self.since = time.monotonic()
        self.connection: Optional[ServerConnection] = None


class Admission:
    """
    The threads of a server, and whether there may be another one.

    Thread safety: threads come and go by single, atomic operations, without a lock.
    ``refusal()`` and ``enter()`` belong to the accepting thread.

    Args:
        limits: of the server.
        ledger: where it is counted whom they kept out.
        log: where it is said.
        is_proxy: tells whether an address is a proxy's, and so stands for many clients.
    """

    def __init__(
        self,
        limits: Limits,
        ledger: Ledger,
        log: LoggerLike,
        is_proxy: Callable[[Any], bool] = lambda address: False,
    ) -> None:
        self.limits = limits
        self._is_proxy = is_proxy
        self._ledger = ledger
        self._log = log
        self.slots: dict[threading.Thread, Slot] = {}
        # Those whose client has not sent its request, the oldest first.
        self._opening: dict[threading.Thread, Slot] = {}
        # Dropped, but not ended yet.
        self._dropped: dict[threading.Thread, Slot] = {}
        # Accepting thread only; others tell it which hosts left.
        self._hosts: dict[str, int] = {}
        self._left: collections.deque[str] = collections.deque()
        # Held while clients of proxies are counted; taken by threads of connections alone.
        self._clients_lock = threading.Lock()
        self._reports: dict[str, _Report] = {}

    @property
    def opening(self) -> int:
        """How many opening handshakes wait for the client."""
        return len(self._opening)

    def refusal(self, address: Any) -> Optional[str]:
        """Name the limit that keeps out a client, or make room for it and return ``None``."""
        limits = self.limits
        if limits.max_connections_per_ip is not None:
            host = self._host_of(address)
            self._forget_left()
            count = self._hosts.get(host, 0)
            if host and count >= limits.max_connections_per_ip:
                return self._refuse("max_connections_per_ip", f"there are {count} from {host}")
        count = len(self.slots) - len(self._dropped)
        full = limits.max_connections is not None and count >= limits.max_connections
        if full and not self._drop_oldest(SLOW_HANDSHAKE):
            return self._refuse("max_connections", f"there are {count}")
        if limits.max_handshakes is not None and len(self._opening) >= limits.max_handshakes:
            self._drop_oldest(0.0)
        return None

    def enter(self, thread: threading.Thread, slot: Slot) -> None:
        """A thread is about to start."""
        if self.limits.max_connections_per_ip is not None:
            host = self._host_of(slot.address)
            self._hosts[host] = self._hosts.get(host, 0) + 1
        self.slots[thread] = self._opening[thread] = slot

    def requested(self, thread: threading.Thread) -> None:
        """The client has sent its request."""
        self._opening.pop(thread, None)

    def leave(self, thread: threading.Thread) -> None:
        """A thread has ended, or could not be started."""
        self._opening.pop(thread, None)
        slot = self.slots.pop(thread, None)
        self._dropped.pop(thread, None)
        if slot is not None and self.limits.max_connections_per_ip is not None:
            self._left.append(self._host_of(slot.address))

    def _host_of(self, address: Any) -> str:
        """Whom a connection counts for when it is accepted; ``""`` for nobody."""
        return "" if self._is_proxy(address) else host_of(address)

    def admits(self, thread: threading.Thread, address: Any) -> bool:
        """
        Tell whether a client that came through a trusted proxy is within its limit.

        Its address is known only when its proxy has said it, long after ``refusal()``.
        """
        limit = self.limits.max_connections_per_ip
        host = host_of(address)
        if limit is None or not host:
            return True
        slot = self.slots[thread]
        with self._clients_lock:
            count = sum(one.client == host for one in list(self.slots.values()))
            if count < limit:
                slot.client = host
                return True
        self.report("max_connections_per_ip", f"connections refused: there are {count} from {host}")
        return False

    def forget(self) -> None:
        """Give back the descriptors in a forked child, which has none of the threads."""
        self._clients_lock = threading.Lock()
        for slot in self.slots.values():
            if slot.connection is None:
                slot.sock.close()
            else:
                slot.connection.forget()
        for threads in (self.slots, self._opening, self._dropped):
            threads.clear()

    def _forget_left(self) -> None:
        while self._left:
            host = self._left.popleft()
            count = self._hosts.pop(host) - 1
            if count:
                self._hosts[host] = count

    def _drop_oldest(self, least_age: float) -> bool:
        """End the opening handshake that waits longest; false if none is so old, in seconds."""
        for thread, slot in list(self._opening.items()):
            if time.monotonic() - slot.since < least_age:
                return False
            if self._opening.pop(thread, None) is None:
                continue  # its request arrived since
            self._dropped[thread] = slot
            if thread not in self.slots:
                self._dropped.pop(thread, None)  # it ended since
            slot.dropped = True
            if slot.connection is not None:
                slot.connection.cut_handshake("max_handshakes")
                if slot.connection.request is not None:
                    # It came through at the last moment, and may have been let in.
                    self._dropped.pop(thread, None)
            self.report("max_handshakes", "opening handshakes dropped: the client is too slow")
            return True
        return False

    def _refuse(self, reason: str, why: str) -> str:
        self._ledger.add({("refused", reason): 1})
        self.report(reason, f"connections refused: {why}")
        return reason

    def report(self, reason: str, text: str) -> None:
        """
        Say that a limit was reached: once, and again with a count when it goes on for long.

        Any thread may call it; two at a time may both say it.
        """
        report = self._reports.setdefault(reason, _Report())
        now = time.monotonic()
        if now < report.next_at:
            report.unsaid += 1
            return
        more = f"; {report.unsaid} more since it was last said" if report.unsaid else ""
        self._log.warning("%s, %s%s", text, reason, more)
        report.next_at = now + REPORT_INTERVAL
        report.unsaid = 0


class _Report:
    """When a limit may be reported again, and how often it was reached since."""

    __slots__ = ("next_at", "unsaid")

    def __init__(self) -> None:
        self.next_at = 0.0
        self.unsaid = 0


def host_of(address: Any) -> str:
    """
    What counts as one client for ``max_connections_per_ip``.

    An IPv4 address, or the first 64 bits of an IPv6 address, which is what one
    customer or one network has (RFC 6177 §2); ``""`` for Unix sockets, and for
    clients whose address a proxy hides.
    """
    if not isinstance(address, tuple):
        return ""
    try:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(ip) >> 64 << 64)}/64"
