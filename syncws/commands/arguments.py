"""Arguments that several commands take: where to connect, where to listen, numbers."""

from __future__ import annotations

import argparse
import math
import os
import ssl
from typing import Any, Callable, Optional

from ..handshake import SAME_HOST
from ..uri import parse_uri
from .failures import Failure, explain, explain_taken

__all__ = [
    "Parser",
    "add_client_arguments",
    "add_server_arguments",
    "client_options",
    "client_tls",
    "count",
    "extras",
    "listening",
    "own_host",
    "port_number",
    "seconds",
    "server_options",
]

EXIT_CODES = """\
exit codes:
  0    all went well
  1    it failed; one line says why
  2    the command line was wrong
  130  interrupted with Ctrl-C"""

# Where commands that listen do so if not told otherwise.
HOST = "127.0.0.1"
PORT = 8765


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the lines of its examples, and ends with the exit codes."""

    def __init__(self, *args: Any, examples: str = "", codes: str = EXIT_CODES, **kwargs: Any):
        lines = "".join(f"\n  {line}" for line in examples.strip().splitlines())
        epilog = f"examples:{lines}\n\n{codes}" if examples else codes
        super().__init__(
            *args,
            **{"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": epilog, **kwargs},
        )


# Types


def port_number(text: str) -> int:
    """Convert an argument to a port."""
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return port


def own_host(text: str) -> str:
    """Check a host to listen on: people add the port to it, or the scheme."""
    if "/" in text or text.count(":") == 1:
        raise argparse.ArgumentTypeError(
            f"a host is a name or an address alone, not {text!r}; the port goes to --port"
        )
    return text


def seconds(text: str) -> float:
    """Convert an argument to a time that is not negative."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"a time is a number of seconds, not {text!r}")
    return number


def count(text: str) -> int:
    """Convert an argument to a number of things, at least one."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, not {text!r}")
    return int(text)


def header(text: str) -> tuple[str, str]:
    """Convert ``Name: value`` to a pair."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"a header is 'Name: value', not {text!r}")
    return name.strip(), value.strip()


def websocket_uri(text: str) -> str:
    """Check a URI; a mistake in it is one of the command line."""
    # People copy the address of a page, or name a host and port as elsewhere.
    for web, scheme in (("http://", "ws://"), ("https://", "wss://")):
        if text.lower().startswith(web):
            raise argparse.ArgumentTypeError(
                f"{text} is the address of a page; did you mean {scheme}{text[len(web) :]}?"
            )
    uri = text if "://" in text else f"ws://{text}"
    try:
        parse_uri(uri)
    except Exception as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return uri


# Clients


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where and how to connect."""
    parser.add_argument(
        "uri", metavar="URI", type=websocket_uri, help="ws://… or wss://…; HOST:PORT is ws://"
    )
    group = parser.add_argument_group("connection")
    group.add_argument(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        dest="headers",
        type=header,
        action="append",
        default=[],
        help="send a header with the request; may be repeated",
    )
    group.add_argument(
        "--subprotocol",
        metavar="NAME",
        dest="subprotocols",
        action="append",
        help="offer a subprotocol; may be repeated, the preferred one first",
    )
    group.add_argument("--origin", help="send this Origin, as a page of that site would")
    group.add_argument(
        "--insecure", action="store_true", help="with wss://, accept any certificate"
    )
    group.add_argument(
        "--cafile", metavar="FILE", help="with wss://, trust the authorities in this PEM file"
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=10.0,
        help="for opening, for closing, and for an answer that is due (%(default)g)",
    )


def client_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn the arguments into those of ``connect()``, but for the URI."""
    options: dict[str, Any] = {
        "additional_headers": arguments.headers,
        "subprotocols": arguments.subprotocols,
        "origin": arguments.origin,
        "open_timeout": arguments.timeout,
        "close_timeout": arguments.timeout,
    }
    if parse_uri(arguments.uri).secure:
        options["ssl"] = client_tls(arguments)
    return options


def client_tls(arguments: argparse.Namespace) -> ssl.SSLContext:
    """
    TLS as the arguments want it.

    Raises:
        Failure: the file of authorities can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=arguments.cafile)
    except (OSError, ValueError) as exc:
        raise Failure(f"--cafile {arguments.cafile}: {explain(exc)}") from None
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


# Servers


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where and how to listen."""
    group = parser.add_argument_group("listening")
    group.add_argument(
        "--host",
        type=own_host,
        default=HOST,
        help="name or address to listen on, '' for all (%(default)s)",
    )
    group.add_argument(
        "--port", type=port_number, default=PORT, help="port, 0 for any (%(default)s)"
    )
    group.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead")
    group.add_argument("--cert", metavar="FILE", help="serve wss:// with this certificate, in PEM")
    group.add_argument("--key", metavar="FILE", help="its private key, if not in the same file")
    group.add_argument(
        "--origin",
        metavar="ORIGIN",
        dest="origins",
        action="append",
        help="let pages of this origin connect, besides those of the same host; 'any' for all; "
        "may be repeated",
    )


def server_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    Turn the arguments into those of ``serve()``, but for the address.

    Raises:
        Failure: certificate or key can't be used.
    """
    options: dict[str, Any] = {}
    if arguments.key is not None and arguments.cert is None:
        raise Failure("--key without --cert: where is the certificate?")
    if arguments.cert is not None:
        options["ssl"] = _server_tls(arguments.cert, arguments.key)
    if arguments.origins is not None:
        several = [None, SAME_HOST, *arguments.origins]
        options["origins"] = None if "any" in arguments.origins else several
    return options


def _server_tls(cert: str, key: Optional[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in filter(None, (cert, key)):
        if not os.path.isfile(name):
            raise Failure(f"no such file: {name}")
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ValueError) as exc:
        detail = getattr(exc, "reason", None) or exc
        raise Failure(f"can't use the certificate {cert}: {detail}") from None
    return context


def listening(arguments: argparse.Namespace, serve: Callable[..., Any], **options: Any) -> Any:
    """
    Make a server where the arguments say.

    Args:
        serve: called with the address, as ``serve()`` with a handler is.

    Raises:
        Failure: it is not possible to listen there.
    """
    try:
        if arguments.unix is not None:
            return serve(unix_path=arguments.unix, **options)
        return serve(host=arguments.host, port=arguments.port, **options)
    except OSError as exc:
        if arguments.unix is not None:
            raise Failure(exc.strerror or str(exc)) from None
        raise explain_taken(exc, arguments.host, arguments.port) from None


def extras(response: Any) -> str:
    """Describe what the opening handshake agreed upon, for people."""
    agreed = [
        f"subprotocol {response.headers['Sec-WebSocket-Protocol']}"
        if "Sec-WebSocket-Protocol" in response.headers
        else "no subprotocol",
        ", ".join(response.headers.get_all("Sec-WebSocket-Extensions")) or "no compression",
    ]
    return "; ".join(agreed)
