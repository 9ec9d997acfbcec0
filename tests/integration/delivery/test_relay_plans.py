"""What a look of the relay costs: by index, and nothing for what is dead or far behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest
from servers.stack import NativeStack
from sqlalchemy import Connection
from stand import Stand, stand

from telegram_hybrid.outbox import claims
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import SHARDS

pytestmark = pytest.mark.integration

ROWS = 100_000
ROOM = 50

_FILL = """
INSERT INTO {s}.outbox (shard, event_id, type, channel_id, message_id, payload)
SELECT CASE WHEN :skewed AND n % 100 > 0 THEN 0 ELSE n % 16 END, gen_random_uuid(),
       'message.received', -1001 - n % 160, n, '{{"text": "some words"}}'
FROM generate_series(1, CAST(:rows AS integer)) AS n
"""


def fill(at: Stand, rows: int, *, skewed: bool = False) -> int:
    """Put events into the outbox, most of them into one shard if it is to be skewed; return the
    id of the last one."""
    at.execute(_FILL, rows=rows, skewed=skewed)
    at.execute("ANALYZE {s}.outbox")
    last: int = at.value("SELECT max(id) FROM {s}.outbox")
    return last


@contextmanager
def session(at: Stand) -> Iterator[Connection]:
    """One connection, on which each statement is a transaction of its own."""
    with at.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def look(connection: Connection, at: Stand, floor: int) -> tuple[int, int]:
    """How many rows the relay's own statement finds from `floor` on in all shards, and how many
    blocks it reads, once the session has a plan that it keeps."""
    values = {
        "shards": list(range(SHARDS)),
        "floors": [floor] * SHARDS,
        "rooms": [ROOM] * SHARDS,
        "known": list(range(floor, floor + 10)),
    }
    for _ in range(8):
        rows = connection.execute(sql(claims._PENDING, at.schema), values).all()
    statement = sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)" + claims._PENDING, at.schema)
    (plan,) = connection.execute(statement, values).scalar_one()
    read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return sum(row.kind == "event" for row in rows), read


def deleting(connection: Connection, at: Stand, ids: range) -> int:
    """How many blocks it takes to delete these, a tenth at a time, at most."""
    at.execute("UPDATE {s}.relay_shards SET owner = 'me', epoch = 1, expires_at = 'infinity'")
    statement = sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)" + claims._DELETE, at.schema)
    lease = {"owner": "me", "shards": list(range(SHARDS)), "epochs": [1] * SHARDS, "server": None}
    blocks = 0
    for tenth in range(10):  # a session's first ones have plans of their own
        (plan,) = connection.execute(statement, lease | {"ids": list(ids[tenth::10])}).scalar_one()
        blocks = max(blocks, plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
    left = at.value(f"SELECT count(*) FROM {{s}}.outbox WHERE id BETWEEN {ids[0]} AND {ids[-1]}")
    assert left == 0
    return blocks


def test_a_deletion_reads_its_rows_and_no_others(stack: NativeStack, redis_at: Stand):
    """Also of a table that came to be large since anybody counted it.

    On the deployment's PostgreSQL, which is older than the embedded one: 17 learned to look for
    many ids at once. Seen to fail with `shard IN (SELECT ...)`: it looked for each in every shard.
    """
    stack.start(stack.postgres)
    settings = attrs.evolve(redis_at.settings, database_url=stack.settings.database_url)
    with stand(settings) as at, session(at) as connection:
        at.execute("ALTER TABLE {s}.outbox SET (autovacuum_enabled = false)")
        at.execute(_FILL, rows=ROWS // 10, skewed=False)
        little = deleting(connection, at, range(1, 5_001))
        at.execute(_FILL, rows=ROWS, skewed=False)
        much = deleting(connection, at, range(20_001, 25_001))
    print(f"500 rows are deleted by {little} blocks of few rows, {much} of {ROWS}")
    assert max(little, much) <= 10 * 500


def test_a_look_costs_the_same_for_ten_thousand_rows_and_a_hundred_thousand(redis_at: Stand):
    """Seen to fail without its index."""
    with session(redis_at) as connection:
        fill(redis_at, ROWS // 10)
        few, little = look(connection, redis_at, 0)
        fill(redis_at, ROWS - ROWS // 10)
        many, blocks = look(connection, redis_at, 0)
    assert few == many == SHARDS * ROOM
    print(f"{SHARDS * ROOM} rows in {little} blocks of {ROWS // 10} rows, {blocks} of {ROWS}")
    assert blocks <= 1.5 * little


def test_a_plan_made_for_an_empty_outbox_serves_for_a_full_one(redis_at: Stand):
    """Seen to fail without `enable_seqscan` and `enable_bitmapscan` in the function, and with
    `shard` in place of `shard + 0`: the plan of the empty table was kept."""
    redis_at.execute("ALTER TABLE {s}.outbox SET (autovacuum_enabled = false)")
    with session(redis_at) as connection:
        look(connection, redis_at, 0)
        redis_at.execute(_FILL, rows=ROWS, skewed=False)  # and no ANALYZE, which ends plans
        rows, blocks = look(connection, redis_at, 0)
    print(f"{rows} rows in {blocks} blocks")
    assert rows == SHARDS * ROOM
    assert blocks < 2 * rows


def test_a_shard_with_little_does_not_walk_over_one_with_much(redis_at: Stand):
    """Seen to fail with `shard = ask.shard`: the planner took the primary key."""
    fill(redis_at, ROWS, skewed=True)
    with session(redis_at) as connection:
        rows, blocks = look(connection, redis_at, 0)
    print(f"{rows} rows in {blocks} blocks")
    assert rows == 4 * ROOM
    assert blocks < 2 * rows


def test_a_look_from_the_floor_does_not_walk_over_what_was_deleted_while_a_snapshot_is_held(
    redis_at: Stand,
):
    """Seen to fail with `ask.floor` left out: then it read every dead row."""
    redis_at.execute("ALTER TABLE {s}.outbox SET (autovacuum_enabled = false)")
    with redis_at.engine.connect() as holder, session(redis_at) as connection:
        holder.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.exec_driver_sql(f"SELECT count(*) FROM {redis_at.schema}.outbox")
        floor = fill(redis_at, ROWS)
        redis_at.execute("DELETE FROM {s}.outbox")
        fill(redis_at, 2 * SHARDS * ROOM)
        rows, blocks = look(connection, redis_at, floor)
        _, from_the_start = look(connection, redis_at, 0)
    print(f"{blocks} blocks from the floor, {from_the_start} from the start")
    assert rows == SHARDS * ROOM
    assert 20 * blocks < from_the_start


def test_frozen_channels_are_left_out_by_the_same_walk(redis_at: Stand):
    fill(redis_at, ROWS // 10)
    redis_at.execute(
        "UPDATE {s}.outbox SET not_before = 'infinity' WHERE id IN"
        " (SELECT min(id) FROM {s}.outbox WHERE channel_id > -1081 GROUP BY channel_id)"
    )
    with session(redis_at) as connection:
        rows, blocks = look(connection, redis_at, 0)
    print(f"{rows} rows in {blocks} blocks")
    assert rows == SHARDS * ROOM
    assert blocks < 4 * rows
