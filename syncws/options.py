"""Options that servers and clients share, checked and with their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from .permessage_deflate import PerMessageDeflate
from .rates import RateLimit

__all__ = ["Compression", "MaxSize", "Options", "choose_extensions", "make_options"]

MaxSize = Union[int, tuple[Optional[int], Optional[int]], None]
Compression = Union[str, PerMessageDeflate, None]


class Options(NamedTuple):
    """
    Limits in bytes and timeouts in seconds of a connection; ``None`` for none.

    ``max_size`` of a message was chosen by ``websockets``, and so by much of what is
    deployed; ``max_queue_bytes`` holds four such messages.
    """

    max_size: Optional[int] = 2**20
    max_fragment: Optional[int] = None
    max_empty_fragments: Optional[int] = 1000
    max_queue: Optional[int] = 16
    max_queue_bytes: Optional[int] = 2**22
    read_limit: int = 2**16
    write_limit: int = 2**16
    ping_interval: Optional[float] = 20
    ping_timeout: Optional[float] = 20
    close_timeout: Optional[float] = 10
    send_timeout: Optional[float] = 30
    rate_limit: Optional[RateLimit] = None

    @property
    def user_timeout(self) -> Optional[float]:
        """A backstop: the kernel gives up later than keepalive and send_timeout do."""
        interval, timeout = self.ping_interval, self.ping_timeout
        if interval is None or timeout is None or self.send_timeout is None:
            return None
        return max(interval + timeout, self.send_timeout) + 1


def make_options(
    *, max_size: MaxSize, max_queue: MaxSize, read_limit: int, write_limit: int, **others: Any
) -> Options:
    """
    Check what the user gave.

    ``max_size`` may be a pair of the limits for a message and for a fragment, ``max_queue`` a
    pair of which the first counts.

    Raises:
        TypeError: a limit or a timeout is no number.
        ValueError: it is negative, or zero where that makes no sense.
    """
    max_message, max_fragment = max_size if isinstance(max_size, tuple) else (max_size, None)
    options = Options(
        max_size=max_message,
        max_fragment=max_fragment,
        max_queue=max_queue[0] if isinstance(max_queue, tuple) else max_queue,
        read_limit=read_limit,
        write_limit=write_limit,
        **others,
    )
    for name, value in options._asdict().items():
        if name == "rate_limit":
            if value is not None and not isinstance(value, RateLimit):
                raise TypeError(f"rate_limit must be a RateLimit or None, not {value!r}")
            continue
        least = 1 if name in ("max_queue", "read_limit", "ping_interval") else 0
        try:
            too_small = value is not None and (value < least if least == 0 else value <= 0)
        except TypeError:
            raise TypeError(f"{name} must be a number or None, not {value!r}") from None
        if too_small:
            raise ValueError(f"{name} must be {'positive' if least else 'at least 0'}, not {value}")
    return options


def choose_extensions(
    compression: Compression, extensions: Optional[Sequence[Any]]
) -> tuple[Any, ...]:
    """
    Put permessage-deflate, if wanted, before other extensions.

    Raises:
        ValueError: ``compression`` is none of ``"deflate"``, ``None`` and ``PerMessageDeflate``.
    """
    others = tuple(extensions or ())
    if compression is None:
        return others
    if isinstance(compression, PerMessageDeflate):
        return (compression, *others)
    if compression != "deflate":
        raise ValueError(f"unsupported compression: {compression}; write 'deflate' or None")
    if any(isinstance(extension, PerMessageDeflate) for extension in others):
        return others
    return (PerMessageDeflate(), *others)
