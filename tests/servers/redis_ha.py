"""Redis and Sentinel on the deployment's files: what tests ask one of them, and all together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from servers.daemon import Daemon

MASTER_NAME = "telegram-redis"


class Node(Daemon):
    """A Redis or a sentinel; `config` is its file, which it rewrites."""

    def __init__(
        self, config: Path, port: int, password: str, user: str | None, *, sentinel: bool = False
    ) -> None:
        self.config, self.port, self.password, self.host = config, port, password, "127.0.0.1"
        command = ["redis-server", str(config), *(["--sentinel"] if sentinel else [])]
        super().__init__(config.parent.name, command, config.parent, self._serves, user=user)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """A plain client of this server alone."""
        told = {"port": self.port, "password": self.password, "socket_timeout": 5.0}
        return redis.Redis(**told | options)

    def ask(self, *command: Any) -> Any:
        """One command on a connection of its own, the plainest of answers."""
        with self.client() as client:
            return client.execute_command(*command)

    def is_master(self) -> bool:
        return bool(self.ask("ROLE")[0] == b"master")

    def _serves(self) -> bool:
        try:
            with self.client(socket_timeout=1.0, retry=None) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class RedisHA:
    """A master, its replicas and three sentinels."""

    def __init__(self, nodes: Sequence[Node], sentinels: Sequence[Node]) -> None:
        self.nodes, self.sentinels = list(nodes), list(sentinels)
        self.password, self.sentinel_password = nodes[0].password, sentinels[0].password

    @property
    def all(self) -> list[Node]:
        return [*self.nodes, *self.sentinels]

    @property
    def hosts(self) -> str:
        """The sentinels, as a URL lists them."""
        return ",".join(each.address for each in self.sentinels)

    def url(self, options: str = "", *, hosts: str | None = None) -> str:
        """A URL that leads to the master through the sentinels."""
        place = f":{self.password}@{hosts or self.hosts}/{MASTER_NAME}/0"
        more = f"&{options}" if options else ""
        return f"redis+sentinel://{place}?sentinel_password={self.sentinel_password}{more}"

    def master(self) -> Node:
        """The node that the sentinels name, agreeing."""
        (port,) = {self.named_by(each) for each in self.sentinels}
        return next(each for each in self.nodes if each.port == port)

    def named_by(self, sentinel: Node) -> int:
        """The port of the master that one sentinel names."""
        return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])

    def start(self) -> None:
        """Start what does not run, and wait until they agree."""
        self.spawn()
        for each in self.all:
            each.wait()
        self.settle()

    def spawn(self, seconds: float = 30.0) -> None:
        """Start what does not run; the sentinels once every replica follows its master.

        A sentinel asks a master for its replicas when it first meets it, and then every 10 s.
        """
        for each in self.nodes:
            each.spawn()
        for each in self.nodes:
            each.wait()
        wait(self._following, seconds, "the replicas did not follow")
        for each in self.sentinels:
            each.spawn()

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until all sentinels know all nodes, nothing is down and the replicas follow."""
        wait(self._settled, seconds, "the sentinels did not come to an agreement")

    def _following(self) -> bool:
        roles = [each.ask("ROLE") for each in self.nodes]
        return all(role[3] == b"connected" for role in roles if role[0] == b"slave")

    def _settled(self) -> bool:
        masters = set()
        for sentinel in self.sentinels:
            with sentinel.client(decode_responses=True) as client:
                said = client.sentinel_master(MASTER_NAME)
            masters.add(said["port"])
            if said["flags"] != "master" or said["num-other-sentinels"] < 2:
                return False
            if said["num-slaves"] < len(self.nodes) - 1:
                return False
        replicas = len(self.nodes) - sum(each.is_master() for each in self.nodes)
        return len(masters) == 1 and replicas == len(self.nodes) - 1 and self._following()


def wait(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    """Wait until `condition` holds. Raises RuntimeError, saying `failure`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{failure} within {seconds:g} s")
        time.sleep(0.05)
