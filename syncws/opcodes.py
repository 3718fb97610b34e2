"""Opcodes and close codes of the WebSocket protocol (RFC 6455 §5.2 and §7.4)."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["Close", "CloseCode", "Opcode", "State"]


class Opcode(enum.IntEnum):
    """What a frame carries (RFC 6455 §5.2); all other values are reserved."""

    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Close codes by their names in the IANA registry (RFC 6455 §7.4.1, §11.7)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1004 is reserved.
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


class State(enum.IntEnum):
    """States of a connection (RFC 6455 §4.1 and §7.1)."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


CLOSE_CODE_EXPLANATIONS = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}

# RFC 6455 §7.4.1: 1005, 1006 and 1015 stand for what no Close frame says.
INTERNAL_CLOSE_CODES = frozenset(
    {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}
)
SENDABLE_CLOSE_CODES = frozenset(CloseCode) - INTERNAL_CLOSE_CODES

OK_CLOSE_CODES = frozenset(
    {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD}
)


def is_sendable_close_code(code: int) -> bool:
    """Tell whether a Close frame may carry ``code`` (RFC 6455 §7.4.1 and §7.4.2)."""
    return code in SENDABLE_CLOSE_CODES or 3000 <= code <= 4999


class Close(NamedTuple):
    """Code and reason of a Close frame; code 1005 if the frame had none."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if 3000 <= self.code <= 3999:
            explanation = "registered"
        elif 4000 <= self.code <= 4999:
            explanation = "private use"
        else:
            explanation = CLOSE_CODE_EXPLANATIONS.get(self.code, "unknown")  # type: ignore[call-overload] # an int finds the IntEnum member that equals it
        text = f"{self.code:d} ({explanation})"
        return f"{text} {self.reason}" if self.reason else text
