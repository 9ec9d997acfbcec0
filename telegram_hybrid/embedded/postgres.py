"""PostgreSQL as an embedded server: initdb, settings for a small machine, readiness."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import ClassVar

import psycopg

from telegram_hybrid.embedded.accounts import can_reach, make_private
from telegram_hybrid.embedded.binaries import Binaries
from telegram_hybrid.embedded.directories import end_strays, remove
from telegram_hybrid.embedded.process import Place, Server
from telegram_hybrid.errors import EmbeddedError

DATABASE = "telegram"
_PORT = 5432  # part of the socket's name only
_STRAYS_SECONDS = 10.0
_POLL_SECONDS = 0.01
_ANSWER_SECONDS = 2  # the least that libpq accepts
_FAST_SECONDS = 30.0  # a fast shutdown writes a checkpoint
_IMMEDIATE_SECONDS = 7.0  # the postmaster kills its children after 5
_INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",  # the default lets a temporary directory grow by a gigabyte
    "synchronous_commit": "on",
    "autovacuum": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}
# Nothing is lost when processes die, everything when the machine does: right for temporary data.
_VOLATILE = {"fsync": "off", "full_page_writes": "off"}


def postgres_command(program: Path, data: str, sockets: Path, *, kept: bool) -> list[str]:
    """Return the command line; settings on it leave the data directory's own files alone."""
    settings = _SETTINGS if kept else {**_SETTINGS, **_VOLATILE}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [str(program), "-D", data, "-k", str(sockets), *options]


class Postgres(Server):
    """One PostgreSQL cluster with a database `telegram`; trust authentication on its socket."""

    name: ClassVar[str] = "postgres"
    # Immediate shutdown: unlike SIGKILL it takes the backends along, whatever they compute.
    death_signal: ClassVar[signal.Signals] = signal.SIGQUIT

    def __init__(self, place: Place, binaries: Binaries) -> None:
        super().__init__(place)
        self._binaries = binaries

    @property
    def url(self) -> str:
        """Where clients connect. The port is named, or else their PGPORT would choose it."""
        return f"postgresql://postgres@/{DATABASE}?host={self.place.sockets}&port={_PORT}"

    def prepare(self) -> None:
        """Make the cluster if there is none yet (0.6 to 1.2 s); a half-made one is begun anew."""
        if self.directory.exists():
            return
        unfinished = self.directory.with_name("postgres.unfinished")
        while end_strays(unfinished):
            time.sleep(_POLL_SECONDS)
        remove(unfinished)
        make_private(unfinished, self.place.account)
        words = [str(self._binaries.initdb), "-D", self._data_argument(unfinished), *_INITDB]
        initdb = self.spawn(words if self.place.kept else [*words, "--no-sync"], unfinished)
        if initdb.wait() != 0:
            raise self.failure(f"could not be set up (initdb exited with {initdb.returncode})")
        unfinished.rename(self.directory)

    def command(self) -> list[str]:
        """Return program and arguments."""
        return postgres_command(
            self._binaries.postgres,
            self._data_argument(self.directory),
            self.place.sockets,
            kept=self.place.kept,
        )

    def _data_argument(self, directory: Path) -> str:
        """Return how PostgreSQL, which insists on an absolute path, shall name its directory.

        Below a parent that its account may not enter (/root, mktemp -d, pytest's tmp_path), only
        the working directory that we gave it leads there.
        """
        account = self.place.account
        if account is None or can_reach(directory, account.uid):
            return str(directory.absolute())
        return "/proc/self/cwd"

    def launch(self) -> None:
        """Start the postmaster, after ending what a killed one left behind."""
        deadline = time.monotonic() + _STRAYS_SECONDS
        while end_strays(self.directory):
            if time.monotonic() > deadline:
                raise self.failure("cannot start: processes of a former one do not end")
            time.sleep(_POLL_SECONDS)
        # Nobody works here, so these are stale. A reused process id in them would forbid the start.
        self._pid_file.unlink(missing_ok=True)
        (self.place.sockets / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
        super().launch()

    @property
    def _pid_file(self) -> Path:
        return self.directory / "postmaster.pid"

    def answers(self) -> bool:
        """Whether it accepts connections; makes the database `telegram` if it is not there."""
        # Asking the file first keeps "the database system is starting up" out of the log.
        if not self._ready():
            return False
        try:
            with psycopg.connect(
                self.url.replace(f"/{DATABASE}?", "/postgres?"),
                autocommit=True,
                connect_timeout=_ANSWER_SECONDS,
            ) as connection:
                found = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)
                )
                if found.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        except psycopg.Error as error:
            raise EmbeddedError(f"embedded postgres: cannot make {DATABASE}: {error}") from error
        return True

    def _ready(self) -> bool:
        """Whether postmaster.pid is of this launch (line 1) and says "ready" (line 8)."""
        try:
            lines = self._pid_file.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def ending(self) -> list[tuple[signal.Signals, float]]:
        """Return a fast shutdown for kept data, an immediate one for temporary."""
        fast = [(signal.SIGINT, _FAST_SECONDS)] if self.place.kept else []
        return [*fast, (signal.SIGQUIT, _IMMEDIATE_SECONDS)]
