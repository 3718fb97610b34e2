"""The examinations of ``syncws check``, each of one rule, on a connection of its own."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from ..exceptions import InvalidHandshake
from ..opcodes import Opcode
from .failures import explain
from .faults import FAULTS, Fault
from .probe import FIN, RSV1, BadServer, Ended, Probe, Target

__all__ = ["GOOD", "NOTE", "WRONG", "Verdict", "examine"]

GOOD, WRONG, NOTE = "good", "wrong", "note"

# How long a server that may not echo at all is given to do so.
ECHO_PATIENCE = 1.0  # seconds

UNKNOWN_SUBPROTOCOL = "check.syncws.invalid"
ECHOED = ((Opcode.TEXT, "Grüße".encode()), (Opcode.BINARY, bytes(range(256))))

# RFC 2606 §2: no such site exists.
FOREIGN_ORIGIN = "https://check.syncws.invalid"

# A certificate that ends so soon is worth a note.
DAYS = 14

TIMEOUTS = (TimeoutError, socket.timeout)


class Verdict(NamedTuple):
    """What came of one examination; ``mark`` is one of GOOD, WRONG and NOTE."""

    mark: str
    title: str
    detail: str


class Wrong(Exception):
    """The server breaks a rule."""


class Note(Exception):
    """The server breaks no rule, but the user should know, or nothing could be found out."""


class Findings:
    """What the examinations of messages have to know from those before them."""

    def __init__(self) -> None:
        self.deflate = False
        self.echoes = False


Examination = Callable[[Target, Findings], str]


def examine(target: Target) -> Iterator[tuple[str, Iterator[Verdict]]]:
    """
    Examine a server; yields groups with their titles, and in each the verdicts as they come.

    Ends early if the server does not even open a connection.
    """
    findings = Findings()
    verdicts: list[Verdict] = []
    yield "Connection", _run(CONNECTION, target, findings, verdicts)
    if any(verdict.mark is WRONG for verdict in verdicts):
        return
    yield "Opening handshake", _run(OPENING, target, findings, verdicts)
    yield "Messages", _run(MESSAGES, target, findings, verdicts)
    yield (
        "What a client must not send",
        _run(
            [(fault.title, functools.partial(fault_is_refused, fault)) for fault in FAULTS],
            target,
            findings,
            verdicts,
        ),
    )


def _run(
    examinations: list[tuple[str, Examination]],
    target: Target,
    findings: Findings,
    verdicts: list[Verdict],
) -> Iterator[Verdict]:
    for title, examination in examinations:
        verdict = _judge(title, examination, target, findings)
        if verdict is not None:
            verdicts.append(verdict)
            yield verdict


def _judge(title: str, examination: Examination, target: Target, findings: Findings) -> Any:
    try:
        detail = examination(target, findings)
    except Note as exc:
        return Verdict(NOTE, title, str(exc))
    except (Wrong, BadServer) as exc:
        return Verdict(WRONG, title, str(exc))
    except Ended as exc:
        return Verdict(WRONG, title, f"the server {exc}")
    except TIMEOUTS:
        return Verdict(WRONG, title, f"no answer within {target.timeout:g} s")
    except (OSError, InvalidHandshake) as exc:
        return Verdict(WRONG, title, explain(exc))
    return Verdict(GOOD, title, detail) if detail is not None else None


# Connection


def network(target: Target, findings: Findings) -> str:
    began = time.monotonic()
    with socket.create_connection((target.uri.host, target.uri.port), target.timeout) as sock:
        took = time.monotonic() - began
        address = sock.getpeername()
    return f"{address[0]} port {address[1]}, in {took * 1000:.1f} ms"


def encryption(target: Target, findings: Findings) -> Any:
    if target.tls is None:
        return None
    with Probe(target) as probe:
        sock = probe.sock
        assert isinstance(sock, ssl.SSLSocket)
        cipher = sock.cipher()
        detail = f"{sock.version()}, {cipher[0] if cipher else 'no cipher'}"
        certificate = sock.getpeercert() or {}
    ends = certificate.get("notAfter")
    if not isinstance(ends, str):
        raise Note(f"{detail}; the certificate was not checked (--insecure)")
    days = int((ssl.cert_time_to_seconds(ends) - time.time()) / 86400)
    if days < DAYS:
        raise Note(f"{detail}; the certificate ends in {days} days")
    return f"{detail}; the certificate is good for {days:,} days"


def opening(target: Target, findings: Findings) -> str:
    began = time.monotonic()
    with Probe(target) as probe:
        response = probe.open()
        took = time.monotonic() - began
    server = response.headers.get("Server")
    return f"101 in {took * 1000:.1f} ms" + (f", server {server}" if server else "")


# Opening handshake


def subprotocol(target: Target, findings: Findings) -> str:
    if target.subprotocols:
        with Probe(target) as probe:
            chosen = probe.open().headers.get("Sec-WebSocket-Protocol")
        if chosen is None:
            raise Note(f"the server chose none of {', '.join(target.subprotocols)}")
        return f"{chosen} was chosen"
    target = target._replace(subprotocols=[UNKNOWN_SUBPROTOCOL])
    with Probe(target) as probe:
        try:
            chosen = probe.open().headers.get("Sec-WebSocket-Protocol")
        except InvalidHandshake as exc:
            return f"an unknown one is refused ({exc})"
    if chosen is not None:
        raise Note("the server agrees to any subprotocol that a client names")
    return "an unknown one is ignored"


def compression(target: Target, findings: Findings) -> str:
    with Probe(target) as probe:
        response = probe.open(compression=True)
        findings.deflate = probe.deflate
    if not findings.deflate:
        raise Note("not offered")
    return ", ".join(response.headers.get_all("Sec-WebSocket-Extensions"))


def origin(target: Target, findings: Findings) -> str:
    if target.origin is not None:
        return f"{target.origin} is let in"
    with Probe(target) as probe:
        status = probe.exchange(probe.handshake(), {"Origin": FOREIGN_ORIGIN}).status_code
    if status == 101:
        raise Note("pages of any other site may connect, with the cookies of their visitors")
    return f"a page of another site is refused with {status}"


def malformed(changes: dict[str, Any], target: Target, findings: Findings) -> str:
    with Probe(target) as probe:
        response = probe.exchange(probe.handshake(), changes)
    if response.status_code == 101:
        raise Wrong("let in, though RFC 6455 §4.2.1 does not allow it")
    if not 400 <= response.status_code < 500:
        raise Note(f"refused, but with {response.status_code}")
    version = response.headers.get("Sec-WebSocket-Version")
    if "Sec-WebSocket-Version" in changes and version is None:
        raise Note(
            f"refused with {response.status_code}, which does not name the right version (§4.4)"
        )
    return f"refused with {response.status_code}"


# Messages


def ping(target: Target, findings: Findings) -> str:
    with Probe(target) as probe:
        probe.open()
        began = time.monotonic()
        probe.send_frame(FIN | Opcode.PING, b"syncws check")
        pong = probe.expect(Opcode.PONG)
        took = time.monotonic() - began
    if pong.payload != b"syncws check":
        raise Wrong("the pong has other data than the ping (RFC 6455 §5.5.3)")
    return f"pong in {took * 1000:.1f} ms"


@contextlib.contextmanager
def patience(probe: Probe) -> Iterator[None]:
    """Wait for an echo that may never come."""
    probe.renew(min(ECHO_PATIENCE, probe.target.timeout))
    try:
        yield
    except TIMEOUTS:
        raise Note("the server does not echo") from None
    except Ended as exc:
        raise Note(f"the server does not echo: it {exc}") from None


def echo(target: Target, findings: Findings) -> str:
    with Probe(target) as probe:
        probe.open()
        for opcode, payload in ECHOED:
            with patience(probe):
                probe.send_frame(FIN | opcode, payload)
                probe.expect(opcode, payload)
    findings.echoes = True
    return "text and binary come back"


def fragments(target: Target, findings: Findings) -> Any:
    if not findings.echoes:
        return None
    with Probe(target) as probe:
        probe.open()
        probe.send_frame(Opcode.TEXT, b"in ")
        probe.send_frame(FIN | Opcode.PING, b"between")
        probe.expect(Opcode.PONG, b"between")
        probe.send_frame(FIN | Opcode.CONT, b"parts")
        message = _receive_all(probe, len(b"in parts"))
    if message != b"in parts":
        raise Wrong(f"came back as {message!r}")
    return "a message in fragments comes back, with a ping between them answered"


def _receive_all(probe: Probe, size: int) -> bytes:
    """Receive frames until their payloads have ``size`` bytes."""
    message = b""
    while len(message) < size:
        message += probe.receive().payload
    return message


def deflated(target: Target, findings: Findings) -> Any:
    if not (findings.echoes and findings.deflate):
        return None
    text = b"compression " * 100
    deflater = zlib.compressobj(wbits=-9)
    payload = deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)
    with Probe(target) as probe:
        probe.open(compression=True)
        # RFC 7692 §7.2.1: the last four bytes of the flush are left out.
        probe.send_frame(FIN | RSV1 | Opcode.TEXT, payload[:-4])
        seen = probe.expect(Opcode.TEXT)
    back = seen.payload
    if seen.head & RSV1:
        back = zlib.decompressobj(wbits=-15).decompress(back + b"\0\0\xff\xff")
    if back != text:
        raise Wrong("a compressed message comes back as another one")
    return f"{len(text):,} bytes came back in {len(seen.payload):,}"


def close(payload: bytes, target: Target, findings: Findings) -> str:
    expected = struct.unpack("!H", payload)[0] if payload else None
    with Probe(target) as probe:
        probe.open()
        probe.send_frame(FIN | Opcode.CLOSE, payload)
        code = _closing(probe)
        if code not in (expected, None, 1000):
            raise Wrong(f"answered with {code}")
        _read_to_end(probe)
    return f"answered with {code or 'no code'}, and TCP ended by the server"


def _read_to_end(probe: Probe) -> None:
    data = b"any"
    while data:
        try:
            data = probe.sock.recv(65536)
        except TIMEOUTS:
            raise Note("answered, but the server leaves it to the client to end TCP") from None
        except OSError:
            return  # a reset ends it, too


def _closing(probe: Probe) -> Any:
    """The code of the server's Close frame, whatever it says before."""
    while True:
        seen = probe.receive()
        if seen.opcode == Opcode.CLOSE:
            return seen.close_code


