"""The whole deployment natively: every daemon on the very files that `stack write` wrote, with only
ports and paths of its own, in a folder of its own, torn down by pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from servers.daemon import Daemon, answers, end
from servers.ports import free_ports
from servers.postgres import Postgres, binaries
from servers.rabbitmq import SERVER, RabbitMQ
from servers.redis_ha import Node, RedisHA
from telegram_hybrid.settings import Settings
from telegram_hybrid.stack import PORTS, Plan, write


class NativeStack:
    """A deployment written for this machine, and its eight daemons, none of which runs yet.

    `start` starts some or all of them side by side, and again what a test has killed. Before
    that, `add` and `replace` change the written files, for tests that need other values than
    the deployed ones. `close` (or the end of a with block) leaves nothing behind.
    """

    def __init__(self) -> None:
        # Not pytest's folder: its path is too long for a unix socket, and root's is closed to
        # others.
        self.folder = Path(tempfile.mkdtemp(prefix="stack-", dir="/var/tmp"))
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        write(self.folder, Plan(native=True, ports=self.ports))
        self.env = read_env(self.folder / ".env")
        self.settings = Settings.from_env(self.env)
        self._user = _server_user()
        self.postgres = Postgres(self.folder, self.ports["postgres"], self._user)
        self.pgbouncer = Daemon(
            "pgbouncer",
            [str(_pgbouncer()), str(self.folder / "pgbouncer/pgbouncer.ini")],
            self.folder,
            lambda: answers(self.ports["pgbouncer"]),
            user=self._user,
        )
        self.redis = RedisHA(
            [self._node("redis-master", "redis"), self._node("redis-replica", "replica")],
            [self._node(f"sentinel-{n}", f"sentinel-{n}") for n in (1, 2, 3)],
        )
        self.rabbitmq = RabbitMQ(
            self.folder / "data/rabbitmq",
            self.folder / "rabbitmq",
            self.ports["rabbitmq"],
            self.settings.broker_url or "",
            self._user,
        )
        self._give()

    @staticmethod
    def missing() -> str | None:
        """What has to be installed first, None if nothing."""
        for found, package in (
            (binaries(), "postgresql"),
            (_pgbouncer(), "pgbouncer"),
            (shutil.which("redis-server"), "redis-server"),
            (SERVER.exists(), "rabbitmq-server"),
            (shutil.which("epmd"), "erlang-base"),
            (shutil.which("setpriv"), "util-linux"),
        ):
            if not found:
                return f"{package} is not installed (apt-get install {package})"
        return None

    @property
    def daemons(self) -> list[Daemon]:
        """All of them, in the order in which they have to become ready; the slowest first."""
        return [self.rabbitmq, *self.redis.all, self.postgres, self.pgbouncer]

    @property
    def pooler_url(self) -> str:
        return self.settings.pooler_url or ""

    def start(self, *some: Daemon) -> None:
        """Start these (all, if none is named) side by side, and wait until they serve."""
        if not some:
            self.rabbitmq.spawn()
            self.redis.spawn()
        for each in some or self.daemons:
            each.spawn()
        for each in some or self.daemons:
            each.wait()
        if not some:
            self.redis.settle()

    def add(self, file: str, *lines: str) -> None:
        """Append lines to a written file; in each of them the last value counts."""
        path = self.folder / file
        path.write_text(path.read_text() + "".join(f"{line}\n" for line in lines))

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace what a written file says."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} does not say {old!r}"
        path.write_text(text.replace(old, new))

    def add_replica(self) -> Node:
        """One more replica, on the file of the first with a port and folders of its own."""
        (port,) = free_ports(1)
        first = self.redis.nodes[1]
        config = self.folder / "redis-replica-2/redis.conf"
        config.parent.mkdir(mode=0o700)
        text = first.config.read_text().replace(str(first.port), str(port))
        config.write_text(text.replace("data/redis-replica", "redis-replica-2"))
        node = Node(config, port, first.password, self._user)
        self.redis.nodes.append(node)
        self._give()
        return node

    def connect(self, **options: Any) -> psycopg.Connection:
        """A connection of the application's, to PostgreSQL itself unless told otherwise."""
        told = {"conninfo": self.settings.database_url, "connect_timeout": 5}
        return psycopg.connect(**told | options, prepare_threshold=None, autocommit=True)

    def close(self) -> None:
        """End every process at once, and remove the folder."""
        hard = [*self.redis.all, self.pgbouncer, self.rabbitmq, self.rabbitmq.mapper]
        for each in (*hard, self.postgres):
            each.resume()
        end(hard, signal.SIGKILL)
        end([self.postgres], signal.SIGQUIT)  # at once; SIGKILL leaves shared memory behind
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _node(self, name: str, listener: str) -> Node:
        sentinel = name.startswith("sentinel")
        password = self.env[f"TELEGRAM_REDIS_{'SENTINEL_' if sentinel else ''}PASSWORD"]
        config = self.folder / name / ("sentinel.conf" if sentinel else "redis.conf")
        return Node(config, self.ports[listener], password, self._user, sentinel=sentinel)

    def _give(self) -> None:
        """Hand all files to the servers' user."""
        if self._user is None:
            return
        entry = pwd.getpwnam(self._user)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)


def read_env(path: Path) -> dict[str, str]:
    """The variables of an .env file."""
    lines = (line for line in path.read_text().splitlines() if line and line[0] != "#")
    return dict(line.split("=", 1) for line in lines)


def _pgbouncer() -> str | None:
    # Debian installs it outside of many users' PATH.
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def _server_user() -> str | None:
    """Whom servers that refuse root run as; None if we are not root."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {each.pw_name for each in pwd.getpwall()} else "nobody"
