"""
The server under test: an echo server in a process of its own, with handlers for bad peers.

/       echoes
/leave  returns at once, so that the server closes
/flood  sends until the connection is closed, and never receives
/deaf   does nothing until the connection is closed, and never receives

Settings: ``options`` of serve(), ``certificate`` (a file with chain and key) for a second server
over TLS, or null.
"""

from __future__ import annotations

import json
import logging
import ssl
import sys

from links import echo
from programs import obey
from vitals import count, held, sample

from syncws import serve

FLOOD = b"flood " * 1000


def leave(connection):
    """Have the server close."""


def flood(connection):
    while True:
        connection.send(FLOOD)


def be_deaf(connection):
    connection.wait_closed()


HANDLERS = {"/": echo, "/leave": leave, "/flood": flood, "/deaf": be_deaf}


class EchoServers:
    """
    The servers of the process and the commands that it obeys.

    Subclasses may give further handlers before they call ``__init__()``.
    """

    handlers = HANDLERS  # by the first part of the path

    def __init__(self, options, certificate):
        self._servers = [serve(self._handle, "127.0.0.1", 0, **options)]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._servers.append(serve(self._handle, "127.0.0.1", 0, ssl=context, **options))
        for server in self._servers:
            server.start()

    @property
    def connections(self):
        """The connections of all servers, open, opening and closing."""
        return sum(server.stats()["total"] for server in self._servers)

    def commands(self):
        return {
            "ports": self.ports,
            "count": self.count,
            "held": held,
            "sample": self.sample,
            "stats": self.stats,
            "shutdown": self.shutdown,
        }

    def ports(self):
        """Where the servers listen: the plain one, and the one with TLS if there is one."""
        return [server.server_address[1] for server in self._servers]

    def count(self):
        """Threads, descriptors and connections, which is quick."""
        return {**count(), "connections": self.connections}

    def sample(self):
        """All figures, at a quiet moment."""
        return {**sample(), "connections": self.connections}

    def stats(self):
        return [server.stats() for server in self._servers]

    def shutdown(self, timeout):
        """Shut down; the stacks of the handlers that are left."""
        reports = [server.shutdown(timeout=timeout) for server in self._servers]
        return [running.stack for report in reports for running in report.running]

    def _handle(self, connection):
        name = connection.request.path.split("/")[1]
        self.handlers[f"/{name}"](connection)


def run(servers_class):
    """The program: servers as they are set, and the commands."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    settings = json.loads(sys.argv[1])
    servers = servers_class(settings["options"], settings["certificate"])
    obey(servers.commands())


if __name__ == "__main__":
    run(EchoServers)
