#!/usr/bin/env python3
"""Draw the closing states from the table in the code: python3 docs/pictures/closing.py."""

from __future__ import annotations

import pathlib
import sys
import textwrap

from drawing import LINE, Drawing, Point

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from syncws.protocol import TRANSITIONS, Closing, Phase, Step

SIZE = (190, 86)
CENTRES = {
    Phase.OPEN: (125, 240),
    Phase.FAILED: (400, 90),
    Phase.SENT: (400, 240),
    Phase.EXCHANGED: (400, 390),
    Phase.GONE: (675, 240),
}
KINDS = {Step.SEND: "blue", Step.RECEIVE: "green", Step.FAIL: "red", Step.EOF: "violet"}
STATE_KINDS = {"OPEN": "green", "CLOSING": "amber", "CLOSED": "plain"}
BELOW = 470  # where an arrow goes that would cross others


def draw() -> Drawing:
    """All phases as boxes, and all transitions as arrows."""
    drawing = Drawing(800, 610, "The phases of closing a connection, and what leads to them")
    for (source, step), target in TRANSITIONS.items():
        _draw_transition(drawing, source, step, target)
    for phase in Phase:
        state = _state(phase)
        x, y = CENTRES[phase]
        lines = [phase.name, *textwrap.wrap(phase.value, 28), f"state: {state}"]
        drawing.box((x - SIZE[0] / 2, y - SIZE[1] / 2), SIZE, lines, STATE_KINDS[state])
    for number, step in enumerate(Step):
        y = BELOW + 46 + LINE * 1.4 * number
        drawing.arrow([(60, y - 4), (100, y - 4)], KINDS[step])
        drawing.text((112, y), f"{step.name.lower()}: {step.value}", "small start")
    return drawing


def _state(phase: Phase) -> str:
    closing = Closing()
    closing.phase = phase
    return closing.state.name


def _draw_transition(drawing: Drawing, source: Phase, step: Step, target: Phase) -> None:
    start, end = CENTRES[source], CENTRES[target]
    if end[0] - start[0] > 2 * SIZE[0]:  # past the middle column: below all boxes
        points = [_down(start), (start[0], BELOW), (end[0], BELOW), _down(end)]
        label = ((start[0] + end[0]) / 2, BELOW - 7)
    elif start[0] == end[0]:
        down = 1 if end[1] > start[1] else -1
        points = [
            (start[0], start[1] + down * SIZE[1] / 2),
            (end[0], end[1] - down * (SIZE[1] / 2 + 2)),
        ]
        label = (start[0] + 34, (start[1] + end[1]) / 2 + 4)
    else:
        points = [(start[0] + SIZE[0] / 2, start[1]), (end[0] - SIZE[0] / 2 - 2, end[1])]
        points = [_shift(points[0], end[1] - start[1]), _shift(points[1], start[1] - end[1])]
        label = _beside(points, start, end)
    drawing.arrow(points, KINDS[step], step.name.lower(), label)


def _down(centre: Point) -> Point:
    return centre[0], centre[1] + SIZE[1] / 2 + 2


def _shift(point: Point, slope: float) -> Point:
    """Arrows that rise or fall leave and reach a box above or below its middle."""
    return point[0], point[1] + max(-24, min(24, slope))


def _beside(points: list[Point], start: Point, end: Point) -> Point:
    """Where a label stands: above the middle of a flat arrow, on the outer side of a steep one."""
    x, y = (points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2
    if start[1] == end[1]:
        return x, y - 7
    above = min(start[1], end[1]) < CENTRES[Phase.OPEN][1]
    return x + (-20 if x < CENTRES[Phase.SENT][0] else 20), y + (-8 if above else 16)


if __name__ == "__main__":
    draw().save("closing.svg")
