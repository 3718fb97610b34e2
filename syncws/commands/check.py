"""``syncws check``: a quick examination of any WebSocket server."""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time

from ..uri import parse_uri
from .arguments import add_client_arguments, client_tls
from .checks import GOOD, NOTE, WRONG, Verdict, examine
from .failures import one_line
from .probe import Target

__all__ = ["CODES", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "examine a server: does it keep to the protocol?"

EXAMPLES = """
syncws check ws://localhost:8765
syncws check wss://example.com/feed -H 'Authorization: Bearer TOKEN'
syncws check wss://localhost:8443 --cafile ca.pem --subprotocol v2.json
"""

CODES = """\
exit codes:
  0    nothing is wrong; there may be notes
  1    something is wrong, or the server can't be reached
  2    the command line was wrong
  130  interrupted with Ctrl-C"""

DESCRIPTION = """\
Examine the opening handshake, messages, the closing handshake, and how the server fails
connections of clients that break the protocol. Some twenty-five connections are made, one
after the other, each bounded by --timeout; nothing is sent that a server should not survive.

  ✓  as it should be    ✗  against the RFC    –  worth knowing, or not to be found out"""

MARKS = {GOOD: ("✓", "ok"), WRONG: ("✗", "WRONG"), NOTE: ("–", "note")}
COLOURS = {GOOD: "32", WRONG: "1;31", NOTE: "33"}
TITLE_WIDTH = 38


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    add_client_arguments(parser)
    parser.set_defaults(timeout=5.0)


def run(arguments: argparse.Namespace) -> int:
    uri = parse_uri(arguments.uri)
    target = Target(
        uri=uri,
        tls=client_tls(arguments) if uri.secure else None,
        headers=arguments.headers,
        origin=arguments.origin,
        subprotocols=arguments.subprotocols,
        timeout=arguments.timeout,
    )
    began = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    for title, verdicts in examine(target):
        print(f"\n{title}" if counts else title)
        for verdict in verdicts:
            counts[verdict.mark] += 1
            print(line(verdict), flush=True)
    print(f"\n{summary(counts)}, in {time.monotonic() - began:.2f} s")
    return 1 if counts[WRONG] else 0


def line(verdict: Verdict) -> str:
    mark = MARKS[verdict.mark][0 if has_marks() else 1]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        mark = f"\x1b[{COLOURS[verdict.mark]}m{mark}\x1b[0m"
    return f"  {mark} {verdict.title.ljust(TITLE_WIDTH)} {one_line(verdict.detail)}"


def has_marks() -> bool:
    try:
        "✓✗–".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def summary(counts: collections.Counter[str]) -> str:
    wrong = counts[WRONG]
    verdict = f"{wrong} wrong" if wrong else "nothing wrong"
    return f"{verdict}, {counts[GOOD]} as they should be, {counts[NOTE]} to note"