# Faults


def fault_is_refused(fault: Fault, target: Target, findings: Findings) -> str:
    with Probe(target) as probe:
        probe.open()
        try:
            for part in fault.parts:
                if part.raw:
                    probe.send(part.raw)
                else:
                    probe.send_frame(part.head, part.payload, part.masked)
        except OSError:
            pass  # it may have ended the connection at the first of them
        if not fault.strict:
            probe.renew(min(ECHO_PATIENCE, target.timeout))
        try:
            code = _closing(probe)
        except Ended as exc:
            raise Note(f"the server {exc}; {fault.codes[0]} would tell why") from None
        except TIMEOUTS:
            if not fault.strict:
                raise Note("the server has no limit, or waits for the rest") from None
            raise Wrong(f"the server goes on (RFC 6455 {fault.rule})") from None
    if code not in fault.codes:
        raise Wrong(
            f"closed with {code or 'no code'}, not {fault.codes[0]} (RFC 6455 {fault.rule})"
        )
    return f"closed with {code}"


CONNECTION: list[tuple[str, Examination]] = [
    ("TCP", network),
    ("TLS", encryption),
    ("WebSocket", opening),
]
OPENING: list[tuple[str, Examination]] = [
    ("subprotocol", subprotocol),
    ("compression", compression),
    ("origin", origin),
    ("another version", functools.partial(malformed, {"Sec-WebSocket-Version": "99"})),
    ("no key", functools.partial(malformed, {"Sec-WebSocket-Key": None})),
    ("a key of 3 bytes", functools.partial(malformed, {"Sec-WebSocket-Key": "YWJj"})),
]
MESSAGES: list[tuple[str, Examination]] = [
    ("ping", ping),
    ("echo", echo),
    ("fragments", fragments),
    ("compressed echo", deflated),
    ("close with 1000", functools.partial(close, struct.pack("!H", 1000))),
    ("close without code", functools.partial(close, b"")),
]
