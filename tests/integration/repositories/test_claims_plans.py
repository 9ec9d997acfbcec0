"""Claims: what a look at what waits reads, and by which index, on every kind of PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection

from telegram_hybrid import Hybrid
from telegram_hybrid.repositories import claiming
from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.testing import make_message

pytestmark = pytest.mark.integration


def execute(hybrid: Hybrid, statement: str, **values: object) -> None:
    with hybrid.transaction() as tx:
        tx.connection.execute(sql(statement, hybrid.settings.database_schema), values)


def nodes(plan: Any) -> Iterator[Any]:
    """A plan and what is below it."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def touched(node: Any) -> bool:
    """Whether it met any row."""
    return bool(node["Actual Rows"] or node.get("Rows Removed by Filter"))


FILL = """
INSERT INTO "{schema}".messages (channel_id, message_id, sent_at, version, source, message_type,
                                 text, entities, media, metadata, status)
SELECT -1 - n % 20, n, '2024-01-10'::timestamptz + n * interval '5 minutes', n, 'bot',
       'channel_post', 'BUY', '[]', '[]', '{}', 'published'
FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
"""


def test_a_look_reads_what_waits_and_nothing_of_what_is_done(hybrid: Hybrid) -> None:
    # Also by a plan that was made, and is kept, while the partitions were known to be empty.
    # Broken on purpose: without `enable_seqscan` off in the function, and with a plain join in
    # place of OFFSET 0, the second look reads 28,000 and 128,000 blocks; with an index of all
    # messages, or on channel_id alone, 125,000, and `pending` hundreds.
    schema = hybrid.settings.database_schema
    values = {
        "worker": "a",
        "limit": 10,
        "lease": 60.0,
        "channels": None,
        "since": "-infinity",
        "channel_id": -3,
        "claimed": False,
    }
    for month in range(1, 7):
        execute(hybrid, 'SELECT "{schema}".ensure_message_partition(:at)', at=f"2024-{month:02}-15")
    execute(hybrid, 'ANALYZE "{schema}".messages')

    def look(connection: Connection, statement: str) -> tuple[int, list[Any]]:
        """How many blocks it reads, and the nodes of the outermost plan."""
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)" + statement
        (plan,) = connection.execute(sql(explain, schema), values).scalar_one()
        connection.rollback()
        whole = plan["Plan"]
        return whole["Shared Hit Blocks"] + whole["Shared Read Blocks"], list(nodes(whole))

    with hybrid.engine.connect() as connection:
        for _ in range(8):
            look(connection, claiming._CLAIM)
        hybrid.messages.save_many(
            make_message(channel_id=-1 - number % 20, message_id=100_000 + number)
            for number in range(60)
        )
        # Claims that have not ended, and are walked over.
        hybrid.messages.claim("other", limit=20)
        statements = (claiming._CLAIM, claiming._PENDING)
        before = [look(connection, each)[0] for each in statements]
        execute(hybrid, FILL, first=1, last=40_000)
        after = [look(connection, each) for each in statements]
    print(f"claim, pending: {before} blocks of 60 rows, {[read for read, _ in after]} of 40,060")
    for little, (much, plan) in zip(before, after, strict=True):
        assert much < 3 * little
        assert not [node for node in plan if node["Node Type"] == "Seq Scan" and touched(node)]
    indexes = {str(node.get("Index Name")) for node in after[1][1] if touched(node)}
    # A partition's is named for its columns, a chunk's for the index.
    assert [name for name in indexes if re.search("sent_at_message_id|unprocessed", name)]
    assert not [name for name in indexes if re.search("messages.*pkey", name)]
