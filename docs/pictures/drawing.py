"""Draws boxes, arrows and text as SVG that can be read on light and on dark pages."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent

LINE = 17  # from one line of text to the next

# Colours by what is drawn, on light and on dark pages: paper and border.
KINDS = {
    "plain": ("#f4f5f7", "#6b7280", "#262b33", "#9aa3b2"),
    "blue": ("#e3edfb", "#2563b0", "#1b3250", "#6ea8f0"),
    "green": ("#e2f3e6", "#23783c", "#173c24", "#62c07f"),
    "amber": ("#fdf0d5", "#a56a00", "#46330c", "#e0aa45"),
    "red": ("#fbe4e2", "#b3362b", "#4a1f1c", "#ee8178"),
    "violet": ("#efe6fa", "#7443b0", "#33234c", "#b28be8"),
}
LIGHT, DARK = ("#ffffff", "#1b1f24"), ("#14171c", "#e6e8eb")  # paper and ink

Point = tuple[float, float]


class Drawing:
    """
    A picture, from the back to the front.

    Args:
        width, height: in pixels.
        title: what screen readers say.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = width, height
        self._title = title
        self._parts: list[str] = []

    def box(
        self, at: Point, size: Point, lines: Sequence[str], kind: str = "plain", bold: bool = True
    ) -> None:
        """A box with lines of text in its middle, of which the first is the title."""
        (x, y), (width, height) = at, size
        self._parts.append(
            f'<rect class="box {kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>'
        )
        top = y + height / 2 - LINE * (len(lines) - 1) / 2 + 5
        for number, line in enumerate(lines):
            style = "bold" if bold and number == 0 else "small" if number else ""
            self.text((x + width / 2, top + LINE * number), line, style)

    def frame(self, at: Point, size: Point, title: str) -> None:
        """A dashed border around other boxes, with its title at the top left."""
        (x, y), (width, height) = at, size
        self._parts.append(
            f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'
        )
        self.text((x + 12, y + 20), title, "small start")

    def bar(self, at: Point, size: Point, kind: str, text: str = "") -> None:
        """A flat bar, such as a time during which something is held."""
        (x, y), (width, height) = at, size
        self._parts.append(
            f'<rect class="box {kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="3"/>'
        )
        if text:
            self.text((x + width / 2, y + height / 2 + 4), text, "small")

    def text(self, at: Point, text: str, style: str = "") -> None:
        """A line of text, centred unless its style says ``start``."""
        self._parts.append(f'<text class="{style}" x="{at[0]}" y="{at[1]}">{escape(text)}</text>')

    def arrow(
        self,
        points: Sequence[Point],
        kind: str = "plain",
        label: str = "",
        at: Point | None = None,
        dashed: bool = False,
    ) -> None:
        """A line through points with a head at the last, and a label at its middle or ``at``."""
        path = " ".join(f"{x},{y}" for x, y in points)
        dash = " dashed" if dashed else ""
        self._parts.append(
            f'<polyline class="line {kind}{dash}" points="{path}" marker-end="url(#{kind})"/>'
        )
        if label:
            (x1, y1), (x2, y2) = points[0], points[-1]
            self.text(at or ((x1 + x2) / 2, (y1 + y2) / 2 - 6), label, f"small ink-{kind}")

    def rule(self, start: Point, end: Point) -> None:
        """A thin line."""
        self._parts.append(
            f'<polyline class="rule" points="{start[0]},{start[1]} {end[0]},{end[1]}"/>'
        )

    def __str__(self) -> str:
        width, height = self._size
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{escape(self._title)}</title>",
            f"<style>{_style()}</style>",
            f"<defs>{''.join(map(_head, KINDS))}</defs>",
            f'<rect class="paper" width="{width}" height="{height}" rx="12"/>',
            *self._parts,
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def save(self, name: str) -> None:
        """Write the file beside this module."""
        (HERE / name).write_text(str(self), encoding="utf-8")


def _head(kind: str) -> str:
    return (
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse">'
        f'<path class="head {kind}" d="M0,0 L10,5 L0,10 z"/></marker>'
    )


def _style() -> str:
    rules = [
        "text{font:14px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;text-anchor:middle}",
        ".small{font-size:12.5px}",
        ".bold{font-weight:600}",
        ".start{text-anchor:start}",
        ".end{text-anchor:end}",
        ".box{stroke-width:1.4}",
        ".line{fill:none;stroke-width:1.7}",
        ".dashed{stroke-dasharray:5 4}",
        ".frame{fill:none;stroke-width:1.2;stroke-dasharray:6 5}",
        _theme(0),
        f"@media (prefers-color-scheme:dark){{{_theme(1)}}}",
    ]
    return "\n".join(rules)


def _theme(dark: int) -> str:
    paper, ink = DARK if dark else LIGHT
    grey = KINDS["plain"][2 * dark + 1]
    rules = [
        f".paper{{fill:{paper}}}",
        f"text{{fill:{ink}}}",
        f".frame,.rule{{stroke:{grey}}}",
    ]
    for kind, colours in KINDS.items():
        fill, stroke = colours[2 * dark : 2 * dark + 2]
        rules += [
            f".box.{kind}{{fill:{fill};stroke:{stroke}}}",
            f".line.{kind}{{stroke:{stroke}}}",
            f".head.{kind}{{fill:{stroke}}}",
            f".ink-{kind}{{fill:{stroke if kind != 'plain' else ink}}}",
        ]
    return "\n".join(rules)
