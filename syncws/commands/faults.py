"""What a client must not do, and how a server has to fail the connection then."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..opcodes import CloseCode, Opcode
from .probe import FIN, MASKED, RSV1

__all__ = ["FAULTS", "Fault", "Part"]

PROTOCOL = int(CloseCode.PROTOCOL_ERROR)
INVALID = int(CloseCode.INVALID_DATA)
TOO_BIG = int(CloseCode.MESSAGE_TOO_BIG)


class Part(NamedTuple):
    """A frame; or, with ``raw``, bytes that are sent as they are."""

    head: int
    payload: bytes = b""
    masked: bool = True
    raw: bytes = b""


class Fault(NamedTuple):
    """
    Frames that break a rule.

    Attributes:
        codes: close codes that are right for it, the one expected first.
        rule: where RFC 6455 has it.
        strict: whether a server that goes on breaks the RFC.
    """

    title: str
    parts: tuple[Part, ...]
    codes: tuple[int, ...]
    rule: str
    strict: bool = True


def _close(code: int, reason: bytes = b"") -> Part:
    return Part(FIN | Opcode.CLOSE, struct.pack("!H", code) + reason)


def _declared(length: bytes, payload: bytes = b"") -> Part:
    """A binary message that declares a length in a wide form, and what there is of it."""
    marker = {2: 126, 8: 127}[len(length)]
    return Part(0, raw=bytes([FIN | Opcode.BINARY, MASKED | marker]) + length + bytes(4) + payload)


TEXT, BINARY, CONT, PING = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING

FAULTS = (
    Fault("an unmasked frame", (Part(FIN | TEXT, b"hi", masked=False),), (PROTOCOL,), "§5.1"),
    Fault("a reserved bit", (Part(FIN | 0x20 | TEXT, b"hi"),), (PROTOCOL,), "§5.2"),
    Fault("a reserved opcode", (Part(FIN | 0x3, b"hi"),), (PROTOCOL,), "§5.2"),
    Fault(
        "compression that was not agreed upon",
        (Part(FIN | RSV1 | TEXT, b"hi"),),
        (PROTOCOL,),
        "§5.2",
    ),
    Fault("a ping of 126 bytes", (Part(FIN | PING, bytes(126)),), (PROTOCOL,), "§5.5"),
    Fault("a ping in fragments", (Part(PING, b"hi"),), (PROTOCOL,), "§5.5"),
    Fault("a continuation of nothing", (Part(FIN | CONT, b"hi"),), (PROTOCOL,), "§5.4"),
    Fault(
        "a message inside of another",
        (Part(TEXT, b"a"), Part(FIN | TEXT, b"b")),
        (PROTOCOL,),
        "§5.4",
    ),
    Fault("a length in too many bytes", (_declared(b"\0\4", bytes(4)),), (PROTOCOL,), "§5.2"),
    Fault("a length of 2^63 bytes", (_declared(b"\x80" + bytes(7)),), (PROTOCOL, TOO_BIG), "§5.2"),
    Fault(
        "a message of 2^62 bytes",
        (_declared(b"\x40" + bytes(7)),),
        (TOO_BIG, PROTOCOL, int(CloseCode.POLICY_VIOLATION)),
        "§10.4",
        strict=False,
    ),
    Fault("text that is no UTF-8", (Part(FIN | TEXT, b"\xc3\x28"),), (INVALID,), "§8.1"),
    Fault("a close code for no frame", (_close(1005),), (PROTOCOL,), "§7.4.1"),
    Fault("a close code of no range", (_close(999),), (PROTOCOL,), "§7.4.2"),
    Fault("a Close frame of one byte", (Part(FIN | Opcode.CLOSE, b"\3"),), (PROTOCOL,), "§5.5.1"),
    Fault(
        "a close reason that is no UTF-8", (_close(1000, b"\xff"),), (INVALID, PROTOCOL), "§5.5.1"
    ),
)
