"""Leases: which relay owns which shards of the outbox, for how long, and since which epoch.

A lease is a row, not a lock, so that it crosses a transaction pooler (P9) and outlives a broken
connection. Its times are the database's clock. The epoch is the fencing token: it grows whenever
a shard changes hands, and whatever a relay removes is removed only while its epoch still stands.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from sqlalchemy import Connection

from telegram_hybrid.schema.postgres.sql import sql


@attrs.frozen(slots=True)
class Lease:
    """The shards that `owner` held when it last asked, each with its epoch."""

    owner: str
    epochs: Mapping[int, int] = attrs.field(factory=dict)

    @property
    def shards(self) -> list[int]:
        """The shard numbers, ascending."""
        return sorted(self.epochs)


def acquire(connection: Connection, schema: str, held: Lease, *, seconds: float) -> Lease:
    """Renew what `held.owner` has, take what is free or expired, and return the lease for it all.

    A shard keeps its epoch only if `held` names that epoch. So a relay that was restarted under
    its old name begins with `Lease(name)`, gets its shards back at once, and fences off whatever
    its predecessor might still have under way.
    """
    rows = connection.execute(
        sql(_ACQUIRE, schema),
        {
            "owner": held.owner,
            "seconds": seconds,
            "shards": list(held.epochs.keys()),
            "epochs": list(held.epochs.values()),
        },
    )
    return Lease(held.owner, {shard: epoch for shard, epoch in rows})  # noqa: C416


def release(connection: Connection, schema: str, lease: Lease) -> None:
    """Give the shards back, so that others need not wait for the lease to expire."""
    connection.execute(
        sql(_RELEASE, schema),
        {
            "owner": lease.owner,
            "shards": list(lease.epochs.keys()),
            "epochs": list(lease.epochs.values()),
        },
    )


# SKIP LOCKED: a shard that another relay is taking at this moment is not worth waiting for.
_ACQUIRE = """
WITH mine AS (
    SELECT relay_shards.shard, held.epoch AS held_epoch
    FROM "{schema}".relay_shards
    LEFT JOIN unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[]))
        AS held (shard, epoch) ON held.shard = relay_shards.shard
    WHERE relay_shards.owner IS NULL OR relay_shards.owner = :owner
       OR relay_shards.expires_at <= clock_timestamp()
    ORDER BY relay_shards.shard
    FOR UPDATE OF relay_shards SKIP LOCKED
)
UPDATE "{schema}".relay_shards AS lease
SET epoch = CASE WHEN lease.owner = :owner AND lease.epoch = mine.held_epoch THEN lease.epoch
                 ELSE lease.epoch + 1 END,
    owner = :owner,
    expires_at = clock_timestamp() + make_interval(secs => :seconds)
FROM mine
WHERE lease.shard = mine.shard
RETURNING lease.shard, lease.epoch
"""

_RELEASE = """
UPDATE "{schema}".relay_shards AS lease
SET owner = NULL, expires_at = NULL
FROM unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS held (shard, epoch)
WHERE lease.shard = held.shard AND lease.epoch = held.epoch AND lease.owner = :owner
"""
