"""Network namespaces with a link between them, which a scenario makes for itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import shutil
import subprocess

from scenario import Skipped

__all__ = ["CLIENT_HOST", "DEVICE", "SERVER_HOST", "Network", "enter_namespace"]

PREFIX = "syncws-link-"  # of namespaces; then comes the number of the process that made them
DEVICE = "syncws"  # in both namespaces

SERVER_HOST, CLIENT_HOST = "10.213.7.1", "10.213.7.2"

CLONE_NEWNET = 0x40000000  # sched.h


def enter_namespace(name):
    """Have sockets of this thread, and of those it starts, live in a network namespace."""
    with open(f"/run/netns/{name}", "rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter namespace {name}")


def run_ip(*arguments):
    """Run ``ip``; raises ``CalledProcessError``."""
    command = ["ip", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def remove_stale_namespaces():
    """Remove what was left by scenarios that were killed before they could do it."""
    for path in pathlib.Path("/run/netns").glob(f"{PREFIX}*"):
        pid = path.name[len(PREFIX) :].partition("-")[0]
        if not pathlib.Path(f"/proc/{pid}").exists():
            run_ip("netns", "delete", path.name)


class Network:
    """
    Two namespaces; a context manager that removes them.

    Raises ``Skipped`` where that isn't possible.

    Attributes:
        server, client: the names of the namespaces.
    """

    def __init__(self):
        self.server = f"{PREFIX}{os.getpid()}-server"
        self.client = f"{PREFIX}{os.getpid()}-client"

    def __enter__(self):
        if shutil.which("ip") is None:
            raise Skipped("needs the ip command (iproute2)")
        if os.geteuid() != 0:
            raise Skipped("needs root, to make network namespaces")
        remove_stale_namespaces()
        try:
            run_ip("netns", "add", self.server)
            run_ip("netns", "add", self.client)
        except subprocess.CalledProcessError as exc:
            self._remove()
            raise Skipped(f"can't make network namespaces: {exc.stderr.strip()}") from exc
        return self

    def __exit__(self, *exc_info):
        self._remove()

    def _remove(self):
        for name in (self.server, self.client):
            with contextlib.suppress(subprocess.CalledProcessError):  # it may be gone
                run_ip("netns", "delete", name)

    def join(self):
        """Join the namespaces with a pair of virtual Ethernet devices."""
        pair = ["link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE]
        run_ip("-n", self.server, *pair, "netns", self.client)
        self.configure()

    def configure(self):
        """Give the devices their addresses, and take them up."""
        for name, host in ((self.server, SERVER_HOST), (self.client, CLIENT_HOST)):
            run_ip("-n", name, "address", "add", f"{host}/24", "dev", DEVICE)
            run_ip("-n", name, "link", "set", DEVICE, "up")

    def cut(self, side):
        """Take the link down at one side, a namespace; neither end is told by a packet."""
        run_ip("-n", side, "link", "set", DEVICE, "down")

    def mend(self, side):
        run_ip("-n", side, "link", "set", DEVICE, "up")

    def remove_client_address(self):
        run_ip("-n", self.client, "address", "delete", f"{CLIENT_HOST}/24", "dev", DEVICE)

    def remove_client(self):
        """
        Remove the clients' namespace.

        The kernel keeps what is in it, unreachable, as long as sockets in it have unsent data.
        """
        run_ip("netns", "delete", self.client)

    def rebuild_client(self):
        """Put a machine with the same address in its place, which knows of no connections."""
        run_ip("netns", "add", self.client)
        run_ip("-n", self.server, "link", "delete", DEVICE)  # and with it the other of the pair
        self.join()
