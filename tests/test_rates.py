"""Rate limits: how much is allowed when, told by a clock of the test."""

from __future__ import annotations

import pytest

from syncws import RateLimit
from syncws.rates import Meter


def meter(**limits):
    return Meter(RateLimit(**limits), now=100.0)


@pytest.mark.parametrize("kind", ["messages", "bytes"])
def test_what_a_second_allows_may_come_at_once(kind):
    found = meter(**{kind: 10})
    for _ in range(10):
        found.take(1, 1, 100.0)
        assert found.delay(100.0) == 0.0


@pytest.mark.parametrize("kind", ["messages", "bytes"])
def test_more_has_to_wait(kind):
    found = meter(**{kind: 10})
    found.take(15, 15, 100.0)
    assert found.delay(100.0) == pytest.approx(0.5)
    assert found.delay(100.3) == pytest.approx(0.2)
    assert found.delay(100.6) == 0.0


def test_the_other_kind_is_not_limited():
    found = meter(messages=10)
    found.take(1, 10**9, 100.0)
    assert found.delay(100.0) == 0.0


def test_the_longer_delay_counts():
    found = meter(messages=10, bytes=1000)
    found.take(20, 4000, 100.0)
    assert found.delay(100.0) == pytest.approx(3.0)


def test_a_burst_may_be_longer_than_a_second():
    found = meter(messages=10, burst=3)
    found.take(30, 0, 100.0)
    assert found.delay(100.0) == 0.0
    found.take(1, 0, 100.0)
    assert found.delay(100.0) == pytest.approx(0.1)


def test_a_pause_allows_no_more_than_a_burst():
    found = meter(messages=10)
    found.take(10, 0, 100.0)
    found.take(11, 0, 1000.0)
    assert found.delay(1000.0) == pytest.approx(0.1)


def test_one_message_always_fits():
    found = meter(messages=0.5)
    found.take(1, 0, 100.0)
    assert found.delay(100.0) == 0.0
    found.take(1, 0, 100.0)
    assert found.delay(100.0) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["messages", "bytes", "burst"])
@pytest.mark.parametrize("value", [0, -1, float("inf")])
def test_numbers_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be positive, not {value}$"):
        RateLimit(**{name: value})


def test_on_excess_must_be_known():
    with pytest.raises(ValueError, match=r"^on_excess must be 'slow' or 'close', not 'drop'$"):
        RateLimit(on_excess="drop")
