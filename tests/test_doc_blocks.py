"""
The code in the documentation: every block of Python runs, every command is one that exists.

The blocks of a page run in order in one namespace (see ``page_runner``), in a folder of their
own with ``cert.pem``, ``key.pem`` and ``ca.pem``, an inherited listening socket, and ports that are
free in place of those on the page. A block that is about signals has a comment
``.. run: program`` before it: it runs as a process, and gets SIGTERM once it listens.
``.. run: needs NAME`` skips it where a module is missing.
"""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import json
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from conftest import wait_until
from doc_pages import LANGUAGES, PYTHON, ROOT, SHELL, blocks_of, pages
from ports import held_port
from supervisor import catches, launch

from syncws.cli import make_parser

RUNNER = ROOT / "tests" / "page_runner.py"

PATIENCE = 40  # seconds for a page

PORT = re.compile(r"(?<![\w.-])(8[07]\d\d)(?!\w)")  # the ports that pages use
COMMAND = re.compile(r"(?:^|[|(;&]\s*|\s)(?:\S*python3? -m )?syncws (?P<rest>[a-z][^|;&)#]*)")

BLOCKS = [(page, block) for page in pages() for block in blocks_of(page)]
WITH_PYTHON = sorted({page for page, block in BLOCKS if block.language in PYTHON})

PROGRAMS = [(page, block) for page, block in BLOCKS if block.mark.startswith("program")]
SCRIPTS = [(page, block) for page, block in BLOCKS if block.language in SHELL]

pytestmark = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(),
    reason="/proc tells when a program handles signals",
)


def place(value):
    return f"{value[0]}:{value[1].line}"


def needs(block):
    """The module that a block needs besides this package."""
    match = re.search(r"needs (\w+)", block.mark)
    return match and match.group(1)


def is_missing(module):
    return module is not None and importlib.util.find_spec(module) is None


@pytest.fixture
def free_ports():
    """A free port for each port on a page: a function that puts them in place."""
    found = {}

    def replace(match):
        name = match.group(1)
        if name not in found:
            found[name] = str(held.enter_context(held_port()))
        return found[name]

    with contextlib.ExitStack() as held:
        yield lambda text: PORT.sub(replace, text)


@pytest.fixture
def folder(tmp_path, authority):
    """A folder with what pages expect there."""
    certificate = authority.issue_cert("localhost", "127.0.0.1", "::1")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=number > 0)
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for path in (ROOT / "examples").glob("*.py"):
        shutil.copy(path, tmp_path)
    return tmp_path


def run_page(page, blocks, folder):
    """Run blocks as a page; returns the exit code and what went to standard error."""
    path = folder / "page.json"
    content = [page, [[block.line, block.source] for block in blocks]]
    path.write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-X", "dev", "-W", "error", str(RUNNER), str(path)]
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        with launch(command, inherited, cwd=folder) as process:
            try:
                _, err = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
    return process.returncode, err


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(page, folder, free_ports):
    blocks, skipped = [], []
    for block in blocks_of(page):
        if block.language not in PYTHON or block.mark.startswith("program"):
            continue
        if is_missing(needs(block)):
            skipped.append(f"line {block.line} needs {needs(block)}")
        else:
            blocks.append(block._replace(source=free_ports(block.source)))
    code, err = run_page(page, blocks, folder)
    assert err == ""
    assert code == 0
    if skipped:
        pytest.skip(f"{page} ran, but for: {', '.join(skipped)}")


def listening_port(block, free_ports):
    """The port of a program that serves, or ``None``."""
    match = PORT.search(block.source)
    return match and int(free_ports(match.group()))


def has_come_up(port, process):
    """Whether a program listens and handles SIGTERM, or has ended."""
    if process.poll() is not None or port is None:
        return True
    if not catches(process, signal.SIGTERM):
        return False
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("program", PROGRAMS, ids=place)
def test_a_program_in_the_documentation_runs_until_it_is_told_to_end(program, folder, free_ports):
    _, block = program
    if is_missing(needs(block)):
        pytest.skip(f"{needs(block)} is not installed")
    path = folder / "program.py"
    path.write_text(free_ports(block.source), encoding="utf-8")
    port = listening_port(block, free_ports)
    command = [sys.executable, "-X", "dev", "-W", "error", str(path)]
    with launch(command, cwd=folder) as process:
        try:
            assert wait_until(lambda: has_come_up(port, process))
            if port is not None:
                process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")


# --- Commands -------------------------------------------------------------------------------------


def commands(block):
    """The command lines of a block; with ``$`` where output is between them."""
    text = re.sub(r"\\\n\s*>?", "", block.source)
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        return [line[2:] for line in lines if line.startswith(("$ ", "# "))]
    return [line for line in lines if line]


def syncws_arguments(line):
    """The arguments of each ``syncws`` in a command line."""
    for match in COMMAND.finditer(f" {line}"):
        words = shlex.split(re.split(r"\s[<>0-9]*[<>]", match.group("rest"))[0], comments=True)
        if words and not words[0].endswith(".py"):
            yield words


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("script", SCRIPTS, ids=place)
def test_a_shell_block_has_no_syntax_error(script):
    result = subprocess.run(
        ["bash", "-n"],
        input="\n".join(commands(script[1])),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=place)
def test_commands_of_syncws_have_arguments_that_it_takes(script, capsys):
    for line in commands(script[1]):
        for words in syncws_arguments(line):
            with contextlib.suppress(SystemExit):  # --help ends so, too
                make_parser().parse_args(words)
            assert capsys.readouterr().err == "", line


def extras():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return set(config["options.extras_require"])


@pytest.mark.parametrize("page", pages())
def test_extras_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert set(re.findall(r"\bsyncws\[(\w+)\]", text)) <= extras()


@pytest.mark.parametrize("page", pages())
def test_examples_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in set(re.findall(r"\bexamples/[\w./-]*\w", text)):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", pages())
def test_blocks_are_in_a_language_that_is_known_here(page):
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


def test_the_page_runner_tells_where_a_block_failed(tmp_path):
    path = pathlib.Path("docs/page.rst")
    (tmp_path / "page.json").write_text(json.dumps([str(path), [[7, "x = 1\n1 / (x - 1)\n"]]]))
    with launch([sys.executable, str(RUNNER), str(tmp_path / "page.json")]) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert 'File "docs/page.rst", line 8' in err
