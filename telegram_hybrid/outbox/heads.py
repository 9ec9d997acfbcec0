"""Channel heads: the version that each channel had reached, and what its cache may lack."""

from __future__ import annotations

from collections.abc import Collection, Container

from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import shard_of


def changed(
    connection: Connection, schema: str, shards: Container[int], seconds: float
) -> tuple[dict[int, int], set[int]]:
    """Return {channel_id: version} of the channels in `shards` written to in the last `seconds`.

    And those of them for which a relay has owed an invalidation since then.
    """
    rows = connection.execute(sql(_CHANGED, schema), {"seconds": seconds}).all()
    ours = [row for row in rows if shard_of(row.channel_id) in shards]
    return (
        {row.channel_id: row.version for row in ours},
        {row.channel_id for row in ours if row.owed},
    )


def owe(connection: Connection, schema: str, channel_ids: Collection[int]) -> None:
    """Note that Redis could not be told of the last changes of these channels."""
    if channel_ids:
        connection.execute(sql(_OWE, schema), {"channel_ids": sorted(channel_ids)})


_CHANGED = """
SELECT channel_id, head.version, coalesce(owed.owed_at > since, false) AS owed
FROM (SELECT clock_timestamp() - make_interval(secs => :seconds) AS since) AS time,
     "{schema}".channel_heads AS head
     LEFT JOIN "{schema}".owed_invalidations AS owed USING (channel_id)
WHERE head.changed_at > since OR owed.owed_at > since
"""

_OWE = """
INSERT INTO "{schema}".owed_invalidations (channel_id, owed_at)
SELECT channel_id, clock_timestamp()
FROM unnest(CAST(:channel_ids AS bigint[])) AS channel_id
ON CONFLICT (channel_id) DO UPDATE SET owed_at = EXCLUDED.owed_at
"""
