"""The shipped program under systemd's socket activation and under supervisord."""

from __future__ import annotations

import configparser
import contextlib
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from conftest import wait_until
from deployed import EXAMPLES, PATIENCE, listens, program, running, shipped
from peers import Task
from supervisor import ROOT, launch

from syncws import connect

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such supervisors"),
]

APP = EXAMPLES / "app.py"
PYTHON = [sys.executable, "-X", "dev", "-W", "error"]


def unit(name):
    """The settings of a unit by section and key; those that occur several times as a list."""
    sections, section = {}, None
    for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


SERVICE = unit("syncws-app.service")["Service"]


def environment():
    """The environment that the service gives to its program."""
    return dict(setting.split("=", 1) for setting in SERVICE["Environment"])


def exchange(client, message):
    client.send(message)
    return client.recv(timeout=PATIENCE)


def status(port):
    """What a health check is told."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc.code


# --- systemd --------------------------------------------------------------------------------------


def test_the_service_runs_the_shipped_program():
    (command,) = SERVICE["ExecStart"]
    interpreter, path = map(pathlib.PurePosixPath, shlex.split(command))
    assert (interpreter.name, path.name) == ("python", APP.name)
    (sock,) = unit("syncws-app.socket")["Socket"]["ListenStream"]
    assert sock == "127.0.0.1:8765"


def test_the_service_has_time_to_stop():
    (stop,) = SERVICE["TimeoutStopSec"]
    assert int(stop) >= float(environment()["DRAIN"]) + 10  # close_timeout


def test_systemd_understands_the_units(tmp_path):
    verify = [program("systemd-analyze", package="systemd"), "verify"]
    names = ("syncws-app.socket", "syncws-app.service")
    for name in names:
        text = shipped(name)
        # It looks whether the program is there.
        text = text.replace("/opt/syncws-app/venv/bin/python", sys.executable)
        (tmp_path / name).write_text(text, encoding="utf-8")
    result = subprocess.run(
        [*verify, *(str(tmp_path / name) for name in names)],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    complaints = [line for line in result.stderr.splitlines() if "syncws-app" in line]
    assert (result.returncode, complaints) == (0, [])


def test_activated_by_its_socket_it_serves_drains_and_leaves_newcomers_to_the_socket():
    """The supervisor is a tiny one, which hands on the socket as systemd does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        early = Task(connect, f"ws://127.0.0.1:{port}", open_timeout=PATIENCE)
        with launch([*PYTHON, APP], listener, **environment()) as process:
            try:
                with early.result(PATIENCE) as client:
                    assert exchange(client, "hello") == "hello"
                    assert status(port) == 200
                    process.terminate()
                    while "server draining" not in process.stderr.readline():
                        pass
                    assert exchange(client, "still here") == "still here"
                    # It waits in the socket that the supervisor keeps.
                    late = Task(connect, f"ws://127.0.0.1:{port}", open_timeout=PATIENCE)
                assert process.wait(PATIENCE) == 0
                process.stdout.close()
                process.stderr.close()
            finally:
                process.kill()
        with launch([*PYTHON, APP], listener, **environment()) as process:
            try:
                with late.result(PATIENCE) as client:
                    assert exchange(client, "hello") == "hello"
                process.terminate()
                assert process.wait(PATIENCE) == 0
                log = process.stderr.read()
            finally:
                process.kill()
        assert re.search(r"INFO connection closed: 127.0.0.1:\d+ \"/\" ", log)


def test_systemd_socket_activate_starts_it_for_the_first_client(tmp_path, port):
    activate = program("systemd-socket-activate", package="systemd")
    settings = [f"--setenv={name}={value}" for name, value in environment().items()]
    settings.append(f"--setenv=PYTHONPATH={ROOT}")
    command = [activate, "-l", f"127.0.0.1:{port}", *settings, *PYTHON, APP]
    with running(command, tmp_path) as process:
        # A connection would start the program: the log tells that it listens.
        assert wait_until(lambda: "Listening on" in process.log()), process.log()
        with connect(f"ws://127.0.0.1:{port}", open_timeout=PATIENCE) as client:
            assert exchange(client, "hello") == "hello"
            fields = {"X-Forwarded-For": "192.0.2.7"}
            with connect(f"ws://127.0.0.1:{port}", additional_headers=fields) as other:
                assert exchange(other, "hello") == "hello"
        process.terminate()
        assert process.wait() == 0
    assert "connection closed: 192.0.2.7:0 " in process.log()


# --- supervisord ----------------------------------------------------------------------------------


@contextlib.contextmanager
def supervised(folder, port):
    """The shipped configuration under the real supervisord."""
    supervisord = program("supervisord", package="supervisor")
    python = f"/usr/bin/env PYTHONPATH={ROOT} {' '.join(PYTHON)}"
    text = shipped(
        "supervisor.conf",
        ("/opt/syncws-app/venv/bin/python", python),
        ("/opt/syncws-app/app.py", str(APP)),
        ('PORT="8765"', f'PORT="{port}"'),
        ("user=www-data\n", ""),
        ("/var/log/supervisor/syncws-app.log", f"{folder}/app.log"),
    )
    text += f"\n[supervisord]\nlogfile={folder}/supervisord.log\npidfile={folder}/pid\n"
    config = folder / "supervisor.conf"
    config.write_text(text, encoding="utf-8")
    # It is a program of the system's Python, which has modules of its own.
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with running([supervisord, "-n", "-c", config], folder, env=variables) as process:
        assert wait_until(lambda: listens(port)), process.log()
        yield process


def test_supervisord_starts_it_and_stops_it_gracefully(tmp_path, port):
    with supervised(tmp_path, port) as process:
        fields = {"X-Forwarded-For": "192.0.2.7"}
        with connect(f"ws://127.0.0.1:{port}", additional_headers=fields) as client:
            assert exchange(client, "hello") == "hello"
            process.terminate()
            assert wait_until(lambda: status(port) == 503)
            assert exchange(client, "still here") == "still here"
        assert process.wait() == 0
    log = (tmp_path / "app.log").read_text(encoding="utf-8")
    assert "server draining" in log
    assert re.search(r'INFO connection closed: 192.0.2.7:0 "/" .* received 1000', log)


def test_the_shipped_supervisor_configuration_leaves_time_to_stop():
    config = configparser.ConfigParser(inline_comment_prefixes=(";",))
    config.read(EXAMPLES / "supervisor.conf", encoding="utf-8")
    settings = config["program:syncws-app"]
    drain = re.search(r'DRAIN="(\d+)"', settings["environment"])
    assert int(settings["stopwaitsecs"]) >= int(drain[1]) + 10  # close_timeout


@pytest.mark.parametrize("name", ["supervisor.conf", "syncws-app.service"])
def test_the_shipped_drain_is_longer_than_haproxy_takes_to_notice(name):
    drain = re.search(r"DRAIN=\"?(\d+)", (EXAMPLES / name).read_text(encoding="utf-8"))
    config = (EXAMPLES / "haproxy.cfg").read_text(encoding="utf-8")
    for inter, fast in re.findall(r"check.* inter (\d+)s fastinter (\d+)ms", config):
        assert int(drain[1]) > int(inter) + 2 * int(fast) / 1000  # three answers settle it
