"""What waits in a connection: messages for the application, frames for the kernel."""

from __future__ import annotations

import collections
import itertools
import queue
from collections.abc import Sequence
from typing import Optional

from .messages import Message
from .speedups import append_result
from .transport import JOIN_LIMIT, Transport

__all__ = ["Inbox", "OutFrame", "Outbox"]

# Data frames up to this size that wait are sent together, up to about so much at once.
BUNDLED = 4096  # bytes
BUNDLE_LIMIT = 65536  # bytes


_NO_MESSAGES: collections.deque[Message] = collections.deque()


class Inbox:
    """
    Messages that were received while the application was not reading.

    Thread safety: used under the reader role alone, except ``count`` and ``size``, which
    may be read at any time.

    Args:
        max_messages: how many messages; ``None`` for no limit.
        max_bytes: how many bytes in all, with one message always fitting; ``None`` for no limit.
    """

    __slots__ = (
        "_max_bytes",
        "_max_messages",
        "_queue",
        "messages",
        "size",
    )

    def __init__(self, max_messages: Optional[int], max_bytes: Optional[int]) -> None:
        self._queue: Optional[queue.Queue[Message]] = None  # made when needed
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # What is in the queue, to look at: the oldest comes first.
        self.messages: collections.deque[Message] = _NO_MESSAGES
        self.size = 0

    @property
    def count(self) -> int:
        """How many messages there are."""
        return len(self.messages)

    def has_room(self) -> bool:
        """Tell whether another message may be decoded."""
        if not self.messages:
            return True
        return (self._max_messages is None or self.count < self._max_messages) and (
            self._max_bytes is None or self.size < self._max_bytes
        )

    def put(self, message: Message) -> None:
        """Add a message; to be called when there is room."""
        message.string = None  # up to four times as large as its bytes
        if self._queue is None:
            self._queue = queue.Queue(self._max_messages or 0)
            self.messages = self._queue.queue
        self.size += message.size
        self._queue.put_nowait(message)

    def move_to(self, box: list[Message]) -> None:
        """Move the oldest message to the end of ``box``; to be called when there is one."""
        # By C code alone, as the head of syncws.transport explains; the role guards the queue.
        box.extend(itertools.starmap(self.messages.popleft, ((),)))
        self.size = self.size - box[-1].size if self.messages else 0


class OutFrame:
    """Encoded frames on their way to the kernel; ``done`` when the transport has all of them."""

    __slots__ = ("buffers", "done", "size")

    def __init__(self, buffers: Sequence[bytes]) -> None:
        self.buffers = buffers
        self.size = sum(map(len, buffers))
        self.done = False


# Of queues in which nothing waits; those that are used are made when they are.
_EMPTY: collections.deque[OutFrame] = collections.deque()
_NO_BLOCKS: list[bytes] = []


