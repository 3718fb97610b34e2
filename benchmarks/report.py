"""The page of results, in reStructuredText: made from the JSON file alone, the same each time."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Optional

from .catalog import FREE, GROUPS, OURS, PINNED, REFERENCE, SERVERS, Scenario, Server
from .results import Results
from .summary import (
    BUSY_CLIENT,
    NOISE,
    PERCENTILES,
    Cell,
    median_of,
    number,
    ratio,
    spread,
    times_better,
)

SHORT = {PINNED: "Pinned", FREE: "Not pinned"}
UNITS = {
    "connections": "Messages a second",
    "size": "Messages a second",
    "more": "Messages a second, or megabytes a second where it says MB/s",
    "handshakes": "Connections a second, opened and closed with both handshakes",
    "broadcast": "Copies delivered a second",
    "compression": "Messages a second",
}
PICTURES = {
    "connections": "Messages a second against the number of connections.",
    "size": "Messages a second against the size of the message.",
    "more": "Rates of three further scenarios.",
    "latency": "Percentiles of latency.",
    "handshakes": "Handshakes a second.",
    "broadcast": "Copies delivered a second.",
    "compression": "Messages a second with compression.",
    "memory": "Memory of a connection against the number of connections.",
}


def make_page(results: Results, pictures: Iterable[str] = ()) -> str:
    """``pictures``: the groups that there is a file for, named after them."""
    parts = [
        ".. Made by benchmarks/run from results.json. Do not edit.",
        *first_words(results),
        *machine(results),
        *where_others_are_ahead(results),
    ]
    for group in GROUPS:
        parts += section(results, group, group in set(pictures))
    parts += processor_time(results)
    parts += doubts(results)
    return "\n\n".join(parts) + "\n"


# Layout of the text


def heading(text: str, line: str = "-") -> str:
    return f"{text}\n{line * len(text)}"


def list_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells may have several lines."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [head, *rows]:
        for index, cell in enumerate(row):
            start = "   * - " if index == 0 else "     - "
            lines.append(start + cell.replace("\n", "\n       "))
    return "\n".join(lines)


def prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False)


# What was run


def first_words(results: Results) -> list[str]:
    meta = results.meta
    words = [heading("Results")]
    if meta["quick"]:
        words.append(
            ".. warning::\n\n   These are results of a smoke run (``--quick``): short, few rounds, "
            "on a machine that\n   was doing other things. They show that everything works, and "
            "nothing about speed."
        )
    if meta.get("interrupted"):
        words.append(".. warning::\n\n   The run was interrupted: some rounds are missing.")
    words.append(
        prose(
            f"{rounds(meta['rounds'])} of {meta['seconds']:g} s for each server and scenario, "
            f"{meta['date']}. A cell is the median of the rounds, the ratio to "
            f"**{title_of(REFERENCE)}**, and the lowest and the highest round."
        )
    )
    return words


def rounds(number_of: int) -> str:
    return "1 round" if number_of == 1 else f"{number_of} rounds"


def title_of(name: str) -> str:
    return next(server.title for server in SERVERS if server.name == name)


def machine(results: Results) -> list[str]:
    meta, here = results.meta, results.meta["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    speedups = "with" if meta["features"].get("speedups") else "without"
    rows = [
        ("Processor", f"{here['cpu']}, {here['usable_cores']} cores"),
        ("Memory", f"{here['memory_gib']} GiB"),
        ("System", f"{here['kernel']}, {here['libc']}"),
        ("Limit", f"{here['open_files']:,} open files in a process"),
        ("Python", f"{here['python']} ({here['compiler']})"),
        ("Versions", versions),
        ("syncws", f"{speedups} its C speedups"),
        ("Other processes", f"{number(noise(results))} cores meanwhile, median of all samples"),
    ]
    return [list_table(("Machine", "\\"), rows)]


def noise(results: Results) -> float:
    values = sorted(sample.get("others", 0.0) for sample in results.samples)
    return values[len(values) // 2] if values else 0.0


# Who is ahead


def ahead(results: Results) -> list[tuple[str, Scenario, list[tuple[float, Server]]]]:
    """Layout, scenario, and the servers that are better there than ours, the best first."""
    found = []
    ours = [server for server in results.servers if server.name == OURS]
    for layout in results.layouts:
        for scenario in results.scenarios if ours else []:
            base = results.cell(layout, scenario, ours[0])
            better = []
            for server in results.servers:
                cell = results.cell(layout, scenario, server)
                if server.kind == "ours" or cell is None or base is None:
                    continue
                factor = times_better(cell.median, base.median, scenario.more_is_better)
                if factor is not None and factor > 1:
                    better.append((factor, server))
            if better:
                better.sort(key=lambda pair: -pair[0])
                found.append((layout, scenario, better))
    return found


def where_others_are_ahead(results: Results) -> list[str]:
    cells: dict[str, dict[str, str]] = {}
    for layout, scenario, better in ahead(results):
        names = "; ".join(f"{server.title} {factor:.2f}×" for factor, server in better)
        cells.setdefault(scenario.full_title, {})[layout] = names
    parts = [heading("Where others are ahead", "~")]
    if not cells:
        return [*parts, "Nowhere in this run."]
    text = "How many times better than syncws as it comes, by the medians; for latency, at 99 %."
    head = ("Scenario", *(SHORT[layout] for layout in results.layouts))
    rows = [
        (title, *(cells[title].get(layout, "–") for layout in results.layouts)) for title in cells
    ]
    return [*parts, text, list_table(head, rows)]


# The tables


def section(results: Results, group: str, has_picture: bool) -> list[str]:
    tables = []
    for layout in results.layouts:
        scenarios = results.group(group, layout)
        if scenarios:
            tables.append(f"**{SHORT[layout]}**")
            tables.append(TABLES.get(group, rate_table)(results, layout, scenarios))
    if not tables:
        return []
    parts = [heading(GROUPS[group], "~")]
    if has_picture:
        parts.append(f".. figure:: {group}.svg\n   :alt: {PICTURES[group]}")
    if group in UNITS:
        parts.append(f"{UNITS[group]}; more is better.")
    return parts + tables


def column(scenario: Scenario) -> str:
    return f"{scenario.title} (MB/s)" if scenario.unit == "MB/s" else scenario.title


def rate_table(results: Results, layout: str, scenarios: Sequence[Scenario]) -> str:
    rows = []
    for server in results.servers:
        cells = [rate_cell(results, layout, scenario, server) for scenario in scenarios]
        if any(cells):
            rows.append((server.title, *(cell or "–" for cell in cells)))
    return list_table(("Server", *map(column, scenarios)), rows)


def rate_cell(results: Results, layout: str, scenario: Scenario, server: Server) -> Optional[str]:
    cell = results.cell(layout, scenario, server)
    if cell is None:
        return None
    reference = reference_cell(results, layout, scenario)
    factor = ratio(cell.median, reference.median if reference else None)
    lines = [f"**{number(cell.median)}**{marks(cell)}"]
    if factor is not None:
        lines.append(f"{factor:.2f}×")
    if cell.low != cell.high:
        lines.append(f"{number(cell.low)}–{number(cell.high)}")
    return "\n".join(f"| {line}" for line in lines)


def reference_cell(results: Results, layout: str, scenario: Scenario) -> Optional[Cell]:
    servers = [server for server in results.servers if server.name == REFERENCE]
    return results.cell(layout, scenario, servers[0]) if servers else None


def marks(cell: Cell) -> str:
    """Signs that are explained under "Doubts"."""
    signs = ("†" if cell.faults else "") + ("~" if cell.is_noisy else "")
    return f" {signs}" if signs else ""


def latency_table(results: Results, layout: str, scenarios: Sequence[Scenario]) -> str:
    rows = []
    for server in results.servers:
        cell = results.cell(layout, scenarios[0], server)
        if cell is not None:
            values = [f"{number(cell.latencies.get(key))} µs" for key in PERCENTILES]
            values[-1] += marks(cell)
            rows.append((server.title, *values))
    return list_table(("Server", *PERCENTILES.values()), rows)


def memory_table(results: Results, layout: str, scenarios: Sequence[Scenario]) -> str:
    head = ("Server", *(f"{each.title} (KiB)" for each in scenarios), "Threads", "Descriptors")
    rows = []
    for server in results.servers:
        cells = [results.cell(layout, scenario, server) for scenario in scenarios]
        measured = [cell for cell in cells if cell is not None and cell.held]
        values = [rate_cell(results, layout, scenario, server) or "–" for scenario in scenarios]
        if measured:
            held = measured[-1].held
            rows.append(
                (server.title, *values, number(held["threads"]), number(held["descriptors"]))
            )
    return list_table(head, rows)


TABLES = {"latency": latency_table, "memory": memory_table}


def processor_time(results: Results) -> list[str]:
    """Steadier than rates where other processes run."""
    if PINNED not in results.layouts:
        return []
    scenarios = [each for each in results.scenarios if each.group in ("connections", "size")]
    scenarios += [each for each in results.scenarios if each.group in ("handshakes", "broadcast")]
    rows = []
    for server in results.servers:
        cells = [results.cell(PINNED, scenario, server) for scenario in scenarios]
        if any(cells):
            rows.append((server.title, *(number(cell.cpu_us if cell else None) for cell in cells)))
    if not rows or not scenarios:
        return []
    text = (
        "Microseconds of the server's processor time, pinned: for a message, for a connection "
        "opened and closed, or for a copy delivered."
    )
    table = list_table(("Server", *(each.full_title for each in scenarios)), rows)
    return [heading("Processor time", "~"), prose(text), table]


# Doubts


def doubts(results: Results) -> list[str]:
    lines = [*busy_clients(results), *faults(results)]
    text = (
        f"~: other processes used more than {NOISE:g} of a core. †: something went wrong, see "
        f"below. {middle_spread(results)}"
    )
    return [heading("Doubts", "~"), prose(text), *(["\n".join(lines)] if lines else [])]


def middle_spread(results: Results) -> str:
    spreads = [spread(cell) for *_, cell in all_cells(results)]
    if results.meta["rounds"] < 2:
        return "With one round there is no spread."
    middle = median_of([{"spread": value} for value in spreads], "spread") or 0.0
    return (
        "From the lowest to the highest round, it was at most "
        f"{middle:.0%} of the median in half of all cells."
    )


def all_cells(results: Results) -> Iterable[tuple[str, Scenario, Server, Cell]]:
    for layout in results.layouts:
        for scenario in results.scenarios:
            for server in results.servers:
                cell = results.cell(layout, scenario, server)
                if cell is not None:
                    yield layout, scenario, server, cell


def busy_clients(results: Results) -> list[str]:
    busy = [
        f"{scenario.name} of {server.title} ({SHORT[layout].lower()}, {cell.client:.0%})"
        for layout, scenario, server, cell in all_cells(results)
        if cell.is_client_busy
    ]
    if busy:
        return [
            f"* The load generator used more than {BUSY_CLIENT:.0%} of a core, so that the server "
            f"may be faster than measured: {', '.join(busy)}."
        ]
    most = max((cell.client for *_, cell in all_cells(results)), default=0.0)
    return [
        f"* The load generator never used more than {most:.0%} of a core, so it was not what "
        "limited the servers."
    ]


def faults(results: Results) -> list[str]:
    return [
        f"* † {server.title}, {scenario.name} ({SHORT[layout].lower()}): "
        + plain("; ".join(cell.faults))[:300]
        for layout, scenario, server, cell in all_cells(results)
        if cell.faults
    ]


def plain(text: str) -> str:
    """Without what reStructuredText would take for markup."""
    return "".join(f"\\{char}" if char in "*`|_\\" else char for char in text)
