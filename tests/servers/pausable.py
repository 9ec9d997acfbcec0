"""A TCP proxy whose traffic from the server a test may hold back: a replica that lags."""

from __future__ import annotations

import contextlib
import socket
import threading


class Pausable:
    """Listens on 127.0.0.1:`port` and forwards to a port; `close` ends all connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """From now on the client hears nothing."""
        self._flowing.clear()

    def release(self) -> None:
        """Let it hear what was held back, and all that follows."""
        self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [client, server]
            for source, sink, held in ((client, server, False), (server, client, True)):
                pump = threading.Thread(target=self._pump, args=(source, sink, held), daemon=True)
                pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, held: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if held:
                    self._flowing.wait()
                sink.sendall(data)
