"""Valkey (or Redis) as an embedded server: once as the cache, once as the broker of kombu."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import ClassVar

from telegram_hybrid.embedded.binaries import Binaries
from telegram_hybrid.embedded.process import Place, Server

_ANSWER_SECONDS = 2.0
_SAVING_SECONDS = 10.0


def valkey_command(program: Path, path: Path, **settings: str) -> list[str]:
    """Return the command line of a server on the Unix socket `path` and on nothing else."""
    common = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "save": ""}
    words = [
        word
        for name, value in {**common, **settings}.items()
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    return [str(program), *words]


class _Valkey(Server):
    def __init__(self, place: Place, binaries: Binaries) -> None:
        super().__init__(place)
        self._program = binaries.redis_server
        self._socket = place.sockets / f"{self.name}.sock"

    def answers(self) -> bool:
        """Whether it replies to PING; it refuses while it loads its append-only file."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_ANSWER_SECONDS)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Cache(_Valkey):
    """Keeps nothing, and forgets what was not used for longest when `memory` bytes are full."""

    name: ClassVar[str] = "cache"

    def __init__(self, place: Place, binaries: Binaries, *, memory: int) -> None:
        super().__init__(place, binaries)
        self._memory = memory

    @property
    def url(self) -> str:
        """Where clients of redis-py connect."""
        return f"unix://{self._socket}?db=0"

    def command(self) -> list[str]:
        """Return program and arguments."""
        return valkey_command(
            self._program,
            self._socket,
            appendonly="no",
            maxmemory=str(self._memory),
            maxmemory_policy="allkeys-lru",
        )

    def ending(self) -> list[tuple[signal.Signals, float]]:
        """Return nothing before SIGKILL: there is nothing to save."""
        return []


class Broker(_Valkey):
    """Keeps every acknowledged write over a kill -9; see the package for what a power cut takes."""

    name: ClassVar[str] = "broker"

    @property
    def url(self) -> str:
        """Where kombu connects."""
        return f"redis+socket://{self._socket}?virtual_host=0"

    def command(self) -> list[str]:
        """Return program and arguments; the package's docstring reasons about `appendfsync`."""
        return valkey_command(
            self._program,
            self._socket,
            appendonly="yes",
            appendfsync="no",
            maxmemory="0",
            maxmemory_policy="noeviction",
        )

    def ending(self) -> list[tuple[signal.Signals, float]]:
        """Return a clean end for kept data; temporary data goes with the directory."""
        return [(signal.SIGTERM, _SAVING_SECONDS)] if self.place.kept else []
