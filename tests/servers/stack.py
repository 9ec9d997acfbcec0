"""The whole deployment natively: every daemon on the very files that `stack write` wrote, with only
ports and paths of its own, in a folder of its own, torn down by pid."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import redis

from servers.ports import free_ports
from servers.rabbitmq import RabbitMQ
from telegram_hybrid.errors import BrokerError
from telegram_hybrid.stack import PORTS, Plan, write

_START_SECONDS = 60.0


class Daemon:
    """One server on written files; `start` waits until it is ready, `stop` and `kill` end it."""

    def __init__(
        self, command: list[str], folder: Path, ready: Callable[[], object], user: str | None = None
    ) -> None:
        self._command, self._folder, self._ready, self._user = command, folder, ready, user
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{Path(command[0]).name}.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(self._user), *self._command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command[0]} ended:\n{self.log.read_text()[-4000:]}")
            try:
                self._ready()
            except (OSError, psycopg.Error, redis.RedisError, BrokerError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class StackRabbitMQ(RabbitMQ):
    """RabbitMQ on the deployment's rabbitmq.conf, definitions and plugins."""

    def __init__(self, folder: Path, files: Path, port: int) -> None:
        super().__init__(folder)
        self._files, self.port = files, port

    def _prepare(self) -> dict[str, str]:
        own = {
            "RABBITMQ_CONFIG_FILE": str(self._files / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._files / "enabled_plugins"),
        }
        return super()._prepare() | own


class NativeStack:
    """A deployment written for this machine; each server is started by the one who needs it.

    `folder` has a short path, for the unix socket in it, and is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        write(folder, Plan(native=True, ports=self.ports))
        self.user = _server_user()
        if self.user is not None:
            _give(folder, self.user)

    @staticmethod
    def missing() -> str | None:
        """What has to be installed first, None if nothing."""
        for program, package in (
            (_postgres(), "postgresql"),
            (shutil.which("psql"), "postgresql-client"),
            (shutil.which("pgbouncer"), "pgbouncer"),
            (shutil.which("redis-server"), "redis-server"),
        ):
            if program is None:
                return f"{package} is not installed (apt-get install {package})"
        return RabbitMQ.available()

    @property
    def env(self) -> dict[str, str]:
        """The variables of the written .env."""
        return read_env(self.folder / ".env")

    @contextlib.contextmanager
    def postgres(self) -> Iterator[Daemon]:
        """PostgreSQL in a new cluster, on which init.sql was run."""
        binaries = _postgres()
        assert binaries is not None
        data = self.folder / "data/postgres"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-E", "UTF8", "--locale=C.UTF-8"]
        # The deployment's own pg_hba.conf says who may come in, whatever initdb writes.
        _run([*_as_user(self.user), *initdb, "-A", "peer", "--no-sync", "--no-instructions"])
        config = f"config_file={self.folder}/postgres/postgresql.conf"
        daemon = Daemon(
            [str(binaries / "postgres"), "-c", config], self.folder, self._socket_answers, self.user
        )
        with _running(daemon):
            self.psql("-f", str(self.folder / "postgres/init.sql"))
            yield daemon

    def psql(self, *arguments: str) -> str:
        """Run psql as the superuser, through the socket."""
        port = str(self.ports["postgres"])
        psql = ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", f"{self.folder}/run"]
        return _run([*_as_user(self.user), *psql, "-p", port, "-d", "postgres", *arguments])

    @contextlib.contextmanager
    def pgbouncer(self) -> Iterator[Daemon]:
        command = ["pgbouncer", str(self.folder / "pgbouncer/pgbouncer.ini")]
        pooled = {"host": "127.0.0.1", "port": self.ports["pgbouncer"]}
        daemon = Daemon(command, self.folder, lambda: self.connect(**pooled).close(), self.user)
        with _running(daemon):
            yield daemon

    def connect(self, **options: object) -> psycopg.Connection:
        """A connection of the application's, to the server itself unless told otherwise."""
        env = self.env
        told = {
            "host": env["TELEGRAM_DB_HOST"],
            "port": env["TELEGRAM_DB_PORT"],
            "dbname": env["TELEGRAM_DB_NAME"],
            "user": env["TELEGRAM_DB_USER"],
            "password": env["TELEGRAM_DB_PASSWORD"],
            "connect_timeout": 5,
        }
        return psycopg.connect(**told | options, prepare_threshold=None, autocommit=True)

    @contextlib.contextmanager
    def redis(self, role: str) -> Iterator[Daemon]:
        """ "master" or "replica" """
        config = self.folder / f"redis-{role}" / "redis.conf"
        daemon = Daemon(
            ["redis-server", str(config)],
            config.parent,
            lambda: self.redis_client("redis" if role == "master" else role).ping(),
            self.user,
        )
        with _running(daemon):
            yield daemon

    @contextlib.contextmanager
    def sentinel(self, number: int) -> Iterator[Daemon]:
        config = self.folder / f"sentinel-{number}" / "sentinel.conf"
        daemon = Daemon(
            ["redis-server", str(config), "--sentinel"],
            config.parent,
            lambda: self.redis_client(f"sentinel-{number}").ping(),
            self.user,
        )
        with _running(daemon):
            yield daemon

    def redis_client(self, listener: str) -> redis.Redis:
        kind = "SENTINEL_PASSWORD" if listener.startswith("sentinel") else "PASSWORD"
        password = self.env[f"TELEGRAM_REDIS_{kind}"]
        return redis.Redis(port=self.ports[listener], password=password, decode_responses=True)

    def rabbitmq(self) -> StackRabbitMQ:
        """RabbitMQ, to be entered; runs as we do."""
        files = self.folder / "rabbitmq"
        return StackRabbitMQ(self.folder / "data/rabbitmq", files, self.ports["rabbitmq"])

    def _socket_answers(self) -> None:
        try:
            self.psql("-c", "SELECT 1")
        except subprocess.CalledProcessError as error:
            raise OSError(error.stderr) from error


def read_env(path: Path) -> dict[str, str]:
    """The variables of an .env file."""
    lines = (line for line in path.read_text().splitlines() if line and line[0] != "#")
    return dict(line.split("=", 1) for line in lines)


@contextlib.contextmanager
def _running(daemon: Daemon) -> Iterator[None]:
    try:
        daemon.start()
        yield
    finally:
        daemon.stop()


def _postgres() -> Path | None:
    """The folder of the system's newest PostgreSQL."""
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "postgres").exists()]
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name)), default=None)


def _server_user() -> str | None:
    """Whom servers that refuse root run as; None if we are not root."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {each.pw_name for each in pwd.getpwall()} else "nobody"


def _give(folder: Path, user: str) -> None:
    entry = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _as_user(user: str | None) -> list[str]:
    # The kernel ends the server when the thread that started it ends.
    dying = ["setpriv", "--pdeathsig", "SIGKILL"]
    return dying if user is None else [*dying, "--reuid", user, "--regid", user, "--init-groups"]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()
