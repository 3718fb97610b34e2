"""What the tests with browsers share."""

from __future__ import annotations

import contextlib

import pytest

from browser.drivers import Chromium, Firefox
from browser.ways import WAYS, Way

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


@pytest.fixture(scope="session")
def certificate(authority, tmp_path_factory):
    """A file with a certificate, its chain and its key, for proxies."""
    path = tmp_path_factory.mktemp("certificate") / "all.pem"
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(params=WAYS)
def way(request, tmp_path, certificate, server_context):
    """Each way to a server; ``parametrize("way", ..., indirect=True)`` takes some of them."""
    return Way(request.param, tmp_path, certificate, server_context)
