"""Arguments that can't be meant; more of them, as users see them, are in test_newcomers.py."""

from __future__ import annotations

import functools
import re

import pytest

from syncws import connect, serve
from syncws.handshake import SAME_HOST
from syncws.mistakes import check_handler, check_headers, check_options
from syncws.routing import route


class Chat:
    """Methods and instances may be handlers."""

    def handle(self, connection):
        """An ordinary handler."""

    async def handle_later(self, connection):
        """No handler."""


class AsyncChat:
    async def __call__(self, connection):
        """No handler."""


async def async_chat(connection):
    """No handler."""


async def async_generator(connection):
    yield


def chat(connection, room="lobby"):
    """An ordinary handler."""


@pytest.mark.parametrize(
    "handler",
    [
        chat,
        print,
        dict,  # of whose signature nothing is known
        Chat().handle,
        lambda *args, **kwargs: None,
        functools.partial(chat, room="den"),
        functools.partial(Chat.handle, Chat()),
    ],
)
def test_what_can_be_called_with_a_connection_is_a_handler(handler):
    check_handler(handler)


@pytest.mark.parametrize(
    "handler",
    [
        async_chat,
        async_generator,
        Chat().handle_later,
        AsyncChat(),
        functools.partial(async_chat),
    ],
)
def test_async_functions_are_no_handlers(handler):
    with pytest.raises(TypeError, match="is an async function; handlers are ordinary ones"):
        check_handler(handler)


@pytest.mark.parametrize("handler", ["chat", 5, [chat]])
def test_what_can_not_be_called_is_no_handler(handler):
    with pytest.raises(TypeError, match=re.escape(f"takes the connection, not {handler!r}")):
        serve(handler, "127.0.0.1", 0)


def test_each_handler_of_a_dictionary_is_checked():
    with pytest.raises(TypeError, match=r"Chat.handle\(self, connection\) can't be called with"):
        serve({"/": chat, "/chat": Chat.handle}, "127.0.0.1", 0)


@pytest.mark.parametrize("name", ["process_request", "process_response", "select_subprotocol"])
@pytest.mark.parametrize("hook", ["a string", async_chat, lambda: None])
def test_hooks_are_functions_with_the_right_arguments(name, hook):
    with pytest.raises(TypeError, match=f"^{name} must be a function that takes the connection"):
        serve(chat, "127.0.0.1", 0, **{name: hook})


@pytest.mark.parametrize(
    ("origin", "right"),
    [
        ("example.com", "https://example.com"),
        ("http://example.com/", "http://example.com"),
        ("https://example.com:8443/page", "https://example.com:8443"),
    ],
)
def test_origins_that_no_browser_sends_are_refused(origin, right):
    with pytest.raises(ValueError, match=f"as in '{right}'$"):
        serve(chat, "127.0.0.1", 0, origins=[None, origin])


@pytest.mark.parametrize(
    "origins",
    [
        None,
        SAME_HOST,
        [],
        [None, SAME_HOST, "null", "https://example.com", "http://[::1]:8000", "file://"],
        [re.compile(r"https://.*\.example\.com"), "chrome-extension://abcdef"],
    ],
)
def test_other_origins_are_not_refused(origins):
    with serve(chat, "127.0.0.1", 0, origins=origins):
        pass


@pytest.mark.parametrize(("name", "value"), [("open_timeout", "10"), ("ping_interval", "20")])
@pytest.mark.parametrize(
    "call",
    [
        lambda **options: serve(chat, "127.0.0.1", 0, **options),
        lambda **options: connect("ws://localhost:1", **options),
    ],
    ids=["serve", "connect"],
)
def test_times_are_numbers(call, name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a number or None, not '{value}'$"):
        call(**{name: value})


def test_a_rate_limit_is_no_number():
    with pytest.raises(TypeError, match=r"^rate_limit must be a RateLimit or None, not 5$"):
        serve(chat, "127.0.0.1", 0, rate_limit=5)


def test_an_unknown_option_that_is_like_none_gets_no_advice():
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'colour'$"):
        connect("ws://localhost:1", colour="blue")


@pytest.mark.parametrize(
    ("function", "name", "advice"),
    [
        (serve, "loop", "there is no event loop here: leave it out"),
        (serve, "orgins", "did you mean origins?"),
        (serve, "path", "pass a dictionary, {'/path': handler}"),
        (serve, "reuseport", "did you mean reuse_port?"),
        (connect, "subprotocol", "did you mean subprotocols?"),
        (connect, "on_message", "receive with for message in connection"),
        (connect, "header", "write additional_headers={'Name': 'value'}"),
    ],
)
def test_an_unknown_option_gets_advice(function, name, advice):
    known = function.__kwdefaults__
    with pytest.raises(TypeError, match=re.escape(advice)):
        check_options(function.__name__, {name: None}, ["reuse_port"], known)


@pytest.mark.parametrize("headers", [{}, {"A": "b"}, [("A", "b")], [["A", "b"]], ()])
def test_headers_are_pairs(headers):
    check_headers(headers)


@pytest.mark.parametrize("headers", ["A: b", ["A: b"], {"A"}])
def test_what_is_no_pair_is_no_header(headers):
    with pytest.raises(TypeError, match=r"^additional_headers must be a dictionary"):
        connect("ws://localhost:1", additional_headers=headers)


def test_a_header_with_a_wrong_value_is_named():
    with pytest.raises(TypeError, match="value of A header must be a str, not 1"):
        connect("ws://localhost:1", additional_headers={"A": 1})


def test_routing_takes_all_that_serve_takes():
    werkzeug = pytest.importorskip("werkzeug.routing")
    url_map = werkzeug.Map([werkzeug.Rule("/", endpoint=chat)])
    with pytest.raises(TypeError, match="did you mean origins"):
        route(url_map, "127.0.0.1", 0, orgins=None)
