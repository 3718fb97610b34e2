"""A run from beginning to end: measures, saves, and writes the page and the plots."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import signal
import sys
import tempfile
from types import FrameType
from typing import Any, Optional

from tqdm import tqdm

from . import compressed, environment, machine, plots, report, results
from .catalog import LAYOUTS, PINNED, SCENARIOS, SERVERS, Server
from .plan import Step, UnknownName, choose, make_plan
from .sampling import Tools, take_sample
from .summary import BUSY_CLIENT, number

DESCRIPTORS = 65536


def run(options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    if options.plots_only:
        write(results.load(options.out / "results.json"), options.out)
        return 0
    found = environment.probe(pathlib.Path(sys.executable))
    steps = plan_run(options, found["features"])
    with tempfile.TemporaryDirectory(prefix="syncws-benchmarks-") as work:
        tools = make_tools(options, pathlib.Path(work), steps)
        samples, interrupted = measure(steps, tools, options.verbose)
    if not any(sample.get("value") is not None for sample in samples):
        print("benchmarks/run: nothing was measured", file=sys.stderr)
        return 130 if interrupted else 1
    made = results.Results(describe(options, found, interrupted), samples)
    results.save(made, options.out / "results.json")
    write(made, options.out)
    warn(made)
    return 130 if interrupted else 0


def write(made: results.Results, folder: pathlib.Path) -> None:
    pictures = plots.draw(made, folder)
    (folder / "results.rst").write_text(report.make_page(made, pictures), encoding="utf-8")
    print(f"written: {folder}/results.json, results.rst, {len(pictures)} plots", file=sys.stderr)


def plan_run(options: argparse.Namespace, features: dict[str, bool]) -> list[Step]:
    servers = [
        server
        for server in choose(SERVERS, options.servers, "server")
        if is_possible(server, features)
    ]
    layouts = options.layouts.split(",")
    for layout in layouts:
        if layout not in LAYOUTS:
            raise UnknownName(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    if PINNED in layouts and machine.choose_cores(pinned=True).server is None:
        tell("there is only one core: nothing is pinned")
        layouts.remove(PINNED)
    scenarios = choose(SCENARIOS, options.scenarios, "scenario")
    return make_plan(servers, scenarios, layouts, options.rounds)


def is_possible(server: Server, features: dict[str, bool]) -> bool:
    missing = [need for need in server.needs if not features.get(need)]
    if missing:
        tell(f"left out: {server.name}, since this syncws has no {', '.join(missing)}")
    return not missing


def tell(text: str) -> None:
    print(f"benchmarks/run: {text}", file=sys.stderr, flush=True)


def make_tools(options: argparse.Namespace, work: pathlib.Path, steps: list[Step]) -> Tools:
    allowed = machine.raise_descriptor_limit(DESCRIPTORS)
    most = max((step.scenario.connections for step in steps), default=0)
    if allowed < most + 100:
        tell(f"only {allowed} files may be open: scenarios with more connections will fail")
    sizes = {step.scenario.size for step in steps if step.scenario.deflate}
    return Tools(
        python=pathlib.Path(sys.executable),
        load=environment.build_load(options.venv),
        payloads=compressed.write_payloads(work, sizes),
        logs=work,
        seconds=options.seconds,
    )


# Measuring


def measure(steps: list[Step], tools: Tools, verbose: bool) -> tuple[list[dict[str, Any]], bool]:
    """The samples, and whether it was interrupted."""
    samples: list[dict[str, Any]] = []
    before = signal.signal(signal.SIGTERM, interrupt)
    verbose = verbose or not sys.stderr.isatty()
    try:
        with tqdm(total=len(steps), unit="sample", smoothing=0.02, disable=verbose) as bar:
            for index, step in enumerate(steps):
                bar.set_description(label(step))
                sample = take_sample(step, tools)
                samples.append(name(step, sample))
                if verbose:
                    print_sample(index + 1, len(steps), step, sample)
                bar.update()
    except KeyboardInterrupt:
        tell("interrupted; writing what there is")
        return samples, True
    finally:
        signal.signal(signal.SIGTERM, before)
    return samples, False


def interrupt(signal_number: int, frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt


def label(step: Step) -> str:
    return f"round {step.round + 1}, {step.layout}, {step.scenario.name}, {step.server.name}"


def name(step: Step, sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "round": step.round,
        "layout": step.layout,
        "scenario": step.scenario.name,
        "server": step.server.name,
        **sample,
    }


def print_sample(index: int, total: int, step: Step, sample: dict[str, Any]) -> None:
    value = f"{number(sample.get('value'))} {step.scenario.unit}"
    fault = f"  fault: {sample['fault']}" if sample.get("fault") else ""
    others = f"  others {sample.get('others', 0):.2f}"
    client = f"  client {sample.get('client_cpu', 0):.2f}"
    print(
        f"[{index}/{total}] {label(step):60} {value:>18}{client}{others}{fault}",
        file=sys.stderr,
        flush=True,
    )


# The end


def describe(
    options: argparse.Namespace, found: dict[str, Any], interrupted: bool
) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "quick": options.quick,
        "interrupted": interrupted,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": machine.describe(),
        "versions": found["versions"],
        "features": found["features"],
    }


def warn(made: results.Results) -> None:
    busy = [sample for sample in made.samples if sample.get("client_cpu", 0) > BUSY_CLIENT]
    if busy:
        names = sorted({f"{sample['scenario']} of {sample['server']}" for sample in busy})
        tell(
            f"warning: the load generator used more than {BUSY_CLIENT:.0%} of a core in "
            f"{', '.join(names)}: the server may be faster than measured"
        )
