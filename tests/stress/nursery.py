"""
Programs to be interrupted, forked from an interpreter that has all imported: starting one afresh
would take longer than the whole test of it.

Settings: ``certificate`` (a file with chain and key) and ``authority`` (a file with certificates).

Each line of standard input is a job, a list of one object: ``program``, ``port`` for a client,
``tls``, and ``stderr``, a file. There are two answers: when the program begins, its process and,
for a server, its port; when it has ended, its exit code. What uncaught exceptions do is what they
do in any program.
"""

from __future__ import annotations

import contextlib
import encodings.idna
import encodings.unicode_escape
import faulthandler
import itertools
import json
import os
import signal
import ssl
import sys
import threading

from programs import use_paths

use_paths()

from links import echo  # noqa: E402 # it needs the path
from script_peer import make_message  # noqa: E402 # it needs the path

from syncws import ConnectionClosed, connect, serve  # noqa: E402 # it needs the path

# Python loads these when it connects, and loses a Ctrl-C in its code that loads modules.
PRELOADED = (encodings.idna, encodings.unicode_escape)

SIZES = (20, 200, 5000, 50_000, 200_000)


def answer(result):
    os.write(1, json.dumps({"result": result}).encode() + b"\n")


def wait_for_job():
    """Start a process for each job; return, in such a process, what it is to do."""
    for line in iter(lambda: read_line(0), b""):
        pid = os.fork()
        if not pid:
            (job,) = json.loads(line)
            return job
        _, status = os.waitpid(pid, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        answer(code)
    sys.exit()


def read_line(descriptor):
    """A line, and not a byte more: those are for processes to come."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return b""
        line += byte
    return line


def begin(job, **facts):
    """Tell that the program begins; from here on it may be interrupted."""
    descriptor = os.open(job["stderr"], os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.register(signal.SIGUSR1)  # when it hangs
    answer({"pid": os.getpid(), **facts})
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def be_client(job, contexts):
    """Send messages and receive their echoes, for ever."""
    begin(job)
    with connect_to(job, contexts) as connection:
        for number in itertools.count():
            message = make_message("c", number, SIZES[number % len(SIZES)], number % 2)
            if number % 7 == 6:
                connection.send([message[:10], message[10:1000], message[1000:]])
            else:
                connection.send(message)
            echo = connection.recv(None if number % 3 else 60)
            assert echo == message, "another message came back"


def be_busy_client(job, contexts):
    """Send from the main thread what another receives."""
    begin(job)
    with connect_to(job, contexts) as connection:
        threading.Thread(target=receive_all, args=(connection,), daemon=True).start()
        for number in itertools.count():
            connection.send(make_message("c", number, SIZES[number % len(SIZES)], number % 2))
            if number % 10 == 0:
                connection.ping().wait(1)


def receive_all(connection):
    with contextlib.suppress(ConnectionClosed):
        for _ in connection:
            pass


def be_forgetful_client(job, contexts):
    """Leave the connection open at the end."""
    begin(job)
    connection = connect_to(job, contexts)
    for number in itertools.count():
        message = make_message("c", number, SIZES[number % len(SIZES)], number % 2)
        connection.send(message)
        assert connection.recv() == message, "another message came back"


def connect_to(job, contexts):
    scheme = "wss" if job["tls"] else "ws"
    uri = f"{scheme}://127.0.0.1:{job['port']}/"
    return connect(uri, ssl=contexts[1] if job["tls"] else None)


def be_server(job, contexts):
    """Echo, for ever."""
    server = serve(echo, "127.0.0.1", 0, ssl=contexts[0] if job["tls"] else None)
    begin(job, port=server.server_address[1])
    server.serve_forever()


PROGRAMS = {
    "client": be_client,
    "busy client": be_busy_client,
    "forgetful client": be_forgetful_client,
    "server": be_server,
}


def load_contexts(certificate, authority):
    """TLS for servers and for clients."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    return server, ssl.create_default_context(cafile=authority)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    contexts = load_contexts(**json.loads(sys.argv[1]))
    make_message("", 0, 1, False)  # loads what seeding takes: see PRELOADED
    job = wait_for_job()
    PROGRAMS[job["program"]](job, contexts)
