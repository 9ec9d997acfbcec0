"""The command line as a person meets it: a process, its output, its exit code."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import exports
import psycopg
import pytest
import redis

from telegram_hybrid import Settings, connect
from telegram_hybrid.embedded.servers import Servers

Environment = dict[str, str]
Run = Callable[..., subprocess.CompletedProcess[str]]

COMMAND = [sys.executable, "-m", "telegram_hybrid"]
_numbers = itertools.count(1)


def clean_environment() -> Environment:
    """The environment without settings that would leak into a test, and with 80 columns."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TELEGRAM_")}
    return {**kept, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"}


def run_command(
    *arguments: object, env: Environment | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=clean_environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def only_object(output: str) -> dict[str, Any]:
    """The one JSON object that is all of `output`."""
    value = json.loads(output)
    assert isinstance(value, dict)
    return value


def only_line(output: str) -> str:
    """The one line that is all of `output`."""
    (line,) = output.splitlines()
    return line


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture
def env(servers: Servers) -> Environment:
    """TELEGRAM_* settings of a database, a cache and a broker that are empty."""
    number = next(_numbers)
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE cli_{number}")
    cache = servers.redis_url.replace("db=0", f"db={number % 16}")
    broker = servers.broker_url.replace("virtual_host=0", f"virtual_host={number % 16}")
    for url in (cache, broker.replace("redis+socket", "unix").replace("virtual_host", "db")):
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    return {
        "TELEGRAM_DATABASE_URL": servers.database_url.replace("/telegram?", f"/cli_{number}?"),
        "TELEGRAM_REDIS_URL": cache,
        "TELEGRAM_BROKER_URL": broker,
    }


@pytest.fixture
def migrated(env: Environment) -> Environment:
    """The same, with the schema in place."""
    with connect(Settings.from_env(env)) as hybrid:
        hybrid.migrate()
    return env


@pytest.fixture
def write_export(tmp_path: Path) -> Callable[..., Path]:
    """Write a channel's export: ids, or raw messages, in a file of the given name."""

    def write(*messages: Any, name: str = "result.json", **fields: Any) -> Path:
        path = tmp_path / name
        raw = [exports.post(item) if isinstance(item, int) else item for item in messages]
        path.write_text(json.dumps(exports.channel(*raw, **fields)))
        return path

    return write
