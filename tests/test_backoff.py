"""How long to wait before connecting again."""

from __future__ import annotations

import itertools
from email.utils import formatdate

import pytest

from syncws import Headers, backoff
from syncws.backoff import parse_retry_after

NOW = 1_700_000_000


def first(count, iterator):
    return list(itertools.islice(iterator, count))


def test_the_bound_grows_to_its_maximum():
    assert first(5, backoff(1, 10, 3, random=lambda: 1.0)) == [1, 3, 9, 10, 10]


def test_no_delay_is_below_the_minimum():
    assert first(3, backoff(random=lambda: 0.0)) == [0.1, 0.1, 0.1]


def test_delays_are_spread_evenly_up_to_the_bound():
    assert first(2, backoff(1, 60, 2, 0, random=lambda: 0.25)) == [0.25, 0.5]


def test_default_delays_are_within_their_bounds():
    for bound, delay in zip((1, 2, 4, 8, 16, 32, 60, 60), backoff()):
        assert 0.1 <= delay <= bound


@pytest.mark.parametrize(
    "arguments", [(0,), (1, 0.5), (1, 10, 0.5), (1, 10, 2, -1), (1, 10, 2, 2), (20, 10)]
)
def test_delays_that_would_not_grow_raise(arguments):
    with pytest.raises(ValueError, match="backoff needs"):
        backoff(*arguments)


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("120", 120),
        ("0", 0),
        ("9" * 400, float("9" * 18)),
        (formatdate(NOW + 30, usegmt=True), 30),
        (formatdate(NOW - 30, usegmt=True), 0),
        # RFC 9110 §5.6.7: the obsolete forms
        ("Tuesday, 14-Nov-23 22:13:30 GMT", 10),
        ("Tue Nov 14 22:13:30 2023", 10),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\xb2", None),
        ("", None),
        ("Tue, 99 Foo 2023 22:13:30 GMT", None),
        ("Tue, 14 Nov 99999999 22:13:30 GMT", None),
    ],
)
def test_retry_after(value, delay):
    assert parse_retry_after(Headers({"Retry-After": value}), NOW) == delay


def test_retry_after_may_be_missing():
    assert parse_retry_after(Headers(), NOW) is None


def test_a_date_counts_by_the_clock_of_the_server():
    headers = Headers(
        {"Retry-After": formatdate(NOW + 30, usegmt=True), "Date": formatdate(NOW, usegmt=True)}
    )
    assert parse_retry_after(headers, NOW + 1000) == 30
