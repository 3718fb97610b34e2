"""The inbox and the outbox by themselves, over a transport that takes what the test says."""

from __future__ import annotations

import pytest

from syncws.messages import Message
from syncws.queues import Inbox, Outbox, OutFrame


class Kernel:
    """A transport that takes as many bytes as it has been given room for, a few at a time."""

    def __init__(self, room=0, step=1000):
        self.room = room
        self.step = step
        self.taken = b""
        self.settled = True

    def send(self, buffers, offset, counts):
        count = min(self.room, self.step, sum(map(len, buffers)) - offset)
        if not count:
            raise BlockingIOError
        self.taken += b"".join(buffers)[offset : offset + count]
        self.room -= count
        counts.append(count)

    def flush(self):
        return self.settled


def frame(text):
    return OutFrame((text[:1], text[1:]))


# The outbox


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_frames_are_sent_whole_and_in_order_however_little_the_kernel_takes(step):
    kernel = Kernel(step=step)
    outbox = Outbox(kernel)
    frames = [frame(text) for text in (b"first", b"second", b"third")]
    for each in frames:
        outbox.put(each)
    for taken in range(1, 17):
        kernel.room = 1
        assert outbox.flush() is (taken == 16)
        assert len(kernel.taken) == taken
        assert outbox.waiting + outbox.sent_bytes == 16
    assert kernel.taken == b"firstsecondthird"
    assert [each.done for each in frames] == [True] * 3
    assert (outbox.waiting, outbox.sent_bytes) == (0, 16)


def test_frame_is_done_when_all_of_it_was_taken():
    kernel = Kernel(room=4)
    outbox = Outbox(kernel)
    first, second = frame(b"first"), frame(b"second")
    outbox.put(first)
    outbox.put(second)
    assert not outbox.flush()
    assert not first.done
    kernel.room = 1
    assert not outbox.flush()
    assert first.done
    assert not second.done


def test_frame_that_was_begun_is_finished_then_pong_pings_data_close():
    kernel = Kernel(room=2)
    outbox = Outbox(kernel)
    outbox.put(frame(b"begun "))
    outbox.flush()
    outbox.put_close(frame(b"close"))
    outbox.put(frame(b"data "))
    outbox.put_control(frame(b"ping1 "))
    outbox.put_control(frame(b"ping2 "))
    outbox.pong.append(frame(b"pong "))
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"begun pong ping1 ping2 data close"


def test_newest_pong_takes_the_place_of_an_unsent_one():
    kernel = Kernel()
    outbox = Outbox(kernel)
    for number in range(5):
        outbox.pong.append(frame(b"pong%d" % number))
    kernel.room = 1000
    assert outbox.flush()
    assert kernel.taken == b"pong4"
    assert outbox.waiting == 0


def test_pong_that_was_begun_is_finished_before_the_next():
    kernel = Kernel(room=2)
    outbox = Outbox(kernel)
    outbox.pong.append(frame(b"pong1"))
    assert not outbox.flush()
    outbox.pong.append(frame(b"pong2"))
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
    outbox.put(frame(b"data"))
    assert not outbox.flush()
    assert not outbox.settled
    assert outbox.waiting == 0
    kernel.settled = True
    assert outbox.flush()
    assert outbox.settled


def test_cleared_outbox_sends_nothing_more():
    kernel = Kernel(room=2)
    outbox = Outbox(kernel)
    outbox.put(frame(b"data"))
    outbox.flush()
    outbox.put_control(frame(b"ping"))
    outbox.pong.append(frame(b"pong"))
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
