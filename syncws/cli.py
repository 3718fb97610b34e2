"""
The command line: ``python -m syncws``, or ``syncws`` where it is installed.

Exit codes: 0, all went well; 1, it failed, with one line that says why;
2, the command line was wrong; 130, it was interrupted with Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Optional

from .commands import bench, broadcast, check, connect, demo, listen, serve
from .commands.arguments import EXIT_CODES, Parser
from .commands.failures import Failure, explain
from .exceptions import WebSocketException
from .version import __version__

__all__ = ["main"]

COMMANDS = (demo, connect, serve, listen, broadcast, bench, check)

EXAMPLES = """
syncws demo
syncws connect ws://localhost:8765
syncws serve app:handler --reload
syncws COMMAND --help
"""


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
    # What a peer sends may not be in the terminal's encoding; that must not end the program.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python would complain when it flushes standard output at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail("nobody reads the output any more")
    except UnicodeDecodeError as exc:
        return fail(f"the input is no {exc.encoding}; see --binary")
    except (Failure, OSError, WebSocketException) as exc:
        return fail(explain(exc))


def fail(text: str) -> int:
    print(f"syncws: {text}", file=sys.stderr)
    return 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``command`` to the function that runs it."""
    parser = Parser(
        prog="syncws",
        description="WebSocket server and client with threads, without an event loop.",
        examples=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"syncws {__version__}")
    parser.set_defaults(command=None)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        add_command(subparsers, module)
    return parser


def add_command(subparsers: Any, module: Any) -> None:
    name = module.__name__.rpartition(".")[2]
    codes = getattr(module, "CODES", EXIT_CODES)
    parser = subparsers.add_parser(name, help=module.HELP, examples=module.EXAMPLES, codes=codes)
    module.add_arguments(parser)
    parser.set_defaults(command=module.run)
