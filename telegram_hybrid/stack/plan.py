"""Plan: what may differ between deployments, and the values that it gives the files."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

from telegram_hybrid.delivery.topology import DELIVERY_LIMIT
from telegram_hybrid.errors import InvalidInput
from telegram_hybrid.schema.broker import Topology
from telegram_hybrid.stack.credentials import Secrets, rabbitmq_hash, scram_verifier

#: Each listener's name and its port in this stack.
PORTS = {
    "postgres": 5434,
    "pgbouncer": 6434,
    "redis": 6379,
    "replica": 6380,
    "sentinel-1": 26379,
    "sentinel-2": 26380,
    "sentinel-3": 26381,
    "rabbitmq": 5672,
    "management": 15672,
}
SENTINELS = (1, 2, 3)
#: Folders of the data of native servers, under the deployment's own.
DATA = ("postgres", "redis-master", "redis-replica", "sentinel-1", "sentinel-2", "sentinel-3")
#: Longest path of a unix socket in bytes (unix(7)), without its closing NUL.
_SOCKET_PATH = 107
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@+-]*")
_HANDLER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@attrs.frozen(kw_only=True)
class Plan:
    """How a deployment is to be: in containers or, `native`, for servers of this machine.

    `ports` replaces some of `PORTS`; all are bound to 127.0.0.1 on this machine. `timescaledb`
    preloads it; None means where there are containers, whose image has it. `python` is the
    interpreter of the systemd units, `handler` the "module:function" of the consumer's (None:
    it prints events). Raises `InvalidInput` naming the field.
    """

    native: bool = False
    ports: Mapping[str, int] = attrs.field(factory=dict)
    timescaledb: bool | None = None
    python: str = attrs.field(factory=lambda: sys.executable)
    handler: str | None = None

    def __attrs_post_init__(self) -> None:
        for name, number in self.ports.items():
            if name not in PORTS:
                raise InvalidInput("ports", f"{name!r} is none of {', '.join(PORTS)}")
            if not 0 < number < 65536:
                raise InvalidInput("ports", f"{name}: {number} is not a port number")
        taken = list(self.all_ports.values())
        if twice := {number for number in taken if taken.count(number) > 1}:
            raise InvalidInput("ports", f"{min(twice)} is given to two listeners")
        _plain_path("python", self.python)
        if self.handler is not None and not _HANDLER.fullmatch(self.handler):
            raise InvalidInput("handler", f"{self.handler!r} is not MODULE:FUNCTION")

    @property
    def all_ports(self) -> dict[str, int]:
        """Every listener's port."""
        return {**PORTS, **self.ports}

    def values(self, directory: Path, secrets: Secrets) -> dict[str, str]:
        """The values of the files' placeholders; `directory` is absolute."""
        root = _plain_path("directory", str(directory))
        sockets = f"{root}/run" if self.native else "/var/run/postgresql"
        if len(f"{sockets}/.s.PGSQL.{self.all_ports['postgres']}") > _SOCKET_PATH:
            raise InvalidInput("directory", f"{root} is too long for a unix socket in it")
        timescaledb = not self.native if self.timescaledb is None else self.timescaledb
        topology = Topology()
        return {
            **{f"{name.replace('-', '_')}_port": str(n) for name, n in self.all_ports.items()},
            **secrets.values(),
            "database_verifier": scram_verifier(secrets.database_password),
            "pooler_verifier": scram_verifier(secrets.pooler_password),
            "broker_hash": rabbitmq_hash(secrets.broker_password),
            "broker_admin_hash": rabbitmq_hash(secrets.broker_admin_password),
            "directory": root,
            "database": "telegram",
            "master_name": "telegram-redis",
            "exchange": topology.exchange,
            "dead_letter_exchange": topology.dead_letter_exchange,
            "dead_letter_queue": topology.dead_letter_queue,
            "dead_letter_queue_pattern": topology.dead_letter_queue.replace(".", r"\\."),
            # What stands from the start: consumers make queues, and nobody takes these away.
            "topology_pattern": r"messages(\\.dl[xq])?",
            "delivery_limit": str(DELIVERY_LIMIT),
            "preload_libraries": ("timescaledb," if timescaledb else "") + "pg_stat_statements",
            "python": self.python,
            "consume": self.handler or "--queue telegram.events",
            "postgres_host": self._host("timescaledb"),
            "postgres_sockets": sockets,
            "postgres_data": self._data(root, "postgres", "/var/lib/postgresql/data"),
            "postgres_files": self._files(root, "postgres"),
            "pgbouncer_files": self._files(root, "pgbouncer"),
            "rabbitmq_files": self._files(root, "rabbitmq"),
            "address_map": self._address_map(),
            "redis_host": self._host("redis-master"),
            # In containers the network is private and loopback the only way in from outside.
            "listen": "127.0.0.1" if self.native else "*",
            "redis_bind": "127.0.0.1" if self.native else "* -::*",
            "rabbitmq_listen": "127.0.0.1" if self.native else "0.0.0.0",  # noqa: S104
        }

    def redis_values(self, directory: Path, role: str) -> dict[str, str]:
        """What only the file of one Redis has; `role` is "master" or "replica"."""
        master = f"{self._host('redis-master')} {self.all_ports['redis']}"
        return {
            "role": f"the first {role}",
            "host": self._host(f"redis-{role}"),
            "port": str(self.all_ports["redis" if role == "master" else "replica"]),
            "data": self._data(str(directory), f"redis-{role}", "/data"),
            "replication": f"replicaof {master}\n" if role == "replica" else "",
        }

    def sentinel_values(self, directory: Path, number: int) -> dict[str, str]:
        """What only the file of Sentinel `number` (1 to 3) has."""
        name = f"sentinel-{number}"
        return {
            "number": str(number),
            "host": self._host(name),
            "port": str(self.all_ports[name]),
            "data": self._data(str(directory), name, "/data"),
        }

    def _address_map(self) -> str:
        """The line of .env that tells this machine where announced container names are."""
        if self.native:
            return ""
        names = {"redis": "redis-master", "replica": "redis-replica"}
        names |= {f"sentinel-{number}": f"sentinel-{number}" for number in SENTINELS}
        pairs = (f"{names[n]}:{p}=127.0.0.1:{p}" for n, p in self.all_ports.items() if n in names)
        return f"TELEGRAM_REDIS_ADDRESS_MAP={','.join(pairs)}\n"

    def _host(self, service: str) -> str:
        return "127.0.0.1" if self.native else service

    def _files(self, root: str, service: str) -> str:
        return f"{root}/{service}" if self.native else "/etc/stack"

    def _data(self, root: str, name: str, in_container: str) -> str:
        return f"{root}/data/{name}" if self.native else in_container


def _plain_path(field: str, path: str) -> str:
    """`path`, if no configuration language of the deployment's reads anything else in it."""
    if not _PLAIN_PATH.fullmatch(path):
        raise InvalidInput(
            field, f"{path!r} is not an absolute path of letters, digits and _ . / @ + - only"
        )
    return path
