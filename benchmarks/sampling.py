"""One measurement: a server is started, loaded and ended; what comes of it is a sample."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import machine
from .catalog import PINNED, Scenario, Server
from .compressed import CompressionDiffers, check_echo
from .plan import Step

SERVERS = pathlib.Path(__file__).resolve().parent / "servers"
START_TIMEOUT = 20  # seconds
LOAD_TIMEOUT = 200  # seconds beyond those that are measured
SETTLE = 2  # seconds until idle connections have released what they do not need

Sample = dict[str, Any]


class Failed(Exception):
    """The measurement could not be made; the text goes into the report."""


class Tools(NamedTuple):
    """What every measurement uses."""

    python: pathlib.Path
    load: pathlib.Path
    payloads: dict[int, pathlib.Path]  # compressed ones, by their size
    logs: pathlib.Path
    seconds: float


def take_sample(step: Step, tools: Tools) -> Sample:
    """What was measured, or why it could not be, as ``{"fault": ...}``."""
    cores = machine.choose_cores(step.layout == PINNED)
    try:
        with running_server(step.server, step.scenario, tools, cores) as (process, port):
            return load_server(step.scenario, process, port, tools, cores)
    except (Failed, CompressionDiffers, OSError) as exc:
        return {"fault": f"{exc}"[:300]}


# The server


@contextlib.contextmanager
def running_server(
    server: Server, scenario: Scenario, tools: Tools, cores: machine.Cores
) -> Iterator[tuple[int, int]]:
    """The id of its process, and its port."""
    port = free_port()
    log = tools.logs / f"{server.name}.log"
    with log.open("ab") as output, machine.on_cores(cores.server):
        # A session of its own: Ctrl-C is for the command that runs the benchmarks, which ends this.
        process = subprocess.Popen(
            command(server, scenario, tools, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **dict(server.environment)},
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )
    try:
        wait_for_port(process, port, log)
        yield process.pid, port
        if process.poll() is not None:
            raise Failed(f"the server ended with status {process.returncode}: {last_line(log)}")
    finally:
        end(process)


def command(server: Server, scenario: Scenario, tools: Tools, port: int) -> list[str]:
    options = list(server.options)
    if scenario.mode == "fanout":
        options.append("broadcast")
    if scenario.deflate:
        options.append("deflate")
    return [str(tools.python), str(SERVERS / f"{server.program}.py"), str(port), *options]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(process: subprocess.Popen[Any], port: int, log: pathlib.Path) -> None:
    end_time = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end_time:
        if process.poll() is not None:
            raise Failed(f"the server did not start: {last_line(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            time.sleep(0.1)  # until it is done with this connection
            return
    raise Failed(f"the server did not listen within {START_TIMEOUT} s")


def last_line(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The load


def load_server(
    scenario: Scenario, process: int, port: int, tools: Tools, cores: machine.Cores
) -> Sample:
    if scenario.deflate:
        check_echo(port, tools.payloads[scenario.size])
    before = machine.Times.read(process)
    with machine.on_cores(cores.client):
        load = subprocess.Popen(
            load_command(scenario, process, port, tools),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    try:
        held = hold(load, process) if scenario.mode == "hold" else {}
        output, errors = load.communicate(timeout=tools.seconds + LOAD_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Failed("the load generator did not end") from None
    finally:
        end(load)
    after = machine.Times.read(process)
    raw = parse_output(output, errors)
    sample = make_sample(scenario, raw, held)
    sample["others"] = round(machine.used_by_others(before, after), 2)
    return sample


def load_command(scenario: Scenario, process: int, port: int, tools: Tools) -> list[str]:
    options: dict[str, Any] = {
        "connections": scenario.connections,
        "size": scenario.size,
        "window": scenario.window,
        "touch": scenario.touch,
        "seconds": tools.seconds,
        "warmup": 0.5 if scenario.connections >= 1000 else 0.3,
        "pid": process,
    }
    if scenario.rate:
        options["rate"] = scenario.rate
    if scenario.deflate:
        options["deflate"] = tools.payloads[scenario.size]
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(tools.load), scenario.mode, str(port), *words]


def hold(load: subprocess.Popen[Any], process: int) -> Sample:
    """What the server holds with all connections open and idle, for each of them."""
    empty = machine.usage(process)
    assert load.stdout is not None
    line = load.stdout.readline()
    alive = parse_output(line, "it printed nothing")["alive"]
    time.sleep(SETTLE)
    full = machine.usage(process)
    if not alive:
        return {}
    return {
        "rss_kib": (full.rss - empty.rss) / alive,
        "threads": (full.threads - empty.threads) / alive,
        "descriptors": (full.descriptors - empty.descriptors) / alive,
        "base_mib": empty.rss / 1024,
    }


# What the load generator tells


def parse_output(output: str, errors: str) -> dict[str, Any]:
    """The JSON object on the last line of its output."""
    lines = output.strip().splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise Failed(f"the load generator failed: {errors.strip()[-200:]}") from None
    if not isinstance(result, dict):
        raise Failed(f"the load generator printed {lines[-1][:200]}")
    return result


def make_sample(scenario: Scenario, raw: dict[str, Any], held: Sample) -> Sample:
    """What is kept of a measurement; ``value`` is what servers are compared by, if there is one."""
    sample: Sample = {"value": value_of(scenario, raw, held)}
    done = raw["cycles"] if scenario.mode == "open" else raw["messages"]
    if done and raw.get("server_cpu"):
        sample["cpu_us"] = round(raw["server_cpu"] * raw["elapsed"] / done * 1e6, 2)
    for name in ("client_cpu", "server_cpu"):
        sample[name] = round(raw.get(name, 0), 2)
    latencies = raw.get("latency_us", {})
    sample.update((name, latencies[name]) for name in ("p50", "p90", "p99", "p999") if latencies)
    sample.update((name, round(value, 2)) for name, value in held.items())
    fault = fault_of(scenario, raw)
    if sample["value"] is None:
        fault = fault or "nothing came back in the time that was measured"
    if fault:
        sample["fault"] = fault
    return sample


def value_of(scenario: Scenario, raw: dict[str, Any], held: Sample) -> Any:
    if scenario.mode == "hold":
        return round(held["rss_kib"], 2) if held else None
    if scenario.mode == "paced":
        return raw.get("latency_us", {}).get("p99")
    done = {"open": raw["cycles"], "echo": raw["messages"], "fanout": raw["messages"]}
    amount = raw["bytes"] / 1e6 if scenario.unit == "MB/s" else done[scenario.mode]
    # Nothing is measured if all connections are lost before.
    return round(amount / raw["elapsed"], 1) if amount and raw["elapsed"] else None


def fault_of(scenario: Scenario, raw: dict[str, Any]) -> str:
    """What went wrong, in words; empty if nothing did."""
    wanted = scenario.connections
    faults = []
    if scenario.mode != "open" and raw["opened"] < wanted:
        faults.append(f"{raw['opened']} of {wanted} connections opened")
    for name, words in FAULTS.items():
        if raw.get(name) and (name != "no_end" or scenario.mode == "open"):
            faults.append(f"{raw[name]} {words}")
    if faults and raw.get("error"):
        faults.append(raw["error"])
    return "; ".join(faults)


FAULTS = {
    "failed": "connections failed to open",
    "lost": "connections lost",
    "wrong": "wrong replies",
    "unanswered": "messages unanswered",
    "unsent": "messages not sent, since too many were unanswered",
    "uncompressed": "replies without compression",
    "no_end": "connections not ended as RFC 6455 §7 asks",
}
