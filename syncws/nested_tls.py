"""TLS inside TLS: to a server with TLS, through a proxy with TLS."""

from __future__ import annotations

import ssl
from typing import Any, Optional

from .transport import Received, TLSTransport

__all__ = ["NestedTLSTransport", "TunnelTransport"]


class TunnelTransport(TLSTransport):
    """
    The TLS of a proxy, with a connection in it that has none of its own.

    The certificate is that of the proxy, not that of the peer.
    """

    @property
    def peer_certificate(self) -> Optional[dict[str, Any]]:
        return None


class NestedTLSTransport(TLSTransport):
    """
    TLS whose ciphertext goes through the TLS of another transport, not to the socket.

    The inner TLS lock may be held while the outer one is taken, never the other way round.
    Ciphertext that the outer transport holds back counts as held back by this one.

    Args:
        outer: its TLS handshake is done; taken over.
        context: TLS configuration of the inner TLS.
        server_hostname: name to check the inner certificate against.
    """

    def __init__(
        self, outer: TLSTransport, context: ssl.SSLContext, *, server_hostname: str
    ) -> None:
        self._outer = outer
        super().__init__(
            outer.sock,
            context,
            server_side=False,
            server_hostname=server_hostname,
            portable=outer.portable,
        )

    def _read_socket(self, received: Received, size: int) -> None:
        self._outer.read(received, size)

    def _read_socket_nowait(self, received: Received, size: int) -> bool:
        return self._outer.read_nowait(received, size)

    def has_input(self) -> bool:
        return bool(self._raw) or self._outer.has_input()

    def discard(self, size: int) -> Optional[int]:
        received: list[bytes] = []
        while not self._discarding:
            try:
                return sum(map(len, received)) if self.read_nowait(received, size) else None
            except ssl.SSLError:
                self._discarding = True
        return self._outer.discard(size)

    def wait_readable(self, timeout: Optional[float]) -> bool:
        with self._tls_lock:
            buffered = self._incoming.pending or self.tls.pending()
        return bool(buffered and not self._discarding) or self._outer.wait_readable(timeout)

    def _flush_blocks(self) -> bool:
        while True:
            if not self._blocks:
                if not self._outgoing.pending:
                    return self._flush_outer()
                self._block_counts.clear()
                self._blocks.extend(map(self._outgoing.read, (self._outgoing.pending,)))
            counts = self._block_counts
            try:
                self._outer.send(self._blocks, sum(counts), counts)
            except BlockingIOError:
                return False
            finally:
                self.sends = self._outer.sends
            if sum(counts) == len(self._blocks[0]):
                self._blocks.clear()

    def _flush_outer(self) -> bool:
        flushed = self._outer.flush()
        self.sends = self._outer.sends
        return flushed

    def shutdown_write(self, tcp: bool = True) -> bool:
        if not super().shutdown_write(tcp=False):
            return False
        # A proxy that is told the end of its own TLS may not wait for that of the server.
        return self._outer.shutdown_write() if tcp else True

    def abort(self) -> None:
        self.aborted = True
        self._outer.abort()

    def shutdown_read(self) -> None:
        self._outer.shutdown_read()

    def close(self) -> None:
        self.closed = True
        self._outer.close()

    def forget(self) -> None:
        self._outer.forget()
        super().forget()
