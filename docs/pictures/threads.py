#!/usr/bin/env python3
"""Draw which threads there are, and which locks each takes: python3 docs/pictures/threads.py."""

from __future__ import annotations

from drawing import Drawing

# The locks in the order in which they are taken: name, what it guards, how long, colour.
LOCKS = [
    ("reader role", "decoder, inbox", "even while waiting", "amber"),
    ("deflate lock", "order of frames", "while compressing", "green"),
    ("outbound lock", "outbox, closing", "for moments", "green"),
    ("TLS lock", "OpenSSL's state", "for moments", "green"),
]
WAITS, TRIES, SOME, DEFLATES = (
    "waits for the peer",
    "tries, never waits",
    "moments",
    "compresses",
)

# Thread and what it does there; what it does with each lock; what it waits for without any.
ROWS = [
    ("handler thread", "recv()", (WAITS, "", SOME, SOME), ""),
    ("any thread", "send()", ("", DEFLATES, SOME, SOME), "until the kernel takes it"),
    ("any thread", "close()", ("until its deadline", "", SOME, SOME), ""),
    ("any thread", "broadcast()", ("", DEFLATES, SOME, SOME), 'only with on_full="wait"'),
    (
        "service thread",
        "reads, replies, pings",
        (TRIES, "", SOME, SOME),
        "for all at once",
    ),
    ("any thread", "server.shutdown()", ("", "", "", ""), "until one deadline"),
]
LEFT, TOP, COLUMN, ROW = 158, 125, 148, 60
BARS = {WAITS: -4, DEFLATES: 14, SOME: 28}  # how much shorter than the column on each side
FREE = LEFT + COLUMN * len(LOCKS)


def draw() -> Drawing:
    """A table: threads downwards, locks to the right in the order in which they are taken."""
    height = TOP + ROW * len(ROWS) + 52
    drawing = Drawing(FREE + 192, height, "Who holds which lock of a connection, and for how long")
    for number, (name, guards, held, kind) in enumerate(LOCKS):
        at = (LEFT + COLUMN * number + 4, 20)
        drawing.box(at, (COLUMN - 8, 84), [name, guards, held], kind)
    drawing.box((FREE + 10, 20), (166, 84), ["no lock at all", "waiting here", "holds nobody up"])
    for number, row in enumerate(ROWS):
        _draw_row(drawing, TOP + ROW * number, *row)
    y = TOP + ROW * len(ROWS) + 20
    drawing.arrow([(LEFT + 4, y), (FREE - 4, y)], "plain")
    drawing.text((LEFT + 4, y + 18), "the order in which locks are taken", "small start")
    return drawing


def _draw_row(drawing: Drawing, y: int, thread: str, what: str, holds, free: str) -> None:
    drawing.rule((20, y), (FREE + 176, y))
    drawing.text((20, y + 28), thread, "bold start")
    drawing.text((20, y + 46), what, "small start")
    for number, (hold, lock) in enumerate(zip(holds, LOCKS)):
        if hold:
            x = LEFT + COLUMN * number
            inset = 8 + BARS.get(hold, 2)
            size = (COLUMN - 2 * inset, 28)
            drawing.bar((x + inset, y + 16), size, lock[3], hold)
    if free:
        drawing.bar((FREE + 10, y + 16), (166, 28), "plain", free)


if __name__ == "__main__":
    draw().save("threads.svg")
