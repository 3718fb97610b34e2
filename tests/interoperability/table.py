"""Writes what was found as tables for the documentation."""

from __future__ import annotations

import re

__all__ = ["CHECKS", "render"]

# Names of the checks, and the heads of their columns; "to" and "from" mean the peer.
CHECKS = {
    "text": "Text",
    "binary": "Binary",
    "empty": "Empty",
    "64k": "64 KiB",
    "1m": "1 MiB",
    "fragments-to": "Fragments to it",
    "fragments-from": "Fragments from it",
    "pings-to": "Pings to it",
    "pings-from": "Pings from it",
    "close-to": "Close code to it",
    "close-from": "Close code from it",
    "subprotocol": "Sub\u00adprotocol",
    "compression": "Com\u00adpression",
}
# What one table has room for.
GROUPS = [list(CHECKS)[:7], list(CHECKS)[7:]]
MARKS = {"yes": "✓", "partly": "(✓)", "no": "✗", "absent": "–"}


def render(found):
    """
    Args:
        found: what the command writes as JSON.
    """
    parts = [
        f"Made on {found['made']} with syncws {found['syncws']} on Python {found['python']}.",
        *section("Clients, with the server of syncws", "Client", found["clients"]),
        *section("Servers, with the client of syncws", "Server", found["servers"]),
    ]
    return "\n".join(parts) + "\n"


def section(title, head, peers):
    yield ""
    yield title
    yield "-" * len(title)
    yield ""
    for checks in GROUPS:
        yield from table(head, checks, peers)
    notes = [line for peer in peers for line in remarks(peer)]
    yield from notes


def table(head, checks, peers):
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield "   :stub-columns: 1"
    yield ""
    yield from row([head, *(CHECKS[check] for check in checks)])
    for peer in peers:
        results = peer["results"]
        marks = [MARKS[results[check]["result"]] if check in results else " " for check in checks]
        yield from row([f"{peer['name']} {peer['version']}".strip(), *marks])
    yield ""


def row(cells):
    for index, cell in enumerate(cells):
        yield f"   {' ' if index else '*'} - {cell}".rstrip()


def remarks(peer):
    if peer["not_run"]:
        yield f"* {peer['name']}: not run: {plain(peer['not_run'])}."
    for check, result in peer["results"].items():
        if result["note"]:
            name = CHECKS[check].replace("\u00ad", "").lower()
            yield f"* {peer['name']}, {name}: {plain(result['note'])}."


def plain(text):
    """Text in which reStructuredText sees nothing special."""
    return re.sub(r"([\\*`_|])", r"\\\1", " ".join(text.split())).rstrip(".")
