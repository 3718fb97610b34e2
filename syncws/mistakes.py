"""Arguments that can't be meant: what is wrong with them, and what to write instead."""

from __future__ import annotations

import inspect
import numbers
import re
import ssl as ssl_module
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .server_connection import Settings

__all__ = [
    "check_handler",
    "check_headers",
    "check_logger",
    "check_number",
    "check_options",
    "check_settings",
]

_TO_ADDITIONAL_HEADERS = "write additional_headers={'Name': 'value'}"
_TO_SSL = "write ssl=, with an ssl.SSLContext"
_TO_PATHS = "to serve several paths, pass a dictionary, {'/path': handler}, in place of the handler"
_NO_LOOP = "there is no event loop here: leave it out"
_NO_CALLBACKS = "there are no callbacks here: receive with for message in connection"

# What people write who come from other libraries, and what it is called here: for both, for
# servers and for clients.
_BOTH = {
    "certfile": _TO_SSL,
    "keyfile": _TO_SSL,
    "ssl_context": _TO_SSL,
    "sslopt": _TO_SSL,
    "verify": _TO_SSL,
    "heartbeat": "write ping_interval=",
    "max_msg_size": "write max_size=",
    "loop": _NO_LOOP,
    "create_protocol": "write create_connection=",
    "klass": "write create_connection=",
    "on_close": _NO_CALLBACKS,
    "on_error": _NO_CALLBACKS,
    "on_message": _NO_CALLBACKS,
    "on_open": _NO_CALLBACKS,
}
_ADVICE = {
    "serve": {
        **_BOTH,
        "path": _TO_PATHS,
        "url": _TO_PATHS,
        "timeout": "write open_timeout=, or recv(timeout=…)",
        "extra_headers": "add them in process_response=",
        "cors_allowed_origins": "write origins=",
    },
    "connect": {
        **_BOTH,
        "cookie": _TO_ADDITIONAL_HEADERS,
        "extra_headers": _TO_ADDITIONAL_HEADERS,
        "header": _TO_ADDITIONAL_HEADERS,
        "headers": _TO_ADDITIONAL_HEADERS,
        "auth": "write connect('ws://user:password@host/')",
    },
}

# RFC 6454 §6.2: scheme "://" host [ ":" port ], without a path; "null" for what has no origin.
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*|null|same-host")


def check_options(
    function: str, given: Mapping[str, Any], passed_on: Iterable[str], known: Iterable[str]
) -> None:
    """
    Refuse keyword arguments that a function does not know.

    Args:
        function: its name.
        given: those that its signature doesn't have.
        passed_on: those that are right among them.
        known: names to suggest for those that are wrong.

    Raises:
        TypeError: it does not know one; says what was meant, if that can be told.
    """
    allowed = set(passed_on)
    for name in given:
        if name not in allowed:
            text = f"{function}() got an unexpected keyword argument {name!r}"
            advice = _ADVICE[function].get(name) or _similar(name, [*known, *allowed])
            raise TypeError(f"{text}; {advice}" if advice else text)


def _similar(name: str, known: list[str]) -> str:
    import difflib  # only those who mistype need it

    found = difflib.get_close_matches(name, known, 1, 0.75)
    return f"did you mean {found[0]}?" if found else ""


def check_handler(handler: Any, name: str = "") -> None:
    """
    Refuse what would fail for each connection, or do nothing, in place of a handler.

    Args:
        name: how messages call it; default: its own name.

    Raises:
        TypeError: it can't be called with a connection, or is no ordinary function.
    """
    name = name or _name(handler)
    if not callable(handler):
        called = "; write serve(handler, …), not serve(handler(), …)" if handler is None else ""
        raise TypeError(
            f"the handler must be a function that takes the connection, not {handler!r}{called}"
        )
    kinds = (handler, type(handler).__call__)
    if any(map(inspect.iscoroutinefunction, kinds)) or any(map(inspect.isasyncgenfunction, kinds)):
        raise TypeError(
            f"{name} is an async function; handlers are ordinary ones, without async and await: "
            "each connection has a thread of its own"
        )
    if any(map(inspect.isgeneratorfunction, kinds)):
        raise TypeError(
            f"{name} has a yield, so that calling it does nothing; "
            "handlers send with connection.send()"
        )
    signature = _mismatch(handler, 1)
    if signature is not None:
        path = "; its path is connection.request.path" if "path" in signature.parameters else ""
        raise TypeError(
            f"{name}{signature} can't be called with one argument, the connection{path}"
        )


