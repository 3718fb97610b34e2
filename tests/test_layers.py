"""Holds the imports of the package to its layers, so that the arrows keep their direction."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "syncws"

# A module may import from the layers above its own line here, and from what stands left of it.
LAYERS = [
    ["version", "exceptions", "opcodes", "deadline"],
    [
        *(
            "_speedups",
            "collector",
            "masking",
            "speedups",
            "frames",
            "headers",
            "http11",
            "uri",
            "forwarded",
        ),
        "proxy_protocol",
    ],
    [
        *("permessage_deflate", "handshake", "paths", "messages", "protocol", "rates", "options"),
        *("redirects", "backoff"),
    ],
    [
        *("transport", "locks", "ledger", "queues", "service", "sending", "receiving"),
        *("connection", "threads", "attempt", "nested_tls"),
    ],
    [
        *("broadcast", "auth", "acceptor", "server_connection", "admission", "reports", "server"),
        *("mistakes", "listening", "serving", "routing", "activation", "prometheus", "gunicorn"),
        *("advice", "proxy", "socks", "routes", "client", "reconnecting"),
        *("demo", "testing", "commands", "cli"),
    ],
    ["__init__", "__main__"],
]
ORDER = [module for layer in LAYERS for module in layer]

# Sockets, TLS, threads and clocks appear from this layer on.
BLOCKING_LAYER = 3
BLOCKING = {"queue", "select", "selectors", "socket", "socketserver", "ssl", "threading", "time"}
BLOCKING_EXCEPTIONS = {("deadline", "time")}


def layer_of(module):
    return next(number for number, layer in enumerate(LAYERS) if module in layer)


def sources():
    """The source files of the package, by the name of their module or subpackage."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        first = path.relative_to(PACKAGE).parts[0]
        found.setdefault(first[:-3] if first.endswith(".py") else first, []).append(path)
    return found


def files_below(layer):
    """Paths of the files under a layer, as the coverage check of ``.ci/run`` wants them."""
    wanted = sources()
    below = [module for modules in LAYERS[:layer] for module in modules]
    return [str(path.relative_to(ROOT)) for module in below for path in wanted.get(module, [])]


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def runtime_imports(node):
    """All import statements that run, those inside of functions included."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            for branch in child.orelse:
                yield from runtime_imports(ast.Module([branch], []))
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        else:
            yield from runtime_imports(child)


def targets(statement, package):
    """Absolute dotted names of the modules that an import statement may load."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    base = statement.module or ""
    if statement.level:
        parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
        base = ".".join([*parents, base] if base else parents)
    if base == "syncws":  # `from . import frames` loads a module, `from . import serve` the face
        return [f"syncws.{a.name if a.name in ORDER else '__init__'}" for a in statement.names]
    return [base]


def imported(source, package="syncws"):
    """Sort what a module imports at runtime: names inside the package, and names outside it."""
    inside, outside = set(), set()
    for statement in runtime_imports(ast.parse(source)):
        for target in targets(statement, package):
            first, _, rest = target.partition(".")
            if first == "syncws":
                inside.add(rest.partition(".")[0] or "__init__")
            else:
                outside.add(first)
    return inside, outside


def imports_of(module):
    inside, outside = set(), set()
    for path in sources()[module]:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        more_inside, more_outside = imported(path.read_text(encoding="utf-8"), package)
        inside |= more_inside
        outside |= more_outside
    return inside - {module}, outside


@pytest.mark.parametrize("module", sources())
def test_every_module_has_its_place_in_the_layers(module):
    assert module in ORDER


@pytest.mark.parametrize("module", [module for module in ORDER if module in sources()])
def test_a_module_imports_only_from_below_and_from_its_left(module):
    inside, _ = imports_of(module)
    assert inside <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize(
    "module", [m for m in ORDER if m in sources() and layer_of(m) < BLOCKING_LAYER]
)
def test_a_module_of_the_lower_layers_cannot_block(module):
    _, outside = imports_of(module)
    assert {name for name in outside & BLOCKING if (module, name) not in BLOCKING_EXCEPTIONS} == (
        set()
    )


@pytest.mark.parametrize("module", sources())
def test_no_module_has_an_event_loop(module):
    _, outside = imports_of(module)
    assert "asyncio" not in outside


@pytest.mark.parametrize(
    ("source", "inside", "outside"),
    [
        ("import socket, os.path", set(), {"socket", "os"}),
        ("from .frames import Frame", {"frames"}, set()),
        ("from . import frames", {"frames"}, set()),
        ("from . import serve", {"__init__"}, set()),
        ("import syncws", {"__init__"}, set()),
        ("import syncws.frames", {"frames"}, set()),
        ("from syncws.frames import Frame", {"frames"}, set()),
        ("from syncws import frames", {"frames"}, set()),
        ("def f():\n    from .frames import Frame", {"frames"}, set()),
        ("if TYPE_CHECKING:\n    from .frames import Frame", set(), set()),
        ("if typing.TYPE_CHECKING:\n    import ssl", set(), set()),
        ("if TYPE_CHECKING:\n    import ssl\nelse:\n    import time", set(), {"time"}),
        ("try:\n    import ssl\nexcept ImportError:\n    ssl = None", set(), {"ssl"}),
    ],
)
def test_imports_are_found_in_source(source, inside, outside):
    assert imported(source) == (inside, outside)


def test_imports_of_a_subpackage_are_relative_to_it():
    assert imported("from ..server import serve\nfrom . import page", "syncws.demo") == (
        {"server", "demo"},
        set(),
    )
