"""One server process: launched to die with us, watched, ended; its log's last lines."""

from __future__ import annotations

import abc
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import attrs

from telegram_hybrid.embedded.accounts import Account
from telegram_hybrid.errors import EmbeddedError

_LAUNCHER = Path(__file__).with_name("launcher.py")
_LOG_BYTES = 10 * 2**20  # a larger log is begun anew at start
_TAIL_LINES = 15
_KILLED_SECONDS = 10.0


@attrs.frozen
class Place:
    """Where and as whom servers run, and what they inherit."""

    data: Path
    sockets: Path
    kept: bool
    account: Account | None
    inherited: tuple[int, ...]


class Server(abc.ABC):
    """A server that can be launched again and again on the same socket.

    `launch` and `end` belong to one thread, the keeper (PR_SET_PDEATHSIG follows the thread that
    forks); everything else may be called from any.
    """

    name: ClassVar[str]
    # What ends it when we are killed. Nothing acknowledged is lost by it (see the package).
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, place: Place) -> None:
        self.place = place
        self.log = place.data / f"{self.name}.log"
        self.launches = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self) -> list[str]:
        """Return program and arguments."""

    @abc.abstractmethod
    def answers(self) -> bool:
        """Whether a client would be served now. Raises EmbeddedError if it never will be."""

    @property
    def directory(self) -> Path:
        """Where it runs, and keeps what it stores."""
        return self.place.data / self.name

    @property
    def pid(self) -> int | None:
        """The process id of the last launch."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process; it may take a while until it `answers`."""
        self.launches += 1
        self._process = self.spawn(self.command(), self.directory)

    def spawn(self, command: list[str], directory: Path) -> subprocess.Popen[bytes]:
        """Run a command in a directory, as our account, with its output in our log."""
        account = self.place.account or Account(-1, -1)
        identity = (os.getpid(), int(self.death_signal), account.uid, account.gid)
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, identity)]
        kept = {
            name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
        }
        with self.log.open("ab") as log:
            if log.tell() > _LOG_BYTES:
                log.truncate(0)
            return subprocess.Popen(  # noqa: S603 - our own binaries
                launcher + command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Not ours: PGPORT, PGDATA and the like would change what the server does.
                env={**kept, "LC_ALL": "C", "TZ": "UTC"},
                pass_fds=self.place.inherited,
                # Ctrl-C in a terminal is for this process, which then stops the server.
                start_new_session=True,
            )

    @abc.abstractmethod
    def ending(self) -> list[tuple[signal.Signals, float]]:
        """Return the signals that end it, each with the seconds that it may take."""

    def end(self) -> None:
        """End the process: as `ending` says, and by SIGKILL if it does not."""
        if self._process is None:
            return
        for signum, seconds in (*self.ending(), (signal.SIGKILL, _KILLED_SECONDS)):
            if self._process.poll() is not None:
                return
            self._process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def failure(self, problem: str) -> EmbeddedError:
        """Return an error that says what happened and ends with the last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 16384))
                lines = file.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        except FileNotFoundError:
            lines = ["(no log)"]
        return EmbeddedError(
            "\n  ".join([f"embedded {self.name} {problem}; its log ends:", *lines])
        )
