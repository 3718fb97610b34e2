"""
The command line: ``python -m syncws``, or ``syncws`` where it is installed.

Exit codes: 0, all went well; 1, it failed, with one line that says why;
2, the command line was wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Optional

from . import demo

__all__ = ["main"]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """
    Run a command.

    Args:
        argv: the arguments after the program's name; ``None`` takes them from ``sys.argv``.

    Returns:
        the exit code.

    Raises:
        SystemExit: after ``--help``, and with code 2 when the command line is wrong.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        arguments.command(arguments)
    except OSError as exc:
        print(f"syncws: {exc}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``command`` to the function that runs it."""
    parser = argparse.ArgumentParser(
        prog="syncws",
        description="WebSocket server and client with threads, without an event loop.",
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_demo(commands.add_parser("demo", help="serve a chat page and its WebSocket"))
    return parser


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve a chat page and its WebSocket on one port, until Ctrl-C. "
        f"If the port is taken, up to {demo.PORTS - 1} ports after it are tried."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="name or address to listen on (%(default)s)"
    )
    parser.add_argument(
        "--port", type=port_number, default=8000, help="first port to try, 0 for any (%(default)s)"
    )
    parser.set_defaults(command=lambda arguments: demo.run(arguments.host, arguments.port))


def port_number(text: str) -> int:
    """Convert an argument to a port, for argparse."""
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return port
