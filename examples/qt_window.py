"""
A window of Qt with a WebSocket: it shows what arrives, and sends to all what is typed.

With syncws and PySide6 installed (pip install . PySide6):

    python examples/qt_window.py [PORT]
"""

import signal
import sys

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtWidgets import QApplication, QLineEdit, QListWidget, QVBoxLayout, QWidget

from syncws import broadcast, serve


class Bridge(QObject):
    received = Signal(str)  # delivered in the main thread, to which widgets belong

    def listen(self, connection):
        for message in connection:
            self.received.emit(str(message))


app, bridge = QApplication(sys.argv[:1]), Bridge()
window, messages, entry, timer = QWidget(), QListWidget(), QLineEdit(), QTimer()
layout = QVBoxLayout(window)
for widget in (messages, entry):
    layout.addWidget(widget)
bridge.received.connect(messages.addItem)
entry.returnPressed.connect(lambda: broadcast(server.connections, entry.text()))
signal.signal(signal.SIGTERM, lambda *args: app.quit())
timer.timeout.connect(lambda: None)  # Python notices SIGTERM only when some of it runs
timer.start(100)
port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
with serve(bridge.listen, "localhost", port).start() as server:
    print(f"ws://localhost:{server.server_address[1]}", flush=True)
    window.show()
    app.exec()
