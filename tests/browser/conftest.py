"""What the tests with browsers share."""

from __future__ import annotations

import contextlib

import pytest

from browser.drivers import Chromium, Firefox

BROWSERS = [Chromium, Firefox]


@pytest.fixture(scope="session", params=BROWSERS, ids=lambda kind: kind.__name__.lower())
def browser(request):
    """Each browser that is installed."""
    name = request.param.missing()
    if name is not None:
        pytest.skip(f"NOT TESTED: there is no {name}; apt-get install {request.param.packages}")
    with request.param() as started:
        yield started


@pytest.fixture
def open_tab(browser):
    """Opens tabs, which are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(browser.tab(url))