def check_settings(settings: Settings) -> None:
    """
    Refuse what would show only when a client comes.

    Raises:
        TypeError: hooks, TLS configuration or timeout are of a wrong kind.
        ValueError: the TLS configuration is one for clients, or an origin or the path of
            health checks is none.
    """
    _check_tls(settings.ssl)
    _check_origins(settings.origins)
    _check_hook("process_request", settings.process_request, "the connection", "the request")
    _check_hook(
        "process_response", settings.process_response, "the connection", "request", "response"
    )
    _check_hook(
        "select_subprotocol", settings.select_subprotocol, "the connection", "the subprotocols"
    )
    check_number("open_timeout", settings.open_timeout)
    if settings.health is not None and not str(settings.health).startswith("/"):
        raise ValueError(f"health must be a path that starts with a slash, not {settings.health!r}")


def _check_hook(name: str, hook: Any, *arguments: str) -> None:
    if hook is None:
        return
    takes = f"{name} must be a function that takes {' and '.join(arguments)}"
    if not callable(hook):
        raise TypeError(f"{takes}, not {hook!r}")
    if inspect.iscoroutinefunction(hook):
        raise TypeError(f"{takes}, not an async one")
    signature = _mismatch(hook, len(arguments))
    if signature is not None:
        raise TypeError(f"{takes}, not {_name(hook)}{signature}")


def _name(function: Any) -> str:
    """The name of a function, for people: without those that it is defined in."""
    name: str = getattr(function, "__qualname__", type(function).__name__)
    return name.rpartition("<locals>.")[2]


def _mismatch(function: Callable[..., Any], arguments: int) -> Any:
    """The signature of a function that can't be called with so many arguments, else ``None``."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None  # of some functions in C, nothing is known
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return signature
    return None


def check_number(name: str, value: Any) -> None:
    """Refuse values of an option that are neither a number nor ``None``: :exc:`TypeError`."""
    if value is not None and not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number or None, not {value!r}")


def check_logger(logger: Any) -> None:
    """Refuse what is no logger, such as its name: :exc:`TypeError`."""
    if logger is not None and not hasattr(logger, "log"):
        advice = f"; write logging.getLogger({logger!r})" if isinstance(logger, str) else ""
        raise TypeError(f"logger must be a logger, not {logger!r}{advice}")


def _check_origins(origins: Any) -> None:
    if origins is None or isinstance(origins, str):
        return
    for origin in origins:
        if isinstance(origin, str) and not _ORIGIN.fullmatch(origin):
            host = origin.partition("://")[2].partition("/")[0] or origin.partition("/")[0]
            scheme = origin.partition("://")[0] if "://" in origin else "https"
            raise ValueError(
                f"origins has {origin!r}, which no browser sends; "
                f"write scheme and host alone, as in '{scheme}://{host}'"
            )


def _check_tls(context: Any) -> None:
    if context is None:
        return
    advice = "make one: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), then load_cert_chain(cert, key)"
    if not isinstance(context, ssl_module.SSLContext):
        raise TypeError(f"ssl must be an SSLContext, not {context!r}; {advice}")
    if context.protocol == ssl_module.PROTOCOL_TLS_CLIENT:
        raise ValueError(f"ssl is an SSLContext for clients; {advice}")


def check_headers(headers: Any) -> None:
    """Refuse what can't be headers, such as one string: :exc:`TypeError`."""
    if isinstance(headers, str) or not (
        isinstance(headers, Mapping) or all(isinstance(item, (tuple, list)) for item in headers)
    ):
        raise TypeError(
            f"additional_headers must be a dictionary, {{'Name': 'value'}}, not {headers!r}"
        )
