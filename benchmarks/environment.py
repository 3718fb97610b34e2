"""Makes what a run needs: an environment with syncws and the peers, and the load generator."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parent
REQUIREMENTS = HERE / "requirements.txt"
PEERS = (
    *("syncws", "websockets", "simple-websocket", "websocket-server", "ws4py"),
    *("aiohttp", "picows", "uvloop", "Werkzeug"),
)
OLDEST = (3, 11)

# Run by the Python of the environment: what is installed there, and what this syncws can do.
PROBE = """
import importlib.metadata, importlib.util, inspect, json, sys
from syncws import Connection, serve
features = {
    "speedups": importlib.util.find_spec("syncws._speedups") is not None,
    "recv_many": hasattr(Connection, "recv_many"),
    "cork": hasattr(Connection, "cork"),
    "affinity": "affinity" in inspect.signature(serve).parameters,
}
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({"features": features, "versions": versions}))
"""


class CannotRun(Exception):
    """Something that the benchmarks need is not there; the text says what to do."""


def default_folder() -> pathlib.Path:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return cache / "syncws-benchmarks" / "python{}.{}".format(*sys.version_info)


def check_platform() -> None:
    if not sys.platform.startswith("linux"):
        raise CannotRun("the benchmarks run on Linux only: they use epoll, /proc and CPU affinity")
    if sys.version_info < OLDEST:
        raise CannotRun(
            "the peers in benchmarks/requirements.txt need Python {}.{} or later".format(*OLDEST)
        )


def prepare(folder: pathlib.Path, with_syncws: bool = True) -> pathlib.Path:
    """Make the environment, or bring it up to date; returns its Python."""
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    mark = folder / "requirements.sha256"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"making an environment in {folder}", file=sys.stderr, flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(folder)], "venv")
        run([*pip(python), "-r", str(REQUIREMENTS)], "pip")
        mark.write_text(wanted)
    if with_syncws:
        install_syncws(python)
    return python


def pip(python: pathlib.Path) -> list[str]:
    return [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]


def install_syncws(python: pathlib.Path) -> None:
    """From a copy of the checkout, which setuptools would leave its own files in."""
    with tempfile.TemporaryDirectory(prefix="syncws-benchmarks-") as work:
        copy = pathlib.Path(work) / "syncws"
        unwanted = shutil.ignore_patterns(
            *(".*", "*.so", "__pycache__", "*.egg-info", "build", "dist"),
            *("benchmarks", "docs", "examples", "tests"),
        )
        shutil.copytree(CHECKOUT, copy, ignore=unwanted)
        options = ["--force-reinstall", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
        run([*pip(python), *options, str(copy)], "pip")


def run(command: list[str], what: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise CannotRun(f"{what} failed:\n{result.stdout.strip()}")


def probe(python: pathlib.Path) -> dict[str, Any]:
    """Versions of the peers, and features of this syncws."""
    command = [str(python), "-c", PROBE, *PEERS]
    # -I of its own working folder: not the checkout, whose syncws would be found first.
    result = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
    if result.returncode:
        raise CannotRun(f"the environment does not work:\n{result.stderr.strip()}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def build_load(folder: pathlib.Path) -> pathlib.Path:
    """Compile the load generator if there is none of this source; returns the program."""
    source = HERE / "load.c"
    program = folder / f"load-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = shutil.which(os.environ.get("CC", "")) or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotRun(
            "no C compiler was found for the load generator; install gcc or clang (on Debian: "
            "apt install gcc libc6-dev), or name one in the environment variable CC"
        )
    folder.mkdir(parents=True, exist_ok=True)
    run([compiler, "-O2", "-Wall", "-o", str(program), str(source)], compiler)
    return program
