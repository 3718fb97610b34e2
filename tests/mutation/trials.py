"""
Trials of mutants: the tests that may kill one, in a forked process that imports it afresh.

The process that forks has imported all that the tests import but syncws and the tests, so that a
trial costs little more than its tests. Those that are known to be quick, and those that killed
other mutants of the module, come first.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Optional

import pytest
from mutants import Mutant

MEMORY = 4 * 1024**3  # bytes that a trial may map; what takes more fails with MemoryError
PATIENCE = 900  # seconds of real time for a trial: computing time is what ends it on a busy machine

NO_REPORT = '{"failed": [], "reason": "", "durations": {}, "modules": []}'

OPTIONS = [
    "-q",
    "-x",
    "--tb=native",
    "--assert=plain",
    # The fixture in conftest.py looks for leaks, of which these modules have none.
    "--noconftest",
    # On a busy machine a test may take long and be none the worse; computing time is limited.
    "--timeout=0",
    "-p",
    "no:cacheprovider",
    # Plugins of pytest are among what was imported before the fork.
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]

# Whose tests use a module, beside those in the file that bears its name: they are run on what
# survives these.
USERS = {
    "masking": ["frames", "protocol"],
    "speedups": ["frames", "protocol"],
    "frames": ["messages", "protocol"],
    "messages": ["protocol"],
    "headers": ["http11", "handshake", "protocol"],
    "http11": ["handshake"],
}


class Verdict(enum.Enum):
    """How a trial ended."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"


class Outcome(NamedTuple):
    """How the tests of a process ended: its status, negative for a signal, and computing time."""

    status: int
    seconds: float
    failed: list[str]
    reason: str
    durations: dict[str, float]
    modules: list[str]


class MutatedFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a source in memory."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"syncws.{mutant.module}"
        self._source = mutant.source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def get_source(self, fullname: str) -> str:
        return self._source


class Watch:
    """A plugin of pytest: brings the tests into an order, and keeps how they ended."""

    def __init__(self, order: dict[str, float], finish: Callable[[int], NoReturn]) -> None:
        self._order = order
        self._finish = finish
        self.failed: list[str] = []
        self.reason = ""
        self.durations: dict[str, float] = collections.defaultdict(float)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._order.get(item.nodeid, 0.0))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
            self.reason = str(report.longrepr)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
        self.durations[item.nodeid] += call.duration
        if call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
            self.failed.append(item.nodeid)
            self.reason = repr(call.excinfo.value)
            # Nobody reads what pytest would make of it, and that takes longer than most tests.
            self._finish(1)


class Trials:
    """
    Tries mutants of one module.

    Args:
        module: its name inside syncws.
        properties: files of tests that hold for any input; they come last.
    """

    def __init__(self, module: str, properties: list[str]) -> None:
        own = [f"tests/test_{module}.py"]
        others = [f"tests/test_{name}.py" for name in USERS[module]]
        self._stages = [files for files in (own, others, properties) if files]
        self._limits: list[int] = []
        self._order: dict[str, float] = {}

    def prepare(self) -> None:
        """
        Run the tests without a mutant, which must succeed.

        Raises:
            RuntimeError: they fail.
        """
        for files in self._stages:
            outcome = run_forked(files, self._order, None, 600)
            if outcome.status != 0:
                raise RuntimeError(f"without a mutant, {outcome.failed}: {outcome.reason}")
            self._order.update(outcome.durations)
            self._limits.append(round(3 * outcome.seconds) + 5)
            for name in outcome.modules:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        gc.collect()
        gc.freeze()

    def run(self, mutant: Mutant) -> tuple[Verdict, str]:
        """Try a mutant; return what became of it, and the test that killed it."""
        for files, limit in zip(self._stages, self._limits):
            outcome = run_forked(files, self._order, mutant, limit)
            if outcome.status in (-signal.SIGXCPU, -signal.SIGKILL):
                return Verdict.TIMEOUT, ""
            if outcome.status != 0:
                killer = outcome.failed[0] if outcome.failed else files[0]
                self._order[killer] = self._order.get(killer, 0.0) / 4
                return Verdict.KILLED, killer
        return Verdict.SURVIVED, ""


def run_forked(
    files: list[str], order: dict[str, float], mutant: Optional[Mutant], limit: int
) -> Outcome:
    """
    Run tests in a forked process, until one fails.

    Args:
        files: files of tests.
        order: test names to be sorted by these values.
        mutant: what to import in place of a module.
        limit: seconds of computing time.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            run_tests(files, order, mutant, limit, writing)
        finally:
            os._exit(70)
    os.close(writing)
    with open(reading, "rb") as results:
        # The end of the pipe is the end of the process: it starts none itself.
        if not select.select([results], [], [], PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
        report = results.read()
    _, status, usage = os.wait4(pid, 0)
    return Outcome(
        os.waitstatus_to_exitcode(status),
        usage.ru_utime + usage.ru_stime,
        **json.loads(report or NO_REPORT),
    )


def run_tests(
    files: list[str], order: dict[str, float], mutant: Optional[Mutant], limit: int, writing: int
) -> NoReturn:
    """Run tests in this process, write the report to a pipe, and end the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    before = set(sys.modules)

    def finish(status: int) -> NoReturn:
        imported = [name for name in sys.modules if name not in before and is_foreign(name)]
        report = {
            "failed": watch.failed,
            "reason": watch.reason,
            "durations": watch.durations,
            "modules": imported,
        }
        with open(writing, "w") as results:
            json.dump(report, results)
        os._exit(status)

    if mutant is not None:
        sys.meta_path.insert(0, MutatedFinder(mutant))
    watch = Watch(order, finish)
    finish(int(pytest.main([*OPTIONS, *files], plugins=[watch])))


def is_foreign(name: str) -> bool:
    """Whether a module is neither syncws nor a part of its tests."""
    module = sys.modules[name]
    path = getattr(module, "__file__", None) or ""
    return not name.startswith("syncws") and not path.startswith(os.getcwd())
