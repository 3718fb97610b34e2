"""What becomes of the payload of a message that arrives in pieces."""

from __future__ import annotations

from typing import Union

__all__ = ["Collector"]

# Pieces from this size on are kept as they came; one by one, small ones would take more memory
# for being objects than for what they hold.
LARGE_PIECE = 4096  # bytes


class Collector:
    """
    The payload of a message, as it arrives in pieces.

    However many and small the pieces are, what they take in memory is a small multiple of
    their size, and adding them is linear.

    Args:
        text: whether it is text.
    """

    __slots__ = ("_pieces", "_text")

    def __init__(self, text: bool) -> None:
        self._text = text
        self._pieces: list[Union[bytes, bytearray]] = []

    def expect(self, size: int) -> None:
        """
        Announce bytes that will be added.

        The one in C makes room for them: a mebibyte, or as much as there is already.
        """

    def add(self, piece: bytes) -> bool:
        """Append bytes; tell whether they are ASCII text."""
        pieces = self._pieces
        if len(piece) >= LARGE_PIECE:
            pieces.append(piece)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += piece
        elif piece:
            pieces.append(bytearray(piece))
        return self._text and piece.isascii()

    def take(self) -> Union[bytes, str]:
        """
        Hand out what was added, and begin anew.

        Text that is ASCII may come as a string; the one in C does so, except for a single piece.
        """
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
