"""
Several processes behind one port, managed by Gunicorn.

This module needs Gunicorn, which runs on Unix only::

    pip install 'syncws[gunicorn]'

``chat.py`` has an ordinary handler, and two workers serve it::

    gunicorn -k syncws.gunicorn.Worker -w 2 chat:handler

Where options of :func:`serve` are needed, ``chat.py`` has an :class:`App` instead::

    app = App(handler, health="/healthz", max_size=65536)
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import os
import selectors
import threading
import weakref
from typing import Any, Callable

from .deadline import Deadline
from .mistakes import check_handler
from .server import Server, ServerConnection, ShutdownReport
from .serving import serve

try:
    from gunicorn.errors import AppImportError  # type: ignore[import-untyped] # has no types
    from gunicorn.sock import ssl_context  # type: ignore[import-untyped] # has no types
    from gunicorn.workers import base  # type: ignore[import-untyped] # has no types
except ImportError as exc:
    raise ImportError("syncws.gunicorn needs Gunicorn: pip install 'syncws[gunicorn]'") from exc

__all__ = ["App", "Worker"]

# How often a worker looks after itself. Gunicorn's shortest timeout is a second, and workers
# have to report twice in that time.
HEARTBEAT = 0.5  # seconds

# What is left of graceful_timeout when the last handlers are given up, for the process to exit
# before Gunicorn kills it; not more than this share of it.
EXIT_RESERVE = 1.0  # seconds
EXIT_SHARE = 0.2

# How long SIGINT and SIGQUIT let connections close.
QUICK = 0.5  # seconds

# Options of serve() that are Gunicorn's settings.
ELSEWHERE = {
    "host": "bind",
    "port": "bind",
    "sock": "bind",
    "ssl": "certfile and keyfile, or its hook ssl_context",
}


class App:
    """
    A handler with the options of its servers, for Gunicorn to load.

    Args:
        handler: called with each connection, in a thread of its own; as for :func:`serve`.
        drain: seconds that connections may go on when their worker was asked to end, while
            newcomers are left to other workers. It is cut where ``graceful_timeout`` leaves
            less time. With 0, a client may be refused that has just connected to a
            worker that is being replaced.
        core_per_worker: run each worker, with all its threads, on one core of its own, as
            far as there are enough. Not for handlers that compute outside of the GIL.
        options: of :func:`serve`, except for where to listen and TLS, which are Gunicorn's
            settings. ``max_connections`` is by default Gunicorn's
            ``worker_connections``, if that is set to anything but its own default; it holds for
            each worker and each address.

    Raises:
        TypeError: the handler can't be called with a connection, or an option is not known.
    """

    def __init__(
        self,
        handler: Callable[[Any], None],
        *,
        drain: float = 1.0,
        core_per_worker: bool = False,
        **options: Any,
    ) -> None:
        try:
            check_handler(handler)
        except TypeError as exc:
            advice = "WSGI and ASGI applications need another worker class"
            raise TypeError(f"{exc}; {advice}") from None
        known = inspect.signature(serve).parameters
        for name in options:
            if name in ELSEWHERE:
                raise TypeError(f"{name} is not for App(): use Gunicorn's {ELSEWHERE[name]}")
            if name not in known or name in ("handler", "kwargs"):
                raise TypeError(f"serve() has no option {name}")
        self.handler = handler
        self.drain = drain
        self.core_per_worker = core_per_worker
        self.options = options

    def __call__(self, connection: ServerConnection) -> None:
        """Call the handler. Gunicorn takes only what can be called."""
        self.handler(connection)


# The workers that live, in the process that forks them.
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


class Worker(base.Worker):  # type: ignore[misc] # Gunicorn has no types
    """
    A process of Gunicorn that serves WebSocket connections: ``-k syncws.gunicorn.Worker``.

    It has a server for each address that Gunicorn listens on. SIGTERM lets connections go
    on for the ``drain`` time of the :class:`App`, then closes them with 1001, and gives up what is
    left shortly before ``graceful_timeout``; SIGINT and SIGQUIT close them at once and give up
    after half a second.

    Thread safety: signal handlers and :meth:`run` belong to the main thread of the process.
    """

    number: int
    """The lowest that no other worker has; numbers of workers that have gone are used again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Called before the fork, where the siblings are.
        taken = {worker.number for worker in _workers}
        self.number = next(number for number in itertools.count() if number not in taken)
        _workers.add(self)
        self.application: App
        self.servers: list[Server] = []
        self._ended = itertools.count(1)  # connections, each with its number
        self._quick = False
        self._closed = False

    # Booting. What fails here makes Gunicorn give up; later, it would start workers for ever.

    def load_wsgi(self) -> None:
        """Load the application and make its servers; called by Gunicorn."""
        try:
            self.wsgi = self.app.wsgi()
        except SyntaxError as exc:
            if self.reloader is None:
                raise
            self.log.exception("the application can't be loaded; waiting for a change")
            if exc.filename is not None:
                self.reloader.add_extra_file(exc.filename)
            self.wsgi = _unloadable(exc)
        try:
            self.application = self.wsgi if isinstance(self.wsgi, App) else App(self.wsgi)
            self._log_to_gunicorn()
            self._make_servers()
        except (TypeError, ValueError) as exc:
            raise AppImportError(f"{getattr(self.app, 'app_uri', None) or 'app'}: {exc}") from exc

    def _log_to_gunicorn(self) -> None:
        """Have the lines of this package in Gunicorn's error log, unless they go elsewhere."""
        target = getattr(self.log, "error_log", None)  # what is not so with some logger classes
        logger = logging.getLogger("syncws")
        if target is None or logging.getLogger("syncws.server").hasHandlers():
            return
        logger.addHandler(_Forwarder(target))
        if logger.level == logging.NOTSET:
            logger.setLevel(target.getEffectiveLevel())

    def _make_servers(self) -> None:
        options = dict(self.application.options)
        connections = self.cfg.settings["worker_connections"]
        if connections.get() != connections.default:
            options.setdefault("max_connections", connections.get())
        context = ssl_context(self.cfg) if self.cfg.is_ssl else None
        counts = self.cfg.max_requests > 0
        handler = self._handle_and_count if counts else self.application.handler
        for listener in self.sockets:
            self.servers.append(serve(handler, sock=listener.sock, ssl=context, **options))

    def _handle_and_count(self, connection: ServerConnection) -> None:
        try:
            self.application.handler(connection)
        finally:
            if next(self._ended) >= self.max_requests and self.alive:
                self.log.info("Restarting after %d connections: %s", self.max_requests, self)
                self._end()

    # Signals

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End soon. For SIGINT and SIGQUIT."""
        if not self.booted:
            super().handle_quit(sig, frame)
        self._quick = True
        self.alive = False
        self.cfg.worker_int(self)

    # Living

    def run(self) -> None:
        """Serve until it is time to end; called by Gunicorn."""
        if self.application.core_per_worker:
            self._choose_core()
        for server in self.servers:
            # These threads inherit the core, as do all that they start.
            threading.Thread(
                target=self._serve, args=(server,), name="syncws-server", daemon=True
            ).start()
        self._live_until(lambda: not self.alive)
        self._close()

    def _choose_core(self) -> None:
        if not hasattr(os, "sched_setaffinity"):
            self.log.warning("core_per_worker has no effect: this platform can't choose cores")
            return
        cores = sorted(os.sched_getaffinity(0))
        core = cores[self.number % len(cores)]
        os.sched_setaffinity(0, {core})
        self.log.info("Worker on core %d: %s", core, self)

    def _serve(self, server: Server) -> None:
        try:
            server.serve_forever()
        except Exception:
            self.log.exception("accepting connections ended")
        finally:
            if self.alive:
                # Whatever the reason is, a worker that accepts nothing is worth replacing.
                self.log.warning("Worker accepts no more connections and ends: %s", self)
            self._end()

    def _end(self) -> None:
        """Have the main thread end the worker gracefully. From any thread."""
        self.alive = False
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self.PIPE[1], b"\0")

    def _live_until(self, condition: Callable[[], bool]) -> None:
        """
        Wait, and tell Gunicorn meanwhile that this process is not stuck.

        Signals end the wait by themselves, as they are written to the pipe.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.PIPE[0], selectors.EVENT_READ)
            self._beat_until(condition, selector)

    def _beat_until(self, condition: Callable[[], bool], selector: selectors.BaseSelector) -> None:
        while not condition():
            self.notify()
            if self.alive and os.getppid() != self.ppid:
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False
            elif selector.select(HEARTBEAT):
                os.read(self.PIPE[0], 4096)

    # Ending

    def _close(self) -> None:
        if not self._quick:
            # In a thread, so that this one still reports, and takes signals.
            threading.Thread(target=self._close_gracefully, name="closing", daemon=True).start()
            self._live_until(lambda: self._closed or self._quick)
        if not self._closed:
            self._shutdown(0.0, QUICK)

    def _close_gracefully(self) -> None:
        limit = self.cfg.graceful_timeout
        left = limit - min(EXIT_RESERVE, limit * EXIT_SHARE)
        # Connections need time to close, after they were let go on.
        drain = min(self.application.drain, max(left - self._close_timeout(), left / 2))
        try:
            self._shutdown(drain, left - drain)
        finally:
            self._closed = True
            self._wake()

    def _close_timeout(self) -> float:
        timeouts = [server.options.close_timeout for server in self.servers]
        return max((t for t in timeouts if t is not None), default=0.0)

    def _shutdown(self, drain: float, timeout: float) -> None:
        for server in self.servers:
            server.close(drain=drain)
        deadline = Deadline(drain + timeout)
        for server in self.servers:
            # A server counts the timeout from the end of its drain period on.
            left = deadline.remaining() or 0.0
            self._report(server.wait_closed(min(timeout, left)))

    def _report(self, report: ShutdownReport) -> None:
        if report.closed or report.aborted:
            text = "Connections closed: %d, aborted: %d"
            self.log.info(text, report.closed, report.aborted)
        for handler in report.running:
            self.log.warning("A handler did not end in time:\n%s", handler.stack)


class _Forwarder(logging.Handler):
    """Hands records on to a logger of Gunicorn, as if they were its own."""

    def __init__(self, target: logging.Logger) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a record."""
        self._target.handle(record)


def _unloadable(exc: SyntaxError) -> App:
    """An application that answers what is wrong with the real one, while it is worked on."""
    text = f"The application can't be loaded: {exc}\n"

    def process_request(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(500, text)

    return App(lambda connection: None, process_request=process_request)
