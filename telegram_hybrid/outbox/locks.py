"""Channel locks: one writer at a time per channel, so that id order is commit order (P3)."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text


def lock_channels(connection: Connection, schema: str, channel_ids: Iterable[int]) -> None:
    """Hold the lock of each channel until this transaction ends; wait for other writers.

    To be taken before any event id of those channels is drawn. The ids are locked in ascending
    order in one statement, so that two writers with the same channels never deadlock; a
    transaction that needs several channels should name them in one call. Transaction-level, so
    a transaction pooler may stand between (P9). Two channels may share a hash: they then wait
    for each other, and nothing else.
    """
    ordered = sorted(set(channel_ids))
    if not ordered:
        return
    connection.execute(
        text(_LOCK),
        {"prefix": f"telegram_hybrid.channel.{schema}.", "channel_ids": ordered},
    )


# MATERIALIZED with ORDER BY: PostgreSQL hands the rows to the locking SELECT in this order. The
# order is that of the lock keys, which is what must be the same for every writer.
_LOCK = """
WITH keys AS MATERIALIZED (
    SELECT DISTINCT hashtextextended(CAST(:prefix AS text) || channel_id, 0) AS key
    FROM unnest(CAST(:channel_ids AS bigint[])) AS channel_id
    ORDER BY key
)
SELECT count(pg_advisory_xact_lock(key)) FROM keys
"""
