"""Channel heads: the version that each channel had reached when it was last written to."""

from __future__ import annotations

from collections.abc import Container

from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql
from telegram_hybrid.schema.postgres.tables import shard_of


def changed(
    connection: Connection, schema: str, shards: Container[int], seconds: float
) -> dict[int, int]:
    """Return {channel_id: version} of the channels in `shards` written to in the last `seconds`."""
    rows = connection.execute(sql(_CHANGED, schema), {"seconds": seconds})
    return {channel_id: version for channel_id, version in rows if shard_of(channel_id) in shards}


_CHANGED = """
SELECT channel_id, version FROM "{schema}".channel_heads
WHERE changed_at > clock_timestamp() - make_interval(secs => :seconds)
"""
