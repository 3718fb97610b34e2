"""What all tests share: a watch for leaks, certificates, and servers over every transport."""

from __future__ import annotations

import collections
import gc
import os
import signal
import ssl
import sys
import threading
import time

import pytest
import trustme
from links import Link
from ports import held_port

from syncws.connection import Connection
from syncws.service import service
from syncws.speedups import SPEEDUPS

# Tests wait for events; this is how long before they give up.
PATIENCE = 10  # seconds

FD_DIR = "/proc/self/fd"

# What the machine is told of proxies would lead our clients away from our servers.
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]

# What a reason to skip begins with when a program is missing that could be installed.
NOT_TESTED = "NOT TESTED: "

# A shell that runs the suite in the background has it, and all its processes, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return f"syncws: C speedups {'in use' if SPEEDUPS else 'not in use'}"


def pytest_collection_finish():
    """Spare the search for leaks what is there for the whole session: it takes most of its time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Say in the end, where it is read, which parts of the library were not tested."""
    reasons = collections.Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].partition("Skipped: ")[2]
        if reason.startswith(NOT_TESTED):
            reasons[reason] += 1
    if reasons:
        terminalreporter.section("NOT TESTED", sep="*", yellow=True, bold=True)
        for reason, tests in sorted(reasons.items()):
            terminalreporter.line(f"{reason} ({tests} skipped)", yellow=True)


def open_descriptors():
    """The open descriptors and what they stand for; nothing where the platform can't tell."""
    found = {}
    for fd in os.listdir(FD_DIR) if os.path.isdir(FD_DIR) else ():
        try:
            found[fd] = os.readlink(os.path.join(FD_DIR, fd))
        except OSError:  # the one that listed the folder
            continue
    return found


def wait_until(condition):
    """Wait for something that nothing tells about, such as a garbage-collected object."""
    deadline = time.monotonic() + PATIENCE
    pause, seconds = threading.Event(), 0.0005
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(seconds)
        seconds = min(2 * seconds, 0.01)
    return True


def count_references(kind=Connection):
    """References to the classes of connections; each connection is one, and looking is cheap."""
    return sys.getrefcount(kind) + sum(map(count_references, kind.__subclasses__()))


@pytest.fixture(autouse=True)
def no_leaks(caplog):
    """Fail a test that leaves a thread, a descriptor or a connection object behind."""
    service.join(PATIENCE)
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    references = count_references()
    yield

    def left():
        return (
            [thread for thread in threading.enumerate() if thread not in threads],
            {fd: name for fd, name in open_descriptors().items() if descriptors.get(fd) != name},
        )

    assert service.join(PATIENCE), f"the service thread still looks after {service.snapshot()}"
    wait_until(lambda: not any(left()))
    assert left() == ([], {})
    # Only now, when no thread is left to log: records refer to their connections, and their
    # tracebacks to all that the threads had at hand.
    for phase in ("setup", "call", "teardown"):
        caplog.get_records(phase).clear()
    if count_references() > references:
        gc.collect()
        assert [c for c in gc.get_objects() if isinstance(c, Connection)] == []


@pytest.fixture(scope="session")
def authority():
    """A certificate authority of our own."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(authority):
    """TLS for servers at localhost and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_context(authority):
    """TLS for clients that trust our authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def port():
    """A free port for a program that is told where to listen."""
    with held_port() as number:
        yield number


@pytest.fixture(params=["plain", "tls", "unix", "portable", "portable-tls"])
def link(request, server_context, client_context, tmp_path):
    """A way to connect clients to servers; tests with it run once for each kind."""
    return Link(request.param, server_context, client_context, tmp_path)


@pytest.fixture(params=["plain", "portable-tls"])
def slow_link(request, server_context, client_context, tmp_path):
    """Two ways that differ in everything, for tests that have to wait for timeouts."""
    return Link(request.param, server_context, client_context, tmp_path)


@pytest.fixture
def plain(server_context, client_context, tmp_path):
    """Plain TCP."""
    return Link("plain", server_context, client_context, tmp_path)


@pytest.fixture
def tls(server_context, client_context, tmp_path):
    """TLS over TCP."""
    return Link("tls", server_context, client_context, tmp_path)
