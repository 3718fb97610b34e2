"""
The plots: SVG files that can be read on a light and on a dark page.

The same data make the same files.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from .catalog import FREE, GROUPS, OURS, PINNED, Scenario, Server
from .results import Results
from .summary import PERCENTILES, number

GREY = "#7f7f7f"  # has contrast with white and with black
WIDTH = 7.6  # inches; the text of a page is that wide
TITLES = {PINNED: "pinned", FREE: "not pinned"}
LONG_UNITS = {
    "msg/s": "messages per second",
    "MB/s": "megabytes per second",
    "conn/s": "connections per second",
    "copies/s": "copies per second",
}


class Style(NamedTuple):
    color: str
    marker: str
    line: str = "-"


# Ours are blue, threads warm, event loops green to violet.
STYLES = {
    "syncws": Style("#2a82d6", "o"),
    "syncws-pure": Style("#2a82d6", "v", ":"),
    "syncws-cork": Style("#1aa3c4", "^"),
    "syncws-affinity": Style("#6d7fe0", "D"),
    "websockets-sync": Style("#d9622b", "s"),
    "simple-websocket": Style("#c98a1b", "P", "--"),
    "websocket-server": Style("#b3702f", "X", "--"),
    "ws4py": Style("#c2504f", "d", "--"),
    "websockets-asyncio": Style("#9a6fc4", "s", "-."),
    "aiohttp": Style("#3a9e62", "h", "-."),
    "aiohttp-uvloop": Style("#3a9e62", "H", ":"),
    "picows": Style("#b8579c", "*", "-."),
    "picows-uvloop": Style("#b8579c", "p", ":"),
}

LOOK = {
    "svg.fonttype": "none",  # text stays text: small files
    "svg.hashsalt": "syncws",  # the same ids each time
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY
    ),
}


def draw(results: Results, folder: pathlib.Path) -> list[str]:
    """One file for each group that was measured; returns these groups."""
    drawn = []
    with matplotlib.rc_context(LOOK):
        for group in GROUPS:
            path = folder / f"{group}.svg"
            path.unlink(missing_ok=True)
            layouts = [layout for layout in results.layouts if results.group(group, layout)]
            if not layouts:
                continue
            figure = DRAWINGS[group](results, group, layouts)
            figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
            pyplot.close(figure)
            drawn.append(group)
    return drawn


def make_panels(number_of: int, height: float) -> tuple[Any, Any]:
    """A figure as wide as the text of a page, and its panels from left to right."""
    figure, panels = pyplot.subplots(
        1, number_of, figsize=(WIDTH, height), sharey=True, squeeze=False, layout="constrained"
    )
    return figure, panels[0]


def servers_of(results: Results, group: str, layouts: Sequence[str]) -> list[Server]:
    """Those with a value in the group."""
    scenarios = [each for layout in layouts for each in results.group(group, layout)]
    cells = {
        server: [results.cell(layout, each, server) for layout in layouts for each in scenarios]
        for server in results.servers
    }
    return [server for server in cells if any(cell and cell.median for cell in cells[server])]


# Lines: a value against a quantity


def draw_lines(results: Results, group: str, layouts: Sequence[str]) -> Any:
    servers = servers_of(results, group, layouts)
    figure, panels = make_panels(len(layouts), 4.6)
    for panel, layout in zip(panels, layouts):
        scenarios = [each for each in results.group(group, layout) if not each.touch]
        for server in servers:
            draw_line(panel, results, layout, scenarios, server)
        set_quantities(panel, group, scenarios)
        if group != "memory":
            panel.set_title(TITLES[layout], color=GREY)
    set_values(panels[0], "KiB per connection" if group == "memory" else "messages per second")
    add_legend(figure, panels[0], servers)
    return figure


def quantity_of(scenario: Scenario, group: str) -> int:
    return scenario.size if group == "size" else scenario.connections


def draw_line(
    panel: Any, results: Results, layout: str, scenarios: Sequence[Scenario], server: Server
) -> None:
    points = []
    for scenario in scenarios:
        cell = results.cell(layout, scenario, server)
        if cell is not None and cell.median:
            points.append((quantity_of(scenario, scenarios[-1].group), cell.median))
    if points:
        panel.plot(*zip(*points), **line_style(server))


def line_style(server: Server) -> dict[str, Any]:
    style, is_main = STYLES[server.name], server.name == OURS
    return {
        "color": style.color,
        "marker": style.marker,
        "linestyle": style.line,
        "linewidth": 2.8 if is_main else 1.2,
        "markersize": 6 if is_main else 4.5,
        "zorder": 3 if is_main else 2,
    }


def set_quantities(panel: Any, group: str, scenarios: Sequence[Scenario]) -> None:
    panel.set_xscale("log")
    titles = [scenario.title.removesuffix(" conn.") for scenario in scenarios]
    panel.set_xticks([quantity_of(each, group) for each in scenarios], titles, fontsize=7.5)
    panel.tick_params(axis="x", which="minor", length=0)
    panel.set_xlabel("size of the message" if group == "size" else "connections")


def set_values(panel: Any, label: str) -> None:
    panel.set_ylabel(label)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shorten(value)))
    panel.yaxis.set_minor_locator(NullLocator())


def add_legend(figure: Any, panel: Any, servers: Sequence[Server]) -> None:
    """Of all servers, in their order, whether they have a line in the first panel or not."""
    handles = [panel.plot([], [], **line_style(server))[0] for server in servers]
    titles = [server.title for server in servers]
    figure.legend(handles, titles, loc="outside lower center", ncols=4, fontsize=8)


# Bars: one value of each server


def draw_bars(results: Results, group: str, layouts: Sequence[str]) -> Any:
    scenarios = results.group(group, layouts[0])
    servers = servers_of(results, group, layouts)
    figure, panels = make_panels(len(scenarios), height_for(servers))
    for panel, scenario in zip(panels, scenarios):
        for place, server in enumerate(servers):
            for index, layout in enumerate(layouts):
                draw_bar(panel, results, layout, scenario, server, place + 0.4 * index, index)
        middle = 0.2 * (len(layouts) - 1)
        panel.set_yticks([place + middle for place in range(len(servers))], titles_of(servers))
        panel.grid(axis="y", visible=False)
        panel.set_title(scenario.title.replace(", ", ",\n", 1), color=GREY)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shorten(value)))
        panel.margins(x=0.25)
    panels[0].invert_yaxis()
    bars = "upper bar: pinned, paler bar: not pinned" if len(layouts) > 1 else TITLES[layouts[0]]
    units = " or ".join(dict.fromkeys(LONG_UNITS[scenario.unit] for scenario in scenarios))
    add_caption(figure, f"{units}; {bars};\nlines from the lowest to the highest round")
    return figure


def titles_of(servers: Sequence[Server]) -> list[str]:
    return [server.title for server in servers]


def height_for(servers: Sequence[Server]) -> float:
    return 0.34 * len(servers) + 1.3


def add_caption(figure: Any, text: str) -> None:
    figure.supxlabel(text, fontsize=9, color=GREY)


def shorten(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1000:g} k" if value >= 1000 else f"{value:g}"


def draw_bar(
    panel: Any,
    results: Results,
    layout: str,
    scenario: Scenario,
    server: Server,
    place: float,
    index: int,
) -> None:
    cell = results.cell(layout, scenario, server)
    if cell is None or not cell.median:
        return
    color = STYLES[server.name].color
    panel.barh(place, cell.median, height=0.38, color=color, alpha=(1.0, 0.5)[index])
    panel.plot([cell.low, cell.high], [place, place], color=GREY, linewidth=1.2)
    panel.annotate(
        number(cell.median),
        (cell.high, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
    )


# Percentiles


def draw_percentiles(results: Results, group: str, layouts: Sequence[str]) -> Any:
    servers = servers_of(results, group, layouts)
    figure, panels = make_panels(len(layouts), height_for(servers))
    for panel, layout in zip(panels, layouts):
        for place, server in enumerate(servers):
            cell = results.cell(layout, results.group(group, layout)[0], server)
            if cell is not None and cell.latencies:
                draw_latencies(panel, place, cell.latencies, STYLES[server.name].color)
        panel.set_yticks(range(len(servers)), titles_of(servers))
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shorten(value)))
        panel.set_title(TITLES[layout], color=GREY)
    panels[0].invert_yaxis()
    names = ", ".join(PERCENTILES.values())
    add_caption(figure, f"µs; from left to right, {names} of the messages were so fast")
    return figure


def draw_latencies(panel: Any, place: float, latencies: dict[str, float], color: str) -> None:
    values = [latencies[key] for key in PERCENTILES if key in latencies]
    panel.plot(values, [place] * len(values), color=color, linewidth=1.2, alpha=0.6)
    for value, alpha in zip(values, (1.0, 0.8, 0.6, 0.4)):
        panel.plot(value, place, marker="o", color=color, alpha=alpha, markersize=6)


DRAWINGS = {
    **dict.fromkeys(("connections", "size", "memory"), draw_lines),
    **dict.fromkeys(("more", "handshakes", "broadcast", "compression"), draw_bars),
    "latency": draw_percentiles,
}
