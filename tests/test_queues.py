"""The inbox and the outbox by themselves, over a transport that takes what the test says."""

from __future__ import annotations

import pytest

from syncws.messages import Message
from syncws.queues import Inbox, Outbox, OutFrame


class Kernel:
    """A transport that takes as many bytes as it has been given room for, a few at a time."""

    direct = True
    flags = 0

    def __init__(self, room=0, step=10**6, interrupt=None):
        self.room = room
        self.step = step
        self.interrupt = interrupt
        self.taken = b""
        self.settled = True
        self.calls = 0

    def interrupted(self, moment):
        if self.interrupt == moment:
            self.interrupt = None
            raise KeyboardInterrupt

    @property
    def sends(self):
        self.interrupted("after")
        return self.calls

    @sends.setter
    def sends(self, number):
        assert number == self.calls + 1

    def send_some(self, data, flags):
        self.interrupted("before")
        counts = []
        self.send((data,), 0, counts)
        return counts[0]

    def send(self, buffers, offset, counts):
        size = sum(map(len, buffers)) - offset
        count = min(self.room, self.step, size)
        if not count and size:
            raise BlockingIOError
        self.calls += 1
        self.taken += b"".join(buffers)[offset : offset + count]
        self.room -= count
        counts.append(count)

    def flush(self):
        return self.settled


def frame(text):
    return OutFrame((text[:1], text[1:]))


# The outbox


@pytest.mark.parametrize("size", [1, 3000, 5000])
@pytest.mark.parametrize("step", [1, 2, 3, 10**6])
def test_frames_are_sent_whole_and_in_order_however_little_the_kernel_takes(step, size):
    kernel = Kernel(step=step * size)
    outbox = Outbox(kernel)
    texts = [text * size for text in (b"first", b"second", b"third")]
    frames = [outbox.put((text[:1], text[1:])) for text in texts]
    for taken in range(1, 17):
        kernel.room = size
        assert outbox.flush() is (taken == 16)
        assert len(kernel.taken) == taken * size
        assert outbox.waiting + outbox.sent_bytes == 16 * size
    assert kernel.taken == b"".join(texts)
    assert [each.done for each in frames] == [True] * 3
    assert (outbox.waiting, outbox.sent_bytes) == (0, 16 * size)


def test_frame_is_done_when_all_of_it_was_taken():
    kernel = Kernel(room=5001)
    outbox = Outbox(kernel)
    first = outbox.put((b"1", bytes(5001)))
    second = outbox.put((b"2", bytes(5001)))
    assert not outbox.flush()
    assert not first.done
    kernel.room = 1
    assert not outbox.flush()
    assert first.done
    assert not second.done


def test_small_frames_that_wait_are_sent_together():
    kernel = Kernel()
    outbox = Outbox(kernel)
    for number in range(100):
        outbox.put((b"%02d" % number, b"."))
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"".join(b"%02d." % number for number in range(100))
    assert kernel.calls == 1


def test_frames_are_sent_together_up_to_a_limit_and_large_ones_alone():
    kernel = Kernel(room=10**6)
    outbox = Outbox(kernel)
    bundle = outbox.put((b"s", bytes(4000)))
    while outbox.put((b"s", bytes(4000))) is bundle:
        pass
    assert 65536 < bundle.size < 65536 + 8192
    large = outbox.put((b"L", bytes(10000)))
    assert outbox.put((b"s", b"")) is not large
    outbox.flush()
    assert kernel.calls == 4


def test_frame_is_sent_at_once_when_nothing_waits():
    kernel = Kernel(room=1000)
    outbox = Outbox(kernel)
    assert outbox.send((b"h", b"payload")) is None
    assert kernel.taken == b"hpayload"
    assert (outbox.waiting, outbox.sent_bytes, outbox.settled) == (0, 8, True)


@pytest.mark.parametrize("room", [0, 3])
def test_frame_that_is_not_taken_at_once_waits(room):
    kernel = Kernel(room=room)
    outbox = Outbox(kernel)
    frame = outbox.send((b"h", b"payload"))
    assert (outbox.waiting, outbox.settled, frame.done) == (8, False, False)
    behind = outbox.send((b"H", b"!"))
    kernel.room = 1000
    assert outbox.flush()
    assert frame.done
    assert behind.done
    assert kernel.taken == b"hpayloadH!"


