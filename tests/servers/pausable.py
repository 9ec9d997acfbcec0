"""A TCP proxy whose connections a test may hold back (a replica that lags) and cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path


class Pausable:
    """Listens on 127.0.0.1:`port`, forwards to a port or socket; `close` ends all connections."""

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """From now on the client hears nothing."""
        self._flowing.clear()

    def release(self) -> None:
        """Let it hear what was held back, and all that follows."""
        self._flowing.set()

    def cut(self) -> int:
        """End all connections at once, as a firewall that resets them; what was held back is lost.

        New ones are let through. Returns how many were cut.
        """
        with self._lock:
            cut, self._sockets = self._sockets, []
        for each in cut:
            with contextlib.suppress(OSError):
                # An RST instead of an orderly end.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._flowing.set()
        return len(cut) // 2

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connected()
            except OSError:
                client.close()  # nobody serves there at this moment
                continue
            with self._lock:
                self._sockets += [client, server]
            for source, sink, held in ((client, server, False), (server, client, True)):
                pump = threading.Thread(target=self._pump, args=(source, sink, held), daemon=True)
                pump.start()

    def _connected(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._target))
        return server

    def _pump(self, source: socket.socket, sink: socket.socket, held: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if held:
                    self._flowing.wait()
                sink.sendall(data)
        # The other side learns that this one has ended.
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
