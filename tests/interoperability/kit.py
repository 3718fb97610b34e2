"""Finds what the peers need, or installs it: in a folder with pip and npm, others with apt."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

__all__ = ["Kit", "Missing"]

HERE = pathlib.Path(__file__).resolve().parent
PYTHON_PACKAGES = ["websocket-client", "websockets", "aiohttp", "curl_cffi"]
NODE_PACKAGES = ["ws", "deno", "bun"]
PATIENCE = 600  # seconds for something to be installed

# Debian has the sources of Go's packages in a workspace.
GO_WORKSPACE = pathlib.Path("/usr/share/gocode")
GORILLA = "golang-github-gorilla-websocket-dev"


class Missing(Exception):
    """A peer can't be run; the text says why."""


class Kit:
    """
    Gives the command that starts a peer.

    Args:
        folder: where things are installed and kept.
        install: whether what is missing may be installed.
    """

    def __init__(self, folder: pathlib.Path, install: bool) -> None:
        self._folder = folder
        self._install = install
        folder.mkdir(parents=True, exist_ok=True)

    def python(self, program: str) -> list[str]:
        python = self._folder / "python" / "bin" / "python"
        if not python.exists():
            self._run(sys.executable, "-m", "venv", str(self._folder / "python"))
            self._run(str(python), "-m", "pip", "install", "-q", *PYTHON_PACKAGES)
        return [str(python), str(HERE / program)]

    def node(self, program: str, *options: str) -> list[str]:
        return [self._program("node", "nodejs"), *options, str(HERE / program)]

    def node_package(self, program: str) -> list[str]:
        self._node_modules()
        return self.node(program)

    def deno(self, program: str) -> list[str]:
        deno = str(self._node_modules() / ".bin" / "deno")
        return [deno, "run", "--quiet", "--no-prompt", "--allow-net=127.0.0.1", str(HERE / program)]

    def bun(self, program: str) -> list[str]:
        return [str(self._node_modules() / ".bin" / "bun"), str(HERE / program)]

    def java(self, program: str) -> list[str]:
        return [self._program("java", "default-jdk-headless"), str(HERE / program)]

    def go(self, program: str) -> list[str]:
        go = self._program("go", "golang-go")
        if not (GO_WORKSPACE / "src/github.com/gorilla/websocket").exists():
            self._apt(GORILLA)
        binary = self._folder / program.replace("/", "-").replace(".go", "")
        self._run(go, "build", "-o", str(binary), str(HERE / program), env=self._go_environment())
        version = self._run("dpkg-query", "--show", "--showformat=${Version}", GORILLA)
        return [str(binary), version.partition("-")[0]]

    def environment(self) -> dict[str, str]:
        """What the peers run with."""
        return {
            **os.environ,
            "NODE_MODULES": str(self._folder / "node" / "node_modules"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(HERE.parent.parent),
        }

    def _go_environment(self) -> dict[str, str]:
        ours = {"GOPATH": str(GO_WORKSPACE), "GO111MODULE": "off"}
        return {**os.environ, **ours, "GOCACHE": str(self._folder / "go")}

    def _node_modules(self) -> pathlib.Path:
        folder = self._folder / "node"
        modules = folder / "node_modules"
        if not all((modules / name / "package.json").exists() for name in NODE_PACKAGES):
            npm = self._program("npm", "npm")
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
            self._run(*command, *NODE_PACKAGES)
        return modules

    def _program(self, name: str, package: str) -> str:
        if shutil.which(name) is None:
            self._apt(package)
        found = shutil.which(name)
        if found is None:
            raise Missing(f"{name} is not installed")
        return found

    def _apt(self, package: str) -> None:
        if shutil.which("apt-get") is None or os.geteuid() != 0:
            raise Missing(f"the Debian package {package} is not installed, which root could do")
        self._run("apt-get", "install", "-y", "-q", "--no-install-recommends", package)

    def _run(self, *command: str, env: dict[str, str] | None = None) -> str:
        if not self._install and ("install" in command or "venv" in command):
            raise Missing("not installed, and --no-install was given")
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", timeout=PATIENCE, env=env
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Missing(f"{command[0]}: {exc}") from exc
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise Missing(f"{' '.join(command)[:80]}: {''.join(last)}")
        return done.stdout.strip()
