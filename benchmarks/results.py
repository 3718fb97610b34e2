"""The samples of a run, with all that is needed to understand them, in a JSON file."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple, Optional

from .catalog import LAYOUTS, SCENARIOS, SERVERS, Scenario, Server
from .summary import Cell, summarize


class Results(NamedTuple):
    """A run: what it was made with, and its samples."""

    meta: dict[str, Any]  # date, quick, rounds, seconds, machine, versions, features …
    samples: list[dict[str, Any]]  # each names its layout, scenario, server and round

    def of(self, layout: str, scenario: Scenario, server: Server) -> list[dict[str, Any]]:
        wanted = (layout, scenario.name, server.name)
        return [
            sample
            for sample in self.samples
            if (sample["layout"], sample["scenario"], sample["server"]) == wanted
        ]

    def cell(self, layout: str, scenario: Scenario, server: Server) -> Optional[Cell]:
        """``None`` where nothing was measured."""
        samples = self.of(layout, scenario, server)
        return summarize(samples) if samples else None

    def names(self, key: str) -> set[str]:
        return {sample[key] for sample in self.samples}

    @property
    def servers(self) -> list[Server]:
        return [server for server in SERVERS if server.name in self.names("server")]

    @property
    def scenarios(self) -> list[Scenario]:
        return [each for each in SCENARIOS if each.name in self.names("scenario")]

    @property
    def layouts(self) -> list[str]:
        return [layout for layout in LAYOUTS if layout in self.names("layout")]

    def group(self, name: str, layout: str) -> list[Scenario]:
        """Its scenarios that were run so; those by size begin with the one of 32 bytes."""
        found = [
            scenario
            for scenario in self.scenarios
            if scenario.group == name and layout in scenario.layouts
        ]
        first = [each for each in self.scenarios if each.name == "echo-10"]
        if name == "size" and found and first and layout in self.layouts:
            found.insert(0, first[0]._replace(title="32 B"))
        return found if layout in self.layouts else []


def save(results: Results, path: pathlib.Path) -> None:
    """One sample a line, so that the differences of two runs can be read."""
    samples = ",\n  ".join(json.dumps(sample) for sample in results.samples)
    meta = json.dumps(results.meta, indent=1, sort_keys=True).replace("\n", "\n ")
    path.write_text(f'{{\n "meta": {meta},\n "samples": [\n  {samples}\n ]\n}}\n')


def load(path: pathlib.Path) -> Results:
    data = json.loads(path.read_text())
    return Results(data["meta"], data["samples"])
