"""Redis with Sentinel on the loopback interface: a master, a replica and three sentinels.

Debian's redis-server if it is installed, else the Valkey of the wheel; the two speak alike.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from servers.ports import free_ports
from telegram_hybrid.embedded import binaries

MASTER_NAME = "telegram-redis"
#: Seconds of silence after which the sentinels take a node for dead.
DOWN_AFTER = 1.0


class Node:
    """One process: a Redis or a sentinel. `kill` and `stop` may be followed by `start`."""

    def __init__(self, folder: Path, port: int, lines: list[str], *, sentinel: bool) -> None:
        self.port = port
        self.host = "127.0.0.1"
        self._folder = folder
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        own = ["bind 127.0.0.1", f"port {port}", f"dir {folder}", "daemonize no"]
        self._config = folder / "redis.conf"  # a sentinel rewrites it, and so does a failover
        self._config.write_text("\n".join([*own, *lines]) + "\n")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers (even if only to ask for a password)."""
        if self._process is not None and self._process.poll() is None:
            return
        program = shutil.which("redis-server") or str(binaries.find(None).redis_server)
        command = ["setpriv", "--pdeathsig", "SIGKILL", program, str(self._config)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--sentinel"] if self._sentinel else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                with redis.Redis(port=self.port, socket_timeout=1, retry=None) as client:
                    client.ping()
            except (redis.AuthenticationError, redis.ResponseError):
                return
            except (redis.ConnectionError, redis.TimeoutError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()[-2000:]) from None
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def ask(self, *command: Any, password: str | None = None) -> Any:
        """One command on a connection of its own, the plainest of answers."""
        with redis.Redis(port=self.port, socket_timeout=5, password=password) as client:
            return client.execute_command(*command)

    def is_master(self, password: str | None = None) -> bool:
        return bool(self.ask("ROLE", password=password)[0] == b"master")

    def _signal(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)


class RedisHA:
    """A master, replicas and three sentinels with quorum 2, each on a port of its own.

    `hostnames` has everything announced as "localhost". Ready in about 3 seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        password: str = "",
        sentinel_password: str = "",
        hostnames: bool = False,
    ) -> None:
        ports = free_ports(1 + replicas + 3)
        host = "localhost" if hostnames else "127.0.0.1"
        self.password, self.sentinel_password = password, sentinel_password
        lines = ["appendonly yes", "appendfsync no", 'save ""', "repl-diskless-sync-delay 0"]
        lines += [f"requirepass {password}", f"masterauth {password}"] if password else []
        lines += [f"replica-announce-ip {host}"] if hostnames else []
        self.nodes = [
            Node(
                folder / f"node{number}",
                port,
                lines + ([f"replicaof {host} {ports[0]}"] if number else []),
                sentinel=False,
            )
            for number, port in enumerate(ports[: 1 + replicas])
        ]
        watch = ["sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"]
        watch = watch if hostnames else []
        watch += [
            f"sentinel monitor {MASTER_NAME} {host} {ports[0]} 2",
            f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER * 1000:.0f}",
            f"sentinel failover-timeout {MASTER_NAME} 10000",
        ]
        watch += [f"sentinel auth-pass {MASTER_NAME} {password}"] if password else []
        if sentinel_password:
            watch += [f"requirepass {sentinel_password}"]
            watch += [f"sentinel sentinel-pass {sentinel_password}"]
        self.sentinels = [
            Node(folder / f"sentinel{number}", port, watch, sentinel=True)
            for number, port in enumerate(ports[1 + replicas :])
        ]

    @staticmethod
    def available() -> str | None:
        """None when it can be started here, else what is missing and how to get it."""
        if not shutil.which("setpriv"):
            return "setpriv is not installed (apt-get install util-linux)"
        return None

    @property
    def hosts(self) -> str:
        """The sentinels, as a URL lists them."""
        return ",".join(each.address for each in self.sentinels)

    def url(self, options: str = "", *, hosts: str | None = None) -> str:
        """A URL that leads to the master through the sentinels."""
        user = f":{self.password}@" if self.password else ""
        return f"redis+sentinel://{user}{hosts or self.hosts}/{MASTER_NAME}/0?{options}"

    def master(self) -> Node:
        """The node that the sentinels name, agreeing."""
        named = {self.named_by(each) for each in self.sentinels}
        (port,) = named
        return next(each for each in self.nodes if each.port == port)

    def named_by(self, sentinel: Node) -> int:
        """The port of the master that one sentinel names."""
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        return int(sentinel.ask(*command, password=self.sentinel_password or None)[1])

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until all sentinels know all nodes, nothing is down and the replicas follow."""
        deadline = time.monotonic() + seconds
        while not self._settled():
            if time.monotonic() > deadline:
                raise RuntimeError("the sentinels did not come to an agreement")
            time.sleep(0.05)

    def _settled(self) -> bool:
        password = self.sentinel_password or None
        for sentinel in self.sentinels:
            facts = sentinel.ask("SENTINEL", "MASTER", MASTER_NAME, password=password)
            if isinstance(facts, list):
                facts = dict(zip(facts[::2], facts[1::2], strict=True))
            said = {_text(name): _text(value) for name, value in facts.items()}
            if said["flags"] != "master" or int(said["num-other-sentinels"]) < 2:
                return False
            if int(said["num-slaves"]) < len(self.nodes) - 1:
                return False
        roles = [each.ask("ROLE", password=self.password or None) for each in self.nodes]
        states = [role[3] for role in roles if role[0] == b"slave"]
        return states == [b"connected"] * (len(self.nodes) - 1)

    def __enter__(self) -> Self:
        try:
            for each in [*self.nodes, *self.sentinels]:
                each.start()
            self.settle()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything."""
        for each in [*self.sentinels, *self.nodes]:
            each.kill()


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)
