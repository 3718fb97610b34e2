"""
Threaded, synchronous WebSocket server and client, without an event loop.

A server::

    from syncws import serve

    def echo(connection):
        for message in connection:
            connection.send(message)

    with serve(echo, "localhost", 8765) as server:
        server.serve_forever()

A client::

    from syncws import connect

    with connect("ws://localhost:8765") as connection:
        connection.send("Hello")
        print(connection.recv())
"""

from .activation import inherited_sockets
from .auth import basic_auth
from .backoff import backoff
from .broadcast import BroadcastResult, broadcast
from .client import ClientConnection, connect, unix_connect
from .connection import Connection
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    PayloadTooBig,
    PolicyViolation,
    ProtocolError,
    ProxyError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
    WebSocketException,
)
from .frames import Frame
from .handshake import SAME_HOST
from .headers import Headers, MultipleValuesError
from .http11 import Request, Response
from .opcodes import Close, CloseCode, Opcode, State
from .permessage_deflate import PerMessageDeflate
from .rates import RateLimit
from .reconnecting import Reconnector, process_exception, reconnect, unix_reconnect
from .reports import RunningHandler, ShutdownReport
from .sending import Data, DataLike, PongWaiter
from .server import Server
from .server_connection import ServerConnection
from .serving import serve, unix_serve
from .version import __version__

__all__ = [
    "SAME_HOST",
    "BroadcastResult",
    "ClientConnection",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Data",
    "DataLike",
    "DuplicateParameter",
    "Frame",
    "HeaderLineTooLong",
    "Headers",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "MultipleValuesError",
    "NegotiationError",
    "Opcode",
    "PayloadTooBig",
    "PerMessageDeflate",
    "PolicyViolation",
    "PongWaiter",
    "ProtocolError",
    "ProxyError",
    "RateLimit",
    "Reconnector",
    "Request",
    "RequestLineTooLong",
    "Response",
    "RunningHandler",
    "SecurityError",
    "Server",
    "ServerConnection",
    "ShutdownReport",
    "State",
    "StatusLineTooLong",
    "TooManyHeaders",
    "WebSocketException",
    "__version__",
    "backoff",
    "basic_auth",
    "broadcast",
    "connect",
    "inherited_sockets",
    "process_exception",
    "reconnect",
    "serve",
    "unix_connect",
    "unix_reconnect",
    "unix_serve",
]
