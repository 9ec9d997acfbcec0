"""point-read: one message by its id from the database, out of many partitions of a day.

Without Redis, so every call is the library's whole way to PostgreSQL and back, in a transaction.
The limit says the same statement through psycopg. The alternative looks by channel and id alone, as
one would without the table of keys: it opens every partition there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import attrs
import psycopg

from benchmarks.benchmark import Aim, Benchmark, Contender, Operation, Plan, Role
from benchmarks.posts import CHANNEL, post
from benchmarks.stand import Stand
from telegram_hybrid.hybrid import Hybrid, connect
from telegram_hybrid.model import Message
from telegram_hybrid.repositories.reading import _READ as READ
from telegram_hybrid.schema.postgres.ranges import DAY
from telegram_hybrid.settings import Settings

_PER_DAY = 20
_QUICK_DAYS = 180  # to make 730 partitions, and to drop them, takes most of a minute
_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
_BY_ID_ALONE = (
    "SELECT text, caption, * FROM {schema}.messages WHERE channel_id = %s AND message_id = %s"
)


@attrs.frozen
class _Years:
    """A store with so many daily partitions."""

    stand: Stand
    hybrid: Hybrid
    days: int

    @property
    def schema(self) -> str:
        return self.hybrid.settings.database_schema

    def inputs(self) -> Callable[[int], Sequence[int]]:
        random = Random(1)
        return lambda calls: [random.randrange(self.days * _PER_DAY) for _ in range(calls)]


@contextmanager
def _years(stand: Stand, *, days: int) -> Iterator[_Years]:
    days = stand.sized((days, min(days, _QUICK_DAYS), 5))
    settings = Settings(
        database_url=stand.database_url,
        database_schema=f"bench_days_{days}",
        partition_interval=DAY,
    )
    with connect(settings) as hybrid:
        hybrid.destroy()
        hybrid.migrate()
        try:
            hybrid.messages.save_many(_post(n) for n in range(days * _PER_DAY))
            with stand.psycopg() as connection:
                connection.execute(f"VACUUM ANALYZE {settings.database_schema}.messages")
            yield _Years(stand, hybrid, days)
        finally:
            hybrid.destroy()


def _post(number: int) -> Message:
    at = _BEGIN + number * timedelta(days=1) / _PER_DAY
    return attrs.evolve(post(number), sent_at=at)


def _text(number: int) -> str | None:
    written = _post(number)
    return written.text or written.caption


@contextmanager
def _get(at: _Years) -> Iterator[Operation]:
    messages = at.hybrid.messages

    def call(number: int) -> str | None:
        found = messages.get(CHANNEL, number)
        return found and (found.text or found.caption)

    yield Operation(call=call, inputs=at.inputs())


@contextmanager
def _by_hand(at: _Years) -> Iterator[Operation]:
    statement = READ.replace("{schema}", at.schema)
    for name in ("channel_id", "message_ids", "prefix"):
        statement = statement.replace(f":{name}", f"%({name})s")

    def call(connection: psycopg.Connection[Any], number: int) -> str | None:
        told = {"channel_id": CHANNEL, "message_ids": [number], "prefix": None}
        (row,) = connection.execute(statement, told).fetchall()
        return row[3] or row[4]  # text, caption

    with at.stand.psycopg(prepared=False) as connection:
        yield Operation(call=partial(call, connection), inputs=at.inputs())


@contextmanager
def _by_id_alone(at: _Years) -> Iterator[Operation]:
    statement = _BY_ID_ALONE.format(schema=at.schema)

    def call(connection: psycopg.Connection[Any], number: int) -> str | None:
        (row,) = connection.execute(statement, (CHANNEL, number)).fetchall()
        return row[0] or row[1]

    with at.stand.psycopg(prepared=False) as connection:
        yield Operation(call=partial(call, connection), inputs=at.inputs())


@contextmanager
def _nothing(at: _Years) -> Iterator[Operation]:
    """What a round trip takes on this machine as it is now."""
    with at.stand.psycopg(prepared=False) as connection:
        texts = {number: _text(number) for number in range(at.days * _PER_DAY)}

        def call(number: int) -> str | None:
            connection.execute("SELECT 1").fetchall()
            return texts[number]

        yield Operation(call=call, inputs=at.inputs())


def _of(days: int) -> Benchmark:
    return Benchmark(
        id=f"point-read-{days}",
        what=f"one message by id, from PostgreSQL, {days} partitions of a day"
        f" ({min(days, _QUICK_DAYS)} with --quick)",
        around=partial(_years, days=days),
        expected=_text,
        contenders=(
            Contender("get, without Redis", Role.OURS, _get),
            Contender("the same statement", Role.LIMIT, _by_hand, needs=("psycopg",)),
            Contender("SELECT 1", Role.FLOOR, _nothing, needs=("psycopg",)),
            Contender("by id alone", Role.ALTERNATIVE, _by_id_alone, needs=("psycopg",)),
        ),
        plan=Plan(rounds=7, calls=100, warmup=50),
        quick=Plan(rounds=3, calls=60, warmup=10),
        aim=Aim(most=0.001),
    )


ROWS = (_of(90), _of(730))
