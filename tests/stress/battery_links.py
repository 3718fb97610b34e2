"""
Links that go down, lose packets or vanish, between network namespaces made for the purpose.

A server lives in one namespace, clients in another; a pair of virtual Ethernet devices
joins them, or a program that loses packets. Nothing of this reaches the network of the machine. It
takes root and iproute2.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import threading
import time

import trustme
from namespaces import DEVICE, SERVER_HOST, Network
from programs import Program, wait_until
from scenario import Scenario, Skipped

# Short, so that a scenario takes seconds; what a promise allows beyond them is GRACE.
KEEPALIVE = {"ping_interval": 1, "ping_timeout": 1}
KEEPALIVE_LIMIT = 2  # seconds: the sum of both
GRACE = 1.0  # seconds
NO_KEEPALIVE = {"ping_interval": None}

COUNT = 5  # connections of each kind

SIZES = (8, 120, 128, 1000, 5000, 65536, 100_000)  # bytes of messages
WINDOW = 32  # messages of a client that may be under way


@contextlib.contextmanager
def two_ends(join=Network.join):
    """The network, the program of the server and that of the clients; ``join`` makes the link."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        join(network)
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        issued = authority.issue_cert(SERVER_HOST)
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        programs = [
            stack.enter_context(
                Program(
                    "servers/link_end.py",
                    {
                        "namespace": namespace,
                        "certificate": str(folder / "server.pem"),
                        "authority": str(folder / "authority.pem"),
                    },
                )
            )
            for namespace in (network.server, network.client)
        ]
        yield network, programs[0], programs[1]
        for program in programs:
            assert "Traceback" not in program.log(), program.log()


def open_all(server, client, lives, options):
    """
    Open connections, plain and TLS; returns their number.

    Args:
        lives: what the threads of both ends do, a pair (server's, client's) for each connection.
        options: of the server and of clients.
    """
    for secure in (False, True):
        address = server.ask("listen", SERVER_HOST, secure, options)
        for ours, theirs in lives:
            client.ask("open", address, secure, theirs, COUNT, ours, options)
    return 2 * COUNT * len(lives)


def wait_for_ends(program, count, timeout):
    """Wait for the ends of connections; returns what is known of them."""
    ends = []

    def all_ended():
        ends[:] = program.ask("ends")
        return len(ends) == count

    assert wait_until(all_ended, timeout), f"{len(ends)} of {count} ended in {timeout} s"
    return ends


def note_ends(figures, who, ends, began, limit):
    """Note how long connections took to end, which must not have been by a Close frame."""
    assert {end["code"] for end in ends} == {1006}, ends
    figures.note(f"{who} ended after", max(end["at"] for end in ends) - began, "s", limit=limit)


def nobody():
    """Something to wait on that never happens, for a pause between two changes of the network."""
    return threading.Event()


def play_keepalive(figures):
    with two_ends() as (network, server, client):
        lives = [("receive", "receive"), ("away", "away")]
        count = open_all(server, client, lives, KEEPALIVE)
        figures.note("connections", count)
        began = time.monotonic()
        network.cut(network.server)
        for who, program in (("server", server), ("clients", client)):
            ends = wait_for_ends(program, count, 30)
            note_ends(figures, who, ends, began, KEEPALIVE_LIMIT + GRACE)
            assert all("keepalive ping timeout" in end["error"] for end in ends), ends


