"""What a look of the relay costs: by index, and nothing for what is dead or far behind it."""

from __future__ import annotations

from typing import Any

import pytest
from stand import Stand

from telegram_hybrid.connect.postgres import transaction
from telegram_hybrid.outbox import claims
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import SHARDS

pytestmark = pytest.mark.integration

ROWS = 100_000
ROOM = 50
INDEX = "outbox_shard_id"

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


def look(at: Stand, floor: int, frozen: tuple[int, ...] = ()) -> tuple[int, set[str], int]:
    """How many rows the relay's own statement finds from `floor` on in all shards, by which
    indexes of the outbox, and how many blocks it reads."""
    values = {
        "shards": list(range(SHARDS)),
        "floors": [floor] * SHARDS,
        "rooms": [ROOM] * SHARDS,
        "known": list(range(floor, floor + 10)),
        "frozen": list(frozen),
    }
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
    with transaction(at.engine) as connection:
        statement = sql(explain + claims._PENDING, at.schema)
        (plan,) = connection.execute(statement, values).scalar_one()
    root = plan["Plan"]
    blocks = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return root["Actual Rows"], set(scans(root)), blocks


def scans(node: dict[str, Any]) -> list[str]:
    """What reads the outbox: an index by name, or another kind of scan."""
    read = node.get("Relation Name") == "outbox"
    here = [node.get("Index Name", node["Node Type"])] if read else []
    return here + [name for child in node.get("Plans", ()) for name in scans(child)]


def test_a_look_walks_the_index_and_costs_the_same_for_ten_thousand_rows_and_a_hundred_thousand(
    redis_at: Stand,
):
    """Seen to fail without that index, and with `shard = ask.shard`, where the planner took the
    primary key."""
    fill(redis_at, ROWS // 10)
    *few, little = look(redis_at, 0)
    fill(redis_at, ROWS - ROWS // 10)
    *many, blocks = look(redis_at, 0)
    assert few == many == [SHARDS * ROOM, {INDEX}]
    print(f"{SHARDS * ROOM} rows in {little} blocks of {ROWS // 10} rows, {blocks} of {ROWS}")
    assert blocks <= 1.5 * little


def test_a_shard_with_little_does_not_walk_over_one_with_much(redis_at: Stand):
    """Seen to fail with `shard = ask.shard`: the planner took the primary key."""
    fill(redis_at, ROWS, skewed=True)
    rows, index, blocks = look(redis_at, 0)
    print(f"{rows} rows in {blocks} blocks")
    assert index == {INDEX}
    assert blocks < 2 * rows


def test_a_look_from_the_floor_does_not_walk_over_what_was_deleted_while_a_snapshot_is_held(
    redis_at: Stand,
):
    """Seen to fail with `event.id > ask.floor` left out: then it read every dead row."""
    redis_at.execute("ALTER TABLE {s}.outbox SET (autovacuum_enabled = false)")
    with redis_at.engine.connect() as holder:
        holder.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.exec_driver_sql(f"SELECT count(*) FROM {redis_at.schema}.outbox")
        floor = fill(redis_at, ROWS)
        redis_at.execute("DELETE FROM {s}.outbox")
        fill(redis_at, 2 * SHARDS * ROOM)
        rows, kinds, blocks = look(redis_at, floor)
        _, _, from_the_start = look(redis_at, 0)
    print(f"{blocks} blocks from the floor, {from_the_start} from the start")
    assert (rows, kinds) == (SHARDS * ROOM, {INDEX})
    assert 20 * blocks < from_the_start


def test_frozen_channels_are_left_out_by_the_same_walk(redis_at: Stand):
    fill(redis_at, ROWS // 10)
    rows, kinds, _ = look(redis_at, 0, frozen=tuple(range(-1100, -1000)))
    assert rows > 0
    assert kinds == {INDEX}
