"""PgBouncer from the distribution's package: transaction pooling, in front of one PostgreSQL."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from servers.daemon import Daemon, answers, own
from servers.ports import free_ports
from servers.postgres import DATABASE, PASSWORD, USER, Postgres

# Debian installs it outside of many users' PATH.
_PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

_CONFIG = """\
[databases]
{database} = host=127.0.0.1 port={server_port} dbname={database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/userlist.txt
pool_mode = transaction
max_client_conn = 400
default_pool_size = {pool_size}
"""


class PgBouncer(Daemon):
    """One pooler on 127.0.0.1, in front of `server`; its port stays the same over restarts.

    `options` are further lines of its configuration, such as query_wait_timeout="2".
    """

    name = "pgbouncer"

    def __init__(self, server: Postgres, *, pool_size: int = 20, **options: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pgb-", ignore_cleanup_errors=True)
        super().__init__(own(Path(self._directory.name)))
        (self.port,) = free_ports(1)
        # The secret instead of the password, as auth_query gives it: from a password PgBouncer
        # computes the secret anew for every login, which takes it milliseconds each.
        with server.superuser() as connection:
            row = connection.execute(
                "SELECT rolpassword FROM pg_authid WHERE rolname = %s", [USER]
            ).fetchone()
        self._secret = str(row[0]) if row else ""
        self.configure(server_port=server.port, pool_size=pool_size, **options)

    @staticmethod
    def available() -> str | None:
        """None when it can be started here, else what is missing and how to get it."""
        if _PROGRAM is None:
            return "pgbouncer is not installed (apt-get install pgbouncer)"
        if shutil.which("setpriv") is None:
            return "setpriv is not installed (apt-get install util-linux)"
        return None

    @staticmethod
    def version() -> str | None:
        """The version of the installed package, None when it is not installed."""
        if _PROGRAM is None:
            return None
        said = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, timeout=10)
        match = re.search(r"\d+(\.\d+)+", said.stdout)
        return match.group() if match else None

    @property
    def url(self) -> str:
        """Where `writer` connects."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def configure(
        self,
        *,
        server_port: int,
        pool_size: int = 20,
        database: str = DATABASE,
        secret: str | None = None,
        **options: str,
    ) -> None:
        """Write the configuration, for the next start."""
        text = _CONFIG.format(
            database=database,
            server_port=server_port,
            port=self.port,
            folder=self.folder,
            pool_size=pool_size,
        )
        lines = [f"{name} = {value}\n" for name, value in options.items()]
        (self.folder / "pgbouncer.ini").write_text(text + "".join(lines))
        (self.folder / "userlist.txt").write_text(f'"{USER}" "{secret or self._secret}"\n')

    def command(self) -> Sequence[str]:
        return [str(_PROGRAM), str(self.folder / "pgbouncer.ini")]

    def ready(self) -> bool:
        return answers(self.port)

    def delete(self) -> None:
        """Stop, and remove its files."""
        self.stop()
        self._directory.cleanup()