def play_send_timeout(figures):
    options = {**NO_KEEPALIVE, "send_timeout": 2}
    with two_ends() as (network, server, client):
        # Their peers receive, so that they are in full flow when the link goes down.
        count = open_all(server, client, [("send", "receive"), ("receive", "send")], options)
        figures.note("senders", count)
        nobody().wait(1)
        began = time.monotonic()
        network.cut(network.server)
        for who, program in (("server", server), ("clients", client)):
            ends = wait_for_ends(program, count // 2, 30)
            assert {end["kind"] for end in ends} == {"send"}
            # When the link has gone the kernel still takes what its buffers have room for.
            note_ends(figures, f"senders of the {who}", ends, began, None)
            blocked = max(end["at"] - end["blocked_at"] for end in ends)
            figures.note("blocked for", blocked, "s", limit=2 + GRACE)
            assert all("TimeoutError" in end["cause"] for end in ends), ends


def play_close(figures):
    options = {**NO_KEEPALIVE, "close_timeout": 2}
    with two_ends() as (network, server, client):
        lives = [("receive", None), ("away", None), ("receive", "receive"), ("send", "receive")]
        count = open_all(server, client, lives, options)
        figures.note("connections", count)
        network.cut(network.server)
        client.order("close")
        figures.note("shutdown(2)", server.ask("shutdown", 2), "s", limit=2 + GRACE)
        figures.note("close() of clients", client.answer(), "s", limit=2 + GRACE)
        assert server.ask("count_open") == 0


def play_flapping(figures):
    with two_ends() as (network, server, client):
        options = {"ping_interval": 2, "ping_timeout": 10}
        count = open_all(server, client, [("echo", None)], options)
        client.ask("start_exchange", figures.seed, SIZES, WINDOW)
        pause = nobody()
        for number, down in enumerate((0.2, 0.5, 1.0, 2.0, 0.1, 3.0)):
            figures.progress(f"down for {down} s")
            pause.wait(1)
            network.cut(network.server)
            pause.wait(down)
            network.mend(network.server)
            figures.progress(f"up again, {number + 1} times")
        pause.wait(1)
        check_exchange(figures, server, client, count)


def check_exchange(figures, server, client, count):
    """End the exchange of messages: none may have been lost, and all connections be open."""
    result = client.ask("finish_exchange", timeout=120)
    assert result["errors"] == [], result["errors"][:5]
    assert result["messages"] > count
    assert server.ask("count_open") == count
    figures.note("messages echoed exactly", result["messages"])
    figures.note("close() of clients", client.ask("close"), "s", limit=5)


def play_loss(figures):
    if not pathlib.Path("/dev/net/tun").exists():
        raise Skipped("needs TUN devices")
    with contextlib.ExitStack() as stack:

        def join(network):
            nonlocal link
            settings = {"namespaces": [network.server, network.client], "device": DEVICE}
            how = {"delay": [0.02, 0.04], "loss": 0.03, "duplicates": 0.01, "seed": figures.seed}
            link = stack.enter_context(Program("servers/lossy_link.py", {**settings, **how}))
            link.ask("count")  # it answers when the devices are there
            network.configure()

        link = None
        _, server, client = stack.enter_context(two_ends(join))
        count = open_all(server, client, [("echo", None)], {})
        client.ask("start_exchange", figures.seed, SIZES, WINDOW)
        nobody().wait(20)
        check_exchange(figures, server, client, count)
        for name, packets in link.ask("count").items():
            figures.note(f"packets {name}", packets)


def play_address(figures):
    with two_ends() as (network, server, client):
        lives = [("receive", "receive"), ("away", "away")]
        count = open_all(server, client, lives, KEEPALIVE)
        began = time.monotonic()
        network.remove_client_address()
        for who, program in (("server", server), ("clients", client)):
            ends = wait_for_ends(program, count, 30)
            note_ends(figures, who, ends, began, KEEPALIVE_LIMIT + GRACE)


def play_vanishing(figures):
    with two_ends() as (network, server, client):
        count = open_all(server, client, [("receive", None), ("away", None)], KEEPALIVE)
        began = time.monotonic()
        vanish(network, client)
        ends = wait_for_ends(server, count, 30)
        note_ends(figures, "server", ends, began, KEEPALIVE_LIMIT + GRACE)
        figures.note("shutdown", server.ask("shutdown", 2), "s", limit=1)


def vanish(network, client):
    """Remove the clients with their machine, so that not even the kernel says good-bye."""
    network.cut(network.client)
    client.kill()
    network.remove_client()


def play_rebirth(figures):
    options = {"ping_interval": 1, "ping_timeout": 60}
    with two_ends() as (network, server, client):
        count = open_all(server, client, [("receive", None), ("away", None)], options)
        vanish(network, client)
        network.rebuild_client()
        began = time.monotonic()
        # The next ping, or its retransmission, is answered by a reset.
        ends = wait_for_ends(server, count, 30)
        note_ends(figures, "server", ends, began, 10)
        assert all("timeout" not in end["error"] for end in ends), ends


SCENARIOS = [
    Scenario(
        "link-down-keepalive",
        "the link goes down: keepalive ends connections within interval + timeout + 1 s",
        play_keepalive,
    ),
    Scenario(
        "link-down-sending",
        "the link goes down: a blocked send() raises within send_timeout + 1 s",
        play_send_timeout,
    ),
    Scenario(
        "link-down-closing",
        "the link goes down: close() and shutdown() return within their timeouts + 1 s",
        play_close,
    ),
    Scenario("link-flapping", "the link goes down and up: no message is lost", play_flapping),
    Scenario("link-lossy", "packets are lost, doubled and delayed: messages are exact", play_loss),
    Scenario(
        "link-address-removed",
        "the client's address is removed: keepalive ends connections in time",
        play_address,
    ),
    Scenario(
        "link-peer-vanished",
        "the client's machine is gone: half-open connections end in time",
        play_vanishing,
    ),
    Scenario(
        "link-peer-reborn",
        "the client's machine is back without a memory: a reset ends connections",
        play_rebirth,
    ),
]
