"""One daemon of a test: run as an unprivileged user, tied to the test run, killed and restarted."""

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


def unprivileged() -> pwd.struct_passwd | None:
    """Whom servers that refuse root run as: nobody, or None for "as this process"."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def answers(port: int) -> bool:
    """Whether anybody accepts connections on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


class Daemon:
    """`start`, `stop`, `kill`, `pause` and `resume` may be called in any order and repeatedly.

    A subclass gives `command` and `ready`. The process gets SIGKILL when the thread that started
    it ends, even when the test run is killed.
    """

    name = "daemon"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """Program and arguments."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        """Everything that the server wrote, over all its starts."""
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until it serves. Raises RuntimeError with the end of the log."""
        if self.running:
            return
        self._process = self.run(self.command())
        self._wait(self._process, self.ready)

    def run(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a command in our folder, as the unprivileged user."""
        account = unprivileged()
        identity = (
            [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            if account
            else []
        )
        with self.log.open("ab") as log:
            return subprocess.Popen(
                # Changing the user clears the death signal: setpriv sets it afterwards.
                ["setpriv", "--pdeathsig", "SIGKILL", *identity, *command],
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for the test run alone
            )

    def stop(self) -> None:
        """End cleanly; kill if that takes more than 20 seconds."""
        self._end(self.stop_signal, _STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL, _STOP_SECONDS)

    def pause(self) -> None:
        """SIGSTOP: sockets stay open, nobody answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, signum: int, seconds: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signum)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(self._report(f"ended with exit code {process.returncode}"))
            if ready():
                return
            time.sleep(0.02)
        raise RuntimeError(self._report(f"was not ready within {_START_SECONDS:.0f} s"))

    def _report(self, event: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-40:]
        return "\n".join([f"{self.name} {event}; end of {self.log}:", *lines])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def own(folder: Path) -> Path:
    """Make a folder that the unprivileged user may write."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if account := unprivileged():
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder
