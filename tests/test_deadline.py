"""Deadlines, without waiting for one: timeouts here are zero, negative, or far away."""

from __future__ import annotations

import time

from syncws.deadline import Deadline


def test_without_a_timeout_it_never_expires():
    deadline = Deadline(None)
    assert deadline.remaining() is None
    assert not deadline.expired()


def test_far_deadline_has_time_left():
    deadline = Deadline(1000)
    assert 0 < deadline.remaining() <= 1000
    assert not deadline.expired()


def test_time_left_decreases():
    deadline = Deadline(1000)
    before = deadline.remaining()
    start = time.monotonic()
    while time.monotonic() == start:  # until the clock ticks: microseconds, 16 ms at worst
        pass
    assert deadline.remaining() < before


def test_zero_timeout_expires_at_once():
    deadline = Deadline(0)
    assert deadline.remaining() == 0
    assert deadline.expired()


def test_time_left_is_never_negative():
    deadline = Deadline(-1000)
    assert deadline.remaining() == 0
    assert deadline.expired()


def test_deadline_is_a_moment_on_the_monotonic_clock():
    before = time.monotonic()
    deadline = Deadline(10)
    assert before + 10 <= deadline.at <= time.monotonic() + 10
