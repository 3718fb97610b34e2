"""The inner loops: in C where the module could be built, in Python everywhere else."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import Any, Callable, Optional, Union

from .collector import Collector as PythonCollector
from .masking import apply_mask as python_apply_mask

__all__ = [
    "SPEEDUPS",
    "Collector",
    "PythonCollector",
    "append_result",
    "apply_mask",
    "know_slots",
    "message_block",
    "python_append_result",
    "python_apply_mask",
    "python_know_slots",
    "python_message_block",
    "python_receive_whole",
    "python_try_send",
    "python_whole_frame",
    "python_whole_message",
    "receive_whole",
    "try_send",
    "whole_frame",
    "whole_message",
]

MASK = 0x80
LENGTH_BITS = 0x7F
CONTROL = 0x08
FIN = 0x80
TEXT = 0x01
BINARY = 0x02

# RFC 6455 §5.2: FIN set, no RSV bits, text or binary.
_MESSAGES = bytes(head in (FIN | TEXT, FIN | BINARY) for head in range(256))


def python_whole_frame(
    buffer: bytes, pos: int, mask: int, heads: bytes
) -> Optional[tuple[int, bytes, int]]:
    """
    Decode the frame at a position, if all of it is there and nothing is wrong with it.

    Returns:
        First byte, unmasked payload, and position after the frame; or ``None`` if the frame
        is not whole or breaks RFC 6455 §5.2 or §5.5, and for any position outside of
        the buffer. Which of these it is, remains to be found out.

    Args:
        buffer: input.
        pos: where in it the frame starts; negative is outside.
        mask: 0x80 if frames must be masked, 0 if they must not be (RFC 6455 §5.1).
        heads: table of 256 bytes; not 0 for each first byte that is allowed.

    Raises:
        ValueError: the table has another size.
    """
    if len(heads) != 256:
        raise ValueError("the table of first bytes must have 256 bytes")
    size = len(buffer)
    if pos < 0 or size - pos < 2:
        return None
    head = buffer[pos]
    second = buffer[pos + 1]
    if not heads[head] or (second ^ mask) & MASK:
        return None
    length = second & LENGTH_BITS
    start = pos + 2
    if length > 125:
        if head & CONTROL:
            return None
        least, width = (126, 2) if length == 126 else (65536, 8)
        start += width
        length = int.from_bytes(buffer[start - width : start], "big")
        if size < start or length < least:
            return None
    if not mask & MASK:
        stop = start + length
        return None if stop > size else (head, buffer[start:stop], stop)
    stop = start + 4 + length
    if stop > size:
        return None
    key = buffer[start : start + 4]
    return head, python_apply_mask(buffer[start + 4 : stop], key), stop


def python_whole_message(
    buffer: bytes, pos: int, mask: int, limit: int
) -> Optional[tuple[bytes, Optional[str], int]]:
    """
    Decode the frame at a position, if it is an uncompressed message by itself.

    Returns:
        Payload, the string that it stands for or ``None`` for a binary message, and the
        position after the frame; or ``None`` in all cases in which ``whole_frame()`` returns
        that, for other frames, for one over the limit, and for text that is not UTF-8.

    Args:
        buffer, pos, mask: as for ``whole_frame()``.
        limit: longest payload, in bytes.
    """
    frame = python_whole_frame(buffer, pos, mask, _MESSAGES)
    if frame is None or len(frame[1]) > limit:
        return None
    head, data, stop = frame
    if head == FIN | BINARY:
        return data, None, stop
    try:
        return data, data.decode(), stop
    except UnicodeDecodeError:
        return None


def python_message_block(message: Any, text: Optional[bool], limit: int) -> Optional[bytes]:
    """
    Encode a message as a frame that is not masked (RFC 6455 §5.2), header and payload in one.

    Returns:
        ``None`` if it is neither a string nor bytes, or over the limit; strings that are not
        ASCII may be left to others, too.

    Args:
        message: what to send.
        text: ``True`` for a text message, ``False`` for a binary one, ``None`` as it is.
        limit: longest payload in bytes; less than 64 KiB.
    """
    if type(message) is str:
        head, data = FIN | (BINARY if text is False else TEXT), message.encode()
    elif type(message) is bytes:
        head, data = FIN | (TEXT if text else BINARY), message
    else:
        return None
    size = len(data)
    if size > min(limit, 65535):
        return None
    header = bytes((head, size)) if size < 126 else bytes((head, 126, size >> 8, size & 0xFF))
    return header + data


def python_append_result(results: list[Any], function: Callable[..., Any], *args: Any) -> None:
    """
    Call a function and append what it returns to a list, without an instruction between.

    Signal handlers, such as that of Ctrl-C, run between instructions of the interpreter: here
    an exception of theirs comes before the call or after the result is in the list.

    Args:
        results: list.
        function: written in C.
        args: for it.
    """
    results.extend(itertools.starmap(function, (args,)))


def python_try_send(connection: Any, block: bytes) -> Any:
    """
    Send a frame if the connection is at rest and its outbound lock is free, in one step of C code.

    What it changes, and when, is what ``Sending.try_block()`` and ``Outbox.send_block()`` do.

    Returns:
        ``True`` if it was sent; what waits of it, if a part was; ``False`` if it was not, whatever
        the reason. Without the C module always ``False``: in Python there is no shorter way.

    Args:
        connection: open or not.
        block: an uncompressed and unmasked frame.
    """
    return False


def python_receive_whole(
    connection: Any, whole: list[Any], decode: Optional[bool], read_size: int
) -> bool:
    """
    Receive a message by the shortest way, as most of them are: whole, in a single frame, while
    nothing else is going on. Waits for input if there is none.

    Returns:
        Whether there was such a message. In all other cases nothing is lost, and ``recv()`` goes
        on from there.

    Args:
        connection: open or not.
        whole: list of two, which gets the message as ``recv()`` returns it, and whether
            it is text.
        decode: as for ``recv()``.
        read_size: of reads that are not large, in bytes.
    """
    return connection._receive_whole(whole, decode, read_size)  # type: ignore[no-any-return]  # Any


def python_know_slots(connection: type, *others: type) -> None:
    """
    Find out where in its objects the slots of a class are (``__slots__``).

    The C module then need not look up their names, which took half of its time. Of other classes
    attributes are looked up. Without the C module there is nothing to find out.

    Args:
        connection: class of connections; also holds for those derived from it, so these
            can't put something else in place of a slot.
        others: classes, without those derived from them.
    """


# Same promises, in C or in Python; those of apply_mask() are in masking.py, of Collector in
# collector.py.
apply_mask: Callable[[Union[bytes, bytearray, memoryview], bytes], bytes] = python_apply_mask
whole_frame: Callable[[bytes, int, int, bytes], Optional[tuple[int, bytes, int]]] = (
    python_whole_frame
)
whole_message: Callable[[bytes, int, int, int], Optional[tuple[bytes, Optional[str], int]]] = (
    python_whole_message
)
know_slots: Callable[..., None] = python_know_slots
message_block: Callable[[Any, Optional[bool], int], Optional[bytes]] = python_message_block
append_result: Callable[..., None] = python_append_result
receive_whole: Callable[[Any, list[Any], Optional[bool], int], bool] = python_receive_whole
try_send: Callable[[Any, bytes], Any] = python_try_send
Collector: type[PythonCollector] = PythonCollector
SPEEDUPS = False

if not os.environ.get("SYNCWS_PURE_PYTHON"):
    with contextlib.suppress(ImportError):
        from ._speedups import (  # type: ignore[assignment]  # a class of the same kind
            Collector,
            append_result,
            apply_mask,
            know_slots,
            message_block,
            receive_whole,
            try_send,
            whole_frame,
            whole_message,
        )

        SPEEDUPS = True
