"""
A window of Tk with a WebSocket: it shows what arrives, and sends to all what is typed.

With syncws installed (pip install .):

    python examples/tk_window.py [PORT]
"""

import queue
import signal
import sys
import tkinter

from syncws import broadcast, serve

incoming = queue.SimpleQueue()  # Tk belongs to one thread, and handlers have others


def listen(connection):
    for message in connection:
        incoming.put(message)


def show():
    while not incoming.empty():
        messages.insert("end", incoming.get())
    root.after(50, show)


root = tkinter.Tk()
messages, entry = tkinter.Listbox(root), tkinter.Entry(root)
messages.pack()
entry.pack()
entry.bind("<Return>", lambda event: broadcast(server.connections, entry.get()))
signal.signal(signal.SIGTERM, lambda *args: root.quit())
with serve(listen, "localhost", *map(int, sys.argv[1:] or [8765])).start() as server:
    print(f"ws://localhost:{server.server_address[1]}", flush=True)
    show()
    root.mainloop()
print(f"shown: {messages.get(0, 'end')}")
