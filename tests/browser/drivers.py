"""
Real browsers, driven over WebDriver BiDi.

Firefox speaks that protocol itself; for Chromium, chromedriver does. The client is that of another
library: what is tested here should not be what tests.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.request

import websocket

__all__ = ["Chromium", "Firefox"]

PATIENCE = 30  # seconds; a browser takes a while to start

ENTER, TAB = "\ue007", "\ue004"  # W3C WebDriver §17.4.2

# Whatever a browser would do on its own account is switched off.
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
FIREFOX_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "network.trr.mode": 5,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": "",
}


class Browser:
    """
    A browser in a process of its own; a context manager that ends it.

    Subclasses have ``programs``, which must be installed, and ``start()``, which returns the
    address of the session.
    """

    programs: tuple = ()
    packages = ""

    def __init__(self):
        self._numbers = itertools.count(1)

    @classmethod
    def missing(cls):
        """The program that is not installed; ``None`` if all are."""
        return next((name for name in cls.programs if shutil.which(name) is None), None)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(tempfile.mkdtemp())
            # A browser may still write when its process has ended: its children live on.
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            address = self.start(stack)
            self._socket = stack.enter_context(
                contextlib.closing(
                    websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
                )
            )
            self.greet()
            stack.callback(self.leave)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def start(self, stack):
        raise NotImplementedError

    def greet(self):
        """Make a session, where the address alone does not."""

    def leave(self):
        self.command("browser.close")

    def launch(self, stack, command, ready):
        """Start a program; returns the match of the line in which it says that it is ready."""
        process = stack.enter_context(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
            )
        )
        stack.callback(process.kill)
        for line in process.stdout:
            match = re.search(ready, line)
            if match is not None:
                return match
        raise RuntimeError(f"{command[0]} has not started")

    def command(self, _method, **params):
        """Have a command carried out, and return its result; events are passed over."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": _method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                break
        if answer["type"] == "error":
            raise RuntimeError(f"{_method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    @contextlib.contextmanager
    def tab(self, url):
        """A tab with a page that has been loaded; closed at the end."""
        context = self.command("browsingContext.create", type="tab")["context"]
        try:
            tab = Tab(self, context)
            tab.go(url)
            yield tab
        finally:
            self.command("browsingContext.close", context=context)


class Chromium(Browser):
    programs = ("chromium", "chromedriver")
    packages = "chromium chromium-driver"

    def start(self, stack):
        ready = self.launch(stack, ["chromedriver", "--port=0"], r"successfully on port (\d+)")
        options = {
            "args": [*CHROMIUM_ARGUMENTS, f"--user-data-dir={self.folder}"],
            "binary": shutil.which("chromium"),
        }
        wanted = {
            "acceptInsecureCerts": True,
            "webSocketUrl": True,
            "goog:chromeOptions": options,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{ready.group(1)}/session",
            json.dumps({"capabilities": {"alwaysMatch": wanted}}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.load(response)["value"]["capabilities"]["webSocketUrl"]

    def prefer(self, tab, scheme):
        """Have a tab prefer a ``light`` or ``dark`` colour scheme."""
        session = self.command("goog:cdp.getSession", context=tab.context)["session"]
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command(
            "goog:cdp.sendCommand",
            method="Emulation.setEmulatedMedia",
            params={"features": features},
            session=session,
        )


class Firefox(Browser):
    programs = ("firefox-esr",)
    packages = "firefox-esr"

    def start(self, stack):
        lines = [
            f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in FIREFOX_PREFERENCES.items()
        ]
        (self.folder / "user.js").write_text("\n".join(lines))
        command = ["firefox-esr", "--headless", "--no-remote", "--remote-debugging-port=0"]
        ready = self.launch(
            stack, [*command, "--profile", str(self.folder)], r"BiDi listening on (ws://\S+)"
        )
        return f"{ready.group(1)}/session"

    def greet(self):
        self.command("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})


class Tab:
    """A tab of a browser."""

    def __init__(self, browser, context):
        self._browser = browser
        self.context = context

    def go(self, url):
        """Load a page, and wait until it is there."""
        self._command("browsingContext.navigate", url=url, wait="complete")

    def evaluate(self, expression):
        """Evaluate a JavaScript expression, wait if it is a promise; what JSON has comes back."""
        result = self._browser.command(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((value) => JSON.stringify([value]))",
            target={"context": self.context},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])[0]

    def wait_for(self, condition):
        """Wait until a JavaScript condition holds; the page looks 50 times a second."""
        seconds = PATIENCE / 2
        held = self.evaluate(
            "new Promise((resolve) => {"
            f"const end = performance.now() + {seconds * 1000};"
            "const look = () => {"
            f"const held = Boolean({condition});"
            "if (held || performance.now() > end) resolve(held); else setTimeout(look, 20);"
            "}; look(); })"
        )
        assert held, f"not within {seconds} s: {condition}; the page: {self.text()}"

    def text(self, selector="body"):
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def type(self, text):
        """Press and release keys, as a person does."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": keys}]
        self._command("input.performActions", actions=actions)

    def resize(self, width, height):
        viewport = {"width": width, "height": height}
        self._command("browsingContext.setViewport", viewport=viewport)

    def screenshot(self, path):
        """Write a picture of what is seen, as PNG."""
        data = self._command("browsingContext.captureScreenshot")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def _command(self, method, **params):
        return self._browser.command(method, context=self.context, **params)
