"""The page on thread safety has every public method and function, and none that there is not."""

from __future__ import annotations

import inspect
import pathlib
import re

import pytest

import syncws

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "thread-safety.rst"

SHARED = [
    "Connection",
    "ServerConnection",
    "ClientConnection",
    "PongWaiter",
    "Server",
    "Reconnector",
]
SPECIAL = {"__iter__", "__exit__"}

# What other modules of the package call, or socketserver does.
INTERNAL = {
    *("attend", "break_off", "forget", "idle", "leave_to_service", "note_dropped", "offer"),
    *("request_close", "settle", "start_closing", "try_block", "wait_room"),
    *("cut_handshake", "discard", "handshake", "end", "admits_client", "report_refusal"),
    *("finish_request", "get_request", "handle_error", "process_request"),
    *("process_request_thread", "verify_request"),
}

CELL = re.compile(r"^   \* - (``.*)$", re.MULTILINE)
CALL = re.compile(r"``((?:\w+\.)?\w+)\(\)``")


def named():
    """What the first column of the tables names."""
    cells = CELL.findall(PAGE.read_text(encoding="utf-8"))
    return [name for cell in cells for name in CALL.findall(cell)]


def methods(kind):
    """Public methods of a class that this package wrote; inherited ones go with the base class."""
    bases = {base for base in kind.__mro__[1:] if base.__name__ in syncws.__all__}
    inherited = {name for base in bases for name in methods(base)}
    for name in dir(kind):
        owner = next(base for base in kind.__mro__ if name in vars(base))
        ours = owner.__module__.startswith("syncws.") and inspect.isfunction(vars(owner)[name])
        public = name in SPECIAL or not name.startswith("_")
        if ours and public and name not in inherited and name not in INTERNAL:
            yield name


def functions():
    """Public functions of the package."""
    return {name for name in syncws.__all__ if inspect.isfunction(getattr(syncws, name))}


@pytest.mark.parametrize("name", SHARED)
def test_every_public_method_is_on_the_page(name):
    missing = {f"{name}.{method}" for method in methods(getattr(syncws, name))} - set(named())
    assert not missing


def test_every_public_function_is_on_the_page():
    assert not functions() - set(named())


def test_everything_on_the_page_exists_and_is_there_once():
    known = {f"{kind}.{method}" for kind in SHARED for method in methods(getattr(syncws, kind))}
    assert sorted(named()) == sorted(known | functions())
