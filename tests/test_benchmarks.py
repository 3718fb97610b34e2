"""The benchmarks: what they make of their measurements. None is made here."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks are for Linux", allow_module_level=True)

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402 # found by the line above
    catalog,
    compressed,
    machine,
    plan,
    report,
    results,
    sampling,
    summary,
)


def server(name):
    return next(each for each in catalog.SERVERS if each.name == name)


def scenario(name):
    return next(each for each in catalog.SCENARIOS if each.name == name)


OURS, REFERENCE, LOOP = server("syncws"), server("websockets-sync"), server("picows")
ECHO = scenario("echo-10")


def raw(**changes):
    """What the load generator tells of a measurement in which all went well."""
    told = {
        **{"opened": 10, "failed": 0, "lost": 0, "alive": 10, "elapsed": 2.0},
        **{"messages": 1000, "bytes": 32000, "cycles": 0, "client_cpu": 0.5, "server_cpu": 1.0},
        **{"wrong": 0, "unanswered": 0, "unsent": 0, "uncompressed": 0, "no_end": 0, "error": ""},
        "latency_us": {"count": 1000, "p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0},
    }
    return {**told, **changes}


def sample(value, who=OURS, what=ECHO, layout=catalog.PINNED, **more):
    names = {"layout": layout, "scenario": what.name, "server": who.name, "round": 0}
    return {**names, "value": value, "others": 0.0, "client_cpu": 0.5, **more}


def made(*samples, **changes):
    meta = {
        **{"date": "2026-01-31", "quick": False, "interrupted": False, "rounds": 3, "seconds": 2},
        "machine": {
            **{
                "cpu": "A processor",
                "cores": 2,
                "usable_cores": 2,
                "memory_gib": 8.0,
                "open_files": 20000,
            },
            **{"kernel": "Linux 6", "libc": "glibc 2", "python": "3.11.7", "compiler": "GCC"},
        },
        "versions": {"syncws": "1.0", "picows": "2.3.1"},
        "features": {"speedups": True},
    }
    return results.Results({**meta, **changes}, list(samples))


# The plan


def test_turning_keeps_the_order_and_begins_elsewhere():
    assert [plan.turned("abc", by) for by in range(4)] == [
        *(["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"])
    ]
    assert plan.turned([], 3) == []


def test_a_round_runs_each_scenario_with_all_servers_before_the_next():
    steps = plan.make_plan(
        [OURS, REFERENCE], [ECHO, scenario("open-16")], [catalog.PINNED], rounds=2
    )
    assert [(step.round, step.scenario.name, step.server.name) for step in steps] == [
        (0, "echo-10", "syncws"),
        (0, "echo-10", "websockets-sync"),
        (0, "open-16", "syncws"),
        (0, "open-16", "websockets-sync"),
        (1, "echo-10", "websockets-sync"),
        (1, "echo-10", "syncws"),
        (1, "open-16", "websockets-sync"),
        (1, "open-16", "syncws"),
    ]


def test_a_plan_leaves_out_what_a_server_cannot_do():
    steps = plan.make_plan(
        [OURS, LOOP], [scenario("deflate-1kib")], list(catalog.LAYOUTS), rounds=1
    )
    assert [step.server for step in steps] == [OURS, OURS]


def test_memory_is_measured_pinned_only_and_not_in_all_rounds():
    steps = plan.make_plan([OURS], [scenario("idle-100")], list(catalog.LAYOUTS), rounds=9)
    assert [(step.layout, step.round) for step in steps] == [("pinned", 0), ("pinned", 1)]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("syncws", ["syncws"]),
        ("picows,syncws", ["picows", "syncws"]),
        ("picows*", ["picows", "picows-uvloop"]),
        (None, [each.name for each in catalog.SERVERS]),
    ],
)
def test_names_choose(names, chosen):
    assert [each.name for each in plan.choose(catalog.SERVERS, names, "server")] == chosen


def test_an_unknown_name_is_told_with_those_there_are():
    with pytest.raises(plan.UnknownName, match=r"no server 'sinkws'; there are syncws, "):
        plan.choose(catalog.SERVERS, "sinkws", "server")


# The catalog


def test_the_names_are_unique():
    for items in (catalog.SERVERS, catalog.SCENARIOS):
        names = [each.name for each in items]
        assert len(set(names)) == len(names)


def test_each_server_has_its_program():
    programs = {path.stem for path in (ROOT / "benchmarks" / "servers").glob("*.py")}
    assert programs == {each.program for each in catalog.SERVERS}


def test_each_scenario_is_of_a_group_and_of_a_mode_that_the_load_generator_has():
    source = (ROOT / "benchmarks" / "load.c").read_text()
    modes = set(re.findall(r'\{"(\w+)", run_\w+\}', source))
    assert {each.group for each in catalog.SCENARIOS} == set(catalog.GROUPS)
    assert {each.mode for each in catalog.SCENARIOS} == modes


def test_the_load_generator_knows_every_option_that_it_is_given():
    known = set(
        re.findall(r'strcmp\(name, "(--\w+)"\)', (ROOT / "benchmarks" / "load.c").read_text())
    )
    tools = sampling.Tools(
        pathlib.Path("python"),
        pathlib.Path("load"),
        dict.fromkeys((1024, 16384), pathlib.Path("x")),
        pathlib.Path("logs"),
        2.0,
    )
    for each in catalog.SCENARIOS:
        words = sampling.load_command(each, 1, 2, tools)
        assert words[1:3] == [each.mode, "2"]
        assert {word for word in words if word.startswith("--")} <= known


def test_the_peers_are_pinned():
    lines = (ROOT / "benchmarks" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))


# What the load generator tells


def test_the_last_line_of_the_load_generator_counts():
    assert sampling.parse_output('{"alive": 3}\n{"opened": 3}\n', "") == {"opened": 3}


@pytest.mark.parametrize("output", ["", "load: no memory", "[1]"])
def test_other_output_of_the_load_generator_is_a_failure(output):
    with pytest.raises(sampling.Failed, match="load generator"):
        sampling.parse_output(output, "load: no memory")


def test_the_value_of_a_sample_is_a_rate():
    assert sampling.make_sample(ECHO, raw(), {})["value"] == 500
    assert sampling.make_sample(scenario("flood"), raw(bytes=10**8), {})["value"] == 50
    assert sampling.make_sample(scenario("open-16"), raw(cycles=300), {})["value"] == 150


def test_the_value_of_paced_messages_is_a_latency():
    assert sampling.make_sample(scenario("paced"), raw(), {})["value"] == 3.0


def test_the_value_of_idle_connections_is_memory():
    held = {"rss_kib": 24.126, "threads": 1.0, "descriptors": 1.0, "base_mib": 20.0}
    kept = sampling.make_sample(scenario("idle-100"), raw(opened=100, messages=0), held)
    assert (kept["value"], kept["threads"]) == (24.13, 1.0)


def test_nothing_that_came_back_is_no_value():
    for elapsed in (2.0, 0.0):
        kept = sampling.make_sample(ECHO, raw(messages=0, elapsed=elapsed, latency_us={}), {})
        assert kept["value"] is None
        assert kept["fault"] == "nothing came back in the time that was measured"


def test_the_processor_time_is_for_one_message():
    assert sampling.make_sample(ECHO, raw(), {})["cpu_us"] == 2000


def test_what_went_well_has_no_fault():
    assert "fault" not in sampling.make_sample(ECHO, raw(), {})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"opened": 9, "error": "Connection reset"},
            "9 of 10 connections opened; Connection reset",
        ),
        ({"wrong": 2}, "2 wrong replies"),
        ({"unanswered": 7}, "7 messages unanswered"),
        ({"no_end": 7, "error": "closed without a close frame"}, ""),
    ],
)
def test_faults_are_told_in_words(changes, fault):
    assert sampling.fault_of(ECHO, raw(**changes)) == fault


def test_the_end_of_connections_counts_where_they_are_opened_and_closed():
    assert "7 connections not ended" in sampling.fault_of(scenario("open-16"), raw(no_end=7))


# Statistics


def test_a_cell_is_the_median_with_its_range():
    cell = summary.summarize([sample(value) for value in (30.0, 10.0, 11.0)])
    assert (cell.median, cell.low, cell.high) == (11.0, 10.0, 30.0)
    assert summary.spread(cell) == pytest.approx(20 / 11)


def test_a_cell_without_values_has_none_but_tells_the_faults():
    cell = summary.summarize([{"fault": "it did not start"}, {"fault": "it did not start"}])
    assert (cell.median, cell.faults) == (None, ("it did not start",))
    assert summary.spread(cell) is None


def test_a_cell_tells_noise_by_the_median_and_a_busy_client_by_the_most():
    cell = summary.summarize([sample(1.0, others=noise) for noise in (0.0, 0.1, 2.0)])
    assert not cell.is_noisy
    cell = summary.summarize([sample(1.0, others=0.3), sample(1.0, others=0.4, client_cpu=0.95)])
    assert cell.is_noisy
    assert cell.is_client_busy


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (84123.4, "84,123")],
)
def test_numbers_have_about_three_digits(value, text):
    assert summary.number(value) == text


def test_better_is_more_or_less():
    assert summary.times_better(20.0, 10.0, more_is_better=True) == 2
    assert summary.times_better(20.0, 10.0, more_is_better=False) == 0.5
    assert summary.times_better(None, 10.0, more_is_better=True) is None
    assert summary.times_better(20.0, 0.0, more_is_better=True) is None


# The page


def test_a_page_has_median_ratio_and_range():
    run = made(sample(300.0), sample(200.0), sample(100.0, REFERENCE))
    page = report.make_page(run)
    assert "| **250**\n       | 2.50×\n       | 200–300" in page
    assert "**Not pinned**" not in page


def test_a_page_tells_where_others_are_ahead():
    idle = scenario("idle-100")
    run = made(
        *(sample(300.0), sample(600.0, LOOP), sample(100.0, REFERENCE)),
        *(sample(24.0, what=idle), sample(12.0, LOOP, idle), sample(70.0, REFERENCE, idle)),
    )
    assert [
        (what.name, [(factor, who.name) for factor, who in better])
        for _, what, better in report.ahead(run)
    ] == [("echo-10", [(2.0, "picows")]), ("idle-100", [(2.0, "picows")])]
    assert "picows 2.00×" in report.make_page(run)


def test_a_page_says_when_nobody_is_ahead():
    assert "Nowhere in this run." in report.make_page(made(sample(2.0), sample(1.0, REFERENCE)))


def test_variants_of_ours_are_not_others():
    assert report.ahead(made(sample(1.0), sample(2.0, server("syncws-pure")))) == []


def test_results_of_a_smoke_run_do_not_pretend_to_be_more():
    assert "smoke run" not in report.make_page(made(sample(1.0)))
    assert "smoke run" in report.make_page(made(sample(1.0), quick=True))


def test_an_interrupted_run_says_so():
    assert "interrupted" in report.make_page(made(sample(1.0), interrupted=True))


def test_a_page_names_faults_and_busy_clients():
    fault = "closed *badly*"
    page = report.make_page(made(sample(1.0, fault=fault), sample(2.0, LOOP, client_cpu=0.97)))
    assert "| **1.00** †" in page
    assert r"† syncws, echo-10 (pinned): closed \*badly\*" in page
    assert "echo-10 of picows (pinned, 97%)" in page


def test_the_echo_of_32_bytes_is_also_the_first_of_the_sizes():
    run = made(sample(1.0), sample(2.0, what=scenario("echo-1kib")))
    assert [each.title for each in run.group("size", catalog.PINNED)] == ["32 B", "1 KiB"]
    assert made(sample(1.0)).group("size", catalog.PINNED) == []


def test_results_survive_the_file(tmp_path):
    run = made(sample(1.0), sample(2.0, LOOP))
    path = tmp_path / "results.json"
    results.save(run, path)
    assert results.load(path) == run
    assert (
        len(path.read_text().splitlines()) == len(json.dumps(run.meta, indent=1).splitlines()) + 6
    )


# Payloads, cores, the command


@pytest.mark.parametrize("size", [1024, 16384])
def test_payloads_are_compressed_and_come_back(size):
    data = compressed.records(size)
    assert len(data) == size
    small = compressed.compress(data)
    assert len(small) < size / 2
    assert compressed.decompress(small) == data


def test_server_and_load_generator_have_a_core_each():
    cores = machine.choose_cores(pinned=True)
    if cores.server is None:
        pytest.skip("this machine has one core")
    assert len(cores.server) == len(cores.client) == 1
    assert cores.server != cores.client
    assert machine.choose_cores(pinned=False) == (None, None)


def test_the_command_lists_servers_and_scenarios_without_making_anything(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "run"),
        "--list",
        "--venv",
        str(tmp_path / "x"),
    ]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20, check=True)
    assert {"websockets-sync", "fanout-1000", "pinned"} <= set(result.stdout.split())
    assert list(tmp_path.iterdir()) == []
