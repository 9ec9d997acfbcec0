"""PostgreSQL on the deployment's files, in a cluster that its first start makes."""

import re
import signal
import subprocess
from pathlib import Path

from servers.daemon import Daemon, as_user


def binaries() -> Path | None:
    """The folder of the system's newest PostgreSQL."""
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "postgres").exists()]
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name)), default=None)


class Postgres(Daemon):
    """The cluster in data/`name`; its first start makes it and runs init.sql.

    `stop` is a fast shutdown. A standby's data is there before.
    """

    stop_signal = signal.SIGINT

    def __init__(
        self, folder: Path, port: int, user: str | None, *, name: str = "postgres"
    ) -> None:
        self.port, self._data, self._new = port, folder / "data" / name, False
        config = f"config_file={folder}/postgres/postgresql.conf"
        own = [] if name == "postgres" else [f"data_directory={self._data}", f"port={port}"]
        options = [word for each in (config, *own) for word in ("-c", each)]
        command = [str((binaries() or Path()) / "postgres"), *options]
        super().__init__(name, command, folder, self._serves, user=user)

    def spawn(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            # The deployment's own pg_hba.conf says who may come in, whatever initdb writes.
            options = ("-A", "peer", "--no-sync", "--no-instructions")
            self.run("initdb", "-D", str(self._data), "-E", "UTF8", "--locale=C.UTF-8", *options)
            self._new = True
        super().spawn()

    def wait(self) -> None:
        super().wait()
        if self._new:
            self.psql("-f", str(self.folder / "postgres/init.sql"))
            self._new = False

    def psql(self, *arguments: str, database: str = "postgres") -> str:
        """Run psql as the superuser, through the socket; raises CalledProcessError."""
        place = ("-h", f"{self.folder}/run", "-p", str(self.port), "-d", database)
        return self.run("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", *place, *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of PostgreSQL's as the server's user; raises CalledProcessError."""
        command = [str((binaries() or Path()) / program), *arguments]
        done = subprocess.run(
            [*as_user(self.user), *command], capture_output=True, text=True, check=True, cwd="/"
        )
        return done.stdout.strip()

    def _serves(self) -> bool:
        try:
            self.psql("-c", "SELECT 1")
        except subprocess.CalledProcessError:
            return False
        return True
