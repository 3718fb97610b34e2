"""Tries all mutants of some modules and reports on them; started by ``run``, which see."""

from __future__ import annotations

import argparse
import collections
import glob
import multiprocessing
import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import Optional

from equivalents import known_equivalents
from mutants import Mutant, mutants
from trials import USERS, Trials, Verdict

COLUMNS = ("mutants", "killed", "timeout", "survived", "killed %", "equivalent", "without them %")

Results = list[tuple[Mutant, Verdict, str]]


def main() -> int:
    options = parse_options()
    deadline = time.monotonic() + options.limit * 60
    equivalents = known_equivalents()
    # Beside this process, whose time is that of the tests.
    results: dict[str, Results] = {}
    complete = True
    for module in options.modules or USERS:
        source = pathlib.Path("syncws", f"{module}.py").read_text()
        chosen = list(mutants(module, source, options.only))
        properties = glob.glob("tests/test_properties_*.py") if options.properties else []
        trials = Trials(module, sorted(properties))
        trials.prepare()
        results[module] = []
        for result in try_all(trials, chosen, options.jobs, deadline):
            report(*result, result[0].key in equivalents, options.verbose)
            results[module].append(result)
        complete = complete and len(results[module]) == len(chosen)
    print_table(results, equivalents)
    if not complete:
        print(f"Not all mutants were tried: {options.limit} minutes were over.")
        return 2
    percentages = [percent(*count(found)[:2]) for found in results.values()]
    return 1 if min(percentages) < options.fail_under else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/mutation/run")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(USERS)}")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="functions with it in their name"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time (default 1)")
    parser.add_argument("--properties", action="store_true", help="tests of properties too: slow")
    parser.add_argument("--limit", type=float, default=60, help="minutes in all (default 60)")
    parser.add_argument("--fail-under", type=float, default=90, help="percent (default 90)")
    parser.add_argument("--verbose", action="store_true", help="also tell what killed each mutant")
    options = parser.parse_args()
    unknown = set(options.modules) - set(USERS)
    if unknown:
        parser.error(f"no such modules: {', '.join(unknown)}")
    return options


_trials: Optional[Trials] = None


def set_trials(trials: Trials) -> None:
    global _trials
    _trials = trials


def try_one(mutant: Mutant) -> tuple[Mutant, Verdict, str]:
    assert _trials is not None
    return (mutant, *_trials.run(mutant))


def try_all(
    trials: Trials, chosen: list[Mutant], jobs: int, deadline: float
) -> Iterator[tuple[Mutant, Verdict, str]]:
    """Try mutants, some at a time, until the deadline."""
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, set_trials, (trials,)) as pool:
        waiting = pool.imap(try_one, chosen)
        for number, _ in enumerate(chosen):
            try:
                yield waiting.next(max(0, deadline - time.monotonic()))
            except multiprocessing.TimeoutError:
                return
            if sys.stderr.isatty():
                print(f"\r{number + 1}/{len(chosen)}", end="", file=sys.stderr, flush=True)


def report(mutant: Mutant, verdict: Verdict, killer: str, listed: bool, verbose: bool) -> None:
    """Print the mutants that a reader wants to see."""
    if verdict is Verdict.SURVIVED and not listed:
        print(f"SURVIVED {mutant}\n", flush=True)
    elif verdict is not Verdict.SURVIVED and listed:
        print(f"LISTED AS EQUIVALENT, BUT {verdict.name} {killer} {mutant}\n", flush=True)
    elif verdict is Verdict.TIMEOUT or verbose:
        print(f"{verdict.name} {killer} {mutant}\n", flush=True)


def print_table(results: dict[str, Results], equivalents: dict[tuple[str, str, str, str], str]):
    """Print a line for each module, and one for all."""
    print(f"{'':10}" + "".join(f"{column:>16}" for column in COLUMNS))
    total = [result for found in results.values() for result in found]
    for module, found in [*results.items(), ("all", total)]:
        size, dead = count(found)
        verdicts = collections.Counter(verdict for _, verdict, _ in found)
        same = sum(m.key in equivalents for m, v, _ in found if v is Verdict.SURVIVED)
        cells = [
            *(size, verdicts[Verdict.KILLED], verdicts[Verdict.TIMEOUT]),
            *(verdicts[Verdict.SURVIVED], f"{percent(size, dead):.1f}"),
            *(same, f"{percent(size - same, dead):.1f}"),
        ]
        print(f"{module:10}" + "".join(f"{cell:>16}" for cell in cells))


def count(results: Results) -> tuple[int, int]:
    """How many there are, and how many of them are dead."""
    return len(results), sum(verdict is not Verdict.SURVIVED for _, verdict, _ in results)


def percent(size: int, dead: int) -> float:
    return 100 * dead / size if size else 100.0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
