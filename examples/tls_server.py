r"""
An echo server with TLS.

With syncws installed (pip install .), and a certificate, here one that is signed by itself:

    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out certificate.pem
    python examples/tls_server.py certificate.pem key.pem [PORT]

Then run tls_client.py in another terminal. Ctrl-C or SIGTERM ends the server.
"""

import ssl
import sys

from syncws import serve


def echo(connection):
    for message in connection:
        connection.send(message)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
port = int(sys.argv[3]) if len(sys.argv) > 3 else 8765

with serve(echo, "localhost", port, ssl=context) as server:
    print(f"wss://localhost:{server.server_address[1]}", flush=True)
    server.serve_forever()
