"""
A client that uses TLS, and trusts a certificate that no authority has signed.

With syncws installed (pip install .), and tls_server.py running:

    python examples/tls_client.py certificate.pem [URI]

For servers with a certificate of a public authority, connect("wss://...") is enough.
"""

import ssl
import sys

from syncws import connect

context = ssl.create_default_context(cafile=sys.argv[1])
uri = sys.argv[2] if len(sys.argv) > 2 else "wss://localhost:8765"

with connect(uri, ssl=context) as connection:
    connection.send("Hello!")
    print(connection.recv(timeout=5))
