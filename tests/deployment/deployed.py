"""Real proxies with the shipped configurations, and processes started by real supervisors."""

from __future__ import annotations

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess

import pytest
from conftest import wait_until
from ports import held_port

from syncws import connect

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples" / "deployment"

PATIENCE = 20  # seconds; a process takes a while to start


def program(name, *, package=None):
    """Path of a program; skips the test, and says what to install, where it is missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"NOT TESTED: there is no {name}; apt-get install {package or name}")
    return path


def shipped(name, *changes):
    """A shipped configuration with changes: pairs of what is there and what takes its place."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for there, instead in changes:
        assert there in text, f"{name} has no {there!r}"
        text = text.replace(there, instead)
    return text


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class Process:
    """A program that serves, with its output in a file."""

    def __init__(self, popen, output):
        self._popen = popen
        self._output = output

    def log(self):
        return self._output.read_text(encoding="utf-8", errors="replace")

    def signal(self, number):
        self._popen.send_signal(number)

    def terminate(self):
        self._popen.terminate()

    def wait(self):
        """Wait for the end; returns the status."""
        return self._popen.wait(PATIENCE)

    def is_alive(self):
        return self._popen.poll() is None


@contextlib.contextmanager
def running(command, folder, **options):
    """Run a program in a group of its own, all of which ends with the block."""
    output = folder / "output.txt"
    with open(output, "wb") as file:
        popen = subprocess.Popen(
            list(map(str, command)), stdout=file, stderr=file, start_new_session=True, **options
        )
    process = Process(popen, output)
    try:
        yield process
    finally:
        popen.terminate()
        try:
            popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait(PATIENCE)


class Proxy:
    """A proxy that listens on a plain and on a TLS port, and perhaps passes TLS on from a third."""

    name, package = "", ""

    def __init__(self, folder, client_context=None):
        self.program = self.require()  # Before a port is held: this may skip the test.
        self.folder = folder
        self.client_context = client_context
        self.ports = {}
        self.process = None
        self._held = contextlib.ExitStack()
        for kind in ("plain", "tls", "passthrough"):
            self.ports[kind] = self._held.enter_context(held_port())

    @classmethod
    def require(cls):
        """Path of the program; skips the test, and says what to install, where it is missing."""
        return program(cls.name, package=cls.package)

    def url(self, kind, path="/", scheme="ws"):
        secure = "" if kind == "plain" else "s"
        return f"{scheme}{secure}://127.0.0.1:{self.ports[kind]}{path}"

    def connect(self, kind, **options):
        if kind != "plain":
            options["ssl"] = self.client_context
        return connect(self.url(kind), open_timeout=PATIENCE, **options)

    @contextlib.contextmanager
    def run(self, command):
        with self._held, running(command, self.folder) as self.process:
            assert wait_until(lambda: self.is_ready() or not self.process.is_alive())
            assert self.process.is_alive(), self.process.log()
            yield self

    def is_ready(self):
        """Whether it serves, and takes care of signals."""
        return listens(self.ports["tls"])


class Nginx(Proxy):
    """The real nginx, unprivileged, with all its files in a folder."""

    name, package = "nginx", "nginx-light"

    def start(self, certificate, *changes, app):
        """
        Start it in front of ``app``, the port of a server.

        ``certificate`` is a file with chain and key, ``changes`` are further ones of the
        shipped configuration.
        """
        own = "".join(
            f"    {name}_temp_path {self.folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = shipped(
            "nginx.conf",
            ("listen 80;", f"listen 127.0.0.1:{self.ports['plain']};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.ports['tls']} ssl;"),
            ("127.0.0.1:8765;", f"127.0.0.1:{app};"),
            ("/etc/ssl/example/chain.pem", str(certificate)),
            ("/etc/ssl/example/key.pem", str(certificate)),
            ("worker_processes auto;", "worker_processes 1;"),
            ("worker_rlimit_nofile 30000;", ""),
            ("worker_connections 20000;", "worker_connections 100;"),
            ("http {\n", f"http {{\n    access_log off;\n{own}"),
            *changes,
        )
        config = self.folder / "nginx.conf"
        config.write_text(text, encoding="utf-8")
        settings = f"daemon off; pid {self.folder}/pid; error_log stderr notice;"
        if os.geteuid() == 0:
            settings += f" user {getpass.getuser()};"  # else its workers may not enter the folder
        return self.run(
            [self.program, "-p", self.folder, "-c", config, "-e", "stderr", "-g", settings]
        )

    def reload(self):
        """Reload gracefully: a further worker has newcomers, the first one its connections."""
        self.process.signal(signal.SIGHUP)
        assert wait_until(lambda: "gracefully shutting down" in self.process.log())


class HAProxy(Proxy):
    """The real HAProxy, with a master and a worker, as under systemd."""

    name, package = "haproxy", "haproxy"

    def start(self, certificate, *changes, app=1, app_with_tls=1):
        """As for :class:`Nginx`; ``app_with_tls`` is the port of a server that has TLS itself."""
        text = shipped(
            "haproxy.cfg",
            ("bind :80\n", f"bind 127.0.0.1:{self.ports['plain']}\n"),
            ("bind :443 ssl", f"bind 127.0.0.1:{self.ports['tls']} ssl"),
            ("bind :8443\n", f"bind 127.0.0.1:{self.ports['passthrough']}\n"),
            ("127.0.0.1:8765 check", f"127.0.0.1:{app} check"),
            ("127.0.0.1:8766 send", f"127.0.0.1:{app_with_tls} send"),
            ("/etc/ssl/example/all.pem", str(certificate)),
            ("maxconn 20000", "maxconn 100"),
            *changes,
        )
        config = self.folder / "haproxy.cfg"
        config.write_text(text, encoding="utf-8")
        return self.run([self.program, "-W", "-db", "-S", self.folder / "master", "-f", config])

    def is_ready(self):
        # Its master loses signals that come before it answers here.
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            try:
                sock.connect(str(self.folder / "master"))
                sock.sendall(b"show proc\n")
                return b"worker" in sock.recv(1000)
            except OSError:
                return False

    def reload(self):
        """Reload gracefully: a further worker has newcomers, the first one its connections."""
        before = self.process.log().count("Loading success")
        self.process.signal(signal.SIGUSR2)
        assert wait_until(lambda: self.process.log().count("Loading success") > before), (
            self.process.log()
        )
