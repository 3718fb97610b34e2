"""
A fixture for pytest.

Switched on by a line in the outermost ``conftest.py``::

    pytest_plugins = ["syncws.testing.plugin"]
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from .servers import TestServer

__all__ = ["websocket_server"]


@pytest.fixture
def websocket_server() -> Iterator[Callable[..., TestServer]]:
    """
    Start servers for a test: call it with a handler and options, as :class:`TestServer`.

    They are closed when the test is over, and what that checks is checked.
    """
    with contextlib.ExitStack() as stack:

        def start(handler: Any, **options: Any) -> TestServer:
            return stack.enter_context(TestServer(handler, **options))

        yield start
