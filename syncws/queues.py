"""What waits in a connection: messages for the application, frames for the kernel."""

from __future__ import annotations

import collections
import itertools
import queue
from typing import Optional

from .messages import Message
from .transport import Transport

__all__ = ["Inbox", "OutFrame", "Outbox"]


class Inbox:
    """
    Messages that were received while the application was not reading.

    Thread safety: used under the reader role alone, except ``count`` and ``size``, which
    may be read at any time.

    Args:
        max_messages: how many messages; ``None`` for no limit.
        max_bytes: how many bytes in all, with one message always fitting; ``None`` for no limit.
    """

    def __init__(self, max_messages: Optional[int], max_bytes: Optional[int]) -> None:
        self._queue: queue.Queue[Message] = queue.Queue(max_messages or 0)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # What is in the queue, to look at: the oldest comes first.
        self.messages: collections.deque[Message] = self._queue.queue
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
        self.size += len(message.data)
        self._queue.put_nowait(message)

    def move_to(self, box: list[Message]) -> None:
        """Move the oldest message to the end of ``box``; to be called when there is one."""
        # By C code alone, as the head of syncws.transport explains; the role guards the queue.
        box.extend(itertools.starmap(self.messages.popleft, ((),)))
        self.size = self.size - len(box[-1].data) if self.messages else 0


class OutFrame:
    """An encoded frame on its way to the kernel; ``done`` when the transport has all of it."""

    __slots__ = ("buffers", "done", "size")

    def __init__(self, buffers: tuple[bytes, bytes]) -> None:
        self.buffers = buffers
        self.size = len(buffers[0]) + len(buffers[1])
        self.done = False


class Outbox:
    """
    Encoded frames waiting for the kernel, in the order in which they will be sent.

    A frame that was begun is finished first, then come the pong, pings, data, and at last
    the Close frame. A frame once in here is sent whole by whoever calls ``flush()``; frames are
    removed after they are marked as done, so that an exception between any two steps
    neither loses nor repeats a byte.

    Thread safety: under the connection's outbound lock, except ``pong.append()`` and reading
    ``waiting`` and ``sent_bytes``.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # A single slot: the newest pong replaces an unsent one (RFC 6455 §5.5.3).
        self.pong: collections.deque[OutFrame] = collections.deque(maxlen=1)
        self._control: collections.deque[OutFrame] = collections.deque()
        self._data: collections.deque[OutFrame] = collections.deque()
        self._close: Optional[OutFrame] = None
        # The frame being sent, and how much of it each system call took.
        self._current: Optional[OutFrame] = None
        self._counts: list[int] = []
        # Bytes of pings, data and Close frames that are not done.
        self.waiting = 0
        self.sent_bytes = 0
        # Whether the last flush() left nothing, in the transport neither. Read without the lock.
        self.settled = True

    def put(self, frame: OutFrame) -> None:
        """Add a data frame."""
        self._data.append(frame)
        self.waiting += frame.size

    def put_control(self, frame: OutFrame) -> None:
        """Add a ping, or a pong that nobody asked for."""
        self._control.append(frame)
        self.waiting += frame.size

    def put_close(self, frame: OutFrame) -> None:
        """Set the Close frame, the last of all."""
        self._close = frame
        self.waiting += frame.size

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
        while True:
            frame = self._current
            if frame is None or frame.done:
                frame = self._begin_next()
                if frame is None:
                    self.waiting = 0
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
            self._counts.clear()
            self._current = frame
        return frame

    def _choose(self) -> Optional[OutFrame]:
        if self.pong:
            frame = self.pong.pop()
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
        for frames in (self.pong, self._control, self._data):
            frames.clear()
        self._close = None
        self._current = None
        self.waiting = 0
        self.settled = True
