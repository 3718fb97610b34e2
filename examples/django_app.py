"""
A WebSocket in a Django application: views tell browsers what has happened.

With syncws and Django installed (pip install . django):

    python examples/django_app.py [PORT DJANGO_PORT]

Connect to ws://localhost:8765, and open http://localhost:8000/notify/hello. In a project, settings
and views have files of their own; the server starts where manage.py or wsgi.py does.
"""

import signal
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

from syncws import broadcast, serve

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], LOGGING_CONFIG=None)


def notify(request, text):
    return HttpResponse(f"{broadcast(server.connections, text).sent} told\n")


def listen(connection):
    for message in connection:
        connection.send(f"You said: {message}")


urlpatterns = [path("notify/<str:text>", notify)]
port, django_port = map(int, sys.argv[1:] or [8765, 8000])
signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM acts as Ctrl-C
with serve(listen, "localhost", port).start() as server:
    print(f"ws://localhost:{server.server_address[1]}", flush=True)
    # The reloader would run all this in two processes.
    execute_from_command_line(["", "runserver", "--noreload", f"localhost:{django_port}"])
