"""Finding the function that ``module:function`` names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from types import TracebackType
from typing import Any, Callable, Optional

from ..mistakes import check_handler
from .failures import Failure, one_line

__all__ = ["load_handler"]

DEFAULT_NAME = "handler"


def load_handler(spec: str) -> Callable[[Any], None]:
    """
    Import the handler of a server.

    Args:
        spec: ``module:function``, where the module may be in the current folder; with the name of
            the module alone, the function is ``handler``. A path such as ``app.py`` is taken
            for the module that it is.

    Raises:
        Failure: there is none, or it can't be called with a connection.
    """
    name, _, function = spec.partition(":")
    if name.endswith(".py"):
        name = name[:-3].replace(os.sep, ".").lstrip(".")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not name:
        raise Failure("the module is missing; expected module:function")
    handler: Any = _import(name)
    module = handler
    for part in (function or DEFAULT_NAME).split("."):
        try:
            handler = getattr(handler, part)
        except AttributeError:
            text = f"{name} has no {function or DEFAULT_NAME}{_functions(module)}"
            raise Failure(text) from None
    _check(handler, f"{name}:{function or DEFAULT_NAME}")
    return handler  # type: ignore[no-any-return] # checked above, as far as can be


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name in (name, name.partition(".")[0]):
            raise Failure(
                f"there is no module {exc.name} here or in Python's path; expected module:function"
            ) from None
        where = _where(exc)
        text = one_line(f"{type(exc).__name__}: {exc}")
        raise Failure(f"importing {name} failed: {text}{where}") from exc


def _where(exc: BaseException) -> str:
    """The line of the user's that failed."""
    if isinstance(exc, SyntaxError):
        return ""  # its text says so
    frames = traceback.extract_tb(_skip_import(exc.__traceback__))
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _skip_import(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """What is left of a traceback without the frames of this module and of the import system."""
    own = (__file__, importlib.__file__)
    while trace is not None and (
        trace.tb_frame.f_code.co_filename in own
        or trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        trace = trace.tb_next
    return trace


def _check(handler: Any, name: str) -> None:
    if not callable(handler):
        raise Failure(f"{name} is no function, but {type(handler).__name__}")
    try:
        check_handler(handler, name)
    except TypeError as exc:
        raise Failure(str(exc)) from None


def _functions(module: Any) -> str:
    """What there is to serve in a module, for people; classes left out."""
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    return f"; its functions are {', '.join(found)}" if found else ""