class Outbox:
    """
    Encoded frames waiting for the kernel, in the order in which they will be sent.

    A frame that was begun is finished first, then come the pong, pings, data, and at last
    the Close frame. A frame once in here is sent whole by whoever calls ``flush()``; frames are
    removed after they are marked as done, so that an exception between any two steps
    neither loses nor repeats a byte. Small data frames that wait are sent together.

    Thread safety: under the connection's outbound lock, except for looking at ``waiting``,
    ``pong``, ``settled`` and ``sent_bytes``.
    """

    __slots__ = (
        "_begun",
        "_blocks",
        "_bundle",
        "_close",
        "_control",
        "_counts",
        "_current",
        "_data",
        "_transport",
        "pong",
        "sent_bytes",
        "settled",
        "waiting",
    )

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # A single slot: the newest pong replaces an unsent one (RFC 6455 §5.5.3).
        self.pong: Optional[OutFrame] = None
        self._control = self._data = _EMPTY
        self._close: Optional[OutFrame] = None
        # The last of the data, as long as small frames are added to it, and its buffers.
        self._bundle: Optional[OutFrame] = None
        self._blocks = _NO_BLOCKS
        # The frame being sent, and how much of it each system call took.
        self._current: Optional[OutFrame] = None
        self._counts: list[int] = []
        # A frame that was handed to the transport before it was queued.
        self._begun = b""
        # Bytes of pings, data and Close frames that are not done.
        self.waiting = 0
        self.sent_bytes = 0
        # Whether the last flush() left nothing, in the transport neither. Read without the lock.
        self.settled = True

    def send(self, buffers: tuple[bytes, bytes]) -> Optional[OutFrame]:
        """
        Add a data frame, header and payload, and hand the transport what it takes.

        Returns:
            ``None`` if that is all of it, else what waits.

        Raises:
            OSError: the connection is broken.
        """
        is_free = self.settled and not self.waiting and self.pong is None
        if is_free and self._transport.direct and len(buffers[1]) <= JOIN_LIMIT:
            return self.send_block(buffers[0] + buffers[1])
        frame = self.put(buffers)
        self.flush()
        return None if frame.done else frame

    def begin(self, head: bytes) -> None:
        """Put what precedes all frames, and is not counted: the end of the opening handshake."""
        self._current = frame = OutFrame((head,))
        self._counts.clear()
        self.settled = False
        self.waiting += frame.size
        self.sent_bytes -= frame.size

    def send_block(self, block: bytes) -> Optional[OutFrame]:
        """
        Like ``send()``, by the shortest way.

        Only if nothing waits, and the transport is ``direct``.
        """
        transport, counts = self._transport, self._counts
        counts.clear()
        # From here on flush() would go on with it, wherever an exception hits.
        self._begun = block
        self.settled = False
        try:
            append_result(counts, transport.send_some, block, transport.flags)
        except BlockingIOError:
            return self._adopt()
        transport.sends += 1
        if counts[0] != len(block):
            return self._adopt()
        self._begun = b""
        self.settled = True
        self.sent_bytes += counts[0]
        return None

    def _adopt(self) -> OutFrame:
        """Make a frame in the queue of what ``send()`` began."""
        self._current = frame = OutFrame((self._begun,))
        self._begun = b""
        self.waiting += frame.size
        return frame

    def put(self, buffers: tuple[bytes, bytes]) -> OutFrame:
        """Add a data frame, header and payload; returns what it will be sent with."""
        size = len(buffers[0]) + len(buffers[1])
        if size <= BUNDLED:
            return self.put_block(buffers[0] + buffers[1])
        if self._data is _EMPTY:
            self._data = collections.deque()
        self._end_bundle()
        frame = OutFrame(buffers)
        self.waiting += size
        self._data.append(frame)
        return frame

    def _end_bundle(self) -> None:
        self._bundle = None
        self._blocks = _NO_BLOCKS

    def put_block(self, block: bytes) -> OutFrame:
        """Like ``put()``, for a frame that is small."""
        size = len(block)
        self.waiting += size
        frame = self._bundle
        if frame is None or frame.size > BUNDLE_LIMIT:
            if self._data is _EMPTY:
                self._data = collections.deque()
            self._blocks = []
            frame = OutFrame(self._blocks)
            self._data.append(frame)
            self._bundle = frame
        self._blocks.append(block)
        frame.size += size
        return frame

    def put_control(self, frame: OutFrame) -> None:
        """Add a ping, or a pong that nobody asked for."""
        if self._control is _EMPTY:
            self._control = collections.deque()
        self.waiting += frame.size
        self._control.append(frame)

    def put_close(self, frame: OutFrame) -> None:
        """Set the Close frame, the last of all."""
        self.waiting += frame.size
        self._close = frame

    def flush(self) -> bool:
        """
        Hand frames to the transport until all are sent or it takes no more.

        Returns:
            Whether nothing is left, in the transport neither.

        Raises:
            OSError: the connection is broken.
        """
        self.settled = False
        counts = self._counts
        if self._begun:
            self._adopt()
        while True:
            frame = self._current
            if frame is None or frame.done:
                if not self.waiting and self.pong is None:
                    self._control = self._data = _EMPTY
                    self.settled = self._transport.flush()
                    return self.settled
                frame = self._begin_next()
                if frame is None:
                    self.waiting = 0
                    self._control = self._data = _EMPTY
                    self.settled = self._transport.flush()
                    return self.settled
            try:
                self._transport.send(frame.buffers, sum(counts), counts)
            except BlockingIOError:
                return False
            if sum(counts) == frame.size:
                frame.done = True
                self._current = None
                self.waiting -= frame.size
                self.sent_bytes += frame.size

    def _begin_next(self) -> Optional[OutFrame]:
        """Choose the frame to send next and make it the current one."""
        frame = self._choose()
        if frame is not None:
            if frame is self._bundle:
                self._end_bundle()
            if len(frame.buffers) > 2:
                frame.buffers = (b"".join(frame.buffers),)
            frame.size = sum(map(len, frame.buffers))
            self._counts.clear()
            self._current = frame
        return frame

    def _choose(self) -> Optional[OutFrame]:
        if self.pong is not None:
            frame, self.pong = self.pong, None
            self.waiting += frame.size
            return frame
        for frames in (self._control, self._data):
            while frames:
                if not frames[0].done:
                    return frames[0]
                frames.popleft()
        if self._close is not None and not self._close.done:
            return self._close
        return None

    def clear(self) -> None:
        """Drop everything: the connection is broken."""
        self._control = self._data = _EMPTY
        self.pong = self._close = self._current = None
        self._end_bundle()
        self._begun = b""
        self.waiting = 0
        self.settled = True