@pytest.mark.parametrize(("moment", "taken"), [("before", 0), ("after", 3), ("after", 8)])
def test_frame_whose_sending_was_interrupted_is_sent_once(moment, taken):
    kernel = Kernel(room=taken, interrupt=moment)
    outbox = Outbox(kernel)
    with pytest.raises(KeyboardInterrupt):
        outbox.send((b"h", b"payload"))
    assert not outbox.settled
    kernel.room = 1000
    outbox.send((b"H", b"!"))
    assert outbox.flush()
    assert kernel.taken == b"hpayloadH!"
    assert (outbox.waiting, outbox.sent_bytes) == (0, 10)


def test_frame_that_was_begun_is_finished_then_pong_pings_data_close():
    kernel = Kernel(room=2)
    outbox = Outbox(kernel)
    outbox.put((b"begun ", b""))
    outbox.flush()
    outbox.put_close(frame(b"close"))
    outbox.put((b"data ", b""))
    outbox.put_control(frame(b"ping1 "))
    outbox.put_control(frame(b"ping2 "))
    outbox.pong = frame(b"pong ")
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"begun pong ping1 ping2 data close"


def test_newest_pong_takes_the_place_of_an_unsent_one():
    kernel = Kernel()
    outbox = Outbox(kernel)
    for number in range(5):
        outbox.pong = frame(b"pong%d" % number)
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"pong4"
    assert outbox.waiting == 0


def test_pong_that_was_begun_is_finished_before_the_next():
    kernel = Kernel(room=2)
    outbox = Outbox(kernel)
    outbox.pong = frame(b"pong1")
    assert not outbox.flush()
    outbox.pong = frame(b"pong2")
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"pong1pong2"


def test_close_frame_is_sent_once():
    kernel = Kernel(room=1000)
    outbox = Outbox(kernel)
    outbox.put_close(frame(b"close"))
    assert outbox.flush()
    assert outbox.flush()
    assert kernel.taken == b"close"


def test_outbox_is_not_settled_while_the_transport_holds_something():
    kernel = Kernel(room=1000)
    kernel.settled = False
    outbox = Outbox(kernel)
    outbox.put((b"data", b""))
    assert not outbox.flush()
    assert not outbox.settled
    assert outbox.waiting == 0
    kernel.settled = True
    assert outbox.flush()
    assert outbox.settled


def test_cleared_outbox_sends_nothing_more():
    kernel = Kernel(room=2)
    outbox = Outbox(kernel)
    outbox.put((b"data", b""))
    outbox.flush()
    outbox.put_control(frame(b"ping"))
    outbox.pong = frame(b"pong")
    outbox.put_close(frame(b"close"))
    outbox.clear()
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"da"
    assert outbox.waiting == 0


# The inbox


def test_inbox_gives_messages_in_order_and_counts_them():
    inbox = Inbox(None, None)
    for text in (b"a", b"bc", b"def"):
        assert inbox.has_room()
        inbox.put(Message(True, text, text.decode()))
    assert (inbox.count, inbox.size) == (3, 6)
    box = []
    for _ in range(3):
        inbox.move_to(box)
    assert [message.data for message in box] == [b"a", b"bc", b"def"]
    assert (inbox.count, inbox.size) == (0, 0)


def test_inbox_keeps_bytes_not_strings():
    inbox = Inbox(None, None)
    inbox.put(Message(True, b"a", "a"))
    box = []
    inbox.move_to(box)
    assert box[0].string is None


def test_inbox_is_full_at_its_number_of_messages():
    inbox = Inbox(2, None)
    inbox.put(Message(False, b""))
    assert inbox.has_room()
    inbox.put(Message(False, b""))
    assert not inbox.has_room()
    inbox.move_to([])
    assert inbox.has_room()


def test_inbox_is_full_at_its_number_of_bytes():
    inbox = Inbox(None, 10)
    inbox.put(Message(False, bytes(9)))
    assert inbox.has_room()
    inbox.put(Message(False, bytes(9)))
    assert not inbox.has_room()


def test_inbox_has_room_for_one_message_whatever_its_limits():
    assert Inbox(1, 0).has_room()
