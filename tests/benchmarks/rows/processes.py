"""What a whole process costs: import-time, and the memory of an import."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import exports

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.stand import Stand

_FEW, _MANY = 10_000, (1_000_000, 50_000, 50_000)
_DRIVERS = ("sqlalchemy", "redis", "hiredis", "psycopg", "kombu", "msgspec", "attrs", "tenacity")
_IMPORT = """
from time import perf_counter, process_time
begun, burnt = perf_counter(), process_time()
import {names}
print(perf_counter() - begun, process_time() - burnt)
"""


def _importing(names: str) -> Callable[[Stand], AbstractContextManager[Operation]]:
    """Import in a new process, which tells the seconds: its own start is not among them."""
    command = [sys.executable, "-c", _IMPORT.format(names=names)]

    def call(_: object) -> tuple[float, float]:
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        seconds, cpu = map(float, done.stdout.split())
        return seconds, cpu

    @contextmanager
    def opened(_: Stand) -> Iterator[Operation]:
        yield Operation(call=call, tells=True)

    return opened


_LIMIT = Contender(
    "import sqlalchemy, redis",
    Role.LIMIT,
    _importing("sqlalchemy, redis"),
    needs=("sqlalchemy", "redis"),
)
IMPORT_TIME = Benchmark(
    id="import-time",
    what="import telegram_hybrid",
    contenders=(
        Contender("import telegram_hybrid", Role.OURS, _importing("telegram_hybrid")),
        _LIMIT,
    ),
    plan=Plan(rounds=20, calls=1, warmup=1),
    quick=Plan(rounds=5, calls=1, warmup=1),
    aim=Aim(limit=1.3, most=0.4),
)
IMPORT_TIME_CONNECT = Benchmark(
    id="import-time-connect",
    what="import all that the first use of connect() imports",
    contenders=(
        Contender("import telegram_hybrid.hybrid", Role.OURS, _importing("telegram_hybrid.hybrid")),
        _LIMIT,
        Contender(
            "import every driver that it stands on",
            Role.FLOOR,
            _importing("sqlalchemy.dialects.postgresql.psycopg, redis, kombu, alembic, tenacity"),
            needs=_DRIVERS,
        ),
    ),
    plan=Plan(rounds=20, calls=1, warmup=1),
    quick=Plan(rounds=5, calls=1, warmup=1),
)


def _peaks(count: Callable[[Stand], int]) -> Callable[[Stand], AbstractContextManager[Operation]]:
    """Import that many messages in a new process, on embedded servers of its own."""

    @contextmanager
    def opened(stand: Stand) -> Iterator[Operation]:
        with tempfile.TemporaryDirectory(prefix="import-") as folder:
            path = Path(folder) / "export.json"
            _write_export(path, count(stand))
            yield Operation(call=lambda _: _peak_of_import(path), tells=True)

    return opened


def _write_export(path: Path, count: int) -> None:
    """Write a channel's export of generated posts, one at a time."""
    head = json.dumps(exports.channel())
    with path.open("w") as file:
        file.write(head.removesuffix("]}"))
        for number in range(count):
            # A post a minute, from 2010 on: over many partitions, as a long-lived channel is.
            sent = 1_262_304_000 + number * 60
            text = f"post {number}: " + "what was said, " * (number % 20)
            raw = exports.post(number, date_unixtime=str(sent), text=text)
            file.write((",\n" if number else "") + json.dumps(raw))
        file.write("]}")


def _peak_of_import(path: Path) -> tuple[float, float]:
    """Import the file; return the importing process's peak of resident memory in bytes, and 0.

    VmHWM is that peak (proc(5)); the servers are processes of their own and not in it.
    """
    peak = 0
    with tempfile.TemporaryDirectory(prefix="import-data-") as data:
        run = [sys.executable, "-m", "telegram_hybrid", "import", "--json", "--embedded", data]
        with subprocess.Popen([*run, str(path)], stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text()
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        peak = max(peak, int(line.split()[1]) * 1024)
                time.sleep(0.02)
            result = json.loads(process.stdout.read()) if process.stdout else {}
    if not result or result["inserted"] != result["messages_read"]:
        raise RuntimeError(f"the import of {path} told {result}")
    return float(peak), 0.0


# Seen to miss its aim with `list(reader)` given to save_many: the larger import's peak grew with
# the file.
MEMORY = Benchmark(
    id="memory",
    what=f"peak memory of importing {_MANY[0]:,} messages ({_MANY[1]:,} with --quick), "
    f"beside {_FEW:,}",
    unit="B",
    contenders=(
        Contender(
            "the larger import",
            Role.OURS,
            _peaks(lambda stand: stand.sized(_MANY)),
        ),
        Contender("the smaller import", Role.LIMIT, _peaks(lambda stand: _FEW)),
    ),
    plan=Plan(rounds=1, calls=1, warmup=0),
    quick=Plan(rounds=1, calls=1, warmup=0),
    aim=Aim(limit=1.2),
)

ROWS = (IMPORT_TIME, IMPORT_TIME_CONNECT, MEMORY)
