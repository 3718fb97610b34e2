#!/usr/bin/env python3
"""Draw the way of a message in and out: python3 docs/pictures/message.py."""

from __future__ import annotations

from drawing import Drawing

SIZE = (128, 62)
STEP = 158
LEFT = 30

# What a message passes, and below it the option or the module that has to do with it.
IN = [
    (["kernel", "socket buffer"], "plain", "TCP holds the peer back"),
    (["transport", "TLS, if any"], "amber", "read_limit"),
    (["frame decoder", "unmasks"], "amber", "frames.py"),
    (["inflater", "if compressed"], "amber", "permessage_deflate.py"),
    (["assembler", "fragments, UTF-8"], "amber", "max_size"),
    (["recv()", "your handler"], "blue", "timeout"),
]
OUT = [
    (["send()", "any thread"], "blue", "timeout"),
    (["deflater", "if compressed"], "green", "threshold"),
    (["frame encoder", "a client masks"], "plain", "frames.py"),
    (["outbox", "frames to send"], "green", "write_limit"),
    (["transport", "TLS, if any"], "green", "send_timeout"),
    (["kernel", "socket buffer"], "plain", "then the network"),
]
IN_TOP, OUT_TOP = 60, 330


def draw() -> Drawing:
    """Two rows of stations, and what happens beside the straight way."""
    drawing = Drawing(LEFT * 2 + STEP * 5 + SIZE[0], 560, "The way of a message in and out")
    drawing.text((LEFT, IN_TOP - 24), "In: one thread, no hand-over", "bold start")
    _draw_row(drawing, IN_TOP, IN)
    _draw_inbox(drawing)
    drawing.text((LEFT, OUT_TOP - 24), "Out: usually one system call", "bold start")
    _draw_row(drawing, OUT_TOP, OUT)
    _draw_rest(drawing)
    return drawing


def _left(number: int) -> int:
    return LEFT + STEP * number


def _draw_row(drawing: Drawing, top: int, stations) -> None:
    for number, (lines, kind, below) in enumerate(stations):
        drawing.box((_left(number), top), SIZE, lines, kind)
        drawing.text((_left(number) + SIZE[0] / 2, top + SIZE[1] + 18), below, "small")
        if number:
            middle = top + SIZE[1] / 2
            drawing.arrow([(_left(number) - STEP + SIZE[0], middle), (_left(number) - 1, middle)])


def _draw_inbox(drawing: Drawing) -> None:
    """The reader role over its stations, and the inbox for an application that is away."""
    y = IN_TOP + SIZE[1] + 34
    width = STEP * 3 + SIZE[0]
    drawing.bar((_left(1), y), (width, 24), "amber", "under the reader role")
    x, top = _left(4), y + 54
    drawing.box((x, top), SIZE, ["inbox", "waits for recv()"], "violet")
    drawing.arrow([(x + 30, y + 26), (x + 30, top - 2)], "violet", dashed=True)
    right = _left(5) + SIZE[0] / 2
    bend = top + SIZE[1] / 2
    drawing.arrow([(x + SIZE[0], bend), (right, bend), (right, IN_TOP + SIZE[1] + 26)], "violet")
    drawing.text((x - 12, top + 22), "while the application is busy, the", "small end")
    drawing.text((x - 12, top + 39), "service thread reads, until the inbox is full", "small end")
    drawing.text((x + SIZE[0] / 2, top + SIZE[1] + 18), "max_queue, max_queue_bytes", "small")


def _draw_rest(drawing: Drawing) -> None:
    """The locks, and who sends what is left in the outbox."""
    y = OUT_TOP + SIZE[1] + 34
    drawing.bar((_left(1), y), (SIZE[0], 24), "green", "deflate lock")
    drawing.bar((_left(3), y), (STEP + SIZE[0], 24), "green", "outbound lock, for moments")
    x, top = _left(3), y + 54
    size = (STEP + SIZE[0], SIZE[1])
    drawing.box(
        (x, top),
        size,
        [
            "what is left",
            "the sender waits outside of all locks;",
            "after broadcast(), the service thread sends",
        ],
        "violet",
    )
    drawing.arrow([(x + 60, top), (x + 60, y + 26)], "violet", dashed=True)
    drawing.text(
        (_left(0), top + 22),
        "Pongs, pings and the Close frame go into the outbox, too:",
        "small start",
    )
    drawing.text(
        (_left(0), top + 39),
        "the first two ahead of frames that have not begun, Close last.",
        "small start",
    )


if __name__ == "__main__":
    draw().save("message.svg")
