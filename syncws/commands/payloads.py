"""Messages as they are written on a line: text, or bytes in hexadecimal or base64."""

from __future__ import annotations

import base64
import binascii
import sys
from typing import Union

from .failures import Failure

__all__ = ["FORMATS", "decode", "encode", "write_message"]

FORMATS = ("hex", "base64")


def decode(text: str, form: str) -> bytes:
    """
    Read the bytes that a line stands for.

    Raises:
        Failure: it is no hexadecimal, or no base64.
    """
    try:
        if form == "hex":
            return bytes.fromhex(text)
        return base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        example = "00 ff or 00ff" if form == "hex" else "AP8="
        raise Failure(f"this is no {form}, which looks like {example}: {text.strip()!r}") from None


def encode(data: bytes, form: str) -> str:
    """Write bytes as a line."""
    return data.hex() if form == "hex" else base64.b64encode(data).decode("ascii")


def write_message(message: Union[str, bytes], form: str) -> None:
    """Write a message to standard output: as a line, or its bytes alone if ``form`` is raw."""
    if isinstance(message, bytes) and form == "raw":
        sys.stdout.flush()
        sys.stdout.buffer.write(message)
        sys.stdout.buffer.flush()
        return
    line = message if isinstance(message, str) else encode(message, form)
    print(line, flush=True)
