"""
A service of systemd that restarts without refusing a client.

With syncws installed (pip install .), and two units, echo.socket and echo.service:

    [Socket]                        [Service]
    ListenStream=8765               ExecStart=/usr/bin/python3 /opt/echo/systemd_socket.py

The socket stays with systemd: who connects while the service restarts waits for the next process.
On SIGTERM, clients that are connected have five seconds to finish; after that they get close
code 1001. To try it without units:

    systemd-socket-activate -l 8765 python examples/systemd_socket.py
    python examples/systemd_socket.py [PORT]
"""

import sys

from syncws import inherited_sockets, serve


def echo(connection):
    for message in connection:
        connection.send(message)


sockets = inherited_sockets()
if sockets:
    server = serve(echo, sock=sockets[0])
else:
    server = serve(echo, "localhost", int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
print(f"ws://localhost:{server.server_address[1]}", flush=True)
server.serve_forever(drain=5)
