"""One server process of a test: tied to the test run, killed, paused and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_START_SECONDS = 120.0  # RabbitMQ: 4 s on an idle machine, 18 s seen on a busy one
_STOP_SECONDS = 20.0


class Daemon:
    """`start`, `stop`, `kill`, `pause` and `resume` may be called in any order and repeatedly.

    `ready` says whether it serves. `user` is whom it runs as, None for "as we do". The process
    gets SIGKILL when the thread that started it ends, even when the test run is killed.
    """

    stop_signal = signal.SIGTERM

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        ready: Callable[[], bool],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.folder, self.user = name, folder, user
        self.log = folder / f"{name}.log"  # everything that it says, over all its starts
        self.environment = dict(environment or {})
        self._command, self._ready = command, ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start and wait until it serves. Raises RuntimeError with the end of the log."""
        self.spawn()
        self.wait()

    def spawn(self) -> None:
        """Start without waiting; nothing to do if it runs."""
        if self.running:
            return
        usual = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*as_user(self.user), *self._command],
                cwd=self.folder,
                env={**usual, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for the test run alone
            )

    def wait(self) -> None:
        """Wait until it serves. Raises RuntimeError with the end of the log."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError(self._report(f"ended with exit code {self._process.returncode}"))
            if time.monotonic() > deadline:
                raise RuntimeError(self._report(f"was not ready within {_START_SECONDS:.0f} s"))
            time.sleep(0.02)

    def stop(self) -> None:
        """End cleanly; kill if that takes more than 20 seconds."""
        end([self], self.stop_signal)

    def kill(self) -> None:
        """SIGKILL, whatever state it is in; its children have ended, too, when this returns."""
        end([self], signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: sockets stay open, nobody answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _report(self, event: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-80:]
        return "\n".join([f"{self.name} {event}; end of {self.log}:", *lines])


def end(daemons: Iterable[Daemon], signum: int | None = None) -> None:
    """End them all at once, each by its own signal unless told which, and their children."""
    ending = []
    for each in daemons:
        process, each._process = each._process, None
        if process is not None and process.poll() is None:
            ending.append((process, descendants(process.pid)))
            process.send_signal(signum or each.stop_signal)
            process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + _STOP_SECONDS
    for process, children in ending:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Orphans end by themselves; until then they hold what the next start needs.
        while any(alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)


def descendants(pid: int) -> set[int]:
    """The processes that this one started, theirs included."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if (fields := _stat(int(entry.name))) is not None:
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= more
    return found


def alive(pid: int) -> bool:
    """Whether this process runs; a zombie, whose new parent is slow to collect it, does not."""
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def as_user(user: str | None) -> list[str]:
    """What to put before a command so that it runs as `user` and ends with our thread."""
    # Changing the user clears the death signal: setpriv sets it afterwards.
    dying = ["setpriv", "--pdeathsig", "SIGKILL"]
    return dying if user is None else [*dying, "--reuid", user, "--regid", user, "--init-groups"]


def answers(port: int, greeting: bytes = b"", reply: bytes = b"") -> bool:
    """Whether anybody accepts connections on 127.0.0.1, and replies so to this greeting."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(greeting)
            return not greeting or connection.recv(len(reply)) == reply
    except OSError:
        return False
