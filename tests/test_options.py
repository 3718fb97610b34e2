"""What may be asked for, and what is refused at once rather than when the first client comes."""

from __future__ import annotations

import inspect

import pytest
from links import echo

from syncws import PerMessageDeflate, connect, serve
from syncws.options import Options, choose_extensions, make_options

DEFAULTS = {
    "max_size": 2**20,
    "max_queue": 16,
    "max_queue_bytes": 2**22,
    "read_limit": 2**16,
    "write_limit": 2**16,
    "ping_interval": 20,
    "ping_timeout": 20,
    "close_timeout": 10,
    "send_timeout": 30,
}


@pytest.mark.parametrize("function", [serve, connect])
def test_defaults_are_the_same_everywhere(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS
    assert {name: getattr(Options(), name) for name in DEFAULTS} == DEFAULTS
    assert parameters["open_timeout"].default == 10
    assert parameters["compression"].default == "deflate"


def test_servers_have_a_limit_for_connections():
    assert inspect.signature(serve).parameters["max_connections"].default == 10_000


def test_options_are_taken_as_they_are():
    assert make_options(**DEFAULTS) == Options()


@pytest.mark.parametrize("name", ["max_size", "max_queue", "max_queue_bytes"])
def test_limits_may_be_none(name):
    assert getattr(make_options(**{**DEFAULTS, name: None}), name) is None


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "close_timeout", "send_timeout"])
def test_timeouts_may_be_none(name):
    assert getattr(make_options(**{**DEFAULTS, name: None}), name) is None


@pytest.mark.parametrize(
    ("value", "message", "fragment"),
    [(100, 100, None), ((100, 10), 100, 10), ((None, 10), None, 10), ((100, None), 100, None)],
)
def test_max_size_may_be_a_pair(value, message, fragment):
    options = make_options(**{**DEFAULTS, "max_size": value})
    assert (options.max_size, options.max_fragment) == (message, fragment)


@pytest.mark.parametrize(("value", "messages"), [((8, 2), 8), ((None, None), None), (4, 4)])
def test_max_queue_may_be_a_pair_of_which_the_first_counts(value, messages):
    assert make_options(**{**DEFAULTS, "max_queue": value}).max_queue == messages


@pytest.mark.parametrize("name", ["max_queue", "read_limit", "ping_interval"])
@pytest.mark.parametrize("value", [0, -1])
def test_what_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be positive, not {value}$"):
        make_options(**{**DEFAULTS, name: value})


@pytest.mark.parametrize(
    "name",
    [
        "max_size",
        "max_queue_bytes",
        "write_limit",
        "ping_timeout",
        "close_timeout",
        "send_timeout",
    ],
)
def test_what_must_not_be_negative(name):
    assert getattr(make_options(**{**DEFAULTS, name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"^{name} must be at least 0, not -1$"):
        make_options(**{**DEFAULTS, name: -1})


def test_fractions_of_a_second_are_fine():
    assert make_options(**{**DEFAULTS, "ping_interval": 0.1}).ping_interval == 0.1


# Extensions


def test_compression_is_on_by_default():
    (extension,) = choose_extensions("deflate", None)
    assert extension == PerMessageDeflate()


def test_compression_may_be_off():
    assert choose_extensions(None, None) == ()


def test_compression_may_be_configured():
    mine = PerMessageDeflate(level=1)
    assert choose_extensions(mine, None) == (mine,)


def test_compression_goes_before_other_extensions():
    other = object()
    assert choose_extensions("deflate", [other]) == (PerMessageDeflate(), other)
    assert choose_extensions(None, [other]) == (other,)


def test_compression_among_the_extensions_replaces_the_default():
    mine = PerMessageDeflate(level=1)
    assert choose_extensions("deflate", [mine]) == (mine,)


@pytest.mark.parametrize("compression", ["gzip", "", True, 5])
def test_other_compression_is_refused(compression):
    with pytest.raises(ValueError, match=f"^unsupported compression: {compression};"):
        choose_extensions(compression, None)


# What serve() and connect() say at once


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"compression": "gzip"}, ValueError),
        ({"max_queue": 0}, ValueError),
        ({"close_timeout": -1}, ValueError),
        ({"origins": "https://app.example"}, TypeError),
        ({"origins": [b"https://app.example"]}, TypeError),
        ({"subprotocols": "chat"}, TypeError),
        ({"subprotocols": ["a b"]}, ValueError),
        ({"no_such_option": 1}, TypeError),
    ],
)
def test_serve_refuses_mistakes_at_once(options, error):
    with pytest.raises(error):
        serve(echo, "127.0.0.1", 0, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"compression": "gzip"}, ValueError),
        ({"max_queue": 0}, ValueError),
        ({"subprotocols": "chat"}, TypeError),
        ({"additional_headers": {"Upgrade": "other"}}, ValueError),
        ({"additional_headers": {"X-Test": "a\r\nb"}}, Exception),
        ({"no_such_option": 1}, TypeError),
    ],
)
def test_connect_refuses_mistakes_at_once(options, error):
    with pytest.raises(error):
        connect("ws://127.0.0.1:9", **options)
