"""
Runs the Python code of one page of the documentation, as a reader would who tries all of it.

    python tests/page_runner.py PAGE.json

The file has the name of the page and its blocks, each with its line. They run in order in one
namespace. A block that serves for ever runs in a thread beside those that follow; when
a later block wants the same port, or the page is over, its server is shut down.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import traceback

from syncws import Server

PATIENCE = 10  # seconds


class Page:
    """The namespace of a page, and the servers that its blocks have left running."""

    def __init__(self, name):
        self._name = name
        self._namespace = {"__name__": "__main__"}
        self._servers = []  # also those whose name was bound anew
        self._threads = []

    def run(self, line, source):
        """Run a block, up to its end or until it serves."""
        # What a reader would do: one port is enough for one server.
        for server in self._servers:
            if re.search(rf"\b(serve|route)\(.*\b{server.server_address[1]}\b", source):
                server.shutdown()
        code = compile("\n" * (line - 1) + source, self._name, "exec")
        if "serve_forever(" in source:
            self._serve(code)
        else:
            exec(code, self._namespace)
            self._note_servers()

    def end(self):
        """End what still serves."""
        for server in self._servers:
            server.shutdown()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a block of the page does not end"

    def _note_servers(self):
        """Remember the servers that are bound to names; returns whether there is one more."""
        bound = [value for value in self._namespace.values() if isinstance(value, Server)]
        fresh = [server for server in bound if server not in self._servers]
        self._servers += fresh
        return bool(fresh)

    def _serve(self, code):
        thread = threading.Thread(target=self._exec, args=(code,), daemon=True)
        thread.start()
        self._threads.append(thread)
        pause = threading.Event()
        while not self._note_servers() and thread.is_alive():
            pause.wait(0.01)  # nothing tells that a name was bound

    def _exec(self, code):
        try:
            exec(code, self._namespace)
        except BaseException:
            traceback.print_exc()


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        name, blocks = json.load(file)
    page = Page(name)
    try:
        for line, source in blocks:
            page.run(line, source)
    finally:
        page.end()


if __name__ == "__main__":
    main()
