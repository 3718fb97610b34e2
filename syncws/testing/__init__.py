"""
What the tests of an application need: servers, connections in memory, and peers that misbehave.

Nothing here needs a test framework. For pytest, :mod:`syncws.testing.plugin` has a fixture.
"""

from .raw import RawPeer, RawServer, raw_client
from .servers import TestServer, pair

__all__ = ["RawPeer", "RawServer", "TestServer", "pair", "raw_client"]
